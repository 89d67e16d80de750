//! `patch`: changes parts of objects.

use std::path::PathBuf;

use clap::Args;
use http::Method;
use serde_json::Value;

use super::api::{Api, Content};
use super::args::{DryRun, DryRunArgs, FileArgs};
use super::error::CliError;
use super::get::write;
use super::mapper::Mapper;
use super::output::{Output, name_of};
use super::select::{self, Target};
use super::{apply, manifest};

/// `patch`
#[derive(Debug, Clone, Args)]
pub(crate) struct PatchArgs {
    /// TYPE NAME…, TYPE/NAME…
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    /// The patch, as JSON or YAML
    #[arg(short, long, default_value = "")]
    pub patch: String,
    /// A file with the patch
    #[arg(long, value_name = "FILE", conflicts_with = "patch")]
    pub patch_file: Option<PathBuf>,
    /// How the patch is meant: strategic, merge or json
    #[arg(long, default_value = "strategic")]
    pub r#type: String,
    /// Change this subresource: status, scale
    #[arg(long, value_parser = ["status", "scale", "resize"])]
    pub subresource: Option<String>,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// Form of the output
    #[arg(short, long, default_value = "")]
    pub output: String,
    /// Name under which the change is recorded
    #[arg(long, default_value = "kubectl-patch")]
    pub field_manager: String,
}

/// Runs the verb.
pub(crate) async fn run(args: PatchArgs, api: &Api) -> Result<(), CliError> {
    if !matches!(args.r#type.as_str(), "json" | "merge" | "strategic") {
        let text = format!("--type must be one of [json merge strategic], not {:?}", args.r#type);
        return Err(CliError::plain(text));
    }
    let patch = read_patch(&args)?;
    let output = Output::parse(&args.output)?;
    let mapper = Mapper::discover(api).await?;
    let mut errors = Vec::new();
    for target in select::targets(api, &mapper, &args.files, &args.words)? {
        match one(&args, api, &target, &patch).await {
            Ok((mut object, _)) if !output.is_table() => {
                super::get::hide_managed_fields(&mut object);
                write(&output.print(&object, Some(&target.resource))?)?;
            }
            Ok((object, changed)) => {
                let said = if changed { "patched" } else { "patched (no change)" };
                // kubectl says nothing of a dry run here when it patches by itself.
                let suffix = if args.dry_run.dry_run == DryRun::Server { args.dry_run.suffix() } else { "" };
                // A subresource may be of another kind: `scale.autoscaling/web`.
                let name = if args.subresource.is_some() { name_of(&object, None) } else { target.display() };
                write(&format!("{name} {said}{suffix}\n"))?;
            }
            Err(err) => errors.push(err),
        }
    }
    CliError::all(errors)
}

fn read_patch(args: &PatchArgs) -> Result<Value, CliError> {
    let text = match &args.patch_file {
        Some(path) => manifest::read_file(path)?,
        None if args.patch.is_empty() => {
            return Err(CliError::plain("must specify --patch or --patch-file containing the contents of the patch"));
        }
        None => args.patch.clone().into_bytes(),
    };
    manifest::value(&text).map_err(|reason| CliError::plain(format!("unable to parse {:?}: {reason}", args.patch)))
}

fn content(args: &PatchArgs) -> Content {
    match args.r#type.as_str() {
        "merge" => Content::MergePatch,
        "json" => Content::JsonPatch,
        _ => Content::StrategicPatch,
    }
}

/// The object as it is then, and whether anything changed.
async fn one(args: &PatchArgs, api: &Api, target: &Target, patch: &Value) -> Result<(Value, bool), CliError> {
    let url = match &args.subresource {
        Some(subresource) => target.resource.subresource(&target.namespace, &target.name, subresource),
        None => target.resource.object(&target.namespace, &target.name),
    };
    let before = api.get(&url).await?;
    let after = if args.dry_run.dry_run == DryRun::Client {
        applied(&args.r#type, &target.resource.api_version(), &target.resource.kind, &before, patch)?
    } else {
        let url = url.with_some(args.dry_run.query()).with("fieldManager", args.field_manager.clone());
        api.send(Method::PATCH, &url, content(args), patch).await?
    };
    let changed = before != after;
    Ok((after, changed))
}

/// What a patch of that type makes of the object, without the server.
pub(crate) fn applied(how: &str, version: &str, kind: &str, before: &Value, patch: &Value) -> Result<Value, CliError> {
    let mut after = before.clone();
    match (how, apply::schema_of(version, kind)) {
        ("json", _) => {
            let steps: json_patch::Patch = serde_json::from_value(patch.clone())
                .map_err(|err| CliError::plain(format!("the patch is no JSON patch: {err}")))?;
            json_patch::patch(&mut after, &steps).map_err(|err| CliError::plain(err.to_string()))?;
        }
        ("strategic", Some(schema)) => {
            reeve_api::patch::strategic_merge(&mut after, patch, schema)
                .map_err(|err| CliError::plain(err.to_string()))?;
        }
        _ => reeve_api::patch::merge_patch(&mut after, patch),
    }
    Ok(after)
}
