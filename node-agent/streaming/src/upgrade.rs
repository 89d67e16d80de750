//! What every request that switches protocols needs: the protocols that are offered, and the answer that begins one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Answer, text};

/// The protocol of the streams on a SPDY connection.
pub(super) const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// Of a refusal: the protocols that would do.
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// Largest message that a client may send.
const MESSAGE_MAX: usize = 1 << 20;

/// An upgraded connection as a WebSocket.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// A WebSocket on an upgraded connection.
pub(super) async fn web_socket(upgraded: TokioIo<Upgraded>) -> Socket {
    let limits = WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
    WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(limits)).await
}

/// What stands in a header's lists, in order.
pub(super) fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',').map(str::trim)).filter(|value| !value.is_empty()).collect()
}

/// Whether the client asks for that protocol.
pub(super) fn asks_for(headers: &HeaderMap, protocol: &str) -> bool {
    values(headers, &UPGRADE).iter().any(|own| own.eq_ignore_ascii_case(protocol))
}

/// A refusal as Go's `http.Error` writes it.
pub(super) fn refused(code: StatusCode, why: &str) -> Answer {
    text(code, format!("{why}\n"))
}

/// The protocol of a SPDY connection's streams: the first of the client's that is in `known`. Source:
/// `httpstream.Handshake` of `k8s.io/streaming`.
pub(super) fn spdy_protocol(headers: &HeaderMap, known: &[&'static str]) -> Result<&'static str, Box<Answer>> {
    if !asks_for(headers, "spdy/3.1") {
        let why = "unable to upgrade: missing upgrade headers in request";
        return Err(refused(StatusCode::BAD_REQUEST, why).into());
    }
    let offered = values(headers, &STREAM_PROTOCOL);
    if offered.is_empty() {
        let number = headers.len();
        let why = format!(
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {number} headers"
        );
        return Err(refused(StatusCode::BAD_REQUEST, &why).into());
    }
    let chosen = offered.iter().find_map(|own| known.iter().find(|known| *known == own));
    chosen.copied().ok_or_else(|| {
        let (client, server) = (offered.join(" "), known.join(" "));
        let why = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{client}], server accepts [{server}]"
        );
        let mut answer = refused(StatusCode::FORBIDDEN, &why);
        for known in known {
            answer.headers_mut().append(ACCEPTED, HeaderValue::from_static(known));
        }
        answer.into()
    })
}

fn switching(to: &'static str) -> Answer {
    let mut answer = Response::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    answer
}

/// The answer that begins a WebSocket; `protocol` is the one that was offered and chosen. Without a key it is refused.
pub(super) fn to_web_socket(headers: &HeaderMap, protocol: Option<&'static str>) -> Result<Answer, Box<Answer>> {
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty()) else {
        return Err(text(StatusCode::BAD_REQUEST, "mismatch challenge/response").into());
    };
    let mut answer = switching("websocket");
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = protocol {
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    Ok(answer)
}

/// The answer that begins a SPDY connection.
pub(super) fn to_spdy(protocol: &'static str) -> Answer {
    let mut answer = switching("SPDY/3.1");
    answer.headers_mut().insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
    answer
}

/// A message on a channel of a WebSocket: its number, then the data; as base64 a text behind a digit.
pub(super) fn to_channel(is_base64: bool, number: u8, data: &[u8]) -> Message {
    if is_base64 {
        return Message::text(format!("{}{}", char::from(b'0'.wrapping_add(number)), STANDARD.encode(data)));
    }
    Message::binary([&[number], data].concat())
}

/// The channel of a message, and its data; `None`: the message is none.
pub(super) fn from_channel(is_base64: bool, message: &Bytes) -> Option<(u8, Bytes)> {
    let (&number, data) = message.split_first()?;
    if is_base64 {
        return Some((number.wrapping_sub(b'0'), STANDARD.decode(data).ok()?.into()));
    }
    Some((number, message.slice_ref(data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_clients_protocols_that_is_known_is_spoken() {
        let chosen = |upgrade: &'static str, offered: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, HeaderValue::from_static(upgrade));
            headers.append(STREAM_PROTOCOL, HeaderValue::from_static(offered));
            spdy_protocol(&headers, &["v4.channel.k8s.io", "channel.k8s.io"]).map_err(|answer| answer.status().as_u16())
        };
        assert_eq!(chosen("SPDY/3.1", "x, channel.k8s.io, v4.channel.k8s.io"), Ok("channel.k8s.io"));
        assert_eq!(chosen("SPDY/3.1", "x"), Err(403));
        assert_eq!(chosen("websocket", "channel.k8s.io"), Err(400));
    }
}
