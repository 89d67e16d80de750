//! A definition that goes takes its objects with it: they are deleted, waited for, and only then it may go.
//!
//! Source: `pkg/controller/finalizer` of apiextensions-apiserver.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;
use tracing::warn;

use super::own_request;
use super::status::{self, Condition, FINALIZER};
use crate::registry::{Body, Registry, Request, Resource, Subresource};
use crate::status::ApiError;
use reeve_kinds::Part;

/// Pause before another try after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Deletes the objects of a definition that is being deleted, then lets it go. Ends when it is gone.
pub(super) async fn run(registry: Arc<Registry>, definitions: Arc<Resource>, name: String) {
    loop {
        match round(&registry, &definitions, &name).await {
            Ok(()) => return,
            Err(error) if error.is_not_found() => return,
            // Somebody else was faster: at once on the newer state.
            Err(error) if error.is_conflict() => {}
            Err(error) => {
                warn!(definition = name, %error, "The objects of a definition cannot be deleted; trying again.");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn round(registry: &Arc<Registry>, definitions: &Arc<Resource>, name: &str) -> Result<(), ApiError> {
    let request = own_request(Arc::clone(definitions), name);
    let crd = registry.get(&request).await?.value();
    if !is_held(&crd) {
        return Ok(());
    }
    let progress = Condition::terminating(true, "InstanceDeletionInProgress", "CustomResource deletion is in progress");
    let mut crd = write(registry, &request, crd, &progress).await?;
    let outcome = if !status::is_true(&crd, "Established") {
        Condition::terminating(false, "NeverEstablished", "resource was never established")
    } else {
        match delete_objects(registry, name).await {
            Ok(()) => Condition::terminating(false, "InstanceDeletionCompleted", "removed all instances"),
            Err(error) => {
                let why = format!("could not issue all deletes: {}", error.message);
                write(registry, &request, crd, &Condition::terminating(true, "InstanceDeletionFailed", why)).await?;
                return Err(error);
            }
        }
    };
    if let Some(finalizers) = crd["metadata"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    write(registry, &request, crd, &outcome).await.map(drop)
}

/// Whether a definition is being deleted and waits for its objects.
pub(super) fn is_held(crd: &Value) -> bool {
    let metadata = &crd["metadata"];
    let finalizers = metadata["finalizers"].as_array();
    !metadata["deletionTimestamp"].is_null()
        && finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER))
}

async fn write(
    registry: &Registry,
    request: &Request,
    mut crd: Value,
    condition: &Condition,
) -> Result<Value, ApiError> {
    status::set_condition(&mut crd, condition, registry.clock.now());
    let request = Request { subresource: Subresource::Part(Part::Status), ..request.clone() };
    Ok(registry.update(&request, Body::from(crd)).await?.object.value())
}

/// Deletes every object of a definition and waits until none is left.
async fn delete_objects(registry: &Arc<Registry>, name: &str) -> Result<(), ApiError> {
    let Some(resource) = registry.resources().of_owner(name).first().cloned() else { return Ok(()) };
    let request = own_request(resource, "");
    registry.delete_collection(&request).await?;
    loop {
        let left = registry.list(&request).await?;
        if left.items.is_empty() {
            return Ok(());
        }
        // Others hold them: until something happens to one of them.
        let mut watching = request.clone();
        watching.options.resource_version = left.revision.to_string();
        let mut events = registry.watch(&watching).await?;
        match events.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => return Err(ApiError::internal("the watch of the objects ended")),
        }
    }
}
