//! A folder as the root of everything done in it: no path, link or mount leads out.
//!
//! Every look-up goes through `openat2` with `RESOLVE_IN_ROOT` (Linux 5.6): the kernel resolves links and `..` as a
//! process chrooted there would, without a race. See openat2(2).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// How often a look-up that raced with a rename is tried again.
const RACES_MAX: u32 = 32;

/// How many links one path may lead through; the kernel's own limit.
const LINKS_MAX: u32 = 40;

/// An open folder that is nobody's way out.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    /// What happens to a path that would lead out.
    outside: ResolveFlags,
}

impl Root {
    /// Opens a folder as a root: absolute links start at it, `..` ends at it.
    pub(crate) fn open(dir: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(dir, flags, Mode::empty())?, outside: ResolveFlags::IN_ROOT })
    }

    /// Opens a folder that paths may not even try to leave: they fail with `EXDEV`.
    pub(crate) fn open_beneath(dir: &Path) -> Result<Self, Errno> {
        Ok(Self { outside: ResolveFlags::BENEATH, ..Self::open(dir)? })
    }

    /// The folder itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens what `path` leads to, following links inside the root.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = self.outside | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RACES_MAX {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Opens a folder.
    pub(crate) fn dir(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.open_at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// What lies at `path`; a link there is not followed.
    pub(crate) fn lstat(&self, path: &Path) -> Result<Stat, Errno> {
        rustix::fs::fstat(self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW)?)
    }

    /// What `path` leads to, links followed.
    pub(crate) fn stat(&self, path: &Path) -> Result<Stat, Errno> {
        rustix::fs::fstat(self.open_at(path, OFlags::PATH)?)
    }

    /// Opens a regular file for reading; anything else is not opened at all, see [`open_regular`].
    pub(crate) fn file(&self, path: &Path) -> Result<File, Errno> {
        open_regular(&self.open_at(path, OFlags::PATH)?)
    }

    /// The same for a path whose last component is not followed.
    pub(crate) fn file_itself(&self, path: &Path) -> Result<File, Errno> {
        open_regular(&self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW)?)
    }

    /// Where a link points; `EINVAL` when it is none.
    pub(crate) fn link(&self, path: &Path) -> Result<OsString, Errno> {
        let link = self.open_at(path, OFlags::PATH | OFlags::NOFOLLOW)?;
        // An empty path on a descriptor of something else than a link fails with ENOENT.
        let target = rustix::fs::readlinkat(&link, "", Vec::new());
        let target = target.map_err(|errno| if errno == Errno::NOENT { Errno::INVAL } else { errno })?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Names in a folder, sorted.
    pub(crate) fn list(&self, path: &Path) -> Result<Vec<OsString>, Errno> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.dir(path)?)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// The path without links: as far as it exists each component is followed, the rest stays as it is.
    pub(crate) fn real_path(&self, path: &Path) -> Result<PathBuf, Errno> {
        let mut real = PathBuf::new();
        let mut links = 0;
        let mut todo: Vec<OsString> = path.components().rev().map(|c| c.as_os_str().to_owned()).collect();
        while let Some(part) = todo.pop() {
            match part.as_bytes() {
                b"/" => real.clear(),
                b"." => {}
                b".." => drop(real.pop()),
                _ => match self.link(&real.join(&part)) {
                    Ok(target) => {
                        links += 1;
                        if links > LINKS_MAX {
                            return Err(Errno::LOOP);
                        }
                        todo.extend(Path::new(&target).components().rev().map(|c| c.as_os_str().to_owned()));
                    }
                    Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => real.push(part),
                    Err(errno) => return Err(errno),
                },
            }
        }
        Ok(real)
    }
}

/// Opens what an `O_PATH` descriptor stands for, if that is a regular file; else `EISDIR` or `EINVAL`. To open is to
/// act: a device of the node may start at that (a watchdog) or wait for ever (a serial line), and an image may hold
/// any device.
pub(crate) fn open_regular(place: &OwnedFd) -> Result<File, Errno> {
    match FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::INVAL),
    }
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    Ok(File::from(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
}

/// What lies under a name in a folder, not following it.
pub(crate) fn lstat_in(dir: BorrowedFd<'_>, name: &OsStr) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a name from a folder and everything below it; follows no link.
pub(crate) fn remove_in(dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let child = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&child)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            remove_in(child.as_fd(), name)?;
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
