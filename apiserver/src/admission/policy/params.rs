//! The parameters of a binding: objects that a policy's expressions see as `params`.

use std::sync::Arc;

use reeve_api::selector::LabelSelector;
use serde_json::Value;

use crate::registry::{Object, Registry, Resource, meta};

/// The kind of a policy's parameters.
#[derive(Debug, Clone)]
pub(super) struct ParamKind {
    pub(super) api_version: String,
    pub(super) kind: String,
}

/// Which parameters a binding names.
#[derive(Debug)]
pub(super) struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<Value>,
    denies_when_missing: bool,
}

impl ParamKind {
    pub(super) fn read(spec: &Value) -> Option<Self> {
        let kind = spec.get("paramKind").filter(|kind| kind.is_object())?;
        let text = |field: &str| kind[field].as_str().unwrap_or_default().to_owned();
        Some(Self { api_version: text("apiVersion"), kind: text("kind") })
    }

    /// The resource of that kind.
    ///
    /// # Errors
    /// When it is not served.
    pub(super) fn resource(&self, registry: &Registry) -> Result<Arc<Resource>, String> {
        let (group, version) = self.api_version.split_once('/').unwrap_or(("", &self.api_version));
        let resources = registry.resources();
        let is_it = |resource: &&Arc<Resource>| {
            let names = resource.names();
            names.group == group && names.version == version && names.kind == self.kind
        };
        let kind = &self.kind;
        let missing = || format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={kind}'");
        resources.iter().find(is_it).map(Arc::clone).ok_or_else(missing)
    }
}

impl ParamRef {
    pub(super) fn read(spec: &Value) -> Option<Self> {
        let reference = spec.get("paramRef").filter(|reference| reference.is_object())?;
        let text = |field: &str| reference[field].as_str().unwrap_or_default().to_owned();
        Some(Self {
            name: text("name"),
            namespace: text("namespace"),
            selector: reference.get("selector").filter(|selector| selector.is_object()).cloned(),
            denies_when_missing: text("parameterNotFoundAction") == "Deny",
        })
    }
}

/// What the expressions of a policy see as `params`, one after the other: null when the policy or its binding names
/// none; nothing at all when none is found and that is allowed.
///
/// # Errors
/// When the parameters cannot be had: why.
pub(super) async fn collect(
    registry: &Registry,
    kind: Option<&ParamKind>,
    reference: Option<&ParamRef>,
    namespace: &str,
) -> Result<Vec<Value>, String> {
    let (Some(kind), Some(reference)) = (kind, reference) else { return Ok(vec![Value::Null]) };
    let resource = kind.resource(registry)?;
    let mut scope = "";
    if resource.names().namespaced {
        scope = if reference.namespace.is_empty() { namespace } else { &reference.namespace };
        if scope.is_empty() {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(why.to_owned());
        }
    } else if !reference.namespace.is_empty() {
        return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
    }
    // Parameters that were acknowledged before the request count.
    registry.fresh().await.map_err(|error| error.message)?;
    let stored = match &reference.selector {
        None => registry.peek(&resource, scope, &reference.name).into_iter().collect(),
        Some(_) => registry.peek_all(&resource, scope),
    };
    let shown = resource.shown_all(stored).await.map_err(|error| error.message)?;
    let mut found: Vec<Value> = shown.iter().map(Object::value).collect();
    if let Some(selector) = &reference.selector {
        let wanted = LabelSelector::from_value(selector).map_err(|error| error.to_string())?;
        found.retain(|object| wanted.matches_value(meta::get(object, "labels")));
    }
    if found.is_empty() && reference.denies_when_missing {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}
