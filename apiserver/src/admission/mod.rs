//! Admission: what the cluster adds to objects and what it does not let through.
//!
//! One file per plugin, named as in Kubernetes; this one fixes the order, which is Kubernetes' (`AllOrderedPlugins`).
//! Two phases:
//!
//! 1. [`mutate`]: after defaults, before the kind prepares and validates the object. Plugins may change it; most also
//!    refuse here. Once per request for a creation, once per state of the object for a change or deletion.
//! 2. [`validate`]: on the valid, final object (for a creation it has its name). Nothing is changed any more.
//!
//! Both get typed [`Attributes`], whatever is done: creations, changes, deletions, connections, subresources, custom
//! resources. A plugin that does not concern itself with a request costs a comparison.
//!
//! Facts that a decision rests on and that must hold until the object is written are [`Guards`]: see [`guards`].

mod attributes;
mod default_toleration_seconds;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;

use bytes::Bytes;
use reeve_store::Revision;
use serde_json::Value;

pub(crate) use attributes::{Attributes, Operation};

use crate::registry::{Registry, meta};
use crate::status::ApiError;

/// Facts that a decision rests on: keys whose revisions must not change before the write.
pub(crate) type Guards = Vec<(Bytes, Revision)>;

/// The mutating phase: `attributes.object` is what comes out of it.
pub(crate) async fn mutate(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
    namespace_lifecycle::admit(registry, attributes).await?;
    let is_new_pod = attributes.operation == Operation::Create && attributes.is("", "pods");
    if is_new_pod {
        service_account::admit(registry, attributes).await?;
    }
    node_restriction::admit(registry, attributes)?;
    if is_new_pod {
        priority::admit(&mut attributes.object).map_err(|why| forbidden(attributes, &why))?;
        default_toleration_seconds::admit(&mut attributes.object);
    }
    Ok(())
}

/// The validating phase.
pub(crate) async fn validate(_registry: &Registry, _attributes: &Attributes<'_>) -> Result<(), ApiError> {
    Ok(())
}

/// What a creation rests on: taken after [`mutate`], and again after the write was overtaken by a change of these
/// facts; then it also finds out whether the creation is still let through.
pub(crate) async fn guards(registry: &Registry, attributes: &Attributes<'_>) -> Result<Guards, ApiError> {
    namespace_lifecycle::guards(registry, attributes).await
}

/// Both phases for a request that changes no object on its way: a deletion or a connection.
pub(crate) async fn admit(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
    mutate(registry, attributes).await?;
    validate(registry, attributes).await
}

/// Both phases for a body that is not stored (a binding, a token request): gives the body that came out.
pub(crate) async fn admit_body(registry: &Registry, mut attributes: Attributes<'_>) -> Result<Value, ApiError> {
    admit(registry, &mut attributes).await?;
    Ok(attributes.object)
}

/// A refusal in Kubernetes' form; a generated name is not there yet, so its beginning stands for it.
fn forbidden(attributes: &Attributes<'_>, why: &str) -> ApiError {
    let object = &attributes.object;
    let name = [meta::text(object, "name"), meta::text(object, "generateName"), &attributes.request.name];
    let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    ApiError::forbidden(attributes.request.resource.names(), name, why)
}
