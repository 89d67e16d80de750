//! Storage protection: a claim that a pod uses, a volume that a claim is bound to, and a class that either names stay
//! when they are deleted, until nobody uses them.
//!
//! The finalizers are put on new objects by admission; here they are taken away, and put on older ones.
//!
//! Source: Kubernetes' controllers `pvcprotection`, `pvprotection` and `vacprotection`.

mod plan;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Resource};
use reeve_client::{Change, Component, Index, Next, ObjectKey, WorkQueue, work};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::manager::Watches;
use crate::requests::is_not_found;

/// Objects of a kind looked at at the same time.
const PARALLEL: usize = 5;

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLASS: &str = "kubernetes.io/vac-protection";

/// Watches claims, volumes, classes and pods.
pub(crate) struct StorageProtectionController {
    component: Component,
    watches: Watches,
    claims: Arc<WorkQueue<ObjectKey>>,
    volumes: Arc<WorkQueue<ObjectKey>>,
    classes: Arc<WorkQueue<ObjectKey>>,
    /// Pods by the claims they name.
    pods: Index<ObjectKey, Pod>,
}

impl StorageProtectionController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let [claims, volumes, classes] = [(); 3].map(|()| Arc::<WorkQueue<ObjectKey>>::default());
        let pods = Index::new(&watches.pods, plan::claims_of);
        let added = Arc::clone(&claims);
        watches.pods.on_change(move |change| {
            // Only what a pod has stopped using can go.
            let old = change.old().map(|pod| plan::claims_of(pod)).unwrap_or_default();
            old.into_iter().for_each(|claim| added.add(claim));
        });
        let (added, named) = (Arc::clone(&claims), Arc::clone(&classes));
        watches.claims.on_change(move |change: &Change<'_, PersistentVolumeClaim>| {
            added.add(ObjectKey::of(change.object().as_ref()));
            let old = change.old().map(|claim| plan::classes_of_claim(claim)).unwrap_or_default();
            old.into_iter().for_each(|class| named.add(ObjectKey::new("", class)));
        });
        let (added, named) = (Arc::clone(&volumes), Arc::clone(&classes));
        watches.volumes.on_change(move |change: &Change<'_, PersistentVolume>| {
            added.add(ObjectKey::of(change.object().as_ref()));
            let old = change.old().and_then(|volume| plan::class_of_volume(volume));
            old.into_iter().for_each(|class| named.add(ObjectKey::new("", class)));
        });
        let added = Arc::clone(&classes);
        watches.classes.on_change(move |change| added.add(ObjectKey::of(change.object().as_ref())));
        Self { component: component.clone(), watches: watches.clone(), claims, volumes, classes, pods }
    }

    pub(crate) async fn run(self) {
        tokio::join!(
            work("pvc-protection", &self.claims, PARALLEL, |key| self.claim(key)),
            work("pv-protection", &self.volumes, PARALLEL, |key| self.volume(key)),
            work("vac-protection", &self.classes, PARALLEL, |key| self.class(key)),
        );
    }

    async fn claim(&self, key: ObjectKey) -> Result<Next, kube::Error> {
        let Some(claim) = self.watches.claims.store().get_key(&key) else { return Ok(Next::Done) };
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.component.client.clone(), &key.namespace);
        let mut is_used = self.pods.get(&key).iter().any(|pod| plan::uses(pod, &claim));
        // The watch of pods may lag: whether none uses it is asked where it is known.
        if !is_used && plan::is_going(&claim.metadata, CLAIM) {
            let pods: Api<Pod> = Api::namespaced(self.component.client.clone(), &key.namespace);
            is_used = pods.list(&ListParams::default()).await?.iter().any(|pod| plan::uses(pod, &claim));
        }
        write(&api, claim.as_ref(), CLAIM, is_used).await
    }

    async fn volume(&self, key: ObjectKey) -> Result<Next, kube::Error> {
        let Some(volume) = self.watches.volumes.store().get_key(&key) else { return Ok(Next::Done) };
        let is_bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        write(&Api::all(self.component.client.clone()), volume.as_ref(), VOLUME, is_bound).await
    }

    async fn class(&self, key: ObjectKey) -> Result<Next, kube::Error> {
        let Some(class) = self.watches.classes.store().get_key(&key) else { return Ok(Next::Done) };
        let names = |name: &String| *name == key.name;
        let mut is_used = false;
        if plan::is_going(&class.metadata, CLASS) {
            let volumes = self.watches.volumes.store().list();
            let claims = self.watches.claims.store().list();
            is_used = volumes.iter().filter_map(|volume| plan::class_of_volume(volume)).any(|name| names(&name))
                || claims.iter().flat_map(|claim| plan::classes_of_claim(claim)).any(|name| names(&name));
        }
        write(&Api::<VolumeAttributesClass>::all(self.component.client.clone()), class.as_ref(), CLASS, is_used).await
    }
}

/// Writes the finalizers that an object is to have, if it has others. An object that has changed meanwhile is looked
/// at again.
async fn write<K>(api: &Api<K>, object: &K, finalizer: &str, is_used: bool) -> Result<Next, kube::Error>
where
    K: Resource + DeserializeOwned + Clone + Debug,
{
    let meta = object.meta();
    let Some(finalizers) = plan::finalizers(meta, finalizer, is_used) else { return Ok(Next::Done) };
    let patch = json!({ "metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers,
    } });
    let name = meta.name.clone().unwrap_or_default();
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(Next::Done),
    }
}
