//! PodResizeValidator: a pod does not grow beyond what its node has at all.
//!
//! Source: Kubernetes' plugin `podresize`.

use reeve_api::quantity::Quantity;
use reeve_api::quota;
use serde_json::{Value, json};

use super::{Attributes, Operation, forbidden};
use crate::registry::{Registry, meta};
use crate::status::{ApiError, Cause};

/// Refuses a resize that the pod's node can never carry out.
pub(super) fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let is_resize = attributes.request.resource.is("", "pods") && attributes.subresource == "resize";
    let Some(old) = attributes.old.filter(|_| is_resize && attributes.operation == Operation::Update) else {
        return Ok(());
    };
    let pod = &attributes.object;
    let name = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    // The generation says whether anything is resized.
    if name.is_empty() || meta::get(old, "generation") == meta::get(pod, "generation") {
        return Ok(());
    }
    let Some(nodes) = registry.core("nodes") else { return Ok(()) };
    let node = registry.peek(&nodes, "", name);
    let node = node.ok_or_else(|| forbidden(attributes, &format!("node {name:?} not found")))?.value();
    let refuse = |why: &str, reason: &str| {
        let mut error = forbidden(attributes, why);
        if let Some(details) = &mut error.details {
            details.causes.push(Cause { reason: reason.to_owned(), message: String::new(), field: String::new() });
        }
        Err(error)
    };
    if let Some(why) = unsupported(&node) {
        return refuse(&why, "UnsupportedPlatform");
    }
    match too_large(pod, &node) {
        Some(why) => refuse(&why, "NodeCapacity"),
        None => Ok(()),
    }
}

fn unsupported(node: &Value) -> Option<String> {
    let system = meta::get(node, "labels")["kubernetes.io/os"].as_str()?;
    let name = meta::text(node, "name");
    let message = || format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
    (system != "linux").then(message)
}

fn too_large(pod: &Value, node: &Value) -> Option<String> {
    // What is asked for now, whatever the node has granted so far.
    let wanted = quota::pod_requests(&json!({ "spec": pod["spec"] }));
    let zero = || Quantity::new(0, reeve_api::quantity::Format::DecimalSi);
    let mut told = Vec::new();
    for (name, in_milli) in [("cpu", true), ("memory", false)] {
        let there = Quantity::from_value(&node["status"]["allocatable"][name]).unwrap_or_else(|_| zero());
        let asked = wanted.get(name).copied().unwrap_or_else(zero);
        if asked > there {
            let number = |of: Quantity| if in_milli { of.milli_value() } else { of.value() };
            told.push(format!("{name}, requested: {}, allocatable: {}", number(asked), number(there)));
        }
    }
    (!told.is_empty()).then(|| format!("node didn't have enough allocatable resources: {}", told.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_has_not_at_all_is_refused_in_numbers() {
        let node = json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "memory": "1Gi"}}});
        let pod = |cpu: &str, memory: &str| json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}});
        assert_eq!(too_large(&pod("2", "1Gi"), &node), None);
        assert_eq!(
            too_large(&pod("2500m", "2Gi"), &node).as_deref(),
            Some(
                "node didn't have enough allocatable resources: cpu, requested: 2500, allocatable: 2000; memory, \
                 requested: 2147483648, allocatable: 1073741824"
            )
        );
    }

    #[test]
    fn only_nodes_of_linux_resize() {
        let node = |system: &str| json!({"metadata": {"name": "n", "labels": {"kubernetes.io/os": system}}});
        assert_eq!(unsupported(&node("linux")), None);
        assert_eq!(unsupported(&json!({"metadata": {}})), None);
        let why = "pod resize is only supported on linux nodes, node \"n\" is \"windows\"";
        assert_eq!(unsupported(&node("windows")).as_deref(), Some(why));
    }
}
