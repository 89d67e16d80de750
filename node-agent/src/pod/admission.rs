//! Whether the node takes a pod that was bound to it. Pure. Source: kubelet `lifecycle.predicateAdmitHandler`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod};
use reeve_api::quantity::Quantity;

use super::huge_pages::is_huge_pages;
use super::resources::{pod_request, pod_requests};
use super::state::{containers, spec};

/// What the node has for pods.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) cpu: Quantity,
    pub(crate) memory: Quantity,
    pub(crate) pods: usize,
    /// Bytes, by the name of the resource.
    pub(crate) huge_pages: BTreeMap<String, Quantity>,
}

/// Why a pod is refused: its status' reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Refuses a pod that does not fit beside `others`, the pods that run on the node.
pub(crate) fn admit(pod: &Pod, others: &[&Pod], node: Option<&Node>, room: &Room) -> Result<(), Refusal> {
    let rejected = |refusal: Refusal| Refusal { message: format!("Pod was rejected: {}", refusal.message), ..refusal };
    fits(pod, others, node, room).map_err(rejected)
}

/// Whether a pod fits beside `others`.
pub(crate) fn fits(pod: &Pod, others: &[&Pod], node: Option<&Node>, room: &Room) -> Result<(), Refusal> {
    let refuse = |reason: &str, message: String| Err(Refusal { reason: reason.to_owned(), message });
    if others.len() >= room.pods {
        let text = shortage("pods", 1, others.len(), room.pods);
        return refuse("OutOfpods", text);
    }
    let used = |resource: &str| others.iter().map(|other| pod_request(spec(other), resource)).sum::<Quantity>();
    let (cpu, cpu_used) = (pod_request(spec(pod), "cpu"), used("cpu"));
    if !cpu.is_zero() && cpu + cpu_used > room.cpu {
        let text = shortage("cpu", cpu.milli_value(), cpu_used.milli_value(), room.cpu.milli_value());
        return refuse("OutOfcpu", text);
    }
    let (memory, memory_used) = (pod_request(spec(pod), "memory"), used("memory"));
    if !memory.is_zero() && memory + memory_used > room.memory {
        let text = shortage("memory", memory.value(), memory_used.value(), room.memory.value());
        return refuse("OutOfmemory", text);
    }
    let asked = pod_requests(spec(pod));
    for resource in asked.keys().filter(|resource| is_huge_pages(resource)) {
        let (wanted, used) = (pod_request(spec(pod), resource), used(resource));
        let all = room.huge_pages.get(resource).copied().unwrap_or(Quantity::ZERO);
        if !wanted.is_zero() && wanted + used > all {
            let text = shortage(resource, wanted.value(), used.value(), all.value());
            return refuse(&format!("OutOf{resource}"), text);
        }
    }
    let labels = node.and_then(|node| node.metadata.labels.as_ref());
    if let (Some(selector), Some(labels)) = (&spec(pod).node_selector, labels)
        && !matches(selector, labels)
    {
        let text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return refuse("NodeAffinity", text.to_owned());
    }
    let clashes = |other: &&Pod| host_ports(other).any(|port| host_ports(pod).any(|own| own.clashes_with(&port)));
    if others.iter().any(clashes) {
        let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return refuse("NodePorts", text.to_owned());
    }
    Ok(())
}

fn shortage<T: std::fmt::Display>(
    resource: &str,
    requested: T,
    used: impl std::fmt::Display,
    capacity: impl std::fmt::Display,
) -> String {
    format!("Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}")
}

fn matches(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A port of the node that a pod wants, on one address of the node or on all (`""`).
#[derive(Debug, Clone, Copy)]
struct WantedPort<'p> {
    number: i32,
    protocol: &'p str,
    address: &'p str,
}

impl WantedPort<'_> {
    /// Whether two pods cannot both have theirs. Source: Kubernetes `HostPortInfo.CheckConflict`.
    fn clashes_with(&self, other: &Self) -> bool {
        let same_address = self.address == other.address || self.address.is_empty() || other.address.is_empty();
        self.number == other.number && self.protocol == other.protocol && same_address
    }
}

fn host_ports(pod: &Pod) -> impl Iterator<Item = WantedPort<'_>> {
    let host_network = spec(pod).host_network == Some(true);
    containers(spec(pod)).flat_map(|(container, _)| container.ports.iter().flatten()).filter_map(move |port| {
        let number = port.host_port.or(host_network.then_some(port.container_port)).filter(|number| *number > 0)?;
        let address = port.host_ip.as_deref().filter(|address| *address != "0.0.0.0").unwrap_or_default();
        Some(WantedPort { number, protocol: port.protocol.as_deref().unwrap_or("TCP"), address })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "spec": spec })).unwrap()
    }

    fn cpu(request: &str) -> Pod {
        pod(serde_json::json!({ "containers": [{ "name": "c", "resources": { "requests": { "cpu": request } } }] }))
    }

    #[test]
    fn a_pod_that_does_not_fit_is_refused_in_the_kubelets_words() {
        let room = room(2);
        let small = cpu("600m");
        assert_eq!(admit(&small, &[], None, &room), Ok(()));
        let refusal = admit(&small, &[&small], None, &room).unwrap_err();
        assert_eq!(refusal.reason, "OutOfcpu");
        assert_eq!(
            refusal.message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 600, used: 600, capacity: 1000"
        );
        let none = cpu("0");
        assert_eq!(admit(&none, &[&none, &none], None, &room).unwrap_err().reason, "OutOfpods");
    }

    fn room(pods: usize) -> Room {
        let huge_pages = BTreeMap::from([("hugepages-2Mi".to_owned(), "8Mi".parse().unwrap())]);
        Room { cpu: Quantity::from_milli(1000), memory: "1Gi".parse().unwrap(), pods, huge_pages }
    }

    #[test]
    fn huge_pages_that_the_node_does_not_have_are_refused_by_their_size() {
        let huge = |resource: &str, amount: &str| {
            let limits = serde_json::json!({ resource: amount, "cpu": "1m" });
            let resources = serde_json::json!({ "limits": limits, "requests": limits });
            pod(serde_json::json!({ "containers": [{ "name": "c", "resources": resources }] }))
        };
        let (small, room) = (huge("hugepages-2Mi", "6Mi"), room(9));
        assert_eq!(admit(&small, &[], None, &room), Ok(()));
        for (wanted, others, reason, amounts) in [
            (&small, &[&small][..], "OutOfhugepages-2Mi", "requested: 6291456, used: 6291456, capacity: 8388608"),
            (&huge("hugepages-1Gi", "1Gi"), &[], "OutOfhugepages-1Gi", "requested: 1073741824, used: 0, capacity: 0"),
        ] {
            let refusal = admit(wanted, others, None, &room).unwrap_err();
            assert_eq!(refusal.reason, reason);
            let resource = reason.trim_start_matches("OutOf");
            let message = format!("Pod was rejected: Node didn't have enough resource: {resource}, {amounts}");
            assert_eq!(refusal.message, message);
        }
    }

    #[test]
    fn selectors_and_ports_are_checked_again_on_the_node() {
        let room = room(9);
        let node: Node = serde_json::from_value(serde_json::json!({ "metadata": { "labels": { "a": "b" } } })).unwrap();
        let picky = pod(serde_json::json!({ "containers": [], "nodeSelector": { "a": "c" } }));
        assert_eq!(admit(&picky, &[], Some(&node), &room).unwrap_err().reason, "NodeAffinity");
        let port = pod(
            serde_json::json!({ "containers": [{ "name": "c", "ports": [{ "containerPort": 1, "hostPort": 80 }] }] }),
        );
        assert_eq!(admit(&port, &[&port], Some(&node), &room).unwrap_err().reason, "NodePorts");
        let on = |address: &str| {
            let port = serde_json::json!({ "containerPort": 1, "hostPort": 80, "hostIP": address });
            pod(serde_json::json!({ "containers": [{ "name": "c", "ports": [port] }] }))
        };
        assert!(admit(&on("192.0.2.1"), &[&port], Some(&node), &room).is_err(), "any address is each of them");
        assert!(admit(&on("192.0.2.1"), &[&on("192.0.2.2")], Some(&node), &room).is_ok());
    }
}
