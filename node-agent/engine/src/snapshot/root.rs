//! A folder as the root of everything done in it: no path, link or mount leads out.
//!
//! Every look-up goes through `openat2` with `RESOLVE_IN_ROOT` (Linux 5.6): the kernel resolves links and `..` as a
//! process chrooted there would, without a race. See openat2(2).

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// How often a look-up that raced with a rename is tried again.
const RACES_MAX: u32 = 32;

/// An open folder that is nobody's way out.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens a folder as a root.
    pub(crate) fn open(dir: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(dir, flags, Mode::empty())? })
    }

    /// The folder itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens what `path` leads to, following links inside the root.
    pub(crate) fn open_at(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
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

    /// Opens a regular file for reading.
    pub(crate) fn file(&self, path: &Path) -> Result<File, Errno> {
        Ok(File::from(self.open_at(path, OFlags::RDONLY | OFlags::NONBLOCK)?))
    }
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
