//! States of nodes in; conditions, taints and deadlines out.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::heard::Heard;
use super::plan::{Eviction, eviction, silenced, taints};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn node(ready: &str, change: impl FnOnce(&mut Value)) -> Node {
    let mut node = json!({ "metadata": { "name": "n1" }, "spec": {}, "status": { "conditions": [
        { "type": "Ready", "status": ready }, { "type": "MemoryPressure", "status": "False" }] } });
    change(&mut node);
    serde_json::from_value(node).unwrap()
}

fn shown(node: &Node, any_ready: bool) -> Option<Vec<String>> {
    let taints = taints(node, any_ready, NOW)?;
    Some(taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect())
}

#[test]
fn a_silent_node_becomes_unknown_once() {
    let conditions = silenced(&node("True", |_| {}), NOW).unwrap();
    let seen: Vec<_> = conditions
        .iter()
        .map(|condition| format!("{}={} {}", condition.type_, condition.status, condition.reason.as_deref().unwrap()))
        .collect();
    assert_eq!(
        seen,
        [
            "Ready=Unknown NodeStatusUnknown",
            "MemoryPressure=Unknown NodeStatusUnknown",
            "DiskPressure=Unknown NodeStatusNeverUpdated",
            "PIDPressure=Unknown NodeStatusNeverUpdated"
        ]
    );
    let unknown = node("Unknown", |node| node["status"]["conditions"] = json!(conditions));
    assert_eq!(silenced(&unknown, NOW), None);
}

#[test]
fn taints_follow_the_state_of_the_node() {
    let both = |key: &str| Some(vec![format!("{key}:NoSchedule"), format!("{key}:NoExecute")]);
    assert_eq!(shown(&node("True", |_| {}), true), None);
    assert_eq!(shown(&node("False", |_| {}), true), both("node.kubernetes.io/not-ready"));
    assert_eq!(shown(&node("Unknown", |_| {}), true), both("node.kubernetes.io/unreachable"));
    let pressed = node("True", |node| node["status"]["conditions"][1]["status"] = "True".into());
    assert_eq!(shown(&pressed, true), Some(vec!["node.kubernetes.io/memory-pressure:NoSchedule".into()]));
    let cordoned = node("True", |node| node["spec"]["unschedulable"] = true.into());
    assert_eq!(shown(&cordoned, true), Some(vec!["node.kubernetes.io/unschedulable:NoSchedule".into()]));
}

#[test]
fn a_node_that_recovers_loses_our_taints_and_keeps_those_of_others() {
    let tainted = json!([{ "key": "node.kubernetes.io/unreachable", "effect": "NoExecute" },
        { "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }, { "key": "dedicated", "effect": "NoExecute" }]);
    let recovered = node("True", |node| node["spec"]["taints"] = tainted);
    assert_eq!(shown(&recovered, true), Some(vec!["dedicated:NoExecute".into()]));
}

#[test]
fn nothing_is_evicted_while_no_node_at_all_is_ready() {
    let only_schedule = Some(vec!["node.kubernetes.io/unreachable:NoSchedule".to_owned()]);
    assert_eq!(shown(&node("Unknown", |_| {}), false), only_schedule);
}

#[test]
fn pods_stay_as_long_as_they_tolerate_the_taint() {
    let unreachable = node("Unknown", |node| {
        node["spec"]["taints"] = json!([{ "key": "node.kubernetes.io/unreachable", "effect": "NoExecute",
            "timeAdded": "1970-01-01T00:00:00Z" }]);
    });
    let pod = |tolerations: Value| -> Pod {
        serde_json::from_value(json!({ "spec": { "containers": [], "tolerations": tolerations } })).unwrap()
    };
    let at = |second| Timestamp::from_second(second).unwrap();
    let usual = pod(json!([{ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 300 }]));
    assert_eq!(eviction(&usual, &unreachable, at(100)), Eviction::In(Duration::from_secs(200)));
    assert_eq!(eviction(&usual, &unreachable, at(300)), Eviction::Now);
    assert_eq!(eviction(&pod(json!([])), &unreachable, at(0)), Eviction::Now);
    assert_eq!(eviction(&pod(json!([{ "operator": "Exists" }])), &unreachable, at(9999)), Eviction::Never);
    assert_eq!(eviction(&pod(json!([])), &node("True", |_| {}), at(0)), Eviction::Never);
}

#[test]
fn a_node_is_heard_when_its_lease_or_its_status_moves() {
    let heard = Heard::default();
    let (seconds, at) = (Duration::from_secs, |second| Some(Timestamp::from_second(second).unwrap()));
    assert_eq!(heard.silent_for("n1", seconds(5)), Duration::ZERO);
    assert_eq!(heard.silent_for("n1", seconds(25)), seconds(20));
    heard.lease("n1", at(7), seconds(30));
    heard.lease("n1", at(7), seconds(40));
    assert_eq!(heard.silent_for("n1", seconds(50)), seconds(20));
    heard.status("n1", at(1), seconds(60));
    assert_eq!(heard.silent_for("n1", seconds(60)), Duration::ZERO);
}
