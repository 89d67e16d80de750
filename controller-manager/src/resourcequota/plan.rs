//! What a quota counts, and what its status says then.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource;
use reeve_api::quantity::{Format, Quantity};
use reeve_api::quota::{Amounts, Resource, amounts, sum};
use serde_json::Value;

use crate::pods;

/// How a kind is counted for a quota.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Counting {
    /// The quota is not about it.
    Nothing,
    /// Only how many there are matters.
    Objects,
    /// What each of them costs matters.
    Costs,
}

fn names(resource: Resource<'_>, quota: &Value) -> Vec<String> {
    let hard = quota["spec"]["hard"].as_object();
    if resource.is_free() {
        return Vec::new();
    }
    resource.counted_by(hard.into_iter().flatten().map(|(name, _)| name.as_str()))
}

/// How the kind is counted for the quota.
pub(super) fn counted(resource: Resource<'_>, quota: &Value) -> Counting {
    let names = names(resource, quota);
    let has_scopes = !reeve_api::quota::requirements(quota).is_empty();
    let only_number = names.iter().all(|name| *name == resource.count_name() || *name == resource.plural);
    // The number of pods is that of those that have not finished.
    let is_plain = (resource.group, resource.plural) != ("", "pods") || names.iter().all(|name| name != "pods");
    match (names.is_empty(), only_number && is_plain && !has_scopes) {
        (true, _) => Counting::Nothing,
        (false, true) => Counting::Objects,
        (false, false) => Counting::Costs,
    }
}

/// What is used, when only the number of objects matters.
pub(super) fn number(resource: Resource<'_>, quota: &Value, total: usize) -> Amounts {
    let total = Quantity::new(i64::try_from(total).unwrap_or(i64::MAX), Format::DecimalSi);
    names(resource, quota).into_iter().map(|name| (name, total)).collect()
}

/// What these objects use together.
pub(super) fn costs(resource: Resource<'_>, quota: &Value, objects: &[Value], now: Timestamp) -> Amounts {
    let names = names(resource, quota);
    let mut used: Amounts = names.iter().map(|name| (name.clone(), Quantity::ZERO)).collect();
    for object in objects.iter().filter(|object| resource.is_in_scopes(quota, object)) {
        let mut cost = resource.cost(object, now);
        cost.retain(|name, _| names.contains(name));
        used = sum(&used, &cost);
    }
    used
}

/// The status with what was counted; `None` when it says so already.
pub(super) fn status(quota: &ResourceQuota, counted: Amounts) -> Option<ResourceQuotaStatus> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let old = quota.status.clone().unwrap_or_default();
    let was = old.used.as_ref().map(|used| amounts(&serde_json::to_value(used).unwrap_or_default()));
    let mut used = was.clone().unwrap_or_default();
    used.extend(counted);
    used.retain(|name, _| hard.contains_key(name));
    if old.hard.as_ref() == Some(&hard) && was.as_ref() == Some(&used) {
        return None;
    }
    let used = used.into_iter().map(|(name, amount)| (name, resource::Quantity(amount.to_string()))).collect();
    Some(ResourceQuotaStatus { hard: Some(hard), used: Some(used) })
}

/// Whether nothing is known yet of what is used.
pub(super) fn is_unknown(quota: &ResourceQuota) -> bool {
    let status = quota.status.clone().unwrap_or_default();
    status.used.is_none() || status.hard != quota.spec.as_ref().and_then(|spec| spec.hard.clone())
}

/// Whether a change of a pod changes what it costs: it has finished, its deadline came or went, it was resized.
pub(super) fn has_changed(old: &Pod, new: &Pod) -> bool {
    let deadline = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.active_deadline_seconds.is_some());
    let resized = |pod: &Pod| pod.metadata.generation;
    pods::is_finished(old) != pods::is_finished(new)
        || deadline(old) != deadline(new)
        || resized(old) != resized(new)
        || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some()
}
