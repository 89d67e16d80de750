//! How a pod is shown in a table: its status in one word, restarts with the time of the last.
//!
//! Source: the behaviour of `printPod` in `pkg/printers/internalversion` of Kubernetes.

use jiff::Timestamp;
use serde_json::Value;

use crate::age;
use crate::json::{flag, get, has, int, list, text, text_at};
use crate::kind::Column;
use crate::table;

/// The columns.
pub(super) const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    table::column("Status", "The aggregate status of the containers in this pod."),
    table::column(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    table::AGE,
    table::wide(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
    ),
    table::wide(
        "Node",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
    ),
    table::wide(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right away as preemption victims receive their graceful termination periods. This field does not guarantee that the pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is scheduled.",
    ),
    table::wide(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers are ready AND all conditions specified in the readiness gates have status equal to \"True\" More info: https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
    ),
];

/// What the containers' states come to.
struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

/// Restarts and when the last container before one ended.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &Value) {
        self.count += int(status, "restartCount").unwrap_or_default();
        let ended = text_at(status, &["lastState", "terminated", "finishedAt"]).parse::<Timestamp>().ok();
        self.last = self.last.max(ended);
    }

    fn show(self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, age::human(now.as_second() - last.as_second()))
            }
            _ => self.count.to_string(),
        }
    }
}

/// The row.
pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (get(pod, "spec"), get(pod, "status"));
    let summary = summarize(pod);
    let ip = list(status, "podIPs").first().map_or_else(|| text(status, "podIP"), |ip| text(ip, "ip"));
    vec![
        table::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        summary.restarts.show(now).into(),
        age::of(pod, now).into(),
        table::or_none(ip),
        table::or_none(text(spec, "nodeName")),
        table::or_none(text(status, "nominatedNodeName")),
        readiness_gates(spec, status),
    ]
}

fn readiness_gates(spec: &Value, status: &Value) -> Value {
    let gates = list(spec, "readinessGates");
    let met = gates.iter().filter(|gate| has_condition(status, text(gate, "conditionType"))).count();
    if gates.is_empty() { "<none>".into() } else { format!("{met}/{}", gates.len()).into() }
}

fn has_condition(status: &Value, kind: &str) -> bool {
    list(status, "conditions").iter().any(|one| text(one, "type") == kind && text(one, "status") == "True")
}

fn is_sidecar(spec: &Value, name: &str) -> bool {
    list(spec, "initContainers")
        .iter()
        .any(|container| text(container, "name") == name && text(container, "restartPolicy") == "Always")
}

fn summarize(pod: &Value) -> Summary {
    let (spec, status) = (get(pod, "spec"), get(pod, "status"));
    let sidecars = list(spec, "initContainers").iter().filter(|one| text(one, "restartPolicy") == "Always").count();
    let phase = text(status, "phase");
    let reason = if has(status, "reason") { text(status, "reason") } else { phase };
    let gated = |one: &Value| text(one, "type") == "PodScheduled" && text(one, "reason") == "SchedulingGated";
    let gated = list(status, "conditions").iter().any(gated);
    let mut summary = Summary {
        ready: 0,
        total: list(spec, "containers").len() + sidecars,
        reason: if gated { "SchedulingGated" } else { reason }.to_owned(),
        restarts: Restarts::default(),
    };
    let initializing = init_containers(spec, status, &mut summary);
    if !initializing || has_condition(status, "Initialized") {
        containers(spec, status, &mut summary);
    }
    if has(get(pod, "metadata"), "deletionTimestamp") {
        if text(status, "reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if !matches!(phase, "Failed" | "Succeeded") {
            "Terminating".clone_into(&mut summary.reason);
        }
    }
    summary
}

/// Looks at the init containers up to the first that is not done; says whether there is one.
fn init_containers(spec: &Value, status: &Value, summary: &mut Summary) -> bool {
    for (index, one) in list(status, "initContainerStatuses").iter().enumerate() {
        summary.restarts.add(one);
        let (ended, waiting) = (get(get(one, "state"), "terminated"), get(get(one, "state"), "waiting"));
        if int(ended, "exitCode") == Some(0) {
            continue;
        }
        if is_sidecar(spec, text(one, "name")) && flag(one, "started") {
            summary.ready += usize::from(flag(one, "ready"));
            continue;
        }
        let why = text(waiting, "reason");
        summary.reason = if !ended.is_null() {
            format!("Init:{}", end_of(ended))
        } else if !why.is_empty() && why != "PodInitializing" {
            format!("Init:{why}")
        } else {
            format!("Init:{index}/{}", list(spec, "initContainers").len())
        };
        return true;
    }
    false
}

/// The reason a container ended, or its signal or exit code.
fn end_of(ended: &Value) -> String {
    let reason = text(ended, "reason");
    if !reason.is_empty() {
        return reason.to_owned();
    }
    match int(ended, "signal").unwrap_or_default() {
        0 => format!("ExitCode:{}", int(ended, "exitCode").unwrap_or_default()),
        signal => format!("Signal:{signal}"),
    }
}

fn containers(spec: &Value, status: &Value, summary: &mut Summary) {
    let mut restarts = Restarts::default();
    for one in list(status, "initContainerStatuses").iter().filter(|one| is_sidecar(spec, text(one, "name"))) {
        restarts.add(one);
    }
    let mut running = false;
    for one in list(status, "containerStatuses").iter().rev() {
        restarts.add(one);
        let state = get(one, "state");
        let why = text(get(state, "waiting"), "reason");
        if !why.is_empty() {
            why.clone_into(&mut summary.reason);
        } else if has(state, "terminated") {
            summary.reason = end_of(get(state, "terminated"));
        } else if flag(one, "ready") && has(state, "running") {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let word = if has_condition(status, "Ready") { "Running" } else { "NotReady" };
        word.clone_into(&mut summary.reason);
    }
    summary.restarts = restarts;
}
