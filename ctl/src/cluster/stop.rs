//! Ending a process for certain, and only the one that is meant.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::ClusterError;
use super::state::{MainLock, Process, RunState};

/// How long the main process may take to stop after SIGTERM.
const TERM_WAIT: Duration = Duration::from_secs(15);
/// How long the kernel may take to end a killed process.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Ends the main process of a run folder: the one that wrote itself down, and one that was killed or stuck before it
/// could.
pub(crate) fn end_main_process(run_dir: &Path) -> Result<(), ClusterError> {
    if let Some(running) = RunState::load(run_dir) {
        end_process(running.process)?;
    }
    if let Some(process) = MainLock::holder(run_dir) {
        end_process(process)?;
    }
    await_end(run_dir)
}

/// Waits for a process that was killed a moment ago: its first thread is gone and the others still hold what it had.
fn await_end(run_dir: &Path) -> Result<(), ClusterError> {
    let Some(pid) = MainLock::holder_pid(run_dir) else { return Ok(()) };
    let failed = |err| ClusterError::io(format!("wait for the end of process {pid}"), err);
    let Some(pidfd) = pidfd_of(pid).map_err(failed)? else { return Ok(()) };
    match wait_readable(&pidfd, KILL_WAIT) {
        Ok(true) => Ok(()),
        Ok(false) => Err(failed(std::io::ErrorKind::TimedOut.into())),
        Err(err) => Err(failed(err.into())),
    }
}

/// A descriptor of the process of that id, readable when its last thread has ended (pidfd_open(2)); `None` when there
/// is none.
fn pidfd_of(pid: i32) -> Result<Option<rustix::fd::OwnedFd>, std::io::Error> {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return Ok(None) };
    match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(rustix::io::Errno::SRCH) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

/// Asks the process to end, then kills it. Returns when it is gone; at once when it is gone already.
fn end_process(process: Process) -> Result<(), ClusterError> {
    let step = || format!("stop process {}", process.pid);
    let Some(pidfd) = pidfd_of(process.pid).map_err(|err| ClusterError::io(step(), err))? else { return Ok(()) };
    // The descriptor pins the id: compared after it was opened, it cannot become another process.
    if !process.is_alive() {
        return Ok(());
    }
    for (signal, wait) in [(Signal::SIGTERM, TERM_WAIT), (Signal::SIGKILL, KILL_WAIT)] {
        let signal =
            if signal == Signal::SIGTERM { rustix::process::Signal::TERM } else { rustix::process::Signal::KILL };
        match rustix::process::pidfd_send_signal(&pidfd, signal) {
            Ok(()) => {}
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            Err(err) => return Err(ClusterError::io(step(), err)),
        }
        if wait_readable(&pidfd, wait).map_err(|err| ClusterError::io(step(), err))? {
            return Ok(());
        }
    }
    Err(ClusterError::io(step(), std::io::Error::from(std::io::ErrorKind::TimedOut)))
}

fn wait_readable(fd: &rustix::fd::OwnedFd, wait: Duration) -> Result<bool, rustix::io::Errno> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(err),
        }
    }
}
