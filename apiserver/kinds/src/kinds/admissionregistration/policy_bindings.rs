//! MutatingAdmissionPolicyBinding and ValidatingAdmissionPolicyBinding: where a policy holds, and with which
//! parameters.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBinding};
use reeve_api::names;
use serde_json::{Value, json};

use super::{next_generation, param_ref, reserved_name, rules};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, has, object_mut, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const MUTATING: Names =
    super::names("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding");
const VALIDATING: Names = super::names(
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybindings",
    "validatingadmissionpolicybinding",
);

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("PolicyName", "PolicyName indicates the policy definition which the policy binding binded to"),
    table::column("ParamRef", "ParamRef indicates the param resource which sets the configuration param"),
    table::AGE,
];

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
const NOT_FOUND_ACTIONS: &[&str] = &["Deny", "Allow"];

/// The kind that binds policies which change objects.
pub(super) struct MutatingAdmissionPolicyBindings;

/// The kind that binds policies which say yes or no.
pub(super) struct ValidatingAdmissionPolicyBindings;

/// The methods of both kinds.
macro_rules! binding {
    ($kind:ty, $type:ty, $names:expr, $rules:expr) => {
        impl Kind for $kind {
            wiring!($type, $names, COLUMNS);

            fn default(&self, object: &mut Value) {
                self.shape().fill(object);
                rules::default_match_resources(object_mut(object, "spec"), "matchResources");
            }

            fn prepare_create(&self, object: &mut Value) {
                meta::first_generation(object);
            }

            fn validate_create(&self, object: &Value) -> Vec<FieldError> {
                let mut errors = Errors::default();
                META.create(object, &mut errors);
                $rules(get(object, "spec"), &mut errors);
                errors.into_vec()
            }

            fn prepare_update(&self, _part: Part, object: &mut Value, old: &Value) {
                next_generation(object, old, "spec");
            }

            fn validate_update(&self, _part: Part, object: &Value, _old: &Value) -> Vec<FieldError> {
                let mut errors = Errors::default();
                META.create(object, &mut errors);
                $rules(get(object, "spec"), &mut errors);
                errors.into_vec()
            }

            fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
                reserved_name(object)
            }

            fn unconditional_update(&self) -> bool {
                false
            }

            fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
                let policy = text_at(object, &["spec", "policyName"]);
                vec![table::name(object), policy.into(), param_ref(object), age::of(object, now).into()]
            }
        }
    };
}

binding!(MutatingAdmissionPolicyBindings, MutatingAdmissionPolicyBinding, MUTATING, mutating_rules);
binding!(ValidatingAdmissionPolicyBindings, ValidatingAdmissionPolicyBinding, VALIDATING, validating_rules);

fn common_rules(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let policy = text(spec, "policyName");
    if policy.is_empty() {
        errors.required(&path.child("policyName"), "");
    } else {
        errors.invalid_each(&path.child("policyName"), policy, names::dns1123_subdomain(policy));
    }
    reference(get(spec, "paramRef"), &path.child("paramRef"), errors);
    rules::match_resources(get(spec, "matchResources"), &path.child("matchResources"), errors);
}

fn mutating_rules(spec: &Value, errors: &mut Errors) {
    let path = Path::of("spec");
    common_rules(spec, &path, errors);
    rules::mutating_operations(get(spec, "matchResources"), &path.child("matchResources"), errors);
}

fn validating_rules(spec: &Value, errors: &mut Errors) {
    let path = Path::of("spec");
    common_rules(spec, &path, errors);
    let (actions, path) = (rules::texts(spec, "validationActions"), path.child("validationActions"));
    let mut seen = BTreeSet::new();
    for (index, action) in actions.iter().enumerate() {
        if !ACTIONS.contains(action) {
            errors.unsupported(&path.index(index), action, ACTIONS);
        }
        if !seen.insert(*action) {
            errors.duplicate(&path.index(index), *action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(&path, json!(actions), why);
    }
    if actions.is_empty() {
        errors.required(&path, "at least one validation action is required");
    }
}

fn reference(reference: &Value, path: &Path<'_>, errors: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    if reference.is_null() {
        return;
    }
    let (name, has_selector) = (text(reference, "name"), has(reference, "selector"));
    if !name.is_empty() {
        errors.invalid_each(&path.child("name"), name, meta::path_segment(name));
        if has_selector {
            errors.forbidden(&path.child("name"), EXCLUSIVE);
        }
    }
    if has_selector {
        meta::label_selector(get(reference, "selector"), &path.child("selector"), errors);
        if !name.is_empty() {
            errors.forbidden(&path.child("selector"), EXCLUSIVE);
        }
    }
    if name.is_empty() && !has_selector {
        errors.required(path, "one of name or selector must be specified");
    }
    let action = text(reference, "parameterNotFoundAction");
    errors.one_of(&path.child("parameterNotFoundAction"), action, NOT_FOUND_ACTIONS);
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    const PLAIN: &str = "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding,
        metadata: {name: a}, spec: {policyName: p, validationActions: [Deny],
        paramRef: {name: x, parameterNotFoundAction: Deny}, matchResources: {}}}";

    #[test]
    fn a_binding_is_about_everybody_its_policy_is_about() {
        check_valid(PLAIN);
        assert_eq!(created(PLAIN)["spec"]["matchResources"]["matchPolicy"], "Equivalent");
        assert_eq!(row(PLAIN), "a | p | */x | <unknown>");
        let selector = "selector: {matchLabels: {app: a}, matchExpressions: [{key: k, operator: In, values: [x, y]}]}";
        let shown = "&LabelSelector{MatchLabels:map[string]string{app: a,},MatchExpressions:\
                     []LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}";
        let selecting = PLAIN.replace("name: x", &format!("namespace: n, {selector}"));
        assert_eq!(row(&selecting), format!("a | p | {shown} | <unknown>"));
    }

    #[test]
    fn actions_and_parameters_make_sense() {
        check_invalid(
            &PLAIN.replace("[Deny]", "[Deny, Warn, Shout]").replace("{name: x, ", "{name: x, selector: {}, "),
            &[
                "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                "spec.validationActions[2]: Unsupported value: \"Shout\": supported values: \"Audit\", \"Deny\", \"Warn\"",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Shout\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
            ],
        );
        let mutating = PLAIN.replace("Validating", "Mutating").replace("validationActions: [Deny],", "");
        check_valid(&mutating);
        check_invalid(
            &mutating.replace("policyName: p,", "").replace("name: x, parameterNotFoundAction: Deny", ""),
            &[
                "spec.policyName: Required value",
                "spec.paramRef: Required value: one of name or selector must be specified",
                "spec.paramRef.parameterNotFoundAction: Required value",
            ],
        );
    }
}
