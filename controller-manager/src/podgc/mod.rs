//! Pod garbage: pods bound to a node that does not exist have nobody who could ever end them.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use reeve_client::{Change, Component, Index, Next, WorkQueue, work};

use crate::manager::Watches;
use crate::pods;
use crate::requests::is_not_found;

/// Nodes looked at at the same time.
const PARALLEL: usize = 5;

/// A node that is missing must stay missing for this long: its watch may lag, or it may come back.
/// Source: podgc's `quarantineTime`.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Watches pods and nodes.
pub(crate) struct PodGarbageController {
    component: Component,
    watches: Watches,
    /// Names of nodes that could be missing.
    queue: Arc<WorkQueue<String>>,
    pods_by_node: Index<String, Pod>,
}

impl PodGarbageController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let queue = Arc::<WorkQueue<String>>::default();
        let pods_by_node = watches.pods_by_node.clone();
        let added = Arc::clone(&queue);
        watches.nodes.on_change(move |change| {
            if let Change::Removed(node) = change {
                added.add_after(node.metadata.name.clone().unwrap_or_default(), QUARANTINE);
            }
        });
        let (added, nodes) = (Arc::clone(&queue), watches.nodes.store().clone());
        watches.pods.on_change(move |change| {
            let node = change.new().map(|pod| pods::node_name(pod)).filter(|node| !node.is_empty());
            if let Some(node) = node.filter(|node| nodes.get("", node).is_none()) {
                added.add_after(node.to_owned(), QUARANTINE);
            }
        });
        Self { component: component.clone(), watches: watches.clone(), queue, pods_by_node }
    }

    pub(crate) async fn run(self) {
        work("podgc", &self.queue, PARALLEL, |node| self.sync(node)).await;
    }

    async fn sync(&self, node: String) -> Result<Next, kube::Error> {
        let pods = self.pods_by_node.get(&node);
        if pods.is_empty() || self.watches.nodes.store().get("", &node).is_some() {
            return Ok(Next::Done);
        }
        let nodes: Api<Node> = Api::all(self.component.client.clone());
        if nodes.get_opt(&node).await?.is_some() {
            return Ok(Next::Done);
        }
        for pod in pods {
            match self.end(&pod).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(Next::Done)
    }

    /// Says why, then removes the object at once: no container is left that could need time.
    async fn end(&self, pod: &Pod) -> kube::Result<()> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.component.client.clone(), namespace);
        let patch = plan::orphaned_patch(pod, self.component.clock.now());
        api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
        api.delete(name, &parameters).await.map(drop)
    }
}
