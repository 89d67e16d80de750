//! Sets attributes of a mount (`mount_setattr(2)`), which no safe wrapper does. A container's child makes this call
//! itself, where nothing may be allocated: `supervisor/child_root.rs`.

#![allow(unsafe_code, reason = "mount_setattr has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MountAttr {
    /// `MOUNT_ATTR_*` that are set.
    pub(crate) set: u64,
    /// Those that are taken away.
    pub(crate) clear: u64,
    /// `MS_*` of propagation; 0 leaves it.
    pub(crate) propagation: u64,
    /// User namespace whose ids the files' owners are, with `MOUNT_ATTR_IDMAP`.
    pub(crate) userns_fd: u64,
}

/// Sets them on the mount that a descriptor stands for.
pub(crate) fn set(mount: BorrowedFd<'_>, attr: &MountAttr) -> io::Result<()> {
    // SAFETY: mount_setattr(2) on an open descriptor, with a structure of the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
