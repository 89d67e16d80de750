//! A pod's volumes: made before its containers, kept current, taken away after them.
//!
//! What is here: emptyDir, hostPath, configMap, secret, downwardAPI, projected. Images are the engine's to mount
//! (`pod/image_volumes.rs` sees to it that they are there). What is not: anything that has to be attached (persistent
//! volumes); such a volume is refused with its name.

mod atomic;
mod local;
mod mounts;
mod payload;
pub(crate) mod subpath;
pub(crate) mod token;
pub(crate) mod usage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

use crate::objects::PodObjects;
use crate::pod::context::NodeContext;
use crate::pod::field::Surroundings;
use crate::pod::resources::pod_resources;
use crate::pod::state::spec;

pub(crate) use mounts::{VolumeMountError, Volumes, is_recursive_read_only, mounts};

/// Where the pod's volumes are on the node, by name.
pub(crate) type Mounted = BTreeMap<String, MountedVolume>;

/// One volume on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountedVolume {
    pub(crate) path: PathBuf,
    /// Its content is ours to write only (configMap, secret …).
    pub(crate) read_only: bool,
}

/// Why a volume cannot be made. Retried with back-off; shown as a `FailedMount` event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    SetUp {
        volume: String,
        #[source]
        source: SetUpError,
    },
    #[error("the pod is being stopped")]
    Stopped,
}

/// Why one volume cannot be made. Texts that the kubelet has are the kubelet's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    #[error("{kind} \"{name}\" not found")]
    NoObject { kind: &'static str, name: String },
    #[error("references non-existent {kind} key: {key}")]
    NoKey { kind: &'static str, key: String },
    #[error("hostPath type check failed: {path} is not {wanted}")]
    HostPathType { path: String, wanted: &'static str },
    #[error("hostPath type check failed: {0} does not exist")]
    HostPathMissing(String),
    #[error("volume type {0} is not supported by this node")]
    Unsupported(&'static str),
    #[error("invalid path {0:?}: must be relative and must not contain '..'")]
    BadPath(String),
    #[error("unknown storage medium {0:?}")]
    Medium(String),
    #[error(transparent)]
    HugePages(#[from] crate::pod::huge_pages::MediumError),
    #[error("sizeLimit {0:?} is no quantity")]
    SizeLimit(String),
    #[error("failed to fetch token: {0}")]
    Token(String),
    #[error(transparent)]
    Field(#[from] crate::pod::field::FieldError),
    #[error("failed to {step}: {source}")]
    Io {
        step: String,
        #[source]
        source: std::io::Error,
    },
}

impl SetUpError {
    /// For `map_err`: what was being done, with the path.
    pub(crate) fn io(step: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let step = format!("{step} {}", path.display());
        move |source| Self::Io { step, source }
    }
}

/// What volumes are made from.
pub(crate) struct VolumeInputs {
    pub(crate) pod: Arc<Pod>,
    pub(crate) objects: Arc<PodObjects>,
    pub(crate) around: Surroundings,
    /// Tokens of the pod that were issued before.
    pub(crate) tokens: Arc<token::IssuedTokens>,
}

/// All volumes of a pod, and when its tokens have to be renewed.
pub(crate) struct VolumesReady {
    pub(crate) mounted: Mounted,
    pub(crate) renew_at: Option<Timestamp>,
}

/// Makes all volumes, or brings their content up to date: safe to call again at any time.
pub(crate) async fn set_up(node: &NodeContext, inputs: VolumeInputs) -> Result<VolumesReady, VolumeError> {
    inputs.objects.synced().await;
    let mut tokens = BTreeMap::new();
    let mut renew_at: Option<Timestamp> = None;
    for volume in spec(&inputs.pod).volumes.iter().flatten() {
        let fetched = token::fetch(node, &inputs.pod, volume, &inputs.tokens).await;
        for token in fetched.map_err(|source| VolumeError::SetUp { volume: volume.name.clone(), source })? {
            renew_at = Some(renew_at.map_or(token.renew_at, |at| at.min(token.renew_at)));
            tokens.insert((volume.name.clone(), token.path), token.token);
        }
    }
    let dir = node.config.pod_dir(inputs.pod.metadata.uid.as_deref().unwrap_or_default());
    let now = node.now();
    let job = tokio::task::spawn_blocking(move || write_all(&dir, &inputs, &tokens, now));
    let mounted = job.await.map_err(|_| VolumeError::Stopped)??;
    Ok(VolumesReady { mounted, renew_at })
}

/// Tokens by volume and path in it.
type Tokens = BTreeMap<(String, String), String>;

fn write_all(dir: &Path, inputs: &VolumeInputs, tokens: &Tokens, now: Timestamp) -> Result<Mounted, VolumeError> {
    let mut mounted = Mounted::new();
    let volumes = spec(&inputs.pod).volumes.iter().flatten();
    for volume in volumes.filter(|volume| volume.image.is_none()) {
        let made = write_one(dir, volume, inputs, tokens, now);
        let made = made.map_err(|source| VolumeError::SetUp { volume: volume.name.clone(), source })?;
        mounted.insert(volume.name.clone(), made);
    }
    Ok(mounted)
}

fn write_one(
    dir: &Path,
    volume: &Volume,
    inputs: &VolumeInputs,
    tokens: &Tokens,
    now: Timestamp,
) -> Result<MountedVolume, SetUpError> {
    let fs_group = spec(&inputs.pod).security_context.as_ref().and_then(|context| context.fs_group);
    let fs_group = fs_group.and_then(|group| u32::try_from(group).ok());
    let home = |kind: &str| dir.join("volumes").join(format!("kubernetes.io~{kind}")).join(&volume.name);
    if let Some(source) = &volume.empty_dir {
        let path = home("empty-dir");
        let pod = Some(spec(&inputs.pod));
        let inputs = local::EmptyDirInputs { group: fs_group, memory_max: memory_max(inputs), pod };
        local::empty_dir(&path, source, &inputs)?;
        return Ok(MountedVolume { path, read_only: false });
    }
    if let Some(source) = &volume.host_path {
        local::host_path(source)?;
        return Ok(MountedVolume { path: PathBuf::from(&source.path), read_only: false });
    }
    let Some(kind) = payload::kind(volume) else {
        return Err(SetUpError::Unsupported(local::type_name(volume)));
    };
    let path = home(kind);
    let files = payload::files(volume, inputs, tokens)?;
    if kind != "configmap" {
        local::tmpfs(&path, None)?;
    }
    atomic::write(&path, &files, fs_group, now)?;
    Ok(MountedVolume { path, read_only: true })
}

/// The most an emptyDir in memory may hold: what the pod may use, or all pods together.
/// Source: kubelet `calculateEmptyDirMemorySize`.
fn memory_max(inputs: &VolumeInputs) -> Option<u64> {
    let pod = pod_resources(spec(&inputs.pod)).memory_limit_bytes.and_then(|bytes| u64::try_from(bytes).ok());
    [pod, Some(inputs.around.allocatable_memory)].into_iter().flatten().filter(|bytes| *bytes > 0).min()
}

/// Unmounts everything below a pod's folder and removes the folder. Idempotent.
pub(crate) async fn tear_down(pod_dir: PathBuf) -> std::io::Result<()> {
    let job = tokio::task::spawn_blocking(move || local::remove_pod_dir(&pod_dir));
    job.await.map_err(std::io::Error::other)?
}
