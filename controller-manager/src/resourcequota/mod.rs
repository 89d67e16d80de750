//! ResourceQuota: counts what a namespace uses of its quotas.
//!
//! What is created takes its share in the API server, in one step with the object. What is deleted or changed is
//! counted anew here, as soon as it is seen. Both write with the resourceVersion they saw.

mod apply;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ResourceQuota;
use reeve_client::{Change, Component, Informer, Next, ObjectKey, WorkQueue, work};

use crate::garbage::OnGone;
use crate::manager::Watches;

/// Quotas counted at the same time. Source: `concurrent-resource-quota-syncs`.
const PARALLEL: usize = 5;

/// A quota is counted anew after this time in any case: for changes of objects that nobody watches whole. Source:
/// `resource-quota-sync-period`.
const RESYNC: Duration = Duration::from_secs(300);

/// Watches quotas, pods and Services; hears from the garbage collector when something of any other kind is gone.
pub(crate) struct ResourceQuotaController {
    component: Component,
    quotas: Informer<ResourceQuota>,
    queue: Arc<WorkQueue<ObjectKey>>,
}

impl ResourceQuotaController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let queue = Arc::<WorkQueue<ObjectKey>>::default();
        let added = Arc::clone(&queue);
        watches.quotas.on_change(move |change| {
            let hard = |quota: &Arc<ResourceQuota>| quota.spec.as_ref().and_then(|spec| spec.hard.clone());
            // A new status is our own work or the API server's.
            if change.old().map(hard) != change.new().map(hard) || plan::is_unknown(change.object()) {
                added.add(ObjectKey::of(change.object().as_ref()));
            }
        });
        let controller = Self { component: component.clone(), quotas: watches.quotas.clone(), queue };
        let recount = controller.on_gone();
        watches.pods.on_change(move |change| {
            if let Change::Updated { old, new } = change
                && plan::has_changed(old, new)
            {
                recount(new.metadata.namespace.as_deref());
            }
        });
        let recount = controller.on_gone();
        watches.services.on_change(move |change| {
            if let Change::Updated { old, new } = change
                && old.spec != new.spec
            {
                recount(new.metadata.namespace.as_deref());
            }
        });
        controller
    }

    /// To be told the namespace of every object that is gone; `None`: something may be gone from any.
    pub(crate) fn on_gone(&self) -> OnGone {
        let (queue, quotas) = (Arc::clone(&self.queue), self.quotas.store().clone());
        Arc::new(move |namespace| {
            for quota in namespace.map_or_else(|| quotas.list(), |namespace| quotas.list_namespace(namespace)) {
                queue.add(ObjectKey::of(quota.as_ref()));
            }
        })
    }

    pub(crate) async fn run(self) {
        work("resourcequota", &self.queue, PARALLEL, |key| self.sync(key)).await;
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, kube::Error> {
        if self.quotas.store().get_key(&key).is_none() {
            return Ok(Next::Done);
        }
        let found = apply::recount(&self.component.client, &key, self.component.clock.now()).await?;
        Ok(if found { Next::After(RESYNC) } else { Next::Done })
    }
}
