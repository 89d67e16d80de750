//! Recognizes a pod in what the engine still has of it, after the agent or the machine was restarted. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};
use reeve_engine::engine::{self, ContainerState, Sandbox, SandboxState};

use super::actor::Beginning;
use super::container::{IMAGE, POD_UID};
use super::resize::size_of;
use super::state::{Exit, Health, Life, PodState, Role, Run, SandboxStep, Slot, containers, spec};
use super::status::{CONTAINER_ID_SCHEME, process_user};

/// Everything the engine has, by pod UID.
#[derive(Debug, Default)]
pub(crate) struct Remains(HashMap<String, PodRemains>);

/// What the engine has of one pod.
#[derive(Debug, Default, Clone)]
pub(crate) struct PodRemains {
    pub(crate) sandboxes: Vec<Sandbox>,
    pub(crate) containers: Vec<engine::Container>,
}

impl Remains {
    /// Sorts what the engine listed.
    pub(crate) fn new(sandboxes: Vec<Sandbox>, containers: Vec<engine::Container>) -> Self {
        let mut pods: HashMap<String, PodRemains> = HashMap::new();
        for sandbox in sandboxes {
            pods.entry(sandbox.config.uid.clone()).or_default().sandboxes.push(sandbox);
        }
        for container in containers {
            let uid = container.config.labels.get(POD_UID).cloned().unwrap_or_default();
            pods.entry(uid).or_default().containers.push(container);
        }
        for pod in pods.values_mut() {
            pod.sandboxes.sort_by_key(|sandbox| (sandbox.config.attempt, sandbox.created_at));
            pod.containers.sort_by_key(|container| (container.config.attempt, container.created_at));
        }
        Self(pods)
    }

    /// Whether there is anything of a pod.
    pub(crate) fn knows(&self, uid: &str) -> bool {
        self.0.get(uid).is_some_and(|pod| !pod.sandboxes.is_empty())
    }

    /// What there is of a pod.
    pub(crate) fn take(&mut self, uid: &str) -> PodRemains {
        self.0.remove(uid).unwrap_or_default()
    }

    /// What belongs to no pod that was taken.
    pub(crate) fn into_orphans(self) -> impl Iterator<Item = (String, PodRemains)> {
        self.0.into_iter()
    }
}

/// The state of a pod of which `remains` are there; `ips` are the addresses of its sandbox.
pub(crate) fn adopt(pod: Arc<Pod>, remains: &PodRemains, ips: &[IpAddr], now: Timestamp) -> Beginning {
    let mut state = PodState::new(pod, now);
    let mut dead = HashMap::new();
    let newest = remains.sandboxes.last();
    state.sandbox_attempt = newest.map_or(0, |sandbox| sandbox.config.attempt.saturating_add(1));
    let live = newest.filter(|sandbox| sandbox.state == SandboxState::Ready);
    if let Some(sandbox) = live {
        state.sandbox = SandboxStep::Ready { id: sandbox.id.clone() };
        state.ips = ips.to_vec();
        state.resize.group = Some(sandbox.config.resources.clone());
    }
    let pod = Arc::clone(&state.pod);
    for (index, slot) in state.slots.iter_mut().enumerate() {
        let lives: Vec<_> = remains.containers.iter().filter(|container| container.config.name == slot.name).collect();
        let before = previous(&pod, &slot.name);
        let spec = containers(spec(&pod)).map(|(spec, _)| spec).find(|spec| spec.name == slot.name);
        adopt_slot(slot, &lives, before, spec, now);
        let old = lives.iter().rev().skip(2).map(|container| container.id.clone()).collect::<Vec<_>>();
        if !old.is_empty() {
            dead.insert(index, old);
        }
    }
    recall_end(&mut state);
    // Also where the engine has forgotten the sandbox along with its containers.
    if live.is_none() && (newest.is_some() || state.slots.iter().any(|slot| slot.exit().is_some())) {
        start_over(&mut state, newest);
    }
    Beginning { state, dead }
}

/// What the API last said of a container.
fn previous<'p>(pod: &'p Pod, name: &str) -> Option<&'p ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let all = all.into_iter().flatten().flatten();
    all.into_iter().find(|status| status.name == name)
}

fn adopt_slot(
    slot: &mut Slot,
    lives: &[&engine::Container],
    before: Option<&ContainerStatus>,
    spec: Option<&Container>,
    now: Timestamp,
) {
    let mut lives = lives.iter().rev().filter(|container| container.state != ContainerState::Created);
    let newest = lives.next();
    if let Some((exit, attempt)) = before.and_then(|before| forgotten(newest.copied(), before, now)) {
        slot.restarts = attempt;
        slot.last = newest.and_then(|container| Exit::of(container));
        slot.run = Run::Exited(exit);
        return;
    }
    let Some(newest) = newest else { return };
    slot.restarts = newest.config.attempt;
    slot.last = lives.next().and_then(|container| Exit::of(container));
    if let Some(exit) = Exit::of(newest) {
        slot.run = Run::Exited(as_told(exit, newest, before));
        return;
    }
    let ContainerState::Running { started_at, .. } = newest.state else { return };
    slot.run = Run::Running(Life {
        container: newest.id.clone(),
        image: newest.config.annotations.get(IMAGE).cloned().unwrap_or_default(),
        image_id: newest.image_id.clone(),
        user: newest.user.clone(),
        started_at,
        size: size_of(newest),
    });
    let id = format!("{CONTAINER_ID_SCHEME}{}", newest.id);
    slot.health = health(spec, before.filter(|before| before.container_id.as_ref() == Some(&id)));
}

/// How a running container is: the probes' last word stands until they have a new one. Whatever has no probe is well,
/// also if the API has not heard of this life, or of something else.
fn health(spec: Option<&Container>, before: Option<&ContainerStatus>) -> Health {
    let fresh = Health::at_start(spec);
    let started = fresh.started || before.is_some_and(|before| before.started == Some(true));
    let has_readiness = spec.is_some_and(|spec| spec.readiness_probe.is_some());
    Health { started, ready: started && (!has_readiness || before.is_some_and(|before| before.ready)) }
}

/// A life that the API knows and the engine does not, and its number. The engine's records are not synced: a power cut
/// takes the youngest of them, while what the API was told is on disk. Source: kubelet `convertToAPIContainerStatuses`,
/// which takes a container that it cannot find for one that has ended.
fn forgotten(newest: Option<&engine::Container>, before: &ContainerStatus, now: Timestamp) -> Option<(Exit, u32)> {
    let attempt = u32::try_from(before.restart_count).unwrap_or(0);
    if newest.is_some_and(|newest| newest.config.attempt >= attempt) {
        return None;
    }
    let running = before.state.as_ref().and_then(|state| state.running.as_ref());
    let exit = match running {
        Some(running) => Exit::unknown(
            Life {
                container: before.container_id.as_deref()?.trim_start_matches(CONTAINER_ID_SCHEME).to_owned(),
                image: before.image.clone(),
                image_id: before.image_id.clone(),
                user: before.user.as_ref().and_then(process_user),
                started_at: running.started_at.as_ref().map_or(now, |time| time.0),
                size: None,
            },
            now,
        ),
        // Waiting for its next life, the last one is what counts.
        None => [&before.state, &before.last_state].into_iter().flatten().find_map(|state| {
            let terminated = state.terminated.as_ref()?;
            Some(exit_told(before, terminated, now))
        })?,
    };
    Some((exit, attempt))
}

/// An end as the API was told of it.
fn exit_told(before: &ContainerStatus, terminated: &ContainerStateTerminated, now: Timestamp) -> Exit {
    let id = terminated.container_id.as_deref().unwrap_or_default();
    Exit {
        container: id.trim_start_matches(CONTAINER_ID_SCHEME).to_owned(),
        image_id: before.image_id.clone(),
        user: before.user.as_ref().and_then(process_user),
        started_at: terminated.started_at.as_ref().map(|time| time.0),
        finished_at: terminated.finished_at.as_ref().map_or(now, |time| time.0),
        exit_code: terminated.exit_code,
        reason: terminated.reason.clone().unwrap_or_default(),
        message: terminated.message.clone().unwrap_or_default(),
    }
}

/// The engine's word on an end, completed by what the API was told of the same end: its message, which was read when
/// the container ended, and everything where the engine's own record did not survive a power cut.
fn as_told(mut exit: Exit, container: &engine::Container, before: Option<&ContainerStatus>) -> Exit {
    let id = format!("{CONTAINER_ID_SCHEME}{}", exit.container);
    let told = before.and_then(|before| Some((before, before.state.as_ref()?.terminated.as_ref()?)));
    let Some((before, terminated)) = told.filter(|(_, told)| told.container_id.as_ref() == Some(&id)) else {
        return exit;
    };
    if matches!(container.state, ContainerState::Exited { exit_code: None, .. }) {
        return exit_told(before, terminated, exit.finished_at);
    }
    if exit.message.is_empty() {
        exit.message = terminated.message.clone().unwrap_or_default();
    }
    exit
}

/// A pod that had ended stays ended, even where the engine has forgotten it.
fn recall_end(state: &mut PodState) {
    let pod = Arc::clone(&state.pod);
    let Some(status) = &pod.status else { return };
    if !matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")) {
        return;
    }
    if let (Some("Failed"), Some(reason)) = (status.phase.as_deref(), &status.reason) {
        state.failed = Some((reason.clone(), status.message.clone().unwrap_or_default()));
    }
    if state.ips.is_empty() {
        let ips = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok());
        state.ips = ips.collect();
    }
    for slot in &mut state.slots {
        let terminated = previous(&pod, &slot.name)
            .and_then(|before| Some((before, before.state.as_ref()?.terminated.as_ref()?)))
            .filter(|_| slot.run == Run::Idle);
        let Some((before, terminated)) = terminated else { continue };
        slot.restarts = u32::try_from(before.restart_count).unwrap_or(0);
        slot.run = Run::Exited(exit_told(before, terminated, state.start_time));
    }
    let why = match &state.failed {
        Some((reason, message)) => super::state::Why::Failed { reason: reason.clone(), message: message.clone() },
        None => super::state::Why::Completed,
    };
    state.end = Some(super::state::End::new(why, super::plan::grace(&state.pod), state.start_time));
}

/// The sandbox is gone (reboot, `down`): what may run again begins anew in the next one, init containers too.
/// Source: kubelet `computePodActions` with `CreateSandbox`.
fn start_over(state: &mut PodState, stopped: Option<&Sandbox>) {
    if state.end.is_some() {
        if let Some(sandbox) = stopped {
            state.sandbox = SandboxStep::Stopped { id: sandbox.id.clone() };
        }
        return;
    }
    let policy = state.restart_policy().to_owned();
    let all_over =
        |slot: &Slot| slot.exit().is_some_and(|exit| policy == "Never" || policy == "OnFailure" && exit.exit_code == 0);
    let any_main_left = state.slots.iter().any(|slot| slot.role == Role::Main && !all_over(slot));
    if !any_main_left {
        return;
    }
    for slot in &mut state.slots {
        let stays = slot.role == Role::Ephemeral || slot.role == Role::Main && all_over(slot);
        if let (false, Run::Exited(exit)) = (stays, slot.run.clone()) {
            slot.last = Some(exit);
            slot.run = Run::Idle;
        }
    }
}

#[cfg(test)]
#[path = "adopt_tests.rs"]
mod tests;
