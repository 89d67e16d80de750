//! Resources given for a pod as a whole (`spec.resources`): defaults and rules.
//!
//! Source: KEP-2837 (pod-level resource specifications) and its rules for defaults and validation. What is not
//! here: the same for one container (`resources`).

use std::collections::BTreeMap;

use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::resources;
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
pub(super) fn rules(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let own = get(spec, "resources");
    if own.is_null() {
        return;
    }
    let here = path.child("resources");
    if has(own, "claims") {
        errors.forbidden(&here.child("claims"), "claims may not be set for Resources at pod-level");
    }
    for side in ["limits", "requests"] {
        let path = here.child(side);
        for (name, amount) in entries(own, side) {
            let path = path.key(name);
            if !is_supported(name) {
                errors.unsupported(&path, name, &["cpu", "hugepages-", "memory"]);
            }
            resources::quantity(name, amount, &path, errors);
        }
    }
    let requests_path = here.child("requests");
    let together = requested(spec);
    for (name, amount) in entries(own, "requests") {
        let Ok(request) = Quantity::from_value(amount) else { continue };
        if let Ok(limit) = Quantity::from_value(get(get(own, "limits"), name))
            && has(get(own, "limits"), name)
            && request > limit
        {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.invalid(&requests_path.key(name), request.to_string(), detail);
        }
        if let Some(sum) = together.get(name).filter(|sum| **sum > request) {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&requests_path.key(name), request.to_string(), detail);
        }
    }
    container_limits(spec, own, path, errors);
}

/// No container may have more than the whole pod.
fn container_limits(spec: &Value, own: &Value, path: &Path<'_>, errors: &mut Errors) {
    for kind in ["containers", "initContainers"] {
        let path = path.child(kind);
        for (index, container) in list(spec, kind).iter().enumerate() {
            let path = path.index(index);
            let path = path.child("resources");
            let path = path.child("limits");
            for (name, amount) in entries(get(container, "resources"), "limits") {
                let whole = get(get(own, "limits"), name);
                let (Ok(limit), Ok(whole)) = (Quantity::from_value(amount), Quantity::from_value(whole)) else {
                    continue;
                };
                if has(get(own, "limits"), name) && limit > whole {
                    let detail = format!("must be less than or equal to pod limits of {whole}");
                    errors.invalid(&path.key(name), limit.to_string(), detail);
                }
            }
        }
    }
}
