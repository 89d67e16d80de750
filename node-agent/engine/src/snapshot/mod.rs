//! Root file systems of containers: an image's layers below, a folder of its own on top, joined by overlayfs.
//!
//! Under the store's folder: `layers/NAME/fs` per unpacked layer, and per container `containers/ID/` with `upper`,
//! `work`, the mount point `rootfs` and `rootfs.json` (what it stands on: its layers are kept).
//!
//! A mount belongs to whoever holds its descriptor until it is attached. Containers attach theirs in their own mount
//! namespace: the node's has none of them, so that it costs a container nothing how many others there are (each new
//! namespace is a copy of the node's, and every mount there is told to all).

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::engine::UserNamespace;
use crate::images::ImageStore;
use crate::images::error::{ImageError, Step};

pub use image_volume::ImageVolume;
pub(crate) use image_volume::VolumeError;
use layers::{Layer, Layers};
use root::Root;

mod id_mapped;
mod image_volume;
pub(crate) mod layers;
pub(crate) mod root;
pub(crate) mod tar;
pub(crate) mod unpack;

#[cfg(test)]
mod tests;

/// What mount(2) takes as options: a page, with the NUL at its end.
const OPTIONS_LEN_MAX: usize = 4096;
/// How many options [`mount_options`] writes; a comma in a path looks like one more.
const OPTIONS: usize = 7;

/// Makes, mounts and removes root file systems. All methods block; all are idempotent.
#[derive(Debug, Clone)]
pub struct Snapshots {
    store: ImageStore,
    dir: PathBuf,
}

/// A container's root file system, mounted or not. May be kept in a record and used by a later process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// The container.
    pub container: String,
    /// Id of its image.
    pub image: String,
    /// Read-only folders, topmost first.
    pub lowerdirs: Vec<PathBuf>,
    /// Folder of the container's own changes.
    pub upper: PathBuf,
    /// overlayfs' own folder.
    pub work: PathBuf,
    /// Where the whole is mounted.
    pub path: PathBuf,
    /// Images that it shows somewhere inside.
    #[serde(default)]
    pub volumes: Vec<ImageVolume>,
}

impl Rootfs {
    /// Ids of all images that it needs.
    pub(crate) fn images(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.image).chain(self.volumes.iter().map(|volume| &volume.image))
    }

    /// All folders of layers that it needs.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &PathBuf> {
        self.lowerdirs.iter().chain(self.volumes.iter().flat_map(|volume| &volume.lowerdirs))
    }
}

impl Snapshots {
    /// Root file systems on the images of `store`, in its folder.
    pub fn open(store: ImageStore) -> Result<Self, ImageError> {
        let dir = store.dir().join("containers");
        Self::open_in(store, dir)
    }

    /// The same in a folder elsewhere: who uses it holds a session as long as there are root file systems in it,
    /// because the store does not know what they stand on.
    pub(crate) fn open_in(store: ImageStore, dir: PathBuf) -> Result<Self, ImageError> {
        fs::create_dir_all(&dir).step("create", &dir)?;
        Ok(Self { store, dir })
    }

    /// Makes the folders of a new container, which shows `volumes`, ids of images, inside. From now on the layers of
    /// all these images are kept until [`Snapshots::remove`].
    pub fn prepare(&self, container_id: &str, image_id: &str, volumes: &[String]) -> Result<Rootfs, ImageError> {
        if let Some(rootfs) = self.get(container_id)? {
            return Ok(rootfs);
        }
        let _session = self.store.begin()?;
        let (image, layers) = self.store.unpacked(image_id)?;
        self.prepare_on(container_id, image, &layers, self.volumes(volumes)?)
    }

    /// [`Snapshots::prepare`] on layers that are unpacked, lowest first; at least one.
    pub(crate) fn prepare_on(
        &self,
        container_id: &str,
        image: String,
        layers: &[Layer],
        volumes: Vec<ImageVolume>,
    ) -> Result<Rootfs, ImageError> {
        let home = self.home(container_id)?;
        let lowerdirs: Vec<PathBuf> = layers.iter().rev().map(|l| self.store.layers_dir().join(&l.path)).collect();
        let rootfs = Rootfs {
            container: container_id.to_owned(),
            image,
            lowerdirs,
            upper: home.join("upper"),
            work: home.join("work"),
            path: home.join("rootfs"),
            volumes,
        };
        for dir in [&home, &rootfs.upper, &rootfs.work, &rootfs.path] {
            fs::create_dir_all(dir).step("create", dir)?;
        }
        if let Some(top) = rootfs.lowerdirs.first() {
            copy_root_attributes(top, &rootfs.upper)?;
        }
        write_record(&home, &rootfs)?;
        Ok(rootfs)
    }

    /// What [`Snapshots::prepare`] made.
    pub fn get(&self, container_id: &str) -> Result<Option<Rootfs>, ImageError> {
        read_record(&self.home(container_id)?)
    }

    /// Mounts it. The mount is in no namespace until somebody attaches what comes back, and goes with the last that
    /// holds it. Nothing else may have it mounted.
    pub fn mount(&self, rootfs: &Rootfs) -> Result<OwnedFd, ImageError> {
        clean(rootfs)?;
        let mounted = match mount_detached(rootfs) {
            // Linux before 6.7, or a path that cannot be said so.
            Err(Errno::INVAL) => self.mount_aside(rootfs)?,
            other => other.map_err(io::Error::from),
        };
        mounted.step("mount an overlay for", &rootfs.path)
    }

    /// [`Snapshots::mount`] for a pod with users of its own: owner 0 of the image's files is 0 in the user namespace at
    /// `user`, which maps `ids`. Linux 5.19, on a file system that knows id-mapped mounts.
    pub(crate) fn mount_for(&self, rootfs: &Rootfs, user: &Path, ids: UserNamespace) -> Result<OwnedFd, ImageError> {
        clean(rootfs)?;
        id_mapped::mount(rootfs, user, ids).step("mount an id-mapped overlay for", &rootfs.path)
    }

    /// Mounts it at [`Rootfs::path`], in this process's mount namespace, unless it is; the mount outlives the process.
    pub(crate) fn attach(&self, rootfs: &Rootfs) -> Result<(), ImageError> {
        if is_mounted(&rootfs.path)? {
            return Ok(());
        }
        let mount = self.mount(rootfs)?;
        let attached = move_mount(&mount, "", rustix::fs::CWD, &rootfs.path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        attached.map_err(io::Error::from).step("attach an overlay at", &rootfs.path)
    }

    /// [`Snapshots::mount`] by means of mount(2), in a mount namespace that lives as long as one thread.
    fn mount_aside(&self, rootfs: &Rootfs) -> Result<io::Result<OwnedFd>, ImageError> {
        let (layers, target) = (self.store.layers_dir().to_owned(), rootfs.path.clone());
        let absolute = mount_options(Path::new(""), rootfs)?;
        let is_plain = fits(&absolute, rootfs.lowerdirs.len());
        let options = if is_plain { absolute } else { mount_options(&layers, rootfs)? };
        Ok(apart(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS, move || {
            leave_propagation()?;
            if !is_plain {
                nix::unistd::chdir(&layers)?;
            }
            mount_overlay(&target, &options)?;
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
            Ok(open_tree(rustix::fs::CWD, &target, flags)?)
        }))
    }

    /// Takes the mount away; processes that are in it keep it until they end.
    pub fn unmount(&self, container_id: &str) -> Result<(), ImageError> {
        let path = self.home(container_id)?.join("rootfs");
        match nix::mount::umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Not mounted, or nothing there at all.
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => Ok(()),
            other => other.step("unmount", &path),
        }
    }

    /// Unmounts it and removes everything the container wrote.
    pub fn remove(&self, container_id: &str) -> Result<(), ImageError> {
        self.unmount(container_id)?;
        let home = self.home(container_id)?;
        let session = self.store.begin()?;
        // One rename takes it out of sight: killed here, the rest is swept at the next start.
        let doomed = tempfile::tempdir_in(self.store.tmp_dir()).step("create a folder in", &self.store.tmp_dir())?;
        match fs::rename(&home, doomed.path().join("container")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.step("move away", &home)?,
        }
        remove_tree(doomed.path())?;
        drop(session);
        self.store.on_container_removed()
    }

    /// Removes what belongs to no container of `known`: after a power cut, containers that nobody knows any more.
    pub fn sweep(&self, known: &HashSet<String>) -> Result<(), ImageError> {
        for entry in fs::read_dir(&self.dir).step("list", &self.dir)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !known.contains(&name) {
                self.remove(&name)?;
            }
        }
        Ok(())
    }

    /// Every root file system there is, also those of an earlier life of the process.
    pub fn list(&self) -> Result<Vec<Rootfs>, ImageError> {
        records(&self.dir)
    }

    /// Ids come from us, but they become paths.
    fn home(&self, container_id: &str) -> Result<PathBuf, ImageError> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if container_id.is_empty() || container_id.len() > 128 || !container_id.bytes().all(fine) {
            return Err(ImageError::invalid(container_id, "not a container id"));
        }
        Ok(self.dir.join(container_id))
    }
}

/// The merged view of `layers` (lowest first), read-only and visible to nobody else: it is mounted in a mount
/// namespace that lives as long as one thread, and goes away when the answer is dropped.
pub(crate) fn open_merged(layers_dir: &Path, layers: &[Layer]) -> Result<Root, ImageError> {
    let empty = layers_dir.join(&Layers::empty().path);
    if layers.is_empty() {
        return Root::open(&empty).step("open", &empty);
    }
    // Without an upper folder overlayfs wants two lower ones: the empty one goes below.
    let lower: Vec<&str> = layers.iter().rev().map(|layer| layer.path.as_str()).collect();
    let options = format!("lowerdir={}:{}", lower.join(":"), Layers::empty().path);
    let (dir, target) = (layers_dir.to_owned(), empty);
    apart(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS, move || {
        leave_propagation()?;
        nix::unistd::chdir(&dir)?;
        mount_overlay(&target, &options)?;
        Ok(Root::open(&target)?)
    })
    .step("mount an overlay of", layers_dir)
}

/// Runs `work` on a thread that shares less with its process. Threads that share their current folder cannot
/// change it alone, nor enter a mount namespace.
fn apart<T: Send + 'static>(
    unshared: CloneFlags,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("mount".to_owned()).spawn(move || {
        nix::sched::unshare(unshared)?;
        work()
    })?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread died")))
}

/// In a mount namespace of one's own: what is unmounted outside goes here, too; what is mounted here stays here.
fn leave_propagation() -> io::Result<()> {
    let slave = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    Ok(nix::mount::mount(None::<&str>, "/", None::<&str>, slave, None::<&str>)?)
}

/// What an earlier mount left in the work folder would stop the next one (`volatile` marks it as unclean).
fn clean(rootfs: &Rootfs) -> Result<(), ImageError> {
    if rootfs.work.join("work").exists() {
        remove_tree(&rootfs.work)?;
        fs::create_dir(&rootfs.work).step("create", &rootfs.work)?;
    }
    Ok(())
}

/// One layer after the other, so that their number is not bounded by a page. For what the options mean see
/// [`mount_options`].
fn mount_detached(rootfs: &Rootfs) -> Result<OwnedFd, Errno> {
    // overlayfs takes these for escapes.
    let is_escaped = |path: &PathBuf| path.as_os_str().as_bytes().contains(&b'\\');
    if rootfs.lowerdirs.iter().chain([&rootfs.upper]).any(is_escaped) {
        return Err(Errno::INVAL);
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "overlay")?;
    for layer in &rootfs.lowerdirs {
        fsconfig_set_string(context.as_fd(), "lowerdir+", layer)?;
    }
    fsconfig_set_string(context.as_fd(), "upperdir", &rootfs.upper)?;
    fsconfig_set_string(context.as_fd(), "workdir", &rootfs.work)?;
    for option in ["index", "redirect_dir", "metacopy"] {
        fsconfig_set_string(context.as_fd(), option, "off")?;
    }
    fsconfig_set_flag(context.as_fd(), "volatile")?;
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn mount_overlay(target: &Path, options: &str) -> io::Result<()> {
    nix::mount::mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), Some(options))?;
    Ok(())
}

/// Whether mount(2) takes these options whole, and overlayfs reads its paths as they are meant. If not, the mount is
/// made from the folder of layers, where their names are short and plain.
fn fits(options: &str, layers: usize) -> bool {
    let plain = !options.contains(['\\', char::REPLACEMENT_CHARACTER])
        && options.matches(',').count() == OPTIONS - 1
        && options.matches(':').count() == layers.saturating_sub(1);
    plain && options.len() < OPTIONS_LEN_MAX
}

/// The records below a store's `containers` folder. Folders without one were never complete.
pub(crate) fn records(dir: &Path) -> Result<Vec<Rootfs>, ImageError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.step("list", dir)?,
    };
    let homes = entries.filter_map(|entry| Some(entry.ok()?.path()));
    homes.filter_map(|home| read_record(&home).transpose()).collect()
}

fn read_record(home: &Path) -> Result<Option<Rootfs>, ImageError> {
    let path = home.join("rootfs.json");
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.step("read", &path)?,
    };
    // A power cut leaves empty files: as good as none.
    let record = serde_json::from_slice(&bytes);
    Ok(record.inspect_err(|error| tracing::warn!(path = %path.display(), %error, "passing over a record")).ok())
}

/// Not synced: after a crash of the machine no container runs, and a lost record frees what it kept.
fn write_record(home: &Path, rootfs: &Rootfs) -> Result<(), ImageError> {
    let path = home.join("rootfs.json");
    let json = serde_json::to_vec(rootfs).map_err(io::Error::other).step("encode", &path)?;
    let mut file = NamedTempFile::new_in(home).step("create a file in", home)?;
    file.write_all(&json).step("write", file.path())?;
    file.persist(&path).map_err(|error| error.error).step("replace", &path)?;
    Ok(())
}

/// `volatile`: the upper folder never outlives a crash of the machine, so syncing it would be for nothing.
/// `index=off`: an upper folder is used by one mount only, and we see to that.
///
/// With the folder of layers as `base` the paths are relative to it; with an empty one they are absolute.
fn mount_options(base: &Path, rootfs: &Rootfs) -> Result<String, ImageError> {
    let foreign = || ImageError::invalid(rootfs.container.as_str(), "its layers are not of this store");
    let relative = |dir: &PathBuf| {
        let path = if base.as_os_str().is_empty() { dir } else { dir.strip_prefix(base).map_err(|_| foreign())? };
        Ok(path.display().to_string())
    };
    let lower = rootfs.lowerdirs.iter().map(relative).collect::<Result<Vec<_>, ImageError>>()?.join(":");
    let home = rootfs.upper.parent().unwrap_or(base);
    let beside = base.parent().map(|store| store.join("containers"));
    let home = match home.parent() == beside.as_deref() {
        true => format!("../containers/{}", rootfs.container),
        false => home.display().to_string(),
    };
    // The last two: a layer is made of what lies in the upper folder, without a look at what it points to.
    let plain = "redirect_dir=off,metacopy=off";
    Ok(format!("lowerdir={lower},upperdir={home}/upper,workdir={home}/work,index=off,volatile,{plain}"))
}

/// The merged root looks like the upper folder: it takes after the image's.
fn copy_root_attributes(from: &Path, to: &Path) -> Result<(), ImageError> {
    let stat = rustix::fs::stat(from).step("stat", from)?;
    let dir = fs::File::open(to).step("open", to)?;
    unpack::copy_attributes(dir.as_fd(), &stat).step("set the attributes of", to)
}

fn is_mounted(path: &Path) -> Result<bool, ImageError> {
    let parent = path.parent().unwrap_or(path);
    let (inner, outer) = (fs::metadata(path).step("stat", path)?, fs::metadata(parent).step("stat", parent)?);
    Ok(inner.dev() != outer.dev())
}

fn remove_tree(path: &Path) -> Result<(), ImageError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).step("remove", path),
        _ => Ok(()),
    }
}
