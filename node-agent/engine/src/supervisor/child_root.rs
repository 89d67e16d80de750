//! How a new process builds its container's root and changes into it: raw system calls only, like [`super::child`].
//!
//! Every path inside the root is resolved with `RESOLVE_IN_ROOT` and used by descriptor: whatever links an image
//! or a volume holds, nothing outside is touched.

#![allow(unsafe_code, reason = "between clone and exec only raw system calls are allowed")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_ulong};
use std::ptr;

use super::child::{Attempt, Failure, Step, check, check_fd, errno, fail, number, pause};
use super::prepare::{Prepared, PreparedOp, PreparedRoot};
use crate::runtime::mount_attr::MountAttr;

/// `struct open_how` of `openat2(2)`.
#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const RESOLVE_NO_MAGICLINKS: u64 = 0x2;
const RESOLVE_IN_ROOT: u64 = 0x10;
/// How often a look-up is tried again that raced with a rename or mount anywhere on the node (openat2(2), EAGAIN).
const RACES_MAX: u8 = 128;
const OPEN_TREE_CLONE: c_uint = 1;
const AT_RECURSIVE: c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
const PATH_LEN_MAX: usize = 4096;
/// Links to nothing that are followed to one mount point.
const DANGLING_MAX: u8 = 8;
const EMPTY: *const c_char = c"".as_ptr();

/// Opens what of the node is shown inside; `user` is the pod's user namespace, for whose ids mounts are mapped.
///
/// Before the tree becomes a slave of the node's, so that a mount that must travel both ways stays a peer of its
/// source.
pub(super) fn open_sources(root: &PreparedRoot, user: Option<c_int>) -> Attempt {
    for (index, op) in root.ops.iter().enumerate() {
        if let PreparedOp::Bind { source, recursive, id_mapped, fd, .. } = op {
            fd.set(open_tree(libc::AT_FDCWD, source, *recursive, Step::BindSource, index)?);
            if let Some(user) = user.filter(|_| *id_mapped) {
                map_ids(fd.get(), user, *recursive, index)?;
            }
        }
    }
    Ok(())
}

/// What is mounted below a volume may be of a kind that knows no id-mapped mounts; then only the volume itself is.
fn map_ids(mount: c_int, user: c_int, recursive: bool, index: usize) -> Attempt {
    let attr = MountAttr { set: MOUNT_ATTR_IDMAP, userns_fd: u64::from(user.cast_unsigned()), ..MountAttr::default() };
    let whole = set_attr(mount, &attr, recursive, Step::IdMap, index);
    if whole.is_ok() || !recursive { whole } else { set_attr(mount, &attr, false, Step::IdMap, index) }
}

/// Builds the container's mount namespace and changes into it. In a user namespace of its own the process is its root
/// afterwards: files belong to somebody there only if it makes them as one of its users. The sources are open then.
pub(super) fn make_root(root: &PreparedRoot, user: Option<c_int>, prepared: &Prepared) -> Attempt {
    if user.is_none() {
        open_sources(root, None)?;
    }
    leave_propagation()?;
    let rootfd = root.mount;
    attach_at(rootfd, &root.path)?;
    if user.is_some() {
        super::child_user::become_root()?;
    }
    for (index, op) in root.ops.iter().enumerate() {
        apply(op, rootfd, index, prepared.streams)?;
    }
    pause(prepared.pause.filter(|pause| pause.at.created), 0)?;
    pivot(rootfd, root.read_only)
}

/// Builds the container's root, and shows its bare root once more at `view`; changes into neither.
pub(super) fn make_views(root: &PreparedRoot, view: &CStr, streams: [c_int; 3]) -> Attempt {
    open_sources(root, None)?;
    leave_propagation()?;
    attach_at(root.mount, &root.path)?;
    let bare = clone_tree(root.mount, false, 0)?;
    attach_at(bare, view)?;
    for (index, op) in root.ops.iter().enumerate() {
        apply(op, root.mount, index, streams)?;
    }
    if root.read_only {
        // The bare one CRIU makes so itself, and then needs a folder there to leave the old root by.
        open_or_make(bare, c"/tmp", true, 0)?;
        set_mount(root.mount, MOUNT_ATTR_RDONLY, 0, false, Step::Root, 2)?;
    }
    Ok(())
}

/// What is unmounted on the node goes here, too; what is mounted here stays here.
fn leave_propagation() -> Attempt {
    let flags = libc::MS_REC | libc::MS_SLAVE;
    // SAFETY: changes propagation in our own mount namespace only.
    let left = unsafe { libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), flags, ptr::null()) };
    check(left.into(), Step::Root, 0)
}

/// Attaches a tree of ours at a path of the node, in our own mount namespace.
fn attach_at(tree: c_int, path: &CStr) -> Attempt {
    let (to, flags) = (libc::AT_FDCWD, MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: move_mount(2) from a descriptor of ours to a prepared string.
    let moved = unsafe { libc::syscall(libc::SYS_move_mount, tree, EMPTY, to, path.as_ptr(), flags) };
    check(moved, Step::Root, 1)
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
            if is_kernels(fs) {
                refuse_link(rootfd, target, index)?;
            }
            let mount = new_mount(fs, options, *attributes, index)?;
            let at = open_or_make(rootfd, target, true, index)?;
            attach(mount, at, index)
        }
        PreparedOp::Attach { mount, target } => {
            let at = open_or_make(rootfd, target, true, index)?;
            attach(*mount, at, index)
        }
        PreparedOp::Bind { target, attributes, deep, propagation, recursive, fd, .. } => {
            let source = fd.get();
            let at = open_or_make(rootfd, target, is_folder(source), index)?;
            set_mount(source, 0, *propagation, *recursive, Step::Op, index)?;
            // Not on what is mounted below: Kubernetes' `recursiveReadOnly` is off unless asked for.
            set_mount(source, *attributes, 0, *deep, Step::Op, index)?;
            attach(source, at, index)
        }
        PreparedOp::Console { target } => {
            let at = open_or_make(rootfd, target, false, index)?;
            let [terminal, ..] = streams;
            let source = clone_tree(terminal, false, index)?;
            attach(source, at, index)
        }
        PreparedOp::Device { target, mode, device, owner } => {
            make_device(rootfd, target, (*mode, *device), *owner, index)
        }
        PreparedOp::Symlink { to, target } => {
            let (parent, name) = open_parent(rootfd, target, (index, DANGLING_MAX))?;
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
        PreparedOp::Writable { target } => {
            // A mount of its own, which the root's attributes do not reach.
            let at = open_or_make(rootfd, target, true, index)?;
            let tree = clone_tree(at, false, index)?;
            attach(tree, at, index)
        }
    }
}

/// File systems in which what is masked and read must be where everybody looks for it.
fn is_kernels(fs: &CStr) -> bool {
    fs == c"proc" || fs == c"sysfs"
}

/// An image may not say that they are elsewhere (CVE-2019-19921).
fn refuse_link(rootfd: c_int, target: &CStr, index: usize) -> Attempt {
    let fd = open_in_root(rootfd, target.as_ptr(), libc::O_PATH | libc::O_NOFOLLOW, 0);
    if fd >= 0 && !is_folder(fd) {
        return Err(Failure { step: Step::Op as u32, index: number(index), errno: libc::ENOTDIR });
    }
    // SAFETY: closes what was opened; nothing, if nothing was.
    unsafe { libc::close(fd) };
    Ok(())
}

/// A folder is hidden by an empty read-only tmpfs, a file by `/dev/null`.
fn mask(rootfd: c_int, target: &CStr, index: usize) -> Attempt {
    let Some(at) = open_existing(rootfd, target, index)? else { return Ok(()) };
    let cover = if is_folder(at) {
        new_mount(c"tmpfs", &[], MOUNT_ATTR_RDONLY, index)?
    } else {
        let Some(null) = open_existing(rootfd, c"/dev/null", index)? else { return fail(Step::Op, index) };
        // A volume at /dev may be shared with somebody who exchanges the node for a link (CVE-2025-31133).
        if !is_device(null, libc::makedev(1, 3)) {
            return Err(Failure { step: Step::Op as u32, index: number(index), errno: libc::ENODEV });
        }
        clone_tree(null, false, index)?
    };
    attach(cover, at, index)
}

fn make_device(
    rootfd: c_int,
    target: &CStr,
    (mode, device): (u32, u64),
    (uid, gid): (u32, u32),
    index: usize,
) -> Attempt {
    let (parent, name) = open_parent(rootfd, target, (index, DANGLING_MAX))?;
    // SAFETY: makes a node in a folder inside the root, by a name without slashes.
    unsafe {
        libc::unlinkat(parent, name, 0);
        check(libc::mknodat(parent, name, mode, device).into(), Step::Op, index)?;
        if (uid, gid) == (0, 0) {
            return Ok(());
        }
        check(libc::fchownat(parent, name, uid, gid, libc::AT_SYMLINK_NOFOLLOW).into(), Step::Op, index)
    }
}

fn new_mount(fs: &CStr, options: &[(CString, CString)], attributes: u64, index: usize) -> Attempt<c_int> {
    // SAFETY: fsopen(2), fsconfig(2), fsmount(2) on strings that the parent prepared.
    unsafe {
        let context = check_fd(libc::syscall(libc::SYS_fsopen, fs.as_ptr(), 1), Step::Op, index)?;
        // What stands first in a line of /proc/mounts; a runtime that says nothing there has "none" in every `df`.
        let source = c"source".as_ptr();
        check(
            libc::syscall(libc::SYS_fsconfig, context, FSCONFIG_SET_STRING, source, fs.as_ptr(), 0),
            Step::Op,
            index,
        )?;
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
    set_attr(fd, &MountAttr { set, propagation, ..MountAttr::default() }, recursive, step, index)
}

fn set_attr(fd: c_int, attr: &MountAttr, recursive: bool, step: Step, index: usize) -> Attempt {
    let flags = libc::AT_EMPTY_PATH.cast_unsigned() | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: mount_setattr(2) with a structure of the size given.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, EMPTY, flags, ptr::from_ref(attr), size_of::<MountAttr>())
    };
    check(done, step, index)
}

fn is_folder(fd: c_int) -> bool {
    is_kind(fd, libc::S_IFDIR)
}

pub(super) fn is_kind(fd: c_int, kind: libc::mode_t) -> bool {
    stat_of(fd).is_some_and(|stat| stat.st_mode & libc::S_IFMT == kind)
}

/// Whether a descriptor is this very character device.
fn is_device(fd: c_int, device: libc::dev_t) -> bool {
    stat_of(fd).is_some_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == device)
}

fn stat_of(fd: c_int) -> Option<libc::stat> {
    // SAFETY: `zeroed` is a valid `stat`, filled by the kernel.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &raw mut stat) == 0).then_some(stat)
    }
}

/// Opens a path inside the root whatever links it holds; `RESOLVE_IN_ROOT` makes escapes impossible. The links of a
/// procfs that is mounted there already (`/proc/self/root`) are none that lead anywhere.
fn open_in_root(rootfd: c_int, path: *const c_char, flags: c_int, mode: u64) -> c_int {
    let resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
    let how = OpenHow { flags: u64::from((flags | libc::O_CLOEXEC).cast_unsigned()), mode, resolve };
    for _ in 0..RACES_MAX {
        // SAFETY: openat2(2) with a structure of the size given.
        let fd = unsafe { libc::syscall(libc::SYS_openat2, rootfd, path, &raw const how, size_of::<OpenHow>()) };
        if fd >= 0 || errno() != libc::EAGAIN {
            return c_int::try_from(fd).unwrap_or(-1);
        }
    }
    -1
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
    open_or_make_behind(rootfd, path, folder, (index, DANGLING_MAX))
}

/// The same behind at most `left` links that lead to nothing yet, as `/etc/resolv.conf` does in many an image: what
/// they lead to inside the root is made.
fn open_or_make_behind(rootfd: c_int, path: &CStr, folder: bool, (index, left): (usize, u8)) -> Attempt<c_int> {
    let fd = open_in_root(rootfd, path.as_ptr(), libc::O_PATH, 0);
    if fd >= 0 {
        return Ok(fd);
    }
    let (parent, name) = open_parent(rootfd, path, (index, left))?;
    // SAFETY: makes an entry in a folder inside the root, by a name without slashes.
    let made = unsafe {
        if folder { libc::mkdirat(parent, name, 0o755) } else { libc::mknodat(parent, name, libc::S_IFREG | 0o644, 0) }
    };
    if made < 0 && errno() != libc::EEXIST {
        return fail(Step::Op, index);
    }
    let fd = open_in_root(rootfd, path.as_ptr(), libc::O_PATH, 0);
    if fd >= 0 || errno() != libc::ENOENT {
        close_parent(rootfd, parent);
        return check_fd(fd.into(), Step::Op, index);
    }
    let Some(left) = left.checked_sub(1) else {
        return Err(Failure { step: Step::Op as u32, index: number(index), errno: libc::ELOOP });
    };
    let mut to = [0_u8; PATH_LEN_MAX];
    let led = behind_link(parent, name, path, &mut to, index);
    close_parent(rootfd, parent);
    let to = led.and_then(|()| CStr::from_bytes_until_nul(&to).or_else(|_| fail(Step::Op, index)))?;
    open_or_make_behind(rootfd, to, folder, (index, left))
}

fn close_parent(rootfd: c_int, parent: c_int) {
    if parent != rootfd {
        // SAFETY: the parent is a descriptor that `open_parent` opened.
        unsafe { libc::close(parent) };
    }
}

/// Where the link `name` in `parent` leads, which is the last component of `path`: as a path of the root, in `to`.
fn behind_link(parent: c_int, name: *const c_char, path: &CStr, to: &mut [u8; PATH_LEN_MAX], index: usize) -> Attempt {
    let too_long = || Failure { step: Step::Op as u32, index: number(index), errno: libc::ENAMETOOLONG };
    let mut link = [0_u8; PATH_LEN_MAX];
    // SAFETY: fills a buffer of the length given.
    let len = unsafe { libc::readlinkat(parent, name, link.as_mut_ptr().cast(), link.len()) };
    let Some(link) = usize::try_from(len).ok().and_then(|len| link.get(..len)) else { return fail(Step::Op, index) };
    let path = path.to_bytes();
    let folder = match link.first() {
        Some(b'/') => &[],
        _ => path.get(..path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1)).unwrap_or_default(),
    };
    let len = folder.len() + link.len();
    // One for the closing zero.
    if len + 1 > to.len() {
        return Err(too_long());
    }
    let (start, rest) = to.split_at_mut(folder.len());
    start.copy_from_slice(folder);
    rest.get_mut(..link.len()).ok_or_else(too_long)?.copy_from_slice(link);
    Ok(())
}

/// Opens the folder that holds the last component of `path`, making what is missing on the way. The name is a
/// pointer into `path`.
fn open_parent(rootfd: c_int, path: &CStr, (index, left): (usize, u8)) -> Attempt<(c_int, *const c_char)> {
    let bytes = path.to_bytes();
    if bytes.len() >= PATH_LEN_MAX {
        return Err(Failure { step: Step::Op as u32, index: number(index), errno: libc::ENAMETOOLONG });
    }
    let mut prefix = [0_u8; PATH_LEN_MAX];
    let (mut parent, mut start) = (rootfd, usize::from(bytes.first() == Some(&b'/')));
    for (at, byte) in bytes.iter().enumerate() {
        if *byte == b'/' && at > 0 {
            let Some(name) = path.to_bytes_with_nul().get(start..) else { break };
            let next = open_folder(rootfd, parent, (&prefix, name, at - start), (index, left))?;
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
fn open_folder(
    rootfd: c_int,
    parent: c_int,
    (prefix, name, len): (&[u8], &[u8], usize),
    (index, left): (usize, u8),
) -> Attempt<c_int> {
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
    let fd = open_in_root(rootfd, prefix.as_ptr().cast(), flags, 0);
    match CStr::from_bytes_until_nul(prefix) {
        // A link that leads to nothing yet.
        Ok(path) if fd < 0 && errno() == libc::ENOENT => open_or_make_behind(rootfd, path, true, (index, left)),
        _ => check_fd(fd.into(), Step::Op, index),
    }
}
