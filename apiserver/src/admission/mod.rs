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
mod certificates;
mod claim_resize;
mod default_class;
mod default_toleration_seconds;
mod figures;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod node_taint;
mod pod_resize;
mod pod_security;
mod pod_topology_labels;
mod policy;
mod priority;
mod reinvocation;
pub(crate) mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_protection;
mod versions;
mod webhook;

use bytes::Bytes;
use reeve_store::Revision;
use serde_json::Value;
use tokio::time::Instant;

pub(crate) use attributes::{Attributes, Operation};
pub(crate) use figures::Figures;
pub(crate) use policy::{PolicyBook, spawn as spawn_type_checks};
pub(crate) use webhook::{Webhooks, is_configuration};

use figures::Phase;
use reinvocation::Rounds;

use crate::registry::{Registry, meta};
use crate::status::ApiError;

/// Facts that a decision rests on: keys whose revisions must not change before the write.
pub(crate) type Guards = Vec<(Bytes, Revision)>;

/// The mutating phase: `attributes.object` is what comes out of it. All plugins run a second time when a policy or
/// webhook has changed the object, because those before it may want to do something about the change.
pub(crate) async fn mutate(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
    let began = Instant::now();
    let done = mutate_fully(registry, attributes).await;
    registry.figures.step(Phase::Admit, attributes.operation, done.is_err(), began.elapsed());
    done
}

async fn mutate_fully(registry: &Registry, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
    let mut rounds = Rounds::default();
    mutate_once(registry, attributes, &mut rounds).await?;
    if rounds.is_needed {
        rounds.is_second = true;
        mutate_once(registry, attributes, &mut rounds).await?;
    }
    Ok(())
}

async fn mutate_once(
    registry: &Registry,
    attributes: &mut Attributes<'_>,
    rounds: &mut Rounds,
) -> Result<(), ApiError> {
    namespace_lifecycle::admit(registry, attributes).await?;
    limit_ranger::mutate(registry, attributes);
    let is_new_pod = is_new_pod(attributes);
    if is_new_pod {
        service_account::admit(registry, attributes).await?;
    }
    node_restriction::admit(registry, attributes)?;
    node_taint::mutate(attributes);
    priority::mutate(registry, attributes).await?;
    default_toleration_seconds::mutate(attributes);
    default_class::storage(registry, attributes);
    storage_protection::mutate(attributes);
    if is_new_pod {
        runtime_class::mutate(registry, attributes).await?;
    }
    default_class::ingress(registry, attributes);
    pod_topology_labels::mutate(registry, attributes);
    policy::mutate(registry, attributes, rounds).await?;
    registry.webhooks.mutate(registry, attributes, rounds).await
}

/// The validating phase. ResourceQuota, the last plugin of it, is asked with the write: see [`resource_quota::take`].
pub(crate) async fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let began = Instant::now();
    let done = validate_fully(registry, attributes).await;
    registry.figures.step(Phase::Validate, attributes.operation, done.is_err(), began.elapsed());
    done
}

async fn validate_fully(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    limit_ranger::validate(registry, attributes)?;
    pod_security::validate(registry, attributes).await?;
    priority::validate(registry, attributes)?;
    claim_resize::validate(registry, attributes)?;
    if is_new_pod(attributes) {
        runtime_class::validate(registry, attributes).await?;
    }
    certificates::validate(registry, attributes)?;
    pod_resize::validate(registry, attributes)?;
    policy::validate(registry, attributes).await?;
    registry.webhooks.validate(registry, attributes).await
}

fn is_new_pod(attributes: &Attributes<'_>) -> bool {
    attributes.operation == Operation::Create && attributes.is("", "pods")
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
    forbidden_object(attributes, &attributes.object, why)
}

/// As [`forbidden`], for an object that is not in the attributes.
fn forbidden_object(attributes: &Attributes<'_>, object: &Value, why: &str) -> ApiError {
    let name = [meta::text(object, "name"), meta::text(object, "generateName"), attributes.name()];
    let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or("Unknown");
    ApiError::forbidden(attributes.request.resource.names(), name, why)
}
