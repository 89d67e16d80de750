//! `replace`: puts whole objects in the place of those that are there.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::api::{Api, Content};
use super::apply::{has_annotation, set_namespace, with_annotation};
use super::args::{DryRun, DryRunArgs, FileArgs, ValidateArgs};
use super::create::as_one;
use super::error::CliError;
use super::get::write;
use super::manifest;
use super::mapper::Mapper;
use super::output::Output;
use super::select::{Target, of_manifest};

/// `replace`
#[derive(Debug, Clone, Args)]
pub(crate) struct ReplaceArgs {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    #[command(flatten)]
    pub validate: ValidateArgs,
    /// Delete the object and make it anew
    #[arg(long)]
    pub force: bool,
    /// Record the object in an annotation, so that `apply` can change it later
    #[arg(long)]
    pub save_config: bool,
    /// Replace this subresource: status, scale
    #[arg(long, value_parser = ["status", "scale"], conflicts_with = "force")]
    pub subresource: Option<String>,
    /// Form of the output
    #[arg(short, long, default_value = "")]
    pub output: String,
    /// Name under which the change is recorded
    #[arg(long, default_value = "kubectl-replace")]
    pub field_manager: String,
}

/// Runs the verb.
pub(crate) async fn run(args: ReplaceArgs, api: &Api) -> Result<(), CliError> {
    if args.files.filename.is_empty() {
        return Err(CliError::plain("must specify one of -f and -k"));
    }
    if args.force && args.dry_run.dry_run != DryRun::None {
        return Err(CliError::plain("--dry-run can not be used when --force is set"));
    }
    let output = Output::parse(&args.output)?;
    let manifests = manifest::read(&args.files)?;
    if manifests.is_empty() {
        return Err(CliError::plain("no objects passed to replace"));
    }
    let mapper = Mapper::discover(api).await?;
    let (mut errors, mut printed) = (Vec::new(), Vec::new());
    for manifest in manifests {
        let outcome = match of_manifest(api, &mapper, &manifest) {
            Ok(target) => {
                let done = one(&args, api, &target, manifest.object).await;
                done.map(|object| (target, object)).map_err(|err| err.while_doing("replacing", &manifest.source))
            }
            Err(err) => Err(err),
        };
        match outcome {
            Ok((target, _)) if output.is_table() => {
                write(&format!("{} replaced{}\n", target.display(), args.dry_run.suffix()))?;
            }
            Ok((_, object)) => printed.push(object),
            Err(err) => errors.push(err),
        }
    }
    if let Some(value) = as_one(printed) {
        write(&output.print(&value, None)?)?;
    }
    CliError::all(errors)
}

async fn one(args: &ReplaceArgs, api: &Api, target: &Target, mut object: Value) -> Result<Value, CliError> {
    let resource = &target.resource;
    if resource.namespaced {
        set_namespace(&mut object, &target.namespace);
    }
    if args.save_config || has_annotation(&object) {
        object = with_annotation(&object);
    }
    if args.dry_run.dry_run == DryRun::Client {
        return Ok(object);
    }
    let (name, value) = args.validate.query();
    let manager = args.field_manager.clone();
    if args.force {
        super::delete::and_wait(api, target).await?;
        let url = resource.collection(Some(&target.namespace)).with("fieldManager", manager).with(name, value);
        return api.send(Method::POST, &url, Content::Json, &object).await;
    }
    let url = match &args.subresource {
        Some(subresource) => resource.subresource(&target.namespace, &target.name, subresource),
        None => resource.object(&target.namespace, &target.name),
    };
    let has_version = object.pointer("/metadata/resourceVersion").is_some_and(|version| version != "");
    if !has_version {
        // Whatever is there is replaced; that it is not there the server says better.
        match api.get(&url).await {
            Ok(live) => object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone(),
            Err(err) if err.is_not_found() => {}
            Err(err) => return Err(err),
        }
    }
    let url = url.with_some(args.dry_run.query()).with("fieldManager", manager).with(name, value);
    api.send(Method::PUT, &url, Content::Json, &object).await
}
