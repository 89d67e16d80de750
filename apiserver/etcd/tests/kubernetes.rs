//! What a kube-apiserver (1.36) asks of its etcd, in the shapes in which it asks: on ours and on a real etcd.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

mod support;

use std::time::Duration;

use reeve_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use reeve_proto::etcd::etcdserverpb::kv_client::KvClient;
use reeve_proto::etcd::etcdserverpb::lease_client::LeaseClient;
use reeve_proto::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use reeve_proto::etcd::etcdserverpb::request_op::Request as Step;
use reeve_proto::etcd::etcdserverpb::response_op::Response as Answered;
use reeve_proto::etcd::etcdserverpb::watch_client::WatchClient;
use reeve_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use reeve_proto::etcd::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse,
    RequestOp, StatusRequest, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use reeve_proto::etcd::mvccpb::KeyValue;
use reeve_proto::etcd::mvccpb::event::EventType;
use reeve_store::Limits;
use support::{Ours, RealEtcd, channel};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

const PODS: &str = "/registry/pods/";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn pod(name: &str) -> String {
    format!("{PODS}default/{name}")
}

/// A server, as kube-apiserver's storage sees it.
struct Storage(Channel);

impl Storage {
    /// Does a step if the key was last changed at a revision (0: does not exist), else reads what is there.
    async fn optimistic(&self, key: &str, revision: i64, step: Step) -> TxnResponse {
        let unchanged = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: key.to_owned().into(),
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Compare::default()
        };
        let read = Step::RequestRange(RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() });
        let op = |step| RequestOp { request: Some(step) };
        let txn = TxnRequest { compare: vec![unchanged], success: vec![op(step)], failure: vec![op(read)] };
        KvClient::new(self.0.clone()).txn(txn).await.unwrap().into_inner()
    }

    async fn put(&self, key: &str, revision: i64, lease: i64) -> TxnResponse {
        let put = PutRequest { key: key.to_owned().into(), value: "k8s\0".into(), lease, ..PutRequest::default() };
        self.optimistic(key, revision, Step::RequestPut(put)).await
    }

    async fn delete(&self, key: &str, revision: i64) -> TxnResponse {
        let delete = DeleteRangeRequest { key: key.to_owned().into(), ..DeleteRangeRequest::default() };
        self.optimistic(key, revision, Step::RequestDeleteRange(delete)).await
    }

    /// A page of a list, from a key on; a revision of 0 is the newest.
    async fn page(&self, from: &str, limit: i64, revision: i64) -> Result<RangeResponse, Status> {
        let (key, range_end) = (from.to_owned().into(), "/registry/pods0".into());
        let range = RangeRequest { key, range_end, limit, revision, ..RangeRequest::default() };
        Ok(KvClient::new(self.0.clone()).range(range).await?.into_inner())
    }

    /// A watch of all pods; it lasts as long as what comes second.
    async fn watch(&self, start_revision: i64) -> (Streaming<WatchResponse>, mpsc::Sender<WatchRequest>) {
        let create = WatchCreateRequest {
            key: PODS.into(),
            range_end: "/registry/pods0".into(),
            start_revision,
            prev_kv: true,
            progress_notify: true,
            fragment: true,
            ..WatchCreateRequest::default()
        };
        let (requests, receiver) = mpsc::channel(1);
        requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await.unwrap();
        let mut call = Request::new(ReceiverStream::new(receiver));
        call.metadata_mut().insert("hasleader", "true".parse().unwrap());
        let watch = WatchClient::new(self.0.clone()).watch(call).await.unwrap().into_inner();
        (watch, requests)
    }
}

fn revision(response: &TxnResponse) -> i64 {
    response.header.as_ref().unwrap().revision
}

/// What the other branch has read.
fn read(response: &TxnResponse) -> Vec<KeyValue> {
    assert!(!response.succeeded);
    match response.responses[0].response.clone() {
        Some(Answered::ResponseRange(range)) => range.kvs,
        other => panic!("{other:?}"),
    }
}

async fn next(watch: &mut Streaming<WatchResponse>) -> WatchResponse {
    tokio::time::timeout(PATIENCE, watch.message()).await.expect("the watch says nothing").unwrap().unwrap()
}

async fn writes_and_watches(storage: &Storage) {
    let created = storage.put(&pod("a"), 0, 0).await;
    assert!(created.succeeded);
    let first = revision(&created);
    let there = read(&storage.put(&pod("a"), 0, 0).await);
    assert_eq!((there[0].mod_revision, there[0].version), (first, 1));
    let updated = storage.put(&pod("a"), first, 0).await;
    assert!(updated.succeeded && revision(&updated) == first + 1);
    assert_eq!(read(&storage.delete(&pod("a"), first).await)[0].mod_revision, first + 1);
    assert_eq!(read(&storage.put(&pod("none"), 7, 0).await), []);
    assert!(storage.delete(&pod("a"), first + 1).await.succeeded);

    let (mut watch, _requests) = storage.watch(first).await;
    let created = next(&mut watch).await;
    assert!(created.created && !created.canceled && created.events.is_empty());
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(next(&mut watch).await.events);
    }
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let (kv, previous) = (event.kv.as_ref().unwrap(), event.prev_kv.as_ref());
            (event.r#type(), kv.mod_revision, kv.create_revision, previous.map(|kv| kv.mod_revision))
        })
        .collect();
    let (put, delete) = (EventType::Put, EventType::Delete);
    let wanted =
        [(put, first, first, None), (put, first + 1, first, Some(first)), (delete, first + 2, 0, Some(first + 1))];
    assert_eq!(told, wanted);
}

async fn lists_in_pages(storage: &Storage) -> i64 {
    let mut last = 0;
    for name in ["l1", "l2", "l3", "l4", "l5"] {
        last = revision(&storage.put(&pod(name), 0, 0).await);
    }
    let page = storage.page(PODS, 2, 0).await.unwrap();
    assert_eq!((page.kvs.len(), page.more, page.count), (2, true, 5));
    assert_eq!(page.header.as_ref().unwrap().revision, last);
    storage.put(&pod("l9"), 0, 0).await;
    let from = format!("{}\0", pod("l2"));
    let page = storage.page(&from, 2, last).await.unwrap();
    assert_eq!((page.kvs[0].key.to_vec(), page.more, page.count), (pod("l3").into_bytes(), true, 3));
    assert_eq!(page.header.as_ref().unwrap().revision, last + 1);
    last
}

/// As kube-apiserver's compactor does, of which one of several goes through; then the past is gone.
async fn compacts(storage: &Storage, old: i64) {
    let mine = |version: i64| {
        let key = "compact_rev_key";
        let compare = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: key.into(),
            target_union: Some(TargetUnion::Version(version)),
            ..Compare::default()
        };
        let op = |step| RequestOp { request: Some(step) };
        let put = PutRequest { key: key.into(), value: old.to_string().into(), ..PutRequest::default() };
        let get = RangeRequest { key: key.into(), ..RangeRequest::default() };
        TxnRequest {
            compare: vec![compare],
            success: vec![op(Step::RequestPut(put))],
            failure: vec![op(Step::RequestRange(get))],
        }
    };
    let mut kv = KvClient::new(storage.0.clone());
    assert!(kv.txn(mine(0)).await.unwrap().into_inner().succeeded);
    assert_eq!(read(&kv.txn(mine(0)).await.unwrap().into_inner())[0].version, 1);
    let compaction = CompactionRequest { revision: old + 1, physical: false };
    kv.compact(compaction).await.unwrap();
    let (compacted, again) = ("etcdserver: mvcc: required revision has been compacted", kv.compact(compaction).await);
    for refused in [again.unwrap_err(), storage.page(&pod("l3"), 2, old).await.unwrap_err()] {
        assert_eq!((refused.code(), refused.message()), (Code::OutOfRange, compacted));
    }
    let (mut watch, _requests) = storage.watch(old).await;
    assert!(next(&mut watch).await.created);
    let ended = next(&mut watch).await;
    assert_eq!((ended.canceled, ended.compact_revision), (true, old + 1));
}

/// Events have a time to live: they hang on leases that many of them share.
async fn forgets_events(storage: &Storage) {
    let grant = LeaseGrantRequest { ttl: 1, id: 0 };
    let lease = LeaseClient::new(storage.0.clone()).lease_grant(grant).await.unwrap().into_inner().id;
    let made = [storage.put(&pod("event1"), 0, lease).await, storage.put(&pod("event2"), 0, lease).await];
    let (mut watch, _requests) = storage.watch(revision(&made[1]) + 1).await;
    assert!(next(&mut watch).await.created);
    let mut gone = Vec::new();
    while gone.len() < 2 {
        gone.extend(next(&mut watch).await.events);
    }
    gone.sort_by_key(|event| event.kv.as_ref().unwrap().key.clone());
    let last_states: Vec<_> = gone.iter().map(|event| event.prev_kv.as_ref().unwrap().mod_revision).collect();
    assert_eq!(last_states, made.each_ref().map(revision));
    assert!(gone.iter().all(|event| event.r#type() == EventType::Delete));
}

async fn everything(channel: Channel) {
    let storage = Storage(channel);
    let status = MaintenanceClient::new(storage.0.clone()).status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.version.starts_with("3.") && status.db_size > 0, "{status:?}"); // what its metrics say
    writes_and_watches(&storage).await;
    let old = lists_in_pages(&storage).await;
    compacts(&storage, old).await;
    forgets_events(&storage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_answers_a_kube_apiserver_as_it_expects() {
    let ours = Ours::embedded(Limits::default()).await;
    everything(channel(&ours.url, Some(&ours)).await).await;
    ours.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_answers_a_kube_apiserver_as_it_expects() {
    let Some(etcd) = RealEtcd::start().await else { return };
    everything(channel(&etcd.url, None).await).await;
}
