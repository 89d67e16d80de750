//! What a new process does between `clone3` and `execve`: raw system calls on prepared memory, nothing else.
//!
//! The supervisor has threads, so its copy may hold a locked allocator: no allocation, no lock, no panic, no
//! Rust standard library beyond slices happens here. Everything that needs thought was done in
//! [`super::prepare`]; every failure is reported through a pipe as a [`Failure`] and ends the process.

#![allow(unsafe_code, reason = "between clone and exec only raw system calls are allowed")]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::ptr;

use super::prepare::{Entry, Prepared, PreparedOp, PreparedProcess, PreparedRoot};

/// Which step failed. The number travels through a pipe; the texts are in [`super::failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Step {
    /// Writing itself into a v1 cgroup; the index names it.
    Cgroup = 1,
    /// Joining a pinned namespace, or a container's.
    Namespace,
    /// Making a cgroup namespace.
    CgroupNamespace,
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

type Attempt<T = ()> = Result<T, Failure>;

/// `struct open_how` of `openat2(2)`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

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

const RESOLVE_IN_ROOT: u64 = 0x10;
const OPEN_TREE_CLONE: c_uint = 1;
const AT_RECURSIVE: c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const MOUNT_ATTR_RDONLY: u64 = 1;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const PATH_LEN_MAX: usize = 4096;
const EMPTY: *const c_char = c"".as_ptr();

/// Runs the prepared process; never returns.
pub(super) fn run(prepared: &Prepared) -> ! {
    let result = become_container(prepared);
    if let Err(failure) = result {
        // SAFETY: writes 12 bytes of a plain structure into a pipe that is ours.
        unsafe {
            libc::write(prepared.error_pipe, ptr::from_ref(&failure).cast::<c_void>(), FAILURE_SIZE);
        }
    }
    // SAFETY: ends the process without running anything of the copied program.
    unsafe { libc::_exit(128) }
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
    set_oom_score(&prepared.process);
    match &prepared.entry {
        Entry::New { namespaces, root } => {
            for (index, namespace) in namespaces.iter().enumerate() {
                // SAFETY: a descriptor of a pinned namespace, opened by the parent.
                check(unsafe { libc::syscall(libc::SYS_setns, *namespace, 0) }, Step::Namespace, index)?;
            }
            // SAFETY: constants only.
            check(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWCGROUP) }, Step::CgroupNamespace, 0)?;
            make_root(root, prepared.streams)?;
        }
        Entry::Join { pidfd } => {
            let all = libc::CLONE_NEWNS
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWCGROUP;
            // SAFETY: a pidfd held by the parent.
            check(unsafe { libc::syscall(libc::SYS_setns, *pidfd, all) }, Step::Namespace, 0)?;
        }
    }
    connect_streams(prepared)?;
    become_user(&prepared.process)?;
    execute(&prepared.process)
}

/// The supervisor ignores SIGPIPE (Rust does) and blocks nothing; a container starts with the defaults.
fn reset_signals() {
    // SAFETY: sets default dispositions and an empty mask; `zeroed` is a valid `sigset_t`.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
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
fn set_oom_score(process: &PreparedProcess) {
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

/// Builds the container's mount namespace and changes into it.
///
/// The sources are opened before the tree becomes a slave of the node's, so that a mount that must travel both
/// ways stays a peer of its source.
fn make_root(root: &PreparedRoot, streams: [c_int; 3]) -> Attempt {
    for (index, op) in root.ops.iter().enumerate() {
        if let PreparedOp::Bind { source, recursive, fd, .. } = op {
            fd.set(open_tree(libc::AT_FDCWD, source, *recursive, Step::BindSource, index)?);
        }
    }
    // SAFETY: changes propagation in our own mount namespace only.
    unsafe {
        check(
            libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), libc::MS_REC | libc::MS_SLAVE, ptr::null()).into(),
            Step::Root,
            0,
        )?;
    }
    let rootfd = open_tree(libc::AT_FDCWD, &root.path, true, Step::Root, 1)?;
    set_mount(rootfd, 0, libc::MS_PRIVATE, true, Step::Root, 2)?;
    // SAFETY: attaches a tree of ours at a path of the node, in our own mount namespace.
    check(
        unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                rootfd,
                EMPTY,
                libc::AT_FDCWD,
                root.path.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        },
        Step::Root,
        3,
    )?;
    for (index, op) in root.ops.iter().enumerate() {
        apply(op, rootfd, index, streams)?;
    }
    pivot(rootfd, root.read_only)
}

fn pivot(rootfd: c_int, read_only: bool) -> Attempt {
    // SAFETY: pivot_root(2), section "pivot_root(".", ".")": the old root ends up on top of the new one and is
    // detached from it.
    unsafe {
        check(libc::fchdir(rootfd).into(), Step::Pivot, 0)?;
        check(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()), Step::Pivot, 1)?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into(), Step::Pivot, 2)?;
        check(libc::chdir(c"/".as_ptr()).into(), Step::Pivot, 3)?;
    }
    if read_only {
        set_mount(rootfd, MOUNT_ATTR_RDONLY, 0, false, Step::Pivot, 4)?;
    }
    Ok(())
}

fn apply(op: &PreparedOp, rootfd: c_int, index: usize, streams: [c_int; 3]) -> Attempt {
    match op {
        PreparedOp::Mount { fs, target, options, attributes } => {
            let mount = new_mount(fs, options, *attributes, index)?;
            let at = open_or_make(rootfd, target, true, index)?;
            attach(mount, at, index)
        }
        PreparedOp::Attach { mount, target } => {
            let at = open_or_make(rootfd, target, true, index)?;
            attach(*mount, at, index)
        }
        PreparedOp::Bind { target, attributes, propagation, recursive, fd, .. } => {
            let source = fd.get();
            let at = open_or_make(rootfd, target, is_folder(source), index)?;
            set_mount(source, *attributes, *propagation, *recursive, Step::Op, index)?;
            attach(source, at, index)
        }
        PreparedOp::Console { target } => {
            let at = open_or_make(rootfd, target, false, index)?;
            let [terminal, ..] = streams;
            let source = clone_tree(terminal, false, index)?;
            attach(source, at, index)
        }
        PreparedOp::Device { target, mode, device } => make_device(rootfd, target, *mode, *device, index),
        PreparedOp::Symlink { to, target } => {
            let (parent, name) = open_parent(rootfd, target, index)?;
            // SAFETY: makes a link in a folder inside the root; an existing entry is left alone.
            let made = unsafe { libc::symlinkat(to.as_ptr(), parent, name) };
            if made < 0 && errno() != libc::EEXIST {
                return fail(Step::Op, index);
            }
            Ok(())
        }
        PreparedOp::Folder { target } => open_or_make(rootfd, target, true, index).map(|_| ()),
        PreparedOp::Mask { target } => mask(rootfd, target, index),
        PreparedOp::ReadOnly { target } => {
            let Some(at) = open_existing(rootfd, target, index)? else { return Ok(()) };
            let tree = clone_tree(at, true, index)?;
            set_mount(tree, MOUNT_ATTR_RDONLY, 0, true, Step::Op, index)?;
            attach(tree, at, index)
        }
    }
}

/// A folder is hidden by an empty read-only tmpfs, a file by `/dev/null`.
fn mask(rootfd: c_int, target: &CStr, index: usize) -> Attempt {
    let Some(at) = open_existing(rootfd, target, index)? else { return Ok(()) };
    let cover = if is_folder(at) {
        new_mount(c"tmpfs", &[], MOUNT_ATTR_RDONLY, index)?
    } else {
        let Some(null) = open_existing(rootfd, c"/dev/null", index)? else { return fail(Step::Op, index) };
        clone_tree(null, false, index)?
    };
    attach(cover, at, index)
}

fn make_device(rootfd: c_int, target: &CStr, mode: u32, device: u64, index: usize) -> Attempt {
    let (parent, name) = open_parent(rootfd, target, index)?;
    // SAFETY: makes a node in a folder inside the root, by a name without slashes.
    unsafe {
        libc::unlinkat(parent, name, 0);
        check(libc::mknodat(parent, name, mode, device).into(), Step::Op, index)
    }
}

fn new_mount(
    fs: &CStr,
    options: &[(std::ffi::CString, std::ffi::CString)],
    attributes: u64,
    index: usize,
) -> Attempt<c_int> {
    // SAFETY: fsopen(2), fsconfig(2), fsmount(2) on strings that the parent prepared.
    unsafe {
        let context = check_fd(libc::syscall(libc::SYS_fsopen, fs.as_ptr(), 1), Step::Op, index)?;
        for (key, value) in options {
            let (command, value) =
                if value.is_empty() { (FSCONFIG_SET_FLAG, ptr::null()) } else { (FSCONFIG_SET_STRING, value.as_ptr()) };
            let set = libc::syscall(libc::SYS_fsconfig, context, command, key.as_ptr(), value, 0);
            check(set, Step::Op, index)?;
        }
        let null = ptr::null::<c_char>();
        check(libc::syscall(libc::SYS_fsconfig, context, FSCONFIG_CMD_CREATE, null, null, 0), Step::Op, index)?;
        let mount = check_fd(libc::syscall(libc::SYS_fsmount, context, 1, attributes), Step::Op, index)?;
        libc::close(context);
        Ok(mount)
    }
}

fn open_tree(dir: c_int, path: &CStr, recursive: bool, step: Step, index: usize) -> Attempt<c_int> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.cast_unsigned() | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: open_tree(2) on a prepared string.
    check_fd(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) }, step, index)
}

/// A copy of what is mounted where a descriptor points.
fn clone_tree(fd: c_int, recursive: bool, index: usize) -> Attempt<c_int> {
    let flags = OPEN_TREE_CLONE
        | (libc::O_CLOEXEC | libc::AT_EMPTY_PATH).cast_unsigned()
        | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: open_tree(2) on a descriptor of ours.
    check_fd(unsafe { libc::syscall(libc::SYS_open_tree, fd, EMPTY, flags) }, Step::Op, index)
}

fn attach(mount: c_int, at: c_int, index: usize) -> Attempt {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: move_mount(2) between two descriptors of ours, both closed afterwards.
    unsafe {
        check(libc::syscall(libc::SYS_move_mount, mount, EMPTY, at, EMPTY, flags), Step::Op, index)?;
        libc::close(at);
    }
    Ok(())
}

fn set_mount(fd: c_int, set: u64, propagation: c_ulong, recursive: bool, step: Step, index: usize) -> Attempt {
    let attr = MountAttr { set, clear: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH.cast_unsigned() | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: mount_setattr(2) with a structure of the size given.
    let done =
        unsafe { libc::syscall(libc::SYS_mount_setattr, fd, EMPTY, flags, &raw const attr, size_of::<MountAttr>()) };
    check(done, step, index)
}

fn is_folder(fd: c_int) -> bool {
    is_kind(fd, libc::S_IFDIR)
}

fn is_kind(fd: c_int, kind: libc::mode_t) -> bool {
    // SAFETY: `zeroed` is a valid `stat`, filled by the kernel.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &raw mut stat) == 0 && stat.st_mode & libc::S_IFMT == kind
    }
}

/// Opens a path inside the root whatever links it holds; `RESOLVE_IN_ROOT` makes escapes impossible.
fn open_in_root(rootfd: c_int, path: *const c_char, flags: c_int, mode: u64) -> c_int {
    let how = OpenHow { flags: u64::from((flags | libc::O_CLOEXEC).cast_unsigned()), mode, resolve: RESOLVE_IN_ROOT };
    // SAFETY: openat2(2) with a structure of the size given.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, rootfd, path, &raw const how, size_of::<OpenHow>()) };
    c_int::try_from(fd).unwrap_or(-1)
}

fn open_existing(rootfd: c_int, path: &CStr, index: usize) -> Attempt<Option<c_int>> {
    let fd = open_in_root(rootfd, path.as_ptr(), libc::O_PATH, 0);
    if fd >= 0 {
        return Ok(Some(fd));
    }
    if errno() == libc::ENOENT || errno() == libc::ENOTDIR { Ok(None) } else { fail(Step::Op, index) }
}

/// Opens a mount point, making it and its parents when missing.
fn open_or_make(rootfd: c_int, path: &CStr, folder: bool, index: usize) -> Attempt<c_int> {
    let fd = open_in_root(rootfd, path.as_ptr(), libc::O_PATH, 0);
    if fd >= 0 {
        return Ok(fd);
    }
    let (parent, name) = open_parent(rootfd, path, index)?;
    // SAFETY: makes an entry in a folder inside the root, by a name without slashes.
    let made = unsafe {
        if folder { libc::mkdirat(parent, name, 0o755) } else { libc::mknodat(parent, name, libc::S_IFREG | 0o644, 0) }
    };
    if made < 0 && errno() != libc::EEXIST {
        return fail(Step::Op, index);
    }
    // SAFETY: the parent is a descriptor of ours, unless it is the root.
    unsafe {
        if parent != rootfd {
            libc::close(parent);
        }
    }
    check_fd(open_in_root(rootfd, path.as_ptr(), libc::O_PATH, 0).into(), Step::Op, index)
}

/// Opens the folder that holds the last component of `path`, making what is missing on the way. The name is a
/// pointer into `path`.
fn open_parent(rootfd: c_int, path: &CStr, index: usize) -> Attempt<(c_int, *const c_char)> {
    let bytes = path.to_bytes();
    if bytes.len() >= PATH_LEN_MAX {
        return Err(Failure { step: Step::Op as u32, index: number(index), errno: libc::ENAMETOOLONG });
    }
    let mut prefix = [0_u8; PATH_LEN_MAX];
    let (mut parent, mut start) = (rootfd, usize::from(bytes.first() == Some(&b'/')));
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'/' && at > 0 {
            let Some(name) = path.to_bytes_with_nul().get(start..) else { break };
            let next = open_folder(rootfd, parent, (&prefix, name, at - start), index)?;
            if parent != rootfd {
                // SAFETY: closes a descriptor that this loop opened.
                unsafe { libc::close(parent) };
            }
            (parent, start) = (next, at + 1);
        }
        if let Some(slot) = prefix.get_mut(at) {
            *slot = *byte;
        }
    }
    // `start` is at most the length, so that the pointer is at worst at the closing zero.
    Ok((parent, path.to_bytes_with_nul().get(start..).map_or(EMPTY, |name| name.as_ptr().cast())))
}

/// One step of [`open_parent`]: `prefix` is the whole path so far (zero-terminated), `name` starts with its last
/// component, which is `len` bytes long.
fn open_folder(rootfd: c_int, parent: c_int, at: (&[u8], &[u8], usize), index: usize) -> Attempt<c_int> {
    let (prefix, name, len) = at;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let fd = open_in_root(rootfd, prefix.as_ptr().cast(), flags, 0);
    if fd >= 0 || errno() != libc::ENOENT {
        return check_fd(fd.into(), Step::Op, index);
    }
    let mut component = [0_u8; 256];
    let Some(text) = name.get(..len) else { return fail(Step::Op, index) };
    let Some(slot) = component.get_mut(..len) else {
        return Err(Failure { step: Step::Op as u32, index: number(index), errno: libc::ENAMETOOLONG });
    };
    slot.copy_from_slice(text);
    // SAFETY: makes a folder inside the root, by a name without slashes.
    let made = unsafe { libc::mkdirat(parent, component.as_ptr().cast(), 0o755) };
    if made < 0 && errno() != libc::EEXIST {
        return fail(Step::Op, index);
    }
    check_fd(open_in_root(rootfd, prefix.as_ptr().cast(), flags, 0).into(), Step::Op, index)
}

/// Puts the streams at 0, 1 and 2 (the parent keeps them above), marks all else to be closed by `execve`.
fn connect_streams(prepared: &Prepared) -> Attempt {
    let process = &prepared.process;
    // SAFETY: duplicates descriptors that the parent opened for this process.
    unsafe {
        for (index, (from, to)) in prepared.streams.iter().zip(0..).enumerate() {
            // A container's user must be able to reopen /dev/stdout. Never the node's own /dev/null.
            if process.terminal || is_kind(*from, libc::S_IFIFO) {
                libc::fchown(*from, process.uid, u32::MAX);
            }
            check(libc::dup2(*from, to).into(), Step::Streams, index)?;
        }
        check(libc::syscall(libc::SYS_close_range, 3, c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC), Step::Streams, 3)?;
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
            libc::EACCES => refused = Some((index, errno)),
            _ => return Err(Failure { step: Step::Exec as u32, index: number(index), errno }),
        }
    }
    match refused {
        Some((index, errno)) => Err(Failure { step: Step::Exec as u32, index: number(index), errno }),
        None => Err(Failure { step: Step::NotThere as u32, index: 0, errno: libc::ENOENT }),
    }
}

fn check(result: c_long, step: Step, index: usize) -> Attempt {
    if result < 0 { fail(step, index) } else { Ok(()) }
}

fn check_fd(result: c_long, step: Step, index: usize) -> Attempt<c_int> {
    match c_int::try_from(result) {
        Ok(fd) if fd >= 0 => Ok(fd),
        _ => fail(step, index),
    }
}

fn fail<T>(step: Step, index: usize) -> Attempt<T> {
    Err(Failure { step: step as u32, index: number(index), errno: errno() })
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn errno() -> c_int {
    // SAFETY: glibc's own place for this thread's error number.
    unsafe { *libc::__errno_location() }
}
