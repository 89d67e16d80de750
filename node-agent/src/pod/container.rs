//! From a container of a pod to what the engine is asked to make.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use reeve_engine::engine::{
    ContainerConfig, Device, Image, ImageSource, LogLimits, Mount, NamespaceMode, Resources, SandboxConfig,
    UserNamespace,
};

use super::env::{EnvError, environment, service_links};
use super::expand::{TooLong, expand};
use super::field::Surroundings;
use super::files::{PodFiles, hostname};
use super::huge_pages;
use super::resize::annotation;
use super::resources::{Size, cgroup, container_resources, pod_resources};
use super::security::{SecurityError, security};
use super::state::spec;
use crate::objects::PodObjects;
use crate::pod::context::NodeContext;
use crate::volume::{Mounted, VolumeMountError, Volumes, mounts};

/// Labels and annotations that lead from an engine's container back to its pod; the kubelet's own names.
pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// The image as the pod names it.
pub(crate) const IMAGE: &str = "io.reeve.container.image";

/// Where the termination message stands in a container when the pod does not say.
const TERMINATION_PATH: &str = "/dev/termination-log";
/// Most of a termination message that is shown. Source: kubelet `MaxContainerTerminationMessageLength`.
const TERMINATION_MESSAGE_MAX: usize = 4096;
/// The same for what is taken from the log.
/// Source: kubelet `MaxContainerTerminationMessageLogLength` and `…LogLines`.
const TERMINATION_LOG_MAX: usize = 2048;
const TERMINATION_LOG_LINES: usize = 80;

/// A log file that has grown to this is exchanged. Source: kubelet `containerLogMaxSize`.
const LOG_SIZE_MAX_BYTES: u64 = 10 << 20;
/// Log files of one life of a container, the current one included. Source: kubelet `containerLogMaxFiles`.
const LOG_FILES_MAX: usize = 5;

/// Why a container cannot be made as its pod says: `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error(transparent)]
    Env(#[from] EnvError),
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error(transparent)]
    Mounts(#[from] VolumeMountError),
    /// It is to see the processes of one that does not run.
    #[error("unable to find target container {0}")]
    Target(String),
    /// A word of the command.
    #[error("a word of the command is {0}")]
    TooLong(#[from] TooLong),
    #[error("failed to prepare {path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// What a container is made from.
pub(crate) struct ContainerInputs<'i> {
    pub(crate) node: &'i NodeContext,
    pub(crate) pod: &'i Pod,
    pub(crate) container: &'i Container,
    pub(crate) attempt: u32,
    pub(crate) image: &'i Image,
    pub(crate) mounted: &'i Mounted,
    /// What its volumes show that are images, by their names.
    pub(crate) images: &'i BTreeMap<String, ImageSource>,
    pub(crate) objects: &'i PodObjects,
    pub(crate) around: &'i Surroundings,
}

/// The sandbox of a pod.
pub(crate) fn sandbox_config(
    node: &NodeContext,
    pod: &Pod,
    attempt: u32,
    user_namespace: Option<UserNamespace>,
) -> SandboxConfig {
    let (spec, meta) = (spec(pod), &pod.metadata);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (name, namespace, uid) = (text(&meta.name), text(&meta.namespace), text(&meta.uid));
    let pid = if spec.host_pid == Some(true) {
        NamespaceMode::Node
    } else if spec.share_process_namespace == Some(true) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    SandboxConfig {
        hostname: hostname(pod, &node.config),
        host_network: spec.host_network == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        pid,
        user_namespace,
        privileged: all_containers(spec).any(is_privileged),
        cgroup: cgroup(pod),
        resources: Resources {
            hugepages: huge_pages::of_pod(spec, node.capacity.huge_pages.keys().copied()),
            pids_max: Some(node.config.pod_pids_limit.into()),
            ..pod_resources(spec)
        },
        sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        log_dir: node.config.log_dir(&namespace, &name, &uid),
        labels: pod_labels(pod),
        // A runtime's hooks go by them.
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        attempt,
        name,
        namespace,
        uid,
    }
}

fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|context| context.privileged) == Some(true)
}

fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    BTreeMap::from([
        (POD_NAME.to_owned(), text(&pod.metadata.name)),
        (POD_NAMESPACE.to_owned(), text(&pod.metadata.namespace)),
        (POD_UID.to_owned(), text(&pod.metadata.uid)),
    ])
}

/// The container of a pod. Touches the disk: it makes the files and folders that are mounted.
pub(crate) fn container_config(inputs: &ContainerInputs<'_>) -> Result<ContainerConfig, ConfigError> {
    let (node, pod, container) = (inputs.node, inputs.pod, inputs.container);
    let services = node.services.store().list();
    let links = service_links(pod, services.iter().map(AsRef::as_ref));
    let env = environment(pod, container, &links, inputs.objects, inputs.around)?;
    let expanded = |words: &Option<Vec<String>>| -> Result<Vec<String>, TooLong> {
        let lookup = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        words.iter().flatten().map(|word| expand(word, lookup)).collect()
    };
    let security = security(pod, container, inputs.image, &node.config.data_dir.join("seccomp"))?;
    let pod_dir = node.config.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    let mut labels = pod_labels(pod);
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    let annotations = BTreeMap::from([
        (RESTART_COUNT.to_owned(), inputs.attempt.to_string()),
        (IMAGE.to_owned(), container.image.clone().unwrap_or_default()),
        annotation(Size::of(spec(pod), container)),
    ]);
    let volumes = Volumes { mounted: inputs.mounted, images: inputs.images };
    let (devices, volume_mounts) =
        (Vec::<Device>::new(), mounts(container, volumes, &env, &pins(&pod_dir, container))?);
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt: inputs.attempt,
        image: inputs.image.id.clone(),
        // An image may be one; files of the node are not for pods to choose.
        checkpoint: None,
        command: expanded(&container.command)?,
        args: expanded(&container.args)?,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: all_mounts(inputs, &pod_dir, volume_mounts)?,
        devices,
        hooks: Vec::new(),
        resources: Resources {
            hugepages: huge_pages::of_container(spec(pod), container, node.capacity.huge_pages.keys().copied()),
            ..container_resources(pod, container, node.capacity.memory_bytes)
        },
        security,
        pid: None,
        pid_of: None,
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        log_path: log_path(node, pod, &container.name, inputs.attempt)?,
        log_limits: LogLimits { size_max_bytes: Some(LOG_SIZE_MAX_BYTES), files_max: LOG_FILES_MAX },
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        env,
        labels,
        annotations,
    })
}

fn pins(pod_dir: &Path, container: &Container) -> PathBuf {
    pod_dir.join("volume-subpaths").join(&container.name)
}

/// The log file of one life of a container: `CONTAINER/ATTEMPT.log` in the pod's log folder.
fn log_path(node: &NodeContext, pod: &Pod, container: &str, attempt: u32) -> Result<PathBuf, ConfigError> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let dir = node.config.log_dir(&text(&meta.namespace), &text(&meta.name), &text(&meta.uid)).join(container);
    fs::create_dir_all(&dir).map_err(|source| ConfigError::Io { path: dir.clone(), source })?;
    Ok(dir.join(format!("{attempt}.log")))
}

/// The pod's files, then its volumes (which may cover them), then the place of the termination message.
fn all_mounts(inputs: &ContainerInputs<'_>, pod_dir: &Path, volumes: Vec<Mount>) -> Result<Vec<Mount>, ConfigError> {
    let files = PodFiles::of(pod_dir);
    let read_only = inputs.container.security_context.as_ref().and_then(|context| context.read_only_root_filesystem);
    let file = |source: PathBuf, target: &str| Mount {
        source,
        target: PathBuf::from(target),
        read_only: read_only == Some(true),
        ..Mount::default()
    };
    let own = [
        file(files.hosts, "/etc/hosts"),
        file(files.resolv_conf, "/etc/resolv.conf"),
        file(files.hostname, "/etc/hostname"),
    ];
    let covered = |mount: &Mount| volumes.iter().any(|volume| volume.target == mount.target);
    let mut mounts: Vec<Mount> = own.into_iter().filter(|mount| !covered(mount)).collect();
    mounts.extend(volumes);
    let message = termination_file(pod_dir, &inputs.container.name, inputs.attempt);
    let io = |source| ConfigError::Io { path: message.clone(), source };
    if let Some(dir) = message.parent() {
        fs::create_dir_all(dir).map_err(io)?;
    }
    fs::write(&message, "").map_err(io)?;
    // Whoever the container's user is must be able to write it. Source: kubelet `makeMounts`.
    fs::set_permissions(&message, std::os::unix::fs::PermissionsExt::from_mode(0o666)).map_err(io)?;
    let target = inputs.container.termination_message_path.as_deref().filter(|path| !path.is_empty());
    mounts.push(Mount { read_only: false, ..file(message, target.unwrap_or(TERMINATION_PATH)) });
    Ok(mounts)
}

/// The file behind a container's termination message.
fn termination_file(pod_dir: &Path, container: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(container).join(format!("termination-log-{attempt}"))
}

/// What a container left as its last word: its message file, or the end of its log where the pod wants that.
pub(crate) fn termination_message(
    pod_dir: &Path,
    container: &Container,
    attempt: u32,
    log: &Path,
    code: i32,
) -> String {
    let text = read_tail(&termination_file(pod_dir, &container.name, attempt), TERMINATION_MESSAGE_MAX);
    let wants_log = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if !text.is_empty() || !wants_log || code == 0 {
        return text;
    }
    let tail = read_tail(log, TERMINATION_LOG_MAX * 4);
    let lines: Vec<_> = tail.lines().filter_map(crate::logs::cri::message_of).collect();
    let text: String = lines.into_iter().rev().take(TERMINATION_LOG_LINES).rev().collect();
    last_bytes(&text, TERMINATION_LOG_MAX).to_owned()
}

/// The last `max` bytes of a file that is nobody's device, pipe or link.
fn read_tail(path: &Path, max: usize) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let is_file = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file());
    let Some(mut file) = fs::File::open(path).ok().filter(|_| is_file) else { return String::new() };
    let len = file.metadata().map_or(0, |meta| meta.len());
    let skip = len.saturating_sub(max as u64);
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(skip)).is_err() || file.take(max as u64).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_bytes(text: &str, max: usize) -> &str {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
