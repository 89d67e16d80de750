//! Rules for where a pod may go: affinity, tolerations, topology spread.

use std::collections::BTreeSet;

use reeve_api::names;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::json::{entries, get, has, int, items_mut, list, set, some_mut, text};
use crate::meta;
use crate::path::Path;
use crate::shown;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const UNSATISFIED: &str = "whenUnsatisfiable";
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Rules for `affinity`.
pub(super) fn affinity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let affinity = get(spec, "affinity");
    node_affinity(get(affinity, "nodeAffinity"), &path.child("nodeAffinity"), errors);
    for kind in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(get(affinity, kind), &path.child(kind), errors);
    }
}

fn node_affinity(affinity: &Value, path: &Path<'_>, errors: &mut Errors) {
    if has(affinity, REQUIRED) {
        node_selector(get(affinity, REQUIRED), &path.child(REQUIRED), errors);
    }
    let path = path.child(PREFERRED);
    for (index, term) in list(affinity, PREFERRED).iter().enumerate() {
        let path = path.index(index);
        weight(term, &path, errors);
        node_term(get(term, "preference"), false, &path.child("preference"), errors);
    }
}

/// Rules for a node selector that must be met.
pub(crate) fn node_selector(selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (terms, path) = (list(selector, "nodeSelectorTerms"), path.child("nodeSelectorTerms"));
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        node_term(term, true, &path.index(index), errors);
    }
}

fn weight(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    let weight = int(term, "weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

/// Values that no label can have are refused where the term is a demand; where it is a wish they only match nothing.
fn node_term(term: &Value, is_demand: bool, path: &Path<'_>, errors: &mut Errors) {
    let expressions = path.child("matchExpressions");
    for (index, requirement) in list(term, "matchExpressions").iter().enumerate() {
        node_requirement(requirement, is_demand, &expressions.index(index), errors);
    }
    let fields = path.child("matchFields");
    for (index, requirement) in list(term, "matchFields").iter().enumerate() {
        node_field(requirement, &fields.index(index), errors);
    }
}

fn node_requirement(requirement: &Value, is_demand: bool, path: &Path<'_>, errors: &mut Errors) {
    let (values, values_path) = (list(requirement, "values"), path.child("values"));
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&values_path, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&values_path, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    meta::label_name(text(requirement, "key"), &path.child("key"), errors);
    for (index, value) in values.iter().enumerate().filter(|_| is_demand) {
        let value = value.as_str().unwrap_or_default();
        errors.invalid_each(&values_path.index(index), value, names::label_value(value));
    }
}

fn node_field(requirement: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (values, key) = (list(requirement, "values"), text(requirement, "key"));
    match text(requirement, "operator") {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => errors.required(
            &path.child("values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    if key != "metadata.name" {
        return errors.invalid(&path.child("key"), key, "not a valid field selector key");
    }
    let path = path.child("values");
    for (index, value) in values.iter().enumerate() {
        let name = value.as_str().unwrap_or_default();
        errors.invalid_each(&path.index(index), name, names::dns1123_subdomain(name));
    }
}

fn pod_affinity(affinity: &Value, path: &Path<'_>, errors: &mut Errors) {
    let required = path.child(REQUIRED);
    for (index, term) in list(affinity, REQUIRED).iter().enumerate() {
        pod_term(term, &required.index(index), errors);
    }
    let preferred = path.child(PREFERRED);
    for (index, term) in list(affinity, PREFERRED).iter().enumerate() {
        let path = preferred.index(index);
        weight(term, &path, errors);
        pod_term(get(term, "podAffinityTerm"), &path.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["labelSelector", "namespaceSelector"] {
        meta::label_selector(get(term, field), &path.child(field), errors);
    }
    for namespace in list(term, "namespaces").iter().filter_map(Value::as_str) {
        errors.invalid_each(&path.child("namespace"), namespace, names::dns1123_label(namespace));
    }
    label_keys(term, path, errors);
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    meta::label_name(key, &path.child("topologyKey"), errors);
}

/// Keys whose values are taken from the pod itself, besides a selector.
fn label_keys(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    let keys = |field| list(term, field).iter().map(|key| key.as_str().unwrap_or_default());
    for field in ["matchLabelKeys", "mismatchLabelKeys"].into_iter().filter(|field| has(term, field)) {
        let path = path.child(field);
        if !has(term, "labelSelector") {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (index, key) in keys(field).enumerate() {
            meta::label_name(key, &path.index(index), errors);
        }
    }
    let selector = get(term, "labelSelector");
    let mut selected: BTreeSet<_> = entries(selector, "matchLabels").map(|(key, _)| key).collect();
    for key in list(selector, "matchExpressions").iter().map(|expression| text(expression, "key")) {
        if let Some(index) =
            keys("matchLabelKeys").enumerate().filter(|(_, own)| *own == key).map(|(at, _)| at).next_back()
            && selected.contains(key)
        {
            errors.invalid(&path.index(index), key, "exists in both matchLabelKeys and labelSelector");
        }
        selected.insert(key);
    }
    let path = path.child("matchLabelKeys");
    for (index, key) in keys("matchLabelKeys").enumerate() {
        if keys("mismatchLabelKeys").any(|other| other == key) {
            errors.invalid(&path.index(index), key, "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
}

/// Makes of the keys whose values come from the pod itself requirements of the selectors, as the API server does
/// before a pod is checked and stored.
pub(super) fn apply_label_keys(pod: &mut Value) {
    let labels = get(get(pod, "metadata"), "labels").clone();
    let Some(spec) = some_mut(pod, "spec") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = some_mut(spec, "affinity").and_then(|affinity| some_mut(affinity, kind)) else { continue };
        for term in items_mut(affinity, PREFERRED).filter_map(|wish| some_mut(wish, "podAffinityTerm")) {
            add_requirements(term, &labels);
        }
        for term in items_mut(affinity, REQUIRED) {
            add_requirements(term, &labels);
        }
    }
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        add_requirements(constraint, &labels);
    }
}

fn add_requirements(term: &mut Value, labels: &Value) {
    let mut added = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in list(term, field).iter().filter_map(Value::as_str) {
            if let Some(value) = get(labels, key).as_str() {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    let Some(selector) = some_mut(term, "labelSelector").filter(|_| !added.is_empty()) else { return };
    let mut all = list(selector, "matchExpressions").to_vec();
    all.append(&mut added);
    set(selector, "matchExpressions", all);
}

/// Rules for `tolerations`.
pub(crate) fn tolerations(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (index, toleration) in list(spec, "tolerations").iter().enumerate() {
        toleration_rules(toleration, &path.index(index), errors);
    }
}

fn toleration_rules(toleration: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
    let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
    if !key.is_empty() {
        meta::label_name(key, &path.child("key"), errors);
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&path.child("operator"), operator, detail);
    }
    if has(toleration, "tolerationSeconds") && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(&path.child("effect"), effect, detail);
    }
    match operator {
        "" | "Equal" => {
            let complaints = names::label_value(value);
            if !complaints.is_empty() {
                errors.invalid(&path.child("operator"), value, complaints.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.invalid(&path.child("operator"), value, detail);
        }
        "Exists" => {}
        // Comparing numbers is a feature that is off in Kubernetes v1.36 unless asked for.
        "Lt" | "Gt" => errors.unsupported(&path.child("operator"), operator, &["Equal", "Exists", "Lt", "Gt"]),
        other => errors.unsupported(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.unsupported(&path.child("effect"), effect, EFFECTS);
    }
}

/// Rules for `topologySpreadConstraints`.
pub(super) fn topology_spread(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let all = list(spec, "topologySpreadConstraints");
    let kind =
        |constraint: &Value| format!("{{{}, {}}}", text(constraint, "topologyKey"), text(constraint, UNSATISFIED));
    for (index, constraint) in all.iter().enumerate() {
        let path = path.index(index);
        let (key, unsatisfiable) = (text(constraint, "topologyKey"), text(constraint, UNSATISFIED));
        let skew = int(constraint, "maxSkew").unwrap_or_default();
        if skew <= 0 {
            errors.invalid(&path.child("maxSkew"), skew, "must be greater than zero");
        }
        if key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        let policies = &["DoNotSchedule", "ScheduleAnyway"];
        if !policies.contains(&unsatisfiable) {
            errors.unsupported(&path.child(UNSATISFIED), unsatisfiable, policies);
        }
        if all[index + 1..].iter().any(|other| kind(other) == kind(constraint)) {
            errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), kind(constraint));
        }
        if let Some(domains) = int(constraint, "minDomains") {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.invalid(&path, domains, "must be greater than zero");
            }
            if unsatisfiable != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {unsatisfiable}");
                errors.invalid(&path, domains, detail);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = get(constraint, field).as_str().filter(|policy| !["Honor", "Ignore"].contains(policy))
            {
                errors.unsupported(&path.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        label_keys(constraint, &path, errors);
        meta::label_selector(get(constraint, "labelSelector"), &path.child("labelSelector"), errors);
    }
}

/// A pod with scheduling gates may get more entries in its node selector, never fewer or others.
pub(crate) fn node_selector_additions(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, value) in entries(old, "nodeSelector") {
        if get(get(new, "nodeSelector"), key) != value {
            errors.invalid(
                path,
                get(new, "nodeSelector").clone(),
                "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
            );
            return;
        }
    }
}

/// A pod with scheduling gates may get more demands on its node in each term that there is, never fewer or others.
pub(crate) fn node_affinity_additions(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let terms = |affinity| list(get(affinity, REQUIRED), "nodeSelectorTerms");
    let (now, before) = (terms(new), terms(old));
    if before.is_empty() || new == old {
        return;
    }
    let path = path.child(REQUIRED);
    let path = path.child("nodeSelectorTerms");
    if now.len() != before.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid_object(&path, shown::node_terms(now), detail);
    }
    for (index, (now, before)) in now.iter().zip(before).enumerate() {
        let is_empty = |term| list(term, "matchExpressions").is_empty() && list(term, "matchFields").is_empty();
        let kept = |field| list(now, field).starts_with(list(before, field));
        if (is_empty(before) && !is_empty(now)) || !kept("matchExpressions") || !kept("matchFields") {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.invalid_object(&path.index(index), shown::node_term(now), detail);
        }
    }
}
