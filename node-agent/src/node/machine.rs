//! What the machine is: read from /proc and /sys.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::config::Reserved;

/// Where the kernel tells of its huge pages: a folder for each size.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// What the node has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) cpu_milli: u64,
    pub(crate) memory_bytes: u64,
    /// Of the file system that holds the pods.
    pub(crate) storage_bytes: u64,
    /// Bytes of huge pages by the bytes of one: every size the kernel has.
    pub(crate) huge_pages: BTreeMap<u64, u64>,
}

impl Capacity {
    /// Looks at the machine.
    pub(crate) fn of_machine(data_dir: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            cpu_milli: u64::try_from(cpus).unwrap_or(1).saturating_mul(1000),
            memory_bytes: memory().0,
            storage_bytes: disk(data_dir).0,
            huge_pages: huge_pages(Path::new(HUGE_PAGES)),
        }
    }

    /// What is left for pods. What huge pages take is no other memory. Source: kubelet `nodestatus.MachineInfo`.
    pub(crate) fn less(&self, reserved: &Reserved) -> Self {
        let in_huge_pages = self.huge_pages.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(reserved.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(reserved.memory_bytes).saturating_sub(in_huge_pages),
            storage_bytes: self.storage_bytes.saturating_sub(reserved.storage_bytes),
            huge_pages: self.huge_pages.clone(),
        }
    }
}

/// Bytes of huge pages by the bytes of one. Source: the kernel's document on hugetlbpage, `nr_hugepages`.
fn huge_pages(dir: &Path) -> BTreeMap<u64, u64> {
    let of = |folder: fs::DirEntry| {
        let name = folder.file_name();
        let size: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let number: u64 = fs::read_to_string(folder.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        let size = size.saturating_mul(1024);
        Some((size, size.saturating_mul(number)))
    };
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(of).collect()
}

/// Bytes of memory: all, and available without swapping (proc_meminfo(5)).
pub(crate) fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
        number.unwrap_or(0).saturating_mul(1024)
    };
    (field("MemTotal:"), field("MemAvailable:"))
}

/// Bytes of the file system at `path`: all, and free for us. Looks at the nearest folder that exists.
pub(crate) fn disk(path: &Path) -> (u64, u64) {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => (stat.f_blocks.saturating_mul(stat.f_frsize), stat.f_bavail.saturating_mul(stat.f_frsize)),
        Err(_) => (0, 0),
    }
}

/// Process ids: most there can be, and in use.
pub(crate) fn pids() -> (u64, u64) {
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let max = number("/proc/sys/kernel/pid_max").unwrap_or(0);
    // Fourth field: `running/all` scheduling entities (proc_loadavg(5)).
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let used = load.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)).and_then(|n| n.parse().ok());
    (max, used.unwrap_or(0))
}

/// What `node.status.nodeInfo` says of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
}

/// Reads what does not change while the machine is up.
pub(crate) fn system() -> System {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let machine_id = read("/etc/machine-id");
    let uuid = read("/sys/class/dmi/id/product_uuid");
    System {
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        kernel: read("/proc/sys/kernel/osrelease"),
        os_image: os_image(&read("/etc/os-release")),
    }
}

fn os_image(os_release: &str) -> String {
    let line = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The architecture as Go names it, in labels and image indexes.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_something_of_everything() {
        let capacity = Capacity::of_machine(Path::new("/nowhere/yet"));
        assert!(capacity.cpu_milli >= 1000 && capacity.memory_bytes > 1 << 20 && capacity.storage_bytes > 1 << 20);
        let (max, used) = pids();
        assert!(max > used && used > 0);
    }

    #[test]
    fn huge_pages_are_counted_by_their_size_and_are_not_there_for_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        for (folder, number) in [("hugepages-2048kB", "4\n"), ("hugepages-1048576kB", "0\n"), ("other", "7\n")] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("nr_hugepages"), number).unwrap();
        }
        let huge_pages = huge_pages(dir.path());
        assert_eq!(huge_pages, BTreeMap::from([(2 << 20, 8 << 20), (1 << 30, 0)]));
        let capacity = Capacity { memory_bytes: 100 << 20, huge_pages, ..Capacity::default() };
        let allocatable = capacity.less(&Reserved { memory_bytes: 10 << 20, ..Reserved::default() });
        assert_eq!(allocatable.memory_bytes, 82 << 20);
        assert_eq!(allocatable.huge_pages, capacity.huge_pages);
        let full = capacity.less(&Reserved { memory_bytes: 99 << 20, ..Reserved::default() });
        assert_eq!(full.memory_bytes, 0, "never less than nothing");
    }

    #[test]
    fn the_system_is_named_as_it_names_itself() {
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        assert_eq!(os_image(""), "Linux");
    }
}
