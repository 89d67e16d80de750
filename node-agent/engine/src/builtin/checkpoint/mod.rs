//! Checkpoints: a running container as an archive, by CRIU. It stands still meanwhile and goes on afterwards.
//!
//! How an archive becomes a container again is in [`super::restore`]; others that read the form (containerd, CRI-O,
//! Podman) do it, too. Where CRIU is missing, or does not work on this kernel, whoever asks hears that in its words.
//!
//! CRIU must not be killed while it is at work, because it runs code inside the container's processes: it goes on when
//! nobody waits for the answer any more, and what it made is thrown away then.

mod archive;
pub(super) mod criu;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::oneshot;

use self::archive::{About, IMAGES, ROOTFS_DIFF};
use self::criu::{Dump, OpenFile};
use super::{BuiltinEngine, Inner, blocking};
use crate::build::write_changes;
use crate::engine::{Container, Engine as _, EngineError, Sandbox};
use crate::runtime::cgroup::{CgroupError, freezer};
use crate::supervisor::plan::CgroupPlan;

/// How long a checkpoint may take when nobody says.
const TIMEOUT: Duration = Duration::from_secs(300);
/// In a container's run folder: it stands still for a checkpoint, and whoever finds that wakes it.
const MARK: &str = "checkpoint";

/// A checkpoint being made.
struct Job {
    inner: Arc<Inner>,
    criu: PathBuf,
    container: Container,
    sandbox: Sandbox,
    pid: i32,
    group: CgroupPlan,
    runtime: String,
    /// Where CRIU's images and the descriptions are collected. Goes with this.
    dir: tempfile::TempDir,
}

impl BuiltinEngine {
    pub(super) async fn checkpoint(&self, id: &str, path: &Path, timeout: Option<Duration>) -> Result<(), EngineError> {
        let (container, pid) = self.running(id)?;
        let criu = criu::find().await.map_err(EngineError::Unsupported)?;
        let sandbox = self.inner.sandbox(&container.sandbox)?;
        let group = self.inner.container_cgroup(&container, &sandbox);
        let tmp = self.inner.images.tmp_dir();
        let dir = tempfile::tempdir_in(&tmp).map_err(step("make a folder in", &tmp))?;
        let inner = Arc::clone(&self.inner);
        let job = Job { inner, criu, container, sandbox, pid, group, runtime: self.version(), dir };
        let (done, mut waiting) = oneshot::channel();
        let path = path.to_owned();
        tokio::spawn(async move {
            let made = match job.make().await {
                Ok(()) if done.is_closed() => return,
                Ok(()) => {
                    let path = path.clone();
                    blocking(move || archive::pack(job.dir.path(), &path).map_err(step("write", &path))).await
                }
                Err(error) => Err(error),
            };
            // Nobody listens when it took too long: the archive is not left behind.
            if let Err(Ok(())) = done.send(made)
                && let Err(err) = tokio::fs::remove_file(&path).await
            {
                tracing::warn!(path = %path.display(), %err, "a checkpoint that nobody waits for stays");
            }
        });
        let took_too_long = || EngineError::Io {
            step: format!("checkpoint container {id}"),
            source: io::Error::from(io::ErrorKind::TimedOut),
        };
        if let Ok(Ok(made)) = tokio::time::timeout(timeout.unwrap_or(TIMEOUT), &mut waiting).await {
            return made;
        }
        // From here on nobody listens; what was said at the last moment counts.
        waiting.close();
        waiting.try_recv().unwrap_or_else(|_| Err(took_too_long()))
    }
}

impl Inner {
    /// Wakes a container that an earlier life of the engine has left standing still in the middle of a checkpoint.
    pub(super) fn end_checkpoint(&self, container: &Container, sandbox: &Sandbox) {
        let mark = self.layout.container_run(&container.id).join(MARK);
        if !mark.exists() {
            return;
        }
        match freezer::thaw(&self.container_cgroup(container, sandbox)) {
            Ok(()) => drop(fs::remove_file(&mark)),
            Err(err) => tracing::error!(container = container.id, %err, "it stands still and cannot be woken"),
        }
    }
}

impl Job {
    /// Holds the container still, dumps it, and lets it go on, whatever came of it; one that was paused stays so.
    async fn make(&self) -> Result<(), EngineError> {
        let group = self.group.clone();
        let mark = self.inner.layout.container_run(&self.container.id).join(MARK);
        let was_paused = blocking({
            let (group, mark) = (group.clone(), mark.clone());
            move || {
                if freezer::is_frozen(&group) {
                    return Ok(true);
                }
                File::create_new(&mark).map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => EngineError::Invalid("a checkpoint of it is being made".to_owned()),
                    _ => step("create", &mark)(error),
                })?;
                let frozen = freezer::freeze(&group).map_err(CgroupError::into_engine);
                if frozen.is_err() {
                    let _ = fs::remove_file(&mark);
                }
                frozen.map(|()| false)
            }
        })
        .await?;
        let dumped = self.dump().await;
        if !was_paused {
            blocking(move || {
                freezer::thaw(&group).map_err(CgroupError::into_engine)?;
                fs::remove_file(&mark).map_err(step("remove", &mark))
            })
            .await?;
        }
        dumped
    }

    async fn dump(&self) -> Result<(), EngineError> {
        let images = self.dir.path().join(IMAGES);
        fs::create_dir(&images).map_err(step("make", &images))?;
        let arguments = self.arguments(&images)?;
        let ran = Command::new(&self.criu).args(arguments).stdin(Stdio::null()).output().await;
        let ran = ran.map_err(step("run", &self.criu))?;
        if !ran.status.success() {
            let log = fs::read(images.join("dump.log")).unwrap_or_default();
            let why = criu::why_not(&log, &[ran.stdout, ran.stderr].concat());
            return Err(EngineError::Io {
                step: format!("checkpoint container {}", self.container.id),
                source: io::Error::other(format!("CRIU says: {why}")),
            });
        }
        let (inner, id) = (Arc::clone(&self.inner), self.container.id.clone());
        let (image, place) = (self.container.config.image.clone(), self.dir.path().join(ROOTFS_DIFF));
        let targets: Vec<PathBuf> = self.container.config.mounts.iter().map(|mount| mount.target.clone()).collect();
        let named = blocking(move || {
            let rootfs = inner.snapshots.get(&id)?.ok_or_else(|| super::state::not_found("container", &id))?;
            write_changes(&inner.images, &rootfs, &targets, &place)?;
            Ok(inner.images.get(&image)?)
        });
        let named = named.await?;
        let image = named.map(|image| (image.tags.into_iter().next().unwrap_or_default(), image.id));
        let config = &self.sandbox.config;
        let about = About {
            container: &self.container,
            pod: [&config.name, &config.namespace, &config.uid],
            sandbox: &self.sandbox.id,
            image: image.unwrap_or_default(),
            runtime: self.runtime.clone(),
            at: self.inner.config.clock.now(),
            descriptors: self.descriptors(),
        };
        archive::describe(self.dir.path(), &about).map_err(step("write into", self.dir.path()))
    }

    fn arguments(&self, images: &Path) -> Result<Vec<String>, EngineError> {
        let process = PathBuf::from(format!("/proc/{}", self.pid));
        let group = self.group.unified.as_deref().unwrap_or(Path::new("/"));
        let network = process.join("ns/net");
        let network = fs::read_link(&network).map_err(step("read", &network))?;
        let read = |place: &Path| fs::read_to_string(place).map_err(step("read", place));
        let mounts = criu::mount_lines(&read(&process.join("mountinfo"))?);
        let node = criu::mount_lines(&read(Path::new("/proc/self/mountinfo"))?);
        let given = self.container.config.mounts.iter().map(|mount| mount.target.display().to_string());
        let given: BTreeSet<String> = given.chain(["/dev/shm".to_owned()]).collect();
        let procs = group.join("cgroup.procs");
        let pids = read(&procs)?;
        let files: BTreeSet<OpenFile> = pids.lines().flat_map(open_files).collect();
        let dump = Dump {
            pid: self.pid,
            images,
            group,
            network: &network.to_string_lossy(),
            mounts: &mounts,
            node: &node,
            given: &given,
            files: &files,
            terminal: self.container.config.tty,
        };
        Ok(criu::dump_arguments(&dump))
    }

    /// What the first process has as its streams, as CRIU calls it; a pipe or terminal by its own name.
    fn descriptors(&self) -> Vec<String> {
        let fds = PathBuf::from(format!("/proc/{}/fd", self.pid));
        let name = |fd: &str| match open_file(&fds, fd) {
            Some(file) => criu::file_key(file),
            None => fs::read_link(fds.join(fd)).map(|link| link.display().to_string()).unwrap_or_default(),
        };
        ["0", "1", "2"].map(name).to_vec()
    }
}

/// What a process has open by a path of some file system.
fn open_files(pid: &str) -> Vec<OpenFile> {
    let fds = PathBuf::from(format!("/proc/{pid}/fd"));
    let entries = fs::read_dir(&fds).into_iter().flatten().flatten();
    entries.filter_map(|entry| open_file(&fds, &entry.file_name().to_string_lossy())).collect()
}

fn open_file(fds: &Path, fd: &str) -> Option<OpenFile> {
    let path = fds.join(fd);
    let link = fs::read_link(&path).ok()?;
    // Pipes, sockets and the like have names of the kernel's, not paths.
    if !link.is_absolute() || link.starts_with("/memfd:") {
        return None;
    }
    let info = fs::read_to_string(fds.with_file_name("fdinfo").join(fd)).ok()?;
    let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    Some(OpenFile { mount, inode: fs::metadata(&path).ok()?.ino() })
}

fn step<'p>(what: &'p str, path: &'p Path) -> impl Fn(io::Error) -> EngineError + 'p {
    move |source| EngineError::Io { step: format!("{what} {}", path.display()), source }
}
