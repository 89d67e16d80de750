//! The watch cache: every object of every resource as the JSON that is sent, fed by one watch of the store.
//!
//! Reads are lock-free: a resource's objects are a persistent map, replaced as a whole per batch of changes, so
//! whoever holds one has a consistent snapshot. Each change is encoded once, kept for a while for watchers that
//! come back, and handed to the watchers that want it. Nothing here writes.

mod feed;
mod filter;
mod history;
mod resource;
mod watcher;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reeve_store::{Revision, SharedKv};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use feed::{Feed, RANGES};
pub(crate) use filter::{Filter, Lazy};
pub(crate) use resource::{ResourceCache, Snapshot};
pub(crate) use watcher::{Subscription, WatchPlan};

use crate::auth::NodeGraph;
use crate::registry::Resource;
use crate::status::ApiError;

/// How long a read waits for the cache to reach the revision it needs; the limit of the Kubernetes API server.
const FRESHNESS_WAIT_MAX: Duration = Duration::from_secs(3);

/// All resources' caches and how far they are.
pub(crate) struct Cache {
    kv: SharedKv,
    resources: Vec<Arc<ResourceCache>>,
    /// What pods on nodes refer to, as of the cached pods.
    pub(crate) graph: Arc<NodeGraph>,
    progress: watch::Sender<Revision>,
    /// Cancelled when the server stops: ends the feed and all watches.
    pub(crate) stop: CancellationToken,
    /// Cluster IPs and node ports that are taken: the keys behind [`RANGES`].
    allocated: Mutex<HashSet<Bytes>>,
}

impl Cache {
    /// An empty cache; [`Feed::load`] fills it.
    pub(crate) fn new(kv: SharedKv, resources: &[Arc<Resource>]) -> Self {
        let graph = Arc::default();
        let cached = |resource| Arc::new(ResourceCache::new(Arc::clone(resource), &graph));
        Self {
            kv,
            resources: resources.iter().map(cached).collect(),
            graph,
            progress: watch::Sender::new(Revision(0)),
            stop: CancellationToken::new(),
            allocated: Mutex::default(),
        }
    }

    /// The cache of one resource.
    pub(crate) fn of(&self, resource: &Resource) -> &Arc<ResourceCache> {
        &self.resources[resource.index]
    }

    /// Everything up to this revision is in the cache and has been handed to the watchers.
    pub(crate) fn revision(&self) -> Revision {
        *self.progress.borrow()
    }

    /// Told when the cache moves on.
    pub(crate) fn progress(&self) -> watch::Receiver<Revision> {
        self.progress.subscribe()
    }

    fn allocated(&self) -> MutexGuard<'_, HashSet<Bytes>> {
        self.allocated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an entry of a range (`serviceips/10.96.0.1`) is taken.
    pub(crate) fn is_allocated(&self, entry: &str) -> bool {
        self.allocated().contains(entry.as_bytes())
    }

    /// A consistent snapshot of a resource and the revision it stands for.
    pub(crate) fn snapshot(&self, resource: &Resource) -> (Arc<Snapshot>, Revision) {
        // In this order: all changes up to `reached` are in any snapshot taken later, and one that has later
        // changes carries their revision itself.
        let reached = self.revision();
        let snapshot = self.of(resource).snapshot();
        let revision = reached.max(snapshot.revision);
        (snapshot, revision)
    }

    /// Gives back the memory of bursts; called from time to time.
    pub(crate) fn rest(&self) {
        self.resources.iter().for_each(|resource| resource.rest());
    }

    /// Waits until every write acknowledged before the call is in the cache.
    pub(crate) async fn fresh(&self) -> Result<(), ApiError> {
        self.reach(self.kv.revision()).await
    }

    /// Waits until the cache has reached `revision`.
    pub(crate) async fn reach(&self, revision: Revision) -> Result<(), ApiError> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut progress = self.progress.subscribe();
        match tokio::time::timeout(FRESHNESS_WAIT_MAX, progress.wait_for(|reached| *reached >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ApiError::too_large_version(revision.0, self.revision().0)),
        }
    }
}
