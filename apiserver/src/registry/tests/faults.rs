//! What happens when the store cuts off the cache's watch.

use std::future::Future as _;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};

use futures::stream::{self, StreamExt as _};
use reeve_store::{
    Kv, KvError, LeaseGrant, LeaseId, LeaseStatus, RangeRequest, RangeResponse, Revision, Txn, TxnResponse,
    WatchRequest, WatchStream,
};
use tokio::sync::oneshot;

use super::*;

/// A real store whose watches can be cut off, as a slow watcher is.
struct Cuttable {
    inner: MemoryKv,
    cuts: Mutex<Vec<oneshot::Sender<KvError>>>,
}

impl Cuttable {
    fn cut(&self, error: &KvError) {
        let cuts: Vec<_> = self.cuts.lock().unwrap().drain(..).collect();
        for cut in cuts {
            cut.send(error.clone()).expect("nobody follows the store");
        }
    }
}

#[async_trait::async_trait]
impl Kv for Cuttable {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.inner.range(request).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        self.inner.txn(txn).await
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, KvError> {
        let (sender, receiver) = oneshot::channel::<KvError>();
        self.cuts.lock().unwrap().push(sender);
        let mut live = self.inner.watch(request).await?;
        let mut receiver = Some(receiver);
        let next = move |context: &mut Context<'_>| {
            let Some(cut) = &mut receiver else { return Poll::Ready(None) };
            match Pin::new(cut).poll(context) {
                Poll::Ready(error) => {
                    receiver = None;
                    Poll::Ready(error.ok().map(Err))
                }
                Poll::Pending => live.poll_next_unpin(context),
            }
        };
        Ok(stream::poll_fn(next).boxed())
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.inner.compact(revision).await
    }

    async fn scrubbed(&self, revision: Revision) -> Result<(), KvError> {
        self.inner.scrubbed(revision).await
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<LeaseGrant, KvError> {
        self.inner.lease_grant(id, ttl).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, KvError> {
        self.inner.lease_revoke(id).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>, KvError> {
        self.inner.lease_keep_alive(id).await
    }

    async fn lease_status(&self, id: LeaseId, keys: bool) -> Result<Option<LeaseStatus>, KvError> {
        self.inner.lease_status(id, keys).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError> {
        self.inner.leases().await
    }

    fn revision(&self) -> Revision {
        self.inner.revision()
    }
}

async fn cut_off(error: KvError) -> (World, Events, u64) {
    let kv = Arc::new(Cuttable { inner: MemoryKv::new(), cuts: Mutex::default() });
    let world = World::on(kv.clone()).await;
    world.config_map("a", json!({})).await;
    world.registry.fresh().await.unwrap();
    let start = revision(&world);
    let events = world.watch("configmaps", |options| options.resource_version = start.to_string()).await;
    kv.cut(&error);
    world.config_map("b", json!({})).await;
    assert_eq!(world.get("configmaps/b").await.unwrap()["metadata"]["name"], "b");
    (world, events, start)
}

#[tokio::test]
async fn a_cache_that_was_too_slow_goes_on_where_it_was_and_its_watchers_do_not_notice() {
    let (world, mut events, _) = cut_off(KvError::SlowWatcher { behind: 1000 }).await;
    world.config_map("c", json!({})).await;
    assert_eq!(events.take(2).await, ["ADDED b", "ADDED c"]);
}

#[tokio::test]
async fn a_cache_whose_history_is_gone_reads_everything_again_and_its_watchers_are_told_to_list() {
    let compacted = KvError::Compacted { requested: Revision(1), compacted: Revision(2) };
    let (world, mut events, start) = cut_off(compacted).await;
    assert_eq!(events.next().await, "end");
    let mut from_old = world.watch("configmaps", |options| options.resource_version = start.to_string()).await;
    assert!(from_old.next().await.starts_with("410 too old resource version"));
    world.config_map("c", json!({})).await;
    assert_eq!(world.registry.list(&world.request("configmaps")).await.unwrap().items.len(), 3);
}
