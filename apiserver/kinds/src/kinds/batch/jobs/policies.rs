//! What to do when pods fail, and when enough have succeeded.

use std::collections::BTreeSet;

use reeve_api::names;
use serde_json::Value;

use super::indexes;
use crate::errors::Errors;
use crate::json::{get, has, int, list, text};
use crate::path::Path;

const RULES_MAX: usize = 20;
const PATTERNS_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INDEXES_MAX: usize = 64 * 1024;

const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];

/// Rules for `podFailurePolicy`.
pub(super) fn failure(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (rules, path) = (list(get(spec, "podFailurePolicy"), "rules"), path.child("rules"));
    if rules.len() > RULES_MAX {
        errors.too_many(&path, rules.len(), RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        failure_rule(spec, rule, &path.index(index), errors);
    }
}

fn failure_rule(spec: &Value, rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (action, here) = (text(rule, "action"), path.child("action"));
    match action {
        "" => errors.required(&here, format!("valid values: {}", quoted(ACTIONS))),
        "FailIndex" if !has(spec, "backoffLimitPerIndex") => {
            errors.invalid(&here, action, "requires the backoffLimitPerIndex to be set");
        }
        action if !ACTIONS.contains(&action) => errors.unsupported(&here, action, ACTIONS),
        _ => {}
    }
    let (codes, conditions) = (get(rule, "onExitCodes"), list(rule, "onPodConditions"));
    if !codes.is_null() {
        exit_codes(spec, codes, &path.child("onExitCodes"), errors);
    }
    if !conditions.is_empty() {
        pod_conditions(conditions, &path.child("onPodConditions"), errors);
    }
    if !codes.is_null() && !conditions.is_empty() {
        errors.invalid_without_value(path, "specifying both OnExitCodes and OnPodConditions is not supported");
    }
    if codes.is_null() && conditions.is_empty() {
        errors.invalid_without_value(path, "specifying one of OnExitCodes and OnPodConditions is required");
    }
}

/// `["a" "b"]`, as Go prints a list of texts with `%q`.
fn quoted(texts: &[&str]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn pod_conditions(patterns: &[Value], path: &Path<'_>, errors: &mut Errors) {
    const STATUSES: &[&str] = &["False", "True", "Unknown"];
    if patterns.len() > PATTERNS_MAX {
        errors.too_many(path, patterns.len(), PATTERNS_MAX);
    }
    for (index, pattern) in patterns.iter().enumerate() {
        let (path, kind, status) = (path.index(index), text(pattern, "type"), text(pattern, "status"));
        errors.invalid_each(&path.child("type"), kind, names::qualified_name(kind));
        if status.is_empty() {
            errors.required(&path.child("status"), format!("valid values: {}", quoted(STATUSES)));
        } else if !STATUSES.contains(&status) {
            errors.unsupported(&path.child("status"), status, STATUSES);
        }
    }
}

fn exit_codes(spec: &Value, codes: &Value, path: &Path<'_>, errors: &mut Errors) {
    const OPERATORS: &[&str] = &["In", "NotIn"];
    let (operator, here) = (text(codes, "operator"), path.child("operator"));
    if operator.is_empty() {
        errors.required(&here, format!("valid values: {}", quoted(OPERATORS)));
    } else if !OPERATORS.contains(&operator) {
        errors.unsupported(&here, operator, OPERATORS);
    }
    let pod = get(get(spec, "template"), "spec");
    let mut containers = list(pod, "containers").iter().chain(list(pod, "initContainers"));
    if let Some(name) = get(codes, "containerName").as_str()
        && !containers.any(|container| text(container, "name") == name)
    {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.child("containerName"), name, detail);
    }
    values(codes, operator, &path.child("values"), errors);
}

fn values(codes: &Value, operator: &str, path: &Path<'_>, errors: &mut Errors) {
    let values: Vec<_> = list(codes, "values").iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        errors.invalid(path, get(codes, "values").clone(), "at least one value is required");
    } else if values.len() > EXIT_CODES_MAX {
        errors.too_many(path, values.len(), EXIT_CODES_MAX);
    }
    let mut seen = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        let path = path.index(index);
        if operator == "In" && *value == 0 {
            errors.invalid(&path, *value, "must not be 0 for the In operator");
        }
        if !seen.insert(value) {
            errors.duplicate(&path, *value);
        }
    }
    if !values.is_sorted() {
        errors.invalid(path, values, "must be ordered");
    }
}

/// Rules for `successPolicy` of an Indexed Job.
pub(super) fn success(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (rules, path) = (list(get(spec, "successPolicy"), "rules"), path.child("rules"));
    if rules.is_empty() {
        errors.required(&path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > RULES_MAX {
        errors.too_many(&path, rules.len(), RULES_MAX);
    }
    // Without it the Job is refused anyhow.
    let completions = int(spec, "completions").unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        success_rule(rule, completions, &path.index(index), errors);
    }
}

fn success_rule(rule: &Value, completions: i64, path: &Path<'_>, errors: &mut Errors) {
    let (count, list) = (int(rule, "succeededCount"), get(rule, "succeededIndexes").as_str());
    if count.is_none() && list.is_none() {
        errors.required(path, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let mut named = 0;
    if let Some(list) = list {
        let path = path.child("succeededIndexes");
        if list.len() > INDEXES_MAX {
            errors.too_long(&path, INDEXES_MAX);
        }
        match indexes::count(list, completions) {
            Ok(count) => named = count,
            Err(complaint) => errors.invalid(&path, list, format!("error parsing succeededIndexes: {complaint}")),
        }
    }
    let (Some(count), path) = (count, path.child("succeededCount")) else { return };
    errors.not_negative(&path, Some(count));
    if count > completions {
        let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&path, count, detail);
    }
    if list.is_some() && count > named {
        let detail = format!(
            "must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&path, count, detail);
    }
}
