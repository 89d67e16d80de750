//! Quality of service, cgroups and OOM scores, as the kubelet computes them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource;
use reeve_api::quantity::Quantity;
use reeve_engine::engine::Resources;
use serde::{Deserialize, Serialize};

use super::state::{Role, containers, spec};

/// CPU time is shared out in periods of this many microseconds. Source: kubelet `QuotaPeriod`.
const PERIOD_US: u64 = 100_000;
/// Smallest quota the kernel takes.
const QUOTA_MIN_US: u64 = 1_000;
/// Smallest cgroup v1 share.
const SHARES_MIN: u64 = 2;
const SHARES_MAX: u64 = 262_144;
/// Priority from which a pod is critical to its node. Source: Kubernetes `SystemCriticalPriority`.
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

pub(crate) type Amounts = BTreeMap<String, resource::Quantity>;
type List = Option<Amounts>;

/// An amount of a resource in a list, if it is there and can be read.
pub(crate) fn amount(list: &List, resource: &str) -> Option<Quantity> {
    list.as_ref()?.get(resource)?.0.parse().ok()
}

fn request(container: &Container, resource: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    amount(&resources.requests, resource).or_else(|| amount(&resources.limits, resource))
}

fn limit(container: &Container, resource: &str) -> Option<Quantity> {
    amount(&container.resources.as_ref()?.limits, resource)
}

/// What the pod asks for as a whole (`spec.resources`), of the resources for which it may.
fn pod_level_request(spec: &PodSpec, resource: &str) -> Option<Quantity> {
    amount(&spec.resources.as_ref()?.requests, resource).filter(|_| is_of_pods(resource))
}

fn pod_level_limit(spec: &PodSpec, resource: &str) -> Option<Quantity> {
    amount(&spec.resources.as_ref()?.limits, resource).filter(|_| is_of_pods(resource))
}

/// Source: Kubernetes `IsSupportedPodLevelResource`.
fn is_of_pods(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory") || resource.starts_with("hugepages-")
}

/// `Guaranteed`, `Burstable` or `BestEffort`. Source: Kubernetes `ComputePodQOS`.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let set = |amount: Option<Quantity>| amount.filter(|amount| !amount.is_zero());
    let (mut any, mut all_equal) = (false, true);
    for resource in ["cpu", "memory"] {
        let mut count = |request: Option<Quantity>, limit: Option<Quantity>| {
            any |= set(request).is_some() || set(limit).is_some();
            all_equal &= set(limit).is_some() && request == limit;
        };
        if spec.resources.is_some() {
            count(pod_level_request(spec, resource), pod_level_limit(spec, resource));
            continue;
        }
        for (container, _) in containers(spec) {
            count(request(container, resource), limit(container, resource));
        }
    }
    match (any, all_equal) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The pod's cgroup below the engine's root.
pub(crate) fn cgroup(pod: &Pod) -> String {
    let class = qos_class(spec(pod)).to_ascii_lowercase();
    format!("kubepods/{class}/pod{}", pod.metadata.uid.as_deref().unwrap_or_default())
}

/// What limits a container in a resource: its own limit, else the pod's.
pub(crate) fn limit_of_container(spec: &PodSpec, container: &Container, resource: &str) -> Option<Quantity> {
    let own = limit(container, resource).filter(|limit| !limit.is_zero());
    own.or_else(|| pod_level_limit(spec, resource))
}

/// Limits of the whole pod: its own, or the sum of its containers' where all have one.
/// Source: kubelet `ResourceConfigForPod`.
pub(crate) fn pod_resources(spec: &PodSpec) -> Resources {
    let limit_of = |resource: &str| {
        let is_declared = pod_level_limit(spec, resource).is_some_and(|limit| !limit.is_zero())
            || containers(spec).all(|(own, _)| limit(own, resource).is_some_and(|limit| !limit.is_zero()));
        limit_of_pod(spec, resource).filter(|limit| is_declared && !limit.is_zero())
    };
    Resources {
        cpu_shares: Some(shares(unsigned(pod_request(spec, "cpu").milli_value()))),
        cpu_quota_us: limit_of("cpu").map(|limit| quota(unsigned(limit.milli_value()))),
        cpu_period_us: Some(PERIOD_US),
        memory_limit_bytes: limit_of("memory").map(|limit| limit.value()),
        ..Resources::default()
    }
}

/// What the pod needs of a resource: what it says itself, or the larger of its containers' sum (with sidecars) and each
/// init container on top of the sidecars before it; plus overhead. Source: Kubernetes `PodRequests`.
pub(crate) fn pod_request(spec: &PodSpec, resource: &str) -> Quantity {
    let own = pod_level_request(spec, resource);
    let sum = own.or_else(|| effective(spec, |container| request(container, resource))).unwrap_or(Quantity::ZERO);
    sum + amount(&spec.overhead, resource).unwrap_or(Quantity::ZERO)
}

/// The same for limits. Source: Kubernetes `PodLimits`.
pub(crate) fn limit_of_pod(spec: &PodSpec, resource: &str) -> Option<Quantity> {
    let own = pod_level_limit(spec, resource);
    let sum = own.or_else(|| effective(spec, |container| limit(container, resource)))?;
    let overhead = amount(&spec.overhead, resource).filter(|_| !sum.is_zero());
    Some(sum + overhead.unwrap_or(Quantity::ZERO))
}

/// All that the pod asks for, by resource.
pub(crate) fn pod_requests(spec: &PodSpec) -> Amounts {
    let lists = spec.overhead.iter().chain(lists(spec, |resources| resources.requests.as_ref()));
    let names: BTreeSet<&String> = lists.flat_map(BTreeMap::keys).collect();
    names.into_iter().map(|name| (name.clone(), text(pod_request(spec, name)))).collect()
}

/// All that limits the pod, by resource.
pub(crate) fn pod_limits(spec: &PodSpec) -> Amounts {
    let names: BTreeSet<&String> =
        lists(spec, |resources| resources.limits.as_ref()).flat_map(BTreeMap::keys).collect();
    names.into_iter().filter_map(|name| Some((name.clone(), text(limit_of_pod(spec, name)?)))).collect()
}

fn lists(spec: &PodSpec, of: fn(&ResourceRequirements) -> Option<&Amounts>) -> impl Iterator<Item = &Amounts> {
    let own = containers(spec).filter_map(|(container, _)| container.resources.as_ref());
    spec.resources.iter().chain(own).filter_map(of)
}

/// An amount as the API writes it.
pub(crate) fn text(amount: Quantity) -> resource::Quantity {
    resource::Quantity(amount.to_string())
}

fn effective(spec: &PodSpec, of: impl Fn(&Container) -> Option<Quantity>) -> Option<Quantity> {
    let (mut sum, mut sidecars, mut init_max) = (Quantity::ZERO, Quantity::ZERO, Quantity::ZERO);
    let mut any = false;
    for (container, role) in containers(spec) {
        let Some(amount) = of(container) else { continue };
        any = true;
        match role {
            Role::Init => init_max = init_max.max(sidecars + amount),
            Role::Sidecar => sidecars += amount,
            Role::Main => sum += amount,
            Role::Ephemeral => {}
        }
    }
    any.then(|| (sum + sidecars).max(init_max))
}

/// What a container may use of processor (thousandths) and memory (bytes); 0 where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Size {
    pub(crate) cpu_request: i64,
    pub(crate) cpu_limit: i64,
    pub(crate) memory_request: i64,
    pub(crate) memory_limit: i64,
}

impl Size {
    /// What a container of this pod is to have. Where it has no limit, the pod's is its limit; where it asks for
    /// nothing, its limit is what it asks for.
    pub(crate) fn of(spec: &PodSpec, container: &Container) -> Self {
        let limit_of = |resource: &str| limit_of_container(spec, container, resource).unwrap_or(Quantity::ZERO);
        let (cpu, memory) = (limit_of("cpu"), limit_of("memory"));
        let asked = container.resources.as_ref().and_then(|resources| amount(&resources.requests, "memory"));
        Self {
            cpu_request: request(container, "cpu").unwrap_or(cpu).milli_value(),
            cpu_limit: cpu.milli_value(),
            memory_request: asked.map_or(0, |request| request.value()),
            memory_limit: memory.value(),
        }
    }

    /// What the kernel is told about processor time.
    pub(crate) fn cpu(self) -> Resources {
        Resources {
            cpu_shares: Some(shares(unsigned(self.cpu_request))),
            cpu_quota_us: (self.cpu_limit > 0).then(|| quota(unsigned(self.cpu_limit))),
            cpu_period_us: Some(PERIOD_US),
            ..Resources::default()
        }
    }

    /// What the kernel is told about memory.
    pub(crate) fn memory(self) -> Resources {
        Resources { memory_limit_bytes: Some(self.memory_limit).filter(|limit| *limit > 0), ..Resources::default() }
    }
}

/// Limits of one container on a node with `memory_capacity` bytes.
pub(crate) fn container_resources(pod: &Pod, container: &Container, memory_capacity: u64) -> Resources {
    let size = Size::of(spec(pod), container);
    let score = oom_score_adj(pod, container, memory_capacity);
    Resources { oom_score_adj: Some(score), ..size.cpu().updated(&size.memory()) }
}

/// Source: kubelet `GetContainerOOMScoreAdjust`.
fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: u64) -> i32 {
    let spec = spec(pod);
    if spec.priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY) {
        return -997;
    }
    match qos_class(spec) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let own = |container: &Container| request(container, "memory").map_or(0, |request| request.value());
            let extra = unasked_memory_per_container(spec);
            let score = |requested: i64| {
                let part = 1000 * u128::from(unsigned(requested + extra)) / u128::from(memory_capacity.max(1));
                1000 - i32::try_from(part).unwrap_or(1000)
            };
            let is_sidecar = containers(spec).any(|(own, role)| role == Role::Sidecar && own.name == container.name);
            let least = spec.containers.iter().map(own).min().filter(|_| is_sidecar);
            // A sidecar is not the victim of the containers that it serves.
            score(own(container)).min(least.map_or(1000, score)).clamp(3, 999)
        }
    }
}

/// Memory that the pod asks for beyond what its containers do, shared out among them.
fn unasked_memory_per_container(spec: &PodSpec) -> i64 {
    let Some(of_pod) = pod_level_request(spec, "memory") else { return 0 };
    let of_containers = effective(spec, |container| request(container, "memory")).unwrap_or(Quantity::ZERO);
    let count = i64::try_from(containers(spec).count()).unwrap_or(i64::MAX);
    (of_pod.value() - of_containers.value()).max(0) / count.max(1)
}

fn shares(milli: u64) -> u64 {
    (milli.saturating_mul(1024) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

fn quota(milli: u64) -> i64 {
    i64::try_from((milli.saturating_mul(PERIOD_US) / 1000).max(QUOTA_MIN_US)).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: serde_json::Value) -> Pod {
        let pod = serde_json::json!({
            "metadata": { "uid": "u1" },
            "spec": { "containers": containers },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn container(resources: serde_json::Value) -> serde_json::Value {
        serde_json::json!({ "name": "c", "resources": resources })
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        for (resources, class) in [
            (serde_json::json!({}), "BestEffort"),
            (serde_json::json!({ "requests": { "cpu": "100m" } }), "Burstable"),
            (serde_json::json!({ "limits": { "cpu": "1", "memory": "1Gi" } }), "Guaranteed"),
            (
                serde_json::json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } }),
                "Burstable",
            ),
            (serde_json::json!({ "limits": { "cpu": "1" } }), "Burstable"),
        ] {
            let pod = pod(serde_json::json!([container(resources.clone())]));
            assert_eq!(qos_class(spec(&pod)), class, "{resources}");
            assert_eq!(cgroup(&pod), format!("kubepods/{}/podu1", class.to_ascii_lowercase()));
        }
    }

    #[test]
    fn limits_become_shares_quota_and_bytes() {
        let pod = pod(serde_json::json!([container(
            serde_json::json!({ "requests": { "cpu": "250m" }, "limits": { "cpu": "500m", "memory": "64Mi" } })
        )]));
        let resources = container_resources(&pod, &spec(&pod).containers[0], 1 << 30);
        assert_eq!(resources.cpu_shares, Some(256));
        assert_eq!(resources.cpu_quota_us, Some(50_000));
        assert_eq!(resources.memory_limit_bytes, Some(64 << 20));
        assert_eq!(resources.oom_score_adj, Some(1000 - 62));
        assert_eq!(pod_resources(spec(&pod)).memory_limit_bytes, Some(64 << 20));
    }

    #[test]
    fn a_pod_is_limited_only_where_all_its_containers_are() {
        let pod = pod(serde_json::json!([
            container(serde_json::json!({ "limits": { "memory": "64Mi" } })),
            container(serde_json::json!({}))
        ]));
        assert_eq!(pod_resources(spec(&pod)).memory_limit_bytes, None);
    }

    #[test]
    fn what_a_pod_says_of_itself_goes_before_the_sum_and_limits_those_who_say_nothing() {
        let pod: Pod = serde_json::from_value(serde_json::json!({ "spec": {
            "resources": { "requests": { "cpu": "1", "memory": "100Mi" }, "limits": { "cpu": "2", "memory": "200Mi" } },
            "overhead": { "cpu": "100m" },
            "containers": [
                { "name": "a", "resources": { "limits": { "cpu": "500m" }, "requests": { "memory": "20Mi" } } },
                { "name": "b" },
            ],
        }}))
        .unwrap();
        let whole = pod_resources(spec(&pod));
        assert_eq!((whole.cpu_shares, whole.cpu_quota_us), (Some(1126), Some(210_000)));
        assert_eq!(whole.memory_limit_bytes, Some(200 << 20));
        let sizes: Vec<_> = spec(&pod).containers.iter().map(|own| Size::of(spec(&pod), own)).collect();
        let mib = 1 << 20;
        let a = Size { cpu_request: 500, cpu_limit: 500, memory_request: 20 * mib, memory_limit: 200 * mib };
        let b = Size { cpu_request: 2000, cpu_limit: 2000, memory_request: 0, memory_limit: 200 * mib };
        assert_eq!(sizes, [a, b]);
        assert_eq!(qos_class(spec(&pod)), "Burstable");
        // (20 + 80/2) MiB and 80/2 MiB of 1000.
        let scores = spec(&pod).containers.iter().map(|own| oom_score_adj(&pod, own, 1000 << 20));
        assert_eq!(scores.collect::<Vec<_>>(), [940, 960]);
        let requests = serde_json::to_value(pod_requests(spec(&pod))).unwrap();
        assert_eq!(requests, serde_json::json!({ "cpu": "1100m", "memory": "100Mi" }));
        let limits = serde_json::to_value(pod_limits(spec(&pod))).unwrap();
        assert_eq!(limits, serde_json::json!({ "cpu": "2100m", "memory": "200Mi" }));
    }

    #[test]
    fn init_containers_count_with_the_largest_not_the_sum() {
        let pod: Pod = serde_json::from_value(serde_json::json!({ "spec": {
            "initContainers": [
                { "name": "a", "resources": { "requests": { "cpu": "3" } } },
                { "name": "s", "restartPolicy": "Always", "resources": { "requests": { "cpu": "1" } } },
                { "name": "b", "resources": { "requests": { "cpu": "1" } } },
            ],
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": "1" } } }],
        }}))
        .unwrap();
        assert_eq!(pod_request(spec(&pod), "cpu"), "3".parse().unwrap());
    }
}
