//! What a budget's status says. Source: Kubernetes' `pkg/controller/disruption`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;
use crate::requests::len;

/// How long an eviction may take to become a deletion; after that it is held to have failed.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

/// How many pods there should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) pods: i32,
    pub(super) healthy: i32,
    /// Whether there are pods that no controller wants, where that matters.
    pub(super) unmanaged: bool,
}

/// What the pods are.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) healthy: i32,
    /// Evicted, but not yet seen to be deleted.
    pub(super) disrupted: BTreeMap<String, Time>,
    /// When to look again whether they are.
    pub(super) recheck: Option<Duration>,
    /// Evicted, and never deleted.
    pub(super) not_deleted: Vec<Arc<Pod>>,
}

/// Whether the number of pods that their controllers want has to be known.
pub(super) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// What the budget asks for; `count` is what the controllers want, or where that is not needed how many pods there are.
pub(super) fn expected(budget: &PodDisruptionBudget, count: usize, unmanaged: bool) -> Result<Expected, String> {
    let (count, spec) = (len(count), budget.spec.clone().unwrap_or_default());
    let healthy = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (count - scaled(most, count)?).max(0),
        (None, Some(least)) => scaled(least, count)?,
        (None, None) => return Ok(Expected { pods: 0, healthy: 0, unmanaged }),
    };
    Ok(Expected { pods: count, healthy, unmanaged })
}

/// A number, or a share of `total` rounded up.
fn scaled(value: &IntOrString, total: i32) -> Result<i32, String> {
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok());
            let percent = percent.ok_or("invalid value for IntOrString: invalid type: string is not a percentage")?;
            Ok(i32::try_from((i64::from(total) * percent + 99).div_euclid(100)).unwrap_or(i32::MAX))
        }
    }
}

impl Counted {
    /// Counts the pods of a budget.
    pub(super) fn of(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], now: Timestamp) -> Self {
        let known = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
        let mut counted = Self { healthy: 0, disrupted: BTreeMap::new(), recheck: None, not_deleted: Vec::new() };
        for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            if let Some(time) = known.and_then(|known| known.get(name)) {
                let left = time.0.checked_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX).duration_since(now);
                if let Ok(left) = Duration::try_from(left) {
                    counted.disrupted.insert(name.to_owned(), time.clone());
                    counted.recheck = Some(counted.recheck.map_or(left, |other| other.min(left)));
                    continue;
                }
                counted.not_deleted.push(Arc::clone(pod));
            }
            counted.healthy += i32::from(pods::is_ready(pod));
        }
        counted
    }
}

/// The status that follows.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    expected: &Expected,
    counted: Counted,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let old = budget.status.clone().unwrap_or_default();
    let spare = counted.healthy - expected.healthy;
    let allowed = if expected.pods <= 0 { 0 } else { spare.max(0) };
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    PodDisruptionBudgetStatus {
        current_healthy: Some(counted.healthy),
        desired_healthy: Some(expected.healthy),
        expected_pods: Some(expected.pods),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(counted.disrupted).filter(|pods| !pods.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: Some(conditions(old.conditions, status, reason, "", budget.metadata.generation, now)),
    }
}

/// The status when it cannot be told: nothing is allowed.
pub(super) fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    let generation = status.observed_generation;
    status.conditions = Some(conditions(status.conditions, "False", "SyncFailed", why, generation, now));
    status
}

fn conditions(
    old: Option<Vec<Condition>>,
    status: &str,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = old.unwrap_or_default();
    let at = all.iter().position(|one| one.type_ == "DisruptionAllowed");
    let same = at.and_then(|at| all.get(at)).filter(|one| one.status == status);
    let since = same.map_or(Time(now), |one| one.last_transition_time.clone());
    let new = Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: since,
    };
    match at.and_then(|at| all.get_mut(at)) {
        Some(old) => *old = new,
        None => all.push(new),
    }
    all
}

/// What users are told of pods without a controller.
pub(super) fn unmanaged(budget: &PodDisruptionBudget) -> String {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let labels = selector.and_then(|selector| selector.match_labels.clone()).unwrap_or_default();
    let labels: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}: {value},")).collect();
    format!(
        "Pods selected by this PodDisruptionBudget (selector: &LabelSelector{{MatchLabels:map[string]string{{{}}},\
         MatchExpressions:[]LabelSelectorRequirement{{}},}}) were found to be unmanaged. As a result, the status of \
         the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods \
         please set \".spec.minAvailable\" field of the PDB to an integer value.",
        labels.concat()
    )
}

/// How long until a pod that was to be disrupted counts as spared; `None` for all other pods.
pub(super) fn spared_in(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let target = pods::condition(pod, "DisruptionTarget").filter(|target| target.status == "True")?;
    if pods::is_finished(pod) || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let since = target.last_transition_time.as_ref().map_or(now, |time| time.0);
    let left = since.checked_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX).duration_since(now);
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}
