//! Volumes that are folders of the node: emptyDir and hostPath; mounting and removing.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, PodSpec, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use reeve_api::quantity::Quantity;

use super::SetUpError;
use crate::pod::huge_pages;

/// What an emptyDir is made with, besides its own fields.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EmptyDirInputs<'p> {
    /// The pod's `fsGroup`.
    pub(crate) group: Option<u32>,
    /// Bytes one in memory may hold, if its limit is not lower.
    pub(crate) memory_max: Option<u64>,
    /// The pod it is of, which says how large its huge pages are.
    pub(crate) pod: Option<&'p PodSpec>,
}

/// Makes an emptyDir: a folder, a tmpfs for `medium: Memory`, a hugetlbfs for `medium: HugePages`. It appears with its
/// mode and owner, or not at all; one that is there is its pod's and stays as it is.
pub(crate) fn empty_dir(
    path: &Path,
    source: &EmptyDirVolumeSource,
    inputs: &EmptyDirInputs<'_>,
) -> Result<(), SetUpError> {
    let mode = if inputs.group.is_some() { 0o2777 } else { 0o777 };
    match source.medium.as_deref().unwrap_or_default() {
        "" if path.exists() => Ok(()),
        "" => folder(path, mode, inputs.group),
        "Memory" => {
            let size = [size_limit(source)?, inputs.memory_max].into_iter().flatten().min();
            let group = inputs.group.map(|group| format!("gid={group}"));
            let options = [Some(format!("mode={mode:o}")), size.map(|bytes| format!("size={bytes}")), group];
            tmpfs(path, Some(&options.into_iter().flatten().collect::<Vec<_>>().join(",")))
        }
        medium if huge_pages::is_medium(medium) => hugetlbfs(path, medium, inputs),
        medium => Err(SetUpError::Medium(medium.to_owned())),
    }
}

/// Root's, as the kernel makes it, unless the pod has a group for its volumes.
fn hugetlbfs(path: &Path, medium: &str, inputs: &EmptyDirInputs<'_>) -> Result<(), SetUpError> {
    let size = huge_pages::page_size(inputs.pod.unwrap_or(&PodSpec::default()), medium)?;
    let group = inputs.group.map(|group| format!(",gid={group},mode=775")).unwrap_or_default();
    let is_new = mount_once(path, ("nodev", "hugetlbfs"), Some(&format!("pagesize={size}{group}")))?;
    if is_new && inputs.group.is_some() {
        // The option knows no set-group-ID bit.
        let permissions = fs::Permissions::from_mode(0o2775);
        fs::set_permissions(path, permissions).map_err(SetUpError::io("change the mode of", path))?;
    }
    Ok(())
}

/// Makes a folder beside its place and moves it there: a crash leaves none that is half made.
fn folder(path: &Path, mode: u32, group: Option<u32>) -> Result<(), SetUpError> {
    let fresh = path.with_file_name(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
    fs::create_dir_all(&fresh).map_err(SetUpError::io("create", &fresh))?;
    if let Some(group) = group {
        chown(&fresh, None, Some(group)).map_err(SetUpError::io("change the owner of", &fresh))?;
    }
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(&fresh, permissions).map_err(SetUpError::io("change the mode of", &fresh))?;
    fs::rename(&fresh, path).map_err(SetUpError::io("create", path))
}

fn size_limit(source: &EmptyDirVolumeSource) -> Result<Option<u64>, SetUpError> {
    let Some(limit) = &source.size_limit else { return Ok(None) };
    let quantity: Quantity = limit.0.parse().map_err(|_| SetUpError::SizeLimit(limit.0.clone()))?;
    Ok(u64::try_from(quantity.value()).ok().filter(|bytes| *bytes > 0))
}

/// Mounts a tmpfs with these options at `path` unless there is one.
pub(crate) fn tmpfs(path: &Path, options: Option<&str>) -> Result<(), SetUpError> {
    mount_once(path, ("tmpfs", "tmpfs"), options).map(drop)
}

/// Whether it was not there yet.
fn mount_once(path: &Path, (source, kind): (&str, &str), options: Option<&str>) -> Result<bool, SetUpError> {
    fs::create_dir_all(path).map_err(SetUpError::io("create", path))?;
    if is_mount_point(path).map_err(SetUpError::io("look at", path))? {
        return Ok(false);
    }
    mount(Some(source), path, Some(kind), MsFlags::empty(), options)
        .map_err(|errno| SetUpError::io(&format!("mount {kind} at"), path)(errno.into()))?;
    Ok(true)
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
    fn a_memory_volume_without_a_limit_holds_what_the_pod_may_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pod/m");
        let source = EmptyDirVolumeSource { medium: Some("Memory".to_owned()), ..EmptyDirVolumeSource::default() };
        empty_dir(&path, &source, &EmptyDirInputs { memory_max: Some(1 << 20), ..EmptyDirInputs::default() }).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
        assert!(fs::write(path.join("big"), vec![0; 2 << 20]).is_err());
        remove_pod_dir(&dir.path().join("pod")).unwrap();
    }

    #[test]
    fn a_folder_that_a_crash_left_half_made_gets_its_mode_and_a_finished_one_keeps_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volumes/v");
        let mode = || fs::metadata(&path).unwrap().mode() & 0o7777;
        // What is there after a crash between making the folder and setting its mode.
        fs::create_dir_all(dir.path().join("volumes/.v.new")).unwrap();
        empty_dir(&path, &EmptyDirVolumeSource::default(), &EmptyDirInputs::default()).unwrap();
        assert_eq!(mode(), 0o777);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        empty_dir(&path, &EmptyDirVolumeSource::default(), &EmptyDirInputs::default()).unwrap();
        assert_eq!(mode(), 0o700, "what the pod made of it stays");
        assert_eq!(fs::read_dir(dir.path().join("volumes")).unwrap().count(), 1);
    }

    #[test]
    fn a_volume_of_huge_pages_has_the_pods_size_and_leaves_nothing_behind() {
        if !Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
            eprintln!("SKIPPED: this kernel has no huge pages of 2 MB");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pod");
        let path = pod.join("volumes/h");
        let limits = serde_json::json!({ "hugepages-2Mi": "4Mi" });
        let container = serde_json::json!({ "name": "c", "resources": { "requests": limits } });
        let spec: PodSpec = serde_json::from_value(serde_json::json!({ "containers": [container] })).unwrap();
        let made = |medium: &str| {
            let source = EmptyDirVolumeSource { medium: Some(medium.to_owned()), ..EmptyDirVolumeSource::default() };
            empty_dir(&path, &source, &EmptyDirInputs { group: Some(3000), memory_max: None, pod: Some(&spec) })
        };
        for wrong in ["HugePages-1Gi", "Hugepages", "hugetlb"] {
            assert!(made(wrong).is_err(), "{wrong}");
        }
        assert_eq!(made("hugetlb").unwrap_err().to_string(), "unknown storage medium \"hugetlb\"");
        assert!(!path.exists(), "what is refused leaves nothing");
        made("HugePages").unwrap();
        made("HugePages-2Mi").unwrap();
        let stat = rustix::fs::statfs(&path).unwrap();
        assert_eq!((stat.f_type, stat.f_bsize), (rustix::fs::FsWord::from(0x958458f6_u32), 2 << 20));
        assert_eq!((fs::metadata(&path).unwrap().mode() & 0o7777, fs::metadata(&path).unwrap().gid()), (0o2775, 3000));
        assert_eq!(mounts_below(&pod).unwrap().len(), 1, "made once");
        remove_pod_dir(&pod).unwrap();
        assert!(!pod.exists());
    }

    #[test]
    fn a_memory_volume_has_its_size_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let pod = dir.path().join("pod with blank");
        let path = pod.join("volumes/m");
        let source: EmptyDirVolumeSource =
            serde_json::from_value(serde_json::json!({ "medium": "Memory", "sizeLimit": "1Mi" })).unwrap();
        let inputs = EmptyDirInputs { group: Some(3000), memory_max: Some(8 << 20), pod: None };
        empty_dir(&path, &source, &inputs).unwrap();
        empty_dir(&path, &source, &inputs).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2777);
        assert!(fs::write(path.join("big"), vec![0; 2 << 20]).is_err());
        assert_eq!(fs::metadata(&path).unwrap().gid(), 3000);
        assert_eq!(mounts_below(&pod).unwrap().len(), 1);
        remove_pod_dir(&pod).unwrap();
        assert!(!pod.exists());
        remove_pod_dir(&pod).unwrap();
    }
}
