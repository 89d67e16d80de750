//! Resources as the status shows them: what containers and pod really have. Pure.
//!
//! Source: kubelet `convertToAPIContainerStatuses` and `convertToAPIPodLevelResourcesStatus`.

use k8s_openapi::api::core::v1::ResourceRequirements;
use reeve_api::quantity::{Format, Quantity};
use reeve_engine::engine::Resources;

use super::resources::{Amounts, Size, pod_limits, pod_requests, text};
use super::state::PodState;

/// At or below these thousandths of a CPU the kernel knows no difference, and what was granted is shown.
/// Source: kubelet `MinShares`, `MinMilliCPULimit`.
const CPU_REQUEST_MIN: i64 = 2;
const CPU_LIMIT_MIN: i64 = 10;

/// What a running container of this size has: `granted` with the amounts that the engine was told.
pub(crate) fn of_container(granted: ResourceRequirements, size: Size) -> ResourceRequirements {
    let ResourceRequirements { mut limits, mut requests, claims } = granted;
    if let Some(limits) = &mut limits {
        show_cpu(limits, size.cpu_limit, CPU_LIMIT_MIN);
        show_memory(limits, size.memory_limit);
    }
    if let Some(requests) = &mut requests {
        show_cpu(requests, size.cpu_request, CPU_REQUEST_MIN);
        // Nobody tells the kernel of it.
        if size.memory_request > 0 && size.memory_request != parsed(requests, "memory").value() {
            show_memory(requests, size.memory_request);
        }
    }
    ResourceRequirements { limits, requests, claims }
}

fn parsed(list: &Amounts, resource: &str) -> Quantity {
    list.get(resource).and_then(|amount| amount.0.parse().ok()).unwrap_or(Quantity::ZERO)
}

fn show_cpu(list: &mut Amounts, milli: i64, least: i64) {
    let granted = parsed(list, "cpu").milli_value();
    if milli > 0 && (milli > least || granted > least) {
        list.insert("cpu".to_owned(), text(Quantity::from_milli(milli.max(least))));
    }
}

fn show_memory(list: &mut Amounts, bytes: i64) {
    if bytes > 0 {
        list.insert("memory".to_owned(), text(Quantity::new(bytes, Format::BinarySi)));
    }
}

/// `status.resources`: what the pod has as a whole.
pub(crate) fn of_pod(state: &PodState, phase: &str) -> ResourceRequirements {
    let requests = pod_requests(state.spec());
    let Some(group) = state.resize.group.as_ref().filter(|_| phase == "Running") else {
        return listed(pod_limits(state.spec()), requests);
    };
    let own = state.spec().resources.clone().unwrap_or_default();
    let (mut limits, mut asked) = (own.limits.unwrap_or_default(), own.requests.unwrap_or_default());
    show_cpu(&mut asked, requested_milli(group), CPU_REQUEST_MIN);
    if let Some(memory) = requests.get("memory").filter(|_| !asked.contains_key("memory")) {
        asked.insert("memory".to_owned(), memory.clone());
    }
    show_cpu(&mut limits, limited_milli(group), CPU_LIMIT_MIN);
    show_memory(&mut limits, group.memory_limit_bytes.unwrap_or(0));
    listed(limits, asked)
}

fn listed(limits: Amounts, requests: Amounts) -> ResourceRequirements {
    let some = |list: Amounts| Some(list).filter(|list| !list.is_empty());
    ResourceRequirements { limits: some(limits), requests: some(requests), claims: None }
}

/// What shares of the processor were asked for with. Source: kubelet `SharesToMilliCPU`.
fn requested_milli(group: &Resources) -> i64 {
    let shares = group.cpu_shares.and_then(|shares| i64::try_from(shares).ok()).unwrap_or(0);
    shares.saturating_mul(1000).saturating_add(1023) / 1024
}

/// Source: kubelet `QuotaToMilliCPU`.
fn limited_milli(group: &Resources) -> i64 {
    let period = group.cpu_period_us.and_then(|period| i64::try_from(period).ok()).filter(|period| *period > 0);
    let quota = group.cpu_quota_us.unwrap_or(0).max(0);
    period.map_or(0, |period| quota.saturating_mul(1000) / period)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::super::resources::pod_resources;
    use super::*;

    fn shown(granted: Value, size: Size) -> Value {
        serde_json::to_value(of_container(serde_json::from_value(granted).unwrap(), size)).unwrap()
    }

    #[test]
    fn a_container_shows_what_it_has_until_it_has_what_was_granted() {
        let granted = json!({ "limits": { "cpu": "200m", "memory": "80Mi", "x/y": "1" },
                              "requests": { "cpu": "200m", "memory": "40Mi" } });
        let mib = 1 << 20;
        let before = Size { cpu_request: 100, cpu_limit: 100, memory_request: 30 * mib, memory_limit: 60 * mib };
        let has = json!({ "limits": { "cpu": "100m", "memory": "60Mi", "x/y": "1" },
                          "requests": { "cpu": "100m", "memory": "30Mi" } });
        assert_eq!(shown(granted.clone(), before), has);
        let after = Size { cpu_request: 200, cpu_limit: 200, memory_request: 40 * mib, memory_limit: 80 * mib };
        assert_eq!(shown(granted.clone(), after), granted);
    }

    #[test]
    fn amounts_too_small_for_the_kernel_are_shown_as_granted() {
        let small = json!({ "limits": { "cpu": "5m" }, "requests": { "cpu": "1m" } });
        let size = Size { cpu_request: 1, cpu_limit: 5, ..Size::default() };
        assert_eq!(shown(small.clone(), size), small);
        let larger = json!({ "limits": { "cpu": "20m" }, "requests": { "cpu": "20m" } });
        assert_eq!(shown(larger, size), json!({ "limits": { "cpu": "10m" }, "requests": { "cpu": "2m" } }));
    }

    #[test]
    fn a_pod_shows_the_sum_of_its_containers_and_when_it_runs_what_its_group_has() {
        let container = json!({ "name": "c", "resources": {
            "limits": { "cpu": "100m", "memory": "64Mi" }, "requests": { "cpu": "50m", "memory": "32Mi" } } });
        let pod = json!({ "spec": { "containers": [container, container] } });
        let mut state = PodState::new(Arc::new(serde_json::from_value(pod).unwrap()), Timestamp::UNIX_EPOCH);
        let whole =
            json!({ "limits": { "cpu": "200m", "memory": "128Mi" }, "requests": { "cpu": "100m", "memory": "64Mi" } });
        let shown = |state: &PodState, phase| serde_json::to_value(of_pod(state, phase)).unwrap();
        assert_eq!(shown(&state, "Pending"), whole);
        state.resize.group = Some(pod_resources(state.spec()));
        assert_eq!(shown(&state, "Running"), whole);
        state.resize.group = Some(Resources { cpu_shares: Some(2), ..Resources::default() });
        assert_eq!(shown(&state, "Running"), json!({ "requests": { "memory": "64Mi" } }));
    }
}
