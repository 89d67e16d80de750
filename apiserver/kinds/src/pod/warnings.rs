//! What is allowed in a pod spec but probably not meant.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use reeve_api::names;
use reeve_api::quantity::Quantity;

use super::defaults::CONTAINER_LISTS;
use crate::json::{at, entries, get, int, list, text, text_at};
use crate::path::Path;

/// Labels of nodes that have newer names.
const OLD_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
];

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

/// The warnings about a controller of pods: its name and its template.
pub(crate) fn controller_warnings(object: &Value) -> Vec<String> {
    let path = Path::of("spec");
    let path = path.child("template");
    let spec = at(object, &["spec", "template", "spec"]);
    let name = name_warning(object, "Pod names and hostnames");
    name.into_iter().chain(spec_warnings(spec, &path.child("spec"))).collect()
}

/// The warnings about a pod spec at `path`.
pub(crate) fn spec_warnings(spec: &Value, path: &Path<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let selector = path.child("nodeSelector");
    for (label, advice) in OLD_NODE_LABELS {
        if get(spec, "nodeSelector").get(*label).is_some() {
            warnings.push(format!("{}: {advice}", selector.key(label)));
        }
    }
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        warnings.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            path.child("terminationGracePeriodSeconds")
        ));
    }
    let secrets = path.child("imagePullSecrets");
    for (index, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            warnings.push(format!("{}: invalid empty name \"\"", secrets.index(index)));
        }
    }
    for kind in CONTAINER_LISTS {
        let path = path.child(kind);
        for (index, container) in list(spec, kind).iter().enumerate() {
            container_warnings(container, &path.index(index), &mut warnings);
        }
    }
    warnings
}

fn container_warnings(container: &Value, path: &Path<'_>, warnings: &mut Vec<String>) {
    let resources = path.child("resources");
    for side in ["limits", "requests"] {
        let path = resources.child(side);
        for (name, amount) in entries(get(container, "resources"), side) {
            let Ok(quantity) = Quantity::from_value(amount) else { continue };
            if ["memory", "ephemeral-storage"].contains(&name) && !quantity.is_whole() {
                let path = path.key(name);
                warnings.push(format!("{path}: fractional byte value \"{quantity}\" is invalid, must be an integer"));
            }
        }
    }
    let (env, mut seen) = (path.child("env"), BTreeSet::new());
    for (index, variable) in list(container, "env").iter().enumerate() {
        let name = text(variable, "name");
        // A variable that builds on the one before it is meant.
        if !seen.insert(name) && !text(variable, "value").contains(&format!("$({name})")) {
            let path = env.index(index);
            warnings.push(format!(
                "{path}: hides previous definition of \"{name}\", which may be dropped when using apply"
            ));
        }
    }
    let (ports, mut seen) = (path.child("ports"), BTreeMap::new());
    for (index, port) in list(container, "ports").iter().enumerate() {
        let key = (int(port, "containerPort"), text(port, "protocol"), int(port, "hostPort"), text(port, "hostIP"));
        if let Some(first) = seen.insert(key, index) {
            let (path, first) = (ports.index(index), ports.index(first));
            warnings.push(format!("{path}: duplicate port definition with {first}"));
        }
    }
}
