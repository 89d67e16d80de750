//! Decides which slices show an Endpoints object that somebody keeps by hand.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as OldPort, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::endpointslice::{MANAGED_BY_LABEL, Plan, SERVICE_LABEL, suffix};
use crate::ownership::controller_reference;

/// Who keeps the slices.
pub(super) const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
/// Most addresses of a subset that are shown. Source: `mirroring-max-endpoints-per-subset`.
const SUBSET_LEN: usize = 1000;
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
/// An Endpoints object that some old program uses as a lock.
const LEADER_ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";
/// Of the Endpoints object alone: not copied.
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

/// Whether the Endpoints are kept by hand, for a Service that selects no pods.
pub(super) fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let label = endpoints.metadata.labels.as_ref().and_then(|labels| labels.get(SKIP_LABEL));
    let is_lock = endpoints.metadata.annotations.as_ref().is_some_and(|own| own.contains_key(LEADER_ANNOTATION));
    let selects = |service: &Service| service.spec.as_ref().is_some_and(|spec| spec.selector.is_some());
    label.map(String::as_str) != Some("true") && !is_lock && service.is_some_and(|service| !selects(service))
}

/// What must change for the slices to show these Endpoints; `None`: they show none.
pub(super) fn plan(endpoints: Option<&Endpoints>, slices: &[Arc<EndpointSlice>]) -> Plan {
    let mut plan = Plan::default();
    let mut wanted = endpoints.map(wanted).unwrap_or_default();
    for slice in slices {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        match wanted.remove(name) {
            Some(new) if shows(slice, &new) => {}
            // What a slice is about cannot be changed, and follows from its name: only a stranger's differs.
            Some(new) if slice.address_type == new.address_type => plan.update.push(replaced(slice, new)),
            _ => plan.delete.push(Arc::clone(slice)),
        }
    }
    plan.create.extend(wanted.into_values());
    plan
}

/// The slices that show the Endpoints, by name: one for each family of addresses and set of ports.
fn wanted(endpoints: &Endpoints) -> BTreeMap<String, EndpointSlice> {
    let mut wanted: BTreeMap<String, EndpointSlice> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(not_ready).take(SUBSET_LEN) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let metadata = metadata(endpoints, family, &ports);
            let slice = wanted.entry(metadata.name.clone().unwrap_or_default()).or_insert_with(|| EndpointSlice {
                metadata,
                address_type: family.to_owned(),
                ports: Some(ports.clone()),
                endpoints: Some(Vec::new()),
            });
            let shown = slice.endpoints.get_or_insert_default();
            let new = endpoint(address, ip, ready);
            // An address that is listed twice is ready if it is once.
            if !shown.iter().any(|known| known.addresses == new.addresses) {
                shown.push(new);
            }
        }
    }
    wanted
}

fn port(port: &OldPort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    }
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// The name follows from what the slice is about: a round repeated on an old view meets what it made before.
fn metadata(endpoints: &Endpoints, family: &str, ports: &[EndpointPort]) -> ObjectMeta {
    let own = &endpoints.metadata;
    let name = own.name.clone().unwrap_or_default();
    let uid = own.uid.as_deref().unwrap_or_default();
    let ports = serde_json::to_string(ports).unwrap_or_default();
    let mut labels = own.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), name.clone());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    let mut annotations = own.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
    ObjectMeta {
        name: Some(format!("{name}-{}", suffix(&format!("{uid}/{family}/{ports}")))),
        namespace: own.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        owner_references: Some(vec![controller_reference(endpoints)]),
        ..ObjectMeta::default()
    }
}

fn shows(slice: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    slice.endpoints == wanted.endpoints
        && slice.ports == wanted.ports
        && slice.address_type == wanted.address_type
        && slice.metadata.labels == wanted.metadata.labels
        && slice.metadata.annotations == wanted.metadata.annotations
}

fn replaced(slice: &EndpointSlice, wanted: EndpointSlice) -> EndpointSlice {
    let metadata = ObjectMeta { resource_version: slice.metadata.resource_version.clone(), ..wanted.metadata };
    EndpointSlice { metadata, ..wanted }
}
