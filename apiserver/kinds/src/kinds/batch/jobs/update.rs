//! Rules for a change of a Job: most of it stays once pods may have been made of it.

use serde_json::Value;

use super::{META, NAME_LABELS, UID_LABELS, is_true, rules as job};
use crate::errors::Errors;
use crate::json::{at, copy_field, flag, get, has, int, items_mut, list, object_mut, remove, some_mut, text};
use crate::path::Path;
use crate::shown;

/// Rules for a change of the main resource: those for the Job as it is now, twice, and those for what changed.
pub(super) fn rules(object: &Value, old: &Value, errors: &mut Errors) {
    let labels = at(old, &["spec", "template", "metadata", "labels"]);
    job::whole(object, has(labels, NAME_LABELS[1]) && has(labels, UID_LABELS[1]), errors);
    META.update(object, old, errors);
    let (spec, was, path) = (get(object, "spec"), get(old, "spec"), Path::of("spec"));
    job::spec_rules(spec, &path, errors);
    completions(spec, was, &path.child("completions"), errors);
    let selector = get(spec, "selector");
    if selector != get(was, "selector") {
        errors.invalid_object(&path.child("selector"), shown::selector(selector), "field is immutable");
    }
    template(object, old, &path.child("template"), errors);
    for (field, kind) in [
        ("completionMode", ""),
        ("podFailurePolicy", "PodFailurePolicy"),
        ("backoffLimitPerIndex", ""),
        ("managedBy", ""),
        ("successPolicy", "SuccessPolicy"),
    ] {
        let now = get(spec, field);
        if now != get(was, field) {
            let shown = if kind.is_empty() { now.to_string() } else { shown::internal(kind, now) };
            errors.invalid_object(&path.child(field), shown, "field is immutable");
        }
    }
}

/// An Indexed Job may be resized as long as all its pods run at once.
fn completions(spec: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (now, before) = (get(spec, "completions"), get(was, "completions"));
    if text(spec, "completionMode") != "Indexed" {
        errors.immutable(path, now, before);
    } else if now != before && !now.is_null() && now.as_i64() != int(spec, "parallelism") {
        errors.invalid(path, now.clone(), "can only be modified in tandem with spec.parallelism");
    }
}

/// A suspended Job without pods may still be told where its pods go and what they may use.
fn template(object: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (now, status) = (at(object, &["spec", "template"]), get(old, "status"));
    let mut before = at(old, &["spec", "template"]).clone();
    let suspended = flag(get(old, "spec"), "suspend");
    let at_rest = !has(status, "startTime") || is_true(old, "Suspended");
    let may_change = suspended && at_rest && int(status, "active").unwrap_or_default() == 0;
    if may_change {
        scheduling_as_in(now, &mut before);
    }
    if !may_change {
        if *now != before {
            errors.invalid_object(path, shown::internal("PodTemplateSpec", now), "field is immutable");
        }
        return;
    }
    let mut spec = get(&before, "spec").clone();
    for kind in ["containers", "initContainers"] {
        let new = list(get(now, "spec"), kind);
        if new.len() != list(&spec, kind).len() {
            continue;
        }
        for (old, new) in
            items_mut(&mut spec, kind).zip(new).filter(|(old, new)| text(old, "name") == text(new, "name"))
        {
            copy_field(old, new, "resources");
        }
    }
    if *get(now, "spec") != spec {
        let shown = shown::internal("PodSpec", get(now, "spec"));
        errors.invalid_object(&path.child("spec"), shown, "field is immutable");
    }
}

/// Takes over from the new template what says where pods go.
fn scheduling_as_in(now: &Value, before: &mut Value) {
    let new_spec = get(now, "spec");
    let spec = object_mut(before, "spec");
    match (has(new_spec, "affinity"), has(spec, "affinity")) {
        (false, true) => {
            if let Some(affinity) = some_mut(spec, "affinity") {
                remove(affinity, "nodeAffinity");
            }
            if get(spec, "affinity").as_object().is_some_and(serde_json::Map::is_empty) {
                remove(spec, "affinity");
            }
        }
        (true, _) => copy_field(object_mut(spec, "affinity"), get(new_spec, "affinity"), "nodeAffinity"),
        (false, false) => {}
    }
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        copy_field(spec, new_spec, field);
    }
    let (meta, new_meta) = (object_mut(before, "metadata"), get(now, "metadata"));
    copy_field(meta, new_meta, "annotations");
    copy_field(meta, new_meta, "labels");
}
