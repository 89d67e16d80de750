//! A command between its own streams and those of a client, however they are carried.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use reeve_engine::engine::{
    AttachConfig, EngineError, ExecConfig, ExecSession, InputStream, OutputStream, TerminalSize,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::protocol::Version;
use super::{Kind, Wanted, status};

/// Bytes of output handed on at once.
const CHUNK: usize = 32 * 1024;
/// How long the input of a client that has gone is offered to the command.
const INPUT_DRAIN_MAX: Duration = Duration::from_secs(1);
/// Output that is still to come when the command has ended: a child of it may hold the stream open for ever.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Where output goes.
pub(super) trait Output {
    /// Sends a piece; `false` when the client is gone.
    fn data(&self, bytes: Bytes) -> impl Future<Output = bool> + Send;
}

/// The client's side. What is not connected is `None`; the input ends with its sender.
pub(super) struct Streams<'o, O> {
    pub(super) stdin: Option<mpsc::Receiver<Bytes>>,
    pub(super) sizes: Option<mpsc::Receiver<TerminalSize>>,
    pub(super) stdout: Option<&'o O>,
    pub(super) stderr: Option<&'o O>,
}

/// Begins the command, moves its streams until it has ended, and gives the last word, a `metav1.Status`.
pub(super) async fn run<O: Output + Sync>(wanted: &Wanted, version: Version, streams: Streams<'_, O>) -> Value {
    let ended = match begin(wanted).await {
        Ok(session) => play(session, streams).await,
        Err(error) => Err(error),
    };
    match (wanted.kind, ended) {
        (Kind::Exec, Ok(code)) if code != 0 => status::exit_code(&wanted.options.command, code, version),
        (_, Ok(_)) => status::success(),
        (Kind::Exec, Err(error)) => {
            status::internal_error(&format!("error executing command in container: {error}"), version)
        }
        (Kind::Attach, Err(error)) => {
            status::internal_error(&format!("error attaching to container: {error}"), version)
        }
    }
}

/// Lets `session` run as long as the client is there, and a little longer: what it sent before it went is still
/// offered to the command. Whether it is there at the end. Dropping a session ends an exec'd command.
pub(super) async fn while_there(session: impl Future<Output = ()>, gone: impl Future<Output = ()>) -> bool {
    tokio::pin!(session);
    tokio::select! {
        () = &mut session => true,
        () = gone => {
            let _ = timeout(INPUT_DRAIN_MAX, session).await;
            false
        }
    }
}

async fn begin(wanted: &Wanted) -> Result<ExecSession, EngineError> {
    let (engine, options) = (&wanted.engine, &wanted.options);
    match wanted.kind {
        Kind::Exec => {
            let config = ExecConfig {
                command: options.command.clone(),
                stdin: options.stdin,
                stdout: options.stdout,
                stderr: options.stderr,
                tty: options.tty,
                timeout: None,
            };
            engine.exec(&wanted.container, config).await
        }
        Kind::Attach => {
            let config = AttachConfig { stdin: options.stdin, stdout: options.stdout, stderr: options.stderr };
            engine.attach(&wanted.container, config).await
        }
    }
}

async fn play<O: Output>(session: ExecSession, streams: Streams<'_, O>) -> Result<i32, EngineError> {
    let ExecSession { stdin, stdout, stderr, resize, ends_with_input, exit } = session;
    let outputs = async { tokio::join!(pump(stdout, streams.stdout), pump(stderr, streams.stderr)) };
    let input = async {
        if !(feed(streams.stdin, stdin).await && ends_with_input) {
            std::future::pending::<()>().await;
        }
    };
    let sizes = async {
        pass_sizes(streams.sizes, resize).await;
        std::future::pending::<()>().await;
    };
    let ended = async {
        tokio::pin!(outputs, exit);
        tokio::select! {
            result = &mut exit => {
                // Cut off after a while: see DRAIN_MAX.
                let _ = timeout(DRAIN_MAX, &mut outputs).await;
                result
            }
            _ = &mut outputs => exit.await,
        }
    };
    tokio::select! {
        result = ended => result,
        () = input => Ok(0),
        () = sizes => Ok(0),
    }
}

/// Reads a stream to its end, one message per piece.
async fn pump<O: Output>(from: Option<OutputStream>, to: Option<&O>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) => return,
            Ok(len) => {
                if !to.data(Bytes::copy_from_slice(chunk.get(..len).unwrap_or_default())).await {
                    return;
                }
            }
            // A terminal whose other end is closed answers with an error.
            Err(error) => return tracing::trace!(%error, "an output stream ended"),
        }
    }
}

/// Writes what the client sends, then closes the command's input. When the command does not read any more, the rest is
/// dropped. Whether there is such an input.
async fn feed(from: Option<mpsc::Receiver<Bytes>>, to: Option<InputStream>) -> bool {
    let (Some(mut from), Some(mut to)) = (from, to) else { return false };
    while let Some(piece) = from.recv().await {
        if to.write_all(&piece).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    true
}

async fn pass_sizes(from: Option<mpsc::Receiver<TerminalSize>>, to: Option<mpsc::Sender<TerminalSize>>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    while let Some(size) = from.recv().await {
        // A full queue has newer sizes to come; an ended command needs none.
        let _ = to.try_send(size);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;

    #[tokio::test]
    async fn input_arrives_whole_and_its_end_is_told() {
        let (stdin, mut command) = duplex(4);
        let (client, from) = mpsc::channel(4);
        for part in ["one ", "two ", "three"] {
            client.send(part.into()).await.expect("sent");
        }
        drop(client);
        let mut text = String::new();
        let (read, fed) = tokio::join!(command.read_to_string(&mut text), feed(Some(from), Some(Box::pin(stdin))));
        assert_eq!((read.expect("read"), text.as_str(), fed), (13, "one two three", true));
    }

    struct Nowhere;

    impl Output for Nowhere {
        async fn data(&self, _: Bytes) -> bool {
            true
        }
    }

    /// Plays the session of a command that never ends, for a client whose input has ended.
    async fn play_without_more_input(ends_with_input: bool) -> Option<Result<i32, EngineError>> {
        let (stdin, _command) = duplex(4);
        let session = ExecSession {
            stdin: Some(Box::pin(stdin)),
            stdout: None,
            stderr: None,
            resize: None,
            ends_with_input,
            exit: Box::pin(std::future::pending()),
        };
        let (_, ended) = mpsc::channel(1);
        let streams = Streams::<Nowhere> { stdin: Some(ended), sizes: None, stdout: None, stderr: None };
        timeout(Duration::from_millis(50), play(session, streams)).await.ok()
    }

    #[tokio::test]
    async fn a_session_ends_with_its_input_only_where_the_input_of_the_container_stays_open() {
        assert!(matches!(play_without_more_input(true).await, Some(Ok(0))));
        assert!(play_without_more_input(false).await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_has_gone_is_not_waited_for() {
        assert!(!while_there(std::future::pending(), async {}).await);
        assert!(while_there(async {}, std::future::pending()).await);
    }
}
