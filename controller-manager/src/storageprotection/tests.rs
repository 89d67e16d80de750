//! Who uses a claim, and when a finalizer comes and goes.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::plan::*;

#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn pod(node: &str, volume: Value, meta: Value) -> Pod {
    let mut pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" },
        "spec": { "nodeName": node, "containers": [], "volumes": [volume] } });
    for (key, value) in meta.as_object().unwrap() {
        pod["metadata"][key] = value.clone();
    }
    serde_json::from_value(pod).unwrap()
}

fn claim(name: &str, owner: &str) -> PersistentVolumeClaim {
    let owners = json!([{ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true }]);
    let owners = if owner.is_empty() { json!([]) } else { owners };
    serde_json::from_value(json!({ "metadata": { "name": name, "ownerReferences": owners } })).unwrap()
}

#[test]
fn a_claim_is_used_by_pods_that_have_a_node() {
    let named = json!({ "name": "v", "persistentVolumeClaim": { "claimName": "c" } });
    assert!(uses(&pod("n1", named.clone(), json!({})), &claim("c", "")));
    assert!(!uses(&pod("", named.clone(), json!({})), &claim("c", "")));
    assert!(!uses(&pod("n1", named, json!({})), &claim("other", "")));
}

#[test]
fn a_pods_own_claim_is_used_until_the_pod_is_shut_down() {
    let own = json!({ "name": "v", "ephemeral": {} });
    assert!(uses(&pod("n1", own.clone(), json!({})), &claim("p-v", "u")));
    assert!(!uses(&pod("n1", own.clone(), json!({})), &claim("p-v", "another")), "a namesake is not its own");
    let gone = json!({ "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0 });
    assert!(!uses(&pod("n1", own.clone(), gone), &claim("p-v", "u")));
    assert_eq!(claims_of(&pod("", own, json!({})))[0].name, "p-v");
}

#[test]
fn a_finalizer_stays_as_long_as_somebody_uses_the_object() {
    let meta = |deleted: bool, has: &[&str]| ObjectMeta {
        finalizers: Some(has.iter().map(|own| (*own).to_owned()).collect()),
        deletion_timestamp: deleted.then(|| serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap()),
        ..ObjectMeta::default()
    };
    let some = |list: &[&str]| Some(list.iter().map(|own| (*own).to_owned()).collect::<Vec<_>>());
    assert_eq!(finalizers(&meta(false, &["x"]), "f", false), some(&["x", "f"]));
    assert_eq!(finalizers(&meta(false, &["f"]), "f", true), None);
    assert_eq!(finalizers(&meta(true, &["x", "f"]), "f", true), None);
    assert_eq!(finalizers(&meta(true, &["x", "f"]), "f", false), some(&["x"]));
    assert_eq!(finalizers(&meta(true, &["x"]), "f", false), None, "nothing is added to what goes");
}
