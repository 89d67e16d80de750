//! Which records a name of the cluster domain has. Pure: asks [`Records`], answers with data.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Version of the specification, answered for `dns-version.ZONE`.
const SPEC_VERSION: &str = "1.1.0";

/// The objects that names are made from. Implemented over the proxy's informers; lookups only, never blocks.
pub trait Records: Send + Sync + 'static {
    /// Whether there is such a namespace.
    fn has_namespace(&self, namespace: &str) -> bool;
    /// The Service of that name.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// The Service's slices.
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    /// The Service with that cluster IP.
    fn service_of_ip(&self, ip: Ipv4Addr) -> Option<Arc<Service>>;
    /// The slices that hold an endpoint with that address.
    fn slices_of_ip(&self, ip: Ipv4Addr) -> Vec<Arc<EndpointSlice>>;
}

/// Which records are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Addresses.
    A,
    /// Ports.
    Srv,
    /// Names of addresses.
    Ptr,
    /// Text.
    Txt,
    /// Every record there is.
    Any,
    /// Any other type: the cluster has none.
    Other,
}

impl Asked {
    fn wants(self, own: Self) -> bool {
        self == own || self == Self::Any
    }
}

/// One record's data. Names are absolute, without the final dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// An address.
    A(Ipv4Addr),
    /// A port at a name.
    Srv {
        /// The port's number.
        port: u16,
        /// The name it is at.
        target: String,
        /// The target's addresses, sent along.
        addresses: Vec<Ipv4Addr>,
    },
    /// The name of an address.
    Ptr(String),
    /// Another name for this one.
    Cname(String),
    /// Text.
    Txt(String),
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It exists; its records of the type asked for, maybe none.
    Data(Vec<Data>),
    /// It does not exist.
    NoName,
    /// It is not the cluster's: forward it.
    NotOurs,
}

/// Answers for the name (lower case, absolute, without the final dot) in the cluster domain `domain`.
pub fn look_up(records: &dyn Records, domain: &str, name: &str, asked: Asked) -> Found {
    if let Some(reverse) = name.strip_suffix(".in-addr.arpa") {
        return reverse_name(records, domain, reverse, asked);
    }
    let inner = if name == domain {
        ""
    } else if let Some(inner) = name.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')) {
        inner
    } else {
        return Found::NotOurs;
    };
    // From the most significant label on: svc, namespace, service, …
    let labels: Vec<&str> = if inner.is_empty() { Vec::new() } else { inner.rsplit('.').collect() };
    match labels.as_slice() {
        [] | ["svc" | "pod"] => Found::Data(Vec::new()),
        ["dns-version"] => {
            Found::Data(if asked.wants(Asked::Txt) { vec![Data::Txt(SPEC_VERSION.to_owned())] } else { Vec::new() })
        }
        ["svc", namespace] | ["pod", namespace] if records.has_namespace(namespace) => Found::Data(Vec::new()),
        ["pod", namespace, address] if records.has_namespace(namespace) => pod_address(address, asked),
        ["svc", namespace, service, rest @ ..] => match records.service(namespace, service) {
            Some(found) => ServiceNames::new(records, domain, &found).look_up(rest, asked),
            None => Found::NoName,
        },
        _ => Found::NoName,
    }
}

/// `10-1-2-3.NAMESPACE.pod.ZONE`: the address in the name, whether there is such a pod or not.
fn pod_address(label: &str, asked: Asked) -> Found {
    match label.replace('-', ".").parse() {
        Ok(ip) if asked.wants(Asked::A) => Found::Data(vec![Data::A(ip)]),
        Ok(_) => Found::Data(Vec::new()),
        Err(_) => Found::NoName,
    }
}

fn reverse_name(records: &dyn Records, domain: &str, reverse: &str, asked: Asked) -> Found {
    let octets: Vec<&str> = reverse.rsplit('.').collect();
    let Ok(ip) = octets.join(".").parse::<Ipv4Addr>() else { return Found::NotOurs };
    let mut names = BTreeSet::new();
    if let Some(service) = records.service_of_ip(ip) {
        names.insert(ServiceNames::new(records, domain, &service).name());
    }
    for slice in records.slices_of_ip(ip) {
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        let label = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
        let Some(service) = label.and_then(|name| records.service(namespace, name)) else { continue };
        let own = ServiceNames::new(records, domain, &service);
        if own.is_headless() {
            let endpoints = endpoints(&slice).iter().filter(|endpoint| first_address(endpoint) == Some(ip));
            names.extend(endpoints.filter_map(|endpoint| own.endpoint_name(endpoint)));
        }
    }
    if names.is_empty() {
        return Found::NotOurs;
    }
    Found::Data(if asked.wants(Asked::Ptr) { names.into_iter().map(Data::Ptr).collect() } else { Vec::new() })
}

fn endpoints(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

fn first_address(endpoint: &Endpoint) -> Option<Ipv4Addr> {
    endpoint.addresses.first()?.parse().ok()
}

/// An endpoint without the condition counts as ready (`discovery.k8s.io/v1` says so).
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

/// The names of one Service.
struct ServiceNames<'a> {
    records: &'a dyn Records,
    domain: &'a str,
    service: &'a Service,
}

impl<'a> ServiceNames<'a> {
    fn new(records: &'a dyn Records, domain: &'a str, service: &'a Service) -> Self {
        Self { records, domain, service }
    }

    fn namespace(&self) -> &str {
        self.service.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn own_name(&self) -> &str {
        self.service.metadata.name.as_deref().unwrap_or_default()
    }

    fn name(&self) -> String {
        format!("{}.{}.svc.{}", self.own_name(), self.namespace(), self.domain)
    }

    fn cluster_ip(&self) -> Option<Ipv4Addr> {
        self.service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
    }

    fn is_headless(&self) -> bool {
        self.service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
    }

    fn ports(&self) -> &[ServicePort] {
        self.service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
    }

    fn slices(&self) -> Vec<Arc<EndpointSlice>> {
        self.records.slices(self.namespace(), self.own_name())
    }

    /// What stands before an endpoint's Service name: its host name, else its address with dashes.
    fn endpoint_label(endpoint: &Endpoint) -> Option<String> {
        let address = first_address(endpoint)?;
        let named = endpoint.hostname.as_deref().filter(|name| !name.is_empty());
        Some(named.map_or_else(|| address.to_string().replace('.', "-"), str::to_owned))
    }

    fn endpoint_name(&self, endpoint: &Endpoint) -> Option<String> {
        Some(format!("{}.{}", Self::endpoint_label(endpoint)?, self.name()))
    }

    fn look_up(&self, rest: &[&str], asked: Asked) -> Found {
        // A Service that was an external name keeps that name in its spec: only its type tells.
        let external = self.service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("ExternalName"));
        if let Some(external) = external {
            let external = external.external_name.as_deref().unwrap_or_default();
            return match rest {
                [] => Found::Data(vec![Data::Cname(external.trim_end_matches('.').to_ascii_lowercase())]),
                _ => Found::NoName,
            };
        }
        match rest {
            [] => Found::Data(if asked.wants(Asked::A) { self.addresses() } else { Vec::new() }),
            [protocol @ ("_tcp" | "_udp" | "_sctp")] => self.port_names(None, protocol, asked),
            [protocol @ ("_tcp" | "_udp" | "_sctp"), port] => match port.strip_prefix('_') {
                Some(port) => self.port_names(Some(port), protocol, asked),
                None => Found::NoName,
            },
            [endpoint] if self.is_headless() => self.endpoint(endpoint, asked),
            _ => Found::NoName,
        }
    }

    fn addresses(&self) -> Vec<Data> {
        if let Some(ip) = self.cluster_ip() {
            return vec![Data::A(ip)];
        }
        let slices = self.slices();
        let ready = slices.iter().flat_map(|slice| endpoints(slice)).filter(|endpoint| is_ready(endpoint));
        let unique: BTreeSet<Ipv4Addr> = ready.filter_map(first_address).collect();
        unique.into_iter().map(Data::A).collect()
    }

    fn endpoint(&self, label: &str, asked: Asked) -> Found {
        let slices = self.slices();
        let own = slices.iter().flat_map(|slice| endpoints(slice)).filter(|endpoint| is_ready(endpoint));
        let named = own.filter(|endpoint| Self::endpoint_label(endpoint).as_deref() == Some(label));
        let addresses: BTreeSet<Ipv4Addr> = named.filter_map(first_address).collect();
        if addresses.is_empty() {
            return Found::NoName;
        }
        let wanted = asked.wants(Asked::A);
        Found::Data(addresses.into_iter().filter(|_| wanted).map(Data::A).collect())
    }

    /// SRV records: of one named port, or (without a name) nothing but the knowledge that the name exists.
    fn port_names(&self, port: Option<&str>, protocol: &str, asked: Asked) -> Found {
        let protocol = protocol.trim_start_matches('_').to_ascii_uppercase();
        let of_protocol = |own: Option<&str>| own.unwrap_or("TCP") == protocol;
        let ports = self.ports().iter().filter(|own| of_protocol(own.protocol.as_deref()));
        let named: Vec<&ServicePort> =
            ports.filter(|own| port.is_none_or(|port| own.name.as_deref() == Some(port))).collect();
        if named.is_empty() {
            return Found::NoName;
        }
        if port.is_none() || !asked.wants(Asked::Srv) {
            return Found::Data(Vec::new());
        }
        Found::Data(named.into_iter().flat_map(|port| self.port_records(port, &protocol)).collect())
    }

    fn port_records(&self, port: &ServicePort, protocol: &str) -> Vec<Data> {
        if let Some(ip) = self.cluster_ip() {
            let number = u16::try_from(port.port).unwrap_or_default();
            return vec![Data::Srv { port: number, target: self.name(), addresses: vec![ip] }];
        }
        let mut found = BTreeSet::new();
        for slice in self.slices() {
            let own = slice.ports.iter().flatten().filter(|own| {
                own.name.as_deref().unwrap_or_default() == port.name.as_deref().unwrap_or_default()
                    && own.protocol.as_deref().unwrap_or("TCP") == protocol
            });
            for number in own.filter_map(|own| u16::try_from(own.port?).ok()) {
                for endpoint in endpoints(&slice).iter().filter(|endpoint| is_ready(endpoint)) {
                    if let (Some(target), Some(ip)) = (self.endpoint_name(endpoint), first_address(endpoint)) {
                        found.insert(Data::Srv { port: number, target, addresses: vec![ip] });
                    }
                }
            }
        }
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Fixed {
        services: Vec<Arc<Service>>,
        slices: Vec<Arc<EndpointSlice>>,
    }

    impl Records for Fixed {
        fn has_namespace(&self, namespace: &str) -> bool {
            ["d", "empty"].contains(&namespace)
        }
        fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
            let own = |service: &&Arc<Service>| {
                service.metadata.namespace.as_deref() == Some(namespace)
                    && service.metadata.name.as_deref() == Some(name)
            };
            self.services.iter().find(own).cloned()
        }
        fn slices(&self, _namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
            let own = |slice: &&Arc<EndpointSlice>| {
                slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name")).map(String::as_str)
                    == Some(service)
            };
            self.slices.iter().filter(own).cloned().collect()
        }
        fn service_of_ip(&self, ip: Ipv4Addr) -> Option<Arc<Service>> {
            let ip = ip.to_string();
            self.services.iter().find(|s| s.spec.as_ref().and_then(|s| s.cluster_ip.as_ref()) == Some(&ip)).cloned()
        }
        fn slices_of_ip(&self, ip: Ipv4Addr) -> Vec<Arc<EndpointSlice>> {
            let holds = |slice: &&Arc<EndpointSlice>| endpoints(slice).iter().any(|e| first_address(e) == Some(ip));
            self.slices.iter().filter(holds).cloned().collect()
        }
    }

    fn world() -> Fixed {
        let service = |text: &str| Arc::new(serde_yaml_like(text));
        let slices = r#"{"metadata":{"namespace":"d","labels":{"kubernetes.io/service-name":"db"}},"addressType":"IPv4",
            "ports":[{"name":"sql","port":5432}],
            "endpoints":[{"addresses":["10.1.0.5"],"hostname":"db-0","conditions":{"ready":true}},
                         {"addresses":["10.1.0.6"]},
                         {"addresses":["10.1.0.7"],"conditions":{"ready":false}}]}"#;
        Fixed {
            services: vec![
                service(
                    r#"{"metadata":{"name":"web","namespace":"d"},"spec":{"clusterIP":"10.96.0.9","ports":[{"name":"http","port":80}]}}"#,
                ),
                service(
                    r#"{"metadata":{"name":"db","namespace":"d"},"spec":{"clusterIP":"None","ports":[{"name":"sql","port":1}]}}"#,
                ),
                service(
                    r#"{"metadata":{"name":"was","namespace":"d"},"spec":{"type":"ClusterIP","clusterIP":"10.96.0.8","externalName":"a.b"}}"#,
                ),
                service(
                    r#"{"metadata":{"name":"ext","namespace":"d"},"spec":{"type":"ExternalName","externalName":"Example.org."}}"#,
                ),
            ],
            slices: vec![Arc::new(serde_json::from_str(slices).expect("a slice"))],
        }
    }

    fn serde_yaml_like(text: &str) -> Service {
        serde_json::from_str(text).expect("a service")
    }

    #[track_caller]
    fn check(name: &str, asked: Asked, expected: &str) {
        let found = match look_up(&world(), "cluster.local", name, asked) {
            Found::NotOurs => "forward".to_owned(),
            Found::NoName => "NXDOMAIN".to_owned(),
            Found::Data(data) => data
                .iter()
                .map(|data| match data {
                    Data::A(ip) => ip.to_string(),
                    Data::Srv { port, target, .. } => format!("{target}:{port}"),
                    Data::Ptr(name) | Data::Cname(name) | Data::Txt(name) => name.clone(),
                })
                .collect::<Vec<_>>()
                .join(" "),
        };
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn a_service_has_its_cluster_ip_and_its_ports() {
        check("web.d.svc.cluster.local", Asked::A, "10.96.0.9");
        check("web.d.svc.cluster.local", Asked::Other, "");
        check("_http._tcp.web.d.svc.cluster.local", Asked::Srv, "web.d.svc.cluster.local:80");
        check("_http._udp.web.d.svc.cluster.local", Asked::Srv, "NXDOMAIN");
        check("9.0.96.10.in-addr.arpa", Asked::Ptr, "web.d.svc.cluster.local");
    }

    #[test]
    fn a_headless_service_has_its_ready_endpoints() {
        check("db.d.svc.cluster.local", Asked::A, "10.1.0.5 10.1.0.6");
        check("db-0.db.d.svc.cluster.local", Asked::A, "10.1.0.5");
        check("10-1-0-6.db.d.svc.cluster.local", Asked::A, "10.1.0.6");
        check("10-1-0-7.db.d.svc.cluster.local", Asked::A, "NXDOMAIN");
        check(
            "_sql._tcp.db.d.svc.cluster.local",
            Asked::Srv,
            "10-1-0-6.db.d.svc.cluster.local:5432 db-0.db.d.svc.cluster.local:5432",
        );
        check("5.0.1.10.in-addr.arpa", Asked::Ptr, "db-0.db.d.svc.cluster.local");
    }

    #[test]
    fn names_in_between_exist_and_names_that_do_not_exist_say_so() {
        check("svc.cluster.local", Asked::A, "");
        check("d.svc.cluster.local", Asked::A, "");
        check("empty.svc.cluster.local", Asked::A, "");
        check("none.svc.cluster.local", Asked::A, "NXDOMAIN");
        check("_tcp.web.d.svc.cluster.local", Asked::Srv, "");
        check("none.d.svc.cluster.local", Asked::A, "NXDOMAIN");
        check("web.other.svc.cluster.local", Asked::A, "NXDOMAIN");
        check("web.d.svc.cluster.local.d.svc.cluster.local", Asked::A, "NXDOMAIN");
        check("x.web.d.svc.cluster.local", Asked::A, "NXDOMAIN");
    }

    #[test]
    fn a_service_that_was_an_external_name_has_its_cluster_ip() {
        check("was.d.svc.cluster.local", Asked::A, "10.96.0.8");
    }

    #[test]
    fn pods_external_names_the_version_and_foreign_names() {
        check("10-1-0-6.d.pod.cluster.local", Asked::A, "10.1.0.6");
        check("10-1-0-6.empty.pod.cluster.local", Asked::A, "10.1.0.6");
        check("10-1-0-6.d.pod.cluster.local", Asked::Other, "");
        check("10-1-0-6.none.pod.cluster.local", Asked::A, "NXDOMAIN");
        check("10-1-0.d.pod.cluster.local", Asked::A, "NXDOMAIN");
        check("ext.d.svc.cluster.local", Asked::A, "example.org");
        check("dns-version.cluster.local", Asked::Txt, "1.1.0");
        check("example.org", Asked::A, "forward");
        check("notcluster.local", Asked::A, "forward");
        check("1.1.1.1.in-addr.arpa", Asked::Ptr, "forward");
    }
}
