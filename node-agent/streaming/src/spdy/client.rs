//! The client's side: opens streams on a connection that a server has switched to SPDY.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::frame::{Frame, Reader};
use super::{FRAMES, Open, Out, PIECES, Reset, Stream, pass_on, send, write};

/// Opens streams; cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    out: mpsc::Sender<Out>,
    open: Arc<Mutex<HashMap<u32, Open>>>,
    next_id: Arc<AtomicU32>,
}

impl Client {
    /// Opens a stream. On a connection that is gone its input is at its end.
    pub(crate) async fn open(&self, headers: Vec<(&'static str, String)>) -> Stream {
        // A client's numbers are odd.
        let id = self.next_id.fetch_add(2, Ordering::Relaxed);
        let (sender, input) = mpsc::channel(PIECES);
        let reset = CancellationToken::new();
        self.lock().insert(id, Open { input: sender, reset: reset.clone() });
        if self.out.send(Out::Open { id, headers }).await.is_err() {
            self.lock().remove(&id);
        }
        Stream { id, headers: Vec::new(), input, reset, out: self.out.clone() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client on a connection, and what has to run for as long as it is used.
pub(crate) fn start<S>(socket: S) -> (Client, impl Future<Output = io::Result<()>> + Send)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let (out, queue) = mpsc::channel(FRAMES);
    let client = Client { out, open: Arc::default(), next_id: Arc::new(AtomicU32::new(1)) };
    let own = client.clone();
    let run = async move {
        let (from, to) = tokio::io::split(socket);
        let ended = tokio::select! {
            read = read(from, &own) => read,
            written = write(to, queue) => written,
        };
        // Whoever still reads a stream sees its end.
        own.lock().clear();
        ended
    };
    (client, run)
}

async fn read(mut from: impl AsyncRead + Unpin, client: &Client) -> io::Result<()> {
    let mut reader = Reader::default();
    loop {
        let Some(next) = reader.next(&mut from).await? else { return Ok(()) };
        match next {
            // Servers of Kubernetes open none.
            Frame::Open { id, .. } => send(&client.out, Out::Reset(id, Reset::Refused)).await?,
            Frame::Data { id, len, last } => {
                let to = client.lock().get(&id).map(|stream| stream.input.clone());
                pass_on(&mut from, to.as_ref(), len, &client.out).await?;
                drop(to);
                if last {
                    client.lock().remove(&id);
                }
            }
            Frame::Reset { id } => {
                if let Some(stream) = client.lock().remove(&id) {
                    stream.reset.cancel();
                }
            }
            Frame::Ping { id } if id % 2 == 0 => send(&client.out, Out::Ping(id)).await?,
            Frame::Ping { .. } | Frame::GoAway | Frame::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::super::serve;
    use super::*;

    #[tokio::test]
    async fn what_one_side_sends_the_other_hears() {
        let (near, far) = duplex(64 * 1024);
        let (sender, mut opened) = mpsc::channel(4);
        tokio::spawn(serve(far, sender));
        let (client, run) = start(near);
        let running = tokio::spawn(run);
        let mut stream = client.open(vec![("streamtype", "data".to_owned())]).await;
        let mut other = opened.recv().await.expect("a stream");
        assert_eq!((other.id(), other.header("streamtype")), (1, "data"));
        other.accept().await;
        stream.output().send("to".into()).await;
        assert_eq!(other.input.recv().await.expect("data"), "to");
        stream.output().close().await;
        assert_eq!(other.input.recv().await, None);
        other.output().send("back".into()).await;
        other.output().close().await;
        assert_eq!(stream.input.recv().await.expect("data"), "back");
        assert_eq!(stream.input.recv().await, None);
        assert_eq!(client.open(Vec::new()).await.id(), 3);
        running.abort();
    }
}
