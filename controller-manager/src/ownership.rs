//! Who owns what: controller references, adopting orphans, letting go of what no longer matches.
//!
//! The rules are those of `ControllerRefManager`: an owner has the objects that name it as their controller and
//! match its selector; orphans that match are adopted; owned objects that no longer match are released.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use reeve_api::selector::LabelSelector;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The owner that manages the object, if there is one.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// The uid of the owner that manages the object; for indexes.
pub(crate) fn controller_uids<K: Resource>(object: &K) -> Vec<String> {
    controller_of(object.meta()).map(|owner| owner.uid.clone()).into_iter().collect()
}

/// The reference by which `owner` manages its objects.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What an owner and the objects around it have to do with each other.
#[derive(Debug)]
pub(crate) struct Claim<K> {
    /// Managed by the owner, adopted ones included.
    pub(crate) owned: Vec<Arc<K>>,
    /// Orphans that match: to be adopted.
    pub(crate) adopt: Vec<Arc<K>>,
    /// Managed by the owner, but no longer matching: to be let go.
    pub(crate) release: Vec<Arc<K>>,
}

/// Sorts `objects` for one owner. An owner that is being deleted neither adopts nor releases.
pub(crate) fn claim<K: Resource>(owner: &ObjectMeta, selector: &LabelSelector, objects: Vec<Arc<K>>) -> Claim<K> {
    let deleting = owner.deletion_timestamp.is_some();
    let mut claim = Claim { owned: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    for object in objects {
        let meta = object.meta();
        let matches = selector.matches(meta.labels.as_ref());
        match controller_of(meta) {
            Some(controller) if owner.uid.as_ref() != Some(&controller.uid) => {}
            Some(_) if matches => claim.owned.push(object),
            Some(_) if deleting => {}
            Some(_) => claim.release.push(object),
            None if deleting || !matches || meta.deletion_timestamp.is_some() => {}
            None => {
                claim.adopt.push(Arc::clone(&object));
                claim.owned.push(object);
            }
        }
    }
    claim
}

/// Why objects could not be claimed; the round is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// Our view of the owner is old: it is gone, going, or another object of that name.
    #[error("{kind} {name} is gone or being deleted: it adopts nothing")]
    OwnerGone { kind: String, name: String },
    /// A request failed.
    #[error("failed to claim {object}")]
    Request {
        object: String,
        #[source]
        source: kube::Error,
    },
}

/// Adopts and releases what the claim says. Before the first adoption the owner is read live: an adoption
/// decided on an old view would tie objects to something that is gone.
pub(crate) async fn apply_claim<O, K>(
    owners: &Api<O>,
    owner: &O,
    objects: &Api<K>,
    claim: &Claim<K>,
) -> Result<(), ClaimError>
where
    O: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if !claim.adopt.is_empty() {
        check_alive(owners, owner).await?;
    }
    for object in &claim.adopt {
        send(objects, object.as_ref(), json!([controller_reference(owner)])).await?;
    }
    for object in &claim.release {
        send(objects, object.as_ref(), json!([{ "$patch": "delete", "uid": owner.meta().uid }])).await?;
    }
    Ok(())
}

async fn check_alive<O>(owners: &Api<O>, owner: &O) -> Result<(), ClaimError>
where
    O: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let name = owner.meta().name.clone().unwrap_or_default();
    let live = owners.get_opt(&name).await;
    let live = live.map_err(|source| ClaimError::Request { object: name.clone(), source })?;
    let alive =
        live.is_some_and(|live| live.meta().uid == owner.meta().uid && live.meta().deletion_timestamp.is_none());
    if alive { Ok(()) } else { Err(ClaimError::OwnerGone { kind: O::kind(&()).into_owned(), name }) }
}

/// A strategic merge patch of the owner references; the uid keeps it from hitting a namesake.
async fn send<K>(objects: &Api<K>, object: &K, owner_references: Value) -> Result<(), ClaimError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let meta = object.meta();
    let name = meta.name.clone().unwrap_or_default();
    let patch = json!({ "metadata": { "uid": meta.uid, "ownerReferences": owner_references } });
    match objects.patch(&name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => Ok(()),
        // Gone, or another object by now: there is nothing to claim.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_invalid() => Ok(()),
        Err(source) => Err(ClaimError::Request { object: name, source }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str, app: &str, controller: Option<&str>) -> Arc<Pod> {
        let owners: Vec<Value> = controller
            .map(|uid| json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true }))
            .into_iter()
            .collect();
        let metadata = json!({ "name": name, "labels": { "app": app }, "ownerReferences": owners });
        Arc::new(serde_json::from_value(json!({ "metadata": metadata })).unwrap())
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
    }

    fn pods() -> Vec<Arc<Pod>> {
        vec![
            pod("mine", "web", Some("me")),
            pod("relabeled", "db", Some("me")),
            pod("orphan", "web", None),
            pod("stranger", "db", None),
            pod("foreign", "web", Some("you")),
        ]
    }

    #[test]
    fn orphans_that_match_are_adopted_and_what_no_longer_matches_is_released() {
        let owner = ObjectMeta { uid: Some("me".into()), ..ObjectMeta::default() };
        let claim = claim(&owner, &LabelSelector::parse("app=web").unwrap(), pods());
        assert_eq!(names(&claim.owned), ["mine", "orphan"]);
        assert_eq!(names(&claim.adopt), ["orphan"]);
        assert_eq!(names(&claim.release), ["relabeled"]);
    }

    #[test]
    fn an_owner_that_is_being_deleted_neither_adopts_nor_releases() {
        let deleted = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
        let owner = ObjectMeta { uid: Some("me".into()), deletion_timestamp: Some(deleted), ..ObjectMeta::default() };
        let claim = claim(&owner, &LabelSelector::parse("app=web").unwrap(), pods());
        assert_eq!(names(&claim.owned), ["mine"]);
        assert!(claim.adopt.is_empty() && claim.release.is_empty());
    }
}
