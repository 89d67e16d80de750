//! Turns a plan into memory that a child can use without allocating: C strings, open descriptors, pointer arrays.
//!
//! This is the last place where a plan can be refused politely.

#![allow(unsafe_code, reason = "pointer arrays for execve and the devpts mount have no safe wrapper")]

use std::cell::Cell;
use std::ffi::{CString, c_char, c_int, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::plan::{
    BpfProgram, CgroupPlan, ExecPlan, LaunchPlan, PausePlan, PidPlan, ProcessPlan, RestorePlan, RootOp, UserPlan,
};
use super::terminal::Terminal;
use crate::engine::{Propagation, UserNamespace};

/// Kernel's limit of a seccomp program (`BPF_MAXINSNS`).
const FILTER_LEN_MAX: usize = 4096;

/// Why a plan could not be prepared: the step, and the kernel's word.
#[derive(Debug, thiserror::Error)]
#[error("failed to {step}: {source}")]
pub(super) struct PrepareError {
    /// What was tried, with the path.
    pub(super) step: String,
    /// Why not.
    #[source]
    pub(super) source: io::Error,
}

/// A process that is ready to be cloned. Raw descriptors in it are owned by [`Prepared::_held`] or by the caller.
#[derive(Debug)]
pub(super) struct Prepared {
    /// How it gets into its namespaces.
    pub(super) entry: Entry,
    /// `tasks` of each v1 group.
    pub(super) legacy_groups: Vec<c_int>,
    /// What becomes 0, 1 and 2.
    pub(super) streams: [c_int; 3],
    /// Where a failure is written.
    pub(super) error_pipe: c_int,
    /// Who it is and what it executes.
    pub(super) process: PreparedProcess,
    /// Where it waits, and for what.
    pub(super) pause: Option<Pause>,
    /// Keeps the descriptors above open until the child has its own.
    pub(super) _held: Vec<OwnedFd>,
}

/// Where a process waits to be told to go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pause {
    pub(super) at: PausePlan,
    /// Where it tells that it waits.
    pub(super) error_pipe: c_int,
    /// What it reads a byte from.
    pub(super) go: c_int,
}

/// How a process gets into its namespaces.
#[derive(Debug)]
pub(super) enum Entry {
    /// It is the first: joins the pod's and builds its own root.
    New {
        /// The pod's pinned user namespace, if it has one; its process is then born by another (`child_user.rs`).
        user: Option<c_int>,
        /// The pod's pinned namespaces.
        namespaces: Vec<c_int>,
        /// Its root.
        root: PreparedRoot,
        /// CRIU, if that brings its processes back.
        restore: Option<Box<PreparedRestore>>,
    },
    /// It joins a container.
    Join {
        /// The container's first process.
        pidfd: c_int,
        /// `CLONE_NEW…` of the namespaces that differ from the node's, but for the PID namespace.
        namespaces: c_int,
    },
}

/// CRIU, ready to be executed.
#[derive(Debug)]
pub(super) struct PreparedRestore {
    /// Where the root is mounted once more.
    pub(super) view: CString,
    pub(super) program: CString,
    pub(super) argv: StringArray,
    pub(super) env: StringArray,
    /// Where it is told what to do; becomes [`CRIU_SOCKET`].
    pub(super) socket: c_int,
    /// The pod's network namespace; becomes [`CRIU_NETWORK`].
    pub(super) network: c_int,
}

/// The descriptor through which CRIU is told what to do.
pub(crate) const CRIU_SOCKET: c_int = 3;
/// The descriptor of the pod's network namespace, in CRIU.
pub(crate) const CRIU_NETWORK: c_int = 4;
/// CRIU calls programs (tar), and looks for them where these are.
const CRIU_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A root file system in the making.
#[derive(Debug)]
pub(super) struct PreparedRoot {
    /// Mounted, and attached nowhere.
    pub(super) mount: c_int,
    /// Where it is attached.
    pub(super) path: CString,
    pub(super) read_only: bool,
    pub(super) ops: Vec<PreparedOp>,
}

/// A [`RootOp`] in C strings.
#[derive(Debug)]
pub(super) enum PreparedOp {
    Mount {
        fs: CString,
        target: CString,
        options: Vec<(CString, CString)>,
        attributes: u64,
    },
    /// What is mounted already: an image, or the terminal's own devpts, mounted by the supervisor so that it holds the
    /// master.
    Attach {
        mount: c_int,
        target: CString,
    },
    Bind {
        source: CString,
        target: CString,
        recursive: bool,
        id_mapped: bool,
        attributes: u64,
        deep: bool,
        propagation: c_ulong,
        fd: Cell<c_int>,
    },
    Device {
        target: CString,
        mode: u32,
        device: u64,
        owner: (u32, u32),
    },
    Symlink {
        to: CString,
        target: CString,
    },
    Folder {
        target: CString,
    },
    Mask {
        target: CString,
    },
    ReadOnly {
        target: CString,
    },
    Writable {
        target: CString,
    },
    /// Shows the terminal under a path.
    Console {
        target: CString,
    },
}

/// A [`ProcessPlan`] in C strings.
#[derive(Debug)]
pub(super) struct PreparedProcess {
    pub(super) argv: StringArray,
    pub(super) env: StringArray,
    pub(super) candidates: Vec<CString>,
    pub(super) cwd: CString,
    pub(super) uid: u32,
    /// The same as the node sees it: whose the streams become.
    pub(super) owner: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) capabilities: u64,
    pub(super) no_new_privs: bool,
    pub(super) seccomp: Option<Filter>,
    /// What is written to have an AppArmor profile from the next `execve` on.
    pub(super) app_armor: Option<CString>,
    pub(super) open_files_max: u64,
    pub(super) oom_score_adj: Option<CString>,
    pub(super) terminal: bool,
}

/// A seccomp program where the kernel can read it.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) len: u16,
    pub(super) instructions: Vec<libc::sock_filter>,
}

/// Strings with the null-terminated array of pointers that `execve` wants.
#[derive(Debug)]
pub(super) struct StringArray {
    pointers: Vec<*const c_char>,
    _strings: Vec<CString>,
}

impl StringArray {
    fn new(strings: &[String]) -> Result<Self, PrepareError> {
        let strings = strings.iter().map(|s| c_string(s)).collect::<Result<Vec<_>, _>>()?;
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { pointers, _strings: strings })
    }

    /// The array for `execve(2)`; valid as long as `self`.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

/// Prepares a container's first process. `mounts` are those of its root and of the images that it shows; `streams`
/// become 0, 1, 2; all stay the caller's.
pub(super) fn first_process(
    plan: &LaunchPlan,
    mounts: &[OwnedFd],
    streams: [BorrowedFd<'_>; 3],
    error_pipe: BorrowedFd<'_>,
    terminal: Option<&Terminal>,
    go: Option<BorrowedFd<'_>>,
) -> Result<Prepared, PrepareError> {
    let mut held = Vec::new();
    let (mounts, restore) = match (&plan.restore, mounts) {
        (Some(restore), [mounts @ .., socket]) => {
            (mounts, Some(Box::new(prepare_restore(plan, restore, socket, &mut held)?)))
        }
        _ => (mounts, None),
    };
    let mut mounts = mounts.iter();
    let root = next_mount(&mut mounts)?;
    let mut namespaces = Vec::new();
    // CRIU joins the pod's by itself, and is in the node's; but message queues are mounted in the pod's.
    let pinned = match restore {
        None => [&plan.namespaces.net, &plan.namespaces.ipc, &plan.namespaces.uts],
        Some(_) => [&None, &plan.namespaces.ipc, &None],
    };
    for path in pinned.into_iter().flatten() {
        let fd = open(path, OFlags::RDONLY, "open namespace")?;
        namespaces.push(fd.as_raw_fd());
        held.push(fd);
    }
    let ids = plan.namespaces.user.as_ref().map(|user| user.ids);
    let user = plan.namespaces.user.as_ref().map(|user| open_user(user, &mut held)).transpose()?;
    let legacy_groups = open_groups(&plan.cgroup, &mut held)?;
    let ops = plan.root_ops.iter().map(|op| prepare_op(op, terminal, &mut mounts));
    let mut ops = ops.collect::<Result<Vec<_>, _>>()?;
    if terminal.is_some() {
        ops.push(PreparedOp::Console { target: c_string("/dev/console")? });
    }
    let root = PreparedRoot { mount: root, path: c_path(&plan.rootfs)?, read_only: plan.rootfs_read_only, ops };
    Ok(Prepared {
        entry: Entry::New { user, namespaces, root, restore },
        legacy_groups,
        streams: streams.map(|s| s.as_raw_fd()),
        error_pipe: error_pipe.as_raw_fd(),
        process: prepare_process(&plan.process, ids)?,
        pause: go.map(|go| Pause { at: plan.pauses, error_pipe: error_pipe.as_raw_fd(), go: go.as_raw_fd() }),
        _held: held,
    })
}

fn prepare_restore(
    plan: &LaunchPlan,
    restore: &RestorePlan,
    socket: &OwnedFd,
    held: &mut Vec<OwnedFd>,
) -> Result<PreparedRestore, PrepareError> {
    let refused =
        |step: &str| PrepareError { step: step.to_owned(), source: io::Error::from_raw_os_error(libc::EOPNOTSUPP) };
    if plan.namespaces.user.is_some() || plan.namespaces.pid != PidPlan::New || plan.process.terminal {
        return Err(refused("restore a container with a terminal, or without a PID namespace of its own"));
    }
    let own = Path::new("/proc/self/ns/net");
    let network = open(plan.namespaces.net.as_deref().unwrap_or(own), OFlags::RDONLY, "open namespace")?;
    let prepared = PreparedRestore {
        view: c_path(&restore.view)?,
        program: c_path(&restore.program)?,
        argv: StringArray::new(&["criu".to_owned(), "swrk".to_owned(), CRIU_SOCKET.to_string()])?,
        env: StringArray::new(&[CRIU_PATH.to_owned()])?,
        socket: socket.as_raw_fd(),
        network: network.as_raw_fd(),
    };
    held.push(network);
    // They take their places one by one, and none may be overwritten before it is there.
    if prepared.socket <= CRIU_NETWORK || prepared.network <= CRIU_NETWORK {
        return Err(refused("give CRIU its descriptors"));
    }
    Ok(prepared)
}

/// Prepares a command that joins a container.
pub(super) fn exec_process(
    plan: &ExecPlan,
    pidfd: BorrowedFd<'_>,
    streams: [BorrowedFd<'_>; 3],
    error_pipe: BorrowedFd<'_>,
) -> Result<Prepared, PrepareError> {
    let mut held = Vec::new();
    let legacy_groups = open_groups(&plan.cgroup, &mut held)?;
    let all = libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    // The node's own user namespace is not one to join: the kernel refuses it.
    let namespaces = if plan.user.is_some() { all | libc::CLONE_NEWUSER } else { all };
    Ok(Prepared {
        entry: Entry::Join { pidfd: pidfd.as_raw_fd(), namespaces },
        legacy_groups,
        streams: streams.map(|s| s.as_raw_fd()),
        error_pipe: error_pipe.as_raw_fd(),
        process: prepare_process(&plan.process, plan.user)?,
        pause: None,
        _held: held,
    })
}

/// What is mounted already, in the order of the plan: first the root.
fn next_mount(mounts: &mut std::slice::Iter<'_, OwnedFd>) -> Result<c_int, PrepareError> {
    mounts.next().map(AsRawFd::as_raw_fd).ok_or_else(|| PrepareError {
        step: "start a container without its root and images".to_owned(),
        source: io::Error::from_raw_os_error(libc::EINVAL),
    })
}

/// Opens a pinned user namespace.
pub(super) fn open_user(user: &UserPlan, held: &mut Vec<OwnedFd>) -> Result<c_int, PrepareError> {
    let fd = open(&user.path, OFlags::RDONLY, "open namespace")?;
    let raw = fd.as_raw_fd();
    held.push(fd);
    Ok(raw)
}

/// Opens `tasks` of each v1 group. Not `cgroup.procs`: a single thread that moves itself takes no lock of the whole
/// machine (kernel commit "cgroup: Optimize single thread migration"), and the child has one thread only.
pub(super) fn open_groups(cgroup: &CgroupPlan, held: &mut Vec<OwnedFd>) -> Result<Vec<c_int>, PrepareError> {
    let mut groups = Vec::new();
    for group in &cgroup.legacy {
        let fd = open(&group.join("tasks"), OFlags::WRONLY, "open")?;
        groups.push(fd.as_raw_fd());
        held.push(fd);
    }
    Ok(groups)
}

/// Opens a file of the node, with the path in the error.
pub(super) fn open(path: &Path, flags: OFlags, step: &str) -> Result<OwnedFd, PrepareError> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| PrepareError { step: format!("{step} {}", path.display()), source: errno.into() })
}

fn prepare_op(
    op: &RootOp,
    terminal: Option<&Terminal>,
    mounts: &mut std::slice::Iter<'_, OwnedFd>,
) -> Result<PreparedOp, PrepareError> {
    Ok(match op {
        RootOp::Mount { fs, target, options, attributes } => match terminal {
            Some(terminal) if fs == "devpts" => {
                PreparedOp::Attach { mount: terminal.mount(), target: c_string(target)? }
            }
            _ => {
                let options = options.iter().map(|(key, value)| Ok((c_string(key)?, c_string(value)?)));
                PreparedOp::Mount {
                    fs: c_string(fs)?,
                    target: c_string(target)?,
                    options: options.collect::<Result<_, PrepareError>>()?,
                    attributes: *attributes,
                }
            }
        },
        RootOp::Image { target, .. } => PreparedOp::Attach { mount: next_mount(mounts)?, target: c_string(target)? },
        RootOp::Bind { source, target, recursive, id_mapped, attributes, deep, propagation } => PreparedOp::Bind {
            source: c_string(source)?,
            target: c_string(target)?,
            recursive: *recursive,
            id_mapped: *id_mapped,
            attributes: *attributes,
            deep: *deep,
            propagation: match propagation {
                Propagation::Private => libc::MS_PRIVATE,
                Propagation::HostToContainer => libc::MS_SLAVE,
                Propagation::Bidirectional => libc::MS_SHARED,
            },
            fd: Cell::new(-1),
        },
        RootOp::Device { target, mode, major, minor, uid, gid } => {
            let (device, owner) = (libc::makedev(*major, *minor), (*uid, *gid));
            PreparedOp::Device { target: c_string(target)?, mode: *mode, device, owner }
        }
        RootOp::Symlink { to, target } => PreparedOp::Symlink { to: c_string(to)?, target: c_string(target)? },
        RootOp::Folder { target } => PreparedOp::Folder { target: c_string(target)? },
        RootOp::Mask { target } => PreparedOp::Mask { target: c_string(target)? },
        RootOp::ReadOnly { target } => PreparedOp::ReadOnly { target: c_string(target)? },
        RootOp::Writable { target } => PreparedOp::Writable { target: c_string(target)? },
    })
}

fn prepare_process(plan: &ProcessPlan, ids: Option<UserNamespace>) -> Result<PreparedProcess, PrepareError> {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    Ok(PreparedProcess {
        argv: StringArray::new(&plan.argv)?,
        env: StringArray::new(&plan.env)?,
        candidates: plan.candidates.iter().map(|c| c_string(c)).collect::<Result<_, _>>()?,
        cwd: c_string(&plan.cwd)?,
        uid: plan.uid,
        owner: ids.and_then(|ids| ids.on_node(plan.uid)).unwrap_or(plan.uid),
        gid: plan.gid,
        groups: plan.groups.clone(),
        capabilities: plan.capabilities,
        no_new_privs: plan.no_new_privs,
        seccomp: plan.seccomp.as_ref().map(prepare_filter).transpose()?,
        app_armor: plan.app_armor.as_ref().map(|profile| c_string(&format!("exec {profile}"))).transpose()?,
        open_files_max: own.maximum.map_or(plan.open_files_max, |own| own.min(plan.open_files_max)),
        oom_score_adj: plan.oom_score_adj.map(|score| c_string(&score.to_string())).transpose()?,
        terminal: plan.terminal,
    })
}

fn prepare_filter(program: &BpfProgram) -> Result<Filter, PrepareError> {
    let instructions: Vec<libc::sock_filter> = program
        .0
        .as_chunks::<8>()
        .0
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    match u16::try_from(instructions.len()) {
        Ok(len) if len > 0 && instructions.len() <= FILTER_LEN_MAX => Ok(Filter { len, instructions }),
        _ => Err(PrepareError {
            step: format!("use a seccomp filter of {} instructions", instructions.len()),
            source: io::Error::from_raw_os_error(libc::EINVAL),
        }),
    }
}

fn c_string(text: &str) -> Result<CString, PrepareError> {
    CString::new(text).map_err(|err| PrepareError {
        step: format!("use {text:?}"),
        source: io::Error::new(io::ErrorKind::InvalidInput, err),
    })
}

fn c_path(path: &Path) -> Result<CString, PrepareError> {
    c_string(&path.to_string_lossy())
}
