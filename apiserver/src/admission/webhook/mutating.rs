//! MutatingAdmissionWebhook: one after the other, each on what those before it made of the object.

use std::collections::BTreeSet;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::Value;

use super::call::{self, Failed};
use super::config::Hook;
use super::matching;
use crate::admission::Attributes;
use crate::registry::{Registry, apply_json_patch};
use crate::status::ApiError;

/// What is remembered between the two rounds of the mutating phase. In the second round, which follows when a webhook
/// has changed the object, only those are asked again that were asked before the change and want to be.
#[derive(Debug, Default)]
pub(crate) struct Reinvocation {
    /// Whether this is the second round.
    pub(crate) is_second: bool,
    /// Whether a second round is needed.
    pub(crate) is_needed: bool,
    last_output: Value,
    asked: BTreeSet<String>,
    again: BTreeSet<String>,
}

impl Reinvocation {
    /// Something has changed: whoever was asked before is asked again.
    fn changed(&mut self) {
        self.again.append(&mut self.asked);
    }
}

/// Asks all that are meant.
pub(super) fn ask<'a>(
    registry: &'a Registry,
    hooks: &'a [Hook],
    attributes: &'a mut Attributes<'_>,
    again: &'a mut Reinvocation,
) -> BoxFuture<'a, Result<(), ApiError>> {
    ask_in_order(registry, hooks, attributes, again).boxed()
}

async fn ask_in_order(
    registry: &Registry,
    hooks: &[Hook],
    attributes: &mut Attributes<'_>,
    again: &mut Reinvocation,
) -> Result<(), ApiError> {
    if again.is_second && again.last_output != attributes.object {
        again.changed();
    }
    for hook in hooks {
        if !matching::is_asked(registry, hook, attributes).await? {
            continue;
        }
        // Whoever was not meant in the first round is not asked in the second.
        if again.is_second && !again.again.contains(&hook.uid) {
            continue;
        }
        let changed = one(registry, hook, attributes).await?;
        if changed {
            again.changed();
            again.is_needed = true;
        }
        if hook.is_reinvoked {
            again.asked.insert(hook.uid.clone());
        }
    }
    again.last_output = attributes.object.clone();
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
    apply_json_patch(&mut patched, &verdict.patch).map_err(|error| ApiError::internal(error.message))?;
    conform(attributes, &mut patched)?;
    let changed = patched != attributes.object;
    attributes.object = patched;
    Ok(changed)
}

/// Brings what a patch made back into the form of its kind: types, known fields, defaults.
fn conform(attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
    if !object.is_object() {
        return Err(ApiError::internal("a webhook's patch has made something else of the object"));
    }
    let (kind, names) = (&attributes.request.resource.kind, attributes.request.resource.names());
    if attributes.kind.kind == names.kind && attributes.kind.group == names.group {
        kind.conform(object).map_err(|error| ApiError::internal(error.to_string()))?;
        kind.default(object);
    }
    Ok(())
}
