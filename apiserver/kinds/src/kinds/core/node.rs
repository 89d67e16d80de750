//! Node: a machine that runs pods.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::{FieldError, FieldErrorKind};
use crate::json::{copy_field, entries, flag, get, has, list, object_mut, remove, set, set_default, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::pod::resources;
use crate::{age, shown, table};

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short: &["no"],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const ROLE_LABEL: &str = "node-role.kubernetes.io/";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Fields of `status.nodeInfo` that are always there.
const INFO: &[&str] = &[
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
];

const ADDRESSES_TEXT: &str = "List of addresses reachable to the node. Queried from cloud provider, if available. More info: https://kubernetes.io/docs/reference/node/node-status/#addresses Note: This field is declared as mergeable, but the merge key is not sufficiently unique, which can cause data corruption when it is merged. Callers should instead use a full-replacement patch. See https://pr.k8s.io/79391 for an example. Consumers should assume that addresses can change during the lifetime of a Node. However, there are some exceptions where this may not be possible, such as Pods that inherit a Node's address in its own status or consumers of the downward API (status.hostIP).";

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Status", "The status of the node"),
    table::column("Roles", "The roles of the node"),
    table::AGE,
    table::column("Version", "Kubelet Version reported by the node."),
    table::wide("Internal-IP", ADDRESSES_TEXT),
    table::wide("External-IP", ADDRESSES_TEXT),
    table::wide("OS-Image", "OS Image reported by the node from /etc/os-release (e.g. Debian GNU/Linux 7 (wheezy))."),
    table::wide("Kernel-Version", "Kernel Version reported by the node from 'uname -r' (e.g. 3.16.0-0.bpo.4-amd64)."),
    table::wide(
        "Container-Runtime",
        "ContainerRuntime Version reported by the node through runtime remote API (e.g. containerd://1.4.2).",
    ),
];

/// Longest name of a feature that a node declares.
const FEATURE_NAME_MAX: usize = 253;

/// The kind.
pub(super) struct Nodes;

impl Kind for Nodes {
    wiring!(Node, NAMES, COLUMNS);

    fn parts(&self) -> &'static [Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        pod_ranges(object_mut(object, "spec"));
        let status = object_mut(object, "status");
        if !has(status, "allocatable") && has(status, "capacity") {
            let capacity = get(status, "capacity").clone();
            set(status, "allocatable", capacity);
        }
        let kubelet = object_mut(object_mut(status, "daemonEndpoints"), "kubeletEndpoint");
        set_default(kubelet, "Port", 0);
        let info = object_mut(status, "nodeInfo");
        for field in INFO {
            set_default(info, field, "");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_config_source(object, &Value::Null);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        rules(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Main => {
                copy_field(object, old, "status");
                drop_config_source(object, old);
            }
            _ => {
                copy_field(object, old, "spec");
                if !has(get(old, "status"), "config") {
                    remove(object_mut(object, "status"), "config");
                }
            }
        }
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        if part == Part::Main {
            META.create(object, &mut errors);
            rules(object, &mut errors);
        }
        META.update(object, old, &mut errors);
        amounts(object, &mut errors);
        addresses(object, &mut errors);
        if part == Part::Main {
            set_once(object, old, &mut errors);
        }
        taints(get(object, "spec"), &Path::of("metadata").child("taints"), &mut errors);
        if part == Part::Main && text_at(object, &["spec", "externalID"]) != text_at(old, &["spec", "externalID"]) {
            errors.forbidden(&Path::of("spec").child("externalID"), "may not be updated");
        }
        errors.into_vec()
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        (field == "spec.unschedulable").then(|| flag(get(object, "spec"), "unschedulable").to_string())
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported: {field}"))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = |field| match text_at(object, &["status", "nodeInfo", field]) {
            "" => age::UNKNOWN.to_owned(),
            text => text.to_owned(),
        };
        vec![
            table::name(object),
            status_of(object).into(),
            roles(object),
            age::of(object, now).into(),
            text_at(object, &["status", "nodeInfo", "kubeletVersion"]).into(),
            address(object, "InternalIP"),
            address(object, "ExternalIP"),
            info("osImage").into(),
            kernel(object).into(),
            info("containerRuntimeVersion").into(),
        ]
    }
}

/// The old field always shows the first entry of the new one.
fn pod_ranges(spec: &mut Value) {
    let old = text(spec, "podCIDR").to_owned();
    match list(spec, "podCIDRs").first().cloned() {
        Some(first) if old.is_empty() => set(spec, "podCIDR", first),
        Some(first) if first == old => {}
        _ if !old.is_empty() => set(spec, "podCIDRs", vec![old]),
        _ => {}
    }
}

/// The kernel's version and, where the node says it, the machine's architecture.
fn kernel(object: &Value) -> String {
    let info = |field| text_at(object, &["status", "nodeInfo", field]);
    let version = Some(info("kernelVersion")).filter(|version| !version.is_empty()).unwrap_or(age::UNKNOWN);
    match info("architecture") {
        "" => version.to_owned(),
        machine => format!("{version} ({machine})"),
    }
}

fn status_of(object: &Value) -> String {
    let conditions = list(get(object, "status"), "conditions");
    let ready = conditions.iter().find(|condition| text(condition, "type") == "Ready");
    let mut status = match ready.map(|condition| text(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(get(object, "spec"), "unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(object: &Value) -> Value {
    let mut roles: Vec<_> = entries(get(object, "metadata"), "labels")
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_LABEL) {
            Some(role) if !role.is_empty() => Some(role),
            _ if key == "kubernetes.io/role" => value.as_str().filter(|role| !role.is_empty()),
            _ => None,
        })
        .collect();
    roles.sort_unstable();
    roles.dedup();
    table::or_none(&roles.join(","))
}

fn address(object: &Value, kind: &str) -> Value {
    let all = list(get(object, "status"), "addresses");
    table::or_none(all.iter().find(|one| text(one, "type") == kind).map_or("", |one| text(one, "address")))
}

/// Rules that a node keeps whenever its main resource is written.
fn rules(object: &Value, errors: &mut Errors) {
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    // The path is Kubernetes' own.
    taints(spec, &Path::of("metadata").child("taints"), errors);
    amounts(object, errors);
    let (all, ranges) = (list(spec, "podCIDRs"), path.child("podCIDRs"));
    for (index, range) in all.iter().enumerate() {
        let range = range.as_str().unwrap_or_default();
        errors.invalid_each(&ranges.index(index), range, names::cidr(range));
    }
    let sixes = all.iter().filter_map(Value::as_str).filter(|range| range.contains(':')).count();
    if all.len() > 2 || (all.len() == 2 && sixes != 1) {
        errors.invalid(&ranges, all.to_vec(), "may specify no more than one CIDR for each IP family");
    }
}

fn amounts(object: &Value, errors: &mut Errors) {
    let status = Path::of("status");
    for kind in ["capacity", "allocatable"] {
        let path = status.child(kind);
        for (name, amount) in entries(get(object, "status"), kind) {
            resources::quantity(name, amount, &path.child(name), errors);
        }
    }
    declared_features(list(get(object, "status"), "declaredFeatures"), &status.child("declaredFeatures"), errors);
}

/// What a node says it can do: names in order, each once.
fn declared_features(features: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let names: Vec<&str> = features.iter().map(|name| name.as_str().unwrap_or_default()).collect();
    for (index, name) in names.iter().enumerate() {
        if name.len() > FEATURE_NAME_MAX {
            let detail = format!("invalid feature name {name:?}: must be no more than {FEATURE_NAME_MAX} characters");
            errors.invalid(&path.index(index), *name, detail);
        } else if !is_feature_name(name) {
            let detail = format!(
                "invalid feature name {name:?}: must start with an UpperCamelCase segment, with subsequent segments \
                 separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric \
                 characters and slashes"
            );
            errors.invalid(&path.index(index), *name, detail);
        }
        match names.get(index + 1) {
            Some(next) if next == name => errors.duplicate(&path.index(index + 1), *next),
            Some(next) if next < name => {
                errors.invalid(&path.index(index + 1), *next, "list must be sorted alphabetically");
            }
            _ => {}
        }
    }
}

fn is_feature_name(name: &str) -> bool {
    let is_word = |part: &str| {
        part.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    name.starts_with(|letter: char| letter.is_ascii_uppercase()) && name.split('/').all(is_word)
}

fn addresses(object: &Value, errors: &mut Errors) {
    let path = Path::of("status");
    let path = path.child("addresses");
    let mut seen = BTreeSet::new();
    for (index, address) in list(get(object, "status"), "addresses").iter().enumerate() {
        let (kind, address) = (text(address, "type"), text(address, "address"));
        if !seen.insert((kind, address)) {
            let shown = [("Type", Value::from(kind).to_string()), ("Address", Value::from(address).to_string())];
            errors.add_text(FieldErrorKind::Duplicate, &path.index(index), shown::object(&shown), "");
        }
    }
}

fn taints(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, taint) in list(spec, "taints").iter().enumerate() {
        let path = path.index(index);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        meta::label_name(key, &path.child("key"), errors);
        let complaints = names::label_value(value);
        if !complaints.is_empty() {
            errors.invalid(&path.child("value"), value, complaints.join(";"));
        }
        errors.one_of(&path.child("effect"), effect, EFFECTS);
        if !seen.insert((key, effect)) {
            let quoted = |text: &str| Value::from(text).to_string();
            let time = get(taint, "timeAdded").to_string();
            let shown =
                [("Key", quoted(key)), ("Value", quoted(value)), ("Effect", quoted(effect)), ("TimeAdded", time)];
            let detail = "taints must be unique by key and effect pair";
            errors.add_text(FieldErrorKind::Duplicate, &path, shown::object(&shown), detail);
        }
    }
}

/// What may be said once and then stays.
/// A node no longer gets its settings from the API; where it once did, that may stand.
fn drop_config_source(object: &mut Value, old: &Value) {
    if !has(get(old, "spec"), "configSource") {
        remove(object_mut(object, "spec"), "configSource");
    }
}

fn set_once(object: &Value, old: &Value, errors: &mut Errors) {
    let (spec, was, path) = (get(object, "spec"), get(old, "spec"), Path::of("spec"));
    for (field, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        if has(was, field) && get(spec, field) != get(was, field) {
            let detail = format!("node updates may not change {name} except from \"\" to valid");
            errors.forbidden(&path.child(field), detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {node-role.kubernetes.io/control-plane: ''}}, spec: {unschedulable: true, podCIDRs: [10.1.0.0/24], taints: [{key: a, effect: NoSchedule}]}, status: {capacity: {cpu: 2, memory: 4Gi}, addresses: [{type: InternalIP, address: 10.0.0.1}], conditions: [{type: Ready, status: 'True'}], nodeInfo: {kubeletVersion: v1.36.0, osImage: Debian}}}";

    #[test]
    fn declared_features_have_names_stand_in_order_and_once() {
        let declare = |features: &str| PLAIN.replace("status: {", &format!("status: {{declaredFeatures: {features}, "));
        check_valid(&declare("[A, A/b, B]"));
        let said = "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes";
        check_invalid(
            &declare("[b, B, B, A/1]"),
            &[
                &format!("status.declaredFeatures[0]: Invalid value: \"b\": invalid feature name \"b\": {said}"),
                "status.declaredFeatures[1]: Invalid value: \"B\": list must be sorted alphabetically",
                "status.declaredFeatures[2]: Duplicate value: \"B\"",
                "status.declaredFeatures[3]: Invalid value: \"A/1\": list must be sorted alphabetically",
                &format!("status.declaredFeatures[3]: Invalid value: \"A/1\": invalid feature name \"A/1\": {said}"),
            ],
        );
    }

    #[test]
    fn what_is_there_can_be_given_away_unless_the_node_says_otherwise() {
        let node = created(PLAIN);
        assert_eq!(node["status"]["allocatable"], json!({"cpu": "2", "memory": "4Gi"}));
        assert_eq!(node["status"]["nodeInfo"]["bootID"], "");
        check_valid(PLAIN);
    }

    #[test]
    fn taints_are_checked() {
        check_invalid(
            &PLAIN.replace("effect: NoSchedule}", "effect: NoSchedule}, {key: a, effect: NoSchedule}, {key: b}"),
            &[
                "metadata.taints[1]: Duplicate value: {\"Key\":\"a\",\"Value\":\"\",\"Effect\":\"NoSchedule\",\"TimeAdded\":null}: taints must be unique by key and effect pair",
                "metadata.taints[2].effect: Required value",
            ],
        );
    }

    #[test]
    fn the_pod_range_is_given_once() {
        check_update(
            PLAIN,
            |new| new["spec"] = json!({"podCIDR": "10.2.0.0/24", "podCIDRs": ["10.2.0.0/24"]}),
            &["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
        );
        let (new, errors) = updated(Part::Status, PLAIN, |new| {
            new["spec"]["unschedulable"] = json!(false);
            new["status"]["capacity"]["cpu"] = json!("4");
        });
        assert_eq!(
            (errors.len(), &new["spec"]["unschedulable"], &new["status"]["capacity"]["cpu"]),
            (0, &json!(true), &json!("4"))
        );
    }

    #[test]
    fn a_row_shows_what_kubectl_shows() {
        assert_eq!(
            row(PLAIN),
            "n1 | Ready,SchedulingDisabled | control-plane | <unknown> | v1.36.0 | 10.0.0.1 | <none> | Debian | <unknown> | <unknown>"
        );
    }
}
