//! Node lifecycle: notices nodes that fall silent, taints nodes by their state, and moves pods off them in time.

mod apply;
mod heard;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Resource as _;
use reeve_client::{Change, Component, EventRecorder, Next, ObjectKey, WorkQueue, work};

use crate::manager::Watches;
use crate::pods;
use heard::Heard;
use plan::{Eviction, GRACE};

/// Nodes, and pods, looked at at the same time.
const PARALLEL: usize = 8;

/// Watches nodes, their leases and their pods.
pub(crate) struct NodeLifecycleController {
    component: Component,
    watches: Watches,
    events: EventRecorder,
    nodes: Arc<WorkQueue<String>>,
    pods: Arc<WorkQueue<ObjectKey>>,
    heard: Arc<Heard>,
}

impl NodeLifecycleController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let (nodes, pods) = (Arc::<WorkQueue<String>>::default(), Arc::<WorkQueue<ObjectKey>>::default());
        let heard = Arc::<Heard>::default();
        let on_node = OnNode {
            nodes: Arc::clone(&nodes),
            pods: Arc::clone(&pods),
            heard: Arc::clone(&heard),
            component: component.clone(),
            watches: watches.clone(),
        };
        watches.nodes.on_change(move |change| on_node.on_change(change));
        let (noted, clock) = (Arc::clone(&heard), component.clock.clone());
        watches.leases.on_change(move |change| {
            if let Some(lease) = change.new() {
                let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
                noted.lease(lease.metadata.name.as_deref().unwrap_or_default(), renewed, clock.monotonic());
            }
        });
        let added = Arc::clone(&pods);
        watches.pods.on_change(move |change| {
            let bound = |pod: Option<&Arc<Pod>>| pod.map(|pod| pods::node_name(pod).to_owned()).unwrap_or_default();
            if change.new().is_some() && bound(change.old()) != bound(change.new()) {
                added.add(ObjectKey::of(change.object().as_ref()));
            }
        });
        let events = EventRecorder::start(component, "node-controller", None);
        Self { component: component.clone(), watches: watches.clone(), events, nodes, pods, heard }
    }

    pub(crate) async fn run(self) {
        let nodes = work("nodelifecycle", &self.nodes, PARALLEL, |name| self.sync_node(name));
        let pods = work("taint-eviction", &self.pods, PARALLEL, |key| self.sync_pod(key));
        tokio::join!(nodes, pods);
    }

    async fn sync_node(&self, name: String) -> Result<Next, kube::Error> {
        let Some(node) = self.watches.nodes.store().get("", &name) else { return Ok(Next::Done) };
        let client = &self.component.client;
        let now = self.component.clock.now();
        let silent = self.heard.silent_for(&name, self.component.clock.monotonic());
        if silent >= GRACE
            && let Some(conditions) = plan::silenced(&node, now)
        {
            apply::write_conditions(client, &node, &conditions).await?;
            let message = format!("Node {name} status is now: NodeNotReady");
            self.events.normal(&node.object_ref(&()), "NodeNotReady", message);
            // The taints follow when the watch brings the new conditions.
            return Ok(Next::Done);
        }
        if let Some(taints) = plan::taints(&node, self.is_any_ready(), now) {
            apply::write_taints(client, &node, &taints).await?;
        }
        if plan::readiness(&node) != "True" {
            self.mark_pods_not_ready(&name).await?;
        }
        // One look per grace period is enough for a node that speaks: its lease moves the time on unseen. A silent
        // one is looked at again when it speaks.
        let left = GRACE.saturating_sub(silent);
        Ok(if left.is_zero() { Next::Done } else { Next::After(left) })
    }

    async fn mark_pods_not_ready(&self, node: &str) -> Result<(), kube::Error> {
        let now = self.component.clock.now();
        for pod in self.watches.pods_by_node.get(&node.to_owned()) {
            if pods::is_ready(&pod) {
                apply::mark_not_ready(&self.component.client, &pod, now).await?;
                self.events.warning(&pod.object_ref(&()), "NodeNotReady", "Node is not ready");
            }
        }
        Ok(())
    }

    async fn sync_pod(&self, key: ObjectKey) -> Result<Next, kube::Error> {
        let Some(pod) = self.watches.pods.store().get_key(&key) else { return Ok(Next::Done) };
        if pod.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let Some(node) = self.watches.nodes.store().get("", pods::node_name(&pod)) else { return Ok(Next::Done) };
        let now = self.component.clock.now();
        match plan::eviction(&pod, &node, now) {
            Eviction::Never => Ok(Next::Done),
            Eviction::In(left) => Ok(Next::After(left)),
            Eviction::Now => {
                let message = format!("Marking for deletion Pod {key}");
                self.events.normal(&pod.object_ref(&()), "TaintManagerEviction", message);
                apply::evict(&self.component.client, &pod, now).await?;
                Ok(Next::Done)
            }
        }
    }

    fn is_any_ready(&self) -> bool {
        self.watches.nodes.store().list().iter().any(|node| plan::readiness(node) == "True")
    }
}

/// From a change of a node to what has to be looked at.
struct OnNode {
    nodes: Arc<WorkQueue<String>>,
    pods: Arc<WorkQueue<ObjectKey>>,
    heard: Arc<Heard>,
    component: Component,
    watches: Watches,
}

impl OnNode {
    fn on_change(&self, change: &Change<'_, Node>) {
        let name = change.object().metadata.name.clone().unwrap_or_default();
        let Some(node) = change.new() else { return self.heard.forget(&name) };
        let heartbeat = plan::condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref());
        self.heard.status(&name, heartbeat.map(|time| time.0), self.component.clock.monotonic());
        let readiness_changed = change.old().is_none_or(|old| plan::readiness(old) != plan::readiness(node));
        if readiness_changed {
            // Whether any node is ready decides about all of them.
            for node in self.watches.nodes.store().list() {
                self.nodes.add(node.metadata.name.clone().unwrap_or_default());
            }
        } else if change.old().is_none_or(|old| state(old) != state(node)) {
            self.nodes.add(name.clone());
        }
        if change.old().is_none_or(|old| taints(old) != taints(node)) {
            for pod in self.watches.pods_by_node.get(&name) {
                self.pods.add(ObjectKey::of(pod.as_ref()));
            }
        }
    }
}

/// What of a node decides about its taints.
fn state(node: &Node) -> impl PartialEq + '_ {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let conditions: Vec<(&str, &str)> =
        conditions.map(|condition| (condition.type_.as_str(), condition.status.as_str())).collect();
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    (conditions, unschedulable, taints(node))
}

fn taints(node: &Node) -> Option<&Vec<k8s_openapi::api::core::v1::Taint>> {
    node.spec.as_ref().and_then(|spec| spec.taints.as_ref())
}
