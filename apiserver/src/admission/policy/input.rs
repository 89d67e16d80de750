//! What an expression sees of a request, and running it within its budget.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use reeve_cel::{Check, Decision, EvalError, PER_CALL_LIMIT, Program, Value, Variables};
use reeve_kinds::Names;
use serde_json::{Map, Value as Json, json};

use crate::admission::Attributes;
use crate::admission::webhook::review;
use crate::auth::{self, Authorizer};
use crate::registry::UserInfo;

/// What runs out when the expressions of one object cost too much together.
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// An expression of a policy.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) text: String,
    /// The program, or why there is none.
    pub(super) program: Result<Program, String>,
}

/// The variables of a policy, by name.
pub(super) type Named = BTreeMap<String, Expression>;

/// Everything an expression may speak of that does not change while one policy is asked.
#[derive(Clone, Copy)]
pub(super) struct Facts<'v> {
    pub(super) object: &'v Json,
    pub(super) old: &'v Json,
    /// An `AdmissionRequest`.
    pub(super) request: &'v Json,
    pub(super) namespace: &'v Json,
    pub(super) params: Option<&'v Json>,
    /// Who may do what; none where expressions may not ask.
    pub(super) authorizer: Option<&'v Asker<'v>>,
    pub(super) variables: &'v Named,
}

/// Answers questions of expressions about what the one who makes the request, or a service account, may do.
pub(super) struct Asker<'v> {
    authorizer: &'v dyn Authorizer,
    user: &'v UserInfo,
    request: Check,
}

impl std::fmt::Debug for Asker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Asker({})", self.user.name)
    }
}

impl<'v> Asker<'v> {
    pub(super) fn new(authorizer: &'v dyn Authorizer, attributes: &'v Attributes<'_>) -> Self {
        let names = attributes.request.resource.names();
        let request = Check {
            group: names.group.to_owned(),
            resource: names.plural.to_owned(),
            subresource: attributes.subresource.to_owned(),
            namespace: attributes.namespace().to_owned(),
            name: attributes.name().to_owned(),
            ..Check::default()
        };
        Self { authorizer, user: &attributes.request.user, request }
    }
}

impl reeve_cel::Authorizer for Asker<'_> {
    fn authorize(&self, check: &Check) -> Decision {
        let account;
        let user = match &check.service_account {
            None => self.user,
            Some((namespace, name)) => {
                let in_namespace = format!("system:serviceaccounts:{namespace}");
                let groups = ["system:serviceaccounts", &in_namespace, "system:authenticated"];
                account = UserInfo::new(format!("system:serviceaccount:{namespace}:{name}"), &groups);
                &account
            }
        };
        let target = match &check.path {
            Some(path) => auth::Target::Path(path),
            None => auth::Target::Resource {
                group: &check.group,
                resource: &check.resource,
                subresource: &check.subresource,
                namespace: &check.namespace,
                name: &check.name,
                field_selector: &check.field_selector,
            },
        };
        match self.authorizer.decide(&auth::Attributes { user, verb: &check.verb, target }) {
            auth::Decision::Allowed(grant) => {
                Decision { allowed: true, reason: grant.reason(user), ..Decision::default() }
            }
            auth::Decision::Refused { reason } => Decision { reason, ..Decision::default() },
        }
    }
}

/// What one group of expressions sees: the facts, and the variables they have asked for so far.
pub(super) struct Input<'v> {
    facts: &'v Facts<'v>,
    known: Mutex<HashMap<String, Result<Value<'v>, EvalError>>>,
    /// What variables cost since the last expression began.
    spent: Mutex<u64>,
}

impl<'v> Input<'v> {
    pub(super) fn new(facts: &'v Facts<'v>) -> Self {
        Self { facts, known: Mutex::default(), spent: Mutex::new(0) }
    }

    fn variable(&self, name: &str) -> Option<Result<Value<'v>, EvalError>> {
        let expression = self.facts.variables.get(name)?;
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Some(known.clone());
        }
        let value = match &expression.program {
            Err(detail) => Err(EvalError::Message(format!("composited variable {name:?} fails to compile: {detail}"))),
            Ok(program) => {
                let outcome = program.run(self, PER_CALL_LIMIT);
                *self.spent.lock().unwrap_or_else(PoisonError::into_inner) += outcome.cost;
                outcome.result.map_err(|error| {
                    EvalError::Message(format!("composited variable {name:?} fails to evaluate: {error}"))
                })
            }
        };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.clone());
        Some(value)
    }

    /// Runs an expression within `budget`, from which its cost is taken.
    ///
    /// # Errors
    /// Outside: nothing more can be run. Inside: this expression has no value.
    pub(super) fn run(&self, expression: &Expression, budget: &mut u64) -> Result<Result<Value<'v>, String>, String> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(detail) => return Ok(Err(format!("compilation error: {detail}"))),
        };
        let outcome = program.run(self, PER_CALL_LIMIT);
        let variables = std::mem::take(&mut *self.spent.lock().unwrap_or_else(PoisonError::into_inner));
        let cost = outcome.cost.saturating_add(variables);
        *budget = budget.checked_sub(cost).ok_or_else(|| OUT_OF_BUDGET.to_owned())?;
        let text = &expression.text;
        Ok(outcome.result.map_err(|error| format!("expression '{text}' resulted in error: {error}")))
    }
}

impl<'v> Variables<'v> for Input<'v> {
    fn get(&self, name: &str) -> Option<Result<Value<'v>, EvalError>> {
        let facts = self.facts;
        let json = match name {
            "object" => facts.object,
            "oldObject" => facts.old,
            "request" => facts.request,
            "namespaceObject" => facts.namespace,
            "params" => facts.params.unwrap_or(&Json::Null),
            "authorizer" => return Some(Ok(Value::authorizer(facts.authorizer?))),
            "authorizer.requestResource" => {
                let asker = facts.authorizer?;
                return Some(Ok(Value::resource_check(asker, asker.request.clone())));
            }
            _ => return self.variable(name.strip_prefix("variables.")?),
        };
        Some(Ok(Value::dynamic(json)))
    }
}

/// The request as an `AdmissionRequest`, without the objects; `names` are those of the resource it was found to be
/// about.
pub(super) fn request(attributes: &Attributes<'_>, names: &Names) -> Json {
    let mut request = Map::new();
    let mut put = |field: &str, value: Json| request.insert(field.to_owned(), value);
    put("uid", "".into());
    put("kind", json!(attributes.kind_seen()));
    put("requestKind", json!(attributes.kind));
    put("resource", review::resource(names));
    put("requestResource", review::resource(attributes.request.resource.names()));
    put("operation", attributes.operation.name().into());
    put("userInfo", review::user(&attributes.request.user));
    put("object", Json::Null);
    put("oldObject", Json::Null);
    put("dryRun", attributes.is_dry_run().into());
    put("options", attributes.options());
    let texts = [
        ("subResource", attributes.subresource),
        ("requestSubResource", attributes.subresource),
        ("name", attributes.name()),
        ("namespace", attributes.namespace()),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        put(field, text.into());
    }
    request.into()
}
