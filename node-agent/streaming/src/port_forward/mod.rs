//! `/portForward/NAMESPACE/POD`: TCP connections to ports of a pod, several on one upgraded connection.
//!
//! Three ways to carry them, one end: SPDY (`spdy_pairs.rs`), the same inside a WebSocket (`tunnel.rs`), and channels
//! of a WebSocket (`channels.rs`). Each connection is a pair of streams: data, and one that says why it failed.
//! The pod's end is its own loopback, which the engine reaches ([`Place`]).
//!
//! Source: `k8s.io/cri-streaming/pkg/streaming/portforward`, and what containerd does with it.

mod channels;
mod place;
mod spdy_pairs;
mod tunnel;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HeaderMap, SEC_WEBSOCKET_PROTOCOL};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

pub use place::Place;

use super::{Answer, Begun, query, text, upgrade};

/// The protocol of the streams, and the same inside a WebSocket.
const PROTOCOL: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: [&str; 2] = ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"];

/// Bytes read from the pod at once.
const CHUNK: usize = 32 * 1024;
/// How the connections are carried.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Carrier {
    Spdy,
    Tunnel,
    Channels { ports: Vec<u16>, is_base64: bool },
}

/// Where the data of one connection goes.
trait Output: Sync {
    /// Sends a piece; `false` when the client is gone.
    fn data(&self, bytes: Bytes) -> impl Future<Output = bool> + Send;
}

/// Switches protocols; the connections then run in [`Begun::session`]. `place` is asked for when the request is one of
/// its kind; an error is the refusal.
pub async fn serve(place: impl Future<Output = Result<Place, Answer>>, mut request: Request<Incoming>) -> Begun {
    let (carrier, answer) = match Carrier::of(request.headers(), request.uri().query()) {
        Ok(accepted) => accepted,
        Err(refused) => return (*refused).into(),
    };
    let place = match place.await {
        Ok(place) => Arc::new(place),
        Err(refused) => return refused.into(),
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let session = async move {
        let upgraded = match upgraded.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "a client went away before its ports were forwarded"),
        };
        let ended = match carrier {
            Carrier::Spdy => spdy_pairs::serve(upgraded, place).await,
            Carrier::Tunnel => tunnel::serve(upgrade::web_socket(upgraded).await, place).await,
            Carrier::Channels { ports, is_base64 } => {
                channels::serve(upgrade::web_socket(upgraded).await, is_base64, &ports, &place).await;
                Ok(())
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a port forward broke off");
        }
    };
    Begun { answer, session: Some(Box::pin(session)) }
}

impl Carrier {
    /// What the client asks for, and the answer that begins it; or the refusal.
    fn of(headers: &HeaderMap, raw_query: Option<&str>) -> Result<(Self, Answer), Box<Answer>> {
        if !upgrade::asks_for(headers, "websocket") {
            let protocol = upgrade::spdy_protocol(headers, &[PROTOCOL])?;
            return Ok((Self::Spdy, upgrade::to_spdy(protocol)));
        }
        let offered = upgrade::values(headers, &SEC_WEBSOCKET_PROTOCOL);
        if offered.contains(&TUNNEL) {
            return Ok((Self::Tunnel, upgrade::to_web_socket(headers, Some(TUNNEL))?));
        }
        let known = offered.iter().find_map(|own| CHANNELS.into_iter().find(|known| known == own));
        if !offered.is_empty() && known.is_none() {
            return Err(text(StatusCode::FORBIDDEN, "").into());
        }
        let ports = ports(raw_query).map_err(|why| text(StatusCode::BAD_REQUEST, why))?;
        let is_base64 = known.is_some_and(|own| own.contains("base64"));
        Ok((Self::Channels { ports, is_base64 }, upgrade::to_web_socket(headers, known)?))
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
    let (mut read, mut write) = tokio::io::split(stream);
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
