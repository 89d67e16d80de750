//! What pods cost: the requests and limits of their containers.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::amounts::{Amounts, add, amounts, raise};
use crate::quantity::{Format, Quantity};

/// What is counted of pods, besides huge pages and extended resources.
const NAMES: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// What every container must say when a quota limits it.
const DEMANDED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether the name in a quota is about pods; `count/pods` aside.
pub(super) fn is_counted_by(name: &str) -> bool {
    NAMES.contains(&name)
        || name.starts_with(HUGE_PAGES)
        || name.strip_prefix(REQUESTS).is_some_and(|rest| rest.starts_with(HUGE_PAGES) || is_extended(rest))
}

/// Whether the resource is none of Kubernetes' own: `example.com/gpu`.
fn is_extended(name: &str) -> bool {
    name.contains('/') && (!name.contains("kubernetes.io/") || name.starts_with("deviceclass.resource.kubernetes.io/"))
}

/// Whether the pod ends by itself after a time.
#[must_use]
pub fn is_terminating(pod: &Value) -> bool {
    pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0)
}

/// Whether the pod still uses what it asked for: it has not finished, and is not past its end.
#[must_use]
pub fn is_counted(pod: &Value, now: Timestamp) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) {
        return false;
    }
    let meta = &pod["metadata"];
    let deleted = meta["deletionTimestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    let (Some(deleted), Some(grace)) = (deleted, meta["deletionGracePeriodSeconds"].as_i64()) else { return true };
    let over = deleted.checked_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
    over >= now
}

/// What the pod costs besides being one.
pub(super) fn cost(pod: &Value, now: Timestamp) -> Amounts {
    if is_counted(pod, now) { named(&requests(pod), &limits(pod)) } else { Amounts::new() }
}

/// Requests and limits under the names of quotas.
fn named(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut out = Amounts::new();
    out.insert("pods".to_owned(), Quantity::new(1, Format::DecimalSi));
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = requests.get(name) {
            out.insert(name.to_owned(), *amount);
            out.insert(format!("{REQUESTS}{name}"), *amount);
        }
        if let Some(amount) = limits.get(name) {
            out.insert(format!("limits.{name}"), *amount);
        }
    }
    for (name, amount) in requests {
        if name.starts_with(HUGE_PAGES) {
            out.insert(name.clone(), *amount);
        }
        if name.starts_with(HUGE_PAGES) || is_extended(name) {
            out.insert(format!("{REQUESTS}{name}"), *amount);
        }
    }
    out
}

/// What a quota demands of each container and some do not say: `must specify cpu for: a,b; memory for: a`.
pub(super) fn unstated(demanded: &[String], pod: &Value) -> Option<String> {
    let spec = &pod["spec"];
    if is_pod_level(&spec["resources"]["requests"]) || is_pod_level(&spec["resources"]["limits"]) {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in list(spec, "containers").iter().chain(list(spec, "initContainers")) {
        let resources = &container["resources"];
        let said = named(&amounts(&resources["requests"]), &amounts(&resources["limits"]));
        let demanded = demanded.iter().map(String::as_str).filter(|name| DEMANDED.contains(name));
        for name in demanded.filter(|name| !said.contains_key(*name)) {
            missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
        }
    }
    let told: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")))
        .collect();
    (!told.is_empty()).then(|| format!("must specify {}", told.join("; ")))
}

fn is_of_pods(name: &str) -> bool {
    ["cpu", "memory"].contains(&name) || name.starts_with(HUGE_PAGES)
}

fn is_pod_level(list: &Value) -> bool {
    list.as_object().is_some_and(|list| list.keys().any(|name| is_of_pods(name)))
}

/// What the pod asks for, all containers together: those that run at the same time, or what its init containers need
/// at one time. What the pod says for itself wins; overhead comes on top.
#[must_use]
pub fn requests(pod: &Value) -> Amounts {
    let infeasible = list(&pod["status"], "conditions")
        .iter()
        .any(|one| one["type"] == "PodResizePending" && one["reason"] == "Infeasible");
    total(pod, "requests", |container, status| {
        let wanted = amounts(&container["resources"]["requests"]);
        let Some(status) = status.filter(|status| status["resources"].is_object()) else { return wanted };
        let mut effective = amounts(&status["resources"]["requests"]);
        raise(&mut effective, &amounts(&status["allocatedResources"]));
        if !infeasible {
            raise(&mut effective, &wanted);
        }
        effective
    })
}

/// What the pod may use at most, computed as [`requests`].
#[must_use]
pub fn limits(pod: &Value) -> Amounts {
    total(pod, "limits", |container, status| {
        let mut wanted = amounts(&container["resources"]["limits"]);
        if let Some(status) = status.filter(|status| status["resources"].is_object()) {
            raise(&mut wanted, &amounts(&status["resources"]["limits"]));
        }
        wanted
    })
}

fn total(pod: &Value, kind: &str, of: impl Fn(&Value, Option<&Value>) -> Amounts) -> Amounts {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let status_of = |container: &Value| {
        let mut all = list(status, "containerStatuses").iter().chain(list(status, "initContainerStatuses"));
        all.find(|status| status["name"] == container["name"])
    };
    let mut sum = Amounts::new();
    for container in list(spec, "containers") {
        add(&mut sum, &of(container, status_of(container)));
    }
    let (mut sidecars, mut initial) = (Amounts::new(), Amounts::new());
    for container in list(spec, "initContainers") {
        if container["restartPolicy"] == "Always" {
            let own = of(container, status_of(container));
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut initial, &sidecars);
        } else {
            let mut own = of(container, None);
            add(&mut own, &sidecars);
            raise(&mut initial, &own);
        }
    }
    raise(&mut sum, &initial);
    for (name, amount) in amounts(&spec["resources"][kind]) {
        if is_of_pods(&name) {
            sum.insert(name, amount);
        }
    }
    for (name, amount) in amounts(&spec["overhead"]) {
        // Overhead is no limit where there is none.
        if kind == "requests" || sum.get(&name).is_some_and(|limit| !limit.is_zero()) {
            add(&mut sum, &Amounts::from([(name, amount)]));
        }
    }
    sum
}
