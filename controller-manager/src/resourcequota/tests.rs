//! Quotas and objects in, what is used out.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use reeve_api::quota::{Resource, show};
use serde_json::{Value, json};

use super::plan::{Counting, costs, counted, number, status};

#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn quota(spec: Value, status: Value) -> ResourceQuota {
    serde_json::from_value(json!({ "spec": spec, "status": status })).unwrap()
}

#[test]
fn a_kind_is_read_whole_only_where_its_objects_differ() {
    let quota = json!({ "spec": { "hard": { "secrets": "5", "count/pods": "3", "services": "1", "services.nodeports": "1" } } });
    let of = |plural: &str| counted(Resource::new("", plural), &quota);
    assert_eq!(of("secrets"), Counting::Objects);
    assert_eq!(of("pods"), Counting::Objects);
    assert_eq!(of("services"), Counting::Costs);
    assert_eq!(of("configmaps"), Counting::Nothing);
    assert_eq!(of("events"), Counting::Nothing);
    assert_eq!(show(&number(Resource::new("", "secrets"), &quota, 7)), "secrets=7");
}

#[test]
fn only_what_is_in_scope_is_counted_and_nothing_is_zero() {
    let quota = json!({ "spec": { "hard": { "pods": "3", "requests.cpu": "1" }, "scopes": ["Terminating"] } });
    let pod = |deadline: Value, phase: &str| {
        json!({ "spec": { "activeDeadlineSeconds": deadline, "containers": [
            { "name": "c", "resources": { "requests": { "cpu": "100m" } } }] }, "status": { "phase": phase } })
    };
    let pods = [pod(json!(5), "Running"), pod(Value::Null, "Running"), pod(json!(5), "Failed")];
    let resource = Resource::new("", "pods");
    assert_eq!(show(&costs(resource, &quota, &pods, Timestamp::UNIX_EPOCH)), "pods=1,requests.cpu=100m");
    assert_eq!(show(&costs(resource, &quota, &[], Timestamp::UNIX_EPOCH)), "pods=0,requests.cpu=0");
}

#[test]
fn the_status_follows_the_limits_and_is_written_once() {
    let counted = || number(Resource::new("", "secrets"), &json!({ "spec": { "hard": { "secrets": "5" } } }), 2);
    let spec = json!({ "hard": { "secrets": "5" } });
    let first = status(&quota(spec.clone(), json!({})), counted()).unwrap();
    assert_eq!(first.used.clone().unwrap()["secrets"].0, "2");
    let settled = quota(spec, serde_json::to_value(&first).unwrap());
    assert_eq!(status(&settled, counted()), None);
    let wider = quota(json!({ "hard": { "secrets": "6" } }), serde_json::to_value(&first).unwrap());
    assert_eq!(status(&wider, counted()).unwrap().hard.unwrap()["secrets"].0, "6");
}
