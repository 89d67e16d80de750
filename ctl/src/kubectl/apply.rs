//! `apply`: brings objects to what the manifests say, leaving alone what others have set.
//!
//! Client-side, as kubectl's default: a three-way patch between what was applied last (kept in an annotation), what
//! the manifest says, and what the server has.

use clap::Args;
use http::Method;
use reeve_api::patch::{PatchSchema, create_three_way, create_three_way_json};
use serde_json::{Map, Value, json};

use super::api::{Api, Content, Url};
use super::args::{DryRun, DryRunArgs, FileArgs, ValidateArgs};
use super::error::CliError;
use super::get::write;
use super::manifest::{self, Manifest};
use super::mapper::Mapper;
use super::output::{self, Output};
use super::select::{Target, of_manifest};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const FIELD_MANAGER: &str = "kubectl-client-side-apply";
/// How often a patch is made anew when the object changes meanwhile.
const TRIES: usize = 5;

/// `apply`
#[derive(Debug, Clone, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    #[command(flatten)]
    pub validate: ValidateArgs,
    /// Form of the output
    #[arg(short, long, default_value = "")]
    pub output: String,
    /// Only objects whose labels fit
    #[arg(short = 'l', long, default_value = "")]
    pub selector: String,
    /// Let the server apply, with field ownership
    #[arg(long)]
    pub server_side: bool,
    /// With --server-side: take over fields that others own
    #[arg(long)]
    pub force_conflicts: bool,
    /// Name under which the changes are recorded
    #[arg(long)]
    pub field_manager: Option<String>,
}

/// What became of one object.
struct Outcome {
    verb: &'static str,
    object: Value,
}

/// Runs the verb.
pub(crate) async fn run(args: ApplyArgs, api: &Api) -> Result<(), CliError> {
    if args.files.filename.is_empty() {
        return Err(CliError::plain("must specify one of -f and -k"));
    }
    let output = Output::parse(&args.output)?;
    let manifests = manifest::read(&args.files)?;
    if manifests.is_empty() {
        return Err(CliError::plain("no objects passed to apply"));
    }
    let mut mapper = Mapper::discover(api).await?;
    let (mut errors, mut printed) = (Vec::new(), Vec::new());
    for manifest in manifests.iter().filter(|own| selected(own, &args.selector)) {
        if mapper.of_kind(manifest.api_version(), manifest.kind()).is_none() {
            // A definition among the manifests may have made it known meanwhile.
            mapper = Mapper::discover(api).await?;
        }
        match one(&args, api, &mapper, manifest).await {
            Ok((target, outcome)) if output.is_table() => {
                let manner = if args.server_side { "serverside-applied" } else { outcome.verb };
                write(&format!("{} {manner}{}\n", target.display(), args.dry_run.suffix()))?;
            }
            Ok((_, outcome)) => printed.push(outcome.object),
            Err(err) => errors.push(err),
        }
    }
    if let Some(value) = super::create::as_one(printed) {
        write(&output.print(&value, None)?)?;
    }
    CliError::all(errors)
}

fn selected(manifest: &Manifest, selector: &str) -> bool {
    if selector.is_empty() {
        return true;
    }
    let labels = manifest.object.pointer("/metadata/labels").and_then(Value::as_object);
    selector.split(',').all(|part| {
        let (name, value) =
            part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value.trim_start_matches('='))));
        let own = labels.and_then(|labels| labels.get(name)).and_then(Value::as_str);
        value.map_or(own.is_some(), |value| own == Some(value))
    })
}

async fn one(args: &ApplyArgs, api: &Api, mapper: &Mapper, manifest: &Manifest) -> Result<(Target, Outcome), CliError> {
    let target = of_manifest(api, mapper, manifest)?;
    if target.name.is_empty() {
        return Err(unread(CliError::plain("resource name may not be empty"), &target, &manifest.source));
    }
    let mut object = manifest.object.clone();
    if target.resource.namespaced {
        set_namespace(&mut object, &target.namespace);
    }
    let apply = Apply { args, api, target: &target };
    let outcome =
        if args.server_side { apply.on_the_server(&object).await } else { apply.here(&object, &manifest.source).await };
    outcome.map(|outcome| (target, outcome))
}

/// The object could not be looked at before it is changed; kubectl says exactly which.
fn unread(err: CliError, target: &Target, source: &str) -> CliError {
    let (resource, name) = (&target.resource, &target.name);
    let version = format!("{}/{}", resource.group, resource.version);
    let namespace = if resource.namespaced { target.namespace.as_str() } else { "" };
    err.framed(&format!(
        "error when retrieving current configuration of:\nResource: \"{version}, Resource={}\", GroupVersionKind: \"{version}, Kind={}\"\nName: {name:?}, Namespace: {namespace:?}\nfrom server for: {source:?}: ",
        resource.plural, resource.kind
    ))
}

/// Puts the namespace into an object that does not name one.
pub(crate) fn set_namespace(object: &mut Value, namespace: &str) {
    let meta = object.as_object_mut().map(|own| own.entry("metadata").or_insert_with(|| Value::Object(Map::new())));
    if let Some(Value::Object(meta)) = meta {
        meta.entry("namespace").or_insert_with(|| namespace.into());
    }
}

/// Whether `apply` has recorded something in the object.
pub(crate) fn has_annotation(object: &Value) -> bool {
    object.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(LAST_APPLIED).is_some())
}

/// The object with itself in the annotation, as it is sent; and the annotation's text.
pub(crate) fn with_annotation(object: &Value) -> Value {
    let mut bare = object.clone();
    if let Some(annotations) = bare.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let mut recorded = bare.clone();
    if let Some(Value::Object(meta)) = recorded.get_mut("metadata") {
        meta.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    }
    let text = format!("{}\n", output::escaped(&recorded.to_string()));
    if let Some(Value::Object(meta)) = bare.get_mut("metadata") {
        let annotations = meta.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(LAST_APPLIED.to_owned(), text.into());
        }
    }
    bare
}

/// The merge keys of a built-in kind; `None` for kinds this program does not know.
pub(crate) fn schema_of(api_version: &str, kind: &str) -> Option<&'static dyn PatchSchema> {
    let own = reeve_kinds::builtin().into_iter().find(|own| {
        let names = own.names();
        names.kind == kind && names.api_version() == api_version
    })?;
    let shape = match own.shape() {
        reeve_kinds::shape::Shape::Struct(shape) => *shape,
        _ => return None,
    };
    Some(shape as &dyn PatchSchema)
}

struct Apply<'a> {
    args: &'a ApplyArgs,
    api: &'a Api,
    target: &'a Target,
}

impl Apply<'_> {
    fn url(&self, url: Url) -> Url {
        let manager = self.args.field_manager.clone().unwrap_or_else(|| FIELD_MANAGER.to_owned());
        let (name, value) = self.args.validate.query();
        url.with_some(self.args.dry_run.query()).with("fieldManager", manager).with(name, value)
    }

    fn object_url(&self) -> Url {
        self.target.resource.object(&self.target.namespace, &self.target.name)
    }

    async fn on_the_server(&self, object: &Value) -> Result<Outcome, CliError> {
        let manager = self.args.field_manager.clone().unwrap_or_else(|| "kubectl".to_owned());
        let (name, value) = self.args.validate.query();
        let url =
            self.object_url().with_some(self.args.dry_run.query()).with("fieldManager", manager).with(name, value);
        let url = url.with("force", self.args.force_conflicts.to_string());
        let object = self.api.send(Method::PATCH, &url, Content::Apply, object).await?;
        Ok(Outcome { verb: "serverside-applied", object })
    }

    async fn here(&self, object: &Value, source: &str) -> Result<Outcome, CliError> {
        let modified = with_annotation(object);
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = match self.api.get(&self.object_url()).await {
                Ok(current) => {
                    self.patch(&modified, current).await.map_err(|err| err.while_doing("applying patch to", source))
                }
                Err(err) if err.is_not_found() => {
                    self.create(&modified).await.map_err(|err| err.while_doing("creating", source))
                }
                Err(err) => return Err(unread(err, self.target, source)),
            };
            match outcome {
                Err(err) if err.is_conflict() && tries < TRIES => {}
                other => return other,
            }
        }
    }

    async fn create(&self, modified: &Value) -> Result<Outcome, CliError> {
        if self.args.dry_run.dry_run == DryRun::Client {
            return Ok(Outcome { verb: "created", object: modified.clone() });
        }
        let url = self.url(self.target.resource.collection(Some(&self.target.namespace)));
        let object = self.api.send(Method::POST, &url, Content::Json, modified).await?;
        Ok(Outcome { verb: "created", object })
    }

    async fn patch(&self, modified: &Value, current: Value) -> Result<Outcome, CliError> {
        let annotation = current.pointer("/metadata/annotations").and_then(|own| own.get(LAST_APPLIED));
        let original = match annotation.and_then(Value::as_str) {
            Some(text) => serde_json::from_str(text)
                .map_err(|err| CliError::plain(format!("the annotation {LAST_APPLIED} is not JSON: {err}")))?,
            None => {
                eprintln!(
                    "Warning: resource {} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically.",
                    self.target.resource.name_of(&self.target.name).replacen('/', "s/", 1)
                );
                json!({})
            }
        };
        let (patch, content) = self.make_patch(&original, modified, &current)?;
        if patch.as_object().is_none_or(Map::is_empty) {
            return Ok(Outcome { verb: "unchanged", object: current });
        }
        if self.args.dry_run.dry_run == DryRun::Client {
            return Ok(Outcome { verb: "configured", object: modified.clone() });
        }
        let object = self.api.send(Method::PATCH, &self.url(self.object_url()), content, &patch).await?;
        let same = object.pointer("/metadata/resourceVersion") == current.pointer("/metadata/resourceVersion");
        Ok(Outcome { verb: if same { "unchanged" } else { "configured" }, object })
    }

    fn make_patch(&self, original: &Value, modified: &Value, current: &Value) -> Result<(Value, Content), CliError> {
        let resource = &self.target.resource;
        match schema_of(&resource.api_version(), &resource.kind) {
            Some(schema) => {
                let patch = create_three_way(original, modified, current, schema).map_err(|err| {
                    CliError::plain(format!("cannot make a patch for {}: {err}", self.target.display()))
                })?;
                Ok((patch, Content::StrategicPatch))
            }
            None => Ok((create_three_way_json(original, modified, current), Content::MergePatch)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_carries_itself_without_itself() {
        let object = json!({"kind": "A", "metadata": {"name": "x", "annotations": {LAST_APPLIED: "old"}}});
        let sent = with_annotation(&object);
        let text = sent["metadata"]["annotations"][LAST_APPLIED].as_str().expect("a text");
        assert_eq!(text, "{\"kind\":\"A\",\"metadata\":{\"annotations\":{},\"name\":\"x\"}}\n");
        assert_eq!(with_annotation(&sent), sent);
    }

    #[test]
    fn built_in_kinds_are_patched_by_their_merge_keys() {
        assert!(schema_of("apps/v1", "Deployment").is_some());
        assert!(schema_of("example.org/v1", "Deployment").is_none());
    }
}
