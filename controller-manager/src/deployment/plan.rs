//! Decides one round of a Deployment: which ReplicaSets are created, resized or dropped, and what its status says.
//!
//! Each round makes one kind of step and lets the watch bring back its effect, as Kubernetes' controller does:
//! grow the new ReplicaSet, or shrink the old ones, or clean up.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::annotations::{self, desired_annotation, revision};
use super::new_set::new_replica_set;
use super::rollout::{
    Sized, actual_replicas, grown, is_rolling, is_saturated, scale_in_proportion, shrink_old, spec_replicas, total,
    wanted,
};
use super::status::{self, Wanted};

/// The label that tells the pods of one template from those of another.
pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// What a round does, in this order; the status is written in any case.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// A ReplicaSet for a template that has none.
    pub(super) create: Option<ReplicaSet>,
    /// ReplicaSets that change.
    pub(super) update: Vec<Update>,
    /// ReplicaSets that fell out of the history.
    pub(super) delete: Vec<Arc<ReplicaSet>>,
    /// The Deployment's own revision annotation, if it has to change.
    pub(super) revision: Option<String>,
    /// The status that the round leaves behind if it succeeds.
    pub(super) status: DeploymentStatus,
}

/// A changed ReplicaSet.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) set: Arc<ReplicaSet>,
    pub(super) replicas: i32,
    pub(super) min_ready_seconds: Option<i32>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// What a decision is made on.
#[derive(Debug)]
pub(super) struct Observed<'o> {
    /// The Deployment's own ReplicaSets.
    pub(super) sets: &'o [Arc<ReplicaSet>],
    /// Uids of ReplicaSets that still have pods which have not finished.
    pub(super) with_pods: HashSet<String>,
    /// Wall-clock time.
    pub(super) now: Timestamp,
}

/// The ReplicaSets in their roles.
struct Roles<'o> {
    new: Option<&'o Arc<ReplicaSet>>,
    /// Oldest first.
    old: Vec<&'o Arc<ReplicaSet>>,
}

/// Decides one round.
pub(super) fn plan(deployment: &Deployment, observed: &Observed<'_>) -> Plan {
    let roles = Roles::of(deployment, observed.sets);
    let round = Round { deployment, roles: &roles, now: observed.now };
    if deployment.metadata.deletion_timestamp.is_some() {
        return Plan { status: round.counted(), ..Plan::default() };
    }
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false);
    if paused || round.is_scaling() {
        return round.scale(paused);
    }
    if is_rolling(deployment) { round.roll() } else { round.recreate(observed) }
}

impl<'o> Roles<'o> {
    fn of(deployment: &Deployment, sets: &'o [Arc<ReplicaSet>]) -> Self {
        let mut sorted: Vec<&Arc<ReplicaSet>> = sets.iter().collect();
        sorted.sort_by(|a, b| {
            let created = |set: &ReplicaSet| set.metadata.creation_timestamp.clone();
            created(a).cmp(&created(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
        });
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        let is_new = |set: &ReplicaSet| {
            let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            own.zip(template).is_some_and(|(own, template)| equal_ignoring_hash(own, template))
        };
        let new = sorted.iter().position(|set| is_new(set)).map(|index| sorted.remove(index));
        Self { new, old: sorted }
    }

    fn all(&self) -> Vec<&'o Arc<ReplicaSet>> {
        self.old.iter().copied().chain(self.new).collect()
    }
}

/// One round's view, with the steps as methods.
struct Round<'r, 'o> {
    deployment: &'r Deployment,
    roles: &'r Roles<'o>,
    now: Timestamp,
}

impl<'o> Round<'_, 'o> {
    fn counted(&self) -> DeploymentStatus {
        let all = self.roles.all();
        let all: Vec<&ReplicaSet> = all.iter().map(|set| set.as_ref()).collect();
        status::counted(self.deployment, self.roles.new.map(Arc::as_ref), &all, self.now)
    }

    /// The status during a rollout.
    fn progressed(&self) -> DeploymentStatus {
        let all = self.roles.all();
        let all: Vec<&ReplicaSet> = all.iter().map(|set| set.as_ref()).collect();
        let counted = status::with_pause(self.deployment, self.counted(), self.now);
        status::with_progress(self.deployment, self.roles.new.map(Arc::as_ref), &all, counted, self.now)
    }

    /// Whether the Deployment's size changed since its ReplicaSets were sized.
    fn is_scaling(&self) -> bool {
        let all = self.roles.all();
        let mut active = all.iter().filter(|set| spec_replicas(set) > 0);
        active.any(|set| desired_annotation(set).is_some_and(|desired| desired != wanted(self.deployment)))
    }

    fn next_revision(&self) -> i64 {
        self.roles.old.iter().map(|set| revision(set)).max().unwrap_or(0).saturating_add(1)
    }

    /// Only sizes, no rollout: the Deployment is paused or was resized.
    fn scale(&self, paused: bool) -> Plan {
        let mut plan = Plan::default();
        let all = self.roles.all();
        let mut active: Vec<Sized<'_>> =
            all.iter().filter(|set| spec_replicas(set) > 0).map(|set| Sized::current(set)).collect();
        match (active.as_mut_slice(), self.roles.new) {
            ([], new) => {
                let newest = new.or(self.roles.old.last().copied());
                active.extend(newest.map(|set| Sized { set: set.as_ref(), replicas: wanted(self.deployment) }));
            }
            ([only], _) => only.replicas = wanted(self.deployment),
            (several, Some(new)) if is_saturated(self.deployment, new) => {
                let old = several.iter_mut().filter(|sized| sized.set.metadata.uid != new.metadata.uid);
                old.for_each(|sized| sized.replicas = 0);
            }
            (several, _) if is_rolling(self.deployment) => scale_in_proportion(self.deployment, several),
            _ => {}
        }
        self.resize(&mut plan, &active);
        if paused {
            plan.delete = self.outdated();
        }
        self.adopt_revision(&mut plan);
        plan.status = status::with_pause(self.deployment, self.counted(), self.now);
        plan
    }

    /// `RollingUpdate`: grow the new one, else shrink the old ones, else clean up.
    fn roll(&self) -> Plan {
        let mut plan = Plan { status: self.progressed(), ..Plan::default() };
        let total = total(self.roles.all().iter().map(|set| spec_replicas(set)));
        let Some(new) = self.roles.new else {
            self.create(&mut plan, grown(self.deployment, 0, total));
            return plan;
        };
        self.adopt_revision(&mut plan);
        let (current, wanted) = (spec_replicas(new), wanted(self.deployment));
        let target = if current >= wanted { wanted } else { grown(self.deployment, current, total) };
        self.resize(&mut plan, &[Sized { set: new, replicas: target }]);
        if target != current {
            return plan;
        }
        let mut old: Vec<Sized<'_>> = self.roles.old.iter().map(|set| Sized::current(set)).collect();
        shrink_old(self.deployment, new, &mut old);
        let shrunk: Vec<Sized<'_>> =
            old.into_iter().filter(|sized| sized.replicas != spec_replicas(sized.set)).collect();
        self.resize(&mut plan, &shrunk);
        if shrunk.is_empty() && self.was_complete() {
            plan.delete = self.outdated();
        }
        plan
    }

    /// `Recreate`: the new one grows only when no old pod runs any more.
    fn recreate(&self, observed: &Observed<'_>) -> Plan {
        let mut plan = Plan { status: self.progressed(), ..Plan::default() };
        let active = self.roles.old.iter().filter(|set| spec_replicas(set) > 0);
        let shrunk: Vec<Sized<'_>> = active.map(|set| Sized { set: set.as_ref(), replicas: 0 }).collect();
        self.adopt_revision(&mut plan);
        if !shrunk.is_empty() {
            self.resize(&mut plan, &shrunk);
            return plan;
        }
        let runs = |set: &ReplicaSet| {
            actual_replicas(set) > 0 || set.metadata.uid.as_ref().is_some_and(|uid| observed.with_pods.contains(uid))
        };
        if self.roles.old.iter().any(|set| runs(set)) {
            return plan;
        }
        let wanted = wanted(self.deployment);
        match self.roles.new {
            None => self.create(&mut plan, wanted),
            Some(new) => self.resize(&mut plan, &[Sized { set: new, replicas: wanted }]),
        }
        if self.roles.new.is_some() && self.was_complete() {
            plan.delete = self.outdated();
        }
        plan
    }

    fn create(&self, plan: &mut Plan, replicas: i32) {
        let revision = self.next_revision();
        let set = new_replica_set(self.deployment, replicas, revision);
        let name = set.metadata.name.clone().unwrap_or_default();
        status::with_new_set(self.deployment, &mut plan.status, Wanted::created(&name), self.now);
        self.note_revision(plan, revision);
        plan.create = Some(set);
    }

    /// The existing ReplicaSet of the current template gets what the Deployment's annotations say, and the
    /// highest revision.
    fn adopt_revision(&self, plan: &mut Plan) {
        let Some(new) = self.roles.new else { return };
        let mut annotations = new.metadata.annotations.clone().unwrap_or_default();
        annotations::inherit(&mut annotations, self.deployment, self.next_revision());
        let own = annotations.get(annotations::REVISION).cloned().unwrap_or_default();
        let min_ready_seconds = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let old_min_ready = new.spec.as_ref().and_then(|spec| spec.min_ready_seconds);
        let changed = Some(&annotations) != new.metadata.annotations.as_ref() && !annotations.is_empty();
        if changed || min_ready_seconds.unwrap_or(0) != old_min_ready.unwrap_or(0) {
            merge_update(plan, new, |update| {
                update.annotations.extend(annotations);
                update.min_ready_seconds = min_ready_seconds.or(Some(0));
            });
        }
        if let Ok(own) = own.parse() {
            self.note_revision(plan, own);
        }
        if !status::has_progressing(&plan.status) {
            let name = new.metadata.name.as_deref().unwrap_or_default();
            status::with_new_set(self.deployment, &mut plan.status, Wanted::found(name), self.now);
        }
    }

    fn note_revision(&self, plan: &mut Plan, revision: i64) {
        let text = revision.to_string();
        let own = self.deployment.metadata.annotations.as_ref().and_then(|own| own.get(annotations::REVISION));
        if own != Some(&text) {
            plan.revision = Some(text);
        }
    }

    /// Sizes and the annotations that go with them.
    fn resize(&self, plan: &mut Plan, sized: &[Sized<'_>]) {
        for Sized { set, replicas } in sized {
            let mut annotations = set.metadata.annotations.clone().unwrap_or_default();
            annotations::set_sizes(&mut annotations, self.deployment);
            if *replicas == spec_replicas(set) && Some(&annotations) == set.metadata.annotations.as_ref() {
                continue;
            }
            let all = self.roles.all();
            let Some(shared) = all.iter().find(|own| own.metadata.uid == set.metadata.uid) else { continue };
            merge_update(plan, shared, |update| {
                update.replicas = *replicas;
                annotations::set_sizes(&mut update.annotations, self.deployment);
            });
        }
    }

    fn was_complete(&self) -> bool {
        self.deployment.status.as_ref().is_some_and(|status| status::is_complete(self.deployment, status))
    }

    /// Empty old ReplicaSets beyond `revisionHistoryLimit`, lowest revisions first.
    fn outdated(&self) -> Vec<Arc<ReplicaSet>> {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return Vec::new() };
        let mut living: Vec<&Arc<ReplicaSet>> =
            self.roles.old.iter().copied().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        living.sort_by_key(|set| revision(set));
        let surplus = living.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let observed = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.observed_generation);
        let is_empty = |set: &&&Arc<ReplicaSet>| {
            spec_replicas(set) == 0 && actual_replicas(set) == 0 && observed(set) >= set.metadata.generation
        };
        living.iter().take(surplus).filter(is_empty).map(|set| Arc::clone(set)).collect()
    }
}

/// Adds to the round's update of a ReplicaSet: each is written once per round.
fn merge_update(plan: &mut Plan, set: &Arc<ReplicaSet>, change: impl FnOnce(&mut Update)) {
    if let Some(update) = plan.update.iter_mut().find(|update| update.set.metadata.uid == set.metadata.uid) {
        return change(update);
    }
    let mut update = Update {
        set: Arc::clone(set),
        replicas: spec_replicas(set),
        min_ready_seconds: set.spec.as_ref().and_then(|spec| spec.min_ready_seconds),
        annotations: set.metadata.annotations.clone().unwrap_or_default(),
    };
    change(&mut update);
    plan.update.push(update);
}

/// Whether two templates make the same pods; the hash label is the controller's own.
pub(super) fn equal_ignoring_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    let without_hash = |template: &PodTemplateSpec| {
        let mut meta = template.metadata.clone().unwrap_or_default();
        if let Some(labels) = &mut meta.labels {
            labels.remove(HASH_LABEL);
        }
        meta.labels = meta.labels.filter(|labels| !labels.is_empty());
        meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
        meta
    };
    a.spec == b.spec && without_hash(a) == without_hash(b)
}
