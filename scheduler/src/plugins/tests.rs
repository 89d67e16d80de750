//! The rules together: pods and nodes in, a node or Kubernetes' words out.
#![allow(clippy::needless_pass_by_value, reason = "tables of literals read better by value")]

use std::sync::Arc;

use serde_json::{Value, json};

use crate::decide::decide;
use crate::pod::PodView;
use crate::snapshot::Snapshot;

fn node(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut node = json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } }, "spec": {},
        "status": { "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "110" } } });
    change(&mut node);
    node
}

fn pod(name: &str, spec: Value) -> Arc<PodView> {
    let mut pod = json!({ "metadata": { "namespace": "default", "name": name, "uid": name },
        "spec": { "containers": [{ "name": "c" }] } });
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    Arc::new(PodView::of(&serde_json::from_value(pod).unwrap()).unwrap())
}

fn requesting(resources: Value) -> Value {
    json!({ "containers": [{ "name": "c", "resources": { "requests": resources } }] })
}

fn snapshot(nodes: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.put_node(Arc::new(serde_json::from_value(node.clone()).unwrap()));
    }
    snapshot
}

#[track_caller]
fn check(nodes: &[Value], spec: Value, outcome: &str) {
    let snapshot = snapshot(nodes);
    let decision = decide(&pod("web", spec), &snapshot, 0);
    let seen = decision.map_or_else(|error| error.to_string(), str::to_owned);
    assert_eq!(seen, outcome);
}

const NEVER: &str = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";

#[test]
fn without_nodes_kubernetes_says_so() {
    check(&[], json!({}), "no nodes available to schedule pods");
}

#[test]
fn requests_must_fit_into_what_is_left() {
    let nodes = [node("a", |_| {})];
    check(&nodes, requesting(json!({ "cpu": "2", "memory": "4Gi" })), "a");
    let message = format!("0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory. {NEVER}");
    check(&nodes, requesting(json!({ "cpu": "2100m", "memory": "5Gi" })), &message);
    let message = format!("0/1 nodes are available: 1 Insufficient example.com/gpu. {NEVER}");
    check(&nodes, requesting(json!({ "example.com/gpu": "1" })), &message);
}

#[test]
fn what_other_pods_hold_could_be_preempted_and_comes_back_when_they_are_gone() {
    let mut snapshot = snapshot(&[node("a", |_| {})]);
    snapshot.place("a", pod("first", requesting(json!({ "cpu": "1500m" }))));
    let second = pod("second", requesting(json!({ "cpu": "1" })));
    let words = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
                 1 No preemption victims found for incoming pod.";
    assert_eq!(decide(&second, &snapshot, 0).unwrap_err().to_string(), words);
    assert!(snapshot.remove_pod("first"));
    assert_eq!(decide(&second, &snapshot, 0), Ok("a"));
}

#[test]
fn a_node_takes_only_so_many_pods() {
    let nodes = [node("a", |node| node["status"]["allocatable"]["pods"] = "0".into())];
    check(&nodes, json!({}), &format!("0/1 nodes are available: 1 Too many pods. {NEVER}"));
}

#[test]
fn pods_that_were_placed_before_their_node_was_known_count() {
    let mut snapshot = Snapshot::default();
    snapshot.place("a", pod("first", requesting(json!({ "cpu": "2" }))));
    snapshot.put_node(Arc::new(serde_json::from_value(node("a", |_| {})).unwrap()));
    assert!(decide(&pod("second", requesting(json!({ "cpu": "1m" }))), &snapshot, 0).is_err());
}

#[test]
fn a_node_selector_and_a_required_affinity_must_match() {
    let nodes = [node("a", |node| node["metadata"]["labels"]["disk"] = "ssd".into()), node("b", |_| {})];
    check(&nodes, json!({ "nodeSelector": { "disk": "ssd" } }), "a");
    let affinity = |operator: &str| {
        let terms = json!([{ "matchExpressions": [{ "key": "disk", "operator": operator }] }]);
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution":
            { "nodeSelectorTerms": terms } } } })
    };
    check(&nodes, affinity("Exists"), "a");
    check(&nodes, affinity("DoesNotExist"), "b");
    let message = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. \
                   preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    check(&nodes, json!({ "nodeSelector": { "disk": "tape" } }), message);
}

#[test]
fn a_preferred_affinity_outweighs_a_fuller_node() {
    let nodes = [
        node("a", |_| {}),
        node("b", |node| {
            node["metadata"]["labels"]["disk"] = "ssd".into();
            node["status"]["allocatable"]["memory"] = "2Gi".into();
        }),
    ];
    let preference = json!({ "matchExpressions": [{ "key": "disk", "operator": "Exists" }] });
    let preferred = json!([{ "weight": 1, "preference": preference }]);
    check(&nodes, json!({}), "a");
    let affinity = json!({ "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": preferred } });
    check(&nodes, json!({ "affinity": affinity }), "b");
}

#[test]
fn taints_must_be_tolerated() {
    let taint = json!([{ "key": "dedicated", "value": "gpu", "effect": "NoSchedule" }]);
    let nodes = [node("a", |node| node["spec"]["taints"] = taint)];
    let words = format!("0/1 nodes are available: 1 node(s) had untolerated taint(s). {NEVER}");
    check(&nodes, json!({}), &words);
    check(&nodes, json!({ "tolerations": [{ "key": "dedicated", "value": "web" }] }), &words);
    check(&nodes, json!({ "tolerations": [{ "key": "dedicated", "value": "gpu", "effect": "NoExecute" }] }), &words);
    check(&nodes, json!({ "tolerations": [{ "key": "dedicated", "value": "gpu" }] }), "a");
    check(&nodes, json!({ "tolerations": [{ "operator": "Exists" }] }), "a");
}

#[test]
fn a_soft_taint_is_avoided_but_not_forbidden() {
    let taint = json!([{ "key": "old", "effect": "PreferNoSchedule" }]);
    let soft = |name: &str| node(name, |node| node["spec"]["taints"] = taint.clone());
    check(&[soft("a"), node("b", |_| {})], json!({}), "b");
    check(&[soft("a")], json!({}), "a");
}

#[test]
fn a_cordoned_node_gets_only_pods_that_tolerate_it() {
    let nodes = [node("a", |node| node["spec"]["unschedulable"] = true.into())];
    check(&nodes, json!({}), &format!("0/1 nodes are available: 1 node(s) were unschedulable. {NEVER}"));
    let tolerations = json!([{ "key": "node.kubernetes.io/unschedulable", "operator": "Exists" }]);
    check(&nodes, json!({ "tolerations": tolerations }), "a");
}

#[test]
fn a_host_port_is_held_by_one_pod_per_node_and_address() {
    let port = |ip: &str, protocol: &str| {
        json!({ "containers": [{ "name": "c", "ports":
            [{ "containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol }] }] })
    };
    let mut snapshot = snapshot(&[node("a", |_| {})]);
    snapshot.place("a", pod("first", port("127.0.0.1", "TCP")));
    let fits = |spec| decide(&pod("second", spec), &snapshot, 0).is_ok();
    assert!(!fits(port("127.0.0.1", "TCP")));
    assert!(!fits(port("", "TCP")));
    assert!(fits(port("127.0.0.2", "TCP")));
    assert!(fits(port("127.0.0.1", "UDP")));
}

#[test]
fn pods_spread_to_the_least_allocated_node_and_ties_are_broken_by_the_given_number() {
    let mut snapshot = snapshot(&[node("a", |_| {}), node("b", |_| {})]);
    let web = pod("web", json!({}));
    assert_eq!(decide(&web, &snapshot, 0), Ok("a"));
    assert_eq!(decide(&web, &snapshot, 1), Ok("b"));
    snapshot.place("a", pod("first", json!({})));
    assert_eq!(decide(&web, &snapshot, 0), Ok("b"));
    assert_eq!(decide(&web, &snapshot, 1), Ok("b"));
}

#[test]
fn a_pod_that_may_not_preempt_is_told_so() {
    let mut spec = requesting(json!({ "cpu": "3" }));
    spec["preemptionPolicy"] = "Never".into();
    let words = "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.";
    check(&[node("a", |_| {})], spec, words);
}

#[test]
fn a_removed_node_takes_its_columns_with_it() {
    let mut snapshot = snapshot(&[node("a", |_| {}), node("b", |_| {}), node("c", |_| {})]);
    snapshot.place("c", pod("first", requesting(json!({ "cpu": "2" }))));
    snapshot.remove_node("a");
    let one_cpu = pod("web", requesting(json!({ "cpu": "1" })));
    assert_eq!(decide(&one_cpu, &snapshot, 0), Ok("b"));
    assert_eq!(decide(&one_cpu, &snapshot, 1), Ok("b"));
    snapshot.remove_node("b");
    assert!(decide(&one_cpu, &snapshot, 0).is_err());
}
