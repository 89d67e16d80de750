//! How a supervisor comes to be: the agent starts its own program again under a hidden name.
//!
//! The program is executed through a read-only mount of its file, so that `/proc/PID/exe` of a process that is
//! entering a container can never be a way to write to it (CVE-2019-5736). It leaves the agent's session and
//! process group, and prepares its socket before the agent goes on.

#![allow(unsafe_code, reason = "fork before the first thread, and prctl")]

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reeve_api::clock::RealClock;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::server::{CONTAINERS_MAX, Parts, Server};
use crate::logs::queue::Queue;
use crate::logs::writer::Writer;
use crate::runtime::mount_attr::{self, MountAttr};

/// The hidden first argument.
const NAME: &str = "supervisor";
/// The argument before the run folder.
const RUN_DIR: &str = "--run-dir";
/// The argument behind it, if the supervisor is to end with its last connection.
const ENDS_ALONE: &str = "--ends-alone";
/// How often, and after what pause, a start is tried again while another supervisor holds the run folder.
const LOCK_TRIES: u32 = 50;
const LOCK_WAIT: Duration = Duration::from_millis(20);
/// Stack of the writer thread: it recurses nowhere and keeps its buffers on the heap.
const WRITER_STACK_LEN: usize = 256 << 10;
/// The score of a process that the kernel should spare, as containerd gives its shims.
const OOM_SCORE_ADJ: &str = "-999";

/// Why there is no supervisor to talk to.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Its program could not be started.
    #[error("failed to start the supervisor {program:?}")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended at once.
    #[error("the supervisor ended at once: {0}")]
    Ended(String),
    /// It is there and cannot be reached.
    #[error("failed to connect to the supervisor at {path:?}")]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The socket of the supervisor of a run folder.
fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("supervisor.sock")
}

/// Connects to the supervisor of a run folder; starts one when there is none. Blocks for a few milliseconds.
/// The second value tells whether it was started now. With `ends_alone` one that is started ends, and kills what it
/// runs, when nobody is connected to it any more.
///
/// # Errors
/// See [`SpawnError`].
pub fn connect_or_spawn(program: &Path, run_dir: &Path, ends_alone: bool) -> Result<(UnixStream, bool), SpawnError> {
    let path = socket_path(run_dir);
    let mut tries = 0;
    loop {
        if let Ok(stream) = UnixStream::connect(&path) {
            return Ok((stream, false));
        }
        match spawn(program, run_dir, ends_alone) {
            Ok(()) => break,
            // One that is dying may hold its lock a moment longer than its socket; and two may start at once.
            Err(SpawnError::Ended(_)) if tries < LOCK_TRIES => tries += 1,
            Err(err) => return Err(err),
        }
        std::thread::sleep(LOCK_WAIT);
    }
    let stream = UnixStream::connect(&path).map_err(|source| SpawnError::Connect { path, source })?;
    Ok((stream, true))
}

fn spawn(program: &Path, run_dir: &Path, ends_alone: bool) -> Result<(), SpawnError> {
    let sealed = read_only_view(program);
    let path = match &sealed {
        Some(fd) => PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
        None => program.to_owned(),
    };
    let output = Command::new(path)
        .arg(NAME)
        .arg(RUN_DIR)
        .arg(run_dir)
        .args(ends_alone.then_some(ENDS_ALONE))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|source| SpawnError::Start { program: program.to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(SpawnError::Ended(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// A descriptor of the program in a mount that cannot be written through. `None` where the kernel or our rights
/// do not allow it: then the program itself must do.
fn read_only_view(program: &Path) -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, program, flags).ok()?;
    let set = (MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID).bits().into();
    mount_attr::set(tree.as_fd(), &MountAttr { set, ..MountAttr::default() }).ok()?;
    // The descriptor must survive until `execve` opens it by its path in /proc/self/fd: that happens before
    // close-on-exec descriptors are closed.
    Some(tree)
}

/// The supervisor's `main`: to be called first thing in `main` of every program that uses the engine, before
/// any thread or runtime exists. `None` when the arguments are not the hidden ones.
#[must_use]
pub fn supervisor_main(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    if args.next()? != NAME || args.next()? != RUN_DIR {
        return None;
    }
    let run_dir = PathBuf::from(args.next()?);
    let ends_alone = args.next().is_some_and(|arg| arg == ENDS_ALONE);
    Some(match start(&run_dir, ends_alone) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("{}: {err}", run_dir.display());
            ExitCode::FAILURE
        }
    })
}

/// Takes the run folder, binds the socket, and goes into the background: the caller's wait ends when the socket
/// answers.
fn start(run_dir: &Path, ends_alone: bool) -> io::Result<()> {
    // What starts us may do without huge pages, and children inherit that: containers have what the host gives.
    let _ = nix::sys::prctl::set_thp_disable(false);
    let lock = lock(run_dir)?;
    let path = socket_path(run_dir);
    match std::fs::remove_file(&path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&path)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::io::ioctl_fionbio(&listener, true)?;
    // SAFETY: no thread exists yet, so the child is as whole as its parent.
    match unsafe { libc::fork() } {
        0 => {}
        pid if pid > 0 => return Ok(()),
        _ => return Err(io::Error::last_os_error()),
    }
    let result = serve(listener.into(), path, ends_alone);
    drop(lock);
    result
}

/// One supervisor per run folder: the lock is held as long as the process lives.
fn lock(run_dir: &Path) -> io::Result<OwnedFd> {
    let path = run_dir.join("supervisor.lock");
    let lock = rustix::fs::open(&path, OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(io::Error::new(io::ErrorKind::ResourceBusy, "another supervisor holds this run folder"))
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Three or four descriptors per container: the usual soft limit of 1,024 is too low for a full node.
fn raise_open_files() {
    let own = getrlimit(Resource::Nofile);
    // A process may always raise its soft limit to the hard one.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: own.maximum, maximum: own.maximum });
}

fn serve(listener: OwnedFd, socket_path: PathBuf, ends_alone: bool) -> io::Result<()> {
    let _ = rustix::process::setsid();
    let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?;
    rustix::stdio::dup2_stderr(null.as_fd())?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    rustix::thread::set_name(c"reeve-superv")?;
    raise_open_files();
    let lowers_oom_score = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ).is_ok();
    let clock = RealClock::shared();
    let commands = Arc::new(Queue::new(CONTAINERS_MAX * 4)?);
    let finished = Arc::new(Queue::new(CONTAINERS_MAX * 2)?);
    let writer = Writer::new(Arc::clone(&clock), Arc::clone(&commands), Arc::clone(&finished))?;
    std::thread::Builder::new()
        .name("log-writer".to_owned())
        .stack_size(WRITER_STACK_LEN)
        .spawn(move || writer.run())?;
    let boot_id = super::process::boot_id()?;
    let parts = Parts { clock, boot_id, commands, finished, listener, socket_path, lowers_oom_score, ends_alone };
    Server::new(parts)?.run()
}
