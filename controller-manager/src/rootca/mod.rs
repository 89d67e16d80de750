//! Root CA: every namespace has the cluster's CA certificate in the ConfigMap `kube-root-ca.crt`, by which pods
//! recognise the API server.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use reeve_client::{Component, Next, WorkQueue, work};

use crate::manager::Watches;
use crate::namespaces::is_active;
use crate::requests::is_namespace_terminating;

/// Namespaces looked at at the same time.
const PARALLEL: usize = 5;

/// The name of the ConfigMap.
pub(crate) const NAME: &str = "kube-root-ca.crt";
/// Its only key.
const KEY: &str = "ca.crt";
/// What Kubernetes writes into the annotation `kubernetes.io/description`.
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";

/// Watches namespaces and the ConfigMaps of that name.
pub(crate) struct RootCaController {
    component: Component,
    watches: Watches,
    queue: Arc<WorkQueue<String>>,
    ca_pem: String,
}

impl RootCaController {
    pub(crate) fn new(component: &Component, watches: &Watches, ca_pem: String) -> Self {
        let queue = Arc::<WorkQueue<String>>::default();
        let added = Arc::clone(&queue);
        watches
            .namespaces
            .on_change(move |change| added.add(change.object().metadata.name.clone().unwrap_or_default()));
        let added = Arc::clone(&queue);
        watches
            .root_cas
            .on_change(move |change| added.add(change.object().metadata.namespace.clone().unwrap_or_default()));
        Self { component: component.clone(), watches: watches.clone(), queue, ca_pem }
    }

    pub(crate) async fn run(self) {
        work("root-ca", &self.queue, PARALLEL, |namespace| self.sync(namespace)).await;
    }

    async fn sync(&self, namespace: String) -> Result<Next, kube::Error> {
        let active = self.watches.namespaces.store().get("", &namespace).is_some_and(|namespace| is_active(&namespace));
        let current = self.watches.root_cas.store().get(&namespace, NAME);
        let Some(wanted) = plan(&self.ca_pem, current.as_deref()).filter(|_| active) else { return Ok(Next::Done) };
        let api: Api<ConfigMap> = Api::namespaced(self.component.client.clone(), &namespace);
        let parameters = PostParams::default();
        let written = match current {
            Some(_) => api.replace(NAME, &parameters, &wanted).await,
            None => api.create(&parameters, &wanted).await,
        };
        match written {
            Err(error) if !is_namespace_terminating(&error) => Err(error),
            _ => Ok(Next::Done),
        }
    }
}

/// The ConfigMap to be written; `None` if `current` says it already.
fn plan(ca_pem: &str, current: Option<&ConfigMap>) -> Option<ConfigMap> {
    let data = Some(BTreeMap::from([(KEY.to_owned(), ca_pem.to_owned())]));
    match current {
        Some(current) if current.data == data => None,
        Some(current) => Some(ConfigMap { data, ..current.clone() }),
        None => {
            let annotations = BTreeMap::from([("kubernetes.io/description".to_owned(), DESCRIPTION.to_owned())]);
            let metadata =
                ObjectMeta { name: Some(NAME.to_owned()), annotations: Some(annotations), ..ObjectMeta::default() };
            Some(ConfigMap { metadata, data, ..ConfigMap::default() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_published_once_and_repaired_when_changed() {
        let first = plan("PEM", None).unwrap();
        assert_eq!(first.data.as_ref().unwrap()["ca.crt"], "PEM");
        assert_eq!(plan("PEM", Some(&first)), None);
        let repaired = plan("NEW", Some(&first)).unwrap();
        assert_eq!(repaired.data.unwrap()["ca.crt"], "NEW");
        assert_eq!(repaired.metadata, first.metadata);
    }
}
