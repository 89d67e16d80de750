//! The life of CustomResourceDefinitions: from an object in the store to kinds that are served, and back.
//!
//! | file | holds |
//! |---|---|
//! | `status.rs` | names and conditions of a definition: pure |
//! | `offer.rs` | the kinds of a definition, as the registry takes them |
//! | `convert.rs` | objects from one version into another |
//! | `review.rs` | the questions to conversion webhooks and their answers: pure |
//! | `webhook.rs` | asking them over HTTPS |
//! | `lifecycle.rs` | follows the definitions and does what follows from each change |
//! | `cleanup.rs` | a definition that goes takes its objects with it |
//!
//! A definition is served as soon as its names are accepted: within the same round that sees it. What is special
//! about custom resources themselves is [`reeve_kinds::CustomKind`].

mod cleanup;
mod convert;
mod lifecycle;
mod offer;
mod review;
pub(crate) mod status;
#[cfg(test)]
pub(crate) mod tests;
mod webhook;
#[cfg(test)]
mod webhook_tests;

use std::sync::Arc;

use crate::registry::{Options, Registry, Request, Resource, Subresource, UserInfo, Warnings};
use crate::status::ApiError;

/// Group and resource of the definitions themselves.
pub(crate) const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");

/// As whom the server changes definitions and deletes the objects of those that go.
const USER: &str = "system:apiserver";

/// Serves what is defined already, then follows the definitions until the registry is stopped.
///
/// # Errors
/// When the definitions cannot be read.
pub(crate) async fn start(registry: &Arc<Registry>) -> Result<(), ApiError> {
    let Some(definitions) = registry.resource(DEFINITIONS.0, "v1", DEFINITIONS.1) else { return Ok(()) };
    lifecycle::start(registry, definitions).await
}

/// A request of the server's own.
pub(crate) fn own_request(resource: Arc<Resource>, name: &str) -> Request {
    Request {
        user: UserInfo::new(USER, &["system:masters"]),
        resource,
        namespace: String::new(),
        name: name.to_owned(),
        subresource: Subresource::None,
        options: Options { field_manager: "kube-apiserver".to_owned(), ..Options::default() },
        warnings: Warnings::default(),
    }
}
