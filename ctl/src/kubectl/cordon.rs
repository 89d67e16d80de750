//! `cordon` and `uncordon`: whether a node takes new pods.

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use super::api::{Api, Content};
use super::args::{DryRun, DryRunArgs, FileArgs};
use super::error::CliError;
use super::get::write;
use super::mapper::Mapper;
use super::select::{Among, Target};

/// `cordon`, `uncordon`
#[derive(Debug, Clone, Args)]
pub(crate) struct CordonArgs {
    /// NODE…
    pub nodes: Vec<String>,
    /// Nodes whose labels fit
    #[arg(short = 'l', long, default_value = "")]
    pub selector: String,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// Runs `cordon` (`unschedulable`) or `uncordon`.
pub(crate) async fn run(unschedulable: bool, args: CordonArgs, api: &Api) -> Result<(), CliError> {
    if args.nodes.is_empty() && args.selector.is_empty() {
        let verb = if unschedulable { "cordon" } else { "uncordon" };
        let program = super::args::program();
        return Err(CliError::plain(format!(
            "USAGE: {verb} NODE [flags]\nSee '{program} {verb} -h' for help and examples"
        )));
    }
    let mapper = Mapper::discover(api).await?;
    let among = Among { selector: args.selector.clone(), ..Among::default() };
    let words: Vec<String> = match args.nodes.as_slice() {
        [one] if one.contains('/') => vec![one.clone()],
        nodes => std::iter::once("nodes".to_owned()).chain(nodes.iter().cloned()).collect(),
    };
    let mut errors = Vec::new();
    for target in among.targets(api, &mapper, &FileArgs::default(), &words).await? {
        errors.extend(one(unschedulable, args.dry_run, api, &target).await.err());
    }
    CliError::all(errors)
}

async fn one(unschedulable: bool, dry_run: DryRunArgs, api: &Api, target: &Target) -> Result<(), CliError> {
    let url = target.resource.object("", &target.name);
    let node = api.get(&url).await?;
    let now = node.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false);
    let said = if unschedulable { "cordoned" } else { "uncordoned" };
    if now == unschedulable {
        return write(&format!("{} already {said}{}\n", target.display(), dry_run.suffix()));
    }
    if dry_run.dry_run != DryRun::Client {
        let patch = json!({"spec": {"unschedulable": unschedulable.then_some(true)}});
        let url = url.with_some(dry_run.query());
        api.send(Method::PATCH, &url, Content::StrategicPatch, &patch).await?;
    }
    write(&format!("{} {said}{}\n", target.display(), dry_run.suffix()))
}
