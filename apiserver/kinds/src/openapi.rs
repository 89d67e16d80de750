//! OpenAPI v3 documents, one per API group and version, of exactly what is served.
//!
//! `kubectl explain` reads the descriptions, `kubectl apply` the merge keys and whether a kind takes strategic
//! merge patches, `--validate=strict` whether it takes `fieldValidation`. The schemas are those of
//! `k8s-openapi`, named as Kubernetes names them, with our table of list types and merge keys added. Documents
//! are large and made anew at each call: whoever serves them keeps the encoded bytes, or makes them again.
//! [`v2()`] puts them together in the older form. What
//! is not here: the index and its hashes (the HTTP side).

mod beside;
mod connect;
mod enums;
mod listings;
mod operations;
mod paths;
mod schemas;
mod v2;
mod v2_custom;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::kind::Kind;

pub use listings::{listing, listings};
pub(crate) use schemas::of;
pub use v2::v2;

/// The version that documents name: that of the Kubernetes API they describe, as Kubernetes names it there.
const VERSION: &str = "1.36";

/// The schemas a kind needs, by name, and which is its own.
#[derive(Debug, Clone, Default)]
pub struct Schemas {
    /// Name of the kind's own schema, `io.k8s.api.apps.v1.Deployment`; empty when it has none.
    pub own: String,
    /// All of them.
    pub all: Map<String, Value>,
    /// Whether they are as they are to be published, that of lists included.
    pub complete: bool,
}

/// The groups and versions of some kinds, each once, in their order.
#[must_use]
pub fn group_versions(kinds: &[Arc<dyn Kind>]) -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    for names in kinds.iter().map(|kind| kind.names()) {
        if !found.contains(&(names.group, names.version)) {
            found.push((names.group, names.version));
        }
    }
    found
}

/// The document of one group and version (the group is empty for core); `None` when there is nothing in it.
#[must_use]
pub fn document(kinds: &[Arc<dyn Kind>], group: &str, version: &str) -> Option<Value> {
    described(kinds, group, version).map(|described| described.document)
}

/// A document, and which of its schemas are those of custom resources.
struct Described {
    document: Value,
    custom: Vec<String>,
}

fn described(kinds: &[Arc<dyn Kind>], group: &str, version: &str) -> Option<Described> {
    let (mut all, mut complete, mut paths) = (schemas::shared(), Map::new(), Map::new());
    let (mut custom, mut is_builtin) = (Vec::new(), false);
    let wanted = kinds.iter().filter(|kind| kind.names().group == group && kind.names().version == version);
    for kind in wanted {
        let Schemas { own, all: more, complete: is_complete } = kind.schemas();
        if own.is_empty() {
            continue;
        }
        if is_complete {
            complete.extend(more);
            custom.push(own.clone());
        } else {
            is_builtin = true;
            all.extend(more);
            schemas::add_kind(&mut all, kind.names(), &own);
        }
        paths.extend(paths::of(&**kind, &own));
    }
    is_builtin |= beside::add(group, version, &mut all, &mut paths);
    if paths.is_empty() {
        return None;
    }
    if is_builtin {
        listings::add_resources(group, version, &mut all, &mut paths);
    }
    Some(Described { document: with_schemas(paths, all, complete), custom })
}

/// A document of these paths; what is not finished lacks what Kubernetes adds to its types.
fn document_of(paths: Map<String, Value>, unfinished: Map<String, Value>) -> Value {
    with_schemas(paths, unfinished, Map::new())
}

fn with_schemas(paths: Map<String, Value>, mut all: Map<String, Value>, complete: Map<String, Value>) -> Value {
    listings::mark(&mut all);
    schemas::finish(&mut all);
    all.extend(complete);
    let token = json!({
        "description": "Bearer Token authentication", "in": "header", "name": "authorization", "type": "apiKey",
    });
    let mut components = json!({ "securitySchemes": { "BearerToken": token } });
    if !all.is_empty() {
        components["schemas"] = all.into();
    }
    let mut document = json!({ "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": VERSION } });
    document["paths"] = Value::Object(paths);
    document["components"] = components;
    document
}

#[cfg(test)]
mod tests;
