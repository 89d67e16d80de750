//! Our API server's store on a real etcd of three members, over TLS: who is let in, and what a member costs that is
//! killed or hangs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use reeve_etcd::{EtcdConfig, EtcdKv, EtcdTls};
use reeve_proto::etcd::etcdserverpb::watch_client::WatchClient;
use reeve_proto::etcd::etcdserverpb::watch_request::RequestUnion;
use reeve_proto::etcd::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use reeve_store::{Kv, KvError, Leadership, MemoryKv, Op, RangeRequest, Revision, Role, Txn, WatchRequest as Watched};
use support::{EtcdCluster, Ours, channel};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn put(kv: &EtcdKv, key: &str) -> Result<Revision, KvError> {
    let op = Op::Put { key: key.to_owned().into(), value: "x".into() };
    kv.txn(Txn { then: vec![op], ..Txn::default() }).await.map(|done| done.revision)
}

/// Writes until it is acknowledged.
async fn put_at_last(kv: &EtcdKv, key: &str) {
    let written = async {
        while let Err(err) = put(kv, key).await {
            assert!(matches!(err, KvError::Unavailable { .. }), "{err}");
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("no member takes a write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_wants_certificates_is_used_by_who_has_one_and_a_killed_member_costs_no_write_and_no_event() {
    let Some(mut cluster) = EtcdCluster::start().await else { return };
    let nobody = EtcdTls { client: None, ..cluster.certificates.tls() };
    let refused = EtcdKv::connect(EtcdConfig { tls: Some(nobody), ..cluster.config() }).await;
    assert!(refused.unwrap_err().to_string().contains("etcd does not answer"));

    let kv = EtcdKv::connect(EtcdConfig { prefix: "/reeve".to_owned(), ..cluster.config() }).await.unwrap();
    let watched = Watched { range: RangeRequest::prefix("k").range, start: None, previous: false };
    let mut events = kv.watch(watched.clone()).await.unwrap();
    for n in 0..10 {
        put(&kv, &format!("k{n:02}")).await.unwrap();
    }
    cluster.signal(0, "KILL"); // the one that is asked: it is the first
    for n in 10..20 {
        put_at_last(&kv, &format!("k{n:02}")).await;
    }
    let mut seen: Vec<String> = Vec::new();
    let mut revision = Revision(0);
    while seen.last().is_none_or(|last| last != "k19") {
        let batch = tokio::time::timeout(PATIENCE, events.next()).await.expect("the watch says nothing any more");
        let batch = batch.unwrap().unwrap();
        assert!(batch.revision > revision, "{revision:?} {batch:?}");
        revision = batch.revision;
        seen.extend(batch.events.iter().map(|event| String::from_utf8(event.kv.key.to_vec()).unwrap()));
    }
    // A write whose answer was lost may have been made twice, which is two revisions, each told once.
    seen.dedup();
    assert_eq!(seen, (0..20).map(|n| format!("k{n:02}")).collect::<Vec<_>>());

    kv.compact(revision).await.unwrap();
    let mut old = kv.watch(Watched { start: Some(Revision(2)), ..watched }).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, old.next()).await.unwrap().unwrap();
    assert!(matches!(told, Err(KvError::Compacted { compacted, .. }) if compacted == revision), "{told:?}");
    let read = kv.range(RangeRequest { revision: Some(Revision(2)), ..RangeRequest::key("k00") }).await;
    assert!(matches!(read, Err(KvError::Compacted { .. })), "{read:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_left_for_another_one() {
    let Some(mut cluster) = EtcdCluster::start().await else { return };
    let config = EtcdConfig { request_timeout: Duration::from_millis(700), ..cluster.config() };
    let kv = EtcdKv::connect(config).await.unwrap();
    put(&kv, "a").await.unwrap();
    cluster.signal(0, "STOP");
    put_at_last(&kv, "b").await;
    let count = kv.range(RangeRequest::prefix("")).await.unwrap().count;
    cluster.signal(0, "CONT");
    assert_eq!(count, 2);
}

/// As kube-apiserver does it; the stream lives as long as what comes second.
async fn led_watch(ours: &Ours) -> Result<(Streaming<WatchResponse>, mpsc::Sender<WatchRequest>), Status> {
    let create = WatchCreateRequest { key: "a".into(), ..WatchCreateRequest::default() };
    let (requests, receiver) = mpsc::channel(1);
    requests.send(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }).await.unwrap();
    let mut call = Request::new(ReceiverStream::new(receiver));
    call.metadata_mut().insert("hasleader", "true".parse().unwrap());
    Ok((WatchClient::new(channel(&ours.url, Some(ours)).await).watch(call).await?.into_inner(), requests))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_wants_a_leader_ends_where_there_has_been_none_for_a_while() {
    let led = |leader| Leadership { role: Role::Follower, leader, term: 2 };
    let leadership = Arc::new(watch::Sender::new(led(None)));
    let ours = Ours::led(Arc::new(MemoryKv::new()), leadership.clone());
    let refused = led_watch(&ours).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));

    leadership.send_replace(led(Some(1)));
    let (mut answers, _requests) = led_watch(&ours).await.unwrap();
    answers.message().await.unwrap().unwrap();
    for leader in [None, Some(2)] {
        leadership.send_replace(led(leader)); // an election ends nothing
        assert!(tokio::time::timeout(Duration::from_millis(200), answers.message()).await.is_err());
    }
    leadership.send_replace(led(None));
    let ended = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "etcdserver: no leader"));
    ours.close().await;
}
