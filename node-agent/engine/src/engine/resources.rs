//! What containers may use, and what they use: the words of both. Who sets limits and reads usage is
//! [`crate::runtime::cgroup`].

use std::collections::BTreeMap;

/// Limits and shares, as in the OCI runtime configuration. `None` means not set.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// cgroup v1 CPU shares (2 to 262,144); converted on v2.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time per period.
    pub cpu_quota_us: Option<i64>,
    /// The period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Bytes of memory.
    pub memory_limit_bytes: Option<i64>,
    /// Number of processes.
    pub pids_max: Option<i64>,
    /// OOM score adjustment, −1000 to 1000. A root that may not lower it goes on and says so once.
    pub oom_score_adj: Option<i32>,
    /// CPUs, `0-1`.
    pub cpuset_cpus: Option<String>,
    /// Nodes of memory, `0-1`.
    #[serde(default)]
    pub cpuset_mems: Option<String>,
    /// Bytes of memory and swap together, -1 for as much swap as there is; `None`: no swap beyond the memory's limit.
    #[serde(default)]
    pub memory_swap_bytes: Option<i64>,
    /// Microseconds of CPU time that a container may save up and use beyond its quota.
    #[serde(default)]
    pub cpu_burst_us: Option<u64>,
    /// Bytes of memory from which on the kernel takes back and slows down, -1 for none; v2 only.
    #[serde(default)]
    pub memory_high_bytes: Option<i64>,
    /// Bytes of memory that are left alone while others can give: `memory.low`, on v1 the soft limit.
    #[serde(default)]
    pub memory_low_bytes: Option<i64>,
    /// Share of the disks' time, 10 to 1000.
    #[serde(default)]
    pub io_weight: Option<u16>,
    /// Bounds of single disks.
    #[serde(default)]
    pub io_limits: Vec<IoLimit>,
    /// Bytes of huge pages by their size as the kernel writes it: `2MB`, `1GB`.
    #[serde(default)]
    pub hugepages: BTreeMap<String, u64>,
    /// Files of the v2 group by name, and what to write there; refused where v2 has no controllers.
    #[serde(default)]
    pub unified: BTreeMap<String, String>,
}

/// What may go to and from one disk in a second; `None` is not bounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct IoLimit {
    /// The block device's number.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Reads.
    pub reads: Option<u64>,
    /// Writes.
    pub writes: Option<u64>,
}

impl Resources {
    /// These with what `change` says instead; what it does not say stays.
    #[must_use]
    pub fn updated(self, change: &Self) -> Self {
        Self {
            cpu_shares: change.cpu_shares.or(self.cpu_shares),
            cpu_quota_us: change.cpu_quota_us.or(self.cpu_quota_us),
            cpu_period_us: change.cpu_period_us.or(self.cpu_period_us),
            memory_limit_bytes: change.memory_limit_bytes.or(self.memory_limit_bytes),
            pids_max: change.pids_max.or(self.pids_max),
            oom_score_adj: change.oom_score_adj.or(self.oom_score_adj),
            cpuset_cpus: change.cpuset_cpus.clone().or(self.cpuset_cpus),
            cpuset_mems: change.cpuset_mems.clone().or(self.cpuset_mems),
            memory_swap_bytes: change.memory_swap_bytes.or(self.memory_swap_bytes),
            cpu_burst_us: change.cpu_burst_us.or(self.cpu_burst_us),
            memory_high_bytes: change.memory_high_bytes.or(self.memory_high_bytes),
            memory_low_bytes: change.memory_low_bytes.or(self.memory_low_bytes),
            io_weight: change.io_weight.or(self.io_weight),
            io_limits: if change.io_limits.is_empty() { self.io_limits } else { change.io_limits.clone() },
            hugepages: self.hugepages.into_iter().chain(change.hugepages.clone()).collect(),
            unified: self.unified.into_iter().chain(change.unified.clone()).collect(),
        }
    }
}

/// What a container has used and uses. What the kernel does not count is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// CPU time since it was started.
    pub cpu_nanoseconds: Option<u64>,
    /// Of that, in programs.
    pub cpu_user_nanoseconds: Option<u64>,
    /// Of that, in the kernel.
    pub cpu_system_nanoseconds: Option<u64>,
    /// How often its quota of CPU time was used up.
    pub throttling: Option<Throttling>,
    /// Memory, file pages included.
    pub memory_bytes: Option<u64>,
    /// Memory without file pages that could be given back at once.
    pub working_set_bytes: Option<u64>,
    /// Memory that is no file's.
    pub rss_bytes: Option<u64>,
    /// Memory of files.
    pub cache_bytes: Option<u64>,
    /// Memory of files that are mapped.
    pub mapped_file_bytes: Option<u64>,
    /// Memory of files that was used lately.
    pub active_file_bytes: Option<u64>,
    /// Memory of files that was not.
    pub inactive_file_bytes: Option<u64>,
    /// Memory that the kernel needs for it.
    pub kernel_bytes: Option<u64>,
    /// The most memory it ever had.
    pub memory_peak_bytes: Option<u64>,
    /// How often its memory limit was reached; v1 only.
    pub memory_limit_hits: Option<u64>,
    /// Processes that were killed because of the limit.
    pub oom_kills: Option<u64>,
    /// Page faults since it was started.
    pub page_faults: Option<u64>,
    /// Those that had to read.
    pub major_page_faults: Option<u64>,
    /// Memory that was swapped out.
    pub swap_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// The most of them there may be, 0 for any number.
    pub processes_max: Option<u64>,
    /// What went to and from disks since it was started.
    pub io: Option<IoUsage>,
    /// The same of each disk.
    pub disks: Vec<DiskUsage>,
    /// Time lost waiting for CPUs. Only v2 groups count it, as the two below.
    pub cpu_pressure: Option<Pressure>,
    /// Time lost waiting for memory.
    pub memory_pressure: Option<Pressure>,
    /// Time lost waiting for disks.
    pub io_pressure: Option<Pressure>,
    /// Traffic of a sandbox's own interfaces, without the loopback; of a container nothing.
    pub interfaces: Vec<InterfaceUsage>,
}

/// What went to and from all disks together. Source: `io.stat`, `blkio.throttle.*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoUsage {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// What went to and from one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Its number.
    pub major: u32,
    /// See `major`.
    pub minor: u32,
    /// `/dev/sda`; empty where it has no name.
    pub device: String,
    /// What went.
    pub io: IoUsage,
}

/// How often a quota of CPU time was used up. Source: `cpu.stat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which something ran.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// Time that it was kept from running.
    pub throttled_nanoseconds: u64,
}

/// The processes of a container, and what they have open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// How many there are.
    pub processes: u64,
    /// Open files of all of them.
    pub file_descriptors: u64,
    /// Those that are sockets.
    pub sockets: u64,
}

/// What somebody takes of a file system. What is not known is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// `/dev/sda1`; empty where it is on none.
    pub device: String,
    /// Bytes that are used.
    pub used_bytes: Option<u64>,
    /// Bytes that there are.
    pub limit_bytes: Option<u64>,
    /// Files that there can be.
    pub inodes: Option<u64>,
    /// Of these, not yet used.
    pub inodes_free: Option<u64>,
}

/// How long processes waited for something. Source: the kernel's document on pressure stall information.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one of them.
    pub some: Stall,
    /// All of them at once.
    pub full: Stall,
}

/// A line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// Microseconds since it was started.
    pub total: u64,
    /// Percent of the last ten seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last five minutes.
    pub avg300: f64,
}

/// What went through a network interface since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: Option<u64>,
    /// Packets that were received and dropped.
    pub rx_dropped: Option<u64>,
    /// Packets that were received wrong.
    pub rx_errors: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: Option<u64>,
    /// Packets that were dropped instead of sent.
    pub tx_dropped: Option<u64>,
    /// Packets that could not be sent.
    pub tx_errors: u64,
}
