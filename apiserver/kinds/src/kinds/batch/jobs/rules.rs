//! Rules for a Job and for the job template of a CronJob.

use reeve_api::names;
use reeve_api::selector::LabelSelector;
use serde_json::Value;

use super::{META, NAME_LABELS, UID_LABELS, policies};
use crate::errors::Errors;
use crate::json::{at, flag, get, has, int, text, text_at};
use crate::meta;
use crate::path::Path;
use crate::{pod, shown};

/// Most pods of an Indexed Job at once, and most indexes that may fail.
const INDEXED_MAX: i64 = 100_000;

/// Beyond so many completions an Indexed Job must keep to [`HIGH_MAX`].
const COMPLETIONS_HIGH: i64 = 100_000;
const HIGH_MAX: i64 = 10_000;

/// Longest `managedBy`.
const MANAGER_MAX: usize = 63;

/// Rules for a whole Job. `new_labels`: whether the template must have the labels with a domain, too.
pub(super) fn whole(object: &Value, new_labels: bool, errors: &mut Errors) {
    META.create(object, errors);
    generated_selector(object, new_labels, errors);
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    spec_rules(spec, &path, errors);
    let completions = int(spec, "completions").unwrap_or_default();
    if text(spec, "completionMode") == "Indexed" && completions > 0 {
        let name = text_at(object, &["metadata", "name"]);
        let hostname = format!("{name}-{}", completions - 1);
        if !names::dns1123_label(&hostname).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {hostname}");
            errors.invalid(&Path::of("metadata").child("name"), name, detail);
        }
    }
}

/// What the server put there is there, unless the user selects pods himself.
fn generated_selector(object: &Value, new_labels: bool, errors: &mut Errors) {
    let spec = get(object, "spec");
    if flag(spec, "manualSelector") || !has(spec, "selector") {
        return;
    }
    let of = |field: &str| text_at(object, &["metadata", field]);
    let (name, uid) = (of("name"), of("uid"));
    if uid.is_empty() {
        errors.required(&Path::of("metadata").child("uid"), "");
    }
    let labels = at(spec, &["template", "metadata", "labels"]);
    let path = Path::of("spec");
    let path = path.child("template");
    let path = path.child("metadata");
    let path = path.child("labels");
    let mut expected = serde_json::Map::new();
    for age in if new_labels { 0..2 } else { 0..1 } {
        for (key, value) in [(UID_LABELS[age], uid), (NAME_LABELS[age], name)] {
            let detail = format!("must be '{value}'");
            match get(labels, key).as_str() {
                None => errors.required(&path.key(key), detail),
                Some(found) if found != value => errors.invalid(&path.key(key), labels.clone(), detail),
                Some(_) => {}
            }
            expected.insert(key.to_owned(), value.into());
        }
    }
    let selector = get(spec, "selector");
    if LabelSelector::from_value(selector).is_ok_and(|parsed| !parsed.matches_value(&expected.into())) {
        let shown = shown::selector(selector);
        errors.invalid_object(&Path::of("spec").child("selector"), shown, "`selector` not auto-generated");
    }
}

/// Rules for a Job's spec: those of every spec, and those for its selector.
pub(super) fn spec_rules(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    common(spec, path, errors);
    let (selector, here) = (get(spec, "selector"), path.child("selector"));
    if selector.is_null() {
        errors.required(&here, "");
    } else {
        meta::label_selector(selector, &here, errors);
    }
    let labels = at(spec, &["template", "metadata", "labels"]);
    if LabelSelector::from_value(selector).is_ok_and(|selector| !selector.matches_value(labels)) {
        let path = path.child("template");
        let path = path.child("metadata");
        errors.invalid(&path.child("labels"), labels.clone(), "`selector` does not match template `labels`");
    }
}

/// Rules for `spec` of a job template: the selector is not the user's.
pub(in super::super) fn template_rules(template: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (spec, path) = (get(template, "spec"), path.child("spec"));
    common(spec, &path, errors);
    let selector = get(spec, "selector");
    if !selector.is_null() {
        errors.invalid_object(&path.child("selector"), shown::selector(selector), "`selector` will be auto-generated");
    }
    if flag(spec, "manualSelector") {
        errors.unsupported_value(&path.child("manualSelector"), true, &["nil", "false"]);
    }
}

fn common(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.not_negative(&path.child(field), int(spec, field));
    }
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = get(spec, "managedBy").as_str() {
        let path = path.child("managedBy");
        domain_prefixed(manager, &path, errors);
        if manager.len() > MANAGER_MAX {
            errors.too_long(&path, MANAGER_MAX);
        }
    }
    mode(spec, path, errors);
    if has(spec, "podFailurePolicy") {
        policies::failure(spec, &path.child("podFailurePolicy"), errors);
    }
    if has(spec, "successPolicy") {
        let path = path.child("successPolicy");
        if text(spec, "completionMode") == "Indexed" {
            policies::success(spec, &path, errors);
        } else {
            let shown = shown::internal("SuccessPolicy", get(spec, "successPolicy"));
            errors.invalid_object(&path, shown, "requires indexed completion mode");
        }
    }
    replacement(spec, &path.child("podReplacementPolicy"), errors);
    let (template, path) = (get(spec, "template"), path.child("template"));
    pod::template(template, &path, errors);
    restart_policy(spec, &path, errors);
}

/// `acme.io/foo`
fn domain_prefixed(text: &str, path: &Path<'_>, errors: &mut Errors) {
    if text.is_empty() {
        return errors.required(path, "");
    }
    let Some((host, rest)) = text.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty()) else {
        return errors.invalid(path, text, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    errors.invalid_each(path, host, names::dns1123_subdomain(host));
    if !rest.chars().all(|letter| letter.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(letter)) {
        errors.invalid(path, rest, r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')");
    }
}

fn mode(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mode = get(spec, "completionMode").as_str();
    if let Some(mode) = mode.filter(|mode| !["NonIndexed", "Indexed"].contains(mode)) {
        errors.unsupported(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    match mode {
        Some("Indexed") => indexed(spec, path, errors),
        None | Some("NonIndexed") => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(number) = int(spec, field) {
                    errors.invalid(&path.child(field), number, "requires indexed completion mode");
                }
            }
        }
        Some(_) => {}
    }
}

fn indexed(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let of = |field: &str| int(spec, field);
    let (completions, parallelism, failed) = (of("completions"), of("parallelism"), of("maxFailedIndexes"));
    let (parallelism_path, failed_path) = (path.child("parallelism"), path.child("maxFailedIndexes"));
    if completions.is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    let above = |number: Option<i64>, limit: i64| number.filter(|number| *number > limit);
    if let Some(number) = above(parallelism, INDEXED_MAX) {
        let detail = format!("must be less than or equal to {INDEXED_MAX} when completion mode is Indexed");
        errors.invalid(&parallelism_path, number, detail);
    }
    if let Some(number) = completions.and_then(|completions| above(failed, completions)) {
        errors.invalid(&failed_path, number, "must be less than or equal to completions");
    }
    if let Some(number) = above(failed, INDEXED_MAX) {
        errors.invalid(&failed_path, number, format!("must be less than or equal to {INDEXED_MAX}"));
    }
    if above(completions, COMPLETIONS_HIGH).is_none() || !has(spec, "backoffLimitPerIndex") {
        return;
    }
    if failed.is_none() {
        errors.required(&failed_path, format!("must be specified when completions is above {COMPLETIONS_HIGH}"));
    }
    let detail = format!(
        "must be less than or equal to {HIGH_MAX} when completions are above {COMPLETIONS_HIGH} and used with backoff \
         limit per index"
    );
    for (number, path) in [(parallelism, parallelism_path), (failed, failed_path)] {
        if let Some(number) = above(number, HIGH_MAX) {
            errors.invalid(&path, number, detail.as_str());
        }
    }
}

fn replacement(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let supported: &[&str] =
        if has(spec, "podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    if let Some(policy) = get(spec, "podReplacementPolicy").as_str().filter(|policy| !supported.contains(policy)) {
        errors.unsupported(path, policy, supported);
    }
}

fn restart_policy(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let policy = text_at(spec, &["template", "spec", "restartPolicy"]);
    let path = path.child("spec");
    let path = path.child("restartPolicy");
    match policy {
        "Always" | "" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if has(spec, "podFailurePolicy") => {
            errors.invalid(&path, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        _ => errors.unsupported(&path, policy, &["OnFailure", "Never"]),
    }
}
