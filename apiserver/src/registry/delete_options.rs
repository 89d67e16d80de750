//! `metav1.DeleteOptions`: read from the body of a deletion, or where there is none from its query string; checked
//! in Kubernetes' words.
//!
//! Source: `apimachinery/pkg/apis/meta/v1` (conversion of parameters, ValidateDeleteOptions).

use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::{Map, Value, json};

use super::request::{Options, Preconditions, Propagation};
use crate::status::ApiError;

const KIND: &str = "DeleteOptions";

impl Options {
    /// Takes what a deletion says from its body; the query string says nothing then.
    pub fn set_delete_body(&mut self, body: &Value) -> Result<(), ApiError> {
        check_types(body)?;
        self.take(body)
    }

    /// Takes what a deletion says from its query string.
    pub fn set_delete_query<'q>(&mut self, query: impl Iterator<Item = (&'q str, &'q str)>) -> Result<(), ApiError> {
        self.take(&from_query(query)?)
    }

    /// The options of an object of the right types; null stands for absent.
    fn take(&mut self, said: &Value) -> Result<(), ApiError> {
        let errors = check(said);
        if !errors.is_empty() {
            return Err(ApiError::invalid_kind(KIND, "meta.k8s.io", "", &errors));
        }
        self.grace_period_seconds = said["gracePeriodSeconds"].as_i64();
        self.orphan_dependents = said["orphanDependents"].as_bool();
        self.propagation = said["propagationPolicy"].as_str().and_then(Propagation::of);
        self.dry_run = said["dryRun"].as_array().is_some_and(|all| !all.is_empty());
        let text = |field: &str| said["preconditions"][field].as_str().map(str::to_owned);
        self.preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
        Ok(())
    }
}

/// Parameters as the object that they stand for.
fn from_query<'q>(query: impl Iterator<Item = (&'q str, &'q str)>) -> Result<Value, ApiError> {
    let (mut said, mut preconditions, mut dry_run) = (Map::new(), Map::new(), Vec::new());
    let is_true = |text: &str| !matches!(text.to_ascii_lowercase().as_str(), "false" | "0");
    for (name, text) in query {
        let value: Value = match name {
            "dryRun" => {
                dry_run.push(Value::from(text));
                continue;
            }
            "uid" | "resourceVersion" if !text.is_empty() => {
                preconditions.entry(name).or_insert_with(|| text.into());
                continue;
            }
            "gracePeriodSeconds" => text
                .parse::<i64>()
                .map(Value::from)
                .map_err(|_| ApiError::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?,
            "orphanDependents" => is_true(text).into(),
            // Whatever it says: the field is known and the feature is off.
            "propagationPolicy" => text.into(),
            _ => continue,
        };
        // Of several the first counts.
        said.entry(name).or_insert(value);
    }
    if !dry_run.is_empty() {
        said.insert("dryRun".to_owned(), dry_run.into());
    }
    if !preconditions.is_empty() {
        said.insert("preconditions".to_owned(), preconditions.into());
    }
    Ok(Value::Object(said))
}

/// A body whose fields are not of the right types cannot be read.
fn check_types(body: &Value) -> Result<(), ApiError> {
    let wrong = |value: &Value, field: &str, wanted: &str| {
        let found = match value {
            Value::String(_) => "string".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
            Value::Number(_) if wanted == "int64" => format!("number {value}"),
            Value::Number(_) => "number".to_owned(),
            Value::Null => return Ok(()),
        };
        Err(ApiError::bad_request(format!(
            "json: cannot unmarshal {found} into Go struct field {field} of type {wanted}"
        )))
    };
    let told = |fits: bool, value: &Value, field: &str, wanted: &str| {
        if fits { Ok(()) } else { wrong(value, field, wanted) }
    };
    let grace = &body["gracePeriodSeconds"];
    told(grace.is_i64(), grace, "DeleteOptions.gracePeriodSeconds", "int64")?;
    for field in ["orphanDependents", "ignoreStoreReadErrorWithClusterBreakingPotential"] {
        told(body[field].is_boolean(), &body[field], &format!("DeleteOptions.{field}"), "bool")?;
    }
    let policy = &body["propagationPolicy"];
    told(policy.is_string(), policy, "DeleteOptions.propagationPolicy", "v1.DeletionPropagation")?;
    let dry_run = &body["dryRun"];
    told(dry_run.is_array(), dry_run, "DeleteOptions.dryRun", "[]string")?;
    for one in dry_run.as_array().into_iter().flatten() {
        told(one.is_string(), one, "DeleteOptions.dryRun", "string")?;
    }
    let preconditions = &body["preconditions"];
    told(preconditions.is_object(), preconditions, "DeleteOptions.preconditions", "v1.Preconditions")?;
    for (field, wanted) in [("uid", "types.UID"), ("resourceVersion", "string")] {
        let value = &preconditions[field];
        told(value.is_string(), value, &format!("Preconditions.preconditions.{field}"), wanted)?;
    }
    Ok(())
}

/// What does not go together, and what does not exist.
fn check(said: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let policy = &said["propagationPolicy"];
    if !said["orphanDependents"].is_null() && !policy.is_null() {
        let detail = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::new(FieldErrorKind::Invalid, "propagationPolicy", policy.clone(), detail));
    }
    if policy.as_str().is_some_and(|policy| Propagation::of(policy).is_none()) {
        let detail = "supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"";
        errors.push(FieldError::new(FieldErrorKind::NotSupported, "propagationPolicy", policy.clone(), detail));
    }
    let dry_run = &said["dryRun"];
    if dry_run.as_array().into_iter().flatten().any(|one| one != "All") {
        let detail = "supported values: \"All\"";
        errors.push(FieldError::new(FieldErrorKind::NotSupported, "dryRun", json!(dry_run), detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
    fn body(value: Value) -> Result<Options, ApiError> {
        let mut options = Options { dry_run: true, grace_period_seconds: Some(7), ..Options::default() };
        options.set_delete_body(&value).map(|()| options)
    }

    #[test]
    fn a_body_speaks_for_the_whole_deletion() {
        let found = body(json!({ "propagationPolicy": "Foreground", "preconditions": { "uid": "u" } })).unwrap();
        assert_eq!((found.propagation, found.dry_run), (Some(Propagation::Foreground), false));
        assert_eq!((found.grace_period_seconds, found.preconditions.uid.as_deref()), (None, Some("u")));
        let found = body(json!({ "orphanDependents": false, "dryRun": ["All"], "gracePeriodSeconds": -1 })).unwrap();
        assert_eq!((found.orphan_dependents, found.dry_run, found.grace_period_seconds), (Some(false), true, Some(-1)));
    }

    #[test]
    fn the_query_string_says_the_same_as_a_body() {
        let pairs = [("gracePeriodSeconds", "0"), ("dryRun", "All"), ("uid", "u"), ("resourceVersion", "5")];
        let mut found = Options::default();
        found.set_delete_query(pairs.into_iter()).unwrap();
        assert_eq!((found.grace_period_seconds, found.dry_run), (Some(0), true));
        let preconditions = found.preconditions;
        assert_eq!((preconditions.uid.as_deref(), preconditions.resource_version.as_deref()), (Some("u"), Some("5")));
        let error = found_error(&[("gracePeriodSeconds", "soon")]);
        assert_eq!(error, "strconv.ParseInt: parsing \"soon\": invalid syntax");
    }

    fn found_error(pairs: &[(&str, &str)]) -> String {
        Options::default().set_delete_query(pairs.iter().copied()).unwrap_err().message
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_kubernetes_words() {
        let text = |value| body(value).unwrap_err().message;
        assert_eq!(
            text(json!({ "propagationPolicy": "Later" })),
            r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Later": supported values: "Foreground", "Background", "Orphan", "nil""#
        );
        assert_eq!(
            text(json!({ "propagationPolicy": "Orphan", "orphanDependents": true })),
            r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set"#
        );
        assert_eq!(
            text(json!({ "dryRun": ["None"] })),
            r#"DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["None"]: supported values: "All""#
        );
        assert_eq!(
            text(json!({ "gracePeriodSeconds": "5" })),
            "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64"
        );
        assert_eq!(found_error(&[("propagationPolicy", "")]).matches("Unsupported value: \"\"").count(), 1);
    }
}
