//! HorizontalPodAutoscaler: as many pods as the load asks for. Stored as autoscaling/v2.

mod metrics;
mod rules;
mod table;
mod v1;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use reeve_api::names;
use serde_json::{Value, json};

pub(super) use v1::AutoscalersV1;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{copy_field, has, list, object_mut, set, set_absent, set_default, some_mut};
use crate::kind::{Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;

const NAMES: Names = Names {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short: &["hpa"],
    categories: &["all"],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

/// The kind in autoscaling/v2.
pub(super) struct Autoscalers;

impl Kind for Autoscalers {
    wiring!(HorizontalPodAutoscaler, NAMES, table::COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let spec = object_mut(object, "spec");
        set_default(spec, "minReplicas", 1);
        if list(spec, "metrics").is_empty() {
            set(spec, "metrics", vec![default_metric()]);
        }
        if let Some(behavior) = some_mut(spec, "behavior") {
            default_behavior(behavior);
        }
        let status = object_mut(object, "status");
        set_default(status, "desiredReplicas", 0);
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"desiredReplicas": 0, "currentMetrics": null}));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        rules::create(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        copy_field(object, old, if part == Part::Main { "status" } else { "spec" });
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        match part {
            Part::Main => rules::update(object, old, &mut errors),
            _ => rules::status(object, old, &mut errors),
        }
        errors.into_vec()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::row(object, now)
    }
}

/// What is looked at when nothing is said: the CPU, at 80 %.
fn default_metric() -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}})
}

/// Both directions have rules as soon as one has.
fn default_behavior(behavior: &mut Value) {
    let up = object_mut(behavior, "scaleUp");
    set_default(up, "stabilizationWindowSeconds", 0);
    set_absent(up, "selectPolicy", "Max");
    if !has(up, "policies") {
        let policies = json!([
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ]);
        set(up, "policies", policies);
    }
    let down = object_mut(behavior, "scaleDown");
    set_absent(down, "selectPolicy", "Max");
    if !has(down, "policies") {
        set(down, "policies", json!([{"type": "Percent", "value": 100, "periodSeconds": 15}]));
    }
}
