//! Rules for a HorizontalPodAutoscaler, in the form of autoscaling/v2.

use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::META;
use crate::errors::Errors;
use crate::json::{get, has, int, list, text};
use crate::meta;
use crate::path::Path;
use crate::pod::resources;

/// Longest time that a policy may look back at, and that a recommendation may be held back, in seconds.
const PERIOD_MAX: i64 = 1800;
const STABILIZATION_MAX: i64 = 3600;

/// The sources of metrics: the value of `type` and the field that goes with it, in the order of Kubernetes' looks.
const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

const SOURCE_TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

/// How strictly the `apiVersion` of a reference is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Any,
    MayBeCore,
    MustHaveGroup,
}

/// Rules for a new autoscaler.
pub(super) fn create(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    let target =
        if target_kind(object) == "ReplicationController" { Version::MayBeCore } else { Version::MustHaveGroup };
    spec(get(object, "spec"), 1, target, Version::MayBeCore, errors);
}

/// Rules for a changed autoscaler: what was accepted once may stay.
pub(super) fn update(object: &Value, old: &Value, errors: &mut Errors) {
    META.update(object, old, errors);
    let (now, was) = (get(object, "spec"), get(old, "spec"));
    let least = if int(was, "minReplicas") == Some(0) { 0 } else { 1 };
    let reference = |spec| ["apiVersion", "kind"].map(|field| text(get(spec, "scaleTargetRef"), field).to_owned());
    let target = if reference(now) == reference(was) {
        Version::Any
    } else if target_kind(object) == "ReplicationController" {
        Version::MayBeCore
    } else {
        Version::MustHaveGroup
    };
    let was_wrong = list(was, "metrics").iter().any(|metric| {
        text(metric, "type") == "Object"
            && api_version(text(get(get(metric, "object"), "describedObject"), "apiVersion"), Version::MayBeCore)
                .is_err()
    });
    let described = if was_wrong { Version::Any } else { Version::MayBeCore };
    spec(now, least, target, described, errors);
}

fn target_kind(object: &Value) -> &str {
    text(get(get(object, "spec"), "scaleTargetRef"), "kind")
}

fn spec(spec: &Value, least: i64, target: Version, described: Version, errors: &mut Errors) {
    let path = Path::of("spec");
    let (min, max) = (int(spec, "minReplicas"), int(spec, "maxReplicas").unwrap_or_default());
    if let Some(min) = min.filter(|min| *min < least) {
        errors.invalid(&path.child("minReplicas"), min, format!("must be greater than or equal to {least}"));
    }
    let max_path = path.child("maxReplicas");
    if max == 0 {
        errors.required(&max_path, "must be set and greater than 0");
    } else if max < 0 {
        errors.invalid(&max_path, max, "must be greater than or equal to 1");
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(&max_path, max, "must be greater than or equal to `minReplicas`");
    }
    reference(get(spec, "scaleTargetRef"), target, &path.child("scaleTargetRef"), errors);
    let (metrics, path_of_metrics) = (list(spec, "metrics"), path.child("metrics"));
    for (index, one) in metrics.iter().enumerate() {
        metric(one, described, &path_of_metrics.index(index), errors);
    }
    let from_outside = metrics.iter().any(|metric| ["Object", "External"].contains(&text(metric, "type")));
    if min == Some(0) && !from_outside {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(&path_of_metrics, detail);
    }
    let (behavior, path) = (get(spec, "behavior"), path.child("behavior"));
    for direction in ["scaleUp", "scaleDown"].into_iter().filter(|direction| has(behavior, direction)) {
        scaling_rules(get(behavior, direction), &path.child(direction), errors);
    }
}

fn reference(reference: &Value, version: Version, path: &Path<'_>, errors: &mut Errors) {
    for field in ["kind", "name"] {
        let (value, path) = (text(reference, field), path.child(field));
        if value.is_empty() {
            errors.required(&path, "");
        } else {
            errors.invalid_each(&path, value, meta::path_segment(value));
        }
    }
    let value = text(reference, "apiVersion");
    if let Err(complaint) = api_version(value, version) {
        errors.invalid(&path.child("apiVersion"), value, complaint);
    }
}

fn api_version(text: &str, version: Version) -> Result<(), String> {
    if version == Version::Any {
        return Ok(());
    }
    let group = match text.matches('/').count() {
        0 => "",
        1 => text.split('/').next().unwrap_or_default(),
        _ => return Err(format!("unexpected GroupVersion string: {text}")),
    };
    if group.is_empty() && version == Version::MustHaveGroup {
        return Err("apiVersion must specify API group".to_owned());
    }
    Ok(())
}

fn scaling_rules(rules: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (window, here) = (int(rules, "stabilizationWindowSeconds"), path.child("stabilizationWindowSeconds"));
    if let Some(window) = window.filter(|window| *window < 0) {
        errors.invalid(&here, window, "must be greater than or equal to zero");
    }
    if let Some(window) = window.filter(|window| *window > STABILIZATION_MAX) {
        errors.invalid(&here, window, format!("must be less than or equal to {STABILIZATION_MAX}"));
    }
    let select = ["Disabled", "Max", "Min"];
    if let Some(policy) = get(rules, "selectPolicy").as_str().filter(|policy| !select.contains(policy)) {
        errors.unsupported(&path.child("selectPolicy"), policy, &select);
    }
    let (policies, here) = (list(rules, "policies"), path.child("policies"));
    if policies.is_empty() {
        errors.required(&here, "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        scaling_policy(policy, &here.index(index), errors);
    }
    if let Ok(tolerance) = Quantity::from_value(get(rules, "tolerance"))
        && tolerance.is_negative()
    {
        let detail = "must be greater than or equal to 0";
        errors.invalid(&path.child("tolerance"), tolerance.to_string(), detail);
    }
}

fn scaling_policy(policy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(policy, "type");
    if !["Percent", "Pods"].contains(&kind) {
        errors.unsupported(&path.child("type"), kind, &["Percent", "Pods"]);
    }
    for field in ["value", "periodSeconds"] {
        if let Some(number) = Some(int(policy, field).unwrap_or_default()).filter(|number| *number <= 0) {
            errors.invalid(&path.child(field), number, "must be greater than zero");
        }
    }
    if let Some(period) = int(policy, "periodSeconds").filter(|period| *period > PERIOD_MAX) {
        errors.invalid(&path.child("periodSeconds"), period, format!("must be less than or equal to {PERIOD_MAX}"));
    }
}

fn metric(metric: &Value, described: Version, path: &Path<'_>, errors: &mut Errors) {
    let (kind, kind_path) = (text(metric, "type"), path.child("type"));
    if kind.is_empty() {
        errors.required(&kind_path, "must specify a metric source type");
    }
    if !SOURCE_TYPES.contains(&kind) {
        errors.unsupported(&kind_path, kind, SOURCE_TYPES);
    }
    let present: Vec<_> = SOURCES.iter().map(|(_, field)| *field).filter(|field| has(metric, field)).collect();
    if let Some(first) = present.first() {
        source(first, get(metric, first), described, &path.child(first), errors);
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field);
    match expected {
        Some(field) if !has(metric, field) => {
            errors.required(&path.child(field), "must populate information for the given metric source");
        }
        Some(_) => {}
        None => errors.unsupported(&kind_path, kind, SOURCE_TYPES),
    }
    if present.len() != 1 {
        for field in present.into_iter().filter(|field| Some(*field) != expected) {
            errors.forbidden(&path.child(field), "must populate the given metric source only");
        }
    }
}

fn source(kind: &str, source: &Value, described: Version, path: &Path<'_>, errors: &mut Errors) {
    let (goal, goal_path) = (get(source, "target"), path.child("target"));
    let (value, average) = (has(goal, "value"), has(goal, "averageValue"));
    match kind {
        "object" => reference(get(source, "describedObject"), described, &path.child("describedObject"), errors),
        "resource" | "containerResource" => resource(kind, source, path, errors),
        _ => {}
    }
    if ["object", "external", "pods"].contains(&kind) {
        identifier(get(source, "metric"), &path.child("metric"), errors);
    }
    target(goal, &goal_path, errors);
    let average_path = goal_path.child("averageValue");
    match kind {
        "object" if !value && !average => {
            errors.required(&average_path, "must set either a target value or averageValue");
        }
        "external" if !value && !average => {
            errors.required(&average_path, "must set either a target value for metric or a per-pod target");
        }
        "external" if value && average => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.forbidden(&goal_path.child("value"), detail);
        }
        "pods" if !average => errors.required(&average_path, "must specify a positive target averageValue"),
        "resource" | "containerResource" => match (has(goal, "averageUtilization"), average) {
            (false, false) => {
                let detail = "must set either a target raw value or a target utilization";
                errors.required(&goal_path.child("averageUtilization"), detail);
            }
            (true, true) => {
                errors.forbidden(&average_path, "may not set both a target raw value and a target utilization");
            }
            _ => {}
        },
        _ => {}
    }
}

fn resource(kind: &str, source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (name, here) = (text(source, "name"), path.child("name"));
    if name.is_empty() {
        errors.required(&here, "must specify a resource name");
    } else if kind == "containerResource" {
        resources::container_name(name, &here, errors);
    }
    if kind == "containerResource" {
        let (container, here) = (text(source, "container"), path.child("container"));
        if container.is_empty() {
            errors.required(&here, "must specify a container");
        } else {
            errors.invalid_each(&here, container, names::dns1123_label(container));
        }
    }
}

fn identifier(metric: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (name, path) = (text(metric, "name"), path.child("name"));
    if name.is_empty() {
        errors.required(&path, "must specify a metric name");
    } else {
        errors.invalid_each(&path, name, meta::path_segment(name));
    }
}

fn target(target: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (kind, here) = (text(target, "type"), path.child("type"));
    if kind.is_empty() {
        errors.required(&here, "must specify a metric target type");
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        errors.invalid(&here, kind, "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"].into_iter().filter(|field| has(target, field)) {
        let amount = Quantity::from_value(get(target, field)).unwrap_or_default();
        if amount.is_zero() || amount.is_negative() {
            errors.invalid(&path.child(field), amount.to_string(), "must be positive");
        }
    }
    if let Some(percent) = int(target, "averageUtilization").filter(|percent| *percent < 1) {
        errors.invalid(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

/// Rules for a change of `status`.
pub(super) fn status(object: &Value, old: &Value, errors: &mut Errors) {
    META.update(object, old, errors);
    let path = Path::of("status");
    for field in ["currentReplicas", "desiredReplicas"] {
        errors.not_negative(&path.child(field), int(get(object, "status"), field));
    }
}
