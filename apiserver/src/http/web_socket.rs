//! Streams on which only the server speaks, over WebSocket: watches and logs.
//!
//! What the server would have sent as a body goes out as messages; what the client sends is read and dropped. Not
//! here: protocols on which both sides speak (`proxy_node`), which nodes answer.
//!
//! Source: `k8s.io/apiserver` `handlers/watch.go`, `k8s.io/streaming` `wsstream`, and the handshake of
//! `golang.org/x/net/websocket`.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_util::sync::CancellationToken;

use super::too_many_requests;
use crate::http::response::{Answer, Body, full};
use crate::proxy_node::is_upgrade;
use crate::status::ApiError;

/// So many may be open at once; the next gets 429.
const OPEN_MAX: usize = 1000;

/// Largest message of a client that is read (to be dropped).
const MESSAGE_MAX: usize = 64 * 1024;

/// What is read of a connection at once: clients say next to nothing.
const READ_BUFFER: usize = 4096;

/// So long a client may take to hear that it was all.
const GOODBYE_MAX: Duration = Duration::from_secs(10);

/// Whether a request asks for a WebSocket.
pub(crate) fn is_asked_for(headers: &HeaderMap) -> bool {
    let asks = headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    asks && is_upgrade(headers)
}

/// The protocols that a client offers, in its order.
pub(crate) fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
}

/// What a stream is to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Each piece is an event of a watch: a text.
    TextEvents,
    /// Each piece is an event in binary form, behind its length, which a message does not need.
    BinaryEvents,
    /// Bytes, in the form that the protocol says.
    Bytes,
}

/// How a piece becomes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    /// Without so many bytes at its beginning.
    Binary(usize),
    Base64,
}

impl Form {
    fn message(self, piece: Bytes) -> Message {
        match self {
            Self::Text => match std::str::from_utf8(&piece) {
                Ok(text) => Message::text(text),
                Err(_) => Message::binary(piece),
            },
            Self::Binary(skipped) => Message::binary(piece.slice(skipped.min(piece.len())..)),
            Self::Base64 => Message::text(STANDARD.encode(&piece)),
        }
    }
}

/// A request for a WebSocket.
pub(crate) struct Asked {
    method: Method,
    headers: HeaderMap,
    client: OnUpgrade,
}

impl Asked {
    /// What the request asks for, if that; its connection is taken out of it.
    pub(crate) fn take(parts: &mut Parts) -> Option<Self> {
        if !is_asked_for(&parts.headers) {
            return None;
        }
        let client = parts.extensions.remove::<OnUpgrade>()?;
        Some(Self { method: parts.method.clone(), headers: parts.headers.clone(), client })
    }

    /// The answer that begins it, and in which form pieces go; or the refusal.
    fn accept(&self, content: Content) -> Result<(Answer, Form), Box<Answer>> {
        let key = check(&self.method, &self.headers)?;
        let offered: Vec<&str> = protocols(&self.headers).collect();
        let (protocol, form) = match content {
            Content::Bytes => choose(&offered).ok_or_else(|| Box::new(refused(StatusCode::FORBIDDEN, "")))?,
            Content::TextEvents | Content::BinaryEvents => {
                if !is_origin(&self.headers) {
                    return Err(refused(StatusCode::FORBIDDEN, "").into());
                }
                if offered.len() > 1 {
                    return Err(refused(StatusCode::BAD_REQUEST, "").into());
                }
                let form = if content == Content::TextEvents { Form::Text } else { Form::Binary(LENGTH) };
                (offered.first().copied(), form)
            }
        };
        let mut answer = Answer::new(full(""));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let chosen = [(SEC_WEBSOCKET_ACCEPT, Some(key.as_str())), (SEC_WEBSOCKET_PROTOCOL, protocol)];
        for (name, value) in chosen {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        }
        Ok((answer, form))
    }
}

/// Bytes of the length in front of a binary event.
const LENGTH: usize = 4;

/// Checks the handshake; what the client's key is answered with.
fn check(method: &Method, headers: &HeaderMap) -> Result<String, Box<Answer>> {
    if method != Method::GET {
        return Err(refused(StatusCode::METHOD_NOT_ALLOWED, "bad method").into());
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| !key.is_empty());
    let Some(key) = key else { return Err(refused(StatusCode::BAD_REQUEST, "mismatch challenge/response").into()) };
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = refused(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version");
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(answer.into());
    }
    Ok(derive_accept_key(key.as_bytes()))
}

fn refused(code: StatusCode, why: &'static str) -> Answer {
    let mut answer = Answer::new(full(why));
    *answer.status_mut() = code;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// The first of the offered protocols that bytes can be sent in. Without an offer there is none to name.
fn choose<'o>(offered: &[&'o str]) -> Option<(Option<&'o str>, Form)> {
    if offered.is_empty() {
        return Some((None, Form::Binary(0)));
    }
    offered.iter().find_map(|own| match *own {
        "binary.k8s.io" => Some((Some(*own), Form::Binary(0))),
        "base64.binary.k8s.io" => Some((Some(*own), Form::Base64)),
        _ => None,
    })
}

/// Whether the page that asks says where it is from: a path, or an address with a scheme.
fn is_origin(headers: &HeaderMap) -> bool {
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).unwrap_or_default();
    let has_scheme = |(scheme, _): (&str, &str)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    origin.starts_with('/') || origin.split_once(':').is_some_and(has_scheme)
}

/// The server's open WebSockets.
pub(crate) struct WebSockets {
    open: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl WebSockets {
    /// They end when `shutdown` is cancelled.
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self { open: Arc::new(Semaphore::new(OPEN_MAX)), shutdown }
    }

    /// Sends an answer's body over a WebSocket when the request asks for one. Other answers than 200 stay as they are.
    pub(crate) fn carry(&self, asked: Option<Asked>, content: Content, answer: Answer) -> Result<Answer, ApiError> {
        let Some(asked) = asked.filter(|_| answer.status() == StatusCode::OK) else { return Ok(answer) };
        let slot = Arc::clone(&self.open).try_acquire_owned().map_err(|_| too_many_requests())?;
        let (beginning, form) = match asked.accept(content) {
            Ok(accepted) => accepted,
            Err(refused) => return Ok(*refused),
        };
        let is_announced = content == Content::Bytes;
        let serving = serve(asked.client, answer.into_body(), form, is_announced, slot);
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move { shutdown.run_until_cancelled(serving).await });
        Ok(beginning)
    }
}

/// Sends until all is said, the client has gone or the body breaks off. With `is_announced` an empty message goes
/// first.
async fn serve(client: OnUpgrade, body: Body, form: Form, is_announced: bool, _slot: OwnedSemaphorePermit) {
    let upgraded = match client.await {
        Ok(upgraded) => TokioIo::new(upgraded),
        Err(error) => return tracing::debug!(%error, "a client went away before its WebSocket began"),
    };
    let limits = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX))
        .read_buffer_size(READ_BUFFER);
    let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(limits)).await;
    let (mut sink, mut from) = socket.split();
    // Nothing that the client says matters, but that it is there.
    let gone = async { while matches!(from.next().await, Some(Ok(message)) if !message.is_close()) {} };
    tokio::select! {
        () = gone => {}
        () = send(&mut sink, body, form, is_announced) => {
            let close = Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }));
            // A client that has gone does not need the last word.
            let _ = timeout(GOODBYE_MAX, async { sink.send(close).await.and(sink.close().await) }).await;
        }
    }
}

type Sink = futures::stream::SplitSink<WebSocketStream<TokioIo<Upgraded>>, Message>;

async fn send(sink: &mut Sink, mut body: Body, form: Form, is_announced: bool) {
    if is_announced && sink.send(form.message(Bytes::new())).await.is_err() {
        return;
    }
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(piece) = frame.into_data() else { continue };
        if !piece.is_empty() && sink.send(form.message(piece)).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_first_protocol_that_is_known_is_chosen() {
        assert_eq!(choose(&[]), Some((None, Form::Binary(0))));
        assert_eq!(choose(&["x", "base64.binary.k8s.io"]), Some((Some("base64.binary.k8s.io"), Form::Base64)));
        assert_eq!(choose(&["x"]), None);
    }

    #[test]
    fn a_handshake_is_refused_in_the_words_of_gos_library() {
        let check = |pairs: &[_]| check(&Method::GET, &headers(pairs));
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(check(&[key, ("sec-websocket-version", "13")]).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(check(&[("sec-websocket-version", "13")]).unwrap_err().status(), 400);
        let old = check(&[key, ("sec-websocket-version", "8")]).unwrap_err();
        assert_eq!(old.headers()["sec-websocket-version"], "13");
    }

    #[test]
    fn a_page_must_say_where_it_is_from() {
        for (origin, is_one) in [("https://x", true), ("/a", true), ("x", false), (":x", false), ("", false)] {
            assert_eq!(is_origin(&headers(&[("origin", origin)])), is_one, "{origin}");
        }
        assert!(!is_origin(&HeaderMap::new()));
    }

    #[test]
    fn a_binary_event_goes_without_its_length() {
        assert_eq!(Form::Binary(LENGTH).message(Bytes::from_static(b"\0\0\0\x02ab")), Message::binary("ab"));
        assert_eq!(Form::Base64.message(Bytes::from_static(b"foo\n")), Message::text("Zm9vCg=="));
    }
}
