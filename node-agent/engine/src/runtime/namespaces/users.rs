//! A pod's user namespace, and the namespaces that belong to it.
//!
//! A process with threads can make none. So a small process is born in them, which does nothing but wait until they are
//! joined and kept.

#![allow(unsafe_code, reason = "clone3 has no safe wrapper")]

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::{NamespaceError, Step as _, keep};
use crate::engine::UserNamespace;

/// A process that waits; it ends with the value.
struct Waiting {
    pid: i32,
    pidfd: OwnedFd,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It is our child and not buried yet: neither can fail.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Makes a user namespace that maps these ids and namespaces of the given kinds that belong to it, keeps the first at
/// `path`, and joins the others with the calling thread, for good.
pub(super) fn enter_others_of(ids: UserNamespace, kinds: CloneFlags, path: &Path) -> Result<(), NamespaceError> {
    let (wait, go) = pipe_with(PipeFlags::CLOEXEC).step(|| "make a pipe".to_owned())?;
    let waiting = bear(kinds | CloneFlags::CLONE_NEWUSER, &wait).step(|| "make the pod's user namespace".to_owned())?;
    let process = format!("/proc/{}", waiting.pid);
    for map in ["uid_map", "gid_map"] {
        let text = format!("0 {} {}\n", ids.first, ids.length);
        fs::write(format!("{process}/{map}"), text).step(|| format!("map the ids of the pod ({map})"))?;
    }
    keep(Path::new(&format!("{process}/ns/user")), path)?;
    nix::sched::setns(&waiting.pidfd, kinds).step(|| "join the pod's namespaces".to_owned())?;
    drop((waiting, go));
    Ok(())
}

/// Starts a process that waits for the end of a pipe, whoever of us dies first.
fn bear(kinds: CloneFlags, wait: &OwnedFd) -> io::Result<Waiting> {
    /// `struct clone_args` of `clone3(2)`, its first version.
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
    }
    let mut pidfd: RawFd = -1;
    let args = CloneArgs {
        flags: u64::from((kinds.bits() | libc::CLONE_PIDFD).cast_unsigned()),
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    let wait = wait.as_raw_fd();
    // SAFETY: without CLONE_VM this is a fork: the child works on its own copy of this memory, only makes raw system
    // calls, and does not return.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => {
            let mut byte = 0_u8;
            // SAFETY: closes what is not the pipe, reads one byte into room for it, and ends.
            unsafe {
                libc::dup2(wait, 0);
                libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
                libc::read(0, (&raw mut byte).cast(), 1);
                libc::_exit(0)
            }
        }
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
            Ok(Waiting { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
        }
        _ => Err(io::Error::last_os_error()),
    }
}
