//! `create`: makes the objects that manifests describe, or that flags describe (`create configmap …`).
//!
//! One file per family of generators. A generator is pure up to the files it is told to read: flags to object; here
//! is what all of them share, the sending and the saying.

mod config;
mod secret;
mod service;
mod small;
mod sources;
mod token;
mod workload;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};

use super::api::{Api, Content, Url};
use super::apply::{set_namespace, with_annotation};
use super::args::{DryRun, DryRunArgs, FileArgs, ValidateArgs, program};
use super::error::CliError;
use super::get::write;
use super::manifest;
use super::mapper::{Mapper, Resource};
use super::output::{self, Output};
use super::select::of_manifest;

/// What every way of creating takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct CommonArgs {
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    #[command(flatten)]
    pub validate: ValidateArgs,
    /// Form of the output
    #[arg(short, long, default_value = "")]
    pub output: String,
    /// Record the object in an annotation, so that `apply` can change it later
    #[arg(long)]
    pub save_config: bool,
    /// Name under which the object's fields are recorded
    #[arg(long, default_value = "kubectl-create")]
    pub field_manager: String,
}

/// `create`
#[derive(Debug, Clone, Args)]
pub(crate) struct CreateArgs {
    #[command(subcommand)]
    pub what: Option<Generator>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Send the file as it is to this path and print what comes
    #[arg(long, value_name = "PATH")]
    pub raw: Option<String>,
}

/// `create TYPE`
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Generator {
    /// A ConfigMap from values and files
    #[command(alias = "cm")]
    Configmap(config::ConfigMapArgs),
    /// A Deployment that runs images
    #[command(alias = "deploy")]
    Deployment(workload::DeploymentArgs),
    /// A Namespace
    #[command(alias = "ns")]
    Namespace(small::NamedArgs),
    /// A Secret
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// A Service
    #[command(subcommand, alias = "svc")]
    Service(service::ServiceCommand),
    /// A ServiceAccount
    #[command(alias = "sa")]
    Serviceaccount(small::NamedArgs),
    /// A token for a ServiceAccount
    Token(token::TokenArgs),
}

/// Runs the verb.
pub(crate) async fn run(args: CreateArgs, api: &Api) -> Result<(), CliError> {
    match args.what {
        None if args.raw.is_some() => raw(&args, api).await,
        None => from_files(&args.files, &args.common, api).await,
        Some(Generator::Configmap(args)) => config::run(&args, api).await,
        Some(Generator::Deployment(args)) => workload::run(&args, api).await,
        Some(Generator::Namespace(args)) => small::namespace(&args, api).await,
        Some(Generator::Secret(command)) => secret::run(&command, api).await,
        Some(Generator::Service(command)) => service::run(&command, api).await,
        Some(Generator::Serviceaccount(args)) => small::service_account(&args, api).await,
        Some(Generator::Token(args)) => token::run(&args, api).await,
    }
}

/// The file as it is, and the answer as it comes.
async fn raw(args: &CreateArgs, api: &Api) -> Result<(), CliError> {
    let [file] = args.files.filename.as_slice() else {
        return Err(CliError::plain("--raw can only use a single local file or stdin"));
    };
    let path = args.raw.as_deref().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(CliError::plain(format!("--raw {path:?}: must be a path of the server that begins with /")));
    }
    let answer = api.post_raw(&Url::new(path), manifest::read_whole(file)?.into()).await?;
    write(&String::from_utf8_lossy(&answer))
}

async fn from_files(files: &FileArgs, common: &CommonArgs, api: &Api) -> Result<(), CliError> {
    if files.filename.is_empty() {
        return Err(CliError::plain("must specify one of -f and -k"));
    }
    let create = Create::new(api, common)?;
    let mapper = Mapper::discover(api).await?;
    let (mut errors, mut objects) = (Vec::new(), Vec::new());
    let manifests = manifest::read(files)?;
    if manifests.is_empty() {
        return Err(CliError::plain("no objects passed to create"));
    }
    for manifest in manifests {
        match of_manifest(api, &mapper, &manifest) {
            Ok(target) => objects.push((target.resource, target.namespace, manifest.object, manifest.source)),
            Err(err) => errors.push(err),
        }
    }
    let mut created = Vec::new();
    for (resource, namespace, mut object, source) in objects {
        if resource.namespaced {
            set_namespace(&mut object, &namespace);
        }
        match create.one(&resource, &namespace, object).await {
            Ok(object) => created.extend(object),
            Err(err) => errors.push(err.while_doing("creating", &source)),
        }
    }
    create.print(created)?;
    CliError::all(errors)
}

/// Creates objects one by one and says so.
pub(crate) struct Create<'a> {
    api: &'a Api,
    common: &'a CommonArgs,
    output: Output,
    said: &'static str,
}

impl<'a> Create<'a> {
    /// Refuses an unknown form of output.
    pub(crate) fn new(api: &'a Api, common: &'a CommonArgs) -> Result<Self, CliError> {
        Ok(Self { api, common, output: Output::parse(&common.output)?, said: "created" })
    }

    /// With another word for what was done: `exposed`.
    #[must_use]
    pub(crate) fn saying(self, said: &'static str) -> Self {
        Self { said, ..self }
    }

    /// Creates one object. Says so, or returns the object when it is to be printed in another form.
    pub(crate) async fn one(
        &self,
        resource: &Resource,
        namespace: &str,
        object: Value,
    ) -> Result<Option<Value>, CliError> {
        let object = if self.common.save_config { with_annotation(&object) } else { object };
        let object = if self.common.dry_run.dry_run == DryRun::Client {
            object
        } else {
            let (name, value) = self.common.validate.query();
            let url = resource.collection(Some(namespace)).with_some(self.common.dry_run.query());
            let url = url.with("fieldManager", self.common.field_manager.clone()).with(name, value);
            self.api.send(Method::POST, &url, Content::Json, &object).await?
        };
        if !self.output.is_table() {
            return Ok(Some(object));
        }
        let name = output::name_of(&object, Some(resource));
        write(&format!("{name} {}{}\n", self.said, self.common.dry_run.suffix()))?;
        Ok(None)
    }

    /// Prints what [`Create::one`] returned.
    pub(crate) fn print(&self, objects: Vec<Value>) -> Result<(), CliError> {
        match as_one(objects) {
            Some(value) => write(&self.output.print(&value, None)?),
            None => Ok(()),
        }
    }

    /// Creates what a generator made. `failure` is what kubectl says before the server's words, if anything.
    pub(crate) async fn generated(&self, made: Made, failure: &str) -> Result<(), CliError> {
        let Made { resource, mut object } = made;
        if self.api.namespace_given && resource.namespaced {
            set_namespace(&mut object, &self.api.namespace);
        }
        let created = self.one(&resource, &self.api.namespace, object).await.map_err(|err| err.behind(failure))?;
        self.print(created.into_iter().collect())
    }
}

/// What a generator made, and where it goes.
pub(crate) struct Made {
    /// Its resource.
    pub resource: Resource,
    /// The object.
    pub object: Value,
}

impl Made {
    /// An object of a kind that every cluster has; `plural` as in its path. `content` is all but kind and version.
    pub(crate) fn new(api_version: &str, kind: &str, plural: &str, content: Value) -> Self {
        let mut object = content;
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        Self { resource: Resource::well_known(api_version, kind, plural), object }
    }
}

/// The one name that a generator wants.
pub(crate) fn exactly_one<'n>(names: &'n [String], verb: &str) -> Result<&'n str, CliError> {
    match names {
        [name] => Ok(name),
        _ => Err(CliError::plain(format!(
            "exactly one NAME is required, got {}\nSee '{} {verb} -h' for help and examples",
            names.len(),
            program()
        ))),
    }
}

/// A flag that a generator cannot do without, in kubectl's words.
pub(crate) fn required<'v>(value: Option<&'v str>, flag: &str) -> Result<&'v str, CliError> {
    value.ok_or_else(|| CliError::plain(format!("required flag(s) {flag:?} not set")))
}

/// One object as itself, several as a list, none as nothing.
pub(crate) fn as_one(mut objects: Vec<Value>) -> Option<Value> {
    objects.iter_mut().for_each(super::get::hide_managed_fields);
    match objects.len() {
        0 => None,
        1 => objects.pop(),
        _ => Some(output::list_of(&objects)),
    }
}
