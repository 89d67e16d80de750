//! ResourceQuota: how much all objects of a namespace may use together.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{copy_field, entries, get, has, list, object_mut, set, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::pod::resources::{self, round_up};
use crate::{age, shown, table};

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short: &["quota"],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Request", "Request represents a minimum amount of cpu/memory that a container may consume."),
    table::column(
        "Limit",
        "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
    ),
    table::AGE,
];

/// Which objects a quota counts.
const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "VolumeAttributesClass",
    "CrossNamespacePodAffinity",
];

/// Scopes of which an object is in one or the other.
const OPPOSITES: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

const COMPUTE: &[&str] = &["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];

/// The kind.
pub(super) struct ResourceQuotas;

impl Kind for ResourceQuotas {
    wiring!(ResourceQuota, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        round_up(object_mut(object, "spec"), "hard");
        let status = object_mut(object, "status");
        round_up(status, "hard");
        round_up(status, "used");
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        spec_rules(get(object, "spec"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        copy_field(object, old, if part == Part::Main { "status" } else { "spec" });
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        if part == Part::Main {
            spec_rules(get(object, "spec"), &mut errors);
            let scopes = |object| list(get(object, "spec"), "scopes");
            let set = |object| scopes(object).iter().filter_map(Value::as_str).collect::<BTreeSet<_>>();
            if set(object) != set(old) {
                let path = Path::of("spec");
                errors.invalid(&path.child("scopes"), shown_scopes(get(object, "spec")), "field is immutable");
            }
        } else {
            let (status, path) = (get(object, "status"), Path::of("status"));
            amounts(status, "hard", &path, &mut errors);
            amounts(status, "used", &path, &mut errors);
        }
        errors.into_vec()
    }

    /// Less is asked for than may be used at most.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let hard = get(get(object, "spec"), "hard");
        let of = |name: &str| Quantity::from_value(get(hard, name)).ok().filter(|_| has(hard, name));
        let mut warnings = Vec::new();
        for name in ["cpu", "memory", "storage", "ephemeral-storage"].into_iter().filter(|_| old.is_none()) {
            let mut request_name = format!("requests.{name}");
            if !has(hard, &request_name) && ["cpu", "memory"].contains(&name) {
                request_name = name.to_owned();
            }
            let limit_name = format!("limits.{name}");
            if let (Some(request), Some(limit)) = (of(&request_name), of(&limit_name))
                && request > limit
            {
                warnings.push(format!(
                    "ResourceQuota {request_name} ({request}) should be less than {limit_name} ({limit})"
                ));
            }
        }
        warnings
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let status = get(object, "status");
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in entries(status, "hard") {
            let used = Quantity::from_value(get(get(status, "used"), name)).unwrap_or_default();
            let hard = Quantity::from_value(hard).unwrap_or_default();
            let side = if name.starts_with("limits.") { &mut limits } else { &mut requests };
            side.push(format!("{name}: {used}/{hard}"));
        }
        vec![table::name(object), requests.join(", ").into(), limits.join(", ").into(), age::of(object, now).into()]
    }
}

fn spec_rules(spec: &Value, errors: &mut Errors) {
    let path = Path::of("spec");
    amounts(spec, "hard", &path, errors);
    scopes(spec, &path.child("scopes"), errors);
    if has(spec, "scopeSelector") {
        let path = path.child("scopeSelector");
        scope_selector(spec, &path.child("matchExpressions"), errors);
    }
}

fn amounts(holder: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child(field);
    for (name, amount) in entries(holder, field) {
        let path = path.key(name);
        resources::any_name(name, &path, errors);
        if !name.contains('/') && !is_counted(name) {
            errors.invalid(&path, name, "must be a standard resource for quota");
        }
        resources::quantity(name, amount, &path, errors);
    }
}

/// Whether quotas know the resource by itself.
fn is_counted(name: &str) -> bool {
    name != "storage" && resources::is_standard(name)
}

fn scopes(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let all: Vec<_> = list(spec, "scopes").iter().filter_map(Value::as_str).collect();
    for scope in &all {
        if !SCOPES.contains(scope) {
            errors.invalid(path, shown_scopes(spec), "unsupported scope");
        }
        for _ in misfits(spec, scope) {
            errors.invalid(path, shown_scopes(spec), "unsupported scope applied to resource");
        }
    }
    opposites(spec, &all, path, errors);
}

fn opposites(spec: &Value, scopes: &[&str], path: &Path<'_>, errors: &mut Errors) {
    for _ in OPPOSITES.iter().filter(|pair| pair.iter().all(|one| scopes.contains(one))) {
        errors.invalid(path, shown_scopes(spec), "conflicting scopes");
    }
}

/// The list of scopes as Kubernetes shows it: null when there is none.
fn shown_scopes(spec: &Value) -> Value {
    get(spec, "scopes").clone()
}

/// The resources of the quota that the scope does not go with.
fn misfits<'v>(spec: &'v Value, scope: &str) -> impl Iterator<Item = &'v str> {
    let fits: fn(&str) -> bool = match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            |name| name == "pods" || COMPUTE.contains(&name)
        }
        "BestEffort" => |name| name == "pods",
        "VolumeAttributesClass" => |name| ["persistentvolumeclaims", "requests.storage"].contains(&name),
        _ => |_| true,
    };
    entries(spec, "hard").map(|(name, _)| name).filter(move |name| is_counted(name) && !fits(name))
}

fn scope_selector(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let selector = get(spec, "scopeSelector");
    let expressions = list(selector, "matchExpressions");
    for expression in expressions {
        let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for _ in misfits(spec, scope) {
            let shown = shown::internal("ScopeSelector", selector);
            errors.invalid_object(path, shown, "unsupported scope applied to resource");
        }
        let by_value = ["PriorityClass", "VolumeAttributesClass"].contains(&scope) || !SCOPES.contains(&scope);
        if !by_value && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), operator, detail);
        }
        let values = get(expression, "values");
        match operator {
            "In" | "NotIn" if list(expression, "values").is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), detail);
            }
            "Exists" | "DoesNotExist" if !list(expression, "values").is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), values.clone(), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
    }
    let names: Vec<_> = expressions.iter().map(|expression| text(expression, "scopeName")).collect();
    opposites(spec, &names, path, errors);
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    fn quota(spec: &str) -> String {
        format!("{{apiVersion: v1, kind: ResourceQuota, metadata: {{name: q, namespace: n}}, spec: {{{spec}}}}}")
    }

    #[test]
    fn only_what_can_be_counted_is_counted() {
        check_valid(&quota(
            "hard: {pods: 10, requests.cpu: 1, count/jobs.batch: 4, example.org/gpu: 2, hugepages-2Mi: 2Mi}",
        ));
        check_invalid(
            &quota("hard: {bogus: 1, pods: 1500m, storage: 1Gi}"),
            &[
                "spec.hard[bogus]: Invalid value: \"bogus\": must be a standard resource type or fully qualified",
                "spec.hard[bogus]: Invalid value: \"bogus\": must be a standard resource for quota",
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
                "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
            ],
        );
    }

    #[test]
    fn scopes_go_with_resources_and_each_other() {
        check_invalid(
            &quota("hard: {secrets: 1}, scopes: [BestEffort, NotBestEffort, Odd]"),
            &[
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Odd\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Odd\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Odd\"]: unsupported scope",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\",\"Odd\"]: conflicting scopes",
            ],
        );
        check_valid(&quota(
            "hard: {pods: 1}, scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [high]}]}",
        ));
        check_invalid(
            &quota(
                "hard: {services: 1}, scopeSelector: {matchExpressions: [{scopeName: BestEffort, operator: In, values: [a]}, {scopeName: PriorityClass, operator: Is}]}",
            ),
            &[
                "spec.scopeSelector.matchExpressions: Invalid value: {\"MatchExpressions\":[{\"ScopeName\":\"BestEffort\",\"Operator\":\"In\",\"Values\":[\"a\"]},{\"ScopeName\":\"PriorityClass\",\"Operator\":\"Is\",\"Values\":null}]}: unsupported scope applied to resource",
                "spec.scopeSelector.matchExpressions.operator: Invalid value: \"In\": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
                "spec.scopeSelector.matchExpressions: Invalid value: {\"MatchExpressions\":[{\"ScopeName\":\"BestEffort\",\"Operator\":\"In\",\"Values\":[\"a\"]},{\"ScopeName\":\"PriorityClass\",\"Operator\":\"Is\",\"Values\":null}]}: unsupported scope applied to resource",
                "spec.scopeSelector.matchExpressions.operator: Invalid value: \"Is\": not a valid selector operator",
            ],
        );
    }

    #[test]
    fn scopes_stay_and_amounts_may_change() {
        let plain = quota("hard: {pods: 1}, scopes: [BestEffort]");
        check_update(&plain, |object| object["spec"]["hard"]["pods"] = json!("2"), &[]);
        check_update(
            &plain,
            |object| object["spec"]["scopes"] = json!(["Terminating"]),
            &["spec.scopes: Invalid value: [\"Terminating\"]: field is immutable"],
        );
    }

    #[test]
    fn requests_above_limits_are_warned_of() {
        check_warned(
            &quota("hard: {cpu: 3, limits.cpu: 2, requests.memory: 1Gi, limits.memory: 2Gi}"),
            &["ResourceQuota cpu (3) should be less than limits.cpu (2)"],
        );
    }

    #[test]
    fn a_row_shows_what_is_used() {
        assert_eq!(
            row(
                "{apiVersion: v1, kind: ResourceQuota, metadata: {name: q, creationTimestamp: '2026-01-01T00:50:00Z'}, status: {hard: {pods: 10, limits.cpu: 2, cpu: 1}, used: {pods: 3}}}"
            ),
            "q | cpu: 0/1, pods: 3/10 | limits.cpu: 0/2 | 10m"
        );
    }
}
