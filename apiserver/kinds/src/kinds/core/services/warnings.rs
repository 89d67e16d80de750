//! What is allowed in a Service but will not do what it says.

use reeve_api::names;
use serde_json::Value;

use crate::json::{at, get, has, list, text};
use crate::path::Path;

const OLD_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

/// The warnings about a Service.
pub(super) fn of(object: &Value) -> Vec<String> {
    let (spec, mut warnings) = (get(object, "spec"), Vec::new());
    if has(at(object, &["metadata", "annotations"]), OLD_HINTS) {
        let new = "service.kubernetes.io/topology-mode";
        warnings.push(format!("annotation {OLD_HINTS} is deprecated, please use {new} instead"));
    }
    let is_headless = text(spec, "type") == "ClusterIP" && text(spec, "clusterIP") == "None";
    let (external, is_name) = (list(spec, "externalIPs"), text(spec, "type") == "ExternalName");
    if !["", "None"].contains(&text(spec, "clusterIP")) {
        addresses(list(spec, "clusterIPs"), "clusterIPs", &mut warnings);
    }
    if is_headless {
        if !text(spec, "loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if !external.is_empty() {
            warnings.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if text(spec, "sessionAffinity") != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    addresses(external, "externalIPs", &mut warnings);
    if !external.is_empty() && !is_headless && !is_name {
        warnings.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
    }
    if let Some(warning) = names::ip_warning(text(spec, "loadBalancerIP")) {
        warnings.push(format!("spec.loadBalancerIP: {warning}"));
    }
    if is_name && !external.is_empty() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_name && !text(spec, "externalName").is_empty() {
        warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
    }
    warnings
}

fn addresses(ips: &[Value], field: &str, warnings: &mut Vec<String>) {
    let path = Path::of("spec");
    let path = path.child(field);
    for (index, ip) in ips.iter().enumerate() {
        if let Some(warning) = names::ip_warning(ip.as_str().unwrap_or_default()) {
            warnings.push(format!("{}: {warning}", path.index(index)));
        }
    }
}
