//! One direction of messages to one member: a bounded queue and the connection that empties it.
//!
//! ```text
//! push -> queue -> stream of one gRPC call -> the other member
//!           | full, or no connection: dropped
//! ```
//!
//! A connection that ends is made again, at once the first time, then after growing pauses. What waited then is
//! dropped: Raft would rather say something newer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use reeve_proto::peer::peer_client::PeerClient;
use reeve_proto::peer::{Parcel as Sent, Received};
use reeve_store::Parcel;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};

use crate::Shared;
use crate::figures::Figures;

/// Most messages that wait. One more is dropped.
const MESSAGES_MAX: usize = 1024;
/// Most bytes that wait: a few of the largest messages. A message beyond it is dropped, unless it is alone.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Messages handed to the stream that it has not taken yet.
const HANDED_MAX: usize = 4;
/// Largest message: a batch of entries, or a chunk of a snapshot.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a connection may take to come about, handshakes included. Members are near each other.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// First and longest pause before a connection is tried again.
const PAUSE_INITIAL: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection that lived so long was well: the next pause is the first one again.
const WELL_AFTER: Duration = Duration::from_secs(5);
/// A connection whose other end says nothing for so long, asked, is given up: after a cut of the network TCP itself
/// would wait for as long again as the cut took.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_WAIT_MAX: Duration = Duration::from_secs(2);
/// Says, with each call, where the caller is reached.
pub(crate) const ADDRESS: &str = "reeve-address";
/// What may be under way to a member that is slow to read.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Where messages are put in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lane {
    queue: mpsc::Sender<Parcel>,
    bytes: Arc<AtomicUsize>,
    figures: Arc<Figures>,
}

/// The other end of a [`Lane`].
pub(crate) struct Queue {
    parcels: mpsc::Receiver<Parcel>,
    bytes: Arc<AtomicUsize>,
}

impl Lane {
    pub(crate) fn new(figures: Arc<Figures>) -> (Self, Queue) {
        let (queue, parcels) = mpsc::channel(MESSAGES_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        (Self { queue, bytes: Arc::clone(&bytes), figures }, Queue { parcels, bytes })
    }

    /// Takes a message on, or drops it.
    pub(crate) fn push(&self, parcel: Parcel) {
        let len = parcel.message.len();
        let waiting = self.bytes.fetch_add(len, Ordering::Relaxed);
        let fits = waiting == 0 || waiting.saturating_add(len) <= BYTES_MAX;
        if !fits || self.queue.try_send(parcel).is_err() {
            self.bytes.fetch_sub(len, Ordering::Relaxed);
            self.figures.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Queue {
    async fn next(&mut self) -> Option<Parcel> {
        let parcel = self.parcels.recv().await?;
        self.bytes.fetch_sub(parcel.message.len(), Ordering::Relaxed);
        Some(parcel)
    }

    /// Drops what waits; how much that was.
    fn clear(&mut self) -> u64 {
        let mut dropped = 0;
        while let Ok(parcel) = self.parcels.try_recv() {
            self.bytes.fetch_sub(parcel.message.len(), Ordering::Relaxed);
            dropped += 1;
        }
        dropped
    }
}

/// Makes connections to one member for one lane.
pub(crate) struct Dial {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: u64,
    pub(crate) address: String,
    pub(crate) figures: Arc<Figures>,
    pub(crate) urgent: bool,
}

/// Counts a lane as connected as long as it lives.
struct Up<'f>(&'f Figures);

impl<'f> Up<'f> {
    fn new(figures: &'f Figures) -> Self {
        figures.lanes.fetch_add(1, Ordering::Relaxed);
        Self(figures)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.lanes.fetch_sub(1, Ordering::Relaxed);
        self.0.disconnects.fetch_add(1, Ordering::Relaxed);
    }
}

impl Dial {
    /// Sends for ever; ends when nobody can put anything in any more.
    pub(crate) async fn run(self, mut queue: Queue) {
        let mut pause = PAUSE_INITIAL;
        let mut told = false;
        while !queue.parcels.is_closed() {
            let began = Instant::now();
            match self.connect().await {
                Ok(client) => {
                    told = false;
                    let ended = self.send(client, &mut queue).await;
                    self.on_ended(&ended);
                }
                Err(error) if !told => {
                    told = true; // once for each time that it goes away
                    let (peer, address) = (format!("{:x}", self.peer), &self.address);
                    tracing::warn!(peer, address, error = with_causes(&error), "A member cannot be reached.");
                }
                Err(_) => {}
            }
            let dropped = queue.clear();
            self.figures.dropped.fetch_add(dropped, Ordering::Relaxed);
            pause = if began.elapsed() >= WELL_AFTER { PAUSE_INITIAL } else { (pause * 2).min(PAUSE_MAX) };
            tokio::time::sleep(pause).await;
        }
    }

    async fn connect(&self) -> Result<PeerClient<Channel>, tonic::transport::Error> {
        let (shared, peer, address) = (Arc::clone(&self.shared), self.peer, self.address.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (shared, address) = (Arc::clone(&shared), address.clone());
            async move {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                shared.tls.connect(peer, stream).await.map(TokioIo::new)
            }
        });
        // The name is never looked up: the connector knows where to go.
        let endpoint = Endpoint::from_static("http://member")
            .connect_timeout(CONNECT_TIME_MAX)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WAIT_MAX)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = endpoint.connect_with_connector(connector).await?;
        Ok(PeerClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// Hands on what is in the queue until the call ends.
    async fn send(&self, mut client: PeerClient<Channel>, queue: &mut Queue) -> Result<(), Status> {
        let _up = Up::new(&self.figures);
        let (hand, handed) = mpsc::channel(HANDED_MAX);
        let stream = futures::stream::unfold(handed, |mut handed: mpsc::Receiver<Sent>| async move {
            handed.recv().await.map(|sent| (sent, handed))
        });
        let mut request = Request::new(stream);
        if let Ok(address) = self.shared.address.parse() {
            request.metadata_mut().insert(ADDRESS, address);
        }
        let call = async move { client.messages(request).await };
        let mut call = std::pin::pin!(call);
        loop {
            let parcel = tokio::select! {
                ended = call.as_mut() => return ended.map(in_order),
                next = queue.next() => match next {
                    Some(parcel) => parcel,
                    None => return Ok(()),
                },
            };
            let len = parcel.message.len() as u64;
            let Parcel { from, to, message, .. } = parcel;
            let sent = Sent { cluster: self.shared.cluster, from, to, message, urgent: self.urgent };
            tokio::select! {
                ended = call.as_mut() => return ended.map(in_order),
                taken = hand.send(sent) => if taken.is_err() {
                    return call.await.map(in_order);
                },
            }
            self.figures.sent_bytes.fetch_add(len, Ordering::Relaxed);
        }
    }

    fn on_ended(&self, ended: &Result<(), Status>) {
        let (peer, address) = (format!("{:x}", self.peer), &self.address);
        match ended {
            Ok(()) => tracing::debug!(peer, address, "A member has closed the stream."),
            Err(status) if status.code() == Code::PermissionDenied => {
                tracing::warn!(peer, address, status = status.message(), "A member refuses this one.");
                self.shared.removed.send_replace(true);
            }
            Err(status) => tracing::info!(peer, address, status = status.message(), "A member is gone."),
        }
    }
}

fn in_order(_: Response<Received>) {}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(len: usize) -> Parcel {
        Parcel { from: 1, to: 2, message: vec![0; len].into(), urgent: false }
    }

    #[tokio::test]
    async fn a_lane_holds_so_many_messages_and_bytes_and_drops_the_rest() {
        let figures = Arc::new(Figures::default());
        let (lane, mut queue) = Lane::new(Arc::clone(&figures));
        lane.push(parcel(BYTES_MAX * 2));
        lane.push(parcel(1));
        assert_eq!(figures.told(2).dropped, 1);
        assert_eq!(queue.next().await.map(|own| own.message.len()), Some(BYTES_MAX * 2));
        (0..MESSAGES_MAX + 5).for_each(|_| lane.push(parcel(1)));
        assert_eq!(figures.told(2).dropped, 6);
        assert_eq!(queue.clear(), MESSAGES_MAX as u64);
        lane.push(parcel(BYTES_MAX));
        assert_eq!(figures.told(2).dropped, 6);
    }
}
