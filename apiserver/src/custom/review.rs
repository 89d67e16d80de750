//! `ConversionReview`: the questions to conversion webhooks and their answers. Pure.
//!
//! Source: `pkg/apiserver/conversion/webhook_converter.go` of apiextensions-apiserver.

use serde_json::{Map, Value, json};

/// The question; its uid and its text. `versions` are those of `ConversionReview` that the webhook understands.
pub(super) fn request(
    objects: &[Value],
    wanted: &str,
    versions: &[String],
    uid: &str,
) -> Result<(String, Value), String> {
    let known = versions.iter().find(|version| matches!(version.as_str(), "v1" | "v1beta1"));
    let Some(version) = known else {
        return Err(format!("no supported conversion review versions in [{}]", versions.join(" ")));
    };
    let review = json!({
        "kind": "ConversionReview",
        "apiVersion": format!("apiextensions.k8s.io/{version}"),
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
    });
    Ok((uid.to_owned(), review))
}

/// The objects of an answer.
pub(super) fn converted(answer: &Value, uid: &str) -> Result<Vec<Value>, String> {
    let (version, kind) = (answer["apiVersion"].as_str(), answer["kind"].as_str());
    let known = ["apiextensions.k8s.io/v1", "apiextensions.k8s.io/v1beta1"];
    if kind != Some("ConversionReview") || !version.is_some_and(|version| known.contains(&version)) {
        let shown = format!("{}, Kind={}", version.unwrap_or_default(), kind.unwrap_or_default());
        return Err(format!(
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {shown}"
        ));
    }
    let response = answer.get("response").filter(|response| response.is_object()).ok_or("no response provided")?;
    let got = response["uid"].as_str().unwrap_or_default();
    if got != uid && version == Some(known[0]) {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let result = &response["result"];
    if result["status"] != "Success" {
        let message = result["message"].as_str().filter(|message| !message.is_empty());
        return Err(match message {
            Some(message) => message.to_owned(),
            None => {
                format!("response.result.status was '{}', not 'Success'", result["status"].as_str().unwrap_or_default())
            }
        });
    }
    Ok(response["convertedObjects"].as_array().cloned().unwrap_or_default())
}

/// What was converted, with the metadata it had but for labels and annotations.
pub(super) fn restore(original: &Value, mut converted: Value, wanted: &str) -> Result<Value, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let got = text(&converted["apiVersion"]);
    if got != wanted {
        return Err(format!("invalid groupVersion (expected {wanted}, received {got})"));
    }
    let (kind, got) = (text(&original["kind"]), text(&converted["kind"]));
    if kind != got {
        return Err(format!("invalid kind (expected {kind}, received {got})"));
    }
    let (before, after) = (&original["metadata"], &converted["metadata"]);
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (expected, actual) = (text(&before[field]), text(&after[field]));
        if expected != actual {
            return Err(format!("must have the same {name}: {expected} != {actual}"));
        }
    }
    let mut metadata = before.as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match &after[field] {
            Value::Null => drop(metadata.remove(field)),
            Value::Object(map) => {
                check_texts(field, map)?;
                metadata.insert(field.to_owned(), Value::Object(map.clone()));
            }
            _ => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    converted["metadata"] = Value::Object(metadata);
    Ok(converted)
}

fn check_texts(field: &str, map: &Map<String, Value>) -> Result<(), String> {
    match map.iter().find(|(_, value)| !value.is_string()) {
        Some((key, _)) => Err(format!("metadata.{field}[{key}] must be a string")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_be_to_the_question_and_a_success() {
        let review = |uid: &str, result: Value| {
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
                "response": {"uid": uid, "result": result, "convertedObjects": [{"a": 1}]}})
        };
        assert_eq!(converted(&review("u", json!({"status": "Success"})), "u").unwrap(), [json!({"a": 1})]);
        let error = |answer: Value| converted(&answer, "u").unwrap_err();
        assert_eq!(error(review("v", json!({"status": "Success"}))), "expected response.uid=\"u\", got \"v\"");
        assert_eq!(error(review("u", json!({"status": "Failure", "message": "no way"}))), "no way");
        assert_eq!(error(review("u", json!({}))), "response.result.status was '', not 'Success'");
        assert!(error(json!({"kind": "Pod"})).starts_with("expected webhook response of"));
    }

    #[test]
    fn only_labels_and_annotations_of_the_metadata_are_the_webhooks() {
        let original = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "uid": "u",
            "labels": {"old": "1"}, "finalizers": ["f/x"]}});
        let answer = json!({"apiVersion": "g/v2", "kind": "K", "spec": 1,
            "metadata": {"name": "a", "uid": "u", "labels": {"new": "1"}, "finalizers": []}});
        assert_eq!(
            restore(&original, answer.clone(), "g/v2").unwrap(),
            json!({"apiVersion": "g/v2", "kind": "K", "spec": 1,
                "metadata": {"name": "a", "uid": "u", "labels": {"new": "1"}, "finalizers": ["f/x"]}})
        );
        let mut renamed = answer.clone();
        renamed["metadata"]["name"] = "b".into();
        assert_eq!(restore(&original, renamed, "g/v2").unwrap_err(), "must have the same name: a != b");
        let wrong = restore(&original, answer, "g/v3").unwrap_err();
        assert_eq!(wrong, "invalid groupVersion (expected g/v3, received g/v2)");
    }
}
