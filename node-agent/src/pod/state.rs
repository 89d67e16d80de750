//! What the agent knows of one pod: the input of every decision about it. No I/O.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe};
use reeve_engine::engine::{self, ContainerState, Image, ProcessUser};

use super::backoff::CrashBackoff;
use super::image_volumes::ImageVolume;
use super::resize::Resize;
use super::resources::Size;

/// The pod as it should be, and how far its parts are.
#[derive(Debug, Clone)]
pub(crate) struct PodState {
    /// The newest version from the API, with the resources that it was granted.
    pub(crate) pod: Arc<Pod>,
    /// When the agent first saw it; `status.startTime`.
    pub(crate) start_time: Timestamp,
    /// Its namespaces and addresses.
    pub(crate) sandbox: SandboxStep,
    /// Number of the next sandbox.
    pub(crate) sandbox_attempt: u32,
    /// Addresses of the pod, also after its sandbox is gone.
    pub(crate) ips: Vec<IpAddr>,
    /// Its volumes.
    pub(crate) volumes: VolumesStep,
    /// Init containers in order, then containers, then ephemeral ones, of which more may come.
    pub(crate) slots: Vec<Slot>,
    /// Its volumes that show images.
    pub(crate) image_volumes: Vec<ImageVolume>,
    /// What the API wants of the ephemeral containers.
    ephemeral: Vec<Container>,
    /// Set when the pod is to end.
    pub(crate) end: Option<End>,
    /// Reason and message of a pod that the node refused or ended: phase Failed whatever its containers say.
    pub(crate) failed: Option<(String, String)>,
    /// How far it has what it was granted.
    pub(crate) resize: Resize,
}

/// The life of a pod's sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SandboxStep {
    /// Not there: `failures` attempts failed, the next is due at `retry_at`.
    Absent { failures: u32, retry_at: Option<Timestamp> },
    /// Being made.
    Creating,
    /// Ready for containers.
    Ready { id: String },
    /// Its containers and namespaces are gone; it is still known to the engine.
    Stopped { id: String },
    /// Nothing of it is left.
    Removed,
}

/// The life of a pod's volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum VolumesStep {
    /// Not there: `failures` attempts failed, the next is due at `retry_at`.
    Absent { failures: u32, retry_at: Option<Timestamp> },
    /// Being made.
    Mounting,
    /// All there.
    Ready,
}

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to completion before the next one.
    Init,
    /// An init container with `restartPolicy: Always`: starts in order, runs beside the containers.
    Sidecar,
    /// An ordinary container.
    Main,
    /// Added while the pod runs, to look into it: starts at once, never again, and the pod does not wait for it.
    Ephemeral,
}

/// One container of the pod.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) image: ImageStep,
    pub(crate) run: Run,
    /// What is being done to it right now.
    pub(crate) step: Step,
    /// Why the last attempt to start it failed.
    pub(crate) failure: Option<StartFailure>,
    /// The end of the life before the one in `run`.
    pub(crate) last: Option<Exit>,
    /// How often it was started before: number of its newest life.
    pub(crate) restarts: u32,
    pub(crate) backoff: CrashBackoff,
    /// The back-off that was last told in an event.
    pub(crate) backoff_told: Option<Timestamp>,
    pub(crate) health: Health,
    /// Why it has to be stopped although the pod goes on.
    pub(crate) condemned: Option<Condemned>,
    /// It is stopped for a resize, and starts again at once, however it ends and whatever the restart policy says.
    pub(crate) revive: bool,
}

/// Why a container has to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condemned {
    pub(crate) message: String,
    /// Its probe may have a grace period of its own.
    pub(crate) by_probe: bool,
}

impl Condemned {
    pub(crate) fn by_probe(message: String) -> Self {
        Self { message, by_probe: true }
    }

    /// Because of what the pod wants now.
    pub(crate) fn by_pod(message: String) -> Self {
        Self { message, by_probe: false }
    }
}

/// Whether an image is here: a container's, or that of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ImageStep {
    Unknown {
        failures: u32,
    },
    /// Being looked for; `before` is what stays true of the last attempt until this one is over.
    Fetching {
        failures: u32,
        before: Option<ImageProblem>,
    },
    Ready(Box<Image>),
    Failed {
        problem: ImageProblem,
        failures: u32,
        since: Timestamp,
        retry_at: Timestamp,
    },
}

impl ImageStep {
    /// Why the image is not here, as far as is known.
    pub(crate) fn problem(&self) -> Option<&ImageProblem> {
        match self {
            Self::Failed { problem, .. } => Some(problem),
            Self::Fetching { before, .. } => before.as_ref(),
            Self::Unknown { .. } | Self::Ready(_) => None,
        }
    }
}

/// Why an image is not here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageProblem {
    /// What the container waits for: `ErrImagePull`, `InvalidImageName` …
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// A failed pull has become a back-off.
    pub(crate) backs_off: bool,
}

/// A container's current life.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Run {
    /// Never started.
    Idle,
    Running(Life),
    Exited(Exit),
}

/// A running container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Life {
    pub(crate) container: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) user: Option<ProcessUser>,
    pub(crate) started_at: Timestamp,
    /// What it may use, as far as the engine was told; `None` where nobody noted it.
    pub(crate) size: Option<Size>,
}

/// How a life ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exit {
    pub(crate) container: String,
    pub(crate) image_id: String,
    pub(crate) user: Option<ProcessUser>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Timestamp,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// What is being done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Rest,
    Starting,
    Stopping { grace: Duration },
}

/// Why a container could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartFailure {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) failures: u32,
    pub(crate) retry_at: Timestamp,
}

/// What probes found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) started: bool,
    pub(crate) ready: bool,
}

/// Why a pod ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// Deleted in the API: its object goes when everything else is gone.
    Deleted,
    /// The API does not have it any more: nothing is to be written.
    Gone,
    /// All containers ended for good.
    Completed,
    /// The node refused it or ended it: phase Failed with this reason and message.
    Failed { reason: String, message: String },
}

/// The end of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) why: Why,
    /// Time the containers have after their stop signal, `preStop` included.
    pub(crate) grace: Duration,
    /// When the grace began; the rest is what later containers get.
    pub(crate) began: Timestamp,
    pub(crate) drain: Drain,
    /// A `teardown` effect runs.
    pub(crate) tearing_down: bool,
    /// When a failed teardown is tried again, and how often it failed.
    pub(crate) teardown_retry: Option<(u32, Timestamp)>,
    /// Volumes are unmounted and the sandbox is stopped, or removed where the pod is deleted.
    pub(crate) torn_down: bool,
    /// The delete request runs or has succeeded.
    pub(crate) deleting: bool,
}

/// Whether traffic still comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drain {
    ToDo,
    UnderWay,
    Done,
}

impl End {
    pub(crate) fn new(why: Why, grace: Duration, began: Timestamp) -> Self {
        Self {
            why,
            grace,
            began,
            drain: Drain::ToDo,
            tearing_down: false,
            teardown_retry: None,
            torn_down: false,
            deleting: false,
        }
    }
}

impl Slot {
    pub(crate) fn new(name: &str, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            role,
            image: ImageStep::Unknown { failures: 0 },
            run: Run::Idle,
            step: Step::Rest,
            failure: None,
            last: None,
            restarts: 0,
            backoff: CrashBackoff::default(),
            backoff_told: None,
            health: Health::default(),
            condemned: None,
            revive: false,
        }
    }

    /// Number of the next life.
    pub(crate) fn next_attempt(&self) -> u32 {
        if self.run == Run::Idle && self.last.is_none() { 0 } else { self.restarts.saturating_add(1) }
    }

    pub(crate) fn running(&self) -> Option<&Life> {
        if let Run::Running(life) = &self.run { Some(life) } else { None }
    }

    pub(crate) fn exit(&self) -> Option<&Exit> {
        if let Run::Exited(exit) = &self.run { Some(exit) } else { None }
    }

    /// Whether it runs and may be sent requests.
    pub(crate) fn is_ready(&self) -> bool {
        self.running().is_some() && self.health.ready
    }

    /// Who the process of the current or last life is.
    pub(crate) fn user(&self) -> Option<&ProcessUser> {
        match &self.run {
            Run::Idle => self.last.as_ref().and_then(|exit| exit.user.as_ref()),
            Run::Running(life) => life.user.as_ref(),
            Run::Exited(exit) => exit.user.as_ref(),
        }
    }

    /// The container of the current or last life.
    pub(crate) fn container_id(&self) -> Option<&str> {
        match &self.run {
            Run::Idle => self.last.as_ref().map(|exit| exit.container.as_str()),
            Run::Running(life) => Some(&life.container),
            Run::Exited(exit) => Some(&exit.container),
        }
    }

    /// A new life has begun.
    pub(crate) fn on_running(&mut self, life: Life, attempt: u32, spec: Option<&Container>) {
        if let Run::Exited(exit) = std::mem::replace(&mut self.run, Run::Running(life)) {
            self.last = Some(exit);
        }
        self.restarts = attempt;
        self.failure = None;
        self.condemned = None;
        self.revive = false;
        self.health = Health::at_start(spec);
    }

    /// The limits of the life in a container have changed.
    pub(crate) fn resized(&mut self, container: &str, size: Size) {
        if let Run::Running(life) = &mut self.run
            && life.container == container
        {
            life.size = Some(size);
        }
    }

    /// The current life has ended.
    pub(crate) fn on_exit(&mut self, exit: Exit, attempt: u32) {
        if let Run::Exited(previous) = std::mem::replace(&mut self.run, Run::Exited(exit)) {
            self.last = Some(previous);
        }
        self.restarts = attempt;
        self.health = Health::default();
        self.condemned = None;
        self.image = ImageStep::Unknown { failures: 0 };
    }
}

impl Health {
    /// Of a new life: well where no probe is to find that out. Source: kubelet `prober.manager.UpdatePodStatus`.
    pub(crate) fn at_start(spec: Option<&Container>) -> Self {
        let started = spec.is_none_or(|spec| spec.startup_probe.is_none());
        Self { started, ready: started && spec.is_none_or(|spec| spec.readiness_probe.is_none()) }
    }
}

impl Exit {
    /// Source: kubelet, for a container it cannot find any more.
    pub(crate) fn unknown(life: Life, now: Timestamp) -> Self {
        Self {
            container: life.container,
            image_id: life.image_id,
            user: life.user,
            started_at: Some(life.started_at),
            finished_at: now,
            exit_code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: "The container could not be located when the pod was terminated".to_owned(),
        }
    }

    /// The end of a container as the engine tells it; `None` while it has not ended.
    /// A code nobody saw is reported as the kubelet reports a container it cannot find.
    pub(crate) fn of(container: &engine::Container) -> Option<Self> {
        let ContainerState::Exited { started_at, finished_at, exit_code, reason, message } = &container.state else {
            return None;
        };
        Some(Self {
            container: container.id.clone(),
            image_id: container.image_id.clone(),
            user: container.user.clone(),
            started_at: *started_at,
            finished_at: *finished_at,
            exit_code: exit_code.unwrap_or(137),
            reason: reason.clone(),
            message: message.clone(),
        })
    }
}

impl PodState {
    /// A pod of which nothing is there yet.
    pub(crate) fn new(pod: Arc<Pod>, now: Timestamp) -> Self {
        let slots = containers(spec(&pod)).map(|(container, role)| Slot::new(&container.name, role)).collect();
        let start_time = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map_or(now, |time| time.0);
        let mut state = Self {
            pod: Arc::clone(&pod),
            start_time,
            sandbox: SandboxStep::Absent { failures: 0, retry_at: None },
            sandbox_attempt: 0,
            ips: Vec::new(),
            volumes: VolumesStep::Absent { failures: 0, retry_at: None },
            slots,
            image_volumes: ImageVolume::of_pod(spec(&pod)),
            ephemeral: Vec::new(),
            end: None,
            failed: None,
            resize: Resize::recalled(&pod),
        };
        state.set_pod(pod);
        state
    }

    /// Takes a new version of the object; whether ephemeral containers have been added.
    pub(crate) fn set_pod(&mut self, pod: Arc<Pod>) -> bool {
        self.ephemeral = ephemeral_containers(spec(&pod));
        self.pod = pod;
        let known = |slots: &[Slot], name: &str| slots.iter().any(|slot| slot.name == name);
        let before = self.slots.len();
        for container in &self.ephemeral {
            if !known(&self.slots, &container.name) {
                self.slots.push(Slot::new(&container.name, Role::Ephemeral));
            }
        }
        self.slots.len() > before
    }

    pub(crate) fn spec(&self) -> &PodSpec {
        spec(&self.pod)
    }

    /// What the API wants of a slot's container.
    pub(crate) fn container(&self, slot: usize) -> Option<&Container> {
        containers(self.spec()).map(|(container, _)| container).chain(&self.ephemeral).nth(slot)
    }

    pub(crate) fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    /// Whether every init container is done (or, for sidecars, has started).
    pub(crate) fn initialized(&self) -> bool {
        self.slots.iter().all(|slot| match slot.role {
            Role::Init => slot.exit().is_some_and(|exit| exit.exit_code == 0),
            Role::Sidecar => slot.health.started || slot.run != Run::Idle && slot.restarts > 0,
            Role::Main | Role::Ephemeral => true,
        }) || self.slots.iter().any(|slot| slot.role == Role::Main && (slot.run != Run::Idle || slot.last.is_some()))
    }

    /// Whether a container that ended so is started again while the pod lives.
    pub(crate) fn restarts_after(&self, slot: &Slot, exit: &Exit) -> bool {
        match (slot.role, self.restart_policy()) {
            _ if slot.revive => true,
            (Role::Sidecar, _) => true,
            (Role::Ephemeral, _) => false,
            (Role::Init, "Never") => false,
            (Role::Init, _) => exit.exit_code != 0,
            (Role::Main, "Never") => false,
            (Role::Main, "OnFailure") => exit.exit_code != 0,
            (Role::Main, _) => true,
        }
    }
}

/// The pod's spec; an empty one where the API sent none.
pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// All containers that the pod was made with, in the order of their slots.
pub(crate) fn containers(spec: &PodSpec) -> impl Iterator<Item = (&Container, Role)> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        (container, if sidecar { Role::Sidecar } else { Role::Init })
    });
    init.chain(spec.containers.iter().map(|container| (container, Role::Main)))
}

/// Ephemeral containers, in the order of their slots: what they have in common with others.
pub(crate) fn ephemeral_containers(spec: &PodSpec) -> Vec<Container> {
    let all = spec.ephemeral_containers.iter().flatten();
    all.filter_map(|own| serde_json::to_value(own).and_then(serde_json::from_value).ok()).collect()
}

/// The container whose processes an ephemeral one is to see; `None`: only its own.
pub(crate) fn target_of<'p>(spec: &'p PodSpec, ephemeral: &str) -> Option<&'p str> {
    let own = spec.ephemeral_containers.iter().flatten().find(|own| own.name == ephemeral)?;
    own.target_container_name.as_deref().filter(|target| !target.is_empty())
}

/// The probes of a container in the order startup, liveness, readiness.
pub(crate) fn probe(container: &Container, kind: crate::probe::ProbeKind) -> Option<&Probe> {
    match kind {
        crate::probe::ProbeKind::Startup => container.startup_probe.as_ref(),
        crate::probe::ProbeKind::Liveness => container.liveness_probe.as_ref(),
        crate::probe::ProbeKind::Readiness => container.readiness_probe.as_ref(),
    }
}

/// `name_namespace(uid)`, as the kubelet names pods in messages.
pub(crate) fn pod_text(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    format!("{}_{}({})", text(&meta.name), text(&meta.namespace), text(&meta.uid))
}
