//! One question to one webhook.

use std::time::Duration;

use reeve_api::rng::RngExt as _;
use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::config::{Client, Hook};
use super::review::{self, Verdict};
use crate::admission::Attributes;
use crate::admission::figures::Answered;
use crate::outbound::{CallError, Caller, Post};
use crate::registry::Registry;
use crate::status::ApiError;

/// Longest answer that is read: a patch may replace a whole object, and travels as Base64.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Why a webhook has not let a request through.
pub(super) enum Failed {
    /// It could not be asked or gave no usable answer: its failure policy decides.
    Calling(String),
    /// It, or the rule about dry runs, refuses the request.
    Refused(ApiError),
}

/// Asks, and counts the answer. Warnings go to the client whatever the answer.
pub(super) async fn ask(registry: &Registry, hook: &Hook, attributes: &Attributes<'_>) -> Result<Verdict, Failed> {
    let began = Instant::now();
    let verdict = question(registry, hook, attributes).await;
    let (code, is_refused, is_error) = match &verdict {
        Ok(_) => (200, false, false),
        Err(Failed::Refused(refusal)) => (refusal.code, true, false),
        Err(Failed::Calling(_)) => (0, !hook.is_ignorable, true),
    };
    let of = hook.flavor.label();
    if is_error && hook.is_ignorable {
        registry.figures.let_through(&hook.name, of);
    }
    let answered = Answered { name: &hook.name, of, operation: attributes.operation, code, is_refused, is_error };
    registry.figures.webhook(&answered, began.elapsed());
    verdict
}

async fn question(registry: &Registry, hook: &Hook, attributes: &Attributes<'_>) -> Result<Verdict, Failed> {
    if attributes.is_dry_run() && !matches!(hook.side_effects.as_str(), "None" | "NoneOnDryRun") {
        if hook.side_effects.is_empty() {
            return Err(Failed::Calling("Webhook SideEffects is nil".to_owned()));
        }
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Failed::Refused(ApiError::bad_request(why)));
    }
    let version = hook.review_version.ok_or_else(|| {
        let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        Failed::Calling(format!("could not create admission objects: {why}"))
    })?;
    let no_client = |why: &String| Failed::Calling(format!("could not get REST client: {why}"));
    let (client, caller) = (hook.client.as_ref().map_err(no_client)?, hook.caller.as_ref().map_err(no_client)?);
    let uid = registry.rng.uuid();
    let question = review::question(attributes, version, &uid);
    let answer = post(caller, client, &question, hook.timeout).await;
    let answer = answer.map_err(|why| Failed::Calling(format!("failed to call webhook: {why}")))?;
    let verdict = review::verdict(&answer, version, &uid, hook.flavor).map_err(|why| {
        // Two of the complaints speak for themselves.
        let speaks = why.starts_with("received undecodable patch") || why.starts_with("unsupported patch type");
        Failed::Calling(if speaks { why } else { format!("received invalid webhook response: {why}") })
    })?;
    for (key, value) in &verdict.annotations {
        debug!(webhook = hook.name, key, %value, "A webhook annotates a request.");
    }
    verdict.warnings.iter().for_each(|text| attributes.request.warnings.add(text.as_str()));
    if verdict.is_allowed { Ok(verdict) } else { Err(Failed::Refused(denial(&hook.name, verdict.result))) }
}

async fn post(caller: &Caller, client: &Client, question: &Value, timeout: Duration) -> Result<Value, String> {
    let path = format!("{}?timeout={}s", client.path, timeout.as_secs());
    let url = format!("https://{}{path}", client.place.authority());
    let (late, bytes_max) = (CallError::deadline(), ANSWER_BYTES_MAX);
    caller.post(Post { path: &path, url: &url, time_max: timeout, late, bytes_max }, question).await
}

/// The refusal as the client sees it: the webhook's own `Status`, which says at least that and by whom.
fn denial(name: &str, result: Value) -> ApiError {
    let denied = format!("admission webhook {name:?} denied the request");
    let text = |field: &str| result[field].as_str().unwrap_or_default().to_owned();
    let message = match (text("message"), text("reason")) {
        (message, _) if !message.is_empty() => format!("{denied}: {message}"),
        (_, reason) if !reason.is_empty() => format!("{denied}: {reason}"),
        _ => format!("{denied} without explanation"),
    };
    let code =
        result["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
    let mut status = if result.is_object() { result } else { serde_json::json!({}) };
    let code = code.unwrap_or(400);
    status["kind"] = "Status".into();
    status["apiVersion"] = "v1".into();
    status["status"] = "Failure".into();
    status["code"] = code.into();
    status["message"] = message.as_str().into();
    if !status["metadata"].is_object() {
        status["metadata"] = serde_json::json!({});
    }
    if let Some(fields) = status.as_object_mut() {
        fields.retain(|_, value| !value.is_null() && *value != "");
    }
    ApiError::foreign(code, message, status)
}

/// What becomes of a request whose webhook could not be asked.
pub(super) fn judge(hook: &Hook, why: &str) -> Result<(), ApiError> {
    let told = format!("failed calling webhook {:?}: {why}", hook.name);
    if hook.is_ignorable {
        warn!(webhook = hook.name, why = told, "A webhook could not be asked; the request goes on.");
        return Ok(());
    }
    Err(ApiError::internal(told))
}
