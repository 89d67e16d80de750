//! EndpointSlice: for each Service the addresses of its pods, and whether they take connections.

mod apply;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use reeve_client::{Component, Index, Next, ObjectKey, WorkQueue, work};

use crate::manager::Watches;
use crate::service_pods::{is_unmanaged, selected, services_touched};
pub(crate) use apply::{ApplyError, apply};
use plan::{MANAGED_BY, Observed};
pub(crate) use plan::{MANAGED_BY_LABEL, Plan, SERVICE_LABEL, suffix};

/// Services looked at at the same time. Source: `concurrent-service-endpoint-syncs`.
const PARALLEL: usize = 5;

/// The label by which nodes say where they are.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Watches Services, their pods and slices, and the nodes' zones.
pub(crate) struct EndpointSliceController {
    component: Component,
    watches: Watches,
    queue: Arc<WorkQueue<ObjectKey>>,
    slices_by_service: Index<ObjectKey, EndpointSlice>,
}

impl EndpointSliceController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let queue = Arc::<WorkQueue<ObjectKey>>::default();
        let slices_by_service = Index::new(&watches.slices, |slice| service_of(slice).into_iter().collect());
        let added = Arc::clone(&queue);
        watches.services.on_change(move |change| added.add(ObjectKey::of(change.object().as_ref())));
        let (added, services) = (Arc::clone(&queue), watches.services.store().clone());
        watches.pods.on_change(move |change| {
            services_touched(change, &services).into_iter().for_each(|key| added.add(key));
        });
        let added = Arc::clone(&queue);
        watches.slices.on_change(move |change| {
            let versions = change.old().into_iter().chain(change.new());
            versions.filter_map(|slice| service_of(slice)).for_each(|key| added.add(key));
        });
        Self { component: component.clone(), watches: watches.clone(), queue, slices_by_service }
    }

    pub(crate) async fn run(self) {
        work("endpointslice", &self.queue, PARALLEL, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, ApplyError> {
        // The slices of a Service that is gone are the garbage collector's: they name it as their owner.
        let Some(service) = self.watches.services.store().get_key(&key) else { return Ok(Next::Done) };
        if is_unmanaged(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let pods = selected(&service, self.watches.pods.store());
        let slices = self.slices_by_service.get(&key);
        let observed = Observed { pods: &pods, slices: &slices, zones: &self.zones() };
        let plan = plan::plan(&service, &observed);
        apply(&Api::namespaced(self.component.client.clone(), &key.namespace), plan).await?;
        Ok(Next::Done)
    }

    fn zones(&self) -> HashMap<String, String> {
        let nodes = self.watches.nodes.store().list();
        let zone = |node: &k8s_openapi::api::core::v1::Node| {
            let zone = node.metadata.labels.as_ref()?.get(ZONE_LABEL)?.clone();
            Some((node.metadata.name.clone()?, zone))
        };
        nodes.iter().filter_map(|node| zone(node)).collect()
    }
}

/// The Service that one of our slices belongs to.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.get(MANAGED_BY_LABEL).map(String::as_str) != Some(MANAGED_BY) {
        return None;
    }
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), labels.get(SERVICE_LABEL)?.clone()))
}
