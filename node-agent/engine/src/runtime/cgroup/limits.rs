//! From resources to the values of control files. Pure.
//!
//! Source: the kernel's cgroup-v1 and cgroup-v2 documents; the conversion of CPU shares to weight is KEP-2254's.

use std::fmt;

use crate::engine::Resources;
use crate::runtime::root::DeviceNode;

/// The kernel's default CPU period.
const CPU_PERIOD_US: u64 = 100_000;

/// A control file and its value.
pub type Setting = (&'static str, String);

/// The most that memory and swap may be together, on v1; how much swap, on v2.
const SWAP_FILES: [&str; 2] = ["memory.memsw.limit_in_bytes", "memory.swap.max"];

/// Whether a file bounds swap: besides the memory limit, and not on every kernel.
#[must_use]
pub fn is_of_swap(file: &str) -> bool {
    SWAP_FILES.contains(&file)
}

/// Settings of a v1 group with these controllers, in the order in which the kernel takes them. `memory_now` is the
/// group's memory limit so far.
///
/// Memory and swap together get the same bound, so that the limit cannot be passed by swapping; that bound may at no
/// moment be the lower one, so it is raised before the limit and lowered after it.
#[must_use]
pub fn legacy(resources: &Resources, controllers: &[String], memory_now: Option<i64>) -> Vec<Setting> {
    let has = |name: &str| controllers.iter().any(|controller| controller == name);
    let mut settings = Vec::new();
    let mut set = |controller, file, value: Option<String>| {
        if let Some(value) = value.filter(|_| has(controller)) {
            settings.push((file, value));
        }
    };
    set("cpu", "cpu.shares", resources.cpu_shares.map(|shares| shares.clamp(2, 262_144).to_string()));
    set("cpu", "cpu.cfs_period_us", resources.cpu_period_us.filter(|p| *p > 0).map(|period| period.to_string()));
    set("cpu", "cpu.cfs_quota_us", resources.cpu_quota_us.map(|quota| quota.max(-1).to_string()));
    let memory = positive(resources.memory_limit_bytes);
    let both = resources.memory_swap_bytes.or(memory);
    let mut files = [("memory.limit_in_bytes", memory), (SWAP_FILES[0], both)];
    if memory.zip(memory_now).is_some_and(|(memory, now)| memory > now) {
        files.reverse();
    }
    for (file, limit) in files {
        set("memory", file, limit.map(|limit| limit.to_string()));
    }
    set("pids", "pids.max", resources.pids_max.map(pids));
    set("cpuset", "cpuset.cpus", resources.cpuset_cpus.clone());
    set("cpuset", "cpuset.mems", resources.cpuset_mems.clone());
    settings
}

/// Settings of the v2 group with these controllers.
#[must_use]
pub fn unified(resources: &Resources, controllers: &[String]) -> Vec<Setting> {
    let has = |name: &str| controllers.iter().any(|controller| controller == name);
    let mut settings = Vec::new();
    let mut set = |controller, file, value: Option<String>| {
        if let Some(value) = value.filter(|_| has(controller)) {
            settings.push((file, value));
        }
    };
    set("cpu", "cpu.weight", resources.cpu_shares.map(|shares| weight(shares).to_string()));
    let period = resources.cpu_period_us.filter(|period| *period > 0).unwrap_or(CPU_PERIOD_US);
    let cpu_max = resources.cpu_quota_us.map(|quota| match u64::try_from(quota) {
        Ok(quota) if quota > 0 => format!("{quota} {period}"),
        _ => format!("max {period}"),
    });
    set("cpu", "cpu.max", cpu_max);
    let memory = positive(resources.memory_limit_bytes);
    set("memory", "memory.max", memory.map(|limit| limit.to_string()));
    // No swap, so that the limit cannot be passed by swapping (the kubelet's `NoSwap`), unless it is asked for.
    let swap = match (resources.memory_swap_bytes, memory) {
        (Some(both), _) if both < 0 => Some("max".to_owned()),
        (Some(both), Some(memory)) => Some(both.saturating_sub(memory).max(0).to_string()),
        (_, memory) => memory.map(|_| "0".to_owned()),
    };
    set("memory", SWAP_FILES[1], swap);
    set("pids", "pids.max", resources.pids_max.map(pids));
    set("cpuset", "cpuset.cpus", resources.cpuset_cpus.clone());
    set("cpuset", "cpuset.mems", resources.cpuset_mems.clone());
    settings
}

/// v1 shares 2 to 262,144 onto v2 weight 1 to 10,000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn positive(bytes: Option<i64>) -> Option<i64> {
    bytes.filter(|bytes| *bytes > 0)
}

fn pids(max: i64) -> String {
    if max > 0 { max.to_string() } else { "max".to_owned() }
}

/// Devices that a group may use, as v1 writes them: `c 1:3 rwm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a` (all), `b` (block), `c` (character).
    pub kind: char,
    /// `None` means any.
    pub major: Option<u32>,
    /// `None` means any.
    pub minor: Option<u32>,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        write!(f, "{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.permissions)
    }
}

/// What every container may use: nodes of any device may be made (not opened), the usual ones opened, terminals
/// used; and the devices it was given. Source: runc's and containerd's default rules.
#[must_use]
pub fn device_rules(given: &[DeviceNode], privileged: bool) -> Vec<DeviceRule> {
    let rule =
        |kind, major, minor, permissions: &str| DeviceRule { kind, major, minor, permissions: permissions.to_owned() };
    if privileged {
        return vec![rule('a', None, None, "rwm")];
    }
    let mut rules = vec![rule('c', None, None, "m"), rule('b', None, None, "m")];
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(rule('c', Some(major), Some(minor), "rwm"));
    }
    rules.push(rule('c', Some(136), None, "rwm"));
    for device in given {
        let kind = if device.mode & libc::S_IFMT == libc::S_IFBLK { 'b' } else { 'c' };
        let permissions: String = device.permissions.chars().filter(|c| "rwm".contains(*c)).collect();
        rules.push(rule(kind, Some(device.major), Some(device.minor), &permissions));
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources() -> Resources {
        Resources {
            cpu_shares: Some(1024),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory_limit_bytes: Some(1 << 20),
            pids_max: Some(-1),
            ..Resources::default()
        }
    }

    fn text(settings: &[Setting]) -> String {
        settings.iter().map(|(file, value)| format!("{file}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_hierarchy_gets_the_settings_of_its_controllers() {
        let controllers = ["cpu".to_owned(), "memory".to_owned(), "pids".to_owned()];
        assert_eq!(
            text(&legacy(&resources(), &controllers, None)),
            "cpu.shares=1024 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 memory.limit_in_bytes=1048576 \
             memory.memsw.limit_in_bytes=1048576 pids.max=max"
        );
        assert_eq!(
            text(&unified(&resources(), &controllers)),
            "cpu.weight=39 cpu.max=50000 100000 memory.max=1048576 memory.swap.max=0 pids.max=max"
        );
        assert_eq!(text(&unified(&resources(), &[])), "", "a v2 group without controllers takes no limits");
    }

    #[test]
    fn the_bound_of_memory_and_swap_is_never_below_that_of_memory() {
        let resources = Resources { memory_limit_bytes: Some(100), ..Resources::default() };
        let controllers = ["memory".to_owned()];
        let (limit, both) = ("memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=100");
        assert_eq!(text(&legacy(&resources, &controllers, Some(50))), format!("{both} {limit}"));
        for now in [None, Some(100), Some(200)] {
            assert_eq!(text(&legacy(&resources, &controllers, now)), format!("{limit} {both}"));
        }
        assert!(is_of_swap("memory.swap.max") && !is_of_swap("memory.max"));
    }

    #[test]
    fn swap_beyond_the_memory_is_what_is_asked_for() {
        let controllers = ["memory".to_owned()];
        for (both, v1, v2) in [(Some(150), "150", "50"), (Some(-1), "-1", "max"), (None, "100", "0")] {
            let resources =
                Resources { memory_limit_bytes: Some(100), memory_swap_bytes: both, ..Resources::default() };
            let expected = format!("memory.limit_in_bytes=100 memory.memsw.limit_in_bytes={v1}");
            assert_eq!(text(&legacy(&resources, &controllers, None)), expected);
            let expected = format!("memory.max=100 memory.swap.max={v2}");
            assert_eq!(text(&unified(&resources, &controllers)), expected);
        }
    }

    #[test]
    fn shares_become_weights_as_kubernetes_converts_them() {
        assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight), [1, 1, 39, 10_000, 10_000]);
    }

    #[test]
    fn no_quota_means_no_quota_in_both_versions() {
        let resources = Resources { cpu_quota_us: Some(-1), ..Resources::default() };
        let controllers = ["cpu".to_owned()];
        assert_eq!(text(&legacy(&resources, &controllers, None)), "cpu.cfs_quota_us=-1");
        assert_eq!(text(&unified(&resources, &controllers)), "cpu.max=max 100000");
    }
}
