//! The status of a Deployment and its conditions, in Kubernetes' words.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rollout::{actual_replicas, available_replicas, max_unavailable, spec_replicas, total, wanted};
use crate::requests::count;

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

/// A value that means "no deadline". Source: `HasProgressDeadline`.
const NO_DEADLINE: i32 = i32::MAX;

/// A condition as it should be; times are filled in when it is set.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    kind: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Wanted {
    fn progressing(status: &'static str, reason: &'static str, message: String) -> Self {
        Self { kind: PROGRESSING, status, reason, message }
    }

    /// A ReplicaSet for the current template was created.
    pub(super) fn created(set_name: &str) -> Self {
        Self::progressing("True", "NewReplicaSetCreated", format!("Created new replica set \"{set_name}\""))
    }

    /// A ReplicaSet for the current template existed already.
    pub(super) fn found(set_name: &str) -> Self {
        Self::progressing("True", "FoundNewReplicaSet", format!("Found new replica set \"{set_name}\""))
    }

    /// A ReplicaSet for the current template could not be created.
    pub(super) fn create_failed(set_name: &str, error: &str) -> Self {
        let message = format!("Failed to create new replica set \"{set_name}\": {error}");
        Self::progressing("False", "ReplicaSetCreateError", message)
    }
}

/// The counts and the condition `Available`; everything else stays as it was.
pub(super) fn counted(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[&ReplicaSet],
    now: Timestamp,
) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let sum = |of: &dyn Fn(&ReplicaSet) -> i32| total(all.iter().map(|set| of(set)));
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let terminating =
        |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0);
    let available = sum(&available_replicas);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: count(sum(&actual_replicas)),
        updated_replicas: count(new.map_or(0, actual_replicas)),
        ready_replicas: count(sum(&ready)),
        available_replicas: count(available),
        unavailable_replicas: count(sum(&spec_replicas).saturating_sub(available).max(0)),
        terminating_replicas: Some(sum(&terminating)),
        ..old
    };
    let enough = available >= wanted(deployment) - max_unavailable(deployment);
    let condition = if enough {
        Wanted {
            kind: AVAILABLE,
            status: "True",
            reason: "MinimumReplicasAvailable",
            message: "Deployment has minimum availability.".to_owned(),
        }
    } else {
        Wanted {
            kind: AVAILABLE,
            status: "False",
            reason: "MinimumReplicasUnavailable",
            message: "Deployment does not have minimum availability.".to_owned(),
        }
    };
    set(&mut status, condition, now);
    status
}

/// The condition `Progressing` during a rollout, and `ReplicaFailure` from the ReplicaSets.
pub(super) fn with_progress(
    deployment: &Deployment,
    new: Option<&ReplicaSet>,
    all: &[&ReplicaSet],
    mut status: DeploymentStatus,
    now: Timestamp,
) -> DeploymentStatus {
    let old = deployment.status.clone().unwrap_or_default();
    let reason_before = find(&old, PROGRESSING).and_then(|condition| condition.reason.clone());
    let was_complete =
        status.replicas == status.updated_replicas && reason_before.as_deref() == Some(NEW_SET_AVAILABLE);
    match deadline(deployment) {
        None => remove(&mut status, PROGRESSING),
        Some(_) if was_complete => {}
        Some(deadline) => {
            let subject = new.map_or_else(
                || format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
                |set| format!("ReplicaSet \"{}\"", set.metadata.name.as_deref().unwrap_or_default()),
            );
            if is_complete(deployment, &status) {
                let message = format!("{subject} has successfully progressed.");
                set(&mut status, Wanted::progressing("True", NEW_SET_AVAILABLE, message), now);
            } else if has_progressed(&old, &status) {
                let message = format!("{subject} is progressing.");
                renew(&mut status, Wanted::progressing("True", "ReplicaSetUpdated", message), now);
            } else if has_timed_out(&status, deadline, now) {
                let message = format!("{subject} has timed out progressing.");
                set(&mut status, Wanted::progressing("False", TIMED_OUT, message), now);
            }
        }
    }
    copy_replica_failure(new, all, &mut status);
    status
}

/// Notes that the Deployment was paused, or goes on. The clock of the deadline does not run meanwhile.
pub(super) fn with_pause(deployment: &Deployment, mut status: DeploymentStatus, now: Timestamp) -> DeploymentStatus {
    let reason = find(&status, PROGRESSING).and_then(|condition| condition.reason.clone());
    if deadline(deployment).is_none() || reason.as_deref() == Some(TIMED_OUT) {
        return status;
    }
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false);
    match (paused, reason.as_deref() == Some(PAUSED)) {
        (true, false) => {
            set(&mut status, Wanted::progressing("Unknown", PAUSED, "Deployment is paused".to_owned()), now);
        }
        (false, true) => {
            let resumed = Wanted::progressing("Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
            set(&mut status, resumed, now);
        }
        _ => {}
    }
    status
}

/// `Progressing` for a ReplicaSet that was found or created, if the Deployment has a deadline.
pub(super) fn with_new_set(deployment: &Deployment, status: &mut DeploymentStatus, condition: Wanted, now: Timestamp) {
    if deadline(deployment).is_some() {
        set(status, condition, now);
    }
}

/// Whether there is a condition `Progressing`.
pub(super) fn has_progressing(status: &DeploymentStatus) -> bool {
    find(status, PROGRESSING).is_some()
}

/// Whether all pods are of the new template, available, and no others exist.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    let is_all = |n: Option<i32>| n.unwrap_or(0) == wanted;
    is_all(status.updated_replicas)
        && is_all(status.replicas)
        && is_all(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

/// When to look again because the deadline may have passed by then.
pub(super) fn time_left(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> Option<SignedDuration> {
    let deadline = deadline(deployment)?;
    let condition = find(status, PROGRESSING)?;
    if is_complete(deployment, status) || condition.reason.as_deref() == Some(TIMED_OUT) {
        return None;
    }
    let updated = condition.last_update_time.as_ref()?.0;
    // One second more: times are written without fractions.
    Some(deadline + SignedDuration::from_secs(1) - now.duration_since(updated))
}

fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != NO_DEADLINE).then(|| SignedDuration::from_secs(i64::from(seconds)))
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |count: Option<i32>| count.unwrap_or(0);
    let outdated = |status: &DeploymentStatus| n(status.replicas).saturating_sub(n(status.updated_replicas));
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

fn has_timed_out(status: &DeploymentStatus, deadline: SignedDuration, now: Timestamp) -> bool {
    let Some(condition) = find(status, PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(NEW_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        _ => condition.last_update_time.as_ref().is_some_and(|updated| now.duration_since(updated.0) > deadline),
    }
}

/// The new ReplicaSet's failure, else that of any other.
fn copy_replica_failure(new: Option<&ReplicaSet>, all: &[&ReplicaSet], status: &mut DeploymentStatus) {
    let failure = |set: &ReplicaSet| {
        let conditions = set.status.as_ref().and_then(|status| status.conditions.clone());
        conditions.into_iter().flatten().find(|condition| condition.type_ == REPLICA_FAILURE)
    };
    let Some(failure) = new.and_then(failure).or_else(|| all.iter().find_map(|set| failure(set))) else {
        return remove(status, REPLICA_FAILURE);
    };
    if find(status, REPLICA_FAILURE).is_some_and(|old| old.status == failure.status && old.reason == failure.reason) {
        return;
    }
    remove(status, REPLICA_FAILURE);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: failure.type_,
        status: failure.status,
        reason: failure.reason,
        message: failure.message,
        last_transition_time: failure.last_transition_time.clone(),
        last_update_time: failure.last_transition_time,
    });
}

fn find<'s>(status: &'s DeploymentStatus, kind: &str) -> Option<&'s DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
    }
}

/// Sets a condition; one with the same status and reason stays untouched. Source: `SetDeploymentCondition`.
fn set(status: &mut DeploymentStatus, wanted: Wanted, now: Timestamp) {
    let same = |old: &DeploymentCondition| old.status == wanted.status && old.reason.as_deref() == Some(wanted.reason);
    if !find(status, wanted.kind).is_some_and(same) {
        renew(status, wanted, now);
    }
}

/// Sets a condition with a fresh update time; the transition time stays if the status does.
fn renew(status: &mut DeploymentStatus, wanted: Wanted, now: Timestamp) {
    let old = find(status, wanted.kind).filter(|old| old.status == wanted.status);
    let since = old.and_then(|old| old.last_transition_time.clone()).unwrap_or(Time(now));
    remove(status, wanted.kind);
    status.conditions.get_or_insert_default().push(DeploymentCondition {
        type_: wanted.kind.to_owned(),
        status: wanted.status.to_owned(),
        reason: Some(wanted.reason.to_owned()),
        message: Some(wanted.message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(since),
    });
}
