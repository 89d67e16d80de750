//! What keeps the cache true: one read of the whole store, then one watch of all its changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use imbl::OrdMap;
use reeve_store::{
    Event, EventKind, KeyRange, KvError, RangeRequest, Revision, SharedKv, WatchBatch, WatchRequest, WatchStream,
};
use tracing::warn;

use super::Cache;
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
    /// Index of the resource by `GROUP/PLURAL`.
    by_prefix: HashMap<Bytes, usize>,
    changes: WatchStream,
}

/// A key behind its resource's prefix, the revision of the change, and the new state (`None`: deleted).
pub(super) type Update = (Bytes, Revision, Option<Object>);

/// The changes of one batch, by resource.
type Sorted = HashMap<usize, Vec<Update>>;

impl Feed {
    /// Fills the cache and begins to watch behind what was read.
    pub(crate) async fn load(cache: &Cache) -> Result<Self, KvError> {
        let by_prefix = cache
            .resources
            .iter()
            .enumerate()
            .map(|(index, own)| (own.resource.prefix().slice(ROOT.len()..), index))
            .collect();
        let changes = load(&cache.kv, cache, &by_prefix).await?;
        Ok(Self { kv: SharedKv::clone(&cache.kv), by_prefix, changes })
    }

    /// Starts to follow the store, until the cache is stopped.
    pub(crate) fn spawn(self, cache: &Arc<Cache>) {
        let (cache, stop) = (Arc::clone(cache), cache.stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(self.run(&cache)).await });
    }

    async fn run(mut self, cache: &Cache) {
        loop {
            match self.changes.next().await {
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
        let mut sorted = Sorted::new();
        for event in batch.events {
            if let Some(entry) = event.kv.key.strip_prefix(RANGES) {
                match event.kind {
                    EventKind::Put => cache.allocated().insert(Bytes::copy_from_slice(entry)),
                    EventKind::Delete => cache.allocated().remove(entry),
                };
            } else if let Some((index, change)) = self.place(&event) {
                sorted.entry(index).or_default().push(change);
            }
        }
        for (index, changes) in sorted {
            if let Some(resource) = cache.resources.get(index) {
                resource.apply(changes);
            }
        }
        cache.progress.send_if_modified(|reached| {
            let moved = batch.revision > *reached;
            *reached = batch.revision.max(*reached);
            moved
        });
    }

    fn place(&self, event: &Event) -> Option<(usize, Update)> {
        let (index, key) = split_key(&self.by_prefix, &event.kv.key)?;
        let object = match event.kind {
            EventKind::Put => Some(encode::sent(&event.kv.value, event.kv.mod_revision)),
            EventKind::Delete => None,
        };
        Some((index, (key, event.kv.mod_revision, object)))
    }

    /// Follows again from where the cache is; when the store's history does not reach back so far, reads
    /// everything anew. `false` when the store is closed.
    async fn recover(&mut self, cache: &Cache, mut error: KvError) -> bool {
        loop {
            let changes = match error {
                KvError::Closed => return false,
                KvError::Compacted { .. } => load(&self.kv, cache, &self.by_prefix).await,
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

/// Every change after `revision`.
async fn follow(kv: &SharedKv, revision: Revision) -> Result<WatchStream, KvError> {
    let start = Some(Revision(revision.0 + 1));
    kv.watch(WatchRequest { range: KeyRange::Prefix(Bytes::new()), start, previous: false }).await
}

async fn load(kv: &SharedKv, cache: &Cache, by_prefix: &HashMap<Bytes, usize>) -> Result<WatchStream, KvError> {
    let all = kv.range(RangeRequest::prefix(ROOT)).await?;
    let changes = follow(kv, all.revision).await?;
    let mut maps = vec![OrdMap::new(); cache.resources.len()];
    let mut allocated = HashSet::new();
    for kv in all.kvs {
        if let Some(entry) = kv.key.strip_prefix(RANGES) {
            allocated.insert(Bytes::copy_from_slice(entry));
        }
        let Some((index, key)) = split_key(by_prefix, &kv.key) else { continue };
        if let Some(map) = maps.get_mut(index) {
            map.insert(key, encode::sent(&kv.value, kv.mod_revision));
        }
    }
    for (resource, objects) in cache.resources.iter().zip(maps) {
        resource.reset(objects, all.revision);
    }
    *cache.allocated() = allocated;
    cache.progress.send_replace(all.revision);
    Ok(changes)
}

/// The resource's index and the key behind its prefix; keys of resources that are not served are passed over.
fn split_key(by_prefix: &HashMap<Bytes, usize>, key: &Bytes) -> Option<(usize, Bytes)> {
    let rest = key.strip_prefix(ROOT)?;
    let mut slashes = rest.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let end = slashes.nth(1)? + 1;
    let index = by_prefix.get(&rest[..end])?;
    // Copied: a slice would keep the whole write of the store in memory.
    Some((*index, Bytes::copy_from_slice(&rest[end..])))
}
