//! ReplicaSet and ReplicationController: keep a number of pods of one template.

mod apply;
mod flavor;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use reeve_api::selector::LabelSelector;
use reeve_client::{Change, Component, EventRecorder, Index, Informer, Next, ObjectKey, WorkQueue, work};

use crate::expectations::Expectations;
use crate::manager::Watches;
use crate::ownership::{apply_claim, claim, controller_of, controller_reference, controller_uids};
use crate::pods;
use crate::requests::patch_status;
use apply::Hands;
use flavor::Flavor;
use plan::{Failure, Observed, Plan};

/// ReplicaSets looked at at the same time. Source: `concurrent-replicaset-syncs`.
const PARALLEL: usize = 5;

/// Watches ReplicaSets, or ReplicationControllers, and their pods.
pub(crate) struct ReplicaSetController<S: Flavor> {
    component: Component,
    watches: Watches,
    sets: Informer<S>,
    events: EventRecorder,
    queue: Arc<WorkQueue<ObjectKey>>,
    expectations: Arc<Expectations>,
    pods_by_controller: Index<String, Pod>,
    sets_by_controller: Index<String, S>,
}

#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("pods cannot be claimed")]
    Claim(#[from] crate::ownership::ClaimError),
    #[error("{reason}: {message}")]
    Pods { reason: &'static str, message: String },
    #[error("the status cannot be written")]
    Status(#[source] kube::Error),
}

impl From<Failure> for SyncError {
    fn from(failure: Failure) -> Self {
        Self::Pods { reason: failure.reason, message: failure.message }
    }
}

impl<S: Flavor> ReplicaSetController<S> {
    pub(crate) fn new(component: &Component, watches: &Watches, sets: &Informer<S>) -> Self {
        let queue = Arc::<WorkQueue<ObjectKey>>::default();
        let expectations = Arc::<Expectations>::default();
        let pods_by_controller = Index::new(&watches.pods, controller_uids::<Pod>);
        let sets_by_controller = Index::new(sets, controller_uids::<S>);
        let (added, forgotten) = (Arc::clone(&queue), Arc::clone(&expectations));
        sets.on_change(move |change| {
            let key = ObjectKey::of(change.object().as_ref());
            let uid = |set: Option<&Arc<S>>| set.and_then(|set| set.meta().uid.clone());
            // Gone, or another set of that name: the pods that the old one asked for are nobody's concern.
            if change.old().is_some() && uid(change.old()) != uid(change.new()) {
                forgotten.forget(&key);
            }
            added.add(key);
        });
        let of_pod = OfPod { queue: Arc::clone(&queue), expectations: Arc::clone(&expectations), sets: sets.clone() };
        watches.pods.on_change(move |change| of_pod.on_change(change));
        let events = EventRecorder::start(component, S::REPORTER, None);
        let (component, watches, sets) = (component.clone(), watches.clone(), sets.clone());
        Self { component, watches, sets, events, queue, expectations, pods_by_controller, sets_by_controller }
    }

    pub(crate) async fn run(self) {
        work(S::QUEUE, &self.queue, PARALLEL, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, SyncError> {
        let Some(owner) = self.sets.store().get_key(&key) else {
            self.expectations.forget(&key);
            return Ok(Next::Done);
        };
        let set = owner.as_set();
        let client = &self.component.client;
        let pods = Api::namespaced(client.clone(), &key.namespace);
        let sets: Api<S> = Api::namespaced(client.clone(), &key.namespace);
        // Asked before the pods are read: what is seen from here on is newer than the expectations.
        let pending = self.expectations.pending(&key, self.component.clock.monotonic());
        let claim = claim(&set.metadata, &selector(&set), self.candidates(&set));
        apply_claim(&sets, owner.as_ref(), &pods, &claim).await?;
        let now = self.component.clock.now();
        let observed = Observed { owned: &claim.owned, per_node: self.active_per_node(&set), now };
        let outcome = if pending.is_none() && set.metadata.deletion_timestamp.is_none() {
            let hands = self.hands(&key, &owner, &set, pods);
            match plan::plan(&set, &observed) {
                Plan::Keep => Ok(()),
                Plan::Create(total) => hands.create(total).await,
                Plan::Delete(surplus) => hands.delete(&surplus).await,
            }
        } else {
            Ok(())
        };
        let status = S::status_of(plan::status(&set, &observed, outcome.as_ref().err()));
        let old = owner.current();
        if status != old {
            patch_status(&sets, owner.as_ref(), &old, &status).await.map_err(SyncError::Status)?;
        }
        outcome?;
        let next = [pending, plan::next_available(&set, &observed)].into_iter().flatten().min();
        Ok(next.map_or(Next::Done, Next::After))
    }

    fn hands<'h>(&'h self, key: &'h ObjectKey, owner: &S, set: &'h ReplicaSet, pods: Api<Pod>) -> Hands<'h> {
        Hands {
            pods,
            events: &self.events,
            expectations: &self.expectations,
            key,
            set,
            owner: controller_reference(owner),
            about: owner.object_ref(&()),
            now: self.component.clock.monotonic(),
        }
    }

    /// The set's own pods and the orphans of its namespace.
    fn candidates(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let uid = set.metadata.uid.clone().unwrap_or_default();
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let mut candidates = self.pods_by_controller.get(&uid);
        // An orphan has no controller to be found by. Most namespaces have none, but they must be looked for.
        candidates.extend(self.watches.orphans.get(&namespace.to_owned()));
        candidates
    }

    /// Active pods per node of all sets with the same owner: an old and a new set of one Deployment share nodes.
    fn active_per_node(&self, set: &ReplicaSet) -> HashMap<String, usize> {
        let related = match controller_of(&set.metadata) {
            Some(owner) => {
                self.sets_by_controller.get(&owner.uid).iter().filter_map(|set| set.meta().uid.clone()).collect()
            }
            None => Vec::from_iter(set.metadata.uid.clone()),
        };
        let mut per_node = HashMap::new();
        for pod in related.iter().flat_map(|uid| self.pods_by_controller.get(uid)) {
            let node = pods::node_name(&pod);
            if pods::is_active(&pod) && !node.is_empty() {
                *per_node.entry(node.to_owned()).or_default() += 1;
            }
        }
        per_node
    }
}

fn selector(set: &ReplicaSet) -> LabelSelector {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

/// From a change of a pod to the sets that have to look.
struct OfPod<S: Flavor> {
    queue: Arc<WorkQueue<ObjectKey>>,
    expectations: Arc<Expectations>,
    sets: Informer<S>,
}

impl<S: Flavor> OfPod<S> {
    fn on_change(&self, change: &Change<'_, Pod>) {
        let old_owner = change.old().and_then(|old| self.owner(old));
        let new_owner = change.new().and_then(|new| self.owner(new));
        let uid = change.object().metadata.uid.as_deref().unwrap_or_default();
        match change {
            Change::Added(_) => new_owner.iter().for_each(|key| self.expectations.creation_observed(key)),
            Change::Removed(_) => old_owner.iter().for_each(|key| self.expectations.deletion_observed(key, uid)),
            Change::Updated { .. } => {}
        }
        if let (Some(key), Some(pod)) = (&new_owner, change.new())
            && pod.metadata.deletion_timestamp.is_some()
        {
            self.expectations.deletion_observed(key, uid);
        }
        if let Some(pod) = change.new().filter(|pod| controller_of(&pod.metadata).is_none()) {
            self.offer(pod);
        }
        for key in old_owner.into_iter().chain(new_owner) {
            self.queue.add(key);
        }
    }

    /// The set that manages a pod, if it is the one that the pod means.
    fn owner(&self, pod: &Pod) -> Option<ObjectKey> {
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == S::kind(&()))?;
        let key = ObjectKey::new(pod.metadata.namespace.clone().unwrap_or_default(), owner.name.clone());
        // Not known yet: the pod's watch is ahead of the set's. The set looks at its pods when it arrives.
        let set = self.sets.store().get_key(&key)?;
        (set.meta().uid.as_ref() == Some(&owner.uid)).then_some(key)
    }

    /// An orphan is looked at by every set that could adopt it.
    fn offer(&self, pod: &Pod) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for set in self.sets.store().list_namespace(namespace) {
            if selector(&set.as_set()).matches(pod.metadata.labels.as_ref()) {
                self.queue.add(ObjectKey::of(set.as_ref()));
            }
        }
    }
}
