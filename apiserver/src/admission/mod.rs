//! Admission: what the cluster adds to new objects and what it does not let through.
//!
//! One file per rule, named as in Kubernetes; this one fixes the order. Runs after defaults, before validation.

mod claim_resize;
mod default_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod pod_topology_labels;
mod priority;
pub(crate) mod resource_quota;
mod runtime_class;
mod service_account;

use bytes::Bytes;
use reeve_store::Revision;
use serde_json::Value;

use crate::registry::{Registry, Request, meta};
use crate::status::ApiError;

/// Facts that a decision rests on: keys whose revisions must not change before the write.
pub(crate) type Guards = Vec<(Bytes, Revision)>;

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// It, or a subresource that is created (`pods/NAME/binding`), comes into being.
    Create,
    /// It or a part of it is replaced or patched.
    Update,
}

/// What a rule is asked about.
pub(crate) struct Attributes<'a> {
    /// User, resource, namespace, name and options.
    pub(crate) request: &'a Request,
    /// What is done.
    pub(crate) operation: Operation,
    /// Empty for the object itself.
    pub(crate) subresource: &'a str,
    /// The object as it is to be.
    pub(crate) object: Value,
    /// The object as it is; `None` for creations.
    pub(crate) old: Option<&'a Value>,
}

impl<'a> Attributes<'a> {
    /// Of an object that is to be created.
    pub(crate) fn create(request: &'a Request, object: Value) -> Self {
        let subresource = request.subresource.name();
        Self { request, operation: Operation::Create, subresource, object, old: None }
    }

    /// Of an object that is to be changed.
    pub(crate) fn update(request: &'a Request, object: Value, old: &'a Value) -> Self {
        Self { operation: Operation::Update, old: Some(old), ..Self::create(request, object) }
    }

    /// Whether the object itself, of that resource, is meant.
    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_empty() && self.request.resource.is(group, plural)
    }
}

/// Before an object is created.
pub(crate) async fn admit_create(
    registry: &Registry,
    request: &Request,
    object: &mut Value,
) -> Result<Guards, ApiError> {
    let guards = namespace_lifecycle::admit_create(registry, request, object).await?;
    let mut attributes = Attributes::create(request, std::mem::take(object));
    limit_ranger::mutate(registry, &mut attributes);
    let is_pod = attributes.is("", "pods");
    if is_pod {
        service_account::admit(registry, request, &mut attributes.object).await?;
    }
    node_restriction::admit_create(request, &attributes.object)?;
    priority::mutate(registry, &mut attributes).await?;
    if is_pod {
        default_toleration_seconds::admit(&mut attributes.object);
    }
    default_class::storage(registry, &mut attributes);
    if is_pod {
        runtime_class::mutate(registry, &mut attributes).await?;
    }
    default_class::ingress(registry, &mut attributes);
    pod_topology_labels::mutate(registry, &mut attributes);
    limit_ranger::validate(registry, &attributes)?;
    priority::validate(registry, &attributes)?;
    if is_pod {
        runtime_class::validate(registry, &attributes).await?;
    }
    *object = attributes.object;
    Ok(guards)
}

/// Before a pod is bound.
pub(crate) fn mutate_binding(registry: &Registry, request: &Request, binding: &mut Value) {
    let mut attributes = Attributes::create(request, std::mem::take(binding));
    pod_topology_labels::mutate(registry, &mut attributes);
    *binding = attributes.object;
}

/// Before an object is changed.
pub(crate) fn admit_update(
    registry: &Registry,
    request: &Request,
    object: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    node_restriction::admit_update(request, object, old)?;
    let attributes = Attributes::update(request, object.clone(), old);
    limit_ranger::validate(registry, &attributes)?;
    priority::validate(registry, &attributes)?;
    claim_resize::validate(registry, &attributes)
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

/// As [`forbidden`], for the object of the attributes.
fn refused(attributes: &Attributes<'_>, why: &str) -> ApiError {
    forbidden(attributes.request, &attributes.object, why)
}
