//! The whole machine, from `/proc`.

use std::fs;

use reeve_engine::engine::Pressure;
use reeve_engine::runtime::cgroup::usage::pressure;

/// What the machine has used and uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Machine {
    /// CPU time of all that was not idle, since the machine started.
    pub(super) cpu_nanoseconds: u64,
    /// Of that, in programs.
    pub(super) cpu_user_nanoseconds: u64,
    pub(super) memory_bytes: u64,
    /// Without file pages that could be given back at once.
    pub(super) working_set_bytes: u64,
    pub(super) available_bytes: u64,
    /// Memory of processes that is no file's.
    pub(super) rss_bytes: u64,
    /// Room for memory that is swapped out.
    pub(super) swap_bytes: u64,
    /// Seconds since 1970.
    pub(super) started_at: i64,
    /// Time lost waiting for CPUs; `None` where the kernel does not count it, as the two below.
    pub(super) cpu_pressure: Option<Pressure>,
    pub(super) memory_pressure: Option<Pressure>,
    pub(super) io_pressure: Option<Pressure>,
}

/// Looks at the machine.
pub(super) fn look() -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let lost = |of: &str| fs::read_to_string(format!("/proc/pressure/{of}")).ok().map(|text| pressure(&text));
    Machine {
        cpu_pressure: lost("cpu"),
        memory_pressure: lost("memory"),
        io_pressure: lost("io"),
        ..parse(&read("/proc/stat"), &read("/proc/meminfo"))
    }
}

/// Source: proc_stat(5), proc_meminfo(5).
fn parse(stat: &str, meminfo: &str) -> Machine {
    let line = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    // user nice system idle iowait irq softirq steal, in hundredths of a second.
    let times: Vec<u64> = line("cpu ").split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let busy: u64 = times.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, time)| time).sum();
    let user: u64 = times.iter().take(2).sum();
    let memory = |name: &str| {
        let found = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number =
            found.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
        number.unwrap_or(0).saturating_mul(1024)
    };
    let used = memory("MemTotal").saturating_sub(memory("MemFree"));
    Machine {
        cpu_nanoseconds: busy.saturating_mul(10_000_000),
        cpu_user_nanoseconds: user.saturating_mul(10_000_000),
        memory_bytes: used,
        working_set_bytes: used.saturating_sub(memory("Inactive(file)")),
        available_bytes: memory("MemAvailable"),
        rss_bytes: memory("AnonPages"),
        swap_bytes: memory("SwapTotal"),
        started_at: line("btime ").trim().parse().unwrap_or(0),
        ..Machine::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_and_used_memory_are_found() {
        let stat = "cpu  100 1 50 9999 7 2 3 4 0 0\ncpu0 1 1 1 1\nbtime 1700000000\n";
        let meminfo = "MemTotal: 1000 kB\nMemFree: 400 kB\nMemAvailable: 700 kB\nInactive(file): 200 kB\nAnonPages: 90 kB\nSwapTotal: 8 kB\n";
        let wanted = Machine {
            cpu_nanoseconds: 160 * 10_000_000,
            cpu_user_nanoseconds: 101 * 10_000_000,
            memory_bytes: 600 * 1024,
            working_set_bytes: 400 * 1024,
            available_bytes: 700 * 1024,
            rss_bytes: 90 * 1024,
            swap_bytes: 8 * 1024,
            started_at: 1_700_000_000,
            ..Machine::default()
        };
        assert_eq!(parse(stat, meminfo), wanted);
        assert!(look().cpu_nanoseconds > 0 && look().memory_bytes > 0);
    }
}
