//! What RoleBinding and ClusterRoleBinding share: the role they refer to, the subjects, the table.

use jiff::Timestamp;
use reeve_api::names;
use serde_json::Value;

use super::GROUP;
use crate::age;
use crate::errors::Errors;
use crate::json::{get, items_mut, list, object_mut, set_default, text, text_at};
use crate::meta;
use crate::path::Path;
use crate::{shown, table};

/// Fills in the API groups that are left out.
pub(super) fn default(object: &mut Value) {
    set_default(object_mut(object, "roleRef"), "apiGroup", GROUP);
    for subject in items_mut(object, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            set_default(subject, "apiGroup", GROUP);
        }
    }
}

/// Checks the role and the subjects. `kinds` are the kinds of roles that may be bound.
pub(super) fn check(object: &Value, namespaced: bool, kinds: &[&str], errors: &mut Errors) {
    let (role, path) = (get(object, "roleRef"), Path::of("roleRef"));
    if text(role, "apiGroup") != GROUP {
        errors.unsupported(&path.child("apiGroup"), text(role, "apiGroup"), &[GROUP]);
    }
    if !kinds.contains(&text(role, "kind")) {
        errors.unsupported(&path.child("kind"), text(role, "kind"), kinds);
    }
    match text(role, "name") {
        "" => errors.required(&path.child("name"), ""),
        name => errors.invalid_each(&path.child("name"), name, meta::path_segment(name)),
    }
    let path = Path::of("subjects");
    for (index, one) in list(object, "subjects").iter().enumerate() {
        subject(one, namespaced, &path.index(index), errors);
    }
}

fn subject(subject: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Errors) {
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.invalid_each(&path.child("name"), name, names::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                errors.unsupported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" if group != GROUP => errors.unsupported(&path.child("apiGroup"), group, &[GROUP]),
        "User" | "Group" => {}
        other => errors.unsupported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// A binding stays with its role.
pub(super) fn same_role(object: &Value, old: &Value, errors: &mut Errors) {
    let role = get(object, "roleRef");
    if role != get(old, "roleRef") {
        let shown = shown::fields(role, &[("APIGroup", "apiGroup"), ("Kind", "kind"), ("Name", "name")]);
        errors.invalid_object(&Path::of("roleRef"), shown, "cannot change roleRef");
    }
}

/// The cells of the table.
pub(super) fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = |field| text_at(object, &["roleRef", field]);
    let named = |kind: &str| {
        let all = list(object, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
        let names: Vec<_> = all
            .map(|subject| match kind {
                "ServiceAccount" => format!("{}/{}", text(subject, "namespace"), text(subject, "name")),
                _ => text(subject, "name").to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    vec![
        table::name(object),
        format!("{}/{}", role("kind"), role("name")).into(),
        age::of(object, now).into(),
        named("User"),
        named("Group"),
        named("ServiceAccount"),
    ]
}
