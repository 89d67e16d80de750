//! The rules of a role: what Role and ClusterRole share.

use serde_json::Value;

use crate::errors::Errors;
use crate::json::{get, has, list};
use crate::path::Path;

/// Checks `rules`; those of a namespaced role cannot be about URLs.
pub(super) fn check(object: &Value, namespaced: bool, errors: &mut Errors) {
    let path = Path::of("rules");
    for (index, rule) in list(object, "rules").iter().enumerate() {
        policy_rule(rule, namespaced, &path.index(index), errors);
    }
}

fn policy_rule(rule: &Value, namespaced: bool, path: &Path<'_>, errors: &mut Errors) {
    if !has_any(rule, "verbs") {
        errors.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    if has_any(rule, "nonResourceURLs") {
        let (path, urls) = (path.child("nonResourceURLs"), get(rule, "nonResourceURLs"));
        if namespaced {
            errors.invalid(&path, urls.clone(), "namespaced rules cannot apply to non-resource URLs");
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|field| has_any(rule, field)) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(&path, urls.clone(), detail);
        }
        return;
    }
    if !has_any(rule, "apiGroups") {
        errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if !has_any(rule, "resources") {
        errors.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

fn has_any(rule: &Value, field: &str) -> bool {
    has(rule, field) && !list(rule, field).is_empty()
}
