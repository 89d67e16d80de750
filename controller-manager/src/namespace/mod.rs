//! Namespace: empties a namespace that is being deleted, says what is in the way, and lets it go.

mod apply;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use reeve_client::{Component, Next, WorkQueue, work};

use crate::garbage::OnGone;
use crate::manager::Watches;
use crate::requests::{is_not_found, patch_status};

/// Namespaces emptied at the same time. Source: `concurrent-namespace-syncs`.
const PARALLEL: usize = 10;

/// A namespace that is not empty is looked at again when something in it goes; after this time in any case, for
/// kinds that nobody watches.
const LAST_RESORT: Duration = Duration::from_secs(30);

/// Watches namespaces; hears from the garbage collector when something in one is gone.
pub(crate) struct NamespaceController {
    component: Component,
    watches: Watches,
    queue: Arc<WorkQueue<String>>,
}

impl NamespaceController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let queue = Arc::<WorkQueue<String>>::default();
        let added = Arc::clone(&queue);
        watches.namespaces.on_change(move |change| {
            if let Some(namespace) = change.new().filter(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
                added.add(namespace.metadata.name.clone().unwrap_or_default());
            }
        });
        Self { component: component.clone(), watches: watches.clone(), queue }
    }

    /// To be told the namespace of every object that is gone; `None`: something may be gone from any.
    pub(crate) fn on_gone(&self) -> OnGone {
        let (queue, namespaces) = (Arc::clone(&self.queue), self.watches.namespaces.store().clone());
        Arc::new(move |name| {
            let found = name.map_or_else(|| namespaces.list(), |name| Vec::from_iter(namespaces.get("", name)));
            for namespace in found.iter().filter(|found| found.metadata.deletion_timestamp.is_some()) {
                queue.add(namespace.metadata.name.clone().unwrap_or_default());
            }
        })
    }

    pub(crate) async fn run(self) {
        work("namespace", &self.queue, PARALLEL, |name| self.sync(name)).await;
    }

    async fn sync(&self, name: String) -> Result<Next, kube::Error> {
        let Some(namespace) = self.watches.namespaces.store().get("", &name) else { return Ok(Next::Done) };
        if namespace.metadata.deletion_timestamp.is_none() || apply::is_finalized(&namespace) {
            return Ok(Next::Done);
        }
        let client = &self.component.client;
        let now = self.component.clock.now();
        let pods = self.watches.pods.store().list_namespace(&name);
        let found = apply::empty(client, &name, plan::is_within_grace(&namespace, &pods, now)).await?;
        let old = namespace.status.clone().unwrap_or_default();
        let status = plan::status(Some(&old), &found, now);
        if status != old {
            let api: Api<Namespace> = Api::all(client.clone());
            match patch_status(&api, namespace.as_ref(), &old, &status).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
        if found.is_empty() {
            apply::finalize(client, &namespace).await?;
            return Ok(Next::Done);
        }
        Ok(Next::After(LAST_RESORT))
    }
}
