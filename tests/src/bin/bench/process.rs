//! Memory and CPU of processes, from `/proc` (proc(5)).

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

/// USER_HZ: the unit of times in `/proc/PID/stat`, 100 on every Linux that runs Reeve.
const TICKS_PER_SECOND: u64 = 100;

/// What a set of processes uses at one moment.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Reading {
    /// How many they are.
    pub processes: usize,
    /// Proportional set size: pages shared with others count by their share.
    pub pss_bytes: u64,
    /// Of these, pages without a file behind them.
    pub anonymous_bytes: u64,
    /// CPU time since their start.
    pub cpu: Duration,
}

impl Reading {
    /// Reads it now.
    pub(crate) fn of(pids: &[u32]) -> anyhow::Result<Self> {
        let mut all = Self { processes: pids.len(), ..Self::default() };
        for pid in pids {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            let field = |name: &str| field_kib(&text, name).with_context(|| format!("{path} has no {name}"));
            all.pss_bytes += field("Pss:")? * 1024;
            all.anonymous_bytes += field("Pss_Anon:")? * 1024;
            all.cpu += cpu(*pid)?;
        }
        Ok(all)
    }
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// CPU time of all threads of a process since its start, those that have ended included.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let ticks = ticks(&text).with_context(|| format!("{path} is not as in proc(5)"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// utime + stime: the 14th and 15th field; the second, the name in brackets, may contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Processes that run this file, whatever path they were started by.
pub(crate) fn running(program: &Path) -> anyhow::Result<Vec<u32>> {
    let wanted = std::fs::metadata(program).with_context(|| format!("read {}", program.display()))?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has just ended, or a thread of the kernel.
        let Ok(exe) = std::fs::metadata(entry.path().join("exe")) else { continue };
        if (exe.dev(), exe.ino()) == (wanted.dev(), wanted.ino()) {
            found.push(pid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_brackets_and_blanks() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 2 3 4 50 7 0 0 20 0 4 0 100 200 300";
        assert_eq!(ticks(stat), Some(57));
        assert_eq!(ticks("12 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_found_by_its_program_and_has_memory() {
        let own = std::env::current_exe().expect("a program");
        let pids = running(&own).expect("processes");
        assert!(pids.contains(&std::process::id()));
        assert!(Reading::of(&[std::process::id()]).expect("a reading").pss_bytes > 0);
    }
}
