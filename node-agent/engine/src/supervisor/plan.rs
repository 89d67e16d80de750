//! Launch plans: what the agent compiled and the supervisor executes without thinking.
//!
//! Everything here is flat and checked: paths, numbers and a BPF program. All parsing, name look-up and
//! judging happened in the agent (`runtime/`); the supervisor is to stay small and boring.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::{LogLimits, Propagation, UserNamespace};

/// Everything needed to start a container's first process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// The container's id.
    pub container: String,
    /// Namespaces to join or make.
    pub namespaces: NamespacePlan,
    /// The container's root file system.
    pub rootfs: PathBuf,
    /// Whether the root file system itself is read-only.
    pub rootfs_read_only: bool,
    /// What is done to the root file system, in order.
    pub root_ops: Vec<RootOp>,
    /// Where the process is counted and limited.
    pub cgroup: CgroupPlan,
    /// Who the process is and what it executes.
    pub process: ProcessPlan,
    /// Its streams and their log.
    pub streams: StreamPlan,
    /// Files that tell the next supervisor and the agent what happened.
    pub records: RecordPlan,
    /// Where it waits to be told to go on.
    #[serde(default)]
    pub pauses: PausePlan,
    /// Its processes come back from a checkpoint, instead of one being executed.
    #[serde(default)]
    pub restore: Option<RestorePlan>,
}

/// How processes come back from a checkpoint: by CRIU, which whoever launches tells what to do through a socket that
/// travels behind the mounts. The container's root is built as ever and not entered: it is what CRIU takes mounts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// CRIU.
    pub program: PathBuf,
    /// A folder at which the root is mounted once more, with nothing mounted in it.
    pub view: PathBuf,
}

/// Where a container's first process waits for its launcher, who has hooks to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausePlan {
    /// With its namespaces and its root, before it changes into that.
    pub created: bool,
    /// Inside, before its command.
    pub starting: bool,
}

/// Which namespaces the first process gets. Mount and cgroup namespaces are always its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NamespacePlan {
    /// The pod's user namespace; `None` keeps the node's.
    #[serde(default)]
    pub user: Option<UserPlan>,
    /// Pinned network namespace; `None` keeps the node's.
    pub net: Option<PathBuf>,
    /// Pinned IPC namespace; `None` keeps the node's.
    pub ipc: Option<PathBuf>,
    /// Pinned UTS namespace; `None` keeps the node's.
    pub uts: Option<PathBuf>,
    /// Its PID namespace.
    pub pid: PidPlan,
}

/// A pinned user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserPlan {
    /// Where it is kept.
    pub path: PathBuf,
    /// What it maps.
    pub ids: UserNamespace,
}

/// Where a container's process ids come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidPlan {
    /// A new namespace, whose init is the container's first process.
    #[default]
    New,
    /// The node's.
    Node,
    /// The pod's, held by the small init of that sandbox (see [`InitPlan`]).
    Pod(String),
    /// That of a running container's first process.
    Of(String),
}

/// One step in the making of a container's root. Targets are absolute, without `.` and `..`, and are resolved
/// inside the root whatever symbolic links the image holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootOp {
    /// Mounts a new file system, with the options of `fsconfig(2)` and the attributes of `mount_setattr(2)`.
    Mount {
        /// `proc`, `tmpfs`, …
        fs: String,
        /// Where; made when missing.
        target: String,
        /// Key and value; an empty value sets a flag.
        options: Vec<(String, String)>,
        /// `MOUNT_ATTR_*` bits.
        attributes: u64,
    },
    /// Shows a file or folder of the node.
    Bind {
        /// Path on the node.
        source: String,
        /// Where; made when missing.
        target: String,
        /// With what is mounted below the source.
        recursive: bool,
        /// Whether ids on the disk are those inside the pod's user namespace, if it has one.
        #[serde(default)]
        id_mapped: bool,
        /// `MOUNT_ATTR_*` bits.
        attributes: u64,
        /// Whether they hold for what is mounted below, too.
        #[serde(default)]
        deep: bool,
        /// How later mounts travel.
        propagation: Propagation,
    },
    /// Shows an image. Its mount comes along with the plan: the first such step has the first of them.
    Image {
        /// Its id.
        image: String,
        /// Where; made when missing.
        target: String,
    },
    /// Makes a device node, or replaces what is there.
    Device {
        /// Where; its folder is made when missing.
        target: String,
        /// File type and permissions, as in `mknod(2)`.
        mode: u32,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Owner.
        #[serde(default)]
        uid: u32,
        /// Group.
        #[serde(default)]
        gid: u32,
    },
    /// Makes a symbolic link unless something is there.
    Symlink {
        /// What it says.
        to: String,
        /// Where.
        target: String,
    },
    /// Makes a folder when missing.
    Folder {
        /// Where.
        target: String,
    },
    /// Hides a file or folder, if it exists.
    Mask {
        /// What.
        target: String,
    },
    /// Makes a file or folder read-only, if it exists.
    ReadOnly {
        /// What.
        target: String,
    },
    /// Keeps a folder of the root writable when the root becomes read-only; made when missing.
    Writable {
        /// Which.
        target: String,
    },
}

impl fmt::Display for RootOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { fs, target, .. } => write!(f, "mount {fs} at {target}"),
            Self::Bind { source, target, .. } => write!(f, "mount {source} at {target}"),
            Self::Image { image, target } => write!(f, "mount image {image} at {target}"),
            Self::Device { target, .. } => write!(f, "make device {target}"),
            Self::Symlink { target, .. } => write!(f, "make symbolic link {target}"),
            Self::Folder { target } => write!(f, "make folder {target}"),
            Self::Mask { target } => write!(f, "mask {target}"),
            Self::ReadOnly { target } => write!(f, "make {target} read-only"),
            Self::Writable { target } => write!(f, "keep {target} writable"),
        }
    }
}

/// Where a process is counted and limited. The groups exist already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupPlan {
    /// The v2 group: entered by `CLONE_INTO_CGROUP`, killed through `cgroup.kill`.
    pub unified: Option<PathBuf>,
    /// The v1 groups, one per hierarchy, into which the child writes itself.
    pub legacy: Vec<PathBuf>,
    /// File whose `oom_kill` line counts the victims of the memory limit.
    pub oom_events: Option<PathBuf>,
}

/// Who a process is and what it executes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// Command and arguments; never empty.
    pub argv: Vec<String>,
    /// What to try to execute, in order: `argv[0]`, or the same in each folder of `PATH`.
    pub candidates: Vec<String>,
    /// Whether `candidates` came from a look-up in `PATH`.
    pub searched: bool,
    /// `NAME=value`
    pub env: Vec<String>,
    /// Absolute working folder inside the root.
    pub cwd: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Capabilities, one bit each: bounding, permitted and effective set.
    pub capabilities: u64,
    /// Whether `no_new_privs` is set.
    pub no_new_privs: bool,
    /// The seccomp filter; `None` allows everything.
    pub seccomp: Option<BpfProgram>,
    /// The AppArmor profile; `None` leaves the supervisor's.
    #[serde(default)]
    pub app_armor: Option<String>,
    /// Soft and hard limit of open files; lowered to the supervisor's own hard limit.
    pub open_files_max: u64,
    /// OOM score adjustment; a refusal to lower it is not an error.
    pub oom_score_adj: Option<i32>,
    /// Whether its standard streams are one terminal, which becomes its controlling terminal.
    pub terminal: bool,
}

/// A classic BPF program as the kernel takes it: 8 bytes per instruction, in the machine's byte order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfProgram(#[serde(with = "base64_bytes")] pub Vec<u8>);

/// A container's streams.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StreamPlan {
    /// FIFO of its standard input; `None` means `/dev/null`.
    pub stdin: Option<PathBuf>,
    /// FIFO of its standard output (unused with a terminal).
    pub stdout: PathBuf,
    /// FIFO of its standard error (unused with a terminal).
    pub stderr: PathBuf,
    /// Log file in CRI format.
    pub log: PathBuf,
    /// How large it may become.
    #[serde(default)]
    pub log_limits: LogLimits,
}

/// Files that outlive the supervisor.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RecordPlan {
    /// Written (in the run folder) before anybody hears of the start: a [`RunRecord`].
    pub started: PathBuf,
    /// Written (in the data folder) when the container has ended and its log is complete: an [`ExitRecord`].
    pub exited: PathBuf,
}

/// That a container's first process was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Process id as the node sees it.
    pub pid: i32,
    /// Its start time in clock ticks since boot (`/proc/PID/stat`): with the pid, it names one process only.
    pub start_ticks: u64,
    /// `/proc/sys/kernel/random/boot_id` of that boot.
    pub boot_id: String,
    /// When.
    pub started_at: jiff::Timestamp,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// When it was started; `None` when it could not be.
    pub started_at: Option<jiff::Timestamp>,
    /// When it ended.
    pub finished_at: jiff::Timestamp,
    /// Exit code, or 128 + signal; `None` when nobody saw it.
    pub exit_code: Option<i32>,
    /// As in [`crate::engine::ContainerState::Exited`].
    pub reason: String,
    /// As in [`crate::engine::ContainerState::Exited`].
    pub message: String,
}

/// What is needed to take over a container whose supervisor died.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdoptPlan {
    /// The container's id.
    pub container: String,
    /// Its first process.
    pub run: RunRecord,
    /// Its cgroups.
    pub cgroup: CgroupPlan,
    /// Its streams.
    pub streams: StreamPlan,
    /// Its records.
    pub records: RecordPlan,
    /// Whether it has a terminal; the master then travels with the request, or is lost.
    pub terminal: bool,
}

/// A pod-wide init: the first process of a PID namespace that containers share. It only reaps.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InitPlan {
    /// The sandbox it belongs to.
    pub sandbox: String,
    /// Where it is counted.
    pub cgroup: CgroupPlan,
    /// The pod's user namespace, if it has one.
    #[serde(default)]
    pub user: Option<UserPlan>,
    /// Written before anybody hears of the start.
    pub started: PathBuf,
}

/// A command to run inside a running container. Its three standard streams travel with the request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecPlan {
    /// The container.
    pub container: String,
    /// Name of this run, unique on its connection.
    pub exec: u64,
    /// Who it is and what it executes.
    pub process: ProcessPlan,
    /// Where it is counted.
    pub cgroup: CgroupPlan,
    /// What the user namespace of the container's pod maps, if it has one.
    #[serde(default)]
    pub user: Option<UserNamespace>,
}

/// Bytes as base64: a filter of 600 instructions in JSON numbers would be three times as long.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(de::Error::custom)
    }
}
