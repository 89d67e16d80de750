//! Decides what a ReplicaSet needs: how many pods more, which pods less, and what its status says.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods;
use crate::requests::{count, len};

/// Most pods that one round creates or deletes. Source: `BurstReplicas`.
pub(super) const BURST: usize = 500;

/// The annotation by which users say which pods to spare.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What a round does to the pods.
#[derive(Debug, PartialEq)]
pub(super) enum Plan {
    /// The number is right.
    Keep,
    /// This many pods more.
    Create(usize),
    /// These pods less.
    Delete(Vec<Arc<Pod>>),
}

/// The pods that a decision is made on.
#[derive(Debug)]
pub(super) struct Observed<'o> {
    /// The ReplicaSet's own pods, finished and terminating ones included.
    pub(super) owned: &'o [Arc<Pod>],
    /// How many active pods of the same owner's ReplicaSets run on each node.
    pub(super) per_node: HashMap<String, usize>,
    /// Wall-clock time.
    pub(super) now: Timestamp,
}

/// Which pods to create or delete. Not to be asked while earlier requests have not shown up in the watch.
pub(super) fn plan(set: &ReplicaSet, observed: &Observed<'_>) -> Plan {
    let active: Vec<Arc<Pod>> = observed.owned.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
    let wanted = usize::try_from(wanted(set)).unwrap_or(0);
    match active.len().cmp(&wanted) {
        Ordering::Equal => Plan::Keep,
        Ordering::Less => Plan::Create((wanted - active.len()).min(BURST)),
        Ordering::Greater => {
            let surplus = (active.len() - wanted).min(BURST);
            Plan::Delete(choose(active, surplus, observed))
        }
    }
}

/// `spec.replicas`; the API server fills it in.
pub(super) fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// `spec.minReadySeconds` as a duration.
pub(super) fn min_ready(set: &ReplicaSet) -> Duration {
    let seconds = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The pods whose loss hurts least.
fn choose(mut active: Vec<Arc<Pod>>, surplus: usize, observed: &Observed<'_>) -> Vec<Arc<Pod>> {
    if surplus < active.len() {
        active.sort_by(|a, b| sooner(a, b, observed));
    }
    active.truncate(surplus);
    active
}

/// Less means: goes first. The criteria in Kubernetes' order (`ActivePodsWithRanks`).
fn sooner(a: &Pod, b: &Pod, observed: &Observed<'_>) -> Ordering {
    let crowd = |pod: &Pod| observed.per_node.get(pods::node_name(pod)).copied().unwrap_or(0);
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let assigned = |pod: &Pod| !pods::node_name(pod).is_empty();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| pods::is_ready(a).cmp(&pods::is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| crowd(b).cmp(&crowd(a)))
        .then_with(|| newer_first(pods::ready_since(a), pods::ready_since(b), observed.now))
        .then_with(|| pods::restarts_max(b).cmp(&pods::restarts_max(a)))
        .then_with(|| newer_first(created(a), created(b), observed.now))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

fn phase_rank(pod: &Pod) -> u8 {
    match pods::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Ages are compared by their order of magnitude: among pods of about the same age none is singled out for
/// having been created a moment later, which would always hit the same failure domain.
/// Source: KEP-2185.
fn newer_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let magnitude = |time: Option<Timestamp>| {
        let age = time.map(|time| now.duration_since(time).as_nanos().max(0));
        age.map(|nanos| u128::try_from(nanos).unwrap_or(0).checked_ilog2())
    };
    magnitude(a).cmp(&magnitude(b))
}

/// The status that the pods make.
pub(super) fn status(set: &ReplicaSet, observed: &Observed<'_>, failure: Option<&Failure>) -> ReplicaSetStatus {
    let old = set.status.clone().unwrap_or_default();
    let active: Vec<&Arc<Pod>> = observed.owned.iter().filter(|pod| pods::is_active(pod)).collect();
    let terminating =
        observed.owned.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some() && !pods::is_finished(pod));
    let min_ready = min_ready(set);
    let available = |pod: &Pod| pods::available_in(pod, min_ready, observed.now) == Some(Duration::ZERO);
    ReplicaSetStatus {
        replicas: len(active.len()),
        fully_labeled_replicas: count(len(active.iter().filter(|pod| is_fully_labeled(set, pod)).count())),
        ready_replicas: count(len(active.iter().filter(|pod| pods::is_ready(pod)).count())),
        available_replicas: count(len(active.iter().filter(|pod| available(pod)).count())),
        terminating_replicas: Some(len(terminating.count())),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.conditions, failure, observed.now),
    }
}

/// When the next ready pod becomes available, if one is still waiting for `minReadySeconds`.
pub(super) fn next_available(set: &ReplicaSet, observed: &Observed<'_>) -> Option<Duration> {
    let active = observed.owned.iter().filter(|pod| pods::is_active(pod));
    let waits = active.filter_map(|pod| pods::available_in(pod, min_ready(set), observed.now));
    waits.filter(|wait| !wait.is_zero()).min()
}

fn is_fully_labeled(set: &ReplicaSet, pod: &Pod) -> bool {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let wanted = template.and_then(|template| template.metadata.as_ref()).and_then(|meta| meta.labels.as_ref());
    let has =
        |key: &String, value: &String| pod.metadata.labels.as_ref().and_then(|labels| labels.get(key)) == Some(value);
    wanted.into_iter().flatten().all(|(key, value)| has(key, value))
}

/// Why pods could not be created or deleted.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub(super) reason: &'static str,
    /// The API server's words.
    pub(super) message: String,
}

/// `ReplicaFailure` stands exactly as long as rounds fail; the first message stays.
fn conditions(
    old: Option<Vec<ReplicaSetCondition>>,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    let mut conditions = old.unwrap_or_default();
    let is_failure = |condition: &ReplicaSetCondition| condition.type_ == "ReplicaFailure";
    match failure {
        Some(failure) if !conditions.iter().any(is_failure) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some(failure.reason.into()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(now)),
        }),
        Some(_) => {}
        None => conditions.retain(|condition| !is_failure(condition)),
    }
    Some(conditions).filter(|conditions| !conditions.is_empty())
}
