//! From resources to the values of control files. Pure.
//!
//! Source: the kernel's cgroup-v1 and cgroup-v2 documents; the conversion of CPU shares to weight is KEP-2254's.

use std::borrow::Cow;
use std::fmt;

use crate::engine::{IoLimit, Resources};
use crate::runtime::root::DeviceNode;

/// The kernel's default CPU period.
const CPU_PERIOD_US: u64 = 100_000;

/// A control file and its value.
pub type Setting = (Cow<'static, str>, String);

/// The most that memory and swap may be together, on v1; how much swap, on v2.
const SWAP_FILES: [&str; 2] = ["memory.memsw.limit_in_bytes", "memory.swap.max"];

/// Whether a file bounds swap: besides the memory limit, and not on every kernel.
#[must_use]
pub fn is_of_swap(file: &str) -> bool {
    SWAP_FILES.contains(&file)
}

/// The share of the disks' time: under BFQ's name, or that of v2's own controller. A kernel has one of them, or none.
const IO_WEIGHT_FILES: [&str; 3] = ["blkio.bfq.weight", "io.bfq.weight", "io.weight"];

/// Whether a file sets the share of the disks' time.
#[must_use]
pub fn is_of_io_weight(file: &str) -> bool {
    IO_WEIGHT_FILES.contains(&file)
}

/// Whether a file, which not every kernel has, bounds the huge pages that are set aside, beside those in use.
#[must_use]
pub fn is_of_reserved_pages(file: &str) -> bool {
    file.starts_with("hugetlb.") && file.contains(".rsvd.")
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
    let mut set = |controller, file: &'static str, value: Option<String>| {
        if let Some(value) = value.filter(|_| has(controller)) {
            settings.push((Cow::from(file), value));
        }
    };
    set("cpu", "cpu.shares", resources.cpu_shares.map(|shares| shares.clamp(2, 262_144).to_string()));
    set("cpu", "cpu.cfs_period_us", resources.cpu_period_us.filter(|p| *p > 0).map(|period| period.to_string()));
    set("cpu", "cpu.cfs_quota_us", resources.cpu_quota_us.map(|quota| quota.max(-1).to_string()));
    set("cpu", "cpu.cfs_burst_us", resources.cpu_burst_us.map(|burst| burst.to_string()));
    let memory = positive(resources.memory_limit_bytes);
    let both = resources.memory_swap_bytes.or(memory);
    let mut files = [("memory.limit_in_bytes", memory), (SWAP_FILES[0], both)];
    if memory.zip(memory_now).is_some_and(|(memory, now)| memory > now) {
        files.reverse();
    }
    for (file, limit) in files {
        set("memory", file, limit.map(|limit| limit.to_string()));
    }
    set("memory", "memory.soft_limit_in_bytes", resources.memory_low_bytes.map(|low| low.to_string()));
    set("pids", "pids.max", resources.pids_max.map(or_max));
    set("cpuset", "cpuset.cpus", resources.cpuset_cpus.clone());
    set("cpuset", "cpuset.mems", resources.cpuset_mems.clone());
    set("blkio", IO_WEIGHT_FILES[0], resources.io_weight.map(|weight| weight.to_string()));
    if has("blkio") {
        settings.extend(resources.io_limits.iter().flat_map(legacy_io));
    }
    if has("hugetlb") {
        settings.extend(hugepages(resources, ["limit_in_bytes", "rsvd.limit_in_bytes"]));
    }
    settings
}

/// Settings of the v2 group with these controllers.
#[must_use]
pub fn unified(resources: &Resources, controllers: &[String]) -> Vec<Setting> {
    let has = |name: &str| controllers.iter().any(|controller| controller == name);
    let mut settings = Vec::new();
    let mut set = |controller, file: &'static str, value: Option<String>| {
        if let Some(value) = value.filter(|_| has(controller)) {
            settings.push((Cow::from(file), value));
        }
    };
    set("cpu", "cpu.weight", resources.cpu_shares.map(|shares| weight(shares).to_string()));
    let period = resources.cpu_period_us.filter(|period| *period > 0).unwrap_or(CPU_PERIOD_US);
    let cpu_max = resources.cpu_quota_us.map(|quota| match u64::try_from(quota) {
        Ok(quota) if quota > 0 => format!("{quota} {period}"),
        _ => format!("max {period}"),
    });
    set("cpu", "cpu.max", cpu_max);
    set("cpu", "cpu.max.burst", resources.cpu_burst_us.map(|burst| burst.to_string()));
    let memory = positive(resources.memory_limit_bytes);
    set("memory", "memory.max", memory.map(|limit| limit.to_string()));
    // No swap, so that the limit cannot be passed by swapping (the kubelet's `NoSwap`), unless it is asked for.
    let swap = match (resources.memory_swap_bytes, memory) {
        (Some(both), _) if both < 0 => Some("max".to_owned()),
        (Some(both), Some(memory)) => Some(both.saturating_sub(memory).max(0).to_string()),
        (_, memory) => memory.map(|_| "0".to_owned()),
    };
    set("memory", SWAP_FILES[1], swap);
    set("memory", "memory.high", resources.memory_high_bytes.map(or_max));
    set("memory", "memory.low", resources.memory_low_bytes.map(|low| low.max(0).to_string()));
    set("pids", "pids.max", resources.pids_max.map(or_max));
    set("cpuset", "cpuset.cpus", resources.cpuset_cpus.clone());
    set("cpuset", "cpuset.mems", resources.cpuset_mems.clone());
    set("io", IO_WEIGHT_FILES[1], resources.io_weight.map(|weight| weight.to_string()));
    set("io", IO_WEIGHT_FILES[2], resources.io_weight.map(|weight| io_weight(weight).to_string()));
    if has("io") {
        settings.extend(resources.io_limits.iter().map(unified_io));
    }
    if has("hugetlb") {
        settings.extend(hugepages(resources, ["max", "rsvd.max"]));
    }
    settings
}

/// A file takes one disk at a time; 0 takes a bound away.
fn legacy_io(limit: &IoLimit) -> Vec<Setting> {
    let IoLimit { major, minor, .. } = limit;
    let bounds = [
        ("read_bps", limit.read_bytes),
        ("write_bps", limit.write_bytes),
        ("read_iops", limit.reads),
        ("write_iops", limit.writes),
    ];
    let said = bounds.into_iter().filter_map(|(name, bound)| Some((name, bound?)));
    said.map(|(name, bound)| (format!("blkio.throttle.{name}_device").into(), format!("{major}:{minor} {bound}")))
        .collect()
}

fn unified_io(limit: &IoLimit) -> Setting {
    let bounds =
        [("rbps", limit.read_bytes), ("wbps", limit.write_bytes), ("riops", limit.reads), ("wiops", limit.writes)];
    let said = bounds.into_iter().filter_map(|(name, bound)| Some((name, bound?)));
    let said = said.map(|(name, bound)| match bound {
        0 => format!(" {name}=max"),
        bound => format!(" {name}={bound}"),
    });
    (Cow::from("io.max"), format!("{}:{}{}", limit.major, limit.minor, said.collect::<String>()))
}

fn hugepages(resources: &Resources, files: [&str; 2]) -> Vec<Setting> {
    let of =
        |(size, bytes): (&String, &u64)| files.map(|file| (format!("hugetlb.{size}.{file}").into(), bytes.to_string()));
    resources.hugepages.iter().flat_map(of).collect()
}

/// v1's 10 to 1000 onto v2's 1 to 10,000. Source: runc's conversion.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

/// v1 shares 2 to 262,144 onto v2 weight 1 to 10,000.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn positive(bytes: Option<i64>) -> Option<i64> {
    bytes.filter(|bytes| *bytes > 0)
}

fn or_max(max: i64) -> String {
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
    fn disks_bursts_and_huge_pages_are_bounded_under_the_names_of_each_version() {
        let limit = IoLimit { major: 8, minor: 16, read_bytes: Some(1), writes: Some(4), ..IoLimit::default() };
        let resources = Resources {
            cpu_burst_us: Some(5),
            memory_high_bytes: Some(7),
            memory_low_bytes: Some(3),
            io_weight: Some(1000),
            io_limits: vec![limit, IoLimit { write_bytes: Some(0), minor: 32, ..limit }],
            hugepages: [("2MB".to_owned(), 4 << 20)].into(),
            ..Resources::default()
        };
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            text(&legacy(&resources, &all(&["cpu", "memory", "blkio", "hugetlb"]), None)),
            "cpu.cfs_burst_us=5 memory.soft_limit_in_bytes=3 blkio.bfq.weight=1000 \
             blkio.throttle.read_bps_device=8:16 1 blkio.throttle.write_iops_device=8:16 4 \
             blkio.throttle.read_bps_device=8:32 1 blkio.throttle.write_bps_device=8:32 0 \
             blkio.throttle.write_iops_device=8:32 4 \
             hugetlb.2MB.limit_in_bytes=4194304 hugetlb.2MB.rsvd.limit_in_bytes=4194304"
        );
        assert_eq!(
            text(&unified(&resources, &all(&["cpu", "memory", "io", "hugetlb"]))),
            "cpu.max.burst=5 memory.high=7 memory.low=3 io.bfq.weight=1000 io.weight=10000 \
             io.max=8:16 rbps=1 wiops=4 io.max=8:32 rbps=1 wbps=max wiops=4 \
             hugetlb.2MB.max=4194304 hugetlb.2MB.rsvd.max=4194304"
        );
        assert_eq!([0, 10, 500, 1000].map(io_weight), [1, 1, 4950, 10_000]);
        assert!(is_of_reserved_pages("hugetlb.1GB.rsvd.max") && !is_of_reserved_pages("hugetlb.1GB.max"));
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
