//! The watch cache: every object of every resource as the JSON that is sent, fed by one watch of the store.
//!
//! Reads are lock-free: a resource's objects are a persistent map, replaced as a whole per batch of changes, so
//! whoever holds one has a consistent snapshot. Each change is encoded once, kept for a while for watchers that
//! come back, and handed to the watchers that want it. Nothing here writes.

mod feed;
mod figures;
mod filter;
mod history;
mod resource;
mod watcher;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use imbl::OrdMap;
use reeve_store::{KvError, Revision, SharedKv};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use feed::{Feed, Order, RANGES};
pub(crate) use figures::{CacheFigures, StoreCall, StoreCalls};
pub(crate) use filter::{Filter, Lazy};
pub(crate) use resource::{Ingest, ResourceCache, Snapshot};
pub(crate) use watcher::{Delivery, Subscription, WatchPlan};

use crate::auth::{NodeGraph, Rbac};
use crate::registry::Object;
use crate::status::ApiError;

/// How long a read waits for the cache to reach the revision it needs; the limit of the Kubernetes API server.
const FRESHNESS_WAIT_MAX: Duration = Duration::from_secs(3);

/// All resources' caches and how far they are.
pub(crate) struct Cache {
    kv: SharedKv,
    /// By prefix. Changed by the feed's task and at the start only.
    storages: ArcSwap<HashMap<Bytes, Arc<ResourceCache>>>,
    /// Requests to the feed, which alone can add a storage without missing a change.
    orders: mpsc::Sender<Order>,
    /// What pods on nodes refer to, as of the cached pods.
    pub(crate) graph: Arc<NodeGraph>,
    /// What the cached roles and bindings allow.
    pub(crate) rbac: Arc<Rbac>,
    progress: watch::Sender<Revision>,
    /// Cancelled when the server stops: ends the feed and all watches.
    pub(crate) stop: CancellationToken,
    /// Cluster IPs and node ports that are taken: the keys behind [`RANGES`].
    allocated: Mutex<HashSet<Bytes>>,
}

/// What is kept true with the objects of one storage. Called by the feed alone, in the order of changes, before a
/// watcher hears of a change; must return at once.
pub(crate) trait Follower: Send + Sync {
    /// Takes in the new state of one object; `None`: it is gone.
    fn put(&self, key: &Bytes, now: Option<&Object>);

    /// Forgets everything and takes in these objects.
    fn reset(&self, objects: &OrdMap<Bytes, Object>);
}

impl Cache {
    /// An empty cache; [`Feed::load`] fills it.
    pub(crate) fn new(kv: SharedKv) -> (Self, mpsc::Receiver<Order>) {
        // Whoever changes what is served waits for each order to be done: a few at once.
        let (orders, inbox) = mpsc::channel(16);
        let cache = Self {
            kv,
            storages: ArcSwap::default(),
            orders,
            graph: Arc::default(),
            rbac: Arc::default(),
            progress: watch::Sender::new(Revision(0)),
            stop: CancellationToken::new(),
            allocated: Mutex::default(),
        };
        (cache, inbox)
    }

    /// The storage of that prefix; before [`Feed::load`] it is made empty.
    pub(crate) fn storage_at_start(&self, prefix: &Bytes) -> Arc<ResourceCache> {
        if let Some(known) = self.storages.load().get(prefix) {
            return Arc::clone(known);
        }
        let follower = NodeGraph::follower(&self.graph, prefix).or_else(|| self.rbac.follower(prefix));
        let made = Arc::new(ResourceCache::new(prefix.clone(), follower));
        self.insert(&made);
        made
    }

    /// The storage of that prefix with all its objects, each passed through `ingest`. Read anew when it is there
    /// already: its watchers end and begin again.
    pub(crate) async fn open_storage(
        &self,
        prefix: &Bytes,
        ingest: Option<Ingest>,
    ) -> Result<Arc<ResourceCache>, ApiError> {
        let (done, answer) = oneshot::channel();
        let order = Order::Open { prefix: prefix.clone(), ingest, done };
        self.orders.send(order).await.map_err(|_| ApiError::store(&KvError::Closed))?;
        let opened = answer.await.map_err(|_| ApiError::store(&KvError::Closed))?;
        opened.map_err(|error| ApiError::store(&error))
    }

    /// Forgets a storage; its watches end.
    pub(crate) async fn close_storage(&self, prefix: &Bytes) -> Result<(), ApiError> {
        let (done, answer) = oneshot::channel();
        let order = Order::Close { prefix: prefix.clone(), done };
        self.orders.send(order).await.map_err(|_| ApiError::store(&KvError::Closed))?;
        answer.await.map_err(|_| ApiError::store(&KvError::Closed))
    }

    fn insert(&self, storage: &Arc<ResourceCache>) {
        self.storages.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(storage.prefix().clone(), Arc::clone(storage));
            all
        });
    }

    fn remove(&self, prefix: &Bytes) {
        if let Some(storage) = self.storages.load().get(prefix) {
            storage.close();
        }
        self.storages.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.remove(prefix);
            all
        });
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

    /// How many entries of a range (`serviceips/`) are taken.
    pub(crate) fn allocated_count(&self, range: &str) -> usize {
        self.allocated().iter().filter(|entry| entry.starts_with(range.as_bytes())).count()
    }

    /// A consistent snapshot of a resource and the revision it stands for.
    pub(crate) fn snapshot(&self, storage: &ResourceCache) -> (Arc<Snapshot>, Revision) {
        // In this order: all changes up to `reached` are in any snapshot taken later, and one that has later
        // changes carries their revision itself.
        let reached = self.revision();
        let snapshot = storage.snapshot();
        let revision = reached.max(snapshot.revision);
        (snapshot, revision)
    }

    /// Gives back the memory of bursts; called from time to time.
    pub(crate) fn rest(&self) {
        self.storages.load().values().for_each(|storage| storage.rest());
    }

    /// Waits until every write acknowledged before the call, by any server, is in the cache.
    pub(crate) async fn fresh(&self) -> Result<(), ApiError> {
        let newest = self.kv.newest().await.map_err(|error| ApiError::store(&error))?;
        self.reach(newest).await
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
