//! PodDisruptionBudget: how many pods of an application may be missing at once when others want them gone.

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{copy_field, get, has, int, object_mut, set, set_default};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, int_or_percent, shown, table};

const NAMES: Names = Names {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short: &["pdb"],
    categories: &[],
    namespaced: true,
};

/// Kubernetes looks at nothing but what every name must be.
const META: MetaRules = MetaRules { namespaced: true, name: meta::path_segment };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Min Available", "The minimum number of pods that must be available."),
    table::column("Max Unavailable", "The maximum number of pods that may be unavailable."),
    table::number("Allowed Disruptions", "Calculated number of pods that may be disrupted at this time."),
    table::AGE,
];

/// What is counted in the status and always there.
const COUNTERS: [&str; 4] = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];

/// The kind.
pub(super) struct DisruptionBudgets;

impl Kind for DisruptionBudgets {
    wiring!(PodDisruptionBudget, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        object_mut(object, "spec");
        let status = object_mut(object, "status");
        for counter in COUNTERS {
            set_default(status, counter, 0);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        let status = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
        set(object, "status", status);
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        spec_rules(get(object, "spec"), &mut errors);
        if errors.count() == 0 {
            META.create_plain(object, &mut errors);
        }
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        copy_field(object, old, if part == Part::Main { "status" } else { "spec" });
        meta::next_generation(object, old);
    }

    fn validate_update(&self, part: Part, object: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        if part == Part::Main {
            spec_rules(get(object, "spec"), &mut errors);
        } else {
            let (status, path) = (get(object, "status"), Path::of("status"));
            meta::conditions(status, &path.child("conditions"), &mut errors);
            for counter in COUNTERS {
                errors.not_negative(&path.child(counter), int(status, counter));
            }
        }
        errors.into_vec()
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (get(object, "spec"), get(object, "status"));
        let amount = |field: &str| match get(spec, field) {
            Value::Null => Value::from("N/A"),
            Value::String(text) => text.as_str().into(),
            number => number.to_string().into(),
        };
        vec![
            table::name(object),
            amount("minAvailable"),
            amount("maxUnavailable"),
            int(status, "disruptionsAllowed").unwrap_or_default().into(),
            age::of(object, now).into(),
        ]
    }
}

fn spec_rules(spec: &Value, errors: &mut Errors) {
    let path = Path::of("spec");
    let amounts = ["minAvailable", "maxUnavailable"];
    if amounts.iter().all(|field| has(spec, field)) {
        let shown = shown::internal("PodDisruptionBudgetSpec", spec);
        errors.invalid_object(&path, shown, "minAvailable and maxUnavailable cannot be both set");
    }
    for field in amounts.into_iter().filter(|field| has(spec, field)) {
        let (amount, path) = (get(spec, field), path.child(field));
        int_or_percent::rules(amount, &path, errors);
        int_or_percent::at_most_all(amount, &path, errors);
    }
    meta::label_selector(get(spec, "selector"), &path.child("selector"), errors);
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    let policy = get(spec, "unhealthyPodEvictionPolicy").as_str();
    if let Some(policy) = policy.filter(|policy| !policies.contains(policy)) {
        errors.unsupported(&path.child("unhealthyPodEvictionPolicy"), policy, &policies);
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    fn budget(spec: &str) -> String {
        format!(
            "{{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {{name: b, namespace: n}}, spec: {{selector: {{matchLabels: {{a: b}}}}{spec}}}}}"
        )
    }

    #[test]
    fn a_budget_names_the_least_or_the_most() {
        check_valid(&budget(", minAvailable: 50%"));
        check_invalid(
            &budget(", minAvailable: 1, maxUnavailable: 120%, unhealthyPodEvictionPolicy: Never"),
            &[
                "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":{\"matchLabels\":{\"a\":\"b\"}},\"MaxUnavailable\":\"120%\",\"UnhealthyPodEvictionPolicy\":\"Never\"}: minAvailable and maxUnavailable cannot be both set",
                "spec.maxUnavailable: Invalid value: \"120%\": must not be greater than 100%",
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Never\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ],
        );
    }

    #[test]
    fn changes_of_the_spec_are_counted_and_the_status_is_kept() {
        let (new, errors) = updated(Part::Main, &budget(""), |object| {
            object["spec"]["minAvailable"] = json!(2);
            object["status"]["currentHealthy"] = json!(7);
        });
        assert_eq!((&new["metadata"]["generation"], errors), (&json!(2), vec![]));
        assert_eq!(new["status"]["currentHealthy"], 0);
        let (_, errors) = updated(Part::Status, &budget(""), |object| object["status"]["expectedPods"] = json!(-1));
        assert_eq!(errors, ["status.expectedPods: Invalid value: -1: must be greater than or equal to 0"]);
    }

    #[test]
    fn a_row_shows_what_may_be_missing() {
        let shown = row(
            "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: b, creationTimestamp: '2026-01-01T00:50:00Z'}, spec: {minAvailable: 50%}, status: {disruptionsAllowed: 2}}",
        );
        assert_eq!(shown, "b | 50% | N/A | 2 | 10m");
    }
}
