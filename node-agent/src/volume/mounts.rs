//! A container's `volumeMounts`: which part of which volume stands where.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use reeve_engine::engine::{Mount, Propagation};

use super::subpath::{Pin, pin};
use super::{Mounted, SetUpError};
use crate::pod::expand::{TooLong, expand};

/// Why a container's mounts cannot be made: shown as `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeMountError {
    #[error("cannot find volume \"{volume}\" to mount into container \"{container}\"")]
    NoVolume { volume: String, container: String },
    #[error("subPathExpr of volumeMount \"{volume}\" of container \"{container}\" is {source}")]
    TooLong {
        volume: String,
        container: String,
        #[source]
        source: TooLong,
    },
    #[error("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\": {source}")]
    SubPath {
        volume: String,
        container: String,
        #[source]
        source: SetUpError,
    },
}

/// The mounts of a container. `env` is for `subPathExpr`; `pins` is where parts of volumes are pinned.
pub(crate) fn mounts(
    container: &Container,
    mounted: &Mounted,
    env: &[(String, String)],
    pins: &Path,
) -> Result<Vec<Mount>, VolumeMountError> {
    let mut mounts = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = mounted.get(&wanted.name).ok_or_else(|| VolumeMountError::NoVolume {
            volume: wanted.name.clone(),
            container: container.name.clone(),
        })?;
        let part = sub_path(wanted, env).map_err(|source| VolumeMountError::TooLong {
            volume: wanted.name.clone(),
            container: container.name.clone(),
            source,
        })?;
        let source = match part {
            None => volume.path.clone(),
            Some(part) => pin(&volume.path, &part, &Pin { dir: pins, index }).map_err(|source| {
                VolumeMountError::SubPath { volume: wanted.name.clone(), container: container.name.clone(), source }
            })?,
        };
        mounts.push(Mount {
            source,
            target: PathBuf::from(&wanted.mount_path),
            read_only: wanted.read_only == Some(true) || volume.read_only,
            recursive_read_only: is_recursive_read_only(wanted),
            propagation: propagation(wanted),
            image: None,
        });
    }
    Ok(mounts)
}

/// Whether nothing below the mount may be written either. The engine can always do that, so `IfPossible` means yes.
/// Source: kubelet `resolveRecursiveReadOnly`.
pub(crate) fn is_recursive_read_only(wanted: &VolumeMount) -> bool {
    let asked = matches!(wanted.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    asked && wanted.read_only == Some(true)
}

fn sub_path(wanted: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, TooLong> {
    if let Some(expression) = wanted.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
        let lookup = |name: &str| env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        return expand(expression, lookup).map(Some);
    }
    Ok(wanted.sub_path.clone().filter(|path| !path.is_empty()))
}

fn propagation(wanted: &VolumeMount) -> Propagation {
    match wanted.mount_propagation.as_deref() {
        Some("HostToContainer") => Propagation::HostToContainer,
        Some("Bidirectional") => Propagation::Bidirectional,
        _ => Propagation::Private,
    }
}

#[cfg(test)]
mod tests {
    use super::super::MountedVolume;
    use super::*;

    #[test]
    fn mounts_name_their_source_target_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("p1")).unwrap();
        let mounted = Mounted::from([
            ("data".to_owned(), MountedVolume { path: volume.clone(), read_only: false }),
            ("cfg".to_owned(), MountedVolume { path: volume.clone(), read_only: true }),
        ]);
        let container: Container = serde_json::from_value(serde_json::json!({ "name": "c", "volumeMounts": [
            { "name": "data", "mountPath": "/data" },
            { "name": "cfg", "mountPath": "/cfg" },
            { "name": "data", "mountPath": "/p", "subPathExpr": "$(POD)", "readOnly": true },
        ]}))
        .unwrap();
        let env = [("POD".to_owned(), "p1".to_owned())];
        let mounts = mounts(&container, &mounted, &env, &dir.path().join("pins")).unwrap();
        assert_eq!((mounts[0].source.as_path(), mounts[0].read_only), (volume.as_path(), false));
        assert!(mounts[1].read_only && mounts[2].read_only);
        assert_eq!(mounts[2].source, dir.path().join("pins/2"));
        super::super::local::remove_pod_dir(dir.path()).unwrap();
    }

    #[test]
    fn a_mount_without_its_volume_is_named() {
        let container: Container = serde_json::from_value(
            serde_json::json!({ "name": "c", "volumeMounts": [{ "name": "x", "mountPath": "/x" }] }),
        )
        .unwrap();
        let error = mounts(&container, &Mounted::new(), &[], Path::new("/none")).unwrap_err();
        assert_eq!(error.to_string(), "cannot find volume \"x\" to mount into container \"c\"");
    }
}
