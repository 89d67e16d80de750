//! What webhooks and policies share: which requests they are about, and their expressions.

use std::collections::BTreeSet;

use reeve_api::names;
use reeve_cel::Program;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::expressions::{Compiler, Gives, Refused};
use crate::field::FieldErrorKind;
use crate::json::{get, has, items_mut, list, set_absent, some_mut, text};
use crate::meta;
use crate::path::Path;

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
pub(super) const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// Nothing is changed when something is deleted.
const MUTATING_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const MATCH_CONDITIONS_MAX: usize = 64;

/// Compiles an expression and tells what is wrong with it; `shown` is what it is told of.
pub(super) fn compile(
    compiler: &Compiler,
    text: &str,
    gives: Gives,
    shown: &str,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    refused(compiler.compile(text, gives), shown, path, errors);
}

fn refused(compiled: Result<Program, Refused>, shown: &str, path: &Path<'_>, errors: &mut Errors) {
    match compiled {
        Ok(_) => {}
        Err(refused) if refused.internal => errors.add(FieldErrorKind::Internal, path, Value::Null, refused.detail),
        Err(refused) => errors.invalid(path, shown, refused.detail),
    }
}

/// Fills in what the rules of a webhook or policy leave out.
pub(super) fn default_rules(owner: &mut Value, field: &str) {
    for rule in items_mut(owner, field) {
        set_absent(rule, "scope", "*");
    }
}

/// Fills in whom a webhook or policy is about: everybody.
pub(super) fn default_match(owner: &mut Value) {
    set_absent(owner, "matchPolicy", "Equivalent");
    for selector in ["namespaceSelector", "objectSelector"] {
        if !has(owner, selector) {
            crate::json::set(owner, selector, json!({}));
        }
    }
}

/// Fills in `matchConstraints` or `matchResources`, where there is one.
pub(super) fn default_match_resources(spec: &mut Value, field: &str) {
    if let Some(resources) = some_mut(spec, field) {
        default_match(resources);
        default_rules(resources, "resourceRules");
        default_rules(resources, "excludeResourceRules");
    }
}

/// A text that may be left out and must be one of a few.
pub(super) fn choice(owner: &Value, field: &str, supported: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if has(owner, field) && !supported.contains(&text(owner, field)) {
        errors.unsupported(&path.child(field), text(owner, field), supported);
    }
}

/// A rule with its operations.
pub(super) fn rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let operations = texts(rule, "operations");
    let here = path.child("operations");
    if operations.is_empty() {
        errors.required(&here, "");
    }
    if operations.len() > 1 && operations.contains(&"*") {
        let why = "if '*' is present, must not specify other operations";
        errors.invalid(&here, json!(operations), why);
    }
    for (index, operation) in operations.iter().enumerate() {
        if !OPERATIONS.contains(operation) {
            errors.unsupported(&here.index(index), operation, OPERATIONS);
        }
    }
    groups_and_versions(rule, path, errors);
    resources(&texts(rule, "resources"), &path.child("resources"), errors);
    choice(rule, "scope", SCOPES, path, errors);
}

fn groups_and_versions(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let (all, here) = (texts(rule, field), path.child(field));
        if all.is_empty() {
            errors.required(&here, "");
        }
        if all.len() > 1 && all.contains(&"*") {
            errors.invalid(&here, json!(all), format!("if '*' is present, must not specify other {what}"));
        }
        // The core group has no name, but every version has one.
        for (index, _) in all.iter().enumerate().filter(|(_, one)| field == "apiVersions" && one.is_empty()) {
            errors.required(&here.index(index), "");
        }
    }
}

fn resources(all: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if all.is_empty() {
        errors.required(path, "");
    }
    let (mut whole_resources, mut whole_parts) = (BTreeSet::new(), BTreeSet::new());
    // Of several resources without a part the last one counts, as in Kubernetes.
    let mut has_plain = false;
    for (index, one) in all.iter().enumerate() {
        let path = path.index(index);
        if one.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let Some((resource, part)) = one.split_once('/') else {
            has_plain = *one != "*";
            continue;
        };
        if whole_resources.contains(resource) {
            errors.invalid(&path, *one, format!("if '{resource}/*' is present, must not specify {one}"));
        }
        if whole_parts.contains(part) {
            errors.invalid(&path, *one, format!("if '*/{part}' is present, must not specify {one}"));
        }
        if part == "*" {
            whole_resources.insert(resource);
        }
        if resource == "*" {
            whole_parts.insert(part);
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        errors.invalid(path, json!(all), "if '*/*' is present, must not specify other resources");
    }
    if all.contains(&"*") && has_plain {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(path, json!(all), why);
    }
}

/// The conditions under which a webhook is called or a policy evaluated. They may not speak of variables.
pub(super) fn match_conditions(owner: &Value, has_params: bool, path: &Path<'_>, errors: &mut Errors) {
    let (all, path) = (list(owner, "matchConditions"), path.child("matchConditions"));
    let compiler = Compiler::new(has_params);
    if all.len() > MATCH_CONDITIONS_MAX {
        errors.too_many(&path, all.len(), MATCH_CONDITIONS_MAX);
    }
    let mut seen = BTreeSet::new();
    for (index, condition) in all.iter().enumerate() {
        let path = path.index(index);
        let (written, here) = (text(condition, "expression").trim(), path.child("expression"));
        if written.is_empty() {
            errors.required(&here, "");
        } else {
            compile(&compiler, written, Gives::Truth, written, &here, errors);
        }
        let (name, path) = (text(condition, "name"), path.child("name"));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        errors.invalid_each(&path, name, names::qualified_name(name));
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
    }
}

/// Whether a change leaves a policy's conditions, and what they may speak of, as they are; then they are not looked
/// at again.
pub(super) fn same_conditions(spec: &Value, old: Option<&Value>) -> bool {
    let same = |field: &str| old.is_some_and(|old| get(spec, field) == get(old, field));
    same("paramKind") && same("matchConditions")
}

/// `matchConstraints` of a policy, `matchResources` of a binding.
pub(super) fn match_resources(resources: &Value, path: &Path<'_>, errors: &mut Errors) {
    if resources.is_null() {
        return;
    }
    errors.one_of(&path.child("matchPolicy"), text(resources, "matchPolicy"), MATCH_POLICIES);
    for field in ["namespaceSelector", "objectSelector"] {
        if has(resources, field) {
            meta::label_selector(get(resources, field), &path.child(field), errors);
        } else {
            errors.required(&path.child(field), "");
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        let path = path.child(field);
        for (index, one) in list(resources, field).iter().enumerate() {
            let path = path.index(index);
            resource_names(one, &path.child("resourceNames"), errors);
            rule(one, &path, errors);
        }
    }
}

fn resource_names(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, name) in texts(rule, "resourceNames").into_iter().enumerate() {
        let path = path.index(index);
        errors.invalid_each(&path, name, meta::path_segment(name));
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
    }
}

/// A policy that changes objects is not about deletions.
pub(super) fn mutating_operations(resources: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("resourceRules");
    let path = path.child("operations");
    for rule in list(resources, "resourceRules") {
        for operation in texts(rule, "operations").into_iter().filter(|one| !MUTATING_OPERATIONS.contains(one)) {
            errors.unsupported(&path, operation, MUTATING_OPERATIONS);
        }
    }
}

/// `matchConstraints`, which a policy must have, with at least one rule.
pub(super) fn match_constraints(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (resources, path) = (get(spec, "matchConstraints"), path.child("matchConstraints"));
    if resources.is_null() {
        errors.required(&path, "");
        return;
    }
    match_resources(resources, &path, errors);
    if list(resources, "resourceRules").is_empty() {
        errors.required(&path.child("resourceRules"), "");
    }
}

/// The kind of a policy's parameters.
pub(super) fn param_kind(kind: &Value, path: &Path<'_>, errors: &mut Errors) {
    if kind.is_null() {
        return;
    }
    api_version(text(kind, "apiVersion"), &path.child("apiVersion"), errors);
    let (name, path) = (text(kind, "kind"), path.child("kind"));
    let broken = names::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.required(&path, "");
    } else if !broken.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", broken.join(","));
        errors.invalid(&path, name, why);
    }
}

fn api_version(stated: &str, path: &Path<'_>, errors: &mut Errors) {
    if stated.is_empty() {
        errors.required(path, "");
        return;
    }
    if stated.matches('/').count() > 1 {
        errors.invalid(path, stated, format!("unexpected GroupVersion string: {stated}"));
        return;
    }
    let (group, version) = if stated == "/" { ("", "") } else { stated.split_once('/').unwrap_or(("", stated)) };
    let joined = |broken: Vec<String>| Some(broken.join(",")).filter(|text| !text.is_empty());
    if let Some(why) = joined(names::dns1123_subdomain(group)).filter(|_| !group.is_empty()) {
        errors.invalid(path, group, why);
    }
    if version.is_empty() {
        errors.invalid(path, stated, "version must be specified");
    } else if let Some(why) = joined(names::dns1035_label(version)) {
        errors.invalid(path, version, why);
    }
}

/// The variables of a policy; from here on `compiler` knows them.
pub(super) fn variables(spec: &Value, compiler: &mut Compiler, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("variables");
    for (index, variable) in list(spec, "variables").iter().enumerate() {
        let path = path.index(index);
        let name = text(variable, "name");
        if name.trim().is_empty() {
            errors.required(&path.child("name"), "name is not specified");
        } else if !reeve_cel::is_identifier(name) {
            errors.invalid(&path.child("name"), name, "must be a valid CEL identifier");
        }
        let (written, path) = (text(variable, "expression"), path.child("expression"));
        if written.trim().is_empty() {
            errors.required(&path, "expression is not specified");
        } else {
            refused(compiler.variable(name, written), written, &path, errors);
        }
    }
}

/// The texts of a list.
pub(super) fn texts<'v>(owner: &'v Value, field: &str) -> Vec<&'v str> {
    list(owner, field).iter().filter_map(Value::as_str).collect()
}
