//! Reads objects and owners live and writes what was decided.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use serde_json::{Value, json};

use super::graph::Identity;
use super::plan::Policy;
use crate::discovery::Kind;
use crate::requests::is_not_found;

/// The metadata of an object, if it is there and still the same.
pub(super) async fn live(client: &Client, kind: &Kind, identity: &Identity) -> kube::Result<Option<ObjectMeta>> {
    let api = kind.api(client, &identity.namespace);
    let found = api.get_metadata_opt(&identity.name).await?;
    Ok(found.map(|found| found.metadata).filter(|meta| meta.uid.as_ref() == Some(&identity.uid)))
}

/// Deletes an object as it was seen: a change meanwhile may have given it an owner.
pub(super) async fn delete(
    client: &Client,
    kind: &Kind,
    identity: &Identity,
    seen: &ObjectMeta,
    policy: Policy,
) -> kube::Result<()> {
    let policy = match policy {
        Policy::Background => PropagationPolicy::Background,
        Policy::Foreground => PropagationPolicy::Foreground,
        Policy::Orphan => PropagationPolicy::Orphan,
    };
    let preconditions =
        Preconditions { uid: Some(identity.uid.clone()), resource_version: seen.resource_version.clone() };
    let parameters = DeleteParams {
        preconditions: Some(preconditions),
        propagation_policy: Some(policy),
        ..DeleteParams::default()
    };
    forgive_absence(kind.api(client, &identity.namespace).delete(&identity.name, &parameters).await.map(drop))
}

/// Removes a finalizer.
pub(super) async fn remove_finalizer(
    client: &Client,
    kind: &Kind,
    identity: &Identity,
    seen: &ObjectMeta,
    name: &str,
) -> kube::Result<()> {
    let left: Vec<&String> = seen.finalizers.iter().flatten().filter(|own| *own != name).collect();
    patch(client, kind, identity, seen, ("finalizers", json!(left))).await
}

/// Removes references to owners.
pub(super) async fn drop_owners(
    client: &Client,
    kind: &Kind,
    identity: &Identity,
    seen: &ObjectMeta,
    gone: &[String],
) -> kube::Result<()> {
    let left: Vec<&OwnerReference> =
        seen.owner_references.iter().flatten().filter(|owner| !gone.contains(&owner.uid)).collect();
    patch(client, kind, identity, seen, ("ownerReferences", json!(left))).await
}

/// Keeps an object from blocking the deletion of one of its owners.
pub(super) async fn unblock(
    client: &Client,
    kind: &Kind,
    identity: &Identity,
    seen: &ObjectMeta,
    owner: &str,
) -> kube::Result<()> {
    let mut owners = seen.owner_references.clone().unwrap_or_default();
    owners.iter_mut().filter(|own| own.uid == owner).for_each(|own| own.block_owner_deletion = Some(false));
    patch(client, kind, identity, seen, ("ownerReferences", json!(owners))).await
}

/// Replaces one list of the metadata; the resourceVersion makes sure that it is the list that was seen.
async fn patch(
    client: &Client,
    kind: &Kind,
    identity: &Identity,
    seen: &ObjectMeta,
    field: (&str, Value),
) -> kube::Result<()> {
    let (name, list) = field;
    let list = if list.as_array().is_some_and(Vec::is_empty) { Value::Null } else { list };
    let patch = json!({ "metadata": { "uid": identity.uid, "resourceVersion": seen.resource_version, name: list } });
    let api = kind.api(client, &identity.namespace);
    forgive_absence(api.patch_metadata(&identity.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
}

fn forgive_absence(answer: kube::Result<()>) -> kube::Result<()> {
    match answer {
        Err(error) if is_not_found(&error) => Ok(()),
        answer => answer,
    }
}
