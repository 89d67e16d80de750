//! PriorityClass: a name for a number, by which pods are ranked.
//!
//! Source: `pkg/apis/scheduling` of Kubernetes v1.36.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use reeve_api::names;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{flag, get, int, set_absent, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

/// Highest value a class that is not the system's own may have.
const HIGHEST_USER_VALUE: i64 = 1_000_000_000;
const SYSTEM_PREFIX: &str = "system-";

/// The classes that Kubernetes itself brings: name, value, description.
const SYSTEM: &[(&str, i64, &str)] = &[
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// The classes that every cluster has, as objects to be created.
#[must_use]
pub fn system_classes() -> Vec<Value> {
    let class = |(name, value, description): &(&str, i64, &str)| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "description": description,
        })
    };
    SYSTEM.iter().map(class).collect()
}

const NAMES: Names = Names {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short: &["pc"],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number(
        "Value",
        "value represents the integer value of this priority class. This is the actual priority that pods receive when they have the name of this class in their pod spec.",
    ),
    table::any(
        "Global-Default",
        "boolean",
        "",
        "globalDefault specifies whether this PriorityClass should be considered as the default priority for pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the smallest value of such global default PriorityClasses will be used as the default priority.",
        0,
    ),
    table::AGE,
    table::column(
        "PreemptionPolicy",
        "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
    ),
];

/// The kind.
pub(super) struct PriorityClasses;

impl Kind for PriorityClasses {
    wiring!(PriorityClass, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        set_absent(object, "value", 0);
        set_absent(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn prepare_create(&self, object: &mut Value) {
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        let (name, value) = (text_at(object, &["metadata", "name"]), int(object, "value").unwrap_or_default());
        if name.starts_with(SYSTEM_PREFIX) {
            if let Some(why) = not_of_the_system(name, value, flag(object, "globalDefault")) {
                let detail = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
                );
                errors.forbidden(&Path::of("metadata").child("name"), detail);
            }
        } else if value > HIGHEST_USER_VALUE {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_VALUE}");
            errors.forbidden(&Path::of("value"), detail);
        }
        let policy = text(object, "preemptionPolicy");
        errors.one_of(&Path::of("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        if get(object, "value") != get(old, "value") {
            errors.forbidden(&Path::of("value"), "may not be changed in an update.");
        }
        let policy = |object| get(object, "preemptionPolicy");
        errors.immutable(&Path::of("preemptionPolicy"), policy(object), policy(old));
        errors.into_vec()
    }

    fn undeletable(&self, name: &str) -> Option<&'static str> {
        let ours = SYSTEM.iter().any(|(own, ..)| *own == name);
        ours.then_some("this is a system priority class and cannot be deleted")
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            table::name(object),
            int(object, "value").unwrap_or_default().into(),
            flag(object, "globalDefault").into(),
            age::of(object, now).into(),
            text(object, "preemptionPolicy").into(),
        ]
    }
}

/// Why a class with the system's prefix is none of the system's classes.
fn not_of_the_system(name: &str, value: i64, global: bool) -> Option<String> {
    let Some((_, wanted, _)) = SYSTEM.iter().find(|(own, ..)| *own == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if value != *wanted {
        return Some(format!("value of {name} PriorityClass must be {wanted}"));
    }
    global.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    const PLAIN: &str = "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: gold}, value: 7}";

    #[test]
    fn a_class_may_preempt_unless_it_says_otherwise() {
        check_created(
            PLAIN,
            "{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: gold, generation: 1}, value: 7, preemptionPolicy: PreemptLowerPriority}",
        );
        assert_eq!(created(&PLAIN.replace(", value: 7", ""))["value"], 0);
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "gold | 7 | false | <unknown> | ");
    }

    #[test]
    fn names_and_values_of_the_system_are_its_own() {
        for class in system_classes() {
            check_valid(&class.to_string());
        }
        check_invalid(
            &PLAIN.replace("gold", "system-gold"),
            &[
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-gold is not a known system priority class",
            ],
        );
        check_invalid(
            &PLAIN.replace("gold", "system-node-critical"),
            &[
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000",
            ],
        );
        check_invalid(
            &PLAIN.replace("value: 7", "value: 1000000001, preemptionPolicy: Maybe"),
            &[
                "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
                "preemptionPolicy: Unsupported value: \"Maybe\": supported values: \"PreemptLowerPriority\", \"Never\"",
            ],
        );
        assert!(PriorityClasses.undeletable("system-cluster-critical").is_some());
        assert!(PriorityClasses.undeletable("gold").is_none());
    }

    #[test]
    fn value_and_policy_stay() {
        check_update(
            PLAIN,
            |new| {
                new["value"] = json!(8);
                new["preemptionPolicy"] = json!("Never");
                new["description"] = json!("changed");
            },
            &[
                "value: Forbidden: may not be changed in an update.",
                "preemptionPolicy: Invalid value: \"Never\": field is immutable",
            ],
        );
    }
}
