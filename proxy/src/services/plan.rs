//! What one Service needs in the table. Pure.
//!
//! Which endpoints are used follows kube-proxy: the ready ones; if there is none, those that still serve while
//! they terminate (KEP-1669). With a traffic policy `Local` only endpoints of this node count (KEP-2086).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::layout::{self, Map};
use crate::nft::Data;

/// An element's place: its map and its key as registers hold it.
pub(crate) type Place = (Map, Vec<u8>);

/// A transport protocol that Services can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// The protocol's number (IANA).
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    fn of(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// A NodePort and the Service port behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodePort {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
    /// The Service's address and port: where connections to 127.0.0.1 are passed on to.
    pub service: (Ipv4Addr, u16),
}

/// Everything one Service needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    /// Elements of the table.
    pub elements: BTreeMap<Place, Data>,
    /// NodePorts to hold.
    pub node_ports: BTreeSet<NodePort>,
    /// Endpoints that connections may lead to: they need the hairpin element.
    pub endpoints: BTreeSet<Ipv4Addr>,
    /// Of these, the ones that are not terminating.
    pub lasting: BTreeSet<Ipv4Addr>,
}

/// One place a connection can go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    ip: Ipv4Addr,
    port: u16,
}

struct Backends {
    targets: BTreeSet<Target>,
    lasting: BTreeSet<Ipv4Addr>,
}

/// What the Service needs on the node `node`.
pub(crate) fn plan(service: &Service, slices: &[Arc<EndpointSlice>], node: &str) -> Entries {
    let mut entries = Entries::default();
    let Some(spec) = service.spec.as_ref() else { return entries };
    let Some(ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else { return entries };
    for port in spec.ports.iter().flatten() {
        add_port(&mut entries, spec, (ip, port), slices, node);
    }
    entries
}

fn add_port(
    entries: &mut Entries,
    spec: &ServiceSpec,
    (ip, port): (Ipv4Addr, &ServicePort),
    slices: &[Arc<EndpointSlice>],
    node: &str,
) {
    let Some(protocol) = Protocol::of(port.protocol.as_deref()) else { return };
    let Ok(number) = u16::try_from(port.port) else { return };
    let inside_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let inside = backends(port, protocol, slices, inside_local.then_some(node));
    add_targets(entries, (ip, protocol, number), &inside.targets, "pick");
    let node_port = port.node_port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
    if let Some(own) = node_port {
        let outside_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let outside = backends(port, protocol, slices, outside_local.then_some(node));
        // A local policy keeps the client's address: nothing is masqueraded.
        let chain = if outside_local { "node-local" } else { "node" };
        add_targets(entries, (Ipv4Addr::UNSPECIFIED, protocol, own), &outside.targets, chain);
        if outside.targets.is_empty() {
            entries.elements.insert((Map::RejectedNodePorts, layout::port_key(protocol, own)), Data::None);
        }
        entries.node_ports.insert(NodePort { protocol, port: own, service: (ip, number) });
        entries.endpoints.extend(outside.targets.iter().map(|target| target.ip));
        entries.lasting.extend(outside.lasting);
    }
    entries.endpoints.extend(inside.targets.iter().map(|target| target.ip));
    entries.lasting.extend(inside.lasting);
}

/// A front end with its slots: slot `n` leads to endpoint `n modulo the number of endpoints`.
fn add_targets(
    entries: &mut Entries,
    (ip, protocol, port): (Ipv4Addr, Protocol, u16),
    targets: &BTreeSet<Target>,
    chain: &str,
) {
    let Some(slots) = layout::slots_for(targets.len()) else { return };
    let goto = Data::Verdict(layout::goto_slots(chain, slots));
    let place = if ip.is_unspecified() {
        (Map::NodePorts, layout::port_key(protocol, port))
    } else {
        (Map::ClusterIps, layout::service_key(ip, protocol, port))
    };
    entries.elements.insert(place, goto);
    for (slot, target) in (0..slots).zip(targets.iter().cycle()) {
        let key = layout::slot_key(ip, protocol, port, slot);
        entries.elements.insert((Map::Endpoints, key), Data::Bytes(layout::target_data(target.ip, target.port)));
    }
}

fn backends(port: &ServicePort, protocol: Protocol, slices: &[Arc<EndpointSlice>], only: Option<&str>) -> Backends {
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    let mut lasting = BTreeSet::new();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let Some(number) = target_port(port, protocol, slice) else { continue };
        for endpoint in slice.endpoints.as_deref().unwrap_or_default() {
            if only.is_some_and(|node| endpoint.node_name.as_deref() != Some(node)) {
                continue;
            }
            let Some(ip) = endpoint.addresses.first().and_then(|ip| ip.parse().ok()) else { continue };
            let target = Target { ip, port: number };
            match phase(endpoint) {
                Phase::Ready => {
                    ready.insert(target);
                    lasting.insert(ip);
                }
                Phase::Ending => {
                    ending.insert(target);
                }
                Phase::Away => {}
            }
        }
    }
    Backends { targets: if ready.is_empty() { ending } else { ready }, lasting }
}

enum Phase {
    Ready,
    Ending,
    Away,
}

fn phase(endpoint: &Endpoint) -> Phase {
    let conditions = endpoint.conditions.as_ref();
    let terminating = conditions.and_then(|own| own.terminating).unwrap_or(false);
    let ready = conditions.and_then(|own| own.ready).unwrap_or(!terminating);
    let serving = conditions.and_then(|own| own.serving).unwrap_or(ready);
    match (ready, terminating, serving) {
        (true, false, _) => Phase::Ready,
        (_, true, true) => Phase::Ending,
        // `publishNotReadyAddresses` marks terminating endpoints as ready: they count.
        (true, true, false) => Phase::Ready,
        _ => Phase::Away,
    }
}

/// The endpoints' port for this Service port: the one of the same name and protocol in the slice.
fn target_port(port: &ServicePort, protocol: Protocol, slice: &EndpointSlice) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let own = slice.ports.iter().flatten().find(|own| {
        own.name.as_deref().unwrap_or_default() == name && Protocol::of(own.protocol.as_deref()) == Some(protocol)
    })?;
    u16::try_from(own.port?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(text: &str) -> Service {
        serde_json::from_str(text).expect("a service")
    }

    fn slice(endpoints: &str) -> Arc<EndpointSlice> {
        let text =
            format!(r#"{{"addressType":"IPv4","ports":[{{"name":"http","port":8080}}],"endpoints":[{endpoints}]}}"#);
        Arc::new(serde_json::from_str(&text).expect("a slice"))
    }

    const WEB: &str = r#"{"spec":{"clusterIP":"10.96.0.1","ports":[{"name":"http","port":80}]}}"#;

    /// Where the slots of the cluster IP lead to.
    fn leads_to(entries: &Entries) -> BTreeSet<Ipv4Addr> {
        let slots = entries.elements.iter().filter(|((map, _), _)| *map == Map::Endpoints);
        slots
            .filter_map(|(_, data)| match data {
                Data::Bytes(bytes) => bytes.first_chunk::<4>().map(|ip| Ipv4Addr::from(*ip)),
                _ => None,
            })
            .collect()
    }

    #[track_caller]
    fn check(endpoints: &str, expected: &[&str]) {
        let entries = plan(&service(WEB), &[slice(endpoints)], "n1");
        let expected: BTreeSet<Ipv4Addr> = expected.iter().map(|ip| ip.parse().expect("an address")).collect();
        assert_eq!(leads_to(&entries), expected);
    }

    #[test]
    fn ready_endpoints_are_used_and_terminating_ones_only_when_there_is_no_other() {
        let ready = r#"{"addresses":["10.1.0.1"],"conditions":{"ready":true}}"#;
        let not_ready = r#"{"addresses":["10.1.0.2"],"conditions":{"ready":false}}"#;
        let ending = r#"{"addresses":["10.1.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}}"#;
        check(&format!("{ready},{not_ready},{ending}"), &["10.1.0.1"]);
        check(&format!("{not_ready},{ending}"), &["10.1.0.3"]);
        check(not_ready, &[]);
    }

    #[test]
    fn a_terminating_endpoint_counts_as_drained_although_it_is_still_used() {
        let ending = r#"{"addresses":["10.1.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}}"#;
        let entries = plan(&service(WEB), &[slice(ending)], "n1");
        assert_eq!(entries.endpoints.len(), 1);
        assert!(entries.lasting.is_empty());
    }

    #[test]
    fn every_endpoint_of_a_small_service_has_exactly_one_slot() {
        let endpoints: Vec<String> = (1..=7).map(|n| format!(r#"{{"addresses":["10.1.0.{n}"]}}"#)).collect();
        let entries = plan(&service(WEB), &[slice(&endpoints.join(","))], "n1");
        assert_eq!(entries.elements.iter().filter(|((map, _), _)| *map == Map::Endpoints).count(), 7);
    }

    #[test]
    fn a_node_port_without_endpoints_is_rejected_and_held() {
        let spec = r#"{"spec":{"type":"NodePort","clusterIP":"10.96.0.1","ports":[{"name":"http","port":80,"nodePort":30080}]}}"#;
        let entries = plan(&service(spec), &[], "n1");
        assert_eq!(entries.elements.keys().map(|(map, _)| *map).collect::<Vec<_>>(), [Map::RejectedNodePorts]);
        assert_eq!(entries.node_ports.first().map(|own| own.port), Some(30080));
    }

    #[test]
    fn a_local_policy_uses_only_this_nodes_endpoints() {
        let spec =
            r#"{"spec":{"clusterIP":"10.96.0.1","internalTrafficPolicy":"Local","ports":[{"name":"http","port":80}]}}"#;
        let two = slice(r#"{"addresses":["10.1.0.1"],"nodeName":"n1"},{"addresses":["10.2.0.1"],"nodeName":"n2"}"#);
        let entries = plan(&service(spec), &[two], "n1");
        assert_eq!(leads_to(&entries), BTreeSet::from([Ipv4Addr::new(10, 1, 0, 1)]));
    }

    #[test]
    fn headless_and_external_services_need_nothing() {
        for spec in [r#"{"spec":{"clusterIP":"None"}}"#, r#"{"spec":{"type":"ExternalName","externalName":"x"}}"#] {
            assert_eq!(plan(&service(spec), &[], "n1"), Entries::default());
        }
    }
}
