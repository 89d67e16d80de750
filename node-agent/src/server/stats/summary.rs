//! The summary, as `kubectl get --raw /api/v1/nodes/NAME/proxy/stats/summary` shows it.

use jiff::Timestamp;
use reeve_engine::engine::Usage;
use serde_json::{Map, Value, json};

use super::{Backend, Measured, Seen, machine};
use crate::node::machine::{disk, pids};

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
    json!({
        "node": {
            "nodeName": config.node_name,
            "startTime": second(started),
            "cpu": cpu(now, Some(whole.cpu_nanoseconds), rate),
            "memory": memory,
            "fs": fs,
            "runtime": { "imageFs": fs, "containerFs": fs },
            "rlimit": { "time": time, "maxpid": pid_max, "curproc": pids },
        },
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

fn cpu(now: Timestamp, nanoseconds: Option<u64>, rate: Option<u64>) -> Value {
    let mut cpu = Map::new();
    cpu.insert("time".to_owned(), second(now).into());
    put(&mut cpu, "usageNanoCores", rate);
    put(&mut cpu, "usageCoreNanoSeconds", nanoseconds);
    Value::Object(cpu)
}

fn memory(now: Timestamp, usage: &Usage) -> Value {
    let mut memory = Map::new();
    memory.insert("time".to_owned(), second(now).into());
    put(&mut memory, "usageBytes", usage.memory_bytes);
    put(&mut memory, "workingSetBytes", usage.working_set_bytes);
    put(&mut memory, "rssBytes", usage.rss_bytes);
    put(&mut memory, "pageFaults", usage.page_faults);
    put(&mut memory, "majorPageFaults", usage.major_page_faults);
    Value::Object(memory)
}

fn of_pod(measured: &Measured, seen: &Seen, now: Timestamp) -> Value {
    let (meta, status) = (&measured.pod.metadata, measured.pod.status.as_ref());
    let (mut containers, mut total, mut total_rate) = (Vec::new(), Usage::default(), None);
    for container in &measured.containers {
        let used = &container.usage;
        let rate = used.cpu_nanoseconds.and_then(|time| seen.rate(&container.id, now, time));
        total_rate = sum(total_rate, rate);
        total = added(&total, used);
        containers.push(json!({
            "name": container.name, "startTime": second(container.started_at),
            "cpu": cpu(now, used.cpu_nanoseconds, rate), "memory": memory(now, used),
        }));
    }
    let started = status.and_then(|status| status.start_time.as_ref()).map(|time| second(time.0));
    json!({
        "podRef": { "name": meta.name, "namespace": meta.namespace, "uid": meta.uid },
        "startTime": started,
        "containers": containers,
        "cpu": cpu(now, total.cpu_nanoseconds, total_rate),
        "memory": memory(now, &total),
        "process_stats": { "process_count": total.processes.unwrap_or(0) },
    })
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

/// Two usages as one.
pub(super) fn added(a: &Usage, b: &Usage) -> Usage {
    Usage {
        cpu_nanoseconds: sum(a.cpu_nanoseconds, b.cpu_nanoseconds),
        memory_bytes: sum(a.memory_bytes, b.memory_bytes),
        working_set_bytes: sum(a.working_set_bytes, b.working_set_bytes),
        rss_bytes: sum(a.rss_bytes, b.rss_bytes),
        page_faults: sum(a.page_faults, b.page_faults),
        major_page_faults: sum(a.major_page_faults, b.major_page_faults),
        processes: sum(a.processes, b.processes),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::MeasuredContainer;
    use super::*;

    #[test]
    fn a_pod_uses_what_its_containers_use_together() {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let used = |cpu, memory| Usage { cpu_nanoseconds: Some(cpu), memory_bytes: Some(memory), ..Usage::default() };
        let container =
            |name: &str, usage| MeasuredContainer { id: name.to_owned(), name: name.to_owned(), started_at: at, usage };
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}})).unwrap();
        let containers = vec![container("a", used(5, 100)), container("b", used(7, 200))];
        let summary = of_pod(&Measured { pod: Arc::new(pod), containers }, &Seen::default(), at);
        assert_eq!(summary["podRef"], json!({"name": "p", "namespace": "n", "uid": "u"}));
        assert_eq!(summary["cpu"], json!({"time": "2023-11-14T22:13:20Z", "usageCoreNanoSeconds": 12}));
        assert_eq!(summary["memory"]["usageBytes"], 300);
        assert_eq!(summary["containers"][1]["memory"], json!({"time": "2023-11-14T22:13:20Z", "usageBytes": 200}));
    }
}
