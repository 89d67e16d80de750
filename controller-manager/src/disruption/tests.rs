//! Budgets and pods in, what may be disrupted out.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::plan::{Counted, expected, failed, needs_scale, spared_in, status};

#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
    serde_json::from_value(json!({ "metadata": { "name": "b", "generation": 3 }, "spec": spec, "status": status }))
        .unwrap()
}

fn pods(names: &[&str]) -> Vec<Arc<Pod>> {
    let ready = json!([{ "type": "Ready", "status": "True" }]);
    let pod = |name: &&str| json!({ "metadata": { "name": name }, "status": { "conditions": ready } });
    names.iter().map(|name| Arc::new(serde_json::from_value(pod(name)).unwrap())).collect()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

const NONE: fn() -> Value =
    || json!({ "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 });

fn allowed(spec: Value, wanted: usize, there: &[&str]) -> (i32, i32, i32, i32) {
    let budget = budget(spec, NONE());
    let expected = expected(&budget, wanted, false).unwrap();
    let status = status(&budget, &expected, Counted::of(&budget, &pods(there), at(0)), at(0));
    assert_eq!(status.observed_generation, Some(3));
    let counts = [status.expected_pods, status.desired_healthy, status.current_healthy, status.disruptions_allowed];
    let [expected, desired, current, allowed] = counts.map(Option::unwrap);
    (expected, desired, current, allowed)
}

#[test]
fn what_is_healthy_beyond_what_is_wanted_may_be_disrupted() {
    assert_eq!(allowed(json!({ "minAvailable": 1 }), 3, &["a", "b", "c"]), (3, 1, 3, 2));
    assert_eq!(allowed(json!({ "minAvailable": "50%" }), 3, &["a", "b", "c"]), (3, 2, 3, 1));
    assert_eq!(allowed(json!({ "maxUnavailable": 1 }), 3, &["a", "b"]), (3, 2, 2, 0));
    assert_eq!(allowed(json!({ "maxUnavailable": "30%" }), 10, &["a"]), (10, 7, 1, 0));
    assert_eq!(allowed(json!({}), 0, &["a"]), (0, 0, 1, 0));
    assert!(needs_scale(&budget(json!({ "minAvailable": "1%" }), NONE())));
    assert!(!needs_scale(&budget(json!({ "minAvailable": 1 }), NONE())));
}

#[test]
fn an_evicted_pod_counts_as_lost_until_it_is_clear_that_it_stays() {
    let mut was = NONE();
    was["disruptedPods"] = json!({ "a": at(100), "gone": at(100) });
    let budget = budget(json!({ "minAvailable": 1 }), was);
    let soon = Counted::of(&budget, &pods(&["a", "b"]), at(110));
    assert_eq!((soon.healthy, soon.disrupted.len(), soon.recheck), (1, 1, Some(Duration::from_secs(110))));
    let late = Counted::of(&budget, &pods(&["a", "b"]), at(221));
    assert_eq!((late.healthy, late.disrupted.len(), late.not_deleted.len()), (2, 0, 1));
}

#[test]
fn a_budget_that_cannot_be_counted_allows_nothing_and_says_why() {
    let budget = budget(json!({ "maxUnavailable": 1 }), NONE());
    let status = failed(&budget, "found no controllers for pod \"a\"", at(0));
    let condition = &status.conditions.unwrap()[0];
    assert_eq!((condition.reason.as_str(), condition.status.as_str()), ("SyncFailed", "False"));
    assert_eq!(condition.message, "found no controllers for pod \"a\"");
}

#[test]
fn a_pod_that_was_to_be_disrupted_is_spared_after_two_minutes() {
    let target = json!([{ "type": "DisruptionTarget", "status": "True", "lastTransitionTime": at(0) }]);
    let pod: Pod = serde_json::from_value(json!({ "status": { "phase": "Running", "conditions": target } })).unwrap();
    assert_eq!(spared_in(&pod, at(50)), Some(Duration::from_secs(70)));
    assert_eq!(spared_in(&pod, at(500)), Some(Duration::ZERO));
    assert_eq!(spared_in(&pods(&["a"])[0], at(0)), None);
}
