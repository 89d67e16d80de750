//! Rules for amounts of resources: `resources` of a container, capacity of a node.

use std::collections::BTreeSet;

use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::{Map, Value};

use super::Scope;
use crate::errors::Errors;
use crate::field::FieldErrorKind;
use crate::json::{entries, get, text};
use crate::path::Path;

const HUGE_PAGES: &str = "hugepages-";

/// A rule for the name of a resource.
pub(super) type NameRule = fn(&str, &Path<'_>, &mut Errors);

/// Names of resources that stand without a domain.
const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// Resources that are counted.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// Amounts of resources are kept in whole thousandths.
pub(crate) fn round_up(object: &mut Value, field: &str) {
    for amount in object.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Ok(quantity) = Quantity::from_value(amount)
            && !quantity.is_whole_milli()
        {
            *amount = quantity.round_up_to_milli().to_string().into();
        }
    }
}

/// Rules for `resources` of a container or, with another rule for names, of a pod.
pub(super) fn requirements(
    resources: &Value,
    name_rule: NameRule,
    scope: &Scope<'_>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    list(get(resources, "limits"), name_rule, &limits, errors);
    for (name, amount) in entries(resources, "requests") {
        let here = requests.key(name);
        name_rule(name, &here, errors);
        quantity(name, amount, &here, errors);
        if let Ok(request) = Quantity::from_value(amount) {
            against_limit(name, request, get(get(resources, "limits"), name), path, errors);
        }
        huge_pages(name, amount, &here, errors);
    }
    huge_pages_stand_alone(&[get(resources, "limits"), get(resources, "requests")], path, errors);
    claims(resources, scope, &path.child("claims"), errors);
}

/// Rules for what a pod needs besides its containers: limits without requests.
pub(crate) fn overhead(amounts: &Value, path: &Path<'_>, errors: &mut Errors) {
    list(amounts, container_name, &path.child("limits"), errors);
    huge_pages_stand_alone(&[amounts], path, errors);
}

/// Huge pages need CPU or memory beside them.
fn huge_pages_stand_alone(all: &[&Value], path: &Path<'_>, errors: &mut Errors) {
    let any = |wanted: fn(&str) -> bool| {
        all.iter().filter_map(|amounts| amounts.as_object()).flatten().any(|(name, _)| wanted(name))
    };
    if any(|name| name.starts_with(HUGE_PAGES)) && !any(|name| name == "cpu" || name == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Rules for a list of amounts without anything to compare it with: limits, overhead.
pub(super) fn list(amounts: &Value, name_rule: NameRule, path: &Path<'_>, errors: &mut Errors) {
    for (name, amount) in amounts.as_object().into_iter().flatten() {
        let path = path.key(name);
        name_rule(name, &path, errors);
        quantity(name, amount, &path, errors);
        huge_pages(name, amount, &path, errors);
    }
}

fn against_limit(name: &str, request: Quantity, limit: &Value, path: &Path<'_>, errors: &mut Errors) {
    let requests = path.child("requests");
    if limit.is_null() {
        if !overcommit_allowed(name) {
            errors.required(&path.child("limits"), "Limit must be set for non overcommitable resources");
        }
        return;
    }
    let Ok(limit) = Quantity::from_value(limit) else { return };
    if request != limit && !overcommit_allowed(name) {
        errors.invalid(&requests, request.to_string(), format!("must be equal to {name} limit of {limit}"));
    } else if request > limit {
        let detail = format!("must be less than or equal to {name} limit of {limit}");
        errors.invalid(&requests, request.to_string(), detail);
    }
}

fn huge_pages(name: &str, amount: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let (Some(size), Ok(amount)) = (name.strip_prefix(HUGE_PAGES), Quantity::from_value(amount)) {
        let size = size.parse::<Quantity>().ok().filter(|size| !size.is_negative() && size.is_whole());
        let size = size.map(|size| size.value()).unwrap_or_default();
        if size == 0 || amount.value() % size != 0 {
            errors.invalid(path, amount.to_string(), format!("{amount} is not positive integer multiple of {name}"));
        }
    }
}

fn claims(resources: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (index, claim) in crate::json::list(resources, "claims").iter().enumerate() {
        let (name, request, path) = (text(claim, "name"), text(claim, "request"), path.index(index));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if seen.contains(name) {
            errors.duplicate(&path, name);
        } else if request.is_empty() {
            for _ in seen.iter().filter(|key| key.split_once('/').is_some_and(|(claim, _)| claim == name)) {
                errors.duplicate(&path, name);
            }
            seen.insert(name.to_owned());
        } else {
            errors.invalid_each(&path.child("request"), request, names::dns1123_label(request));
            let key = format!("{name}/{request}");
            if !seen.insert(key.clone()) {
                errors.duplicate(&path, key);
            }
        }
        if !scope.claims.contains(name) {
            let known: Vec<_> = scope.claims.iter().copied().collect();
            let known = if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
            let detail = format!("must be one of the names in pod.spec.resourceClaims{known}");
            errors.add(FieldErrorKind::NotFound, &path, name.into(), detail);
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
    if (is_extended(name) || COUNTED.contains(&name)) && !amount.is_whole() {
        errors.invalid(path, amount.to_string(), "must be an integer");
    }
}

/// The name of any resource. Gives whether it has no fault.
pub(crate) fn any_name(name: &str, path: &Path<'_>, errors: &mut Errors) -> bool {
    let before = errors.count();
    errors.invalid_each(path, name, names::qualified_name(name));
    if errors.count() == before && !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    errors.count() == before
}

/// Whether a name without a domain is that of a resource.
pub(crate) fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || name.starts_with(HUGE_PAGES) || name.starts_with("requests.hugepages-")
}

/// The name of a resource that a container may ask for.
pub(crate) fn container_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    any_name(name, path, errors);
    if !name.contains('/') {
        if !["cpu", "memory", "ephemeral-storage"].contains(&name) && !name.starts_with(HUGE_PAGES) {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// Whether a resource is Kubernetes' own.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether more of a resource may be promised than there is.
pub(crate) fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGE_PAGES)
}
