//! What of an object only the server knows: who asks for a certificate, and when something came to be.
//!
//! Kubernetes' strategies and defaults do this where they prepare an object; our kinds know neither user nor time.

use jiff::Timestamp;
use reeve_kinds::Part;
use serde_json::{Value, json};

use super::meta;
use super::request::{Request, UserInfo};

/// Completes a new object.
pub(super) fn complete_new(request: &Request, object: &mut Value, now: Timestamp) {
    if request.resource.is("certificates.k8s.io", "certificatesigningrequests") {
        sign(&request.user, object);
    } else if request.resource.is("resource.k8s.io", "resourceslices") {
        date_taints(object, now);
    }
}

/// Completes a changed object.
pub(super) fn complete_changed(request: &Request, part: Part, object: &mut Value, old: &Value, now: Timestamp) {
    if request.resource.is("certificates.k8s.io", "certificatesigningrequests") {
        if matches!(part, Part::Approval | Part::Status) {
            date_conditions(object, old, now);
        }
    } else if request.resource.is("resource.k8s.io", "resourceslices") {
        date_taints(object, now);
    }
}

/// Says in a request for a certificate who makes it.
fn sign(user: &UserInfo, object: &mut Value) {
    let spec = &mut object["spec"];
    let facts = [
        ("username", json!(user.name), user.name.is_empty()),
        ("uid", json!(user.uid), user.uid.is_empty()),
        ("groups", json!(user.groups), user.groups.is_empty()),
        ("extra", json!(user.extra), user.extra.is_empty()),
    ];
    for (field, value, _) in facts.into_iter().filter(|(.., is_empty)| !is_empty) {
        spec[field] = value;
    }
}

/// A condition without times has changed now, unless it was so before.
fn date_conditions(object: &mut Value, old: &Value, now: Timestamp) {
    let now = meta::time(now);
    let before = old["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let conditions = object.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten().filter(|condition| condition.is_object()) {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = json!(now);
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |was: &&Value| was["type"] == condition["type"] && was["status"] == condition["status"];
            let since = before.iter().find(same).map(|was| was["lastTransitionTime"].clone());
            condition["lastTransitionTime"] = since.filter(|since| !since.is_null()).unwrap_or_else(|| json!(now));
        }
    }
}

/// A taint of a device that does not say since when is new.
fn date_taints(object: &mut Value, now: Timestamp) {
    let devices = object.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten();
    let taints = devices.filter_map(|device| device.get_mut("taints")?.as_array_mut()).flatten();
    for taint in taints.filter(|taint| taint.is_object() && taint["timeAdded"].is_null()) {
        taint["timeAdded"] = json!(meta::time(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_the_time_of_its_last_change() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let old = json!({"status": {"conditions": [
            {"type": "A", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ]}});
        let mut new = json!({"status": {"conditions": [
            {"type": "A", "status": "True", "lastTransitionTime": null},
            {"type": "B", "status": "True"},
        ]}});
        date_conditions(&mut new, &old, now);
        let conditions = &new["status"]["conditions"];
        assert_eq!(conditions[0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(conditions[0]["lastUpdateTime"], "2026-01-02T00:00:00Z");
        assert_eq!(conditions[1]["lastTransitionTime"], "2026-01-02T00:00:00Z");
    }

    #[test]
    fn who_asks_is_written_down() {
        let mut object = json!({"spec": {}});
        sign(&UserInfo::new("jane", &["dev"]), &mut object);
        assert_eq!(object["spec"], json!({"username": "jane", "groups": ["dev"]}));
    }
}
