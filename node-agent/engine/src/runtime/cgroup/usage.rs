//! What a group uses: read from its files, in v1 or v2, whichever has the controller.

use std::path::{Path, PathBuf};

use crate::engine::Usage;
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
        processes: number("pids.current"),
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(own, _)| *own == name).and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let v2 = |name: &str| match name {
            "cpu.stat" => Some("usage_usec 1500\nuser_usec 1000\n".to_owned()),
            "memory.current" => Some("5000\n".to_owned()),
            "memory.stat" => Some("anon 3000\nfile 2000\ninactive_file 1500\npgfault 7\npgmajfault 1\n".to_owned()),
            "pids.current" => Some("2\n".to_owned()),
            _ => None,
        };
        let wanted = Usage {
            cpu_nanoseconds: Some(1_500_000),
            memory_bytes: Some(5000),
            working_set_bytes: Some(3500),
            rss_bytes: Some(3000),
            page_faults: Some(7),
            major_page_faults: Some(1),
            processes: Some(2),
        };
        assert_eq!(parse(v2), wanted);
        let v1 = |name: &str| match name {
            "cpu.stat" => Some("nr_periods 0\n".to_owned()),
            "cpuacct.usage" => Some("1500000\n".to_owned()),
            "memory.usage_in_bytes" => Some("5000\n".to_owned()),
            "memory.stat" => Some(
                "rss 1\ntotal_rss 3000\ntotal_inactive_file 1500\ntotal_pgfault 7\ntotal_pgmajfault 1\n".to_owned(),
            ),
            "pids.current" => Some("2\n".to_owned()),
            _ => None,
        };
        assert_eq!(parse(v1), wanted);
        assert_eq!(parse(|_| None), Usage::default());
    }
}
