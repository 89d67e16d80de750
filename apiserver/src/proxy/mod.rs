//! `pods/NAME/proxy`, `services/NAME/proxy` and `nodes/NAME/proxy`: requests passed on to what runs in the cluster.
//!
//! The request goes to a pod's address, to a ready pod behind a Service, or to a node's kubelet; its body and the
//! answer's are streamed. Whoever answers sits below a longer path than it knows, so `Location` headers and links in
//! HTML are put below that path. An upgrade (WebSocket, SPDY) becomes a tunnel.
//!
//! Source of the rules: `UpgradeAwareHandler` and `Transport` of `k8s.io/apimachinery/pkg/util/proxy`, the resource
//! locations in `pkg/registry/core`.

mod dial;
mod headers;
mod html;
mod location;
mod pages;
mod target;

pub(crate) use headers::drop_hop_by_hop;

use std::sync::Arc;

use futures::TryStreamExt as _;
use http::header::{CONTENT_LENGTH, LOCATION};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;

use crate::admission::{self, Attributes};
use crate::http::{Answer, Body, BoxError, Call, Peer, full, too_many_requests};
use crate::proxy_node::{Nodes, is_upgrade, tunnel};
use crate::registry::{Registry, Request};
use crate::status::ApiError;
use location::Rewrite;
use target::Target;

/// The path that the request asks the other side for, and where the other side's root lies for the client.
struct Paths {
    /// Decoded, as the client sees it.
    own: String,
    /// Decoded, as the other side sees it; empty when nothing stands behind `proxy`.
    asked: String,
}

/// Answers a request for a `proxy` subresource.
pub(crate) async fn answer(
    nodes: &Nodes,
    registry: &Registry,
    request: Request,
    call: Call,
) -> Result<Answer, ApiError> {
    if call.query.get("dryRun").is_some_and(|value| !value.is_empty()) {
        return Err(ApiError::bad_request("dryRun is not supported"));
    }
    let own = percent_encoding::percent_decode_str(call.parts.uri.path()).decode_utf8_lossy().into_owned();
    let rest = behind_proxy(call.parts.uri.path());
    admit(registry, &request, &rest).await?;
    let paths = Paths { own, asked: location::join("", &rest) };
    let target = target::find(nodes, registry, &request).await?;
    let slot = Arc::clone(&nodes.proxied).try_acquire_owned().map_err(|_| too_many_requests())?;
    if is_upgrade(&call.parts.headers) {
        return upgrade(nodes, &target, &paths, call, slot).await;
    }
    let root = if paths.asked.is_empty() && paths.own.ends_with('/') { "/".to_owned() } else { paths.asked.clone() };
    if root.is_empty() && matches!(call.parts.method, Method::GET | Method::HEAD) {
        return redirect_to_directory(&paths.own, call.parts.uri.query());
    }
    let rewrite = Rewrite::new(&paths.own, &paths.asked, &target.authority(), &call.parts);
    pass_on(nodes, &target, &root, &rewrite, call, slot).await
}

/// What stands behind `…/NAME/proxy`, decoded, with its slash in front.
fn behind_proxy(path: &str) -> String {
    let decode = |part: &str| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned();
    let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
    // api/v1/nodes/NAME/proxy or api/v1/namespaces/NS/pods/NAME/proxy
    let skipped = if parts.get(2).is_some_and(|part| part == "namespaces") { 7 } else { 5 };
    let mut rest = parts.get(skipped..).unwrap_or_default().join("/");
    if !rest.is_empty() {
        rest.insert(0, '/');
    }
    if path.ends_with('/') && !rest.ends_with('/') {
        rest.push('/');
    }
    rest
}

async fn admit(registry: &Registry, request: &Request, path: &str) -> Result<(), ApiError> {
    let kind = match request.resource.names().plural {
        "pods" => "PodProxyOptions",
        "services" => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    };
    let mut options = json!({ "kind": kind, "apiVersion": "v1" });
    if !path.is_empty() {
        options["path"] = path.into();
    }
    let attributes = Attributes::connect(request, options).of_kind("proxy", ("", "v1", kind));
    admission::admit_body(registry, attributes).await.map(drop)
}

/// Links of a page are relative to the folder that its path ends in: without the slash they would lead beside it.
fn redirect_to_directory(path: &str, query: Option<&str>) -> Result<Answer, ApiError> {
    let query = query.filter(|query| !query.is_empty()).map_or(String::new(), |query| format!("?{query}"));
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let place = HeaderValue::from_bytes(format!("{path}/{query}").as_bytes()).map_err(ApiError::internal)?;
    answer.headers_mut().insert(LOCATION, place);
    headers::mark(answer.headers_mut());
    Ok(answer)
}

/// Sends the request and streams the answer back.
async fn pass_on(
    nodes: &Nodes,
    target: &Target,
    path: &str,
    rewrite: &Rewrite,
    call: Call,
    slot: tokio::sync::OwnedSemaphorePermit,
) -> Result<Answer, ApiError> {
    let peer = call.parts.extensions.get::<Peer>().and_then(|peer| peer.address);
    let path = location::escape(if path.is_empty() { "/" } else { path });
    let uri = match call.parts.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.clone(),
    };
    let mut asked = http::Request::new(call.body);
    *asked.method_mut() = call.parts.method.clone();
    *asked.uri_mut() = uri.parse().map_err(ApiError::internal)?;
    *asked.headers_mut() = headers::passed_on(&call.parts, peer, &target.authority());
    rewrite.add_uri(asked.headers_mut(), &path);
    let found = send(nodes, target, asked).await.map_err(|why| unreachable(&why))?;
    let (mut head, body) = found.into_parts();
    let kept = headers::kept(&head.headers);
    let is_head = call.parts.method == Method::HEAD;
    head.headers = kept;
    let body = if let Some(place) = head.headers.get(LOCATION).cloned() {
        head.headers.insert(LOCATION, rewrite.location(&place)?);
        streamed(body)
    } else if let Some(coding) = pages::coding(&head.headers).filter(|_| !is_head) {
        head.headers.remove(CONTENT_LENGTH);
        pages::rewritten(body, coding, rewrite.links())
    } else {
        streamed(body)
    };
    headers::mark(&mut head.headers);
    let body = body.into_data_stream().map_ok(move |piece| {
        // Held as long as the answer is read.
        let _held = &slot;
        Frame::data(piece)
    });
    let body = futures::StreamExt::take_until(body, nodes.shutdown().cancelled_owned());
    let mut answer = Response::new(StreamBody::new(body).boxed_unsync());
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    Ok(answer)
}

fn unreachable(why: &str) -> ApiError {
    ApiError::new(503, "ServiceUnavailable", format!("error trying to reach service: {why}"))
}

fn streamed(body: Incoming) -> Body {
    body.map_err(BoxError::from).boxed_unsync()
}

/// One connection, one request; a text says why there is no answer.
async fn send(nodes: &Nodes, target: &Target, asked: http::Request<Body>) -> Result<Response<Incoming>, String> {
    let stream = dial::connect(nodes, target).await?;
    let told = |error: hyper::Error| dial::told_http(&error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    // Ends with the answer's body, or when the upgraded connection is taken over.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    sender.send_request(asked).await.map_err(told)
}

/// Asks the other side for the upgrade; when it agrees, both connections become one.
async fn upgrade(
    nodes: &Nodes,
    target: &Target,
    paths: &Paths,
    mut call: Call,
    slot: tokio::sync::OwnedSemaphorePermit,
) -> Result<Answer, ApiError> {
    let client = call.parts.extensions.remove::<OnUpgrade>();
    let client = client.ok_or_else(|| ApiError::unknown("request connection cannot be hijacked: use HTTP/1.1"))?;
    let peer = call.parts.extensions.get::<Peer>().and_then(|peer| peer.address);
    let path = location::escape(if paths.asked.is_empty() { "/" } else { &paths.asked });
    let uri = call.parts.uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let mut asked = http::Request::new(full(""));
    *asked.method_mut() = call.parts.method.clone();
    *asked.uri_mut() = uri.parse().map_err(ApiError::internal)?;
    *asked.headers_mut() = headers::upgraded(&call.parts, peer, &target.authority());
    let found = send(nodes, target, asked).await;
    let found = found.map_err(|why| ApiError::unknown(format!("error dialing backend: {why}")))?;
    let status = found.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        if status.as_u16() < 400 {
            return Err(ApiError::unknown(format!("invalid upgrade response: status code {}", status.as_u16())));
        }
        let (head, body) = found.into_parts();
        let mut answer = Response::new(streamed(body));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers::kept(&head.headers);
        return Ok(answer);
    }
    let mut answer = Response::new(full(""));
    *answer.status_mut() = status;
    *answer.headers_mut() = found.headers().clone();
    let shutdown = nodes.shutdown();
    tokio::spawn(async move {
        shutdown.run_until_cancelled(tunnel(client, hyper::upgrade::on(found))).await;
        drop(slot);
    });
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stands_behind_proxy() {
        for (path, rest) in [
            ("/api/v1/nodes/n/proxy", ""),
            ("/api/v1/nodes/n/proxy/", "/"),
            ("/api/v1/nodes/n/proxy/stats/summary", "/stats/summary"),
            ("/api/v1/namespaces/a/pods/p:80/proxy/x/", "/x/"),
            ("/api/v1/namespaces/a/services/https:s:443/proxy/a%20b", "/a b"),
            ("/api/v1/namespaces/a/pods/p/proxy//x", "//x"),
        ] {
            assert_eq!(behind_proxy(path), rest, "{path}");
        }
    }
}
