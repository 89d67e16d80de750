//! MutatingAdmissionPolicy: changes of one's own, in CEL.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy;
use reeve_api::names;
use serde_json::Value;

use super::{next_generation, param_kind, reserved_name, rules};
use crate::errors::Errors;
use crate::expressions::{Compiler, Gives};
use crate::field::FieldError;
use crate::json::{get, has, list, object_mut, set_absent, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = super::names("MutatingAdmissionPolicy", "mutatingadmissionpolicies", "mutatingadmissionpolicy");

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number("Mutations", "Mutation indicates the number of mutations rules defined in this configuration"),
    table::column("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
    table::AGE,
];

const PATCH_TYPES: &[&str] = &["ApplyConfiguration", "JSONPatch"];

/// The kind.
pub(super) struct MutatingAdmissionPolicies;

impl Kind for MutatingAdmissionPolicies {
    wiring!(MutatingAdmissionPolicy, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let spec = object_mut(object, "spec");
        set_absent(spec, "failurePolicy", "Fail");
        rules::default_match_resources(spec, "matchConstraints");
    }

    fn prepare_create(&self, object: &mut Value) {
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        spec_rules(get(object, "spec"), None, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, object: &mut Value, old: &Value) {
        next_generation(object, old, "spec");
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        spec_rules(get(object, "spec"), Some(get(old, "spec")), &mut errors);
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        reserved_name(object)
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mutations = list(get(object, "spec"), "mutations").len();
        vec![table::name(object), mutations.into(), param_kind(object), age::of(object, now).into()]
    }
}

fn spec_rules(spec: &Value, old: Option<&Value>, errors: &mut Errors) {
    let path = Path::of("spec");
    errors.one_of(&path.child("failurePolicy"), text(spec, "failurePolicy"), rules::FAILURE_POLICIES);
    rules::param_kind(get(spec, "paramKind"), &path.child("paramKind"), errors);
    rules::match_constraints(spec, &path, errors);
    rules::mutating_operations(get(spec, "matchConstraints"), &path.child("matchConstraints"), errors);
    if !rules::same_conditions(spec, old) {
        rules::match_conditions(spec, has(spec, "paramKind"), &path, errors);
    }
    let mut compiler = Compiler::with_variables(has(spec, "paramKind"));
    rules::variables(spec, &mut compiler, &path, errors);
    let (mutations, here) = (list(spec, "mutations"), path.child("mutations"));
    if mutations.is_empty() {
        errors.required(&here, "mutations must contain at least one item");
    }
    for (index, one) in mutations.iter().enumerate() {
        mutation(one, &compiler, &here.index(index), errors);
    }
    let policy = text(spec, "reinvocationPolicy");
    errors.one_of(&path.child("reinvocationPolicy"), policy, rules::REINVOCATION_POLICIES);
}

fn mutation(mutation: &Value, compiler: &Compiler, path: &Path<'_>, errors: &mut Errors) {
    let (patch_type, gives, own, other) = match text(mutation, "patchType") {
        "JSONPatch" => ("JSONPatch", Gives::JsonPatch, "jsonPatch", "applyConfiguration"),
        "ApplyConfiguration" => ("ApplyConfiguration", Gives::ApplyConfiguration, "applyConfiguration", "jsonPatch"),
        none_or_unknown => return errors.one_of(&path.child("patchType"), none_or_unknown, PATCH_TYPES),
    };
    let here = path.child(own);
    if has(mutation, own) {
        let (written, here) = (text(get(mutation, own), "expression").trim(), here.child("expression"));
        if written.is_empty() {
            errors.required(&here, "");
        } else {
            rules::compile(compiler, written, gives, written, &here, errors);
        }
    } else {
        errors.required(&here, format!("must be specified when patchType is {patch_type}"));
    }
    if has(mutation, other) {
        let why = format!("must not be specified when patchType is {patch_type}");
        errors.invalid(&path.child(other), format!("{{{other}}}"), why);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    const PLAIN: &str = "{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingAdmissionPolicy,
        metadata: {name: a}, spec: {reinvocationPolicy: Never, matchConstraints: {resourceRules:
        [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]},
        mutations: [{patchType: JSONPatch, jsonPatch: {expression: 'object.x ? [JSONPatch{op: \"remove\", path: \"/x\"}] : []'}}]}}";

    #[test]
    fn a_policy_that_changes_objects_is_valid_and_counted() {
        check_valid(PLAIN);
        check_invalid(
            &PLAIN.replace("object.x ?", "object.x; ?").replace("Never", "IfNeeded"),
            &[
                "spec.mutations[0].jsonPatch.expression: Invalid value: \"object.x; ? [JSONPatch{op: \\\"remove\\\", path: \\\"/x\\\"}] : []\": compilation failed: ERROR: <input>:1:9: Syntax error: token recognition error at: ';'\n | object.x; ? [JSONPatch{op: \"remove\", path: \"/x\"}] : []\n | ........^",
            ],
        );
        assert_eq!(row(PLAIN), "a | 1 | <unset> | <unknown>");
    }

    #[test]
    fn deletions_change_nothing_and_each_mutation_is_of_one_type() {
        check_invalid(
            &PLAIN
                .replace("[CREATE]", "[CREATE, DELETE]")
                .replace("jsonPatch: {expression", "applyConfiguration: {expression")
                .replace("reinvocationPolicy: Never, ", ""),
            &[
                "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
                "spec.reinvocationPolicy: Required value",
            ],
        );
    }
}
