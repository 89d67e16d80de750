//! `/exec/…` and `/attach/…`: a command's streams over one WebSocket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use reeve_engine::engine::{
    AttachConfig, EngineError, ExecConfig, ExecSession, InputStream, OutputStream, TerminalSize,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::streams::{ERROR, FromClient, Kind, STDERR, STDOUT, StreamOptions, from_client, protocol, to_client};
use super::{Answer, Backend, Target, query, status, text};

/// Bytes of output per message.
const CHUNK: usize = 32 * 1024;
/// Largest message a client may send.
const MESSAGE_MAX: usize = 1 << 20;
/// Messages between the command and the client. When it is full, the command's output waits.
const MESSAGES: usize = 8;
/// Output that is still to come when the command has ended: a child of it may hold the stream open for ever.
const DRAIN_MAX: Duration = Duration::from_secs(5);

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Checks the request, begins the command, switches protocols, and lets the streams run beside.
pub(crate) async fn serve(
    backend: &Arc<Backend>,
    target: &Target<'_>,
    kind: Kind,
    mut request: Request<Incoming>,
) -> Answer {
    let options = StreamOptions::of(&query(request.uri().query()));
    let Some(protocol) = protocol(request.headers()) else {
        let message = "only WebSockets with v5.channel.k8s.io or v4.channel.k8s.io are supported; \
                       use kubectl 1.30 or newer, or set KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true";
        return text(StatusCode::BAD_REQUEST, message);
    };
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY).cloned() else {
        return text(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing");
    };
    let container = match container_of(backend, target) {
        Ok(id) => id,
        Err((code, message)) => return text(code, message),
    };
    if kind == Kind::Exec && options.command.is_empty() {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 command for the container");
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let own = Arc::clone(backend);
    backend.node.component.spawn("remote command", async move {
        let upgraded = match upgrade.await {
            Ok(upgraded) => TokioIo::new(upgraded),
            Err(error) => return tracing::debug!(%error, "a client went away before its command began"),
        };
        let limits = WebSocketConfig::default().max_message_size(Some(MESSAGE_MAX)).max_frame_size(Some(MESSAGE_MAX));
        let socket = WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(limits)).await;
        run(&own, &container, kind, &options, socket).await;
    });
    switching(protocol, &key)
}

fn switching(protocol: &'static str, key: &HeaderValue) -> Answer {
    let mut answer = Response::new(Empty::<Bytes>::new().map_err(|never| match never {}).boxed());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    answer
}

/// The id of a running container, or the kubelet's reason why there is none.
fn container_of(backend: &Backend, target: &Target<'_>) -> Result<String, (StatusCode, String)> {
    let (pod, name) = (target.pod, target.container);
    let view = backend.views.get(target.namespace, pod);
    let view = view.ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod does not exist: {pod}")))?;
    let view = view.borrow();
    let found = view.containers.iter().find(|view| view.name == name);
    let id = found.filter(|found| found.running).and_then(|found| found.id.clone());
    id.ok_or_else(|| (StatusCode::NOT_FOUND, format!("container not found (\"{name}\")")))
}

/// Begins the command, moves its streams, says how it ended.
async fn run(backend: &Backend, container: &str, kind: Kind, options: &StreamOptions, socket: Socket) {
    let (mut sink, mut from) = socket.split();
    let session = match begin(backend, container, kind, options).await {
        Ok(session) => session,
        Err(error) => return finish(&mut sink, &status::internal_error(&error.to_string())).await,
    };
    // Tells the client that the streams stand. Source: kubelet `createWebSocketStreams`.
    let first = if options.stdout { STDOUT } else { ERROR };
    if sink.send(Message::binary(to_client(first, &[]))).await.is_err() {
        return;
    }
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let (messages, mut queue) = mpsc::channel(MESSAGES);
    let outputs = async {
        tokio::join!(pump(stdout, STDOUT, messages.clone()), pump(stderr, STDERR, messages.clone()));
    };
    let ended = async {
        tokio::pin!(outputs);
        tokio::pin!(exit);
        let result = tokio::select! {
            result = &mut exit => {
                // Cut off after a while: see DRAIN_MAX.
                let _ = timeout(DRAIN_MAX, &mut outputs).await;
                result
            }
            () = &mut outputs => exit.await,
        };
        drop(messages.clone());
        result
    };
    let to_client = async {
        let mut result = None;
        tokio::pin!(ended);
        loop {
            tokio::select! {
                biased;
                Some(message) = queue.recv() => {
                    if sink.send(Message::binary(message)).await.is_err() {
                        return;
                    }
                }
                end = &mut ended, if result.is_none() => result = Some(end),
                else => break,
            }
            if result.is_some() && queue.is_empty() {
                break;
            }
        }
        let last = last_word(kind, options, result);
        finish(&mut sink, &last).await;
    };
    tokio::select! {
        () = to_client => {}
        // The client is gone: dropping the session ends an exec'd command.
        () = from_socket(&mut from, stdin, resize) => {}
    }
}

fn last_word(kind: Kind, options: &StreamOptions, result: Option<Result<i32, EngineError>>) -> serde_json::Value {
    match (kind, result) {
        (_, Some(Err(error))) => status::internal_error(&error.to_string()),
        (Kind::Exec, Some(Ok(code))) if code != 0 => status::exit_code(&options.command, code),
        _ => status::success(),
    }
}

async fn begin(
    backend: &Backend,
    container: &str,
    kind: Kind,
    options: &StreamOptions,
) -> Result<ExecSession, EngineError> {
    let engine = &backend.node.engine;
    match kind {
        Kind::Exec => {
            let config = ExecConfig {
                command: options.command.clone(),
                stdin: options.stdin,
                stdout: options.stdout,
                stderr: options.stderr,
                tty: options.tty,
                timeout: None,
            };
            engine.exec(container, config).await
        }
        Kind::Attach => {
            let config = AttachConfig { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr };
            engine.attach(container, config).await
        }
    }
}

/// Reads a stream to its end, one message per piece.
async fn pump(stream: Option<OutputStream>, channel: u8, messages: mpsc::Sender<Vec<u8>>) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => return,
            Ok(len) => {
                let message = to_client(channel, chunk.get(..len).unwrap_or_default());
                if messages.send(message).await.is_err() {
                    return;
                }
            }
            // A terminal whose other end is closed answers with an error.
            Err(error) => return tracing::trace!(%error, "an output stream ended"),
        }
    }
}

/// Moves what the client sends; returns when the client has gone.
async fn from_socket(
    from: &mut futures::stream::SplitStream<Socket>,
    mut stdin: Option<InputStream>,
    resize: Option<mpsc::Sender<TerminalSize>>,
) {
    while let Some(Ok(message)) = from.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Close(_) => return,
            _ => continue,
        };
        match from_client(&data) {
            FromClient::Stdin(bytes) => {
                if let Some(input) = &mut stdin
                    && (input.write_all(bytes).await.is_err() || input.flush().await.is_err())
                {
                    // The command does not read any more; the rest is dropped.
                    stdin = None;
                }
            }
            FromClient::CloseStdin => stdin = None,
            FromClient::Resize(size) => {
                if let Some(resize) = &resize {
                    // A full queue has newer sizes to come; an ended command needs none.
                    let _ = resize.try_send(size);
                }
            }
            FromClient::Nothing => {}
        }
    }
}

async fn finish(sink: &mut SplitSink<Socket, Message>, status: &serde_json::Value) {
    let message = to_client(ERROR, status.to_string().as_bytes());
    // A client that has gone does not need the last word.
    if sink.send(Message::binary(message)).await.is_ok() {
        // Clients take a close without code for an error.
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = sink.send(Message::Close(Some(close))).await;
        let _ = sink.close().await;
    }
}
