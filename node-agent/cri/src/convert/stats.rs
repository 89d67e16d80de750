//! What containers and pods use.

use reeve_engine::engine::{FsUsage, Usage};
use reeve_proto::cri::{
    CpuUsage, FilesystemIdentifier, FilesystemUsage, MemoryUsage, ProcessUsage, SwapUsage, UInt64Value,
};

/// A number that may not be known.
#[must_use]
pub fn number(value: Option<u64>) -> Option<UInt64Value> {
    value.map(|value| UInt64Value { value })
}

/// CPU time, and the rate of late.
#[must_use]
pub fn cpu(usage: &Usage, now: i64, rate: Option<u64>) -> CpuUsage {
    CpuUsage {
        timestamp: now,
        usage_core_nano_seconds: number(usage.cpu_nanoseconds),
        usage_nano_cores: number(rate),
        psi: None,
    }
}

/// Memory, with what is left of the limit.
#[must_use]
pub fn memory(usage: &Usage, now: i64, limit: Option<i64>) -> MemoryUsage {
    let limit = limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
    let left = limit.zip(usage.working_set_bytes).map(|(limit, used)| limit.saturating_sub(used));
    MemoryUsage {
        timestamp: now,
        working_set_bytes: number(usage.working_set_bytes),
        available_bytes: number(left),
        usage_bytes: number(usage.memory_bytes),
        rss_bytes: number(usage.rss_bytes),
        page_faults: number(usage.page_faults),
        major_page_faults: number(usage.major_page_faults),
        psi: None,
    }
}

/// Processes and threads.
#[must_use]
pub fn processes(usage: &Usage, now: i64) -> ProcessUsage {
    ProcessUsage { timestamp: now, process_count: number(usage.processes) }
}

/// Swap: containers have none.
#[must_use]
pub fn swap(now: i64) -> SwapUsage {
    let none = number(Some(0));
    SwapUsage { timestamp: now, swap_available_bytes: none, swap_usage_bytes: none }
}

/// A folder on disk.
#[must_use]
pub fn folder(usage: &FsUsage, now: i64) -> FilesystemUsage {
    FilesystemUsage {
        timestamp: now,
        fs_id: Some(FilesystemIdentifier { mountpoint: usage.path.to_string_lossy().into_owned() }),
        used_bytes: number(Some(usage.used_bytes)),
        inodes_used: number(Some(usage.inodes)),
    }
}

/// What another runtime says that a container uses.
#[must_use]
pub fn to_engine(cpu: Option<&CpuUsage>, memory: Option<&MemoryUsage>, processes: Option<&ProcessUsage>) -> Usage {
    let read = |value: Option<UInt64Value>| value.map(|value| value.value);
    Usage {
        cpu_nanoseconds: cpu.and_then(|cpu| read(cpu.usage_core_nano_seconds)),
        memory_bytes: memory.and_then(|memory| read(memory.usage_bytes)),
        working_set_bytes: memory.and_then(|memory| read(memory.working_set_bytes)),
        rss_bytes: memory.and_then(|memory| read(memory.rss_bytes)),
        page_faults: memory.and_then(|memory| read(memory.page_faults)),
        major_page_faults: memory.and_then(|memory| read(memory.major_page_faults)),
        processes: processes.and_then(|processes| read(processes.process_count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_counted_is_left_out_and_what_is_left_of_a_limit_is_told() {
        let used = Usage { working_set_bytes: Some(30), cpu_nanoseconds: Some(7), ..Usage::default() };
        let (cpu, memory) = (cpu(&used, 1, None), memory(&used, 1, Some(100)));
        assert_eq!((memory.available_bytes, memory.rss_bytes), (number(Some(70)), None));
        assert_eq!(to_engine(Some(&cpu), Some(&memory), None), used);
    }
}
