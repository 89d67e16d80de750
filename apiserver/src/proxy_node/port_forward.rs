//! `pods/NAME/portforward`: connections to ports of a pod, all on one upgraded connection to its node.
//!
//! SPDY (`portforward.k8s.io`), SPDY inside a WebSocket (`SPDY/3.1+portforward.k8s.io`, kubectl 1.31 and newer) and
//! channels of a WebSocket (`v4.channel.k8s.io`) are the agent's to speak; here only the upgrade is passed on.
//!
//! Source of the rules: `PortForwardREST` and `PortForwardLocation` of Kubernetes' `pkg/registry/core/pod`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use http_body_util::Empty;
use hyper::upgrade::OnUpgrade;
use serde_json::json;

use super::stream::{connect, is_upgrade_to};
use super::{Nodes, kubelet, node_of};
use crate::admission::{self, Attributes};
use crate::http::{Answer, Call, Query, full, too_many_requests};
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

/// Answers with 101 and the tunnel, or with the reason why not.
pub(super) async fn answer(
    nodes: &Nodes,
    registry: &Registry,
    request: &Request,
    mut call: Call,
) -> Result<Answer, ApiError> {
    if request.options.dry_run {
        return Err(ApiError::bad_request("dryRun is not supported"));
    }
    let ports = ports(&call.query)?;
    admit(registry, request, &ports).await?;
    let pod = registry.get(request).await?.value();
    let node = node_of(registry, &pod)?;
    let node =
        node.ok_or_else(|| ApiError::bad_request(format!("pod {} does not have a host assigned", request.name)))?;
    let headers = &call.parts.headers;
    if !is_upgrade_to(headers, "websocket") && !is_upgrade_to(headers, "spdy/3.1") {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let asked = upgrade_request(request, &call, &ports)?;
    let client = call.parts.extensions.remove::<OnUpgrade>();
    let client = client.ok_or_else(|| ApiError::bad_request("this connection cannot be upgraded: use HTTP/1.1"))?;
    let permit = Arc::clone(&nodes.tunnels).try_acquire_owned().map_err(|_| too_many_requests())?;
    let found = nodes.kubelet.send(&node, asked).await?;
    if found.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(kubelet::refusal(found).await);
    }
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy(found.headers(), answer.headers_mut());
    connect(nodes, client, found, permit);
    Ok(answer)
}

/// The ports that channels of a WebSocket are for; with SPDY each stream says its own.
fn ports(query: &Query) -> Result<Vec<i32>, ApiError> {
    let mut ports = Vec::new();
    for value in query.all("ports").flat_map(|list| list.split(',')).filter(|port| !port.is_empty()) {
        let wrong = |_| ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"));
        ports.push(value.parse().map_err(wrong)?);
    }
    Ok(ports)
}

/// Admission sees a connection by its options, before anything is looked up.
async fn admit(registry: &Registry, request: &Request, ports: &[i32]) -> Result<(), ApiError> {
    let mut options = json!({ "kind": "PodPortForwardOptions", "apiVersion": "v1" });
    if !ports.is_empty() {
        options["ports"] = json!(ports);
    }
    let kind = ("", "v1", "PodPortForwardOptions");
    let attributes = Attributes::connect(request, options).of_kind("portforward", kind);
    admission::admit_body(registry, attributes).await.map(drop)
}

/// Only what the upgrade needs goes to the node: no credentials of the client.
fn upgrade_request(request: &Request, call: &Call, ports: &[i32]) -> Result<http::Request<Empty<Bytes>>, ApiError> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for port in ports {
        query.append_pair("port", &port.to_string());
    }
    let uri = format!("/portForward/{}/{}?{}", request.namespace, request.name, query.finish());
    let built = http::Request::builder().method(call.parts.method.clone()).uri(uri.trim_end_matches('?'));
    let mut asked = built.body(Empty::new()).map_err(ApiError::internal)?;
    copy(&call.parts.headers, asked.headers_mut());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_or_repeated() {
        let read = |query| ports(&Query::parse(query).unwrap());
        assert_eq!(read("ports=80%2C443&ports=8080"), Ok(vec![80, 443, 8080]));
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(read("ports=x").unwrap_err().code, 400);
    }

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
