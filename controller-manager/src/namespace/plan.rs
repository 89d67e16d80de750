//! What is said about a namespace that is being emptied, in Kubernetes' words.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods;

/// What a round found in the namespace after it deleted what it could.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Groups whose kinds could not be found out, with the complaints.
    pub(super) discovery_failures: Vec<String>,
    /// Why kinds could not be deleted or listed.
    pub(super) content_failures: Vec<String>,
    /// Pods are left, so nothing else was looked at yet.
    pub(super) only_pods: bool,
    /// What is left, by kind (`pods.`, `deployments.apps`).
    pub(super) remaining: BTreeMap<String, usize>,
    /// Finalizers on what is left.
    pub(super) finalizers: BTreeMap<String, usize>,
}

impl Found {
    /// Whether the namespace can go.
    pub(super) fn is_empty(&self) -> bool {
        self.discovery_failures.is_empty() && self.content_failures.is_empty() && self.remaining.is_empty()
    }
}

/// Whether pods may still be ending: the longest grace period among those that have not finished has not passed since
/// the namespace was deleted.
pub(super) fn is_within_grace(namespace: &Namespace, pods: &[Arc<Pod>], now: Timestamp) -> bool {
    let alive = pods.iter().filter(|pod| !pods::is_finished(pod));
    let longest = alive.filter_map(|pod| pod.spec.as_ref()?.termination_grace_period_seconds).max().unwrap_or(0);
    let since = namespace.metadata.deletion_timestamp.as_ref().map(|time| now.duration_since(time.0).as_secs());
    since.is_some_and(|since| since < longest)
}

/// The status with the conditions that say what is in the way.
pub(super) fn status(old: Option<&NamespaceStatus>, found: &Found, now: Timestamp) -> NamespaceStatus {
    let mut status = old.cloned().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    // While there are pods the rest is not counted, nor are they.
    let listed = |counts: &BTreeMap<String, usize>, words: &str, start: &str| {
        let mut parts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{name} {words} {count} resource instances")).collect();
        parts.sort();
        (!parts.is_empty() && !found.only_pods).then(|| format!("{start}{}", parts.join(", ")))
    };
    let trouble = |failures: &[String], start: &str, words: &str| {
        let (mut failures, count) = (failures.to_vec(), failures.len());
        failures.sort();
        (count > 0).then(|| format!("{start}, {count} {words}: {}", failures.join(", ")))
    };
    let remaining = listed(&found.remaining, "has", "Some resources are remaining: ");
    let finalizers = listed(&found.finalizers, "in", "Some content in the namespace has finalizers remaining: ");
    let all = [
        Said {
            kind: "NamespaceDeletionDiscoveryFailure",
            trouble: trouble(
                &found.discovery_failures,
                "Discovery failed for some groups",
                "failing: unable to retrieve the complete list of server APIs",
            )
            .map(|text| ("DiscoveryFailed", text)),
            well: ("ResourcesDiscovered", "All resources successfully discovered"),
        },
        Said {
            kind: "NamespaceDeletionGroupVersionParsingFailure",
            trouble: None,
            well: ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        },
        Said {
            kind: "NamespaceDeletionContentFailure",
            trouble: trouble(&found.content_failures, "Failed to delete all resource types", "remaining")
                .map(|text| ("ContentDeletionFailed", text)),
            well: ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        },
        Said {
            kind: "NamespaceContentRemaining",
            trouble: remaining.map(|text| ("SomeResourcesRemain", text)),
            well: ("ContentRemoved", "All content successfully removed"),
        },
        Said {
            kind: "NamespaceFinalizersRemaining",
            trouble: finalizers.map(|text| ("SomeFinalizersRemain", text)),
            well: ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        },
    ];
    for said in all {
        said.put(conditions, now);
    }
    status
}

/// A condition that is true while there is trouble of its kind.
struct Said {
    kind: &'static str,
    trouble: Option<(&'static str, String)>,
    well: (&'static str, &'static str),
}

impl Said {
    fn put(self, conditions: &mut Vec<NamespaceCondition>, now: Timestamp) {
        let (status, reason, message) = match self.trouble {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", self.well.0, self.well.1.to_owned()),
        };
        let old = conditions.iter().find(|condition| condition.type_ == self.kind);
        let same = old.filter(|old| old.status == status);
        let since = same.and_then(|old| old.last_transition_time.clone()).unwrap_or(Time(now));
        let new = NamespaceCondition {
            type_: self.kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == self.kind) {
            Some(old) => *old = new,
            None => conditions.push(new),
        }
    }
}
