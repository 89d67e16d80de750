//! Resources given for a pod as a whole (`spec.resources`): defaults and rules.
//!
//! Source: KEP-2837 (pod-level resource specifications) and its rules for defaults and validation. What is not
//! here: the same for one container (`resources`).

use std::collections::BTreeMap;

use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::{Scope, resources};
use crate::errors::Errors;
use crate::json::{entries, get, has, list, object_mut, set_default, text};
use crate::path::Path;

/// Resources that a pod may ask for as a whole, besides huge pages.
const SUPPORTED: &[&str] = &["cpu", "memory"];

fn is_supported(name: &str) -> bool {
    SUPPORTED.contains(&name) || name.starts_with("hugepages-")
}

/// What the containers of a pod ask for together, at the moment they ask for most: init containers run one
/// after the other, those that are restarted always run beside all that follow.
fn requested(spec: &Value) -> BTreeMap<&str, Quantity> {
    let amounts = |container| {
        let all = entries(get(container, "resources"), "requests");
        all.filter_map(|(name, amount)| Some((name, Quantity::from_value(amount).ok()?)))
    };
    let (mut beside, mut most) = (BTreeMap::new(), BTreeMap::new());
    for container in list(spec, "initContainers") {
        let stays = text(container, "restartPolicy") == "Always";
        for (name, own) in amounts(container) {
            let others: &mut Quantity = beside.entry(name).or_default();
            let together = *others + own;
            if stays {
                *others = together;
            }
            let most: &mut Quantity = most.entry(name).or_default();
            *most = together.max(*most);
        }
    }
    for (name, own) in list(spec, "containers").iter().flat_map(amounts) {
        *beside.entry(name).or_default() += own;
    }
    for (name, running) in beside {
        let most = most.entry(name).or_default();
        *most = running.max(*most);
    }
    most
}

/// A pod with limits requests what its containers request together, or else its limits.
pub(super) fn default(spec: &mut Value) {
    let Some(limits) = get(get(spec, "resources"), "limits").as_object().cloned() else { return };
    let together: Vec<_> = requested(spec)
        .into_iter()
        .filter(|(name, _)| SUPPORTED.contains(name))
        .map(|(name, amount)| (name.to_owned(), amount.to_string()))
        .collect();
    let requests = object_mut(object_mut(spec, "resources"), "requests");
    for (name, amount) in together {
        set_default(requests, &name, amount);
    }
    for (name, limit) in limits.into_iter().filter(|(name, _)| is_supported(name)) {
        set_default(requests, &name, limit);
    }
}

/// Rules for `spec.resources`.
pub(super) fn rules(spec: &Value, scope: &Scope<'_>, path: &Path<'_>, errors: &mut Errors) {
    let own = get(spec, "resources");
    if own.is_null() {
        return;
    }
    let here = path.child("resources");
    if scope.os == Some("windows") {
        return errors.forbidden(&here, "may not be set for a windows pod");
    }
    if has(own, "claims") {
        errors.forbidden(&here.child("claims"), "claims may not be set for Resources at pod-level");
    }
    resources::requirements(own, resource_name, scope, &here, errors);
    let requests_path = here.child("requests");
    for (name, sum) in requested(spec) {
        let request = get(get(own, "requests"), name);
        if let (false, Ok(request)) = (request.is_null(), Quantity::from_value(request))
            && sum > request
        {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&requests_path.key(name), request.to_string(), detail);
        }
    }
    container_limits(spec, own, &here, errors);
}

fn resource_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if resources::any_name(name, path, errors) && !is_supported(name) {
        errors.unsupported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// No container may have more than the whole pod. The path is Kubernetes' own.
fn container_limits(spec: &Value, own: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("containers");
    for (index, container) in list(spec, "containers").iter().enumerate() {
        let path = path.index(index);
        for (name, amount) in entries(get(container, "resources"), "limits") {
            let whole = get(get(own, "limits"), name);
            let (Ok(limit), Ok(whole), false) =
                (Quantity::from_value(amount), Quantity::from_value(whole), whole.is_null())
            else {
                continue;
            };
            if limit > whole {
                let detail = format!("must be less than or equal to pod limits of {whole}");
                errors.invalid(&path.key(name).child("limits"), limit.to_string(), detail);
            }
        }
    }
}
