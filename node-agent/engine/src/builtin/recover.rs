//! After a death: of the agent, of the supervisor, of both, or of the machine.
//!
//! The rule is one: never two copies of a container. What runs and can be taken over completely (its process by
//! pid and start time, its FIFOs or terminal, its cgroup) is adopted; everything else that is left in a cgroup of
//! ours is killed before anybody can start a replacement.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::containers::fetch_terminal;
use super::link::{Link, LinkError, News};
use super::records::{self, Remembered};
use super::state::{Entry, Held, exited};
use super::{BuiltinEngine, EVENTS_BEHIND_MAX, EngineConfig, Inner, Layout, blocking};
use crate::engine::{ContainerState, EngineError, Features, NamespaceMode, Sandbox, SandboxState};
use crate::images::{ImageStore, StoreOptions, images_dir};
use crate::runtime::caps::CapabilitySet;
use crate::runtime::cgroup::{Cgroups, Hierarchies};
use crate::runtime::namespaces::{are_user_namespaces_allowed, make_private_mount};
use crate::snapshot::Snapshots;
use crate::supervisor::plan::{AdoptPlan, ExitRecord, RunRecord};
use crate::supervisor::wire::{Hello, Reply, Request};
use crate::supervisor::{boot_id, connect_or_spawn, exit_code_of, kill_cgroup};

/// What the records and the supervisor say of a container.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It was prepared and never started.
    Created,
    /// The supervisor has it.
    Running(RunRecord),
    /// It was started, and no supervisor has it.
    Orphaned(RunRecord),
    /// It has ended.
    Exited(ExitRecord),
    /// It may have run, and nobody knows how it ended.
    Lost(&'static str),
}

/// Decides what became of a container. Pure. `listed`: the supervisor has it; `same_boot`: it was made since the
/// machine started; `populated`: somebody is in its cgroup.
fn decide(memory: &Remembered, listed: bool, same_boot: bool, populated: bool) -> Fate {
    match (&memory.exit, &memory.run) {
        (Some(exit), _) => Fate::Exited(exit.clone()),
        (None, _) if !same_boot => Fate::Lost("the node was restarted"),
        (None, Some(run)) if listed => Fate::Running(run.clone()),
        (None, Some(run)) => Fate::Orphaned(run.clone()),
        (None, None) if populated => Fate::Lost("it was started by a supervisor that died before it could record it"),
        (None, None) => Fate::Created,
    }
}

impl Inner {
    /// Makes the folders, finds the cgroups. Knows of no sandbox and no supervisor yet.
    pub(super) fn open(config: EngineConfig, options: StoreOptions) -> Result<Self, EngineError> {
        let images = ImageStore::open_with(images_dir(&config.data_dir), Arc::clone(&config.clock), options)?;
        let snapshots = Snapshots::open(images.clone())?;
        Self::open_on(config, images, snapshots)
    }

    /// [`Inner::open`] on images that lie elsewhere.
    pub(super) fn open_on(config: EngineConfig, images: ImageStore, snapshots: Snapshots) -> Result<Self, EngineError> {
        let layout = Layout::new(&config);
        let io = |step: String| move |source| EngineError::Io { step, source };
        for dir in [layout.sandbox_records(), layout.container_records(), layout.run.clone()] {
            records::make_dir(&dir)?;
        }
        make_private_mount(&layout.run).map_err(crate::runtime::namespaces::NamespaceError::into_engine)?;
        let boot_id = boot_id().map_err(io("read the boot id".to_owned()))?;
        let hierarchies = find_hierarchies(&layout)?;
        let status = std::fs::read_to_string("/proc/self/status").map_err(io("read /proc/self/status".to_owned()))?;
        // What is in the bounding *and* the permitted set can be given away.
        let own = |field| CapabilitySet::from_status(&status, field).unwrap_or_default();
        Ok(Self {
            cgroups: Cgroups::new(hierarchies, config.cgroup_root.clone()),
            own_capabilities: own("CapBnd").intersection(own("CapPrm")),
            features: Features {
                user_namespaces: are_user_namespaces_allowed(),
                recursive_read_only_mounts: true,
                supplemental_groups_policy: true,
            },
            filters: Arc::default(),
            config,
            layout,
            boot_id,
            images,
            snapshots,
            state: std::sync::Mutex::default(),
            events: tokio::sync::broadcast::Sender::new(EVENTS_BEHIND_MAX),
            link: tokio::sync::watch::Sender::new(None),
        })
    }
}

/// How often a supervisor is looked for: one that dies in between costs a try.
const TAKE_UP_TRIES: u32 = 5;

impl BuiltinEngine {
    /// [`BuiltinEngine::take_up`], again when the supervisor that was found dies meanwhile.
    pub(super) async fn take_up_patiently(&self, news: &mpsc::Sender<News>) -> Result<(), EngineError> {
        let mut tries = 0;
        loop {
            match self.take_up(news.clone()).await {
                Err(err) if tries < TAKE_UP_TRIES => {
                    tracing::warn!(%err, "trying again to reach a supervisor");
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Removes files of containers that no record knows. Before anybody can make a new one.
    pub(super) async fn sweep(&self) {
        let inner = Arc::clone(&self.inner);
        let known = inner.state(|state| state.containers.keys().cloned().collect());
        if let Err(err) = blocking(move || Ok(inner.snapshots.sweep(&known)?)).await {
            tracing::warn!(%err, "files of forgotten containers are left behind");
        }
    }

    /// Finds or starts a supervisor and takes up everything that the records know.
    pub(super) async fn take_up(&self, news: mpsc::Sender<News>) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let (socket, spawned) = blocking(move || {
            let config = &inner.config;
            let reached = connect_or_spawn(&config.supervisor_program, &inner.layout.run, config.ends_with_engine);
            reached.map_err(|err| EngineError::Io {
                step: "reach the supervisor".to_owned(),
                source: std::io::Error::other(error_chain(&err)),
            })
        })
        .await?;
        let link = Link::new(socket, news)
            .map_err(|source| EngineError::Io { step: "reach the supervisor".to_owned(), source })?;
        let hello = hello(&link).await?;
        if spawned && !hello.lowers_oom_score {
            tracing::warn!("the OOM score of processes cannot be lowered here (no CAP_SYS_RESOURCE); going on without");
        }
        let listed = match link.ask(Request::List).await? {
            Reply::List(listed) => listed.into_iter().map(|listed| listed.container).collect::<Vec<_>>(),
            other => return Err(super::sandboxes::unexpected("list the supervisor's containers", other)),
        };
        // Read after listing: whoever ended in between has its record on disk or is still listed.
        let inner = Arc::clone(&self.inner);
        let (sandboxes, memories) =
            blocking(move || Ok((records::sandboxes(&inner.layout)?, records::containers(&inner.layout)?))).await?;
        for record in sandboxes {
            let sandbox = self.inner.remembered_sandbox(record)?;
            self.inner.state(|state| state.sandboxes.insert(sandbox.id.clone(), sandbox));
        }
        self.take_up_inits(&link).await;
        for memory in memories {
            self.take_up_container(&link, memory, &listed).await;
            // This one has died as well: the next is asked again.
            if !link.is_open() {
                return Err(LinkError.into());
            }
        }
        // Last: until then requests wait, for the new supervisor does not know the containers yet.
        self.inner.link.send_replace(Some(link));
        Ok(())
    }

    async fn take_up_inits(&self, link: &Link) {
        let sandboxes: Vec<Sandbox> = self.inner.state(|state| state.sandboxes.values().cloned().collect());
        let pod_wide = |s: &&Sandbox| s.state == SandboxState::Ready && s.config.pid == NamespaceMode::Pod;
        for sandbox in sandboxes.iter().filter(pod_wide) {
            if let Err(err) = self.start_init(sandbox, link).await {
                tracing::warn!(sandbox = sandbox.id, %err, "the pod's init is gone");
            }
        }
    }

    async fn take_up_container(&self, link: &Link, memory: Remembered, listed: &[String]) {
        let container = memory.record.container.clone();
        let (id, inner) = (container.id.clone(), &self.inner);
        let cgroup = inner.sandbox(&container.sandbox).ok().map(|sandbox| inner.container_cgroup(&container, &sandbox));
        let populated = cgroup.as_ref().is_some_and(crate::supervisor::is_populated);
        let same_boot = memory.record.boot_id == inner.boot_id;
        let fate = decide(&memory, listed.contains(&id), same_boot, populated);
        inner.state(|state| {
            state.containers.entry(id.clone()).or_insert_with(|| Entry::new(container.clone()));
        });
        match fate {
            Fate::Created => {}
            Fate::Running(run) => self.hold(link, &id, run).await,
            Fate::Exited(exit) => {
                if populated && let Some(cgroup) = &cgroup {
                    kill_cgroup(cgroup);
                }
                self.settle(&id, exit);
            }
            Fate::Orphaned(run) => {
                let Some(cgroup) = cgroup else { return };
                let adopted = self.adopt(link, &id, run.clone()).await;
                if let Err(why) = adopted
                    && link.is_open()
                {
                    kill_cgroup(&cgroup);
                    let code = self.inner.state(|state| {
                        let held = &state.containers.get(&id)?.held;
                        held.pidfd.as_ref().and_then(|pidfd| exit_code_of(pidfd.as_fd()))
                    });
                    self.lose(&id, Some(run.started_at), code, &why);
                }
            }
            Fate::Lost(why) => {
                if let Some(cgroup) = &cgroup {
                    kill_cgroup(cgroup);
                }
                self.lose(&id, Some(container.created_at), None, why);
            }
        }
    }

    /// Asks the new supervisor to take over a container; the terminal and standard input that we hold go along.
    async fn adopt(&self, link: &Link, id: &str, run: RunRecord) -> Result<(), String> {
        let inner = &self.inner;
        let container = inner.state(|state| state.container(id).map(|entry| entry.container.clone()));
        let container = container.map_err(|err| err.to_string())?;
        let sandbox = inner.sandbox(&container.sandbox).map_err(|err| err.to_string())?;
        let terminal = inner.state(|state| {
            state.containers.get_mut(id).and_then(|entry| entry.held.terminal.as_ref()?.try_clone().ok())
        });
        let plan = AdoptPlan {
            container: id.to_owned(),
            run: run.clone(),
            cgroup: inner.container_cgroup(&container, &sandbox),
            streams: inner.streams(&container),
            records: inner.record_plan(id),
            terminal: container.config.tty,
        };
        let asked = link.ask_with(Request::Adopt(Box::new(plan)), terminal.into_iter().collect()).await;
        match asked.map_err(|err| err.to_string())?.0 {
            Reply::Started { .. } | Reply::Done => {
                self.hold(link, id, run).await;
                Ok(())
            }
            Reply::NotFound => Err("it ended while no supervisor was there to see it".to_owned()),
            other => Err(super::sandboxes::unexpected("adopt the container", other).to_string()),
        }
    }

    fn wake_from_checkpoint(&self, id: &str) {
        let found = self.inner.state(|state| {
            let container = &state.containers.get(id)?.container;
            Some((container.clone(), state.sandboxes.get(&container.sandbox)?.clone()))
        });
        if let Some((container, sandbox)) = found {
            self.inner.end_checkpoint(&container, &sandbox);
        }
    }

    /// Notes that a container runs, and holds what must outlive the supervisor.
    async fn hold(&self, link: &Link, id: &str, run: RunRecord) {
        self.wake_from_checkpoint(id);
        let held_already =
            self.inner.state(|state| state.containers.get(id).is_some_and(|entry| entry.held.pidfd.is_some()));
        let config = self.inner.state(|state| state.container(id).map(|entry| entry.container.config.clone()));
        if let (false, Ok(config)) = (held_already, config) {
            let stdin = self.inner.layout.container_run(id).join("stdin");
            let held = Held {
                pidfd: rustix::process::Pid::from_raw(run.pid)
                    .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()),
                terminal: if config.tty { fetch_terminal(link, id).await } else { None },
                stdin: if config.stdin { super::containers::keep_open(&stdin) } else { None },
            };
            self.inner.state(|state| {
                if let Some(entry) = state.containers.get_mut(id) {
                    entry.held = held;
                }
            });
        }
        self.inner.state(|state| {
            let ended = state.containers.get(id).is_some_and(|entry| *entry.ended.borrow());
            if !ended {
                state.change(id, ContainerState::Running { started_at: run.started_at, pid: run.pid });
            }
        });
    }

    /// Notes an end; tells it unless it was known.
    fn settle(&self, id: &str, exit: ExitRecord) {
        let event = self.inner.state(|state| {
            let known = state.containers.get(id).is_some_and(|entry| *entry.ended.borrow());
            if known { None } else { state.change(id, exited(exit)) }
        });
        self.inner.tell(event);
    }

    /// Notes an end that nobody saw.
    fn lose(&self, id: &str, started_at: Option<jiff::Timestamp>, code: Option<i32>, why: &str) {
        let reason = match code {
            Some(0) => "Completed",
            Some(_) => "Error",
            None => "ContainerStatusUnknown",
        };
        let exit = ExitRecord {
            started_at,
            finished_at: self.inner.config.clock.now(),
            exit_code: code,
            reason: reason.to_owned(),
            message: if code.is_some() { String::new() } else { format!("the exit code is unknown: {why}") },
        };
        if let Err(err) = records::write(&self.inner.layout.exit_record(id), &exit) {
            tracing::warn!(container = id, %err, "the end of a container is not recorded");
        }
        self.settle(id, exit);
    }
}

impl Inner {
    /// A sandbox is ready as long as its namespaces are there; after a reboot they are not.
    fn remembered_sandbox(&self, record: records::SandboxRecord) -> Result<Sandbox, EngineError> {
        let mut sandbox = record.sandbox;
        let there = record.boot_id == self.boot_id && self.pins(&sandbox).is_there();
        if sandbox.state == SandboxState::Ready && !there {
            sandbox.state = SandboxState::NotReady;
            self.write_sandbox(&sandbox)?;
        }
        Ok(sandbox)
    }
}

pub(super) async fn hello(link: &Link) -> Result<Hello, EngineError> {
    match link.ask(Request::Hello).await? {
        Reply::Hello(hello) => Ok(hello),
        other => Err(super::sandboxes::unexpected("greet the supervisor", other)),
    }
}

/// Found once per run folder: containers outlive the process that looked, and the next one may be in another
/// cgroup.
fn find_hierarchies(layout: &Layout) -> Result<Hierarchies, EngineError> {
    if let Some(known) = records::read(&layout.hierarchies())? {
        return Ok(known);
    }
    let found = Hierarchies::read().map_err(|err| EngineError::Unsupported(error_chain(&err)))?;
    records::write(&layout.hierarchies(), &found)?;
    Ok(found)
}

fn error_chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Container, ContainerConfig};

    fn memory(run: bool, exit: bool) -> Remembered {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let container = Container {
            id: "c".to_owned(),
            sandbox: "s".to_owned(),
            config: ContainerConfig::default(),
            image_id: String::new(),
            user: None,
            state: ContainerState::Created,
            created_at: now,
        };
        let run = run.then(|| RunRecord { pid: 7, start_ticks: 1, boot_id: "b".to_owned(), started_at: now });
        let exit = exit.then(|| ExitRecord {
            started_at: None,
            finished_at: now,
            exit_code: Some(0),
            reason: String::new(),
            message: String::new(),
        });
        Remembered { record: records::ContainerRecord { boot_id: "b".to_owned(), container }, run, exit }
    }

    #[test]
    fn what_became_of_a_container_is_decided_so_that_there_are_never_two() {
        let word =
            |run, exit, listed, same_boot, populated| match decide(&memory(run, exit), listed, same_boot, populated) {
                Fate::Created => "created",
                Fate::Running(_) => "running",
                Fate::Orphaned(_) => "orphaned",
                Fate::Exited(_) => "exited",
                Fate::Lost(_) => "lost",
            };
        for (run, exit, listed, same_boot, populated, expected) in [
            (false, false, false, true, false, "created"),
            (false, false, false, true, true, "lost"),
            (true, false, true, true, true, "running"),
            (true, false, false, true, true, "orphaned"),
            (true, false, false, true, false, "orphaned"),
            (true, true, true, true, true, "exited"),
            (true, true, false, false, false, "exited"),
            (false, false, false, false, false, "lost"),
            (true, false, false, false, true, "lost"),
        ] {
            assert_eq!(
                word(run, exit, listed, same_boot, populated),
                expected,
                "{run} {exit} {listed} {same_boot} {populated}"
            );
        }
    }
}
