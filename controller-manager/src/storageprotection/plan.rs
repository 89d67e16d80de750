//! Decides who uses what, and whether a finalizer stays.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reeve_client::ObjectKey;

use crate::ownership::controller_of;
use crate::pods;

/// The claims that a pod names, its own ones (of ephemeral volumes) included.
pub(super) fn claims_of(pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    named(pod).map(|(name, _)| ObjectKey::new(namespace.clone(), name)).collect()
}

/// Names of claims, and whether the claim is the pod's own.
fn named(pod: &Pod) -> impl Iterator<Item = (String, bool)> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let own = pod.metadata.name.clone().unwrap_or_default();
    volumes.iter().filter_map(move |volume| {
        if let Some(claim) = &volume.persistent_volume_claim {
            return Some((claim.claim_name.clone(), false));
        }
        volume.ephemeral.as_ref().map(|_| (format!("{own}-{}", volume.name), true))
    })
}

/// Whether the pod may be using the claim: as soon as it is bound to a node, until it is gone.
pub(super) fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    if pods::node_name(pod).is_empty() {
        return false;
    }
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let is_own = controller_of(&claim.metadata).is_some_and(|owner| Some(&owner.uid) == pod.metadata.uid.as_ref());
    named(pod).any(|(own, is_ephemeral)| own == name && (!is_ephemeral || (is_own && !is_shut_down(pod))))
}

/// Whether nothing of the pod runs any more, and only its finalizers keep it: one of them may wait for the claim.
fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// The classes that a claim has, had or is to have.
pub(super) fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<String> {
    let spec = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.clone());
    let target = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = target.and_then(|status| status.target_volume_attributes_class_name.clone());
    [spec, current, target].into_iter().flatten().collect()
}

/// The class of a volume.
pub(super) fn class_of_volume(volume: &PersistentVolume) -> Option<String> {
    volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.clone())
}

/// Whether the object is deleted, and this finalizer among what keeps it.
pub(super) fn is_going(meta: &ObjectMeta, finalizer: &str) -> bool {
    let has = meta.finalizers.iter().flatten().any(|own| own == finalizer);
    has && meta.deletion_timestamp.is_some()
}

/// The finalizers that the object is to have instead of its own; `None` when they are right.
pub(super) fn finalizers(meta: &ObjectMeta, finalizer: &str, is_used: bool) -> Option<Vec<String>> {
    let all = meta.finalizers.clone().unwrap_or_default();
    let has = all.iter().any(|own| own == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) if !is_used => Some(all.into_iter().filter(|own| own != finalizer).collect()),
        (false, false) => Some(all.into_iter().chain([finalizer.to_owned()]).collect()),
        _ => None,
    }
}
