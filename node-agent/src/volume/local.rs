//! Volumes that are folders of the node: emptyDir and hostPath; mounting and removing.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use reeve_api::quantity::Quantity;

use super::SetUpError;

/// Makes an emptyDir: a folder, or a tmpfs for `medium: Memory`.
pub(crate) fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<(), SetUpError> {
    let fresh = !path.exists();
    match source.medium.as_deref().unwrap_or_default() {
        "" => fs::create_dir_all(path).map_err(SetUpError::io("create", path))?,
        "Memory" => tmpfs(path, size_limit(source)?)?,
        _ => return Err(SetUpError::Unsupported("emptyDir with this medium")),
    }
    if !fresh {
        return Ok(());
    }
    if let Some(group) = group {
        chown(path, None, Some(group)).map_err(SetUpError::io("change the owner of", path))?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(SetUpError::io("change the mode of", path))
}

fn size_limit(source: &EmptyDirVolumeSource) -> Result<Option<u64>, SetUpError> {
    let Some(limit) = &source.size_limit else { return Ok(None) };
    let quantity: Quantity = limit.0.parse().map_err(|_| SetUpError::SizeLimit(limit.0.clone()))?;
    Ok(u64::try_from(quantity.value()).ok().filter(|bytes| *bytes > 0))
}

/// Mounts a tmpfs at `path` unless there is one.
pub(crate) fn tmpfs(path: &Path, size: Option<u64>) -> Result<(), SetUpError> {
    fs::create_dir_all(path).map_err(SetUpError::io("create", path))?;
    if is_mount_point(path).map_err(SetUpError::io("look at", path))? {
        return Ok(());
    }
    let options = size.map(|bytes| format!("size={bytes}"));
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), options.as_deref())
        .map_err(|errno| SetUpError::io("mount tmpfs at", path)(errno.into()))
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(fs::metadata(path)?.dev() != fs::metadata(parent)?.dev())
}

/// Checks and, where its type says so, makes a host path. Source: kubelet `hostpath` plugin.
pub(crate) fn host_path(source: &HostPathVolumeSource) -> Result<(), SetUpError> {
    let path = Path::new(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let meta = fs::metadata(path).ok();
    let create_dir = || fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    let Some(meta) = meta else {
        return match kind {
            // The container runtime of a kubelet makes a missing folder; so do we.
            "" | "DirectoryOrCreate" => create_dir().map_err(SetUpError::io("create", path)),
            "FileOrCreate" => {
                let made = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
                made.map(drop).map_err(SetUpError::io("create", path))
            }
            _ => Err(SetUpError::HostPathMissing(source.path.clone())),
        };
    };
    let file_type = meta.file_type();
    let (fits, wanted) = match kind {
        "" => (true, ""),
        "DirectoryOrCreate" | "Directory" => (file_type.is_dir(), "a directory"),
        "FileOrCreate" | "File" => (file_type.is_file(), "a file"),
        "Socket" => (file_type.is_socket(), "a socket file"),
        "CharDevice" => (file_type.is_char_device(), "a character device"),
        "BlockDevice" => (file_type.is_block_device(), "a block device"),
        _ => return Err(SetUpError::Unsupported("hostPath of this type")),
    };
    if fits { Ok(()) } else { Err(SetUpError::HostPathType { path: source.path.clone(), wanted }) }
}

/// What a volume this node cannot make is called in the pod's spec.
pub(crate) fn type_name(volume: &Volume) -> &'static str {
    let names = [
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.csi.is_some(), "csi"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
        (volume.image.is_some(), "image"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.rbd.is_some(), "rbd"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.glusterfs.is_some(), "glusterfs"),
    ];
    names.iter().find(|(is_it, _)| *is_it).map_or("of this pod", |(_, name)| name)
}

/// Unmounts everything below `dir`, then removes it. Never follows a symlink, never crosses a file system.
pub(crate) fn remove_pod_dir(dir: &Path) -> io::Result<()> {
    if fs::symlink_metadata(dir).is_err() {
        return Ok(());
    }
    for point in mounts_below(dir)? {
        match umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    if !mounts_below(dir)?.is_empty() {
        return Err(io::Error::other(format!("something is still mounted below {}", dir.display())));
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Mount points below `dir`, the innermost first.
fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let dir = fs::canonicalize(dir)?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| PathBuf::from(unescape(point)));
    let mut below: Vec<_> = points.filter(|point| point.starts_with(&dir)).collect();
    below.reverse();
    Ok(below)
}

/// mountinfo writes blanks and backslashes as `\040` (proc_pid_mountinfo(5)).
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let octal = rest.get(..3).filter(|_| first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                bytes = rest.get(3..).unwrap_or_default();
            }
            None => {
                out.push(first);
                bytes = rest;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_source(path: &Path, kind: &str) -> HostPathVolumeSource {
        HostPathVolumeSource { path: path.to_string_lossy().into_owned(), type_: Some(kind.to_owned()) }
    }

    #[test]
    fn host_paths_are_checked_against_their_type() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let missing = dir.path().join("missing");
        for (path, kind, ok) in [
            (dir.path(), "", true),
            (dir.path(), "Directory", true),
            (dir.path(), "File", false),
            (&file, "File", true),
            (&file, "Socket", false),
            (&file, "Directory", false),
            (Path::new("/dev/null"), "CharDevice", true),
            (Path::new("/dev/null"), "BlockDevice", false),
            (&missing, "Directory", false),
        ] {
            assert_eq!(host_path(&path_source(path, kind)).is_ok(), ok, "{} {kind}", path.display());
        }
        host_path(&path_source(&missing, "DirectoryOrCreate")).unwrap();
        assert!(missing.is_dir());
    }

    #[test]
    fn a_memory_volume_has_its_size_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pod with blank");
        let path = pod.join("volumes/m");
        let source: EmptyDirVolumeSource =
            serde_json::from_value(serde_json::json!({ "medium": "Memory", "sizeLimit": "1Mi" })).unwrap();
        empty_dir(&path, &source, Some(3000)).unwrap();
        empty_dir(&path, &source, Some(3000)).unwrap();
        assert!(fs::write(path.join("big"), vec![0; 2 << 20]).is_err());
        assert_eq!(fs::metadata(&path).unwrap().gid(), 3000);
        assert_eq!(mounts_below(&pod).unwrap().len(), 1);
        remove_pod_dir(&pod).unwrap();
        assert!(!pod.exists());
        remove_pod_dir(&pod).unwrap();
    }
}
