//! A request in another version of its resource, for webhooks and policies whose rules name that version.

use std::sync::Arc;

use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::Value;

use super::attributes::{Attributes, GroupVersionKind, Seen};
use crate::registry::{Resource, meta};
use crate::status::ApiError;

/// The objects of a request in another version.
pub(super) struct InVersion {
    seen: Seen,
    object: Value,
    old: Option<Value>,
}

impl InVersion {
    /// The request in the version of `resource`.
    ///
    /// # Errors
    /// When an object cannot be converted.
    pub(super) async fn of(attributes: &Attributes<'_>, resource: &Arc<Resource>) -> Result<Self, ApiError> {
        let names = resource.names();
        // The body of a subresource (`Scale`) is the same in all versions of the resource.
        let kind = match attributes.is_of_resource() {
            true => GroupVersionKind { group: names.group, version: names.version, kind: names.kind },
            false => GroupVersionKind { group: "autoscaling", version: "v1", kind: "Scale" },
        };
        let object = convert(attributes, &attributes.request.resource, resource, &attributes.object).await?;
        let old = match attributes.old {
            Some(old) => Some(convert(attributes, &attributes.request.resource, resource, old).await?),
            None => None,
        };
        Ok(Self { seen: Seen { resource: Arc::clone(resource), kind }, object, old })
    }

    /// The request as it is seen in this version.
    pub(super) fn attributes<'v>(&'v self, own: &Attributes<'v>) -> Attributes<'v> {
        Attributes {
            request: own.request,
            operation: own.operation,
            kind: own.kind,
            subresource: own.subresource,
            object: self.object.clone(),
            old: self.old.as_ref(),
            of_collection: own.of_collection,
            seen: Some(self.seen.clone()),
        }
    }

    /// An object of this version in the version of the request.
    ///
    /// # Errors
    /// When it cannot be converted.
    pub(super) async fn back(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Value, ApiError> {
        convert(attributes, &self.seen.resource, &attributes.request.resource, object).await
    }
}

async fn convert(
    attributes: &Attributes<'_>,
    from: &Resource,
    to: &Resource,
    object: &Value,
) -> Result<Value, ApiError> {
    if object.is_null() || !attributes.is_of_resource() {
        return Ok(object.clone());
    }
    from.translated(to, object.clone()).await
}

/// What a patch has made of an object must still be of its kind; where it does not say of which, it is.
///
/// # Errors
/// When it is not: in Kubernetes' words, which `told` makes an answer of. A custom resource is just invalid.
pub(super) fn check_kind(
    attributes: &Attributes<'_>,
    object: &mut Value,
    told: impl FnOnce(String) -> ApiError,
) -> Result<(), ApiError> {
    let kind = attributes.kind_seen();
    let api_version = match kind.group {
        "" => kind.version.to_owned(),
        group => format!("{group}/{}", kind.version),
    };
    for (field, own) in [("apiVersion", api_version.as_str()), ("kind", kind.kind)] {
        if object[field].as_str().unwrap_or_default().is_empty() && object.is_object() {
            object[field] = own.into();
        }
    }
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    if text("apiVersion") == api_version && text("kind") == kind.kind {
        return Ok(());
    }
    if attributes.resource().is_custom() {
        let wrong = [("kind", kind.kind), ("apiVersion", api_version.as_str())].into_iter();
        let wrong = wrong.filter(|(field, own)| text(field) != *own);
        let errors: Vec<_> = wrong
            .map(|(field, own)| FieldError::new(FieldErrorKind::Invalid, field, text(field), format!("must be {own}")))
            .collect();
        let name = meta::text(object, "name");
        return Err(ApiError::invalid_kind(text("kind"), kind.group, name, &errors));
    }
    let version = text("apiVersion").rsplit('/').next().unwrap_or_default();
    let package = if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() };
    let what = format!("({version}.{}) to ({package}.{})", text("kind"), kind.kind);
    Err(told(format!("converting {what}: unknown conversion")))
}
