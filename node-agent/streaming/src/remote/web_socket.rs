//! A command's streams as channels of a WebSocket: every message begins with the number of its channel.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt as _, Stream, StreamExt as _};
use reeve_engine::engine::TerminalSize;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::Wanted;
use super::protocol::{Channels, ERROR, FromClient, STDERR, STDOUT, Sizes};
use super::session::{self, Output, Streams};
use crate::upgrade::Socket;

/// Messages between the command and the client. When it is full, the command's output waits.
const MESSAGES: usize = 8;
/// Pieces of input that wait for a command which does not read them. When it is full the client waits.
const INPUTS: usize = 8;
/// Sizes that wait for the terminal. When it is full, newer ones are to come.
const SIZES: usize = 4;
/// How often a client that waits is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(2);
/// So long a client may take to hear the last word.
const GOODBYE_MAX: Duration = Duration::from_secs(10);

/// A channel to the client.
struct Channel {
    number: u8,
    channels: Channels,
    messages: mpsc::Sender<Message>,
}

impl Output for Channel {
    async fn data(&self, bytes: Bytes) -> bool {
        self.messages.send(self.channels.to_client(self.number, &bytes)).await.is_ok()
    }
}

/// What the client sends goes here.
struct Inputs {
    stdin: Option<mpsc::Sender<Bytes>>,
    sizes: mpsc::Sender<TerminalSize>,
}

/// Runs the command until it has ended or the client is gone.
pub(super) async fn serve(wanted: &Wanted, channels: Channels, socket: Socket) {
    let (sink, mut from) = socket.split();
    let (messages, queue) = mpsc::channel(MESSAGES);
    let writer = write(sink, queue);
    tokio::pin!(writer);
    let [stdout, stderr, error] =
        [STDOUT, STDERR, ERROR].map(|number| Channel { number, channels, messages: messages.clone() });
    let (stdin, input) = mpsc::channel(INPUTS);
    let (sizes, wanted_sizes) = mpsc::channel(SIZES);
    let options = &wanted.options;
    let streams = Streams {
        stdin: options.stdin.then_some(input),
        sizes: options.tty.then_some(wanted_sizes),
        stdout: options.stdout.then_some(&stdout),
        stderr: options.stderr.then_some(&stderr),
    };
    let inputs = Inputs { stdin: options.stdin.then_some(stdin), sizes };
    let told = async {
        // Tells the client that the streams stand. Source: `createWebSocketStreams` of `k8s.io/cri-streaming`.
        streams.stdout.or(streams.stderr).unwrap_or(&error).data(Bytes::new()).await;
        let last = session::run(wanted, channels.version, streams).await;
        if let Some(text) = channels.version.last_word(&last) {
            error.data(text.into()).await;
        }
    };
    let gone = async {
        tokio::select! {
            () = read(channels, &mut from, inputs, &messages) => {}
            () = &mut writer => {}
        }
    };
    let is_there = session::while_there(told, gone).await;
    drop((stdout, stderr, error, messages));
    if is_there {
        // Without senders it ends with what is queued. A client that has gone does not need the last word.
        let _ = tokio::time::timeout(GOODBYE_MAX, writer).await;
    }
}

/// Sends what is queued, then says goodbye.
async fn write(mut sink: SplitSink<Socket, Message>, mut queue: mpsc::Receiver<Message>) {
    while let Some(message) = queue.recv().await {
        if sink.send(message).await.is_err() {
            return;
        }
    }
    // Clients take a close without code for an error.
    let close = Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }));
    if sink.send(close).await.is_ok() {
        let _ = sink.close().await;
    }
}

/// Moves what the client sends; returns when the client has gone. A command that does not read its input holds up
/// neither sizes of the terminal nor, for long, the news that the client is gone.
async fn read<E>(
    channels: Channels,
    from: &mut (impl Stream<Item = Result<Message, E>> + Unpin),
    mut inputs: Inputs,
    pings: &mpsc::Sender<Message>,
) {
    let mut sizes = Some(Sizes::default());
    while let Some(Ok(message)) = from.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            _ => continue,
        };
        match channels.read_from_client(&data) {
            FromClient::Stdin(bytes) => {
                if let Some(to) = &inputs.stdin
                    && !hand_on(to, bytes, pings).await
                {
                    // The command does not read any more; the rest is dropped.
                    inputs.stdin = None;
                }
            }
            FromClient::CloseStdin => inputs.stdin = None,
            FromClient::Sizes(piece) => match sizes.as_mut().map(|sizes| sizes.read(&piece)) {
                // A full queue has newer sizes to come; an ended command needs none.
                Some(Ok(read)) => {
                    for size in read {
                        let _ = inputs.sizes.try_send(size);
                    }
                }
                Some(Err(_)) => sizes = None,
                None => {}
            },
            FromClient::Nothing => {}
            FromClient::Nonsense => return,
        }
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

#[cfg(test)]
mod tests {
    use super::super::protocol::Version;
    use super::*;

    const NEWEST: Channels = Channels { version: Version::V5, is_base64: false };

    fn message(channel: u8, data: &[u8]) -> Result<Message, std::convert::Infallible> {
        Ok(NEWEST.to_client(channel, data))
    }

    #[tokio::test]
    async fn what_the_client_sends_goes_where_it_belongs() {
        let (stdin, mut input) = mpsc::channel(4);
        let (sizes, mut wanted_sizes) = mpsc::channel(4);
        let (pings, _queue) = mpsc::channel(1);
        let sent = [
            message(0, b"one"),
            message(4, br#"{"Width":80,"Height":24}"#),
            message(255, &[0]),
            message(0, b"dropped"),
        ];
        let inputs = Inputs { stdin: Some(stdin), sizes };
        read(NEWEST, &mut futures::stream::iter(sent), inputs, &pings).await;
        assert_eq!(input.recv().await.as_deref(), Some(&b"one"[..]));
        assert_eq!(input.recv().await, None, "the input is closed");
        assert_eq!(wanted_sizes.recv().await, Some(TerminalSize { width: 80, height: 24 }));
    }

    #[tokio::test]
    async fn a_client_that_is_not_read_is_asked_whether_it_is_there() {
        let (stdin, _input) = mpsc::channel(INPUTS);
        let (sizes, _) = mpsc::channel(1);
        let sent = std::iter::repeat_with(|| message(0, b"piece")).take(INPUTS + 4);
        let mut from = futures::stream::iter(sent.collect::<Vec<_>>());
        let (pings, mut queue) = mpsc::channel(1);
        let inputs = Inputs { stdin: Some(stdin), sizes };
        tokio::select! {
            () = read(NEWEST, &mut from, inputs, &pings) => panic!("nobody took the input"),
            asked = queue.recv() => assert!(matches!(asked, Some(Message::Ping(_)))),
        }
    }
}
