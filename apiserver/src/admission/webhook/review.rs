//! The question to a webhook, an `AdmissionReview`, and what its answer means.
//!
//! Source: `k8s.io/api/admission/v1` and `v1beta1`; the checks are those of `webhook/request`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reeve_kinds::Names;
use serde_json::{Map, Value, json};

use super::config::Flavor;
use crate::admission::Attributes;
use crate::registry::{UserInfo, json_type};

const GROUP: &str = "admission.k8s.io";

/// What a webhook has said.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) is_allowed: bool,
    /// A JSON patch; null for none.
    pub(super) patch: Value,
    /// `metav1.Status` of a refusal; null for none.
    pub(super) result: Value,
    pub(super) warnings: Vec<String>,
    pub(super) annotations: Map<String, Value>,
}

/// The question, in a version that the webhook speaks.
pub(super) fn question(attributes: &Attributes<'_>, version: &str, uid: &str) -> Value {
    let mut request = json!({
        "uid": uid, "kind": attributes.kind_seen(), "resource": resource(attributes.names()),
        "requestKind": attributes.kind, "requestResource": resource(attributes.request.resource.names()),
        "operation": attributes.operation.name(), "userInfo": user(&attributes.request.user),
        "object": attributes.object, "oldObject": attributes.old, "dryRun": attributes.is_dry_run(),
        "options": attributes.options(),
    });
    let subresource = attributes.subresource;
    let texts = [
        ("subResource", subresource),
        ("requestSubResource", subresource),
        ("name", attributes.name()),
        ("namespace", attributes.namespace()),
    ];
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        request[field] = text.into();
    }
    json!({ "kind": "AdmissionReview", "apiVersion": format!("{GROUP}/{version}"), "request": request })
}

/// A `GroupVersionResource`.
pub(in crate::admission) fn resource(names: &Names) -> Value {
    json!({ "group": names.group, "version": names.version, "resource": names.plural })
}

/// A `UserInfo` of `authentication.k8s.io/v1`.
pub(in crate::admission) fn user(user: &UserInfo) -> Value {
    let mut shown = json!({ "username": user.name });
    if !user.uid.is_empty() {
        shown["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        shown["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        shown["extra"] = json!(user.extra);
    }
    shown
}

/// What an answer means; `Err` says what is wrong with it.
pub(super) fn verdict(answer: &Value, version: &str, uid: &str, flavor: Flavor) -> Result<Verdict, String> {
    let response = &answer["response"];
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // The old version was never checked for who it answers, and patches need not say of what type they are.
    let is_strict = version == "v1";
    if is_strict {
        let stated = text(&response["uid"]);
        if stated != uid {
            return Err(format!("expected response.uid={uid:?}, got {stated:?}"));
        }
        let (api_version, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
        if api_version != format!("{GROUP}/v1") || kind != "AdmissionReview" {
            let found = if api_version.contains('/') { api_version } else { format!("/{api_version}") };
            return Err(format!(
                "expected webhook response of {GROUP}/v1, Kind=AdmissionReview, got {found}, Kind={kind}"
            ));
        }
    }
    let (patch, patch_type) = (text(&response["patch"]), response["patchType"].as_str());
    check_patch(flavor, is_strict, &patch, patch_type)?;
    Ok(Verdict {
        is_allowed: response["allowed"] == true,
        patch: decode(if flavor == Flavor::Mutating { &patch } else { "" })?,
        result: response["status"].clone(),
        warnings: response["warnings"].as_array().into_iter().flatten().map(text).collect(),
        annotations: response["auditAnnotations"].as_object().cloned().unwrap_or_default(),
    })
}

fn check_patch(flavor: Flavor, is_strict: bool, patch: &str, patch_type: Option<&str>) -> Result<(), String> {
    let refuse = |why: &str| Err(why.to_owned());
    match (flavor, patch_type) {
        _ if !is_strict => Ok(()),
        (Flavor::Validating, _) if !patch.is_empty() => refuse("validating webhook may not return response.patch"),
        (Flavor::Validating, Some(_)) => refuse("validating webhook may not return response.patchType"),
        (Flavor::Validating, None) => Ok(()),
        (Flavor::Mutating, None) if !patch.is_empty() => {
            refuse("webhook returned response.patch but not response.patchType")
        }
        (Flavor::Mutating, Some(_)) if patch.is_empty() => {
            refuse("webhook returned response.patchType but not response.patch")
        }
        (Flavor::Mutating, Some("")) => refuse("webhook returned invalid response.patchType of \"\""),
        (Flavor::Mutating, Some(other)) if other != "JSONPatch" => Err(format!("unsupported patch type {other:?}")),
        (Flavor::Mutating, _) => Ok(()),
    }
}

fn decode(patch: &str) -> Result<Value, String> {
    if patch.is_empty() {
        return Ok(Value::Null);
    }
    let broken = |error: String| format!("received undecodable patch in webhook response: {error}");
    let bytes = STANDARD.decode(patch).map_err(|error| broken(error.to_string()))?;
    let patch: Value = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    let wrong = |found: &Value, wanted: &str| {
        let found = json_type(found);
        Err(broken(format!("json: cannot unmarshal {found} into Go value of type jsonpatch.{wanted}")))
    };
    match &patch {
        Value::Array(items) => match items.iter().find(|item| !item.is_object() && !item.is_null()) {
            Some(item) => wrong(item, "Operation"),
            None => Ok(patch),
        },
        Value::Null => Ok(patch),
        other => wrong(other, "Patch"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
    fn refused(response: Value, flavor: Flavor) -> String {
        let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        verdict(&answer, "v1", "u", flavor).unwrap_err()
    }

    #[test]
    fn an_answer_must_be_to_this_question_and_of_its_version() {
        assert_eq!(refused(Value::Null, Flavor::Mutating), "webhook response was absent");
        assert_eq!(refused(json!({"uid": "x"}), Flavor::Mutating), "expected response.uid=\"u\", got \"x\"");
        let bare = json!({"response": {"uid": "u", "allowed": true}});
        assert_eq!(
            verdict(&bare, "v1", "u", Flavor::Validating).unwrap_err(),
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind="
        );
        assert!(verdict(&bare, "v1beta1", "other", Flavor::Validating).unwrap().is_allowed);
    }

    #[test]
    fn only_mutating_webhooks_patch_and_they_say_how() {
        let patch = STANDARD.encode("[]");
        let with = |kind: Value| json!({"uid": "u", "allowed": true, "patch": patch, "patchType": kind});
        assert_eq!(
            refused(with(json!("JSONPatch")), Flavor::Validating),
            "validating webhook may not return response.patch"
        );
        assert_eq!(
            refused(with(Value::Null), Flavor::Mutating),
            "webhook returned response.patch but not response.patchType"
        );
        assert_eq!(refused(with(json!("Merge")), Flavor::Mutating), "unsupported patch type \"Merge\"");
        assert_eq!(
            refused(json!({"uid": "u", "patchType": "JSONPatch"}), Flavor::Mutating),
            "webhook returned response.patchType but not response.patch"
        );
        let none = json!({"uid": "u", "patch": STANDARD.encode("{}"), "patchType": "JSONPatch"});
        let why = "json: cannot unmarshal object into Go value of type jsonpatch.Patch";
        assert_eq!(refused(none, Flavor::Mutating), format!("received undecodable patch in webhook response: {why}"));
        let broken = json!({"uid": "u", "patch": "!", "patchType": "JSONPatch"});
        assert!(refused(broken, Flavor::Mutating).starts_with("received undecodable patch in webhook response: "));
    }
}
