//! What one policy, with one set of parameters, says about a request.

use reeve_cel::{BUDGET, Value as CelValue};
use serde_json::Value;

use super::compiled::{Validating, Validation};
use super::conditions::Matched;
use super::input::{Asker, Facts, Input, request};
use crate::admission::Attributes;
use crate::registry::Registry;

/// Longest message an expression may make, in bytes.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;

/// A rule that does not hold, or something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) message: String,
    /// Empty for the usual one, `Invalid`.
    pub(super) reason: String,
    /// Which rule of the policy it is.
    pub(super) index: usize,
}

impl Denial {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), reason: String::new(), index: 0 }
    }
}

/// What a policy finds wrong with a request, and what it wants noted.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What the binding's actions are about.
    pub(super) denials: Vec<Denial>,
    /// What refuses the request whatever the actions are.
    pub(super) errors: Vec<Denial>,
    /// For the audit log: keys and values.
    pub(super) annotations: Vec<(String, String)>,
}

/// Asks a policy. `attributes` are in the version that it is about.
pub(super) fn judge(
    registry: &Registry,
    attributes: &Attributes<'_>,
    policy: &Validating,
    namespace: &Value,
    params: &Value,
) -> Found {
    let asker = registry.policies.authorizer().map(|authorizer| Asker::new(authorizer, attributes));
    let original = request(attributes, attributes.request.resource.names());
    let facts = Facts {
        object: &attributes.object,
        old: attributes.old.unwrap_or(&Value::Null),
        request: &original,
        namespace: &Value::Null,
        params: Some(params),
        authorizer: asker.as_ref(),
        variables: &policy.common.variables,
    };
    match policy.common.conditions.check(&facts) {
        Matched::Yes => {}
        Matched::No => return Found::default(),
        Matched::Failed(message) => return failed(policy, message),
    }
    let request = request(attributes, attributes.names());
    evaluate(policy, &Facts { request: &request, namespace, ..facts })
}

/// Nothing more can be said.
fn failed(policy: &Validating, message: String) -> Found {
    let denials = if policy.common.ignores_failures { Vec::new() } else { vec![Denial::new(message)] };
    Found { denials, ..Found::default() }
}

/// Runs the validations and annotations.
pub(super) fn evaluate(policy: &Validating, facts: &Facts<'_>) -> Found {
    let mut found = Found::default();
    match validations(policy, facts) {
        Ok(denials) => found.denials = denials,
        Err(message) => return failed(policy, message),
    }
    match annotations(policy, facts, &mut found) {
        Ok(()) => found,
        Err(message) => failed(policy, message),
    }
}

fn validations(policy: &Validating, facts: &Facts<'_>) -> Result<Vec<Denial>, String> {
    let fails = !policy.common.ignores_failures;
    let input = Input::new(facts);
    let mut budget = BUDGET;
    let mut results = Vec::with_capacity(policy.validations.len());
    for validation in &policy.validations {
        results.push(input.run(&validation.expression, &mut budget)?);
    }
    // Messages are made of every object, wrong or not: what they cost is taken from the same budget.
    let silent = Facts { authorizer: None, ..*facts };
    let messages = messages(policy, &silent, budget);
    let mut denials = Vec::new();
    for (index, (validation, result)) in policy.validations.iter().zip(results).enumerate() {
        let mut deny = |message: String, reason: &str| {
            denials.push(Denial { message, reason: reason.to_owned(), index });
        };
        match (result, &messages) {
            (Err(error), _) if fails => deny(error, ""),
            (Ok(_), Err(error)) if fails => deny(error.clone(), ""),
            (Err(_), _) | (Ok(_), Err(_)) | (Ok(CelValue::Bool(true)), Ok(_)) => {}
            (Ok(_), Ok(messages)) => {
                let made = messages.get(index).and_then(Option::as_deref);
                deny(message(validation, made), &validation.reason);
            }
        }
    }
    Ok(denials)
}

/// What the message expressions make of the object, by validation.
fn messages(policy: &Validating, facts: &Facts<'_>, mut budget: u64) -> Result<Vec<Option<String>>, String> {
    let input = Input::new(facts);
    let mut messages = Vec::with_capacity(policy.validations.len());
    for validation in &policy.validations {
        messages.push(match &validation.message_expression {
            None => None,
            Some(expression) => {
                let made = input.run(expression, &mut budget);
                let made = made.map_err(|error| format!("failed messageExpression: {error}"))?;
                made.ok().as_ref().and_then(CelValue::as_str).map(str::to_owned)
            }
        });
    }
    Ok(messages)
}

/// What is told of a validation that does not hold: what its expression made, else its message, else itself.
fn message(validation: &Validation, made: Option<&str>) -> String {
    let made = made.map(str::trim).unwrap_or_default();
    if !made.is_empty() && made.len() <= MESSAGE_BYTES_MAX && !made.contains('\n') {
        return made.to_owned();
    }
    match validation.message.trim() {
        "" => format!("failed expression: {}", validation.expression.text.trim()),
        message => message.to_owned(),
    }
}

fn annotations(policy: &Validating, facts: &Facts<'_>, found: &mut Found) -> Result<(), String> {
    let silent = Facts { authorizer: None, ..*facts };
    let input = Input::new(&silent);
    let mut budget = BUDGET;
    for (key, annotation) in &policy.annotations {
        match input.run(annotation, &mut budget)? {
            Ok(CelValue::Null) => {}
            Ok(CelValue::String(text)) => {
                let text = text.trim();
                if !text.is_empty() {
                    found.annotations.push((key.clone(), text.to_owned()));
                }
            }
            Ok(other) => {
                let (text, kind) = (&annotation.text, other.type_name());
                found.errors.push(Denial::new(format!(
                    "valueExpression '{text}' resulted in unsupported return type: {kind}. Return type must be either string or null."
                )));
            }
            Err(error) if !policy.common.ignores_failures => found.errors.push(Denial::new(error)),
            Err(_) => {}
        }
    }
    Ok(())
}
