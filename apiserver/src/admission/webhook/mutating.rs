//! MutatingAdmissionWebhook: one after the other, each on what those before it made of the object.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;

use super::asked::{Asked, asked};
use super::call::{self, Failed};
use super::config::Hook;
use crate::admission::Attributes;
use crate::admission::reinvocation::Rounds;
use crate::admission::versions::check_kind;
use crate::registry::{Registry, apply_json_patch};
use crate::status::ApiError;

/// Asks all that are meant.
pub(super) fn ask<'a>(
    registry: &'a Registry,
    hooks: &'a [Hook],
    attributes: &'a mut Attributes<'_>,
    rounds: &'a mut Rounds,
) -> BoxFuture<'a, Result<(), ApiError>> {
    ask_in_order(registry, hooks, attributes, rounds).boxed()
}

async fn ask_in_order(
    registry: &Registry,
    hooks: &[Hook],
    attributes: &mut Attributes<'_>,
    rounds: &mut Rounds,
) -> Result<(), ApiError> {
    rounds.webhooks.begin(rounds.is_second, &attributes.object);
    for hook in hooks {
        let how = asked(registry, hook, attributes).await?;
        // Whoever was not meant in the first round is not asked in the second.
        if matches!(how, Asked::No) || (rounds.is_second && !rounds.webhooks.is_again(&hook.uid)) {
            continue;
        }
        let changed = match how {
            Asked::InVersion(version) => {
                let mut seen = version.attributes(attributes);
                let changed = one(registry, hook, &mut seen).await?;
                let object = std::mem::take(&mut seen.object);
                if changed {
                    attributes.object = version.back(attributes, &object).await?;
                }
                changed
            }
            _ => one(registry, hook, attributes).await?,
        };
        if changed {
            rounds.webhooks.changed();
            rounds.is_needed = true;
        }
        if hook.is_reinvoked {
            rounds.webhooks.note(hook.uid.clone());
        }
    }
    rounds.webhooks.end(&attributes.object);
    Ok(())
}

/// Whether the webhook has changed the object.
async fn one(registry: &Registry, hook: &Hook, attributes: &mut Attributes<'_>) -> Result<bool, ApiError> {
    let verdict = match call::ask(registry, hook, attributes).await {
        Ok(verdict) => verdict,
        Err(Failed::Refused(refusal)) => return Err(refusal),
        Err(Failed::Calling(why)) => return call::judge(hook, &why).map(|()| false),
    };
    if verdict.patch.as_array().is_some_and(Vec::is_empty) || verdict.patch.is_null() {
        return Ok(false);
    }
    if attributes.object.is_null() {
        return Err(ApiError::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    }
    let mut patched = attributes.object.clone();
    apply_json_patch(&mut patched, &verdict.patch).map_err(|fault| ApiError::internal(fault.to_string()))?;
    conform(attributes, &mut patched)?;
    let changed = patched != attributes.object;
    if attributes.is_of_resource() {
        attributes.resource().kind.default(&mut patched);
    }
    attributes.object = patched;
    Ok(changed)
}

/// Brings what a patch made back into the form of its kind, which it must still be of: types and known fields.
fn conform(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
    if !object.is_object() {
        return Err(ApiError::internal("a webhook's patch has made something else of the object"));
    }
    check_kind(attributes, object, ApiError::unknown)?;
    if attributes.is_of_resource() {
        let conformed = attributes.resource().kind.conform(object);
        conformed.map_err(|error| ApiError::internal(error.to_string()))?;
    }
    Ok(())
}
