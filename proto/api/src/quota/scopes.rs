//! Scopes: which objects a quota is about.

use serde_json::Value;

use super::pods::is_terminating;

/// One scope with what is asked of it.
#[derive(Debug, Clone, Copy)]
pub struct Requirement<'q> {
    /// `BestEffort`, `PriorityClass`, …
    pub scope: &'q str,
    /// `Exists`, `In`, `NotIn`, `DoesNotExist`
    pub operator: &'q str,
    /// For `In` and `NotIn`.
    pub values: &'q Value,
}

/// The scopes of a quota: `spec.scopes` and `spec.scopeSelector`.
#[must_use]
pub fn requirements(quota: &Value) -> Vec<Requirement<'_>> {
    let spec = &quota["spec"];
    let plain = spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let plain = plain.map(|scope| Requirement { scope, operator: "Exists", values: &Value::Null });
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let selected = selected.map(|one| Requirement {
        scope: one["scopeName"].as_str().unwrap_or_default(),
        operator: one["operator"].as_str().unwrap_or_default(),
        values: &one["values"],
    });
    plain.chain(selected).collect()
}

/// Whether all of them hold.
pub fn is_in_scopes(wanted: &[Requirement<'_>], holds: impl Fn(&Requirement<'_>) -> bool) -> bool {
    wanted.iter().all(holds)
}

/// Whether a name, if there is one, is asked for.
fn selects(requirement: &Requirement<'_>, name: &str) -> bool {
    let is_listed = requirement.values.as_array().is_some_and(|values| values.iter().any(|value| value == name));
    match requirement.operator {
        "Exists" => !name.is_empty(),
        "DoesNotExist" => name.is_empty(),
        "In" => !name.is_empty() && is_listed,
        "NotIn" => name.is_empty() || !is_listed,
        _ => false,
    }
}

/// Whether the pod is in the scope.
pub(super) fn has_pod(requirement: &Requirement<'_>, pod: &Value) -> bool {
    let spec = &pod["spec"];
    match requirement.scope {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => selects(requirement, spec["priorityClassName"].as_str().unwrap_or_default()),
        "CrossNamespacePodAffinity" => ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
            let affinity = &spec["affinity"][*kind];
            let terms = |field: &str| affinity[field].as_array().into_iter().flatten();
            let required = terms("requiredDuringSchedulingIgnoredDuringExecution");
            let preferred = terms("preferredDuringSchedulingIgnoredDuringExecution");
            let crosses = |term: &Value| {
                term["namespaces"].as_array().is_some_and(|names| !names.is_empty())
                    || !term["namespaceSelector"].is_null()
            };
            required.into_iter().any(crosses) || preferred.into_iter().any(|one| crosses(&one["podAffinityTerm"]))
        }),
        _ => false,
    }
}

/// Whether the pod has been put into the lowest class of service, or would be.
fn is_best_effort(pod: &Value) -> bool {
    if let Some(class) = pod["status"]["qosClass"].as_str().filter(|class| !class.is_empty()) {
        return class == "BestEffort";
    }
    let spec = &pod["spec"];
    let asks = |resources: &Value| {
        ["requests", "limits"].iter().any(|kind| {
            ["cpu", "memory"].iter().any(|name| {
                let amount = crate::quantity::Quantity::from_value(&resources[*kind][*name]);
                amount.is_ok_and(|amount| !amount.is_zero())
            })
        })
    };
    let containers = ["containers", "initContainers"].iter().filter_map(|list| spec[*list].as_array()).flatten();
    !asks(&spec["resources"]) && !containers.into_iter().any(|container| asks(&container["resources"]))
}

/// Whether the claim is in the scope.
pub(super) fn has_claim(requirement: &Requirement<'_>, claim: &Value) -> bool {
    if requirement.scope != "VolumeAttributesClass" {
        return false;
    }
    let (spec, status) = (&claim["spec"], &claim["status"]);
    let named = [
        &spec["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    let named: Vec<&str> = named.iter().filter_map(|name| name.as_str()).filter(|name| !name.is_empty()).collect();
    if named.is_empty() { selects(requirement, "") } else { named.iter().any(|name| selects(requirement, name)) }
}
