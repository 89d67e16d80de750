//! Request bodies: read within a limit, decoded by their content type.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value};

use super::protobuf;
use super::response::Body as HttpBody;
use crate::decode::{self, BODY_BYTES_MAX};
use crate::registry::{Body, Patch};
use crate::status::ApiError;

const ACCEPTED: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA_TYPE];
/// The content types of patches; custom resources do not take strategic merge patches.
fn accepted_patches(strategic: bool) -> Vec<&'static str> {
    let mut all = vec!["application/json-patch+json", "application/merge-patch+json"];
    all.extend(strategic.then_some("application/strategic-merge-patch+json"));
    all.push("application/apply-patch+yaml");
    all
}

/// Reads the whole body; 413 beyond the limit.
pub(crate) async fn read(mut body: HttpBody) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::bad_request(format!("the request body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(ApiError::too_large(BODY_BYTES_MAX));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Decodes an object; `kind` is what it must be and stands in errors. No content type means JSON.
pub(crate) fn object(headers: &HeaderMap, body: &[u8], kind: &str) -> Result<Body, ApiError> {
    match media_type(headers) {
        "" | "application/json" => objects_only(decode::json(body, kind)?, body, kind),
        "application/yaml" => decode::yaml(body, kind),
        protobuf::MEDIA_TYPE => {
            protobuf::decode(body).map(Body::from).map_err(|error| decode::unrecognized(kind, &error.to_string(), body))
        }
        _ => Err(ApiError::unsupported_media_type(ACCEPTED)),
    }
}

/// In JSON, nothing at all stands for an object without fields; anything else has no kind.
fn objects_only(mut decoded: Body, body: &[u8], kind: &str) -> Result<Body, ApiError> {
    let found = match &decoded.value {
        Value::Object(_) => return Ok(decoded),
        Value::Null => {
            decoded.value = Value::Object(Map::new());
            return Ok(decoded);
        }
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
    };
    let wanted =
        r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let why = format!(
        "couldn't get version/kind; json parse error: json: cannot unmarshal {found} into Go value of type {wanted}"
    );
    Err(decode::unrecognized(kind, &why, body))
}

/// Decodes a patch; `strategic`: whether the kind takes strategic merge patches.
pub(crate) fn patch(headers: &HeaderMap, body: &[u8], strategic: bool) -> Result<Patch, ApiError> {
    match media_type(headers) {
        "application/json-patch+json" => Ok(Patch::Json(decode::patch(body, "error decoding patch: ")?.value)),
        "application/merge-patch+json" => Ok(Patch::Merge(decode::patch(body, "error decoding patch: ")?)),
        "application/strategic-merge-patch+json" if strategic => Ok(Patch::Strategic(decode::patch(body, "")?)),
        "application/apply-patch+yaml" => Ok(Patch::Apply(decode::apply(body)?)),
        _ => Err(unsupported(strategic)),
    }
}

/// Kubernetes' router refuses these before the code that knows the types of patches; custom resources, which alone
/// take no strategic merge patches, do not come by it.
fn unsupported(strategic: bool) -> ApiError {
    if !strategic {
        return ApiError::unsupported_media_type(&accepted_patches(strategic));
    }
    let message = "415: Unsupported Media Type";
    ApiError { details: Some(Box::default()), ..ApiError::new(415, "UnsupportedMediaType", message) }
}

/// Whether the body is a configuration for server-side apply.
pub(crate) fn is_apply(headers: &HeaderMap) -> bool {
    media_type(headers) == "application/apply-patch+yaml"
}

/// Refuses content types of patches that are not taken, before anything else of the request is looked at.
pub(crate) fn check_patch_type(headers: &HeaderMap, strategic: bool) -> Result<(), ApiError> {
    let accepted = accepted_patches(strategic);
    let known = accepted.contains(&media_type(headers));
    if known { Ok(()) } else { Err(unsupported(strategic)) }
}
