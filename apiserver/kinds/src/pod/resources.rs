//! Rules for amounts of resources: `resources` of a container, capacity of a node.

use std::collections::BTreeSet;

use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::Scope;
use crate::errors::Errors;
use crate::field::FieldErrorKind;
use crate::json::{entries, get, list, text};
use crate::path::Path;

const HUGE_PAGES: &str = "hugepages-";

/// Rules for `resources` of a container.
pub(super) fn requirements(resources: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    for (name, amount) in entries(resources, "limits") {
        one(name, amount, &limits.key(name), errors);
    }
    for (name, amount) in entries(resources, "requests") {
        one(name, amount, &requests.key(name), errors);
        let Ok(request) = Quantity::from_value(amount) else { continue };
        let limit = get(get(resources, "limits"), name);
        if limit.is_null() {
            if !overcommit_allowed(name) {
                errors.required(&limits, "Limit must be set for non overcommitable resources");
            }
            continue;
        }
        let Ok(limit) = Quantity::from_value(limit) else { continue };
        if request != limit && !overcommit_allowed(name) {
            errors.invalid(&requests, request.to_string(), format!("must be equal to {name} limit of {limit}"));
        } else if request > limit {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(&requests, request.to_string(), detail);
        }
    }
    let any = |wanted: fn(&str) -> bool| {
        entries(resources, "limits").chain(entries(resources, "requests")).any(|(name, _)| wanted(name))
    };
    if any(|name| name.starts_with(HUGE_PAGES)) && !any(|name| name == "cpu" || name == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
    claims(resources, scope, &path.child("claims"), errors);
}

/// One amount of a container: its name and its value.
fn one(name: &str, amount: &Value, path: &Path<'_>, errors: &mut Errors) {
    container_resource_name(name, path, errors);
    quantity(name, amount, path, errors);
    if let (Some(size), Ok(amount)) = (name.strip_prefix(HUGE_PAGES), Quantity::from_value(amount)) {
        let size = size.parse::<Quantity>().map(|size| size.value()).unwrap_or_default();
        if size == 0 || amount.value() % size != 0 {
            errors.invalid(path, amount.to_string(), format!("{amount} is not positive integer multiple of {name}"));
        }
    }
}

fn claims(resources: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, claim) in list(resources, "claims").iter().enumerate() {
        let (name, path) = (text(claim, "name"), path.index(index));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
        if !scope.claims.contains(name) {
            errors.not_found(&path, name);
        }
    }
}

/// An amount is not negative, and whole where the resource comes in pieces.
pub(crate) fn quantity(name: &str, amount: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Ok(amount) = Quantity::from_value(amount) else {
        errors.add(FieldErrorKind::Invalid, path, amount.clone(), "must be a valid resource quantity");
        return;
    };
    if amount.is_negative() {
        errors.invalid(path, amount.to_string(), "must be greater than or equal to 0");
    }
    if is_extended(name) && !amount.is_whole() {
        errors.invalid(path, amount.to_string(), "must be an integer");
    }
}

/// The name of a resource that a container may ask for.
fn container_resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.invalid_each(path, name, names::qualified_name(name));
    if !name.contains('/') {
        if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !name.starts_with(HUGE_PAGES) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGE_PAGES)
}
