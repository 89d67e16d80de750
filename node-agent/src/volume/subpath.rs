//! Parts of a volume (`subPath`), proof against symlinks that a container plants in it.
//!
//! The path is resolved by the kernel with the volume as its root (`openat2(2)`, RESOLVE_IN_ROOT), and the
//! result is pinned by a bind mount of the descriptor: what is mounted later is what was checked.

use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat2};

use super::SetUpError;

/// Where a pinned part is mounted.
pub(crate) struct Pin<'p> {
    /// Folder for mount points of this container.
    pub(crate) dir: &'p Path,
    /// Number of the mount in the container.
    pub(crate) index: usize,
}

/// Pins `sub_path` of the volume at `volume`, making missing folders; returns where.
pub(crate) fn pin(volume: &Path, sub_path: &str, pin: &Pin<'_>) -> Result<PathBuf, SetUpError> {
    let parts = parts(sub_path)?;
    let root = open(CWD, volume, ResolveFlags::empty()).map_err(SetUpError::io("open", volume))?;
    let target = resolve(&root, &parts).map_err(SetUpError::io("resolve", &volume.join(sub_path)))?;
    let is_dir = rustix::fs::fstat(&target)
        .map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
        .map_err(|errno| SetUpError::io("look at", volume)(errno.into()))?;
    let point = pin.dir.join(pin.index.to_string());
    fs::create_dir_all(pin.dir).map_err(SetUpError::io("create", pin.dir))?;
    // A pin of an earlier life of the container is replaced.
    let _ = nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW);
    let _ = fs::remove_file(&point);
    if is_dir {
        fs::create_dir_all(&point).map_err(SetUpError::io("create", &point))?;
    } else {
        fs::write(&point, "").map_err(SetUpError::io("create", &point))?;
    }
    let source = PathBuf::from(format!("/proc/self/fd/{}", target.as_raw_fd()));
    mount(Some(&source), &point, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| SetUpError::io("mount", &point)(errno.into()))?;
    Ok(point)
}

/// The components of a sub-path that stays inside.
fn parts(sub_path: &str) -> Result<Vec<&str>, SetUpError> {
    let bad = || SetUpError::BadPath(sub_path.to_owned());
    let mut parts = Vec::new();
    for component in Path::new(sub_path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(bad)?),
            Component::CurDir => {}
            _ => return Err(bad()),
        }
    }
    Ok(parts)
}

fn open(dir: impl AsFd, path: &Path, resolve: ResolveFlags) -> std::io::Result<OwnedFd> {
    Ok(openat2(dir, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// Opens a path inside `root`; folders that are missing are made one by one, each resolved anew from the root.
fn resolve(root: &OwnedFd, parts: &[&str]) -> std::io::Result<OwnedFd> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut path = PathBuf::from(".");
    let mut current = open(root, &path, inside)?;
    for part in parts {
        path.push(part);
        current = match open(root, &path, inside) {
            Ok(found) => found,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                mkdirat(&current, *part, Mode::from_raw_mode(0o755))?;
                open(&current, Path::new(part), inside | ResolveFlags::NO_SYMLINKS)?
            }
            Err(error) => return Err(error),
        };
    }
    Ok(current)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_symlink_cannot_lead_out_of_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, pins) = (dir.path().join("volume"), dir.path().join("pins"));
        fs::create_dir_all(&volume).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        symlink("../secret", volume.join("evil")).unwrap();
        symlink("/etc", volume.join("etc")).unwrap();
        // Inside the volume's root `../secret` is `/secret`, which is not there: a folder of that name is refused too.
        assert!(pin(&volume, "evil", &Pin { dir: &pins, index: 0 }).is_err());
        assert!(pin(&volume, "etc/passwd", &Pin { dir: &pins, index: 1 }).is_err());
        assert!(pin(&volume, "../secret", &Pin { dir: &pins, index: 2 }).is_err());
    }

    #[test]
    fn a_part_is_pinned_and_missing_folders_are_made() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, pins) = (dir.path().join("volume"), dir.path().join("pins"));
        fs::create_dir_all(&volume).unwrap();
        let point = pin(&volume, "a/b", &Pin { dir: &pins, index: 0 }).unwrap();
        fs::write(point.join("file"), "x").unwrap();
        assert_eq!(fs::read_to_string(volume.join("a/b/file")).unwrap(), "x");
        // What is exchanged afterwards does not change what is pinned.
        fs::rename(volume.join("a/b"), volume.join("a/c")).unwrap();
        symlink("/etc", volume.join("a/b")).unwrap();
        assert_eq!(fs::read_to_string(point.join("file")).unwrap(), "x");
        let file = pin(&volume, "a/c/file", &Pin { dir: &pins, index: 1 }).unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), "x");
        super::super::local::remove_pod_dir(dir.path()).unwrap();
    }
}
