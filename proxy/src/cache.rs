//! What the proxy knows of the cluster: Services and their slices, found by name and by address.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reeve_client::{Component, Index, Informer, InformerOptions, NeverSynced, ObjectKey, wait_for_sync};

use crate::dns::Records;

/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The informers and indexes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cache {
    pub(crate) services: Informer<Service>,
    pub(crate) slices: Informer<EndpointSlice>,
    /// Their names only: they are part of names in DNS.
    namespaces: Informer<Namespace>,
    slices_by_service: Index<ObjectKey, EndpointSlice>,
    slices_by_ip: Index<Ipv4Addr, EndpointSlice>,
    services_by_ip: Index<Ipv4Addr, Service>,
}

/// The Service a slice belongs to.
pub(crate) fn owner(slice: &EndpointSlice) -> Option<ObjectKey> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), service.clone()))
}

fn addresses(slice: &EndpointSlice) -> Vec<Ipv4Addr> {
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    let unique: BTreeSet<_> = endpoints.iter().filter_map(|own| own.addresses.first()?.parse().ok()).collect();
    unique.into_iter().collect()
}

fn cluster_ip(service: &Service) -> Vec<Ipv4Addr> {
    let ip = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    ip.and_then(|ip| ip.parse().ok()).into_iter().collect()
}

fn only_its_name(namespace: &mut Namespace) {
    let (name, version) = (namespace.metadata.name.take(), namespace.metadata.resource_version.take());
    *namespace = Namespace::default();
    (namespace.metadata.name, namespace.metadata.resource_version) = (name, version);
}

impl Cache {
    /// Starts to watch.
    pub(crate) fn start(component: &Component) -> Self {
        let services: Informer<Service> = Informer::all(component);
        let slices: Informer<EndpointSlice> = Informer::start(
            component,
            kube::Api::all(component.client.clone()),
            InformerOptions { trim: Some(|slice| slice.metadata.annotations = None), ..InformerOptions::default() },
        );
        let namespaces: Informer<Namespace> = Informer::start(
            component,
            kube::Api::all(component.client.clone()),
            InformerOptions { trim: Some(only_its_name), ..InformerOptions::default() },
        );
        Self {
            namespaces,
            slices_by_service: Index::new(&slices, |slice| owner(slice).into_iter().collect()),
            slices_by_ip: Index::new(&slices, addresses),
            services_by_ip: Index::new(&services, cluster_ip),
            services,
            slices,
        }
    }

    /// Returns when the first lists are complete.
    pub(crate) async fn synced(&self, component: &Component) -> Result<(), NeverSynced> {
        wait_for_sync(component, &[self.services.synced(), self.slices.synced(), self.namespaces.synced()]).await
    }

    /// The Service of that key.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<Service>> {
        self.services.store().get_key(key)
    }

    /// The slices of that Service.
    pub(crate) fn slices_of(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        self.slices_by_service.get(key)
    }
}

impl Records for Cache {
    fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.store().get("", namespace).is_some()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.store().get(namespace, name)
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices_of(&ObjectKey::new(namespace, service))
    }

    fn service_of_ip(&self, ip: Ipv4Addr) -> Option<Arc<Service>> {
        self.services_by_ip.get(&ip).into_iter().next()
    }

    fn slices_of_ip(&self, ip: Ipv4Addr) -> Vec<Arc<EndpointSlice>> {
        self.slices_by_ip.get(&ip)
    }
}
