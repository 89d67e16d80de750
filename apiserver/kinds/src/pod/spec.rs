//! Rules for a pod spec as a whole, and for pod templates.

use std::collections::BTreeSet;

use reeve_api::names;
use serde_json::Value;

use super::{Scope, affinity, annotations, container, env, level, os, resources, security, volume};
use crate::errors::Errors;
use crate::json::{flag, get, has, int, list, text};
use crate::meta;
use crate::path::Path;
use crate::shown;

const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// Rules for a pod template: `spec.template` of a controller.
pub(crate) fn template(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (meta, pod) = (get(template, "metadata"), get(template, "spec"));
    meta::labels(get(meta, "labels"), &path.child("labels"), errors);
    meta::annotations(meta, &path.child("annotations"), errors);
    annotations::rules(meta, pod, &path.child("annotations"), errors);
    let spec_path = path.child("spec");
    spec(pod, None, &spec_path, errors);
    annotations::match_fields(meta, pod, &spec_path, errors);
    if !list(pod, "ephemeralContainers").is_empty() {
        errors.forbidden(&spec_path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Rules for a pod spec; `pod` is the pod's name when it is a pod's own.
pub(crate) fn spec(spec: &Value, pod: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    if !has(spec, "terminationGracePeriodSeconds") {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let scope = Scope {
        is_pod: pod.is_some(),
        volumes: volume::volumes(spec, pod, &path.child("volumes"), errors),
        grace: int(spec, "terminationGracePeriodSeconds").unwrap_or_default(),
        restart_policy: text(spec, "restartPolicy"),
        claims: resource_claims(spec, &path.child("resourceClaims"), errors),
        host_users: get(spec, "hostUsers") != &Value::Bool(false),
        os: get(get(spec, "os"), "name").as_str().or(has(spec, "os").then_some("")),
    };
    container::all(spec, &scope, path, errors);
    level::rules(spec, &scope, path, errors);
    host_network_ports(spec, &scope, &path.child("containers"), errors);
    errors.one_of(&path.child("restartPolicy"), scope.restart_policy, &["Always", "OnFailure", "Never"]);
    errors.one_of(&path.child("dnsPolicy"), text(spec, "dnsPolicy"), DNS_POLICIES);
    meta::labels(get(spec, "nodeSelector"), &path.child("nodeSelector"), errors);
    security::pod(spec, &path.child("securityContext"), errors);
    affinity::affinity(spec, &path.child("affinity"), errors);
    dns_config(spec, &path.child("dnsConfig"), errors);
    gates(spec, path, errors);
    affinity::topology_spread(spec, &path.child("topologySpreadConstraints"), errors);
    os::host_process(spec, path, errors);
    os::host_users(spec, path, errors);
    os::hostname(spec, path, errors);
    references(spec, path, errors);
    os::operating_system(spec, path, errors);
    env::file_ref_volumes(spec, path, errors);
}

fn resource_claims<'v>(spec: &'v Value, path: &Path<'_>, errors: &mut Errors) -> BTreeSet<&'v str> {
    let mut found = BTreeSet::new();
    for (index, claim) in list(spec, "resourceClaims").iter().enumerate() {
        let (path, name) = (path.index(index), text(claim, "name"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if found.contains(name) {
            errors.duplicate(&path.child("name"), name);
        } else {
            errors.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        }
        match (has(claim, "resourceClaimName"), has(claim, "resourceClaimTemplateName")) {
            (true, true) => errors.invalid_object(
                &path,
                shown_claim(claim),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (false, false) => errors.invalid_object(
                &path,
                shown_claim(claim),
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            _ => {}
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if let Some(name) = get(claim, field).as_str() {
                errors.invalid_each(&path.child(field), name, names::dns1123_subdomain(name));
            }
        }
        if !name.is_empty() {
            found.insert(name);
        }
    }
    found
}

fn shown_claim(claim: &Value) -> String {
    shown::object(&[
        ("Name", Value::from(text(claim, "name")).to_string()),
        ("ResourceClaimName", get(claim, "resourceClaimName").to_string()),
        ("ResourceClaimTemplateName", get(claim, "resourceClaimTemplateName").to_string()),
    ])
}

fn host_network_ports(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    for (index, container) in list(spec, "containers").iter().enumerate() {
        let path = path.index(index);
        let path = path.child("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            let host = int(port, "hostPort").unwrap_or_default();
            if (scope.is_pod || host != 0) && host != int(port, "containerPort").unwrap_or_default() {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&path.index(index).child("hostPort"), host, detail);
            }
        }
    }
}

fn dns_config(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let config = get(spec, "dnsConfig");
    let (servers, searches) = (list(config, "nameservers"), list(config, "searches"));
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(&path.child("nameservers"), detail);
        }
    }
    let servers_path = path.child("nameservers");
    if servers.len() > 3 {
        errors.invalid(&servers_path, servers.to_vec(), "must not have more than 3 nameservers");
    }
    for (index, server) in servers.iter().enumerate() {
        let server = server.as_str().unwrap_or_default();
        errors.invalid_each(&servers_path.index(index), server, names::ip(server));
    }
    let searches_path = path.child("searches");
    if searches.len() > 32 {
        errors.invalid(&searches_path, searches.to_vec(), "must not have more than 32 search paths");
    }
    let length: usize = searches.iter().filter_map(Value::as_str).map(|search| search.len() + 1).sum();
    if length > 2049 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&searches_path, searches.to_vec(), detail);
    }
    for (index, search) in searches.iter().enumerate() {
        let search = search.as_str().unwrap_or_default();
        if search != "." {
            let plain = search.strip_suffix('.').unwrap_or(search);
            let complaints = names::dns1123_subdomain_with_underscore(plain);
            errors.invalid_each(&searches_path.index(index), plain, complaints);
        }
    }
    let options = path.child("options");
    for (index, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.required(&options.index(index), "must not be empty");
        }
    }
}

fn gates(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let readiness = path.child("readinessGates");
    for (index, gate) in list(spec, "readinessGates").iter().enumerate() {
        let (path, kind) = (readiness.index(index), text(gate, "conditionType"));
        errors.invalid_each(&path.child("conditionType"), kind, names::qualified_name(kind));
    }
    let (scheduling, mut seen) = (path.child("schedulingGates"), BTreeSet::new());
    for (index, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let (path, name) = (scheduling.index(index), text(gate, "name"));
        errors.invalid_each(&path, name, names::qualified_name(name));
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
    }
}

/// Names of other objects and of the pod itself, and what stands between them in Kubernetes' order.
fn references(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let name = |field: &str, rule: fn(&str) -> Vec<String>, errors: &mut Errors| {
        let name = text(spec, field);
        if !name.is_empty() {
            errors.invalid_each(&path.child(field), name, rule(name));
        }
    };
    name("serviceAccountName", names::dns1123_subdomain, errors);
    name("nodeName", names::dns1123_subdomain, errors);
    if let Some(seconds) =
        int(spec, "activeDeadlineSeconds").filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds))
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid(&path.child("activeDeadlineSeconds"), seconds, detail);
    }
    name("hostname", names::dns1123_label, errors);
    name("subdomain", names::dns1123_label, errors);
    affinity::tolerations(spec, &path.child("tolerations"), errors);
    host_aliases(spec, &path.child("hostAliases"), errors);
    name("priorityClassName", names::dns1123_subdomain, errors);
    if let Some(class) = get(spec, "runtimeClassName").as_str() {
        errors.invalid_each(&path.child("runtimeClassName"), class, names::dns1123_subdomain(class));
    }
    if let Some(policy) = get(spec, "preemptionPolicy").as_str() {
        errors.one_of(&path.child("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }
    // Kubernetes looks at it as at a container's limits.
    resources::overhead(get(spec, "overhead"), &path.child("overhead"), errors);
}

fn host_aliases(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        let (path, ip) = (path.index(index), text(alias, "ip"));
        errors.invalid_each(&path.child("ip"), ip, names::ip(ip));
        let hostnames = path.child("hostnames");
        for (index, name) in list(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            errors.invalid_each(&hostnames.index(index), name, names::dns1123_subdomain(name));
        }
    }
}

/// Rules that hold for pods and not for templates.
pub(crate) fn pod_only(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if text(spec, "serviceAccountName").is_empty() {
        let volumes = path.child("volumes");
        for (index, volume) in list(spec, "volumes").iter().enumerate() {
            let path = volumes.index(index);
            let path = path.child("projected");
            let path = path.child("sources");
            for (index, source) in list(get(volume, "projected"), "sources").iter().enumerate() {
                if has(source, "serviceAccountToken") {
                    let detail = "must not be specified when serviceAccountName is not set";
                    errors.forbidden(&path.index(index).child("serviceAccountToken"), detail);
                }
            }
        }
    }
    for kind in ["containers", "initContainers"] {
        let path = path.child(kind);
        for (index, one) in list(spec, kind).iter().enumerate() {
            container::image_has_no_space(one, &path.index(index), errors);
        }
    }
}
