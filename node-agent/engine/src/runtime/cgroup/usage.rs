//! What a group uses: read from its files, in v1 or v2, whichever has the controller.

use std::path::{Path, PathBuf};

use crate::engine::{IoUsage, Pressure, Stall, Usage};
use crate::supervisor::plan::CgroupPlan;

/// Reads a group's usage. What the kernel does not count, or a group that is gone, is left out.
#[must_use]
pub fn read(plan: &CgroupPlan) -> Usage {
    let groups: Vec<&PathBuf> = plan.unified.iter().chain(&plan.legacy).collect();
    let file = |name: &str| groups.iter().find_map(|group| text(&group.join(name)));
    parse(file)
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// `file` gives the text of a file of the group by its name. Pure.
fn parse(file: impl Fn(&str) -> Option<String>) -> Usage {
    let number = |name: &str| file(name).and_then(|text| text.trim().parse::<u64>().ok());
    let cpu = file("cpu.stat").and_then(|text| field(&text, "usage_usec")).map(|micros| micros.saturating_mul(1000));
    let memory = file("memory.stat").unwrap_or_default();
    // v1 counts a group's children apart, under these names.
    let counted = |name: &str| field(&memory, &format!("total_{name}")).or_else(|| field(&memory, name));
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes"));
    Usage {
        cpu_nanoseconds: cpu.or_else(|| number("cpuacct.usage")),
        memory_bytes: used,
        working_set_bytes: used.map(|used| used.saturating_sub(counted("inactive_file").unwrap_or(0))),
        rss_bytes: field(&memory, "anon").or_else(|| counted("rss")),
        page_faults: counted("pgfault"),
        major_page_faults: counted("pgmajfault"),
        swap_bytes: number("memory.swap.current").or_else(|| counted("swap")),
        processes: number("pids.current"),
        io: file("io.stat").map(|text| io_unified(&text)).or_else(|| io_legacy(&file)),
        cpu_pressure: file("cpu.pressure").map(|text| pressure(&text)),
        memory_pressure: file("memory.pressure").map(|text| pressure(&text)),
        io_pressure: file("io.pressure").map(|text| pressure(&text)),
        interfaces: Vec::new(),
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`, a line for each disk.
fn io_unified(text: &str) -> IoUsage {
    let sum = |name: &str| {
        let values =
            text.split_ascii_whitespace().filter_map(|word| word.split_once('=')).filter(|(own, _)| *own == name);
        values.filter_map(|(_, value)| value.parse::<u64>().ok()).fold(0, u64::saturating_add)
    };
    IoUsage { read_bytes: sum("rbytes"), write_bytes: sum("wbytes"), reads: sum("rios"), writes: sum("wios") }
}

/// `8:0 Read 1`, a line for each disk and direction.
fn io_legacy(file: impl Fn(&str) -> Option<String>) -> Option<IoUsage> {
    let (bytes, times) =
        (file("blkio.throttle.io_service_bytes_recursive")?, file("blkio.throttle.io_serviced_recursive")?);
    let sum = |text: &str, direction: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(' ')?.1.split_once(' '));
        let values =
            lines.filter(|(own, _)| *own == direction).filter_map(|(_, value)| value.trim().parse::<u64>().ok());
        values.fold(0, u64::saturating_add)
    };
    Some(IoUsage {
        read_bytes: sum(&bytes, "Read"),
        write_bytes: sum(&bytes, "Write"),
        reads: sum(&times, "Read"),
        writes: sum(&times, "Write"),
    })
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

    #[test]
    fn both_versions_are_read() {
        let v2 = |name: &str| match name {
            "cpu.stat" => Some("usage_usec 1500\nuser_usec 1000\n".to_owned()),
            "memory.current" => Some("5000\n".to_owned()),
            "memory.stat" => Some("anon 3000\nfile 2000\ninactive_file 1500\npgfault 7\npgmajfault 1\n".to_owned()),
            "memory.swap.current" => Some("9\n".to_owned()),
            "pids.current" => Some("2\n".to_owned()),
            "io.stat" => Some("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n8:16 \n8:32 rbytes=1\n".to_owned()),
            "memory.pressure" => Some(PRESSURE.to_owned()),
            _ => None,
        };
        let full = Stall { total: 3, avg10: 0.5, ..Stall::default() };
        let pressure = Pressure { some: Stall { total: 7, avg10: 1.25, avg60: 0.5, avg300: 100.0 }, full };
        let wanted = Usage {
            cpu_nanoseconds: Some(1_500_000),
            memory_bytes: Some(5000),
            working_set_bytes: Some(3500),
            rss_bytes: Some(3000),
            page_faults: Some(7),
            major_page_faults: Some(1),
            swap_bytes: Some(9),
            processes: Some(2),
            io: Some(IoUsage { read_bytes: 2, write_bytes: 2, reads: 3, writes: 4 }),
            memory_pressure: Some(pressure),
            ..Usage::default()
        };
        assert_eq!(parse(v2), wanted);
        let v1 = |name: &str| match name {
            "cpu.stat" => Some("nr_periods 0\n".to_owned()),
            "cpuacct.usage" => Some("1500000\n".to_owned()),
            "memory.usage_in_bytes" => Some("5000\n".to_owned()),
            "memory.stat" => Some(
                "rss 1\ntotal_rss 3000\ntotal_inactive_file 1500\ntotal_pgfault 7\ntotal_pgmajfault 1\n\
                 swap 1\ntotal_swap 9\n"
                    .to_owned(),
            ),
            "blkio.throttle.io_service_bytes_recursive" => {
                Some("8:0 Read 1\n8:0 Write 2\n8:0 Total 3\n8:16 Read 1\nTotal 4\n".to_owned())
            }
            "blkio.throttle.io_serviced_recursive" => Some("8:0 Read 3\n8:0 Write 4\n".to_owned()),
            "pids.current" => Some("2\n".to_owned()),
            _ => None,
        };
        assert_eq!(parse(v1), Usage { memory_pressure: None, ..wanted }, "v1 counts no pressure");
        assert_eq!(parse(|_| None), Usage::default());
    }
}
