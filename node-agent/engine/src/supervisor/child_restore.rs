//! What a new process does that becomes CRIU to bring a container back: raw system calls only, like [`super::child`].

#![allow(unsafe_code, reason = "between clone and exec only raw system calls are allowed")]

use std::ffi::{c_int, c_uint};

use super::child::{Attempt, Step, check, fail};
use super::child_root::make_views;
use super::prepare::{CRIU_NETWORK, CRIU_SOCKET, Prepared, PreparedRestore, PreparedRoot};

/// Builds the container's root beside, and executes CRIU with the container's streams, its socket, the pod's network,
/// and nothing else of the node. CRIU itself keeps the node's rights; its processes get what the checkpoint says, which
/// whoever speaks with it looks at before they go on.
pub(super) fn become_criu(root: &PreparedRoot, restore: &PreparedRestore, prepared: &Prepared) -> Attempt {
    make_views(root, &restore.view, prepared.streams)?;
    let streams = prepared.streams.into_iter().zip(0..);
    for (index, (from, to)) in
        streams.chain([(restore.socket, CRIU_SOCKET), (restore.network, CRIU_NETWORK)]).enumerate()
    {
        // SAFETY: duplicates a descriptor that the parent opened for this process.
        check(unsafe { libc::dup2(from, to) }.into(), Step::Streams, index)?;
    }
    close_others(prepared.error_pipe)?;
    // SAFETY: a prepared string, and arrays of pointers to such, closed by a null pointer.
    unsafe { libc::execve(restore.program.as_ptr(), restore.argv.as_ptr(), restore.env.as_ptr()) };
    fail(Step::Criu, 0)
}

fn close_others(error_pipe: c_int) -> Attempt {
    let pipe = c_uint::try_from(error_pipe).unwrap_or(0);
    let first = c_uint::try_from(CRIU_NETWORK + 1).unwrap_or(0);
    for (first, last) in [(first, pipe.saturating_sub(1)), (pipe.saturating_add(1), c_uint::MAX)] {
        if first <= last {
            // SAFETY: close_range(2) on numbers.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }, Step::Streams, 5)?;
        }
    }
    Ok(())
}
