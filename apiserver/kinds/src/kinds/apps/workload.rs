//! What ReplicaSet and Deployment share: replicas, selector, template.

use reeve_api::selector::LabelSelector;
use serde_json::Value;

use crate::errors::Errors;
use crate::json::{at, get, has, int, some_mut, text_at};
use crate::meta;
use crate::path::Path;
use crate::pod;
use crate::shown;

/// Where the replicas stand.
pub(in crate::kinds) const SCALE: crate::kind::ScalePaths = crate::kind::ScalePaths {
    spec_replicas: "spec.replicas",
    status_replicas: "status.replicas",
    selector: "spec.selector",
};

/// The selector stays what it was.
pub(in crate::kinds) fn same_selector(spec: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (now, before) = (get(spec, "selector"), get(was, "selector"));
    if now != before {
        errors.invalid_object(&path.child("selector"), shown::selector(now), "field is immutable");
    }
}

/// Rules for `spec.selector` and `spec.template`.
pub(in crate::kinds) fn template_and_selector(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (selector, selector_path) = (get(spec, "selector"), path.child("selector"));
    if selector.is_null() {
        errors.required(&selector_path, "");
    } else {
        meta::label_selector(selector, &selector_path, errors);
        if !has(selector, "matchLabels") && !has(selector, "matchExpressions") {
            errors.invalid_object(
                &selector_path,
                shown::selector(selector),
                "empty selector is invalid for deployment",
            );
        }
    }
    match LabelSelector::from_value(selector) {
        Ok(parsed) => template(get(spec, "template"), &parsed, &path.child("template"), errors),
        Err(_) => errors.invalid_object(&selector_path, shown::selector(selector), "invalid label selector"),
    }
}

/// Takes from the template what Kubernetes drops while its feature is off.
pub(in crate::kinds) fn drop_disabled(object: &mut Value) {
    if let Some(template) = some_mut(object, "spec").and_then(|spec| some_mut(spec, "template")) {
        pod::drop_disabled_of_template(template);
    }
}

fn template(template: &Value, selector: &LabelSelector, path: &Path<'_>, errors: &mut Errors) {
    matches_template(selector, template, path, errors);
    pod::template(template, path, errors);
    always_restarts(template, "ReplicaSet", path, errors);
}

/// The pods of the template are those that are selected.
pub(in crate::kinds) fn matches_template(
    selector: &LabelSelector,
    template: &Value,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let labels = at(template, &["metadata", "labels"]);
    if !selector.is_everything() && (selector.is_nothing() || !selector.matches_value(labels)) {
        let path = path.child("metadata");
        errors.invalid(&path.child("labels"), labels.clone(), "`selector` does not match template `labels`");
    }
}

/// The pods run for ever.
pub(in crate::kinds) fn always_restarts(template: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let (path, policy) = (path.child("spec"), text_at(template, &["spec", "restartPolicy"]));
    if policy != "Always" {
        errors.unsupported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    if has(get(template, "spec"), "activeDeadlineSeconds") {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), detail);
    }
}

/// The count of collisions of names does not go back.
pub(in crate::kinds) fn collisions(status: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (now, before) = (int(status, "collisionCount"), int(was, "collisionCount"));
    if before.is_some() && now < before {
        errors.invalid(&path.child("collisionCount"), now.unwrap_or_default(), "cannot be decremented");
    }
}

/// Rules for the counters in `status`: none is negative, none exceeds the one it is part of.
pub(in crate::kinds) fn status(object: &Value, counters: &[&str], parts: &[(&str, &str)], errors: &mut Errors) {
    let (status, path) = (get(object, "status"), Path::of("status"));
    for counter in counters {
        errors.not_negative(&path.child(counter), int(status, counter));
    }
    for (part, whole) in parts {
        let (value, limit) = (int(status, part).unwrap_or_default(), int(status, whole).unwrap_or_default());
        if value > limit {
            errors.invalid(&path.child(part), value, format!("cannot be greater than {}", whole_name(whole)));
        }
    }
}

fn whole_name(whole: &str) -> String {
    if whole == "replicas" { "status.replicas".to_owned() } else { whole.to_owned() }
}
