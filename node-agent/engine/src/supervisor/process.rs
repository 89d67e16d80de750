//! Questions about processes: who is this, is it the same as before, how did it end.

#![allow(unsafe_code, reason = "PIDFD_GET_INFO has no safe wrapper")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};

use super::plan::{CgroupPlan, RunRecord};

/// `PIDFD_GET_INFO` (Linux 6.15 for exit codes): `_IOWR(0xff, 11, struct pidfd_info)` with its first 64 bytes.
const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;
/// Asks for, and tells of, the exit code.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info`, first version with an exit code.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// How a process ended, as far as can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It runs.
    No,
    /// Exit code, or 128 + signal.
    Code(i32),
    /// It is gone and nobody knows how.
    Unknown,
}

/// Reads a process' start time in clock ticks: field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
pub(crate) fn start_ticks(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold anything; the last `)` ends it and field 3 follows.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19))
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time")))
}

/// The id of this boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Opens the very process that a record names; `None` when it is gone, whoever has its number now.
pub(crate) fn open_recorded(run: &RunRecord) -> io::Result<Option<OwnedFd>> {
    if run.boot_id != boot_id()? {
        return Ok(None);
    }
    let Some(pid) = Pid::from_raw(run.pid) else { return Ok(None) };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::NONBLOCK) else { return Ok(None) };
    // Read after opening: if the start time is right now, the handle is of that process.
    match start_ticks(run.pid) {
        Ok(ticks) if ticks == run.start_ticks => Ok(Some(pidfd)),
        _ => Ok(None),
    }
}

/// How a process ended. For a child this also buries it; for another's child the kernel must be Linux 6.15.
pub(super) fn ended(pidfd: BorrowedFd<'_>) -> Ended {
    match waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(None) => Ended::No,
        Ok(Some(status)) => {
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            status.exit_status().or(signal).map_or(Ended::Unknown, Ended::Code)
        }
        Err(_) => exit_info(pidfd),
    }
}

/// The exit code of a process that was never our child, if it has ended and the kernel tells.
pub(crate) fn exit_code_of(pidfd: BorrowedFd<'_>) -> Option<i32> {
    match exit_info(pidfd) {
        Ended::Code(code) => Some(code),
        Ended::No | Ended::Unknown => None,
    }
}

/// What the kernel remembers of a process that was never our child.
fn exit_info(pidfd: BorrowedFd<'_>) -> Ended {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: ioctl on a pidfd with a structure of the size encoded in the request.
    let asked = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    if asked < 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return Ended::Unknown;
    }
    let status = info.exit_code;
    Ended::Code(if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) })
}

/// Whether a process is our child.
pub(super) fn is_child(pidfd: BorrowedFd<'_>) -> bool {
    // Looks and buries nothing.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::PidFd(pidfd), options).is_ok()
}

/// The children of this thread, those that have ended and are not buried yet included.
pub(super) fn children() -> Vec<i32> {
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Sends a signal; a process that is gone already is no error.
pub(super) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let signal = Signal::from_named_raw(signal)
        .or_else(|| {
            // SAFETY: the number is in the range of real-time signals, which the kernel accepts.
            (libc::SIGRTMIN()..=libc::SIGRTMAX())
                .contains(&signal)
                .then(|| unsafe { Signal::from_raw_unchecked(signal) })
        })
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("no signal {signal}")))?;
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Kills everything in a container's cgroup.
pub(crate) fn kill_cgroup(cgroup: &CgroupPlan) {
    if let Some(unified) = &cgroup.unified
        && std::fs::write(unified.join("cgroup.kill"), "1").is_ok()
    {
        return;
    }
    // Kernels before 5.14, or hosts without v2: one by one, until none is left or the tries are over.
    let groups = cgroup.unified.iter().chain(&cgroup.legacy);
    for group in groups.take(1) {
        for _ in 0..16 {
            if kill_each(group) == 0 {
                return;
            }
        }
    }
}

/// Whether any process is in a container's cgroup.
pub(crate) fn is_populated(cgroup: &CgroupPlan) -> bool {
    cgroup.unified.iter().chain(&cgroup.legacy).take(1).any(|group| !pids(group).is_empty())
}

fn kill_each(group: &Path) -> usize {
    let pids = pids(group);
    for pid in &pids {
        let _ = rustix::process::kill_process(*pid, Signal::KILL);
    }
    pids.len()
}

fn pids(group: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw).collect()
}

/// How many processes the memory limit has killed: the `oom_kill` line of v2's `memory.events` and v1's
/// `memory.oom_control`.
pub(super) fn oom_kills(cgroup: &CgroupPlan) -> u64 {
    let Some(path) = &cgroup.oom_events else { return 0 };
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_one_process_only() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let mut run = RunRecord {
            pid,
            start_ticks: start_ticks(pid).unwrap(),
            boot_id: boot_id().unwrap(),
            started_at: jiff::Timestamp::UNIX_EPOCH,
        };
        assert!(open_recorded(&run).unwrap().is_some());
        run.start_ticks += 1;
        assert!(open_recorded(&run).unwrap().is_none(), "another process with that number");
        run.start_ticks -= 1;
        run.boot_id.push('x');
        assert!(open_recorded(&run).unwrap().is_none(), "another boot");
    }

    #[test]
    fn the_victims_of_a_memory_limit_are_counted_in_both_formats() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let group = CgroupPlan { oom_events: Some(path.clone()), ..CgroupPlan::default() };
        assert_eq!(oom_kills(&group), 0, "no file, no victims");
        std::fs::write(&path, "low 0\nhigh 0\nmax 3\noom 1\noom_kill 2\n").unwrap();
        assert_eq!(oom_kills(&group), 2);
        std::fs::write(&path, "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n").unwrap();
        assert_eq!(oom_kills(&group), 1);
    }
}
