//! What is true of a cluster while it runs: `/run/reeve/NAME`, and the lock that `up` and `down` take.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::config::{ClusterConfig, Paths};
use super::error::{ClusterError, at};

/// A cluster's lasting choices in its run folder: data folders can lie anywhere, run folders are found.
const CLAIM: &str = "claim.json";
/// Locked by the main process as long as it lives.
const MAIN_LOCK: &str = "main.lock";

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its id.
    pub pid: i32,
    /// When it started, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
}

impl Process {
    /// The process of that id as it is now; `None` when there is none or it is only waiting to be reaped.
    pub(crate) fn find(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything, also parentheses.
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
        if *fields.first()? == "Z" {
            return None;
        }
        Some(Self { pid, start_ticks: fields.get(19)?.parse().ok()? })
    }

    /// This process.
    pub(crate) fn own() -> Option<Self> {
        Self::find(i32::try_from(std::process::id()).ok()?)
    }

    /// Whether it still lives.
    pub(crate) fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }
}

/// A running cluster, as its main process wrote it down.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunState {
    /// The main process.
    pub process: Process,
    /// Its data folder.
    pub data_dir: PathBuf,
    /// Its lasting choices.
    pub config: ClusterConfig,
    /// The node's address.
    pub node_ip: std::net::IpAddr,
    /// Whether it was told to end: it may still answer for a moment, but it is going.
    #[serde(default)]
    pub ending: bool,
    /// Whether it was brought down since.
    #[serde(default)]
    pub stopped: bool,
}

impl RunState {
    fn path(run_dir: &Path) -> PathBuf {
        run_dir.join("cluster.json")
    }

    /// The state of the cluster of that run folder; `None` when nothing readable is there.
    pub(crate) fn load(run_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(run_dir)).ok()?).ok()
    }

    /// Writes the state down.
    pub(crate) fn save(&self, run_dir: &Path) -> Result<(), ClusterError> {
        let text = serde_json::to_vec(self).map_err(|err| ClusterError::component("run state", err))?;
        let path = Self::path(run_dir);
        super::files::replace(&path, &text, 0o600).map_err(|err| ClusterError::io(at("write", &path), err))
    }
}

/// What a cluster writes down before it makes anything else: whoever finds the run folder knows the rest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Claim {
    /// Its lasting choices.
    pub config: ClusterConfig,
    /// Its data folder.
    pub data_dir: PathBuf,
}

impl Claim {
    /// The claim of that run folder; `None` when nothing readable is there.
    pub(crate) fn load(run_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(run_dir.join(CLAIM)).ok()?).ok()
    }

    /// Tells the other clusters of this machine what this one has chosen. The caller holds [`lock_choices`].
    pub(crate) fn save(&self, run_dir: &Path) -> Result<(), ClusterError> {
        let text = serde_json::to_vec(self).map_err(|err| ClusterError::component("claim", err))?;
        let path = run_dir.join(CLAIM);
        super::files::replace(&path, &text, 0o600).map_err(|err| ClusterError::io(at("write", &path), err))
    }
}

/// The clusters of this machine that run or ran since it was started.
pub(crate) fn known() -> Vec<Claim> {
    let entries = std::fs::read_dir(Paths::RUN_ROOT).into_iter().flatten().flatten();
    entries.filter_map(|entry| Claim::load(&entry.path())).collect()
}

/// The lasting choices of every other cluster that can be found: those that were up since the machine was started, and
/// those in the default folder.
pub(crate) fn others(name: &str) -> Vec<ClusterConfig> {
    let mut found: Vec<ClusterConfig> = known().into_iter().map(|claim| claim.config).collect();
    for entry in std::fs::read_dir(Paths::DATA_ROOT).into_iter().flatten().flatten() {
        if let Ok(Some(config)) = super::config::load_from(&entry.path().join(super::config::FILE)) {
            found.push(config);
        }
    }
    found.retain(|config| config.name != name);
    found
}

/// Held by a cluster's main process from its first moment to its last. The kernel names who holds it, also when that
/// process was killed before it could write anything down.
pub(crate) struct MainLock {
    _file: File,
}

impl MainLock {
    /// Becomes the main process of that run folder; `None` when there is another.
    pub(crate) fn take(run_dir: &Path) -> Result<Option<Self>, ClusterError> {
        let path = run_dir.join(MAIN_LOCK);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = open.map_err(|err| ClusterError::io(at("open", &path), err))?;
        // A lock of fcntl(2): gone with the process, not inherited by its children, and asked about by `holder`.
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => Ok(None),
            Err(err) => Err(ClusterError::io(at("lock", &path), err)),
        }
    }

    /// The main process of that run folder, if it lives. Never asked by that process itself: it would lose the lock.
    pub(crate) fn holder(run_dir: &Path) -> Option<Process> {
        let process = Process::find(Self::holder_pid(run_dir)?)?;
        // Asked again: had the first one ended meanwhile, the number could be somebody else's.
        (Self::holder_pid(run_dir) == Some(process.pid)).then_some(process)
    }

    /// The same, also of a process that was killed and of which not all threads have ended: it holds the lock until
    /// they have.
    pub(crate) fn holder_pid(run_dir: &Path) -> Option<i32> {
        let file = OpenOptions::new().read(true).write(true).open(run_dir.join(MAIN_LOCK)).ok()?;
        let lock = rustix::process::Flock::from(rustix::process::FlockType::WriteLock);
        let held = rustix::process::fcntl_getlk(&file, &lock).ok()??;
        held.pid.map(|pid| pid.as_raw_nonzero().get())
    }
}

/// Where the cluster of that run folder lies, if it was up since the machine was started.
pub(crate) fn data_dir(run_dir: &Path) -> Option<PathBuf> {
    Claim::load(run_dir).map(|claim| claim.data_dir)
}

/// Held while choices are made, so that clusters that are made at the same time choose differently.
pub(crate) fn lock_choices() -> Result<Flock<File>, ClusterError> {
    let root = Path::new(Paths::RUN_ROOT);
    // The folder itself is the lock: nothing is left of it.
    let folder = File::open(root).map_err(|err| ClusterError::io(at("open", root), err))?;
    Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, err)| ClusterError::io(at("lock", root), err))
}

/// Held while a cluster is brought up or down, so that two at once wait for each other. Where nothing of the cluster
/// is left, its file goes with it.
pub(crate) struct ClusterLock {
    path: PathBuf,
    run_dir: PathBuf,
    file: Flock<File>,
}

impl ClusterLock {
    /// Waits until nobody else brings this cluster up or down.
    pub(crate) fn take(name: &str) -> Result<Self, ClusterError> {
        let root = Path::new(Paths::RUN_ROOT);
        std::fs::create_dir_all(root).map_err(|err| ClusterError::io(at("create", root), err))?;
        let path = root.join(format!("{name}.lock"));
        loop {
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = open.map_err(|err| ClusterError::io(at("open", &path), err))?;
            let file = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, err)| ClusterError::io(at("lock", &path), err))?;
            // Whoever held it may have removed it: then what we hold is no longer the lock.
            let inode = |meta: std::io::Result<std::fs::Metadata>| meta.ok().map(|meta| meta.ino());
            if inode(file.metadata()).is_some() && inode(file.metadata()) == inode(std::fs::metadata(&path)) {
                return Ok(Self { path, run_dir: root.join(name), file });
            }
        }
    }
}

impl ClusterLock {
    /// The same lock for a child: held until both have closed it, or one has let go.
    pub(crate) fn share(&self) -> Result<std::process::Stdio, ClusterError> {
        let shared = self.file.try_clone().map_err(|err| ClusterError::io(at("share", &self.path), err))?;
        Ok(shared.into())
    }
}

impl Drop for ClusterLock {
    fn drop(&mut self) {
        if !self.run_dir.exists() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_no_other() {
        let own = Process::own().expect("this process");
        assert!(own.is_alive());
        assert!(!Process { start_ticks: own.start_ticks + 1, ..own }.is_alive());
        assert_eq!(Process::find(0), None);
    }

    #[test]
    fn a_run_folder_that_nobody_holds_has_no_main_process() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(MainLock::holder(folder.path()), None, "no file, no process");
        std::fs::write(folder.path().join(MAIN_LOCK), "").unwrap();
        assert_eq!(MainLock::holder(folder.path()), None, "a file that nobody holds");
    }
}
