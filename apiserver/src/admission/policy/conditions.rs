//! Match conditions: expressions that all must be true for a webhook to be called or a policy to be asked.

use reeve_cel::{MATCH_CONDITIONS_BUDGET, Value};
use reeve_kinds::expressions::{Compiler, Gives};
use serde_json::Value as Json;

use super::input::{Asker, Expression, Facts, Input, Named, request};
use crate::admission::Attributes;
use crate::auth::Authorizer;

/// Compiled match conditions.
#[derive(Debug)]
pub(crate) struct Conditions {
    expressions: Vec<Expression>,
    /// Whether what goes wrong counts as no match (`failurePolicy: Ignore`).
    ignores_failures: bool,
}

/// What match conditions say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Matched {
    /// All are true.
    Yes,
    /// One is false, or one went wrong and failures are ignored.
    No,
    /// One went wrong and failures are not ignored: why the request is refused.
    Failed(String),
}

impl Conditions {
    /// Those of a webhook: its `matchConditions` and `failurePolicy`. Compile once per change of the webhook.
    pub(crate) fn of_webhook(webhook: &Json) -> Self {
        Self::compile(&Compiler::new(false), webhook)
    }

    /// Those of `owner`, by a compiler that knows its variables.
    pub(super) fn compile(compiler: &Compiler, owner: &Json) -> Self {
        let all = owner["matchConditions"].as_array().into_iter().flatten();
        let texts = all.map(|condition| condition["expression"].as_str().unwrap_or_default().to_owned());
        let expressions = texts
            .map(|text| {
                let program = compiler.compile(&text, Gives::Truth).map_err(|error| error.to_string());
                Expression { text, program }
            })
            .collect();
        Self { expressions, ignores_failures: owner["failurePolicy"] == "Ignore" }
    }

    /// Whether a webhook with these conditions is to be called.
    pub(crate) fn matches(&self, attributes: &Attributes<'_>, authorizer: Option<&dyn Authorizer>) -> Matched {
        if self.expressions.is_empty() {
            return Matched::Yes;
        }
        let request = request(attributes, attributes.request.resource.names());
        let asker = authorizer.map(|authorizer| Asker::new(authorizer, attributes));
        let variables = Named::new();
        self.check(&Facts {
            object: &attributes.object,
            old: attributes.old.unwrap_or(&Json::Null),
            request: &request,
            namespace: &Json::Null,
            params: None,
            authorizer: asker.as_ref(),
            variables: &variables,
        })
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.expressions.is_empty()
    }

    /// Whether the conditions are true of `facts`.
    pub(super) fn check(&self, facts: &Facts<'_>) -> Matched {
        let input = Input::new(facts);
        let mut budget = MATCH_CONDITIONS_BUDGET;
        let mut results = Vec::with_capacity(self.expressions.len());
        for expression in &self.expressions {
            match input.run(expression, &mut budget) {
                Ok(result) => results.push(result),
                Err(error) => return self.failed(error),
            }
        }
        if results.iter().any(|result| matches!(result, Ok(Value::Bool(false)))) {
            return Matched::No;
        }
        let mut errors: Vec<String> = Vec::new();
        for error in results.into_iter().filter_map(Result::err) {
            // Each complaint is told once.
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        match errors.as_slice() {
            [] => Matched::Yes,
            [only] => self.failed(only.clone()),
            _ => self.failed(format!("[{}]", errors.join(", "))),
        }
    }

    fn failed(&self, error: String) -> Matched {
        if self.ignores_failures { Matched::No } else { Matched::Failed(error) }
    }
}
