//! Requests that several controllers make in the same way.

use std::fmt::Debug;

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use reeve_api::patch::create_two_way_json;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Writes a status that differs from the one the object has, as a merge patch of the difference.
///
/// Each status has one writer, so no resourceVersion is sent; the uid keeps it from hitting a namesake.
pub(crate) async fn patch_status<K, S>(api: &Api<K>, object: &K, old: &S, new: &S) -> kube::Result<()>
where
    K: Resource + DeserializeOwned + Clone + Debug,
    S: Serialize,
{
    let (old, new) = (to_value(old)?, to_value(new)?);
    let patch = json!({ "metadata": { "uid": object.meta().uid }, "status": create_two_way_json(&old, &new) });
    let name = object.meta().name.clone().unwrap_or_default();
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

fn to_value(value: &impl Serialize) -> kube::Result<Value> {
    serde_json::to_value(value).map_err(kube::Error::SerdeError)
}

/// Whether a request failed because the namespace is being deleted: then there is nothing left to do.
pub(crate) fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// Whether a request failed because its object is gone.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// The message of an API error without kube's decoration: what Kubernetes' components put into events.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => error.to_string(),
    }
}

/// A count as Kubernetes writes it: zero is left out.
pub(crate) fn count(n: i32) -> Option<i32> {
    (n != 0).then_some(n)
}

/// A length as a count; objects are far fewer than `i32::MAX`.
pub(crate) fn len(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
