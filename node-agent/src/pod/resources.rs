//! Quality of service, cgroups and OOM scores, as the kubelet computes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource;
use reeve_api::quantity::Quantity;
use reeve_engine::engine::Resources;

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

type List = Option<BTreeMap<String, resource::Quantity>>;

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

/// `Guaranteed`, `Burstable` or `BestEffort`. Source: Kubernetes `GetPodQOS`.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let mut any = false;
    let mut all_equal = true;
    for (container, _) in containers(spec) {
        for resource in ["cpu", "memory"] {
            let (request, limit) = (request(container, resource), limit(container, resource));
            let set = |amount: Option<Quantity>| amount.filter(|amount| !amount.is_zero());
            any |= set(request).is_some() || set(limit).is_some();
            all_equal &= set(limit).is_some() && request == limit;
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

/// Limits of the whole pod: the sum of its containers', where all have one.
pub(crate) fn pod_resources(spec: &PodSpec) -> Resources {
    let cpu: i64 = effective(spec, |container| request(container, "cpu")).map_or(0, |sum| sum.milli_value());
    Resources {
        cpu_shares: Some(shares(unsigned(cpu))),
        cpu_quota_us: all_limited(spec, "cpu").map(|limit| quota(unsigned(limit.milli_value()))),
        cpu_period_us: Some(PERIOD_US),
        memory_limit_bytes: all_limited(spec, "memory").map(|limit| limit.value()),
        ..Resources::default()
    }
}

/// What the pod needs of a resource: the larger of its containers' sum (with sidecars) and each init
/// container on top of the sidecars before it, plus overhead. Source: Kubernetes `PodRequests`.
pub(crate) fn pod_request(spec: &PodSpec, resource: &str) -> Quantity {
    let sum = effective(spec, |container| request(container, resource)).unwrap_or(Quantity::ZERO);
    sum + amount(&spec.overhead, resource).unwrap_or(Quantity::ZERO)
}

fn effective(spec: &PodSpec, of: impl Fn(&Container) -> Option<Quantity>) -> Option<Quantity> {
    let (mut sum, mut sidecars, mut init_max) = (Quantity::ZERO, Quantity::ZERO, Quantity::ZERO);
    for (container, role) in containers(spec) {
        let amount = of(container).unwrap_or(Quantity::ZERO);
        match role {
            Role::Init => init_max = init_max.max(sidecars + amount),
            Role::Sidecar => sidecars += amount,
            Role::Main => sum += amount,
            Role::Ephemeral => {}
        }
    }
    let total = (sum + sidecars).max(init_max);
    (!total.is_zero()).then_some(total)
}

fn all_limited(spec: &PodSpec, resource: &str) -> Option<Quantity> {
    let limited = containers(spec).all(|(container, _)| limit(container, resource).is_some_and(|l| !l.is_zero()));
    if limited { effective(spec, |container| limit(container, resource)) } else { None }
}

/// Limits of one container on a node with `memory_capacity` bytes.
pub(crate) fn container_resources(pod: &Pod, container: &Container, memory_capacity: u64) -> Resources {
    let cpu_limit = limit(container, "cpu").filter(|limit| !limit.is_zero());
    let cpu = request(container, "cpu").map_or(0, |request| request.milli_value());
    Resources {
        cpu_shares: Some(shares(unsigned(cpu))),
        cpu_quota_us: cpu_limit.map(|limit| quota(unsigned(limit.milli_value()))),
        cpu_period_us: Some(PERIOD_US),
        memory_limit_bytes: limit(container, "memory").filter(|limit| !limit.is_zero()).map(|limit| limit.value()),
        oom_score_adj: Some(oom_score_adj(pod, container, memory_capacity)),
        ..Resources::default()
    }
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
            let requested = request(container, "memory").map_or(0, |request| request.value());
            let part = 1000 * u128::from(unsigned(requested)) / u128::from(memory_capacity.max(1));
            (1000 - i32::try_from(part).unwrap_or(1000)).clamp(3, 999)
        }
    }
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
