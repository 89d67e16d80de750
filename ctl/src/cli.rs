//! The command line: every verb and where it leads.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use reeve_api::clock::RealClock;

use crate::cluster::args::{DownArgs, UpArgs};
use crate::images;
use crate::kubectl::args::GlobalArgs;
use crate::kubectl::connect::connect;
use crate::kubectl::error::CliError;
use crate::kubectl::{api_resources, apply, create, delete, describe, exec, get, logs, version, wait, workload};

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
    /// Show the resources that the server offers
    ApiResources(api_resources::ApiResourcesArgs),
    /// Show the API versions that the server offers
    ApiVersions,
    /// Show the versions of this program and of the server
    Version(version::VersionArgs),
}

impl Cli {
    /// Runs `up` and `down`, which need a process of one thread; gives every other command line back.
    pub(crate) fn run_cluster_verb(self) -> Result<Self, ExitCode> {
        let outcome = match &self.verb {
            Verb::Up(args) => crate::cluster::up::run(args, &RealClock::new()),
            Verb::Down(args) => crate::cluster::down::run(args),
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
    match dispatch(cli).await {
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
        Verb::Up(_) | Verb::Down(_) => Ok(()),
        Verb::Build(args) => images::build::run(args).await,
        Verb::Image(command) => images::image::run(command).await,
        Verb::Apply(args) => apply::run(args, &connect(&global).await?).await,
        Verb::Create(args) => create::run(args, &connect(&global).await?).await,
        Verb::Get(args) => get::run(args, &connect(&global).await?).await,
        Verb::Delete(args) => delete::run(args, &connect(&global).await?).await,
        Verb::Describe(args) => describe::run(args, &connect(&global).await?).await,
        Verb::Logs(args) => logs::run(args, &connect(&global).await?).await,
        Verb::Exec(args) => exec::exec(args, &connect(&global).await?).await,
        Verb::Attach(args) => exec::attach(args, &connect(&global).await?).await,
        Verb::Scale(args) => workload::scale(args, &connect(&global).await?).await,
        Verb::Rollout(command) => workload::rollout(command, &connect(&global).await?).await,
        Verb::Set(command) => workload::set(command, &connect(&global).await?).await,
        Verb::Wait(args) => wait::run(args, &connect(&global).await?).await,
        Verb::ApiResources(args) => api_resources::run(args, &connect(&global).await?).await,
        Verb::ApiVersions => api_resources::versions(&connect(&global).await?).await,
        Verb::Version(args) => version::run(args, connect(&global)).await,
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
