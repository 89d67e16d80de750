//! A container's own terminal: a devpts mount of its own, made before the container, so that the supervisor
//! holds the master without the container's help.

#![allow(unsafe_code, reason = "TIOCGPTPEER has no safe wrapper")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

/// Magic number of devpts (`statfs(2)`).
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// A terminal and the devpts instance it lives in.
#[derive(Debug)]
pub(crate) struct Terminal {
    mount: OwnedFd,
    master: OwnedFd,
    slave: OwnedFd,
}

impl Terminal {
    /// Makes a devpts instance that is mounted nowhere yet, and a terminal in it.
    pub(crate) fn new(options: &[(String, String)]) -> io::Result<Self> {
        let context = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(context.as_fd(), "source", "devpts")?;
        for (key, value) in options {
            fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str())?;
        }
        fsconfig_create(context.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        let master = openat(&mount, "ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let slave = open_slave(master.as_fd())?;
        Ok(Self { mount, master, slave })
    }

    /// The devpts mount, to be attached by the child.
    pub(crate) fn mount(&self) -> c_int {
        self.mount.as_raw_fd()
    }

    /// The end that belongs to the container.
    pub(crate) fn slave(&self) -> BorrowedFd<'_> {
        self.slave.as_fd()
    }

    /// Keeps the master only.
    pub(crate) fn into_master(self) -> OwnedFd {
        self.master
    }
}

/// Makes a terminal in the devpts instance of a running container, below the folder `root` (its `/proc/PID/root`).
/// Whatever the container put at `/dev/pts` is refused unless it is a devpts, and not even opened: that alone may act
/// (a device of the node starts) or never end. In a devpts nobody can replace what is called `ptmx`, only cover it.
///
/// # Errors
/// When the container has no devpts, or it is full.
pub(crate) fn open_in_container(root: BorrowedFd<'_>) -> io::Result<(OwnedFd, OwnedFd)> {
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let pts = openat2(root, "dev/pts", folder, Mode::empty(), inside)?;
    #[allow(clippy::unnecessary_cast, reason = "the width of f_type differs between architectures")]
    if rustix::fs::fstatfs(&pts)?.f_type as i64 != DEVPTS_SUPER_MAGIC {
        return Err(io::Error::new(io::ErrorKind::NotFound, "/dev/pts of the container is not a devpts"));
    }
    let here = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = openat2(&pts, "ptmx", flags, Mode::empty(), here)?;
    let slave = open_slave(master.as_fd())?;
    Ok((master, slave))
}

fn open_slave(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    rustix::pty::unlockpt(master)?;
    // SAFETY: ioctl_tty(2): opens the other end of a terminal of ours; no path is involved.
    let slave =
        unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    if slave < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(slave) })
}
