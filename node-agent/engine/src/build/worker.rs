//! Runs the commands of a build in containers: an engine of its own, which ends with the build, however that ends.
//!
//! Its run folder is `/run/reeve-build/ID`; what a killed build left there is taken away by the next one. Everything
//! else lies in the store's folder for unfinished things. Commands use the network of whoever builds, as with
//! `docker build --network=host`: there may be no cluster, and so no other.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use reeve_api::rng::{RngExt as _, SeededRng, SharedRng};
use rustix::fs::FlockOperation;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::builtin::{Base, BuiltinEngine, EngineConfig};
use crate::engine::{ContainerConfig, ContainerState, Engine as _, EngineError, Mount, NamespaceMode, SandboxConfig};
use crate::images::ImageStore;
use crate::images::changes::{self, WatchFlags};
use crate::images::error::{ImageError, Step};
use crate::snapshot::Snapshots;
use crate::snapshot::layers::Layer;

use super::ssh::AgentSocket;

/// Where the run folders of builds lie: on a tmpfs.
const RUN_DIR: &str = "/run/reeve-build";
/// The file in a run folder that tells where the rest of its build lies.
const HOME: &str = "home";
/// The host name that BuildKit gives commands.
const HOSTNAME: &str = "buildkitsandbox";

/// A container engine for one build.
pub(super) struct Worker {
    runtime: Runtime,
    engine: BuiltinEngine,
    snapshots: Snapshots,
    /// Sandboxes with and without a network.
    sandboxes: Mutex<[Option<String>; 2]>,
    /// How many things it has made: their names.
    made: AtomicU32,
    run_dir: PathBuf,
    home: TempDir,
    _lock: File,
}

/// One command.
pub(super) struct Job {
    /// What it sees as its root, and who it is.
    pub(super) base: Base,
    pub(super) argv: Vec<String>,
    pub(super) mounts: Vec<Mount>,
    /// Without a network.
    pub(super) offline: bool,
}

/// A command that has ended.
pub(super) struct Ran {
    pub(super) container: String,
    pub(super) exit_code: i32,
    /// Why, when it could not even be started.
    pub(super) reason: Option<String>,
    /// What it has changed.
    pub(super) upper: PathBuf,
}

impl Worker {
    /// Starts an engine. Needs root.
    pub(super) fn start(store: &ImageStore) -> Result<Self, EngineError> {
        let run = Path::new(RUN_DIR);
        fs::create_dir_all(run).map_err(io_step("make", run))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(io_step("start the runtime of", run))?;
        let rng = SeededRng::shared();
        sweep(&runtime, store, &rng);
        let name = format!("{:08x}", rng.below(1 << 32));
        let run_dir = run.join(&name);
        let lock = lock(&run_dir)?;
        let home = tempfile::tempdir_in(store.tmp_dir()).map_err(io_step("make a folder in", &store.tmp_dir()))?;
        let note = run_dir.join(HOME);
        fs::write(&note, home.path().as_os_str().as_encoded_bytes()).map_err(io_step("write", &note))?;
        let snapshots = Snapshots::open_in(store.clone(), home.path().join("containers"))?;
        let config = config(&name, home.path(), store, &rng);
        let engine = runtime.block_on(BuiltinEngine::open_on(config, store.clone(), snapshots.clone()))?;
        Ok(Self {
            runtime,
            engine,
            snapshots,
            sandboxes: Mutex::default(),
            made: AtomicU32::new(0),
            run_dir,
            home,
            _lock: lock,
        })
    }

    /// A new path for something that goes with the build; in memory, if it is secret.
    pub(super) fn place(&self, what: &str, in_memory: bool) -> Result<PathBuf, ImageError> {
        let dir = if in_memory { self.run_dir.join("engine") } else { self.home.path().to_owned() };
        let path = dir.join(format!("{what}-{}", self.next()));
        fs::create_dir_all(&path).step("make", &path)?;
        Ok(path)
    }

    /// These layers mounted as one folder; what is written into it is lost. [`Worker::forget`] takes it away.
    pub(super) fn tree(&self, layers: &[Layer]) -> Result<(String, PathBuf), ImageError> {
        let name = format!("tree-{}", self.next());
        let rootfs = self.snapshots.prepare_on(&name, String::new(), layers, Vec::new())?;
        self.snapshots.attach(&rootfs)?;
        Ok((name, rootfs.path))
    }

    /// Takes a tree away.
    pub(super) fn forget(&self, tree: &str) -> Result<(), ImageError> {
        self.snapshots.remove(tree)
    }

    /// A number for something new.
    fn next(&self) -> u32 {
        self.made.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A socket that leads to an SSH agent.
    pub(super) fn agent_socket(&self, path: &Path, agent: &Path) -> Result<AgentSocket, ImageError> {
        AgentSocket::open(&self.runtime, path, agent).step("listen at", path)
    }

    /// Runs a command to its end, or kills it when it is to stop. `output` gets its lines as they come. Several may run
    /// at the same time.
    pub(super) fn run(
        &self,
        job: Job,
        stop: &CancellationToken,
        output: &mut dyn FnMut(&str),
    ) -> Result<Ran, EngineError> {
        let sandbox = self.sandbox(job.offline)?;
        let log = self.home.path().join("logs").join(format!("{}.log", self.next()));
        let config = ContainerConfig {
            name: "run".to_owned(),
            command: job.argv,
            mounts: job.mounts,
            log_path: log.clone(),
            ..ContainerConfig::default()
        };
        let engine = &self.engine;
        let (container, ended) = self.runtime.block_on(async {
            let container = engine.create_on(&sandbox, config, job.base).await?;
            let followed = tokio::select! {
                ended = follow(engine, &container, &log, output) => Some(ended?),
                () = stop.cancelled() => None,
            };
            let ended = match followed {
                Some(ended) => ended,
                None => {
                    engine.stop_container(&container, Duration::ZERO).await?;
                    (137, None)
                }
            };
            Ok::<_, EngineError>((container, ended))
        })?;
        let upper = self.home.path().join("containers").join(&container).join("upper");
        let (exit_code, reason) = ended;
        Ok(Ran { container, exit_code, reason, upper })
    }

    /// Takes away what a command has left.
    pub(super) fn remove(&self, container: &str) -> Result<(), EngineError> {
        self.runtime.block_on(self.engine.remove_container(container))
    }

    fn sandbox(&self, offline: bool) -> Result<String, EngineError> {
        let mut sandboxes = self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = sandboxes.get_mut(usize::from(offline)) else {
            return Err(EngineError::Invalid("no such sandbox".to_owned()));
        };
        if let Some(id) = slot {
            return Ok(id.clone());
        }
        let config = SandboxConfig {
            name: "build".to_owned(),
            hostname: HOSTNAME.to_owned(),
            host_network: !offline,
            pid: NamespaceMode::Container,
            cgroup: format!("build-{}", u8::from(offline)),
            log_dir: self.home.path().join("logs"),
            ..SandboxConfig::default()
        };
        let sandbox = self.runtime.block_on(self.engine.run_pod_sandbox(config))?;
        Ok(slot.insert(sandbox.id).clone())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Err(error) = self.runtime.block_on(self.engine.purge()) {
            tracing::warn!(%error, "not everything of the build could be taken away");
        }
        let _ = fs::remove_dir_all(&self.run_dir);
    }
}

fn config(name: &str, home: &Path, store: &ImageStore, rng: &SharedRng) -> EngineConfig {
    EngineConfig {
        data_dir: home.to_owned(),
        run_dir: Path::new(RUN_DIR).join(name),
        cgroup_root: format!("reeve-build-{name}"),
        supervisor_program: "/proc/self/exe".into(),
        ends_with_engine: true,
        hook_dirs: Vec::new(),
        clock: store.clock().clone(),
        rng: rng.clone(),
    }
}

/// Held as long as a build lives, so that others can tell.
fn lock(run_dir: &Path) -> Result<File, EngineError> {
    fs::create_dir_all(run_dir).map_err(io_step("make", run_dir))?;
    let path = run_dir.join("lock");
    let file = File::create(&path).map_err(io_step("make", &path))?;
    let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
    locked.map_err(|errno| io_step("lock", &path)(errno.into()))?;
    Ok(file)
}

/// Takes away what builds that were killed have left: their supervisors have ended by themselves.
fn sweep(runtime: &Runtime, store: &ImageStore, rng: &SharedRng) {
    let Ok(entries) = fs::read_dir(RUN_DIR) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(_lock) = lock(&entry.path()) else { continue };
        match sweep_one(runtime, store, rng, &name) {
            Ok(()) => drop(fs::remove_dir_all(entry.path())),
            Err(error) => tracing::warn!(name, error, "what a build left could not be taken away"),
        }
    }
}

fn sweep_one(runtime: &Runtime, store: &ImageStore, rng: &SharedRng, name: &str) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    // What a build of another store left in that store's folder goes when somebody opens it.
    let left = fs::read_to_string(Path::new(RUN_DIR).join(name).join(HOME)).map(PathBuf::from);
    let left = left.ok().filter(|home| home.parent() == Some(&store.tmp_dir()) && home.is_dir());
    let own = tempfile::tempdir_in(store.tmp_dir()).map_err(|error| words(&error))?;
    let home = left.as_deref().unwrap_or(own.path());
    let snapshots = Snapshots::open_in(store.clone(), home.join("containers")).map_err(|error| words(&error))?;
    let config = config(name, home, store, rng);
    let purged =
        runtime.block_on(async { BuiltinEngine::open_on(config, store.clone(), snapshots).await?.purge().await });
    purged.map_err(|error| words(&error))?;
    left.map_or(Ok(()), |home| fs::remove_dir_all(home).map_err(|error| words(&error)))
}

/// Starts a container and hands on what it says until it has ended. Its exit code, and why it did not start.
async fn follow(
    engine: &BuiltinEngine,
    id: &str,
    log: &Path,
    output: &mut dyn FnMut(&str),
) -> Result<(i32, Option<String>), EngineError> {
    let dir = log.parent().unwrap_or(log);
    let mut changes = changes::follow(dir, WatchFlags::MODIFY | WatchFlags::CREATE).map_err(io_step("watch", dir))?;
    let mut events = engine.events();
    let mut lines = LogLines::new(log);
    if let Err(error) = engine.start_container(id).await {
        return Ok((128, Some(error.to_string())));
    }
    loop {
        let state = engine.container_status(id).await?.state;
        lines.read(output).map_err(io_step("read", log))?;
        if let ContainerState::Exited { exit_code, reason, message, .. } = state {
            lines.finish(output);
            let killed = exit_code.is_none() || reason == "OOMKilled";
            let why = killed.then_some(if message.is_empty() { reason } else { message });
            return Ok((exit_code.unwrap_or(255), why));
        }
        tokio::select! {
            change = changes.next() => if change.is_none() {
                return Err(io_step("watch", dir)(io::ErrorKind::UnexpectedEof.into()));
            },
            event = events.next() => if event.is_none() {
                events = engine.events(); // too far behind: the status is asked again anyway
            },
        }
    }
}

/// Reads a log that grows.
struct LogLines {
    path: PathBuf,
    offset: u64,
    /// A line of which the end has not come yet.
    partial: String,
}

impl LogLines {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), offset: 0, partial: String::new() }
    }

    /// Hands on the whole lines that have come since the last time.
    fn read(&mut self, output: &mut dyn FnMut(&str)) -> io::Result<()> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        file.seek(io::SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            self.offset += line.len() as u64;
            self.take(&String::from_utf8_lossy(&line), output);
            line.clear();
        }
        Ok(())
    }

    /// Hands on what has no end of line.
    fn finish(&mut self, output: &mut dyn FnMut(&str)) {
        if !self.partial.is_empty() {
            output(&std::mem::take(&mut self.partial));
        }
    }

    /// A line of a CRI log: time, stream, whether it is whole, text.
    fn take(&mut self, line: &str, output: &mut dyn FnMut(&str)) {
        let mut parts = line.trim_end_matches('\n').splitn(4, ' ').skip(2);
        let (tag, text) = (parts.next().unwrap_or("F"), parts.next().unwrap_or_default());
        self.partial.push_str(text);
        if tag != "P" {
            output(&std::mem::take(&mut self.partial));
        }
    }
}

/// What every command sees of the machine, so that names can be looked up.
pub(super) fn network_files(offline: bool) -> Vec<Mount> {
    if offline {
        return Vec::new();
    }
    let files = ["/etc/resolv.conf", "/etc/hosts"].into_iter();
    let mount = |path: &str| {
        let source = fs::canonicalize(path).ok()?;
        Some(Mount { source, target: path.into(), read_only: true, ..Mount::default() })
    };
    files.filter_map(mount).collect()
}

fn io_step<'a>(verb: &'a str, path: &'a Path) -> impl Fn(io::Error) -> EngineError + 'a {
    move |source| EngineError::Io { step: format!("{verb} {}", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_handed_on_when_they_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut lines = LogLines::new(&path);
        let mut seen = Vec::new();
        lines.read(&mut |line| seen.push(line.to_owned())).unwrap();
        let mut text = "t stdout P one \nt stderr F two\nt stdout F a b  c\nt stdout F cut".to_owned();
        fs::write(&path, &text).unwrap();
        lines.read(&mut |line| seen.push(line.to_owned())).unwrap();
        assert_eq!(seen, ["one two", "a b  c"]);
        text.push_str(" off\n");
        fs::write(&path, &text).unwrap();
        lines.read(&mut |line| seen.push(line.to_owned())).unwrap();
        assert_eq!(seen.last().unwrap(), "cut off");
    }
}
