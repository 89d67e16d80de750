//! `pods/NAME/exec`, `attach` and `portforward`: an upgraded connection between client and node, passed through byte by
//! byte.
//!
//! The agent speaks the protocols (SPDY and WebSocket) and the client chooses among them. What a node refuses is passed
//! on as it is: clients try one protocol after the other and show what was said last.
//!
//! Source: `UpgradeAwareHandler` of `k8s.io/apimachinery/pkg/util/proxy`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderName, UPGRADE};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Empty;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::kubelet::{self, NodeAddress};
use super::{Nodes, command, locate, node_of, port_forward};
use crate::admission::{self, Attributes};
use crate::http::{Answer, Call, full, text, too_many_requests};
use crate::registry::{Registry, Request};
use crate::status::ApiError;

/// What of the upgrade the node must see, and answers with.
const PASSED_ON: [HeaderName; 9] = [
    CONNECTION,
    UPGRADE,
    HeaderName::from_static("sec-websocket-key"),
    HeaderName::from_static("sec-websocket-version"),
    HeaderName::from_static("sec-websocket-protocol"),
    HeaderName::from_static("sec-websocket-extensions"),
    HeaderName::from_static("sec-websocket-accept"),
    HeaderName::from_static("x-stream-protocol-version"),
    HeaderName::from_static("x-accepted-stream-protocol-versions"),
];

/// What is asked of a node.
struct Wanted {
    node: NodeAddress,
    uri: String,
}

/// Answers with 101 and the tunnel, or with the reason why not. `may_create` is told when the request is understood:
/// to run something is a change, whatever the method of the request that switches protocols.
pub(super) async fn answer(
    nodes: &Nodes,
    registry: &Registry,
    request: &Request,
    mut call: Call,
    may_create: Result<(), ApiError>,
) -> Result<Answer, ApiError> {
    if request.options.dry_run {
        return Err(ApiError::bad_request("dryRun is not supported"));
    }
    let wanted = match call.path.subresource.as_str() {
        "portforward" => {
            let ports = port_forward::ports(&call.query)?;
            admit(registry, request, port_forward::options(&ports), "PodPortForwardOptions").await?;
            may_create?;
            let pod = registry.get(request).await?.value();
            let node = node_of(registry, &pod)?.ok_or_else(|| homeless(request))?;
            Wanted { node, uri: port_forward::uri(request, &ports) }
        }
        verb => {
            let asked = command::Asked::parse(verb, &call.query);
            admit(registry, request, asked.options(), asked.kind()).await?;
            may_create?;
            let place = locate(registry, request, asked.container()).await?.ok_or_else(|| homeless(request))?;
            Wanted { uri: asked.uri(&place.path), node: place.node }
        }
    };
    let headers = &call.parts.headers;
    if !is_upgrade(headers) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let asked = upgrade_request(&call.parts.method, &wanted.uri, headers)?;
    let client = call.parts.extensions.remove::<OnUpgrade>();
    let client = client.ok_or_else(|| ApiError::bad_request("this connection cannot be upgraded: use HTTP/1.1"))?;
    let permit = Arc::clone(&nodes.tunnels).try_acquire_owned().map_err(|_| too_many_requests())?;
    let found = nodes.kubelet.send(&wanted.node, asked).await?;
    match found.status() {
        StatusCode::SWITCHING_PROTOCOLS => {}
        code if code.as_u16() < 400 => {
            return Err(ApiError::unknown(format!("invalid upgrade response: status code {}", code.as_u16())));
        }
        _ => return Ok(refusal(found).await),
    }
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy(found.headers(), answer.headers_mut());
    connect(nodes, client, found, permit);
    Ok(answer)
}

fn homeless(request: &Request) -> ApiError {
    ApiError::bad_request(format!("pod {} does not have a host assigned", request.name))
}

/// Admission sees a connection by its options, before anything is looked up.
async fn admit(registry: &Registry, request: &Request, options: Value, kind: &'static str) -> Result<(), ApiError> {
    let subresource = match kind {
        "PodPortForwardOptions" => "portforward",
        "PodAttachOptions" => "attach",
        _ => "exec",
    };
    let attributes = Attributes::connect(request, options).of_kind(subresource, ("", "v1", kind));
    admission::admit_body(registry, attributes).await.map(drop)
}

/// Whether the request is for another protocol, in Go's reading.
pub(crate) fn is_upgrade(headers: &HeaderMap) -> bool {
    let mut words = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    words.any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

/// Only what the upgrade needs goes to the node: no credentials of the client.
fn upgrade_request(method: &Method, uri: &str, headers: &HeaderMap) -> Result<http::Request<Empty<Bytes>>, ApiError> {
    let built = http::Request::builder().method(method.clone()).uri(uri);
    let mut asked = built.body(Empty::new()).map_err(ApiError::internal)?;
    copy(headers, asked.headers_mut());
    asked.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    Ok(asked)
}

fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    for name in &PASSED_ON {
        for value in from.get_all(name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// The node's own words.
async fn refusal(found: Response<hyper::body::Incoming>) -> Answer {
    let code = found.status();
    let mut answer = text(code, "");
    copy(found.headers(), answer.headers_mut());
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    *answer.body_mut() = full(kubelet::error_text(found).await);
    answer
}

/// Makes one connection of the client's and the node's, until the server stops.
fn connect(
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
        tracing::debug!(%error, "an upgraded connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_upgrade_is_passed_on_never_credentials() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("authorization", "Bearer x"), ("upgrade", "SPDY/3.1"), ("cookie", "c")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut passed = HeaderMap::new();
        copy(&headers, &mut passed);
        assert_eq!(passed.len(), 1);
        assert_eq!(passed["upgrade"], "SPDY/3.1");
    }
}
