//! The owner of one pod: takes inputs, asks the plan, starts effects, writes the status.
//!
//! It never waits for an effect; whatever takes time runs beside it and comes back as an input. So the queue of
//! inputs is emptied quickly, and whoever fills it may wait when it is full. Starting effects is in [`begin`], what
//! concerns probes in [`probes`], resizing in [`resize`].

mod begin;
mod probes;
mod resize;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use reeve_client::EventType;
use reeve_engine::engine::{self, ContainerState, Image};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::probes::ProbeEnds;
use super::backoff::{after, exponential, left, step_retry};
use super::container::{IMAGE, termination_message};
use super::context::{NodeContext, about};
use super::effects::{NewSandbox, PodEffects, StartError};
use super::eviction::Watched;
use super::image::ImageFailure;
use super::image_volumes::ImageUse;
use super::ledger::Pending;
use super::plan::{ending, plan};
use super::resize::{Resized, size_of};
use super::state::{
    Condemned, Drain, End, Exit, ImageProblem, ImageStep, Life, PodState, SandboxStep, StartFailure, Step, VolumesStep,
    Why,
};
use super::status::{says_nothing, status};
use super::told::Told;
use super::view::{ContainerView, PodView, Views};
use super::writer::{Written, write, write_retry};
use crate::objects::{ObjectChanges, PodObjects};
use crate::probe::ProbeKind;
use crate::volume::token::IssuedTokens;
use crate::volume::{Mounted, VolumesReady};

/// Reason of a pod that used more than it may.
const EVICTED: &str = "Evicted";

/// Inputs that wait. When it is full the sender waits: the actor never waits for a sender.
const QUEUE_LEN: usize = 64;

/// A pod that only just began and has nothing to tell is not written at once: usually it runs before this.
const FIRST_STATUS_DELAY: Duration = Duration::from_millis(150);

/// Everything that can happen to a pod.
#[derive(Debug)]
pub(crate) enum Input {
    /// A new version of the object, or another word of the node on it.
    Pod(PodNews),
    /// The object is gone.
    Gone,
    /// A container began or ended.
    Engine(Box<engine::Container>),
    Sandbox(Result<Box<NewSandbox>, String>),
    Volumes(Result<VolumesReady, String>),
    Image {
        of: ImageUse,
        result: Result<Box<Image>, ImageFailure>,
    },
    /// Whether an image that was missed is here now.
    ImageSeen {
        of: ImageUse,
        here: bool,
    },
    Started {
        slot: usize,
        attempt: u32,
        result: Result<Box<engine::Container>, StartError>,
    },
    PostStart {
        slot: usize,
        container: String,
        result: Result<(), String>,
    },
    Stopped {
        slot: usize,
        id: String,
        container: Option<Box<engine::Container>>,
    },
    Drained,
    TornDown {
        removed: bool,
        result: Result<(), String>,
    },
    Deleted(Result<(), String>),
    /// The pod uses more than it may; in the kubelet's words.
    Evicted(String),
    Probe {
        slot: usize,
        container: String,
        kind: ProbeKind,
        healthy: bool,
    },
    Resized(Box<Resized>),
    Written {
        status: Box<PodStatus>,
        outcome: Written,
    },
}

/// A pod as the node lets it be.
#[derive(Debug)]
pub(crate) struct PodNews {
    /// As the API has it, with the resources that it was granted.
    pub(crate) pod: Arc<Pod>,
    /// Why it was not granted all that it wants.
    pub(crate) pending: Option<Pending>,
    /// It was granted other resources just now.
    pub(crate) granted: bool,
}

impl From<Arc<Pod>> for PodNews {
    fn from(pod: Arc<Pod>) -> Self {
        Self { pod, pending: None, granted: false }
    }
}

impl std::fmt::Debug for VolumesReady {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumesReady").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

/// A running pod actor, as the table holds it.
pub(crate) struct PodHandle {
    pub(crate) inputs: mpsc::Sender<Input>,
}

/// What an actor starts from.
pub(crate) struct Beginning {
    pub(crate) state: PodState,
    /// Dead containers by slot that may be removed when a newer one has died.
    pub(crate) dead: HashMap<usize, Vec<String>>,
}

/// Starts the actor of a pod; it ends when nothing of the pod is left, then calls `done`.
pub(crate) fn start(
    node: &Arc<NodeContext>,
    views: &Views,
    beginning: Beginning,
    done: impl FnOnce() + Send + 'static,
) -> PodHandle {
    let (inputs, queue) = mpsc::channel(QUEUE_LEN);
    let actor = Actor::new(Arc::clone(node), views.clone(), beginning, inputs.clone());
    node.component.spawn("pod", async move {
        actor.run(queue).await;
        done();
    });
    PodHandle { inputs }
}

struct Actor {
    node: Arc<NodeContext>,
    state: PodState,
    objects: Arc<PodObjects>,
    changes: ObjectChanges,
    /// Tokens that were issued for the pod's volumes.
    tokens: Arc<IssuedTokens>,
    mounted: Arc<Mounted>,
    /// When tokens have to be renewed.
    renew_at: Option<Timestamp>,
    refreshing: bool,
    /// Something changed while the volumes were being made: they may show what was before.
    stale: bool,
    inputs: mpsc::Sender<Input>,
    /// What ends the probes of a slot's current life.
    probes: HashMap<usize, ProbeEnds>,
    /// Cancelled when the pod is to end.
    ending: CancellationToken,
    /// Ends the watch over volumes with a limit.
    watching_sizes: Option<DropGuard>,
    /// Counts the changes of the node's images.
    images: watch::Receiver<u64>,
    /// Ends of containers whose start has not been reported yet.
    early: HashMap<String, Box<engine::Container>>,
    dead: HashMap<usize, Vec<String>>,
    first_seen: Timestamp,
    told: Told,
    writing: bool,
    /// Writes in a row that failed.
    failed_writes: u32,
    views: Views,
    view: watch::Sender<PodView>,
}

impl Actor {
    fn new(node: Arc<NodeContext>, views: Views, beginning: Beginning, inputs: mpsc::Sender<Input>) -> Self {
        let Beginning { state, dead } = beginning;
        let objects = Arc::new(node.objects.of_pod(&state.pod));
        let told = Told::new(&state.pod);
        Self {
            first_seen: node.now(),
            changes: objects.changes(),
            view: views.publish(&state.pod),
            tokens: Arc::default(),
            mounted: Arc::default(),
            ending: CancellationToken::new(),
            watching_sizes: None,
            images: node.images.clone(),
            renew_at: None,
            refreshing: false,
            stale: false,
            probes: HashMap::new(),
            early: HashMap::new(),
            writing: false,
            failed_writes: 0,
            node,
            state,
            objects,
            inputs,
            dead,
            told,
            views,
        }
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Input>) {
        self.resume_probes();
        loop {
            let wake = self.turn();
            if self.is_over() {
                break;
            }
            tokio::select! {
                input = queue.recv() => match input {
                    Some(input) => self.on_input(input),
                    None => break,
                },
                () = self.changes.next() => self.refresh_volumes(),
                Ok(()) = self.images.changed() => self.look_for_images(),
                () = sleep_until(wake.map(|at| left(self.node.now(), at))) => {}
            }
            while let Ok(input) = queue.try_recv() {
                self.on_input(input);
            }
        }
        self.views.withdraw(&self.state.pod);
        self.node.probes.forget(&self.state.pod);
    }

    /// Whether nothing is left to do, ever.
    fn is_over(&self) -> bool {
        let removed = self.state.sandbox == SandboxStep::Removed;
        self.state.end.as_ref().is_some_and(|end| match end.why {
            Why::Gone => end.torn_down && removed,
            _ => false,
        })
    }

    /// One round: decide, start effects, write the status. Returns when to look again.
    fn turn(&mut self) -> Option<Timestamp> {
        let now = self.node.now();
        if let Some(end) = ending(&self.state, now) {
            self.on_end(end);
        }
        self.look_at_resize(now);
        let plan = plan(&self.state, now);
        for effect in plan.effects {
            self.begin(effect, now);
        }
        let mut wake = plan.wake_at;
        let mut wake_by = |at: Option<Timestamp>| {
            if let Some(at) = at {
                wake = Some(wake.map_or(at, |wake| wake.min(at)));
            }
        };
        wake_by(self.write_status(now));
        if let Some(at) = self.renew_at {
            if at <= now {
                self.refresh_volumes();
            }
            wake_by(Some(at).filter(|at| *at > now));
        }
        self.publish();
        wake
    }

    /// The pod is to end. A pod that had ended by itself and is deleted now is torn down again, to be removed.
    fn on_end(&mut self, end: End) {
        tracing::debug!(pod = super::state::pod_text(&self.state.pod), why = ?end.why, "pod ends");
        self.stop_restarting_probes();
        self.watching_sizes = None;
        self.ending.cancel();
        if let Why::Failed { reason, message } = &end.why {
            self.state.failed = Some((reason.clone(), message.clone()));
            let about = about(&self.state.pod);
            // Source: kubelet; a deadline is what the pod asked for.
            let kind = if reason == EVICTED { EventType::Warning } else { EventType::Normal };
            self.node.events.record(&about, kind, reason, message.clone());
        }
        let tearing_down = self.state.end.as_ref().is_some_and(|end| end.tearing_down);
        self.state.end = Some(End { tearing_down, ..end });
    }

    fn effects(&self) -> PodEffects {
        PodEffects {
            node: Arc::clone(&self.node),
            pod: Arc::clone(&self.state.pod),
            objects: Arc::clone(&self.objects),
            tokens: Arc::clone(&self.tokens),
            ending: self.ending.clone(),
            ips: self.state.ips.clone(),
        }
    }

    /// Runs `task` beside the actor; its result becomes an input.
    fn spawn(&self, name: &'static str, task: impl Future<Output = Input> + Send + 'static) {
        let inputs = self.inputs.clone();
        self.node.component.spawn(name, async move {
            let input = task.await;
            // Without a receiver the pod is over, and nobody needs the result.
            let _ = inputs.send(input).await;
        });
    }

    fn set_end(&mut self, change: impl FnOnce(&mut End)) {
        if let Some(end) = &mut self.state.end {
            change(end);
        }
    }

    fn on_input(&mut self, input: Input) {
        let now = self.node.now();
        match input {
            Input::Pod(news) => self.on_news(news, now),
            Input::Resized(done) => self.on_resized(*done, now),
            Input::Gone => {
                if !matches!(self.state.end.as_ref().map(|end| &end.why), Some(Why::Gone)) {
                    // What is under way stays under way.
                    let end = self.state.end.clone();
                    let fresh = End::new(Why::Gone, super::plan::grace(&self.state.pod), now);
                    let kept = end.map(|end| End {
                        why: Why::Gone,
                        torn_down: self.state.sandbox == SandboxStep::Removed,
                        deleting: false,
                        ..end
                    });
                    self.on_end(kept.unwrap_or(fresh));
                }
            }
            Input::Engine(container) => self.on_engine(container),
            Input::Sandbox(result) => self.on_sandbox(result, now),
            Input::Volumes(result) => self.on_volumes(result, now),
            Input::Image { of, result } => self.on_image(of, result, now),
            Input::ImageSeen { of, here } => {
                if let (true, Some(ImageStep::Failed { retry_at, .. })) = (here, self.state.image_step_mut(of)) {
                    *retry_at = now;
                }
            }
            Input::Started { slot, attempt, result } => self.on_started(slot, attempt, result, now),
            Input::PostStart { slot, container, result } => {
                if result.is_err() {
                    self.condemn(slot, &container, |name| {
                        format!("FailedPostStartHook: container {name} will be restarted")
                    });
                }
            }
            Input::Stopped { slot, id, container } => self.on_stopped(slot, &id, container, now),
            Input::Drained => self.set_end(|end| end.drain = Drain::Done),
            Input::TornDown { removed, result } => self.on_torn_down(removed, result, now),
            Input::Deleted(Ok(())) => {
                // The watch will tell as well; the actor need not wait for it.
                self.set_end(|end| end.why = Why::Gone);
            }
            Input::Deleted(Err(error)) => {
                tracing::warn!(
                    error,
                    pod = super::state::pod_text(&self.state.pod),
                    "failed to delete the pod's object"
                );
                self.set_end(|end| end.deleting = false);
            }
            Input::Evicted(message) => self.on_evicted(message, now),
            Input::Probe { slot, container, kind, healthy } => self.on_probe(slot, &container, kind, healthy),
            Input::Written { status, outcome } => self.on_written(*status, outcome),
        }
    }

    fn on_written(&mut self, status: PodStatus, outcome: Written) {
        self.writing = false;
        self.failed_writes = match outcome {
            Written::Failed => self.failed_writes.saturating_add(1),
            Written::Done(_) | Written::Gone | Written::Refused => 0,
        };
        match outcome {
            Written::Done(pod) => self.told.taken(status, &pod),
            Written::Gone | Written::Refused => self.told.refused(status),
            Written::Failed => {}
        }
    }

    fn on_pod(&mut self, pod: Arc<Pod>) {
        let metadata_changed = pod.metadata.labels != self.state.pod.metadata.labels
            || pod.metadata.annotations != self.state.pod.metadata.annotations;
        if self.state.set_pod(pod) {
            // New containers may refer to objects that no other one does.
            self.objects = Arc::new(self.node.objects.of_pod(&self.state.pod));
            self.changes = self.objects.changes();
        }
        for index in 0..self.state.slots.len() {
            let wanted = self.state.container(index).and_then(|spec| spec.image.clone());
            let Some(slot) = self.state.slots.get_mut(index) else { continue };
            let changed = slot.running().is_some_and(|life| wanted.as_ref().is_some_and(|image| *image != life.image));
            if changed && slot.condemned.is_none() {
                let message = format!("Container {} definition changed, will be restarted", slot.name);
                slot.condemned = Some(Condemned::by_pod(message));
            }
        }
        // A deletion may shorten the grace of one that is under way.
        let grace = super::plan::grace(&self.state.pod);
        self.set_end(|end| end.grace = end.grace.min(grace));
        if metadata_changed {
            self.refresh_volumes();
        }
    }

    fn slot_of(&self, container: &engine::Container) -> Option<usize> {
        self.state.slots.iter().position(|slot| slot.name == container.config.name)
    }

    fn on_engine(&mut self, container: Box<engine::Container>) {
        let Some(index) = self.slot_of(&container) else { return };
        let Some(slot) = self.state.slots.get(index) else { return };
        let is_current = slot.running().is_some_and(|life| life.container == container.id);
        match (Exit::of(&container), is_current) {
            (Some(_), true) => self.on_exit(index, &container),
            (Some(_), false) if slot.step == Step::Starting => {
                self.early.insert(container.id.clone(), container);
            }
            _ => {}
        }
    }

    fn on_exit(&mut self, index: usize, container: &engine::Container) {
        let Some(mut exit) = Exit::of(container) else { return };
        let spec = self.state.container(index).cloned();
        let dir = self.node.config.pod_dir(self.state.pod.metadata.uid.as_deref().unwrap_or_default());
        if let Some(spec) = &spec {
            let log = &container.config.log_path;
            let message = termination_message(&dir, spec, container.config.attempt, log, exit.exit_code);
            if !message.is_empty() {
                exit.message = message;
            }
        }
        self.probes.remove(&index);
        self.state.forget_shown_images();
        let Some(slot) = self.state.slots.get_mut(index) else { return };
        slot.on_exit(exit, container.config.attempt);
    }

    fn on_sandbox(&mut self, result: Result<Box<NewSandbox>, String>, now: Timestamp) {
        let failures = match self.state.sandbox {
            SandboxStep::Absent { failures, .. } => failures,
            _ => 0,
        };
        match result {
            Ok(sandbox) => {
                self.state.ips = sandbox.ips;
                self.state.resize.group = Some(sandbox.resources);
                self.state.sandbox = SandboxStep::Ready { id: sandbox.id };
                // Volumes may show the pod's address.
                if self.shows_address() {
                    self.refresh_volumes();
                }
            }
            Err(_) => {
                self.state.sandbox_attempt = self.state.sandbox_attempt.saturating_add(1);
                let failures = failures.max(self.state.sandbox_attempt);
                let retry_at = Some(after(now, step_retry(failures)));
                self.state.sandbox = SandboxStep::Absent { failures, retry_at };
                return;
            }
        }
        self.state.sandbox_attempt = self.state.sandbox_attempt.saturating_add(1);
    }

    fn shows_address(&self) -> bool {
        let volumes = self.state.spec().volumes.iter().flatten();
        volumes.into_iter().any(|volume| volume.downward_api.is_some() || volume.projected.is_some())
            && self.state.volumes == VolumesStep::Ready
    }

    fn on_volumes(&mut self, result: Result<VolumesReady, String>, now: Timestamp) {
        self.refreshing = false;
        match (result, self.state.volumes.clone()) {
            (Ok(ready), _) => {
                self.mounted = Arc::new(ready.mounted);
                self.watch_sizes();
                self.renew_at = ready.renew_at;
                self.state.volumes = VolumesStep::Ready;
            }
            // What is mounted stays; the next change or renewal tries again.
            (Err(_), VolumesStep::Ready) => self.renew_at = Some(after(now, Duration::from_secs(60))),
            (Err(_), VolumesStep::Absent { failures, .. }) => self.volumes_failed(failures, now),
            (Err(_), VolumesStep::Mounting) => self.volumes_failed(self.volume_failures(), now),
        }
        if std::mem::take(&mut self.stale) {
            self.refresh_volumes();
        }
    }

    /// Begins to look after what the pod writes, where that has a limit; once.
    fn watch_sizes(&mut self) {
        let watched = Watched::of(self.state.spec(), &self.mounted);
        if watched.is_empty() || self.watching_sizes.is_some() || self.state.end.is_some() {
            return;
        }
        let stop = CancellationToken::new();
        let uid = self.state.pod.metadata.uid.clone().unwrap_or_default();
        let watch = super::eviction::watch(watched, Arc::clone(&self.node), uid, self.inputs.clone());
        self.node.component.spawn("sizes on disk", stop.clone().run_until_cancelled_owned(watch).map(drop));
        self.watching_sizes = Some(stop.drop_guard());
    }

    /// Source: kubelet `evictPod` with `immediateEvictionGracePeriodSeconds`.
    fn on_evicted(&mut self, message: String, now: Timestamp) {
        if self.state.end.is_none() {
            let why = Why::Failed { reason: EVICTED.to_owned(), message };
            self.on_end(End::new(why, super::plan::GRACE_MIN, now));
        }
    }

    fn volume_failures(&self) -> u32 {
        // The delay grows with the pod's age; a change of an object tries at once anyway.
        let age = left(self.first_seen, self.node.now()).as_secs();
        age.checked_ilog2().unwrap_or(0)
    }

    fn volumes_failed(&mut self, failures: u32, now: Timestamp) {
        let failures = failures.saturating_add(1);
        let retry_at = Some(after(now, step_retry(failures)));
        self.state.volumes = VolumesStep::Absent { failures, retry_at };
    }

    /// Brings the volumes up to date after a change of an object, or tries again what failed for want of one.
    fn refresh_volumes(&mut self) {
        for slot in &mut self.state.slots {
            if let Some(failure) =
                slot.failure.as_mut().filter(|failure| failure.reason == "CreateContainerConfigError")
            {
                failure.retry_at = self.node.now();
            }
        }
        if self.state.end.is_some() {
            return;
        }
        match &mut self.state.volumes {
            VolumesStep::Absent { retry_at, .. } => *retry_at = None,
            VolumesStep::Mounting => self.stale = true,
            VolumesStep::Ready if self.refreshing => self.stale = true,
            VolumesStep::Ready => {
                self.refreshing = true;
                self.renew_at = None;
                let effects = self.effects();
                self.spawn("volumes", async move { Input::Volumes(effects.set_up_volumes().await) });
            }
        }
    }

    fn on_image(&mut self, of: ImageUse, result: Result<Box<Image>, ImageFailure>, now: Timestamp) {
        let Some(image) = self.state.image_step_mut(of) else { return };
        let failures = match image {
            ImageStep::Fetching { failures, .. } => failures.saturating_add(1),
            _ => 1,
        };
        *image = match result {
            Ok(image) => ImageStep::Ready(image),
            Err(ImageFailure { reason, message }) => ImageStep::Failed {
                problem: ImageProblem { reason, message, backs_off: false },
                failures,
                since: now,
                retry_at: after(now, exponential(failures)),
            },
        };
    }

    fn on_started(
        &mut self,
        index: usize,
        attempt: u32,
        result: Result<Box<engine::Container>, StartError>,
        now: Timestamp,
    ) {
        let spec = self.state.container(index).cloned();
        let Some(slot) = self.state.slots.get_mut(index) else { return };
        slot.step = Step::Rest;
        let container = match result {
            Ok(container) => container,
            Err(error) => return self.on_start_error(index, attempt, error, now),
        };
        let started_at = match &container.state {
            ContainerState::Running { started_at, .. } => *started_at,
            ContainerState::Exited { started_at, .. } => started_at.unwrap_or(now),
            ContainerState::Created => now,
        };
        let image = container.config.annotations.get(IMAGE).cloned().unwrap_or_default();
        let life = Life {
            container: container.id.clone(),
            image,
            image_id: container.image_id.clone(),
            user: container.user.clone(),
            started_at,
            size: size_of(&container),
        };
        slot.on_running(life, attempt, spec.as_ref());
        let early = self.early.remove(&container.id);
        let ended = early.as_deref().or_else(|| Exit::of(&container).is_some().then_some(container.as_ref()));
        if let Some(ended) = ended {
            return self.on_exit(index, ended);
        }
        self.start_probes(index);
        let Some(spec) = spec.filter(|spec| spec.lifecycle.as_ref().is_some_and(|hooks| hooks.post_start.is_some()))
        else {
            return;
        };
        let (effects, id) = (self.effects(), container.id.clone());
        self.spawn("postStart", async move {
            let result = effects.post_start(&spec, &id).await;
            Input::PostStart { slot: index, container: id, result }
        });
    }

    fn on_start_error(&mut self, index: usize, attempt: u32, error: StartError, now: Timestamp) {
        self.state.forget_shown_images();
        let Some(slot) = self.state.slots.get_mut(index) else { return };
        let failures = slot.failure.as_ref().map_or(1, |failure| failure.failures.saturating_add(1));
        self.early.retain(|_, ended| ended.config.name != slot.name);
        // An exit has its own back-off.
        let retry_at = if error.exited.is_some() { now } else { after(now, exponential(failures)) };
        if let Some(exit) = error.exited.as_deref().and_then(Exit::of) {
            slot.on_exit(exit, attempt);
        }
        slot.failure = Some(StartFailure { reason: error.reason, message: error.message, failures, retry_at });
    }

    fn on_stopped(&mut self, index: usize, id: &str, container: Option<Box<engine::Container>>, now: Timestamp) {
        let Some(slot) = self.state.slots.get_mut(index) else { return };
        let Some(life) = slot.running().filter(|life| life.container == id).cloned() else {
            slot.step = Step::Rest;
            return;
        };
        slot.step = Step::Rest;
        match container {
            Some(container) if Exit::of(&container).is_some() => self.on_exit(index, &container),
            // It still runs: the plan will stop it again.
            Some(_) => {}
            None => {
                let attempt = slot.restarts;
                slot.on_exit(Exit::unknown(life, now), attempt);
            }
        }
    }

    fn on_torn_down(&mut self, removed: bool, result: Result<(), String>, now: Timestamp) {
        match result {
            Ok(()) => {
                self.state.sandbox = match std::mem::replace(&mut self.state.sandbox, SandboxStep::Removed) {
                    SandboxStep::Ready { id } | SandboxStep::Stopped { id } if !removed => SandboxStep::Stopped { id },
                    _ if removed => SandboxStep::Removed,
                    other => other,
                };
                self.state.volumes = VolumesStep::Absent { failures: 0, retry_at: None };
                self.renew_at = None;
                let remove = self.state.end.as_ref().is_some_and(|end| matches!(end.why, Why::Deleted | Why::Gone));
                self.set_end(|end| {
                    end.tearing_down = false;
                    end.torn_down = removed || !remove;
                });
            }
            Err(message) => {
                tracing::warn!(
                    message,
                    pod = super::state::pod_text(&self.state.pod),
                    "failed to tear a pod down, trying again"
                );
                self.set_end(|end| {
                    let failures = end.teardown_retry.map_or(1, |(failures, _)| failures.saturating_add(1));
                    end.tearing_down = false;
                    end.teardown_retry = Some((failures, after(now, step_retry(failures))));
                });
            }
        }
    }

    fn is_unwritten(&self, now: Timestamp) -> bool {
        let word = self.told.word();
        *word != status(&self.state, self.node.config.node_ip, word, now)
    }

    /// Writes the status if it changed here, or in the API through somebody else; returns when to look again if it may
    /// wait.
    fn write_status(&mut self, now: Timestamp) -> Option<Timestamp> {
        let gone = matches!(self.state.end.as_ref().map(|end| &end.why), Some(Why::Gone));
        if self.writing || gone {
            return None;
        }
        let status = status(&self.state, self.node.config.node_ip, self.told.word(), now);
        let mut due = self.told.due(&status, now)?;
        if self.state.end.is_none() && says_nothing(&status) {
            due = due.max(after(self.first_seen, FIRST_STATUS_DELAY));
        }
        if due > now {
            return Some(due);
        }
        self.writing = true;
        self.told.begin(now);
        let (node, pod, failed) = (Arc::clone(&self.node), Arc::clone(&self.state.pod), self.failed_writes);
        let present = self.told.present().clone();
        self.spawn("status", async move {
            if failed > 0 {
                sleep(write_retry(failed)).await;
            }
            let outcome = write(&node, &pod, &status, &present).await;
            Input::Written { status: Box::new(status), outcome }
        });
        None
    }

    fn publish(&mut self) {
        let slots = self.state.slots.iter().enumerate();
        let containers: Vec<_> = slots.map(|(index, slot)| ContainerView::of(&self.state, index, slot)).collect();
        let sandbox = match &self.state.sandbox {
            SandboxStep::Ready { id } => Some(id.clone()),
            _ => None,
        };
        self.view.send_if_modified(|view| {
            let same_pod = view.pod.as_ref().is_some_and(|pod| Arc::ptr_eq(pod, &self.state.pod));
            if same_pod && view.containers == containers && view.sandbox == sandbox {
                return false;
            }
            *view = PodView { pod: Some(Arc::clone(&self.state.pod)), containers, sandbox };
            true
        });
    }
}

async fn sleep_until(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => std::future::pending().await,
    }
}
