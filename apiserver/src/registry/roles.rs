//! The roles and bindings with which a cluster starts: made, or completed, once at every start.
//!
//! In the background, all of a kind at once: nobody waits for them, for the administrator needs no role and the
//! components of this process have rules of their own. Until they are there, others are refused. Source: the post-start
//! hook `rbac/bootstrap-roles` of Kubernetes v1.36 (`pkg/registry/rbac/rest`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use reeve_kinds::bootstrap::{Policy, rbac_policy};
use serde_json::Value;
use tokio::sync::watch;
use tracing::warn;

use super::bootstrap::request;
use super::request::{Body, Request};
use super::resource::Resource;
use super::{Registry, encode};
use crate::auth::rbac::GROUP;
use crate::auth::rbac::reconcile::{self, Step};
use crate::status::ApiError;

/// How long it waits before it tries again what did not succeed; twice as long every time, up to the second.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How many are written at once: they share the store's syncs, and take no more memory than so many requests.
const AT_ONCE: usize = 64;

/// How often one that others change meanwhile is looked at again.
const ATTEMPTS_MAX: u32 = 4;

/// In this order: a binding is not there before its role.
const KINDS: [&str; 4] = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"];

/// Where roles were before they were aggregated, and where their own rules are now.
const MOVED: [(&str, &str); 3] = [
    ("admin", "system:aggregate-to-admin"),
    ("edit", "system:aggregate-to-edit"),
    ("view", "system:aggregate-to-view"),
];

/// Makes them once the server runs; ends when all is done or the registry is stopped. Says when it has been gone
/// through once, even if something was refused: that is tried again.
pub(crate) fn spawn(registry: &Arc<Registry>) -> watch::Receiver<bool> {
    let (stop, registry) = (registry.cache.stop.clone(), Arc::downgrade(registry));
    let (gone_through, told) = watch::channel(false);
    tokio::spawn(async move { stop.run_until_cancelled(keep_trying(registry, &gone_through)).await });
    told
}

async fn keep_trying(registry: Weak<Registry>, gone_through: &watch::Sender<bool>) {
    let mut pause = RETRY_PAUSE;
    while let Some(registry) = registry.upgrade() {
        let made = ensure(&registry).await;
        gone_through.send_replace(true);
        let Err(error) = made else { return };
        drop(registry);
        warn!(%error, "A role that every cluster has cannot be made; trying again.");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// Makes what is missing and completes what is there, as much of it as can be; `Err`: what could not be, or one of it.
pub(crate) async fn ensure(registry: &Registry) -> Result<(), ApiError> {
    let mut all = rbac_policy();
    let mut result = Ok(());
    for plural in KINDS {
        let Some(resource) = registry.resource(GROUP, "v1", plural) else { continue };
        if plural == "clusterroles" {
            prime(registry, &resource).await?;
        }
        let of_kind: Vec<Policy> = all.extract_if(.., |policy| policy.plural == plural).collect();
        let made = of_kind.into_iter().map(|policy| ensure_one(registry, &resource, policy));
        let made: Vec<Result<(), ApiError>> = stream::iter(made).buffer_unordered(AT_ONCE).collect().await;
        result = made.into_iter().fold(result, Result::and);
    }
    result
}

/// A cluster of before roles were aggregated keeps what was added to them.
async fn prime(registry: &Registry, resource: &Arc<Resource>) -> Result<(), ApiError> {
    for (old, new) in MOVED {
        let there = registry.peek(resource, "", old).filter(|_| registry.peek(resource, "", new).is_none());
        let Some(mut role) = there.map(|object| encode::bare(&object)) else { continue };
        if role["aggregationRule"].is_null() {
            role["metadata"] = serde_json::json!({
                "name": new, "labels": role["metadata"]["labels"], "annotations": role["metadata"]["annotations"],
            });
            create(registry, &of(resource, "", new), role).await?;
        }
    }
    Ok(())
}

async fn ensure_one(registry: &Registry, resource: &Arc<Resource>, policy: Policy) -> Result<(), ApiError> {
    let request = of(resource, policy.namespace, policy.name);
    for _ in 0..ATTEMPTS_MAX {
        let done = match step(registry, resource, &policy) {
            None => create(registry, &request, policy.object.clone()).await,
            Some(Step::Keep) => return Ok(()),
            Some(Step::Update(object)) => registry.update(&request, Body::from(object)).await.map(drop),
            Some(Step::Recreate) => match registry.delete(&request).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => create(registry, &request, policy.object.clone()).await,
            },
        };
        match done {
            Err(error) if error.is_already_exists() || error.is_conflict() || error.is_not_found() => {
                registry.fresh().await?;
            }
            done => return done,
        }
    }
    Ok(())
}

/// `None`: it is to be made.
fn step(registry: &Registry, resource: &Arc<Resource>, policy: &Policy) -> Option<Step> {
    let there = encode::bare(&registry.peek(resource, policy.namespace, policy.name)?);
    Some(match policy.plural.ends_with("roles") {
        true => reconcile::role(&there, &policy.object),
        false => reconcile::binding(&there, &policy.object),
    })
}

async fn create(registry: &Registry, request: &Request, object: Value) -> Result<(), ApiError> {
    let request = Request { name: String::new(), ..request.clone() };
    registry.create(&request, Body::from(object)).await.map(drop)
}

fn of(resource: &Arc<Resource>, namespace: &str, name: &str) -> Request {
    let mut request = request(resource, namespace, name);
    "kube-apiserver".clone_into(&mut request.options.field_manager);
    request
}
