//! Calls that the API server makes: webhooks of admission and of custom resources, aggregated API servers.
//!
//! A [`Caller`] is made once per configuration (address, trust) and keeps its connections open between calls. It
//! reaches a Service by its endpoints, taken from the server's own cache: the API server uses neither cluster DNS nor
//! the proxy. It follows no redirect, and whoever calls sets the deadline.
//!
//! Errors are worded as Go's client words them, because they reach users: `dial tcp 10.0.0.1:443: connect: connection
//! refused`, `tls: failed to verify certificate: x509: certificate signed by unknown authority`.

mod connect;
mod services;
mod trust;

#[cfg(test)]
mod tests;

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;

pub(crate) use connect::{told_io, told_tls};
pub(crate) use services::Services;
pub use trust::system_roots;
pub(crate) use trust::{Trust, TrustError};

use crate::http::Body;
use connect::{Connector, DialError};

/// How long a connection that nobody uses is kept; Go's number.
const IDLE_TIME_MAX: Duration = Duration::from_secs(90);

/// Most connections kept idle per address.
const IDLE_MAX: usize = 16;

/// Most of an answer that is shown where it says nothing in the expected form.
const SHOWN_BYTES_MAX: usize = 2048;

/// Where calls go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A host, by name or address, and a port.
    Host(String, u16),
    /// A port of a Service in this cluster.
    Service {
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        name: String,
        /// A port of its `spec.ports`.
        port: u16,
    },
}

impl Place {
    /// The host that stands in URLs and that certificates are checked for.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Host(host, _) => host.clone(),
            Self::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Host(_, port) | Self::Service { port, .. } => *port,
        }
    }

    /// `HOST:PORT`, brackets around an IPv6 address.
    pub(crate) fn authority(&self) -> String {
        let (host, port) = (self.host(), self.port());
        if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Go's client offers HTTP/2 for hosts of the own machine only: one HTTP/2 connection would bind all calls to one
    /// endpoint of a Service.
    fn is_loopback(&self) -> bool {
        match self {
            Self::Host(host, _) => {
                let host = host.trim_matches(['[', ']']);
                host.eq_ignore_ascii_case("localhost")
                    || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
            Self::Service { .. } => false,
        }
    }
}

/// Why a call brought no answer. The text is what stands behind the URL in Go's `Post "URL": …`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CallError(pub(crate) String);

impl CallError {
    /// The deadline has passed.
    pub(crate) fn deadline() -> Self {
        Self("context deadline exceeded".to_owned())
    }
}

/// A question to a webhook: where it goes, and what is taken for an answer.
pub(crate) struct Post<'p> {
    /// Path and query.
    pub(crate) path: &'p str,
    /// The whole address, as it stands in errors.
    pub(crate) url: &'p str,
    /// How long the answer may take.
    pub(crate) time_max: Duration,
    /// What is told when it takes longer.
    pub(crate) late: CallError,
    /// Longest answer that is read.
    pub(crate) bytes_max: usize,
}

/// The connections to one place under one trust. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub(crate) struct Caller {
    client: Client<Connector, Body>,
    place: Arc<Place>,
}

impl Caller {
    /// Nothing is connected yet.
    pub(crate) fn new(place: Place, trust: &Trust, services: &Arc<Services>) -> Result<Self, TrustError> {
        let tls = trust.connector(place.is_loopback())?;
        let place = Arc::new(place);
        let server_name = trust.server_name.clone().unwrap_or_else(|| place.host());
        let connector = Connector::new(Arc::clone(&place), server_name, tls, Arc::clone(services));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Ok(Self { client, place })
    }

    /// `HOST:PORT` of its place.
    pub(crate) fn authority(&self) -> String {
        self.place.authority()
    }

    /// Sends one request; the path and query are the request's, the address is the caller's. Gives the head of the
    /// answer; its body follows. The caller of this sets the deadline.
    pub(crate) async fn send(&self, mut request: http::Request<Body>) -> Result<http::Response<Incoming>, CallError> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let uri = format!("https://{}{path}", self.place.authority());
        *request.uri_mut() = uri.parse().map_err(|error| CallError(format!("{error}")))?;
        self.client.request(request).await.map_err(|error| CallError(told(&error)))
    }

    /// Asks a webhook and reads its answer; the error is in the words of Kubernetes' client.
    pub(crate) async fn post(&self, post: Post<'_>, question: &Value) -> Result<Value, String> {
        let body = crate::http::full(question.to_string());
        let mut request = http::Request::post(post.path).body(body).map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
        headers.insert(USER_AGENT, HeaderValue::from_static("kube-apiserver-admission"));
        let answer = async {
            let answer = self.send(request).await?;
            let code = answer.status();
            Ok::<_, CallError>((code, read(answer.into_body(), post.bytes_max).await?))
        };
        let answer = tokio::time::timeout(post.time_max, answer).await.unwrap_or(Err(post.late));
        let (code, body) = answer.map_err(|error| format!("Post {:?}: {error}", post.url))?;
        if !code.is_success() {
            return Err(unsuccessful(code, &body));
        }
        serde_json::from_slice(&body).map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))
    }
}

/// The cause that says most, in Go's words.
fn told(error: &hyper_util::client::legacy::Error) -> String {
    let mut cause = error.source();
    let mut last = error.to_string();
    while let Some(one) = cause {
        if let Some(dial) = one.downcast_ref::<DialError>() {
            return dial.to_string();
        }
        if let Some(http) = one.downcast_ref::<hyper::Error>()
            && (http.is_incomplete_message() || http.is_closed())
        {
            return "EOF".to_owned();
        }
        last = one.to_string();
        cause = one.source();
    }
    last
}

/// Reads a whole answer, at most `limit` bytes.
pub(crate) async fn read(body: Incoming, limit: usize) -> Result<Bytes, CallError> {
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(CallError(format!("the answer is longer than {limit} bytes")))
        }
        Err(error) => Err(CallError(error.to_string())),
    }
}

/// What an answer says that is no success, in the words of Kubernetes' client: a `Status` speaks for itself.
fn unsuccessful(code: StatusCode, body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    if let Some(message) = parsed.as_ref().filter(|status| status["kind"] == "Status") {
        return message["message"].as_str().unwrap_or_default().to_owned();
    }
    let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]);
    let shown = shown.trim();
    match code.as_u16() {
        400 => "the server rejected our request for an unknown reason".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 | 415 => shown.to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        409 => "the server reported a conflict".to_owned(),
        422 => "the server rejected our request due to an error in our request".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        504 => {
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned()
        }
        500.. => format!("an error on the server ({shown:?}) has prevented the request from succeeding"),
        other => format!("the server responded with the status code {other} but did not return more information"),
    }
}
