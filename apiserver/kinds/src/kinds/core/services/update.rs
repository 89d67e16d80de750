//! What happens to addresses and ports when a Service changes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::rules::{is_headless, needs_health_check};
use crate::errors::Errors;
use crate::json::{copy_field, get, has, int, items_mut, list, remove, set, text};
use crate::path::Path;

fn wants_cluster_ip(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName"
}

fn wants_node_port(spec: &Value) -> bool {
    match text(spec, "type") {
        "NodePort" => true,
        "LoadBalancer" => get(spec, "allocateLoadBalancerNodePorts") != &Value::Bool(false),
        _ => false,
    }
}

/// Keeps what was handed out and the request leaves unsaid; drops what the new type has no use for.
pub(super) fn prepare(spec: &mut Value, old: &Value) {
    if wants_cluster_ip(spec) && wants_cluster_ip(old) {
        if text(spec, "clusterIP").is_empty() && list(spec, "clusterIPs").is_empty() {
            copy_field(spec, old, "clusterIP");
        }
        let same_first = text(spec, "clusterIP") == text(old, "clusterIP");
        if list(spec, "clusterIPs").is_empty() && same_first {
            copy_field(spec, old, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"].into_iter().filter(|field| has(old, field)) {
            if !has(spec, field) {
                copy_field(spec, old, field);
            }
        }
    }
    sync_cluster_ip(spec, old);
    if wants_node_port(spec) && wants_node_port(old) {
        keep_node_ports(spec, old);
    }
    if needs_health_check(spec) && needs_health_check(old) && !has(spec, "healthCheckNodePort") {
        copy_field(spec, old, "healthCheckNodePort");
    }
    drop_unused(spec, old);
}

/// A port keeps its node port by its name, unless the request gives that to another one.
fn keep_node_ports(spec: &mut Value, old: &Value) {
    let stated: BTreeSet<_> = list(spec, "ports").iter().filter_map(|port| int(port, "nodePort")).collect();
    let before = list(old, "ports").iter().map(|port| (text(port, "name"), int(port, "nodePort")));
    let before: BTreeMap<_, _> = before.collect();
    for port in items_mut(spec, "ports").filter(|port| !has(port, "nodePort")) {
        if let Some(Some(kept)) =
            before.get(text(port, "name")).filter(|kept| kept.is_some_and(|kept| !stated.contains(&kept)))
        {
            set(port, "nodePort", *kept);
        }
    }
}

/// Who changes one of `clusterIP` and `clusterIPs` means both.
fn sync_cluster_ip(spec: &mut Value, old: &Value) {
    let (now, before) = (text(spec, "clusterIP").to_owned(), text(old, "clusterIP"));
    let same_list = list(spec, "clusterIPs") == list(old, "clusterIPs");
    if now != before && same_list {
        if now.is_empty() {
            remove(spec, "clusterIPs");
        } else {
            let mut ips = list(spec, "clusterIPs").to_vec();
            match ips.first_mut() {
                Some(first) => *first = now.into(),
                None => ips.push(now.into()),
            }
            set(spec, "clusterIPs", ips);
        }
    } else if now == before && !same_list {
        if list(spec, "clusterIPs").is_empty() {
            remove(spec, "clusterIP");
        } else if now.is_empty()
            && let Some(first) = list(spec, "clusterIPs").first().cloned()
        {
            set(spec, "clusterIP", first);
        }
    }
}

/// What belongs to the old type goes, unless the request changed it.
fn drop_unused(spec: &mut Value, old: &Value) {
    if wants_cluster_ip(old) && !wants_cluster_ip(spec) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if get(spec, field) == get(old, field) {
                remove(spec, field);
            }
        }
    }
    if wants_node_port(old) && !wants_node_port(spec) {
        let before: Vec<_> = list(old, "ports").iter().map(|port| get(port, "nodePort").clone()).collect();
        let same = list(spec, "ports").iter().map(|port| get(port, "nodePort")).eq(before.iter());
        for port in items_mut(spec, "ports").filter(|_| same) {
            remove(port, "nodePort");
        }
    }
    if needs_health_check(old) && !needs_health_check(spec) {
        drop_same(spec, old, "healthCheckNodePort");
    }
    if text(old, "type") == "LoadBalancer" && text(spec, "type") != "LoadBalancer" {
        drop_same(spec, old, "allocateLoadBalancerNodePorts");
        drop_same(spec, old, "loadBalancerClass");
    }
    if super::rules::externally_accessible(old) && !super::rules::externally_accessible(spec) {
        drop_same(spec, old, "externalTrafficPolicy");
    }
}

fn drop_same(spec: &mut Value, old: &Value, field: &str) {
    if get(spec, field) == get(old, field) {
        remove(spec, field);
    }
}

/// Rules for a change: an address once given stays.
pub(super) fn rules(spec: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::of("spec");
    if wants_cluster_ip(spec) && wants_cluster_ip(old) && !(is_headless(spec) && is_headless(old)) {
        cluster_ips(spec, old, &path, errors);
    }
    let both_headless_or_not = is_headless(spec) == is_headless(old) && !is_headless(spec);
    if wants_cluster_ip(spec) && wants_cluster_ip(old) && both_headless_or_not {
        families(spec, old, &path, errors);
    }
    if needs_health_check(spec)
        && needs_health_check(old)
        && get(spec, "healthCheckNodePort") != get(old, "healthCheckNodePort")
    {
        errors.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
    let both = text(spec, "type") == "LoadBalancer" && text(old, "type") == "LoadBalancer";
    if both && get(spec, "loadBalancerClass") != get(old, "loadBalancerClass") {
        let detail = "may not change once set";
        errors.invalid(&path.child("loadBalancerClass"), get(spec, "loadBalancerClass").clone(), detail);
    }
}

fn cluster_ips(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (now, before, ips_path) = (list(spec, "clusterIPs"), list(old, "clusterIPs"), path.child("clusterIPs"));
    if now.is_empty() && !before.is_empty() {
        return errors.invalid(&ips_path.index(0), now.to_vec(), "primary clusterIP can not be unset");
    }
    let compared = if now.len() == before.len() { now.len() } else { 1 };
    for (index, (new, old)) in now.iter().zip(before).enumerate().take(compared) {
        if new != old {
            errors.invalid(&ips_path.index(index), now.to_vec(), "may not change once set");
        }
    }
    if before.len() > now.len() && now.len() == 1 && text(spec, "ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.invalid(&path.child("ipFamilyPolicy"), get(spec, "ipFamilyPolicy").clone(), detail);
    }
}

/// The first family stays; a second one may come, and go when the policy says so.
fn families(spec: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (now, before, here) = (list(spec, "ipFamilies"), list(old, "ipFamilies"), path.child("ipFamilies"));
    let first = here.index(0);
    if now.len() == before.len() {
        for _ in now.iter().zip(before).filter(|(now, before)| now != before) {
            errors.invalid(&first, now.to_vec(), "may not change once set");
        }
        return;
    }
    let is_released = before.len() > now.len();
    if is_released && list(spec, "clusterIPs").is_empty() {
        errors.invalid(&first, now.to_vec(), "primary ipFamily can not be unset");
    }
    if let (Some(one), Some(other)) = (now.first(), before.first())
        && one != other
    {
        errors.invalid(&first, list(spec, "clusterIPs").to_vec(), "may not change once set");
    }
    if is_released && now.len() == 1 && text(spec, "ipFamilyPolicy") != "SingleStack" {
        let detail = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        errors.invalid(&path.child("ipFamilyPolicy"), get(spec, "ipFamilyPolicy").clone(), detail);
    }
}
