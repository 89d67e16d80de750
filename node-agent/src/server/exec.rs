//! `/exec/…` and `/attach/…`: a command's streams over one WebSocket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt as _, Stream, StreamExt as _};
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

use super::streams::{self, ERROR, FromClient, Kind, STDERR, STDOUT, StreamOptions, from_client, protocol, to_client};
use super::{Answer, Backend, Target, query, status, text};

/// Bytes of output per message.
const CHUNK: usize = 32 * 1024;
/// Largest message a client may send.
const MESSAGE_MAX: usize = 1 << 20;
/// Messages between the command and the client. When it is full, the command's output waits.
const MESSAGES: usize = 8;
/// Pieces of input, of [`MESSAGE_MAX`] bytes at most, that wait for a command which does not read them. When it is full
/// the client waits.
const INPUTS: usize = 8;
/// How long the input of a client that has gone is offered to the command.
const INPUT_DRAIN_MAX: Duration = Duration::from_secs(1);
/// How often a client that waits is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(2);
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
        run(&own, &container, kind, &options, (socket, protocol)).await;
    });
    switching(protocol, &key)
}

pub(super) fn switching(protocol: &'static str, key: &HeaderValue) -> Answer {
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
async fn run(
    backend: &Backend,
    container: &str,
    kind: Kind,
    options: &StreamOptions,
    (socket, protocol): (Socket, &str),
) {
    let (mut sink, mut from) = socket.split();
    let session = match begin(backend, container, kind, options).await {
        Ok(session) => session,
        Err(error) => {
            let last = streams::last_word(protocol, &status::internal_error(&error.to_string()));
            return finish(&mut sink, last).await;
        }
    };
    // Tells the client that the streams stand. Source: kubelet `createWebSocketStreams`.
    let first = if options.stdout { STDOUT } else { ERROR };
    if sink.send(Message::binary(to_client(first, &[]))).await.is_err() {
        return;
    }
    let ExecSession { stdin, stdout, stderr, resize, exit } = session;
    let (messages, mut queue) = mpsc::channel(MESSAGES);
    let pings = messages.clone();
    let ended = async {
        let outputs = async {
            tokio::join!(pump(stdout, STDOUT, messages.clone()), pump(stderr, STDERR, messages));
        };
        tokio::pin!(outputs, exit);
        tokio::select! {
            result = &mut exit => {
                // Cut off after a while: see DRAIN_MAX.
                let _ = timeout(DRAIN_MAX, &mut outputs).await;
                result
            }
            () = &mut outputs => exit.await,
        }
    };
    let to_client = async {
        let mut result = None;
        tokio::pin!(ended);
        loop {
            tokio::select! {
                biased;
                Some(message) = queue.recv() => {
                    if sink.send(message).await.is_err() {
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
        finish(&mut sink, streams::last_word(protocol, &last)).await;
    };
    tokio::select! {
        () = to_client => {}
        // The client is gone: dropping the session ends an exec'd command.
        () = from_socket(&mut from, stdin, resize, &pings) => {}
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
async fn pump(stream: Option<OutputStream>, channel: u8, messages: mpsc::Sender<Message>) {
    let Some(mut stream) = stream else { return };
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => return,
            Ok(len) => {
                let message = to_client(channel, chunk.get(..len).unwrap_or_default());
                if messages.send(Message::binary(message)).await.is_err() {
                    return;
                }
            }
            // A terminal whose other end is closed answers with an error.
            Err(error) => return tracing::trace!(%error, "an output stream ended"),
        }
    }
}

/// Moves what the client sends; returns when the client has gone. A command that does not read its input holds up
/// neither sizes of the terminal nor the news that the client is gone.
async fn from_socket<E>(
    from: &mut (impl Stream<Item = Result<Message, E>> + Unpin),
    stdin: Option<InputStream>,
    resize: Option<mpsc::Sender<TerminalSize>>,
    pings: &mpsc::Sender<Message>,
) {
    let (input, waiting) = mpsc::channel(INPUTS);
    let reader = async {
        let mut input = Some(input);
        while let Some(Ok(message)) = from.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Close(_) => return,
                _ => continue,
            };
            match from_client(&data) {
                FromClient::Stdin(bytes) => {
                    if let Some(to) = &input
                        && !hand_on(to, data.slice_ref(bytes), pings).await
                    {
                        // The command does not read any more; the rest is dropped.
                        input = None;
                    }
                }
                FromClient::CloseStdin => input = None,
                FromClient::Resize(size) => {
                    if let Some(resize) = &resize {
                        // A full queue has newer sizes to come; an ended command needs none.
                        let _ = resize.try_send(size);
                    }
                }
                FromClient::Nothing => {}
            }
        }
    };
    let writer = write_input(stdin, waiting);
    tokio::pin!(reader, writer);
    tokio::select! {
        // What it had sent before it went is still given to the command, if that reads.
        () = &mut reader => drop(timeout(INPUT_DRAIN_MAX, writer).await),
        () = &mut writer => reader.await,
    }
}

/// Queues a piece of input; `false` when nobody takes it any more. While the queue is full the client is not read, so
/// it is asked now and then whether it is still there: an answer is not needed, only a connection that takes the
/// question.
async fn hand_on(to: &mpsc::Sender<Bytes>, piece: Bytes, pings: &mpsc::Sender<Message>) -> bool {
    let ask = async {
        loop {
            tokio::time::sleep(PING_EVERY).await;
            // A full queue of messages is asking enough.
            let _ = pings.try_send(Message::Ping(Bytes::new()));
        }
    };
    tokio::select! {
        sent = to.send(piece) => sent.is_ok(),
        () = ask => false,
    }
}

/// Writes what is queued, then closes the command's input.
async fn write_input(stdin: Option<InputStream>, mut waiting: mpsc::Receiver<Bytes>) {
    let Some(mut stdin) = stdin else { return };
    while let Some(piece) = waiting.recv().await {
        if stdin.write_all(&piece).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

async fn finish(sink: &mut SplitSink<Socket, Message>, last_word: Option<String>) {
    let told = match last_word {
        Some(text) => sink.send(Message::binary(to_client(ERROR, text.as_bytes()))).await,
        None => Ok(()),
    };
    // A client that has gone does not need the last word.
    if told.is_ok() {
        // Clients take a close without code for an error.
        let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = sink.send(Message::Close(Some(close))).await;
        let _ = sink.close().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::sync::mpsc::error::TryRecvError;

    use super::*;

    fn message(channel: u8, data: &[u8]) -> Result<Message, std::convert::Infallible> {
        Ok(Message::binary(to_client(channel, data)))
    }

    #[tokio::test]
    async fn a_command_that_does_not_read_holds_up_neither_sizes_nor_the_end() {
        let (stdin, mut command) = duplex(4);
        let (resize, mut sizes) = mpsc::channel(4);
        let sent = [message(0, b"more than it takes"), message(4, br#"{"Width":80,"Height":24}"#)];
        let mut from = futures::stream::iter(sent);
        let (pings, _queue) = mpsc::channel(1);
        let moved = from_socket(&mut from, Some(Box::pin(stdin)), Some(resize), &pings);
        timeout(Duration::from_secs(10), moved).await.expect("the end of the client is noticed");
        assert_eq!(sizes.try_recv(), Ok(TerminalSize { width: 80, height: 24 }));
        assert_eq!(sizes.try_recv(), Err(TryRecvError::Disconnected));
        let mut taken = [0; 4];
        command.read_exact(&mut taken).await.expect("what fitted");
        assert_eq!(&taken, b"more");
    }

    #[tokio::test]
    async fn input_arrives_whole_and_its_end_is_told() {
        let (stdin, mut command) = duplex(4);
        let (client, mut from) = futures::channel::mpsc::unbounded();
        for part in [message(0, b"one "), message(0, b"two "), message(0, b"three"), message(255, &[0])] {
            client.unbounded_send(part).expect("sent");
        }
        let (pings, _queue) = mpsc::channel(1);
        let mut text = String::new();
        tokio::select! {
            () = from_socket(&mut from, Some(Box::pin(stdin)), None, &pings) => panic!("the client is still there"),
            read = command.read_to_string(&mut text) => drop(read.expect("read")),
        }
        assert_eq!(text, "one two three");
    }

    #[tokio::test]
    async fn a_client_that_is_not_read_is_asked_whether_it_is_there() {
        let (stdin, _command) = duplex(4);
        let sent = std::iter::repeat_with(|| message(0, b"piece")).take(INPUTS + 4);
        let mut from = futures::stream::iter(sent.collect::<Vec<_>>());
        let (pings, mut queue) = mpsc::channel(1);
        tokio::select! {
            () = from_socket(&mut from, Some(Box::pin(stdin)), None, &pings) => panic!("nobody took the input"),
            asked = queue.recv() => assert!(matches!(asked, Some(Message::Ping(_)))),
        }
    }
}
