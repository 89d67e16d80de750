//! What containers and pods use.

use reeve_engine::engine::{FsUsage, InterfaceUsage, Pressure, Stall, Usage};
use reeve_proto::cri::{
    ContainerStats, CpuUsage, FilesystemIdentifier, FilesystemUsage, IoUsage, LinuxPodSandboxStats, MemoryUsage,
    NetworkInterfaceUsage, NetworkUsage, ProcessUsage, PsiData, PsiStats, SwapUsage, UInt64Value,
};

/// The interface that counts as the pod's own.
const DEFAULT: &str = "eth0";

/// A number that may not be known.
#[must_use]
pub fn number(value: Option<u64>) -> Option<UInt64Value> {
    value.map(|value| UInt64Value { value })
}

/// CPU time, and the rate of late.
#[must_use]
pub fn cpu(usage: &Usage, now: i64, rate: Option<u64>) -> CpuUsage {
    CpuUsage {
        timestamp: now,
        usage_core_nano_seconds: number(usage.cpu_nanoseconds),
        usage_nano_cores: number(rate),
        psi: usage.cpu_pressure.map(psi),
    }
}

/// Memory, with what is left of the limit.
#[must_use]
pub fn memory(usage: &Usage, now: i64, limit: Option<i64>) -> MemoryUsage {
    let limit = limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
    let left = limit.zip(usage.working_set_bytes).map(|(limit, used)| limit.saturating_sub(used));
    MemoryUsage {
        timestamp: now,
        working_set_bytes: number(usage.working_set_bytes),
        available_bytes: number(left),
        usage_bytes: number(usage.memory_bytes),
        rss_bytes: number(usage.rss_bytes),
        page_faults: number(usage.page_faults),
        major_page_faults: number(usage.major_page_faults),
        psi: usage.memory_pressure.map(psi),
    }
}

/// Time lost waiting for disks; `None` where the kernel does not count it.
#[must_use]
pub fn io(usage: &Usage, now: i64) -> Option<IoUsage> {
    usage.io_pressure.map(|pressure| IoUsage { timestamp: now, psi: Some(psi(pressure)) })
}

fn psi(pressure: Pressure) -> PsiStats {
    let data =
        |stall: Stall| PsiData { total: stall.total, avg10: stall.avg10, avg60: stall.avg60, avg300: stall.avg300 };
    PsiStats { full: Some(data(pressure.full)), some: Some(data(pressure.some)) }
}

/// A pod's traffic; `None` on the node's network.
#[must_use]
pub fn network(usage: &Usage, now: i64) -> Option<NetworkUsage> {
    let of = |own: &InterfaceUsage| NetworkInterfaceUsage {
        name: own.name.clone(),
        rx_bytes: number(Some(own.rx_bytes)),
        rx_errors: number(Some(own.rx_errors)),
        tx_bytes: number(Some(own.tx_bytes)),
        tx_errors: number(Some(own.tx_errors)),
    };
    let (default, others): (Vec<_>, Vec<_>) = usage.interfaces.iter().map(of).partition(|own| own.name == DEFAULT);
    (!usage.interfaces.is_empty()).then(|| NetworkUsage {
        timestamp: now,
        default_interface: default.into_iter().next(),
        interfaces: others,
    })
}

/// Processes and threads.
#[must_use]
pub fn processes(usage: &Usage, now: i64) -> ProcessUsage {
    ProcessUsage { timestamp: now, process_count: number(usage.processes) }
}

/// Swap; without a word of the kernel's there is none.
#[must_use]
pub fn swap(usage: &Usage, now: i64) -> SwapUsage {
    let used = number(Some(usage.swap_bytes.unwrap_or(0)));
    SwapUsage { timestamp: now, swap_available_bytes: number(Some(0)), swap_usage_bytes: used }
}

/// A folder on disk.
#[must_use]
pub fn folder(usage: &FsUsage, now: i64) -> FilesystemUsage {
    FilesystemUsage {
        timestamp: now,
        fs_id: Some(FilesystemIdentifier { mountpoint: usage.path.to_string_lossy().into_owned() }),
        used_bytes: number(Some(usage.used_bytes)),
        inodes_used: number(Some(usage.inodes)),
    }
}

/// What another runtime says that a container uses.
#[must_use]
pub fn of_container(given: &ContainerStats) -> Usage {
    let used = to_engine(given.cpu.as_ref(), given.memory.as_ref());
    let swap = given.swap.as_ref().and_then(|swap| swap.swap_usage_bytes);
    Usage { swap_bytes: swap.map(|swap| swap.value), io_pressure: io_pressure(given.io.as_ref()), ..used }
}

/// What another runtime says that a pod uses.
#[must_use]
pub fn of_pod(given: &LinuxPodSandboxStats) -> Usage {
    let number = |value: Option<UInt64Value>| value.map(|value| value.value).unwrap_or_default();
    let network = given.network.as_ref();
    let interfaces = network.into_iter().flat_map(|own| own.default_interface.iter().chain(&own.interfaces));
    let interfaces = interfaces.map(|own| InterfaceUsage {
        name: own.name.clone(),
        rx_bytes: number(own.rx_bytes),
        rx_errors: number(own.rx_errors),
        tx_bytes: number(own.tx_bytes),
        tx_errors: number(own.tx_errors),
        ..InterfaceUsage::default()
    });
    Usage {
        processes: given.process.as_ref().and_then(|own| own.process_count).map(|count| count.value),
        io_pressure: io_pressure(given.io.as_ref()),
        interfaces: interfaces.collect(),
        ..to_engine(given.cpu.as_ref(), given.memory.as_ref())
    }
}

fn to_engine(cpu: Option<&CpuUsage>, memory: Option<&MemoryUsage>) -> Usage {
    let read = |value: Option<UInt64Value>| value.map(|value| value.value);
    Usage {
        cpu_nanoseconds: cpu.and_then(|cpu| read(cpu.usage_core_nano_seconds)),
        memory_bytes: memory.and_then(|memory| read(memory.usage_bytes)),
        working_set_bytes: memory.and_then(|memory| read(memory.working_set_bytes)),
        rss_bytes: memory.and_then(|memory| read(memory.rss_bytes)),
        page_faults: memory.and_then(|memory| read(memory.page_faults)),
        major_page_faults: memory.and_then(|memory| read(memory.major_page_faults)),
        cpu_pressure: cpu.and_then(|cpu| cpu.psi.as_ref()).map(pressure),
        memory_pressure: memory.and_then(|memory| memory.psi.as_ref()).map(pressure),
        ..Usage::default()
    }
}

fn io_pressure(io: Option<&IoUsage>) -> Option<Pressure> {
    io.and_then(|io| io.psi.as_ref()).map(pressure)
}

fn pressure(psi: &PsiStats) -> Pressure {
    let stall = |data: Option<&PsiData>| {
        let data = data.copied().unwrap_or_default();
        Stall { total: data.total, avg10: data.avg10, avg60: data.avg60, avg300: data.avg300 }
    };
    Pressure { some: stall(psi.some.as_ref()), full: stall(psi.full.as_ref()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_counted_is_left_out_and_what_is_left_of_a_limit_is_told() {
        let used = Usage { working_set_bytes: Some(30), cpu_nanoseconds: Some(7), ..Usage::default() };
        let (cpu, memory) = (cpu(&used, 1, None), memory(&used, 1, Some(100)));
        assert_eq!((memory.available_bytes, memory.rss_bytes, memory.psi), (number(Some(70)), None, None));
        assert_eq!((network(&used, 1), io(&used, 1)), (None, None));
        let told = ContainerStats { cpu: Some(cpu), memory: Some(memory), ..ContainerStats::default() };
        assert_eq!(of_container(&told), used);
    }

    #[test]
    fn what_a_pod_uses_survives_both_ways() {
        let stall = |total| Stall { total, avg10: 0.5, avg60: 0.25, avg300: 1.0 };
        let lost = |total| Some(Pressure { some: stall(total), full: stall(total + 1) });
        let interface = |name: &str, rx_bytes| InterfaceUsage {
            name: name.to_owned(),
            rx_bytes,
            tx_errors: 3,
            ..InterfaceUsage::default()
        };
        let used = Usage {
            cpu_nanoseconds: Some(7),
            processes: Some(2),
            cpu_pressure: lost(1),
            memory_pressure: lost(3),
            io_pressure: lost(5),
            interfaces: vec![interface(DEFAULT, 9), interface("eth1", 8)],
            ..Usage::default()
        };
        let told = LinuxPodSandboxStats {
            cpu: Some(cpu(&used, 1, None)),
            memory: Some(memory(&used, 1, None)),
            network: network(&used, 1),
            process: Some(processes(&used, 1)),
            io: io(&used, 1),
            ..LinuxPodSandboxStats::default()
        };
        assert_eq!(told.network.as_ref().unwrap().interfaces.len(), 1);
        assert_eq!(of_pod(&told), used);
    }
}
