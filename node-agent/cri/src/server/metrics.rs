//! cAdvisor's metrics of pods and containers, for a kubelet that takes them from the runtime.
//!
//! Only what the kernel counts and we read: who asks for the list of them (`ListMetricDescriptors`) sees what there is.

use std::collections::{BTreeMap, HashMap};

use reeve_engine::engine::{
    Container, ContainerState, FileSystem, FsUsage, ProcessUsage, Sandbox, SandboxState, Usage,
};
use reeve_engine::metrics::{Family, Kind, LABELS, Subject, families};
use reeve_engine::runtime::disks;
use reeve_proto::cri::{ContainerMetrics, Metric, MetricDescriptor, MetricType, PodSandboxMetrics, UInt64Value};

use super::Shared;
use super::error::{self, Answer};

/// What is the pod's own, as cAdvisor names it.
const POD: &str = "POD";

/// What metrics there are, and their labels.
pub(super) fn descriptors() -> Vec<MetricDescriptor> {
    let of = |family: Family| MetricDescriptor {
        name: family.name.to_owned(),
        help: family.help.to_owned(),
        label_keys: LABELS.iter().chain(family.labels()).map(|label| (*label).to_owned()).collect(),
    };
    families().into_iter().map(of).collect()
}

/// Whose a metric is.
struct Owner<'p> {
    container: &'p str,
    id: &'p str,
    image: &'p str,
    pod: &'p Sandbox,
}

impl Owner<'_> {
    /// Values of [`LABELS`]. The id is there twice: cAdvisor's first one is a group, which says nothing to whoever
    /// joins metrics.
    fn labels(&self) -> Vec<String> {
        let of_pod = &self.pod.config;
        let all: [&str; LABELS.len()] = [self.container, self.id, self.image, self.id, &of_pod.namespace, &of_pod.name];
        all.map(str::to_owned).to_vec()
    }
}

/// CRI's numbers are whole: times are in whole seconds.
fn told(owner: &Owner<'_>, subject: &Subject, now: i64) -> Vec<Metric> {
    let of_family = |family: Family| {
        let kind = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
        };
        let metric = move |sample: reeve_engine::metrics::Sample| Metric {
            name: family.name.to_owned(),
            timestamp: now,
            metric_type: kind.into(),
            label_values: owner.labels().into_iter().chain(sample.labels).collect(),
            value: Some(UInt64Value { value: sample.value.whole() }),
        };
        family.samples(subject).into_iter().map(metric)
    };
    families().into_iter().flat_map(of_family).collect()
}

/// What was seen of all containers.
struct Seen {
    usage: BTreeMap<String, Usage>,
    processes: BTreeMap<String, ProcessUsage>,
    writable: HashMap<String, FsUsage>,
}

fn of_container(own: &Container, pod: &Sandbox, seen: &Seen, now: i64) -> Option<ContainerMetrics> {
    let ContainerState::Running { started_at, .. } = own.state else { return None };
    let subject = Subject {
        usage: seen.usage.get(&own.id)?.clone(),
        processes: seen.processes.get(&own.id).copied(),
        limits: Some(own.config.resources.clone()),
        created_at: Some(own.created_at),
        started_at: Some(started_at),
        seen_at: Some(jiff::Timestamp::from_nanosecond(i128::from(now)).unwrap_or_default()),
        file_systems: seen.writable.get(&own.id).map(file_system).into_iter().collect(),
    };
    let owner = Owner { container: &own.config.name, id: &own.id, image: &own.image_id, pod };
    Some(ContainerMetrics { container_id: own.id.clone(), metrics: told(&owner, &subject, now) })
}

/// A folder, and the file system it is on.
fn file_system(used: &FsUsage) -> FileSystem {
    FileSystem { used_bytes: Some(used.used_bytes), ..disks::file_system(&used.path) }
}

/// What is the pod's own is its traffic; what it uses in all is the sum of its containers'.
fn of_pod(own: &Sandbox, usage: Usage, containers: Vec<ContainerMetrics>, now: i64) -> PodSandboxMetrics {
    let subject = Subject {
        usage: Usage { interfaces: usage.interfaces, ..Usage::default() },
        created_at: Some(own.created_at),
        started_at: Some(own.created_at),
        ..Subject::default()
    };
    let owner = Owner { container: POD, id: &own.id, image: "", pod: own };
    let metrics = told(&owner, &subject, now);
    PodSandboxMetrics { pod_sandbox_id: own.id.clone(), metrics, container_metrics: containers }
}

impl Shared {
    /// Of every pod that is there. One that goes while somebody looks has no metrics any more.
    pub(super) async fn pod_metrics(&self) -> Answer<Vec<PodSandboxMetrics>> {
        let now = self.now();
        let containers = self.engine.list_containers().await.map_err(error::engine)?;
        let mut seen = Seen {
            usage: self.engine.usage().await.map_err(error::engine)?,
            processes: self.engine.processes().await.map_err(error::engine)?,
            writable: HashMap::new(),
        };
        for own in containers.iter().filter(|own| seen.usage.contains_key(&own.id)) {
            seen.writable.extend(self.writable_size(&own.id).await.map(|size| (own.id.clone(), size)));
        }
        let mut pods = Vec::new();
        for pod in self.engine.list_pod_sandboxes().await.map_err(error::engine)? {
            if pod.state != SandboxState::Ready {
                continue;
            }
            let usage = self.engine.pod_sandbox_usage(&pod.id).await.unwrap_or_default();
            let of_it = containers.iter().filter(|own| own.sandbox == pod.id);
            let of_it = of_it.filter_map(|own| of_container(own, &pod, &seen, now)).collect();
            pods.push(of_pod(&pod, usage, of_it, now));
        }
        Ok(pods)
    }
}

#[cfg(test)]
mod tests {
    use reeve_engine::engine::{ContainerConfig, InterfaceUsage, SandboxConfig};

    use super::*;

    fn labels(metric: &Metric) -> HashMap<String, &str> {
        let descriptor = descriptors().into_iter().find(|own| own.name == metric.name).expect("described");
        assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        descriptor.label_keys.into_iter().zip(metric.label_values.iter().map(String::as_str)).collect()
    }

    fn one<'m>(metrics: &'m [Metric], name: &str) -> (HashMap<String, &'m str>, u64) {
        let found = metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name}: {metrics:?}"));
        (labels(found), found.value.expect("a value").value)
    }

    #[test]
    fn every_metric_has_the_labels_that_its_descriptor_says_and_tells_whose_it_is() {
        let at = jiff::Timestamp::from_second(7).unwrap();
        let config =
            SandboxConfig { name: "web".to_owned(), namespace: "default".to_owned(), ..SandboxConfig::default() };
        let pod = Sandbox {
            id: "p".to_owned(),
            config,
            state: SandboxState::Ready,
            created_at: at,
            netns: None,
            ips: Vec::new(),
        };
        let container = Container {
            id: "c".to_owned(),
            sandbox: "p".to_owned(),
            config: ContainerConfig { name: "app".to_owned(), ..ContainerConfig::default() },
            image_id: "image@sha256:1".to_owned(),
            user: None,
            state: ContainerState::Running { started_at: at, pid: 1 },
            created_at: at,
        };
        let usage = Usage {
            memory_bytes: Some(9),
            cpu_nanoseconds: Some(2_900_000_000),
            page_faults: Some(3),
            ..Usage::default()
        };
        let seen = Seen {
            usage: BTreeMap::from([("c".to_owned(), usage)]),
            processes: BTreeMap::from([("c".to_owned(), ProcessUsage { processes: 2, ..ProcessUsage::default() })]),
            writable: HashMap::new(),
        };
        let of_it = of_container(&container, &pod, &seen, 1).unwrap();
        let interface = InterfaceUsage { name: "eth0".to_owned(), rx_bytes: 5, ..InterfaceUsage::default() };
        let traffic = Usage { interfaces: vec![interface], memory_bytes: Some(9), ..Usage::default() };
        let told = of_pod(&pod, traffic, vec![of_it], 1);
        assert!(told.metrics.iter().all(|metric| labels(metric)["container"] == "POD"));
        let (own, value) = one(&told.metrics, "container_network_receive_bytes_total");
        let own = ["container", "id", "interface", "namespace", "pod"].map(|name| own[name]);
        assert_eq!((own, value), (["POD", "p", "eth0", "default", "web"], 5));
        assert!(!told.metrics.iter().any(|metric| metric.name.contains("memory")), "nothing is told twice");
        let of_container = &told.container_metrics[0].metrics;
        let (own, value) = one(of_container, "container_memory_usage_bytes");
        let own = ["container", "id", "image", "name", "namespace", "pod"].map(|name| own[name]);
        assert_eq!((own, value), (["app", "c", "image@sha256:1", "c", "default", "web"], 9));
        assert_eq!(one(of_container, "container_cpu_usage_seconds_total").1, 2, "whole seconds");
        assert_eq!(one(of_container, "container_processes").1, 2);
        assert_eq!(one(of_container, "container_memory_failures_total").0["failure_type"], "pgfault");
        let exited = Container { state: ContainerState::Created, ..container };
        assert!(super::of_container(&exited, &pod, &seen, 1).is_none());
    }
}
