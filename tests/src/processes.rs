//! Processes as the machine sees them: who belongs to a cluster or a container, and ending one.

use std::path::Path;
use std::process::Command;

use crate::command::run;

/// A process that cannot be mistaken for a later one with the same id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id on the machine.
    pub pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// Its command line, arguments separated by blanks.
    pub command: String,
}

impl Process {
    /// The process as it is now; `None` when there is none or it only waits to be reaped.
    #[must_use]
    pub fn find(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let raw = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&raw).replace('\0', " ").trim_end().to_owned();
        (*fields.first()? != "Z").then_some(())?;
        Some(Self { pid, start_ticks: fields.get(19)?.parse().ok()?, command })
    }

    /// Whether it still lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Self::find(self.pid).is_some_and(|now| now.start_ticks == self.start_ticks)
    }

    /// Whether it is the first process of its PID namespace.
    #[must_use]
    pub fn is_init(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("NSpid:"));
        line.and_then(|line| line.split_whitespace().last()) == Some("1")
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// When it is not there to be killed.
    #[track_caller]
    pub fn kill(&self) {
        assert!(self.is_alive(), "{self:?} lives no more");
        run(Command::new("kill").args(["-9", &self.pid.to_string()]), "").done();
    }
}

/// Every process that `belongs` accepts, by id.
#[must_use]
pub fn all(belongs: impl Fn(&Process) -> bool) -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<Process> = pids.filter_map(Process::find).filter(belongs).collect();
    found.sort();
    found
}

/// The processes in the cgroup of that container (or of that pod), without kernel threads and without the dead.
#[must_use]
pub fn of_container(id: &str) -> Vec<Process> {
    all(|process| {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).unwrap_or_default();
        groups.contains(id)
    })
}

/// The processes in that network namespace, given by the number that `readlink /proc/PID/ns/net` shows.
#[must_use]
pub fn in_network(namespace: u64) -> Vec<Process> {
    let wanted = format!("net:[{namespace}]");
    all(|process| {
        std::fs::read_link(format!("/proc/{}/ns/net", process.pid)).is_ok_and(|link| link == Path::new(&wanted))
    })
}
