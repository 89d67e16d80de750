//! Which node is asked for an image. Pure.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{ContainerImage, Node};
use reeve_engine::images::peers::Peer;

/// How many nodes are asked for one image. More would say the same, or are as unreachable.
const ASKED_MAX: usize = 8;
/// How many images a node tells of. Source: kubelet `nodeStatusMaxImages`.
pub(crate) const TOLD_MAX: usize = 50;

/// Keeps what is read here: addresses, the server's port, and the images that were made.
pub(super) fn trim(node: &mut Node) {
    node.spec = None;
    node.metadata.labels = None;
    node.metadata.annotations = None;
    let Some(status) = &mut node.status else { return };
    if let Some(images) = &mut status.images {
        images.retain(was_made);
    }
    status.conditions = None;
    status.capacity = None;
    status.allocatable = None;
    status.node_info = None;
}

/// Whether an image was built or loaded: what a registry gave has a digest there.
fn was_made(image: &ContainerImage) -> bool {
    let names = image.names.as_deref().unwrap_or_default();
    !names.is_empty() && !names.iter().any(|name| name.contains('@'))
}

/// The names of the images that were made on a node.
pub(super) fn made(node: &Node) -> Vec<&str> {
    let images = node.status.as_ref().and_then(|status| status.images.as_deref()).unwrap_or_default();
    let names = images.iter().filter(|image| was_made(image)).flat_map(|image| image.names.iter().flatten());
    names.map(String::as_str).collect()
}

/// The nodes that say they have made an image.
pub(super) fn holders<'n>(nodes: impl Iterator<Item = &'n Node>, own: &str, name: &str) -> Vec<Peer> {
    some(nodes.filter(|node| made(node).contains(&name)), own)
}

/// The nodes that have made more images than they can tell of.
pub(super) fn silent<'n>(nodes: impl Iterator<Item = &'n Node>, own: &str) -> Vec<Peer> {
    some(nodes.filter(|node| made(node).len() >= TOLD_MAX), own)
}

fn some<'n>(nodes: impl Iterator<Item = &'n Node>, own: &str) -> Vec<Peer> {
    nodes.filter_map(peer).filter(|peer| peer.node != own).take(ASKED_MAX).collect()
}

/// Where a node's agent serves; `None` as long as it has not said so.
fn peer(node: &Node) -> Option<Peer> {
    let status = node.status.as_ref()?;
    let address = status.addresses.iter().flatten().find(|address| address.type_ == "InternalIP")?;
    let address: IpAddr = address.address.parse().ok()?;
    let port = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?.port;
    let port = u16::try_from(port).ok().filter(|port| *port != 0)?;
    Some(Peer { node: node.metadata.name.clone()?, address: SocketAddr::new(address, port) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, images: serde_json::Value) -> Node {
        let mut node = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "a": "b" } },
            "status": {
                "addresses": [{ "type": "Hostname", "address": name }, { "type": "InternalIP", "address": "10.0.0.7" }],
                "daemonEndpoints": { "kubeletEndpoint": { "Port": 10250 } },
                "images": images,
            },
        }))
        .unwrap();
        trim(&mut node);
        node
    }

    #[test]
    fn only_other_nodes_that_have_made_the_image_are_asked() {
        let own = json!([{ "names": ["docker.io/team/app:1", "docker.io/team/app:2"] }]);
        let pulled = json!([{ "names": ["docker.io/team/app@sha256:1", "docker.io/team/app:1"] }]);
        let nodes = [node("a", own.clone()), node("b", own), node("c", pulled), node("d", json!(null))];
        let asked = |name: &str| holders(nodes.iter(), "a", name);
        let address = "10.0.0.7:10250".parse().unwrap();
        assert_eq!(asked("docker.io/team/app:2"), [Peer { node: "b".to_owned(), address }]);
        assert_eq!(asked("docker.io/team/app:3"), []);
        assert!(silent(nodes.iter(), "a").is_empty());
        assert!(nodes[2].status.as_ref().unwrap().images.as_ref().unwrap().is_empty(), "nobody reads them");
    }

    #[test]
    fn a_node_whose_list_is_full_may_have_more() {
        let full: Vec<_> = (0..TOLD_MAX).map(|n| json!({ "names": [format!("docker.io/team/app:{n}")] })).collect();
        let nodes: Vec<Node> = (0..20).map(|n| node(&format!("n{n}"), json!(full))).collect();
        assert_eq!(silent(nodes.iter(), "n0").len(), ASKED_MAX);
        assert!(silent(nodes.iter(), "n0").iter().all(|peer| peer.node != "n0"));
    }

    #[test]
    fn a_node_that_has_not_said_where_it_is_is_not_asked() {
        let images = json!([{ "names": ["docker.io/team/app:1"] }]);
        let mut silent = node("b", images);
        silent.status.as_mut().unwrap().daemon_endpoints = None;
        assert_eq!(holders([&silent].into_iter(), "a", "docker.io/team/app:1"), []);
    }
}
