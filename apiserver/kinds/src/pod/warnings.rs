//! What is allowed in a pod spec but probably not meant.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use reeve_api::names;
use reeve_api::quantity::Quantity;

use super::{overlaps, visit};
use crate::claim;
use crate::json::{at, entries, get, has, int, list, text, text_at};
use crate::path::Path;

/// Labels of nodes that should not be used any more.
const OLD_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    ("scheduler.alpha.kubernetes.io/preferAvoidPods", "deprecated since v1.22; use Taints and Tolerations instead"),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// Annotations that have no effect.
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// Sources of volumes that Kubernetes has given up.
const OLD_VOLUMES: &[(&str, &str, &str)] = &[
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// The warning about a name that is no DNS label although pods are called by it.
pub(crate) fn name_warning(object: &Value, used_in: &str) -> Option<String> {
    let complaints = names::dns1123_label(text_at(object, &["metadata", "name"]));
    let complaints = complaints.join(" ");
    (!complaints.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; \
             a DNS label is recommended: [{complaints}]"
        )
    })
}

/// The warnings about a controller of pods: its name, when it is new, and its template.
pub(crate) fn controller_warnings(object: &Value, is_new: bool) -> Vec<String> {
    let path = Path::of("spec");
    let template = at(object, &["spec", "template"]);
    let name = name_warning(object, "Pod names and hostnames").filter(|_| is_new);
    let rest = warnings(get(template, "metadata"), get(template, "spec"), &path.child("template"));
    name.into_iter().chain(rest).collect()
}

/// The warnings about a pod or, at `path`, a template: its annotations and its spec.
pub(crate) fn warnings(meta: &Value, spec: &Value, path: &Path<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let notes_path = path.child("metadata");
    let notes_path = notes_path.child("annotations");
    let spec_path = path.child("spec");
    node_labels(spec, &spec_path, &mut warnings);
    for (key, advice) in OLD_ANNOTATIONS.iter().filter(|(key, _)| has(get(meta, "annotations"), key)) {
        warnings.push(format!("{}: {advice}", notes_path.key(key)));
    }
    volumes(spec, &spec_path, &mut warnings);
    overlaps::warnings(spec, &mut warnings);
    named_twice(spec, "hostAliases", "ip", &spec_path, &mut warnings);
    named_twice(spec, "imagePullSecrets", "name", &spec_path, &mut warnings);
    let secrets = spec_path.child("imagePullSecrets");
    for (index, _) in list(spec, "imagePullSecrets").iter().enumerate().filter(|(_, one)| text(one, "name").is_empty())
    {
        warnings.push(format!("{}: invalid empty name \"\"", secrets.index(index).child("name")));
    }
    fractions(get(spec, "overhead"), &spec_path.child("overhead"), &mut warnings);
    if has(get(meta, "annotations"), SECCOMP_POD) && !has(get(spec, "securityContext"), "seccompProfile") {
        warnings.push(unused_seccomp(&notes_path.key(SECCOMP_POD)));
    }
    visit(spec, &spec_path, &mut |container, path| {
        let key = format!("{SECCOMP_CONTAINER}{}", text(container, "name"));
        if has(get(meta, "annotations"), &key) && !has(get(container, "securityContext"), "seccompProfile") {
            warnings.push(unused_seccomp(&notes_path.key(&key)));
        }
        let resources = path.child("resources");
        for side in ["limits", "requests"] {
            fractions(get(get(container, "resources"), side), &resources.child(side), &mut warnings);
        }
        variables(container, &path.child("env"), &mut warnings);
    });
    ports(spec, &spec_path, &mut warnings);
    port_names(spec, &spec_path, &mut warnings);
    affinity_selectors(spec, &spec_path, &mut warnings);
    addresses(spec, &spec_path, &mut warnings);
    warnings
}

fn unused_seccomp(path: &Path<'_>) -> String {
    format!("{path}: non-functional in v1.27+; use the \"seccompProfile\" field instead")
}

/// Why a label of nodes should not be used any more.
pub(crate) fn deprecated_node_label(label: &str) -> Option<&'static str> {
    OLD_NODE_LABELS.iter().find(|(own, _)| *own == label).map(|(_, advice)| *advice)
}

fn node_labels(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let selector = path.child("nodeSelector");
    for (label, _) in entries(spec, "nodeSelector") {
        if let Some(advice) = deprecated_node_label(label) {
            warnings.push(format!("{}: {advice}", selector.key(label)));
        }
    }
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    let (affinity, path_of_affinity) = (at(spec, &["affinity", "nodeAffinity"]), path.child("affinity"));
    let path_of_affinity = path_of_affinity.child("nodeAffinity");
    let terms_path = path_of_affinity.child(required);
    let terms_path = terms_path.child("nodeSelectorTerms");
    for (index, term) in list(get(affinity, required), "nodeSelectorTerms").iter().enumerate() {
        node_term(term, false, &terms_path.index(index), warnings);
    }
    let terms_path = path_of_affinity.child(preferred);
    for (index, wish) in list(affinity, preferred).iter().enumerate() {
        node_term(get(wish, "preference"), true, &terms_path.index(index).child("preference"), warnings);
    }
    let constraints = path.child("topologySpreadConstraints");
    for (index, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let (path, key) = (constraints.index(index), text(constraint, "topologyKey"));
        if let Some(advice) = deprecated_node_label(key) {
            warnings.push(format!("{}: {key} is {advice}", path.child("topologyKey")));
        }
        if !has(constraint, "labelSelector") {
            warnings.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
        }
    }
}

/// The warnings about labels in a term of a node selector; `with_values`: and about values that no label can have.
pub(crate) fn node_term(term: &Value, with_values: bool, path: &Path<'_>, warnings: &mut Vec<String>) {
    let path = path.child("matchExpressions");
    for (index, expression) in list(term, "matchExpressions").iter().enumerate() {
        let (path, key) = (path.index(index), text(expression, "key"));
        if let Some(advice) = deprecated_node_label(key) {
            warnings.push(format!("{}: {key} is {advice}", path.child("key")));
        }
        let path = path.child("values");
        for (index, value) in list(expression, "values").iter().enumerate().filter(|_| with_values) {
            let value = value.as_str().unwrap_or_default();
            for complaint in names::label_value(value) {
                warnings.push(format!("{}: {value} is invalid, {complaint}", path.index(index)));
            }
        }
    }
}

fn volumes(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let path = path.child("volumes");
    for (index, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.index(index);
        for (_, shown, fate) in OLD_VOLUMES.iter().filter(|(kind, _, _)| has(volume, kind)) {
            warnings.push(format!("{}: {fate}", path.child(shown)));
        }
        let path = path.child("ephemeral");
        let path = path.child("volumeClaimTemplate");
        let claim = at(volume, &["ephemeral", "volumeClaimTemplate", "spec"]);
        warnings.extend(claim::warnings(claim, &path.child("spec")));
    }
}

fn named_twice(spec: &Value, field: &str, name: &str, path: &Path<'_>, warnings: &mut Vec<String>) {
    let (path, mut seen) = (path.child(field), BTreeSet::new());
    for (index, one) in list(spec, field).iter().enumerate() {
        if !seen.insert(text(one, name)) {
            warnings.push(format!("{}: duplicate {name} {:?}", path.index(index).child(name), text(one, name)));
        }
    }
}

fn fractions(amounts: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"].into_iter().filter(|name| has(amounts, name)) {
        if let Some(amount) = Quantity::from_value(get(amounts, name)).ok().filter(|amount| !amount.is_whole()) {
            warnings.push(fraction(&path.key(name), amount));
        }
    }
}

fn fraction(path: &Path<'_>, amount: Quantity) -> String {
    format!("{path}: fractional byte value \"{amount}\" is invalid, must be an integer")
}

fn variables(container: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (index, variable) in list(container, "env").iter().enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        let reference = format!("$({name})");
        // A variable that builds on the one before it is meant.
        let builds_on_it = !has(variable, "valueFrom") && value != reference && value.contains(&reference);
        if !seen.insert(name) && !builds_on_it {
            let path = path.index(index);
            warnings
                .push(format!("{path}: hides previous definition of {name:?}, which may be dropped when using apply"));
        }
    }
}

fn ports(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let mut seen: BTreeMap<String, Vec<(String, i64, String)>> = BTreeMap::new();
    visit(spec, path, &mut |container, path| {
        let path = path.child("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            let number = |field| int(port, field).unwrap_or_default();
            let (host, ip, protocol) = (number("hostPort"), text(port, "hostIP"), text(port, "protocol"));
            let here = path.index(index).to_string();
            if !ip.is_empty() && host == 0 {
                let (name, port) = (text(port, "name"), number("containerPort"));
                warnings.push(format!(
                    "{here}: hostIP set without hostPort: \
                     {{Name:{name} HostPort:0 ContainerPort:{port} Protocol:{protocol} HostIP:{ip}}}"
                ));
            }
            let others = seen.entry(format!("{}/{protocol}", number("containerPort"))).or_default();
            for (other, other_host, other_ip) in others.iter() {
                if ip == other_ip && host == *other_host {
                    warnings.push(format!("{here}: duplicate port definition with {other}"));
                } else if host == 0 || *other_host == 0 {
                    warnings.push(format!("{here}: overlapping port definition with {other}"));
                } else if host == *other_host && ip.is_empty() != other_ip.is_empty() {
                    warnings.push(format!("{here}: dangerously ambiguous port definition with {other}"));
                }
            }
            others.push((here, host, ip.to_owned()));
        }
    });
}

fn port_names(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    visit(spec, path, &mut |container, path| {
        let path = path.child("ports");
        for (index, port) in list(container, "ports").iter().enumerate().filter(|(_, port)| has(port, "name")) {
            let (here, name) = (path.index(index).to_string(), text(port, "name"));
            if let Some(first) = seen.get(name) {
                warnings.push(format!(
                    "{here}: duplicate port name {name:?} with {first}, services and probes that select ports by name \
                     will use {first}"
                ));
            } else {
                seen.insert(name.to_owned(), here);
            }
        }
    });
}

fn affinity_selectors(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let path = path.child("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (affinity, path) = (get(get(spec, "affinity"), kind), path.child(kind));
        for (list_of, inner) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", ""),
            ("preferredDuringSchedulingIgnoredDuringExecution", "podAffinityTerm"),
        ] {
            let path = path.child(list_of);
            for (index, term) in list(affinity, list_of).iter().enumerate() {
                let path = path.index(index);
                let nested = path.child(inner);
                let (term, path) = if inner.is_empty() { (term, &path) } else { (get(term, inner), &nested) };
                if !has(term, "labelSelector") {
                    warnings.push(format!("{}: {NULL_SELECTOR}", path.child("labelSelector")));
                }
            }
        }
    }
}

fn addresses(spec: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let servers = path.child("dnsConfig");
    let servers = servers.child("nameservers");
    for (index, server) in list(get(spec, "dnsConfig"), "nameservers").iter().enumerate() {
        if let Some(warning) = names::ip_warning(server.as_str().unwrap_or_default()) {
            warnings.push(format!("{}: {warning}", servers.index(index)));
        }
    }
    let aliases = path.child("hostAliases");
    for (index, alias) in list(spec, "hostAliases").iter().enumerate() {
        if let Some(warning) = names::ip_warning(text(alias, "ip")) {
            warnings.push(format!("{}: {warning}", aliases.index(index).child("ip")));
        }
    }
}
