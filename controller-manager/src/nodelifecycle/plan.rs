//! Decides what is said about a node that is silent, which taints its state asks for, and when its pods must go.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reeve_api::taints::tolerates;

/// A node that has not been heard of for this long is unknown. Source: `node-monitor-grace-period`.
pub(super) const GRACE: Duration = Duration::from_secs(50);

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that keep pods away while they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// Conditions that nobody can vouch for when the node is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// A condition of a node.
pub(super) fn condition<'n>(node: &'n Node, kind: &str) -> Option<&'n NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// The status of the condition `Ready`; `Unknown` if there is none.
pub(super) fn readiness(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |ready| ready.status.as_str())
}

/// The conditions of a node that has been silent for too long; `None` if they say so already.
pub(super) fn silenced(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut changed = Vec::new();
    for kind in REPORTED {
        let old = condition(node, kind);
        if old.is_some_and(|old| old.status == "Unknown") {
            continue;
        }
        let (reason, message) = match old {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let heartbeat = old.and_then(|old| old.last_heartbeat_time.clone());
        changed.push(NodeCondition {
            type_: kind.to_owned(),
            status: "Unknown".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_heartbeat_time: heartbeat.or_else(|| node.metadata.creation_timestamp.clone()),
            last_transition_time: Some(Time(now)),
        });
    }
    (!changed.is_empty()).then_some(changed)
}

/// The taints that a node should have; `None` if it has them. Taints of others stay as they are.
///
/// Without a single ready node in the cluster (`any_ready`) nothing is evicted: it is more likely that we are
/// cut off than that all nodes died. Source: the node controller's full disruption mode.
pub(super) fn taints(node: &Node, any_ready: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let old: Vec<Taint> = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let wanted = wanted(node, any_ready);
    let is_wanted = |taint: &Taint| wanted.iter().any(|(key, effect)| *key == taint.key && *effect == taint.effect);
    let mut new: Vec<Taint> = old.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !new.iter().any(|taint| taint.key == key && taint.effect == effect) {
            new.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (new != old).then_some(new)
}

fn wanted(node: &Node, any_ready: bool) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let state = match readiness(node) {
        "True" => None,
        "False" => Some(NOT_READY),
        _ => Some(UNREACHABLE),
    };
    if let Some(key) = state {
        wanted.push((key, "NoSchedule"));
        if any_ready {
            wanted.push((key, "NoExecute"));
        }
    }
    for (kind, key) in PRESSURES {
        if condition(node, kind).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, "NoSchedule"));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

/// The taints that this controller alone sets and removes.
fn is_ours(taint: &Taint) -> bool {
    let by_state = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
    let by_condition = PRESSURES.iter().any(|(_, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
    match taint.effect.as_str() {
        "NoSchedule" => by_state || by_condition,
        "NoExecute" => by_state,
        _ => false,
    }
}

/// When a pod has to leave a node.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Eviction {
    /// It may stay as long as the taints are what they are.
    Never,
    /// It may stay this long.
    In(Duration),
    /// It has to go.
    Now,
}

/// How long a pod tolerates the node's `NoExecute` taints, counted from when each was set.
pub(super) fn eviction(pod: &Pod, node: &Node, now: Timestamp) -> Eviction {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut shortest: Option<Duration> = None;
    for taint in taints.iter().filter(|taint| taint.effect == "NoExecute") {
        match tolerated_for(taint, tolerations) {
            None => return Eviction::Now,
            Some(None) => {}
            Some(Some(limit)) => {
                let since = taint.time_added.as_ref().map_or(now, |time| time.0);
                let passed = Duration::try_from(now.duration_since(since)).unwrap_or(Duration::ZERO);
                let left = limit.saturating_sub(passed);
                shortest = Some(shortest.map_or(left, |shortest| shortest.min(left)));
            }
        }
    }
    match shortest {
        None => Eviction::Never,
        Some(Duration::ZERO) => Eviction::Now,
        Some(left) => Eviction::In(left),
    }
}

/// `None`: not at all; `Some(None)`: for ever; else the shortest of the tolerations that cover the taint.
#[allow(clippy::option_option, reason = "the two absences mean opposite things, and both are named above")]
fn tolerated_for(taint: &Taint, tolerations: &[Toleration]) -> Option<Option<Duration>> {
    let covering: Vec<&Toleration> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
    if covering.is_empty() {
        return None;
    }
    let limits = covering.iter().filter_map(|toleration| toleration.toleration_seconds);
    Some(limits.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))).min())
}
