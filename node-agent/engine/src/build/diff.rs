//! What a command has changed, as a layer: the upper folder of an overlay, with its marks for what is gone.
//!
//! Source: Linux, Documentation/filesystems/overlayfs.rst, "Whiteouts and opaque directories"; OCI image
//! specification 1.1, "Image Layer Filesystem Changeset".

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use super::layer::{LayerWriter, Meta};
use crate::images::ImageStore;
use crate::images::error::{ImageError, Step as _};
use crate::snapshot::root::Root;
use crate::snapshot::tar::{Entry, Kind};
use crate::snapshot::{Rootfs, open_merged};

/// How deep folders may nest.
const DEPTH_MAX: usize = 256;
/// Largest value of an extended attribute: the kernel's.
const XATTR_LEN_MAX: usize = 64 << 10;
/// What of two files is compared at once.
const CHUNK: usize = 128 << 10;
const OPAQUE: &str = "trusted.overlay.opaque";

/// Writes the changes in the folder `upper` upon `image`. `stubs` are places that were made only to mount something
/// there: left out as long as nothing is in them.
pub(super) fn write<W: Write>(
    upper: &Path,
    image: &Root,
    stubs: &BTreeSet<PathBuf>,
    layer: &mut LayerWriter<W>,
) -> Result<(), String> {
    let root = Root::open(upper).map_err(|errno| at(upper, errno))?;
    let mut diff = Diff { root: &root, image, stubs, layer, links: HashMap::new(), pending: Vec::new() };
    diff.folder(Path::new(""), 0)
}

/// Writes what makes `after` of `before`, two whole file systems.
pub(super) fn between(before: &Root, after: &Root, layer: &mut LayerWriter) -> Result<(), String> {
    let stubs = BTreeSet::new();
    let mut diff =
        Diff { root: after, image: before, stubs: &stubs, layer, links: HashMap::new(), pending: Vec::new() };
    diff.compare(Path::new(""), 0)
}

/// Writes what a container has changed upon its image as a layer into a file. `mounted` is where something is mounted
/// in it: places that were made only for that are left out.
pub(crate) fn write_changes(
    store: &ImageStore,
    rootfs: &Rootfs,
    mounted: &[PathBuf],
    place: &Path,
) -> Result<(), ImageError> {
    let (_, layers) = store.unpacked(&rootfs.image)?;
    let image = open_merged(store.layers_dir(), &layers)?;
    let stubs = stubs(&image, mounted);
    let file = BufWriter::new(File::create_new(place).step("create", place)?);
    let mut layer = LayerWriter::new(file, None);
    let failed = |why: String| io::Error::other(why);
    write(&rootfs.upper, &image, &stubs, &mut layer).map_err(failed).step("write", place)?;
    layer.end().and_then(|mut file| file.flush()).step("write", place)
}

/// Places that an image lacks and where something is mounted: `mounted`, what is around it, and what every container
/// has.
pub(super) fn stubs(image: &Root, mounted: &[PathBuf]) -> BTreeSet<PathBuf> {
    let places = ["proc", "sys", "dev"].into_iter().map(PathBuf::from);
    let mut stubs: BTreeSet<PathBuf> = places.collect();
    for target in mounted {
        let parts = target.components().filter(|part| matches!(part, Component::Normal(_)));
        let path: PathBuf = parts.collect();
        let real = image.real_path(&path).unwrap_or(path);
        stubs.extend(real.ancestors().filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned));
    }
    stubs.retain(|path| image.lstat(path).is_err());
    stubs
}

struct Diff<'a, W: Write> {
    root: &'a Root,
    image: &'a Root,
    stubs: &'a BTreeSet<PathBuf>,
    layer: &'a mut LayerWriter<W>,
    /// Files with several names, and the name that came first.
    links: HashMap<(u64, u64), PathBuf>,
    /// Folders on the way that nothing has been written in yet.
    pending: Vec<(PathBuf, Entry)>,
}

impl<W: Write> Diff<'_, W> {
    fn folder(&mut self, dir: &Path, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("{}: too many nested directories", dir.display()));
        }
        for name in self.root.list(dir).map_err(|errno| at(dir, errno))? {
            let path = dir.join(&name);
            let stat = self.root.lstat(&path).map_err(|errno| at(&path, errno))?;
            match kind(&stat) {
                FileType::CharacterDevice if stat.st_rdev == 0 => self.whiteout(&path)?,
                // A socket without its server is nothing.
                FileType::Socket => {}
                _ if name.as_bytes().starts_with(b".wh.") => {
                    let path = path.display();
                    return Err(format!("{path}: image layers cannot hold files whose names begin with .wh."));
                }
                FileType::Directory => self.child_folder(&path, &stat, depth)?,
                FileType::RegularFile if stat.st_size == 0 && self.stubs.contains(&path) => {}
                _ => self.entry(&path, &stat)?,
            }
        }
        Ok(())
    }

    /// A folder that was only looked into, or made to mount something in, is no change.
    fn child_folder(&mut self, path: &Path, stat: &Stat, depth: usize) -> Result<(), String> {
        let fd = self.root.dir(path).map_err(|errno| at(path, errno))?;
        let xattrs = xattrs(&fd).map_err(|error| at(path, error))?;
        let opaque = xattrs.iter().any(|(name, value)| name == OPAQUE && value == b"y");
        let owner = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
        let same = self.image.lstat(path).is_ok_and(|old| owner(&old) == owner(stat));
        let entry = entry_of(path, stat, Kind::Directory, own(xattrs));
        self.pending.push((path.to_owned(), entry));
        if opaque || !(same || self.stubs.contains(path)) {
            self.flush()?;
        }
        if opaque {
            let mark = path.join(".wh..wh..opq");
            self.layer.file(&mark, MARK, 0, io::empty()).map_err(|error| at(&mark, error))?;
        }
        self.folder(path, depth + 1)?;
        self.pending.pop_if(|(pending, _)| pending == path);
        Ok(())
    }

    /// A folder of two whole file systems.
    fn compare(&mut self, dir: &Path, depth: usize) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Err(format!("{}: too many nested directories", dir.display()));
        }
        let names = self.root.list(dir).map_err(|errno| at(dir, errno))?;
        let before = match self.image.list(dir) {
            Err(Errno::NOENT | Errno::NOTDIR) => Vec::new(),
            before => before.map_err(|errno| at(dir, errno))?,
        };
        for name in before.iter().filter(|name| names.binary_search(name).is_err()) {
            self.whiteout(&dir.join(name))?;
        }
        for name in names {
            let path = dir.join(&name);
            let stat = self.root.lstat(&path).map_err(|errno| at(&path, errno))?;
            let same = self.is_same(&path, &stat)?;
            if kind(&stat) != FileType::Directory {
                if !same {
                    self.entry(&path, &stat)?;
                }
                continue;
            }
            let fd = self.root.dir(&path).map_err(|errno| at(&path, errno))?;
            let xattrs = own(xattrs(&fd).map_err(|error| at(&path, error))?);
            self.pending.push((path.clone(), entry_of(&path, &stat, Kind::Directory, xattrs)));
            if !same {
                self.flush()?;
            }
            self.compare(&path, depth + 1)?;
            self.pending.pop_if(|(pending, _)| *pending == path);
        }
        Ok(())
    }

    /// Whether something is as it was before. Files are compared by what is in them, as times may have been set.
    fn is_same(&self, path: &Path, stat: &Stat) -> Result<bool, String> {
        let Ok(old) = self.image.lstat(path) else { return Ok(false) };
        let about = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
        if about(&old) != about(stat) {
            return Ok(false);
        }
        let failed = |errno: Errno| at(path, errno);
        match kind(stat) {
            FileType::Directory => {
                let (old, new) = (self.image.dir(path).map_err(failed)?, self.root.dir(path).map_err(failed)?);
                let read = |fd| xattrs(fd).map(own).map_err(|error| at(path, error));
                Ok(read(&old)? == read(&new)?)
            }
            FileType::Symlink => Ok(self.image.link(path).map_err(failed)? == self.root.link(path).map_err(failed)?),
            FileType::RegularFile if (old.st_size, old.st_mtime) != (stat.st_size, stat.st_mtime) => Ok(false),
            FileType::RegularFile => {
                let (old, new) = (self.image.file(path).map_err(failed)?, self.root.file(path).map_err(failed)?);
                let read = |fd| xattrs(fd).map(own).map_err(|error| at(path, error));
                Ok(read(&old)? == read(&new)? && same_content(old, new).map_err(|error| at(path, error))?)
            }
            _ => Ok(true),
        }
    }

    fn entry(&mut self, path: &Path, stat: &Stat) -> Result<(), String> {
        self.flush()?;
        let file = kind(stat) == FileType::RegularFile;
        let first = (stat.st_nlink > 1 && file).then(|| self.links.get(&(stat.st_dev, stat.st_ino)).cloned()).flatten();
        let (link, kind, xattrs) = match (kind(stat), first) {
            (_, Some(first)) => (first, Kind::HardLink, Vec::new()),
            (FileType::RegularFile, None) => {
                self.links.insert((stat.st_dev, stat.st_ino), path.to_owned());
                let fd = self.root.file(path).map_err(|errno| at(path, errno))?;
                (PathBuf::new(), Kind::File, own(xattrs(&fd).map_err(|error| at(path, error))?))
            }
            (FileType::Symlink, _) => {
                let target = self.root.link(path).map_err(|errno| at(path, errno))?;
                (target.into(), Kind::Symlink, Vec::new())
            }
            (FileType::BlockDevice, _) => (PathBuf::new(), Kind::BlockDevice, Vec::new()),
            (FileType::CharacterDevice, _) => (PathBuf::new(), Kind::CharDevice, Vec::new()),
            _ => (PathBuf::new(), Kind::Fifo, Vec::new()),
        };
        let entry = Entry { link: link.as_os_str().as_bytes().to_vec(), ..entry_of(path, stat, kind, xattrs) };
        let written = match kind {
            Kind::File => {
                let file = self.root.file(path).map_err(|errno| at(path, errno))?;
                self.layer.entry(path, &entry, &link, file)
            }
            _ => self.layer.entry(path, &entry, &link, io::empty()),
        };
        written.map_err(|error| at(path, error))
    }

    fn whiteout(&mut self, path: &Path) -> Result<(), String> {
        // What the image does not have need not be taken out of it.
        if matches!(self.image.lstat(path), Err(Errno::NOENT)) {
            return Ok(());
        }
        self.flush()?;
        let mut name = std::ffi::OsString::from(".wh.");
        name.push(path.file_name().unwrap_or_default());
        let mark = path.with_file_name(name);
        self.layer.file(&mark, MARK, 0, io::empty()).map_err(|error| at(&mark, error))
    }

    fn flush(&mut self) -> Result<(), String> {
        for (path, entry) in self.pending.drain(..) {
            self.layer.entry(&path, &entry, Path::new(""), io::empty()).map_err(|error| at(&path, error))?;
        }
        Ok(())
    }
}

/// What stands for something that is gone.
const MARK: Meta = Meta { uid: 0, gid: 0, mode: 0o644, mtime: 0 };

/// What the tar entry of a file is that lies somewhere.
pub(super) fn entry_of(path: &Path, stat: &Stat, kind: Kind, xattrs: Vec<(String, Vec<u8>)>) -> Entry {
    let size = if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
    Entry {
        path: path.as_os_str().as_bytes().to_vec(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size,
        mtime: (stat.st_mtime, 0),
        link: Vec::new(),
        device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        xattrs,
    }
}

/// All extended attributes of an open file or folder.
fn xattrs(fd: impl std::os::fd::AsFd) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; XATTR_LEN_MAX];
    let len = match rustix::fs::flistxattr(&fd, &mut names) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for name in names.get(..len).unwrap_or_default().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; XATTR_LEN_MAX];
        match rustix::fs::fgetxattr(&fd, name, &mut value) {
            Ok(len) => {
                value.truncate(len);
                found.push((String::from_utf8_lossy(name).into_owned(), value));
            }
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(found)
}

fn same_content(one: File, other: File) -> io::Result<bool> {
    let (mut one, mut other) = (BufReader::with_capacity(CHUNK, one), BufReader::with_capacity(CHUNK, other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let len = left.len().min(right.len());
        if left.get(..len) != right.get(..len) {
            return Ok(false);
        }
        if len == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        one.consume(len);
        other.consume(len);
    }
}

/// Without what is the overlay's own.
fn own(mut xattrs: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    xattrs.retain(|(name, _)| !name.starts_with("trusted.overlay."));
    xattrs
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn at(path: impl AsRef<Path>, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.as_ref().display())
}
