//! Decides which EndpointSlices a Service needs and how to get there with the fewest changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::ownership::controller_reference;
use crate::pods;
use crate::service_pods::{HEADLESS_LABEL, addresses, hostname, is_headless, ports, publishes_not_ready, target_port};

/// Most endpoints in one slice. Source: `max-endpoints-per-slice`.
const SLICE_LEN: usize = 100;

/// The label that leads from a slice to its Service.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// The label that says who keeps a slice …
pub(crate) const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// … and that it is us.
pub(super) const MANAGED_BY: &str = "endpointslice-controller.k8s.io";

/// What is to be written.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
}

/// What a decision is made on.
pub(super) struct Observed<'o> {
    pub(super) pods: &'o [Arc<Pod>],
    /// The slices that are there for the Service and ours.
    pub(super) slices: &'o [Arc<EndpointSlice>],
    /// The zone of each node that has one.
    pub(super) zones: &'o HashMap<String, String>,
}

/// Slices of one group differ only in their endpoints.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    address_type: String,
    /// The ports as JSON: comparable, and independent of how they were written.
    ports: String,
}

/// Decides for one Service.
pub(super) fn plan(service: &Service, observed: &Observed<'_>) -> Plan {
    let mut wanted = wanted(service, observed);
    let mut builder = Builder::new(service, observed.slices);
    let mut by_group: BTreeMap<Group, Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in observed.slices {
        by_group.entry(group_of(slice)).or_default().push(slice);
    }
    for (group, slices) in by_group {
        let endpoints = wanted.remove(&group).map(|(_, endpoints)| endpoints);
        builder.reuse(slices, endpoints.unwrap_or_default());
    }
    for (group, (ports, endpoints)) in wanted {
        builder.fill(&group.address_type, &ports, endpoints);
    }
    builder.finish(&families(service))
}

type Wanted = BTreeMap<Group, (Vec<EndpointPort>, Vec<Endpoint>)>;

/// All endpoints, by address family and ports: a named port can have different numbers on different pods.
fn wanted(service: &Service, observed: &Observed<'_>) -> Wanted {
    let mut wanted = Wanted::new();
    for address_type in families(service) {
        for pod in observed.pods {
            let own: Vec<String> =
                addresses(pod).iter().filter(|ip| family(ip) == address_type).map(IpAddr::to_string).collect();
            let ports = endpoint_ports(service, pod);
            if own.is_empty() || (ports.is_empty() && !self::ports(service).is_empty()) {
                continue;
            }
            let group = Group { address_type: address_type.clone(), ports: ports_text(&ports) };
            let endpoint = endpoint(service, pod, own, observed.zones);
            wanted.entry(group).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
        }
    }
    wanted
}

/// `spec.ipFamilies`; IPv4 before the API server filled it in.
fn families(service: &Service) -> Vec<String> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.clone()).unwrap_or_default();
    if families.is_empty() { vec!["IPv4".to_owned()] } else { families }
}

fn family(ip: &IpAddr) -> &'static str {
    if ip.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let found = ports(service).iter().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(target_port(pod, port)?),
            protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
            app_protocol: port.app_protocol.clone(),
        })
    });
    found.collect()
}

fn endpoint(service: &Service, pod: &Pod, addresses: Vec<String>, zones: &HashMap<String, String>) -> Endpoint {
    let (serving, terminating) = (pods::is_ready(pod), pod.metadata.deletion_timestamp.is_some());
    let node = Some(pods::node_name(pod)).filter(|node| !node.is_empty());
    Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(pod, service),
        node_name: node.map(str::to_owned),
        zone: node.and_then(|node| zones.get(node).cloned()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// What stays the same about an endpoint when its conditions change.
fn identity(endpoint: &Endpoint) -> (Option<String>, Vec<String>) {
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone());
    (uid, endpoint.addresses.clone())
}

fn group_of(slice: &EndpointSlice) -> Group {
    Group { address_type: slice.address_type.clone(), ports: ports_text(slice.ports.as_deref().unwrap_or_default()) }
}

fn ports_text(ports: &[EndpointPort]) -> String {
    let mut texts: Vec<String> = ports.iter().filter_map(|port| serde_json::to_string(port).ok()).collect();
    texts.sort();
    texts.join(",")
}

/// Collects the changes for one Service.
struct Builder<'b> {
    service: &'b Service,
    labels: BTreeMap<String, String>,
    taken: HashSet<String>,
    /// Slices that no endpoint needs.
    empty: Vec<Arc<EndpointSlice>>,
    kept: HashSet<String>,
    plan: Plan,
}

impl<'b> Builder<'b> {
    fn new(service: &'b Service, slices: &[Arc<EndpointSlice>]) -> Self {
        let taken = slices.iter().filter_map(|slice| slice.metadata.name.clone()).collect();
        Self { service, labels: labels(service), taken, empty: Vec::new(), kept: HashSet::new(), plan: Plan::default() }
    }

    /// Endpoints stay in the slice they are in; new ones go where a slice changes anyway, then where there is
    /// room, then into new slices.
    fn reuse(&mut self, slices: Vec<&Arc<EndpointSlice>>, wanted: Vec<Endpoint>) {
        let mut left: HashMap<_, Endpoint> = HashMap::new();
        let mut order = Vec::new();
        for endpoint in wanted {
            order.push(identity(&endpoint));
            left.insert(identity(&endpoint), endpoint);
        }
        let mut kept: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
        for slice in slices {
            let endpoints: Vec<Endpoint> =
                slice.endpoints.iter().flatten().filter_map(|endpoint| left.remove(&identity(endpoint))).collect();
            kept.push((slice, endpoints));
        }
        let mut new: Vec<Endpoint> = order.iter().filter_map(|identity| left.remove(identity)).collect();
        kept.sort_by_key(|(slice, endpoints)| {
            let unchanged = slice.endpoints.as_deref().unwrap_or_default() == endpoints.as_slice();
            (unchanged, std::cmp::Reverse(endpoints.len()))
        });
        let ports = kept.first().and_then(|(slice, _)| slice.ports.clone()).unwrap_or_default();
        let address_type = kept.first().map(|(slice, _)| slice.address_type.clone()).unwrap_or_default();
        for (slice, mut endpoints) in kept {
            let room = SLICE_LEN.saturating_sub(endpoints.len()).min(new.len());
            endpoints.extend(new.drain(..room));
            self.keep(slice, endpoints);
        }
        self.fill(&address_type, &ports, new);
    }

    fn keep(&mut self, slice: &Arc<EndpointSlice>, endpoints: Vec<Endpoint>) {
        if endpoints.is_empty() {
            self.empty.push(Arc::clone(slice));
            return;
        }
        self.kept.insert(slice.address_type.clone());
        self.write(slice, endpoints);
    }

    fn write(&mut self, slice: &EndpointSlice, endpoints: Vec<Endpoint>) {
        let same_endpoints = slice.endpoints.as_deref().unwrap_or_default() == endpoints.as_slice();
        if same_endpoints && slice.metadata.labels.as_ref() == Some(&self.labels) {
            return;
        }
        let mut slice = slice.clone();
        slice.endpoints = Some(endpoints);
        slice.metadata.labels = Some(self.labels.clone());
        self.plan.update.push(slice);
    }

    /// New slices for the rest.
    fn fill(&mut self, address_type: &str, ports: &[EndpointPort], mut endpoints: Vec<Endpoint>) {
        while !endpoints.is_empty() {
            let rest = endpoints.split_off(endpoints.len().min(SLICE_LEN));
            self.create(address_type, ports.to_vec(), endpoints);
            endpoints = rest;
        }
    }

    fn create(&mut self, address_type: &str, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) {
        let metadata = ObjectMeta {
            name: Some(self.free_name(address_type)),
            namespace: self.service.metadata.namespace.clone(),
            labels: Some(self.labels.clone()),
            owner_references: Some(vec![controller_reference(self.service)]),
            ..ObjectMeta::default()
        };
        self.kept.insert(address_type.to_owned());
        let address_type = address_type.to_owned();
        let slice = EndpointSlice { metadata, address_type, ports: Some(ports), endpoints: Some(endpoints) };
        self.plan.create.push(slice);
    }

    /// Empty slices go, but each family keeps one: a Service without endpoints says so by an empty slice.
    fn finish(mut self, families: &[String]) -> Plan {
        for address_type in families {
            if self.kept.contains(address_type) {
                continue;
            }
            match self.empty.iter().position(|slice| &slice.address_type == address_type) {
                Some(index) => {
                    let slice = self.empty.swap_remove(index);
                    self.write(&slice, Vec::new());
                }
                None => self.create(address_type, Vec::new(), Vec::new()),
            }
        }
        self.plan.delete = self.empty;
        self.plan
    }

    /// A name that follows from the Service and the slices there are: a round repeated on an old view meets what
    /// it made before, instead of making it twice.
    fn free_name(&mut self, address_type: &str) -> String {
        let meta = &self.service.metadata;
        let (name, uid) = (meta.name.as_deref().unwrap_or_default(), meta.uid.as_deref().unwrap_or_default());
        let mut number = 0_u32;
        loop {
            let candidate = format!("{name}-{}", suffix(&format!("{uid}/{address_type}/{number}")));
            if self.taken.insert(candidate.clone()) {
                return candidate;
            }
            number += 1;
        }
    }
}

/// Five characters like those of generated names, from a 32-bit FNV-1a hash.
pub(crate) fn suffix(seed: &str) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash = seed.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut text = String::new();
    for _ in 0..5 {
        text.push(char::from(ALPHABET[usize::try_from(hash % 27).unwrap_or(0)]));
        hash /= 27;
    }
    text
}

/// The Service's own labels and those that lead back to it.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_LABEL.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    labels.remove(HEADLESS_LABEL);
    if is_headless(service) {
        labels.insert(HEADLESS_LABEL.to_owned(), String::new());
    }
    labels
}
