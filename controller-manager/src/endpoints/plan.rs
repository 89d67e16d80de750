//! Decides what the Endpoints object of a Service says: the older form of EndpointSlice, for older clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::pods;
use crate::service_pods::{HEADLESS_LABEL, addresses, hostname, is_headless, ports, publishes_not_ready, target_port};

/// Most addresses in one object. Source: `maxCapacity`.
const ADDRESSES_MAX: usize = 1000;
/// The annotation that says that there would have been more.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The label that says who keeps the object …
pub(super) const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
/// … and that it is us.
pub(super) const MANAGED_BY: &str = "endpoint-controller";

/// The object to be written; `None` if `current` says it already.
pub(super) fn plan(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Option<Endpoints> {
    let (subsets, truncated) = subsets(service, pods);
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let labels = Some(labels(service));
    let unmarked = |current: &Endpoints| {
        let annotation = current.metadata.annotations.as_ref().and_then(|own| own.get(OVER_CAPACITY));
        annotation.is_some() != truncated
    };
    if current
        .is_some_and(|current| current.subsets == subsets && current.metadata.labels == labels && !unmarked(current))
    {
        return None;
    }
    let mut metadata = current.map_or_else(ObjectMeta::default, |current| current.metadata.clone());
    metadata.name = service.metadata.name.clone();
    metadata.namespace = service.metadata.namespace.clone();
    metadata.labels = labels;
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    metadata.annotations = metadata.annotations.filter(|annotations| !annotations.is_empty());
    Some(Endpoints { metadata, subsets })
}

/// Pods with the same ports share a subset. Whether addresses had to be left out is the second answer.
fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let mut by_ports: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    let (mut count, mut truncated) = (0, false);
    let publishes = publishes_not_ready(service);
    for pod in pods.iter().filter(|pod| publishes || pod.metadata.deletion_timestamp.is_none()) {
        let Some(address) = address(service, pod) else { continue };
        let found = endpoint_ports(service, pod);
        if found.is_empty() && !ports(service).is_empty() {
            continue;
        }
        if count == ADDRESSES_MAX {
            truncated = true;
            break;
        }
        count += 1;
        let subset = by_ports.entry(serde_json::to_string(&found).unwrap_or_default()).or_default();
        subset.ports = Some(found).filter(|ports| !ports.is_empty());
        let ready = publishes || pods::is_ready(pod);
        let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let mut subsets: Vec<EndpointSubset> = by_ports.into_values().collect();
    for subset in &mut subsets {
        for list in [&mut subset.addresses, &mut subset.not_ready_addresses].into_iter().flatten() {
            list.sort_by(|a, b| a.ip.cmp(&b.ip));
        }
    }
    (subsets, truncated)
}

/// The pod's address of the Service's first family.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let wants_v6 = families.and_then(|families| families.first()).is_some_and(|family| family == "IPv6");
    let ip = addresses(pod).into_iter().find(|ip| ip.is_ipv6() == wants_v6)?;
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: hostname(pod, service),
        node_name: Some(pods::node_name(pod).to_owned()).filter(|node| !node.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
    })
}

fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let found = ports(service).iter().filter_map(|port| {
        Some(EndpointPort {
            name: port.name.clone().filter(|name| !name.is_empty()),
            port: target_port(pod, port)?,
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    let mut found: Vec<EndpointPort> = found.collect();
    found.sort_by(|a, b| (&a.name, a.port).cmp(&(&b.name, b.port)));
    found
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels.remove(HEADLESS_LABEL);
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels
}
