//! Containers: prepare, start, stop, remove.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};

use super::hooks::Hooks;
use super::link::Link;
use super::records::{self, ContainerRecord};
use super::restore::{Checkpoint, Kept};
use super::sandboxes::{pod_cgroup, unexpected};
use super::state::{Entry, Held, exited, word};
use super::{BuiltinEngine, Inner, blocking};
use crate::engine::{Container, ContainerConfig, ContainerState, EngineError, NamespaceMode, ProcessUser, Sandbox};
use crate::logs::writer;
use crate::runtime::app_armor;
use crate::runtime::cgroup::limits::device_rules;
use crate::runtime::cgroup::{CgroupError, freezer};
use crate::runtime::hooks::Stage;
use crate::runtime::process::{Surroundings, compile_process};
use crate::runtime::root::{DeviceNode, RootInputs, compile_root, find_devices, node_devices};
use crate::runtime::users::read_in_root;
use crate::snapshot::layers::Layer;
use crate::supervisor::is_populated;
use crate::supervisor::plan::{
    CgroupPlan, ExitRecord, LaunchPlan, NamespacePlan, PausePlan, PidPlan, ProcessPlan, RecordPlan, StreamPlan,
};
use crate::supervisor::wire::{Reply, Request};

/// How long a container that was killed may take to be gone: its last write may be stuck in a disk.
const KILL_WAIT_MAX: Duration = Duration::from_secs(30);
/// Exit code of a container that could not be started (containerd's, and the kubelet's for `StartError`).
const START_ERROR_CODE: i32 = 128;

/// What a container stands on that no image is.
#[derive(Debug)]
pub(crate) struct Base {
    /// Unpacked, lowest first; at least one.
    pub(crate) layers: Vec<Layer>,
    /// User, environment, working folder.
    pub(crate) config: oci_spec::image::Config,
}

/// What a container is made from.
#[derive(Debug)]
enum Basis {
    /// The image that it names.
    Image,
    Layers(Box<Base>),
    Checkpoint(Box<Checkpoint>),
}

impl Basis {
    fn layers(&self) -> Option<&Base> {
        if let Self::Layers(base) = self { Some(base) } else { None }
    }

    fn checkpoint(&self) -> Option<&Checkpoint> {
        if let Self::Checkpoint(checkpoint) = self { Some(checkpoint) } else { None }
    }
}

impl BuiltinEngine {
    pub(super) async fn create(&self, sandbox: &str, mut config: ContainerConfig) -> Result<String, EngineError> {
        let found = self.inner.ready_sandbox(sandbox)?;
        let checkpoint = self.checkpoint_for(&found, &mut config).await?;
        let basis = checkpoint.map_or(Basis::Image, |checkpoint| Basis::Checkpoint(Box::new(checkpoint)));
        self.create_from(sandbox, config, basis).await
    }

    /// A container on layers that are no image yet; `config.image` means nothing.
    pub(crate) async fn create_on(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        base: Base,
    ) -> Result<String, EngineError> {
        self.create_from(sandbox, config, Basis::Layers(Box::new(base))).await
    }

    async fn create_from(&self, sandbox: &str, config: ContainerConfig, basis: Basis) -> Result<String, EngineError> {
        let sandbox = self.inner.ready_sandbox(sandbox)?;
        let inner = Arc::clone(&self.inner);
        let entry = blocking(move || inner.make_container(&sandbox, config, &basis)).await?;
        let id = entry.container.id.clone();
        self.inner.state(|state| state.containers.insert(id.clone(), entry));
        Ok(id)
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), EngineError> {
        let (container, busy) = self
            .inner
            .state(|state| state.container(id).map(|entry| (entry.container.clone(), Arc::clone(&entry.busy))))?;
        let _busy = busy.lock().await;
        let now = self.inner.state(|state| state.container(id).map(|entry| entry.container.state.clone()))?;
        if now != ContainerState::Created {
            return Err(EngineError::WrongState { id: id.to_owned(), state: word(&now) });
        }
        let sandbox = self.inner.ready_sandbox(&container.sandbox)?;
        let inner = Arc::clone(&self.inner);
        let compiled = blocking(move || {
            let (mut plan, mounts) = inner.launch_plan(&container, &sandbox)?;
            let hooks = inner.hooks(&container, &sandbox, Some(&plan))?;
            plan.pauses = hooks.pauses();
            let kept = inner.plan_restore(&container, &mut plan)?;
            if kept.is_some() && !hooks.is_empty() {
                let why = "a container with hooks cannot be restored from a checkpoint";
                return Err(EngineError::Unsupported(why.to_owned()));
            }
            // There as soon as the container has started, also if it says nothing: a kubelet looks for it at once, to
            // link to it. If it cannot be made, the writer goes on trying, and the container waits with its output.
            let _ = writer::open(&plan.streams.log);
            Ok((plan, mounts, hooks, kept))
        });
        let started = match compiled.await {
            Ok((plan, mounts, hooks, kept)) => self.launch(id, plan, mounts, &hooks, kept).await,
            Err(err) => Err(err),
        };
        if let Err(err) = &started {
            self.inner.record_start_error(id, err.to_string());
        }
        started
    }

    async fn launch(
        &self,
        id: &str,
        plan: LaunchPlan,
        mounts: Vec<OwnedFd>,
        hooks: &Hooks,
        checkpoint: Option<Kept>,
    ) -> Result<(), EngineError> {
        let process = Arc::new(plan.process.clone());
        let stdin = plan.streams.stdin.clone();
        let link = self.inner.link().await?;
        // Whoever lets go of them last waits until the kernel has taken them down: not the process that ends.
        let kept = mounts.iter().filter_map(|mount| mount.try_clone().ok()).collect();
        let started = match checkpoint {
            None => start_with(&link, plan, mounts, hooks).await?,
            Some(kept) => self.restore(plan, mounts, kept).await?,
        };
        let (pid, started_at) = match started {
            Reply::Started { pid, started_at } => (pid, started_at),
            other => return Err(unexpected("start the container", other)),
        };
        let held = Held {
            pidfd: rustix::process::Pid::from_raw(pid)
                .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()),
            terminal: if process.terminal { fetch_terminal(&link, id).await } else { None },
            stdin: stdin.and_then(|path| keep_open(&path)),
        };
        let event = self.inner.state(|state| {
            let entry = state.containers.get_mut(id)?;
            entry.process = Some(process);
            entry.mounts = kept;
            // Its end may have been told already: then that is its state.
            if entry.container.state != ContainerState::Created {
                return None;
            }
            entry.held = held;
            state.change(id, ContainerState::Running { started_at, pid })
        });
        self.inner.tell(event);
        hooks.after(Stage::Poststart, "running", pid).await;
        Ok(())
    }

    pub(super) async fn stop(&self, id: &str, grace: Duration) -> Result<(), EngineError> {
        let found = self.inner.state(|state| {
            let entry = state.container(id)?;
            // Held by who starts it; nobody holds it long otherwise.
            let busy = entry.busy.try_lock().is_err();
            Ok::<_, EngineError>((entry.container.clone(), entry.ended.subscribe(), busy))
        });
        let Ok((container, mut ended, busy)) = found else { return Ok(()) };
        match container.state {
            ContainerState::Running { .. } => {}
            // Its process is on the way to its command and may be held up by a mount: that ends here.
            ContainerState::Created if busy => {
                return match self.inner.link().await?.ask(Request::Kill(id.to_owned())).await? {
                    Reply::Done | Reply::NotFound => Ok(()),
                    other => Err(unexpected("stop the start of the container", other)),
                };
            }
            _ => return Ok(()),
        }
        if !grace.is_zero() {
            let signal = self.inner.stop_signal(&container).await;
            let link = self.inner.link().await?;
            match link.ask(Request::Signal { container: id.to_owned(), signal }).await? {
                Reply::Done | Reply::NotFound => {}
                other => return Err(unexpected("stop the container", other)),
            }
            self.wake(&container).await;
            if tokio::time::timeout(grace, ended.wait_for(|ended| *ended)).await.is_ok() {
                return Ok(());
            }
        }
        match self.inner.link().await?.ask(Request::Kill(id.to_owned())).await? {
            Reply::Done | Reply::NotFound => {}
            other => return Err(unexpected("kill the container", other)),
        }
        match tokio::time::timeout(KILL_WAIT_MAX, ended.wait_for(|ended| *ended)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(EngineError::Io {
                step: format!("kill container {id}"),
                source: std::io::ErrorKind::TimedOut.into(),
            }),
        }
    }

    pub(super) async fn signal(&self, id: &str, signal: &str) -> Result<(), EngineError> {
        let parsed = parse_signal(signal);
        let signal = parsed.ok_or_else(|| EngineError::Invalid(format!("invalid signal: {signal:?}")))?;
        self.running(id)?;
        match self.inner.link().await?.ask(Request::Signal { container: id.to_owned(), signal }).await? {
            Reply::Done => Ok(()),
            Reply::NotFound => Err(EngineError::WrongState { id: id.to_owned(), state: "exited" }),
            other => Err(unexpected("signal the container", other)),
        }
    }

    /// What is held still hears no signal but the last one.
    async fn wake(&self, container: &Container) {
        let (inner, container) = (Arc::clone(&self.inner), container.clone());
        let woken = blocking(move || {
            let group = inner.container_cgroup(&container, &inner.sandbox(&container.sandbox)?);
            if freezer::is_frozen(&group) {
                freezer::thaw(&group).map_err(CgroupError::into_engine)?;
            }
            Ok(())
        });
        if let Err(err) = woken.await {
            tracing::warn!(%err, "a paused container that is to stop cannot be woken");
        }
    }

    pub(super) async fn remove(&self, id: &str) -> Result<(), EngineError> {
        self.stop(id, Duration::ZERO).await?;
        let Ok(busy) = self.inner.state(|state| state.container(id).map(|entry| Arc::clone(&entry.busy))) else {
            return Ok(());
        };
        let _busy = busy.lock().await;
        let Ok(container) = self.inner.state(|state| state.container(id).map(|entry| entry.container.clone())) else {
            return Ok(());
        };
        if matches!(container.state, ContainerState::Running { .. }) {
            return Err(EngineError::WrongState { id: id.to_owned(), state: "running" });
        }
        let (inner, removed) = (Arc::clone(&self.inner), container.clone());
        blocking(move || inner.unmake_container(&removed)).await?;
        self.after_stop(&container).await;
        let gone = self.inner.state(|state| state.containers.remove(id));
        gone.map(|entry| entry.mounts).unwrap_or_default().into_iter().for_each(let_go);
        Ok(())
    }
}

impl Inner {
    /// Makes everything of a container but its process.
    fn make_container(&self, sandbox: &Sandbox, config: ContainerConfig, basis: &Basis) -> Result<Entry, EngineError> {
        let (image, image_id) = match basis {
            Basis::Layers(_) => Default::default(),
            Basis::Image | Basis::Checkpoint(_) => {
                let image = self.images.get(&config.image)?;
                let image = image.ok_or_else(|| super::state::not_found("image", &config.image))?;
                (image.id.clone(), image.digests.into_iter().next().unwrap_or(image.id))
            }
        };
        let mut container = Container {
            id: self.new_id(),
            sandbox: sandbox.id.clone(),
            image_id: basis.checkpoint().and_then(|checkpoint| checkpoint.image_id.clone()).unwrap_or(image_id),
            user: None,
            config,
            state: ContainerState::Created,
            created_at: self.config.clock.now(),
        };
        match self.furnish(&mut container, sandbox, &image, basis) {
            Ok((process, mounts)) => Ok(Entry { process: Some(Arc::new(process)), mounts, ..Entry::new(container) }),
            Err(err) => {
                if let Err(left) = self.unmake_container(&container) {
                    tracing::warn!(container = container.id, %left, "parts of a container are left behind");
                }
                Err(err)
            }
        }
    }

    fn furnish(
        &self,
        container: &mut Container,
        sandbox: &Sandbox,
        image: &str,
        basis: &Basis,
    ) -> Result<(ProcessPlan, Vec<OwnedFd>), EngineError> {
        let base = basis.layers();
        let (id, config) = (&container.id, &container.config);
        // Refused before anything is made: a signal that does not exist, a device that is not there.
        if let Some(signal) = &config.stop_signal {
            parse_signal(signal).ok_or_else(|| EngineError::Invalid(format!("unknown signal {signal:?}")))?;
        }
        let devices = devices(config)?;
        self.check_limits(&config.resources)?;
        let shown = self.shown_images(config)?;
        let rootfs = match base {
            Some(base) => {
                self.snapshots.prepare_on(id, String::new(), &base.layers, self.snapshots.volumes(&shown)?)?
            }
            None => self.snapshots.prepare(id, image, &shown)?,
        };
        if let Some(checkpoint) = basis.checkpoint() {
            self.change_root(checkpoint, &rootfs)?;
        }
        let mounts = self.mount_all(&rootfs, config, sandbox)?;
        let root = root_of(&mounts)?;
        let process = match base {
            Some(base) => self.compile_on(container, sandbox, root, Some(&base.config))?,
            None => self.compile(container, sandbox, root)?,
        };
        let user = ProcessUser { uid: process.uid, gid: process.gid, groups: process.groups.clone() };
        let cgroup = self.container_cgroup(container, sandbox);
        let fail = crate::runtime::cgroup::CgroupError::into_engine;
        self.cgroups.create(&cgroup, &config.resources).map_err(fail)?;
        self.cgroups.end_as_one(&cgroup).map_err(fail)?;
        self.cgroups.restrict_devices(&cgroup, &device_rules(&devices, config.security.privileged)).map_err(fail)?;
        self.make_fifos(container)?;
        if let Some(dir) = config.log_path.parent() {
            records::make_dir(dir)?;
        }
        records::make_dir(&self.layout.container_data(id))?;
        if let Some(checkpoint) = basis.checkpoint() {
            self.keep_checkpoint(checkpoint, id, &process, !sandbox.config.host_network)?;
        }
        let path = self.layout.container_record(id);
        container.user = Some(user);
        let record = ContainerRecord { boot_id: self.boot_id.clone(), container: container.clone() };
        records::write(&path, &record)?;
        Ok((process, mounts))
    }

    /// Who the first process is; the image's files are read inside its root.
    pub(super) fn compile(
        &self,
        container: &Container,
        sandbox: &Sandbox,
        root: BorrowedFd<'_>,
    ) -> Result<ProcessPlan, EngineError> {
        let image = self.images.config(&container.config.image)?;
        self.compile_on(container, sandbox, root, image.config().as_ref())
    }

    fn compile_on(
        &self,
        container: &Container,
        sandbox: &Sandbox,
        root: BorrowedFd<'_>,
        image: Option<&oci_spec::image::Config>,
    ) -> Result<ProcessPlan, EngineError> {
        let invalid = |reason: String| EngineError::Invalid(reason);
        let surroundings = Surroundings {
            app_armor: app_armor::profile(&container.config.security).map_err(|err| invalid(err.to_string()))?,
            passwd: read_in_root(root, "etc/passwd"),
            group: read_in_root(root, "etc/group"),
            hostname: sandbox.config.hostname.clone(),
            own_capabilities: self.own_capabilities,
            users: sandbox.config.user_namespace,
            filters: Arc::clone(&self.filters),
        };
        compile_process(&container.config, image, &surroundings).map_err(|err| invalid(err.to_string()))
    }

    /// The whole plan for a container that exists, and what is mounted for it.
    fn launch_plan(&self, container: &Container, sandbox: &Sandbox) -> Result<(LaunchPlan, Vec<OwnedFd>), EngineError> {
        let (id, config) = (&container.id, &container.config);
        let not_there = || super::state::not_found("container", id);
        let rootfs = self.snapshots.get(id)?.ok_or_else(not_there)?;
        let cgroup = self.container_cgroup(container, sandbox);
        let (compiled, held) = self.state(|state| {
            let entry = state.container_mut(id)?;
            Ok::<_, EngineError>((entry.process.clone(), std::mem::take(&mut entry.mounts)))
        })?;
        let mounts = if !held.is_empty() {
            held
        } else if is_populated(&cgroup) {
            // Started already by an earlier life of the agent, which did not hear of it: it has the root.
            return Err(EngineError::WrongState { id: id.clone(), state: "running" });
        } else {
            self.mount_all(&rootfs, config, sandbox)?
        };
        let process = match compiled {
            Some(process) => (*process).clone(),
            None => self.compile(container, sandbox, root_of(&mounts)?)?,
        };
        let pins = self.pins(sandbox);
        let image = config.security.read_only_rootfs.then(|| self.images.config(&config.image)).transpose()?;
        let volumes = image.as_ref().map(image_volumes).unwrap_or_default();
        let inputs = RootInputs {
            shm: pins.shm.as_deref(),
            hierarchies: self.cgroups.hierarchies(),
            cgroup: &cgroup,
            cwd: &process.cwd,
            volumes: &volumes,
            own_users: pins.user.is_some(),
        };
        let root_ops =
            compile_root(config, &devices(config)?, &inputs).map_err(|err| EngineError::Invalid(err.to_string()))?;
        let pid = match (&config.pid_of, config.pid.unwrap_or(sandbox.config.pid)) {
            (Some(other), NamespaceMode::Container) => PidPlan::Of(other.clone()),
            (_, NamespaceMode::Container) => PidPlan::New,
            (_, NamespaceMode::Node) => PidPlan::Node,
            (_, NamespaceMode::Pod) => PidPlan::Pod(sandbox.id.clone()),
        };
        let plan = LaunchPlan {
            container: id.clone(),
            namespaces: NamespacePlan {
                user: self.user_plan(sandbox),
                net: pins.net,
                ipc: pins.ipc,
                uts: pins.uts,
                pid,
            },
            rootfs: rootfs.path,
            rootfs_read_only: config.security.read_only_rootfs,
            root_ops,
            cgroup,
            process,
            streams: self.streams(container),
            records: self.record_plan(id),
            pauses: PausePlan::default(),
            restore: None,
        };
        Ok((plan, mounts))
    }

    pub(super) fn container_cgroup(&self, container: &Container, sandbox: &Sandbox) -> CgroupPlan {
        let group = format!("{}/{}", pod_cgroup(&sandbox.id, &sandbox.config), container.id);
        self.cgroups.plan(&group, &container.config.resources)
    }

    pub(super) fn streams(&self, container: &Container) -> StreamPlan {
        let run = self.layout.container_run(&container.id);
        StreamPlan {
            stdin: container.config.stdin.then(|| run.join("stdin")),
            stdout: run.join("stdout"),
            stderr: run.join("stderr"),
            log: container.config.log_path.clone(),
            log_limits: container.config.log_limits,
        }
    }

    pub(super) fn record_plan(&self, id: &str) -> RecordPlan {
        RecordPlan { started: self.layout.run_record(id), exited: self.layout.exit_record(id) }
    }

    fn make_fifos(&self, container: &Container) -> Result<(), EngineError> {
        let run = self.layout.container_run(&container.id);
        records::make_dir(&run)?;
        let names = if container.config.tty { &[][..] } else { &["stdin", "stdout", "stderr"][..] };
        for name in names {
            let path = run.join(name);
            let made = rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
            made.map_err(|errno| EngineError::Io { step: format!("make {}", path.display()), source: errno.into() })?;
        }
        Ok(())
    }

    /// Takes everything of a container away; it does not run.
    fn unmake_container(&self, container: &Container) -> Result<(), EngineError> {
        let id = &container.id;
        if let Ok(sandbox) = self.sandbox(&container.sandbox) {
            let cgroup = self.container_cgroup(container, &sandbox);
            crate::supervisor::kill_cgroup(&cgroup);
            self.cgroups.remove(&cgroup).map_err(crate::runtime::cgroup::CgroupError::into_engine)?;
        }
        self.snapshots.remove(id)?;
        records::remove(&self.layout.container_run(id))?;
        records::remove(&self.layout.container_data(id))
    }

    /// A container that could not be started has ended, with the reason in its status.
    fn record_start_error(&self, id: &str, message: String) {
        let exit = ExitRecord {
            started_at: None,
            finished_at: self.config.clock.now(),
            exit_code: Some(START_ERROR_CODE),
            reason: "StartError".to_owned(),
            message,
        };
        if let Err(err) = records::write(&self.layout.exit_record(id), &exit) {
            tracing::warn!(container = id, %err, "the failed start is not recorded");
        }
        let event = self.state(|state| state.change(id, exited(exit)));
        self.tell(event);
    }

    /// The pod's, else the image's, else SIGTERM.
    async fn stop_signal(&self, container: &Container) -> i32 {
        if let Some(signal) = &container.config.stop_signal {
            return parse_signal(signal).unwrap_or(libc::SIGTERM);
        }
        let (images, image) = (self.images.clone(), container.config.image.clone());
        let config = blocking(move || Ok(images.config(&image)?)).await.ok();
        let signal =
            config.as_ref().and_then(|config| config.config().as_ref()).and_then(|c| c.stop_signal().as_deref());
        signal.and_then(parse_signal).unwrap_or(libc::SIGTERM)
    }
}

/// What an image calls its volumes.
fn image_volumes(image: &oci_spec::image::ImageConfiguration) -> Vec<String> {
    image.config().as_ref().and_then(|config| config.volumes().clone()).unwrap_or_default()
}

/// Has a container started; runs its hooks where its process waits for them.
async fn start_with(link: &Link, plan: LaunchPlan, mounts: Vec<OwnedFd>, hooks: &Hooks) -> Result<Reply, EngineError> {
    let (id, waits) = (plan.container.clone(), plan.pauses != PausePlan::default());
    let mut pauses = waits.then(|| link.expect_pauses(&id));
    let asked = link.ask_with(Request::Start(Box::new(plan)), mounts);
    tokio::pin!(asked);
    let mut failed = None;
    loop {
        let paused = async {
            match &mut pauses {
                Some(pauses) => pauses.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            answer = &mut asked => return failed.map_or(Ok(answer?.0), Err),
            Some((pid, starting)) = paused => {
                failed = hooks.on_pause(pid, starting).await.err();
                link.ask(Request::Proceed { container: id.clone(), go: failed.is_none() }).await?;
            }
        }
    }
}

/// Takes down a mount that nobody needs any more, beside everything else: the kernel takes its time for it, and for
/// many at once even more.
fn let_go(mount: OwnedFd) {
    /// Mounts that wait; beyond, whoever lets go of one waits itself.
    const WAITING_MAX: usize = 1024;
    static MOUNTS: OnceLock<Option<SyncSender<OwnedFd>>> = OnceLock::new();
    let start = || {
        let (sender, mounts) = std::sync::mpsc::sync_channel::<OwnedFd>(WAITING_MAX);
        let take_down = move || mounts.iter().for_each(drop);
        std::thread::Builder::new().name("unmount".to_owned()).spawn(take_down).ok().map(|_| sender)
    };
    if let Some(sender) = MOUNTS.get_or_init(start) {
        let _ = sender.try_send(mount); // what is not taken is dropped here
    }
}

/// The first of a container's mounts.
fn root_of(mounts: &[OwnedFd]) -> Result<BorrowedFd<'_>, EngineError> {
    let missing = || EngineError::Invalid("a container has no root".to_owned());
    Ok(mounts.first().ok_or_else(missing)?.as_fd())
}

fn devices(config: &ContainerConfig) -> Result<Vec<DeviceNode>, EngineError> {
    let mut found = if config.security.privileged { node_devices() } else { Vec::new() };
    for device in &config.devices {
        found.extend(find_devices(device).map_err(|err| EngineError::Invalid(err.to_string()))?);
    }
    Ok(found)
}

/// A duplicate of a container's terminal; `None` when it has ended.
pub(super) async fn fetch_terminal(link: &Link, id: &str) -> Option<std::os::fd::OwnedFd> {
    let (_, fds) = link.ask_with(Request::Terminal(id.to_owned()), Vec::new()).await.ok()?;
    fds.into_iter().next()
}

/// Opens a FIFO so that it does not end while we live.
pub(super) fn keep_open(path: &Path) -> Option<std::os::fd::OwnedFd> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`: what Docker takes.
pub(crate) fn parse_signal(text: &str) -> Option<i32> {
    let upper = text.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    match name {
        "RTMIN" => return Some(libc::SIGRTMIN()),
        "RTMAX" => return Some(libc::SIGRTMAX()),
        _ => {}
    }
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return offset.parse::<u8>().ok().map(|n| libc::SIGRTMIN() + i32::from(n)).filter(|n| *n <= libc::SIGRTMAX());
    }
    if let Some(offset) = name.strip_prefix("RTMAX-") {
        return offset.parse::<u8>().ok().map(|n| libc::SIGRTMAX() - i32::from(n)).filter(|n| *n >= libc::SIGRTMIN());
    }
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    Some(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_docker_reads_them() {
        let cases =
            [("SIGTERM", Some(15)), ("quit", Some(3)), ("9", Some(9)), ("SIGRTMIN+3", Some(37)), ("rtmax", Some(64))];
        for (text, signal) in cases {
            assert_eq!(parse_signal(text), signal, "{text}");
        }
        for text in ["SIGFOO", "", "SIG", "0", "RTMIN+2147483647", "RTMAX--1", "RTMIN+31", "65"] {
            assert_eq!(parse_signal(text), None, "{text}");
        }
    }
}
