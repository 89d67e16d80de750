//! `clone3`: the one place where processes come from.

#![allow(unsafe_code, reason = "clone3 and setns on the launching thread have no safe wrapper")]

use std::ffi::{c_int, c_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::child::{self, FAILURE_SIZE, Failure, Step};
use super::child_user::{self, Birth, Newborn};
use super::plan::{CgroupPlan, PidPlan, UserPlan};
use super::prepare::{Entry, PrepareError, Prepared, open, open_groups, open_user};

/// `CLONE_INTO_CGROUP` of `clone3(2)`; Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of `clone3(2)`, version 2.
#[repr(C)]
#[derive(Default)]
pub(super) struct CloneArgs {
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

impl CloneArgs {
    /// A copy of this process that differs in `flags`, and of whose end `signal` tells.
    pub(super) fn new(flags: c_int, signal: c_int) -> Self {
        Self {
            flags: u64::from(flags.cast_unsigned()),
            exit_signal: u64::from(signal.cast_unsigned()),
            ..Self::default()
        }
    }

    /// It is born into this v2 group.
    pub(super) fn enter(&mut self, group: c_int) {
        self.flags |= CLONE_INTO_CGROUP;
        self.cgroup = u64::from(group.cast_unsigned());
    }
}

/// Raw: 0 in the child, which must not return from where this was called.
pub(super) fn clone3(args: &CloneArgs) -> c_long {
    // SAFETY: without CLONE_VM this is a fork: the child works on its own copy of this memory, and callers see to it
    // that it only runs what is limited to raw system calls and does not return.
    unsafe { libc::syscall(libc::SYS_clone3, std::ptr::from_ref(args), size_of::<CloneArgs>()) }
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
pub(super) enum Body<'a> {
    Process(&'a Prepared),
    /// A pod-wide init, with the v1 groups it is to join.
    Init(&'a [c_int]),
    /// Bears another in a pod's user namespace.
    Ahead(&'a Birth<'a>),
}

impl Body<'_> {
    pub(super) fn run(self) -> ! {
        match self {
            Self::Process(prepared) => child::run(prepared),
            Self::Init(groups) => child::run_init(groups),
            Self::Ahead(birth) => child_user::go_ahead(birth),
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

/// Starts a prepared process. Returns as soon as it exists; how it fares shows in the error pipe. Where a pod has a
/// user namespace of its own this is the one that goes ahead, and the pipe tells whom it bears.
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
    if let Entry::New { user: Some(user), .. } = prepared.entry {
        let group = open_unified(cgroup)?;
        let birth = Birth {
            user,
            pid_of: if let PidNamespace::Of(process) = pid { Some(process.as_raw_fd()) } else { None },
            flags,
            group: group.as_ref().map(AsRawFd::as_raw_fd),
            pipe: prepared.error_pipe,
            body: Newborn::Process(prepared),
        };
        return clone(0, None, Body::Ahead(&birth));
    }
    in_pid_namespace(pid, || clone(flags, open_unified(cgroup)?.as_ref(), Body::Process(prepared)))
}

/// Starts the init of a pod-wide PID namespace.
pub(super) fn start_init(cgroup: &CgroupPlan, user: Option<&UserPlan>) -> Result<Child, PrepareError> {
    let mut held = Vec::new();
    let groups = open_groups(cgroup, &mut held)?;
    let group = open_unified(cgroup)?;
    let Some(user) = user else { return clone(libc::CLONE_NEWPID, group.as_ref(), Body::Init(&groups)) };
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| PrepareError { step: "make a pipe".to_owned(), source: errno.into() })?;
    let birth = Birth {
        user: open_user(user, &mut held)?,
        pid_of: None,
        flags: libc::CLONE_NEWPID,
        group: group.as_ref().map(AsRawFd::as_raw_fd),
        pipe: writer.as_raw_fd(),
        body: Newborn::Init(&groups),
    };
    let ahead = clone(0, None, Body::Ahead(&birth))?;
    drop(writer);
    // Two system calls and no disk are between it and its answer.
    let told = read_report(reader.as_fd());
    bury(&ahead);
    match told {
        Some(Failure { step, errno: pid, .. }) if step == Step::Born as u32 => born(pid),
        told => Err(PrepareError {
            step: "start an init in the pod's user namespace".to_owned(),
            source: io::Error::from_raw_os_error(told.map_or(libc::ECHILD, |told| told.errno)),
        }),
    }
}

/// What a process tells before it executes, if it has anything to tell. Waits for it.
pub(super) fn read_report(pipe: BorrowedFd<'_>) -> Option<Failure> {
    let mut report = [0_u8; FAILURE_SIZE];
    let len = rustix::io::read(pipe, &mut report).unwrap_or(0);
    Failure::from_bytes(report.get(..len).unwrap_or_default())
}

/// A child of ours that another has borne. Nobody else buries it, so the number is its own.
pub(super) fn born(pid: i32) -> Result<Child, PrepareError> {
    let found = rustix::process::Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH);
    let opened = found.and_then(|found| rustix::process::pidfd_open(found, rustix::process::PidfdFlags::empty()));
    let pidfd = opened.map_err(|errno| PrepareError { step: "find a process".to_owned(), source: errno.into() })?;
    Ok(Child { pid, pidfd })
}

/// Waits for a process that is at its `_exit`.
pub(super) fn bury(child: &Child) {
    let options = rustix::process::WaitIdOptions::EXITED;
    let _ = rustix::process::waitid(rustix::process::WaitId::PidFd(child.pidfd.as_fd()), options);
}

fn open_unified(cgroup: &CgroupPlan) -> Result<Option<OwnedFd>, PrepareError> {
    cgroup.unified.as_deref().map(|path| open(path, OFlags::PATH | OFlags::DIRECTORY, "open")).transpose()
}

fn clone(flags: c_int, group: Option<&OwnedFd>, body: Body<'_>) -> Result<Child, PrepareError> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs::new(flags | libc::CLONE_PIDFD, libc::SIGCHLD);
    args.pidfd = (&raw mut pidfd) as u64;
    if let Some(group) = group {
        args.enter(group.as_raw_fd());
    }
    match i32::try_from(clone3(&args)) {
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
