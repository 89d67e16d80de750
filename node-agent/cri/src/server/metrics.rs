//! cAdvisor's metrics of pods and containers, for a kubelet that takes them from the runtime.
//!
//! Only what the kernel counts and we read: who asks for the list of them (`ListMetricDescriptors`) sees what there is.

use std::collections::HashMap;

use reeve_proto::cri::{
    ContainerMetrics, ContainerStats, Metric, MetricDescriptor, MetricType, PodSandboxMetadata, PodSandboxMetrics,
    PodSandboxStats, UInt64Value,
};

use super::Shared;
use super::error::{self, Answer};

/// The image of each container, by the container's id.
type Images = HashMap<String, String>;

/// Labels of all metrics, which are cAdvisor's: the container's name in its pod (`POD` for what is the pod's own), its
/// id twice (cAdvisor's first one is a group, which says nothing to whoever joins metrics), and whose it is.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];
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

/// Whose a metric is.
struct Owner<'p> {
    container: &'p str,
    id: &'p str,
    image: &'p str,
    pod: &'p PodSandboxMetadata,
}

impl Owner<'_> {
    /// Values of [`LABELS`].
    fn labels(&self) -> Vec<String> {
        let all: [&str; LABELS.len()] =
            [self.container, self.id, self.image, self.id, &self.pod.namespace, &self.pod.name];
        all.map(str::to_owned).to_vec()
    }
}

fn of_container(own: &ContainerStats, pod: &PodSandboxMetadata, images: &Images, now: i64) -> ContainerMetrics {
    let attributes = own.attributes.clone().unwrap_or_default();
    let name = attributes.metadata.map(|metadata| metadata.name).unwrap_or_default();
    let image = images.get(&attributes.id).map_or("", String::as_str);
    let owner = Owner { container: &name, id: &attributes.id, image, pod };
    let metrics = OF_CONTAINERS.iter().filter_map(|metric| {
        Some(Metric {
            name: metric.name.to_owned(),
            timestamp: now,
            metric_type: metric.kind.into(),
            label_values: owner.labels(),
            value: Some((metric.value)(own)?),
        })
    });
    let metrics = metrics.collect();
    ContainerMetrics { container_id: attributes.id, metrics }
}

fn of_pod(own: &PodSandboxStats, images: &Images, now: i64) -> PodSandboxMetrics {
    let attributes = own.attributes.clone().unwrap_or_default();
    let pod = attributes.metadata.unwrap_or_default();
    let owner = Owner { container: POD, id: &attributes.id, image: "", pod: &pod };
    let linux = own.linux.clone().unwrap_or_default();
    let network = linux.network.unwrap_or_default();
    let mut metrics = Vec::new();
    for interface in network.default_interface.iter().chain(&network.interfaces) {
        let values = OF_PODS.iter().filter_map(|metric| Some((metric.name, (metric.value)(interface)?)));
        metrics.extend(values.map(|(name, value)| Metric {
            name: name.to_owned(),
            timestamp: now,
            metric_type: MetricType::Counter.into(),
            label_values: owner.labels().into_iter().chain([interface.name.clone()]).collect(),
            value: Some(value),
        }));
    }
    let container_metrics = linux.containers.iter().map(|own| of_container(own, &pod, images, now)).collect();
    PodSandboxMetrics { pod_sandbox_id: attributes.id, metrics, container_metrics }
}

impl Shared {
    pub(super) async fn pod_metrics(&self) -> Answer<Vec<PodSandboxMetrics>> {
        let now = self.now();
        let containers = self.engine.list_containers().await.map_err(error::engine)?;
        let images: Images = containers.into_iter().map(|own| (own.id, own.image_id)).collect();
        Ok(self.list_sandbox_stats(None).await?.iter().map(|own| of_pod(own, &images, now)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(metric: &Metric) -> HashMap<String, &str> {
        let descriptor = descriptors().into_iter().find(|own| own.name == metric.name).expect("described");
        assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        descriptor.label_keys.into_iter().zip(metric.label_values.iter().map(String::as_str)).collect()
    }

    #[test]
    fn every_metric_has_the_labels_that_its_descriptor_says_and_tells_whose_it_is() {
        use reeve_proto::cri::{
            ContainerAttributes, ContainerMetadata, LinuxPodSandboxStats, MemoryUsage, NetworkInterfaceUsage,
            NetworkUsage, PodSandboxAttributes,
        };
        let value = Some(UInt64Value { value: 7 });
        let memory = MemoryUsage { usage_bytes: value, ..MemoryUsage::default() };
        let metadata = Some(ContainerMetadata { name: "app".to_owned(), attempt: 1 });
        let attributes = ContainerAttributes { id: "c".to_owned(), metadata, ..ContainerAttributes::default() };
        let container =
            ContainerStats { attributes: Some(attributes), memory: Some(memory), ..ContainerStats::default() };
        let interface =
            NetworkInterfaceUsage { name: "eth0".to_owned(), rx_bytes: value, ..NetworkInterfaceUsage::default() };
        let network = NetworkUsage { default_interface: Some(interface), ..NetworkUsage::default() };
        let linux = LinuxPodSandboxStats {
            network: Some(network),
            containers: vec![container],
            ..LinuxPodSandboxStats::default()
        };
        let (namespace, name) = ("default".to_owned(), "web".to_owned());
        let metadata = Some(PodSandboxMetadata { name, namespace, ..PodSandboxMetadata::default() });
        let attributes = PodSandboxAttributes { id: "p".to_owned(), metadata, ..PodSandboxAttributes::default() };
        let stats = PodSandboxStats { attributes: Some(attributes), linux: Some(linux) };
        let pod = of_pod(&stats, &HashMap::from([("c".to_owned(), "image@sha256:1".to_owned())]), 1);
        let [of_pod] = pod.metrics.as_slice() else { panic!("{:?}", pod.metrics) };
        let told = labels(of_pod);
        let told = ["container", "id", "interface", "namespace", "pod"].map(|name| told[name]);
        assert_eq!(told, ["POD", "p", "eth0", "default", "web"]);
        let [of_container] = pod.container_metrics[0].metrics.as_slice() else { panic!("one metric") };
        let told = labels(of_container);
        let told = ["container", "id", "image", "name", "namespace", "pod"].map(|name| told[name]);
        assert_eq!(told, ["app", "c", "image@sha256:1", "c", "default", "web"]);
    }
}
