//! The other end: connects to the streaming server of a container runtime, where its CRI says, and gives what runs
//! there as the engine's sessions and connections.
//!
//! Over SPDY, which every runtime speaks, and in which a command's input can be closed.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use reeve_engine::engine::{Connection, EngineError, ExecSession, ExitFuture, InputStream, OutputStream, TerminalSize};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::io::StreamReader;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::remote::{Kind, StreamOptions};
use crate::spdy::client::{Client, start};
use crate::spdy::{Output, Stream};
use crate::upgrade::STREAM_PROTOCOL;

/// How long a runtime may take to switch.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes between a caller and the connection, each way.
const BUFFER: usize = 64 * 1024;
/// Bytes handed on at once.
const CHUNK: usize = 32 * 1024;
/// What of a refusal, and of a command's last word, is read.
const WORDS_BYTES_MAX: usize = 64 * 1024;
/// Sizes of the terminal that wait to be sent.
const SIZES: usize = 4;

/// Runs what a runtime has prepared at `url`: a command, or the streams of a container.
///
/// # Errors
/// When the runtime cannot be reached or refuses.
pub async fn remote(url: &str, kind: Kind, options: &StreamOptions) -> Result<ExecSession, EngineError> {
    let (client, guard) = connect(url, "v4.channel.k8s.io").await.map_err(|source| failed(url, source))?;
    let open = async |name: &str| client.open(vec![("streamtype", name.to_owned())]).await;
    let errors = open("error").await;
    let stdin = if options.stdin { Some(feed(open("stdin").await.output())) } else { None };
    let stdout = if options.stdout { Some(reader(open("stdout").await)) } else { None };
    let stderr = if options.stderr && !options.tty { Some(reader(open("stderr").await)) } else { None };
    let resize = if options.tty { Some(resize(open("resize").await.output())) } else { None };
    Ok(ExecSession { stdin, stdout, stderr, resize, ends_with_input: false, exit: exit(errors, kind, guard) })
}

/// Connects to a port of a sandbox, which a runtime has prepared at `url`.
///
/// # Errors
/// When the runtime cannot be reached or refuses.
pub async fn port(url: &str, port: u16) -> Result<Connection, EngineError> {
    let (client, guard) = connect(url, "portforward.k8s.io").await.map_err(|source| failed(url, source))?;
    let open = async |name: &str| {
        let headers = [("streamtype", name.to_owned()), ("port", port.to_string()), ("requestid", "0".to_owned())];
        client.open(headers.into()).await
    };
    let errors = open("error").await;
    let data = open("data").await;
    let (near, far) = duplex(BUFFER);
    tokio::spawn(async move {
        let _guard = guard;
        carry(far, data, errors).await;
    });
    Ok(Box::new(near))
}

fn failed(url: &str, source: io::Error) -> EngineError {
    // What stands behind the address lets in whoever knows it.
    let host = url.parse::<Uri>().ok().and_then(|uri| uri.authority().map(ToString::to_string));
    EngineError::Io { step: format!("connect to the runtime's streams at {}", host.unwrap_or_default()), source }
}

/// A connection that ends with the guard.
async fn connect(url: &str, protocol: &'static str) -> io::Result<(Client, DropGuard)> {
    let switched = timeout(CONNECT_TIME_MAX, switch(url, protocol)).await;
    let socket = switched.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let (client, run) = start(socket);
    let ended = CancellationToken::new();
    let guard = ended.clone().drop_guard();
    tokio::spawn(async move {
        if let Some(Err(error)) = ended.run_until_cancelled(run).await {
            tracing::debug!(%error, "a connection to the runtime's streams broke off");
        }
    });
    Ok((client, guard))
}

async fn switch(url: &str, protocol: &'static str) -> io::Result<TokioIo<hyper::upgrade::Upgraded>> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "the runtime's address is none of HTTP");
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
    let stream =
        TcpStream::connect((authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80))).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Ends with the connection.
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, authority.as_str())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "SPDY/3.1")
        .header(STREAM_PROTOCOL, protocol)
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let text = Limited::new(answer.into_body(), WORDS_BYTES_MAX).collect().await;
        let text = text.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        return Err(io::Error::other(format!("{status}: {}", String::from_utf8_lossy(&text).trim())));
    }
    Ok(TokioIo::new(hyper::upgrade::on(answer).await.map_err(io::Error::other)?))
}

/// A stream as something to read.
fn reader(stream: Stream) -> OutputStream {
    let mut input = stream.input;
    let pieces = futures::stream::poll_fn(move |context| input.poll_recv(context));
    Box::pin(StreamReader::new(pieces.map(Ok::<_, io::Error>)))
}

/// A stream as something to write; dropped, it closes the other end.
fn feed(to: Output) -> InputStream {
    let (near, mut far) = duplex(BUFFER);
    tokio::spawn(async move {
        let mut chunk = vec![0; CHUNK];
        while let Ok(len @ 1..) = far.read(&mut chunk).await {
            if !to.send(Bytes::copy_from_slice(chunk.get(..len).unwrap_or_default())).await {
                return;
            }
        }
        to.close().await;
    });
    Box::pin(near)
}

fn resize(to: Output) -> mpsc::Sender<TerminalSize> {
    let (sizes, mut queue) = mpsc::channel::<TerminalSize>(SIZES);
    tokio::spawn(async move {
        while let Some(TerminalSize { width, height }) = queue.recv().await {
            let text = serde_json::json!({"Width": width, "Height": height}).to_string();
            if !to.send(text.into()).await {
                return;
            }
        }
    });
    sizes
}

/// The last word of a session, which lives as long as somebody waits for it.
fn exit(mut errors: Stream, kind: Kind, guard: DropGuard) -> ExitFuture {
    Box::pin(async move {
        let _guard = guard;
        let mut text = Vec::new();
        while let Some(piece) = errors.input.recv().await {
            let room = WORDS_BYTES_MAX.saturating_sub(text.len());
            text.extend_from_slice(piece.get(..piece.len().min(room)).unwrap_or_default());
        }
        match (last_word(&text), kind) {
            (Some(ended), _) => ended,
            // Attached streams end without a word when the container's do.
            (None, Kind::Attach) => Ok(0),
            (None, Kind::Exec) => Err(EngineError::Io {
                step: "hear how a command ended".to_owned(),
                source: io::ErrorKind::UnexpectedEof.into(),
            }),
        }
    })
}

/// A `metav1.Status`: all is well, an exit code, or why there is none.
fn last_word(text: &[u8]) -> Option<Result<i32, EngineError>> {
    let status: Value = serde_json::from_slice(text).ok()?;
    if status["status"] == "Success" {
        return Some(Ok(0));
    }
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let code = causes.filter(|cause| cause["reason"] == "ExitCode").find_map(|cause| cause["message"].as_str());
    let code = code.and_then(|code| code.parse().ok());
    let message = status["message"].as_str().unwrap_or_default().to_owned();
    Some(code.ok_or(EngineError::Invalid(message)))
}

/// Moves the bytes of a forwarded connection. What the runtime says of a failure ends it.
async fn carry(socket: DuplexStream, mut data: Stream, mut errors: Stream) {
    let (mut from, mut to) = tokio::io::split(socket);
    let output = data.output();
    errors.output().close().await;
    let sending = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(len @ 1..) = from.read(&mut chunk).await {
            if !output.send(Bytes::copy_from_slice(chunk.get(..len).unwrap_or_default())).await {
                return;
            }
        }
        output.close().await;
        std::future::pending().await
    };
    let receiving = async {
        while let Some(piece) = data.input.recv().await {
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    let failing = async {
        while let Some(text) = errors.input.recv().await {
            if !text.is_empty() {
                tracing::debug!(why = %String::from_utf8_lossy(&text), "a port could not be forwarded");
                return;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        () = sending => {}
        () = receiving => {}
        () = failing => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_is_an_exit_code_or_a_reason() {
        let read = |text: &str| last_word(text.as_bytes()).map(|ended| ended.map_err(|error| error.to_string()));
        assert_eq!(read(r#"{"status": "Success"}"#), Some(Ok(0)));
        let code = r#"{"status": "Failure", "reason": "NonZeroExitCode", "message": "m",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}"#;
        assert_eq!(read(code), Some(Ok(7)));
        assert_eq!(read(r#"{"status": "Failure", "message": "it broke"}"#), Some(Err("it broke".to_owned())));
        assert_eq!(read(""), None);
    }
}
