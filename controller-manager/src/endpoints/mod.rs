//! Endpoints: one object per Service with all its addresses, kept for clients that know no EndpointSlice.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Endpoints;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use reeve_client::{Component, Next, ObjectKey, WorkQueue, work};

use crate::manager::Watches;
use crate::requests::{is_namespace_terminating, is_not_found};
use crate::service_pods::{is_unmanaged, selected, services_touched};
use plan::{MANAGED_BY, MANAGED_BY_LABEL};

/// Services looked at at the same time. Source: `concurrent-endpoint-syncs`.
const PARALLEL: usize = 5;

/// Watches Services, their pods and Endpoints.
pub(crate) struct EndpointsController {
    component: Component,
    watches: Watches,
    queue: Arc<WorkQueue<ObjectKey>>,
}

impl EndpointsController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let queue = Arc::<WorkQueue<ObjectKey>>::default();
        let added = Arc::clone(&queue);
        watches.services.on_change(move |change| added.add(ObjectKey::of(change.object().as_ref())));
        let (added, services) = (Arc::clone(&queue), watches.services.store().clone());
        watches.pods.on_change(move |change| {
            services_touched(change, &services).into_iter().for_each(|key| added.add(key));
        });
        let added = Arc::clone(&queue);
        watches.endpoints.on_change(move |change| added.add(ObjectKey::of(change.object().as_ref())));
        Self { component: component.clone(), watches: watches.clone(), queue }
    }

    pub(crate) async fn run(self) {
        work("endpoints", &self.queue, PARALLEL, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, kube::Error> {
        let api: Api<Endpoints> = Api::namespaced(self.component.client.clone(), &key.namespace);
        let current = self.watches.endpoints.store().get_key(&key);
        let Some(service) = self.watches.services.store().get_key(&key) else {
            return delete(&api, &key, current.as_deref()).await;
        };
        if is_unmanaged(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Next::Done);
        }
        let pods = selected(&service, self.watches.pods.store());
        let Some(wanted) = plan::plan(&service, &pods, current.as_deref()) else { return Ok(Next::Done) };
        let parameters = PostParams::default();
        let written = match current {
            Some(_) => api.replace(&key.name, &parameters, &wanted).await,
            None => api.create(&parameters, &wanted).await,
        };
        match written {
            Err(error) if !is_namespace_terminating(&error) => Err(error),
            _ => Ok(Next::Done),
        }
    }
}

/// Of a Service that is gone. Endpoints that somebody made by hand stay.
async fn delete(api: &Api<Endpoints>, key: &ObjectKey, current: Option<&Endpoints>) -> Result<Next, kube::Error> {
    let label = |current: &Endpoints| current.metadata.labels.as_ref()?.get(MANAGED_BY_LABEL).cloned();
    if current.and_then(label).as_deref() != Some(MANAGED_BY) {
        return Ok(Next::Done);
    }
    match api.delete(&key.name, &DeleteParams::default()).await {
        Err(error) if !is_not_found(&error) => Err(error),
        _ => Ok(Next::Done),
    }
}
