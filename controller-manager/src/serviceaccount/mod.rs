//! ServiceAccount: every namespace has an account named `default`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use reeve_client::{Change, Component, Next, WorkQueue, work};

use crate::manager::Watches;
use crate::namespaces::is_active;
use crate::requests::is_namespace_terminating;

/// Namespaces looked at at the same time.
const PARALLEL: usize = 5;

/// The account that pods run under when they name none.
const DEFAULT: &str = "default";

/// Watches namespaces, and their accounts for those that get deleted.
pub(crate) struct ServiceAccountController {
    component: Component,
    watches: Watches,
    queue: Arc<WorkQueue<String>>,
}

impl ServiceAccountController {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let queue = Arc::<WorkQueue<String>>::default();
        let added = Arc::clone(&queue);
        watches
            .namespaces
            .on_change(move |change| added.add(change.object().metadata.name.clone().unwrap_or_default()));
        let added = Arc::clone(&queue);
        watches.service_accounts.on_change(move |change| {
            if let Change::Removed(account) = change {
                added.add(account.metadata.namespace.clone().unwrap_or_default());
            }
        });
        Self { component: component.clone(), watches: watches.clone(), queue }
    }

    pub(crate) async fn run(self) {
        work("serviceaccount", &self.queue, PARALLEL, |namespace| self.sync(namespace)).await;
    }

    async fn sync(&self, namespace: String) -> Result<Next, kube::Error> {
        let active = self.watches.namespaces.store().get("", &namespace).is_some_and(|namespace| is_active(&namespace));
        if !active || self.watches.service_accounts.store().get(&namespace, DEFAULT).is_some() {
            return Ok(Next::Done);
        }
        let metadata = ObjectMeta { name: Some(DEFAULT.to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.component.client.clone(), &namespace);
        match api.create(&PostParams::default(), &account).await {
            Ok(_) => Ok(Next::Done),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Next::Done),
            Err(error) if is_namespace_terminating(&error) => Ok(Next::Done),
            Err(error) => Err(error),
        }
    }
}
