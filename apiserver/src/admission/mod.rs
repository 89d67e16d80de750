//! Admission: what the cluster adds to new objects and what it does not let through.
//!
//! One file per rule, named as in Kubernetes; this one fixes the order. Runs after defaults, before validation.

mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;

use bytes::Bytes;
use reeve_store::Revision;
use serde_json::Value;

use crate::registry::{Registry, Request, meta};
use crate::status::ApiError;

/// Facts that a decision rests on: keys whose revisions must not change before the write.
pub(crate) type Guards = Vec<(Bytes, Revision)>;

/// Before an object is created.
pub(crate) async fn admit_create(
    registry: &Registry,
    request: &Request,
    object: &mut Value,
) -> Result<Guards, ApiError> {
    let guards = namespace_lifecycle::admit_create(registry, request, object).await?;
    node_restriction::admit_create(request, object)?;
    if request.resource.is("", "pods") {
        service_account::admit(registry, request, object).await?;
        default_toleration_seconds::admit(object);
        priority::admit(object).map_err(|why| forbidden(request, object, &why))?;
    }
    Ok(guards)
}

/// Before an object is changed.
pub(crate) fn admit_update(
    _registry: &Registry,
    request: &Request,
    object: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    node_restriction::admit_update(request, object, old)
}

/// Before an object is deleted.
pub(crate) fn admit_delete(_registry: &Registry, request: &Request, object: &Value) -> Result<(), ApiError> {
    namespace_lifecycle::admit_delete(request)?;
    node_restriction::admit_delete(request, object)
}

/// Before a pod is evicted.
pub(crate) async fn admit_eviction(registry: &Registry, request: &Request, eviction: &Value) -> Result<(), ApiError> {
    namespace_lifecycle::admit_create(registry, request, eviction).await?;
    node_restriction::admit_eviction(registry, request, eviction)
}

/// Before a token for a service account is made; `spec` is the token request's as it was sent.
pub(crate) fn admit_token(registry: &Registry, request: &Request, spec: &Value) -> Result<(), ApiError> {
    node_restriction::admit_token(registry, request, spec)
}

/// A refusal in Kubernetes' form; a generated name is not there yet, so its beginning stands for it.
fn forbidden(request: &Request, object: &Value, why: &str) -> ApiError {
    let name = [meta::text(object, "name"), meta::text(object, "generateName"), &request.name];
    let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    ApiError::forbidden(request.resource.names(), name, why)
}
