//! One running watch: what it is sent first, then its queue, bookmarks in between, and its end.

use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use reeve_kinds::Names;
use reeve_store::Revision;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::filter::{Filter, Lazy};
use super::resource::{ResourceCache, Seen, Start};
use crate::registry::{EventType, Object, WatchEvent};
use crate::status::ApiError;

/// Events that may wait for one watcher before it is cut off.
pub(crate) const QUEUE_LEN_MAX: usize = 1024;

/// How often a watcher that wants bookmarks gets one; the interval of the Kubernetes API server.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// A bookmark is also sent this long before the watch ends by its timeout.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// One event in a watcher's queue.
pub(crate) struct Delivery {
    pub(crate) revision: Revision,
    pub(crate) event: WatchEvent,
    /// What a modified object was before, when only a conversion tells whether it was wanted then
    /// ([`Filter::looks_at_shown`]).
    pub(crate) before: Option<Object>,
}

impl Delivery {
    /// An event that stands for itself.
    fn plain(event: WatchEvent) -> Self {
        Self { revision: event.object.revision, event, before: None }
    }
}

/// What a watch is to deliver.
pub(crate) struct WatchPlan {
    /// Which objects.
    pub(crate) filter: Arc<Filter>,
    /// Only changes after this revision; `None`: from now on.
    pub(crate) after: Option<Revision>,
    /// First an `ADDED` event for each object there is.
    pub(crate) initial: bool,
    /// Then a bookmark that says that these were all.
    pub(crate) mark_initial_end: bool,
    /// Bookmarks from time to time.
    pub(crate) bookmarks: bool,
    /// `kind` and `apiVersion` of bookmarks: those of the resource that is watched.
    pub(crate) names: Names,
    /// When the watch ends.
    pub(crate) timeout: Duration,
    /// Ends the watch before.
    pub(crate) stop: CancellationToken,
}

/// A registered watcher that has not begun to read.
pub(crate) struct Subscription {
    plan: WatchPlan,
    start: Start,
    progress: watch::Receiver<Revision>,
    revision: Revision,
}

impl Subscription {
    /// Registers a watcher; from here on it misses nothing. `progress` tells how far the cache is.
    pub(crate) fn new(
        cache: &ResourceCache,
        progress: watch::Receiver<Revision>,
        plan: WatchPlan,
    ) -> Result<Self, ApiError> {
        // Before the snapshot: see `Cache::snapshot`.
        let reached = *progress.borrow();
        let start = cache.subscribe(Arc::clone(&plan.filter), plan.after).map_err(|oldest| {
            let asked = plan.after.unwrap_or_default();
            ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
        })?;
        let revision = reached.max(start.snapshot.revision);
        Ok(Self { plan, start, progress, revision })
    }

    /// The events, until the timeout or until the watcher was too slow.
    pub(crate) fn events(self) -> impl Stream<Item = Delivery> + Send {
        let first = self.first();
        let bookmarks = self.plan.bookmarks;
        let end = Instant::now() + self.plan.timeout;
        let live = Live {
            sent_up_to: self.plan.after.unwrap_or_default(),
            queue: self.start.queue,
            progress: self.progress,
            next_bookmark: bookmarks.then(|| next_bookmark(end)).flatten(),
            end,
            names: self.plan.names,
            stop: self.plan.stop,
        };
        let live =
            futures::stream::unfold(live, |mut live| async move { live.next().await.map(|event| (event, live)) });
        futures::StreamExt::chain(futures::stream::iter(first), live)
    }

    /// The initial state, or the changes since the revision asked for; made one by one as they are read.
    fn first(&self) -> impl Iterator<Item = Delivery> + Send + use<> {
        let filter = Arc::clone(&self.plan.filter);
        let initial = self.plan.initial.then(|| Arc::clone(&self.start.snapshot));
        let objects: Vec<WatchEvent> = initial.map_or_else(Vec::new, |snapshot| {
            let wanted =
                snapshot.scan(filter.scope(), b"").filter(|(key, object)| filter.matches(key, &Lazy::new(object)));
            wanted.map(|(_, object)| WatchEvent { kind: EventType::Added, object: object.clone() }).collect()
        });
        let mark = self.plan.mark_initial_end.then(|| bookmark(&self.plan.names, self.revision, true));
        let missed = self.start.missed.clone();
        let missed = missed.into_iter().filter_map(move |change| Seen::of(&change).delivery_for(&filter));
        objects.into_iter().chain(mark).map(Delivery::plain).chain(missed)
    }
}

struct Live {
    /// Nothing up to here is sent: a watcher may ask from a revision that lies ahead.
    sent_up_to: Revision,
    queue: tokio::sync::mpsc::Receiver<Delivery>,
    progress: watch::Receiver<Revision>,
    next_bookmark: Option<Instant>,
    end: Instant,
    names: Names,
    stop: CancellationToken,
}

impl Live {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let wake = self.next_bookmark.unwrap_or(self.end).min(self.end);
            tokio::select! {
                biased;
                delivery = self.queue.recv() => {
                    let delivery = delivery?;
                    if delivery.revision > self.sent_up_to {
                        return Some(delivery);
                    }
                }
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(wake) => {
                    if wake >= self.end {
                        return None;
                    }
                    self.next_bookmark = next_bookmark(self.end);
                    if let Some(event) = self.due_bookmark() {
                        return Some(Delivery::plain(event));
                    }
                }
            }
        }
    }

    /// A bookmark may only name what has been delivered: everything up to the cache's progress is in the queue
    /// by then, so an empty queue after reading the progress means that it was.
    fn due_bookmark(&mut self) -> Option<WatchEvent> {
        let reached = *self.progress.borrow();
        (self.queue.is_empty() && reached > self.sent_up_to).then(|| bookmark(&self.names, reached, false))
    }
}

fn next_bookmark(end: Instant) -> Option<Instant> {
    let now = Instant::now();
    let last = end.checked_sub(BOOKMARK_BEFORE_END)?;
    (now < last).then(|| (now + BOOKMARK_INTERVAL).min(last))
}

fn bookmark(names: &Names, revision: Revision, initial_end: bool) -> WatchEvent {
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if initial_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let object = json!({ "kind": names.kind, "apiVersion": names.api_version(), "metadata": metadata });
    WatchEvent { kind: EventType::Bookmark, object: Object::whole(object.to_string(), revision) }
}
