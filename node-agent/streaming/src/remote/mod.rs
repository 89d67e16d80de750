//! `/exec/…` and `/attach/…`: a command's streams on one upgraded connection.
//!
//! Two ways to carry them, one end: channels of a WebSocket (`web_socket.rs`) and streams of SPDY (`spdy.rs`); what
//! runs between them and the command is `session.rs`. Which versions there are, and how they differ, is `protocol.rs`.
//!
//! Source: `k8s.io/cri-streaming/pkg/streaming/remotecommand`, and the translation of `v5.channel.k8s.io` in
//! `k8s.io/apiserver/pkg/util/proxy`.

mod protocol;
mod session;
mod spdy;
mod status;
mod web_socket;

use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use reeve_engine::engine::SharedEngine;

use protocol::{Channels, Version};
pub use protocol::{Kind, StreamOptions};

use super::{Answer, Begun, text, upgrade};

/// How the streams are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    WebSocket(Channels),
    Spdy(Version),
}

impl Carrier {
    /// What the client asks for, and the answer that begins it; or the refusal.
    fn of(headers: &HeaderMap) -> Result<(Self, Answer), Box<Answer>> {
        if upgrade::asks_for(headers, "websocket") {
            let offered = upgrade::values(headers, &SEC_WEBSOCKET_PROTOCOL);
            let (protocol, channels) = Channels::choose(&offered).ok_or_else(|| text(StatusCode::FORBIDDEN, ""))?;
            return Ok((Self::WebSocket(channels), upgrade::to_web_socket(headers, protocol)?));
        }
        let protocol = upgrade::spdy_protocol(headers, &Version::SPDY_NAMES)?;
        Ok((Self::Spdy(Version::of(protocol)), upgrade::to_spdy(protocol)))
    }
}

/// What is run or attached to, and how.
pub struct Wanted {
    /// Who runs it.
    pub engine: SharedEngine,
    /// The container's id.
    pub container: String,
    /// Run or attach.
    pub kind: Kind,
    /// Its streams, and the command.
    pub options: StreamOptions,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut wanted = f.debug_struct("Wanted");
        wanted.field("container", &self.container).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Switches protocols; the streams then run in [`Begun::session`].
pub fn serve(wanted: Wanted, mut request: Request<Incoming>) -> Begun {
    let (carrier, answer) = match Carrier::of(request.headers()) {
        Ok(accepted) => accepted,
        Err(refused) => return (*refused).into(),
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let session = async move {
        let upgraded = match upgraded.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "a client went away before its command began"),
        };
        match carrier {
            Carrier::WebSocket(channels) => {
                web_socket::serve(&wanted, channels, upgrade::web_socket(upgraded).await).await;
            }
            Carrier::Spdy(version) => spdy::serve(&wanted, version, upgraded).await,
        }
    };
    Begun { answer, session: Some(Box::pin(session)) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(pairs: &[(&'static str, &'static str)], expected: Result<Carrier, u16>) {
        let headers: HeaderMap =
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
        let chosen = Carrier::of(&headers);
        assert_eq!(chosen.map(|(carrier, _)| carrier).map_err(|answer| answer.status().as_u16()), expected);
    }

    #[test]
    fn old_and_new_clients_are_carried_as_they_ask() {
        let socket = [("upgrade", "websocket"), ("sec-websocket-key", "k")];
        let offer = |protocols| [&socket[..], &[("sec-websocket-protocol", protocols)]].concat();
        let newest = Channels { version: Version::V5, is_base64: false };
        check(&offer("v4.channel.k8s.io, v5.channel.k8s.io"), Ok(Carrier::WebSocket(newest)));
        let old = Channels { version: Version::V1, is_base64: false };
        check(&socket, Ok(Carrier::WebSocket(old)));
        check(&offer("x"), Err(403));
        check(&[("upgrade", "websocket")], Err(400));
        let spdy = |protocols| [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocols)];
        check(&spdy("v4.channel.k8s.io,v3.channel.k8s.io"), Ok(Carrier::Spdy(Version::V4)));
        check(&spdy("v5.channel.k8s.io"), Err(403));
    }
}
