//! The scheduler's writes: bindings, conditions, events. Each is one request; nothing is decided here.

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use reeve_client::ObjectKey;
use serde_json::{Value, json};

use crate::pod::PodView;

/// Binds a pod to a node. The uid keeps a pod of the same name but another life from being bound.
pub(crate) async fn bind(client: &Client, pod: &PodView, node: &str) -> kube::Result<()> {
    let target = ObjectReference { kind: Some("Node".into()), name: Some(node.to_owned()), ..Default::default() };
    let metadata = ObjectMeta {
        namespace: Some(pod.key.namespace.clone()),
        name: Some(pod.key.name.clone()),
        uid: Some(pod.uid.to_string()),
        ..ObjectMeta::default()
    };
    let binding = Binding { metadata, target };
    let parameters = PostParams::default();
    let pods = pods(client, &pod.key);
    pods.create_subresource::<_, Status>("binding", &pod.key.name, &parameters, &binding).await.map(drop)
}

/// The patch that says why a pod is not scheduled; `None` if the pod says so already.
pub(crate) fn unscheduled_patch(pod: &Pod, reason: &str, message: &str, now: jiff::Timestamp) -> Option<Value> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let old = conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let same_status = old.filter(|condition| condition.status == "False");
    if same_status.is_some_and(|old| old.reason.as_deref() == Some(reason) && old.message.as_deref() == Some(message)) {
        return None;
    }
    let since = same_status.and_then(|condition| condition.last_transition_time.clone()).unwrap_or(Time(now));
    let condition = PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(since),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    };
    Some(json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } }))
}

/// Writes what [`unscheduled_patch`] made.
pub(crate) async fn patch_status(client: &Client, key: &ObjectKey, patch: Value) -> kube::Result<()> {
    pods(client, key).patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
}

fn pods(client: &Client, key: &ObjectKey) -> Api<Pod> {
    Api::namespaced(client.clone(), &key.namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_once_and_keeps_the_time_it_became_false() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let mut pod = Pod::default();
        let first = unscheduled_patch(&pod, "Unschedulable", "0/1 …", at(10)).unwrap();
        pod.status = serde_json::from_value(first["status"].clone()).unwrap();
        assert_eq!(unscheduled_patch(&pod, "Unschedulable", "0/1 …", at(20)), None);
        let second = unscheduled_patch(&pod, "Unschedulable", "0/2 …", at(30)).unwrap();
        assert_eq!(second["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:10Z");
        assert_eq!(second["status"]["conditions"][0]["message"], "0/2 …");
    }
}
