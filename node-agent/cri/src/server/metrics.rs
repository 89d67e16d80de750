//! cAdvisor's metrics of pods and containers, for a kubelet that takes them from the runtime.
//!
//! Only what the kernel counts and we read: who asks for the list of them (`ListMetricDescriptors`) sees what there is.

use reeve_proto::cri::{
    ContainerMetrics, ContainerStats, Metric, MetricDescriptor, MetricType, PodSandboxMetrics, PodSandboxStats,
    UInt64Value,
};

use super::Shared;
use super::error::Answer;

/// Labels of all metrics: the id, and the name of the container (`POD` for what is the pod's own).
const LABELS: [&str; 2] = ["id", "name"];
/// What is the pod's own, as cAdvisor names it.
const POD: &str = "POD";

/// A metric of containers: name, meaning, kind, and where its value is.
struct OfContainer {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: fn(&ContainerStats) -> Option<UInt64Value>,
}

/// A metric of pods; the last label is the interface.
struct OfPod {
    name: &'static str,
    help: &'static str,
    value: fn(&reeve_proto::cri::NetworkInterfaceUsage) -> Option<UInt64Value>,
}

const OF_CONTAINERS: [OfContainer; 8] = [
    OfContainer {
        name: "container_cpu_usage_seconds_total",
        help: "Cumulative cpu time consumed in seconds.",
        kind: MetricType::Counter,
        value: |own| {
            let used = own.cpu.as_ref()?.usage_core_nano_seconds?;
            Some(UInt64Value { value: used.value / 1_000_000_000 })
        },
    },
    OfContainer {
        name: "container_memory_usage_bytes",
        help: "Current memory usage in bytes, including all memory regardless of when it was accessed.",
        kind: MetricType::Gauge,
        value: |own| own.memory.as_ref()?.usage_bytes,
    },
    OfContainer {
        name: "container_memory_working_set_bytes",
        help: "Current working set in bytes.",
        kind: MetricType::Gauge,
        value: |own| own.memory.as_ref()?.working_set_bytes,
    },
    OfContainer {
        name: "container_memory_rss",
        help: "Size of RSS in bytes.",
        kind: MetricType::Gauge,
        value: |own| own.memory.as_ref()?.rss_bytes,
    },
    OfContainer {
        name: "container_memory_failures_total",
        help: "Cumulative count of memory allocation failures: page faults that had to read.",
        kind: MetricType::Counter,
        value: |own| own.memory.as_ref()?.major_page_faults,
    },
    OfContainer {
        name: "container_memory_swap",
        help: "Container swap usage in bytes.",
        kind: MetricType::Gauge,
        value: |own| own.swap.as_ref()?.swap_usage_bytes,
    },
    OfContainer {
        name: "container_fs_usage_bytes",
        help: "Number of bytes that are consumed by the container on this filesystem.",
        kind: MetricType::Gauge,
        value: |own| own.writable_layer.as_ref()?.used_bytes,
    },
    OfContainer {
        name: "container_fs_inodes_total",
        help: "Number of inodes that the container uses on this filesystem.",
        kind: MetricType::Gauge,
        value: |own| own.writable_layer.as_ref()?.inodes_used,
    },
];

const OF_PODS: [OfPod; 4] = [
    OfPod {
        name: "container_network_receive_bytes_total",
        help: "Cumulative count of bytes received",
        value: |own| own.rx_bytes,
    },
    OfPod {
        name: "container_network_receive_errors_total",
        help: "Cumulative count of errors encountered while receiving",
        value: |own| own.rx_errors,
    },
    OfPod {
        name: "container_network_transmit_bytes_total",
        help: "Cumulative count of bytes transmitted",
        value: |own| own.tx_bytes,
    },
    OfPod {
        name: "container_network_transmit_errors_total",
        help: "Cumulative count of errors encountered while transmitting",
        value: |own| own.tx_errors,
    },
];

/// What metrics there are, and their labels.
pub(super) fn descriptors() -> Vec<MetricDescriptor> {
    let of = |name: &str, help: &str, more: &[&str]| MetricDescriptor {
        name: name.to_owned(),
        help: help.to_owned(),
        label_keys: LABELS.iter().chain(more).map(|label| (*label).to_owned()).collect(),
    };
    let containers = OF_CONTAINERS.iter().map(|own| of(own.name, own.help, &[]));
    containers.chain(OF_PODS.iter().map(|own| of(own.name, own.help, &["interface"]))).collect()
}

fn of_container(own: &ContainerStats, now: i64) -> ContainerMetrics {
    let attributes = own.attributes.clone().unwrap_or_default();
    let name = attributes.metadata.map(|metadata| metadata.name).unwrap_or_default();
    let metrics = OF_CONTAINERS.iter().filter_map(|metric| {
        Some(Metric {
            name: metric.name.to_owned(),
            timestamp: now,
            metric_type: metric.kind.into(),
            label_values: vec![attributes.id.clone(), name.clone()],
            value: Some((metric.value)(own)?),
        })
    });
    ContainerMetrics { container_id: attributes.id.clone(), metrics: metrics.collect() }
}

fn of_pod(own: &PodSandboxStats, now: i64) -> PodSandboxMetrics {
    let id = own.attributes.as_ref().map(|attributes| attributes.id.clone()).unwrap_or_default();
    let linux = own.linux.clone().unwrap_or_default();
    let network = linux.network.unwrap_or_default();
    let mut metrics = Vec::new();
    for interface in network.default_interface.iter().chain(&network.interfaces) {
        let values = OF_PODS.iter().filter_map(|metric| Some((metric.name, (metric.value)(interface)?)));
        metrics.extend(values.map(|(name, value)| Metric {
            name: name.to_owned(),
            timestamp: now,
            metric_type: MetricType::Counter.into(),
            label_values: vec![id.clone(), POD.to_owned(), interface.name.clone()],
            value: Some(value),
        }));
    }
    let container_metrics = linux.containers.iter().map(|own| of_container(own, now)).collect();
    PodSandboxMetrics { pod_sandbox_id: id, metrics, container_metrics }
}

impl Shared {
    pub(super) async fn pod_metrics(&self) -> Answer<Vec<PodSandboxMetrics>> {
        let now = self.now();
        Ok(self.list_sandbox_stats(None).await?.iter().map(|own| of_pod(own, now)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_as_many_labels_as_its_descriptor_says() {
        use reeve_proto::cri::{LinuxPodSandboxStats, MemoryUsage, NetworkInterfaceUsage, NetworkUsage};
        let value = Some(UInt64Value { value: 7 });
        let memory = MemoryUsage { usage_bytes: value, ..MemoryUsage::default() };
        let container = ContainerStats { memory: Some(memory), ..ContainerStats::default() };
        let interface = NetworkInterfaceUsage { rx_bytes: value, ..NetworkInterfaceUsage::default() };
        let network = NetworkUsage { default_interface: Some(interface), ..NetworkUsage::default() };
        let linux = LinuxPodSandboxStats {
            network: Some(network),
            containers: vec![container],
            ..LinuxPodSandboxStats::default()
        };
        let pod = of_pod(&PodSandboxStats { linux: Some(linux), ..PodSandboxStats::default() }, 1);
        let all: Vec<&Metric> = pod.metrics.iter().chain(&pod.container_metrics[0].metrics).collect();
        assert_eq!(all.len(), 2);
        for metric in all {
            let descriptor = descriptors().into_iter().find(|own| own.name == metric.name).expect("described");
            assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
    }
}
