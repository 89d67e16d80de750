//! What one Service needs in the table. Pure.
//!
//! Which endpoints are used follows kube-proxy: the ready ones; if there is none, those that still serve while
//! they terminate (KEP-1669). With a traffic policy `Local` only endpoints of this node count (KEP-2086), for clients
//! outside the cluster if it is the external one. Without endpoints connections are refused; where only a policy stands
//! between clients and endpoints, packets are dropped, so that a load balancer tries another node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::chooser::{Chooser, Entrance, Scope, lasting_key, slot_key, slots_for};
use super::layout::{self, Front, Map};
use crate::nft::{Data, Verdict};

/// An element's place: its map and its key as registers hold it.
pub(crate) type Place = (Map, Vec<u8>);

/// How long a client keeps its endpoint where the Service does not say. Source: the API's default.
const AFFINITY_SECONDS: u32 = 10800;

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

/// An endpoint's address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its port.
    pub port: u16,
}

/// What a load balancer is told that asks whether this node has endpoints of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HealthCheck {
    /// Where it asks.
    pub port: u16,
    /// How many ready endpoints this node has.
    pub local: usize,
}

/// Everything one Service needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    /// Elements of the table.
    pub elements: BTreeMap<Place, Data>,
    /// Those of addresses that are not the cluster's to give away: two Services may name the same.
    pub contested: BTreeSet<Place>,
    /// The choosers the elements lead to.
    pub choosers: BTreeSet<Chooser>,
    /// Addresses that connections are led to.
    pub endpoints: BTreeSet<Ipv4Addr>,
    /// Those of them that are not on their way out.
    pub lasting: BTreeSet<Ipv4Addr>,
    /// NodePorts to hold.
    pub node_ports: BTreeSet<NodePort>,
    /// Where packets without connections come in, and what may answer them.
    pub datagrams: BTreeMap<Front, BTreeSet<Target>>,
    /// The port that load balancers ask.
    pub health_check: Option<HealthCheck>,
}

impl Entries {
    /// Whether the port of the node belongs to the Service.
    pub(crate) fn holds(&self, protocol: Protocol, port: u16) -> bool {
        let node_port = self.node_ports.iter().any(|own| (own.protocol, own.port) == (protocol, port));
        let health_check = || self.health_check.is_some_and(|own| protocol == Protocol::Tcp && own.port == port);
        node_port || health_check()
    }
}

struct Backends {
    targets: BTreeSet<Target>,
    lasting: BTreeSet<Ipv4Addr>,
}

/// Ports of the node that somebody else holds: nothing that comes in there may be led to a Service.
pub(crate) type Refused = BTreeSet<(Protocol, u16)>;

/// What the Service needs on the node `node`.
pub(crate) fn plan(service: &Service, slices: &[Arc<EndpointSlice>], node: &str, refused: &Refused) -> Entries {
    let mut entries = Entries::default();
    let Some(spec) = service.spec.as_ref() else { return entries };
    let Some(ip) = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else { return entries };
    let policies = Policies::of(spec);
    for port in spec.ports.iter().flatten() {
        let Some(protocol) = Protocol::of(port.protocol.as_deref()) else { continue };
        let Some(number) = port_number(Some(port.port)) else { continue };
        let all = backends(port, protocol, slices, None);
        let local = backends(port, protocol, slices, Some(node));
        let service = Front { ip, protocol, port: number };
        PortPlan { service, policies, all, local, entries: &mut entries }.add(spec, port, refused);
    }
    entries.health_check = port_number(spec.health_check_node_port)
        .filter(|_| policies.external == Scope::Local)
        .map(|port| HealthCheck { port, local: ready_on(slices, node) });
    entries
}

fn port_number(number: Option<i32>) -> Option<u16> {
    number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

/// What holds for all ports of a Service.
#[derive(Debug, Clone, Copy)]
struct Policies {
    internal: Scope,
    external: Scope,
    /// In seconds.
    affinity: Option<u32>,
}

impl Policies {
    fn of(spec: &ServiceSpec) -> Self {
        let scope = |policy: Option<&str>| if policy == Some("Local") { Scope::Local } else { Scope::Cluster };
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = config.and_then(|config| config.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok());
        let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        Self {
            internal: scope(spec.internal_traffic_policy.as_deref()),
            external: scope(spec.external_traffic_policy.as_deref()),
            affinity: sticky.then(|| seconds.filter(|seconds| *seconds > 0).unwrap_or(AFFINITY_SECONDS)),
        }
    }
}

/// One port of a Service on its way into the entries.
struct PortPlan<'e> {
    /// Its cluster IP and port.
    service: Front,
    policies: Policies,
    all: Backends,
    local: Backends,
    entries: &'e mut Entries,
}

impl PortPlan<'_> {
    fn add(mut self, spec: &ServiceSpec, port: &ServicePort, refused: &Refused) {
        let internal = self.policies.internal;
        self.add_scope(internal);
        self.enter(self.service, Entrance::ClusterIp, Map::Frontends, (internal, false));
        let Front { protocol, port: number, .. } = self.service;
        for ip in spec.external_ips.iter().flatten().filter_map(|ip| ip.parse::<Ipv4Addr>().ok()) {
            self.enter_from_outside(Front { ip, protocol, port: number }, Entrance::External);
        }
        if let Some(own) = port_number(port.node_port) {
            if !refused.contains(&(protocol, own)) {
                let any = Ipv4Addr::UNSPECIFIED;
                self.enter_from_outside(Front { ip: any, protocol, port: own }, Entrance::NodePort);
            }
            self.entries.node_ports.insert(NodePort { protocol, port: own, service: (self.service.ip, number) });
        }
    }

    /// An entrance that clients outside the cluster use. A local policy keeps their address: nothing is masqueraded.
    /// Clients inside are led to all nodes' endpoints in any case: for them the node is only another address.
    fn enter_from_outside(&mut self, front: Front, entrance: Entrance) {
        let external = self.policies.external;
        self.add_scope(Scope::Cluster);
        self.entries.elements.insert((Map::Aliases, front.key()), Data::Bytes(self.service.key()));
        self.enter(front, entrance, Map::Frontends, (Scope::Cluster, external == Scope::Cluster));
        if external == Scope::Local {
            self.add_scope(Scope::Local);
            self.enter(front, entrance, Map::Outside, (Scope::Local, false));
        }
        if entrance == Entrance::External {
            let maps = [Map::Aliases, Map::Frontends, Map::Outside, Map::Unserved];
            self.entries.contested.extend(maps.map(|map| (map, front.key())));
        }
    }

    /// What a packet to `front` meets.
    fn enter(&mut self, front: Front, entrance: Entrance, map: Map, (scope, masquerade): (Scope, bool)) {
        let (affinity, targets) = (self.policies.affinity, &self.backends(scope).targets);
        if let Some(slots) = slots_for(targets.len()) {
            let chooser = Chooser { entrance, scope, slots, masquerade, affinity };
            self.entries.elements.insert((map, front.key()), Data::Verdict(chooser.goto()));
            self.entries.choosers.insert(chooser);
        } else {
            let elsewhere = !self.all.targets.is_empty();
            let verdict = if elsewhere { Verdict::Drop } else { layout::reject() };
            // What is left in the service range is refused by its range: all but the cluster DNS, whose Service has no
            // endpoints because the node answers itself.
            if elsewhere || entrance != Entrance::ClusterIp {
                self.entries.elements.insert((Map::Unserved, front.key()), Data::Verdict(verdict));
            }
            if map == Map::Outside {
                // Not to go on to where clients inside are led.
                self.entries.elements.insert((map, front.key()), Data::Verdict(Verdict::Accept));
            }
        }
        if front.protocol == Protocol::Udp {
            let answering = self.backends(scope).targets.clone();
            self.entries.datagrams.entry(front).or_default().extend(answering);
        }
    }

    /// The scope's endpoints: slot `n` leads to endpoint `n modulo the number of endpoints`.
    fn add_scope(&mut self, scope: Scope) {
        let (service, own) = (self.service, self.backends(scope));
        let (targets, lasting) = (own.targets.clone(), own.lasting.clone());
        let slots = slots_for(targets.len()).unwrap_or(0);
        for (slot, target) in (0..slots).zip(targets.iter().cycle()) {
            let data = Data::Bytes(layout::target_data(target.ip, target.port));
            self.entries.elements.insert((Map::Endpoints, slot_key(service, scope, slot)), data);
        }
        if self.policies.affinity.is_some() {
            let keys = targets.iter().map(|own| lasting_key(service, scope, &layout::target_data(own.ip, own.port)));
            self.entries.elements.extend(keys.map(|key| ((Map::Lasting, key), Data::None)));
        }
        self.entries.endpoints.extend(targets.iter().map(|target| target.ip));
        self.entries.lasting.extend(lasting);
    }

    fn backends(&self, scope: Scope) -> &Backends {
        match scope {
            Scope::Cluster => &self.all,
            Scope::Local => &self.local,
        }
    }
}

/// How many ready endpoints there are on the node, whatever their ports.
fn ready_on(slices: &[Arc<EndpointSlice>], node: &str) -> usize {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.as_deref().unwrap_or_default());
    let own = endpoints.filter(|own| own.node_name.as_deref() == Some(node) && matches!(phase(own), Phase::Ready));
    own.filter_map(|own| own.addresses.first()).collect::<BTreeSet<_>>().len()
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
                    if !is_terminating(endpoint) {
                        lasting.insert(ip);
                    }
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

/// A missing condition counts as the API says: ready unless it says otherwise, serving as ready. With
/// `publishNotReadyAddresses` terminating endpoints are marked as ready, and count as such.
fn phase(endpoint: &Endpoint) -> Phase {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|own| own.ready).unwrap_or(true);
    let serving = conditions.and_then(|own| own.serving).unwrap_or(ready);
    match (ready, is_terminating(endpoint) && serving) {
        (true, _) => Phase::Ready,
        (false, true) => Phase::Ending,
        (false, false) => Phase::Away,
    }
}

fn is_terminating(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|own| own.terminating).unwrap_or(false)
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
        let entries = plan(&service(WEB), &[slice(endpoints)], "n1", &Refused::new());
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
        let entries = plan(&service(WEB), &[slice(ending)], "n1", &Refused::new());
        assert_eq!(entries.endpoints.len(), 1);
        assert!(entries.lasting.is_empty());
    }

    #[test]
    fn every_endpoint_of_a_small_service_has_exactly_one_slot() {
        let endpoints: Vec<String> = (1..=7).map(|n| format!(r#"{{"addresses":["10.1.0.{n}"]}}"#)).collect();
        let entries = plan(&service(WEB), &[slice(&endpoints.join(","))], "n1", &Refused::new());
        assert_eq!(entries.elements.iter().filter(|((map, _), _)| *map == Map::Endpoints).count(), 7);
    }

    const NODE_PORT: &str = r#"{"spec":{"type":"NodePort","clusterIP":"10.96.0.1",POLICY "ports":[{"name":"http","port":80,"nodePort":30080}]}}"#;

    /// What stands in the map for the node port.
    fn at_node_port(entries: &Entries, map: Map) -> Option<Data> {
        let front = Front { ip: Ipv4Addr::UNSPECIFIED, protocol: Protocol::Tcp, port: 30080 };
        entries.elements.get(&(map, front.key())).cloned()
    }

    #[test]
    fn a_node_port_without_endpoints_is_rejected_and_held() {
        let entries = plan(&service(&NODE_PORT.replace("POLICY", "")), &[], "n1", &Refused::new());
        assert_eq!(at_node_port(&entries, Map::Unserved), Some(Data::Verdict(layout::reject())));
        assert_eq!(at_node_port(&entries, Map::Frontends), None);
        assert_eq!(entries.node_ports.first().map(|own| own.port), Some(30080));
    }

    #[test]
    fn a_node_port_that_somebody_else_holds_is_wanted_and_led_nowhere() {
        let spec = service(&NODE_PORT.replace("POLICY", ""));
        let slices = [slice(r#"{"addresses":["10.1.0.1"]}"#)];
        let entries = plan(&spec, &slices, "n1", &Refused::from([(Protocol::Tcp, 30080)]));
        assert_eq!(at_node_port(&entries, Map::Frontends), None);
        assert_eq!(entries.node_ports.first().map(|own| own.port), Some(30080));
        let other = plan(&spec, &slices, "n1", &Refused::from([(Protocol::Udp, 30080)]));
        assert!(at_node_port(&other, Map::Frontends).is_some());
    }

    #[test]
    fn an_external_local_policy_keeps_clients_outside_to_this_node_and_drops_what_it_cannot_serve() {
        let spec = NODE_PORT.replace("POLICY", r#""externalTrafficPolicy":"Local","#);
        let two = r#"{"addresses":["10.1.0.1"],"nodeName":"n1"},{"addresses":["10.2.0.1"],"nodeName":"n2"}"#;
        let here = plan(&service(&spec), &[slice(two)], "n1", &Refused::new());
        let goto = |map| match at_node_port(&here, map) {
            Some(Data::Verdict(Verdict::Goto(chain))) => chain,
            other => panic!("{other:?}"),
        };
        assert_eq!(goto(Map::Outside), "node-port-local-1");
        assert_eq!(goto(Map::Frontends), "node-port-2");
        assert_eq!(at_node_port(&here, Map::Unserved), None);
        let elsewhere = plan(&service(&spec), &[slice(two)], "n3", &Refused::new());
        assert_eq!(at_node_port(&elsewhere, Map::Outside), Some(Data::Verdict(Verdict::Accept)));
        assert_eq!(at_node_port(&elsewhere, Map::Unserved), Some(Data::Verdict(Verdict::Drop)));
    }

    #[test]
    fn load_balancers_are_told_of_ready_endpoints_of_this_node_only() {
        let spec = NODE_PORT.replace("POLICY", r#""externalTrafficPolicy":"Local","healthCheckNodePort":31000,"#);
        let endpoints = r#"{"addresses":["10.1.0.1"],"nodeName":"n1"},
            {"addresses":["10.1.0.2"],"nodeName":"n1","conditions":{"ready":false}},
            {"addresses":["10.2.0.1"],"nodeName":"n2"}"#;
        let health = |node| plan(&service(&spec), &[slice(endpoints)], node, &Refused::new()).health_check;
        assert_eq!(health("n1"), Some(HealthCheck { port: 31000, local: 1 }));
        assert_eq!(health("n3"), Some(HealthCheck { port: 31000, local: 0 }));
    }

    #[test]
    fn session_affinity_has_its_own_choosers_for_its_time() {
        let spec = WEB.replace(
            r#""clusterIP""#,
            r#""sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":7}},"clusterIP""#,
        );
        let entries = plan(&service(&spec), &[slice(r#"{"addresses":["10.1.0.1"]}"#)], "n1", &Refused::new());
        assert_eq!(entries.choosers.iter().map(Chooser::name).collect::<Vec<_>>(), ["cluster-ip-1-for-7s"]);
        assert_eq!(entries.elements.keys().filter(|(map, _)| *map == Map::Lasting).count(), 1);
    }

    #[test]
    fn ports_of_one_number_and_two_protocols_do_not_meet() {
        let both = r#"{"spec":{"clusterIP":"10.96.0.1","ports":[{"name":"dns","port":53,"protocol":"UDP"},
            {"name":"dns-tcp","port":53,"protocol":"TCP"}]}}"#;
        let slice = r#"{"addressType":"IPv4","endpoints":[{"addresses":["10.1.0.1"]}],"ports":[
            {"name":"dns","port":5353,"protocol":"UDP"},{"name":"dns-tcp","port":5354,"protocol":"TCP"}]}"#;
        let entries =
            plan(&service(both), &[Arc::new(serde_json::from_str(slice).expect("a slice"))], "n1", &Refused::new());
        let mut ports: Vec<(u8, u16)> = Vec::new();
        for ((map, key), data) in &entries.elements {
            if let (Map::Endpoints, Data::Bytes(data)) = (map, data) {
                ports.push((key[4], u16::from_be_bytes([data[4], data[5]])));
            }
        }
        assert_eq!(ports, [(6, 5354), (17, 5353)]);
    }

    #[test]
    fn a_named_port_may_have_another_number_on_each_pod_and_another_name_is_another_port() {
        let other = r#"{"addressType":"IPv4","ports":[{"name":"http","port":9090},{"name":"admin","port":1}],
            "endpoints":[{"addresses":["10.1.0.2"]}]}"#;
        let other: Arc<EndpointSlice> = Arc::new(serde_json::from_str(other).expect("a slice"));
        let slices = [slice(r#"{"addresses":["10.1.0.1"]}"#), other];
        let target = |service: &str| {
            let entries = plan(&self::service(service), &slices, "n1", &Refused::new());
            let data =
                entries.elements.into_iter().filter(|((map, _), _)| *map == Map::Endpoints).map(|(_, data)| data);
            data.map(|data| match data {
                Data::Bytes(bytes) => u16::from_be_bytes([bytes[4], bytes[5]]),
                other => panic!("{other:?}"),
            })
            .collect::<BTreeSet<_>>()
        };
        assert_eq!(target(WEB), BTreeSet::from([8080, 9090]));
        assert_eq!(target(&WEB.replace("http", "web")), BTreeSet::new());
    }

    #[test]
    fn published_addresses_count_although_they_terminate_and_are_drained_all_the_same() {
        let ending = r#"{"addresses":["10.1.0.3"],"conditions":{"ready":true,"serving":true,"terminating":true}}"#;
        check(&format!(r#"{{"addresses":["10.1.0.1"]}},{ending}"#), &["10.1.0.1", "10.1.0.3"]);
        assert!(plan(&service(WEB), &[slice(ending)], "n1", &Refused::new()).lasting.is_empty());
    }

    #[test]
    fn a_local_policy_uses_only_this_nodes_endpoints() {
        let spec =
            r#"{"spec":{"clusterIP":"10.96.0.1","internalTrafficPolicy":"Local","ports":[{"name":"http","port":80}]}}"#;
        let two = slice(r#"{"addresses":["10.1.0.1"],"nodeName":"n1"},{"addresses":["10.2.0.1"],"nodeName":"n2"}"#);
        let entries = plan(&service(spec), &[two], "n1", &Refused::new());
        assert_eq!(leads_to(&entries), BTreeSet::from([Ipv4Addr::new(10, 1, 0, 1)]));
    }

    #[test]
    fn headless_and_external_services_need_nothing() {
        for spec in [
            r#"{"spec":{"clusterIP":"None","externalIPs":["192.0.2.1"],"ports":[{"port":1}]}}"#,
            r#"{"spec":{"clusterIP":"None"}}"#,
            r#"{"spec":{"type":"ExternalName","externalName":"x"}}"#,
        ] {
            assert_eq!(plan(&service(spec), &[], "n1", &Refused::new()), Entries::default());
        }
    }
}
