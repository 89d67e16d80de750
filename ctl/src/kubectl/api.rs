//! Requests to the server, and its answers as values or errors in kubectl's words.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use futures::AsyncBufReadExt as _;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::client::Body;
use serde_json::Value;

use super::error::CliError;

/// Longest answer that is read as a whole: a list of everything.
const ANSWER_MAX: usize = 1 << 30;

/// What a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// An object.
    Json,
    /// JSON patch (RFC 6902).
    JsonPatch,
    /// JSON merge patch (RFC 7386).
    MergePatch,
    /// Strategic merge patch.
    StrategicPatch,
    /// Server-side apply.
    Apply,
}

impl Content {
    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonPatch => "application/json-patch+json",
            Self::MergePatch => "application/merge-patch+json",
            Self::StrategicPatch => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// A path with its query parameters.
#[derive(Debug, Clone)]
pub(crate) struct Url {
    path: String,
    query: Vec<(&'static str, String)>,
}

impl Url {
    /// A path without parameters; it may hold a query already (`get --raw`).
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self { path: path.into(), query: Vec::new() }
    }

    /// With one more parameter.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// With the parameter if there is one.
    #[must_use]
    pub(crate) fn with_some(self, parameter: Option<(&'static str, String)>) -> Self {
        match parameter {
            Some((name, value)) => self.with(name, value),
            None => self,
        }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path)?;
        let mut separator = if self.path.contains('?') { '&' } else { '?' };
        for (name, value) in &self.query {
            write!(f, "{separator}{name}={}", encode(value))?;
            separator = '&';
        }
        Ok(())
    }
}

/// Percent-encodes a part of a URL.
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
        encoded
    })
}

/// A connection to one cluster.
#[derive(Clone)]
pub(crate) struct Api {
    client: kube::Client,
    /// The namespace of namespaced requests.
    pub namespace: String,
    /// Whether the user named it: then objects of another namespace are refused.
    pub namespace_given: bool,
    server: http::Uri,
}

impl Api {
    /// `server` is what the kubeconfig says, for texts.
    pub(crate) fn new(client: kube::Client, namespace: String, namespace_given: bool, server: http::Uri) -> Self {
        Self { client, namespace, namespace_given, server }
    }

    /// `https://HOST:PORT`
    pub(crate) fn address(&self) -> String {
        self.server.to_string().trim_end_matches('/').to_owned()
    }

    /// The client itself, for WebSockets.
    pub(crate) fn client(&self) -> &kube::Client {
        &self.client
    }

    /// `GET`, as JSON.
    pub(crate) async fn get(&self, url: &Url) -> Result<Value, CliError> {
        self.get_as(url, "application/json").await
    }

    /// `GET` in the form that `accept` asks for.
    pub(crate) async fn get_as(&self, url: &Url, accept: &str) -> Result<Value, CliError> {
        parse(&self.request(Method::GET, url, accept, None).await?)
    }

    /// `GET`, as it comes.
    pub(crate) async fn get_raw(&self, url: &Url) -> Result<Bytes, CliError> {
        self.request(Method::GET, url, "*/*", None).await
    }

    /// `POST` of JSON, unseen; the answer as it comes.
    pub(crate) async fn post_raw(&self, url: &Url, body: Bytes) -> Result<Bytes, CliError> {
        self.request(Method::POST, url, "*/*", Some((Content::Json, body))).await
    }

    /// Any request with a body; the answer as JSON.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &Url,
        content: Content,
        body: &Value,
    ) -> Result<Value, CliError> {
        parse(&self.request(method, url, "application/json", Some((content, body.to_string().into()))).await?)
    }

    /// The lines of a streamed answer: a watch's events as `accept` asks for them.
    pub(crate) async fn watch(
        &self,
        url: &Url,
        accept: &str,
    ) -> Result<BoxStream<'static, Result<Value, CliError>>, CliError> {
        let lines = self.stream(url, accept).await?;
        Ok(lines.and_then(|line| async move { parse(line.as_bytes()) }).boxed())
    }

    /// The lines of a streamed answer, as they come.
    pub(crate) async fn stream(
        &self,
        url: &Url,
        accept: &str,
    ) -> Result<BoxStream<'static, Result<String, CliError>>, CliError> {
        let bytes = self.opened(url, accept).await?.into_data_stream().map_err(std::io::Error::other);
        let lines = futures::io::BufReader::new(bytes.into_async_read()).lines();
        Ok(lines.map_err(|err| CliError::plain(err.to_string())).boxed())
    }

    /// A streamed answer in the pieces in which it comes.
    pub(crate) async fn bytes(&self, url: &Url) -> Result<BoxStream<'static, Result<Bytes, std::io::Error>>, CliError> {
        let body = self.opened(url, "*/*").await?;
        Ok(body.into_data_stream().map_err(std::io::Error::other).boxed())
    }

    async fn opened(&self, url: &Url, accept: &str) -> Result<Body, CliError> {
        let request = self.build(Method::GET, url, accept, None)?;
        let response = self.client.send(request).await.map_err(|err| self.unreachable(&err))?;
        let (status, body) = (response.status(), response.into_body());
        if status.is_success() {
            return Ok(body);
        }
        let body = http_body_util::Limited::new(body, ANSWER_MAX);
        let bytes = body.collect().await.map_err(|err| CliError::plain(err.to_string()))?.to_bytes();
        Err(refusal(status, &bytes))
    }

    fn build(
        &self,
        method: Method,
        url: &Url,
        accept: &str,
        body: Option<(Content, Bytes)>,
    ) -> Result<Request<Body>, CliError> {
        let mut request = Request::builder().method(method).uri(url.to_string()).header(header::ACCEPT, accept);
        if let Some((content, _)) = &body {
            request = request.header(header::CONTENT_TYPE, content.media_type());
        }
        let body = body.map_or_else(Body::empty, |(_, bytes)| Body::from(bytes));
        request.body(body).map_err(|err| CliError::plain(format!("invalid request {url}: {err}")))
    }

    async fn request(
        &self,
        method: Method,
        url: &Url,
        accept: &str,
        body: Option<(Content, Bytes)>,
    ) -> Result<Bytes, CliError> {
        let request = self.build(method, url, accept, body)?;
        let response = self.client.send(request).await.map_err(|err| self.unreachable(&err))?;
        warn(response.headers());
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_MAX);
        let bytes = body.collect().await.map_err(|err| CliError::plain(err.to_string()))?.to_bytes();
        if status.is_success() { Ok(bytes) } else { Err(refusal(status, &bytes)) }
    }

    fn unreachable(&self, err: &kube::Error) -> CliError {
        let mut causes = Vec::new();
        let mut cause: Option<&dyn std::error::Error> = Some(err);
        while let Some(own) = cause {
            causes.push(own.to_string());
            cause = own.source();
        }
        if causes.iter().any(|text| text.contains("Connection refused")) {
            let text = format!(
                "The connection to the server {} was refused - did you specify the right host or port?",
                self.server.authority().map_or("", |own| own.as_str())
            );
            return CliError::Unreachable(text);
        }
        let last = causes.pop().unwrap_or_default();
        CliError::Unreachable(format!("Unable to connect to the server: {last}"))
    }
}

fn parse(bytes: &[u8]) -> Result<Value, CliError> {
    serde_json::from_slice(bytes).map_err(|err| CliError::plain(format!("the server's answer is not JSON: {err}")))
}

/// How many warnings the server sent, for `--warnings-as-errors`.
/// What the server has warned of, each text once.
static WARNINGS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// How many different warnings the server has sent to this program.
pub(crate) fn warnings() -> usize {
    WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// The server's warnings, on standard error as kubectl prints them: each once. RFC 7234: `299 - "text"`.
fn warn(headers: &http::HeaderMap) {
    for value in headers.get_all(header::WARNING) {
        let Ok(text) = value.to_str() else { continue };
        let quoted = text.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"')).map(|(text, _)| text);
        let Some(text) = quoted.map(|text| text.replace("\\\"", "\"").replace("\\\\", "\\")) else { continue };
        if WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
            eprintln!("Warning: {text}");
        }
    }
}

fn refusal(code: StatusCode, body: &[u8]) -> CliError {
    match serde_json::from_slice::<Status>(body) {
        Ok(status) if status.status.as_deref() == Some("Failure") => CliError::Server(Box::new(status)),
        _ => {
            let text = String::from_utf8_lossy(body);
            let reason = code.canonical_reason().unwrap_or("unknown status").replace(' ', "");
            let message = if text.trim().is_empty() {
                "the server could not find the requested resource".to_owned()
            } else {
                text.trim().to_owned()
            };
            CliError::Server(Box::new(Status { reason: Some(reason), message: Some(message), ..Status::default() }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_encoded_and_appended_to_what_is_there() {
        let url = Url::new("/api/v1/pods?limit=1").with("labelSelector", "a in (b,c)");
        assert_eq!(url.to_string(), "/api/v1/pods?limit=1&labelSelector=a%20in%20%28b%2Cc%29");
    }
}
