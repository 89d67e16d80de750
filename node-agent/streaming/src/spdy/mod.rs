//! SPDY/3.1 as far as Kubernetes' clients speak it: streams in both directions on one upgraded connection.
//!
//! [`serve`] reads frames and hands each stream that the client opens to whoever takes it from the queue. There is no
//! flow control per stream: neither side of Kubernetes has it, so a stream whose taker does not read holds up the
//! connection, and TCP holds up the client. The other side is [`client`]. What is not here: what the streams are for.
//!
//! Source: the SPDY/3.1 draft, and what `moby/spdystream` makes of it.

pub(crate) mod client;
mod frame;
mod headers;

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use frame::{Frame, Reader, Writer};

/// A connection on which nothing is said for so long is closed; the kubelet's number.
const IDLE_MAX: Duration = Duration::from_secs(4 * 3600);
/// Streams at a time on one connection; one more is refused.
const STREAMS_MAX: usize = 512;
/// Pieces of [`PIECE`] bytes that wait in a stream. When it is full, the connection is not read.
const PIECES: usize = 8;
/// Frames that wait to be written. When it is full, whoever writes waits.
const FRAMES: usize = 16;
/// How often a client whose data nobody takes is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(2);
/// Bytes of data handed on at once.
const PIECE: usize = 32 * 1024;

/// Why a stream is ended at once. Numbers of the draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// The stream is not as it has to be.
    Protocol = 1,
    /// There are too many.
    Refused = 3,
    /// It is not wanted any more.
    Cancel = 5,
}

/// What is to be written.
#[derive(Debug)]
enum Out {
    Reply(u32),
    Open { id: u32, headers: Vec<(&'static str, String)> },
    Data { id: u32, bytes: Bytes, last: bool },
    Reset(u32, Reset),
    Ping(u32),
}

/// A stream that the client has opened.
#[derive(Debug)]
pub(super) struct Stream {
    id: u32,
    headers: Vec<(String, String)>,
    /// What the client sends; ends with its last piece, or with the connection.
    pub(super) input: mpsc::Receiver<Bytes>,
    /// Cancelled when the client ends the stream at once.
    pub(super) reset: CancellationToken,
    out: mpsc::Sender<Out>,
}

/// Where a stream's own data goes. The stream stays open until it is closed or reset.
#[derive(Debug, Clone)]
pub(super) struct Output {
    id: u32,
    out: mpsc::Sender<Out>,
}

impl Stream {
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The value of a header; names are in lower case.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    /// Tells the client that the stream is taken.
    pub(super) async fn accept(&self) {
        // Without a receiver the connection is gone, and with it the stream.
        let _ = self.out.send(Out::Reply(self.id)).await;
    }

    pub(super) fn output(&self) -> Output {
        Output { id: self.id, out: self.out.clone() }
    }
}

impl Output {
    /// Sends a piece; `false` when the connection is gone.
    pub(super) async fn send(&self, bytes: Bytes) -> bool {
        self.out.send(Out::Data { id: self.id, bytes, last: false }).await.is_ok()
    }

    /// Nothing more comes.
    pub(super) async fn close(&self) {
        let _ = self.out.send(Out::Data { id: self.id, bytes: Bytes::new(), last: true }).await;
    }

    /// Ends both directions at once.
    pub(super) async fn reset(&self, why: Reset) {
        let _ = self.out.send(Out::Reset(self.id, why)).await;
    }
}

/// A stream as the reader sees it.
struct Open {
    input: mpsc::Sender<Bytes>,
    reset: CancellationToken,
}

/// Serves a connection until it ends. New streams go to `streams`; when nobody takes them, the connection ends.
pub(super) async fn serve<S>(socket: S, streams: mpsc::Sender<Stream>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (from, to) = tokio::io::split(socket);
    let (out, queue) = mpsc::channel(FRAMES);
    tokio::select! {
        read = read(from, &out, &streams) => read,
        written = write(to, queue) => written,
    }
}

async fn write(mut to: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Out>) -> io::Result<()> {
    let mut writer = Writer::default();
    while let Some(next) = queue.recv().await {
        let mut text = Vec::new();
        match next {
            Out::Reply(id) => writer.reply(id, &mut text),
            Out::Open { id, headers } => {
                let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
                writer.open(id, &headers, &mut text);
            }
            Out::Data { id, bytes, last } => frame::data(id, &bytes, last, &mut text),
            Out::Reset(id, why) => frame::reset(id, why as u32, &mut text),
            Out::Ping(id) => frame::ping(id, &mut text),
        }
        to.write_all(&text).await?;
        if queue.is_empty() {
            to.flush().await?;
        }
    }
    to.shutdown().await
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    out: &mpsc::Sender<Out>,
    streams: &mpsc::Sender<Stream>,
) -> io::Result<()> {
    let mut reader = Reader::default();
    let mut open: HashMap<u32, Open> = HashMap::new();
    let mut newest = 0;
    loop {
        let next = tokio::time::timeout(IDLE_MAX, reader.next(&mut from)).await;
        let Some(next) = next.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
        match next {
            Frame::Open { id, headers, last } => {
                open.retain(|_, stream| !stream.input.is_closed());
                let is_next = id % 2 == 1 && id > newest;
                newest = newest.max(id);
                if !is_next || open.len() >= STREAMS_MAX {
                    let why = if is_next { Reset::Refused } else { Reset::Protocol };
                    send(out, Out::Reset(id, why)).await?;
                    continue;
                }
                let (sender, input) = mpsc::channel(PIECES);
                let reset = CancellationToken::new();
                let stream = Stream { id, headers, input, reset: reset.clone(), out: out.clone() };
                if !last {
                    open.insert(id, Open { input: sender, reset });
                }
                if streams.send(stream).await.is_err() {
                    return Ok(());
                }
            }
            Frame::Data { id, len, last } => {
                pass_on(&mut from, open.get(&id).map(|stream| &stream.input), len, out).await?;
                if last {
                    open.remove(&id);
                }
            }
            Frame::Reset { id } => {
                if let Some(stream) = open.remove(&id) {
                    stream.reset.cancel();
                }
            }
            // Those with an even number are answers.
            Frame::Ping { id } if id % 2 == 1 => send(out, Out::Ping(id)).await?,
            Frame::GoAway => return Ok(()),
            Frame::Ping { .. } | Frame::Other => {}
        }
    }
}

async fn send(out: &mpsc::Sender<Out>, frame: Out) -> io::Result<()> {
    out.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// Moves the bytes of a data frame; those that nobody takes are dropped.
async fn pass_on(
    from: &mut (impl AsyncRead + Unpin),
    to: Option<&mpsc::Sender<Bytes>>,
    mut len: usize,
    out: &mpsc::Sender<Out>,
) -> io::Result<()> {
    while len > 0 {
        let mut piece = vec![0; len.min(PIECE)];
        from.read_exact(&mut piece).await?;
        len -= piece.len();
        if let Some(to) = to {
            hand_on(to, piece.into(), out).await;
        }
    }
    Ok(())
}

/// Queues a piece for a stream's taker. While that does not read, the connection is not read either, so the client is
/// asked now and then whether it is still there: an answer is not needed, only a connection that takes the question.
async fn hand_on(to: &mpsc::Sender<Bytes>, piece: Bytes, out: &mpsc::Sender<Out>) {
    let ask = async {
        loop {
            tokio::time::sleep(PING_EVERY).await;
            // A full queue of frames is asking enough.
            let _ = out.try_send(Out::Ping(OWN_PING));
        }
    };
    tokio::select! {
        // Without a receiver the stream has ended on our side.
        sent = to.send(piece) => drop(sent),
        () = ask => {}
    }
}

/// Number of the questions: even numbers are the server's.
const OWN_PING: u32 = 2;

#[cfg(test)]
pub(super) mod tests;
