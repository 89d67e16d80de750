//! The summary, as `kubectl get --raw /api/v1/nodes/NAME/proxy/stats/summary` shows it.

use jiff::Timestamp;
use reeve_engine::engine::{InterfaceUsage, Pressure, Stall, Usage};
use serde_json::{Map, Value, json};

use super::{Backend, Measured, MeasuredContainer, Seen, machine};
use crate::node::machine::{disk, pids};

/// The interface that counts as the pod's own.
const DEFAULT_INTERFACE: &str = "eth0";

/// All that is known.
pub(super) fn of(backend: &Backend, pods: &[Measured], now: Timestamp) -> Value {
    let (whole, config) = (machine::look(), &backend.node.config);
    let (capacity, available) = disk(&config.data_dir);
    let (pid_max, pids) = pids();
    let rate = backend.seen.rate("", now, whole.cpu_nanoseconds);
    let time = second(now);
    let fs = json!({
        "time": time, "availableBytes": available, "capacityBytes": capacity,
        "usedBytes": capacity.saturating_sub(available),
    });
    let memory = json!({
        "time": time, "availableBytes": whole.available_bytes, "usageBytes": whole.memory_bytes,
        "workingSetBytes": whole.working_set_bytes, "rssBytes": whole.rss_bytes,
    });
    let started = Timestamp::from_second(whole.started_at).unwrap_or_default();
    let node = json!({
        "nodeName": config.node_name,
        "startTime": second(started),
        "cpu": cpu(now, Some(whole.cpu_nanoseconds), rate, whole.cpu_pressure),
        "memory": with(memory, "psi", whole.memory_pressure.map(psi)),
        "fs": fs,
        "runtime": { "imageFs": fs, "containerFs": fs },
        "rlimit": { "time": time, "maxpid": pid_max, "curproc": pids },
    });
    json!({
        "node": with(node, "io", io(now, whole.io_pressure)),
        "pods": pods.iter().map(|pod| of_pod(pod, &backend.seen, now)).collect::<Vec<_>>(),
    })
}

/// Kubernetes' times: whole seconds.
fn second(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}

fn put(map: &mut Map<String, Value>, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        map.insert(name.to_owned(), value.into());
    }
}

/// An object with one more field, if there is one.
fn with(mut object: Value, name: &str, value: Option<Value>) -> Value {
    if let (Some(map), Some(value)) = (object.as_object_mut(), value) {
        map.insert(name.to_owned(), value);
    }
    object
}

/// Totals are the kernel's microseconds, as the kubelet shows them whatever its documentation says.
fn psi(pressure: Pressure) -> Value {
    let stall =
        |own: Stall| json!({ "total": own.total, "avg10": own.avg10, "avg60": own.avg60, "avg300": own.avg300 });
    json!({ "full": stall(pressure.full), "some": stall(pressure.some) })
}

fn io(now: Timestamp, pressure: Option<Pressure>) -> Option<Value> {
    pressure.map(|pressure| json!({ "time": second(now), "psi": psi(pressure) }))
}

fn swap(now: Timestamp, used: Option<u64>) -> Option<Value> {
    used.map(|used| json!({ "time": second(now), "swapUsageBytes": used }))
}

/// The pod's own interface in front, as the kubelet does; `None` on the node's network.
fn network(now: Timestamp, interfaces: &[InterfaceUsage]) -> Option<Value> {
    let of = |own: &InterfaceUsage| {
        json!({
            "name": own.name, "rxBytes": own.rx_bytes, "rxErrors": own.rx_errors,
            "txBytes": own.tx_bytes, "txErrors": own.tx_errors,
        })
    };
    if interfaces.is_empty() {
        return None;
    }
    let default = interfaces.iter().find(|own| own.name == DEFAULT_INTERFACE);
    let network = default.map_or_else(|| json!({ "name": "" }), of);
    let all: Vec<Value> = interfaces.iter().map(of).collect();
    Some(with(with(network, "time", Some(second(now).into())), "interfaces", Some(all.into())))
}

fn cpu(now: Timestamp, nanoseconds: Option<u64>, rate: Option<u64>, pressure: Option<Pressure>) -> Value {
    let mut cpu = Map::new();
    cpu.insert("time".to_owned(), second(now).into());
    put(&mut cpu, "usageNanoCores", rate);
    put(&mut cpu, "usageCoreNanoSeconds", nanoseconds);
    with(Value::Object(cpu), "psi", pressure.map(psi))
}

fn memory(now: Timestamp, usage: &Usage) -> Value {
    let mut memory = Map::new();
    memory.insert("time".to_owned(), second(now).into());
    put(&mut memory, "usageBytes", usage.memory_bytes);
    put(&mut memory, "workingSetBytes", usage.working_set_bytes);
    put(&mut memory, "rssBytes", usage.rss_bytes);
    put(&mut memory, "pageFaults", usage.page_faults);
    put(&mut memory, "majorPageFaults", usage.major_page_faults);
    with(Value::Object(memory), "psi", usage.memory_pressure.map(psi))
}

fn of_container(container: &MeasuredContainer, seen: &Seen, now: Timestamp) -> Value {
    let used = &container.usage;
    let rate = used.cpu_nanoseconds.and_then(|time| seen.rate(&container.id, now, time));
    let told = json!({
        "name": container.name, "startTime": second(container.started_at),
        "cpu": cpu(now, used.cpu_nanoseconds, rate, used.cpu_pressure), "memory": memory(now, used),
    });
    with(with(told, "io", io(now, used.io_pressure)), "swap", swap(now, used.swap_bytes))
}

fn of_pod(measured: &Measured, seen: &Seen, now: Timestamp) -> Value {
    let (meta, status) = (&measured.pod.metadata, measured.pod.status.as_ref());
    let containers: Vec<Value> = measured.containers.iter().map(|own| of_container(own, seen, now)).collect();
    let whole = measured.whole();
    let rate = measured.sandbox.as_ref().zip(whole.cpu_nanoseconds);
    let rate = rate.and_then(|(sandbox, time)| seen.rate(sandbox, now, time));
    let started = status.and_then(|status| status.start_time.as_ref()).map(|time| second(time.0));
    let told = json!({
        "podRef": { "name": meta.name, "namespace": meta.namespace, "uid": meta.uid },
        "startTime": started,
        "containers": containers,
        "cpu": cpu(now, whole.cpu_nanoseconds, rate, whole.cpu_pressure),
        "memory": memory(now, &whole),
        "process_stats": { "process_count": whole.processes.unwrap_or(0) },
    });
    let told = with(with(told, "io", io(now, whole.io_pressure)), "swap", swap(now, whole.swap_bytes));
    with(told, "network", network(now, &whole.interfaces))
}

impl Measured {
    /// What the pod uses: its own group's count, which a runtime may not have, else its containers' together.
    pub(super) fn whole(&self) -> Usage {
        let containers = self.containers.iter().fold(Usage::default(), |sum, own| added(&sum, &own.usage));
        let own = self.usage.clone();
        Usage {
            cpu_nanoseconds: own.cpu_nanoseconds.or(containers.cpu_nanoseconds),
            memory_bytes: own.memory_bytes.or(containers.memory_bytes),
            working_set_bytes: own.working_set_bytes.or(containers.working_set_bytes),
            rss_bytes: own.rss_bytes.or(containers.rss_bytes),
            page_faults: own.page_faults.or(containers.page_faults),
            major_page_faults: own.major_page_faults.or(containers.major_page_faults),
            swap_bytes: own.swap_bytes.or(containers.swap_bytes),
            processes: own.processes.or(containers.processes),
            ..own
        }
    }
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

/// Two usages as one, as far as they can be added.
fn added(a: &Usage, b: &Usage) -> Usage {
    Usage {
        cpu_nanoseconds: sum(a.cpu_nanoseconds, b.cpu_nanoseconds),
        memory_bytes: sum(a.memory_bytes, b.memory_bytes),
        working_set_bytes: sum(a.working_set_bytes, b.working_set_bytes),
        rss_bytes: sum(a.rss_bytes, b.rss_bytes),
        page_faults: sum(a.page_faults, b.page_faults),
        major_page_faults: sum(a.major_page_faults, b.major_page_faults),
        swap_bytes: sum(a.swap_bytes, b.swap_bytes),
        processes: sum(a.processes, b.processes),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at() -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }

    fn told(usage: Usage, containers: Vec<Usage>) -> Value {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}})).unwrap();
        let containers = containers.into_iter().enumerate().map(|(index, usage)| MeasuredContainer {
            id: index.to_string(),
            name: index.to_string(),
            started_at: at(),
            usage,
            ..MeasuredContainer::default()
        });
        let containers = containers.collect();
        let sandbox = Some("s".to_owned());
        let measured = Measured { pod: Arc::new(pod), sandbox, usage, containers, ..Measured::default() };
        of_pod(&measured, &Seen::default(), at())
    }

    #[test]
    fn a_pod_uses_what_its_group_counts_or_else_its_containers_together() {
        let used = |cpu, memory| Usage { cpu_nanoseconds: Some(cpu), memory_bytes: Some(memory), ..Usage::default() };
        let containers = vec![used(5, 100), used(7, 200)];
        let summary = told(Usage::default(), containers.clone());
        assert_eq!(summary["podRef"], json!({"name": "p", "namespace": "n", "uid": "u"}));
        assert_eq!(summary["cpu"], json!({"time": "2023-11-14T22:13:20Z", "usageCoreNanoSeconds": 12}));
        assert_eq!(summary["memory"]["usageBytes"], 300);
        assert_eq!(summary["containers"][1]["memory"], json!({"time": "2023-11-14T22:13:20Z", "usageBytes": 200}));
        let summary = told(used(20, 400), containers);
        assert_eq!(
            (&summary["cpu"]["usageCoreNanoSeconds"], &summary["memory"]["usageBytes"]),
            (&json!(20), &json!(400))
        );
        for left_out in ["network", "io", "swap"] {
            assert_eq!(summary.get(left_out), None, "{left_out} is not counted");
        }
    }

    #[test]
    fn lost_time_and_traffic_are_told_under_the_kubelets_names() {
        let lost = Pressure { some: Stall { total: 7, avg10: 1.5, avg60: 0.5, avg300: 0.25 }, full: Stall::default() };
        let interface = |name: &str, rx_bytes| InterfaceUsage { name: name.to_owned(), rx_bytes, ..Default::default() };
        let usage = Usage {
            cpu_pressure: Some(lost),
            memory_pressure: Some(lost),
            io_pressure: Some(lost),
            interfaces: vec![interface("eth1", 1), interface("eth0", 2)],
            ..Usage::default()
        };
        let summary = told(usage.clone(), vec![usage]);
        let psi = json!({
            "some": {"total": 7, "avg10": 1.5, "avg60": 0.5, "avg300": 0.25},
            "full": {"total": 0, "avg10": 0.0, "avg60": 0.0, "avg300": 0.0},
        });
        for whose in [&summary, &summary["containers"][0]] {
            for what in ["cpu", "memory", "io"] {
                assert_eq!(whose[what]["psi"], psi, "{what}");
            }
        }
        let network = &summary["network"];
        assert_eq!((&network["name"], &network["rxBytes"]), (&json!("eth0"), &json!(2)));
        assert_eq!(network["interfaces"].as_array().unwrap().len(), 2);
        assert_eq!(summary["containers"][0].get("network"), None, "traffic is the pod's");
    }
}
