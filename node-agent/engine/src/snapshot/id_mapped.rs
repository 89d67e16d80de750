//! A container's root for a pod with users of its own.
//!
//! overlayfs itself cannot be id-mapped, its layers can (Linux 5.19). Each is attached, id-mapped, under a short name
//! in a mount namespace that lives as long as one thread; the overlay is made there and handed out, attached nowhere.
//! What the container writes is its own and lies in its upper folder under the node's ids: overlayfs makes files of its
//! own there as root of the node, who is nobody in an id-mapped mount.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use crate::engine::UserNamespace;
use crate::runtime::mount_attr::{self, MountAttr};

use super::{Rootfs, apart, leave_propagation, mount_overlay};

const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
/// What the folder with upper and work folder, and the overlay, are called beside the numbered layers.
const HOME: &str = "home";
pub(super) const MERGED: &str = "merged";

/// Mounts a root so that its ids are those of the user namespace kept at `user`, which maps `ids`.
pub(super) fn mount(rootfs: &Rootfs, user: &Path, ids: UserNamespace) -> io::Result<OwnedFd> {
    if let Some(top) = rootfs.lowerdirs.first() {
        own_upper(top, &rootfs.upper, ids)?;
    }
    let user = rustix::fs::open(user, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let missing = || io::Error::new(io::ErrorKind::InvalidInput, "the upper folder has none around it");
    let home = rootfs.upper.parent().ok_or_else(missing)?.to_owned();
    let (lower, place) = (rootfs.lowerdirs.clone(), rootfs.path.clone());
    apart(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS, move || {
        leave_propagation()?;
        let lower = show_layers(&lower, &place, Some(user.as_fd()))?;
        attach(&home, HOME, None)?;
        fs::create_dir(MERGED)?;
        let options = format!(
            "lowerdir={lower},upperdir={HOME}/upper,workdir={HOME}/work,index=off,volatile,redirect_dir=off,metacopy=off"
        );
        mount_overlay(Path::new(MERGED), &options)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ok(open_tree(rustix::fs::CWD, MERGED, flags)?)
    })
}

/// Shows layers, topmost first, under short names in a folder of a mount namespace that is the thread's own, and goes
/// there; gives the names as overlayfs wants them.
pub(super) fn show_layers(lower: &[PathBuf], place: &Path, user: Option<BorrowedFd<'_>>) -> io::Result<String> {
    nix::mount::mount(Some("layers"), place, Some("tmpfs"), MsFlags::empty(), Some("mode=700"))?;
    nix::unistd::chdir(place)?;
    let names: Vec<String> = (0..lower.len()).map(|number| number.to_string()).collect();
    for (name, layer) in names.iter().zip(lower) {
        attach(layer, name, user)?;
    }
    Ok(names.join(":"))
}

/// The root's owner is the upper folder's: the image's, as the pod sees it.
fn own_upper(top: &Path, upper: &Path, ids: UserNamespace) -> io::Result<()> {
    let image = fs::metadata(top)?;
    std::os::unix::fs::chown(upper, ids.on_node(image.uid()), ids.on_node(image.gid()))
}

/// Shows a folder under a name, its ids mapped for a user namespace.
fn attach(folder: &Path, name: &str, user: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, folder, flags)?;
    if let Some(user) = user {
        map_ids(tree.as_fd(), user).map_err(|error| refused(folder, &error))?;
    }
    fs::create_dir(name)?;
    Ok(move_mount(&tree, "", rustix::fs::CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// runc's words, which people look for.
fn refused(folder: &Path, error: &io::Error) -> io::Error {
    let text = error.to_string();
    let reason = text.split(" (os error").next().unwrap_or_default().to_lowercase();
    let hint = "maybe the filesystem used doesn't support idmap mounts on this kernel?";
    io::Error::new(error.kind(), format!("failed to set MOUNT_ATTR_IDMAP on {}: {reason} ({hint})", folder.display()))
}

fn map_ids(mount: BorrowedFd<'_>, user: BorrowedFd<'_>) -> io::Result<()> {
    let userns_fd = u64::from(user.as_raw_fd().cast_unsigned());
    mount_attr::set(mount, &MountAttr { set: MOUNT_ATTR_IDMAP, userns_fd, ..MountAttr::default() })
}
