//! A container's `volumeMounts`: which part of which volume stands where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use reeve_engine::engine::{ImageSource, Mount, Propagation};

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
    #[error("error SubPath `{0}` must not be an absolute path")]
    Absolute(String),
    #[error("unable to provision SubPath `{0}`: must not contain '..'")]
    Backsteps(String),
    #[error("failed to prepare subPath for volumeMount \"{volume}\" of container \"{container}\": {source}")]
    SubPath {
        volume: String,
        container: String,
        #[source]
        source: SetUpError,
    },
}

/// A pod's volumes, by name.
#[derive(Clone, Copy)]
pub(crate) struct Volumes<'v> {
    /// Those that are somewhere on the node.
    pub(crate) mounted: &'v Mounted,
    /// Images, which the engine mounts.
    pub(crate) images: &'v BTreeMap<String, ImageSource>,
}

/// The mounts of a container. `env` is for `subPathExpr`; `pins` is where parts of volumes are pinned.
pub(crate) fn mounts(
    container: &Container,
    volumes: Volumes<'_>,
    env: &[(String, String)],
    pins: &Path,
) -> Result<Vec<Mount>, VolumeMountError> {
    let mut mounts = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let part = sub_path(wanted, env).map_err(|source| VolumeMountError::TooLong {
            volume: wanted.name.clone(),
            container: container.name.clone(),
            source,
        })?;
        check_part(part.as_deref().unwrap_or_default())?;
        let mut mount = Mount {
            target: PathBuf::from(&wanted.mount_path),
            read_only: wanted.read_only == Some(true),
            recursive_read_only: is_recursive_read_only(wanted),
            propagation: propagation(wanted),
            ..Mount::default()
        };
        match (volumes.mounted.get(&wanted.name), volumes.images.get(&wanted.name)) {
            (Some(volume), _) => {
                mount.read_only |= volume.read_only;
                mount.source = match part {
                    None => volume.path.clone(),
                    Some(part) => pin(&volume.path, &part, &Pin { dir: pins, index }).map_err(|source| {
                        let (volume, container) = (wanted.name.clone(), container.name.clone());
                        VolumeMountError::SubPath { volume, container, source }
                    })?,
                };
            }
            (None, Some(image)) => {
                mount.read_only = true;
                mount.image = Some(ImageSource { sub_path: part.unwrap_or_default(), ..image.clone() });
            }
            (None, None) => {
                let (volume, container) = (wanted.name.clone(), container.name.clone());
                return Err(VolumeMountError::NoVolume { volume, container });
            }
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

/// What `subPathExpr` becomes nobody has checked yet. Source: kubelet `makeMounts`.
fn check_part(part: &str) -> Result<(), VolumeMountError> {
    if part.starts_with('/') {
        return Err(VolumeMountError::Absolute(part.to_owned()));
    }
    match part.split('/').any(|step| step == "..") {
        true => Err(VolumeMountError::Backsteps(part.to_owned())),
        false => Ok(()),
    }
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
        let volumes = Volumes { mounted: &mounted, images: &BTreeMap::new() };
        let mounts = mounts(&container, volumes, &env, &dir.path().join("pins")).unwrap();
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
        let none = Volumes { mounted: &Mounted::new(), images: &BTreeMap::new() };
        let error = mounts(&container, none, &[], Path::new("/none")).unwrap_err();
        assert_eq!(error.to_string(), "cannot find volume \"x\" to mount into container \"c\"");
    }

    #[test]
    fn an_image_is_mounted_read_only_and_its_part_stays_inside() {
        let container = |sub_path: &str| -> Container {
            serde_json::from_value(serde_json::json!({ "name": "c", "volumeMounts": [
                { "name": "data", "mountPath": "/data", "subPathExpr": sub_path },
            ]}))
            .unwrap()
        };
        let image = ImageSource { image: "sha256:1".to_owned(), reference: "d:1".to_owned(), sub_path: String::new() };
        let images = BTreeMap::from([("data".to_owned(), image.clone())]);
        let (mounted, env) = (Mounted::new(), [("POD".to_owned(), "../p".to_owned())]);
        let made = |sub_path: &str| {
            let volumes = Volumes { mounted: &mounted, images: &images };
            mounts(&container(sub_path), volumes, &env, Path::new("/none"))
        };
        let [mount] = <[Mount; 1]>::try_from(made("a/b").unwrap()).unwrap();
        assert_eq!((mount.source.as_path(), mount.read_only), (Path::new(""), true));
        assert_eq!(mount.image, Some(ImageSource { sub_path: "a/b".to_owned(), ..image }));
        for (part, why) in [
            ("$(POD)", "unable to provision SubPath `../p`: must not contain '..'"),
            ("/etc", "error SubPath `/etc` must not be an absolute path"),
        ] {
            assert_eq!(made(part).unwrap_err().to_string(), why);
        }
    }
}
