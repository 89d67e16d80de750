//! Which objects a command line means: `TYPE NAME…`, `TYPE/NAME…`, `TYPE,TYPE`, or what `-f` names.

use clap::Args;
use serde_json::Value;

use super::api::Api;
use super::error::CliError;
use super::manifest::{self, Manifest};
use super::mapper::{Mapper, Resource};
use crate::kubectl::args::{FileArgs, program};

/// One resource type and the objects of it that are meant.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    /// The resource.
    pub resource: Resource,
    /// The objects' names; empty means all of them.
    pub names: Vec<String>,
}

/// Reads the words after a verb.
pub(crate) fn select(mapper: &Mapper, words: &[String]) -> Result<Vec<Selection>, CliError> {
    let Some(first) = words.first() else {
        return Err(CliError::plain(format!(
            "You must specify the type of resource to get. Use \"{} api-resources\" for a complete list of supported resources.",
            program()
        )));
    };
    if words.iter().any(|word| word.contains('/')) {
        return words.iter().map(|word| slashed(mapper, word)).collect();
    }
    let mut found: Vec<Selection> = Vec::new();
    for typed in first.split(',').filter(|typed| !typed.is_empty()) {
        for resource in mapper.find_all(typed)? {
            if !found.iter().any(|own| own.resource == *resource) {
                found.push(Selection { resource: resource.clone(), names: words[1..].to_vec() });
            }
        }
    }
    Ok(found)
}

fn slashed(mapper: &Mapper, word: &str) -> Result<Selection, CliError> {
    let parts: Vec<&str> = word.split('/').collect();
    match parts.as_slice() {
        [typed, name] if !typed.is_empty() && !name.is_empty() => {
            Ok(Selection { resource: mapper.find(typed)?.clone(), names: vec![(*name).to_owned()] })
        }
        [_, _] | [_] => Err(CliError::plain(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
        )),
        _ => {
            Err(CliError::plain(format!("arguments in resource/name form may not have more than one slash: {word:?}")))
        }
    }
}

/// One object with the resource it belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The resource.
    pub resource: Resource,
    /// Its namespace; the connection's for cluster-wide resources.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// `deployment.apps/web`
    pub(crate) fn display(&self) -> String {
        self.resource.name_of(&self.name)
    }
}

/// The objects that `-f` or the words name; all of them must be named.
pub(crate) fn targets(api: &Api, mapper: &Mapper, files: &FileArgs, words: &[String]) -> Result<Vec<Target>, CliError> {
    if !files.filename.is_empty() {
        return manifest::read(files)?.iter().map(|own| of_manifest(api, mapper, own)).collect();
    }
    let mut found = Vec::new();
    for selection in select(mapper, words)? {
        if selection.names.is_empty() {
            return Err(CliError::plain("resource(s) were provided, but no name was specified"));
        }
        for name in selection.names {
            found.push(Target { resource: selection.resource.clone(), namespace: api.namespace.clone(), name });
        }
    }
    Ok(found)
}

/// Which objects of a type are meant when they are not named.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Among {
    /// All objects of the type
    #[arg(long)]
    pub all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Objects whose labels fit
    #[arg(short = 'l', long, default_value = "")]
    pub selector: String,
    /// Objects whose fields fit
    #[arg(long, default_value = "")]
    pub field_selector: String,
}

impl Among {
    /// The objects that `-f` or the words name, or those that are meant here.
    pub(crate) async fn targets(
        &self,
        api: &Api,
        mapper: &Mapper,
        files: &FileArgs,
        words: &[String],
    ) -> Result<Vec<Target>, CliError> {
        let many = self.all || !self.selector.is_empty() || !self.field_selector.is_empty();
        if !files.filename.is_empty() || !many {
            return targets(api, mapper, files, words);
        }
        let mut found = Vec::new();
        for selection in select(mapper, words)? {
            if !selection.names.is_empty() {
                return Err(CliError::plain("name cannot be provided when a selector is specified"));
            }
            found.extend(self.list(api, &selection.resource).await?);
        }
        Ok(found)
    }

    async fn list(&self, api: &Api, resource: &Resource) -> Result<Vec<Target>, CliError> {
        let namespace = (!self.all_namespaces).then_some(api.namespace.as_str());
        let selector = |name, value: &String| (!value.is_empty()).then(|| (name, value.clone()));
        let url = resource
            .collection(namespace)
            .with_some(selector("labelSelector", &self.selector))
            .with_some(selector("fieldSelector", &self.field_selector));
        let list = api.get(&url).await?;
        let target = |item: &Value| {
            let meta = |field: &str| item.pointer(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            Target { resource: resource.clone(), namespace: meta("/metadata/namespace"), name: meta("/metadata/name") }
        };
        Ok(list.get("items").and_then(Value::as_array).into_iter().flatten().map(target).collect())
    }
}

/// The object a manifest is about. Refuses kinds the server does not have, and another namespace than `-n` says.
pub(crate) fn of_manifest(api: &Api, mapper: &Mapper, manifest: &Manifest) -> Result<Target, CliError> {
    let resource = mapper.of_kind(manifest.api_version(), manifest.kind()).ok_or_else(|| {
        CliError::plain(format!(
            "resource mapping not found for name: {:?} namespace: {:?} from {:?}: no matches for kind {:?} in version {:?}\nensure CRDs are installed first",
            manifest.name(),
            manifest.namespace(),
            manifest.source,
            manifest.kind(),
            manifest.api_version()
        ))
    })?;
    let own = manifest.namespace();
    if resource.namespaced && api.namespace_given && !own.is_empty() && own != api.namespace {
        return Err(CliError::plain(format!(
            "the namespace from the provided object {own:?} does not match the namespace {:?}. You must pass '--namespace={own}' to perform this operation.",
            api.namespace
        )));
    }
    let namespace = if own.is_empty() { api.namespace.clone() } else { own.to_owned() };
    Ok(Target { resource: resource.clone(), namespace, name: manifest.name().to_owned() })
}
