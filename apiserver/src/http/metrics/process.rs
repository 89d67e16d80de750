//! What the kernel knows of this process, under the names that every Prometheus client gives it.
//!
//! Read from `/proc/self` when it is asked for; what cannot be read is left out.

use std::fs;

use super::text::{Page, number};

/// The kernel's clock ticks per second and bytes per page, as the ABI of all our platforms has them.
const TICKS: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

pub(super) fn write(page: &mut Page) {
    let stat = stat();
    let fields = fields(&stat);
    let field = |at: usize| fields.get(at).and_then(|text| text.trim().parse::<f64>().ok());
    // Fields 14 and 15 of proc_pid_stat(5), counted from the third.
    if let (Some(user), Some(system)) = (field(11), field(12)) {
        page.family("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.");
        page.sample("", "", number((user + system) / TICKS));
    }
    if let Some(open) = fs::read_dir("/proc/self/fd").ok().map(Iterator::count) {
        page.family("process_open_fds", "gauge", "Number of open file descriptors.");
        page.sample("", "", open);
    }
    if let Some(most) = descriptors_max() {
        page.family("process_max_fds", "gauge", "Maximum number of open file descriptors.");
        page.sample("", "", most);
    }
    if let Some(virtual_bytes) = field(20) {
        page.family("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.");
        page.sample("", "", number(virtual_bytes));
    }
    let resident = fields.get(21).and_then(|text| text.parse::<u64>().ok());
    if let Some(pages) = resident {
        page.family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.");
        page.sample("", "", pages * PAGE_BYTES);
    }
    if let Some(most) = address_space_max() {
        let help = "Maximum amount of virtual memory available in bytes.";
        page.family("process_virtual_memory_max_bytes", "gauge", help);
        page.sample("", "", number(most));
    }
    if let Some((received, sent)) = network_bytes() {
        let help = "Number of bytes received by the process over the network.";
        page.family("process_network_receive_bytes_total", "counter", help);
        page.sample("", "", number(received));
        let help = "Number of bytes sent by the process over the network.";
        page.family("process_network_transmit_bytes_total", "counter", help);
        page.sample("", "", number(sent));
    }
    if let Some(start) = start() {
        let help = "Start time of the process since unix epoch in seconds.";
        page.family("process_start_time_seconds", "gauge", help);
        page.sample("", "", number(start));
    }
}

/// When the process began, in seconds since 1970.
pub(crate) fn start() -> Option<f64> {
    let stat = stat();
    // Field 22 of proc_pid_stat(5), counted from the third.
    let ticks = fields(&stat).get(19)?.parse::<f64>().ok()?;
    Some(boot_seconds()? + ticks / TICKS)
}

fn stat() -> String {
    fs::read_to_string("/proc/self/stat").unwrap_or_default()
}

fn fields(stat: &str) -> Vec<&str> {
    // The name in parentheses may hold anything; what follows it are numbers.
    stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect()
}

fn descriptors_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What is not limited is told as Go does: as the largest number there is.
fn address_space_max() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(1.844_674_407_370_955_2e19),
        most => most.parse().ok(),
    }
}

/// Received and sent in the network namespace of the process, as every Prometheus client tells it.
fn network_bytes() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let of = |wanted: &str| {
        let mut pairs = names.split(' ').zip(values.split(' '));
        pairs.find(|(name, _)| *name == wanted).and_then(|(_, value)| value.trim().parse::<f64>().ok())
    };
    Some((of("InOctets")?, of("OutOctets")?))
}

fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}
