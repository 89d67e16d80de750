//! cAdvisor's metrics of what containers and pods use: their names, meaning and labels, and where the values are.
//! Pure; for the kubelet's `/metrics/cadvisor` and for CRI's metrics.
//!
//! What is not counted here has no sample. Source: cAdvisor's `docs/storage/prometheus.md`, and what kubelets tell.

use std::fmt;

use jiff::Timestamp;

use crate::engine::{DiskUsage, FileSystem, InterfaceUsage, Pressure, ProcessUsage, Resources, Throttling, Usage};

/// Labels that all metrics have, before their own: the container's name in its pod, its group, its image, its id, and
/// whose it is. Empty ones are there, too.
pub const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// Periods that the kernel's accounting of processor time has where nobody has said anything, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Whether a value only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It does.
    Counter,
    /// It does not.
    Gauge,
}

/// An amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// A number of something.
    Number(u64),
    /// A time in nanoseconds, which is told in seconds.
    Nanoseconds(u64),
}

impl Value {
    /// In whole units, rounded down.
    #[must_use]
    pub fn whole(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Nanoseconds(time) => time / 1_000_000_000,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Nanoseconds(time) => {
                let text = format!("{}.{:09}", time / 1_000_000_000, time % 1_000_000_000);
                f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
            }
        }
    }
}

/// One value, with those of its family's own labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Values of [`Family::labels`].
    pub labels: Vec<String>,
    /// The amount.
    pub value: Value,
}

/// Whom samples are of: a container, a pod, or the node.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// What it uses.
    pub usage: Usage,
    /// Its processes, if somebody has counted them.
    pub processes: Option<ProcessUsage>,
    /// What it may use.
    pub limits: Option<Resources>,
    /// When it was made.
    pub created_at: Option<Timestamp>,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// When somebody looked.
    pub seen_at: Option<Timestamp>,
    /// What it takes on disk.
    pub file_systems: Vec<FileSystem>,
}

/// Where the values are.
#[derive(Clone, Copy)]
enum Values {
    One(fn(&Subject) -> Option<Value>),
    /// One for every disk.
    Disk(fn(&DiskUsage) -> u64),
    FileSystem(fn(&FileSystem) -> Option<u64>),
    Interface(fn(&InterfaceUsage) -> Option<u64>),
    /// With labels of its own.
    Several(&'static [&'static str], fn(&Subject) -> Vec<Sample>),
}

/// All values of one name.
#[derive(Clone, Copy)]
pub struct Family {
    /// What it is called.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// Whether it was measured, rather than set by somebody: such values have a time.
    pub is_measured: bool,
    values: Values,
}

impl Family {
    /// Its own labels, after [`LABELS`].
    #[must_use]
    pub fn labels(&self) -> &'static [&'static str] {
        match self.values {
            Values::One(_) => &[],
            Values::Disk(_) | Values::FileSystem(_) => &["device"],
            Values::Interface(_) => &["interface"],
            Values::Several(labels, _) => labels,
        }
    }

    /// All that is known of somebody.
    #[must_use]
    pub fn samples(&self, of: &Subject) -> Vec<Sample> {
        let number = |label: &str, number| Sample { labels: vec![label.to_owned()], value: Value::Number(number) };
        match self.values {
            Values::One(value) => value(of).map(|value| Sample { labels: Vec::new(), value }).into_iter().collect(),
            Values::Disk(value) => of.usage.disks.iter().map(|disk| number(&disk.device, value(disk))).collect(),
            Values::FileSystem(value) => {
                of.file_systems.iter().filter_map(|own| Some(number(&own.device, value(own)?))).collect()
            }
            Values::Interface(value) => {
                of.usage.interfaces.iter().filter_map(|own| Some(number(&own.name, value(own)?))).collect()
            }
            Values::Several(_, values) => values(of),
        }
    }
}

const fn family(kind: Kind, name: &'static str, help: &'static str, values: Values) -> Family {
    Family { name, help, kind, is_measured: true, values }
}

const fn counter(name: &'static str, help: &'static str, values: Values) -> Family {
    family(Kind::Counter, name, help, values)
}

const fn gauge(name: &'static str, help: &'static str, values: Values) -> Family {
    family(Kind::Gauge, name, help, values)
}

const fn setting(name: &'static str, help: &'static str, values: Values) -> Family {
    Family { is_measured: false, ..family(Kind::Gauge, name, help, values) }
}

fn number(value: Option<u64>) -> Option<Value> {
    value.map(Value::Number)
}

fn nanoseconds(value: Option<u64>) -> Option<Value> {
    value.map(Value::Nanoseconds)
}

fn second(at: Option<Timestamp>) -> Option<Value> {
    number(at.and_then(|at| u64::try_from(at.as_second()).ok()))
}

/// Counted only where there is a quota.
fn throttling(of: &Subject) -> Option<Throttling> {
    let quota = of.limits.as_ref()?.cpu_quota_us.filter(|quota| *quota > 0);
    of.usage.throttling.filter(|_| quota.is_some())
}

fn stalled(pressure: Option<Pressure>) -> Option<Value> {
    nanoseconds(pressure.map(|pressure| pressure.full.total.saturating_mul(1000)))
}

fn waiting(pressure: Option<Pressure>) -> Option<Value> {
    nanoseconds(pressure.map(|pressure| pressure.some.total.saturating_mul(1000)))
}

fn failures(of: &Subject) -> Vec<Sample> {
    let kinds = [("pgfault", of.usage.page_faults), ("pgmajfault", of.usage.major_page_faults)];
    let scopes = ["container", "hierarchy"];
    // What is below a group counts with it.
    let of_kind = |(kind, count): (&'static str, Option<u64>)| {
        let sample = move |scope: &str| {
            Some(Sample { labels: vec![kind.to_owned(), scope.to_owned()], value: Value::Number(count?) })
        };
        scopes.into_iter().filter_map(sample)
    };
    kinds.into_iter().flat_map(of_kind).collect()
}

fn blkio(of: &Subject) -> Vec<Sample> {
    let of_disk = |disk: &DiskUsage| {
        [("Read", disk.io.read_bytes), ("Write", disk.io.write_bytes)].map(|(operation, bytes)| Sample {
            labels: vec![disk.device.clone(), disk.major.to_string(), disk.minor.to_string(), operation.to_owned()],
            value: Value::Number(bytes),
        })
    };
    of.usage.disks.iter().flat_map(of_disk).collect()
}

/// A limit in bytes; none is 0.
fn limit(of: &Subject, bytes: fn(&Resources) -> Option<i64>) -> Option<Value> {
    let limits = of.limits.as_ref()?;
    Some(Value::Number(bytes(limits).and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)))
}

/// Every family, by name.
#[must_use]
pub fn families() -> Vec<Family> {
    let parts: [&[Family]; 6] = [&CPU, &MEMORY, &DISKS, &NETWORK, &PROCESSES, &SETTINGS];
    let mut all: Vec<Family> = parts.concat();
    all.sort_by_key(|family| family.name);
    all
}

use Values::{Disk, FileSystem as OnDisk, Interface, One, Several};

const CPU: [Family; 8] = [
    counter(
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed in seconds.",
        Several(&["cpu"], |of| {
            let sample = |time| Sample { labels: vec!["total".to_owned()], value: Value::Nanoseconds(time) };
            of.usage.cpu_nanoseconds.map(sample).into_iter().collect()
        }),
    ),
    counter(
        "container_cpu_user_seconds_total",
        "Cumulative user cpu time consumed in seconds.",
        One(|of| nanoseconds(of.usage.cpu_user_nanoseconds)),
    ),
    counter(
        "container_cpu_system_seconds_total",
        "Cumulative system cpu time consumed in seconds.",
        One(|of| nanoseconds(of.usage.cpu_system_nanoseconds)),
    ),
    counter(
        "container_cpu_cfs_periods_total",
        "Number of elapsed enforcement period intervals.",
        One(|of| number(throttling(of).map(|own| own.periods))),
    ),
    counter(
        "container_cpu_cfs_throttled_periods_total",
        "Number of throttled period intervals.",
        One(|of| number(throttling(of).map(|own| own.throttled_periods))),
    ),
    counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        One(|of| nanoseconds(throttling(of).map(|own| own.throttled_nanoseconds))),
    ),
    counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        One(|of| stalled(of.usage.cpu_pressure)),
    ),
    counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        One(|of| waiting(of.usage.cpu_pressure)),
    ),
];

const MEMORY: [Family; 15] = [
    gauge(
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        One(|of| number(of.usage.memory_bytes)),
    ),
    gauge(
        "container_memory_working_set_bytes",
        "Current working set in bytes.",
        One(|of| number(of.usage.working_set_bytes)),
    ),
    gauge("container_memory_rss", "Size of RSS in bytes.", One(|of| number(of.usage.rss_bytes))),
    gauge("container_memory_cache", "Number of bytes of page cache memory.", One(|of| number(of.usage.cache_bytes))),
    gauge(
        "container_memory_mapped_file",
        "Size of memory mapped files in bytes.",
        One(|of| number(of.usage.mapped_file_bytes)),
    ),
    gauge(
        "container_memory_kernel_usage",
        "Size of kernel memory allocated in bytes.",
        One(|of| number(of.usage.kernel_bytes)),
    ),
    gauge("container_memory_swap", "Container swap usage in bytes.", One(|of| number(of.usage.swap_bytes))),
    gauge(
        "container_memory_max_usage_bytes",
        "Maximum memory usage recorded in bytes",
        One(|of| number(of.usage.memory_peak_bytes)),
    ),
    gauge(
        "container_memory_total_active_file_bytes",
        "Current total active file in bytes.",
        One(|of| number(of.usage.active_file_bytes)),
    ),
    gauge(
        "container_memory_total_inactive_file_bytes",
        "Current total inactive file in bytes.",
        One(|of| number(of.usage.inactive_file_bytes)),
    ),
    counter(
        "container_memory_failcnt",
        "Number of memory usage hits limits",
        One(|of| number(of.usage.memory_limit_hits)),
    ),
    counter(
        "container_memory_failures_total",
        "Cumulative count of memory allocation failures.",
        Several(&["failure_type", "scope"], failures),
    ),
    counter(
        "container_oom_events_total",
        "Count of out of memory events observed for the container",
        One(|of| number(of.usage.oom_kills)),
    ),
    counter(
        "container_pressure_memory_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        One(|of| stalled(of.usage.memory_pressure)),
    ),
    counter(
        "container_pressure_memory_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to memory congestion.",
        One(|of| waiting(of.usage.memory_pressure)),
    ),
];

const DISKS: [Family; 11] = [
    counter("container_fs_reads_bytes_total", "Cumulative count of bytes read", Disk(|disk| disk.io.read_bytes)),
    counter("container_fs_reads_total", "Cumulative count of reads completed", Disk(|disk| disk.io.reads)),
    counter("container_fs_writes_bytes_total", "Cumulative count of bytes written", Disk(|disk| disk.io.write_bytes)),
    counter("container_fs_writes_total", "Cumulative count of writes completed", Disk(|disk| disk.io.writes)),
    counter(
        "container_blkio_device_usage_total",
        "Blkio Device bytes usage",
        Several(&["device", "major", "minor", "operation"], blkio),
    ),
    gauge(
        "container_fs_limit_bytes",
        "Number of bytes that can be consumed by the container on this filesystem.",
        OnDisk(|own| own.limit_bytes),
    ),
    gauge(
        "container_fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.",
        OnDisk(|own| own.used_bytes),
    ),
    gauge("container_fs_inodes_total", "Number of Inodes", OnDisk(|own| own.inodes)),
    gauge("container_fs_inodes_free", "Number of available Inodes", OnDisk(|own| own.inodes_free)),
    counter(
        "container_pressure_io_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        One(|of| stalled(of.usage.io_pressure)),
    ),
    counter(
        "container_pressure_io_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to IO congestion.",
        One(|of| waiting(of.usage.io_pressure)),
    ),
];

const NETWORK: [Family; 8] = [
    counter(
        "container_network_receive_bytes_total",
        "Cumulative count of bytes received",
        Interface(|own| Some(own.rx_bytes)),
    ),
    counter(
        "container_network_receive_packets_total",
        "Cumulative count of packets received",
        Interface(|own| own.rx_packets),
    ),
    counter(
        "container_network_receive_packets_dropped_total",
        "Cumulative count of packets dropped while receiving",
        Interface(|own| own.rx_dropped),
    ),
    counter(
        "container_network_receive_errors_total",
        "Cumulative count of errors encountered while receiving",
        Interface(|own| Some(own.rx_errors)),
    ),
    counter(
        "container_network_transmit_bytes_total",
        "Cumulative count of bytes transmitted",
        Interface(|own| Some(own.tx_bytes)),
    ),
    counter(
        "container_network_transmit_packets_total",
        "Cumulative count of packets transmitted",
        Interface(|own| own.tx_packets),
    ),
    counter(
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        Interface(|own| own.tx_dropped),
    ),
    counter(
        "container_network_transmit_errors_total",
        "Cumulative count of errors encountered while transmitting",
        Interface(|own| Some(own.tx_errors)),
    ),
];

const PROCESSES: [Family; 6] = [
    gauge(
        "container_processes",
        "Number of processes running inside the container.",
        One(|of| number(of.processes.map(|own| own.processes))),
    ),
    gauge(
        "container_file_descriptors",
        "Number of open file descriptors for the container.",
        One(|of| number(of.processes.map(|own| own.file_descriptors))),
    ),
    gauge(
        "container_sockets",
        "Number of open sockets for the container.",
        One(|of| number(of.processes.map(|own| own.sockets))),
    ),
    gauge("container_threads", "Number of threads running inside the container", One(|of| number(of.usage.processes))),
    gauge(
        "container_threads_max",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        One(|of| number(of.usage.processes_max)),
    ),
    setting("container_last_seen", "Last time a container was seen by the exporter", One(|of| second(of.seen_at))),
];

const SETTINGS: [Family; 8] = [
    setting(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.",
        One(|of| second(of.started_at)),
    ),
    setting(
        "container_creation_time_seconds",
        "Creation time of the container since unix epoch in seconds.",
        One(|of| second(of.created_at)),
    ),
    setting(
        "container_spec_cpu_period",
        "CPU period of the container.",
        One(|of| number(of.limits.as_ref().map(|own| own.cpu_period_us.unwrap_or(CPU_PERIOD_US)))),
    ),
    setting(
        "container_spec_cpu_quota",
        "CPU quota of the container.",
        One(|of| number(u64::try_from(of.limits.as_ref()?.cpu_quota_us?).ok().filter(|quota| *quota > 0))),
    ),
    setting(
        "container_spec_cpu_shares",
        "CPU share of the container.",
        One(|of| number(of.limits.as_ref().and_then(|own| own.cpu_shares))),
    ),
    setting(
        "container_spec_memory_limit_bytes",
        "Memory limit for the container.",
        One(|of| limit(of, |own| own.memory_limit_bytes)),
    ),
    setting(
        "container_spec_memory_reservation_limit_bytes",
        "Memory reservation limit for the container.",
        One(|of| limit(of, |own| own.memory_low_bytes)),
    ),
    setting(
        "container_spec_memory_swap_limit_bytes",
        "Memory swap limit for the container.",
        One(|of| limit(of, |own| own.memory_swap_bytes.or(own.memory_limit_bytes))),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{IoUsage, Stall};

    fn told(of: &Subject) -> Vec<String> {
        let line = |family: &Family, sample: Sample| {
            let labels = family.labels().iter().zip(&sample.labels).map(|(name, value)| format!("{name}={value} "));
            format!("{} {}{}", family.name, labels.collect::<String>(), sample.value)
        };
        families().iter().flat_map(|family| family.samples(of).into_iter().map(|own| line(family, own))).collect()
    }

    #[test]
    fn what_is_not_known_has_no_sample() {
        assert_eq!(told(&Subject::default()), Vec::<String>::new());
    }

    #[test]
    fn names_are_told_once_and_every_sample_has_the_labels_of_its_family() {
        let names: Vec<_> = families().iter().map(|family| family.name).collect();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        let usage = Usage {
            page_faults: Some(1),
            cpu_nanoseconds: Some(1),
            disks: vec![DiskUsage::default()],
            interfaces: vec![InterfaceUsage { rx_packets: Some(1), ..InterfaceUsage::default() }],
            ..Usage::default()
        };
        let file_systems = vec![FileSystem { used_bytes: Some(1), ..FileSystem::default() }];
        let of = Subject { usage, file_systems, ..Subject::default() };
        for family in families() {
            assert!(family.samples(&of).iter().all(|own| own.labels.len() == family.labels().len()), "{}", family.name);
        }
    }

    #[test]
    fn times_are_in_seconds_and_limits_that_are_none_are_zero() {
        let stall = |total| Stall { total, ..Stall::default() };
        let usage = Usage {
            cpu_nanoseconds: Some(1_500_000_000),
            cpu_pressure: Some(Pressure { some: stall(2_000_001), full: stall(3) }),
            throttling: Some(Throttling { periods: 4, throttled_periods: 2, throttled_nanoseconds: 250_000_000 }),
            page_faults: Some(9),
            disks: vec![DiskUsage {
                major: 8,
                minor: 1,
                device: "/dev/sda1".to_owned(),
                io: IoUsage { read_bytes: 5, write_bytes: 6, reads: 7, writes: 8 },
            }],
            ..Usage::default()
        };
        let limits = Resources { cpu_quota_us: Some(50_000), cpu_shares: Some(2), ..Resources::default() };
        let of = Subject { usage, limits: Some(limits), ..Subject::default() };
        let wanted = [
            "container_blkio_device_usage_total device=/dev/sda1 major=8 minor=1 operation=Read 5",
            "container_blkio_device_usage_total device=/dev/sda1 major=8 minor=1 operation=Write 6",
            "container_cpu_cfs_periods_total 4",
            "container_cpu_cfs_throttled_periods_total 2",
            "container_cpu_cfs_throttled_seconds_total 0.25",
            "container_cpu_usage_seconds_total cpu=total 1.5",
            "container_fs_reads_bytes_total device=/dev/sda1 5",
            "container_fs_reads_total device=/dev/sda1 7",
            "container_fs_writes_bytes_total device=/dev/sda1 6",
            "container_fs_writes_total device=/dev/sda1 8",
            "container_memory_failures_total failure_type=pgfault scope=container 9",
            "container_memory_failures_total failure_type=pgfault scope=hierarchy 9",
            "container_pressure_cpu_stalled_seconds_total 0.000003",
            "container_pressure_cpu_waiting_seconds_total 2.000001",
            "container_spec_cpu_period 100000",
            "container_spec_cpu_quota 50000",
            "container_spec_cpu_shares 2",
            "container_spec_memory_limit_bytes 0",
            "container_spec_memory_reservation_limit_bytes 0",
            "container_spec_memory_swap_limit_bytes 0",
        ];
        assert_eq!(told(&of), wanted);
        let unbounded = Subject { limits: Some(Resources::default()), ..of };
        assert!(!told(&unbounded).iter().any(|line| line.contains("_cfs_") || line.contains("quota")), "no quota");
        assert_eq!(Value::Nanoseconds(2_999_999_999).whole(), 2);
    }
}
