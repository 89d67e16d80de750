//! Resizing a pod in place: what is to be done, in which order, and what is told of it. Pure.
//!
//! Source: kubelet `computePodResizeAction`, `doPodResizeAction` and `IsPodResizeInProgress`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reeve_engine::engine::{self, Resources};
use serde::Serialize;

use super::ledger::Pending;
use super::resources::{Size, pod_resources};
use super::state::{PodState, Role, SandboxStep, Slot, Step, containers, spec};

/// The condition of a pod that wants other resources than it was granted.
pub(crate) const PENDING: &str = "PodResizePending";
/// The condition of a pod that does not have all that it was granted yet.
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";
/// Annotation of an engine's container: what it may use, as far as the engine was told.
pub(crate) const SIZE: &str = "io.reeve.container.size";

/// How far the resize of a pod is.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Resize {
    /// Why the node does not grant what the spec says.
    pub(crate) pending: Option<Pending>,
    /// What was granted is being carried out.
    pub(crate) in_progress: Option<InProgress>,
    /// What the engine was last told of the pod's group; `None` while there is none.
    pub(crate) group: Option<Resources>,
    /// An effect runs.
    pub(crate) under_way: bool,
    /// How often it failed in a row, and when it is tried again.
    pub(crate) retry: Option<(u32, Timestamp)>,
}

/// The condition [`IN_PROGRESS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InProgress {
    /// Why it failed last.
    pub(crate) error: Option<String>,
    pub(crate) generation: Option<i64>,
    pub(crate) since: Timestamp,
    pub(crate) probed: Timestamp,
}

impl InProgress {
    pub(crate) fn begun(generation: Option<i64>, now: Timestamp) -> Self {
        Self { error: None, generation, since: now, probed: now }
    }

    /// It failed; whether that is new.
    pub(crate) fn failed(&mut self, error: String, now: Timestamp) -> bool {
        if self.error.is_none() {
            self.since = now;
        }
        let is_new = self.error.as_ref() != Some(&error);
        if is_new {
            self.probed = now;
        }
        self.error = Some(error);
        is_new
    }
}

impl Resize {
    /// What the API was told by an earlier agent.
    pub(crate) fn recalled(pod: &Pod) -> Self {
        let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let told = conditions.find(|condition| condition.type_ == IN_PROGRESS);
        let in_progress = told.map(|told| {
            let since = told.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
            InProgress {
                error: told.message.clone().filter(|_| told.reason.as_deref() == Some("Error")),
                generation: told.observed_generation,
                since,
                probed: told.last_probe_time.as_ref().map_or(since, |time| time.0),
            }
        });
        Self { in_progress, ..Self::default() }
    }

    /// What the status says of it.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = PodCondition> {
        let condition = |kind: &str, generation, (since, probed): (Timestamp, Timestamp)| PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            last_transition_time: Some(Time(since)),
            last_probe_time: Some(Time(probed)),
            observed_generation: generation,
            ..PodCondition::default()
        };
        let pending = self.pending.as_ref().map(|own| PodCondition {
            reason: Some(own.reason.clone()),
            message: Some(own.message.clone()),
            ..condition(PENDING, own.generation, (own.since, own.probed))
        });
        let in_progress = self.in_progress.as_ref().map(|own| PodCondition {
            reason: own.error.as_ref().map(|_| "Error".to_owned()),
            message: own.error.clone(),
            ..condition(IN_PROGRESS, own.generation, (own.since, own.probed))
        });
        pending.into_iter().chain(in_progress)
    }
}

/// What a container may use, as far as the engine was told; `None` where an older agent did not note it.
pub(crate) fn size_of(container: &engine::Container) -> Option<Size> {
    serde_json::from_str(container.config.annotations.get(SIZE)?).ok()
}

/// The annotation that says so.
pub(crate) fn annotation(size: Size) -> (String, String) {
    (SIZE.to_owned(), serde_json::to_string(&size).unwrap_or_default())
}

/// What a running container has and is to have; `None` where that is the same, or it is none that can be resized.
fn change(state: &PodState, index: usize, slot: &Slot) -> Option<(Size, Size)> {
    let life = slot.running().filter(|_| slot.role != Role::Ephemeral)?;
    let wanted = Size::of(state.spec(), state.container(index)?);
    let has = life.size.unwrap_or(wanted);
    (has != wanted).then_some((has, wanted))
}

fn changes(state: &PodState) -> impl Iterator<Item = (usize, &Slot, Size, Size)> {
    let slots = state.slots.iter().enumerate();
    slots.filter_map(|(index, slot)| change(state, index, slot).map(|(from, to)| (index, slot, from, to)))
}

/// Running containers that have to be restarted to get what they are to have.
pub(crate) fn restarts(state: &PodState) -> Vec<usize> {
    let due = changes(state).filter(|(index, slot, from, to)| {
        slot.condemned.is_none() && state.container(*index).is_some_and(|own| wants_restart(own, *from, *to))
    });
    due.map(|(index, ..)| index).collect()
}

fn wants_restart(container: &Container, from: Size, to: Size) -> bool {
    let policies = container.resize_policy.iter().flatten();
    let restarting: Vec<_> = policies.filter(|policy| policy.restart_policy == "RestartContainer").collect();
    let restarts = |resource: &str| restarting.iter().any(|policy| policy.resource_name == resource);
    let cpu = (from.cpu_request, from.cpu_limit) != (to.cpu_request, to.cpu_limit);
    let memory = (from.memory_request, from.memory_limit) != (to.memory_request, to.memory_limit);
    cpu && restarts("cpu") || memory && restarts("memory")
}

/// Whether anything of the pod does not have yet what it was granted.
pub(crate) fn is_in_progress(state: &PodState) -> bool {
    state.resize.under_way
        || state.slots.iter().any(|slot| slot.revive)
        || changes(state).next().is_some()
        || job(state).is_some()
}

/// Whether the effect has to wait: for containers that end because of the resize, and for those that begin with what
/// was granted before.
pub(crate) fn waits(state: &PodState) -> bool {
    state.slots.iter().any(|slot| slot.revive && slot.running().is_some() || slot.step == Step::Starting)
}

/// All that is to be changed in place now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Job {
    pub(crate) sandbox: String,
    pub(crate) group_now: Resources,
    pub(crate) group: Resources,
    pub(crate) containers: Vec<Change>,
}

/// A container that is to be changed in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) slot: usize,
    /// The engine's id.
    pub(crate) container: String,
    pub(crate) name: String,
    pub(crate) from: Size,
    pub(crate) to: Size,
}

/// One request to the engine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Group(Resources),
    /// `size` is what the container has then.
    Container {
        change: usize,
        resources: Resources,
        size: Size,
    },
}

/// What is to be changed, if anything is.
pub(crate) fn job(state: &PodState) -> Option<Job> {
    let SandboxStep::Ready { id } = &state.sandbox else { return None };
    let group_now = state.resize.group.clone()?;
    let group = pod_resources(state.spec());
    let containers: Vec<_> = changes(state)
        .filter(|(_, slot, ..)| slot.condemned.is_none() && slot.step == Step::Rest)
        .filter_map(|(index, slot, from, to)| {
            let container = slot.running()?.container.clone();
            Some(Change { slot: index, container, name: slot.name.clone(), from, to })
        })
        .collect();
    let same_group = group_now.clone().updated(&group) == group_now;
    (!same_group || !containers.is_empty()).then(|| Job { sandbox: id.clone(), group_now, group, containers })
}

/// No limit is the largest one.
fn bound(limit: Option<i64>) -> i64 {
    limit.filter(|limit| *limit > 0).unwrap_or(i64::MAX)
}

impl Job {
    /// The requests in an order in which no container ever has more than its pod: memory, then processor; the pod first
    /// where it grows and last where it shrinks; of its containers first those that give.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let (now, group) = (&self.group_now, &self.group);
        let memory = Resources { memory_limit_bytes: group.memory_limit_bytes, ..Resources::default() };
        let by_memory = self.in_order(
            |size| bound(Some(size.memory_limit)),
            |change| {
                let has = (change.from.memory_request, change.from.memory_limit);
                let size = Size {
                    memory_request: change.to.memory_request,
                    memory_limit: change.to.memory_limit,
                    ..change.from
                };
                (has != (size.memory_request, size.memory_limit)).then(|| (change.to.memory(), size))
            },
        );
        let limits = (now.memory_limit_bytes, group.memory_limit_bytes);
        let mut actions = around(vec![(memory, limits)], by_memory);
        let quota =
            Resources { cpu_quota_us: group.cpu_quota_us, cpu_period_us: group.cpu_period_us, ..Resources::default() };
        let shares = Resources { cpu_shares: group.cpu_shares, ..Resources::default() };
        let by_cpu = self.in_order(
            |size| bound(Some(size.cpu_limit)),
            |change| {
                let has = (change.from.cpu_request, change.from.cpu_limit);
                (has != (change.to.cpu_request, change.to.cpu_limit)).then(|| (change.to.cpu(), change.to))
            },
        );
        let in_shares = |own: &Resources| own.cpu_shares.and_then(|shares| i64::try_from(shares).ok());
        let groups =
            vec![(quota, (now.cpu_quota_us, group.cpu_quota_us)), (shares, (in_shares(now), in_shares(group)))];
        actions.extend(around(groups, by_cpu));
        actions
    }

    /// The containers that have something to change, those whose limit falls first.
    fn in_order(&self, limit: impl Fn(&Size) -> i64, of: impl Fn(&Change) -> Option<(Resources, Size)>) -> Vec<Action> {
        let mut changing: Vec<_> = self.containers.iter().enumerate().collect();
        changing.sort_by_key(|(_, change)| limit(&change.to) >= limit(&change.from));
        let action = |(index, change): (usize, &Change)| {
            of(change).map(|(resources, size)| Action::Container { change: index, resources, size })
        };
        changing.into_iter().filter_map(action).collect()
    }

    fn pod_gives_memory(&self) -> Option<i64> {
        let limit = self.group.memory_limit_bytes?;
        (limit < bound(self.group_now.memory_limit_bytes)).then_some(limit)
    }

    fn giving_memory(&self) -> impl Iterator<Item = &Change> {
        let gives = |change: &&Change| bound(Some(change.to.memory_limit)) < bound(Some(change.from.memory_limit));
        self.containers.iter().filter(gives)
    }

    /// Whether a memory limit falls: then it matters what is used.
    pub(crate) fn gives_memory(&self) -> bool {
        self.pod_gives_memory().is_some() || self.giving_memory().next().is_some()
    }

    /// Why memory limits cannot fall so far: `pod` is what the pod uses, `used` what each container does, by its id.
    pub(crate) fn refusal(&self, pod: Option<u64>, used: &BTreeMap<String, Option<u64>>) -> Option<String> {
        let mut errors = Vec::new();
        let mut check = |what: &str, usage: String, limit: i64, used: Option<u64>| match used {
            None => errors.push(format!("missing {usage} memory usage")),
            Some(used) if i64::try_from(used).unwrap_or(i64::MAX) >= limit => {
                errors.push(format!("attempting to set {what} memory limit ({limit}) below current usage ({used})"));
            }
            Some(_) => {}
        };
        if let Some(limit) = self.pod_gives_memory() {
            check("pod", "pod".to_owned(), limit, pod);
        }
        for change in self.giving_memory() {
            let what = format!("container {:?}", change.name);
            // One that has ended has no limit to pass.
            if let Some(used) = used.get(&change.container) {
                check(&what, what.clone(), change.to.memory_limit, *used);
            }
        }
        match errors.as_slice() {
            [] => None,
            [one] => Some(format!("cannot decrease memory limits: {one}")),
            several => Some(format!("cannot decrease memory limits: [{}]", several.join(", "))),
        }
    }
}

/// A limit of the pod's group: how it is changed, what it is now (`None`: nobody has said) and what it is to be.
type GroupLimit = (Resources, (Option<i64>, Option<i64>));

/// What grows of the pod's group, then the containers, then what shrinks of it, in the opposite order.
fn around(groups: Vec<GroupLimit>, containers: Vec<Action>) -> Vec<Action> {
    // What is not said stays.
    let changing = groups.into_iter().filter(|(_, (now, then))| then.is_some() && then != now);
    let (growing, shrinking): (Vec<_>, Vec<_>) = changing.partition(|(_, (now, then))| bound(*then) > bound(*now));
    let group = |(resources, _): GroupLimit| Action::Group(resources);
    growing.into_iter().map(group).chain(containers).chain(shrinking.into_iter().rev().map(group)).collect()
}

/// What became of a job.
#[derive(Debug)]
pub(crate) struct Resized {
    /// What the group has now.
    pub(crate) group: Resources,
    /// Slot, id and new size of each container that was changed.
    pub(crate) sizes: Vec<(usize, String, Size)>,
    pub(crate) error: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'s> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Summand<'s>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Summand<'s>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'s str,
}

#[derive(Serialize)]
struct Summand<'s> {
    name: &'s str,
    resources: ResourceRequirements,
}

/// The text of an event about a resize. Source: kubelet `podResizeMessage`.
pub(crate) fn event(what: &str, pod: &Pod, generation: Option<i64>, error: &str) -> String {
    let summands = |main: bool| -> Vec<Summand<'_>> {
        let own = containers(spec(pod)).filter(|(_, role)| (*role == Role::Main) == main);
        own.map(|(own, _)| Summand { name: &own.name, resources: own.resources.clone().unwrap_or_default() }).collect()
    };
    let summary = Summary {
        init_containers: summands(false),
        containers: summands(true),
        generation: generation.unwrap_or(0),
        error,
    };
    match serde_json::to_string(&summary) {
        Ok(text) => format!("{what}: {text}"),
        Err(_) => what.to_owned(),
    }
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
