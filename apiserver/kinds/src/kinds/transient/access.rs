//! What an access review may ask.
//!
//! Source: `pkg/apis/authorization/validation` of Kubernetes; that of selectors is
//! `k8s.io/apimachinery/pkg/apis/meta/v1/validation`.

use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, has, list, text};
use crate::meta;
use crate::path::Path;
use crate::shown::{self, Go};

/// `SelfSubjectAccessReview`
pub(super) fn of_oneself(review: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    spec(review, false, &mut errors);
    metadata(review, &[], "must be empty", &mut errors);
    errors.into_vec()
}

/// `SubjectAccessReview`
pub(super) fn of_anyone(review: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    spec(review, true, &mut errors);
    metadata(review, &[], "must be empty", &mut errors);
    errors.into_vec()
}

/// `LocalSubjectAccessReview`
pub(super) fn local(review: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    spec(review, true, &mut errors);
    metadata(review, &["namespace"], "must be empty except for namespace", &mut errors);
    let (asked, path) = (get(review, "spec"), Path::of("spec"));
    let resource = get(asked, "resourceAttributes");
    if !resource.is_null() && text(resource, "namespace") != text(get(review, "metadata"), "namespace") {
        let path = path.child("resourceAttributes");
        errors.invalid(&path.child("namespace"), text(resource, "namespace"), "must match metadata.namespace");
    }
    if has(asked, "nonResourceAttributes") {
        errors.invalid_object(
            &path.child("nonResourceAttributes"),
            shown_path(get(asked, "nonResourceAttributes")),
            "disallowed on this kind of request",
        );
    }
    errors.into_vec()
}

fn spec(review: &Value, with_subject: bool, errors: &mut Errors) {
    let (asked, path) = (get(review, "spec"), Path::of("spec"));
    let other = get(asked, "nonResourceAttributes");
    match (has(asked, "resourceAttributes"), !other.is_null()) {
        (true, true) => errors.invalid_object(
            &path.child("nonResourceAttributes"),
            shown_path(other),
            "cannot be specified in combination with resourceAttributes",
        ),
        (false, false) => errors.invalid(
            &path.child("resourceAttributes"),
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
    if with_subject && text(asked, "user").is_empty() && list(asked, "groups").is_empty() {
        errors.invalid(&path.child("user"), "", "at least one of user or group must be specified");
    }
    let path = path.child("resourceAttributes");
    for field in ["fieldSelector", "labelSelector"] {
        selector(get(get(asked, "resourceAttributes"), field), &path.child(field), field == "labelSelector", errors);
    }
}

fn selector(selector: &Value, path: &Path<'_>, of_labels: bool, errors: &mut Errors) {
    if selector.is_null() {
        return;
    }
    let (raw, requirements) = (text(selector, "rawSelector"), list(selector, "requirements"));
    if !raw.is_empty() && !requirements.is_empty() {
        errors.invalid(&path.child("rawSelector"), raw, "may not specified at the same time as requirements");
    }
    if raw.is_empty() && requirements.is_empty() {
        let detail = format!("when {path} is specified, requirements or rawSelector is required");
        errors.required(&path.child("requirements"), detail);
    }
    let path = path.child("requirements");
    for (index, requirement) in requirements.iter().enumerate() {
        let path = path.index(index);
        if of_labels {
            meta::tolerant_label_requirement(requirement, &path, errors);
        } else {
            if text(requirement, "key").is_empty() {
                errors.required(&path.child("key"), "must be specified");
            }
            meta::requirement_values(requirement, &path, errors);
        }
    }
}

/// Nothing may stand there but what is expected, and who manages which field.
fn metadata(review: &Value, expected: &[&str], detail: &str, errors: &mut Errors) {
    let metadata = get(review, "metadata");
    let fields = metadata.as_object().into_iter().flatten();
    let is_expected = |field: &String| field == "managedFields" || expected.contains(&field.as_str());
    if fields.filter(|(_, value)| !value.is_null()).any(|(field, _)| !is_expected(field)) {
        errors.invalid_object(&Path::of("metadata"), shown::metadata(metadata), detail);
    }
}

fn shown_path(attributes: &Value) -> String {
    shown::go(attributes, &Go::Pointer(&[("Path", "path", Go::Text), ("Verb", "verb", Go::Text)]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::reviews;
    use super::*;

    #[track_caller]
    fn check(kind: &str, review: Value, expected: &[&str]) {
        let kind = reviews().iter().find(|one| one.names().kind == kind).unwrap();
        let mut review = review;
        assert!(kind.conform(&mut review).unwrap().is_empty());
        let errors: Vec<_> = kind.validate_create(&review).iter().map(ToString::to_string).collect();
        assert_eq!(errors, expected);
    }

    #[test]
    fn a_review_asks_about_one_thing_and_names_a_subject() {
        let (pods, path) = (json!({"verb": "get", "resource": "pods"}), json!({"path": "/x"}));
        let both = json!({"resourceAttributes": pods, "nonResourceAttributes": path});
        let one = "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or \
                   resourceAttributes must be specified";
        let who = "spec.user: Invalid value: \"\": at least one of user or group must be specified";
        let combined = "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/x\",\"Verb\":\"\"}: cannot be specified \
                        in combination with resourceAttributes";
        check("SelfSubjectAccessReview", json!({"spec": {"resourceAttributes": pods}}), &[]);
        check("SelfSubjectAccessReview", json!({}), &[one]);
        check("SelfSubjectAccessReview", json!({"spec": both}), &[combined]);
        check("SubjectAccessReview", json!({}), &[one, who]);
        check("SubjectAccessReview", json!({"spec": {"groups": ["g"], "nonResourceAttributes": {}}}), &[]);
        let local = json!({"metadata": {"namespace": "a"}, "spec": both});
        let elsewhere = "spec.resourceAttributes.namespace: Invalid value: \"\": must match metadata.namespace";
        let path = "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/x\",\"Verb\":\"\"}: disallowed on this kind \
                    of request";
        check("LocalSubjectAccessReview", local, &[combined, who, elsewhere, path]);
    }

    #[test]
    fn a_review_has_no_name_and_no_labels() {
        let managed = json!([{"manager": "m", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}]);
        let metadata = json!({"name": "x", "labels": {"b": "c"}, "managedFields": managed});
        let review = json!({"metadata": metadata, "spec": {"nonResourceAttributes": {"path": "/"}}});
        let shown = "metadata: Invalid value: {\"name\":\"x\",\"labels\":{\"b\":\"c\"},\"managedFields\":[{\"manager\":\
                     \"m\",\"operation\":\"Update\",\"apiVersion\":\"v1\",\"time\":\"2026-01-01T00:00:00Z\",\
                     \"fieldsType\":\"FieldsV1\",\"fieldsV1\":{\"f:spec\":{}}}]}: must be empty";
        check("SelfSubjectAccessReview", review, &[shown]);
    }

    #[test]
    fn a_selector_of_a_review_has_one_form_and_may_have_operators_that_are_not_known() {
        let review = |field: &str, selector: Value| json!({"spec": {"resourceAttributes": {field: selector}}});
        let bad = json!({"requirements": [{"key": "", "operator": "In"}]});
        let at = "spec.resourceAttributes.fieldSelector";
        let values = "requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'";
        check(
            "SelfSubjectAccessReview",
            review("fieldSelector", bad),
            &[&format!("{at}.requirements[0].key: Required value: must be specified"), &format!("{at}.{values}")],
        );
        let both = json!({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Later", "values": ["b"]}]});
        let twice =
            format!("{at}.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements");
        check("SelfSubjectAccessReview", review("fieldSelector", both), &[&twice]);
        let later = json!({"requirements": [{"key": "a", "operator": "Later", "values": ["b"]}]});
        check("SelfSubjectAccessReview", review("labelSelector", later), &[]);
        let none = format!(
            "{at}.requirements: Required value: when {at} is specified, requirements or rawSelector is required"
        );
        check("SelfSubjectAccessReview", review("fieldSelector", json!({})), &[&none]);
    }
}
