//! What a PodDisruptionBudget says to the eviction of a pod. Pure.
//!
//! Source: Kubernetes' `registry/core/pod/storage/eviction.go` (checkAndDecrement).

use jiff::Timestamp;
use reeve_api::selector::LabelSelector;
use serde_json::{Map, Value, json};

use super::meta;
use crate::status::{ApiError, Cause, Details};

/// Evictions that the controller has not seen yet; more are not let through.
const DISRUPTED_MAX: usize = 2000;

/// What programs know the refusals by.
const CAUSE: &str = "DisruptionBudget";

/// What a budget says.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// One of the disruptions it allows is taken: this is the budget after that.
    Take(Value),
    /// The pod is not ready and may go as long as it stays so; it does not count.
    OnlyUnready,
}

/// Whether the pod has been lost already, or never began: no budget guards it.
pub(super) fn may_be_ignored(pod: &Value) -> bool {
    pod["status"]["phase"] == "Pending" || is_over(pod)
}

/// Whether the pod's end has come, whatever happens to it now.
pub(super) fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) || meta::is_terminating(pod)
}

/// Whether the budget is for the pod. One whose selector makes no sense is for none.
pub(super) fn matches(budget: &Value, pod: &Value) -> bool {
    LabelSelector::from_value(&budget["spec"]["selector"])
        .is_ok_and(|selector| selector.matches_value(meta::get(pod, "labels")))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// Whether the pod may be evicted, or why not.
pub(super) fn judge(budget: &Value, pod: &Value, now: Timestamp) -> Result<Verdict, ApiError> {
    let status = &budget["status"];
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    let (healthy, wanted) = (number("currentHealthy"), number("desiredHealthy"));
    if !is_ready(pod) {
        let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
        if always || (healthy >= wanted && wanted > 0) {
            return Ok(Verdict::OnlyUnready);
        }
    }
    let name = meta::text(budget, "name");
    if number("observedGeneration") < meta::get(budget, "generation").as_i64().unwrap_or(0) {
        return Err(still_being_processed(name));
    }
    let (allowed, disrupted) = (number("disruptionsAllowed"), status["disruptedPods"].as_object());
    if allowed < 0 {
        return Err(forbidden(name, "pdb disruptions allowed is negative"));
    }
    if disrupted.map_or(0, Map::len) > DISRUPTED_MAX {
        return Err(forbidden(name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    if allowed == 0 {
        return Err(too_many(0, refusal(name, status, healthy, wanted)));
    }
    Ok(Verdict::Take(take(budget, meta::text(pod, "name"), allowed - 1, now)))
}

/// Why a budget that allows nothing does so.
fn refusal(name: &str, status: &Value, healthy: i64, wanted: i64) -> String {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let condition = conditions.into_iter().find(|one| one["type"] == "DisruptionAllowed" && one["status"] == "False");
    let text = |field: &str| condition.map_or("", |one| one[field].as_str().unwrap_or_default());
    let (reason, message) = (text("reason"), text("message"));
    if reason == "SyncFailed" && !message.is_empty() {
        format!("The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}")
    } else if healthy <= wanted {
        format!("The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently")
    } else if !message.is_empty() {
        format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {message}")
    } else {
        format!("The disruption budget {name} does not allow evicting pods currently")
    }
}

/// The budget with one disruption less, which the controller hears of by the pod's name.
fn take(budget: &Value, pod: &str, left: i64, now: Timestamp) -> Value {
    let mut taken = budget.clone();
    let observed = budget["status"]["observedGeneration"].as_i64().unwrap_or(0);
    let Some(status) = taken.get_mut("status").and_then(Value::as_object_mut) else { return taken };
    status.insert("disruptionsAllowed".to_owned(), left.into());
    if let Some(pods) = map_in(status, "disruptedPods") {
        pods.insert(pod.to_owned(), meta::time(now).into());
    }
    if left == 0 {
        set_condition(status, observed, now);
    }
    taken
}

fn map_in<'m>(fields: &'m mut Map<String, Value>, name: &str) -> Option<&'m mut Map<String, Value>> {
    let value = fields.entry(name).or_insert_with(|| json!({}));
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

/// No disruption is left.
fn set_condition(status: &mut Map<String, Value>, observed: i64, now: Timestamp) {
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return };
    let at = conditions.iter().position(|one| one["type"] == "DisruptionAllowed");
    let changed = at.is_none_or(|at| conditions[at]["status"] != "False");
    let since = match at {
        Some(at) if !changed => conditions[at]["lastTransitionTime"].clone(),
        _ => meta::time(now).into(),
    };
    let mut new = json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "lastTransitionTime": since,
    });
    if observed != 0 {
        new["observedGeneration"] = observed.into();
    }
    match at {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
}

/// The pod with the condition that says why it goes.
pub(super) fn mark_disrupted(pod: &Value, now: Timestamp) -> Value {
    let mut marked = pod.clone();
    let Some(fields) = marked.as_object_mut() else { return marked };
    let status = fields.entry("status").or_insert_with(|| json!({}));
    let Some(status) = status.as_object_mut() else { return marked };
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    let Some(conditions) = conditions.as_array_mut() else { return marked };
    let at = conditions.iter().position(|one| one["type"] == "DisruptionTarget");
    let old = at.map(|at| conditions[at].clone()).unwrap_or_default();
    let since = if old["status"] == "True" { old["lastTransitionTime"].clone() } else { meta::time(now).into() };
    let new = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": since,
    });
    match at {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
    marked
}

/// The budget changes right now: the client is to come back.
pub(super) fn still_being_processed(name: &str) -> ApiError {
    too_many(10, format!("The disruption budget {name} is still being processed by the server."))
}

fn too_many(retry_after_seconds: u32, why: String) -> ApiError {
    let cause = Cause { reason: CAUSE.to_owned(), message: why, field: String::new() };
    let details = Details { retry_after_seconds, causes: vec![cause], ..Details::default() };
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    ApiError { details: Some(Box::new(details)), ..ApiError::new(429, "TooManyRequests", message) }
}

fn forbidden(name: &str, why: &str) -> ApiError {
    let details = Details {
        name: name.to_owned(),
        group: "policy".to_owned(),
        kind: "poddisruptionbudget".to_owned(),
        ..Details::default()
    };
    let message = format!("poddisruptionbudget.policy \"{name}\" is forbidden: {why}");
    ApiError { details: Some(Box::new(details)), ..ApiError::new(403, "Forbidden", message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
    fn budget(status: Value) -> Value {
        json!({ "metadata": { "name": "b", "generation": 2 }, "spec": { "selector": { "matchLabels": { "a": "b" } } },
            "status": status })
    }

    fn pod(ready: bool) -> Value {
        let status = if ready { "True" } else { "False" };
        json!({ "metadata": { "name": "p", "labels": { "a": "b" } },
            "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": status }] } })
    }

    fn refusal_of(status: Value) -> (u16, String) {
        let error = judge(&budget(status), &pod(true), Timestamp::UNIX_EPOCH).unwrap_err();
        let details = error.details.unwrap();
        (error.code, details.causes.first().map_or(error.message, |cause| cause.message.clone()))
    }

    #[test]
    fn each_eviction_takes_one_disruption_and_the_last_one_changes_the_condition() {
        let status = json!({ "observedGeneration": 2, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1,
            "conditions": [{ "type": "DisruptionAllowed", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] });
        let Verdict::Take(after) = judge(&budget(status), &pod(true), Timestamp::UNIX_EPOCH).unwrap() else { panic!() };
        assert_eq!(after["status"]["disruptionsAllowed"], 0);
        assert_eq!(after["status"]["disruptedPods"], json!({ "p": "1970-01-01T00:00:00Z" }));
        let condition = &after["status"]["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("InsufficientPods")));
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_budget_that_allows_nothing_says_why() {
        let counts =
            json!({ "observedGeneration": 2, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1 });
        assert_eq!(
            refusal_of(counts.clone()),
            (429, "The disruption budget b needs 1 healthy pods and has 1 currently".to_owned())
        );
        let mut failed = counts.clone();
        failed["conditions"] =
            json!([{ "type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "why" }]);
        assert!(refusal_of(failed).1.ends_with("currently because it failed sync: why"));
        let mut stale = counts.clone();
        stale["observedGeneration"] = 1.into();
        assert_eq!(refusal_of(stale).1, "The disruption budget b is still being processed by the server.");
        let mut negative = counts;
        negative["disruptionsAllowed"] = (-1).into();
        assert_eq!(
            refusal_of(negative),
            (403, "poddisruptionbudget.policy \"b\" is forbidden: pdb disruptions allowed is negative".to_owned())
        );
    }

    #[test]
    fn an_unready_pod_goes_when_enough_are_healthy_or_the_policy_says_so() {
        let of = |policy: &str, healthy: i64| {
            let mut budget = budget(json!({ "observedGeneration": 2, "disruptionsAllowed": 0,
                "currentHealthy": healthy, "desiredHealthy": 1 }));
            budget["spec"]["unhealthyPodEvictionPolicy"] = policy.into();
            judge(&budget, &pod(false), Timestamp::UNIX_EPOCH).is_ok_and(|verdict| verdict == Verdict::OnlyUnready)
        };
        assert!(of("IfHealthyBudget", 1) && of("AlwaysAllow", 0) && !of("IfHealthyBudget", 0));
    }

    #[test]
    fn only_a_selector_that_is_there_matches() {
        assert!(matches(&budget(json!({})), &pod(true)));
        let with = |selector: Value| matches(&json!({ "spec": { "selector": selector } }), &pod(true));
        assert!(with(json!({})) && !with(Value::Null) && !with(json!({ "matchLabels": { "a": "c" } })));
    }
}
