//! What keeps the cache true: one read of the whole store, then one watch of all its changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use imbl::OrdMap;
use reeve_store::{
    Event, EventKind, KeyRange, KeyValue, KvError, RangeRequest, Revision, SharedKv, WatchBatch, WatchRequest,
    WatchStream,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;

use super::{Cache, Ingest, ResourceCache, StoreCall};
use crate::registry::{Object, encode};

/// What the keys of all objects begin with.
pub(crate) const ROOT: &[u8] = b"/registry/";

/// What the keys of allocations (cluster IPs, node ports) begin with.
pub(crate) const RANGES: &[u8] = b"/registry/ranges/";

/// How long the feed waits before it asks a store again that does not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The task that follows the store. Ends when the cache is stopped or the store is closed.
pub(crate) struct Feed {
    kv: SharedKv,
    changes: WatchStream,
    orders: mpsc::Receiver<Order>,
}

/// What only the feed can do, between two batches of changes.
pub(crate) enum Order {
    /// Read a storage, or read it anew.
    Open {
        /// What its keys begin with.
        prefix: Bytes,
        /// What its objects pass through.
        ingest: Option<Ingest>,
        /// Told when it is there.
        done: oneshot::Sender<Result<Arc<ResourceCache>, KvError>>,
    },
    /// Forget a storage.
    Close {
        /// What its keys begin with.
        prefix: Bytes,
        /// Told when it is gone.
        done: oneshot::Sender<()>,
    },
}

/// All storages by prefix.
type Storages = HashMap<Bytes, Arc<ResourceCache>>;

/// A key behind its resource's prefix, the revision of the change, and the new state (`None`: deleted).
pub(super) type Update = (Bytes, Revision, Option<Object>);

/// The changes of one batch, by the prefix of their storage.
type Sorted = HashMap<Bytes, Vec<Update>>;

impl Feed {
    /// Fills the cache and begins to watch behind what was read.
    pub(crate) async fn load(cache: &Cache, orders: mpsc::Receiver<Order>) -> Result<Self, KvError> {
        let changes = load(&cache.kv, cache).await?;
        Ok(Self { kv: SharedKv::clone(&cache.kv), changes, orders })
    }

    /// Starts to follow the store, until the cache is stopped.
    pub(crate) fn spawn(self, cache: &Arc<Cache>) {
        let (cache, stop) = (Arc::clone(cache), cache.stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(self.run(&cache)).await });
    }

    async fn run(mut self, cache: &Cache) {
        loop {
            let next = tokio::select! {
                Some(order) = self.orders.recv() => {
                    carry_out(&self.kv, cache, order).await;
                    continue;
                }
                next = self.changes.next() => next,
            };
            match next {
                Some(Ok(batch)) => self.take(cache, batch),
                Some(Err(KvError::Closed)) => return,
                other => {
                    // A stream that just ends is one that was cut off.
                    let error = other.and_then(Result::err).unwrap_or(KvError::SlowWatcher { behind: 0 });
                    warn!(%error, revision = %cache.revision(), "The cache lost the store's changes.");
                    if !self.recover(cache, error).await {
                        return;
                    }
                }
            }
        }
    }

    fn take(&self, cache: &Cache, batch: WatchBatch) {
        let storages = cache.storages.load();
        let mut sorted = Sorted::new();
        for event in batch.events {
            if let Some(entry) = event.kv.key.strip_prefix(RANGES) {
                match event.kind {
                    EventKind::Put => cache.allocated().insert(Bytes::copy_from_slice(entry)),
                    EventKind::Delete => cache.allocated().remove(entry),
                };
            } else if let Some((storage, change)) = place(&storages, &event) {
                sorted.entry(storage.prefix().clone()).or_default().push(change);
            }
        }
        for (prefix, changes) in sorted {
            if let Some(storage) = storages.get(&prefix) {
                storage.apply(changes);
            }
        }
        cache.progress.send_if_modified(|reached| {
            let moved = batch.revision > *reached;
            *reached = batch.revision.max(*reached);
            moved
        });
    }

    /// Follows again from where the cache is; when the store's history does not reach back so far, reads
    /// everything anew. `false` when the store is closed.
    async fn recover(&mut self, cache: &Cache, mut error: KvError) -> bool {
        loop {
            let changes = match error {
                KvError::Closed => return false,
                KvError::Compacted { .. } => load(&self.kv, cache).await,
                _ => follow(&self.kv, cache.revision()).await,
            };
            match changes {
                Ok(changes) => {
                    self.changes = changes;
                    return true;
                }
                Err(next) => error = next,
            }
            warn!(%error, "The store cannot be followed; trying again.");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

async fn carry_out(kv: &SharedKv, cache: &Cache, order: Order) {
    match order {
        Order::Open { prefix, ingest, done } => {
            // Whoever asked may be gone: the storage is there all the same.
            let _ = done.send(open(kv, cache, &prefix, ingest).await);
        }
        Order::Close { prefix, done } => {
            cache.remove(&prefix);
            let _ = done.send(());
        }
    }
}

/// What is read may be newer than what the feed has seen: the storage passes over changes up to there.
async fn open(
    kv: &SharedKv,
    cache: &Cache,
    prefix: &Bytes,
    ingest: Option<Ingest>,
) -> Result<Arc<ResourceCache>, KvError> {
    let began = Instant::now();
    let found = kv.range(RangeRequest::prefix(prefix.clone())).await?;
    let storage = cache.storage_at_start(prefix);
    storage.figures.calls.answered(StoreCall::List, began.elapsed(), false);
    storage.set_ingest(ingest);
    let place = |kv: KeyValue| {
        let object = storage.ingested(encode::sent(&kv.value, kv.mod_revision));
        (kv.key.slice(prefix.len()..), object)
    };
    let objects: OrdMap<_, _> = found.kvs.into_iter().map(place).collect();
    storage.reset(objects, found.revision.max(cache.revision()));
    Ok(storage)
}

/// Every change after `revision`.
async fn follow(kv: &SharedKv, revision: Revision) -> Result<WatchStream, KvError> {
    let start = Some(Revision(revision.0 + 1));
    kv.watch(WatchRequest { range: KeyRange::Prefix(Bytes::new()), start, previous: false }).await
}

async fn load(kv: &SharedKv, cache: &Cache) -> Result<WatchStream, KvError> {
    let all = kv.range(RangeRequest::prefix(ROOT)).await?;
    let changes = follow(kv, all.revision).await?;
    let storages = cache.storages.load();
    let mut maps: HashMap<&Bytes, OrdMap<Bytes, Object>> =
        storages.keys().map(|prefix| (prefix, OrdMap::new())).collect();
    let mut allocated = HashSet::new();
    for kv in all.kvs {
        if let Some(entry) = kv.key.strip_prefix(RANGES) {
            allocated.insert(Bytes::copy_from_slice(entry));
        }
        let Some((storage, key)) = split_key(&storages, &kv.key) else { continue };
        if let Some(map) = maps.get_mut(storage.prefix()) {
            map.insert(key, storage.ingested(encode::sent(&kv.value, kv.mod_revision)));
        }
    }
    for (prefix, objects) in maps {
        if let Some(storage) = storages.get(prefix) {
            storage.reset(objects, all.revision);
        }
    }
    *cache.allocated() = allocated;
    cache.progress.send_replace(all.revision);
    Ok(changes)
}

/// A change and where it belongs.
fn place<'s>(storages: &'s Storages, event: &Event) -> Option<(&'s ResourceCache, Update)> {
    let (storage, key) = split_key(storages, &event.kv.key)?;
    let object = match event.kind {
        EventKind::Put => Some(storage.ingested(encode::sent(&event.kv.value, event.kv.mod_revision))),
        EventKind::Delete => None,
    };
    Some((storage, (key, event.kv.mod_revision, object)))
}

/// The storage of a key and the key behind its prefix; keys of resources that are not served are passed over.
fn split_key<'s>(storages: &'s Storages, key: &Bytes) -> Option<(&'s ResourceCache, Bytes)> {
    let rest = key.strip_prefix(ROOT)?;
    let mut slashes = rest.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let end = ROOT.len() + slashes.nth(1)? + 1;
    let storage = storages.get(&key[..end])?;
    Some((storage, key.slice(end..)))
}
