//! What a new process does between `clone3` and `execve`: raw system calls on prepared memory, nothing else.
//!
//! The supervisor has threads, so its copy may hold a locked allocator: no allocation, no lock, no panic, no
//! Rust standard library beyond slices happens here. Everything that needs thought was done in
//! [`super::prepare`]; every failure is reported through a pipe as a [`Failure`] and ends the process.

#![allow(unsafe_code, reason = "between clone and exec only raw system calls are allowed")]

use std::ffi::{CStr, c_int, c_long, c_uint, c_void};
use std::ptr;

use super::child_root::is_kind;
use super::prepare::{Entry, Pause, Prepared, PreparedProcess};

/// Which step failed. The number travels through a pipe; the texts are in [`super::failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Step {
    /// No failure: the process lives in a user namespace of its own, and this is its id (see [`super::child_user`]).
    Born = 0,
    /// No failure either: it waits for its launcher; the index says where (see [`pause`]).
    Paused,
    /// Its launcher says that it is not to go on.
    Hook,
    /// Executing CRIU.
    Criu,
    /// Writing itself into a v1 cgroup; the index names it.
    Cgroup,
    /// Joining a pinned namespace, or a container's.
    Namespace,
    /// Making a cgroup namespace.
    CgroupNamespace,
    /// Joining the pod's user namespace, or being born there.
    UserNamespace,
    /// Id-mapping the source of a bind mount; the index names the operation.
    IdMap,
    /// Opening the source of a bind mount; the index names the operation.
    BindSource,
    /// Making the root a mount of its own.
    Root,
    /// An operation on the root; the index names it.
    Op,
    /// Changing into the root.
    Pivot,
    /// Connecting the standard streams.
    Streams,
    /// Making the terminal the controlling one.
    Terminal,
    /// Setting limits.
    Limits,
    /// Setting capabilities.
    Capabilities,
    /// Setting groups.
    Groups,
    /// Setting the user.
    User,
    /// Changing into the working folder.
    Cwd,
    /// Setting `no_new_privs`.
    NoNewPrivs,
    /// Installing the seccomp filter.
    Seccomp,
    /// Setting the AppArmor profile.
    AppArmor,
    /// The command is not there.
    NotThere,
    /// The command is there and cannot be executed.
    Exec,
}

/// What a child writes into the error pipe when it gives up.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Failure {
    /// A [`Step`].
    pub(super) step: u32,
    /// Which of several.
    pub(super) index: u32,
    /// `errno`
    pub(super) errno: c_int,
}

/// Size of a [`Failure`] in the pipe.
pub(super) const FAILURE_SIZE: usize = size_of::<Failure>();

/// What a step comes to.
pub(super) type Attempt<T = ()> = Result<T, Failure>;

/// `__user_cap_header_struct`
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

/// `__user_cap_data_struct`
#[repr(C)]
#[derive(Clone, Copy)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// What lets a process that waits go on; anything else, or an end, does not.
pub(super) const GO: u8 = b'!';

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// Runs the prepared process; never returns.
pub(super) fn run(prepared: &Prepared) -> ! {
    let result = become_container(prepared);
    if let Err(failure) = result {
        report(prepared.error_pipe, failure);
    }
    // SAFETY: ends the process without running anything of the copied program.
    unsafe { libc::_exit(128) }
}

/// Tells the supervisor.
pub(super) fn report(pipe: c_int, what: Failure) {
    // SAFETY: writes 12 bytes of a plain structure into a pipe that is ours.
    unsafe {
        libc::write(pipe, ptr::from_ref(&what).cast::<c_void>(), FAILURE_SIZE);
    }
}

/// Runs as the init of a pod's PID namespace: reaps until it is killed.
pub(super) fn run_init(legacy_groups: &[c_int]) -> ! {
    let _ = join_cgroups(legacy_groups);
    // SAFETY: plain system calls on constants; every descriptor is closed, so nothing of the node stays in reach.
    unsafe {
        libc::setsid();
        libc::syscall(libc::SYS_close_range, 0, c_uint::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"pause".as_ptr());
        let none = CapData { effective: 0, permitted: 0, inheritable: 0 };
        let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
        libc::syscall(libc::SYS_capset, &raw const header, [none, none].as_ptr());
        // Blocked, so that a child's death between the two waits stays pending.
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        loop {
            while libc::waitpid(-1, ptr::null_mut(), 0) > 0 {}
            let mut signal = 0;
            libc::sigwait(&raw const set, &raw mut signal);
        }
    }
}

fn become_container(prepared: &Prepared) -> Attempt {
    reset_signals();
    join_cgroups(&prepared.legacy_groups)?;
    // Here /proc is still the node's: in the container it may be anything. CRIU is no process of the container's: it
    // gives theirs to those that it brings back.
    if !matches!(&prepared.entry, Entry::New { restore: Some(_), .. }) {
        set_app_armor(&prepared.process)?;
    }
    match &prepared.entry {
        Entry::New { user, namespaces, root, restore } => {
            // In a user namespace both were done before it was entered: here nobody has the right any more.
            if user.is_none() {
                set_oom_score(&prepared.process);
                own_streams(prepared);
            }
            for (index, namespace) in namespaces.iter().enumerate() {
                // SAFETY: a descriptor of a pinned namespace, opened by the parent.
                check(unsafe { libc::syscall(libc::SYS_setns, *namespace, 0) }, Step::Namespace, index)?;
            }
            // SAFETY: constants only.
            check(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWCGROUP) }, Step::CgroupNamespace, 0)?;
            if let Some(restore) = restore {
                return super::child_restore::become_criu(root, restore, prepared);
            }
            super::child_root::make_root(root, *user, prepared)?;
            pause(prepared.pause.filter(|pause| pause.at.starting), 1)?;
        }
        Entry::Join { pidfd, namespaces } => {
            set_oom_score(&prepared.process);
            own_streams(prepared);
            // SAFETY: a pidfd held by the parent.
            check(unsafe { libc::syscall(libc::SYS_setns, *pidfd, *namespaces) }, Step::Namespace, 0)?;
        }
    }
    connect_streams(prepared)?;
    become_user(&prepared.process)?;
    execute(&prepared.process)
}

/// Waits to be told to go on.
pub(super) fn pause(pause: Option<Pause>, place: usize) -> Attempt {
    let Some(pause) = pause else { return Ok(()) };
    report(pause.error_pipe, Failure { step: Step::Paused as u32, index: number(place), errno: 0 });
    let mut byte = 0_u8;
    // SAFETY: reads one byte into room for it.
    let len = unsafe { libc::read(pause.go, (&raw mut byte).cast(), 1) };
    if len == 1 && byte == GO { Ok(()) } else { Err(Failure { step: Step::Hook as u32, index: 0, errno: 0 }) }
}

/// All that the kernel knows.
const SIGNALS: c_int = 64;

/// A container starts with the defaults. What is ignored stays so across `execve`: SIGPIPE (Rust does), and whatever
/// the supervisor's starter ignored, as `nohup` and shells' background jobs do.
pub(super) fn reset_signals() {
    // The kernel's `struct sigaction`: SIG_DFL, no flags, no restorer, an empty mask. The C library has two signals of
    // its own, about which it takes no orders.
    let default = [0_u64; 4];
    for signal in 1..=SIGNALS {
        // SAFETY: rt_sigaction(2) with a structure as large as the kernel's; SIGKILL and SIGSTOP are refused.
        unsafe {
            let none = ptr::null::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>());
        }
    }
    // SAFETY: sets an empty mask; `zeroed` is a valid `sigset_t`.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
        libc::setsid();
        libc::umask(0);
    }
}

fn join_cgroups(groups: &[c_int]) -> Attempt {
    for (index, group) in groups.iter().enumerate() {
        // SAFETY: writes one constant byte; "0" is the writer itself (cgroups(7)).
        check(unsafe { libc::write(*group, c"0".as_ptr().cast(), 1) } as c_long, Step::Cgroup, index)?;
    }
    Ok(())
}

/// Refusals are no error: a root without CAP_SYS_RESOURCE may not lower it, and the agent has said so.
pub(super) fn set_oom_score(process: &PreparedProcess) {
    let Some(text) = &process.oom_score_adj else { return };
    // SAFETY: opens, writes and closes one file of our own.
    unsafe {
        let file = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, text.as_ptr().cast(), text.count_bytes());
            libc::close(file);
        }
    }
}

/// Holds from the next `execve` on, and for a child until then. Older kernels have one file for all security modules.
fn set_app_armor(process: &PreparedProcess) -> Attempt {
    let Some(text) = &process.app_armor else { return Ok(()) };
    let mut result: c_long = -1;
    for path in [c"/proc/self/attr/apparmor/exec", c"/proc/self/attr/exec"] {
        // SAFETY: opens, writes and closes one file of our own.
        unsafe {
            let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if file >= 0 {
                result = libc::write(file, text.as_ptr().cast(), text.count_bytes()) as c_long;
                let errno = errno();
                libc::close(file);
                *libc::__errno_location() = errno;
                break;
            }
        }
    }
    check(result, Step::AppArmor, 0)
}

/// A container's user must be able to reopen /dev/stdout. Never gives away the node's own /dev/null.
pub(super) fn own_streams(prepared: &Prepared) {
    for stream in prepared.streams {
        if prepared.process.terminal || is_kind(stream, libc::S_IFIFO) {
            // SAFETY: a descriptor that the parent opened for this process. A refusal shows when it is reopened.
            unsafe { libc::fchown(stream, prepared.process.owner, u32::MAX) };
        }
    }
}

/// Puts the streams at 0, 1 and 2 (the parent keeps them above), closes all else but the error pipe: what is still
/// open here could be walked through by way of `/proc/self/fd` (CVE-2024-21626).
fn connect_streams(prepared: &Prepared) -> Attempt {
    let process = &prepared.process;
    // SAFETY: duplicates descriptors that the parent opened for this process.
    unsafe {
        for (index, (from, to)) in prepared.streams.iter().zip(0..).enumerate() {
            check(libc::dup2(*from, to).into(), Step::Streams, index)?;
        }
        let pipe = c_uint::try_from(prepared.error_pipe).unwrap_or(0);
        for (first, last) in [(3, pipe.saturating_sub(1)), (pipe.saturating_add(1), c_uint::MAX)] {
            if first <= last {
                check(libc::syscall(libc::SYS_close_range, first, last, 0), Step::Streams, 3)?;
            }
        }
        if process.terminal {
            check(libc::ioctl(0, libc::TIOCSCTTY, 0).into(), Step::Terminal, 0)?;
        }
        let files = libc::rlimit { rlim_cur: process.open_files_max, rlim_max: process.open_files_max };
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files).into(), Step::Limits, 0)
    }
}

/// Sheds the node's privileges. The filter is installed as late as possible: after it, only `capset` and
/// `execve` (and `write` and `exit_group` on failure) must be allowed by it. Without `no_new_privs` that takes
/// CAP_SYS_ADMIN, which is dropped right after.
fn become_user(process: &PreparedProcess) -> Attempt {
    // SAFETY: system calls on constants and prepared memory.
    unsafe {
        for capability in 0..64 {
            let kept = process.capabilities & (1 << capability) != 0;
            if !kept && libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 {
                if errno() == libc::EINVAL {
                    break;
                }
                return fail(Step::Capabilities, 0);
            }
        }
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).into(), Step::Capabilities, 1)?;
        let groups = process.groups.as_slice();
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()), Step::Groups, 0)?;
        check(libc::syscall(libc::SYS_setresgid, process.gid, process.gid, process.gid), Step::Groups, 1)?;
        check(libc::syscall(libc::SYS_setresuid, process.uid, process.uid, process.uid), Step::User, 0)?;
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0).into(), Step::Capabilities, 2)?;
        set_capabilities(process.capabilities | CAP_SYS_ADMIN, 3)?;
        check(libc::chdir(process.cwd.as_ptr()).into(), Step::Cwd, 0)?;
        check_cwd()?;
        libc::umask(0o022);
        if process.no_new_privs {
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into(), Step::NoNewPrivs, 0)?;
        }
        if let Some(filter) = &process.seccomp {
            let program = libc::sock_fprog { len: filter.len, filter: filter.instructions.as_ptr().cast_mut() };
            let installed = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program);
            check(installed, Step::Seccomp, 0)?;
        }
        set_capabilities(process.capabilities, 4)
    }
}

/// The kernel gives a working folder outside of the root as "(unreachable)…" (getcwd(2)): some link led there.
fn check_cwd() -> Attempt {
    let mut path = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: getcwd(2) writes at most the length given.
    check(unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) }, Step::Cwd, 1)?;
    match path.first() {
        Some(b'/') => Ok(()),
        _ => Err(Failure { step: Step::Cwd as u32, index: 2, errno: libc::EXDEV }),
    }
}

/// Effective and permitted; nothing inheritable or ambient, as containerd leaves it.
fn set_capabilities(set: u64, index: usize) -> Attempt {
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let low = (set & 0xffff_ffff) as u32;
    let high = (set >> 32) as u32;
    let data = [
        CapData { effective: low, permitted: low, inheritable: 0 },
        CapData { effective: high, permitted: high, inheritable: 0 },
    ];
    // SAFETY: capset(2) with the two structures of version 3.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }, Step::Capabilities, index)
}

/// Tries the candidates in order, as `execvp` does: what is there but refused is remembered, what is not there
/// is passed over.
fn execute(process: &PreparedProcess) -> Attempt {
    let mut refused = None;
    for (index, candidate) in process.candidates.iter().enumerate() {
        // SAFETY: arrays of pointers to prepared strings, closed by a null pointer.
        unsafe { libc::execve(candidate.as_ptr(), process.argv.as_ptr(), process.env.as_ptr()) };
        let errno = errno();
        // SAFETY: asks whether a path exists.
        let there = unsafe { libc::faccessat(libc::AT_FDCWD, candidate.as_ptr(), libc::F_OK, 0) } == 0;
        match errno {
            libc::ENOENT | libc::ENOTDIR if !there => {}
            libc::EACCES if is_folder(candidate) => refused = Some((index, libc::EISDIR)),
            libc::EACCES => refused = Some((index, errno)),
            _ => return Err(Failure { step: Step::Exec as u32, index: number(index), errno }),
        }
    }
    match refused {
        Some((index, errno)) => Err(Failure { step: Step::Exec as u32, index: number(index), errno }),
        None => Err(Failure { step: Step::NotThere as u32, index: 0, errno: libc::ENOENT }),
    }
}

/// What the kernel refuses to execute as it does a file without the permission.
fn is_folder(path: &CStr) -> bool {
    // SAFETY: opens a path without looking into what is there; the process ends soon.
    unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) >= 0 }
}

pub(super) fn check(result: c_long, step: Step, index: usize) -> Attempt {
    if result < 0 { fail(step, index) } else { Ok(()) }
}

pub(super) fn check_fd(result: c_long, step: Step, index: usize) -> Attempt<c_int> {
    match c_int::try_from(result) {
        Ok(fd) if fd >= 0 => Ok(fd),
        _ => fail(step, index),
    }
}

pub(super) fn fail<T>(step: Step, index: usize) -> Attempt<T> {
    Err(Failure { step: step as u32, index: number(index), errno: errno() })
}

pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

pub(super) fn errno() -> c_int {
    // SAFETY: glibc's own place for this thread's error number.
    unsafe { *libc::__errno_location() }
}
