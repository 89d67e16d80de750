//! Rules for a Service.

use std::collections::BTreeSet;

use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldErrorKind;
use crate::json::{at, get, has, int, list, text};
use crate::kinds::core::endpoints::ordinary_ip;
use crate::meta;
use crate::path::Path;
use crate::pod::port_number_or_name;
use crate::shown;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
/// Longest time a client stays with its pod.
const MAX_AFFINITY_SECONDS: i64 = 86400;

/// Whether traffic from outside the cluster can reach the Service.
pub(super) fn externally_accessible(spec: &Value) -> bool {
    match text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether a port is needed on which nodes say if they have endpoints.
pub(super) fn needs_health_check(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// Whether the Service has a name but no address.
pub(super) fn is_headless(spec: &Value) -> bool {
    list(spec, "clusterIPs").len() == 1 && list(spec, "clusterIPs")[0] == "None"
}

/// All rules for `spec` and for the annotations that belong to it; `old` is the spec before a change, null for a new
/// Service. Addresses that were taken once stay good.
pub(super) fn service(object: &Value, old: &Value, errors: &mut Errors) {
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    let (kind, ports) = (text(spec, "type"), list(spec, "ports"));
    topology_annotations(object, errors);
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    by_type(spec, kind, &path, errors);
    let mut names_seen = BTreeSet::new();
    let ports_path = path.child("ports");
    for (index, port) in ports.iter().enumerate() {
        port_rules(port, ports.len() > 1, &mut names_seen, &ports_path.index(index), errors);
    }
    meta::labels(get(spec, "selector"), &path.child("selector"), errors);
    affinity(spec, &path, errors);
    cluster_ips(spec, list(old, "clusterIPs"), &path, errors);
    let external = path.child("externalIPs");
    for (index, ip) in list(spec, "externalIPs").iter().enumerate() {
        let (path, known) = (external.index(index), list(old, "externalIPs").contains(ip));
        let ip = ip.as_str().unwrap_or_default();
        let complaints = if known { Vec::new() } else { names::ip(ip) };
        if complaints.is_empty() {
            ordinary_ip(ip, &path, errors);
        }
        errors.invalid_each(&path, ip, complaints);
    }
    errors.one_of(&path.child("type"), kind, TYPES);
    duplicate_ports(spec, kind, &ports_path, errors);
    source_ranges(object, list(old, "loadBalancerSourceRanges"), kind, errors);
    load_balancer(spec, kind, &path, errors);
    traffic(spec, kind, &path, errors);
}

fn topology_annotations(object: &Value, errors: &mut Errors) {
    const MODE: &str = "service.kubernetes.io/topology-mode";
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    let notes = at(object, &["metadata", "annotations"]);
    if let (Some(mode), Some(hints)) = (get(notes, MODE).as_str(), get(notes, HINTS).as_str())
        && mode != hints
    {
        let path = Path::of("metadata");
        let path = path.child("annotations");
        errors.invalid(&path.key(MODE), mode, format!("must match annotations[{HINTS}] when both are specified"));
    }
}

fn by_type(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let ips = path.child("clusterIPs");
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            errors.invalid(&ips.index(0), "None", format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"].into_iter().filter(|field| has(spec, field)) {
                if get(spec, field).as_array().is_none_or(|items| !items.is_empty()) {
                    errors.forbidden(&path.child(field), "may not be set for ExternalName services");
                }
            }
            let (name, path) = (text(spec, "externalName"), path.child("externalName"));
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                errors.required(&path, "");
            } else {
                errors.invalid_each(&path, name, names::dns1123_subdomain(name));
            }
        }
        _ => {}
    }
}

fn port_rules<'v>(
    port: &'v Value,
    needs_name: bool,
    seen: &mut BTreeSet<&'v str>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let name = text(port, "name");
    if name.is_empty() {
        if needs_name {
            errors.required(&path.child("name"), "");
        }
    } else {
        errors.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), name);
        }
    }
    let number = int(port, "port").unwrap_or_default();
    for detail in names::port_number(number) {
        errors.invalid(&path.child("port"), number, detail);
    }
    errors.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
    port_number_or_name(get(port, "targetPort"), &path.child("targetPort"), errors);
    if let Some(protocol) = get(port, "appProtocol").as_str() {
        errors.invalid_each(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
    }
}

fn affinity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (kind, config) = (text(spec, "sessionAffinity"), get(spec, "sessionAffinityConfig"));
    errors.one_of(&path.child("sessionAffinity"), kind, &["ClientIP", "None"]);
    let path = path.child("sessionAffinityConfig");
    match kind {
        "ClientIP" => {
            let path = path.child("clientIP");
            let path = path.child("timeoutSeconds");
            match int(get(config, "clientIP"), "timeoutSeconds") {
                None => errors.required(&path, "when session affinity type is ClientIP"),
                Some(seconds) if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) => {
                    let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                    errors.invalid(&path, seconds, detail);
                }
                Some(_) => {}
            }
        }
        "None" if !config.is_null() => errors.forbidden(&path, "must not be set when session affinity is None"),
        _ => {}
    }
}

/// `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` agree.
pub(super) fn cluster_ips(spec: &Value, known: &[Value], path: &Path<'_>, errors: &mut Errors) {
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let (first, ips, ips_path) = (text(spec, "clusterIP"), list(spec, "clusterIPs"), path.child("clusterIPs"));
    match (first.is_empty(), ips.first()) {
        (false, None) => errors.required(&ips_path, ""),
        (false, Some(ip)) if ip != first => {
            errors.invalid(&ips_path, ips.to_vec(), "first value must match `clusterIP`");
        }
        (true, Some(_)) => {
            errors.invalid(&ips_path, ips.to_vec(), "must be empty when `clusterIP` is not specified");
        }
        _ => {}
    }
    families(spec, path, errors);
    let mut is_bad = false;
    for (index, ip) in ips.iter().enumerate() {
        let was_taken = known.contains(ip);
        let ip = ip.as_str().unwrap_or_default();
        if index == 0 && ip == "None" {
            if ips.len() > 1 {
                errors.invalid(&ips_path, ips.to_vec(), "'None' must be the first and only value");
                is_bad = true;
            }
            continue;
        }
        let complaints = if was_taken { Vec::new() } else { names::ip(ip) };
        is_bad |= !complaints.is_empty();
        errors.invalid_each(&ips_path.index(index), ip, complaints);
    }
    if ips.len() > 2 {
        errors.invalid(&ips_path, ips.to_vec(), "may only hold up to 2 values");
    }
    if is_bad {
        return;
    }
    let is_six = |ip: &Value| ip.as_str().is_some_and(|ip| ip.contains(':'));
    if ips.len() > 1 && ips.iter().any(is_six) == ips.iter().all(is_six) {
        errors.invalid(&ips_path, ips.to_vec(), "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (index, (ip, family)) in ips.iter().zip(list(spec, "ipFamilies")).enumerate() {
        let family = family.as_str().unwrap_or_default();
        if (family == "IPv4" && is_six(ip)) || (family == "IPv6" && !is_six(ip)) {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.invalid(&ips_path.index(index), ip.clone(), detail);
        }
    }
}

fn families(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let families_path = path.child("ipFamilies");
    let (families, mut seen) = (list(spec, "ipFamilies"), BTreeSet::new());
    for (index, family) in families.iter().enumerate() {
        let (name, path) = (family.as_str().unwrap_or_default(), families_path.index(index));
        if !["IPv4", "IPv6"].contains(&name) {
            errors.unsupported(&path, name, &["IPv4", "IPv6"]);
        }
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
    }
    if let Some(policy) = get(spec, "ipFamilyPolicy").as_str() {
        let supported = &["PreferDualStack", "RequireDualStack", "SingleStack"];
        if !supported.contains(&policy) {
            errors.unsupported(&path.child("ipFamilyPolicy"), policy, supported);
        }
    }
}

fn duplicate_ports(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let ports = list(spec, "ports");
    let node_port = |port: &Value| int(port, "nodePort").filter(|number| *number != 0);
    if kind == "ClusterIP" {
        for (index, _) in ports.iter().enumerate().filter(|(_, port)| node_port(port).is_some()) {
            let path = path.index(index);
            errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
    }
    let (mut node_ports, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        if let Some(number) = node_port(port)
            && !node_ports.insert((text(port, "protocol"), number))
        {
            errors.duplicate(&path.index(index).child("nodePort"), number);
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let (protocol, number) = (text(port, "protocol"), int(port, "port"));
        if !seen.insert((protocol, number)) {
            let shown = shown::object(&[
                ("Name", "\"\"".to_owned()),
                ("Protocol", Value::from(protocol).to_string()),
                ("AppProtocol", "null".to_owned()),
                ("Port", number.unwrap_or_default().to_string()),
                ("TargetPort", "0".to_owned()),
                ("NodePort", "0".to_owned()),
            ]);
            errors.add_text(FieldErrorKind::Duplicate, &path.index(index), shown, "");
        }
    }
}

const BALANCERS_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

/// Where clients of a load balancer may come from: a field or, without it, an annotation.
fn source_ranges(object: &Value, known: &[Value], kind: &str, errors: &mut Errors) {
    const NOTE: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let (spec, meta) = (Path::of("spec"), Path::of("metadata"));
    let ranges = list(get(object, "spec"), "loadBalancerSourceRanges");
    let path = spec.child("LoadBalancerSourceRanges");
    if !ranges.is_empty() {
        if kind != "LoadBalancer" {
            errors.forbidden(&path, BALANCERS_ONLY);
        }
        let known: Vec<_> = known.iter().filter_map(Value::as_str).map(str::trim).collect();
        for (index, range) in ranges.iter().enumerate() {
            let range = range.as_str().unwrap_or_default().trim();
            if !known.contains(&range) {
                errors.invalid_each(&path.index(index), range, names::cidr(range));
            }
        }
    } else if let Some(note) = at(object, &["metadata", "annotations", NOTE]).as_str() {
        let path = meta.child("annotations");
        let path = path.key(NOTE);
        if kind != "LoadBalancer" {
            errors.forbidden(&path, BALANCERS_ONLY);
        }
        for range in note.split(',').map(str::trim).filter(|_| !note.trim().is_empty()) {
            errors.invalid_each(&path, range, names::cidr(range));
        }
    }
}

fn load_balancer(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let class_path = path.child("loadBalancerClass");
    let nodes = "allocateLoadBalancerNodePorts";
    if kind == "LoadBalancer" {
        if !has(spec, nodes) {
            errors.required(&Path::of(nodes), "");
        }
        if let Some(class) = get(spec, "loadBalancerClass").as_str() {
            errors.invalid_each(&class_path, class, names::qualified_name(class));
        }
        return;
    }
    for field in [nodes, "loadBalancerClass"].into_iter().filter(|field| has(spec, field)) {
        errors.forbidden(&path.child(field), BALANCERS_ONLY);
    }
}

fn traffic(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let (policy, external_path) = (text(spec, "externalTrafficPolicy"), path.child("externalTrafficPolicy"));
    if externally_accessible(spec) {
        errors.one_of(&external_path, policy, POLICIES);
    } else if !policy.is_empty() {
        errors.invalid(&external_path, policy, "may only be set for externally-accessible services");
    }
    let health = int(spec, "healthCheckNodePort").unwrap_or_default();
    if !needs_health_check(spec) && health != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&path.child("healthCheckNodePort"), health, detail);
    } else if health != 0 {
        for detail in names::port_number(health) {
            errors.invalid(&path.child("healthCheckNodePort"), health, detail);
        }
    }
    let internal_path = path.child("internalTrafficPolicy");
    match get(spec, "internalTrafficPolicy").as_str() {
        None if ["ClusterIP", "NodePort", "LoadBalancer"].contains(&kind) => errors.required(&internal_path, ""),
        Some(policy) if !POLICIES.contains(&policy) => errors.unsupported(&internal_path, policy, POLICIES),
        _ => {}
    }
    if let Some(preference) = get(spec, "trafficDistribution").as_str() {
        let supported = &["PreferClose", "PreferSameZone", "PreferSameNode"];
        if !supported.contains(&preference) {
            errors.unsupported(&path.child("trafficDistribution"), preference, supported);
        }
    }
}

/// Rules for `status.loadBalancer`.
pub(super) fn load_balancer_status(object: &Value, old: &Value, errors: &mut Errors) {
    let status = Path::of("status");
    let path = status.child("loadBalancer");
    let path = path.child("ingress");
    let ingress = |object| list(at(object, &["status", "loadBalancer"]), "ingress");
    if !ingress(object).is_empty() && text(get(object, "spec"), "type") != "LoadBalancer" {
        return errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for (index, entry) in ingress(object).iter().enumerate() {
        let (path, ip, mode) = (path.index(index), text(entry, "ip"), get(entry, "ipMode").as_str());
        if !ip.is_empty() && !ingress(old).iter().any(|one| text(one, "ip") == ip) {
            errors.invalid_each(&path.child("ip"), ip, names::ip(ip));
        }
        let mode_path = path.child("ipMode");
        match mode {
            None if !ip.is_empty() => errors.required(&mode_path, "must be specified when `ip` is set"),
            Some(_) if ip.is_empty() => errors.forbidden(&mode_path, "may not be specified when `ip` is not set"),
            Some(mode) if !["Proxy", "VIP"].contains(&mode) => errors.unsupported(&mode_path, mode, &["Proxy", "VIP"]),
            _ => {}
        }
        let (hostname, path) = (text(entry, "hostname"), path.child("hostname"));
        if !hostname.is_empty() {
            errors.invalid_each(&path, hostname, names::dns1123_subdomain(hostname));
            if hostname.parse::<std::net::IpAddr>().is_ok() {
                errors.invalid(&path, hostname, "must be a DNS name, not an IP address");
            }
        }
    }
}
