//! The rules of a FlowSchema: whose requests for what it is about.

use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldErrorKind;
use crate::json::{flag, get, has, list, text};
use crate::path::Path;

const ALL: &str = "*";
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

/// The kinds of subjects and the fields that belong to them, in Kubernetes' order of complaints.
const SUBJECTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

/// Checks one of `spec.rules`.
pub(super) fn check(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (subjects, subjects_path) = (list(rule, "subjects"), path.child("subjects"));
    if subjects.is_empty() {
        errors.required(&subjects_path, "subjects must contain at least one value");
    }
    for (index, one) in subjects.iter().enumerate() {
        subject(one, &subjects_path.index(index), errors);
    }
    let (resources, others) = (list(rule, "resourceRules"), list(rule, "nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    let resources_path = path.child("resourceRules");
    for (index, one) in resources.iter().enumerate() {
        resource_rule(one, &resources_path.index(index), errors);
    }
    let others_path = path.child("nonResourceRules");
    for (index, one) in others.iter().enumerate() {
        url_rule(one, &others_path.index(index), errors);
    }
}

fn subject(subject: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(subject, "kind");
    let Some((_, field)) = SUBJECTS.iter().find(|(known, _)| *known == kind) else {
        return errors.unsupported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]);
    };
    named(get(subject, field), kind, field, &path.child(field), errors);
    let others = if kind == "User" { [SUBJECTS[0], SUBJECTS[2]] } else { [SUBJECTS[0], SUBJECTS[1]] };
    let others = if kind == "ServiceAccount" { [SUBJECTS[1], SUBJECTS[2]] } else { others };
    for (other, field) in others.into_iter().filter(|(_, field)| has(subject, field)) {
        errors.forbidden(&path.child(field), format!("{field} is forbidden when subject kind is not '{other}'"));
    }
}

/// Who exactly: a user, a group, or a service account with its namespace.
fn named(who: &Value, kind: &str, field: &str, path: &Path<'_>, errors: &mut Errors) {
    if who.is_null() {
        return errors.required(path, format!("{field} is required when subject kind is '{kind}'"));
    }
    let (name, name_path) = (text(who, "name"), path.child("name"));
    if name.is_empty() {
        errors.required(&name_path, "");
    }
    if kind != "ServiceAccount" {
        return;
    }
    if !name.is_empty() && name != ALL {
        errors.invalid_each(&name_path, name, names::dns1123_subdomain(name));
    }
    let path = path.child("namespace");
    match text(who, "namespace") {
        "" => errors.required(&path, "must specify namespace for service account"),
        namespace => errors.invalid_each(&path, namespace, names::dns1123_label(namespace)),
    }
}

fn has_all(items: &[Value]) -> bool {
    items.iter().any(|item| item == ALL)
}

/// Complains when `*` does not stand alone.
fn alone(rule: &Value, field: &str, what: &str, path: &Path<'_>, errors: &mut Errors) {
    let items = list(rule, field);
    if items.len() > 1 && has_all(items) {
        let detail = format!("if '*' is present, must not specify other {what}");
        errors.invalid(&path.child(field), items.to_vec(), detail);
    }
}

fn verbs(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let verbs = list(rule, "verbs");
    if verbs.is_empty() {
        errors.required(&path.child("verbs"), "verbs must contain at least one value");
    } else if has_all(verbs) {
        alone(rule, "verbs", "verbs", path, errors);
    } else if verbs.iter().filter_map(Value::as_str).any(|verb| !VERBS.contains(&verb)) {
        let known = VERBS.map(|verb| format!("\"{verb}\"")).join(", ");
        let detail = format!("supported values: {known}");
        errors.add(FieldErrorKind::NotSupported, &path.child("verbs"), verbs.into(), detail);
    }
}

fn resource_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    verbs(rule, path, errors);
    for (field, one, what) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")] {
        if list(rule, field).is_empty() {
            errors.required(&path.child(field), format!("resource rules must supply at least one {one}"));
        }
        alone(rule, field, what, path, errors);
    }
    let (namespaces, here) = (list(rule, "namespaces"), path.child("namespaces"));
    if namespaces.is_empty() && !flag(rule, "clusterScope") {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.required(&here, detail);
    } else if has_all(namespaces) {
        alone(rule, "namespaces", "namespaces", path, errors);
    } else {
        for (index, namespace) in namespaces.iter().filter_map(Value::as_str).enumerate() {
            for why in names::dns1123_label(namespace) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {why}");
                errors.invalid(&here.index(index), namespace, detail);
            }
        }
    }
}

fn url_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    verbs(rule, path, errors);
    let (urls, here) = (list(rule, "nonResourceURLs"), path.child("nonResourceURLs"));
    if urls.is_empty() {
        errors.required(&here, "nonResourceURLs must contain at least one value");
    } else if has_all(urls) {
        alone(rule, "nonResourceURLs", "non-resource URLs", path, errors);
    } else {
        for (index, url) in urls.iter().filter_map(Value::as_str).enumerate() {
            if let Some(why) = bad_url(url) {
                errors.invalid(&here.index(index), url, why);
            }
        }
    }
}

fn bad_url(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !url.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}
