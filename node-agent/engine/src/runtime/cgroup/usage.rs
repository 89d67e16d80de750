//! What a group uses: read from its files, in v1 or v2, whichever has the controller.

use std::path::{Path, PathBuf};

use crate::engine::{DiskUsage, IoUsage, Pressure, ProcessUsage, Stall, Throttling, Usage};
use crate::runtime::disks;
use crate::supervisor::plan::CgroupPlan;

/// v1 counts the time in programs and in the kernel in hundredths of a second. Source: the kernel's `USER_HZ`.
const TICK_NANOSECONDS: u64 = 10_000_000;

/// Reads a group's usage. What the kernel does not count, or a group that is gone, is left out.
#[must_use]
pub fn read(plan: &CgroupPlan) -> Usage {
    let groups: Vec<&PathBuf> = plan.unified.iter().chain(&plan.legacy).collect();
    let mut usage = parse(|name: &str| groups.iter().filter_map(|group| text(&group.join(name))).collect());
    for disk in &mut usage.disks {
        disk.device = disks::name(disk.major, disk.minor).unwrap_or_default();
    }
    usage
}

/// The processes in a group itself, and what they have open. Those that end meanwhile are passed over.
#[must_use]
pub fn processes(plan: &CgroupPlan) -> ProcessUsage {
    let mut found = ProcessUsage::default();
    let listed = plan.unified.iter().chain(&plan.legacy).find_map(|group| text(&group.join("cgroup.procs")));
    for pid in listed.unwrap_or_default().lines() {
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        found.processes += 1;
        for file in open.flatten() {
            let target = std::fs::read_link(file.path()).unwrap_or_default();
            found.file_descriptors += 1;
            found.sockets += u64::from(target.to_string_lossy().starts_with("socket:"));
        }
    }
    found
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `files` gives the texts of a file by its name, in all hierarchies that have it, v2's first. Pure.
fn parse(files: impl Fn(&str) -> Vec<String>) -> Usage {
    let file = |name: &str| files(name).into_iter().next();
    let number = |name: &str| file(name).and_then(|text| text.trim().parse::<u64>().ok());
    let cpu_times = files("cpu.stat");
    let cpu = |name: &str| cpu_times.iter().find_map(|text| field(text, name));
    let nanoseconds = |name: &str| cpu(name).map(|micros| micros.saturating_mul(1000));
    let ticks = file("cpuacct.stat").unwrap_or_default();
    let ticks = |name: &str| field(&ticks, name).map(|ticks| ticks.saturating_mul(TICK_NANOSECONDS));
    let memory = file("memory.stat").unwrap_or_default();
    // v1 counts a group's children apart, under these names.
    let counted = |name: &str| field(&memory, &format!("total_{name}")).or_else(|| field(&memory, name));
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"));
    let killed = file("memory.events").or_else(|| file("memory.oom_control"));
    let by_disk = file("io.stat").map(|text| io_unified(&text)).or_else(|| io_legacy(file));
    Usage {
        cpu_nanoseconds: nanoseconds("usage_usec").or_else(|| number("cpuacct.usage")),
        cpu_user_nanoseconds: nanoseconds("user_usec").or_else(|| ticks("user")),
        cpu_system_nanoseconds: nanoseconds("system_usec").or_else(|| ticks("system")),
        throttling: cpu("nr_periods").map(|periods| Throttling {
            periods,
            throttled_periods: cpu("nr_throttled").unwrap_or_default(),
            throttled_nanoseconds: nanoseconds("throttled_usec").or_else(|| cpu("throttled_time")).unwrap_or_default(),
        }),
        memory_bytes: used,
        working_set_bytes: used.map(|used| used.saturating_sub(counted("inactive_file").unwrap_or(0))),
        rss_bytes: field(&memory, "anon").or_else(|| counted("rss")),
        cache_bytes: field(&memory, "file").or_else(|| counted("cache")),
        mapped_file_bytes: field(&memory, "file_mapped").or_else(|| counted("mapped_file")),
        active_file_bytes: counted("active_file"),
        inactive_file_bytes: counted("inactive_file"),
        kernel_bytes: field(&memory, "kernel").or_else(|| number("memory.kmem.usage_in_bytes")),
        memory_peak_bytes: number("memory.peak").or_else(|| number("memory.max_usage_in_bytes")),
        memory_limit_hits: number("memory.failcnt"),
        oom_kills: killed.and_then(|text| field(&text, "oom_kill")),
        page_faults: counted("pgfault"),
        major_page_faults: counted("pgmajfault"),
        swap_bytes: number("memory.swap.current").or_else(|| counted("swap")),
        processes: number("pids.current"),
        processes_max: file("pids.max").map(|text| text.trim().parse().unwrap_or(0)),
        io: by_disk.as_deref().map(|disks| disks.iter().fold(IoUsage::default(), |sum, disk| added(sum, disk.io))),
        disks: by_disk.unwrap_or_default(),
        cpu_pressure: file("cpu.pressure").map(|text| pressure(&text)),
        memory_pressure: file("memory.pressure").map(|text| pressure(&text)),
        io_pressure: file("io.pressure").map(|text| pressure(&text)),
        interfaces: Vec::new(),
    }
}

fn added(a: IoUsage, b: IoUsage) -> IoUsage {
    IoUsage {
        read_bytes: a.read_bytes.saturating_add(b.read_bytes),
        write_bytes: a.write_bytes.saturating_add(b.write_bytes),
        reads: a.reads.saturating_add(b.reads),
        writes: a.writes.saturating_add(b.writes),
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`, a line for each disk; one that was never used has no numbers.
fn io_unified(text: &str) -> Vec<DiskUsage> {
    let of = |line: &str| {
        let (disk, numbers) = line.split_once(' ')?;
        let value = |name: &str| {
            let mut words = numbers.split_ascii_whitespace().filter_map(|word| word.split_once('='));
            words.find(|(own, _)| *own == name).and_then(|(_, value)| value.parse::<u64>().ok())
        };
        let at = |name: &str| value(name).unwrap_or_default();
        value("rbytes").or_else(|| value("wbytes"))?;
        let io = IoUsage { read_bytes: at("rbytes"), write_bytes: at("wbytes"), reads: at("rios"), writes: at("wios") };
        disk_usage(disk, io)
    };
    text.lines().filter_map(of).collect()
}

fn disk_usage(number: &str, io: IoUsage) -> Option<DiskUsage> {
    let (major, minor) = number.split_once(':')?;
    Some(DiskUsage { major: major.parse().ok()?, minor: minor.parse().ok()?, device: String::new(), io })
}

/// `8:0 Read 1`, a line for each disk and direction.
fn io_legacy(file: impl Fn(&str) -> Option<String>) -> Option<Vec<DiskUsage>> {
    let (bytes, times) =
        (file("blkio.throttle.io_service_bytes_recursive")?, file("blkio.throttle.io_serviced_recursive")?);
    let value = |text: &str, disk: &str, direction: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(disk)?.strip_prefix(' ')?.split_once(' '));
        let found = lines.find(|(own, _)| *own == direction);
        found.and_then(|(_, value)| value.trim().parse::<u64>().ok()).unwrap_or_default()
    };
    let mut disks: Vec<&str> = bytes.lines().filter_map(|line| Some(line.split_once(' ')?.0)).collect();
    disks.dedup();
    let of = |disk: &str| {
        let io = IoUsage {
            read_bytes: value(&bytes, disk, "Read"),
            write_bytes: value(&bytes, disk, "Write"),
            reads: value(&times, disk, "Read"),
            writes: value(&times, disk, "Write"),
        };
        // The last line is of no disk.
        disk_usage(disk, io)
    };
    Some(disks.into_iter().filter_map(of).collect())
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and a line of `full`. For the node's own, too.
#[must_use]
pub fn pressure(text: &str) -> Pressure {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
        let value = |name: &str| {
            let mut words = line.split_ascii_whitespace().filter_map(|word| word.split_once('='));
            words.find(|(own, _)| *own == name).map(|(_, value)| value).unwrap_or_default()
        };
        let average = |name| value(name).parse().unwrap_or_default();
        Stall {
            total: value("total").parse().unwrap_or_default(),
            avg10: average("avg10"),
            avg60: average("avg60"),
            avg300: average("avg300"),
        }
    };
    Pressure { some: stall("some "), full: stall("full ") }
}

fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(own, _)| *own == name).and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRESSURE: &str = "some avg10=1.25 avg60=0.50 avg300=100.00 total=7\nfull avg10=0.50 avg60=0.00 total=3\n";

    fn disk(minor: u32, read_bytes: u64, write_bytes: u64, reads: u64, writes: u64) -> DiskUsage {
        let io = IoUsage { read_bytes, write_bytes, reads, writes };
        DiskUsage { major: 8, minor, device: String::new(), io }
    }

    fn of(file: impl Fn(&str) -> Option<&'static str>) -> Usage {
        parse(|name| file(name).map(str::to_owned).into_iter().collect())
    }

    const V2: [(&str, &str); 10] = [
        (
            "cpu.stat",
            "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
        ),
        ("memory.current", "5000\n"),
        (
            "memory.stat",
            "anon 3000\nfile 2000\nkernel 30\nfile_mapped 600\ninactive_file 1500\nactive_file 400\npgfault 7\n\
             pgmajfault 1\n",
        ),
        ("memory.peak", "6000\n"),
        ("memory.events", "low 0\nhigh 0\nmax 5\noom 1\noom_kill 2\n"),
        ("memory.swap.current", "9\n"),
        ("pids.current", "2\n"),
        ("pids.max", "max\n"),
        ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n8:16 \n8:32 rbytes=1\n"),
        ("memory.pressure", PRESSURE),
    ];

    const V1: [(&str, &str); 12] = [
        ("cpu.stat", "nr_periods 4\nnr_throttled 2\nthrottled_time 7000\n"),
        ("cpuacct.usage", "1500000\n"),
        ("cpuacct.stat", "user 3\nsystem 2\n"),
        ("memory.usage_in_bytes", "5000\n"),
        ("memory.max_usage_in_bytes", "6000\n"),
        ("memory.kmem.usage_in_bytes", "30\n"),
        ("memory.failcnt", "5\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        (
            "memory.stat",
            "rss 1\ntotal_rss 3000\ntotal_cache 2000\ntotal_mapped_file 600\ntotal_inactive_file 1500\n\
             total_active_file 400\ntotal_pgfault 7\ntotal_pgmajfault 1\nswap 1\ntotal_swap 9\n",
        ),
        (
            "blkio.throttle.io_service_bytes_recursive",
            "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\n8:32 Read 1\n8:32 Write 0\nTotal 4\n",
        ),
        ("blkio.throttle.io_serviced_recursive", "8:0 Read 3\n8:0 Write 4\n"),
        ("pids.current", "2\n"),
    ];

    #[test]
    fn both_versions_are_read() {
        let full = Stall { total: 3, avg10: 0.5, ..Stall::default() };
        let pressure = Pressure { some: Stall { total: 7, avg10: 1.25, avg60: 0.5, avg300: 100.0 }, full };
        let wanted = Usage {
            cpu_nanoseconds: Some(1_500_000),
            cpu_user_nanoseconds: Some(1_000_000),
            cpu_system_nanoseconds: Some(500_000),
            throttling: Some(Throttling { periods: 4, throttled_periods: 2, throttled_nanoseconds: 7000 }),
            memory_bytes: Some(5000),
            working_set_bytes: Some(3500),
            rss_bytes: Some(3000),
            cache_bytes: Some(2000),
            mapped_file_bytes: Some(600),
            active_file_bytes: Some(400),
            inactive_file_bytes: Some(1500),
            kernel_bytes: Some(30),
            memory_peak_bytes: Some(6000),
            oom_kills: Some(2),
            page_faults: Some(7),
            major_page_faults: Some(1),
            swap_bytes: Some(9),
            processes: Some(2),
            processes_max: Some(0),
            io: Some(IoUsage { read_bytes: 2, write_bytes: 2, reads: 3, writes: 4 }),
            disks: vec![disk(0, 1, 2, 3, 4), disk(32, 1, 0, 0, 0)],
            memory_pressure: Some(pressure),
            ..Usage::default()
        };
        let in_table = |table: &[(&str, &'static str)], name: &str| {
            table.iter().find(|(own, _)| *own == name).map(|(_, text)| *text)
        };
        assert_eq!(of(|name| in_table(&V2, name)), wanted);
        let legacy = Usage {
            cpu_user_nanoseconds: Some(30_000_000),
            cpu_system_nanoseconds: Some(20_000_000),
            memory_limit_hits: Some(5),
            processes_max: None,
            memory_pressure: None,
            ..wanted
        };
        assert_eq!(of(|name| in_table(&V1, name)), legacy, "v1 counts no pressure");
        assert_eq!(of(|_| None), Usage::default());
    }

    #[test]
    fn where_both_versions_are_there_each_tells_what_it_counts() {
        let both = |name: &str| match name {
            "cpu.stat" => vec!["usage_usec 1500\nuser_usec 1000\n".to_owned(), "nr_periods 4\n".to_owned()],
            _ => Vec::new(),
        };
        let usage = parse(both);
        assert_eq!((usage.cpu_nanoseconds, usage.throttling.map(|own| own.periods)), (Some(1_500_000), Some(4)));
    }
}
