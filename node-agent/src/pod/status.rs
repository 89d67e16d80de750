//! Writes `pod.status` as the kubelet writes it. Pure: what is known goes in, the status comes out.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reeve_engine::engine::ProcessUser;
use reeve_engine::images::Reference;

use super::backoff::go_duration;
use super::plan::{crash_backoff, has_turn};
use super::resize::{IN_PROGRESS, PENDING};
use super::resources::{Size, pod_requests, qos_class};
use super::shown;
use super::state::{Exit, ImageProblem, PodState, Role, Run, SandboxStep, Slot, Step, pod_text};
use crate::volume::is_recursive_read_only;

/// The conditions this agent owns. Others (`PodScheduled`, readiness gates) are left to their writers.
const OWN_CONDITIONS: [&str; 7] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", PENDING, IN_PROGRESS];

/// Scheme of container ids in the status.
pub(crate) const CONTAINER_ID_SCHEME: &str = "reeve://";

/// What `previous` (from the API) says about the things this agent owns, comparable with [`status`].
pub(crate) fn owned(previous: &PodStatus) -> PodStatus {
    let mut status = previous.clone();
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| OWN_CONDITIONS.contains(&condition.type_.as_str()));
    }
    // The scheduler's and the controllers'.
    status.nominated_node_name = None;
    status.resource_claim_statuses = None;
    status.extended_resource_claim_status = None;
    status.node_allocatable_resource_claim_statuses = None;
    status
}

/// The status of a pod. `previous` gives the conditions' transition times; `gates` the conditions that other
/// writers have set (readiness gates).
pub(crate) fn status(state: &PodState, node_ip: IpAddr, previous: &PodStatus, now: Timestamp) -> PodStatus {
    if let Some((reason, message)) = &state.failed
        && state.slots.iter().all(|slot| slot.run == Run::Idle)
    {
        return rejected(state, reason, message);
    }
    let statuses = |roles: &[Role]| -> Vec<ContainerStatus> {
        let slots = state.slots.iter().enumerate().filter(|(_, slot)| roles.contains(&slot.role));
        slots.map(|(index, slot)| container_status(state, index, slot, now)).collect()
    };
    let (mut main, mut ephemeral) = (statuses(&[Role::Main]), statuses(&[Role::Ephemeral]));
    let init = statuses(&[Role::Init, Role::Sidecar]);
    // Source: kubelet `SortedContainerStatuses`; those of init containers stay in the order of the spec.
    for list in [&mut main, &mut ephemeral] {
        list.sort_by(|a, b| a.name.cmp(&b.name));
    }
    let phase = phase(state);
    let (reason, message) = state.failed.clone().unzip();
    let mut conditions = conditions(state, phase, previous, now);
    if !matches!(phase, "Failed" | "Succeeded") {
        conditions.extend(state.resize.conditions());
    }
    PodStatus {
        allocated_resources: Some(pod_requests(state.spec())).filter(|requests| !requests.is_empty()),
        resources: Some(shown::of_pod(state, phase)),
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        container_statuses: Some(main),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        host_ip: Some(node_ip.to_string()),
        host_ips: Some(vec![HostIP { ip: node_ip.to_string() }]),
        pod_ip: state.ips.first().map(IpAddr::to_string),
        pod_ips: (!state.ips.is_empty()).then(|| state.ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
        qos_class: Some(qos_class(state.spec()).to_owned()),
        start_time: Some(Time(state.start_time)),
        observed_generation: state.pod.metadata.generation,
        reason,
        message,
        ..PodStatus::default()
    }
}

/// A pod that the node refused: nothing of it ever was here.
fn rejected(state: &PodState, reason: &str, message: &str) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        qos_class: Some(qos_class(state.spec()).to_owned()),
        start_time: Some(Time(state.start_time)),
        observed_generation: state.pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// Source: kubelet `getPhase`.
fn phase(state: &PodState) -> &'static str {
    if state.failed.is_some() {
        return "Failed";
    }
    let failed_init = state.slots.iter().any(|slot| {
        slot.role == Role::Init
            && slot.exit().is_some_and(|exit| exit.exit_code != 0 && !state.restarts_after(slot, exit))
    });
    if failed_init {
        return "Failed";
    }
    let mains = || state.slots.iter().filter(|slot| slot.role == Role::Main);
    let ending = state.end.is_some();
    let ended = ending && mains().all(|slot| slot.exit().is_some());
    if !state.initialized() && !ended {
        return if ending && nothing_runs(state) && state.slots.iter().any(|slot| slot.exit().is_some()) {
            "Failed"
        } else {
            "Pending"
        };
    }
    if mains().any(|slot| slot.run == Run::Idle && slot.last.is_none()) {
        return if ending && nothing_runs(state) && mains().any(|slot| slot.exit().is_some()) {
            "Failed"
        } else {
            "Pending"
        };
    }
    if !mains().all(|slot| slot.exit().is_some()) {
        return "Running";
    }
    let all_succeeded = mains().all(|slot| slot.exit().is_some_and(|exit| exit.exit_code == 0));
    let final_now = ending || mains().all(|slot| slot.exit().is_some_and(|exit| !state.restarts_after(slot, exit)));
    match (final_now, all_succeeded) {
        (false, _) => "Running",
        (true, true) => "Succeeded",
        (true, false) => "Failed",
    }
}

fn nothing_runs(state: &PodState) -> bool {
    state.slots.iter().all(|slot| slot.running().is_none() && slot.step == Step::Rest)
}

fn container_status(state: &PodState, index: usize, slot: &Slot, now: Timestamp) -> ContainerStatus {
    let spec = state.container(index);
    let (current, last) = container_states(state, index, slot, now);
    // Nobody asks an ephemeral container whether it is ready.
    let is_ephemeral = slot.role == Role::Ephemeral;
    let done = slot.role == Role::Init && slot.exit().is_some_and(|exit| exit.exit_code == 0);
    let image_id = match &slot.run {
        Run::Running(life) => life.image_id.clone(),
        Run::Exited(exit) => exit.image_id.clone(),
        Run::Idle => slot.last.as_ref().map(|exit| exit.image_id.clone()).unwrap_or_default(),
    };
    let image = slot.running().map(|life| life.image.clone());
    let image = image.or_else(|| spec.and_then(|spec| spec.image.clone())).unwrap_or_default();
    let is_made = slot.container_id().is_some();
    ContainerStatus {
        name: slot.name.clone(),
        image: if is_made { full_name(image) } else { image },
        image_id,
        container_id: slot.container_id().map(|id| format!("{CONTAINER_ID_SCHEME}{id}")),
        ready: done || slot.is_ready() && !is_ephemeral,
        started: (!is_ephemeral).then(|| slot.running().is_some() && slot.health.started),
        restart_count: i32::try_from(slot.restarts).unwrap_or(i32::MAX),
        state: Some(current),
        last_state: Some(last),
        volume_mounts: spec.and_then(volume_mounts),
        ..of_its_life(state, slot, spec)
    }
}

/// The image of a container that has been made, as the runtime names it: `docker.io/library/nginx:1.27`.
fn full_name(image: String) -> String {
    match Reference::parse(&image) {
        Ok(reference) if !image.starts_with("sha256:") => reference.to_string(),
        _ => image,
    }
}

/// What is told of a container once it has been made. Source: kubelet `convertToAPIContainerStatuses`.
fn of_its_life(state: &PodState, slot: &Slot, spec: Option<&Container>) -> ContainerStatus {
    if slot.container_id().is_none() {
        return ContainerStatus::default();
    }
    let granted = spec.and_then(|spec| spec.resources.clone()).unwrap_or_default();
    let requests = granted.requests.clone().filter(|requests| !requests.is_empty());
    let resources = match slot.running().zip(spec).filter(|_| slot.role != Role::Ephemeral) {
        Some((life, spec)) => shown::of_container(granted, life.size.unwrap_or_else(|| Size::of(state.spec(), spec))),
        None => granted,
    };
    let user = slot.user().map(|user| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: Some(user.groups.iter().copied().map(i64::from).collect()),
        }),
    });
    ContainerStatus { allocated_resources: requests, resources: Some(resources), user, ..ContainerStatus::default() }
}

/// The reverse of what [`status`] says of a container's user.
pub(crate) fn process_user(user: &ContainerUser) -> Option<ProcessUser> {
    let linux = user.linux.as_ref()?;
    let id = |id: i64| u32::try_from(id).ok();
    let groups = linux.supplemental_groups.iter().flatten().filter_map(|group| id(*group)).collect();
    Some(ProcessUser { uid: id(linux.uid)?, gid: id(linux.gid)?, groups })
}

fn volume_mounts(spec: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = spec.volume_mounts.iter().flatten().map(|wanted| {
        let read_only = wanted.read_only == Some(true);
        let depth = if is_recursive_read_only(wanted) { "Enabled" } else { "Disabled" };
        VolumeMountStatus {
            name: wanted.name.clone(),
            mount_path: wanted.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| depth.to_owned()),
            ..VolumeMountStatus::default()
        }
    });
    let mounts: Vec<_> = mounts.collect();
    (!mounts.is_empty()).then_some(mounts)
}

/// The container's state and its last state.
fn container_states(state: &PodState, index: usize, slot: &Slot, now: Timestamp) -> (ContainerState, ContainerState) {
    let earlier = || slot.last.as_ref().map(terminated).unwrap_or_default();
    match &slot.run {
        Run::Running(life) => {
            let running = ContainerStateRunning { started_at: Some(Time(life.started_at)) };
            (ContainerState { running: Some(running), ..ContainerState::default() }, earlier())
        }
        Run::Exited(exit) => match waiting_again(state, index, slot, now) {
            Some(waiting) => (waiting, terminated(exit)),
            None => (terminated(exit), earlier()),
        },
        Run::Idle => {
            let problem = if has_turn(state, index) { start_problem(state, index, slot) } else { None };
            let waiting = problem.unwrap_or_else(|| {
                let waits = slot.role != Role::Ephemeral && !state.initialized();
                waiting(if waits { "PodInitializing" } else { "ContainerCreating" }, None)
            });
            (waiting, earlier())
        }
    }
}

/// Why a container that has ended does not run again yet.
fn waiting_again(state: &PodState, index: usize, slot: &Slot, now: Timestamp) -> Option<ContainerState> {
    if let Some(delay) = crash_backoff(state, slot, now) {
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            go_duration(delay),
            slot.name,
            pod_text(&state.pod)
        );
        return Some(waiting("CrashLoopBackOff", Some(message)));
    }
    let restarts = slot.exit().is_some_and(|exit| state.restarts_after(slot, exit)) && state.end.is_none();
    if restarts && has_turn(state, index) { start_problem(state, index, slot) } else { None }
}

/// Why a container whose turn it is cannot be started.
fn start_problem(state: &PodState, index: usize, slot: &Slot) -> Option<ContainerState> {
    if let Some((ImageProblem { reason, message, backs_off }, image)) = state.image_problem(index) {
        if *backs_off {
            let message = format!("Back-off pulling image \"{image}\": {reason}: {message}");
            return Some(waiting("ImagePullBackOff", Some(message)));
        }
        return Some(waiting(reason, Some(message.clone())));
    }
    let failure = slot.failure.as_ref()?;
    Some(waiting(failure.reason, Some(failure.message.clone())))
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(exit: &Exit) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: Some(format!("{CONTAINER_ID_SCHEME}{}", exit.container)),
        exit_code: exit.exit_code,
        finished_at: Some(Time(exit.finished_at)),
        started_at: exit.started_at.map(Time),
        reason: Some(exit.reason.clone()).filter(|reason| !reason.is_empty()),
        message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
        ..ContainerStateTerminated::default()
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// Whether a status only says that the pod is being made.
pub(crate) fn says_nothing(status: &PodStatus) -> bool {
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let mut waiting = containers.map(|status| {
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
        waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default()
    });
    status.phase.as_deref() == Some("Pending")
        && waiting.all(|reason| matches!(reason, "ContainerCreating" | "PodInitializing"))
}

/// What one condition says, before it is compared with what it said earlier.
struct Verdict {
    kind: &'static str,
    yes: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Verdict {
    fn yes(kind: &'static str) -> Self {
        Self { kind, yes: true, reason: None, message: None }
    }

    fn no(kind: &'static str, reason: &'static str, message: Option<String>) -> Self {
        Self { kind, yes: false, reason: Some(reason), message }
    }
}

fn conditions(state: &PodState, phase: &str, previous: &PodStatus, now: Timestamp) -> Vec<PodCondition> {
    let sandbox_ready = matches!(state.sandbox, SandboxStep::Ready { .. });
    let ready_to_start = Verdict { kind: "PodReadyToStartContainers", yes: sandbox_ready, reason: None, message: None };
    let containers_ready = containers_ready(state, phase);
    let ready = ready(state, &containers_ready);
    let verdicts = [ready_to_start, initialized(state, phase), ready, containers_ready, Verdict::yes("PodScheduled")];
    verdicts.into_iter().map(|verdict| condition(state, verdict, previous, now)).collect()
}

fn condition(state: &PodState, verdict: Verdict, previous: &PodStatus, now: Timestamp) -> PodCondition {
    let status = if verdict.yes { "True" } else { "False" };
    let before = previous.conditions.iter().flatten().find(|condition| condition.type_ == verdict.kind);
    let since = before.filter(|before| before.status == status).and_then(|before| before.last_transition_time.clone());
    PodCondition {
        type_: verdict.kind.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: Some(since.unwrap_or(Time(now))),
        observed_generation: state.pod.metadata.generation,
        ..PodCondition::default()
    }
}

/// Source: kubelet `GeneratePodInitializedCondition`.
fn initialized(state: &PodState, phase: &str) -> Verdict {
    const KIND: &str = "Initialized";
    if phase == "Succeeded" {
        return Verdict { reason: Some("PodCompleted"), ..Verdict::yes(KIND) };
    }
    if state.initialized() {
        return Verdict::yes(KIND);
    }
    let undone = state.slots.iter().filter(|slot| match slot.role {
        Role::Init => slot.exit().is_none_or(|exit| exit.exit_code != 0),
        Role::Sidecar => !slot.health.started,
        Role::Main | Role::Ephemeral => false,
    });
    let names: Vec<_> = undone.map(|slot| slot.name.as_str()).collect();
    let message = format!("containers with incomplete status: [{}]", names.join(" "));
    Verdict::no(KIND, "ContainersNotInitialized", Some(message))
}

/// Source: kubelet `GenerateContainersReadyCondition`.
fn containers_ready(state: &PodState, phase: &str) -> Verdict {
    const KIND: &str = "ContainersReady";
    match phase {
        "Succeeded" => return Verdict::no(KIND, "PodCompleted", None),
        "Failed" => return Verdict::no(KIND, "PodFailed", None),
        _ => {}
    }
    let counts = |slot: &&Slot| matches!(slot.role, Role::Main | Role::Sidecar);
    let unready = state.slots.iter().filter(counts).filter(|slot| !slot.is_ready());
    let unready: Vec<_> = unready.map(|slot| slot.name.as_str()).collect();
    if unready.is_empty() {
        return Verdict::yes(KIND);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict::no(KIND, "ContainersNotReady", Some(message))
}

/// Source: kubelet `GeneratePodReadyCondition`.
fn ready(state: &PodState, containers: &Verdict) -> Verdict {
    const KIND: &str = "Ready";
    if !containers.yes {
        return Verdict { kind: KIND, yes: false, reason: containers.reason, message: containers.message.clone() };
    }
    let conditions = state.pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let set: Vec<_> = conditions.collect();
    let mut messages = Vec::new();
    for gate in state.spec().readiness_gates.iter().flatten() {
        match set.iter().find(|condition| condition.type_ == gate.condition_type) {
            Some(condition) if condition.status == "True" => {}
            Some(condition) => messages.push(format!(
                "the status of pod readiness gate \"{}\" is not \"True\", but {}",
                gate.condition_type, condition.status
            )),
            None => messages.push(format!(
                "corresponding condition of pod readiness gate \"{}\" does not exist.",
                gate.condition_type
            )),
        }
    }
    if messages.is_empty() {
        Verdict::yes(KIND)
    } else {
        Verdict::no(KIND, "ReadinessGatesNotReady", Some(messages.join(", ")))
    }
}
