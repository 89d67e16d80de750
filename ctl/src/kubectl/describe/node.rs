//! Nodes, with what their pods ask for.

use reeve_api::quantity::Quantity;
use serde_json::{Map, Value};

use super::text::{Text, age, at, date, flag, items, joined, plain};

/// What of a node's amounts has lines of its own whatever the node has.
const STANDARD: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// A node. `lease` is its lease or why it cannot be read; `pods` are those on it that have not ended.
pub(super) fn node(out: &mut Text, own: &Value, lease: Result<&Value, String>, pods: &[Value]) {
    out.line(0, "Name", at(own, "/metadata/name"));
    out.line(0, "Roles", &joined(&roles(own), ","));
    out.pairs(0, "Labels", own.pointer("/metadata/labels"));
    out.annotations(0, own);
    out.line(0, "CreationTimestamp", &date(at(own, "/metadata/creationTimestamp")));
    let taint = |own: &Value| {
        let value = at(own, "/value");
        let value = if value.is_empty() { String::new() } else { format!("={value}") };
        format!("{}{value}:{}", at(own, "/key"), at(own, "/effect"))
    };
    let mut taints: Vec<&Value> = items(own, "/spec/taints").iter().collect();
    taints.sort_by_key(|own| (at(own, "/effect"), at(own, "/key")));
    out.list(0, "Taints", &taints.into_iter().map(taint).collect::<Vec<_>>());
    out.line(0, "Unschedulable", &flag(own, "/spec/unschedulable").to_string());
    match lease {
        Ok(lease) => self::lease(out, lease),
        Err(err) => out.line(0, "Lease", &format!("Failed to get lease: {err}")),
    }
    conditions(out, items(own, "/status/conditions"));
    out.title(0, "Addresses");
    items(own, "/status/addresses")
        .iter()
        .for_each(|address| out.line(1, at(address, "/type"), at(address, "/address")));
    for (title, pointer) in [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")] {
        if let Some(all) = own.pointer(pointer).and_then(Value::as_object).filter(|all| !all.is_empty()) {
            out.title(0, title);
            all.iter().for_each(|(name, amount)| out.line(1, name, &plain(amount)));
        }
    }
    system_info(out, own);
    out.line_if(0, "PodCIDR", at(own, "/spec/podCIDR"));
    let ranges: Vec<String> = items(own, "/spec/podCIDRs").iter().map(plain).collect();
    out.line_if(0, "PodCIDRs", &ranges.join(","));
    out.line_if(0, "ProviderID", at(own, "/spec/providerID"));
    amounts(out, own, pods);
}

/// Roles are labels. Source: `k8s.io/kubectl/pkg/describe`, `findNodeRoles`.
fn roles(node: &Value) -> Vec<String> {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let role = |(key, value): (&String, &Value)| {
        let value = plain(value);
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => (!role.is_empty()).then(|| role.to_owned()),
            None => (key == "kubernetes.io/role" && !value.is_empty()).then_some(value),
        }
    };
    let mut all: Vec<String> = labels.into_iter().flatten().filter_map(role).collect();
    all.sort();
    all.dedup();
    all
}

fn lease(out: &mut Text, lease: &Value) {
    let time = |pointer: &str| Some(date(at(lease, pointer))).filter(|time| !time.is_empty());
    let or_unset = |text: Option<String>| text.unwrap_or_else(|| "<unset>".to_owned());
    out.title(0, "Lease");
    out.line(1, "HolderIdentity", &or_unset(lease.pointer("/spec/holderIdentity").map(plain)));
    out.line(1, "AcquireTime", &or_unset(time("/spec/acquireTime")));
    out.line(1, "RenewTime", &or_unset(time("/spec/renewTime")));
}

fn conditions(out: &mut Text, conditions: &[Value]) {
    if conditions.is_empty() {
        return;
    }
    out.raw("Conditions:\n  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage\n");
    out.raw("  ----\t------\t-----------------\t------------------\t------\t-------\n");
    for own in conditions {
        let time = |pointer: &str| date(at(own, pointer));
        out.raw(&format!(
            "  {} \t{} \t{} \t{} \t{} \t{}\n",
            at(own, "/type"),
            at(own, "/status"),
            time("/lastHeartbeatTime"),
            time("/lastTransitionTime"),
            at(own, "/reason"),
            at(own, "/message")
        ));
    }
}

fn system_info(out: &mut Text, node: &Value) {
    let titles = [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ];
    out.title(0, "System Info");
    titles.iter().for_each(|(title, field)| out.line(1, title, at(node, &format!("/status/nodeInfo/{field}"))));
}

fn quantity(value: Option<&Value>) -> Quantity {
    Quantity::from_value(value.unwrap_or(&Value::Null)).unwrap_or(Quantity::ZERO)
}

/// What a pod asks for (`requests`) or may have at most (`limits`) of something: its containers and lasting init
/// containers together, or what its init containers need at one time, plus the overhead. What the pod says for itself
/// comes before what its containers say.
/// Source: `k8s.io/component-helpers/resource`, `PodRequests` and `PodLimits`.
fn of_pod(pod: &Value, kind: &str, name: &str) -> Quantity {
    let of = |own: &Value| quantity(own.get("resources").and_then(|own| own.get(kind)).and_then(|own| own.get(name)));
    let mut sum: Quantity = items(pod, "/spec/containers").iter().map(of).sum();
    let (mut lasting, mut most) = (Quantity::ZERO, Quantity::ZERO);
    for init in items(pod, "/spec/initContainers") {
        if at(init, "/restartPolicy") == "Always" {
            lasting += of(init);
            most = most.max(lasting);
        } else {
            most = most.max(lasting + of(init));
        }
    }
    sum = (sum + lasting).max(most);
    if let Some(own) = pod.pointer("/spec/resources").and_then(|own| own.get(kind)).and_then(|own| own.get(name)) {
        sum = quantity(Some(own));
    }
    let overhead = pod.pointer("/spec/overhead").and_then(|own| own.get(name));
    if overhead.is_some() && (kind == "requests" || !sum.is_zero()) {
        sum += quantity(overhead);
    }
    sum
}

/// A share of the node in whole per cent; what a node has nothing of is shared at 0 %.
fn percent(amount: Quantity, all: Quantity) -> i64 {
    let (amount, all) = (i128::from(amount.milli_value()), i128::from(all.milli_value()));
    if all == 0 { 0 } else { i64::try_from(amount * 100 / all).unwrap_or(i64::MAX) }
}

fn amounts(out: &mut Text, node: &Value, pods: &[Value]) {
    let none = Map::new();
    let of_node = |pointer: &str| node.pointer(pointer).and_then(Value::as_object).filter(|all| !all.is_empty());
    let node = of_node("/status/allocatable").or_else(|| of_node("/status/capacity")).unwrap_or(&none);
    let share = |amount: Quantity, name: &str| format!("{amount} ({}%)", percent(amount, quantity(node.get(name))));
    out.line(0, "Non-terminated Pods", &format!("({} in total)", pods.len()));
    out.raw("  Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge\n");
    out.raw("  ---------\t----\t\t------------\t----------\t---------------\t-------------\t---\n");
    for pod in pods {
        let cell = |kind: &str, name: &str| share(of_pod(pod, kind, name), name);
        out.raw(&format!(
            "  {}\t{}\t\t{}\t{}\t{}\t{}\t{}\n",
            at(pod, "/metadata/namespace"),
            at(pod, "/metadata/name"),
            cell("requests", "cpu"),
            cell("limits", "cpu"),
            cell("requests", "memory"),
            cell("limits", "memory"),
            age(at(pod, "/metadata/creationTimestamp"))
        ));
    }
    out.raw("Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)\n");
    out.raw("  Resource\tRequests\tLimits\n  --------\t--------\t------\n");
    let total = |kind: &str, name: &str| pods.iter().map(|pod| of_pod(pod, kind, name)).sum::<Quantity>();
    let pages = node.keys().map(String::as_str).filter(|name| name.starts_with("hugepages-"));
    for name in STANDARD.into_iter().chain(pages) {
        let (requests, limits) = (share(total("requests", name), name), share(total("limits", name), name));
        out.raw(&format!("  {name}\t{requests}\t{limits}\n"));
    }
    let standard = |name: &&str| STANDARD.contains(name) || *name == "pods" || name.starts_with("hugepages-");
    for name in node.keys().map(String::as_str).filter(|name| !standard(name)) {
        out.raw(&format!("  {name}\t{}\t{}\n", total("requests", name), total("limits", name)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_asks_for_its_containers_or_for_what_starting_it_needs() {
        let of = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut lasting = of("100m");
        lasting["restartPolicy"] = "Always".into();
        let mut pod = json!({"spec": {"containers": [of("200m"), of("100m")], "initContainers": [lasting, of("1")]}});
        assert_eq!(of_pod(&pod, "requests", "cpu").to_string(), "1100m");
        assert_eq!(of_pod(&pod, "limits", "cpu").to_string(), "0");
        pod["spec"]["overhead"] = json!({"cpu": "50m"});
        pod["spec"]["resources"] = json!({"requests": {"cpu": "2"}});
        assert_eq!(of_pod(&pod, "requests", "cpu").to_string(), "2050m");
    }

    #[test]
    fn a_node_shows_what_its_pods_ask_for_beside_what_it_has() {
        let node = json!({"status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "110", "x.io/gpu": "1"}}});
        let pod = json!({"metadata": {"namespace": "default", "name": "web"},
            "spec": {"containers": [{"resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "256Mi"}}}]}});
        let mut out = Text::default();
        amounts(&mut out, &node, &[pod]);
        let text = out.finish();
        assert!(text.contains("  default\tweb\t\t500m (25%)\t0 (0%)\t0 (0%)\t256Mi (25%)\t"), "{text}");
        assert!(text.contains("  cpu\t500m (25%)\t0 (0%)\n  memory\t0 (0%)\t256Mi (25%)\n"), "{text}");
        assert!(text.ends_with("  ephemeral-storage\t0 (0%)\t0 (0%)\n  x.io/gpu\t0\t0\n"), "{text}");
    }
}
