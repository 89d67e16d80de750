//! The service of watches: many on one stream, each with its own range, past and filters.
//!
//! One task per stream takes requests, follows the store for all watches, and writes answers in the order in which
//! things happened: a progress notification never runs ahead of events (etcd 15220), nothing is said twice, and a watch
//! from the future says nothing before its revision (etcd 20221). A client that does not read makes its task wait; the
//! store cuts off watches that lie too far behind, and the task follows again from where it was.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use reeve_proto::etcd::etcdserverpb::watch_create_request::FilterType;
use reeve_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use reeve_proto::etcd::etcdserverpb::watch_server::Watch as WatchService;
use reeve_proto::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use reeve_proto::etcd::mvccpb::event::EventType;
use reeve_proto::etcd::mvccpb::{self, KeyValue};
use reeve_store::kv::EventKind;
use reeve_store::{Event, KeyRange, KvError, Leadership, Revision, WatchBatch, WatchStream};
use tokio::sync::{mpsc, watch as watched};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::REQUEST_BYTES_MAX;
use crate::convert::{key_range, key_value, revision, signed};
use crate::error::{self, COMPACTED, NO_LEADER, STOPPED, of_store};
use crate::server::Served;

/// Watches on one stream.
const WATCHES_MAX: usize = 4096;
/// Answers that wait for the client; the stream's task waits when there are more.
const ANSWERS_MAX: usize = 16;
/// How often a watch that wants to know is told how far it is when nothing else is said: etcd's.
const PROGRESS_PERIOD: Duration = Duration::from_secs(10 * 60);
/// What etcd calls a watch that does not exist, and all watches of a stream.
const NO_WATCH: i64 = -1;

/// With this a client says that it wants to be where there is a leader: kube-apiserver does.
const HAS_LEADER: &str = "hasleader";
/// How long its watches go on where there is none: longer than an election.
const LEADERLESS_MAX: Duration = Duration::from_millis(1500);

/// See the module.
pub(crate) struct Watches(pub(crate) Arc<Served>);

type Answers = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl WatchService for Watches {
    type WatchStream = Answers;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Answers>, Status> {
        let wants_leader = request.metadata().get(HAS_LEADER).is_some_and(|value| value == "true");
        let leadership = wants_leader.then(|| self.0.facts.leadership()).flatten();
        if leadership.as_ref().is_some_and(|known| known.borrow().leader.is_none()) {
            return Err(error::status(NO_LEADER));
        }
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let session = Session {
            served: self.0.clone(),
            answers,
            watches: HashMap::new(),
            next: FuturesUnordered::new(),
            next_id: 0,
            progress: None,
        };
        tokio::spawn(session.run(request.into_inner(), leadership));
        Ok(Response::new(ReceiverStream::new(receiver).boxed()))
    }
}

/// One stream.
struct Session {
    served: Arc<Served>,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
    watches: HashMap<i64, Watch>,
    next: FuturesUnordered<Pin<Box<dyn Future<Output = Option<Next>> + Send>>>,
    next_id: i64,
    /// The client wants to know when all watches have got here.
    progress: Option<Revision>,
}

/// What a watch said; the stream goes back into it.
struct Next {
    id: i64,
    stream: WatchStream,
    said: Option<Result<WatchBatch, KvError>>,
}

/// One watch.
struct Watch {
    range: KeyRange,
    previous: bool,
    no_put: bool,
    no_delete: bool,
    fragment: bool,
    /// Wants to be told its progress now and then; `true` when it heard something since the last time.
    heard: Option<bool>,
    /// The first revision that it wants.
    start: Revision,
    /// Everything before this has been delivered.
    next: Revision,
    /// The newest revision that the client was told.
    said: Revision,
    /// Dropped with it: what follows the store ends.
    ends: CancellationToken,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ends.cancel();
    }
}

/// The stream is over: the client has gone, or has been told why.
struct Over;

impl Session {
    async fn run(mut self, mut requests: Streaming<WatchRequest>, leadership: Option<watched::Receiver<Leadership>>) {
        let stop = self.served.stop.clone();
        let mut cut_off = std::pin::pin!(leaderless(leadership));
        let mut told = interval_at(Instant::now() + PROGRESS_PERIOD, PROGRESS_PERIOD);
        told.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => {
                    let _ = self.answers.try_send(Err(error::status(STOPPED)));
                    return;
                }
                () = &mut cut_off => {
                    let _ = self.answers.try_send(Err(error::status(NO_LEADER)));
                    return;
                }
                () = self.answers.closed() => return,
                request = requests.message() => match request {
                    Ok(Some(request)) => self.on_request(request).await,
                    Ok(None) | Err(_) => return,
                },
                Some(next) = self.next.next(), if !self.next.is_empty() => match next {
                    Some(next) => self.on_next(next).await,
                    None => Ok(()),
                },
                _ = told.tick() => self.tell_progress().await,
            };
            if outcome.is_err() {
                return;
            }
        }
    }

    async fn on_request(&mut self, request: WatchRequest) -> Result<(), Over> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => match self.watches.remove(&request.watch_id) {
                Some(_) => {
                    let canceled = WatchResponse { canceled: true, ..self.answer(request.watch_id) };
                    self.say(canceled).await
                }
                None => Ok(()),
            },
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress = Some(self.served.kv.revision());
                self.answer_progress().await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Result<(), Over> {
        let now = self.served.kv.revision();
        let (range, id) = match self.check(&request) {
            Ok(checked) => checked,
            Err(cancel_reason) => {
                let refused = WatchResponse { created: true, canceled: true, cancel_reason, ..self.answer(NO_WATCH) };
                return self.say(refused).await;
            }
        };
        // What is committed between this and the watch is not missed.
        let start = revision(request.start_revision).unwrap_or(Revision(now.0 + 1));
        let has = |filter: FilterType| request.filters.contains(&filter.into());
        let watch = Watch {
            range,
            previous: request.prev_kv,
            no_put: has(FilterType::Noput),
            no_delete: has(FilterType::Nodelete),
            fragment: request.fragment,
            heard: request.progress_notify.then_some(false),
            start,
            next: start,
            said: Revision(0),
            ends: CancellationToken::new(),
        };
        let created = WatchResponse { created: true, header: self.served.header(now), ..self.answer(id) };
        self.say(created).await?;
        self.follow(id, watch).await
    }

    /// The range and number of a new watch, or why there cannot be one.
    fn check(&mut self, request: &WatchCreateRequest) -> Result<(KeyRange, i64), String> {
        if request.start_revision < 0 {
            return Err(COMPACTED.1.to_owned());
        }
        if self.watches.len() >= WATCHES_MAX {
            return Err(format!("etcdserver: too many requests: {WATCHES_MAX} watches on one stream"));
        }
        let key = if request.key.is_empty() { Bytes::from_static(b"\0") } else { request.key.clone() };
        let range = key_range(&key, &request.range_end);
        if let KeyRange::Span { start, end } = &range
            && start >= end
        {
            return Err("mvcc: watcher range is empty".to_owned());
        }
        let taken = |id: &i64| self.watches.contains_key(id);
        if request.watch_id != 0 && taken(&request.watch_id) {
            return Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned());
        }
        if request.watch_id != 0 {
            return Ok((range, request.watch_id));
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok((range, self.next_id - 1))
    }

    /// Begins, or goes on, to follow the store.
    async fn follow(&mut self, id: i64, watch: Watch) -> Result<(), Over> {
        let (range, start) = (watch.range.clone(), Some(watch.next));
        let request = reeve_store::WatchRequest { range, start, previous: watch.previous };
        match self.served.kv.watch(request).await {
            Ok(stream) => {
                self.await_next(id, stream, watch.ends.clone());
                self.watches.insert(id, watch);
                Ok(())
            }
            Err(err) => self.fail(&err).await,
        }
    }

    fn await_next(&mut self, id: i64, mut stream: WatchStream, ends: CancellationToken) {
        self.next.push(Box::pin(async move {
            let said = ends.run_until_cancelled(stream.next()).await?;
            Some(Next { id, stream, said })
        }));
    }

    async fn on_next(&mut self, next: Next) -> Result<(), Over> {
        let Next { id, stream, said } = next;
        let Some(watch) = self.watches.get(&id).filter(|watch| !watch.ends.is_cancelled()) else { return Ok(()) };
        let ends = watch.ends.clone();
        match said {
            Some(Ok(batch)) => {
                self.deliver(id, batch).await?;
                self.await_next(id, stream, ends);
                self.answer_progress().await
            }
            // The client was too slow for the store: it goes on where it was.
            Some(Err(KvError::SlowWatcher { .. })) => match self.watches.remove(&id) {
                Some(mut watch) => {
                    watch.ends = CancellationToken::new();
                    self.follow(id, watch).await
                }
                None => Ok(()),
            },
            Some(Err(KvError::Compacted { compacted, .. })) => {
                self.watches.remove(&id);
                let compact_revision = signed(compacted).max(1);
                self.say(WatchResponse { canceled: true, compact_revision, ..self.answer(id) }).await
            }
            Some(Err(err)) => self.fail(&err).await,
            None => self.fail(&KvError::Closed).await,
        }
    }

    async fn deliver(&mut self, id: i64, batch: WatchBatch) -> Result<(), Over> {
        let Some(watch) = self.watches.get_mut(&id) else { return Ok(()) };
        watch.next = watch.next.max(Revision(batch.revision.0 + 1));
        let lets_through = |event: &Event| match event.kind {
            EventKind::Put => !watch.no_put,
            EventKind::Delete => !watch.no_delete,
        };
        let events: Vec<_> = batch.events.into_iter().filter(lets_through).map(shown).collect();
        if events.is_empty() {
            return Ok(());
        }
        if let Some(heard) = &mut watch.heard {
            *heard = true;
        }
        watch.said = batch.revision;
        let fragment = watch.fragment;
        let header = self.served.header(batch.revision);
        let whole = WatchResponse { watch_id: id, header, events, ..WatchResponse::default() };
        if !fragment {
            return self.say(whole).await;
        }
        for piece in fragments(whole) {
            self.say(piece).await?;
        }
        Ok(())
    }

    /// Tells the client that all its watches have got where the store was when it asked.
    async fn answer_progress(&mut self) -> Result<(), Over> {
        let Some(wanted) = self.progress else { return Ok(()) };
        // A watch from the future has nothing to say of the present: as with etcd, the question is forgotten.
        let is_early = |watch: &Watch| watch.next == watch.start && watch.start.0 > wanted.0 + 1;
        let Some(reached) = self.watches.values().map(|watch| Revision(watch.next.0 - 1)).min() else {
            self.progress = None;
            return Ok(());
        };
        if self.watches.values().any(is_early) {
            self.progress = None;
            return Ok(());
        }
        // Answered when all are there, and with nothing older than what one of them has said.
        if reached < wanted || self.watches.values().any(|watch| watch.said > reached) {
            return Ok(());
        }
        self.progress = None;
        self.watches.values_mut().for_each(|watch| watch.said = reached);
        let header = self.served.header(reached);
        self.say(WatchResponse { header, ..self.answer(NO_WATCH) }).await
    }

    /// Tells watches that want to know, and have heard nothing for a while, how far they are.
    async fn tell_progress(&mut self) -> Result<(), Over> {
        let now = self.served.kv.revision();
        let mut quiet = Vec::new();
        for (id, watch) in &mut self.watches {
            let Some(heard) = &mut watch.heard else { continue };
            if !std::mem::replace(heard, false) && watch.next.0 == now.0 + 1 {
                quiet.push(*id);
            }
        }
        for id in quiet {
            let header = self.served.header(now);
            self.say(WatchResponse { header, ..self.answer(id) }).await?;
        }
        Ok(())
    }

    fn answer(&self, watch_id: i64) -> WatchResponse {
        WatchResponse { watch_id, header: self.served.header(self.served.kv.revision()), ..WatchResponse::default() }
    }

    async fn say(&mut self, answer: WatchResponse) -> Result<(), Over> {
        self.answers.send(Ok(answer)).await.map_err(|_| Over)
    }

    /// Ends the stream; its client opens another one and goes on where it was.
    async fn fail(&mut self, err: &KvError) -> Result<(), Over> {
        let _ = self.answers.send(Err(of_store(err))).await;
        Err(Over)
    }
}

/// Ends when there has been no leader for too long; never, if nobody wants to know.
async fn leaderless(leadership: Option<watched::Receiver<Leadership>>) {
    let Some(mut known) = leadership else { return std::future::pending().await };
    loop {
        if known.wait_for(|now| now.leader.is_none()).await.is_err() {
            return std::future::pending().await; // the store closes, and says so itself
        }
        let led = known.wait_for(|now| now.leader.is_some());
        if tokio::time::timeout(LEADERLESS_MAX, led).await.is_err() {
            return;
        }
    }
}

fn shown(event: Event) -> mvccpb::Event {
    let kv = match event.kind {
        EventKind::Put => key_value(event.kv),
        // etcd says no more of a deletion.
        EventKind::Delete => {
            KeyValue { key: event.kv.key, mod_revision: signed(event.kv.mod_revision), ..KeyValue::default() }
        }
    };
    let kind = match event.kind {
        EventKind::Put => EventType::Put,
        EventKind::Delete => EventType::Delete,
    };
    mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv: event.previous.map(key_value) }
}

/// Cuts an answer into pieces that a client with small messages can take in; the last one says that it is.
fn fragments(whole: WatchResponse) -> Vec<WatchResponse> {
    if whole.encoded_len() < REQUEST_BYTES_MAX || whole.events.len() < 2 {
        return vec![whole];
    }
    let WatchResponse { events, .. } = whole;
    let empty = WatchResponse { events: Vec::new(), fragment: true, ..whole };
    let mut pieces: Vec<WatchResponse> = Vec::new();
    let mut bytes = usize::MAX;
    for event in events {
        let more = event.encoded_len() + 8; // its tag and length
        if bytes.saturating_add(more) >= REQUEST_BYTES_MAX {
            pieces.push(empty.clone());
            bytes = empty.encoded_len();
        }
        bytes += more;
        if let Some(piece) = pieces.last_mut() {
            piece.events.push(event);
        }
    }
    if let Some(last) = pieces.last_mut() {
        last.fragment = false;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_every_event_once_and_only_the_last_one_ends() {
        let event = |n: usize| {
            let kv = KeyValue { key: n.to_string().into(), value: vec![b'x'; 400_000].into(), ..KeyValue::default() };
            mvccpb::Event { kv: Some(kv), ..mvccpb::Event::default() }
        };
        let whole = WatchResponse { events: (0..10).map(event).collect(), watch_id: 7, ..WatchResponse::default() };
        let pieces = fragments(whole.clone());
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.encoded_len() < REQUEST_BYTES_MAX));
        let ends: Vec<bool> = pieces.iter().map(|piece| !piece.fragment).collect();
        assert_eq!(ends.iter().position(|end| *end), Some(pieces.len() - 1));
        let events: Vec<_> = pieces.into_iter().flat_map(|piece| piece.events).collect();
        assert_eq!(events, whole.events);
        let small = WatchResponse { events: vec![event(1)], ..WatchResponse::default() };
        assert_eq!(fragments(small.clone()), [small]);
    }
}
