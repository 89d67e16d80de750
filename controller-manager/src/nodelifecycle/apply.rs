//! Writes what was decided about nodes and their pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use crate::requests::is_not_found;

/// Conditions merge by type.
pub(super) async fn write_conditions(client: &Client, node: &Node, conditions: &[NodeCondition]) -> kube::Result<()> {
    let patch = json!({ "metadata": { "uid": node.metadata.uid }, "status": { "conditions": conditions } });
    let nodes: Api<Node> = Api::all(client.clone());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

/// Taints are replaced as a whole; the resourceVersion protects those that somebody sets meanwhile.
pub(super) async fn write_taints(client: &Client, node: &Node, taints: &[Taint]) -> kube::Result<()> {
    let taints = if taints.is_empty() { serde_json::Value::Null } else { json!(taints) };
    let patch = json!({
        "metadata": { "uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version },
        "spec": { "taints": taints },
    });
    let nodes: Api<Node> = Api::all(client.clone());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// Nobody can vouch for the pods of a node that is not ready: Services must not lead to them.
pub(super) async fn mark_not_ready(client: &Client, pod: &Pod, now: Timestamp) -> kube::Result<()> {
    let condition = json!({ "type": "Ready", "status": "False", "lastTransitionTime": Time(now) });
    patch_pod(client, pod, &condition).await
}

/// Says why, then deletes the pod with its usual time to end.
pub(super) async fn evict(client: &Client, pod: &Pod, now: Timestamp) -> kube::Result<()> {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(now),
    });
    patch_pod(client, pod, &condition).await?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    forgive_absence(pods(client, pod).delete(name, &parameters).await.map(drop))
}

async fn patch_pod(client: &Client, pod: &Pod, condition: &serde_json::Value) -> kube::Result<()> {
    let patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let answer = pods(client, pod).patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    forgive_absence(answer.map(drop))
}

fn pods(client: &Client, pod: &Pod) -> Api<Pod> {
    Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default())
}

fn forgive_absence(answer: kube::Result<()>) -> kube::Result<()> {
    match answer {
        Err(error) if is_not_found(&error) => Ok(()),
        answer => answer,
    }
}
