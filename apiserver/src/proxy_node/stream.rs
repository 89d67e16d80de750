//! `pods/NAME/exec` and `attach`: an upgraded connection between client and node, passed through byte by byte.
//!
//! WebSocket only; SPDY upgrades are refused with a text that says what to use. Clients that speak both fall back
//! to SPDY when a WebSocket upgrade fails and show that second answer, so whatever is wrong with the request is
//! found and told there too.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderName, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Empty;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::{Nodes, Place, container, kubelet, locate};
use crate::admission::{self, Attributes};
use crate::http::{Answer, Call, Query, full, too_many_requests};
use crate::registry::{Registry, Request};
use crate::status::ApiError;

/// Headers of the upgrade that the node must see, and that it answers with.
const WEB_SOCKET_HEADERS: [&str; 5] = [
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "sec-websocket-accept",
];

const USE_WEB_SOCKETS: &str = "SPDY streams are not supported by this server: use a client that streams over WebSockets \
    (kubectl 1.31 or newer; with kubectl 1.29 and 1.30 set KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true)";

/// Answers an exec or attach request: 101 and the tunnel, or the reason why not.
pub(super) async fn answer(
    nodes: &Nodes,
    registry: &Registry,
    request: &Request,
    mut call: Call,
) -> Result<Answer, ApiError> {
    let asked = Asked::parse(&call.path.subresource, &call.query);
    asked.admit(registry, request).await?;
    let place = locate(registry, request, asked.container).await?;
    let place =
        place.ok_or_else(|| ApiError::bad_request(format!("pod {} does not have a host assigned", request.name)))?;
    asked.validate()?;
    let headers = &call.parts.headers;
    if !is_upgrade_to(headers, "websocket") {
        check_running(&place)?;
        nodes.kubelet.probe(&place.node).await?;
        let spdy = is_upgrade_to(headers, "spdy/3.1");
        return Err(ApiError::bad_request(if spdy {
            USE_WEB_SOCKETS
        } else {
            "you must specify an upgrade to a WebSocket"
        }));
    }
    let client = call.parts.extensions.remove::<OnUpgrade>();
    let client = client.ok_or_else(|| ApiError::bad_request("this connection cannot be upgraded: use HTTP/1.1"))?;
    let permit = Arc::clone(&nodes.tunnels).try_acquire_owned().map_err(|_| too_many_requests())?;
    let found = nodes.kubelet.send(&place.node, upgrade_request(&asked, &place, headers)?).await?;
    if found.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(kubelet::refusal(found).await);
    }
    let answer = switching(found.headers());
    connect(nodes, client, found, permit);
    Ok(answer)
}

/// What the query asks for.
struct Asked<'q> {
    verb: &'q str,
    container: &'q str,
    command: Vec<&'q str>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl<'q> Asked<'q> {
    fn parse(verb: &'q str, query: &'q Query) -> Self {
        Self {
            verb,
            container: query.get("container").unwrap_or_default(),
            command: query.all("command").collect(),
            stdin: query.flag("stdin"),
            stdout: query.flag("stdout"),
            stderr: query.flag("stderr"),
            tty: query.flag("tty"),
        }
    }

    /// Admission sees a connection by its options, before anything is looked up.
    async fn admit(&self, registry: &Registry, request: &Request) -> Result<(), ApiError> {
        if request.options.dry_run {
            return Err(ApiError::bad_request("dryRun is not supported"));
        }
        let kind = if self.verb == "exec" { "PodExecOptions" } else { "PodAttachOptions" };
        let attributes = Attributes::connect(request, self.options(kind)).of_kind(self.verb, ("", "v1", kind));
        admission::admit_body(registry, attributes).await.map(drop)
    }

    fn options(&self, kind: &str) -> Value {
        let mut options = json!({ "kind": kind, "apiVersion": "v1" });
        let flags = [("stdin", self.stdin), ("stdout", self.stdout), ("stderr", self.stderr), ("tty", self.tty)];
        for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
            options[name] = true.into();
        }
        if !self.container.is_empty() {
            options["container"] = self.container.into();
        }
        if self.verb == "exec" {
            options["command"] = json!(self.command);
        }
        options
    }

    fn validate(&self) -> Result<(), ApiError> {
        if self.verb == "exec" && self.command.is_empty() {
            return Err(ApiError::bad_request("you must specify at least one command for the container"));
        }
        if !(self.stdin || self.stdout || self.stderr) {
            return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        Ok(())
    }

    /// The kubelet's names for the same options.
    fn kubelet_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for command in &self.command {
            query.append_pair("command", command);
        }
        // With a terminal there is one output stream, as in Kubernetes.
        let flags =
            [("input", self.stdin), ("output", self.stdout), ("error", self.stderr && !self.tty), ("tty", self.tty)];
        for (name, _) in flags.into_iter().filter(|(_, set)| *set) {
            query.append_pair(name, "1");
        }
        query.finish()
    }
}

fn check_running(place: &Place) -> Result<(), ApiError> {
    if container::is_running(&place.pod, &place.container) {
        return Ok(());
    }
    Err(ApiError::new(404, "NotFound", format!("container not found (\"{}\")", place.container)))
}

pub(super) fn is_upgrade_to(headers: &HeaderMap, protocol: &str) -> bool {
    let has = |name: HeaderName, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    has(CONNECTION, "upgrade") && has(UPGRADE, protocol)
}

fn copy_web_socket_headers(from: &HeaderMap, to: &mut HeaderMap) {
    to.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    to.insert(UPGRADE, HeaderValue::from_static("websocket"));
    for name in WEB_SOCKET_HEADERS.map(HeaderName::from_static) {
        for value in from.get_all(&name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// Only what the upgrade needs goes to the node: no credentials of the client.
fn upgrade_request(
    asked: &Asked<'_>,
    place: &Place,
    headers: &HeaderMap,
) -> Result<http::Request<Empty<Bytes>>, ApiError> {
    let uri = format!("/{}/{}?{}", asked.verb, place.path, asked.kubelet_query());
    let mut request = http::Request::get(uri).body(Empty::new()).map_err(ApiError::internal)?;
    copy_web_socket_headers(headers, request.headers_mut());
    Ok(request)
}

fn switching(headers: &HeaderMap) -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy_web_socket_headers(headers, answer.headers_mut());
    answer
}

/// Makes one connection of the client's and the node's, until the server stops.
pub(super) fn connect(
    nodes: &Nodes,
    client: OnUpgrade,
    found: Response<hyper::body::Incoming>,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let shutdown = nodes.shutdown.clone();
    tokio::spawn(async move {
        shutdown.run_until_cancelled(tunnel(client, hyper::upgrade::on(found))).await;
        drop(permit);
    });
}

/// Copies both ways until both sides are done or one breaks.
pub(crate) async fn tunnel(client: OnUpgrade, node: OnUpgrade) {
    let (client, node) = match tokio::try_join!(client, node) {
        Ok(both) => both,
        Err(error) => return tracing::debug!(%error, "an upgrade did not come about"),
    };
    let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut node).await {
        tracing::debug!(%error, "a stream to a node broke off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_kubelet_under_its_own_names() {
        let query =
            Query::parse("container=c&command=sh&command=-c&command=a%26b&stdin=true&stdout=true&stderr=true&tty=true")
                .unwrap();
        let asked = Asked::parse("exec", &query);
        assert_eq!(asked.kubelet_query(), "command=sh&command=-c&command=a%26b&input=1&output=1&tty=1");
        assert_eq!(asked.validate(), Ok(()));
        let nothing = Query::parse("command=sh").unwrap();
        let error = Asked::parse("exec", &nothing).validate().unwrap_err();
        assert_eq!(error.message, "you must specify at least 1 of stdin, stdout, stderr");
    }

    #[test]
    fn only_the_upgrade_is_passed_on_never_credentials() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer secret"));
        headers.insert("sec-websocket-key", HeaderValue::from_static("k"));
        let mut passed = HeaderMap::new();
        copy_web_socket_headers(&headers, &mut passed);
        assert_eq!(passed.len(), 3);
        assert_eq!(passed["sec-websocket-key"], "k");
    }
}
