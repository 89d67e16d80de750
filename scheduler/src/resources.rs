//! Amounts of CPU, memory and whatever else pods ask for and nodes offer.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use reeve_api::quantity::Quantity;

type Quantities = BTreeMap<String, Text>;

/// What a container without a request counts for when nodes are compared, so that such pods spread too.
/// Source: kube-scheduler's `DefaultMilliCPURequest` and `DefaultMemoryRequest`.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// The amounts that nearly every pod and node has, compact enough to be compared for thousands of nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of `ephemeral-storage`.
    pub storage: i64,
    /// Pods: how many a node may hold; 1 for a pod.
    pub pods: i64,
}

/// Amounts of one pod or node, extended resources included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// The usual ones.
    pub amounts: Amounts,
    /// All others by name: huge pages, devices.
    pub scalars: BTreeMap<String, i64>,
}

impl Amounts {
    /// Adds another amount. Saturates: what is absurd must not become negative.
    pub fn add(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.saturating_add(other.milli_cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.storage = self.storage.saturating_add(other.storage);
        self.pods = self.pods.saturating_add(other.pods);
    }

    /// Takes away an amount that was added before.
    pub fn sub(&mut self, other: &Self) {
        self.milli_cpu = self.milli_cpu.saturating_sub(other.milli_cpu);
        self.memory = self.memory.saturating_sub(other.memory);
        self.storage = self.storage.saturating_sub(other.storage);
        self.pods = self.pods.saturating_sub(other.pods);
    }
}

impl Resources {
    /// Reads a resource list. A quantity that does not parse counts as nothing: the API server refuses it anyway.
    #[must_use]
    pub fn parse(quantities: Option<&Quantities>) -> Self {
        let mut resources = Self::default();
        for (name, text) in quantities.into_iter().flatten() {
            let Ok(quantity) = text.0.parse::<Quantity>() else { continue };
            let amounts = &mut resources.amounts;
            match name.as_str() {
                "cpu" => amounts.milli_cpu = quantity.milli_value(),
                "memory" => amounts.memory = quantity.value(),
                "ephemeral-storage" => amounts.storage = quantity.value(),
                "pods" => amounts.pods = quantity.value(),
                _ => {
                    resources.scalars.insert(name.clone(), quantity.value());
                }
            }
        }
        resources
    }

    fn add(&mut self, other: &Self) {
        self.amounts.add(&other.amounts);
        for (name, amount) in &other.scalars {
            let sum = self.scalars.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    fn raise_to(&mut self, other: &Self) {
        let (own, other_amounts) = (&mut self.amounts, &other.amounts);
        own.milli_cpu = own.milli_cpu.max(other_amounts.milli_cpu);
        own.memory = own.memory.max(other_amounts.memory);
        own.storage = own.storage.max(other_amounts.storage);
        for (name, amount) in &other.scalars {
            let own = self.scalars.entry(name.clone()).or_default();
            *own = (*own).max(*amount);
        }
    }
}

/// What a pod needs: its containers together, or its hungriest moment during initialisation if that is more,
/// and its overhead. Sidecars (init containers that restart) count in both. Source: KEP-753, `PodRequests`.
///
/// While it is resized it counts with the most of what it wants, was granted and has (KEP-1287).
#[must_use]
pub fn requests(spec: &PodSpec, status: Option<&PodStatus>) -> Resources {
    let mut total = sum_of_containers(spec, |container| of_container(container, status));
    replace_with_pod_level(&mut total, spec, status);
    total.add(&Resources::parse(spec.overhead.as_ref()));
    total.amounts.pods = 1;
    total
}

/// The same for comparing nodes: containers that say nothing count with Kubernetes' defaults.
#[must_use]
pub fn requests_for_scoring(spec: &PodSpec, status: Option<&PodStatus>) -> Amounts {
    let mut total = sum_of_containers(spec, |container| {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let mut resources = of_container(container, status);
        if requests.is_none_or(|requests| !requests.contains_key("cpu")) {
            resources.amounts.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if requests.is_none_or(|requests| !requests.contains_key("memory")) {
            resources.amounts.memory = DEFAULT_MEMORY;
        }
        resources
    });
    replace_with_pod_level(&mut total, spec, status);
    total.add(&Resources::parse(spec.overhead.as_ref()));
    total.amounts
}

/// Whether a pod will never get what it wants where it is: then that does not count.
fn is_infeasible(status: &PodStatus) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|own| own.type_ == "PodResizePending" && own.reason.as_deref() == Some("Infeasible"))
}

/// What a container counts with: an init container that does not stay, with what it wants.
fn of_container(container: &Container, status: Option<&PodStatus>) -> Resources {
    let wanted = Resources::parse(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
    let told = status.and_then(|status| {
        let sidecars = status.init_container_statuses.iter().flatten();
        let sidecars = sidecars.filter(|_| container.restart_policy.as_deref() == Some("Always"));
        let own = status.container_statuses.iter().flatten().chain(sidecars).find(|own| own.name == container.name)?;
        let has = own.resources.as_ref()?.requests.as_ref();
        Some((is_infeasible(status), Resources::parse(has), Resources::parse(own.allocated_resources.as_ref())))
    });
    match told {
        Some((infeasible, has, granted)) => most(wanted, infeasible, &has, &granted),
        None => wanted,
    }
}

fn most(wanted: Resources, infeasible: bool, has: &Resources, granted: &Resources) -> Resources {
    let mut most = if infeasible { Resources::default() } else { wanted };
    most.raise_to(has);
    most.raise_to(granted);
    most
}

fn replace_with_pod_level(total: &mut Resources, spec: &PodSpec, status: Option<&PodStatus>) {
    let Some(wanted) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) else { return };
    let told = status.and_then(|status| Some((status, status.resources.as_ref()?.requests.as_ref())));
    let parsed = Resources::parse(Some(wanted));
    let parsed = match told {
        Some((status, has)) => {
            let granted = Resources::parse(status.allocated_resources.as_ref());
            most(parsed, is_infeasible(status), &Resources::parse(has), &granted)
        }
        None => parsed,
    };
    if wanted.contains_key("cpu") {
        total.amounts.milli_cpu = parsed.amounts.milli_cpu;
    }
    if wanted.contains_key("memory") {
        total.amounts.memory = parsed.amounts.memory;
    }
    total.scalars.extend(parsed.scalars.into_iter().filter(|(name, _)| wanted.contains_key(name)));
}

fn sum_of_containers(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let (mut running, mut sidecars, mut initialising) = <(Resources, Resources, Resources)>::default();
    for container in &spec.containers {
        running.add(&of(container));
    }
    for container in spec.init_containers.iter().flatten() {
        let mut moment = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&moment);
            sidecars.add(&moment);
            moment = sidecars.clone();
        } else {
            moment.add(&sidecars);
        }
        initialising.raise_to(&moment);
    }
    running.raise_to(&initialising);
    running
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn container(cpu: &str, memory: &str, sidecar: bool) -> Value {
        let mut container = json!({ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": memory } } });
        if sidecar {
            container["restartPolicy"] = "Always".into();
        }
        container
    }

    fn spec(containers: &[Value], init: &[Value]) -> PodSpec {
        serde_json::from_value(json!({ "containers": containers, "initContainers": init })).unwrap()
    }

    #[test]
    fn containers_add_up_and_init_containers_count_one_at_a_time() {
        let containers = [container("100m", "1Gi", false), container("200m", "1Gi", false)];
        let init = [container("1", "1Mi", false), container("250m", "3Gi", false)];
        let needed = requests(&spec(&containers, &init), None).amounts;
        assert_eq!((needed.milli_cpu, needed.memory, needed.pods), (1000, 3 << 30, 1));
    }

    #[test]
    fn sidecars_count_beside_the_containers_and_beside_later_init_containers() {
        let init = [container("300m", "0", true), container("1", "0", false)];
        assert_eq!(requests(&spec(&[container("500m", "0", false)], &init), None).amounts.milli_cpu, 1300);
        let init = [container("1", "0", false), container("300m", "0", true)];
        assert_eq!(requests(&spec(&[container("900m", "0", false)], &init), None).amounts.milli_cpu, 1200);
    }

    #[test]
    fn overhead_and_pod_level_requests_are_respected() {
        let mut spec = spec(&[container("100m", "1Gi", false)], &[]);
        spec.overhead = serde_json::from_value(json!({ "cpu": "50m" })).unwrap();
        assert_eq!(requests(&spec, None).amounts.milli_cpu, 150);
        spec.resources = serde_json::from_value(json!({ "requests": { "cpu": "2" } })).unwrap();
        let needed = requests(&spec, None).amounts;
        assert_eq!((needed.milli_cpu, needed.memory), (2050, 1 << 30));
    }

    #[test]
    fn a_pod_that_is_resized_counts_with_the_most_it_wants_was_granted_or_has() {
        let spec = spec(&[container("300m", "1Gi", false)], &[]);
        let status = |has: &str, granted: &str, reason: &str| -> PodStatus {
            let own = json!({ "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "resources": { "requests": { "cpu": has } }, "allocatedResources": { "cpu": granted } });
            let condition = json!({ "type": "PodResizePending", "status": "True", "reason": reason });
            serde_json::from_value(json!({ "containerStatuses": [own], "conditions": [condition] })).unwrap()
        };
        let cpu = |status: &PodStatus| requests(&spec, Some(status)).amounts.milli_cpu;
        assert_eq!(cpu(&status("100m", "200m", "Deferred")), 300);
        assert_eq!(cpu(&status("500m", "400m", "Deferred")), 500, "until it has given it back");
        assert_eq!(cpu(&status("100m", "200m", "Infeasible")), 200, "what it never gets does not count");
    }

    #[test]
    fn silent_containers_count_for_comparing_only() {
        let spec: PodSpec = serde_json::from_value(json!({ "containers": [{ "name": "c" }] })).unwrap();
        assert_eq!(requests(&spec, None).amounts, Amounts { pods: 1, ..Amounts::default() });
        let compared = requests_for_scoring(&spec, None);
        assert_eq!((compared.milli_cpu, compared.memory), (100, 200 * 1024 * 1024));
    }
}
