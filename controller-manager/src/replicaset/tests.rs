//! ReplicaSets and pods in, creations, deletions and a status out.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::apply::pod_from_template;
use super::plan::{Failure, Observed, Plan, next_available, plan, status};
use crate::ownership::controller_reference;

const NOW: i64 = 1_000_000;

fn set(replicas: i32) -> ReplicaSet {
    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c" }] } });
    let spec = json!({ "replicas": replicas, "selector": { "matchLabels": { "app": "web" } }, "template": template });
    let metadata = json!({ "namespace": "default", "name": "web", "uid": "set", "generation": 3 });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

/// A running, ready pod on node `n1`, 1000 s old, unless `change` says otherwise.
fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let at = |age: i64| Timestamp::from_second(NOW - age).unwrap().to_string();
    let mut pod = json!({
        "metadata": { "name": name, "uid": name, "labels": { "app": "web" }, "creationTimestamp": at(1000) },
        "spec": { "nodeName": "n1", "containers": [] },
        "status": { "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": at(1000) }] },
    });
    change(&mut pod);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn observed(owned: &[Arc<Pod>]) -> Observed<'_> {
    Observed { owned, per_node: HashMap::new(), now: Timestamp::from_second(NOW).unwrap() }
}

#[track_caller]
fn check_first_to_go(pods: &[Arc<Pod>], expected: &str) {
    let wanted = i32::try_from(pods.len()).unwrap() - 1;
    let Plan::Delete(chosen) = plan(&set(wanted), &observed(pods)) else { panic!("nothing is deleted") };
    assert_eq!(chosen[0].metadata.name.as_deref(), Some(expected));
}

#[test]
fn missing_pods_are_created_and_surplus_ones_deleted() {
    let pods = [pod("a", |_| {}), pod("b", |_| {})];
    assert_eq!(plan(&set(5), &observed(&pods)), Plan::Create(3));
    assert_eq!(plan(&set(2), &observed(&pods)), Plan::Keep);
    assert!(matches!(plan(&set(0), &observed(&pods)), Plan::Delete(surplus) if surplus.len() == 2));
    assert_eq!(plan(&set(2000), &observed(&pods)), Plan::Create(500));
}

#[test]
fn finished_and_terminating_pods_are_replaced() {
    let pods = [
        pod("failed", |pod| pod["status"]["phase"] = "Failed".into()),
        pod("leaving", |pod| pod["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into()),
    ];
    assert_eq!(plan(&set(2), &observed(&pods)), Plan::Create(2));
    assert_eq!(status(&set(2), &observed(&pods), None).terminating_replicas, Some(1));
}

#[test]
fn the_pods_whose_loss_hurts_least_go_first() {
    let sound = || pod("sound", |_| {});
    check_first_to_go(&[sound(), pod("unscheduled", |pod| pod["spec"]["nodeName"] = "".into())], "unscheduled");
    check_first_to_go(&[sound(), pod("pending", |pod| pod["status"]["phase"] = "Pending".into())], "pending");
    let unready = |pod: &mut Value| pod["status"]["conditions"][0]["status"] = "False".into();
    check_first_to_go(&[sound(), pod("unready", unready)], "unready");
    let cheap = |pod: &mut Value| {
        pod["metadata"]["annotations"] = json!({ "controller.kubernetes.io/pod-deletion-cost": "-5" });
    };
    check_first_to_go(&[sound(), pod("cheap", cheap)], "cheap");
    let late = |pod: &mut Value| {
        let at = Timestamp::from_second(NOW - 10).unwrap().to_string();
        pod["status"]["conditions"][0]["lastTransitionTime"] = at.into();
    };
    check_first_to_go(&[sound(), pod("late", late)], "late");
    let shaky = |pod: &mut Value| {
        pod["status"]["containerStatuses"] =
            json!([{ "name": "c", "image": "i", "imageID": "i", "ready": true, "restartCount": 4 }]);
    };
    check_first_to_go(&[sound(), pod("z-shaky", shaky)], "z-shaky");
}

#[test]
fn a_crowded_node_loses_a_pod_before_a_lonely_one() {
    let pods = [pod("a-lonely", |pod| pod["spec"]["nodeName"] = "n2".into()), pod("crowded", |_| {})];
    let per_node = HashMap::from([("n1".to_owned(), 3), ("n2".to_owned(), 1)]);
    let Plan::Delete(chosen) = plan(&set(1), &Observed { per_node, ..observed(&pods) }) else { panic!() };
    assert_eq!(chosen[0].metadata.name.as_deref(), Some("crowded"));
}

#[test]
fn the_status_counts_replicas_by_kubernetes_rules() {
    let mut set = set(3);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(1005);
    let pods = [
        pod("ready", |_| {}),
        pod("relabeled", |pod| pod["metadata"]["labels"] = json!({ "app": "other" })),
        pod("unready", |pod| pod["status"]["conditions"][0]["status"] = "False".into()),
    ];
    let status = status(&set, &observed(&pods), None);
    assert_eq!(status.replicas, 3);
    assert_eq!(status.fully_labeled_replicas, Some(2));
    assert_eq!(status.ready_replicas, Some(2));
    assert_eq!(status.available_replicas, None);
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(next_available(&set, &observed(&pods)), Some(std::time::Duration::from_secs(5)));
}

#[test]
fn a_failure_becomes_a_condition_that_goes_when_rounds_succeed() {
    let mut set = set(1);
    let failure = Failure { reason: "FailedCreate", message: "exceeded quota".into() };
    set.status = Some(status(&set, &observed(&[]), Some(&failure)));
    let condition = &set.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
    assert_eq!((condition.type_.as_str(), condition.reason.as_deref()), ("ReplicaFailure", Some("FailedCreate")));
    assert_eq!(condition.message.as_deref(), Some("exceeded quota"));
    assert_eq!(status(&set, &observed(&[]), None).conditions, None);
}

#[test]
fn a_pod_carries_the_template_and_its_owner() {
    let pod = pod_from_template(&set(1), controller_reference(&set(1)));
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
    assert_eq!(pod.metadata.labels.unwrap()["app"], "web");
    let owner = &pod.metadata.owner_references.unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("ReplicaSet", "set"));
    assert_eq!((owner.controller, owner.block_owner_deletion), (Some(true), Some(true)));
}
