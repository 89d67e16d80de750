//! ValidatingAdmissionPolicy: rules of one's own, in CEL.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use reeve_api::names;
use serde_json::Value;

use super::{next_generation, param_kind, reserved_name, rules};
use crate::errors::Errors;
use crate::expressions::{Compiler, Gives};
use crate::field::FieldError;
use crate::json::{at, copy_field, get, has, int, list, object_mut, set, set_absent, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const NAMES: Names =
    super::names("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "validatingadmissionpolicy");

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number("Validations", "Validations indicates the number of validation rules defined in this configuration"),
    table::column("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy"),
    table::AGE,
];

const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_BYTES_MAX: usize = 5 * 1024;
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const CONDITION_STATUSES: &[&str] = &["False", "True", "Unknown"];
const REASON_LEN_MAX: usize = 1024;
const MESSAGE_LEN_MAX: usize = 32 * 1024;

/// The kind.
pub(super) struct ValidatingAdmissionPolicies;

impl Kind for ValidatingAdmissionPolicies {
    wiring!(ValidatingAdmissionPolicy, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let spec = object_mut(object, "spec");
        set_absent(spec, "failurePolicy", "Fail");
        rules::default_match_resources(spec, "matchConstraints");
        object_mut(object, "status");
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", serde_json::json!({}));
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        spec_rules(object, None, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        copy_field(object, old, if part == Part::Status { "spec" } else { "status" });
        if part == Part::Status {
            meta::reset_for_status(object, old);
        }
        next_generation(object, old, "spec");
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        if part == Part::Status {
            status_rules(get(object, "status"), &mut errors);
        } else {
            META.create(object, &mut errors);
            spec_rules(object, Some(get(old, "spec")), &mut errors);
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        reserved_name(object)
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let validations = list(get(object, "spec"), "validations").len();
        vec![table::name(object), validations.into(), param_kind(object), age::of(object, now).into()]
    }
}

fn spec_rules(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    errors.one_of(&path.child("failurePolicy"), text(spec, "failurePolicy"), rules::FAILURE_POLICIES);
    rules::param_kind(get(spec, "paramKind"), &path.child("paramKind"), errors);
    rules::match_constraints(spec, &path, errors);
    if !rules::same_conditions(spec, old) {
        rules::match_conditions(spec, has(spec, "paramKind"), &path, errors);
    }
    let has_params = has(spec, "paramKind");
    let mut compiler = match list(spec, "variables") {
        [] => Compiler::new(has_params),
        _ => Compiler::with_variables(has_params),
    };
    rules::variables(spec, &mut compiler, &path, errors);
    let (validations, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        for field in ["validations", "auditAnnotations"] {
            errors.required(&path.child(field), "validations or auditAnnotations must contain at least one item");
        }
        return;
    }
    let here = path.child("validations");
    for (index, one) in validations.iter().enumerate() {
        validation(one, &compiler, &here.index(index), errors);
    }
    audit_annotations(object, &compiler, &path.child("auditAnnotations"), errors);
}

fn validation(validation: &Value, compiler: &Compiler, path: &Path<'_>, errors: &mut Errors) {
    let (written, here) = (text(validation, "expression"), path.child("expression"));
    if written.trim().is_empty() {
        errors.required(&here, "expression is not specified");
    } else {
        rules::compile(compiler, written, Gives::Truth, written, &here, errors);
    }
    let (written, here) = (text(validation, "messageExpression"), path.child("messageExpression"));
    if !written.is_empty() {
        if written.trim().is_empty() {
            errors.invalid(&here, written, "must be non-empty if specified");
        } else {
            rules::compile(compiler, written, Gives::Message, written, &here, errors);
        }
    }
    let (message, here) = (text(validation, "message"), path.child("message"));
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&here, message, "must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(&here, message, "must not contain line breaks");
    }
    rules::choice(validation, "reason", REASONS, path, errors);
}

fn audit_annotations(object: &Value, compiler: &Compiler, path: &Path<'_>, errors: &mut Errors) {
    let spec = get(object, "spec");
    let (all, name) = (list(spec, "auditAnnotations"), text_at(object, &["metadata", "name"]));
    let mut seen = BTreeSet::new();
    if all.len() > ANNOTATIONS_MAX {
        let why = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.invalid(path, all.to_vec(), why);
    }
    for (index, annotation) in all.iter().enumerate() {
        let path = path.index(index);
        let (key, here) = (text(annotation, "key"), path.child("key"));
        if name.is_empty() {
            errors.invalid(&here, key, "requires metadata.name be non-empty");
        } else {
            let whole = format!("{name}/{key}");
            errors.invalid_each(&here, &whole, names::qualified_name(&whole));
        }
        let (written, value) = (text(annotation, "valueExpression"), path.child("valueExpression"));
        match written.trim() {
            "" => errors.required(&value, "valueExpression is not specified"),
            long if long.len() > ANNOTATION_BYTES_MAX => {
                errors.required(&value, format!("must not exceed {ANNOTATION_BYTES_MAX} bytes in length"));
            }
            trimmed => rules::compile(compiler, trimmed, Gives::Annotation, written, &value, errors),
        }
        if !seen.insert(key) {
            errors.duplicate(&here, key);
        }
    }
}

fn status_rules(status: &Value, errors: &mut Errors) {
    let path = Path::of("status");
    let checked = path.child("typeChecking");
    let checked = checked.child("expressionWarnings");
    for (index, warning) in list(get(status, "typeChecking"), "expressionWarnings").iter().enumerate() {
        let path = checked.index(index);
        for field in ["warning", "fieldRef"] {
            if text(warning, field).trim().is_empty() {
                errors.required(&path.child(field), "");
            }
        }
    }
    let path = path.child("conditions");
    let mut seen = BTreeSet::new();
    for (index, condition) in list(status, "conditions").iter().enumerate() {
        let path = path.index(index);
        if !seen.insert(text(condition, "type")) {
            errors.duplicate(&path.child("type"), text(condition, "type"));
        }
        one_condition(condition, &path, errors);
    }
}

fn one_condition(condition: &Value, path: &Path<'_>, errors: &mut Errors) {
    meta::label_name(text(condition, "type"), &path.child("type"), errors);
    let status = text(condition, "status");
    if !CONDITION_STATUSES.contains(&status) {
        errors.unsupported(&path.child("status"), status, CONDITION_STATUSES);
    }
    if let Some(generation) = int(condition, "observedGeneration").filter(|generation| *generation < 0) {
        errors.invalid(&path.child("observedGeneration"), generation, "must be greater than or equal to zero");
    }
    if at(condition, &["lastTransitionTime"]).is_null() {
        errors.required(&path.child("lastTransitionTime"), "");
    }
    let (reason, here) = (text(condition, "reason"), path.child("reason"));
    if reason.is_empty() {
        errors.required(&here, "");
    } else if !is_reason(reason) {
        errors.invalid(
            &here,
            reason,
            "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')",
        );
    }
    if reason.len() > REASON_LEN_MAX {
        errors.too_long(&here, REASON_LEN_MAX);
    }
    if text(condition, "message").len() > MESSAGE_LEN_MAX {
        errors.too_long(&path.child("message"), MESSAGE_LEN_MAX);
    }
}

fn is_reason(reason: &str) -> bool {
    let inner = |one: char| one.is_ascii_alphanumeric() || "_,:".contains(one);
    reason.starts_with(|one: char| one.is_ascii_alphabetic())
        && reason.chars().all(inner)
        && reason.ends_with(|one: char| one.is_ascii_alphanumeric() || one == '_')
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    const PLAIN: &str = "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy,
        metadata: {name: a}, spec: {matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [''],
        apiVersions: [v1], resources: [pods]}]}, validations: [{expression: 'true'}]}}";

    #[test]
    fn a_policy_fails_closed_and_is_about_everybody() {
        let policy = created(PLAIN);
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
        assert_eq!(policy["spec"]["matchConstraints"]["matchPolicy"], "Equivalent");
        assert_eq!(policy["spec"]["matchConstraints"]["resourceRules"][0]["scope"], "*");
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "a | 1 | <unset> | <unknown>");
    }

    #[test]
    fn a_policy_says_what_it_is_about_and_what_it_demands() {
        check_invalid(
            "{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: a}}",
            &[
                "spec.matchConstraints: Required value",
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ],
        );
        check_invalid(
            &PLAIN.replace(
                "[{expression: 'true'}]",
                "[{expression: ' ', message: \"a\\nb\", reason: Gone}], variables: [{name: if, expression: '1'}],
                paramKind: {apiVersion: a/b/c}, matchConditions: [{name: a, expression: 'true'}, {name: a, expression: 'true'}]",
            ),
            &[
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "spec.paramKind.kind: Required value",
                "spec.matchConditions[1].name: Duplicate value: \"a\"",
                "spec.variables[0].name: Invalid value: \"if\": must be a valid CEL identifier",
                "spec.validations[0].expression: Required value: expression is not specified",
                "spec.validations[0].message: Invalid value: \"a\\nb\": must not contain line breaks",
                "spec.validations[0].reason: Unsupported value: \"Gone\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
            ],
        );
    }

    #[test]
    fn expressions_must_compile() {
        let more = "[{expression: 'variables.n > 1 && params.x == 1'}], paramKind: {apiVersion: v1, kind: ConfigMap},
            variables: [{name: n, expression: object.x}]";
        check_valid(&PLAIN.replace("[{expression: 'true'}]", more));
        check_invalid(
            &PLAIN.replace(
                "[{expression: 'true'}]",
                "[{expression: 'params', messageExpression: '1'}, {expression: \"object.x.find('[') == ''\"}],
                auditAnnotations: [{key: k, valueExpression: ' 1 '}], matchConditions: [{name: c, expression: ' 1 '}]",
            ),
            &[
                "spec.matchConditions[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
                "spec.validations[0].expression: Invalid value: \"params\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params\n | ^",
                "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string but got int",
                "spec.validations[1].expression: Internal error: program instantiation failed: error parsing regexp: missing closing ]: `[`",
                "spec.auditAnnotations[0].valueExpression: Invalid value: \" 1 \": must evaluate to one of [string null_type] but got int",
            ],
        );
    }
}
