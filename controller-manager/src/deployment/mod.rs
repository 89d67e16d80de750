//! Deployment: rolls a template out through ReplicaSets, and keeps earlier ones to go back to.

mod annotations;
mod apply;
mod new_set;
mod plan;
mod rollout;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Resource as _};
use reeve_api::selector::LabelSelector;
use reeve_client::{Change, Component, EventRecorder, Index, Next, ObjectKey, WorkQueue, work};

use crate::manager::Watches;
use crate::ownership::{ClaimError, apply_claim, claim, controller_of, controller_uids};
use crate::pods;
use apply::{ApplyError, Hands};
use plan::Observed;

/// Deployments looked at at the same time. Source: `concurrent-deployment-syncs`.
const PARALLEL: usize = 5;

/// Watches Deployments, their ReplicaSets, and for `Recreate` their pods.
pub(crate) struct DeploymentController {
    component: Component,
    watches: Watches,
    events: EventRecorder,
    queue: Arc<WorkQueue<ObjectKey>>,
    pods_by_controller: Index<String, Pod>,
}

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("replica sets cannot be claimed: {0}")]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

impl DeploymentController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let queue = Arc::<WorkQueue<ObjectKey>>::default();
        let pods_by_controller = Index::new(&watches.pods, controller_uids::<Pod>);
        let added = Arc::clone(&queue);
        watches.deployments.on_change(move |change| added.add(ObjectKey::of(change.object().as_ref())));
        let of_set = OfSet { queue: Arc::clone(&queue), watches: watches.clone() };
        watches.replica_sets.on_change(move |change| of_set.on_change(change));
        let of_pod = OfSet { queue: Arc::clone(&queue), watches: watches.clone() };
        watches.pods.on_change(move |change| of_pod.on_pod(change));
        let events = EventRecorder::start(component, "deployment-controller", None);
        Self { component: component.clone(), watches: watches.clone(), events, queue, pods_by_controller }
    }

    pub(crate) async fn run(self) {
        work("deployment", &self.queue, PARALLEL, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, SyncError> {
        let Some(deployment) = self.watches.deployments.store().get_key(&key) else { return Ok(Next::Done) };
        let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
        let selector = LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing());
        let client = &self.component.client;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), &key.namespace);
        let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), &key.namespace);
        let candidates = self.watches.replica_sets.store().list_namespace(&key.namespace);
        let claim = claim(&deployment.metadata, &selector, candidates);
        apply_claim(&deployments, deployment.as_ref(), &sets, &claim).await?;
        let now = self.component.clock.now();
        let with_pods = claim.owned.iter().filter_map(|set| set.metadata.uid.clone()).filter(|uid| self.has_pods(uid));
        let observed = Observed { sets: &claim.owned, with_pods: with_pods.collect::<HashSet<_>>(), now };
        let plan = plan::plan(&deployment, &observed);
        let again = status::time_left(&deployment, &plan.status, now);
        let about = deployment.object_ref(&());
        let hands = Hands { deployments, sets, events: &self.events, about, deployment: &deployment, now };
        hands.apply(plan).await?;
        Ok(again.map_or(Next::Done, |wait| Next::After(Duration::try_from(wait).unwrap_or(Duration::from_secs(1)))))
    }

    /// Whether a ReplicaSet has pods whose containers may still run.
    fn has_pods(&self, set_uid: &String) -> bool {
        self.pods_by_controller.get(set_uid).iter().any(|pod| !pods::is_finished(pod))
    }
}

/// From a change of a ReplicaSet or pod to the Deployments that have to look.
struct OfSet {
    queue: Arc<WorkQueue<ObjectKey>>,
    watches: Watches,
}

impl OfSet {
    fn on_change(&self, change: &Change<'_, ReplicaSet>) {
        for set in change.old().into_iter().chain(change.new()) {
            if let Some(owner) = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment") {
                self.queue.add(ObjectKey::new(set.metadata.namespace.clone().unwrap_or_default(), owner.name.clone()));
            }
        }
        if let Some(orphan) = change.new().filter(|set| controller_of(&set.metadata).is_none()) {
            self.offer(orphan);
        }
    }

    /// `Recreate` waits for the last old pod to go.
    fn on_pod(&self, change: &Change<'_, Pod>) {
        let gone = match change {
            Change::Removed(pod) => pod,
            Change::Updated { old, new } if pods::is_finished(new) && !pods::is_finished(old) => new,
            _ => return,
        };
        let Some(owner) = controller_of(&gone.metadata).filter(|owner| owner.kind == "ReplicaSet") else { return };
        let namespace = gone.metadata.namespace.as_deref().unwrap_or_default();
        let Some(set) = self.watches.replica_sets.store().get(namespace, &owner.name) else { return };
        let Some(owner) = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment") else { return };
        let Some(deployment) = self.watches.deployments.store().get(namespace, &owner.name) else { return };
        if !rollout::is_rolling(&deployment) {
            self.queue.add(ObjectKey::of(deployment.as_ref()));
        }
    }

    /// An orphan is looked at by every Deployment that could adopt it.
    fn offer(&self, orphan: &ReplicaSet) {
        let namespace = orphan.metadata.namespace.as_deref().unwrap_or_default();
        for deployment in self.watches.deployments.store().list_namespace(namespace) {
            let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
            if LabelSelector::from_object(selector).is_ok_and(|own| own.matches(orphan.metadata.labels.as_ref())) {
                self.queue.add(ObjectKey::of(deployment.as_ref()));
            }
        }
    }
}
