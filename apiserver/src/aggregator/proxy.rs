//! Passes requests on to another API server, in the user's name.
//!
//! Bodies stream both ways: nothing is kept but what is on its way. The other server knows this one by its certificate
//! and believes the `X-Remote-*` headers; the client's own credentials stay here. Refusals are plain text, as in
//! `kube-aggregator`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, LOCATION, UPGRADE,
    USER_AGENT, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode, Version};
use http_body_util::{BodyDataStream, BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio_util::sync::CancellationToken;

use super::Aggregator;
use super::table::Backend;
pub(super) use crate::auth::front_proxy::name;
use crate::http::{Answer, Body, BoxError, full, text};
use crate::outbound::{self, CallError, Caller};
use crate::proxy::drop_hop_by_hop;
use crate::proxy_node::{is_upgrade, tunnel};
use crate::registry::UserInfo;

/// How long the root of a group and version may take: it should be cheap, and every client asks for it.
const DISCOVERY_TIME_MAX: Duration = Duration::from_secs(5);

/// A request that goes to another server.
pub(crate) struct Passed {
    /// Who asks.
    pub(crate) user: UserInfo,
    pub(crate) parts: Parts,
    pub(crate) body: Body,
    /// It is a watch: its answer ends when this server does.
    pub(crate) is_watch: bool,
    /// It is the root of a group and version.
    pub(crate) is_discovery: bool,
    /// Cancelled when this server ends.
    pub(crate) shutdown: CancellationToken,
}

/// A refusal in plain text, as Go's `http.Error` writes it.
fn refusal(code: StatusCode, why: &str) -> Answer {
    let mut answer = text(code, format!("{why}\n"));
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn unavailable(why: &str) -> Answer {
    refusal(StatusCode::SERVICE_UNAVAILABLE, why)
}

impl Aggregator {
    /// Passes a request on and gives the other server's answer, or says why there is none.
    pub(crate) async fn pass_on(&self, backend: &Backend, passed: Passed) -> Answer {
        if !backend.is_available {
            return unavailable("service unavailable");
        }
        let caller = match &backend.caller {
            Ok(caller) => caller,
            Err(why) => return refusal(StatusCode::INTERNAL_SERVER_ERROR, why),
        };
        if is_upgrade(&passed.parts.headers) {
            return self.upgrade(caller, passed).await;
        }
        let (is_watch, shutdown) = (passed.is_watch, passed.shutdown.clone());
        let limit = passed.is_discovery.then_some(DISCOVERY_TIME_MAX);
        let sent = caller.send(outgoing(passed.parts, passed.body, &passed.user, caller));
        let answer = match limit {
            Some(limit) => tokio::time::timeout(limit, sent).await.unwrap_or_else(|_| Err(CallError::deadline())),
            None => sent.await,
        };
        match answer {
            Ok(answer) => returned(answer, is_watch.then_some(shutdown)),
            Err(error) => unavailable(&format!("error trying to reach service: {error}")),
        }
    }

    /// Passes on a request for another protocol; bytes go both ways until one side ends.
    async fn upgrade(&self, caller: &Caller, mut passed: Passed) -> Answer {
        let Some(client) = passed.parts.extensions.remove::<OnUpgrade>() else {
            return unavailable("request connection cannot be hijacked: use HTTP/1.1");
        };
        let Ok(permit) = Arc::clone(&self.tunnels).try_acquire_owned() else {
            return unavailable("too many upgraded connections");
        };
        let protocol = passed.parts.headers.get(UPGRADE).cloned();
        let mut request = outgoing(passed.parts, full(""), &passed.user, caller);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        protocol.into_iter().for_each(|protocol| drop(request.headers_mut().insert(UPGRADE, protocol)));
        let mut answer = match caller.send(request).await {
            Ok(answer) => answer,
            Err(error) => return unavailable(&format!("error dialing backend: {error}")),
        };
        let code = answer.status();
        if code != StatusCode::SWITCHING_PROTOCOLS {
            if code.as_u16() < 400 {
                return unavailable(&format!("invalid upgrade response: status code {}", code.as_u16()));
            }
            return returned(answer, None);
        }
        let server = hyper::upgrade::on(&mut answer);
        let shutdown = passed.shutdown;
        tokio::spawn(async move {
            shutdown.run_until_cancelled(tunnel(client, server)).await;
            drop(permit);
        });
        let (parts, _) = answer.into_parts();
        Answer::from_parts(parts, full(Bytes::new()))
    }
}

/// The request as the other server gets it.
fn outgoing(parts: Parts, body: Body, user: &UserInfo, caller: &Caller) -> http::Request<Body> {
    let path = parts.uri.path().to_owned();
    let mut request = http::Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = parts.uri;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    *headers = parts.headers;
    drop_hop_by_hop(headers);
    for name in [HOST, AUTHORIZATION] {
        headers.remove(name);
    }
    let claims: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    claims.iter().for_each(|name| drop(headers.remove(name)));
    name(headers, user);
    let forwarded =
        [("x-forwarded-uri", path), ("x-forwarded-host", caller.authority()), ("x-forwarded-proto", "https".into())];
    for (name, value) in forwarded {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    request
}

/// The other server's answer as the client gets it; a watch ends with `end`.
fn returned(answer: http::Response<Incoming>, end: Option<CancellationToken>) -> Answer {
    let (mut parts, body) = answer.into_parts();
    if parts.status.is_redirection() && parts.headers.contains_key(LOCATION) {
        let why = "the backend attempted to redirect this request, which is not permitted";
        return text(StatusCode::BAD_GATEWAY, why);
    }
    drop_hop_by_hop(&mut parts.headers);
    parts.headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    parts.version = Version::HTTP_11;
    let body = match end {
        None => body.map_err(BoxError::from).boxed_unsync(),
        Some(end) => {
            let frames = BodyDataStream::new(body).map(|data| data.map(Frame::data).map_err(BoxError::from));
            StreamBody::new(frames.take_until(end.cancelled_owned())).boxed_unsync()
        }
    };
    Answer::from_parts(parts, body)
}

/// A question of this server's own.
pub(super) struct Question<'q> {
    pub(super) path: &'q str,
    pub(super) accept: &'static str,
    /// In whose name.
    pub(super) user: UserInfo,
    /// Of the answer that is known; empty: none.
    pub(super) etag: &'q str,
}

/// What was answered.
pub(super) struct Fetched {
    pub(super) code: StatusCode,
    pub(super) content_type: String,
    pub(super) etag: String,
    pub(super) body: Bytes,
}

/// Asks another server for a document of at most `limit` bytes, whether or not it is said to be available. The caller
/// of this sets the deadline.
pub(super) async fn fetch(backend: &Backend, question: Question<'_>, limit: usize) -> Result<Fetched, String> {
    let caller = backend.caller.as_ref().map_err(String::clone)?;
    let mut request = http::Request::get(question.path).body(full("")).map_err(|error| error.to_string())?;
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static(question.accept));
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-aggregator"));
    if let Some(etag) = HeaderValue::from_str(question.etag).ok().filter(|etag| !etag.is_empty()) {
        headers.insert(IF_NONE_MATCH, etag);
    }
    name(headers, &question.user);
    let answer = caller.send(request).await.map_err(|error| error.to_string())?;
    let code = answer.status();
    let text = |name: HeaderName| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (content_type, etag) = (text(CONTENT_TYPE), text(ETAG));
    let body = outbound::read(answer.into_body(), limit).await.map_err(|error| error.to_string())?;
    Ok(Fetched { code, content_type, etag, body })
}
