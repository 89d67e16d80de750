//! NodeRestriction: what a node's identity may change.

use super::pods::pod;
use super::*;

/// The world through the eyes of node `n1`, with a pod of its own, `mine`, and one of another node, `other`.
async fn world() -> World {
    let mut world = super::pods::world().await;
    for (name, node) in [("mine", "n1"), ("other", "n2")] {
        world.create("pods", pod(name)).await;
        let binding = json!({"metadata": {"name": name}, "target": {"name": node}});
        world.create(&format!("pods/{name}:binding"), binding).await;
    }
    for name in ["n1", "n2"] {
        world.create("nodes", json!({"metadata": {"name": name}})).await;
        world.create("leases/kube-node-lease/", json!({"metadata": {"name": name}})).await;
    }
    world.user = UserInfo::new("system:node:n1", &["system:nodes", "system:authenticated"]);
    world
}

fn phase(phase: &str) -> Value {
    json!({"status": {"phase": phase}})
}

#[tokio::test]
async fn a_node_changes_its_own_node_lease_and_pods_status() {
    let world = world().await;
    world
        .merge("nodes/n1:status", json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
        .await
        .unwrap();
    let labels = json!({"a": "b", "kubernetes.io/os": "linux", "node.kubernetes.io/x": "y"});
    world.merge("nodes/n1", json!({"metadata": {"labels": labels}})).await.unwrap();
    world.merge("leases/kube-node-lease/n1", json!({"spec": {"holderIdentity": "n1"}})).await.unwrap();
    world.merge("pods/mine:status", phase("Running")).await.unwrap();
    world.delete_with("pods/mine", |options| options.grace_period_seconds = Some(0)).await.unwrap();
}

#[tokio::test]
async fn a_node_changes_nothing_of_another_node() {
    let world = world().await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "x"});
    let claims = json!({"status": {"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "of-others"}]}});
    let extended = json!({"requestMappings": [], "resourceClaimName": "of-others"});
    let extended = json!({"status": {"extendedResourceClaimStatus": extended}});
    let refusals = [
        world.merge("nodes/n2:status", json!({"status": {"phase": "x"}})).await,
        world.merge("nodes/n1", json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}})).await,
        world.merge("nodes/n1", json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}})).await,
        world.merge("nodes/n1", json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}})).await,
        world.merge("nodes/n1", json!({"metadata": {"ownerReferences": [owner]}})).await,
        world.merge("leases/kube-node-lease/n2", json!({"spec": {"holderIdentity": "n1"}})).await,
        world.try_create("leases", json!({"metadata": {"name": "n1"}})).await,
        world.merge("pods/other:status", phase("Failed")).await,
        world.merge("pods/mine:status", json!({"metadata": {"labels": {"app": "bait"}}})).await,
        world.delete("pods/other").await,
        world.merge("pods/mine", json!({"metadata": {"labels": {"a": "b"}}})).await,
        world.try_create("pods", pod("new")).await,
        world.merge("pods/mine:status", claims).await,
        world.merge("pods/mine:status", extended).await,
        world.try_create("pods/other:eviction", json!({"metadata": {"name": "other"}})).await,
    ];
    let words = [
        "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"",
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify taints",
        "nodes \"n1\" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/x",
        "nodes \"n1\" is forbidden: is not allowed to modify labels: node-role.kubernetes.io/control-plane",
        "nodes \"n1\" is forbidden: node \"n1\" is not allowed to modify ownerReferences",
        "leases.coordination.k8s.io \"n2\" is forbidden: can only access node lease with the same name as the requesting node",
        "leases.coordination.k8s.io \"n1\" is forbidden: can only access leases in the \"kube-node-lease\" system namespace",
        "pods \"other\" is forbidden: node \"n1\" can only update pod status for pods with spec.nodeName set to itself",
        "pods \"mine\" is forbidden: node \"n1\" cannot update labels through pod status",
        "pods \"other\" is forbidden: node \"n1\" can only delete pods with spec.nodeName set to itself",
        "pods \"mine\" is forbidden: unexpected operation \"UPDATE\", node \"n1\" can only create and delete mirror pods",
        "pods \"new\" is forbidden: pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
        "pods \"mine\" is forbidden: node \"n1\" cannot update resource claim statues",
        "pods \"mine\" is forbidden: node \"n1\" cannot update extended resource claim status",
        "pods \"other\" is forbidden: node n1 can only evict pods with spec.nodeName set to itself",
    ];
    for (refusal, words) in refusals.into_iter().zip(words) {
        let error = refusal.expect_err(words);
        assert_eq!((error.code, error.message.as_str()), (403, words));
    }
}
