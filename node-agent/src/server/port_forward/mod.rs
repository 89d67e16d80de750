//! `/portForward/NAMESPACE/POD`: TCP connections to ports of a pod, several on one upgraded connection.
//!
//! Three ways to carry them, one end: SPDY (`spdy_pairs.rs`), the same inside a WebSocket (`tunnel.rs`), and channels
//! of a WebSocket (`channels.rs`). Each connection is a pair of streams: data, and one that says why it failed.
//! The pod's end is its own loopback (`place.rs`).
//!
//! Source: `k8s.io/cri-streaming/pkg/streaming/portforward`, and what containerd does with it.

mod channels;
mod place;
mod spdy_pairs;
mod tunnel;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Answer, Backend, exec, query, text};
use place::Place;

/// The protocol of the streams, and the same inside a WebSocket.
const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: &str = "v4.channel.k8s.io";

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// Bytes read from the pod at once.
const CHUNK: usize = 32 * 1024;
/// Largest message that a client may send.
const MESSAGE_MAX: usize = 1 << 20;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How the connections are carried.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Carrier {
    Spdy,
    Tunnel,
    Channels(Vec<u16>),
}

/// Where the data of one connection goes.
trait Output: Sync {
    /// Sends a piece; `false` when the client is gone.
    fn data(&self, bytes: Bytes) -> impl Future<Output = bool> + Send;
}

/// Checks the request, switches protocols, and lets the connections run beside.
pub(crate) async fn serve(
    backend: &Arc<Backend>,
    namespace: &str,
    pod: &str,
    mut request: Request<Incoming>,
) -> Answer {
    let carrier = match Carrier::of(request.headers(), request.uri().query()) {
        Ok(carrier) => carrier,
        Err((code, message)) => return text(code, message),
    };
    let Some(place) = Place::of(backend, namespace, pod).await else {
        return text(StatusCode::NOT_FOUND, format!("pod not found (\"{pod}_{namespace}\")"));
    };
    let answer = carrier.switching(request.headers());
    let upgrade = hyper::upgrade::on(&mut request);
    backend.node.component.spawn("port forward", async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "a client went away before its ports were forwarded"),
        };
        let place = Arc::new(place);
        let ended = match carrier {
            Carrier::Spdy => spdy_pairs::serve(upgraded, place).await,
            Carrier::Tunnel => tunnel::serve(web_socket(upgraded).await, place).await,
            Carrier::Channels(ports) => {
                channels::serve(web_socket(upgraded).await, &ports, &place).await;
                Ok(())
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a port forward broke off");
        }
    });
    answer
}

async fn web_socket(upgraded: TokioIo<Upgraded>) -> Socket {
    let limits = WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
    WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(limits)).await
}

fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',').map(str::trim)).filter(|value| !value.is_empty()).collect()
}

impl Carrier {
    fn of(headers: &HeaderMap, raw_query: Option<&str>) -> Result<Self, (StatusCode, String)> {
        let bad = |message: String| (StatusCode::BAD_REQUEST, message);
        let protocols = values(headers, &UPGRADE);
        let asks_for = |wanted: &str| protocols.iter().any(|own| own.eq_ignore_ascii_case(wanted));
        if asks_for("websocket") {
            if !headers.contains_key(SEC_WEBSOCKET_KEY) {
                return Err(bad("Sec-WebSocket-Key is missing".to_owned()));
            }
            let offered = values(headers, &SEC_WEBSOCKET_PROTOCOL);
            if offered.contains(&TUNNEL) {
                return Ok(Self::Tunnel);
            }
            if !offered.is_empty() && !offered.contains(&CHANNELS) {
                let message =
                    format!("unable to negotiate protocol: client supports {offered:?}, server accepts {CHANNELS}");
                return Err((StatusCode::FORBIDDEN, message));
            }
            return ports(raw_query).map(Self::Channels).map_err(bad);
        }
        if !asks_for("spdy/3.1") {
            return Err(bad("unable to upgrade: missing upgrade headers in request".to_owned()));
        }
        let offered = values(headers, &STREAM_PROTOCOL);
        if offered.is_empty() {
            let number = headers.len();
            let message = format!(
                "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {number} headers"
            );
            return Err(bad(message));
        }
        if offered.contains(&PROTOCOL) {
            return Ok(Self::Spdy);
        }
        let offered = offered.join(" ");
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{offered}], server accepts [{PROTOCOL}]"
        );
        Err((StatusCode::FORBIDDEN, message))
    }

    fn switching(&self, headers: &HeaderMap) -> Answer {
        let mut answer = match (self, headers.get(SEC_WEBSOCKET_KEY)) {
            (Self::Tunnel, Some(key)) => exec::switching(TUNNEL, key),
            (Self::Channels(_), Some(key)) => exec::switching(CHANNELS, key),
            _ => {
                let mut answer = Response::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed());
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                answer.headers_mut().insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                answer.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(PROTOCOL));
                answer
            }
        };
        if matches!(self, Self::Channels(_)) && !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            answer.headers_mut().remove(SEC_WEBSOCKET_PROTOCOL);
        }
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        answer
    }
}

/// The ports of the query: channels have no headers of their own.
fn ports(raw_query: Option<&str>) -> Result<Vec<u16>, String> {
    let pairs = query(raw_query);
    let values: Vec<&str> = pairs.iter().filter(|(key, _)| key == "port").map(|(_, value)| value.as_str()).collect();
    if values.is_empty() {
        return Err("query parameter \"port\" is required".to_owned());
    }
    let ports = values.iter().flat_map(|value| value.split(',')).map(port).collect::<Result<Vec<u16>, _>>()?;
    // Each takes two channels, which are numbered with one byte.
    if ports.len() > 128 { Err("too many ports".to_owned()) } else { Ok(ports) }
}

/// A port in the kubelet's words.
fn port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(0) => Err(format!("port {text:?} must be > 0")),
        Ok(port) => Ok(port),
        Err(_) => {
            Err(format!("unable to parse {text:?} as a port: strconv.ParseUint: parsing {text:?}: invalid syntax"))
        }
    }
}

/// One connection, until the pod has closed its side or the client is gone. The text says why there is none.
async fn forward(
    place: &Place,
    port: u16,
    input: &mut mpsc::Receiver<Bytes>,
    output: &impl Output,
) -> Result<(), String> {
    let stream = place.connect(port).await;
    let stream =
        stream.map_err(|why| format!("error forwarding port {port} to pod {}, uid : {why}", place.sandbox()))?;
    let (mut read, mut write) = stream.into_split();
    let to_pod = async {
        while let Some(piece) = input.recv().await {
            if write.write_all(&piece).await.is_err() {
                return;
            }
        }
        // The client has said all; what the pod answers is still wanted.
        let _ = write.shutdown().await;
    };
    let from_pod = async {
        let mut chunk = vec![0; CHUNK];
        loop {
            match read.read(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(len) => {
                    if !output.data(Bytes::copy_from_slice(chunk.get(..len).unwrap_or_default())).await {
                        return;
                    }
                }
            }
        }
    };
    tokio::select! {
        () = from_pod => {}
        () = async { to_pod.await; std::future::pending().await } => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
