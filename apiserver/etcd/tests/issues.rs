//! What once went wrong in etcd above its store, by the numbers of its issues, through our port: the history that
//! exposed each must come out right. Those of the store itself are among its own tests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_proto::etcd::etcdserverpb::auth_client::AuthClient;
use reeve_proto::etcd::etcdserverpb::kv_client::KvClient;
use reeve_proto::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use reeve_proto::etcd::etcdserverpb::request_op::Request as Step;
use reeve_proto::etcd::etcdserverpb::watch_client::WatchClient;
use reeve_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use reeve_proto::etcd::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, DefragmentRequest, HashKvRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use reeve_store::view::MemoryView;
use reeve_store::{Kv as _, Limits, SimDisk, Store, StoreConfig};
use support::Ours;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a progress notification of a whole stream is addressed to.
const WHOLE_STREAM: i64 = -1;

async fn channel(ours: &Ours) -> Channel {
    let (certificate, key) = &ours.certificates.client;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ours.certificates.ca));
    let endpoint = Endpoint::from_shared(ours.url.clone()).unwrap();
    endpoint.tls_config(tls.identity(Identity::from_pem(certificate, key))).unwrap().connect().await.unwrap()
}

fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> PutRequest {
    PutRequest { key: key.into().into(), value: value.into().into(), ..PutRequest::default() }
}

async fn write(channel: &Channel, key: impl Into<String>, value: impl Into<Vec<u8>>) -> i64 {
    let written = KvClient::new(channel.clone()).put(put(key, value)).await.unwrap().into_inner();
    written.header.unwrap().revision
}

/// Everything from a revision on.
fn everything(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: "\0".into(), range_end: "\0".into(), start_revision, ..WatchCreateRequest::default() }
}

/// One stream of watches.
struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watching {
    async fn open(channel: &Channel) -> Self {
        let (requests, receiver) = mpsc::channel(1024);
        // etcd's clients take answers of any size, too.
        let mut client = WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let answers = client.watch(ReceiverStream::new(receiver)).await.unwrap();
        Self { requests, answers: answers.into_inner() }
    }

    async fn ask(&self, request: RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    async fn next(&mut self) -> WatchResponse {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("a watch says nothing");
        answer.unwrap().expect("the stream ends")
    }
}

/// What one watch has said: keys and revisions, in order.
type Said = BTreeMap<i64, Vec<(Vec<u8>, i64)>>;

fn note(said: &mut Said, answer: &WatchResponse) {
    let events = answer.events.iter().map(|event| event.kv.as_ref().unwrap());
    said.entry(answer.watch_id).or_default().extend(events.map(|kv| (kv.key.to_vec(), kv.mod_revision)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_never_runs_ahead_of_the_events_on_its_stream_etcd_15220() {
    let ours = Ours::embedded(Limits { history_max: 1_000_000, ..Limits::default() }).await;
    let channel = channel(&ours).await;
    for n in 0..200 {
        write(&channel, format!("k{}", n % 7), vec![b'x'; 500]).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (channel, stop) = (channel.clone(), stop.clone());
        async move {
            for n in 0.. {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                write(&channel, format!("k{}", n % 7), vec![b'y'; 500]).await;
            }
        }
    });
    let mut watching = Watching::open(&channel).await;
    // One begins in the past, and has to catch up while the other follows what comes.
    watching.ask(RequestUnion::CreateRequest(everything(2))).await;
    watching.ask(RequestUnion::CreateRequest(everything(0))).await;
    let asking = tokio::spawn({
        let requests = watching.requests.clone();
        async move {
            loop {
                let request = Some(RequestUnion::ProgressRequest(WatchProgressRequest {}));
                if requests.send(WatchRequest { request_union: request }).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }
    });
    let (mut told, mut times) = (0, 0);
    while times < 100 {
        let answer = watching.next().await;
        let revision = answer.header.unwrap().revision;
        if answer.watch_id == WHOLE_STREAM {
            assert!(answer.events.is_empty() && revision >= told, "{revision} after {told}");
            (told, times) = (revision, times + 1);
        }
        for event in &answer.events {
            let at = event.kv.as_ref().unwrap().mod_revision;
            assert!(at > told, "watch {} tells of {at} after all had got to {told}", answer.watch_id);
        }
    }
    asking.abort();
    stop.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    assert!(told > 200, "progress was told up to {told}");
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_a_transaction_comes_once_to_each_watch_whatever_else_is_asked_etcd_17247() {
    let ours = Ours::embedded(Limits { history_max: 1_000_000, ..Limits::default() }).await;
    let channel = channel(&ours).await;
    let step = |request| RequestOp { request: Some(request) };
    let mut watching = Watching::open(&channel).await;
    watching.ask(RequestUnion::CreateRequest(everything(2))).await;
    let mut last = 0;
    for n in 0..60 {
        // The very same transaction over and over, by clients that overlap: what it came to is never used again.
        let inner = TxnRequest { success: vec![step(Step::RequestPut(put("c", "3")))], ..TxnRequest::default() };
        let read = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
        let txn = TxnRequest {
            success: vec![
                step(Step::RequestPut(put("a", "1"))),
                step(Step::RequestRange(read)),
                step(Step::RequestPut(put("b", "2"))),
                step(Step::RequestTxn(inner)),
            ],
            ..TxnRequest::default()
        };
        let (mut one, mut other) = (KvClient::new(channel.clone()), KvClient::new(channel.clone()));
        let (first, second) = tokio::join!(one.txn(txn.clone()), other.txn(txn));
        let revision = |answer: tonic::Response<reeve_proto::etcd::etcdserverpb::TxnResponse>| {
            answer.into_inner().header.unwrap().revision
        };
        last = revision(first.unwrap()).max(revision(second.unwrap()));
        if n % 10 == 0 {
            watching.ask(RequestUnion::CreateRequest(everything(2))).await;
        }
    }
    let mut said = Said::new();
    while said.len() < 7 || said.values().any(|events| events.last().is_none_or(|(_, at)| *at < last)) {
        let answer = watching.next().await;
        note(&mut said, &answer);
    }
    let expected: Vec<_> = (2..=last).flat_map(|at| ["a", "b", "c"].map(|key| (key.as_bytes().to_vec(), at))).collect();
    assert_eq!(last, 121);
    for (id, events) in said {
        assert_eq!(events, expected, "watch {id}");
    }
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_reads_for_a_while_loses_no_event_etcd_17529() {
    const WATCHES: usize = 20;
    let ours = Ours::embedded(Limits { history_max: 1_000_000, ..Limits::default() }).await;
    let channel = channel(&ours).await;
    let mut watching = Watching::open(&channel).await;
    for n in 0..WATCHES {
        let from = if n % 2 == 0 { 0 } else { 2 };
        watching.ask(RequestUnion::CreateRequest(everything(from))).await;
    }
    for _ in 0..WATCHES {
        assert!(watching.next().await.created);
    }
    // Much more than a connection and all queues on the way hold, and than a watcher may be behind.
    let mut writes = Vec::new();
    for writer in 0..8 {
        let channel = channel.clone();
        writes.push(tokio::spawn(async move {
            let mut last = 0;
            for n in 0..125 {
                last = write(&channel, format!("k{}", n % 3), vec![writer; 4000]).await;
            }
            last
        }));
    }
    let mut last = 0;
    for write in writes {
        last = write.await.unwrap().max(last);
    }
    assert_eq!(last, 1001);
    let mut said = Said::new();
    while said.len() < WATCHES || said.values().any(|events| events.last().is_none_or(|(_, at)| *at < last)) {
        let answer = watching.next().await;
        assert!(!answer.canceled, "{answer:?}");
        note(&mut said, &answer);
    }
    for (id, events) in said {
        let revisions: Vec<i64> = events.into_iter().map(|(_, at)| at).collect();
        assert_eq!(revisions, (2..=last).collect::<Vec<_>>(), "watch {id}");
    }
    ours.close().await;
}

#[tokio::test]
async fn switching_authentication_on_is_refused_everywhere_and_changes_nothing_etcd_14571() {
    let ours = Ours::embedded(Limits::default()).await;
    let channel = channel(&ours).await;
    let before = write(&channel, "k", "v").await;
    let hash = || async {
        let mut client = MaintenanceClient::new(channel.clone());
        client.hash_kv(HashKvRequest { revision: 0 }).await.unwrap().into_inner().hash
    };
    let hash_before = hash().await;
    for _ in 0..3 {
        let enabled = AuthClient::new(channel.clone()).auth_enable(AuthEnableRequest {}).await;
        assert!(enabled.is_err(), "users are known by their certificates");
        let disabled = AuthClient::new(channel.clone()).auth_disable(AuthDisableRequest {}).await;
        assert!(disabled.is_err());
    }
    assert_eq!((hash().await, ours.kv.revision().0), (hash_before, before.cast_unsigned()));
    // In etcd a member that took this for granted went its own way from here on.
    assert_eq!(write(&channel, "k", "w").await, before + 1);
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_while_it_is_defragmented_leaves_the_store_at_its_revision_etcd_14685() {
    let (mut disk, views) = (SimDisk::default(), Arc::new(MemoryView::default()));
    let mut acknowledged = 0;
    for round in 0..6 {
        let config = StoreConfig {
            disk: Arc::new(disk.clone()),
            views: views.clone(),
            log_bytes: 16 * 1024,
            ..StoreConfig::new("/nonexistent", RealClock::shared(), SeededRng::shared())
        };
        let store = Store::open(config).await.unwrap();
        assert!(store.revision().0.cast_signed() >= acknowledged, "round {round}");
        let ours = Ours::of(store.clone());
        let channel = channel(&ours).await;
        let read = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        let there = KvClient::new(channel.clone()).range(read).await.unwrap().into_inner();
        assert_eq!(there.kvs.first().map_or(0, |kv| kv.mod_revision), acknowledged, "round {round}");
        let defragmenting = tokio::spawn({
            let channel = channel.clone();
            async move {
                while MaintenanceClient::new(channel.clone()).defragment(DefragmentRequest {}).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            }
        });
        for n in 0..60 {
            acknowledged = write(&channel, "k", format!("{round}/{n}")).await;
        }
        let next = if round % 2 == 0 { disk.kill_process() } else { disk.cut_power(&SeededRng::new(round)) };
        disk = next;
        defragmenting.abort();
        let _ = defragmenting.await;
        ours.close().await;
        let _ = store.close().await; // its disk is gone
    }
    assert_eq!(acknowledged, 6 * 60 + 1);
}
