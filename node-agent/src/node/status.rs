//! Writes `node.status` as the kubelet writes it. Pure but for [`Pressure::look`].

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use reeve_engine::engine::{Features, Image};

use super::machine::{Capacity, System, architecture, disk, memory, pids};
use crate::config::NodeConfig;
use crate::peers::TOLD_MAX;
use crate::pod::huge_pages::{bytes, resource};

/// Available memory below this is pressure. Source: kubelet default eviction threshold.
const MEMORY_MIN_BYTES: u64 = 100 << 20;
/// Free disk below this percentage is pressure. Source: kubelet default eviction threshold.
const DISK_MIN_PERCENT: u64 = 10;
/// Process ids in use above this percentage are pressure.
const PIDS_MAX_PERCENT: u64 = 90;

/// What the node lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pids: bool,
}

impl Pressure {
    /// Looks at the machine.
    pub(crate) fn look(data_dir: &Path) -> Self {
        let ((_, available), (total, free), (max, used)) = (memory(), disk(data_dir), pids());
        Self {
            memory: available < MEMORY_MIN_BYTES,
            disk: free.saturating_mul(100) < total.saturating_mul(DISK_MIN_PERCENT),
            pids: used.saturating_mul(100) > max.saturating_mul(PIDS_MAX_PERCENT),
        }
    }
}

/// Everything a status is made from.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) config: NodeConfig,
    pub(crate) capacity: Capacity,
    pub(crate) system: System,
    pub(crate) pressure: Pressure,
    pub(crate) images: Vec<Image>,
    pub(crate) runtime: String,
    pub(crate) features: Features,
    pub(crate) port: u16,
    pub(crate) network_ready: bool,
}

/// The labels every node has.
pub(crate) fn labels(config: &NodeConfig) -> BTreeMap<String, String> {
    let arch = architecture();
    [
        ("kubernetes.io/hostname", config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

/// What newer agents can do and older ones cannot, by the names of Kubernetes' feature gates, sorted.
const FEATURES: [&str; 2] = ["InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers"];

/// The node's status; `before` gives the conditions' transition times.
pub(crate) fn status(facts: &Facts, before: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let config = &facts.config;
    NodeStatus {
        addresses: Some(vec![
            NodeAddress { type_: "InternalIP".to_owned(), address: config.node_ip.to_string() },
            NodeAddress { type_: "Hostname".to_owned(), address: config.node_name.clone() },
        ]),
        capacity: Some(resources(&facts.capacity, config.max_pods)),
        allocatable: Some(resources(&facts.capacity.less(&config.reserved), config.max_pods)),
        conditions: Some(conditions(facts, before, now)),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(facts.features.supplemental_groups_policy) }),
        runtime_handlers: Some(vec![NodeRuntimeHandler {
            name: Some(String::new()),
            features: Some(NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(facts.features.recursive_read_only_mounts),
                user_namespaces: Some(facts.features.user_namespaces),
            }),
        }]),
        declared_features: Some(FEATURES.map(str::to_owned).to_vec()),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.port) }),
        }),
        images: Some(images(&facts.images)),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().to_owned(),
            boot_id: facts.system.boot_id.clone(),
            container_runtime_version: facts.runtime.clone(),
            kernel_version: facts.system.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: config.kubelet_version.clone(),
            machine_id: facts.system.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: facts.system.os_image.clone(),
            system_uuid: facts.system.system_uuid.clone(),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}

fn resources(capacity: &Capacity, pods: u32) -> BTreeMap<String, Quantity> {
    let cpu = match capacity.cpu_milli {
        milli if milli % 1000 == 0 => (milli / 1000).to_string(),
        milli => format!("{milli}m"),
    };
    let huge_pages = capacity.huge_pages.iter();
    let huge_pages = huge_pages.map(|(size, all)| (resource(*size), Quantity(bytes(*all).to_string())));
    [
        ("cpu".to_owned(), Quantity(cpu)),
        ("memory".to_owned(), Quantity(format!("{}Ki", capacity.memory_bytes / 1024))),
        ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", capacity.storage_bytes / 1024))),
        ("pods".to_owned(), Quantity(pods.to_string())),
    ]
    .into_iter()
    .chain(huge_pages)
    .collect()
}

fn images(images: &[Image]) -> Vec<ContainerImage> {
    let one = |image: &Image| ContainerImage {
        names: Some(image.digests.iter().chain(&image.tags).cloned().collect()),
        size_bytes: i64::try_from(image.size_bytes).ok(),
    };
    // The largest ones, as the kubelet; but first those that were made here, of which other nodes hear in no other way.
    let mut images: Vec<&Image> = images.iter().collect();
    images.sort_by_key(|image| (!image.digests.is_empty(), std::cmp::Reverse(image.size_bytes)));
    let mut list: Vec<_> = images.into_iter().take(TOLD_MAX).map(one).collect();
    list.sort_by_key(|image| std::cmp::Reverse(image.size_bytes));
    list
}

fn conditions(facts: &Facts, before: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let pressure = |kind: &str, yes: bool, resource: &str, has: (&str, &str)| {
        let (reason, message) = if yes {
            (has.0.to_owned(), format!("kubelet has {resource}"))
        } else {
            (has.1.to_owned(), format!("kubelet has {}", resource_ok(kind)))
        };
        condition(kind, yes, reason, message)
    };
    let ready = if facts.network_ready {
        condition("Ready", true, "KubeletReady".to_owned(), "kubelet is posting ready status".to_owned())
    } else {
        let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                       message:the node has no pod range yet";
        condition("Ready", false, "KubeletNotReady".to_owned(), message.to_owned())
    };
    let list = [
        pressure(
            "MemoryPressure",
            facts.pressure.memory,
            "insufficient memory available",
            ("KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
        ),
        pressure(
            "DiskPressure",
            facts.pressure.disk,
            "disk pressure",
            ("KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
        ),
        pressure(
            "PIDPressure",
            facts.pressure.pids,
            "insufficient PID available",
            ("KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
        ),
        ready,
    ];
    list.into_iter().map(|condition| timed(condition, before, now)).collect()
}

fn resource_ok(kind: &str) -> &'static str {
    match kind {
        "MemoryPressure" => "sufficient memory available",
        "DiskPressure" => "no disk pressure",
        _ => "sufficient PID available",
    }
}

fn condition(kind: &str, yes: bool, reason: String, message: String) -> NodeCondition {
    NodeCondition {
        type_: kind.to_owned(),
        status: if yes { "True" } else { "False" }.to_owned(),
        reason: Some(reason),
        message: Some(message),
        ..NodeCondition::default()
    }
}

fn timed(mut condition: NodeCondition, before: Option<&NodeStatus>, now: Timestamp) -> NodeCondition {
    let old = before.into_iter().flat_map(|status| status.conditions.iter().flatten());
    let same = old.into_iter().find(|old| old.type_ == condition.type_ && old.status == condition.status);
    condition.last_transition_time = Some(same.and_then(|same| same.last_transition_time.clone()).unwrap_or(Time(now)));
    condition.last_heartbeat_time = Some(Time(now));
    condition
}

/// Whether two statuses say the same, but for the heartbeat.
pub(crate) fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let plain = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node_config;

    fn facts() -> Facts {
        Facts {
            config: node_config(Path::new("/none")),
            capacity: Capacity {
                cpu_milli: 2000,
                memory_bytes: 4 << 30,
                storage_bytes: 1 << 30,
                ..Capacity::default()
            },
            system: System::default(),
            pressure: Pressure::default(),
            images: vec![],
            runtime: "reeve://0.1.0".to_owned(),
            features: Features { user_namespaces: true, ..Features::default() },
            port: 10250,
            network_ready: true,
        }
    }

    #[test]
    fn every_size_of_huge_pages_is_told_also_where_there_are_none() {
        let mut facts = facts();
        facts.capacity.huge_pages = BTreeMap::from([(2 << 20, 8 << 20), (1 << 30, 0)]);
        let status = status(&facts, None, at(1));
        let told = |list: &Option<BTreeMap<String, Quantity>>, name: &str| list.as_ref().unwrap()[name].0.clone();
        for list in [&status.capacity, &status.allocatable] {
            assert_eq!((told(list, "hugepages-2Mi").as_str(), told(list, "hugepages-1Gi").as_str()), ("8Mi", "0"));
        }
        assert_eq!(told(&status.capacity, "memory"), "4194304Ki");
        assert_eq!(told(&status.allocatable, "memory"), "4186112Ki");
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_heartbeat_alone_is_no_change_and_transitions_keep_their_time() {
        let first = status(&facts(), None, at(1));
        let second = status(&facts(), Some(&first), at(9));
        assert!(same(&first, &second));
        let condition = &second.conditions.as_ref().unwrap()[3];
        assert_eq!((condition.type_.as_str(), condition.status.as_str()), ("Ready", "True"));
        assert_eq!(condition.last_transition_time, Some(Time(at(1))));
        assert_eq!(condition.last_heartbeat_time, Some(Time(at(9))));
        let mut worse = facts();
        worse.pressure.memory = true;
        let third = status(&worse, Some(&second), at(10));
        assert!(!same(&second, &third));
        assert_eq!(
            third.conditions.as_ref().unwrap()[0].message.as_deref(),
            Some("kubelet has insufficient memory available")
        );
    }

    #[test]
    fn of_many_images_those_that_were_made_here_and_the_largest_are_told() {
        let image = |size_bytes: u64, digests: Vec<String>| Image {
            id: format!("sha256:{size_bytes}"),
            tags: vec![format!("docker.io/x/y:{size_bytes}")],
            digests,
            size_bytes,
            created_at: None,
            user: String::new(),
        };
        let mut all: Vec<Image> = (10..100).map(|size| image(size, vec![format!("docker.io/x/y@{size}")])).collect();
        all.push(image(1, Vec::new()));
        let told: Vec<_> = images(&all).iter().map(|image| image.size_bytes.unwrap()).collect();
        assert_eq!(told.len(), TOLD_MAX);
        assert_eq!((told[0], told[48], told[49]), (99, 51, 1));
    }

    #[test]
    fn a_node_without_its_pod_range_is_not_ready() {
        let status = status(&Facts { network_ready: false, ..facts() }, None, at(1));
        let ready = &status.conditions.unwrap()[3];
        assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("KubeletNotReady")));
    }
}
