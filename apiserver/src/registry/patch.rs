//! Changing an object by a patch.

use reeve_api::patch::{PatchError, PatchSchema, go_text, merge_patch, strategic_merge};
use reeve_kinds::Names;
use reeve_kinds::field::{FieldError, FieldErrorKind};
use reeve_kinds::strict::DecodeError;
use serde_json::Value;
use tracing::debug;

use super::accept::{Accepted, Form, Refused};
use super::answer::Written;
use super::request::{Body, FieldValidation, Patch, Request};
use super::update::Edited;
use super::{Registry, accept, json_patch, meta};
use crate::status::ApiError;

impl Patch {
    /// Applies the patch. `schema` says how strategic merge patch merges lists; `None`: the kind does not take it.
    pub(crate) fn apply(&self, target: &mut Value, schema: Option<&dyn PatchSchema>) -> Result<(), ApiError> {
        match self {
            Self::Json(operations) => json_patch::apply(target, operations),
            Self::Merge(patch) if patch.value.is_null() => Err(ApiError::bad_request("Invalid JSON Patch")),
            Self::Merge(patch) => {
                check_object(&patch.value, "error decoding patch: ")?;
                merge_patch(target, &patch.value);
                Ok(())
            }
            Self::Strategic(patch) => match schema {
                Some(_) if patch.value.is_null() => Ok(()),
                Some(schema) => {
                    check_object(&patch.value, "")?;
                    strategic_merge(target, &patch.value, schema).map_err(|error| misdirected(&error))
                }
                None => Err(not_of_custom_resources()),
            },
            Self::Apply(_) => Err(not_taken()),
        }
    }

    /// What the patch makes of an object of that form.
    pub(super) fn carry_out(
        &self,
        current: &Value,
        schema: Option<&dyn PatchSchema>,
        form: &Form<'_>,
        validation: FieldValidation,
    ) -> Result<Accepted, ApiError> {
        let mut object = current.clone();
        self.apply(&mut object, schema)?;
        if let (Self::Strategic(_), Some(fields)) = (self, object.as_object_mut()) {
            // It is laid over a typed object: which type that is it cannot change.
            fields.insert("apiVersion".to_owned(), form.api_version.into());
            fields.insert("kind".to_owned(), form.kind.into());
        }
        if schema.is_some() && object["apiVersion"].as_str().is_none_or(str::is_empty) {
            // Of no version are only Go's own types: their decoder finds the fields elsewhere, and no name.
            return Err(meta::undeterminable(meta::text(current, "name")));
        }
        let body = Body { value: object.clone(), complaints: self.complaints(), text: None };
        accept::patched(form, body, validation, |why| match why {
            Refused::Misfit(error) => self.refusal(&object, self.misfit(&error)),
            Refused::Other(why) => self.refusal(&object, why),
        })
    }

    fn complaints(&self) -> Vec<String> {
        match self {
            Self::Merge(body) | Self::Strategic(body) | Self::Apply(body) => body.complaints.clone(),
            Self::Json(operations) => json_patch::complaints(operations),
        }
    }

    /// Refuses the patch for what it has made of the object, `patched`.
    fn refusal(&self, patched: &Value, why: String) -> ApiError {
        let shown = match self {
            Self::Strategic(body) => go_text(&body.value),
            _ => patched.to_string(),
        };
        let error = FieldError::new(FieldErrorKind::Invalid, "patch", shown, why);
        ApiError::invalid_kind("", "", "", &[error])
    }

    /// How a value that does not fit its field is told: strategic merge patch has no JSON to decode.
    fn misfit(&self, error: &DecodeError) -> String {
        let DecodeError::Type { found, wanted, .. } = error else { return error.to_string() };
        if !matches!(self, Self::Strategic(_)) {
            return error.to_string();
        }
        let kind = match found.split(' ').next().unwrap_or_default() {
            "array" => "slice",
            "object" => "map",
            "number" if found.contains('.') => "float64",
            "number" => "int64",
            other => other,
        };
        match wanted.as_str() {
            "string" => format!("cannot convert {kind} to string"),
            list if list.starts_with("[]") => format!("cannot restore slice from {kind}"),
            map if map.starts_with("map[") || map == "v1.ResourceList" => format!("cannot restore map from {kind}"),
            plain if !plain.contains('.') => format!("unrecognized type: {plain}"),
            _ => format!("cannot restore struct from: {kind}"),
        }
    }
}

/// Nobody knows how lists of custom resources merge strategically.
fn not_of_custom_resources() -> ApiError {
    ApiError::unsupported_media_type(&[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    ])
}

fn not_taken() -> ApiError {
    ApiError::unsupported_media_type(&[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ])
}

/// The patch does not fit the object. Kubernetes does not say more to the client; the log does.
pub(super) fn rejected(why: &str) -> ApiError {
    debug!(why, "A patch does not fit its object.");
    let message = "the server rejected our request due to an error in our request";
    ApiError { details: Some(Box::default()), ..ApiError::new(422, "Invalid", message) }
}

/// Kubernetes passes most complaints about directives on as they are, without a reason.
fn misdirected(error: &PatchError) -> ApiError {
    match error {
        PatchError::BadRetainKeys => ApiError::bad_request(error.to_string()),
        other => ApiError::unknown(other.to_string()),
    }
}

fn check_object(patch: &Value, step: &str) -> Result<(), ApiError> {
    let found = match patch {
        Value::Object(_) => return Ok(()),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    };
    let why = format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
    Err(ApiError::bad_request(format!("{step}{why}")))
}

/// A patch may not make another object of an object.
fn check_same(names: &Names, object: &Value, current: &Value) -> Result<(), ApiError> {
    let uid = meta::text(object, "uid");
    if uid.is_empty() || uid == meta::text(current, "uid") {
        return Ok(());
    }
    let error = || FieldError::new(FieldErrorKind::Invalid, "metadata.uid", uid, "field is immutable");
    Err(ApiError::invalid(names, meta::text(current, "name"), &[error(), error()]))
}

impl Registry {
    pub(super) async fn patch_object(&self, request: &Request, patch: &Patch) -> Result<Written, ApiError> {
        if let Patch::Apply(config) = patch {
            return self.apply_object(request, config).await;
        }
        let kind = &*request.resource.kind;
        let schema = kind.patch_schema();
        self.change(request, |current| {
            let form = Form {
                api_version: &kind.names().api_version(),
                kind: kind.names().kind,
                conform: &|object: &mut Value| kind.conform(object),
            };
            let mut accepted = patch.carry_out(current, schema, &form, request.options.field_validation)?;
            request.warnings.add_all(&accepted.warnings);
            if !kind.names().namespaced {
                // Other than in updates, what a patch says of a namespace that cannot be is passed over.
                meta::set(&mut accepted.object, "namespace", Value::Null);
            }
            meta::check_namespace(&mut accepted.object, request)?;
            if meta::text(&accepted.object, "name").is_empty() {
                return Err(meta::undeterminable(&request.name));
            }
            check_same(kind.names(), &accepted.object, current)?;
            meta::check_name(&mut accepted.object, request)?;
            let (object, warnings) = (accepted.object, accepted.warnings);
            Ok(Edited { object, warnings, unconditional: true, managed: None, shown: None })
        })
        .await
    }
}
