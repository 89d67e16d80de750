//! The replicas of a custom resource with a scale subresource.

use serde_json::Value;

use super::validate::shown;
use crate::errors::Errors;
use crate::field::{FieldError, FieldErrorKind};
use crate::intern::intern;
use crate::json::text;
use crate::kind::ScalePaths;

/// The paths of a definition's `subresources.scale`.
pub(crate) fn paths(scale: &Value) -> Option<ScalePaths> {
    let path = |field| intern(text(scale, field).trim_start_matches('.'));
    scale.is_object().then(|| ScalePaths {
        spec_replicas: path("specReplicasPath"),
        status_replicas: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    })
}

/// The wanted replicas are a number of replicas.
pub(crate) fn check_spec(object: &Value, paths: ScalePaths, errors: &mut Errors) {
    replicas(object, paths.spec_replicas, errors);
}

/// The replicas there are are a number of replicas, the selector is a text.
pub(crate) fn check_status(object: &Value, paths: ScalePaths, errors: &mut Errors) {
    replicas(object, paths.status_replicas, errors);
    if paths.selector.is_empty() {
        return;
    }
    match find(object, paths.selector) {
        Err(why) => invalid(paths.selector, Value::from(""), why, errors),
        Ok(None | Some(Value::String(_))) => {}
        Ok(Some(other)) => invalid(paths.selector, Value::from(""), wrong(paths.selector, other, "string"), errors),
    }
}

fn replicas(object: &Value, path: &str, errors: &mut Errors) {
    let count = match find(object, path) {
        Err(why) => return invalid(path, 0.into(), why, errors),
        Ok(None) => return,
        Ok(Some(value)) => match value.as_i64() {
            Some(count) => count,
            None => return invalid(path, 0.into(), wrong(path, value, "int64"), errors),
        },
    };
    if count < 0 {
        invalid(path, count.into(), "should be a non-negative integer".to_owned(), errors);
    } else if count > i64::from(i32::MAX) {
        invalid(path, count.into(), format!("should be less than or equal to {}", i32::MAX), errors);
    }
}

fn invalid(path: &str, value: Value, detail: String, errors: &mut Errors) {
    errors.push(FieldError::new(FieldErrorKind::Invalid, format!(".{path}"), value, detail));
}

/// What is at a path; an error when something on the way is no object.
fn find<'v>(object: &'v Value, path: &str) -> Result<Option<&'v Value>, String> {
    let (mut value, mut walked) = (object, String::new());
    for field in path.split('.') {
        walked = if walked.is_empty() { field.to_owned() } else { format!("{walked}.{field}") };
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => return Ok(None),
            // As in Kubernetes, the field that was looked for is named, not the one that is no object.
            other => return Err(wrong(&walked, other, "map[string]interface{}")),
        };
        let Some(next) = fields.get(field) else { return Ok(None) };
        value = next;
    }
    Ok(Some(value))
}

fn wrong(path: &str, value: &Value, wanted: &str) -> String {
    let found = match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    let value = value.as_str().map_or_else(|| shown(value), str::to_owned);
    format!(".{path} accessor error: {value} is of the type {found}, expected {wanted}")
}
