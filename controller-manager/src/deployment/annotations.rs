//! Annotations by which a Deployment and its ReplicaSets remember history and size.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::rollout::{max_surge, wanted};

/// Number of the rollout that the ReplicaSet stands for.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier numbers of a ReplicaSet that was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The Deployment's `spec.replicas` when the ReplicaSet was last sized.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with surge.
const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of a Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// Longest history that is kept, in characters. Source: `maxRevHistoryLengthInChars`.
const HISTORY_LEN: usize = 2000;

type Annotations = BTreeMap<String, String>;

/// The revision of a ReplicaSet; 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    number(set, REVISION).unwrap_or(0)
}

/// The Deployment's size when the ReplicaSet was last sized.
pub(super) fn desired_annotation(set: &ReplicaSet) -> Option<i32> {
    number(set, DESIRED)
}

/// The Deployment's size with surge when the ReplicaSet was last sized.
pub(super) fn max_annotation(set: &ReplicaSet) -> Option<i32> {
    number(set, MAX)
}

fn number<T: std::str::FromStr>(set: &ReplicaSet, key: &str) -> Option<T> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// Notes in `annotations` what size the Deployment has.
pub(super) fn set_sizes(annotations: &mut Annotations, deployment: &Deployment) {
    let wanted = wanted(deployment);
    annotations.insert(DESIRED.to_owned(), wanted.to_string());
    annotations.insert(MAX.to_owned(), wanted.saturating_add(max_surge(deployment)).to_string());
}

/// Copies what a ReplicaSet inherits (the change cause among it) and raises its revision; a former revision
/// goes into the history.
pub(super) fn inherit(annotations: &mut Annotations, deployment: &Deployment, new_revision: i64) {
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_INHERITED.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    let old = annotations.get(REVISION).cloned();
    if old.as_deref().and_then(|old| old.parse::<i64>().ok()).unwrap_or(0) >= new_revision {
        return;
    }
    annotations.insert(REVISION.to_owned(), new_revision.to_string());
    if let Some(old) = old.filter(|old| !old.is_empty()) {
        let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
        remember(history, &old);
    }
}

/// Appends a revision; the oldest ones go when the text becomes too long.
fn remember(history: &mut String, old: &str) {
    if !history.is_empty() {
        history.push(',');
    }
    history.push_str(old);
    while history.len() > HISTORY_LEN {
        match history.split_once(',') {
            Some((_, rest)) => *history = rest.to_owned(),
            None => history.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(annotations: &[(&str, &str)]) -> Deployment {
        let mut deployment = Deployment::default();
        let own = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        deployment.metadata.annotations = Some(own);
        deployment
    }

    #[test]
    fn the_change_cause_is_inherited_and_bookkeeping_is_not() {
        let deployment = deployment(&[("kubernetes.io/change-cause", "v2"), (REVISION, "7"), (NOT_INHERITED[0], "{}")]);
        let mut annotations = Annotations::new();
        inherit(&mut annotations, &deployment, 3);
        let seen: Vec<_> = annotations.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(seen, ["deployment.kubernetes.io/revision=3", "kubernetes.io/change-cause=v2"]);
    }

    #[test]
    fn a_set_that_is_rolled_back_to_remembers_its_former_revisions() {
        let mut annotations = Annotations::new();
        for revision in [1, 3, 5, 4] {
            inherit(&mut annotations, &Deployment::default(), revision);
        }
        assert_eq!(annotations[REVISION], "5");
        assert_eq!(annotations[REVISION_HISTORY], "1,3");
    }

    #[test]
    fn the_history_stays_short() {
        let mut history = String::new();
        (0..2000).for_each(|revision| remember(&mut history, &revision.to_string()));
        assert!(history.len() <= HISTORY_LEN && history.ends_with(",1998,1999"));
    }
}
