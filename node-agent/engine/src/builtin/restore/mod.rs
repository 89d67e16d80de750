//! Containers that come back from a checkpoint, by CRIU, as with containerd and CRI-O: what an image that says that it
//! is one holds (or, over CRI, an archive on the node) is put upon the image that the container had, and its processes
//! go on in the new container's pod, groups, mounts and log.
//!
//! What CRIU is given is judged before ([`images`]), what it makes is compared with what a start of the new container
//! would have made ([`judge`]): its mounts before anything else, its processes before they go on.

mod archive;
mod images;
mod judge;
mod protobuf;
mod rpc;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair, sockopt};

pub(super) use self::archive::Kept;
use self::archive::{Archive, Dumped};
use self::judge::{Misplaced, Thread};
use self::rpc::{Request as Order, Said};
use super::checkpoint::criu::{self, MountLine};
use super::sandboxes::unexpected;
use super::{BuiltinEngine, Inner, blocking, records};
use crate::engine::{Container, ContainerConfig, EngineError, Image, NamespaceMode, Sandbox};
use crate::snapshot::Rootfs;
use crate::supervisor::kill_cgroup;
use crate::supervisor::plan::{LaunchPlan, ProcessPlan, RestorePlan};
use crate::supervisor::wire::{Reply, Request};

/// What the manifest of an image says that is a checkpoint: the container's name.
const ANNOTATION: &str = "org.criu.checkpoint.container.name";
/// How long CRIU may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// Longest message of CRIU's.
const MESSAGE_MAX: usize = 64 << 10;
/// CRIU's log, in a folder that goes when it is read.
const LOG: &str = "restore.log";
/// Threads of a container that are looked at; who has more is not restored.
const THREADS_MAX: usize = 1 << 16;

/// A checkpoint that a container is to be made of.
#[derive(Debug)]
pub(super) struct Checkpoint {
    archive: Archive,
    /// What the container's status calls its image, if not the one that it stands on.
    pub(super) image_id: Option<String>,
    /// What the container was executed as.
    command: Vec<String>,
}

impl BuiltinEngine {
    /// The checkpoint that a container is to come back from, if it is one. Its image becomes the one that the container
    /// had, which is fetched if it is not here.
    pub(super) async fn checkpoint_for(
        &self,
        sandbox: &Sandbox,
        config: &mut ContainerConfig,
    ) -> Result<Option<Checkpoint>, EngineError> {
        let (inner, from) = (Arc::clone(&self.inner), config.clone());
        let Some((checkpoint, dumped)) = blocking(move || inner.open_checkpoint(&from)).await? else {
            return Ok(None);
        };
        if let Some(why) = complaint(sandbox, config) {
            return Err(EngineError::Unsupported(format!("a container {why} cannot be restored from a checkpoint")));
        }
        criu::find().await.map_err(EngineError::Unsupported)?;
        config.image = self.base_image(&dumped).await?.id;
        config.checkpoint = None;
        // Nothing is executed; but what runs has a name.
        if config.command.is_empty() && config.args.is_empty() {
            config.command.clone_from(&checkpoint.command);
        }
        Ok(Some(checkpoint))
    }

    /// The image that a container had. A name may be another image's by now: what counts is the digest.
    async fn base_image(&self, dumped: &Dumped) -> Result<Image, EngineError> {
        let Dumped { rootfs_image_ref: wanted, rootfs_image_name: name } = dumped;
        let (images, own) = (self.inner.images.clone(), wanted.clone());
        let found = blocking(move || Ok(images.get(&own).ok().flatten())).await?;
        if let Some(found) = found.filter(|_| wanted.contains("sha256:")) {
            return Ok(found);
        }
        let failed =
            |why: &str| EngineError::Invalid(format!("failed to pull checkpoint base image {wanted} ({name}): {why}"));
        let is_id = wanted.starts_with("sha256:");
        if !wanted.contains("@sha256:") && !is_id {
            return Err(failed("the checkpoint does not name it by its digest"));
        }
        let pulled = self.inner.images.pull(if is_id { name } else { wanted }, None).await;
        let pulled = pulled.map_err(|error| failed(&error.to_string()))?;
        if is_id && pulled.id != *wanted {
            return Err(failed("that name is another image's now"));
        }
        Ok(pulled)
    }

    /// Starts CRIU, and has it bring a container back. What it has made goes when anything about it is not as it
    /// should be; it is also looked at when nobody waits for the answer any more.
    pub(super) async fn restore(
        &self,
        plan: LaunchPlan,
        mounts: Vec<OwnedFd>,
        kept: Kept,
    ) -> Result<Reply, EngineError> {
        let (engine, id) = (self.clone(), plan.container.clone());
        let restored = tokio::spawn(async move {
            let restored = engine.restore_now(plan, mounts, kept).await;
            let forgotten = blocking(move || {
                engine.inner.forget_checkpoint(&id);
                Ok(())
            });
            forgotten.await.and(restored)
        });
        restored.await.unwrap_or_else(|error| Err(failed("restore a container", io::Error::other(error))))
    }

    async fn restore_now(&self, plan: LaunchPlan, mut mounts: Vec<OwnedFd>, kept: Kept) -> Result<Reply, EngineError> {
        let link = self.inner.link().await?;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|errno| failed("make a socket", errno.into()))?;
        mounts.push(theirs);
        let container = plan.container.clone();
        let job = Job::new(&self.inner, &plan, kept)?;
        let criu = match link.ask_with(Request::Start(Box::new(plan)), mounts).await?.0 {
            Reply::Started { pid, .. } => pid,
            other => return Err(unexpected("start CRIU", other)),
        };
        let made = blocking(move || job.run(&ours, criu)).await;
        let request = match &made {
            Ok(pid) => Request::Restored { container, pid: *pid },
            Err(_) => Request::Kill(container),
        };
        let answer = link.ask(request).await?;
        made.map(|_| answer)
    }
}

/// What such a container cannot be, yet.
fn complaint(sandbox: &Sandbox, config: &ContainerConfig) -> Option<&'static str> {
    if sandbox.config.user_namespace.is_some() {
        return Some("of a pod with users of its own (hostUsers: false)");
    }
    if config.pid_of.is_some() || config.pid.unwrap_or(sandbox.config.pid) != NamespaceMode::Container {
        return Some("without a PID namespace of its own");
    }
    config.tty.then_some("with a terminal")
}

impl Inner {
    fn open_checkpoint(&self, config: &ContainerConfig) -> Result<Option<(Checkpoint, Dumped)>, EngineError> {
        let (archive, image_id) = match &config.checkpoint {
            Some(path) => (Archive::of_file(&self.images, path)?, None),
            None => {
                let Some(image) = self.images.get(&config.image)? else { return Ok(None) };
                if !self.images.annotations(&image.id)?.contains_key(ANNOTATION) {
                    return Ok(None);
                }
                let archive = Archive::of_image(&self.images, &image.id)?;
                (archive, Some(image.digests.into_iter().next().unwrap_or(image.id)))
            }
        };
        let (dumped, command) = (archive.dumped()?, archive.command()?);
        Ok(Some((Checkpoint { archive, image_id, command }, dumped)))
    }

    /// Gives the container's root, which is not mounted yet, what it had changed.
    pub(super) fn change_root(&self, checkpoint: &Checkpoint, rootfs: &Rootfs) -> Result<(), EngineError> {
        checkpoint.archive.change(rootfs, self.images.limits())
    }

    /// Keeps what is needed at the start, in the container's own folder.
    pub(super) fn keep_checkpoint(
        &self,
        checkpoint: &Checkpoint,
        id: &str,
        process: &ProcessPlan,
        own_network: bool,
    ) -> Result<(), EngineError> {
        let (dir, limits) = (self.layout.checkpoint_images(id), self.images.limits());
        let kept = checkpoint.archive.keep(&dir, process.seccomp.as_ref(), own_network, limits)?;
        records::write(&self.layout.checkpoint_record(id), &kept)
    }

    /// What was kept, if the container comes back from a checkpoint; its plan then says how.
    pub(super) fn plan_restore(
        &self,
        container: &Container,
        plan: &mut LaunchPlan,
    ) -> Result<Option<Kept>, EngineError> {
        let Some(kept) = records::read::<Kept>(&self.layout.checkpoint_record(&container.id))? else { return Ok(None) };
        let view = self.layout.container_run(&container.id).join("view");
        records::make_dir(&view)?;
        let program = criu::look().ok_or_else(|| EngineError::Unsupported(criu::MISSING.to_owned()))?;
        plan.restore = Some(RestorePlan { program, view });
        Ok(Some(kept))
    }

    /// Lets go of what was needed at the start only.
    pub(super) fn forget_checkpoint(&self, id: &str) {
        for path in [self.layout.checkpoint_images(id), self.layout.checkpoint_work(id)] {
            if let Err(err) = records::remove(&path) {
                tracing::warn!(%err, "what was needed to restore a container is left behind");
            }
        }
    }
}

/// A container that CRIU brings back.
struct Job {
    kept: Kept,
    process: ProcessPlan,
    group: crate::supervisor::plan::CgroupPlan,
    namespaces: [(&'static str, Option<PathBuf>); 3],
    /// Where the container's root and its mounts are seen by CRIU, and where the bare root is.
    place: PathBuf,
    view: PathBuf,
    images: PathBuf,
    work: PathBuf,
    no_root: bool,
}

impl Job {
    fn new(inner: &Inner, plan: &LaunchPlan, kept: Kept) -> Result<Self, EngineError> {
        let id = &plan.container;
        let no_root =
            inner.state(|state| state.container(id).map(|entry| entry.container.config.security.run_as_non_root))?;
        let own = plan.namespaces.clone();
        Ok(Self {
            kept,
            process: plan.process.clone(),
            group: plan.cgroup.clone(),
            namespaces: [("net", own.net), ("ipc", own.ipc), ("uts", own.uts)],
            place: plan.rootfs.clone(),
            view: plan.restore.as_ref().map(|restore| restore.view.clone()).unwrap_or_default(),
            images: inner.layout.checkpoint_images(id),
            work: inner.layout.checkpoint_work(id),
            no_root,
        })
    }

    /// Speaks with CRIU until it is done. Blocks.
    fn run(&self, socket: &OwnedFd, criu: i32) -> Result<i32, EngineError> {
        records::make_dir(&self.work)?;
        let open = |dir: &Path| File::open(dir).map_err(|error| failed(&format!("open {}", dir.display()), error));
        self.keep_pod().map_err(|error| failed("read what the pod has", error))?;
        let (images, work) = (open(&self.images)?, open(&self.work)?);
        let timeout = sockopt::set_socket_timeout(socket, sockopt::Timeout::Recv, Some(SILENCE_MAX));
        timeout.map_err(|errno| failed("set up a socket", errno.into()))?;
        let model = self.model(criu)?;
        let external = self.external(&model).map_err(EngineError::Start)?;
        let namespaces: Vec<(&'static str, &Path)> =
            self.namespaces[1..].iter().filter_map(|(kind, place)| Some((*kind, place.as_deref()?))).collect();
        let order = Order {
            images: images.as_raw_fd(),
            work: work.as_raw_fd(),
            log: LOG,
            root: &self.view,
            external: &external,
            streams: &self.kept.streams,
            namespaces: &namespaces,
            app_armor: self.process.app_armor.as_deref(),
        };
        send(socket, &order.encode())?;
        self.follow(socket, criu, &model)
            .map_err(|why| EngineError::Start(format!("failed to restore from checkpoint {:?}: {why}", self.kept.name)))
    }

    /// CRIU gives a namespace that it joins the names and limits that its images tell: they become those that the pod
    /// has. Files of images may be links to others' and are replaced.
    fn keep_pod(&self) -> io::Result<()> {
        let (uts, ipc) = self.pod()?;
        for entry in fs::read_dir(&self.images)?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let kept =
                [("utsns-", &uts), ("ipcns-var-", &ipc)].into_iter().find(|(prefix, _)| name.starts_with(prefix));
            if let Some((_, image)) = kept {
                fs::remove_file(entry.path())?;
                fs::write(entry.path(), image)?;
            }
        }
        Ok(())
    }

    /// Host name and IPC limits of the pod, as CRIU's images.
    fn pod(&self) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let [_, (_, ipc), (_, uts)] = self.namespaces.clone();
        // A thread that enters them and ends.
        let reader = std::thread::Builder::new().name("pod".to_owned()).spawn(move || {
            for place in [ipc, uts].into_iter().flatten() {
                nix::sched::setns(File::open(place)?, nix::sched::CloneFlags::empty())?;
            }
            let read = |name: &str| fs::read_to_string(format!("/proc/sys/{name}"));
            let numbers = |name: &&str| {
                let text = read(name)?;
                text.split_ascii_whitespace().map(|n| n.parse().map_err(io::Error::other)).collect()
            };
            let limits = images::IPC_LIMITS.iter().map(numbers).collect::<io::Result<Vec<_>>>()?;
            let (name, domain) = (read("kernel/hostname")?, read("kernel/domainname")?);
            Ok((images::host_name(name.trim_end(), domain.trim_end()), images::ipc_limits(&limits)))
        })?;
        reader.join().unwrap_or_else(|_| Err(io::Error::other("the reading thread died")))
    }

    /// What CRIU does not restore but takes from the new container.
    fn external(&self, model: &[MountLine]) -> Result<Vec<String>, String> {
        let (name, mounts) = (&self.kept.name, &self.kept.mounts);
        let own: Vec<(&str, bool)> = model.iter().map(|line| (line.target.as_str(), line.has("ro"))).collect();
        judge::places(&own, &mounts.targets, &mounts.external).map_err(|why| match why {
            Misplaced::Missing(places) => {
                format!("restoring {name:?} expects following bind mounts defined ({})", places.join(","))
            }
            Misplaced::Other(why) => format!("failed to restore from checkpoint {name:?}: {why}"),
        })?;
        let place = self.place.display();
        Ok(mounts.external.keys().map(|key| format!("mnt[{key}]:{place}{key}")).collect())
    }

    /// The mounts of the container as a start makes them.
    fn model(&self, criu: i32) -> Result<Vec<MountLine>, EngineError> {
        let path = PathBuf::from(format!("/proc/{criu}/mountinfo"));
        let text = fs::read_to_string(&path).map_err(|error| failed(&format!("read {}", path.display()), error))?;
        Ok(judge::model(criu::mount_lines(&text), &self.place.to_string_lossy()))
    }

    fn follow(&self, socket: &OwnedFd, criu: i32, model: &[MountLine]) -> Result<i32, String> {
        let mut first = None;
        let mut buffer = vec![0; MESSAGE_MAX];
        loop {
            let received = rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty());
            let (len, _) = received.map_err(|errno| format!("CRIU does not answer: {errno}"))?;
            if len == 0 {
                return Err(self.why("CRIU ended"));
            }
            match rpc::read(buffer.get(..len).unwrap_or_default()) {
                Some(Said::Restored(pid)) if Some(pid) == first => return Ok(pid),
                Some(Said::Restored(_)) | None => return Err("CRIU says something strange".to_owned()),
                Some(Said::Failed) => return Err(self.why("CRIU gave up")),
                Some(Said::Stage(stage, pid)) => {
                    let judged = match stage.as_str() {
                        "post-restore" => {
                            first = pid;
                            self.judge_surroundings(pid.unwrap_or_default(), criu, model)
                        }
                        "pre-resume" => self.judge_processes(first.unwrap_or_default(), criu),
                        _ => Ok(()),
                    };
                    if let Err(why) = judged {
                        // At the last stage CRIU does not ask whether to go on.
                        kill_cgroup(&self.group);
                        return Err(why);
                    }
                    send(socket, &rpc::proceed(true)).map_err(|error| error.to_string())?;
                }
            }
        }
    }

    /// The errors of CRIU's log.
    fn why(&self, else_say: &str) -> String {
        let log = fs::read(self.work.join(LOG)).unwrap_or_default();
        // It says so wherever the node's root may not raise limits, and goes on.
        let log = String::from_utf8_lossy(&log);
        let log: String =
            log.lines().filter(|line| !line.contains("RLIMIT_NOFILE")).map(|l| format!("{l}\n")).collect();
        match criu::why_not(log.as_bytes(), b"") {
            why if why.is_empty() => else_say.to_owned(),
            why => format!("CRIU says: {why}"),
        }
    }

    fn judge_surroundings(&self, first: i32, criu: i32, model: &[MountLine]) -> Result<(), String> {
        let wanted = self.wanted(first, criu)?;
        let thread = thread(first, first)?;
        if let Some((kind, _)) = wanted.iter().find(|(kind, id)| thread.namespaces.get(*kind) != Some(id)) {
            return Err(format!("process {first} is not in the container's {kind} namespace"));
        }
        let mounts = fs::read_to_string(format!("/proc/{first}/mountinfo")).map_err(|error| error.to_string())?;
        judge::mounts(model, &criu::mount_lines(&mounts))
    }

    /// Whether all processes have what they may have. Their limits and the kernel's choice of victims become the new
    /// container's.
    fn judge_processes(&self, first: i32, criu: i32) -> Result<(), String> {
        let wanted = self.wanted(first, criu)?;
        let node = link("self", "pid")?;
        let group = self.group.unified.iter().chain(&self.group.legacy).next().ok_or("it has no cgroup")?;
        let pids = fs::read_to_string(group.join("cgroup.procs")).map_err(|error| error.to_string())?;
        let pids: Vec<i32> = pids.lines().filter_map(|pid| pid.parse().ok()).collect();
        if !pids.contains(&first) {
            return Err(format!("process {first} is not in the container's cgroup"));
        }
        let mut seen = 0;
        for pid in pids {
            // CRIU's own are in the node's, all others below the first.
            if link(&pid.to_string(), "pid")? == node {
                continue;
            }
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| error.to_string())?;
            for task in tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()) {
                seen += 1;
                judge::thread(&thread(pid, task)?, &self.process, &wanted, self.no_root)?;
            }
            self.limit(pid);
        }
        if (1..=THREADS_MAX).contains(&seen) { Ok(()) } else { Err(format!("it has {seen} threads")) }
    }

    /// Namespaces that all processes have to be in.
    fn wanted(&self, first: i32, criu: i32) -> Result<BTreeMap<&'static str, String>, String> {
        let mut wanted =
            BTreeMap::from([("user", link("self", "user")?), ("cgroup", link(&criu.to_string(), "cgroup")?)]);
        for (kind, place) in &self.namespaces {
            let id = match place {
                Some(place) => format!("{kind}:[{}]", fs::metadata(place).map_err(|error| error.to_string())?.ino()),
                None => link("self", kind)?,
            };
            wanted.insert(kind, id);
        }
        for kind in ["mnt", "pid"] {
            let own = link(&first.to_string(), kind)?;
            if own == link(&criu.to_string(), kind)? {
                return Err(format!("process {first} is not in a {kind} namespace of its own"));
            }
            wanted.insert(kind, own);
        }
        Ok(wanted)
    }

    fn limit(&self, pid: i32) {
        let score = self.process.oom_score_adj.unwrap_or_default().to_string();
        // A root that may not lower it has said so.
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), score);
        let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
        let files = rustix::process::Resource::Nofile;
        let own = rustix::process::getrlimit(files)
            .maximum
            .map_or(self.process.open_files_max, |own| own.min(self.process.open_files_max));
        let limit = rustix::process::Rlimit { current: Some(own), maximum: Some(own) };
        let _ = rustix::process::prlimit(Some(pid), files, limit);
    }
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<(), EngineError> {
    let sent = rustix::net::send(socket, bytes, SendFlags::NOSIGNAL);
    sent.map(drop).map_err(|errno| failed("speak with CRIU", errno.into()))
}

fn link(pid: &str, kind: &str) -> Result<String, String> {
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}"));
    Ok(link.map_err(|error| format!("process {pid}: {error}"))?.to_string_lossy().into_owned())
}

fn thread(pid: i32, task: i32) -> Result<Thread, String> {
    let dir = format!("/proc/{pid}/task/{task}");
    let read =
        |name: &str| fs::read_to_string(format!("{dir}/{name}")).map_err(|error| format!("process {pid}: {error}"));
    let mut namespaces = BTreeMap::new();
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
        namespaces.insert(kind, link(&format!("{pid}/task/{task}"), kind)?);
    }
    // Without AppArmor there is none; older kernels have one file for all security modules.
    let label = ["attr/apparmor/current", "attr/current"].into_iter().find_map(|name| read(name).ok());
    let label = label.unwrap_or_default();
    Ok(Thread { pid: task, status: read("status")?, stat: read("stat")?, namespaces, label })
}

fn failed(step: &str, source: io::Error) -> EngineError {
    EngineError::Io { step: step.to_owned(), source }
}
