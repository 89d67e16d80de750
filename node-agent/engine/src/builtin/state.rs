//! What the engine knows while it runs. One lock, never held across an await.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::watch;

use crate::engine::{Container, ContainerState, EngineError, EngineEvent, Sandbox, SandboxState};
use crate::supervisor::plan::{ExitRecord, ProcessPlan};

/// Everything the engine knows.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) sandboxes: BTreeMap<String, Sandbox>,
    pub(super) containers: BTreeMap<String, Entry>,
    /// The supervisor was told to end: its loss is no accident.
    pub(super) closing: bool,
}

/// A container and what the agent holds for it.
#[derive(Debug)]
pub(super) struct Entry {
    /// As it is told.
    pub(super) container: Container,
    /// What its first process was compiled to: exec starts from it. `None` until it is needed.
    pub(super) process: Option<Arc<ProcessPlan>>,
    /// Its root and the images that it shows, in this order: not attached anywhere until it is started, and kept until
    /// it is removed. Empty where nobody holds them.
    pub(super) mounts: Vec<OwnedFd>,
    /// Duplicates that must outlive the supervisor.
    pub(super) held: Held,
    /// Turns true when it has ended.
    pub(super) ended: watch::Sender<bool>,
    /// Serializes start and removal.
    pub(super) busy: Arc<tokio::sync::Mutex<()>>,
}

/// Descriptors of a running container, in case the supervisor dies.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Its first process: tells the exit code when nobody else can.
    pub(super) pidfd: Option<OwnedFd>,
    /// Its terminal.
    pub(super) terminal: Option<OwnedFd>,
    /// Keeps standard input open.
    pub(super) stdin: Option<OwnedFd>,
}

impl Entry {
    pub(super) fn new(container: Container) -> Self {
        let ended = watch::Sender::new(matches!(container.state, ContainerState::Exited { .. }));
        Self { container, process: None, mounts: Vec::new(), held: Held::default(), ended, busy: Arc::default() }
    }
}

impl State {
    /// A container, or `NotFound`.
    pub(super) fn container(&self, id: &str) -> Result<&Entry, EngineError> {
        self.containers.get(id).ok_or_else(|| not_found("container", id))
    }

    /// A container, or `NotFound`.
    pub(super) fn container_mut(&mut self, id: &str) -> Result<&mut Entry, EngineError> {
        self.containers.get_mut(id).ok_or_else(|| not_found("container", id))
    }

    /// A sandbox that takes containers.
    pub(super) fn ready_sandbox(&self, id: &str) -> Result<&Sandbox, EngineError> {
        let sandbox = self.sandboxes.get(id).ok_or_else(|| not_found("sandbox", id))?;
        match sandbox.state {
            SandboxState::Ready => Ok(sandbox),
            SandboxState::NotReady => Err(EngineError::Invalid(format!("sandbox {id} is not ready"))),
        }
    }

    /// Ids of a sandbox's containers.
    pub(super) fn containers_of(&self, sandbox: &str) -> Vec<String> {
        let of = self.containers.values().filter(|entry| entry.container.sandbox == sandbox);
        of.map(|entry| entry.container.id.clone()).collect()
    }

    /// The start of a container whose end came before the news of it: it is not noted any more, but told.
    pub(super) fn overtaken(&self, id: &str, exit: &ExitRecord) -> Option<EngineEvent> {
        let own = &self.containers.get(id)?.container;
        let started_at = exit.started_at.filter(|_| own.state == ContainerState::Created)?;
        // The number is nobody's by now.
        let container = Container { state: ContainerState::Running { started_at, pid: 0 }, ..own.clone() };
        Some(EngineEvent { sandbox: own.sandbox.clone(), container })
    }

    /// Changes a container's state; `None` when it is not known (any more).
    pub(super) fn change(&mut self, id: &str, state: ContainerState) -> Option<EngineEvent> {
        let entry = self.containers.get_mut(id)?;
        let ended = matches!(state, ContainerState::Exited { .. });
        entry.container.state = state;
        if ended {
            entry.held = Held::default();
            entry.ended.send_replace(true);
        }
        Some(EngineEvent { sandbox: entry.container.sandbox.clone(), container: entry.container.clone() })
    }
}

/// An end, as it is told.
pub(super) fn exited(exit: ExitRecord) -> ContainerState {
    ContainerState::Exited {
        started_at: exit.started_at,
        finished_at: exit.finished_at,
        exit_code: exit.exit_code,
        reason: exit.reason,
        message: exit.message,
    }
}

/// A state in a word, for messages.
pub(super) fn word(state: &ContainerState) -> &'static str {
    match state {
        ContainerState::Created => "created",
        ContainerState::Running { .. } => "running",
        ContainerState::Exited { .. } => "exited",
    }
}

/// No such thing.
pub(super) fn not_found(what: &'static str, id: &str) -> EngineError {
    EngineError::NotFound { what, id: id.to_owned() }
}
