//! The seam between the node agent and whatever runs containers: the verbs of CRI v1
//! (`k8s.io/cri-api/pkg/apis/runtime/v1`), without its protobuf.
//!
//! All methods may be called from any task, in parallel for different sandboxes and containers. All are
//! idempotent where CRI says so: stopping what is stopped and removing what is gone succeed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::runtime::hooks::{Hook, Stage};

mod resources;

pub use resources::{
    DiskUsage, FileSystem, InterfaceUsage, IoLimit, IoUsage, Pressure, ProcessUsage, Resources, Stall, Throttling,
    Usage,
};

/// Runs pods' sandboxes and containers and keeps their images.
#[async_trait::async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Name and version, as in `node.status.nodeInfo.containerRuntimeVersion`: `reeve://0.1.0`.
    fn version(&self) -> String;
    /// What it can that not every engine can.
    fn features(&self) -> Features;

    /// Makes a pod's namespaces and cgroup. The network namespace is empty but for `lo` (up); the caller wires
    /// it through [`Sandbox::netns`].
    async fn run_pod_sandbox(&self, config: SandboxConfig) -> Result<Sandbox, EngineError>;
    /// Kills all containers of the sandbox and marks it not ready. Idempotent.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<(), EngineError>;
    /// Removes a sandbox with all its containers, namespaces and cgroups. Idempotent.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<(), EngineError>;
    /// Every sandbox the engine knows, also those of an earlier life of the process.
    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>, EngineError>;

    /// Prepares a container: root file system, mounts, log file. Nothing runs yet.
    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<String, EngineError>;
    /// Executes the container's command. An error that is the container's own fault (no such command) leaves
    /// it exited with the reason in its status.
    async fn start_container(&self, id: &str) -> Result<(), EngineError>;
    /// Sends the stop signal, waits up to `grace`, then kills through the cgroup. Returns when it is dead. A start that
    /// is under way is cut off instead, and [`Engine::start_container`] returns. Idempotent.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), EngineError>;
    /// Removes a container (killing it first if need be) and its root file system. Its log file stays. Idempotent.
    async fn remove_container(&self, id: &str) -> Result<(), EngineError>;
    /// Every container the engine knows.
    async fn list_containers(&self) -> Result<Vec<Container>, EngineError>;
    /// One container.
    async fn container_status(&self, id: &str) -> Result<Container, EngineError>;
    /// What each running container uses, by its id.
    async fn usage(&self) -> Result<BTreeMap<String, Usage>, EngineError>;
    /// The processes of each running container, by its id; of no container where the engine cannot tell. Looks at
    /// everything they have open: slow.
    async fn processes(&self) -> Result<BTreeMap<String, ProcessUsage>, EngineError> {
        Ok(BTreeMap::new())
    }
    /// What all of a sandbox's containers use together.
    async fn pod_sandbox_usage(&self, id: &str) -> Result<Usage, EngineError>;

    /// Sends a signal (`SIGHUP`, `hup`, `1`) to the first process of a running container.
    async fn signal_container(&self, id: &str, signal: &str) -> Result<(), EngineError>;
    /// Holds all processes of a running container still until [`Engine::resume_container`]; being asked to stop wakes
    /// it, being killed does not need to. Idempotent. Nothing can be run in it meanwhile.
    async fn pause_container(&self, id: &str) -> Result<(), EngineError>;
    /// Lets a paused container go on. Idempotent.
    async fn resume_container(&self, id: &str) -> Result<(), EngineError>;

    /// Changes the limits of a container that is created or runs, in place: what is `None` stays as it is. The new
    /// limits are in its configuration from then on, and `annotations` beside those it has, also in a later life of
    /// the engine. A memory limit that is already passed is refused as [`EngineError::Invalid`]; after any error the
    /// limits may have changed in part, and the call may be made again.
    async fn update_container_resources(
        &self,
        id: &str,
        resources: Resources,
        annotations: BTreeMap<String, String>,
    ) -> Result<(), EngineError>;
    /// The same for the group around all of a sandbox's containers. Whoever gives more calls this first, whoever takes
    /// away calls it last: no container may have more than its pod.
    async fn update_pod_sandbox_resources(&self, id: &str, resources: Resources) -> Result<(), EngineError>;

    /// Runs a command in a running container, with the container's own restrictions.
    async fn exec(&self, id: &str, config: ExecConfig) -> Result<ExecSession, EngineError>;
    /// Joins the streams of a running container's main process.
    async fn attach(&self, id: &str, config: AttachConfig) -> Result<ExecSession, EngineError>;

    /// Connects to a port on the pod's own loopback.
    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Connection, EngineError>;

    /// Lets go of a running container's log file, which somebody may have renamed, and goes on in a file of the same
    /// name, which is there when this returns.
    async fn reopen_container_log(&self, id: &str) -> Result<(), EngineError>;
    /// What a container has written into its own root file system. Looks at every file: slow.
    async fn writable_layer(&self, id: &str) -> Result<FsUsage, EngineError>;
    /// What all images take. Looks at every file: slow.
    async fn image_fs_usage(&self) -> Result<FsUsage, EngineError>;

    /// Writes a running container, which stands still meanwhile and then goes on, into an archive at `path`.
    /// [`EngineError::Unsupported`] says what is missing. `None` waits as long as the engine thinks fit; of a
    /// checkpoint that took longer nothing is left.
    async fn checkpoint_container(&self, id: &str, path: &Path, timeout: Option<Duration>) -> Result<(), EngineError>;

    /// What happens to containers from now on, in order. Ends when the receiver falls 1,024 events behind:
    /// list and subscribe again.
    fn events(&self) -> BoxStream<'static, EngineEvent>;

    /// Fetches an image unless it is complete already. Calls for the same image share one transfer.
    async fn pull_image(&self, image: &str, auth: Option<RegistryAuth>) -> Result<Image, EngineError>;
    /// The image of that name, digest reference or id, if it is here.
    async fn image_status(&self, image: &str) -> Result<Option<Image>, EngineError>;
    /// What an image says of itself: the document of its configuration. `None` where it is not here or not told.
    async fn image_config(&self, image: &str) -> Result<Option<serde_json::Value>, EngineError> {
        let _ = image;
        Ok(None)
    }
    /// All images.
    async fn list_images(&self) -> Result<Vec<Image>, EngineError>;
    /// Yields when images came or went since the last time, by whatever process; several changes may become one.
    /// Ends when nothing can be told any more.
    fn image_changes(&self) -> BoxStream<'static, ()>;
    /// Removes a name; with the last name, and when no container uses it, the image.
    async fn remove_image(&self, image: &str) -> Result<(), EngineError>;
}

/// An engine that can be handed to many tasks.
pub type SharedEngine = Arc<dyn Engine>;

/// What an engine can that not every one can, as in `node.status.runtimeHandlers` and `node.status.features`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// [`SandboxConfig::user_namespace`]
    pub user_namespaces: bool,
    /// [`Mount::recursive_read_only`]
    pub recursive_read_only_mounts: bool,
    /// [`Security::strict_groups`]
    pub supplemental_groups_policy: bool,
}

/// Where a namespace of a sandbox or container comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum NamespaceMode {
    /// Shared by the pod's containers (for PID: one pod-wide init reaps).
    Pod,
    /// Of its own. For PID, the default.
    #[default]
    Container,
    /// The node's.
    Node,
}

/// The ids of the node that a pod's user namespace has for users and groups: 0 inside is `first` on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UserNamespace {
    /// What 0 inside is on the node.
    pub first: u32,
    /// How many there are.
    pub length: u32,
}

impl UserNamespace {
    /// What an id inside is on the node; `None` for one that is not mapped.
    #[must_use]
    pub fn on_node(self, id: u32) -> Option<u32> {
        self.first.checked_add(id).filter(|_| id < self.length)
    }
}

/// What a pod's sandbox is to be.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct SandboxConfig {
    /// Pod name.
    pub name: String,
    /// Pod namespace.
    pub namespace: String,
    /// Pod UID.
    pub uid: String,
    /// How many sandboxes of this pod there were before.
    pub attempt: u32,
    /// Host name inside (at most 63 bytes); the node's for host-network pods.
    pub hostname: String,
    /// Uses the node's network namespace.
    pub host_network: bool,
    /// Uses the node's IPC namespace.
    pub host_ipc: bool,
    /// Which PID namespace the containers use by default.
    pub pid: NamespaceMode,
    /// A user namespace of its own, which owns all its other namespaces; `None` is the node's. The caller sees to it
    /// that no two pods have an id in common. Not with the network, IPC or PID namespace of the node.
    #[serde(default)]
    pub user_namespace: Option<UserNamespace>,
    /// Whether it may have privileged containers; the caller's own rule, the engine asks no more.
    #[serde(default)]
    pub privileged: bool,
    /// The pod's cgroup below the engine's root: `kubepods/burstable/podUID`. With a leading slash it is one from the
    /// top of every hierarchy, as a kubelet makes them: what is there already is its maker's, who limits and removes
    /// it.
    pub cgroup: String,
    /// Limits of the pod's cgroup.
    pub resources: Resources,
    /// Namespaced kernel parameters, `net.ipv4.ip_unprivileged_port_start` → `0`.
    pub sysctls: BTreeMap<String, String>,
    /// Folder of the pod's container logs.
    pub log_dir: PathBuf,
    /// Labels for the caller; kept and returned.
    pub labels: BTreeMap<String, String>,
    /// Annotations for the caller; kept and returned.
    pub annotations: BTreeMap<String, String>,
}

/// Whether a sandbox can take containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SandboxState {
    /// Its namespaces are there.
    Ready,
    /// It was stopped, or its namespaces are gone (reboot).
    NotReady,
}

/// A sandbox as the engine knows it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Sandbox {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// What it was made from.
    pub config: SandboxConfig,
    /// Whether it can take containers.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// Path of its pinned network namespace; `None` on the node's network.
    pub netns: Option<PathBuf>,
    /// Its addresses, where the engine has wired it itself: then nobody else may.
    #[serde(default)]
    pub ips: Vec<std::net::IpAddr>,
}

/// How mounts made later travel between node and container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the node into the container.
    HostToContainer,
    /// Both ways; privileged containers only.
    Bidirectional,
}

/// Something of the node's, or of an image, shown inside a container. In a pod with a user namespace of its own, ids of
/// files are the same inside and on the node's disk: the mount is id-mapped, or the container does not start.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// Path on the node: a folder or a file that exists. Empty where an image is shown.
    pub source: PathBuf,
    /// Absolute path in the container; made when missing, resolved inside its root.
    pub target: PathBuf,
    /// Whether the container may not write.
    pub read_only: bool,
    /// With `read_only`: nor below what is mounted inside it.
    #[serde(default)]
    pub recursive_read_only: bool,
    /// Whether programs in it may not become their owner.
    #[serde(default)]
    pub no_suid: bool,
    /// Whether device nodes in it are none.
    #[serde(default)]
    pub no_dev: bool,
    /// Whether nothing in it can be executed.
    #[serde(default)]
    pub no_exec: bool,
    /// How later mounts travel.
    pub propagation: Propagation,
    /// The image that is shown instead of `source`. Such a mount is `read_only`, and nothing in it can be executed.
    #[serde(default)]
    pub image: Option<ImageSource>,
}

/// An image as something to look into. It is kept as long as the container that shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageSource {
    /// Id of an image that is here (from [`Image::id`]).
    pub image: String,
    /// What it is called by whoever wants it.
    pub reference: String,
    /// The folder in it that is shown; empty for all of it. Links are followed inside the image.
    pub sub_path: String,
}

/// A device node shown inside a container.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Device {
    /// Path on the node.
    pub source: PathBuf,
    /// Path in the container.
    pub target: PathBuf,
    /// `rwm`
    pub permissions: String,
    /// Permissions of the node in the container; `None` takes the node's own. With owner and group, not in a pod with a
    /// user namespace of its own, which is shown the node's own device.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Its owner there, else root.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Its group there, else root's.
    #[serde(default)]
    pub gid: Option<u32>,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Seccomp {
    /// The engine's default profile.
    #[default]
    RuntimeDefault,
    /// All.
    Unconfined,
    /// A profile (OCI JSON) at an absolute path of the node.
    Localhost(PathBuf),
}

/// Which AppArmor profile a container's processes have.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum AppArmor {
    /// The engine's own, where the node has AppArmor; none for a privileged container.
    #[default]
    RuntimeDefault,
    /// None.
    Unconfined,
    /// One that somebody has loaded on the node, by its name.
    Localhost(String),
}

/// Who a container's process is and what it may do.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Security {
    /// All capabilities and devices, no seccomp, nothing masked or read-only.
    pub privileged: bool,
    /// User id; `None` takes the image's `USER`.
    pub run_as_user: Option<u32>,
    /// User by a name that the image knows, instead of `run_as_user`.
    #[serde(default)]
    pub run_as_username: Option<String>,
    /// Group id; `None` takes the image's or the user's primary group.
    pub run_as_group: Option<u32>,
    /// Refuse to start a process with uid 0, in Kubernetes' words.
    pub run_as_non_root: bool,
    /// Further groups.
    pub supplemental_groups: Vec<u32>,
    /// `supplementalGroupsPolicy: Strict`: what the image's `/etc/group` says of the user does not count.
    #[serde(default)]
    pub strict_groups: bool,
    /// Capabilities added to the default set, without `CAP_`; `ALL` means every one.
    pub capabilities_add: Vec<String>,
    /// Capabilities taken away, without `CAP_`; `ALL` means every one.
    pub capabilities_drop: Vec<String>,
    /// Sets `no_new_privs`: exactly when the pod says `allowPrivilegeEscalation: false`.
    pub no_new_privs: bool,
    /// The root file system may not be written.
    pub read_only_rootfs: bool,
    /// System calls.
    pub seccomp: Seccomp,
    /// What AppArmor allows.
    #[serde(default)]
    pub app_armor: AppArmor,
    /// `procMount: Unmasked`: paths below /proc and /sys are not hidden.
    pub unmasked_proc: bool,
    /// Paths that are hidden, instead of the engine's own list.
    #[serde(default)]
    pub masked_paths: Option<Vec<String>>,
    /// Paths that may not be written, instead of the engine's own list.
    #[serde(default)]
    pub read_only_paths: Option<Vec<String>>,
}

/// How large a container's log may become.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogLimits {
    /// Bytes after which a file is exchanged for a new one; `None` lets it grow.
    pub size_max_bytes: Option<u64>,
    /// Files that are kept, the current one included.
    pub files_max: usize,
}

/// What a container is to be.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct ContainerConfig {
    /// Its name in the pod.
    pub name: String,
    /// How often it was started before.
    pub attempt: u32,
    /// Id of an image that is here (from [`Image::id`]). One that is a checkpoint (its manifest says so) is restored:
    /// the container then stands on the image that the checkpoint names, and goes on where it was.
    pub image: String,
    /// An archive on the node that is a checkpoint, instead of `image`. Who says so decides what runs with which
    /// memory: nobody who only writes pods may.
    #[serde(default)]
    pub checkpoint: Option<PathBuf>,
    /// Overrides the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Overrides the image's arguments when not empty (and drops them when `command` is given).
    pub args: Vec<String>,
    /// Overrides the image's working folder when not empty.
    pub working_dir: String,
    /// Variables, over the image's.
    pub env: Vec<(String, String)>,
    /// What of the node is shown inside, in order.
    pub mounts: Vec<Mount>,
    /// Devices.
    pub devices: Vec<Device>,
    /// Programs of the node that run while it comes and goes, before those that the node's owner has for containers.
    #[serde(default)]
    pub hooks: Vec<(Stage, Hook)>,
    /// Limits.
    pub resources: Resources,
    /// User and restrictions.
    pub security: Security,
    /// PID namespace; `None` takes the sandbox's.
    pub pid: Option<NamespaceMode>,
    /// Id of a running container of the same pod whose PID namespace it joins, instead of `pid`.
    #[serde(default)]
    pub pid_of: Option<String>,
    /// Keep standard input open (until the first attached client closes it, if `stdin_once`).
    pub stdin: bool,
    /// See `stdin`.
    pub stdin_once: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Log file in CRI format, absolute. Older files lie beside it, their names ending with a time.
    pub log_path: PathBuf,
    /// How large the log may become.
    #[serde(default)]
    pub log_limits: LogLimits,
    /// Signal that asks it to stop; `None` takes the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Labels for the caller; kept and returned.
    pub labels: BTreeMap<String, String>,
    /// Annotations for the caller; kept and returned.
    pub annotations: BTreeMap<String, String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ContainerState {
    /// Prepared, never started.
    Created,
    /// Its process runs.
    Running {
        /// Since when.
        started_at: Timestamp,
        /// Its process as the node sees it.
        pid: i32,
    },
    /// Its process is gone.
    Exited {
        /// When it was started; `None` when it could not be.
        started_at: Option<Timestamp>,
        /// When it ended.
        finished_at: Timestamp,
        /// Exit code; 128 + signal; `None` when nobody saw it (then the status says so).
        exit_code: Option<i32>,
        /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
        reason: String,
        /// What a person should know; may be empty.
        message: String,
    },
}

/// Who a container's first process is when it starts, as `status.containerStatuses[].user.linux` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessUser {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
}

/// A container as the engine knows it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Container {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Id of its sandbox.
    pub sandbox: String,
    /// What it was made from.
    pub config: ContainerConfig,
    /// The image's digest reference or id, as in `status.containerStatuses[].imageID`.
    pub image_id: String,
    /// Who its first process is; `None` for a container of an engine that did not remember it.
    #[serde(default)]
    pub user: Option<ProcessUser>,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was prepared.
    pub created_at: Timestamp,
}

/// What a folder takes on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// The folder.
    pub path: PathBuf,
    /// Bytes, in blocks.
    pub used_bytes: u64,
    /// Files and folders.
    pub inodes: u64,
}

/// What happened to a container.
#[derive(Debug, Clone)]
pub struct EngineEvent {
    /// The container's sandbox.
    pub sandbox: String,
    /// The container as it is now.
    pub container: Container,
}

/// A command to run in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecConfig {
    /// Command and arguments; never empty.
    pub command: Vec<String>,
    /// Connect standard input.
    pub stdin: bool,
    /// Connect standard output.
    pub stdout: bool,
    /// Connect standard error; not with a terminal.
    pub stderr: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Kill it after this time; the exit is then [`EngineError::ExecTimeout`].
    pub timeout: Option<Duration>,
}

/// Which streams of a container to join.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttachConfig {
    /// Connect standard input.
    pub stdin: bool,
    /// Connect standard output.
    pub stdout: bool,
    /// Connect standard error.
    pub stderr: bool,
}

/// A stream out of a container.
pub type OutputStream = Pin<Box<dyn AsyncRead + Send + 'static>>;
/// A stream into a container.
pub type InputStream = Pin<Box<dyn AsyncWrite + Send + 'static>>;
/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
/// A connection to a pod.
pub type Connection = Box<dyn Duplex>;
/// Resolves with the exit code when the process has ended.
pub type ExitFuture = Pin<Box<dyn Future<Output = Result<i32, EngineError>> + Send + 'static>>;

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A running command's streams. Dropping it kills an exec'd command; it only detaches from a container.
pub struct ExecSession {
    /// Standard input, if connected; dropping it closes the other end.
    pub stdin: Option<InputStream>,
    /// Standard output (both outputs, with a terminal), if connected.
    pub stdout: Option<OutputStream>,
    /// Standard error, if connected.
    pub stderr: Option<OutputStream>,
    /// Changes the terminal's size; `None` without a terminal. Holds 4; a full queue may drop older sizes.
    pub resize: Option<tokio::sync::mpsc::Sender<TerminalSize>>,
    /// Whether the session is over with its input: attached to a container whose input stays open for others.
    pub ends_with_input: bool,
    /// The end.
    pub exit: ExitFuture,
}

impl std::fmt::Debug for ExecSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecSession").finish_non_exhaustive()
    }
}

/// Credentials for a registry.
#[derive(Clone)]
pub struct RegistryAuth {
    /// User.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

/// An image that is complete and ready for use.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Image {
    /// Digest of its configuration: `sha256:…`.
    pub id: String,
    /// Names, `docker.io/library/nginx:1.27`.
    pub tags: Vec<String>,
    /// Digest references, `docker.io/library/nginx@sha256:…`.
    pub digests: Vec<String>,
    /// Bytes of its layers, unpacked.
    pub size_bytes: u64,
    /// When it was built, if it says so.
    pub created_at: Option<Timestamp>,
    /// User from its configuration; empty means root.
    pub user: String,
}

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No sandbox, container or image of that id.
    #[error("no such {what}: {id}")]
    NotFound {
        /// `sandbox`, `container`, `image`
        what: &'static str,
        /// What was asked for.
        id: String,
    },
    /// The request is wrong, whoever made it: a bad image name, no command, a mount source that is missing.
    #[error("{0}")]
    Invalid(String),
    /// The container is not in the state the request needs.
    #[error("container {id} is {state}")]
    WrongState {
        /// The container.
        id: String,
        /// Its state, in a word.
        state: &'static str,
    },
    /// The registry does not have it, refuses, or cannot be reached. Retry with back-off.
    #[error("{reason}")]
    Pull {
        /// The image.
        image: String,
        /// The registry's or the network's words.
        reason: String,
    },
    /// The container's command could not be executed, or its user, folder or mounts are wrong:
    /// the container's fault, shown in its status.
    #[error("{0}")]
    Start(String),
    /// A command ran longer than its timeout and was killed.
    #[error("command {command:?} timed out after {seconds} s")]
    ExecTimeout {
        /// The command.
        command: String,
        /// The limit.
        seconds: u64,
    },
    /// The kernel, or another runtime, lacks what the request needs: says what, as a whole sentence.
    #[error("{0}")]
    Unsupported(String),
    /// The operating system refused a step.
    #[error("failed to {step}: {source}")]
    Io {
        /// What was tried, with the path.
        step: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
