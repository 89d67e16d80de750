//! Policies and bindings, compiled.

use reeve_kinds::expressions::{Compiler, Gives, Refused};
use serde_json::Value;

use super::conditions::Conditions;
use super::input::{Expression, Named};
use super::params::{ParamKind, ParamRef};
use crate::admission::matching::Criteria;
use crate::registry::meta;

/// What both kinds of policies have.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) name: String,
    pub(super) about: Criteria,
    pub(super) param_kind: Option<ParamKind>,
    pub(super) conditions: Conditions,
    pub(super) variables: Named,
    /// Whether what goes wrong is passed over (`failurePolicy: Ignore`).
    pub(super) ignores_failures: bool,
}

/// A policy that says yes or no.
#[derive(Debug)]
pub(super) struct Validating {
    pub(super) common: Common,
    pub(super) validations: Vec<Validation>,
    /// Expressions whose values are for the audit log, by their keys; what goes wrong with them refuses a request.
    pub(super) annotations: Vec<(String, Expression)>,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message: String,
    pub(super) message_expression: Option<Expression>,
    pub(super) reason: String,
}

/// A policy that changes objects.
#[derive(Debug)]
pub(super) struct Mutating {
    pub(super) common: Common,
    pub(super) mutations: Vec<Mutation>,
    /// Whether it is asked again when others changed the object after it.
    pub(super) again: bool,
}

/// One change.
#[derive(Debug)]
pub(super) struct Mutation {
    pub(super) expression: Expression,
    /// Whether it gives JSON patch operations; else it gives an object that is merged.
    pub(super) is_json_patch: bool,
}

/// Where a policy holds.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    /// None is everywhere.
    pub(super) about: Option<Criteria>,
    pub(super) params: Option<ParamRef>,
    pub(super) actions: Vec<String>,
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn items<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    value[field].as_array().into_iter().flatten()
}

fn expression(text: &str, compiled: Result<reeve_cel::Program, Refused>) -> Expression {
    Expression { text: text.to_owned(), program: compiled.map_err(|refused| refused.to_string()) }
}

/// What both kinds have, and the compiler that knows the variables.
fn common(object: &Value) -> (Common, Compiler) {
    let spec = &object["spec"];
    let param_kind = ParamKind::read(spec);
    let mut compiler = Compiler::with_variables(param_kind.is_some());
    let mut variables = Named::new();
    for variable in items(spec, "variables") {
        let (name, written) = (text(variable, "name"), text(variable, "expression"));
        let compiled = compiler.variable(&name, &written);
        variables.insert(name, expression(&written, compiled));
    }
    let common = Common {
        name: meta::text(object, "name").to_owned(),
        about: Criteria::of_resources(&spec["matchConstraints"]),
        param_kind,
        conditions: Conditions::compile(&compiler, spec),
        variables,
        ignores_failures: spec["failurePolicy"] == "Ignore",
    };
    (common, compiler)
}

impl Validating {
    pub(super) fn compile(object: &Value) -> Self {
        let (common, compiler) = common(object);
        let compile = |written: &str, gives| expression(written, compiler.compile(written, gives));
        let validation = |validation: &Value| {
            let message = text(validation, "messageExpression");
            Validation {
                expression: compile(&text(validation, "expression"), Gives::Truth),
                message: text(validation, "message"),
                message_expression: (!message.is_empty()).then(|| compile(&message, Gives::Message)),
                reason: text(validation, "reason"),
            }
        };
        let annotation = |one: &Value| {
            let written = text(one, "valueExpression");
            (text(one, "key"), compile(&written, Gives::Annotation))
        };
        let spec = &object["spec"];
        let validations = items(spec, "validations").map(validation).collect();
        let annotations = items(spec, "auditAnnotations").map(annotation).collect();
        Self { common, validations, annotations }
    }
}

impl Mutating {
    pub(super) fn compile(object: &Value) -> Self {
        let (common, compiler) = common(object);
        let mutation = |mutation: &Value| {
            let is_json_patch = mutation["patchType"] == "JSONPatch";
            let (field, gives) = match is_json_patch {
                true => ("jsonPatch", Gives::JsonPatch),
                false => ("applyConfiguration", Gives::ApplyConfiguration),
            };
            let written = text(&mutation[field], "expression");
            Mutation { expression: expression(&written, compiler.compile(&written, gives)), is_json_patch }
        };
        let mutations = items(&object["spec"], "mutations").map(mutation).collect();
        Self { common, mutations, again: object["spec"]["reinvocationPolicy"] == "IfNeeded" }
    }
}

impl Binding {
    pub(super) fn read(object: &Value) -> Self {
        let spec = &object["spec"];
        let about = spec.get("matchResources").filter(|about| about.is_object());
        Self {
            name: meta::text(object, "name").to_owned(),
            policy: text(spec, "policyName"),
            about: about.map(Criteria::of_resources),
            params: ParamRef::read(spec),
            actions: items(spec, "validationActions").filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }
}
