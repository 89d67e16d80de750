//! ValidatingAdmissionPolicy: says yes or no.

use serde_json::json;
use tracing::debug;

use super::book::Bound;
use super::compiled::{Binding, Validating};
use super::invocations::{Invocation, Step, is_exempt, namespace_of, plan};
use super::judge::{Denial, Found, judge};
use crate::admission::matching::Match;
use crate::admission::versions::InVersion;
use crate::admission::{Attributes, forbidden};
use crate::registry::Registry;
use crate::status::{ApiError, Cause};

/// Longest annotation that is noted, in bytes.
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;

/// A refusal, and whose it is.
struct Refusal {
    policy: String,
    /// None: the policy itself is at fault.
    binding: Option<String>,
    denial: Denial,
}

/// Asks every policy that is about the request. All are asked; the first refusal is told.
pub(crate) async fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let Some(policies) = registry.policies.validating() else { return Ok(()) };
    if is_exempt(attributes) {
        return Ok(());
    }
    Box::pin(ask(registry, attributes, &policies)).await
}

async fn ask(registry: &Registry, attributes: &Attributes<'_>, policies: &[Bound<Validating>]) -> Result<(), ApiError> {
    let mut refusals = Vec::new();
    for step in plan(registry, attributes, policies, |policy| &policy.common).await {
        match step {
            Step::Fail(fault) if fault.policy.ignores_failures => {}
            Step::Fail(fault) => refusals.push(Refusal {
                policy: fault.policy.name.clone(),
                binding: fault.binding.map(|binding| binding.name.clone()),
                denial: Denial::new(fault.why),
            }),
            Step::Ask(invocation) => refusals.extend(invoke(registry, attributes, &invocation).await?),
        }
    }
    refusals.into_iter().next().map_or(Ok(()), |first| Err(refused(attributes, &first)))
}

/// The refusal with the status code of its reason.
fn refused(attributes: &Attributes<'_>, refusal: &Refusal) -> ApiError {
    let (policy, said) = (&refusal.policy, &refusal.denial.message);
    let message = match &refusal.binding {
        Some(binding) => {
            format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {said}")
        }
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {said}"),
    };
    let mut error = forbidden(attributes, &message);
    (error.code, error.reason) = match refusal.denial.reason.as_str() {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    let details = error.details.get_or_insert_default();
    details.causes.push(Cause { reason: String::new(), message, field: String::new() });
    error
}

/// Asks one policy with one binding, once for each of its parameters.
async fn invoke(
    registry: &Registry,
    attributes: &Attributes<'_>,
    invocation: &Invocation<'_, Validating>,
) -> Result<Vec<Refusal>, ApiError> {
    let Invocation { policy, binding, params, .. } = invocation;
    let refusal = |denial| Refusal { policy: policy.common.name.clone(), binding: Some(binding.name.clone()), denial };
    let version = match &invocation.version {
        Match::As(resource) if !params.is_empty() => match InVersion::of(attributes, resource).await {
            Ok(version) => Some(version),
            Err(_) if policy.common.ignores_failures => return Ok(Vec::new()),
            Err(error) => {
                let why = format!("failed to configure binding: failed to convert object version: {}", error.message);
                return Ok(vec![refusal(Denial::new(why))]);
            }
        },
        _ => None,
    };
    let namespace = namespace_of(registry, attributes).await?;
    let seen = version.as_ref().map(|version| version.attributes(attributes));
    let seen = seen.as_ref().unwrap_or(attributes);
    let found = params.iter().map(|params| judge(registry, seen, policy, &namespace, params));
    Ok(found.flat_map(|found| act((registry, attributes), policy, binding, found)).map(refusal).collect())
}

/// What a binding does with what was found: refuse, warn, or only note it.
fn act(
    (registry, attributes): (&Registry, &Attributes<'_>),
    policy: &Validating,
    binding: &Binding,
    found: Found,
) -> Vec<Denial> {
    let (name, bound) = (&policy.common.name, &binding.name);
    let mut denials = Vec::new();
    for denial in found.denials {
        for action in &binding.actions {
            let message = &denial.message;
            registry.figures.policy(name, bound, "no_error", &action.to_ascii_lowercase());
            match action.as_str() {
                "Deny" => denials.push(denial.clone()),
                "Warn" => attributes.request.warnings.add(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{bound}': {message}"
                )),
                _ => {
                    let value = json!([{
                        "message": message, "policy": name, "binding": bound, "expressionIndex": denial.index,
                        "validationActions": binding.actions,
                    }]);
                    debug!(policy = name, %value, "A policy annotates a request: validation_failure.");
                }
            }
        }
    }
    for (key, value) in &found.annotations {
        let whole = |(at, letter): (usize, char)| at + letter.len_utf8() <= ANNOTATION_BYTES_MAX;
        let value: String = value.char_indices().take_while(|found| whole(*found)).map(|(_, letter)| letter).collect();
        debug!(policy = name, key, value, "A policy annotates a request.");
    }
    found.errors.iter().for_each(|_| registry.figures.policy(name, bound, "invalid_error", "deny"));
    denials.extend(found.errors);
    denials
}
