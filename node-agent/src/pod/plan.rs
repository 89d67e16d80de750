//! Decides what has to happen to a pod next. No I/O, no clock: `now` is an argument.
//!
//! The rules are those of the kubelet's `computePodActions`, `SyncTerminatingPod` and `SyncTerminatedPod`.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::backoff::{after, left};
use super::image_volumes::ImageUse;
use super::resize;
use super::state::{Drain, End, ImageStep, PodState, Role, SandboxStep, Slot, Step, VolumesStep, Why, spec};

/// How long a failed pull is shown as `ErrImagePull` before it becomes `ImagePullBackOff`
/// (in the kubelet: until the next sync of the pod).
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);

/// Shortest grace period: a container always gets its stop signal, also when the API says 0.
pub(crate) const GRACE_MIN: Duration = Duration::from_secs(1);

/// One thing to do. Each is started at most once at a time; its result comes back as an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Make the sandbox and its network.
    CreateSandbox { attempt: u32 },
    /// Make all volumes.
    MountVolumes,
    /// See to it that an image is here.
    FetchImage { of: ImageUse },
    /// Create and start a container, then run its `postStart` hook.
    StartContainer { slot: usize, attempt: u32 },
    /// Run the `preStop` hook, stop the container.
    StopContainer { slot: usize, container: String, grace: Duration, message: String },
    /// Give pod and containers the resources that they were granted.
    Resize,
    /// Wait until this node's proxy sends no new connections.
    Drain,
    /// Unmount volumes, give addresses back, stop the sandbox (and remove it).
    Teardown { remove: bool },
    /// Delete the pod's object: nothing of the pod is left.
    DeleteObject,
    /// Tell that a pull waits.
    TellPullBackoff { of: ImageUse },
    /// Tell that a restart waits until `until`.
    TellCrashBackoff { slot: usize, until: Timestamp },
}

/// What to do now, and when to look again even if nothing happens.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) effects: Vec<Effect>,
    pub(crate) wake_at: Option<Timestamp>,
}

impl Plan {
    /// Does something that several containers may wait for.
    fn once(&mut self, effect: Effect) {
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether something due at `at` may happen `now`; if not, asks to be woken then.
    fn due(&mut self, at: Option<Timestamp>, now: Timestamp) -> bool {
        match at {
            Some(at) if at > now => {
                self.wake(at);
                false
            }
            _ => true,
        }
    }
}

/// Whether the pod has to end, if it has not been told so yet; a pod that ends by itself can still be deleted.
pub(crate) fn ending(state: &PodState, now: Timestamp) -> Option<End> {
    let why = state.end.as_ref().map(|end| &end.why);
    if matches!(why, Some(Why::Deleted | Why::Gone)) {
        return None;
    }
    if state.pod.metadata.deletion_timestamp.is_some() {
        return Some(End::new(Why::Deleted, grace(&state.pod), now));
    }
    if why.is_some() {
        return None;
    }
    if deadline(state).is_some_and(|deadline| deadline <= now) {
        let reason = "DeadlineExceeded".to_owned();
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        return Some(End::new(Why::Failed { reason, message }, grace(&state.pod), now));
    }
    is_complete(state).then(|| End::new(Why::Completed, grace(&state.pod), now))
}

/// Time between stop signal and kill: of the deletion if there is one, else of the spec.
pub(crate) fn grace(pod: &Pod) -> Duration {
    let seconds = pod.metadata.deletion_grace_period_seconds.or(spec(pod).termination_grace_period_seconds);
    Duration::from_secs(u64::try_from(seconds.unwrap_or(30)).unwrap_or(0)).max(GRACE_MIN)
}

fn deadline(state: &PodState) -> Option<Timestamp> {
    let seconds = u64::try_from(state.spec().active_deadline_seconds?).ok()?;
    Some(after(state.start_time, Duration::from_secs(seconds)))
}

/// Whether no container will ever be started again.
fn is_complete(state: &PodState) -> bool {
    let ended = |slot: &Slot| slot.exit().is_some_and(|exit| !state.restarts_after(slot, exit));
    let resting = |slot: &Slot| slot.step == Step::Rest;
    let init_failed = state
        .slots
        .iter()
        .any(|slot| slot.role == Role::Init && ended(slot) && slot.exit().is_some_and(|exit| exit.exit_code != 0));
    let mut mains = state.slots.iter().filter(|slot| slot.role == Role::Main);
    init_failed || mains.all(|slot| ended(slot) && resting(slot))
}

/// What to do next.
pub(crate) fn plan(state: &PodState, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    match &state.end {
        Some(end) => plan_end(state, end, now, &mut plan),
        None => plan_life(state, now, &mut plan),
    }
    plan
}

fn plan_life(state: &PodState, now: Timestamp, plan: &mut Plan) {
    if let Some(deadline) = deadline(state) {
        plan.wake(deadline);
    }
    if let SandboxStep::Absent { retry_at, .. } = state.sandbox
        && plan.due(retry_at, now)
    {
        plan.effects.push(Effect::CreateSandbox { attempt: state.sandbox_attempt });
    }
    if let VolumesStep::Absent { retry_at, .. } = state.volumes
        && plan.due(retry_at, now)
    {
        plan.effects.push(Effect::MountVolumes);
    }
    let resizing = plan_resize(state, now, plan);
    let ground = matches!(state.sandbox, SandboxStep::Ready { .. }) && state.volumes == VolumesStep::Ready && !resizing;
    let mut turn = true;
    for (index, slot) in state.slots.iter().enumerate() {
        plan_condemned(state, index, slot, plan);
        let is_on = turn || slot.role == Role::Ephemeral;
        plan_slot(state, index, slot, Turn { is_on, ground, now }, plan);
        turn &= lets_next_start(state, slot);
    }
}

/// Whether a resize keeps containers from starting: a new one may have more than the pod's group still allows. One that
/// fails keeps nothing up.
fn plan_resize(state: &PodState, now: Timestamp, plan: &mut Plan) -> bool {
    if state.resize.under_way {
        return true;
    }
    if resize::job(state).is_none() {
        return false;
    }
    if resize::waits(state) {
        return true;
    }
    let due = plan.due(state.resize.retry.map(|(_, at)| at), now);
    if due {
        plan.effects.push(Effect::Resize);
    }
    due
}

/// Whether the containers after this one may start.
fn lets_next_start(state: &PodState, slot: &Slot) -> bool {
    match slot.role {
        Role::Init => slot.exit().is_some_and(|exit| exit.exit_code == 0),
        // A sidecar that crashes later holds nobody up.
        Role::Sidecar => slot.health.started || state.initialized(),
        Role::Main | Role::Ephemeral => true,
    }
}

fn plan_condemned(state: &PodState, index: usize, slot: &Slot, plan: &mut Plan) {
    if let (Some(condemned), Some(life), Step::Rest) = (&slot.condemned, slot.running(), slot.step) {
        let by_probe = if condemned.by_probe { probe_grace(state, index) } else { None };
        let grace = by_probe.unwrap_or_else(|| grace(&state.pod));
        plan.effects.push(Effect::StopContainer {
            slot: index,
            container: life.container.clone(),
            grace,
            message: condemned.message.clone(),
        });
    }
}

fn probe_grace(state: &PodState, slot: usize) -> Option<Duration> {
    let container = state.container(slot)?;
    let own = container.liveness_probe.as_ref().and_then(|probe| probe.termination_grace_period_seconds);
    Some(Duration::from_secs(u64::try_from(own?).ok()?).max(GRACE_MIN))
}

/// Whether it is a container's turn, and what time it is.
#[derive(Clone, Copy)]
struct Turn {
    /// Those that come before it are done: its image may be fetched, and told about.
    is_on: bool,
    /// Sandbox and volumes are there.
    ground: bool,
    now: Timestamp,
}

impl Turn {
    fn may_start(self) -> bool {
        self.is_on && self.ground
    }
}

/// One container that does not run: its image, its back-off, its start.
fn plan_slot(state: &PodState, index: usize, slot: &Slot, turn: Turn, plan: &mut Plan) {
    if slot.step != Step::Rest || slot.running().is_some() || !turn.is_on {
        return;
    }
    if let Some(exit) = slot.exit() {
        if !state.restarts_after(slot, exit) || !turn.may_start() {
            return;
        }
        let backoff = slot.backoff.until(exit.finished_at).filter(|until| *until > turn.now && !slot.revive);
        if let Some(until) = backoff {
            if slot.backoff_told != Some(until) {
                plan.effects.push(Effect::TellCrashBackoff { slot: index, until });
            }
            plan.wake(until);
            return;
        }
    }
    let is_due = plan.due(slot.failure.as_ref().map(|failure| failure.retry_at), turn.now);
    let has_own = image_is_ready(ImageUse::Container(index), &slot.image, turn, plan);
    // Those of its volumes are looked for anew each time.
    let has_others = is_due && shown_images_are_ready(state, index, turn, plan);
    if has_own && has_others && turn.may_start() {
        plan.effects.push(Effect::StartContainer { slot: index, attempt: slot.next_attempt() });
    }
}

/// Whether the images of the pod's volumes are here. One that cannot be had holds up only who mounts it.
fn shown_images_are_ready(state: &PodState, index: usize, turn: Turn, plan: &mut Plan) -> bool {
    let mut ready = true;
    for (number, volume) in state.image_volumes.iter().enumerate() {
        let is_here = image_is_ready(ImageUse::Volume(number), &volume.image, turn, plan);
        let is_missed = volume.image.problem().is_none() || state.mounts(index, &volume.name);
        ready &= is_here || !is_missed;
    }
    ready
}

fn image_is_ready(of: ImageUse, image: &ImageStep, turn: Turn, plan: &mut Plan) -> bool {
    match image {
        ImageStep::Ready(_) => true,
        ImageStep::Fetching { .. } => false,
        ImageStep::Unknown { .. } => {
            plan.once(Effect::FetchImage { of });
            false
        }
        ImageStep::Failed { problem, retry_at, since, .. } => {
            let shown = after(*since, PULL_ERROR_SHOWN);
            // Only a failed pull turns into a back-off.
            let turns = problem.reason == "ErrImagePull" && !problem.backs_off;
            if turns && plan.due(Some(shown), turn.now) {
                plan.once(Effect::TellPullBackoff { of });
            }
            if plan.due(Some(*retry_at), turn.now) {
                plan.once(Effect::FetchImage { of });
            }
            false
        }
    }
}

fn plan_end(state: &PodState, end: &End, now: Timestamp, plan: &mut Plan) {
    let running = |role: Role| state.slots.iter().any(|slot| slot.role == role && slot.running().is_some());
    let starting = state.slots.iter().any(|slot| slot.step == Step::Starting);
    if running(Role::Main) && end.drain != Drain::Done {
        if end.drain == Drain::ToDo {
            plan.effects.push(Effect::Drain);
        }
        return;
    }
    let left = left(now, after(end.began, end.grace)).max(GRACE_MIN).min(end.grace);
    for (index, slot) in state.slots.iter().enumerate() {
        if slot.role != Role::Sidecar {
            plan_stop(index, slot, (left, end.grace), plan);
        }
    }
    // Sidecars end after the containers they serve, the last one first.
    if !running(Role::Main) && !running(Role::Init) {
        let last = state.slots.iter().enumerate().rev().find(|(_, slot)| slot.running().is_some());
        if let Some((index, slot)) = last {
            plan_stop(index, slot, (left, end.grace), plan);
        }
    }
    let busy = starting || state.slots.iter().any(|slot| slot.running().is_some() || slot.step != Step::Rest);
    let making =
        state.sandbox == SandboxStep::Creating || state.volumes == VolumesStep::Mounting || state.resize.under_way;
    if !busy && !making {
        plan_teardown(state, end, now, plan);
    }
}

/// Stops a container within what is left of the grace; again, if the whole grace became shorter meanwhile.
fn plan_stop(index: usize, slot: &Slot, (left, whole): (Duration, Duration), plan: &mut Plan) {
    let Some(life) = slot.running() else { return };
    let stop = match slot.step {
        Step::Rest => true,
        Step::Starting => false,
        Step::Stopping { grace: before } => whole < before,
    };
    if stop {
        plan.effects.push(Effect::StopContainer {
            slot: index,
            container: life.container.clone(),
            grace: left,
            message: format!("Stopping container {}", slot.name),
        });
    }
}

fn plan_teardown(state: &PodState, end: &End, now: Timestamp, plan: &mut Plan) {
    if end.tearing_down || end.deleting {
        return;
    }
    let remove = matches!(end.why, Why::Deleted | Why::Gone);
    if !end.torn_down {
        if plan.due(end.teardown_retry.map(|(_, at)| at), now) {
            plan.effects.push(Effect::Teardown { remove });
        }
        return;
    }
    if end.why == Why::Deleted && state.sandbox == SandboxStep::Removed {
        plan.effects.push(Effect::DeleteObject);
    }
}

/// Whether a container's image problem concerns it now (its turn has come), for the status.
pub(crate) fn has_turn(state: &PodState, index: usize) -> bool {
    let waits_for_nobody = state.slots.get(index).is_some_and(|slot| slot.role == Role::Ephemeral);
    waits_for_nobody || state.slots.iter().take(index).all(|slot| lets_next_start(state, slot))
}

/// Whether a container waits out its crash back-off, and how long that is.
pub(crate) fn crash_backoff(state: &PodState, slot: &Slot, now: Timestamp) -> Option<Duration> {
    let exit = slot.exit().filter(|exit| state.restarts_after(slot, exit))?;
    let until = slot.backoff.until(exit.finished_at)?;
    (state.end.is_none() && slot.step == Step::Rest && until > now && !slot.revive)
        .then(|| slot.backoff.delay(exit.finished_at))?
}
