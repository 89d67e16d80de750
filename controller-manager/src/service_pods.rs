//! How Services find their pods and the pods' ports; shared by the EndpointSlice and the Endpoints controller.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use reeve_api::selector::LabelSelector;
use reeve_client::{Change, ObjectKey, Store};

use crate::pods;

/// The label that marks endpoints of a Service without a cluster address.
pub(crate) const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// Whether somebody else keeps the Service's endpoints: it selects no pods, or is a mere name.
pub(crate) fn is_unmanaged(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
        || spec.and_then(|spec| spec.selector.as_ref()).is_none_or(|selector| selector.is_empty())
}

/// Whether the Service has no cluster address.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods that are not ready count as if they were.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

/// The Service's ports.
pub(crate) fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

/// Which of a Service's pods are endpoints at all: those with an address that may still answer.
pub(crate) fn selected(service: &Service, pods: &Store<Pod>) -> Vec<Arc<Pod>> {
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let selector = selector(service);
    let mut selected = pods.list_namespace(namespace);
    selected.retain(|pod| {
        selector.matches(pod.metadata.labels.as_ref()) && !pods::is_finished(pod) && !addresses(pod).is_empty()
    });
    selected
}

fn selector(service: &Service) -> LabelSelector {
    let labels = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    labels.filter(|labels| !labels.is_empty()).map_or_else(LabelSelector::nothing, LabelSelector::from_labels)
}

/// All addresses of a pod.
pub(crate) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut all: Vec<IpAddr> = all.filter_map(|ip| ip.parse().ok()).collect();
    if all.is_empty() {
        all.extend(status.pod_ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()));
    }
    all
}

/// The number of a Service's port on a pod; `None` if the pod has no port of that name and protocol.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        Some(IntOrString::Int(0)) | None => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => return Some(port.port),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = |protocol: &Option<String>| protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let spec = pod.spec.as_ref()?;
    let is_sidecar = |container: &&Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().filter(is_sidecar);
    let mut offered = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let wanted = protocol(&port.protocol);
    offered
        .find(|offered| offered.name.as_ref() == Some(name) && protocol(&offered.protocol) == wanted)
        .map(|offered| offered.container_port)
}

/// The host name under which a pod of a headless Service is found.
pub(crate) fn hostname(pod: &Pod, service: &Service) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let name = spec.hostname.clone().filter(|name| !name.is_empty())?;
    (spec.subdomain == service.metadata.name && is_headless(service)).then_some(name)
}

/// The Services that have to look after a change of a pod; none if nothing changed that endpoints show.
pub(crate) fn services_touched(change: &Change<'_, Pod>, services: &Store<Service>) -> Vec<ObjectKey> {
    if let (Some(old), Some(new)) = (change.old(), change.new())
        && shown(old) == shown(new)
    {
        return Vec::new();
    }
    let namespace = change.object().metadata.namespace.as_deref().unwrap_or_default();
    let versions: Vec<&Arc<Pod>> = change.old().into_iter().chain(change.new()).collect();
    let mut services = services.list_namespace(namespace);
    services.retain(|service| {
        let selector = selector(service);
        versions.iter().any(|pod| selector.matches(pod.metadata.labels.as_ref()))
    });
    services.iter().map(|service| ObjectKey::of(service.as_ref())).collect()
}

/// Everything of a pod that endpoints show.
fn shown(pod: &Pod) -> impl PartialEq + '_ {
    (
        (&pod.metadata.uid, &pod.metadata.labels, pod.metadata.deletion_timestamp.is_some()),
        (pods::is_ready(pod), pods::is_finished(pod), pods::node_name(pod)),
        addresses(pod),
    )
}
