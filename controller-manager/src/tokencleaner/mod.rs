//! Token cleaner: bootstrap tokens whose time is up are deleted. Nobody takes them any more; they would only lie about.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use reeve_client::{Component, Informer, InformerOptions, Next, WorkQueue, work};

use self::plan::{EXPIRATION, Fate};
use crate::manager::Watches;
use crate::requests::is_not_found;

/// Where bootstrap tokens are, and what their Secrets are told from others by.
const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Tokens looked at at the same time.
const PARALLEL: usize = 2;

/// Watches the Secrets of bootstrap tokens.
pub(crate) struct TokenCleaner {
    component: Component,
    watches: Watches,
    queue: Arc<WorkQueue<String>>,
}

/// The watch of the tokens' Secrets.
pub(crate) fn tokens(component: &Component) -> Informer<Secret> {
    let options = InformerOptions {
        fields: format!("type={TYPE}"),
        trim: Some(trim as fn(&mut Secret)),
        ..InformerOptions::default()
    };
    Informer::start(component, Api::namespaced(component.client.clone(), NAMESPACE), options)
}

/// Keeps when a token ends; what it is nobody here needs to know.
fn trim(secret: &mut Secret) {
    if let Some(data) = &mut secret.data {
        data.retain(|name, _| name == EXPIRATION);
    }
}

impl TokenCleaner {
    pub(crate) fn new(component: &Component, watches: &Watches) -> Self {
        let queue = Arc::<WorkQueue<String>>::default();
        let added = Arc::clone(&queue);
        watches.tokens.on_change(move |change| added.add(change.object().metadata.name.clone().unwrap_or_default()));
        Self { component: component.clone(), watches: watches.clone(), queue }
    }

    pub(crate) async fn run(self) {
        work("token-cleaner", &self.queue, PARALLEL, |name| self.sync(name)).await;
    }

    async fn sync(&self, name: String) -> Result<Next, kube::Error> {
        let Some(secret) = self.watches.tokens.store().get(NAMESPACE, &name) else { return Ok(Next::Done) };
        match plan::fate(&secret, self.component.clock.now()) {
            Fate::Stays => return Ok(Next::Done),
            Fate::EndsIn(time) => return Ok(Next::After(time)),
            Fate::Ended => {}
        }
        let api: Api<Secret> = Api::namespaced(self.component.client.clone(), NAMESPACE);
        let metadata = &secret.metadata;
        // One that was prolonged meanwhile stays.
        let preconditions =
            Preconditions { uid: metadata.uid.clone(), resource_version: metadata.resource_version.clone() };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&name, &parameters).await {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(Next::Done),
        }
    }
}
