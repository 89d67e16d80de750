//! `create -f`: makes the objects that the manifests describe.

use clap::Args;
use http::Method;
use serde_json::Value;

use super::api::{Api, Content};
use super::apply::set_namespace;
use super::args::{DryRun, DryRunArgs, FileArgs, ValidateArgs};
use super::error::CliError;
use super::get::write;
use super::manifest;
use super::mapper::Mapper;
use super::output::{self, Output};
use super::select::of_manifest;

const FIELD_MANAGER: &str = "kubectl-create";

/// What every way of creating takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    #[command(flatten)]
    pub validate: ValidateArgs,
    /// Form of the output
    #[arg(short, long, default_value = "")]
    pub output: String,
}

/// Runs `create -f`.
pub(crate) async fn run(args: CreateArgs, api: &Api) -> Result<(), CliError> {
    if args.files.filename.is_empty() {
        return Err(CliError::plain("must specify one of -f and -k"));
    }
    let mapper = Mapper::discover(api).await?;
    let (mut errors, mut objects) = (Vec::new(), Vec::new());
    for manifest in manifest::read(&args.files)? {
        match of_manifest(api, &mapper, &manifest) {
            Ok(target) => objects.push((target.resource, target.namespace, manifest.object, manifest.source)),
            Err(err) => errors.push(err),
        }
    }
    let create = Create { api, dry_run: args.dry_run, validate: &args.validate, output: Output::parse(&args.output)? };
    let mut created = Vec::new();
    for (resource, namespace, mut object, source) in objects {
        if resource.namespaced {
            set_namespace(&mut object, &namespace);
        }
        match create.one(&resource, &namespace, object).await {
            Ok(object) => created.extend(object),
            Err(err) => errors.push(err.from_source("creating", &source)),
        }
    }
    create.print(created)?;
    CliError::all(errors)
}

/// Creates objects one by one and says so.
pub(crate) struct Create<'a> {
    /// The connection.
    pub api: &'a Api,
    /// Whether anything is really done.
    pub dry_run: DryRunArgs,
    /// What the server does with unknown fields.
    pub validate: &'a ValidateArgs,
    /// How the result is printed.
    pub output: Output,
}

impl Create<'_> {
    /// Creates one object. Says so, or returns the object when it is to be printed in another form.
    pub(crate) async fn one(
        &self,
        resource: &super::mapper::Resource,
        namespace: &str,
        object: Value,
    ) -> Result<Option<Value>, CliError> {
        let object = if self.dry_run.dry_run == DryRun::Client {
            object
        } else {
            let (name, value) = self.validate.query();
            let url = resource.collection(Some(namespace)).with_some(self.dry_run.query());
            let url = url.with("fieldManager", FIELD_MANAGER).with(name, value);
            self.api.send(Method::POST, &url, Content::Json, &object).await?
        };
        if !self.output.is_table() {
            return Ok(Some(object));
        }
        let name = output::name_of(&object, Some(resource));
        write(&format!("{name} created{}\n", self.dry_run.suffix()))?;
        Ok(None)
    }

    /// Prints what [`Create::one`] returned.
    pub(crate) fn print(&self, objects: Vec<Value>) -> Result<(), CliError> {
        match as_one(objects) {
            Some(value) => write(&self.output.print(&value, None)?),
            None => Ok(()),
        }
    }
}

/// One object as itself, several as a list, none as nothing.
pub(crate) fn as_one(mut objects: Vec<Value>) -> Option<Value> {
    objects.iter_mut().for_each(super::get::hide_managed_fields);
    match objects.len() {
        0 => None,
        1 => objects.pop(),
        _ => Some(output::list_of(objects)),
    }
}
