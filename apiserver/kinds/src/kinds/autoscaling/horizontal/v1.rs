//! HorizontalPodAutoscaler in autoscaling/v1: the CPU is all it has fields for, the rest stands in annotations.
//!
//! Everything is asked of the kind in autoscaling/v2; here is how the one form becomes the other.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler;
use serde_json::{Map, Value, json};

use super::{Autoscalers, metrics, table};
use crate::field::FieldError;
use crate::json::{copy_field, get, has, list, object_mut, remove, set, text};
use crate::kind::{Kind, Names, Part, StoredAs};
use crate::kinds::wiring;
use crate::shown;

const NAMES: Names = Names { version: "v1", ..super::NAMES };

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Annotations that are made of fields; the last two are of former versions.
const MADE: [&str; 6] = [
    METRICS,
    CURRENT_METRICS,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// The kind in autoscaling/v1.
pub(in crate::kinds::autoscaling) struct AutoscalersV1;

/// Does to an object of v1 what is written for v2.
fn through(object: &mut Value, change: impl FnOnce(&mut Value)) {
    up(object);
    change(object);
    down(object);
}

fn as_v2(object: &Value) -> Value {
    let mut object = object.clone();
    up(&mut object);
    object
}

impl Kind for AutoscalersV1 {
    wiring!(HorizontalPodAutoscaler, NAMES, table::COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn stored_as(&self) -> Option<StoredAs> {
        Some(StoredAs { group: NAMES.group, plural: NAMES.plural })
    }

    fn from_stored(&self, object: &mut Value) {
        down(object);
    }

    fn to_stored(&self, object: &mut Value) {
        up(object);
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        through(object, |object| Autoscalers.default(object));
    }

    fn prepare_create(&self, object: &mut Value) {
        through(object, |object| Autoscalers.prepare_create(object));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        Autoscalers.validate_create(&as_v2(object))
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        through(object, |object| Autoscalers.prepare_update(part, object, &as_v2(old)));
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        Autoscalers.validate_update(part, &as_v2(object), &as_v2(old))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        table::row(&as_v2(object), now)
    }
}

/// From v2 to v1.
fn down(object: &mut Value) {
    let (spec, status) = (get(object, "spec").clone(), get(object, "status").clone());
    set(object, "apiVersion", "autoscaling/v1");
    set(object, "spec", down_spec(&spec));
    set(object, "status", down_status(&status));
    let notes = object_mut(object_mut(object, "metadata"), "annotations");
    for made in MADE {
        remove(notes, made);
    }
    let others: Vec<_> = list(&spec, "metrics").iter().filter(|metric| !metrics::is_cpu_utilization(metric)).collect();
    if !others.is_empty() {
        set(notes, METRICS, metrics::specs_text(others.into_iter()));
    }
    let current = list(&status, "currentMetrics");
    if !current.is_empty() {
        set(notes, CURRENT_METRICS, metrics::statuses_text(current.iter()));
    }
    if has(&spec, "behavior") {
        set(notes, BEHAVIOR, shown::internal("HorizontalPodAutoscalerBehavior", get(&spec, "behavior")));
    }
    let conditions = list(&status, "conditions");
    if !conditions.is_empty() {
        let texts: Vec<_> = conditions.iter().map(condition_text).collect();
        set(notes, CONDITIONS, format!("[{}]", texts.join(",")));
    }
    if notes.as_object().is_some_and(Map::is_empty) {
        remove(object_mut(object, "metadata"), "annotations");
    }
}

fn down_spec(spec: &Value) -> Value {
    let mut converted = json!({});
    for field in ["scaleTargetRef", "minReplicas", "maxReplicas"] {
        copy_field(&mut converted, spec, field);
    }
    let cpu = list(spec, "metrics").iter().find(|metric| metrics::is_cpu_utilization(metric));
    if let Some(cpu) = cpu {
        let percent = get(get(get(cpu, "resource"), "target"), "averageUtilization");
        set(&mut converted, "targetCPUUtilizationPercentage", percent.clone());
    }
    converted
}

fn down_status(status: &Value) -> Value {
    let mut converted = json!({"currentReplicas": 0, "desiredReplicas": 0});
    for field in ["observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas"] {
        if has(status, field) {
            copy_field(&mut converted, status, field);
        }
    }
    if let Some(percent) = metrics::cpu_used(status) {
        set(&mut converted, "currentCPUUtilizationPercentage", percent);
    }
    converted
}

fn condition_text(condition: &Value) -> String {
    let of = |field: &'static str| (field, Value::from(text(condition, field)).to_string());
    let mut fields = vec![of("type"), of("status")];
    fields.push(("lastTransitionTime", get(condition, "lastTransitionTime").to_string()));
    fields.extend(["reason", "message"].into_iter().filter(|field| !text(condition, field).is_empty()).map(of));
    shown::object(&fields)
}

/// From v1 to v2.
fn up(object: &mut Value) {
    let (spec, status) = (get(object, "spec").clone(), get(object, "status").clone());
    let notes = get(get(object, "metadata"), "annotations").clone();
    let note = |key: &str| get(&notes, key).as_str();
    set(object, "apiVersion", "autoscaling/v2");
    let mut new_spec = json!({});
    for field in ["scaleTargetRef", "minReplicas", "maxReplicas"] {
        copy_field(&mut new_spec, &spec, field);
    }
    let mut all = note(METRICS).and_then(metrics::specs).unwrap_or_default();
    let percent = get(&spec, "targetCPUUtilizationPercentage").as_i64();
    if let Some(percent) = percent.or(all.is_empty().then_some(80)) {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    set(&mut new_spec, "metrics", all);
    if let Some(behavior) = note(BEHAVIOR).and_then(behavior) {
        set(&mut new_spec, "behavior", behavior);
    }
    set(object, "spec", new_spec);
    set(object, "status", up_status(&status, note(CURRENT_METRICS), note(CONDITIONS)));
    let meta = object_mut(object, "metadata");
    if has(meta, "annotations") {
        let notes = object_mut(meta, "annotations");
        for made in MADE {
            remove(notes, made);
        }
        if notes.as_object().is_some_and(Map::is_empty) {
            remove(meta, "annotations");
        }
    }
}

fn up_status(status: &Value, current: Option<&str>, conditions: Option<&str>) -> Value {
    let mut converted = json!({"currentMetrics": null, "desiredReplicas": 0});
    for field in ["observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas"] {
        let is_zero = field == "currentReplicas" && get(status, field).as_i64() == Some(0);
        if has(status, field) && !is_zero {
            copy_field(&mut converted, status, field);
        }
    }
    if let Some(percent) = get(status, "currentCPUUtilizationPercentage").as_i64() {
        let cpu = json!({"name": "cpu", "current": {"averageUtilization": percent}});
        set(&mut converted, "currentMetrics", json!([{"type": "Resource", "resource": cpu}]));
    }
    // What stands in the annotation says more.
    if let Some(current) = current.and_then(metrics::statuses) {
        set(&mut converted, "currentMetrics", current);
    }
    if let Some(Ok(Value::Array(conditions))) = conditions.map(serde_json::from_str) {
        set(&mut converted, "conditions", conditions);
    }
    converted
}

/// The behavior in the annotation: its fields are named as in Go, in any case.
fn behavior(annotation: &str) -> Option<Value> {
    let Ok(Value::Object(behavior)) = serde_json::from_str(annotation) else { return None };
    let behavior = renamed(Value::Object(behavior));
    behavior.as_object().is_some_and(|map| !map.is_empty()).then_some(behavior)
}

fn renamed(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let known = map.into_iter().filter(|(_, value)| !value.is_null());
            known.map(|(name, value)| (json_name(&name), renamed(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(renamed).collect::<Vec<_>>().into(),
        other => other,
    }
}

fn json_name(name: &str) -> String {
    const NAMES: [&str; 9] = [
        "scaleUp",
        "scaleDown",
        "stabilizationWindowSeconds",
        "selectPolicy",
        "policies",
        "type",
        "value",
        "periodSeconds",
        "tolerance",
    ];
    let known = NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    known.map_or_else(|| name.to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use crate::kind::{Kind as _, Part};
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: web, namespace: n}, spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, maxReplicas: 5}}";

    #[test]
    fn the_cpu_counts_as_in_v2_and_is_shown_in_its_field() {
        check_created(
            PLAIN,
            "{apiVersion: autoscaling/v1, kind: HorizontalPodAutoscaler, metadata: {name: web, namespace: n}, spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, minReplicas: 1, maxReplicas: 5, targetCPUUtilizationPercentage: 80}, status: {currentReplicas: 0, desiredReplicas: 0}}",
        );
        check_invalid(
            &PLAIN.replace("maxReplicas: 5", "maxReplicas: 0"),
            &[
                "spec.maxReplicas: Required value: must be set and greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ],
        );
    }

    #[test]
    fn what_v1_has_no_field_for_stands_in_annotations_and_comes_back() {
        let v2 = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web", "namespace": "n", "annotations": {"a": "b"}},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 1, "maxReplicas": 5,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                        "metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {"scaleDown": {"selectPolicy": "Max", "stabilizationWindowSeconds": 60, "policies": [
                    {"type": "Percent", "value": 100, "periodSeconds": 15}]}},
            },
            "status": {
                "currentReplicas": 2, "desiredReplicas": 3,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "100m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True", "lastTransitionTime": null, "reason": "R"}],
            },
        });
        let mut v1 = v2.clone();
        super::AutoscalersV1.from_stored(&mut v1);
        let expected = json!({
            "a": "b",
            "autoscaling.alpha.kubernetes.io/metrics": "[{\"type\":\"Pods\",\"pods\":{\"metricName\":\"hits\",\"targetAverageValue\":\"10\"}},{\"type\":\"Object\",\"object\":{\"target\":{\"kind\":\"Service\",\"name\":\"s\"},\"metricName\":\"m\",\"targetValue\":\"0\",\"averageValue\":\"3\"}}]",
            "autoscaling.alpha.kubernetes.io/current-metrics": "[{\"type\":\"Resource\",\"resource\":{\"name\":\"cpu\",\"currentAverageUtilization\":40,\"currentAverageValue\":\"100m\"}}]",
            "autoscaling.alpha.kubernetes.io/behavior": "{\"ScaleUp\":null,\"ScaleDown\":{\"StabilizationWindowSeconds\":60,\"SelectPolicy\":\"Max\",\"Policies\":[{\"Type\":\"Percent\",\"Value\":100,\"PeriodSeconds\":15}],\"Tolerance\":null}}",
            "autoscaling.alpha.kubernetes.io/conditions": "[{\"type\":\"AbleToScale\",\"status\":\"True\",\"lastTransitionTime\":null,\"reason\":\"R\"}]",
        });
        assert_eq!(v1["metadata"]["annotations"], expected);
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(
            v1["status"],
            json!({"currentReplicas": 2, "desiredReplicas": 3, "currentCPUUtilizationPercentage": 40})
        );
        super::AutoscalersV1.to_stored(&mut v1);
        assert_eq!(v1, v2);
    }

    #[test]
    fn a_change_in_v1_keeps_the_status() {
        let (new, errors) = updated(Part::Main, PLAIN, |object| {
            object["spec"]["targetCPUUtilizationPercentage"] = json!(50);
            object["status"]["currentReplicas"] = json!(7);
        });
        assert_eq!((errors, &new["spec"]["targetCPUUtilizationPercentage"]), (vec![], &json!(50)));
        assert_eq!(new["status"]["currentReplicas"], 0);
    }
}
