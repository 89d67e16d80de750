//! Objects in, what they cost out.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn cost(plural: &str, object: &Value) -> String {
    show(&Resource::new("", plural).cost(object, Timestamp::UNIX_EPOCH))
}

#[test]
fn a_pod_costs_what_its_containers_ask_for_at_one_time() {
    let pod = json!({ "spec": {
        "containers": [
            { "name": "a", "resources": { "requests": { "cpu": "100m", "memory": "1Gi" }, "limits": { "cpu": "1" } } },
            { "name": "b", "resources": { "requests": { "cpu": "100m", "example.com/gpu": "2" } } },
        ],
        "initContainers": [
            { "name": "s", "restartPolicy": "Always", "resources": { "requests": { "cpu": "50m" } } },
            { "name": "i", "resources": { "requests": { "cpu": "500m" } } },
        ],
        "overhead": { "cpu": "10m" },
    } });
    assert_eq!(
        cost("pods", &pod),
        "count/pods=1,cpu=560m,limits.cpu=1010m,memory=1Gi,pods=1,requests.cpu=560m,requests.example.com/gpu=2,requests.memory=1Gi"
    );
    let mut finished = pod;
    finished["status"] = json!({ "phase": "Succeeded" });
    assert_eq!(cost("pods", &finished), "count/pods=1");
}

#[test]
fn services_claims_and_everything_else_are_counted() {
    let service = json!({ "spec": { "type": "LoadBalancer", "ports": [{ "port": 1 }, { "port": 2 }] } });
    assert_eq!(cost("services", &service), "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2");
    let claim = json!({ "spec": { "storageClassName": "gold", "resources": { "requests": { "storage": "1Gi" } } } });
    assert_eq!(
        cost("persistentvolumeclaims", &claim),
        "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
    );
    assert_eq!(cost("secrets", &json!({})), "count/secrets=1,secrets=1");
    let set = Resource::new("apps", "replicasets");
    assert_eq!(show(&set.cost(&json!({}), Timestamp::UNIX_EPOCH)), "count/replicasets.apps=1");
    let names = ["count/replicasets.apps", "pods", "count/replicasets"].into_iter();
    assert_eq!(set.counted_by(names), ["count/replicasets.apps"]);
}

#[test]
fn resource_claims_are_counted_by_the_device_classes_they_may_be_given() {
    let one = |class: &str, mode: &str, count: u8| json!({ "deviceClassName": class, "allocationMode": mode, "count": count });
    let claim = json!({ "spec": { "devices": { "requests": [
        { "name": "a", "exactly": one("gold", "ExactCount", 2) },
        { "name": "b", "firstAvailable": [one("gold", "ExactCount", 3), one("gold", "ExactCount", 1), one("tin", "All", 0)] },
    ] } } });
    let claims = Resource::new("resource.k8s.io", "resourceclaims");
    assert_eq!(
        show(&claims.cost(&claim, Timestamp::UNIX_EPOCH)),
        "count/resourceclaims.resource.k8s.io=1,gold.deviceclass.resource.k8s.io/devices=5,\
         tin.deviceclass.resource.k8s.io/devices=32"
    );
    let names =
        ["gold.deviceclass.resource.k8s.io/devices", "pods", "gold.storageclass.storage.k8s.io/requests.storage"];
    assert_eq!(claims.counted_by(names.into_iter()), [names[0]]);
}

#[test]
fn a_quota_demands_that_every_container_says_what_it_limits() {
    let pod = json!({ "spec": { "containers": [
        { "name": "b", "resources": { "requests": { "cpu": "1" } } }, { "name": "a" },
    ] } });
    let demanded = ["limits.memory", "pods", "requests.cpu"].map(str::to_owned);
    assert_eq!(
        Resource::new("", "pods").unstated(&demanded, &pod).unwrap(),
        "must specify limits.memory for: a,b; requests.cpu for: a"
    );
}

#[test]
fn scopes_say_which_pods_a_quota_is_about() {
    let pods = Resource::new("", "pods");
    let quota = |spec: Value| json!({ "spec": spec, "status": { "hard": { "pods": "1" } } });
    let plain = json!({ "spec": { "containers": [{ "name": "a" }] } });
    let gold = json!({ "spec": { "priorityClassName": "gold", "activeDeadlineSeconds": 5,
        "containers": [{ "name": "a", "resources": { "limits": { "cpu": "1" } } }] } });
    let is_in = |spec: Value, pod: &Value| pods.is_limited_by(&quota(spec), pod);
    let scopes = |names: &[&str]| json!({ "scopes": names });
    assert!(is_in(scopes(&["BestEffort", "NotTerminating"]), &plain));
    assert!(is_in(scopes(&["NotBestEffort", "Terminating", "PriorityClass"]), &gold));
    assert!(!is_in(scopes(&["Terminating"]), &plain) && !is_in(scopes(&["PriorityClass"]), &plain));
    let selector = |operator: &str| {
        json!({ "scopeSelector": { "matchExpressions": [
            { "scopeName": "PriorityClass", "operator": operator, "values": ["gold"] }] } })
    };
    assert!(is_in(selector("In"), &gold) && !is_in(selector("In"), &plain));
    assert!(is_in(selector("NotIn"), &plain) && !is_in(selector("NotIn"), &gold));
    assert!(!Resource::new("", "services").is_limited_by(&quota(scopes(&["BestEffort"])), &json!({})));
}
