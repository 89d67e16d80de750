//! A pod as the scheduler sees it: everything that decides where it may run, read once.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration};
use reeve_api::selector::{Operator, Requirement};
use reeve_client::ObjectKey;

use crate::resources::{Amounts, Resources, requests, requests_for_scoring};

/// The scheduler name that pods get by default, and the only one served here.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// What of a pod matters for placing it. Two equal views are placed alike.
#[derive(Debug, Clone, PartialEq)]
pub struct PodView {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`: tells two lives of one name apart.
    pub uid: Arc<str>,
    /// `spec.nodeName`, if the pod is bound (or was created for a node).
    pub node_name: Option<String>,
    /// `spec.priority`.
    pub priority: i32,
    /// Whether the pod may displace others: `spec.preemptionPolicy` is not `Never`.
    pub may_preempt: bool,
    /// What must be free on the node.
    pub requests: Resources,
    /// What counts when nodes are compared.
    pub scoring: Amounts,
    /// Ports of the node that the pod wants for itself.
    pub host_ports: Vec<HostPort>,
    /// `spec.tolerations`.
    pub tolerations: Vec<Toleration>,
    /// Where the pod may run.
    pub placement: Placement,
}

/// A port on the node's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `0.0.0.0` for all addresses.
    pub ip: String,
    /// The port.
    pub port: i32,
}

/// `spec.nodeSelector` and `spec.affinity.nodeAffinity`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placement {
    /// Labels that the node must have.
    pub selector: Vec<(String, String)>,
    /// One of these must match, if there are any terms at all.
    pub required: Option<Vec<Term>>,
    /// Weights of terms that should match.
    pub preferred: Vec<(i64, Term)>,
}

/// All requirements of a term must hold. A term that cannot be read, or is empty, matches nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
    valid: bool,
}

impl PodView {
    /// Reads a pod; `None` if it lacks a spec or a uid, which the API server never sends.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        Some(Self {
            key: ObjectKey::of(pod),
            uid: pod.metadata.uid.as_deref()?.into(),
            node_name: spec.node_name.clone().filter(|name| !name.is_empty()),
            priority: spec.priority.unwrap_or(0),
            may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
            requests: requests(spec, pod.status.as_ref()),
            scoring: requests_for_scoring(spec, pod.status.as_ref()),
            host_ports: host_ports(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            placement: placement(spec),
        })
    }
}

/// Whether a pod is ours to place now: unbound, for our scheduler, without gates, and not on its way out.
#[must_use]
pub fn is_waiting(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let scheduler = spec.scheduler_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(DEFAULT_SCHEDULER);
    spec.node_name.as_deref().is_none_or(str::is_empty)
        && scheduler == DEFAULT_SCHEDULER
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && pod.metadata.deletion_timestamp.is_none()
        && !is_finished(pod)
}

/// Whether a pod's containers will never run again: it holds nothing on its node any more.
#[must_use]
pub fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let wanted = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let non_empty = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Some(HostPort {
            protocol: non_empty(&port.protocol).unwrap_or_else(|| "TCP".to_owned()),
            ip: non_empty(&port.host_ip).unwrap_or_else(|| "0.0.0.0".to_owned()),
            port: number,
        })
    });
    wanted.collect()
}

fn placement(spec: &PodSpec) -> Placement {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let preferred =
        affinity.and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
    Placement {
        selector: spec.node_selector.clone().unwrap_or_default().into_iter().collect(),
        required: required.map(|selector| selector.node_selector_terms.iter().map(Term::new).collect()),
        preferred: preferred
            .into_iter()
            .flatten()
            .map(|term| (i64::from(term.weight), Term::new(&term.preference)))
            .collect(),
    }
}

impl Term {
    fn new(term: &NodeSelectorTerm) -> Self {
        let labels = requirements(term.match_expressions.as_deref().unwrap_or_default());
        let fields = requirements(term.match_fields.as_deref().unwrap_or_default());
        match (labels, fields) {
            (Some(labels), Some(fields)) if !labels.is_empty() || !fields.is_empty() => {
                Self { labels, fields, valid: true }
            }
            _ => Self { labels: Vec::new(), fields: Vec::new(), valid: false },
        }
    }

    /// Whether a node of that name and with those labels satisfies the term. The only field is `metadata.name`.
    pub fn matches<'l>(&self, name: &str, label: impl Fn(&str) -> Option<&'l str>) -> bool {
        let field = |key: &str| (key == "metadata.name").then_some(name);
        self.valid
            && self.labels.iter().all(|requirement| requirement.accepts(label(&requirement.key)))
            && self.fields.iter().all(|requirement| requirement.accepts(field(&requirement.key)))
    }
}

fn requirements(requirements: &[NodeSelectorRequirement]) -> Option<Vec<Requirement>> {
    let read = |requirement: &NodeSelectorRequirement| {
        let operator = match requirement.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan,
            "Lt" => Operator::LessThan,
            _ => return None,
        };
        Requirement::new(&requirement.key, operator, requirement.values.clone().unwrap_or_default()).ok()
    };
    requirements.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "literals read better by value")]
    fn pod(spec: serde_json::Value) -> Pod {
        let metadata = json!({ "namespace": "default", "name": "web", "uid": "u1" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[test]
    fn only_unbound_ungated_living_pods_of_the_default_scheduler_wait() {
        let containers = json!([{ "name": "c" }]);
        assert!(is_waiting(&pod(json!({ "containers": containers }))));
        assert!(is_waiting(&pod(json!({ "containers": containers, "schedulerName": "default-scheduler" }))));
        assert!(!is_waiting(&pod(json!({ "containers": containers, "schedulerName": "mine" }))));
        assert!(!is_waiting(&pod(json!({ "containers": containers, "nodeName": "n1" }))));
        assert!(!is_waiting(&pod(json!({ "containers": containers, "schedulingGates": [{ "name": "g" }] }))));
        let mut leaving = pod(json!({ "containers": containers }));
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert!(!is_waiting(&leaving));
    }

    #[test]
    fn host_ports_are_read_with_their_defaults() {
        let ports = json!([{ "containerPort": 80, "hostPort": 8080 }, { "containerPort": 81 },
            { "containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1" }]);
        let view = PodView::of(&pod(json!({ "containers": [{ "name": "c", "ports": ports }] }))).unwrap();
        let seen: Vec<String> =
            view.host_ports.iter().map(|port| format!("{}/{}:{}", port.protocol, port.ip, port.port)).collect();
        assert_eq!(seen, ["TCP/0.0.0.0:8080", "UDP/127.0.0.1:53"]);
    }

    #[test]
    fn a_term_that_is_empty_or_unreadable_matches_nothing() {
        let term = |value| Term::new(&serde_json::from_value(value).unwrap());
        let matches = |term: Term| term.matches("n1", |key| (key == "zone").then_some("a"));
        assert!(!matches(term(json!({}))));
        assert!(!matches(term(json!({ "matchExpressions": [{ "key": "zone", "operator": "Near" }] }))));
        assert!(matches(term(json!({ "matchExpressions": [{ "key": "zone", "operator": "In", "values": ["a"] }] }))));
        let name = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n1"] }] });
        assert!(matches(term(name)));
    }
}
