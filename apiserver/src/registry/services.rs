//! Cluster IPs and node ports: which Service has which, and which are free.
//!
//! Each allocation is a key of its own in the store, written in the same transaction as the Service and under
//! the condition that nobody has it: two Services never share one, and nothing is leaked when a process dies.
//! Fields and refusals are worded as Kubernetes' Service registry words them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use bytes::Bytes;
use ipnet::Ipv4Net;
use reeve_api::rng::{Rng, RngExt as _};
use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::{Map, Value, json};

use super::commit::Plan;
use super::resource::Resource;
use super::{RegistryConfig, meta};
use crate::cache::{Cache, RANGES};
use crate::status::ApiError;

/// Where cluster IPs and node ports come from.
pub(super) struct Allocators {
    cidr: Ipv4Net,
    reserved: Option<IpAddr>,
    node_ports: RangeInclusive<u16>,
}

/// How many cluster IPs and node ports are taken and free.
pub(crate) struct Allocations {
    pub(crate) cidr: Ipv4Net,
    pub(crate) addresses: usize,
    pub(crate) addresses_free: usize,
    pub(crate) ports: usize,
    pub(crate) ports_free: usize,
}

/// What a Service is to get, and what it had.
struct Draft<'d> {
    taken: &'d dyn Fn(&str) -> bool,
    owner: String,
    had: Vec<String>,
    has: Vec<String>,
    plan: &'d mut Plan,
    rng: &'d dyn Rng,
    dry_run: bool,
}

/// For which write a Service gets what it needs.
pub(super) struct Allocation<'a> {
    /// The Service as it is; `None`: it is new.
    pub(super) old: Option<&'a Value>,
    /// Whether nothing is to be kept. Kubernetes then makes node ports up.
    pub(super) dry_run: bool,
    /// Chooses among what is free.
    pub(super) rng: &'a dyn Rng,
}

fn ip_entry(ip: &str) -> String {
    format!("serviceips/{ip}")
}

const PORT_ENTRIES: &str = "servicenodeports/";

fn port_entry(port: u64) -> String {
    format!("{PORT_ENTRIES}{port}")
}

fn key(entry: &str) -> Bytes {
    [RANGES, entry.as_bytes()].concat().into()
}

/// Everything a stored Service holds.
fn entries(service: &Value) -> Vec<String> {
    let spec = &service["spec"];
    let ips = spec["clusterIPs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut all: Vec<String> = ips.filter(|ip| *ip != "None").map(ip_entry).collect();
    let ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
    for port in ports.chain([&spec["healthCheckNodePort"]]).filter_map(Value::as_u64).filter(|port| *port > 0) {
        let entry = port_entry(port);
        if !all.contains(&entry) {
            all.push(entry);
        }
    }
    all
}

fn needs_cluster_ip(spec: &Value) -> bool {
    matches!(spec["type"].as_str(), Some("ClusterIP" | "NodePort" | "LoadBalancer"))
}

fn needs_node_ports(spec: &Value) -> bool {
    match spec["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn needs_health_port(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

impl Allocators {
    pub(super) fn new(config: &RegistryConfig) -> Self {
        Self { cidr: config.service_cidr, reserved: config.dns_address, node_ports: config.node_ports.clone() }
    }

    /// What is taken, as of the cache.
    pub(super) fn count(&self, cache: &Cache) -> Allocations {
        let (addresses, ports) = (cache.allocated_count("serviceips/"), cache.allocated_count("servicenodeports/"));
        // The first and the last address of a range are nobody's.
        let all = 2_usize.saturating_pow(u32::from(32 - self.cidr.prefix_len())).saturating_sub(2);
        Allocations {
            cidr: self.cidr,
            addresses,
            addresses_free: all.saturating_sub(addresses),
            ports,
            ports_free: self.node_ports.len().saturating_sub(ports),
        }
    }

    /// The keys of what an object holds; nothing for anything but a Service.
    pub(super) fn held(&self, resource: &Resource, object: &Value) -> Vec<Bytes> {
        if resource.is("", "services") { entries(object).iter().map(|entry| key(entry)).collect() } else { Vec::new() }
    }

    /// Gives the Service what it needs and takes back what it no longer has. The claims go into `plan`. This comes
    /// before the Service's other rules, and only looks at those for addresses itself.
    pub(super) fn allocate(
        &self,
        cache: &Cache,
        service: &mut Value,
        Allocation { old, dry_run, rng }: Allocation<'_>,
        plan: &mut Plan,
    ) -> Result<(), ApiError> {
        let name = meta::text(service, "name").to_owned();
        let errors = reeve_kinds::service_address_rules(service, old.unwrap_or(&Value::Null));
        if !errors.is_empty() {
            return Err(ApiError::invalid_kind("Service", "", &name, &errors));
        }
        let owner = format!("{}/{name}", meta::text(service, "namespace"));
        let taken = |entry: &str| cache.is_allocated(entry);
        let had = old.map(entries).unwrap_or_default();
        let mut draft = Draft { taken: &taken, owner, had, has: Vec::new(), plan, rng, dry_run };
        let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        self.all(spec, old.is_none(), &mut draft).map_err(|refusal| refusal.error(&name))?;
        let Draft { had, has, plan, .. } = draft;
        plan.releases.extend(had.iter().filter(|entry| !has.contains(entry)).map(|entry| key(entry)));
        Ok(())
    }

    fn all(&self, spec: &mut Map<String, Value>, is_new: bool, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        let view = Value::Object(spec.clone());
        if needs_cluster_ip(&view) {
            families(spec)?;
            self.cluster_ip(spec, draft)?;
        }
        let has_node_ports = matches!(view["type"].as_str(), Some("NodePort" | "LoadBalancer"));
        if let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut).filter(|_| has_node_ports) {
            let needed = needs_node_ports(&view);
            if is_new { self.new_ports(ports, needed, draft)? } else { self.ports(ports, needed, draft)? }
        }
        if needs_health_port(&view) {
            let wanted = view["healthCheckNodePort"].as_u64().filter(|port| *port > 0);
            let port = self.node_port(wanted, "spec.healthCheckNodePort", draft)?;
            spec.insert("healthCheckNodePort".to_owned(), port.into());
        }
        Ok(())
    }

    fn cluster_ip(&self, spec: &mut Map<String, Value>, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        let stated =
            |value: Option<&Value>| value.and_then(Value::as_str).filter(|ip| !ip.is_empty()).map(str::to_owned);
        let first = spec.get("clusterIPs").and_then(|list| list.get(0));
        let wanted = stated(spec.get("clusterIP")).or_else(|| stated(first));
        let ip = match wanted.as_deref() {
            Some("None") => "None".to_owned(),
            Some(ip) => self.claim_ip(ip, draft)?,
            None => self.free_ip(draft)?,
        };
        spec.insert("clusterIP".to_owned(), ip.as_str().into());
        spec.insert("clusterIPs".to_owned(), json!([ip]));
        Ok(())
    }

    fn claim_ip(&self, ip: &str, draft: &mut Draft<'_>) -> Result<String, Refusal> {
        let refuse = |why: String| {
            Refusal::invalid("spec.clusterIPs", json!([ip]), format!("failed to allocate IP {ip}: {why}"))
        };
        let entry = ip_entry(ip);
        if draft.had.contains(&entry) {
            draft.has.push(entry);
            return Ok(ip.to_owned());
        }
        let inside = ip
            .parse::<Ipv4Addr>()
            .is_ok_and(|ip| self.cidr.contains(&ip) && ip != self.cidr.network() && ip != self.cidr.broadcast());
        if !inside {
            let range = self.cidr;
            return Err(refuse(format!(
                "the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}"
            )));
        }
        if (draft.taken)(&entry) {
            return Err(refuse("provided IP is already allocated".to_owned()));
        }
        draft.claim(entry);
        Ok(ip.to_owned())
    }

    /// A free address: from the upper part of the range first, as Kubernetes does, so that the lower part stays
    /// free for Services that ask for a certain address.
    fn free_ip(&self, draft: &mut Draft<'_>) -> Result<String, Refusal> {
        let base = u64::from(u32::from(self.cidr.network()));
        let size = u64::from(u32::from(self.cidr.broadcast())) - base;
        let band = (size / 16).clamp(16, 256).min(size);
        for (from, to) in [(band, size), (1, band)] {
            let span = to.saturating_sub(from);
            let start = draft.rng.below(span);
            for step in 0..span {
                let number = base + from + (start + step) % span;
                let Ok(ip) = u32::try_from(number).map(Ipv4Addr::from) else { continue };
                let entry = ip_entry(&ip.to_string());
                if self.reserved != Some(IpAddr::V4(ip)) && !(draft.taken)(&entry) && !draft.has.contains(&entry) {
                    draft.claim(entry);
                    return Ok(ip.to_string());
                }
            }
        }
        Err(Refusal::Full("failed to allocate a serviceIP: range is full"))
    }

    /// The node ports of a new Service: one for each of its ports, which all protocols of that port share.
    fn new_ports(&self, ports: &mut [Value], needed: bool, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        let mut shared: BTreeMap<u64, u64> = BTreeMap::new();
        for index in 0..ports.len() {
            let number = |port: &Value| port["port"].as_u64().unwrap_or_default();
            let own = number(&ports[index]);
            let (field, wanted) = (format!("spec.ports[{index}].nodePort"), stated_port(&ports[index]));
            if !needed && wanted.is_none() {
                continue;
            }
            let given = match (shared.get(&own), wanted) {
                (Some(one), None) => *one,
                (Some(one), Some(wanted)) if *one == wanted => wanted,
                (Some(_), wanted) => self.node_port(wanted, &field, draft)?,
                (None, _) => {
                    let asked = ports.iter().filter(|port| number(port) == own).find_map(stated_port);
                    let given = self.node_port(asked, &field, draft)?;
                    shared.insert(own, given);
                    given
                }
            };
            set_port(&mut ports[index], given);
        }
        Ok(())
    }

    /// The node ports of a Service that changes: what it has it keeps.
    fn ports(&self, ports: &mut [Value], needed: bool, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        let mut seen: BTreeSet<(String, u64)> = BTreeSet::new();
        for (index, port) in ports.iter_mut().enumerate() {
            let wanted = stated_port(port);
            if !needed && wanted.is_none() {
                continue;
            }
            let field = format!("spec.ports[{index}].nodePort");
            let given = match wanted.filter(|wanted| draft.has.contains(&port_entry(*wanted))) {
                Some(own) => own,
                None => self.node_port(wanted, &field, draft)?,
            };
            set_port(port, given);
            let protocol = port["protocol"].as_str().unwrap_or_default().to_owned();
            let shown = format!("{{{protocol} {given}}}");
            if !seen.insert((protocol, given)) {
                return Err(Refusal::Unknown(format!("duplicate nodePort: {shown}")));
            }
        }
        Ok(())
    }

    fn node_port(&self, wanted: Option<u64>, field: &str, draft: &mut Draft<'_>) -> Result<u64, Refusal> {
        let (first, last) = (u64::from(*self.node_ports.start()), u64::from(*self.node_ports.end()));
        let Some(port) = wanted else {
            return if draft.dry_run { Ok(made_up_port(draft)) } else { free_port(first, last, draft) };
        };
        let entry = port_entry(port);
        if draft.had.contains(&entry) && !draft.has.contains(&entry) {
            draft.has.push(entry);
            return Ok(port);
        }
        if !draft.dry_run && !(first..=last).contains(&port) {
            let why = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
            return Err(Refusal::invalid(field, port.into(), why));
        }
        if (draft.taken)(&entry) || draft.has.contains(&entry) {
            return Err(Refusal::invalid(field, port.into(), "provided port is already allocated".to_owned()));
        }
        draft.claim(entry);
        Ok(port)
    }
}

/// The node port that a port asks for.
fn stated_port(port: &Value) -> Option<u64> {
    port["nodePort"].as_u64().filter(|port| *port > 0)
}

fn set_port(port: &mut Value, given: u64) {
    if let Some(port) = port.as_object_mut() {
        port.insert("nodePort".to_owned(), given.into());
    }
}

/// What Kubernetes shows in a dry run in place of a port that it would choose: one more than the highest so far.
fn made_up_port(draft: &mut Draft<'_>) -> u64 {
    /// Where counting begins.
    const BEFORE_FIRST: u64 = 32768;
    let numbers = draft.has.iter().filter(|entry| !draft.had.contains(*entry));
    let numbers = numbers.filter_map(|entry| entry.strip_prefix(PORT_ENTRIES)?.parse::<u64>().ok());
    let port = numbers.max().unwrap_or(BEFORE_FIRST) + 1;
    draft.claim(port_entry(port));
    port
}

fn free_port(first: u64, last: u64, draft: &mut Draft<'_>) -> Result<u64, Refusal> {
    let span = last.saturating_sub(first) + 1;
    let start = draft.rng.below(span);
    for step in 0..span {
        let port = first + (start + step) % span;
        let entry = port_entry(port);
        if !(draft.taken)(&entry) && !draft.has.contains(&entry) {
            draft.claim(entry);
            return Ok(port);
        }
    }
    Err(Refusal::Full("failed to allocate a nodePort: range is full"))
}

impl Draft<'_> {
    fn claim(&mut self, entry: String) {
        self.plan.claims.push((key(&entry), Bytes::from(self.owner.clone())));
        self.has.push(entry);
    }
}

/// The IP families of a Service in a cluster that has IPv4 only.
fn families(spec: &mut Map<String, Value>) -> Result<(), Refusal> {
    let asked = spec.get("ipFamilies").and_then(Value::as_array).cloned().unwrap_or_default();
    let headless = spec.get("clusterIP").is_some_and(|ip| ip == "None")
        || spec.get("clusterIPs").and_then(|list| list.get(0)).is_some_and(|ip| ip == "None");
    let selects = spec.get("selector").and_then(Value::as_object).is_some_and(|selector| !selector.is_empty());
    if headless && !selects {
        // Whoever writes the endpoints decides: all families are possible.
        spec.entry("ipFamilyPolicy").or_insert_with(|| "RequireDualStack".into());
        if asked.is_empty() {
            let single = spec.get("ipFamilyPolicy").is_some_and(|policy| policy == "SingleStack");
            spec.insert("ipFamilies".to_owned(), if single { json!(["IPv4"]) } else { json!(["IPv4", "IPv6"]) });
        }
        return Ok(());
    }
    if let Some((index, family)) = asked.iter().enumerate().find(|(_, family)| **family != "IPv4") {
        let why = "not configured on this cluster".to_owned();
        return Err(Refusal::invalid(&format!("spec.ipFamilies[{index}]"), family.clone(), why));
    }
    let policy = spec.entry("ipFamilyPolicy").or_insert_with(|| "SingleStack".into());
    if *policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services".to_owned();
        return Err(Refusal::invalid("spec.ipFamilyPolicy", policy.clone(), why));
    }
    spec.insert("ipFamilies".to_owned(), json!(["IPv4"]));
    Ok(())
}

/// Why a Service does not get what it asks for.
enum Refusal {
    Invalid(FieldError),
    Full(&'static str),
    /// What Kubernetes passes on without a reason.
    Unknown(String),
}

impl Refusal {
    fn invalid(field: &str, value: Value, detail: String) -> Self {
        Self::Invalid(FieldError::new(FieldErrorKind::Invalid, field, value, detail))
    }

    fn error(self, name: &str) -> ApiError {
        match self {
            Self::Invalid(error) => ApiError::invalid_kind("Service", "", name, &[error]),
            Self::Full(why) => ApiError::internal(why),
            Self::Unknown(why) => ApiError::unknown(why),
        }
    }
}
