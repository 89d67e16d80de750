//! PodTopologyLabels: a pod that gets a node gets the labels that say in which zone and region that is.
//!
//! Source: Kubernetes' plugin `podtopologylabels`.

use serde_json::Value;

use super::{Attributes, Operation};
use crate::registry::{Registry, meta};

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// Sets the labels of a binding, which brings them into the pod, or of a pod that comes with its node.
pub(super) fn mutate(registry: &Registry, attributes: &mut Attributes<'_>) {
    if attributes.operation != Operation::Create || !attributes.request.resource.is("", "pods") {
        return;
    }
    let object = &attributes.object;
    let node = match attributes.subresource {
        "" => object["spec"]["nodeName"].as_str(),
        "binding" if object["target"]["kind"] == "Node" => object["target"]["name"].as_str(),
        _ => None,
    };
    let Some(node) = node.filter(|node| !node.is_empty()) else { return };
    let Some(node) = registry.core("nodes").and_then(|nodes| registry.peek(&nodes, "", node)) else { return };
    copy(&node.value(), &mut attributes.object);
}

fn copy(node: &Value, object: &mut Value) {
    let mut labels = meta::get(object, "labels").as_object().cloned().unwrap_or_default();
    let of_node = meta::get(node, "labels");
    let brought: Vec<_> = LABELS.iter().filter_map(|name| Some((*name, of_node.get(*name)?))).collect();
    if brought.is_empty() {
        return;
    }
    labels.extend(brought.into_iter().map(|(name, value)| (name.to_owned(), value.clone())));
    meta::set(object, "labels", labels);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zone_and_region_of_the_node_win() {
        let node = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": "a", "other": "x" } } });
        let mut pod = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": "b", "app": "web" } } });
        copy(&node, &mut pod);
        assert_eq!(pod["metadata"]["labels"], json!({ "topology.kubernetes.io/zone": "a", "app": "web" }));
    }
}
