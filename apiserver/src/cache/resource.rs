//! The cache of one resource: the snapshot that readers take, the history and the watchers.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use imbl::OrdMap;
use reeve_store::Revision;
use tokio::sync::mpsc;

use super::Follower;
use super::feed::Update;
use super::figures::CacheFigures;
use super::filter::{Filter, Lazy};
use super::history::{AT_REST, Change, History};
use super::watcher::{Delivery, QUEUE_LEN_MAX};
use crate::registry::{EventType, Object, WatchEvent};

/// All objects of a resource at one moment. Immutable.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    /// The revision of the last change in it.
    pub(crate) revision: Revision,
    /// By key behind the resource's prefix: `NAMESPACE/NAME` or `NAME`.
    pub(crate) objects: OrdMap<Bytes, Object>,
    /// What all of them come to.
    pub(crate) bytes: u64,
}

impl Snapshot {
    /// The objects whose keys begin with `scope`, in order, from `start` on.
    pub(crate) fn scan(&self, scope: &str, start: &[u8]) -> impl Iterator<Item = (&Bytes, &Object)> {
        let from = Bytes::copy_from_slice(if start > scope.as_bytes() { start } else { scope.as_bytes() });
        let scope = scope.as_bytes().to_vec();
        self.objects.range(from..).take_while(move |(key, _)| key.starts_with(&scope))
    }
}

struct Watcher {
    filter: Arc<Filter>,
    queue: mpsc::Sender<Delivery>,
}

/// What only the feed and new watchers touch; held for microseconds.
#[derive(Default)]
struct Behind {
    history: History,
    watchers: Vec<Watcher>,
    /// Up to here everything is in what [`ResourceCache::reset`] was given.
    base: Revision,
}

/// What is done to each object as it enters a cache; pure.
pub(crate) type Ingest = Arc<dyn Fn(Object) -> Object + Send + Sync>;

/// The cache of one stored resource: all versions of a kind that are served share it.
pub(crate) struct ResourceCache {
    /// What the keys of its objects begin with, `/registry/core/pods/`.
    prefix: Bytes,
    /// What is kept true with the objects, before a watcher hears of a change.
    follower: Option<Arc<dyn Follower>>,
    /// Set for stored objects that lack what today's schema gives them (custom resources with defaults).
    ingest: ArcSwapOption<Ingest>,
    snapshot: ArcSwap<Snapshot>,
    behind: Mutex<Behind>,
    pub(crate) figures: CacheFigures,
}

/// Where a new watcher starts: what it is to be sent first, and the queue of everything after that.
pub(crate) struct Start {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) missed: Vec<Arc<Change>>,
    pub(crate) queue: mpsc::Receiver<Delivery>,
}

impl ResourceCache {
    /// An empty one; `follower` is kept true with its objects.
    pub(crate) fn new(prefix: Bytes, follower: Option<Arc<dyn Follower>>) -> Self {
        let ingest = ArcSwapOption::empty();
        let (snapshot, figures) = (ArcSwap::default(), CacheFigures::default());
        Self { prefix, follower, ingest, snapshot, behind: Mutex::default(), figures }
    }

    /// What the keys of its objects begin with.
    pub(crate) fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// From the next [`ResourceCache::reset`] on, objects pass through this as they enter.
    pub(super) fn set_ingest(&self, ingest: Option<Ingest>) {
        self.ingest.store(ingest.map(Arc::new));
    }

    /// An object of the store as it is kept here.
    pub(crate) fn ingested(&self, object: Object) -> Object {
        match &*self.ingest.load() {
            Some(ingest) => ingest(object),
            None => object,
        }
    }

    /// Ends all watches.
    pub(super) fn close(&self) {
        self.behind().watchers.clear();
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The newest state of one object.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Object> {
        self.snapshot.load().objects.get(key).cloned()
    }

    fn behind(&self) -> std::sync::MutexGuard<'_, Behind> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces everything (at start, and after the feed was cut off). Watchers end: they must list again.
    pub(crate) fn reset(&self, objects: OrdMap<Bytes, Object>, revision: Revision) {
        let mut behind = self.behind();
        behind.watchers.clear();
        behind.base = revision;
        behind.history.restart(revision);
        if let Some(follower) = &self.follower {
            follower.reset(&objects);
        }
        let bytes = objects.values().map(|object| object.len() as u64).sum();
        self.snapshot.store(Arc::new(Snapshot { revision, objects, bytes }));
        self.figures.initializations.add(1);
    }

    /// Takes in the changes of one batch of the store, in order, and hands them to the watchers.
    pub(crate) fn apply(&self, changes: Vec<Update>) {
        self.figures.received.add(changes.len() as u64);
        let mut behind = self.behind();
        let mut next = Snapshot::clone(&self.snapshot.load());
        let mut applied = Vec::with_capacity(changes.len());
        let base = behind.base;
        for (key, revision, now) in changes.into_iter().filter(|(_, revision, _)| *revision > base) {
            if let Some(follower) = &self.follower {
                follower.put(&key, now.as_ref());
            }
            let before = match &now {
                Some(object) => next.objects.insert(key.clone(), object.clone()),
                None => next.objects.remove(&key),
            };
            next.revision = revision;
            let size = |object: Option<&Object>| object.map_or(0, |object| object.len() as u64);
            next.bytes = next.bytes + size(now.as_ref()) - size(before.as_ref()).min(next.bytes);
            if now.is_some() || before.is_some() {
                applied.push(Arc::new(Change { key, revision, now, before }));
            }
        }
        self.snapshot.store(Arc::new(next));
        self.figures.dispatched.add(applied.len() as u64);
        for change in applied {
            behind.dispatch(&change);
            behind.history.push(change);
        }
    }

    /// Forgets what only watchers that come back during a burst need.
    pub(crate) fn rest(&self) {
        self.behind().history.shrink(AT_REST);
    }

    /// Registers a watcher. With `after`, it gets the changes after that revision; `Err` gives the oldest
    /// revision one may ask for.
    pub(crate) fn subscribe(&self, filter: Arc<Filter>, after: Option<Revision>) -> Result<Start, Revision> {
        let mut behind = self.behind();
        let missed = after.map_or(Ok(Vec::new()), |revision| behind.history.after(revision))?;
        // Full: the watcher is dropped from the list, which ends its stream; it watches again from where it was.
        let (sender, queue) = mpsc::channel(QUEUE_LEN_MAX);
        behind.watchers.retain(|watcher| !watcher.queue.is_closed());
        behind.watchers.push(Watcher { filter, queue: sender });
        Ok(Start { snapshot: self.snapshot(), missed, queue })
    }
}

impl Behind {
    fn dispatch(&mut self, change: &Arc<Change>) {
        if self.watchers.is_empty() {
            return;
        }
        let seen = Seen::of(change);
        self.watchers.retain(|watcher| match seen.delivery_for(&watcher.filter) {
            Some(delivery) => watcher.queue.try_send(delivery).is_ok(),
            None => true,
        });
    }
}

/// A change with both states parsed at most once, however many watchers look at it.
pub(crate) struct Seen<'c> {
    change: &'c Change,
    now: Option<Lazy<'c>>,
    before: Option<Lazy<'c>>,
    /// What is sent when the object leaves the watcher's view: its last state with the change's revision.
    gone: std::cell::OnceCell<Object>,
}

impl<'c> Seen<'c> {
    pub(crate) fn of(change: &'c Change) -> Self {
        Self {
            change,
            now: change.now.as_ref().map(Lazy::new),
            before: change.before.as_ref().map(Lazy::new),
            gone: std::cell::OnceCell::new(),
        }
    }

    /// What a watcher with this filter sees of the change: an object that begins to match is added, one that
    /// ceases to match is deleted.
    pub(crate) fn delivery_for(&self, filter: &Filter) -> Option<Delivery> {
        let wanted =
            |state: &Option<Lazy<'_>>| state.as_ref().is_some_and(|object| filter.matches(&self.change.key, object));
        let (kind, object) = match (wanted(&self.before), wanted(&self.now)) {
            (false, false) => return None,
            (false, true) => (EventType::Added, self.change.now.clone()?),
            (true, true) => (EventType::Modified, self.change.now.clone()?),
            (true, false) => (EventType::Deleted, self.gone()?),
        };
        let needs_before = kind == EventType::Modified && filter.looks_at_shown();
        let before = needs_before.then(|| self.change.before.clone()).flatten();
        Some(Delivery { revision: self.change.revision, event: WatchEvent { kind, object }, before })
    }

    fn gone(&self) -> Option<Object> {
        let before = self.change.before.as_ref()?;
        Some(self.gone.get_or_init(|| before.at(self.change.revision)).clone())
    }
}
