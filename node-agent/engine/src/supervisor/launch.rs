//! `clone3`: the one place where processes come from.

#![allow(unsafe_code, reason = "clone3 and setns on the launching thread have no safe wrapper")]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::OFlags;

use super::child;
use super::plan::{CgroupPlan, PidPlan};
use super::prepare::{PrepareError, Prepared, open, open_groups};

/// `CLONE_INTO_CGROUP` of `clone3(2)`; Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of `clone3(2)`, version 2.
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
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A process of ours.
#[derive(Debug)]
pub(super) struct Child {
    /// Its id as the node sees it.
    pub(super) pid: i32,
    /// Its handle.
    pub(super) pidfd: OwnedFd,
}

/// Which PID namespace a new process is born into.
#[derive(Debug, Clone, Copy)]
pub(super) enum PidNamespace<'a> {
    /// A new one, of which it is the init.
    New,
    /// The node's.
    Node,
    /// That of this process.
    Of(BorrowedFd<'a>),
}

/// What a new process does.
#[derive(Clone, Copy)]
enum Body<'a> {
    Process(&'a Prepared),
    /// A pod-wide init, with the v1 groups it is to join.
    Init(&'a [c_int]),
}

impl Body<'_> {
    fn run(self) -> ! {
        match self {
            Self::Process(prepared) => child::run(prepared),
            Self::Init(groups) => child::run_init(groups),
        }
    }
}

impl<'a> PidNamespace<'a> {
    /// For a container's first process; `init` is the one that the plan names, if it does.
    pub(super) fn for_plan(plan: &PidPlan, init: Option<BorrowedFd<'a>>) -> Option<Self> {
        match (plan, init) {
            (PidPlan::New, _) => Some(Self::New),
            (PidPlan::Node, _) => Some(Self::Node),
            (PidPlan::Pod(_) | PidPlan::Of(_), init) => init.map(Self::Of),
        }
    }
}

/// Starts a prepared process. Returns as soon as it exists; how it fares shows in the error pipe.
pub(super) fn start(
    prepared: &Prepared,
    cgroup: &CgroupPlan,
    pid: PidNamespace<'_>,
    new_mounts: bool,
) -> Result<Child, PrepareError> {
    let mut flags = if new_mounts { libc::CLONE_NEWNS } else { 0 };
    if matches!(pid, PidNamespace::New) {
        flags |= libc::CLONE_NEWPID;
    }
    in_pid_namespace(pid, || clone(flags, cgroup.unified.as_deref(), Body::Process(prepared)))
}

/// Starts the init of a pod-wide PID namespace.
pub(super) fn start_init(cgroup: &CgroupPlan) -> Result<Child, PrepareError> {
    let mut held = Vec::new();
    let groups = open_groups(cgroup, &mut held)?;
    clone(libc::CLONE_NEWPID, cgroup.unified.as_deref(), Body::Init(&groups))
}

fn clone(flags: c_int, unified: Option<&Path>, body: Body<'_>) -> Result<Child, PrepareError> {
    let group = unified.map(|path| open(path, OFlags::PATH | OFlags::DIRECTORY, "open")).transpose()?;
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: u64::from((flags | libc::CLONE_PIDFD).cast_unsigned()),
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        ..CloneArgs::default()
    };
    if let Some(group) = &group {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(group.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM this is a fork: the child works on its own copy of this memory and only runs
    // `body`, which is limited to raw system calls and does not return.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match i32::try_from(pid) {
        Ok(0) => body.run(),
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
            Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
        }
        _ => Err(PrepareError { step: "clone a process".to_owned(), source: io::Error::last_os_error() }),
    }
}

/// Runs `start` so that children are born into the given PID namespace. Only the calling thread is affected,
/// and only for the time of the call.
fn in_pid_namespace(
    pid: PidNamespace<'_>,
    start: impl FnOnce() -> Result<Child, PrepareError>,
) -> Result<Child, PrepareError> {
    let PidNamespace::Of(process) = pid else { return start() };
    let own = open(Path::new("/proc/thread-self/ns/pid"), OFlags::RDONLY, "open")?;
    join(process, "join the PID namespace")?;
    let child = start();
    join(own.as_fd(), "return to the own PID namespace")?;
    child
}

fn join(namespace: BorrowedFd<'_>, step: &str) -> Result<(), PrepareError> {
    // SAFETY: setns(2) with CLONE_NEWPID changes only where children of this thread are born.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWPID) } < 0 {
        return Err(PrepareError { step: step.to_owned(), source: io::Error::last_os_error() });
    }
    Ok(())
}
