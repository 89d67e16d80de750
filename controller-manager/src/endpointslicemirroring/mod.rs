//! EndpointSlices for Endpoints that somebody keeps by hand, for a Service without a selector: proxies and DNS look at
//! slices only.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use reeve_client::{Component, Index, Next, ObjectKey, WorkQueue, work};

use crate::endpointslice::{ApplyError, MANAGED_BY_LABEL, SERVICE_LABEL, apply};
use crate::manager::Watches;
use plan::{MANAGED_BY, is_mirrored};

/// Endpoints looked at at the same time. Source: `mirroring-concurrent-service-endpoint-syncs`.
const PARALLEL: usize = 5;

/// Watches Endpoints, their Services and the slices made of them.
pub(crate) struct MirroringController {
    component: Component,
    watches: Watches,
    queue: Arc<WorkQueue<ObjectKey>>,
    slices: Index<ObjectKey, EndpointSlice>,
}

impl MirroringController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let queue = Arc::<WorkQueue<ObjectKey>>::default();
        let slices = Index::new(&watches.slices, |slice| shown(slice).into_iter().collect());
        let added = Arc::clone(&queue);
        watches.endpoints.on_change(move |change| added.add(ObjectKey::of(change.object().as_ref())));
        let added = Arc::clone(&queue);
        watches.services.on_change(move |change| added.add(ObjectKey::of(change.object().as_ref())));
        let added = Arc::clone(&queue);
        watches.slices.on_change(move |change| {
            let versions = change.old().into_iter().chain(change.new());
            versions.filter_map(|slice| shown(slice)).for_each(|key| added.add(key));
        });
        Self { component: component.clone(), watches: watches.clone(), queue, slices }
    }

    pub(crate) async fn run(self) {
        work("endpointslicemirroring", &self.queue, PARALLEL, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, ApplyError> {
        let service = self.watches.services.store().get_key(&key);
        let endpoints = self.watches.endpoints.store().get_key(&key);
        let endpoints = endpoints.filter(|own| own.metadata.deletion_timestamp.is_none());
        let mirrored = endpoints.filter(|endpoints| is_mirrored(endpoints, service.as_deref()));
        let plan = plan::plan(mirrored.as_deref(), &self.slices.get(&key));
        apply(&Api::namespaced(self.component.client.clone(), &key.namespace), plan).await?;
        Ok(Next::Done)
    }
}

/// The Endpoints that one of our slices shows.
fn shown(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    if labels.get(MANAGED_BY_LABEL).map(String::as_str) != Some(MANAGED_BY) {
        return None;
    }
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), labels.get(SERVICE_LABEL)?.clone()))
}
