//! TaintNodesByCondition: a node is not ready before it says so, and takes no pods until then.
//!
//! The node controller takes the taint away. Source: Kubernetes' plugin `nodetaint`.

use serde_json::{Value, json};

use super::{Attributes, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Taints a new node.
pub(super) fn mutate(attributes: &mut Attributes<'_>) {
    if attributes.operation == Operation::Create && attributes.is("", "nodes") {
        taint(&mut attributes.object);
    }
}

fn taint(node: &mut Value) {
    if !node["spec"].is_object() {
        node["spec"] = json!({});
    }
    let taints = &mut node["spec"]["taints"];
    if !taints.is_array() {
        *taints = json!([]);
    }
    let Some(taints) = taints.as_array_mut() else { return };
    if !taints.iter().any(|taint| taint["key"] == NOT_READY && taint["effect"] == "NoSchedule") {
        taints.push(json!({ "key": NOT_READY, "effect": "NoSchedule" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_gets_the_taint_once() {
        let mut node = json!({"metadata": {"name": "n"}});
        taint(&mut node);
        taint(&mut node);
        assert_eq!(node["spec"], json!({"taints": [{"key": NOT_READY, "effect": "NoSchedule"}]}));
        let mut node = json!({"spec": {"taints": [{"key": NOT_READY, "effect": "NoExecute"}]}});
        taint(&mut node);
        assert_eq!(node["spec"]["taints"].as_array().map(Vec::len), Some(2));
    }
}
