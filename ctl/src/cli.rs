//! The command line: every verb and where it leads.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use reeve_api::clock::RealClock;

use crate::backup;
use crate::backup::args::{BackupArgs, BackupCommand, RestoreArgs, StoreCommand};
use crate::cluster::args::{DownArgs, UpArgs};
use crate::cluster::server::args::ServerArgs;
use crate::engine::EngineArgs;
use crate::images;
use crate::kubectl::api::warnings;
use crate::kubectl::args::GlobalArgs;
use crate::kubectl::connect::connect;
use crate::kubectl::error::CliError;
use crate::kubectl::label::Part;
use crate::kubectl::{
    api_resources, apply, cluster_info, config, cordon, create, delete, describe, edit, events, exec, explain, expose,
    get, label, logs, patch, port_forward, replace, run as run_pod, version, wait, workload,
};
use crate::servers::{member, token};

/// A Kubernetes-compatible cluster in one binary.
#[derive(Debug, Parser)]
#[command(name = "reeve", disable_version_flag = true, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a one-node cluster on this machine
    Up(UpArgs),
    /// Stop a cluster of this machine
    Down(DownArgs),
    /// Keep everything of a cluster in a file
    Backup(Box<BackupArgs>),
    /// Make a cluster of a backup
    Restore(RestoreArgs),
    /// Look after a cluster's store
    #[command(subcommand)]
    Store(StoreCommand),
    /// Run a server of a control plane; several make one that survives the loss of some
    Server(ServerArgs),
    /// Run the container engine alone, for crictl and kubelets: CRI v1 on a Unix socket
    Engine(EngineArgs),
    /// Make, list and delete the tokens by which servers join a control plane
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List, add, remove, promote and replace the servers of a control plane
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Build an image from a Dockerfile for a cluster of this machine
    Build(images::build::BuildArgs),
    /// Load, list, remove, name, save and fetch the images of a cluster of this machine
    #[command(subcommand)]
    Image(images::image::ImageCommand),
    /// Bring objects to what files say
    Apply(apply::ApplyArgs),
    /// Make objects
    Create(create::CreateArgs),
    /// Show objects
    Get(get::GetArgs),
    /// Put whole objects in the place of those that are there
    Replace(replace::ReplaceArgs),
    /// Remove objects
    Delete(delete::DeleteArgs),
    /// Show everything worth knowing about objects
    Describe(describe::DescribeArgs),
    /// Show what containers print
    Logs(logs::LogsArgs),
    /// Run a command in a container
    Exec(exec::ExecArgs),
    /// Join a running container's streams
    Attach(exec::AttachArgs),
    /// Lead local ports to ports of a pod
    PortForward(port_forward::PortForwardArgs),
    /// Set the number of replicas
    Scale(workload::ScaleArgs),
    /// Follow, undo or repeat rollouts
    #[command(subcommand)]
    Rollout(workload::RolloutCommand),
    /// Set parts of objects
    #[command(subcommand)]
    Set(workload::SetCommand),
    /// Wait until objects are as wanted
    Wait(wait::WaitArgs),
    /// Set and remove labels
    Label(label::LabelArgs),
    /// Set and remove annotations
    Annotate(label::LabelArgs),
    /// Change parts of objects
    Patch(patch::PatchArgs),
    /// Change an object in an editor
    Edit(edit::EditArgs),
    /// Make a Service for what a workload selects
    Expose(expose::ExposeArgs),
    /// Run a pod from an image
    Run(run_pod::RunArgs),
    /// Let a node take no new pods
    Cordon(cordon::CordonArgs),
    /// Let a node take new pods again
    Uncordon(cordon::CordonArgs),
    /// Show what happened
    Events(events::EventsArgs),
    /// Show what fields mean
    Explain(explain::ExplainArgs),
    /// Show where the cluster is
    ClusterInfo,
    /// Show and change the kubeconfig
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Show the resources that the server offers
    ApiResources(api_resources::ApiResourcesArgs),
    /// Show the API versions that the server offers
    ApiVersions,
    /// Show the versions of this program and of the server
    Version(version::VersionArgs),
}

impl Cli {
    /// What must be done before there is a second thread.
    pub(crate) fn prepare(&self) {
        if matches!(self.verb, Verb::Build(_)) {
            images::build::leave_mounts();
        }
    }

    /// Runs `up`, `down`, `server` and `engine`, which need a process of one thread; gives every other command line
    /// back.
    pub(crate) fn run_cluster_verb(self) -> Result<Self, ExitCode> {
        let outcome = match &self.verb {
            Verb::Up(args) => crate::cluster::up::run(args, &RealClock::new()),
            Verb::Down(args) => crate::cluster::down::run(args),
            Verb::Server(args) => crate::cluster::server::run(args, self.global.token.as_deref()),
            Verb::Engine(args) => match self.global.refuse_connection("the engine talks to no API server") {
                Ok(()) => crate::engine::run(args),
                Err(err) => {
                    eprintln!("{err}");
                    return Err(ExitCode::FAILURE);
                }
            },
            _ => return Ok(self),
        };
        Err(match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(err) => {
                eprintln!("error: {err}");
                ExitCode::FAILURE
            }
        })
    }
}

/// Runs one command line to its end.
pub(crate) async fn run(cli: Cli) -> ExitCode {
    let warnings_as_errors = cli.global.warnings_as_errors;
    match dispatch(cli).await {
        Ok(()) if warnings_as_errors && warnings() > 0 => {
            let number = warnings();
            eprintln!("error: {number} {} received", if number == 1 { "warning" } else { "warnings" });
            ExitCode::FAILURE
        }
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            let text = err.to_string();
            if !text.is_empty() {
                eprintln!("{text}");
            }
            ExitCode::from(err.code())
        }
    }
}

async fn dispatch(cli: Cli) -> Result<(), CliError> {
    let global = cli.global;
    match cli.verb {
        // Done before there was a runtime.
        Verb::Up(_) | Verb::Down(_) | Verb::Server(_) | Verb::Engine(_) => Ok(()),
        Verb::Backup(args) => back_up(*args, &global).await,
        Verb::Restore(args) => backup::restore::run(&args).map_err(|err| CliError::plain(err.to_string())),
        Verb::Store(StoreCommand::Verify(args)) => backup::verify::run(&args, connect(&global)).await,
        Verb::Token(command) => token::run(command, &connect(&global).await?).await,
        Verb::Member(command) => member::run(command, &connect(&global).await?).await,
        Verb::Build(mut args) => {
            args.store.settle(&global)?;
            images::build::run(args).await
        }
        Verb::Image(mut command) => {
            command.store_mut().settle(&global)?;
            images::image::run(command).await
        }
        Verb::Apply(args) => apply::run(args, &connect(&global).await?).await,
        Verb::Create(args) => create::run(args, &connect(&global).await?).await,
        Verb::Get(args) => get::run(args, &connect(&global).await?).await,
        Verb::Replace(args) => replace::run(args, &connect(&global).await?).await,
        Verb::Delete(args) => delete::run(args, &connect(&global).await?).await,
        Verb::Describe(args) => describe::run(args, &connect(&global).await?).await,
        Verb::Logs(args) => logs::run(args, &connect(&global).await?).await,
        Verb::Exec(args) => exec::exec(args, &connect(&global).await?).await,
        Verb::Attach(args) => exec::attach(args, &connect(&global).await?).await,
        Verb::PortForward(args) => port_forward::run(args, &connect(&global).await?).await,
        Verb::Scale(args) => workload::scale(args, &connect(&global).await?).await,
        Verb::Rollout(command) => workload::rollout(command, &connect(&global).await?).await,
        Verb::Set(command) => workload::set(command, &connect(&global).await?).await,
        Verb::Wait(args) => wait::run(args, &connect(&global).await?).await,
        Verb::Label(args) => label::run(Part::Labels, args, &connect(&global).await?).await,
        Verb::Annotate(args) => label::run(Part::Annotations, args, &connect(&global).await?).await,
        Verb::Patch(args) => patch::run(args, &connect(&global).await?).await,
        Verb::Edit(args) => edit::run(args, &connect(&global).await?).await,
        Verb::Expose(args) => expose::run(args, &connect(&global).await?).await,
        Verb::Run(args) => run_pod::run(args, &connect(&global).await?).await,
        Verb::Cordon(args) => cordon::run(true, args, &connect(&global).await?).await,
        Verb::Uncordon(args) => cordon::run(false, args, &connect(&global).await?).await,
        Verb::Events(args) => events::run(args, &connect(&global).await?).await,
        Verb::Explain(args) => explain::run(args, &connect(&global).await?).await,
        Verb::ClusterInfo => cluster_info::run(&connect(&global).await?).await,
        Verb::Config(command) => config::run(&command, &global),
        Verb::ApiResources(args) => api_resources::run(args, &connect(&global).await?).await,
        Verb::ApiVersions => api_resources::versions(&connect(&global).await?).await,
        Verb::Version(args) => version::run(args, connect(&global)).await,
    }
}

async fn back_up(args: BackupArgs, global: &GlobalArgs) -> Result<(), CliError> {
    let plain = |err: backup::Failed| CliError::plain(err.to_string());
    match args.command {
        None => backup::make::run(&args.make, connect(global)).await,
        Some(BackupCommand::Check(args)) => backup::verify::check(&args).map_err(plain),
        Some(BackupCommand::List(args)) => backup::list::run(&args).await.map_err(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_flags_of_one_command_share_a_name() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
        let typed = ["reeve", "build", "-t", "x", ".", "--context", "c"];
        assert!(Cli::try_parse_from(typed).is_ok());
    }
}
