//! `pods/NAME/log`: text from the node, streamed as it comes.
//!
//! Source of the rules: `PodLogOptions` of the Kubernetes API and its validation.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::Value;

use super::{Nodes, kubelet, locate};
use crate::http::{Answer, BoxError, Query, full, text, too_many_requests};
use crate::registry::{Registry, Request};
use crate::status::ApiError;

/// What is passed on to the node as it is.
const PASSED_ON: [&str; 8] =
    ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];

/// Answers with the log of one container.
pub(super) async fn answer(
    nodes: &Nodes,
    registry: &Registry,
    request: &Request,
    query: &Query,
) -> Result<Answer, ApiError> {
    validate(query, &request.name)?;
    let Some(place) = locate(registry, request, query.get("container").unwrap_or_default()).await? else {
        // As in Kubernetes: a pod without a node has nothing to say yet.
        let mut answer = Answer::new(full(""));
        *answer.status_mut() = StatusCode::NO_CONTENT;
        return Ok(answer);
    };
    let uri = format!("/containerLogs/{}?{}", place.path, passed_on(query));
    let permit = Arc::clone(&nodes.tunnels).try_acquire_owned().map_err(|_| too_many_requests())?;
    let asked = http::Request::get(uri).body(Empty::new()).map_err(ApiError::internal)?;
    let found = nodes.kubelet.send(&place.node, asked).await?;
    if found.status() != StatusCode::OK {
        return Err(refusal(found.status(), &kubelet::error_text(found).await, &request.name));
    }
    let mut answer = text(StatusCode::OK, "");
    let lines = found.into_body().into_data_stream().map_err(BoxError::from);
    // Held as long as the log is read.
    let lines = lines.map_ok(move |line| {
        let _held = &permit;
        Frame::data(line)
    });
    *answer.body_mut() = StreamBody::new(lines.take_until(nodes.shutdown.clone().cancelled_owned())).boxed_unsync();
    // The type is ours to say, not the node's: a log is never a page.
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(answer)
}

/// What a node's refusal becomes. Source: `GenericHttpResponseChecker` of `k8s.io/apiserver`.
fn refusal(code: StatusCode, text: &str, pod: &str) -> ApiError {
    let told = match code.as_u16() {
        500 => return ApiError::internal(text),
        400 => return ApiError::bad_request(text),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => text.to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        code @ 501.. => {
            let message = format!("an error on the server ({text:?}) has prevented the request from succeeding");
            return ApiError::of_server(code, "InternalError", &message, "pods/log", pod);
        }
        code => format!("the server responded with the status code {code} but did not return more information"),
    };
    let reason = match code.as_u16() {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        _ => "",
    };
    ApiError::of_server(code.as_u16(), reason, &told, "pods/log", pod)
}

fn passed_on(query: &Query) -> String {
    let mut options = form_urlencoded::Serializer::new(String::new());
    for name in PASSED_ON {
        if let Some(value) = query.get(name) {
            options.append_pair(name, value);
        }
    }
    options.finish()
}

fn validate(query: &Query, pod: &str) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let mut at_least = |field: &'static str, least: i64, detail: &str| -> Result<(), ApiError> {
        match query.integer(field)? {
            Some(value) if value < least => errors.push(FieldError::new(FieldErrorKind::Invalid, field, value, detail)),
            _ => {}
        }
        Ok(())
    };
    at_least("tailLines", 0, "must be greater than or equal to 0")?;
    at_least("limitBytes", 1, "must be greater than 0")?;
    at_least("sinceSeconds", 1, "must be greater than 0")?;
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::new(FieldErrorKind::Forbidden, "", Value::Null, detail));
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid_kind("PodLogOptions", "", pod, &errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let check = |query| validate(&Query::parse(query).unwrap(), "p");
        assert_eq!(check("tailLines=0&limitBytes=1&follow=true"), Ok(()));
        assert_eq!(
            check("tailLines=-1").unwrap_err().message,
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0"
        );
        assert_eq!(check("sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z").unwrap_err().code, 422);
    }
}
