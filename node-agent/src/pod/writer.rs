//! Writes a pod's status to the API: one request at a time, always the newest, only when it changed.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::context::NodeContext;
use super::resize::{IN_PROGRESS, PENDING};

/// Longest pause between two tries of a write that did not reach the API.
const RETRY_MAX: Duration = Duration::from_secs(16);

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Written {
    /// The pod as the API has it now.
    Done(Box<Pod>),
    /// The API has no such pod any more; the watch will say so too.
    Gone,
    /// The API will never take this: only another status is worth a try.
    Refused,
    /// Try again later.
    Failed,
}

/// Fields that are absent have to be named, or a merge would keep them.
const CLEARED: [&str; 4] = ["message", "reason", "podIP", "initContainerStatuses"];

/// Sends `status` as a strategic merge patch; conditions of other writers stay as they are.
/// `present` is what the API has now: a condition that is in it and not, or no longer, true is taken back.
pub(crate) async fn write(node: &NodeContext, pod: &Pod, status: &PodStatus, present: &PodStatus) -> Written {
    let meta = &pod.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let api: Api<Pod> = Api::namespaced(node.component.client.clone(), namespace);
    let patch = match patch(meta.uid.as_deref().unwrap_or_default(), status, present) {
        Ok(patch) => patch,
        Err(error) => {
            tracing::error!(%error, name, "a pod status cannot be written as JSON");
            return Written::Refused;
        }
    };
    match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(pod) => Written::Done(Box::new(pod)),
        Err(kube::Error::Api(refused)) if refused.code == 404 => Written::Gone,
        Err(kube::Error::Api(refused)) if is_final(refused.code) => {
            tracing::error!(%refused, namespace, name, "the API refuses a pod's status");
            Written::Refused
        }
        Err(error) => {
            tracing::warn!(%error, namespace, name, "failed to write a pod's status, trying again");
            Written::Failed
        }
    }
}

/// Whether the same request would be refused again: it is wrong, and not the moment it was made.
fn is_final(code: u16) -> bool {
    matches!(code, 400 | 413 | 415 | 422)
}

/// The pause before the next try after so many that failed: 1 s doubling to [`RETRY_MAX`].
pub(crate) fn write_retry(failed: u32) -> Duration {
    Duration::from_secs(2_u64.saturating_pow(failed.saturating_sub(1).min(10))).min(RETRY_MAX)
}

fn patch(uid: &str, status: &PodStatus, present: &PodStatus) -> Result<Value, serde_json::Error> {
    let mut body = serde_json::to_value(status)?;
    if let Some(fields) = body.as_object_mut() {
        for field in CLEARED {
            fields.entry(field).or_insert(Value::Null);
        }
        for condition in fields.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
            for field in ["message", "reason"] {
                condition.as_object_mut().map(|condition| condition.entry(field).or_insert(Value::Null));
            }
        }
        let gone = taken_back(status, present);
        if let Some(conditions) = fields.get_mut("conditions").and_then(Value::as_array_mut) {
            conditions.extend(gone.map(|kind| json!({ "$patch": "delete", "type": kind })));
        }
        // Lists that would be merged by address are replaced as a whole.
        for field in ["podIPs", "hostIPs"] {
            let list = fields.remove(field).and_then(|list| list.as_array().cloned()).unwrap_or_default();
            let replaced = std::iter::once(json!({ "$patch": "replace" })).chain(list).collect();
            fields.insert(field.to_owned(), Value::Array(replaced));
        }
    }
    // The UID is a precondition: a new pod of the same name must not get this status.
    Ok(json!({ "metadata": { "uid": uid }, "status": body }))
}

/// Conditions about a resize that are over. Others never go.
fn taken_back<'s>(status: &'s PodStatus, present: &'s PodStatus) -> impl Iterator<Item = &'s str> {
    let has =
        |status: &PodStatus, kind: &str| status.conditions.iter().flatten().any(|condition| condition.type_ == kind);
    [PENDING, IN_PROGRESS].into_iter().filter(move |kind| has(present, kind) && !has(status, kind))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodCondition;

    use super::*;

    #[test]
    fn only_what_may_be_taken_later_is_tried_again_and_ever_more_slowly() {
        let finals = [400, 401, 403, 409, 413, 415, 422, 429, 500, 503].map(is_final);
        assert_eq!(finals, [true, false, false, false, true, true, true, false, false, false]);
        assert_eq!([1, 2, 5, 6, 99].map(|failed| write_retry(failed).as_secs()), [1, 2, 16, 16, 16]);
    }

    #[test]
    fn a_patch_names_the_uid_and_clears_what_is_absent() {
        let status = PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() };
        let condition =
            PodCondition { type_: "Ready".to_owned(), status: "True".to_owned(), ..PodCondition::default() };
        let status = PodStatus { conditions: Some(vec![condition]), ..status };
        let over = PodCondition { type_: PENDING.to_owned(), ..PodCondition::default() };
        let previous = PodStatus { conditions: Some(vec![over]), ..PodStatus::default() };
        let patch = patch("u1", &status, &previous).unwrap();
        assert_eq!(patch["status"]["conditions"][1], json!({ "$patch": "delete", "type": PENDING }));
        let condition = &patch["status"]["conditions"][0];
        assert!(
            condition.get("reason").is_some_and(Value::is_null),
            "why it was not ready is no longer so: {condition}"
        );
        assert_eq!(patch["metadata"]["uid"], "u1");
        assert_eq!(patch["status"]["phase"], "Running");
        assert!(patch["status"]["message"].is_null() && patch["status"].get("message").is_some());
        assert_eq!(patch["status"]["podIPs"], json!([{ "$patch": "replace" }]));
    }
}
