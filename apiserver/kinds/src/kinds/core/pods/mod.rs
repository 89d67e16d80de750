//! Pod: containers that live and die together on one node.

mod parts;
mod rules;
mod table;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use reeve_api::names;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{copy_field, flag, get, has, int, items_mut, list, object_mut, set, some_mut, text, text_at};
use crate::kind::{Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::pod;

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short: &["po"],
    categories: &["all"],
    namespaced: true,
};

/// The rules for a pod's metadata.
const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

/// The kind.
pub(super) struct Pods;

impl Kind for Pods {
    wiring!(Pod, NAMES, table::COLUMNS);

    fn parts(&self) -> &'static [Part] {
        &[Part::Status, Part::EphemeralContainers, Part::Resize]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        pod::default_pod(object);
        let status = object_mut(object, "status");
        pod_ips(status);
        for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
            for one in items_mut(status, list) {
                object_mut(one, "state");
                object_mut(one, "lastState");
            }
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let gated = !list(get(object, "spec"), "schedulingGates").is_empty();
        let mut status = json!({"phase": "Pending", "qosClass": pod::qos_class(get(object, "spec"))});
        if gated {
            // The moment the server took the pod.
            let now = text_at(object, &["metadata", "creationTimestamp"]).to_owned();
            let mut condition = json!({
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "lastProbeTime": null, "lastTransitionTime": null,
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            });
            if !now.is_empty() {
                set(&mut condition, "lastTransitionTime", now);
            }
            set(&mut status, "conditions", vec![condition]);
        }
        set(object, "status", status);
        meta::first_generation(object);
        pod::prepare_create(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        rules::whole(object, &mut errors);
        let (spec, path) = (get(object, "spec"), Path::of("spec"));
        if !list(spec, "ephemeralContainers").is_empty() {
            errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
        }
        if has(spec, "nodeName") && !list(spec, "schedulingGates").is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            errors.forbidden(&path.child("nodeName"), detail);
        }
        pod::annotations_match_fields(get(object, "metadata"), spec, &path, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Main => {
                copy_field(object, old, "status");
                pod::drop_disabled(object_mut(object, "spec"));
            }
            Part::EphemeralContainers => parts::keep_ephemeral(object, old),
            Part::Resize => parts::keep_resources(object, old),
            _ => {
                pod::keep_for_status(object, old);
                // The class is decided once; who does not say it means it.
                if !has(get(object, "status"), "qosClass") {
                    copy_field(object_mut(object, "status"), get(old, "status"), "qosClass");
                }
            }
        }
        meta::next_generation(object, old);
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        match part {
            Part::Main => rules::spec_update(object, old, &mut errors),
            Part::EphemeralContainers => parts::ephemeral_update(object, old, &mut errors),
            Part::Resize => parts::resize(object, old, &mut errors),
            _ => rules::status_update(object, old, &mut errors),
        }
        errors.into_vec()
    }

    /// Pods are rarely changed by people.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let name = pod::name_warning(object, "the Pod's hostname");
        name.into_iter().chain(pod::warnings(get(object, "metadata"), get(object, "spec"), &Path::ROOT)).collect()
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        let (spec, status) = (get(object, "spec"), get(object, "status"));
        let value = match field {
            "spec.host" => text(spec, "nodeName"),
            "spec.nodeName" | "spec.restartPolicy" | "spec.schedulerName" | "spec.serviceAccountName" => {
                text(spec, field.trim_start_matches("spec."))
            }
            "spec.hostNetwork" => return Some(flag(spec, "hostNetwork").to_string()),
            "status.phase" | "status.nominatedNodeName" | "status.podIP" => {
                text(status, field.trim_start_matches("status."))
            }
            "status.podIPs" => {
                let ips: Vec<_> = list(status, "podIPs").iter().map(|ip| text(ip, "ip")).collect();
                return Some(ips.join(","));
            }
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported: {field}"))
    }

    fn deletion_grace(&self, object: &Value, requested: Option<i64>) -> Option<i64> {
        let spec = get(object, "spec");
        let nobody_runs_it = text(spec, "nodeName").is_empty();
        let is_over = matches!(text_at(object, &["status", "phase"]), "Failed" | "Succeeded");
        if nobody_runs_it || is_over {
            return Some(0);
        }
        let seconds = requested.or_else(|| int(spec, "terminationGracePeriodSeconds")).unwrap_or_default();
        Some(if seconds < 0 { 1 } else { seconds })
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::row(object, now)
    }
}

/// The old field always shows the first entry of the new one.
fn pod_ips(status: &mut Value) {
    let old = text(status, "podIP").to_owned();
    match list(status, "podIPs").first().map(|first| text(first, "ip").to_owned()) {
        Some(first) if old.is_empty() => set(status, "podIP", first),
        Some(first) if first == old => {}
        _ if !old.is_empty() => set(status, "podIPs", vec![json!({"ip": old})]),
        _ => {}
    }
}

/// For the rules: makes a part of the new spec what it is in the old one.
fn copy_nested(new: &mut Value, old: &Value, parent: &str, field: &str) {
    if let Some(inner) = some_mut(new, parent) {
        copy_field(inner, get(old, parent), field);
    }
}

#[cfg(test)]
mod part_tests;
#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod warning_tests;
