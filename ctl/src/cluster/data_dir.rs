//! The data folder: may it become a cluster's, how it is made, how it goes again.
//!
//! Whatever is refused is left as it was, and what is not ours is never removed: a folder with anything in it that no
//! cluster made is not taken, and a file system that is mounted at the folder stays mounted.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};

use super::config;
use super::error::{ClusterError, at};

/// Where overlayfs is tried.
const TRIAL: &str = "overlay-trial";
/// What may stand in a folder that is not a cluster's yet: images that were loaded before the first `up`, what an `up`
/// that failed or was killed has left, and what every ext4 file system has.
const NO_OBSTACLE: [&str; 9] =
    ["admin.kubeconfig", "agent", "engine", "images", "lost+found", "pki", "reeve.log", "store", TRIAL];

/// The folder as `--data-dir` means it: absolute, and without links, because the kernel and `purge` see none.
pub(crate) fn resolve(given: &Path) -> Result<PathBuf, ClusterError> {
    let absolute = std::path::absolute(given).map_err(|err| ClusterError::io(at("resolve", given), err))?;
    match std::fs::canonicalize(&absolute) {
        Ok(real) if real.is_dir() => Ok(real),
        Ok(_) => Err(refused(given, "it is not a folder")),
        Err(err) if err.kind() == ErrorKind::NotFound && !absolute.is_symlink() => Ok(absolute),
        Err(err) => Err(ClusterError::io(at("resolve", given), err)),
    }
}

/// Refuses a folder that holds something else than a cluster's data.
pub(crate) fn check_unused(dir: &Path) -> Result<(), ClusterError> {
    let entries = match std::fs::read_dir(dir) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|err| ClusterError::io(at("list", dir), err))?,
    };
    let foreign = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    // A file that was being replaced (`files::replace`).
    let cut_short = |name: &str| name.starts_with(config::FILE) && name.ends_with(".tmp");
    match foreign.into_iter().find(|name| !NO_OBSTACLE.contains(&name.as_str()) && !cut_short(name)) {
        Some(name) => Err(refused(dir, &format!("it is not empty (it has {name:?}) and holds no cluster"))),
        None => Ok(()),
    }
}

/// Refuses a folder on a file system that cannot carry containers' root file systems (another overlay, NFS, FAT).
pub(crate) fn check_overlay(dir: &Path) -> Result<(), ClusterError> {
    let trial = Trial::start(dir)?;
    let parts = ["lower", "upper", "work", "merged"].map(|name| trial.0.join(name));
    for part in &parts {
        std::fs::create_dir(part).map_err(|err| ClusterError::io(at("create", part), err))?;
    }
    let [lower, upper, work, merged] = &parts;
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    if options.contains(['\\', ':']) || options.matches(',').count() > 2 {
        // A path that reads as several options: the engine has its ways, the trial has not.
        return Ok(());
    }
    nix::mount::mount(Some("overlay"), merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).map_err(
        |err| refused(dir, &format!("its file system cannot carry containers' root file systems (overlayfs: {err})")),
    )
}

/// The folder of a trial; gone afterwards. One that was killed is cleared by the next, or by `down --purge`.
struct Trial(PathBuf);

impl Trial {
    fn start(dir: &Path) -> Result<Self, ClusterError> {
        let trial = Self(dir.join(TRIAL));
        trial.clear();
        std::fs::create_dir(&trial.0).map_err(|err| ClusterError::io(at("create", &trial.0), err))?;
        Ok(trial)
    }

    fn clear(&self) {
        let _ = nix::mount::umount2(&self.0.join("merged"), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.clear();
    }
}

fn refused(dir: &Path, rule: &str) -> ClusterError {
    ClusterError::Invalid { what: "--data-dir", value: dir.display().to_string(), rule: rule.to_owned() }
}

/// Folders that were made and go again unless they are kept.
#[derive(Default)]
pub(crate) struct Made(Vec<PathBuf>);

impl Made {
    /// Makes a folder that only root may enter, with its parents. One that was there is closed to others too: keys,
    /// Secrets and pods' set-user-ID programs lie below.
    pub(crate) fn make(&mut self, dir: &Path) -> Result<(), ClusterError> {
        self.0.extend(dir.ancestors().take_while(|dir| !dir.exists()).map(Path::to_path_buf));
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|err| ClusterError::io(at("create", dir), err))?;
        let closed = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
        closed.map_err(|err| ClusterError::io(at("close to other users", dir), err))
    }

    /// They stay.
    pub(crate) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.0.sort_by_key(|dir| std::cmp::Reverse(dir.as_os_str().len()));
        for dir in &self.0 {
            // One that is no longer empty is somebody's.
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// Removes everything in a data folder but the lasting choices: as long as they stand there, `down --purge` can be run
/// again. Refuses when something is still mounted below: what is behind a mount is not ours.
pub(crate) fn empty(dir: &Path) -> Result<(), ClusterError> {
    refuse_mounts(dir)?;
    let entries = match std::fs::read_dir(dir) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|err| ClusterError::io(at("list", dir), err))?,
    };
    for entry in
        entries.flatten().filter(|entry| entry.file_name() != config::FILE && entry.file_name() != "lost+found")
    {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(err) if err.kind() != ErrorKind::NotFound => return Err(ClusterError::io(at("remove", &path), err)),
            _ => {}
        }
    }
    Ok(())
}

/// The last step: the choices and the folder itself. One that a file system is mounted at stays, empty.
pub(crate) fn remove(dir: &Path) -> Result<(), ClusterError> {
    let file = dir.join(config::FILE);
    match std::fs::remove_file(&file) {
        Err(err) if err.kind() != ErrorKind::NotFound => return Err(ClusterError::io(at("remove", &file), err)),
        _ => {}
    }
    match std::fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(err) if matches!(err.kind(), ErrorKind::NotFound | ErrorKind::ResourceBusy) => Ok(()),
        // `lost+found` of a file system of its own.
        Err(err) if err.kind() == ErrorKind::DirectoryNotEmpty && is_mount_point(dir) => Ok(()),
        Err(err) => Err(ClusterError::io(at("remove", dir), err)),
    }
}

fn is_mount_point(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    dir.parent().is_some_and(|parent| device(parent) != device(dir))
}

/// Removes a run folder.
pub(crate) fn remove_run_dir(dir: &Path) -> Result<(), ClusterError> {
    refuse_mounts(dir)?;
    match std::fs::remove_dir_all(dir) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(ClusterError::io(at("remove", dir), err)),
        _ => Ok(()),
    }
}

fn refuse_mounts(dir: &Path) -> Result<(), ClusterError> {
    match super::remains::mounts_below(dir).first() {
        None => Ok(()),
        Some(target) => Err(ClusterError::Invalid {
            what: "folder",
            value: dir.display().to_string(),
            rule: format!("{} is still mounted in it; unmount it and run `reeve down --purge` again", target.display()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_of_others_is_refused_and_one_with_images_is_not() {
        let folder = tempfile::tempdir().unwrap();
        check_unused(folder.path()).unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        check_unused(folder.path()).unwrap();
        std::fs::write(folder.path().join("thesis.txt"), "").unwrap();
        let said = check_unused(folder.path()).unwrap_err().to_string();
        assert!(said.contains("it has \"thesis.txt\""), "{said}");
    }

    #[test]
    fn a_link_is_resolved_and_one_to_nowhere_or_to_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let base = std::fs::canonicalize(folder.path()).unwrap();
        let (real, link, nowhere) = (base.join("real"), base.join("link"), base.join("nowhere"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        std::os::unix::fs::symlink(base.join("none"), &nowhere).unwrap();
        std::fs::write(base.join("file"), "").unwrap();
        assert_eq!(resolve(&link).unwrap(), real);
        assert_eq!(resolve(&base.join("new/er")).unwrap(), base.join("new/er"));
        assert!(resolve(&nowhere).is_err());
        assert!(resolve(&base.join("file")).unwrap_err().to_string().contains("it is not a folder"));
    }

    #[test]
    fn folders_that_were_made_for_nothing_go_again_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (there, new) = (folder.path().join("there"), folder.path().join("there/a/b"));
        std::fs::create_dir(&there).unwrap();
        let mut made = Made::default();
        made.make(&new).unwrap();
        drop(made);
        assert!(there.exists() && !there.join("a").exists());
        let mut made = Made::default();
        made.make(&new).unwrap();
        made.keep();
        assert!(new.exists());
    }

    #[test]
    fn the_choices_go_last() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("data");
        std::fs::create_dir_all(dir.join("store/deep")).unwrap();
        std::fs::write(dir.join(config::FILE), "{}").unwrap();
        empty(&dir).unwrap();
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        remove(&dir).unwrap();
        assert!(!dir.exists());
        remove(&dir).unwrap();
    }
}
