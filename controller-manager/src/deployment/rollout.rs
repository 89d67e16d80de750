//! Arithmetic of a rollout: how many pods of which ReplicaSet. Pure; the rules of Kubernetes' deployment controller.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::annotations::{desired_annotation, max_annotation};

/// A ReplicaSet of the Deployment and the size it gets.
#[derive(Debug, Clone)]
pub(super) struct Sized<'s> {
    pub(super) set: &'s ReplicaSet,
    /// `spec.replicas` after this round.
    pub(super) replicas: i32,
}

impl<'s> Sized<'s> {
    pub(super) fn current(set: &'s ReplicaSet) -> Self {
        Self { set, replicas: spec_replicas(set) }
    }
}

/// `spec.replicas` of a ReplicaSet.
pub(super) fn spec_replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// `status.replicas` of a ReplicaSet.
pub(super) fn actual_replicas(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// `status.availableReplicas` of a ReplicaSet.
pub(super) fn available_replicas(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// The sum of sizes. Saturates: each is the user's, and a panic would end the controller for good.
pub(super) fn total(sizes: impl Iterator<Item = i32>) -> i32 {
    sizes.fold(0, i32::saturating_add)
}

/// `spec.replicas` of the Deployment.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Whether the strategy is `RollingUpdate`.
pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
}

/// How many pods may exist beyond the wanted number; a share is rounded up.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fence_posts(deployment).0 } else { 0 }
}

/// How many of the wanted pods may be unavailable; a share is rounded down.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    let wanted = wanted(deployment);
    if !is_rolling(deployment) || wanted == 0 {
        return 0;
    }
    fence_posts(deployment).1.min(wanted)
}

/// Both limits. If both come out as zero nothing could ever move: then one pod may be unavailable.
fn fence_posts(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let default = IntOrString::String("25%".to_owned());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref()).unwrap_or(&default);
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&default);
    let wanted = wanted(deployment);
    match (resolve(surge, wanted, true), resolve(unavailable, wanted, false)) {
        (0, 0) => (0, 1),
        limits => limits,
    }
}

/// A number, or a share of `total`. What cannot be read counts as zero: the API server refuses it anyway.
fn resolve(limit: &IntOrString, total: i32, round_up: bool) -> i32 {
    match limit {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let Some(percent) = text.strip_suffix('%').and_then(|percent| percent.parse::<i64>().ok()) else {
                return 0;
            };
            let hundredfold = i64::from(total).saturating_mul(percent);
            let whole = if round_up { hundredfold.saturating_add(99) / 100 } else { hundredfold / 100 };
            i32::try_from(whole).unwrap_or(i32::MAX).max(0)
        }
    }
}

/// The size of the new ReplicaSet when it may grow: as far as surge allows.
pub(super) fn grown(deployment: &Deployment, current: i32, total: i32) -> i32 {
    let wanted = wanted(deployment);
    if !is_rolling(deployment) {
        return wanted;
    }
    let room = wanted.saturating_add(max_surge(deployment)).saturating_sub(total);
    if room <= 0 { current } else { current + room.min(wanted - current) }
}

/// Shrinks the old ReplicaSets as far as availability allows: first by pods that are not available anyway, then
/// by available ones. `old` is sorted by age, oldest first.
pub(super) fn shrink_old(deployment: &Deployment, new: &ReplicaSet, old: &mut [Sized<'_>]) {
    let old_total = total(old.iter().map(|sized| sized.replicas));
    let minimum = wanted(deployment) - max_unavailable(deployment);
    let new_unavailable = spec_replicas(new).saturating_sub(available_replicas(new));
    let may_go = old_total.saturating_add(spec_replicas(new)).saturating_sub(minimum).saturating_sub(new_unavailable);
    if old_total == 0 || may_go <= 0 {
        return;
    }
    let mut left = may_go;
    for sized in old.iter_mut() {
        let unhealthy = sized.replicas.saturating_sub(available_replicas(sized.set)).clamp(0, left);
        sized.replicas -= unhealthy;
        left -= unhealthy;
    }
    let available = total(old.iter().map(|sized| available_replicas(sized.set)).chain([available_replicas(new)]));
    let mut surplus = available.saturating_sub(minimum).max(0);
    for sized in old.iter_mut() {
        let step = sized.replicas.min(surplus);
        sized.replicas -= step;
        surplus -= step;
    }
}

/// Spreads a change of the Deployment's size over its ReplicaSets in proportion, while a rollout is under way.
/// The rounding error goes to the first of `sets`: the largest one.
pub(super) fn scale_in_proportion(deployment: &Deployment, sets: &mut [Sized<'_>]) {
    let wanted = wanted(deployment);
    let allowed = if wanted > 0 { wanted.saturating_add(max_surge(deployment)) } else { 0 };
    let to_add = allowed.saturating_sub(total(sets.iter().map(|sized| sized.replicas)));
    if to_add == 0 {
        return;
    }
    // Of equally large sets the newer one grows first and the older one shrinks first.
    sets.sort_by(|a, b| {
        let newer = b.set.metadata.creation_timestamp.cmp(&a.set.metadata.creation_timestamp);
        b.replicas.cmp(&a.replicas).then(if to_add > 0 { newer } else { newer.reverse() })
    });
    let mut added = 0;
    for sized in sets.iter_mut() {
        let share = share_of(deployment, sized.set, to_add.saturating_sub(added), to_add > 0);
        sized.replicas = sized.replicas.saturating_add(share);
        added = added.saturating_add(share);
    }
    if let Some(largest) = sets.first_mut() {
        largest.replicas = largest.replicas.saturating_add(to_add.saturating_sub(added)).max(0);
    }
}

fn share_of(deployment: &Deployment, set: &ReplicaSet, left: i32, growing: bool) -> i32 {
    if spec_replicas(set) == 0 || left == 0 {
        return 0;
    }
    let share = fraction(deployment, set);
    if growing { share.min(left) } else { share.max(left) }
}

/// How much a ReplicaSet grows if it keeps its share of the Deployment's largest size.
fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i32 {
    let (wanted, current) = (wanted(deployment), spec_replicas(set));
    if wanted == 0 {
        return -current;
    }
    let before = max_annotation(set).filter(|before| *before > 0);
    let before = before.or_else(|| deployment.status.as_ref().and_then(|status| status.replicas)).filter(|n| *n > 0);
    let Some(before) = before.map(i64::from) else { return 0 };
    let after = i64::from(wanted.saturating_add(max_surge(deployment)));
    // Rounded to the nearest; all numbers are positive.
    let size = (i64::from(current) * after * 2 + before) / (before * 2);
    i32::try_from(size).unwrap_or(i32::MAX) - current
}

/// Whether the new ReplicaSet has all the pods it should have, available.
pub(super) fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = wanted(deployment);
    spec_replicas(set) == wanted && desired_annotation(set) == Some(wanted) && available_replicas(set) == wanted
}
