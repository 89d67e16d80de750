//! PodDisruptionBudget: keeps in the status how many pods may be disrupted.
//!
//! The API server takes disruptions from the status when it evicts; both write with the resourceVersion they saw.

mod plan;
mod scale;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource as _};
use reeve_api::selector::LabelSelector;
use reeve_client::{Component, EventRecorder, Informer, Next, ObjectKey, WorkQueue, work};
use serde_json::json;

use crate::manager::Watches;
use crate::requests::{is_not_found, message};
use plan::{Counted, Expected};

/// Budgets looked at at the same time.
const PARALLEL: usize = 5;

/// Watches budgets and pods.
pub(crate) struct DisruptionController {
    component: Component,
    watches: Watches,
    events: EventRecorder,
    queue: Arc<WorkQueue<ObjectKey>>,
    /// Pods that were to be disrupted and perhaps never are.
    spared: Arc<WorkQueue<ObjectKey>>,
}

impl DisruptionController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let (queue, spared) = (Arc::<WorkQueue<ObjectKey>>::default(), Arc::<WorkQueue<ObjectKey>>::default());
        let added = Arc::clone(&queue);
        watches.budgets.on_change(move |change| added.add(ObjectKey::of(change.object().as_ref())));
        let (added, budgets, stale) = (Arc::clone(&queue), watches.budgets.clone(), Arc::clone(&spared));
        let clock = component.clock.clone();
        watches.pods.on_change(move |change| {
            for pod in [change.old(), change.new()].into_iter().flatten() {
                of_pod(&budgets, pod).into_iter().for_each(|key| added.add(key));
            }
            let wait = change.new().and_then(|pod| plan::spared_in(pod, clock.now()));
            if let (Some(wait), Some(pod)) = (wait, change.new()) {
                stale.add_after(ObjectKey::of(pod.as_ref()), wait);
            }
        });
        let events = EventRecorder::start(component, "controllermanager", None);
        Self { component: component.clone(), watches: watches.clone(), events, queue, spared }
    }

    pub(crate) async fn run(self) {
        let budgets = work("disruption", &self.queue, PARALLEL, |key| self.sync(key));
        let pods = work("disruption of pods", &self.spared, PARALLEL, |key| self.spare(key));
        tokio::join!(budgets, pods);
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, kube::Error> {
        let Some(budget) = self.watches.budgets.store().get_key(&key) else { return Ok(Next::Done) };
        let now = self.component.clock.now();
        let about = budget.object_ref(&());
        let pods = self.pods_of(&budget);
        if pods.is_empty() {
            self.events.normal(&about, "NoPods", "No matching pods found".to_owned());
        }
        let (status, next) = match self.expected(&budget, &pods).await {
            Ok(expected) => {
                if expected.unmanaged {
                    self.events.warning(&about, "UnmanagedPods", plan::unmanaged(&budget));
                }
                let counted = Counted::of(&budget, &pods, now);
                for pod in &counted.not_deleted {
                    let namespace = &key.namespace;
                    let text = format!("Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't");
                    self.events.warning(&pod.object_ref(&()), "NotDeleted", text);
                }
                let next = counted.recheck.map_or(Next::Done, Next::After);
                (plan::status(&budget, &expected, counted, now), next)
            }
            Err(why) => {
                let text = format!("Failed to calculate the number of expected pods: {why}");
                self.events.warning(&about, "CalculateExpectedPodCountFailed", text);
                (plan::failed(&budget, &why, now), Next::Done)
            }
        };
        if budget.status.as_ref() != Some(&status) {
            let mut changed = PodDisruptionBudget::clone(&budget);
            changed.status = Some(status);
            let api: Api<PodDisruptionBudget> = Api::namespaced(self.component.client.clone(), &key.namespace);
            match api.replace_status(&key.name, &PostParams::default(), &changed).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(next)
    }

    fn pods_of(&self, budget: &PodDisruptionBudget) -> Vec<Arc<Pod>> {
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        let selector = selector(budget);
        let mut pods = self.watches.pods.store().list_namespace(namespace);
        pods.retain(|pod| selector.matches(pod.metadata.labels.as_ref()));
        pods
    }

    /// How many pods there should be and how many of them healthy.
    async fn expected(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<Expected, String> {
        match plan::needs_scale(budget) {
            false => plan::expected(budget, pods.len(), false),
            true => {
                let (count, unmanaged) =
                    scale::of_controllers(&self.component.client, &self.watches, pods).await.map_err(|e| e.0)?;
                plan::expected(budget, count, unmanaged)
            }
        }
    }

    /// A pod that was to be disrupted and is there after all is told so.
    async fn spare(&self, key: ObjectKey) -> Result<Next, kube::Error> {
        let Some(pod) = self.watches.pods.store().get_key(&key) else { return Ok(Next::Done) };
        let now = self.component.clock.now();
        match plan::spared_in(&pod, now) {
            None => Ok(Next::Done),
            Some(wait) if !wait.is_zero() => Ok(Next::After(wait)),
            Some(_) => {
                let condition = json!({
                    "type": "DisruptionTarget", "status": "False", "reason": null, "message": null,
                    "lastTransitionTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now),
                });
                let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
                let api: Api<Pod> = Api::namespaced(self.component.client.clone(), &key.namespace);
                match api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                    Err(error) if !is_not_found(&error) => Err(error),
                    _ => Ok(Next::Done),
                }
            }
        }
    }
}

fn selector(budget: &PodDisruptionBudget) -> LabelSelector {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

/// The budgets that a pod concerns.
fn of_pod(budgets: &Informer<PodDisruptionBudget>, pod: &Pod) -> Vec<ObjectKey> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let all = budgets.store().list_namespace(namespace).into_iter();
    all.filter(|budget| selector(budget).matches(pod.metadata.labels.as_ref()))
        .map(|budget| ObjectKey::of(budget.as_ref()))
        .collect()
}

/// Why the size of a controller cannot be told.
pub(crate) struct Unknown(String);

impl From<kube::Error> for Unknown {
    fn from(error: kube::Error) -> Self {
        Self(message(&error))
    }
}
