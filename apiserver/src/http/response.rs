//! Bodies and small answers.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use super::negotiate::Encoding;
use super::{encode, pretty};
use crate::flowcontrol::Belongs;
use crate::status::ApiError;

/// Why a body broke off.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// Body of requests and responses, whatever they came in on.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;
/// An answer on its way out.
pub(crate) type Answer = Response<Body>;

/// Media type of almost everything.
pub(crate) const JSON: &str = "application/json";

/// A body that is already there.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// An answer of the given type.
pub(crate) fn answer(code: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A JSON answer; as everywhere in Kubernetes, the text ends with a line break.
pub(crate) fn json(code: StatusCode, value: &Value) -> Answer {
    answer(code, JSON, full(format!("{value}\n")))
}

/// What is left for a client that asked for the head alone. In HTTP/2 a body behind it is an error of the connection.
pub(crate) fn without_body(answer: &mut Answer) {
    use hyper::body::Body as _;
    let length = answer.body().size_hint().exact();
    // What somebody else has said of the body that it would have sent, stands.
    if let Some(length) = length.filter(|_| !answer.headers().contains_key(http::header::CONTENT_LENGTH)) {
        answer.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
    }
    *answer.body_mut() = full(Bytes::new());
}

/// A plain text.
pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Answer {
    answer(code, "text/plain; charset=utf-8", full(text.into()))
}

/// A JSON answer for people as much as for programs: indented, whatever the client takes.
pub(crate) fn raw_json(code: StatusCode, value: &Value) -> Answer {
    answer(code, JSON, full(pretty::indent(value.to_string().as_bytes())))
}

/// What Go's HTTP library says of a path that leads nowhere.
pub(crate) fn not_found_page() -> Answer {
    let mut answer = text(StatusCode::NOT_FOUND, "404 page not found\n");
    set(&mut answer, http::header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer
}

/// What Go's HTTP library says of a path that it cannot read.
pub(crate) fn bad_request_line() -> Answer {
    text(StatusCode::BAD_REQUEST, "400 Bad Request")
}

/// Too much is going on: the client may ask again after so many seconds.
pub(crate) fn sent_away(retry_after: u64) -> Answer {
    let mut answer = text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    answer.headers_mut().insert(RETRY_AFTER, retry_after.into());
    set(&mut answer, http::header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    answer
}

/// The request has taken too long. Written past everything that would give it a form.
pub(crate) fn timed_out() -> Answer {
    let status = concat!(
        r#"{"metadata":{},"status":"Failure","message":"Timeout: request did not complete within the allotted "#,
        r#"timeout","reason":"Timeout","details":{},"code":504}"#,
        "\n"
    );
    text(StatusCode::GATEWAY_TIMEOUT, status)
}

/// Says by which objects the request was classified; by their UIDs, for names may tell too much.
pub(crate) fn belongs(answer: &mut Answer, belongs: Belongs) {
    let headers = answer.headers_mut();
    headers.insert(HeaderName::from_static("x-kubernetes-pf-flowschema-uid"), belongs.schema_uid);
    headers.insert(HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid"), belongs.level_uid);
}

/// An error as its `Status`, in the form that the client takes; if it takes none, as JSON.
pub(crate) fn error(error: &ApiError, encoding: Option<Encoding>) -> Answer {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match encoding {
        Some(encoding) => encode::status_as(code, &error.status(), encoding),
        None => encode::status_as(code, &error.status(), Encoding::Pretty),
    };
    let wait = error.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if wait > 0 {
        response.headers_mut().insert(RETRY_AFTER, wait.into());
    }
    warn(&mut response, &error.warnings);
    response
}

/// Adds a warning before those there are.
pub(crate) fn warn_first(response: &mut Answer, warning: Option<&str>) {
    let Some(warning) = warning else { return };
    let rest: Vec<_> = response.headers().get_all(WARNING).iter().cloned().collect();
    response.headers_mut().remove(WARNING);
    warn(response, &[warning.to_owned()]);
    for value in rest {
        response.headers_mut().append(WARNING, value);
    }
}

/// Adds `Warning: 299 - "…"` for each text.
pub(crate) fn warn(response: &mut Answer, warnings: &[String]) {
    for warning in warnings {
        let mut quoted = String::with_capacity(warning.len() + 9);
        quoted.push_str("299 - \"");
        for letter in warning.chars() {
            match letter {
                '"' | '\\' => quoted.extend(['\\', letter]),
                letter if letter.is_control() => quoted.push(' '),
                letter => quoted.push(letter),
            }
        }
        quoted.push('"');
        if let Ok(value) = HeaderValue::from_bytes(quoted.as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

/// Sets a header whose value was made here; a value that is no header is left out.
pub(crate) fn set(response: &mut Answer, name: impl Into<HeaderName>, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_version_is_deprecated_is_warned_of_first() {
        let mut answer = answer(StatusCode::OK, JSON, full(Bytes::new()));
        warn(&mut answer, &["unknown field \"a\"".to_owned(), "more".to_owned()]);
        warn_first(&mut answer, Some("old"));
        warn_first(&mut answer, None);
        let texts: Vec<_> = answer.headers().get_all(WARNING).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(texts, [r#"299 - "old""#, r#"299 - "unknown field \"a\"""#, r#"299 - "more""#]);
    }
}
