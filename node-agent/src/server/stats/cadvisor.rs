//! `/metrics/cadvisor`: what containers, pods and the node use, as a kubelet with cAdvisor tells it. Pure but for
//! [`Node::look`].
//!
//! The node is the group `/`; a pod is its group, without a container's name; a container is its own. A pod's traffic
//! is its sandbox's, which has no name of a container either. Source: kubelet `containerPrometheusLabelsFunc`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use reeve_engine::engine::{FileSystem, ProcessUsage, Usage};
use reeve_engine::metrics::{Family, Kind, LABELS, Subject, families};
use reeve_engine::runtime::{disks, interfaces};

use super::machine::{self, Machine};
use super::metrics::quoted;
use super::{Measured, MeasuredContainer};
use crate::config::NodeConfig;
use crate::node::machine::{Capacity, System, system};
use crate::pod::resources::cgroup;

/// What the node is.
#[derive(Debug, Clone, Default)]
pub(super) struct Node {
    system: System,
    machine: Machine,
    capacity: Capacity,
    file_system: FileSystem,
    usage: Usage,
    physical_cores: usize,
    sockets: usize,
}

impl Node {
    /// Looks at the machine.
    pub(super) fn look(config: &NodeConfig, capacity: &Capacity) -> Self {
        let machine = machine::look();
        // What is made for pods is not the node's own.
        let of_pods = |name: &str| name.starts_with(&config.link_prefix) && name != config.node_link();
        let mut interfaces = interfaces::read(Path::new("/proc/thread-self/ns/net")).unwrap_or_default();
        interfaces.retain(|own| !of_pods(&own.name) && !own.name.starts_with("veth"));
        let (physical_cores, sockets) = processors(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
        Self {
            system: system(),
            usage: Usage { interfaces, ..of_machine(&machine) },
            machine,
            capacity: capacity.clone(),
            file_system: disks::file_system(&config.data_dir),
            physical_cores,
            sockets,
        }
    }
}

/// Cores and sockets; of a machine that does not tell, none. Source: proc_cpuinfo(5).
fn processors(cpuinfo: &str) -> (usize, usize) {
    let value = |block: &str, name: &str| {
        let line = block.lines().find(|line| line.split(':').next().is_some_and(|own| own.trim() == name))?;
        line.split_once(':')?.1.trim().parse::<u32>().ok()
    };
    let of = |block: &str| Some((value(block, "physical id")?, value(block, "core id")?));
    let cores: BTreeSet<(u32, u32)> = cpuinfo.split("\n\n").filter_map(of).collect();
    let sockets: BTreeSet<u32> = cores.iter().map(|(socket, _)| *socket).collect();
    (cores.len(), sockets.len())
}

fn of_machine(machine: &Machine) -> Usage {
    Usage {
        cpu_nanoseconds: Some(machine.cpu_nanoseconds),
        cpu_user_nanoseconds: Some(machine.cpu_user_nanoseconds),
        cpu_system_nanoseconds: Some(machine.cpu_nanoseconds.saturating_sub(machine.cpu_user_nanoseconds)),
        memory_bytes: Some(machine.memory_bytes),
        working_set_bytes: Some(machine.working_set_bytes),
        rss_bytes: Some(machine.rss_bytes),
        cpu_pressure: machine.cpu_pressure,
        memory_pressure: machine.memory_pressure,
        io_pressure: machine.io_pressure,
        ..Usage::default()
    }
}

/// Values of [`LABELS`], and what is told under them.
type Row = ([String; LABELS.len()], Subject);

fn rows(node: &Node, pods: &[Measured], now: Timestamp) -> Vec<Row> {
    let whole = Subject {
        usage: node.usage.clone(),
        started_at: Timestamp::from_second(node.machine.started_at).ok(),
        seen_at: Some(now),
        file_systems: vec![node.file_system.clone()],
        ..Subject::default()
    };
    let of_node = ["", "/", "", "", "", ""].map(str::to_owned);
    let mut rows = vec![(of_node, whole)];
    for pod in pods {
        let group = format!("/{}", cgroup(&pod.pod));
        rows.extend(of_pod(pod, &group, now));
        rows.extend(pod.containers.iter().map(|own| of_container(own, pod, &group, now)));
    }
    rows
}

fn labels(pod: &Measured, container: &str, id: String, image: &str, name: &str) -> [String; LABELS.len()] {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let meta = &pod.pod.metadata;
    [container.to_owned(), id, image.to_owned(), name.to_owned(), text(&meta.namespace), text(&meta.name)]
}

/// The pod's group, and the sandbox, which has the traffic.
fn of_pod(pod: &Measured, group: &str, now: Timestamp) -> Vec<Row> {
    let Some(sandbox) = &pod.sandbox else { return Vec::new() };
    let mut usage = pod.whole();
    let interfaces = std::mem::take(&mut usage.interfaces);
    let counted = pod.containers.iter().filter_map(|own| own.processes);
    let whole = Subject {
        usage,
        processes: counted.reduce(|sum, own| ProcessUsage {
            processes: sum.processes + own.processes,
            file_descriptors: sum.file_descriptors + own.file_descriptors,
            sockets: sum.sockets + own.sockets,
        }),
        limits: Some(pod.limits.clone()),
        created_at: pod.created_at,
        started_at: pod.created_at,
        seen_at: Some(now),
        file_systems: Vec::new(),
    };
    let traffic = Subject { usage: Usage { interfaces, ..Usage::default() }, ..Subject::default() };
    let own = labels(pod, "", group.to_owned(), "", "");
    let of_sandbox = labels(pod, "", format!("{group}/{sandbox}"), "", sandbox);
    vec![(own, whole), (of_sandbox, traffic)]
}

fn of_container(own: &MeasuredContainer, pod: &Measured, group: &str, now: Timestamp) -> Row {
    let subject = Subject {
        usage: own.usage.clone(),
        processes: own.processes,
        limits: Some(own.limits.clone()),
        created_at: Some(own.created_at),
        started_at: Some(own.started_at),
        seen_at: Some(now),
        file_systems: Vec::new(),
    };
    (labels(pod, &own.name, format!("{group}/{}", own.id), &own.image, &own.id), subject)
}

/// Everything, in Prometheus' text form; without pods, that they could not be looked at.
pub(super) fn of(node: &Node, pods: Option<&[Measured]>, now: Timestamp) -> String {
    let rows = rows(node, pods.unwrap_or_default(), now);
    let mut out = String::new();
    version(&mut out, &node.system);
    for own in families() {
        tell(&mut out, &own, &rows, now);
    }
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    head(&mut out, "container_scrape_error", Kind::Gauge, help);
    let _ = writeln!(out, "container_scrape_error {}", u8::from(pods.is_none()));
    machine_metrics(&mut out, node, now);
    out
}

fn head(out: &mut String, name: &str, kind: Kind, help: &str) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    // Writing to a string does not fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

fn tell(out: &mut String, family: &Family, rows: &[Row], now: Timestamp) {
    let stamp = if family.is_measured { format!(" {}", now.as_millisecond()) } else { String::new() };
    let mut is_told = false;
    for (own, subject) in rows {
        for sample in family.samples(subject) {
            if !std::mem::replace(&mut is_told, true) {
                head(out, family.name, family.kind, family.help);
            }
            let names = LABELS.iter().chain(family.labels());
            let mut all: Vec<_> = names.zip(own.iter().chain(&sample.labels)).collect();
            all.sort();
            let all: Vec<_> = all.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
            let _ = writeln!(out, "{}{{{}}} {}{stamp}", family.name, all.join(","), sample.value);
        }
    }
}

/// There is no cAdvisor and no Docker here, so they have no version.
fn version(out: &mut String, system: &System) {
    let name = "cadvisor_version_info";
    let help = "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor \
                version & cadvisor revision.";
    head(out, name, Kind::Gauge, help);
    let (kernel, os) = (quoted(&system.kernel), quoted(&system.os_image));
    let _ = writeln!(
        out,
        "{name}{{cadvisorRevision=\"\",cadvisorVersion=\"\",dockerVersion=\"\",kernelVersion=\"{kernel}\",\
         osVersion=\"{os}\"}} 1"
    );
}

fn machine_metrics(out: &mut String, node: &Node, now: Timestamp) {
    let of = &node.system;
    let all = [("boot_id", &of.boot_id), ("machine_id", &of.machine_id), ("system_uuid", &of.system_uuid)];
    let all = all.map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).join(",");
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    for (name, help, value) in [
        ("machine_cpu_cores", "Number of logical CPU cores.", node.capacity.cpu_milli / 1000),
        ("machine_cpu_physical_cores", "Number of physical CPU cores.", count(node.physical_cores)),
        ("machine_cpu_sockets", "Number of CPU sockets.", count(node.sockets)),
        ("machine_memory_bytes", "Amount of memory installed on the machine.", node.capacity.memory_bytes),
        ("machine_swap_bytes", "Amount of swap memory available on the machine.", node.machine.swap_bytes),
    ] {
        head(out, name, Kind::Gauge, help);
        let _ = writeln!(out, "{name}{{{all}}} {value} {}", now.as_millisecond());
    }
    let help = "1 if there was an error while getting machine metrics, 0 otherwise.";
    head(out, "machine_scrape_error", Kind::Gauge, help);
    out.push_str("machine_scrape_error 0\n");
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use reeve_engine::engine::{InterfaceUsage, Resources};
    use serde_json::json;

    use super::*;

    fn measured() -> Measured {
        let pod = json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": { "containers": [] } });
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let used = Usage { working_set_bytes: Some(4096), ..Usage::default() };
        let container = MeasuredContainer {
            id: "id1".to_owned(),
            name: "c".to_owned(),
            image: "docker.io/library/x:1".to_owned(),
            created_at: at,
            started_at: at,
            usage: used.clone(),
            limits: Resources { memory_limit_bytes: Some(8192), ..Resources::default() },
            processes: Some(ProcessUsage { processes: 2, file_descriptors: 5, sockets: 1 }),
        };
        let interface = InterfaceUsage { name: "eth0".to_owned(), rx_bytes: 7, ..InterfaceUsage::default() };
        Measured {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            sandbox: Some("s1".to_owned()),
            usage: Usage { working_set_bytes: Some(5000), interfaces: vec![interface], ..Usage::default() },
            containers: vec![container],
            created_at: Some(at),
            limits: Resources::default(),
        }
    }

    #[test]
    fn node_pods_and_containers_are_told_as_groups_under_the_kubelets_labels() {
        let node = Node { usage: of_machine(&Machine::default()), ..Node::default() };
        let now = Timestamp::from_second(1_700_000_009).unwrap();
        let text = of(&node, Some(&[measured()]), now);
        let group = "/kubepods/besteffort/podu";
        let of_container = format!(
            "container=\"c\",id=\"{group}/id1\",image=\"docker.io/library/x:1\",name=\"id1\",namespace=\"n\",pod=\"p\""
        );
        let of_pod = format!("container=\"\",id=\"{group}\",image=\"\",name=\"\",namespace=\"n\",pod=\"p\"");
        let of_node = "container=\"\",id=\"/\",image=\"\",name=\"\",namespace=\"\",pod=\"\"";
        let of_sandbox = format!(
            "container=\"\",id=\"{group}/s1\",image=\"\",interface=\"eth0\",name=\"s1\",namespace=\"n\",pod=\"p\""
        );
        for line in [
            format!("container_memory_working_set_bytes{{{of_container}}} 4096 1700000009000"),
            format!("container_memory_working_set_bytes{{{of_pod}}} 5000 1700000009000"),
            format!("container_memory_working_set_bytes{{{of_node}}} 0 1700000009000"),
            format!("container_network_receive_bytes_total{{{of_sandbox}}} 7 1700000009000"),
            format!("container_spec_memory_limit_bytes{{{of_container}}} 8192"),
            format!("container_spec_memory_limit_bytes{{{of_pod}}} 0"),
            format!("container_start_time_seconds{{{of_container}}} 1700000000"),
            format!("container_last_seen{{{of_container}}} 1700000009"),
            format!("container_processes{{{of_pod}}} 2 1700000009000"),
            "# TYPE container_memory_working_set_bytes gauge".to_owned(),
            "container_scrape_error 0".to_owned(),
            "machine_scrape_error 0".to_owned(),
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("container_memory_rss{container=\"c\""), "what is not counted is not told");
        let heads: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        assert_eq!(heads.iter().collect::<BTreeSet<_>>().len(), heads.len(), "every name once");
        assert!(of(&node, None, now).contains("container_scrape_error 1\n"));
    }

    #[test]
    fn threads_of_one_core_are_one_core() {
        let block =
            |socket: u32, core: u32| format!("processor\t: 9\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n");
        let text: String = [(0, 0), (0, 0), (0, 1), (1, 0)].map(|(socket, core)| block(socket, core)).concat();
        assert_eq!(processors(&text), (3, 2));
        assert_eq!(processors("processor\t: 0\nBogoMIPS\t: 50\n"), (0, 0), "not every machine tells");
    }
}
