//! MutatingAdmissionPolicy: changes objects.

use reeve_cel::BUDGET;
use serde_json::Value;

use super::book::Bound;
use super::compiled::{Mutating, Mutation};
use super::conditions::Matched;
use super::input::{Asker, Facts, Input, request};
use super::invocations::{Invocation, Misconfigured, Step, is_exempt, namespace_of, plan};
use super::patch;
use crate::admission::matching::Match;
use crate::admission::reinvocation::Rounds;
use crate::admission::versions::{InVersion, check_kind};
use crate::admission::{Attributes, Operation, forbidden};
use crate::registry::{Registry, meta};
use crate::status::{ApiError, Cause};

/// A refusal.
struct Refusal {
    message: String,
    /// Whether the reason is `Invalid`; else it stays `Forbidden`.
    is_invalid: bool,
}

/// What came of a policy.
#[derive(Default)]
struct Mutated {
    /// Whether the object is another one now.
    changed: bool,
    /// Whether a mutation was made, even if it made no difference.
    touched: bool,
    /// What went wrong.
    wrong: Vec<String>,
}

/// Why a mutation was not made.
enum Failed {
    /// The failure policy decides.
    Policy(String),
    /// The request fails, whatever the failure policy is.
    Request(ApiError),
}

/// Asks every policy that is about the request, in order; each sees what those before it made of the object.
/// In the second round only those are asked that want to be and after which the object was changed.
pub(crate) async fn mutate(
    registry: &Registry,
    attributes: &mut Attributes<'_>,
    rounds: &mut Rounds,
) -> Result<(), ApiError> {
    let Some(policies) = registry.policies.mutating() else { return Ok(()) };
    // There is nothing to change about what is deleted.
    if attributes.operation == Operation::Delete || is_exempt(attributes) {
        return Ok(());
    }
    Box::pin(ask(registry, attributes, rounds, &policies)).await
}

async fn ask(
    registry: &Registry,
    attributes: &mut Attributes<'_>,
    rounds: &mut Rounds,
    policies: &[Bound<Mutating>],
) -> Result<(), ApiError> {
    let (mut invocations, mut refusals) = (Vec::new(), Vec::new());
    for step in plan(registry, attributes, policies, |policy| &policy.common).await {
        match step {
            Step::Ask(invocation) => invocations.push(invocation),
            Step::Fail(fault) if fault.policy.ignores_failures => {}
            Step::Fail(fault) => refusals.push(Refusal { message: misconfigured(&fault), is_invalid: false }),
        }
    }
    if invocations.iter().any(|invocation| !invocation.params.is_empty()) {
        let namespace = namespace_of(registry, attributes).await?;
        rounds.policies.begin(rounds.is_second, &attributes.object);
        let mut touched = false;
        for invocation in &invocations {
            for params in &invocation.params {
                let mutated = invoke(registry, attributes, rounds, invocation, (params, &namespace)).await?;
                let (policy, binding) = (&invocation.policy.common, &invocation.binding.name);
                let told = |why: String| Refusal {
                    message: format!("policy '{}' with binding '{binding}' denied request: {why}", policy.name),
                    is_invalid: true,
                };
                touched |= mutated.touched;
                refusals.extend(mutated.wrong.into_iter().filter(|_| !policy.ignores_failures).map(told));
            }
        }
        // As in Kubernetes, who mutates calls for a second round, and is then asked again itself.
        if touched {
            rounds.policies.changed();
            rounds.is_needed = true;
        }
        rounds.policies.end(&attributes.object);
    }
    if refusals.is_empty() { Ok(()) } else { Err(refused(attributes, &refusals)) }
}

fn misconfigured(fault: &Misconfigured<'_>) -> String {
    let (policy, why) = (&fault.policy.name, &fault.why);
    match fault.binding {
        None => format!("policy {policy:?} denied request: {why}"),
        Some(binding) => format!("policy '{policy}' with binding '{}' denied request: {why}", binding.name),
    }
}

/// The refusal: the first one is the message, all are causes.
fn refused(attributes: &Attributes<'_>, refusals: &[Refusal]) -> ApiError {
    let mut error = forbidden(attributes, "");
    if let Some(first) = refusals.first() {
        error.message.clone_from(&first.message);
        if first.is_invalid {
            error.reason = "Invalid";
        }
    }
    let details = error.details.get_or_insert_default();
    for refusal in refusals {
        details.causes.push(Cause { reason: String::new(), message: refusal.message.clone(), field: String::new() });
    }
    error
}

/// Asks one policy with one binding and one set of parameters.
async fn invoke(
    registry: &Registry,
    attributes: &mut Attributes<'_>,
    rounds: &mut Rounds,
    invocation: &Invocation<'_, Mutating>,
    (params, namespace): (&Value, &Value),
) -> Result<Mutated, ApiError> {
    let version = match &invocation.version {
        Match::As(resource) => Some(InVersion::of(attributes, resource).await),
        _ => None,
    };
    let version = match version {
        None => None,
        Some(Ok(version)) => Some(version),
        Some(Err(error)) => return Ok(Mutated { wrong: vec![error.message], ..Mutated::default() }),
    };
    let asked = Asked { registry, policy: invocation.policy, params, namespace };
    let (in_namespace, of_name) = (meta::text(params, "namespace"), meta::text(params, "name"));
    let key = format!("{}/{}/{in_namespace}/{of_name}", asked.policy.common.name, invocation.binding.name);
    let Some(version) = version else { return asked.ask(attributes, rounds, key) };
    let mut seen = version.attributes(attributes);
    let mutated = asked.ask(&mut seen, rounds, key)?;
    let object = std::mem::take(&mut seen.object);
    if mutated.changed {
        attributes.object = version.back(attributes, &object).await?;
    }
    Ok(mutated)
}

/// A policy that is asked with one set of parameters.
struct Asked<'p> {
    registry: &'p Registry,
    policy: &'p Mutating,
    params: &'p Value,
    namespace: &'p Value,
}

impl Asked<'_> {
    /// Asks the policy, if its conditions hold.
    fn ask(&self, attributes: &mut Attributes<'_>, rounds: &mut Rounds, key: String) -> Result<Mutated, ApiError> {
        match self.conditions(attributes) {
            Matched::Yes => {}
            Matched::No => return Ok(Mutated::default()),
            Matched::Failed(why) => return Ok(Mutated { wrong: vec![why], ..Mutated::default() }),
        }
        if rounds.is_second && !rounds.policies.is_again(&key) {
            return Ok(Mutated::default());
        }
        let Mutated { changed, touched, wrong } = self.mutate(attributes)?;
        if changed {
            rounds.policies.changed();
            rounds.is_needed = true;
        }
        if self.policy.again {
            rounds.policies.note(key);
        }
        Ok(Mutated { changed, touched, wrong })
    }

    fn conditions(&self, attributes: &Attributes<'_>) -> Matched {
        if self.policy.common.conditions.is_empty() {
            return Matched::Yes;
        }
        let request = request(attributes, attributes.request.resource.names());
        let asker = self.registry.policies.authorizer().map(|authorizer| Asker::new(authorizer, attributes));
        self.policy
            .common
            .conditions
            .check(&Facts { namespace: &Value::Null, ..self.facts(attributes, &request, asker.as_ref()) })
    }

    fn facts<'v>(
        &'v self,
        attributes: &'v Attributes<'_>,
        request: &'v Value,
        authorizer: Option<&'v Asker<'v>>,
    ) -> Facts<'v> {
        Facts {
            object: &attributes.object,
            old: attributes.old.unwrap_or(&Value::Null),
            request,
            namespace: self.namespace,
            params: Some(self.params),
            authorizer,
            variables: &self.policy.common.variables,
        }
    }

    /// Makes the policy's mutations, also after one that went wrong.
    fn mutate(&self, attributes: &mut Attributes<'_>) -> Result<Mutated, ApiError> {
        let mut mutated = Mutated::default();
        if attributes.object.is_null() {
            return Ok(mutated);
        }
        let before = attributes.object.clone();
        for mutation in &self.policy.mutations {
            match self.mutated(attributes, mutation) {
                Ok(object) => {
                    attributes.object = object;
                    mutated.touched = true;
                }
                Err(Failed::Policy(why)) => mutated.wrong.push(why),
                Err(Failed::Request(error)) => return Err(error),
            }
        }
        mutated.changed = before != attributes.object;
        Ok(mutated)
    }

    /// The object after one mutation, with defaults where it made new fields.
    fn mutated(&self, attributes: &Attributes<'_>, mutation: &Mutation) -> Result<Value, Failed> {
        if let Err(detail) = &mutation.expression.program {
            return Err(Failed::Policy(detail.clone()));
        }
        let request = request(attributes, attributes.names());
        let asker = self.registry.policies.authorizer().map(|authorizer| Asker::new(authorizer, attributes));
        let facts = self.facts(attributes, &request, asker.as_ref());
        let mut budget = BUDGET;
        let input = Input::new(&facts);
        let given = input.run(&mutation.expression, &mut budget).and_then(|given| given).map_err(Failed::Policy)?;
        let kind = &attributes.resource().kind;
        let mut object = if mutation.is_json_patch {
            patch::json_patch(&attributes.object, &given).map_err(Failed::Policy)?
        } else {
            let schema = patch::schema_of(attributes).map_err(Failed::Policy)?;
            patch::apply(schema, &attributes.object, &given).map_err(Failed::Policy)?
        };
        check_kind(attributes, &mut object, |why| ApiError::internal(format!("failed to convert object: {why}")))
            .map_err(Failed::Request)?;
        if attributes.is_of_resource() {
            // What the schema of a custom resource does not know is dropped.
            let is_strict = mutation.is_json_patch && !attributes.resource().is_custom();
            conform(&**kind, is_strict, &mut object).map_err(Failed::Request)?;
            check_conversion(attributes).map_err(Failed::Policy)?;
            kind.default(&mut object);
        }
        Ok(object)
    }
}

/// Built-in objects that are shown in another version than the request's cannot be changed in it: as in Kubernetes.
fn check_conversion(attributes: &Attributes<'_>) -> Result<(), String> {
    let (own, seen) = (attributes.kind, attributes.kind_seen());
    if own == seen || attributes.resource().is_custom() {
        return Ok(());
    }
    Err(format!("converting ({}.{}) to ({}.{}): unknown conversion", seen.version, seen.kind, own.version, own.kind))
}

/// Brings what a mutation made into the form of its kind. JSON patches may not make unknown fields.
fn conform(kind: &dyn reeve_kinds::Kind, is_strict: bool, object: &mut Value) -> Result<(), ApiError> {
    let unknown = kind.conform(object).map_err(|error| ApiError::internal(error.to_string()))?;
    match unknown.as_slice() {
        [] => Ok(()),
        _ if !is_strict => Ok(()),
        all => {
            let all: Vec<String> = all.iter().map(|path| format!("unknown field {path:?}")).collect();
            Err(ApiError::internal(format!("strict decoding error: {}", all.join(", "))))
        }
    }
}
