//! The receiving half: connections of other members, and what comes over them into the store's inbox.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use reeve_proto::peer::peer_server::{Peer, PeerServer};
use reeve_proto::peer::{Parcel as Sent, Received};
use reeve_store::{Inbox, Parcel, ReceiveError};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::Shared;
use crate::lane::{ADDRESS, MESSAGE_BYTES_MAX};

/// Connections at once. Members have two each; the rest is for those that are about to be closed, and for strangers
/// in their handshake. Further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// How often a silent member is asked whether it is still there, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_WAIT_MAX: Duration = Duration::from_secs(5);
/// What a member may send ahead.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Calls at once on one connection: there is one.
const STREAMS_MAX: u32 = 4;
/// Wait after the system could not accept a connection (no descriptors left): accepting at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where messages go in: the store's [`Inbox`].
pub trait Intake: Clone + Send + Sync + 'static {
    /// Takes a message in; waits while there is too much to do.
    fn receive(&self, parcel: Parcel) -> BoxFuture<'_, Result<(), ReceiveError>>;
}

impl Intake for Inbox {
    fn receive(&self, parcel: Parcel) -> BoxFuture<'_, Result<(), ReceiveError>> {
        Box::pin(Self::receive(self, parcel))
    }
}

/// Accepts for ever.
pub(crate) async fn accept(listener: TcpListener, shared: Arc<Shared>, inbox: impl Intake) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a member's connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (own, inbox) = (Arc::clone(&shared), inbox.clone());
        shared.tasks.spawn(async move {
            let served = own.stop.run_until_cancelled(connection(stream, &own, inbox)).await;
            if let Some(Err(error)) = served {
                tracing::debug!(%address, error, "A connection to the peer port has ended.");
            }
            drop(permit);
        });
    }
}

/// One connection, from handshake to end.
async fn connection(stream: TcpStream, shared: &Arc<Shared>, inbox: impl Intake) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|err| err.to_string())?;
    let shaken = tokio::time::timeout(HANDSHAKE_TIME_MAX, shared.tls.accept(stream)).await;
    let (stream, from) = shaken.map_err(|_| "the handshake took too long")?.map_err(|err| err.to_string())?;
    let service = PeerServer::new(Receiver { shared: Arc::clone(shared), inbox, from });
    let service = service.max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
    served.map_err(|err| err.to_string())
}

/// The service, as one member sees it.
struct Receiver<I> {
    shared: Arc<Shared>,
    inbox: I,
    /// Whose certificate was shown.
    from: u64,
}

#[tonic::async_trait]
impl<I: Intake> Peer for Receiver<I> {
    async fn messages(&self, request: Request<Streaming<Sent>>) -> Result<Response<Received>, Status> {
        if let Some(address) = request.metadata().get(ADDRESS).and_then(|address| address.to_str().ok()) {
            self.shared.hear(self.from, address);
        }
        let mut messages = request.into_inner();
        while let Some(sent) = messages.message().await? {
            let Sent { cluster, from, to, message, urgent } = sent;
            if cluster != self.shared.cluster {
                return Err(Status::failed_precondition(format!(
                    "a message for the group {cluster:x}; this one is {:x}",
                    self.shared.cluster
                )));
            }
            if from != self.from {
                let shown = self.from;
                return Err(Status::unauthenticated(format!("member {shown:x} speaks for member {from:x}")));
            }
            // Waits while the store has enough to do: that slows the stream down.
            let taken = self.inbox.receive(Parcel { from, to, message, urgent }).await;
            taken.map_err(|err| match err {
                ReceiveError::Removed { .. } => Status::permission_denied(err.to_string()),
                ReceiveError::NotForUs { .. } => Status::failed_precondition(err.to_string()),
                ReceiveError::Closed => Status::unavailable(err.to_string()),
            })?;
        }
        Ok(Response::new(Received {}))
    }
}
