//! Images as something to look into: all layers of one merged, without anything of a container's on top.
//!
//! Each is mounted like a root for a pod with users of its own (`id_mapped.rs`): its layers stand under short names in
//! a mount namespace that lives as long as one thread, where they are joined, and what comes out of there is attached
//! nowhere. Below all of them lies an empty folder: overlayfs wants two, and what a single layer says to be deleted is
//! not to be seen as a device.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::{Deserialize, Serialize};

use crate::images::error::{ImageError, Step};

use super::id_mapped::{self, MERGED};
use super::root::Root;
use super::{Rootfs, Snapshots, apart, leave_propagation};

/// What is under the layers beside [`MERGED`].
const BOTTOM: &str = "bottom";

/// Nothing in an image that is looked into can be written, opened as a device, or make its caller somebody else. It may
/// be executed: tools for a container come this way.
const FLAGS: MsFlags = MsFlags::MS_RDONLY.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NODEV);

/// An image that a container shows; its layers are kept as long as the container is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVolume {
    /// Its id.
    pub image: String,
    /// Folders of its layers, topmost first.
    pub lowerdirs: Vec<PathBuf>,
}

/// What is wrong with a folder of an image that is to be shown, in containerd's words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("openat {0}: no such file or directory")]
    Missing(String),
    #[error("openat {0}: not a directory")]
    NoFolderOnTheWay(String),
    #[error("only directory subpath is supported, subpath: {0:?}")]
    NoFolder(String),
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl Snapshots {
    /// Images that a container is to show. Who asks holds a session until they stand in a record.
    pub(crate) fn volumes(&self, images: &[String]) -> Result<Vec<ImageVolume>, ImageError> {
        let volume = |image: &String| {
            let (image, layers) = self.store.unpacked(image)?;
            let lowerdirs = layers.iter().rev().map(|layer| self.store.layers_dir().join(&layer.path)).collect();
            Ok(ImageVolume { image, lowerdirs })
        };
        images.iter().map(volume).collect()
    }

    /// Mounts an image that the container with this root shows, or a folder in it; see [`Snapshots::mount`]. In a pod
    /// with users of its own, owner 0 of its files is 0 in the user namespace kept at `user`.
    pub(crate) fn mount_volume(
        &self,
        rootfs: &Rootfs,
        volume: &ImageVolume,
        sub_path: &str,
        user: Option<&Path>,
    ) -> Result<OwnedFd, VolumeError> {
        let mounted = mount(volume.lowerdirs.clone(), rootfs.path.clone(), sub_path.into(), user);
        match mounted.step("mount an image for", &rootfs.path)? {
            Err(Errno::NOENT) => Err(VolumeError::Missing(sub_path.to_owned())),
            Err(Errno::NOTDIR) => Err(VolumeError::NoFolderOnTheWay(sub_path.to_owned())),
            Err(Errno::ISDIR) => Err(VolumeError::NoFolder(sub_path.to_owned())),
            opened => Ok(opened.step("open", Path::new(sub_path))?),
        }
    }
}

/// Joins layers, topmost first, at `place`, which has to exist; gives the folder of the whole that is wanted. The inner
/// error is about that folder; `EISDIR` says that it is none.
fn mount(
    layers: Vec<PathBuf>,
    place: PathBuf,
    sub_path: PathBuf,
    user: Option<&Path>,
) -> io::Result<Result<OwnedFd, Errno>> {
    let open = |path| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let user: Option<OwnedFd> = user.map(open).transpose()?;
    apart(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS, move || {
        leave_propagation()?;
        let lower = id_mapped::show_layers(&layers, &place, user.as_ref().map(AsFd::as_fd))?;
        fs::create_dir(BOTTOM)?;
        fs::create_dir(MERGED)?;
        let options = format!("lowerdir={lower}:{BOTTOM},index=off,redirect_dir=off,metacopy=off");
        nix::mount::mount(Some("overlay"), MERGED, Some("overlay"), FLAGS, Some(options.as_str()))?;
        let root = Root::open(Path::new(MERGED))?;
        let folder = match root.open_at(&sub_path, OFlags::PATH) {
            Ok(folder) => folder,
            Err(errno) => return Ok(Err(errno)),
        };
        if !FileType::from_raw_mode(rustix::fs::fstat(&folder)?.st_mode).is_dir() {
            return Ok(Err(Errno::ISDIR));
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(Ok(open_tree(&folder, "", flags)?))
    })
}
