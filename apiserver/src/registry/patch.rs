//! Changing an object by a patch.

use json_patch::PatchOperation;
use reeve_api::patch::{PatchSchema, merge_patch, strategic_merge};
use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::Value;
use tracing::debug;

use super::answer::Written;
use super::request::{Body, Patch, Request};
use super::update::Edited;
use super::{Registry, accept, meta};
use crate::decode::{BODY_BYTES_MAX, DEPTH_MAX};
use crate::status::ApiError;

/// Most operations in one JSON patch; the limit of the Kubernetes API server.
const OPERATIONS_MAX: usize = 10_000;

impl Patch {
    /// Applies the patch. `schema` says how strategic merge patch merges lists; `None`: the kind does not take it.
    pub(crate) fn apply(&self, target: &mut Value, schema: Option<&dyn PatchSchema>) -> Result<(), ApiError> {
        match self {
            Self::Json(operations) => apply_json(target, operations),
            Self::Merge(patch) => {
                check_object(&patch.value)?;
                merge_patch(target, &patch.value);
                Ok(())
            }
            Self::Strategic(patch) => match schema {
                Some(schema) => {
                    check_object(&patch.value)?;
                    strategic_merge(target, &patch.value, schema).map_err(|error| rejected(&error.to_string()))
                }
                None => Err(not_taken()),
            },
            Self::Apply(_) => Err(not_taken()),
        }
    }

    fn complaints(&self) -> &[String] {
        match self {
            Self::Merge(body) | Self::Strategic(body) | Self::Apply(body) => &body.complaints,
            Self::Json(_) => &[],
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Json(value) => value.to_string(),
            Self::Merge(body) | Self::Strategic(body) | Self::Apply(body) => body.value.to_string(),
        }
    }

    /// Refuses the patch for what it makes of the object.
    pub(super) fn refusal(&self, why: String) -> ApiError {
        let error = FieldError::new(FieldErrorKind::Invalid, "patch", self.text(), why);
        ApiError::invalid_kind("", "", "", &[error])
    }
}

fn not_taken() -> ApiError {
    ApiError::unsupported_media_type(&[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ])
}

fn apply_json(target: &mut Value, operations: &Value) -> Result<(), ApiError> {
    let count = operations.as_array().map_or(0, Vec::len);
    if count > OPERATIONS_MAX {
        let message = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        return Err(ApiError::new(413, "RequestEntityTooLarge", message));
    }
    let patch: json_patch::Patch = serde_json::from_value(operations.clone())
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    let mut carried = 0;
    for operation in &patch.0 {
        check_growth(target, operation, &mut carried)?;
        json_patch::patch(target, std::slice::from_ref(operation)).map_err(|error| rejected(&error.to_string()))?;
    }
    Ok(())
}

/// Copies of copies double an object with every operation, and moves of one part into another nest it without end:
/// both are bounded before they happen. `carried` counts the bytes of all parts copied and moved so far.
fn check_growth(target: &Value, operation: &PatchOperation, carried: &mut usize) -> Result<(), ApiError> {
    let (value, path) = match operation {
        PatchOperation::Add(add) => (Some(&add.value), &add.path),
        PatchOperation::Replace(replace) => (Some(&replace.value), &replace.path),
        PatchOperation::Copy(copy) => (target.pointer(copy.from.as_str()), &copy.path),
        PatchOperation::Move(own) => (target.pointer(own.from.as_str()), &own.path),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    // A part that is not there is the operation's own error.
    let Some(value) = value else { return Ok(()) };
    if matches!(operation, PatchOperation::Copy(_) | PatchOperation::Move(_)) {
        *carried += value.to_string().len();
        if *carried > BODY_BYTES_MAX {
            return Err(rejected(&format!("its copies and moves carry more than {BODY_BYTES_MAX} bytes")));
        }
    }
    if path.count() + depth(value) > DEPTH_MAX {
        return Err(rejected(&format!("it nests the object deeper than {DEPTH_MAX} levels")));
    }
    Ok(())
}

/// Levels of objects and lists; 0 for a plain value.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The patch does not fit the object. Kubernetes does not say more to the client; the log does.
fn rejected(why: &str) -> ApiError {
    debug!(why, "A patch does not fit its object.");
    let message = "the server rejected our request due to an error in our request";
    ApiError { details: Some(Box::default()), ..ApiError::new(422, "Invalid", message) }
}

fn check_object(patch: &Value) -> Result<(), ApiError> {
    let found = match patch {
        Value::Object(_) => return Ok(()),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    };
    let why = format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
    Err(ApiError::bad_request(format!("error decoding patch: {why}")))
}

impl Registry {
    pub(super) async fn patch_object(&self, request: &Request, patch: &Patch) -> Result<Written, ApiError> {
        if let Patch::Apply(config) = patch {
            return self.apply_object(request, config).await;
        }
        let kind = &*request.resource.kind;
        let schema = kind.patch_schema();
        self.change(request, |current| {
            let mut object = current.clone();
            patch.apply(&mut object, schema)?;
            let body = Body { value: object, complaints: patch.complaints().to_vec() };
            let mut accepted = accept::patched(kind, body, request.options.field_validation, |why| patch.refusal(why))?;
            meta::check_namespace(&mut accepted.object, request)?;
            meta::check_name(&mut accepted.object, request)?;
            Ok(Edited { object: accepted.object, warnings: accepted.warnings, unconditional: true, managed: None })
        })
        .await
    }
}
