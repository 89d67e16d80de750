//! Watches of a cluster of etcd.
//!
//! A watch follows *all* keys of etcd and shows those it is asked for. That costs the traffic of whoever else uses the
//! cluster, and gives what the API server needs: every revision has an event, so it is known how far the watch is
//! without asking etcd, whose answers to that question ran ahead of events once (etcd 15220).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use reeve_proto::etcd::etcdserverpb::watch_client::WatchClient;
use reeve_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use reeve_proto::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use reeve_store::{Event, KeyRange, KvError, LeaseId, Revision, WatchBatch, WatchStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status, Streaming};

use super::ANSWER_BYTES_MAX;
use super::convert::Prefixed;
use super::endpoints::Endpoints;
use crate::convert::signed;
use crate::error::to_store;

/// Batches that wait for the watcher. Then etcd's answers wait, first here, then with etcd, which keeps what it has not
/// sent in its history.
const BATCHES_MAX: usize = 16;
/// Bytes of values after which a batch ends with the revision it is at.
const BATCH_BYTES: usize = 1024 * 1024;
/// Pause after every member has refused a watch.
const PAUSE: Duration = Duration::from_millis(500);

/// A watch, and where it is.
pub(super) struct Watch {
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) prefix: Arc<Prefixed>,
    /// The newest revision that anybody here knows of.
    pub(super) newest: Arc<AtomicU64>,
    /// With the prefix.
    pub(super) range: KeyRange,
    pub(super) previous: bool,
    /// The next revision to deliver; `None` before etcd has said where it begins.
    pub(super) next: Option<Revision>,
}

/// Why one connection's watch is over.
enum End {
    /// It goes on at another member.
    Lost(u64),
    /// It is over.
    Failed(KvError),
    /// Nobody listens.
    Unheard,
}

type Batches = mpsc::Sender<Result<WatchBatch, KvError>>;

impl Watch {
    /// Follows until the stream is dropped. When it returns, the watch is set up with etcd.
    pub(super) async fn start(mut self) -> Result<WatchStream, KvError> {
        let (answers, number) = self.open().await?;
        let (batches, receiver) = mpsc::channel(BATCHES_MAX);
        tokio::spawn(self.run(batches, answers, number));
        Ok(ReceiverStream::new(receiver).boxed())
    }

    async fn run(mut self, batches: Batches, answers: Answers, number: u64) {
        let mut opened = Some((answers, number));
        loop {
            let (answers, number) = match opened.take() {
                Some(opened) => opened,
                None => match self.open().await {
                    Ok(opened) => opened,
                    Err(KvError::Unavailable { reason }) => {
                        tracing::debug!(reason, "A watch of etcd cannot go on yet.");
                        tokio::select! {
                            () = batches.closed() => return,
                            () = tokio::time::sleep(PAUSE) => continue,
                        }
                    }
                    Err(err) => {
                        let _ = batches.send(Err(err)).await;
                        return;
                    }
                },
            };
            let end = tokio::select! {
                end = self.follow(answers, number, &batches) => end,
                () = batches.closed() => End::Unheard,
            };
            match end {
                End::Lost(number) => self.endpoints.leave(number),
                End::Failed(err) => {
                    let _ = batches.send(Err(err)).await;
                    return;
                }
                End::Unheard => return,
            }
        }
    }

    /// A watch at the member that is asked now, which begins where this one is.
    async fn open(&mut self) -> Result<(Answers, u64), KvError> {
        let mut last = None;
        for _ in 0..=self.endpoints.len() {
            let (number, channel) = self.endpoints.current().await?;
            match self.open_at(WatchClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)).await {
                Ok(answers) => return Ok((answers, number)),
                Err(status) => {
                    self.endpoints.leave(number);
                    last = Some(to_store(&status, LeaseId::NONE));
                }
            }
        }
        Err(last.unwrap_or(KvError::Closed))
    }

    async fn open_at(&mut self, mut client: WatchClient<tonic::transport::Channel>) -> Result<Answers, Status> {
        let create = WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            // Revision 1 is the empty store: nothing has ever changed at it.
            start_revision: self.next.map_or(0, |next| signed(next).max(1)),
            prev_kv: self.previous,
            ..WatchCreateRequest::default()
        };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let (requests, receiver) = mpsc::channel(1);
        let _ = requests.send(request).await; // there is room for one
        let mut call = Request::new(ReceiverStream::new(receiver));
        // A member that is cut off from the others must not keep us waiting for what it will never hear of.
        call.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let mut answers = client.watch(call).await?.into_inner();
        let created = answers.message().await?.ok_or_else(|| Status::unavailable("the watch has ended"))?;
        if created.canceled {
            return Err(Status::unavailable(created.cancel_reason));
        }
        if self.next.is_none() {
            let now = created.header.as_ref().map_or(0, |header| header.revision);
            self.next = Some(Revision(u64::try_from(now).unwrap_or(0) + 1));
        }
        Ok(Answers { answers, _requests: requests })
    }

    async fn follow(&mut self, mut answers: Answers, number: u64, batches: &Batches) -> End {
        loop {
            match answers.answers.message().await {
                Ok(Some(answer)) => {
                    if let Err(end) = self.take(answer, batches).await {
                        return end;
                    }
                }
                Ok(None) | Err(_) => return End::Lost(number),
            }
        }
    }

    async fn take(&mut self, answer: WatchResponse, batches: &Batches) -> Result<(), End> {
        if answer.compact_revision > 0 {
            let compacted = Revision(answer.compact_revision.unsigned_abs());
            let requested = self.next.unwrap_or(compacted);
            return Err(End::Failed(KvError::Compacted { requested, compacted }));
        }
        if answer.canceled {
            let reason = format!("etcd has ended a watch: {}", answer.cancel_reason);
            return Err(End::Failed(KvError::Unavailable { reason }));
        }
        let mut batch = WatchBatch { revision: Revision(0), events: Vec::new() };
        let mut bytes = 0;
        let previous = self.previous;
        for event in answer.events.into_iter().filter_map(|event| Prefixed::event(event, previous)) {
            let revision = event.kv.mod_revision;
            if self.next.is_some_and(|next| revision < next) {
                continue; // said before by another member
            }
            if bytes > BATCH_BYTES && revision > batch.revision {
                self.send(std::mem::replace(&mut batch, WatchBatch { revision, events: Vec::new() }), batches).await?;
                bytes = 0;
            }
            batch.revision = revision;
            if let Some(event) = self.shown(event) {
                bytes += event.kv.value.len();
                batch.events.push(event);
            }
        }
        if batch.revision > Revision(0) { self.send(batch, batches).await } else { Ok(()) }
    }

    fn shown(&self, event: Event) -> Option<Event> {
        if !self.range.contains(&event.kv.key) {
            return None;
        }
        self.prefix.event_without(event)
    }

    async fn send(&mut self, batch: WatchBatch, batches: &Batches) -> Result<(), End> {
        let revision = batch.revision;
        batches.send(Ok(batch)).await.map_err(|_| End::Unheard)?;
        self.next = Some(Revision(revision.0 + 1));
        self.newest.fetch_max(revision.0, Ordering::AcqRel);
        Ok(())
    }
}

/// What etcd says; the other half keeps it talking.
struct Answers {
    answers: Streaming<WatchResponse>,
    _requests: mpsc::Sender<WatchRequest>,
}
