//! What is said about a pod whose node is gone.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::pods;

/// A strategic merge patch of the status: the pod was disrupted, and has failed unless it had finished before.
pub(super) fn orphaned_patch(pod: &Pod, now: Timestamp) -> Value {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists", "lastTransitionTime": Time(now),
    });
    let mut patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [condition] } });
    if !pods::is_finished(pod) {
        patch["status"]["phase"] = "Failed".into();
    }
    patch
}
