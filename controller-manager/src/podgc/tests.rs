//! What a pod without a node is told.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::plan::orphaned_patch;

#[test]
fn an_orphaned_pod_has_failed_unless_it_had_finished() {
    let pod = |phase: &str| -> Pod {
        serde_json::from_value(json!({ "metadata": { "uid": "u" }, "status": { "phase": phase } })).unwrap()
    };
    let patch = orphaned_patch(&pod("Running"), Timestamp::UNIX_EPOCH);
    assert_eq!(patch["status"]["phase"], "Failed");
    assert_eq!(patch["status"]["conditions"][0]["reason"], "DeletionByPodGC");
    assert_eq!(patch["metadata"]["uid"], "u");
    assert!(orphaned_patch(&pod("Succeeded"), Timestamp::UNIX_EPOCH)["status"].get("phase").is_none());
}
