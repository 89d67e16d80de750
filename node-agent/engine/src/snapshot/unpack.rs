//! Turns one layer's tar stream into a folder in overlayfs' form: whiteouts become 0/0 character devices, opaque
//! folders carry `trusted.overlay.opaque`. Images come from strangers: nothing they say leads out of the folder.
//!
//! Source: OCI image specification 1.1, "Image Layer Filesystem Changeset"; the kernel's overlayfs.rst. What this
//! does not do: decompress, check digests, put the folder in its place (see `layers.rs`).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::root::{Root, lstat_in, remove_in};
use super::tar::{Entry, Kind, TarError, TarReader};

/// Deepest folder; the kernel's PATH_MAX allows 2,048, no image has 200.
const DEPTH_MAX: usize = 512;
/// Marks what a layer removes.
const WHITEOUT: &[u8] = b".wh.";
/// Marks a folder that hides all below it.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other marks, of aufs: not for us.
const WHITEOUT_META: &[u8] = b".wh..wh.";
/// overlayfs' mark of an opaque folder.
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// What a layer may cost. Every number is far above any honest image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files of one layer.
    pub layer_bytes_max: u64,
    /// Files, folders and links of one layer.
    pub layer_entries_max: u64,
    /// How many times larger than its compressed form a layer may be, once it is larger than `ratio_bytes_min`.
    pub ratio_max: u64,
    /// Below this many bytes no ratio is asked.
    pub ratio_bytes_min: u64,
    /// Bytes of one archive or one blob as they arrive.
    pub transfer_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_bytes_max: 64 << 30,
            layer_entries_max: 1 << 20,
            ratio_max: 200,
            ratio_bytes_min: 1 << 30,
            transfer_bytes_max: 64 << 30,
        }
    }
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes of the files.
    pub(crate) bytes: u64,
    /// Entries of the archive.
    pub(crate) entries: u64,
}

/// Why a layer was refused or could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The archive is broken.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry breaks a rule.
    #[error("{path:?}: {rule}")]
    Rule { path: String, rule: &'static str },
    /// The layer is too much.
    #[error("the layer has more than {max} {what}")]
    Limit { max: u64, what: &'static str },
    /// The operating system refused.
    #[error("failed to {step} {path:?}: {errno}")]
    Os { step: &'static str, path: String, errno: Errno },
    /// A file's content could not be read or written.
    #[error("failed to write {path:?}: {source}")]
    Copy { path: String, source: io::Error },
}

/// Unpacks the layer `archive` into the empty folder `target`. `parents` are the folders of the layers below,
/// topmost first: a folder that the archive only implies takes its owner and mode from there.
pub(crate) fn unpack<R: Read>(
    archive: &mut TarReader<R>,
    target: &Path,
    parents: &[PathBuf],
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    let open = |dir: &Path| Root::open(dir).map_err(|errno| os("open", dir.as_os_str(), errno));
    let mut unpacker = Unpacker {
        root: open(target)?,
        parents: parents.iter().map(|dir| open(dir)).collect::<Result<_, _>>()?,
        last_parent: None,
        dir_times: Vec::new(),
        limits: *limits,
        done: Unpacked::default(),
    };
    unpacker.inherit(Path::new(""))?;
    while let Some(entry) = archive.next()? {
        unpacker.add(&entry, archive)?;
    }
    unpacker.finish()?;
    Ok(unpacker.done)
}

struct Unpacker {
    root: Root,
    parents: Vec<Root>,
    /// The folder of the last entry: the next one is mostly its neighbour. Dropped when anything is replaced.
    last_parent: Option<(PathBuf, OwnedFd)>,
    /// Folders' times are set last: filling a folder changes them.
    dir_times: Vec<(PathBuf, (i64, u32))>,
    limits: Limits,
    done: Unpacked,
}

impl Unpacker {
    fn add(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), UnpackError> {
        self.count(entry)?;
        let path = relative(&entry.path)?;
        let Some(name) = path.file_name() else { return self.add_root(entry) };
        let parent_path = path.parent().unwrap_or(Path::new(""));
        let parent = match self.last_parent.take() {
            Some((last, fd)) if last == parent_path => fd,
            _ => self.make_parents(parent_path)?,
        };
        let bytes = name.as_bytes();
        let keep = if bytes == OPAQUE {
            set_opaque(parent.as_fd()).map_err(|errno| os("mark as opaque", &path, errno))?;
            true
        } else if bytes.starts_with(WHITEOUT_META) {
            true
        } else if let Some(hidden) = bytes.strip_prefix(WHITEOUT) {
            whiteout(parent.as_fd(), OsStr::from_bytes(hidden), &path)?;
            true
        } else {
            self.make(entry, &path, parent.as_fd(), name, content)?
        };
        if keep {
            self.last_parent = Some((parent_path.to_owned(), parent));
        }
        Ok(())
    }

    fn count(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        self.done.entries += 1;
        self.done.bytes = self.done.bytes.saturating_add(entry.size);
        if self.done.entries > self.limits.layer_entries_max {
            return Err(UnpackError::Limit { max: self.limits.layer_entries_max, what: "entries" });
        }
        if self.done.bytes > self.limits.layer_bytes_max {
            return Err(UnpackError::Limit { max: self.limits.layer_bytes_max, what: "bytes" });
        }
        Ok(())
    }

    /// An entry for `/` itself sets what it is like.
    fn add_root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        if entry.kind != Kind::Directory {
            return Err(UnpackError::Rule { path: "/".to_owned(), rule: "the root must be a directory" });
        }
        set_attributes(self.root.fd(), entry, Path::new("/"))?;
        self.dir_times.push((PathBuf::new(), entry.mtime));
        Ok(())
    }

    /// Makes the entry, replacing what an earlier entry put there. Answers whether open folders are still right.
    fn make(
        &mut self,
        entry: &Entry,
        path: &Path,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        content: &mut impl Read,
    ) -> Result<bool, UnpackError> {
        let existing = lstat_in(parent, name).map_err(|errno| os("look at", path, errno))?;
        let was_whiteout = existing.as_ref().is_some_and(is_whiteout);
        let is_dir = existing.as_ref().is_some_and(|stat| file_type(stat) == FileType::Directory);
        let merge = is_dir && entry.kind == Kind::Directory;
        if existing.is_some() && !merge {
            remove_in(parent, name).map_err(|errno| os("replace", path, errno))?;
        }
        let made = |result: Result<(), Errno>, step| result.map_err(|errno| os(step, path, errno));
        let node = |kind, device| rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device);
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        match entry.kind {
            Kind::File => {
                let file = write_file(parent, name, path, content)?;
                set_attributes(file.as_fd(), entry, path)?;
                set_times(file.as_fd(), entry.mtime).map_err(|errno| os("set the times of", path, errno))?;
            }
            Kind::Directory => {
                if !merge {
                    made(rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700)), "make")?;
                }
                let dir = open_dir_in(parent, name).map_err(|errno| os("open", path, errno))?;
                if was_whiteout {
                    set_opaque(dir.as_fd()).map_err(|errno| os("mark as opaque", path, errno))?;
                }
                set_attributes(dir.as_fd(), entry, path)?;
                self.dir_times.push((path.to_owned(), entry.mtime));
            }
            Kind::HardLink => self.link(entry, path, parent, name)?,
            Kind::Symlink => made(rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), parent, name), "link")?,
            Kind::CharDevice => made(node(FileType::CharacterDevice, device), "make the device")?,
            Kind::BlockDevice => made(node(FileType::BlockDevice, device), "make the device")?,
            Kind::Fifo => made(node(FileType::Fifo, 0), "make the FIFO")?,
        }
        if matches!(entry.kind, Kind::Symlink | Kind::CharDevice | Kind::BlockDevice | Kind::Fifo) {
            set_attributes_in(parent, name, entry).map_err(|errno| os("set the attributes of", path, errno))?;
        }
        Ok(entry.kind != Kind::Symlink && (existing.is_none() || merge))
    }

    /// A second name for a file of this layer. A link is linked itself, never what it points to.
    fn link(&self, entry: &Entry, path: &Path, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), UnpackError> {
        let target = relative(&entry.link)?;
        let file = target.file_name().ok_or_else(|| rule(path, "a hard link to the root"))?;
        let dir = self.root.dir(target.parent().unwrap_or(Path::new(""))).map_err(|e| os("find", &target, e))?;
        rustix::fs::linkat(&dir, file, parent, name, AtFlags::empty()).map_err(|errno| os("link to", &target, errno))
    }

    /// Opens a folder of the layer, making what is missing of it.
    fn make_parents(&self, path: &Path) -> Result<OwnedFd, UnpackError> {
        match self.root.dir(path) {
            Err(Errno::NOENT) => {}
            other => return other.map_err(|errno| os("open", path, errno)),
        }
        let mut at = PathBuf::new();
        for component in path.components() {
            let parent = self.root.dir(&at).map_err(|errno| os("open", &at, errno))?;
            at.push(component);
            match self.root.dir(&at) {
                Err(Errno::NOENT) => {}
                other => {
                    other.map_err(|errno| os("open", &at, errno))?;
                    continue;
                }
            }
            // EEXIST: a link that leads nowhere. Following it would make folders where the archive did not ask.
            rustix::fs::mkdirat(&parent, component.as_os_str(), Mode::from_raw_mode(0o755))
                .map_err(|errno| os("make", &at, errno))?;
            self.inherit(&at)?;
        }
        self.root.dir(path).map_err(|errno| os("open", path, errno))
    }

    /// Gives a folder that the archive implies the owner, mode and time it has in the layers below: in the merged
    /// view the upper folder's are what is seen.
    fn inherit(&self, path: &Path) -> Result<(), UnpackError> {
        let dir = self.root.dir(path).map_err(|errno| os("open", path, errno))?;
        let stat = self.parents.iter().find_map(|parent| parent.lstat(path).ok());
        let result = match stat {
            Some(stat) if file_type(&stat) == FileType::Directory => copy_attributes(dir.as_fd(), &stat),
            _ => rustix::fs::fchmod(&dir, Mode::from_raw_mode(0o755)),
        };
        result.map_err(|errno| os("set the attributes of", path, errno))
    }

    /// Sets folders' times, deepest last entries first. A folder that was replaced meanwhile keeps its own.
    fn finish(&self) -> Result<(), UnpackError> {
        for (path, mtime) in self.dir_times.iter().rev() {
            match self.root.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                Ok(dir) => set_times(dir.as_fd(), *mtime).map_err(|errno| os("set the times of", path, errno))?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(os("open", path, errno)),
            }
        }
        Ok(())
    }
}

/// The path below the root: without leading slashes and dots. `..` has no business in a layer.
pub(crate) fn relative(bytes: &[u8]) -> Result<PathBuf, UnpackError> {
    let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let mut clean = PathBuf::new();
    let mut depth = 0;
    for component in path.components() {
        match component {
            Component::Normal(part) => clean.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(rule(&path, "leads out of the image's root")),
        }
        depth += 1;
    }
    if depth > DEPTH_MAX {
        return Err(rule(&clean, "too many nested directories"));
    }
    Ok(clean)
}

/// Hides what the layers below have under a name. What this layer itself has there stays, but hides them too.
fn whiteout(parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), UnpackError> {
    if matches!(name.as_bytes(), b"" | b"." | b"..") {
        return Err(rule(path, "a whiteout of nothing"));
    }
    let existing = lstat_in(parent, name).map_err(|errno| os("look at", path, errno))?;
    let result = match existing {
        None => rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0),
        Some(stat) if file_type(&stat) == FileType::Directory => {
            open_dir_in(parent, name).and_then(|dir| set_opaque(dir.as_fd()))
        }
        Some(_) => Ok(()),
    };
    result.map_err(|errno| os("make the whiteout", path, errno))
}

fn write_file(parent: BorrowedFd<'_>, name: &OsStr, path: &Path, content: &mut impl Read) -> Result<File, UnpackError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(|e| os("make", path, e))?;
    let mut file = File::from(fd);
    io::copy(content, &mut file).map_err(|source| UnpackError::Copy { path: path.display().to_string(), source })?;
    Ok(file)
}

/// Owner before mode: changing the owner clears setuid. Attributes last: it clears capabilities too.
fn set_attributes(fd: BorrowedFd<'_>, entry: &Entry, path: &Path) -> Result<(), UnpackError> {
    let fail = |errno| os("set the attributes of", path, errno);
    rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))).map_err(fail)?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).map_err(fail)?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_taken_xattr(name)) {
        match rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
            // A file system without extended attributes: as containerd, go on.
            Ok(()) | Err(Errno::NOTSUP) => {}
            Err(errno) => return Err(os("set an extended attribute of", path, errno)),
        }
    }
    Ok(())
}

/// File capabilities and users' own attributes. Not `trusted.overlay.*`, which would be instructions to the kernel.
fn is_taken_xattr(name: &str) -> bool {
    name == "security.capability" || (name.starts_with("user.") && !name.starts_with("user.overlay."))
}

/// For what cannot be opened: links, devices, FIFOs.
fn set_attributes_in(parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), Errno> {
    let owner = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
    rustix::fs::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    if entry.kind != Kind::Symlink {
        rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    rustix::fs::utimensat(parent, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// Owner, mode and time of another folder.
pub(crate) fn copy_attributes(dir: BorrowedFd<'_>, from: &Stat) -> Result<(), Errno> {
    rustix::fs::fchown(dir, Some(Uid::from_raw(from.st_uid)), Some(Gid::from_raw(from.st_gid)))?;
    rustix::fs::fchmod(dir, Mode::from_raw_mode(from.st_mode & 0o7777))?;
    set_times(dir, (from.st_mtime, u32::try_from(from.st_mtime_nsec).unwrap_or(0)))
}

fn set_times(fd: BorrowedFd<'_>, mtime: (i64, u32)) -> Result<(), Errno> {
    rustix::fs::futimens(fd, &timestamps(mtime))
}

fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn set_opaque(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::fsetxattr(dir, OPAQUE_XATTR, b"y", XattrFlags::empty())
}

fn open_dir_in(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn os(step: &'static str, path: impl AsRef<OsStr>, errno: Errno) -> UnpackError {
    UnpackError::Os { step, path: path.as_ref().to_string_lossy().into_owned(), errno }
}

fn rule(path: &Path, rule: &'static str) -> UnpackError {
    UnpackError::Rule { path: path.display().to_string(), rule }
}
