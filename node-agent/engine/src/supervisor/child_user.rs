//! Birth in a pod's user namespace: raw system calls only, like [`super::child`].
//!
//! Only a process with one thread may enter a user namespace, and what of the node it needs it must have opened
//! before: whoever is in there has no rights on the node any more. So a process goes ahead: with the node's rights it
//! opens the volumes, maps their ids and gives the streams to their user; then it enters the namespace, where the
//! container's process is born as its sister (`CLONE_PARENT`, so that the supervisor is the parent), in a PID and a
//! mount namespace that belong to that user namespace. It tells whom it bore, lets that one go, and ends.

#![allow(unsafe_code, reason = "between clone and exec only raw system calls are allowed")]

use std::ffi::{c_int, c_long};

use super::child::{Attempt, Failure, Step, check, own_streams, report, reset_signals, set_oom_score};
use super::child_root::open_sources;
use super::launch::{Body, CloneArgs, clone3};
use super::prepare::{Entry, Prepared};

/// Where and how a process is to be born.
#[derive(Clone, Copy)]
pub(super) struct Birth<'a> {
    /// The pod's user namespace.
    pub(super) user: c_int,
    /// The process whose PID namespace it shares; else `flags` make a new one.
    pub(super) pid_of: Option<c_int>,
    /// `CLONE_NEW…`
    pub(super) flags: c_int,
    /// Its v2 group.
    pub(super) group: Option<c_int>,
    /// Where the one that goes ahead tells how it went.
    pub(super) pipe: c_int,
    /// What it does.
    pub(super) body: Newborn<'a>,
}

/// What is born.
#[derive(Clone, Copy)]
pub(super) enum Newborn<'a> {
    /// A container's first process.
    Process(&'a Prepared),
    /// A pod-wide init, with the v1 groups it is to join.
    Init(&'a [c_int]),
}

/// Goes ahead; never returns, in either process.
pub(super) fn go_ahead(birth: &Birth<'_>) -> ! {
    match bear(birth) {
        Ok((pid, go)) => {
            report(birth.pipe, Failure { step: Step::Born as u32, index: 0, errno: pid });
            // SAFETY: writes one constant byte into a pipe of our own.
            unsafe { libc::write(go, c"!".as_ptr().cast(), 1) };
        }
        Err(failure) => report(birth.pipe, failure),
    }
    // SAFETY: ends the process without running anything of the copied program.
    unsafe { libc::_exit(0) }
}

/// The child's id, and where it waits to be let go: what it has to tell comes after who it is.
fn bear(birth: &Birth<'_>) -> Attempt<(c_int, c_int)> {
    let body = match birth.body {
        Newborn::Process(prepared) => {
            reset_signals();
            set_oom_score(&prepared.process);
            own_streams(prepared);
            if let Entry::New { root, .. } = &prepared.entry {
                open_sources(root, Some(birth.user))?;
            }
            Body::Process(prepared)
        }
        Newborn::Init(groups) => Body::Init(groups),
    };
    if let Some(process) = birth.pid_of {
        // SAFETY: a pidfd held by the parent.
        let joined = unsafe { libc::syscall(libc::SYS_setns, process, libc::CLONE_NEWPID) };
        check(joined, Step::Namespace, 0)?;
    }
    // SAFETY: a descriptor of a pinned namespace, opened by the parent.
    let entered = unsafe { libc::syscall(libc::SYS_setns, birth.user, libc::CLONE_NEWUSER) };
    check(entered, Step::UserNamespace, 0)?;
    // A sister has the end of her parent's child told as that child's is.
    let mut args = CloneArgs::new(birth.flags | libc::CLONE_PARENT, 0);
    if let Some(group) = birth.group {
        args.enter(group);
    }
    let mut ends = [-1; 2];
    // SAFETY: pipe2(2) fills an array of two.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into(), Step::UserNamespace, 1)?;
    let [wait, go] = ends;
    let pid = clone3(&args);
    if pid == 0 {
        wait_for(wait, go);
        body.run();
    }
    check(pid, Step::UserNamespace, 1)?;
    Ok((c_int::try_from(pid).unwrap_or(0), go))
}

/// Waits to be let go. Whoever went ahead and died before that has told nobody: then there is nothing to live for.
fn wait_for(wait: c_int, go: c_int) {
    let mut byte = 0_u8;
    // SAFETY: closes and reads the pipe of our parent's copy; `byte` has room for one.
    unsafe {
        libc::close(go);
        if libc::read(wait, (&raw mut byte).cast(), 1) != 1 {
            libc::_exit(128);
        }
        libc::close(wait);
    }
}

/// Becomes the user namespace's own root, with all its capabilities: until then the process is one of the node's users,
/// which are nobody there.
pub(super) fn become_root() -> Attempt {
    // SAFETY: system calls on constants.
    unsafe {
        let ids: [c_long; 2] =
            [libc::syscall(libc::SYS_setresgid, 0, 0, 0), libc::syscall(libc::SYS_setresuid, 0, 0, 0)];
        for (index, result) in ids.into_iter().enumerate() {
            check(result, Step::UserNamespace, 2 + index)?;
        }
    }
    Ok(())
}
