//! What may change in a pod: nearly nothing in its spec, nothing backwards in its status.

use std::collections::BTreeSet;

use reeve_api::names;
use serde_json::{Value, json};

use super::{META, copy_nested};
use crate::errors::Errors;
use crate::json::{copy_field, get, has, int, items_mut, list, set, text};
use crate::path::Path;
use crate::{pod, shown};

const CHANGEABLE: &str = "pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Rules for metadata and spec that hold for new and for changed pods.
pub(super) fn whole(object: &Value, errors: &mut Errors) {
    let (meta, spec, path) = (get(object, "metadata"), get(object, "spec"), Path::of("spec"));
    META.create(object, errors);
    pod::annotation_rules(meta, spec, &Path::of("metadata").child("annotations"), errors);
    pod::spec(spec, Some(text(meta, "name")), &path, errors);
    pod::pod_only(spec, &path, errors);
}

/// Rules for a change of annotations.
fn annotation_update(object: &Value, old: &Value, errors: &mut Errors) {
    let (meta, path) = (get(object, "metadata"), Path::of("metadata"));
    let path = path.child("annotations");
    pod::annotation_changes(meta, get(old, "metadata"), &path, errors);
    pod::annotation_rules(meta, get(object, "spec"), &path, errors);
}

/// Rules for a change of `spec`.
pub(super) fn spec_update(object: &Value, old: &Value, errors: &mut Errors) {
    let (spec, was, path) = (get(object, "spec"), get(old, "spec"), Path::of("spec"));
    whole(object, errors);
    annotation_update(object, old, errors);
    for kind in ["containers", "initContainers"] {
        let path = path.child(kind);
        if list(spec, kind).len() != list(was, kind).len() {
            return errors.forbidden(&path, "pod updates may not add or remove containers");
        }
        for (index, container) in list(spec, kind).iter().enumerate() {
            let (path, image) = (path.index(index), text(container, "image"));
            if image.is_empty() {
                errors.required(&path.child("image"), "");
            }
            if image.trim() != image {
                errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
            }
        }
    }
    if !deadline(spec, was, &path.child("activeDeadlineSeconds"), errors) {
        return;
    }
    added_tolerations(spec, was, &path.child("tolerations"), errors);
    removed_gates(spec, was, &path.child("schedulingGates"), errors);
    if spec == was {
        return;
    }
    let masked = mask_changeable(spec, was, &path, errors);
    if masked != *was {
        errors.forbidden(&path, format!("{CHANGEABLE}\n{}", shown::difference("PodSpec", was, &masked)));
    }
}

/// The deadline may come, and come nearer.
fn deadline(spec: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) -> bool {
    match (int(spec, "activeDeadlineSeconds"), int(was, "activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(path, new, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(new), Some(old)) if new > old => {
            errors.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(path, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn added_tolerations(spec: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) {
    let but_seconds =
        |toleration: &'_ Value| ["key", "operator", "value", "effect"].map(|field| text(toleration, field).to_owned());
    let now: BTreeSet<_> = list(spec, "tolerations").iter().map(but_seconds).collect();
    for old in list(was, "tolerations") {
        if !now.contains(&but_seconds(old)) {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            return errors.forbidden(path, detail);
        }
    }
    pod::tolerations(spec, path, errors);
}

fn removed_gates(spec: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) {
    let before: BTreeSet<_> = list(was, "schedulingGates").iter().map(|gate| text(gate, "name")).collect();
    for (index, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        if !before.contains(name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&path.index(index).child("name"), detail);
        }
    }
}

/// The new spec with everything that may change as it was.
fn mask_changeable(spec: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) -> Value {
    let mut masked = spec.clone();
    for kind in ["containers", "initContainers"] {
        for (new, old) in items_mut(&mut masked, kind).zip(list(was, kind)) {
            copy_field(new, old, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        copy_field(&mut masked, was, field);
    }
    let grace = "terminationGracePeriodSeconds";
    if int(was, grace).is_some_and(|seconds| seconds < 0) && int(spec, grace) == Some(1) {
        copy_field(&mut masked, was, grace);
    }
    // A pod that nobody may schedule yet can still be told where to go.
    if !list(was, "schedulingGates").is_empty() {
        pod::node_selector_additions(spec, was, &path.child("nodeSelector"), errors);
        copy_field(&mut masked, was, "nodeSelector");
        let affinity_path = path.child("affinity");
        let node_affinity = |spec| get(get(spec, "affinity"), "nodeAffinity");
        let node_path = affinity_path.child("nodeAffinity");
        pod::node_affinity_additions(node_affinity(spec), node_affinity(was), &node_path, errors);
        if has(was, "affinity") {
            if !has(&masked, "affinity") {
                set(&mut masked, "affinity", json!({}));
            }
            copy_nested(&mut masked, was, "affinity", "nodeAffinity");
        } else if get(&masked, "affinity").as_object().is_some_and(|map| map.keys().all(|key| key == "nodeAffinity")) {
            copy_field(&mut masked, was, "affinity");
        }
    }
    masked
}

/// Rules for a change of `status`.
pub(super) fn status_update(object: &Value, old: &Value, errors: &mut Errors) {
    let (status, was, path) = (get(object, "status"), get(old, "status"), Path::of("status"));
    annotation_update(object, old, errors);
    conditions(status, &path.child("conditions"), errors);
    let (nominated, nominated_path) = (text(status, "nominatedNodeName"), path.child("nominatedNodeName"));
    if !nominated.is_empty() && nominated != text(was, "nominatedNodeName") {
        errors.invalid_each(&nominated_path, nominated, names::dns1123_subdomain(nominated));
        if !text(get(old, "spec"), "nodeName").is_empty() {
            errors.forbidden(&nominated_path, "may not be set on pods that are already bound to a node");
        }
    }
    observed_generation(status, &path, errors);
    errors.immutable(&path.child("qosClass"), get(status, "qosClass"), get(was, "qosClass"));
    let policy = text(get(old, "spec"), "restartPolicy");
    for (kind, policy) in
        [("containerStatuses", policy), ("initContainerStatuses", policy), ("ephemeralContainerStatuses", "Never")]
    {
        transitions(object, old, kind, policy, &path.child(kind), errors);
    }
    addresses(status, "podIPs", &path.child("podIPs"), errors);
    addresses(status, "hostIPs", &path.child("hostIPs"), errors);
}

fn conditions(status: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, condition) in list(status, "conditions").iter().enumerate() {
        let (path, kind) = (path.index(index), text(condition, "type"));
        observed_generation(condition, &path, errors);
        if !["PodScheduled", "Ready", "Initialized"].contains(&kind) {
            errors.invalid_each(&path.child("Type"), kind, names::qualified_name(kind));
        }
    }
}

fn observed_generation(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(generation) = int(holder, "observedGeneration").filter(|generation| *generation < 0) {
        errors.invalid(&path.child("observedGeneration"), generation, "must be a non-negative integer");
    }
}

/// A container that has ended for good does not come back.
fn transitions(object: &Value, old: &Value, kind: &str, policy: &str, path: &Path<'_>, errors: &mut Errors) {
    if policy == "Always" {
        return;
    }
    let (new, was) = (list(get(object, "status"), kind), list(get(old, "status"), kind));
    let is_back = |after: &&Value| !has(get(after, "state"), "terminated");
    let back: BTreeSet<_> = new.iter().filter(is_back).map(|after| text(after, "name")).collect();
    let spec = get(old, "spec");
    let all = list(spec, "containers").iter().chain(list(spec, "initContainers"));
    let restarted: BTreeSet<_> = all.filter(|one| restarts_itself(one)).map(|one| text(one, "name")).collect();
    for (index, before) in was.iter().enumerate() {
        let name = text(before, "name");
        let ended = get(get(before, "state"), "terminated");
        let may_restart = int(ended, "exitCode") != Some(0) && policy == "OnFailure";
        if ended.is_null() || may_restart || restarted.contains(name) {
            continue;
        }
        if back.contains(name) {
            let detail = "may not be transitioned to non-terminated state";
            errors.forbidden(&path.index(index).child("state"), detail);
        }
    }
}

/// Whether the container says itself that it is started again, whatever the pod says.
fn restarts_itself(container: &Value) -> bool {
    matches!(text(container, "restartPolicy"), "Always" | "OnFailure") || has(container, "restartPolicyRules")
}

fn addresses(status: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    let ips: Vec<_> = list(status, field).iter().map(|entry| text(entry, "ip")).collect();
    if field == "hostIPs" && ips.first().is_some_and(|first| *first != text(status, "hostIP")) {
        errors.invalid(&path.index(0).child("ip"), ips[0], "must be equal to `hostIP`");
    }
    for (index, ip) in ips.iter().enumerate() {
        errors.invalid_each(&path.index(index), ip, names::ip(ip));
    }
    let sixes = ips.iter().filter(|ip| ip.contains(':')).count();
    if ips.len() > 2 || sixes > 1 || ips.len() - sixes > 1 {
        let shown: Vec<_> = ips.iter().map(|ip| json!({"IP": ip})).collect();
        errors.invalid(path, shown, "may specify no more than one IP for each IP family");
    }
}
