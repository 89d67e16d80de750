//! Hands committed changes to those who watch, in revision order. The publisher never waits for a watcher:
//! one that lets too many changes pile up is cut off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::kv::{Event, KeyRange, KvError, Revision, WatchBatch};
use crate::limits::Limits;

/// Everybody who watches. Lock order: hub, then queue.
#[derive(Debug)]
pub(crate) struct Hub {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Everything up to here has been published.
    revision: Revision,
    closed: bool,
    queues: Vec<Weak<Queue>>,
}

/// Whether a watcher could be let in.
pub(crate) enum Join {
    /// It gets every change from the revision on that it asked for.
    Joined(Arc<Queue>),
    /// Some of them have been published before; it must read those from history first.
    Behind,
}

/// Changes that wait for one watcher.
#[derive(Debug)]
pub(crate) struct Queue {
    range: KeyRange,
    previous: bool,
    first: Revision,
    waiting: Mutex<Waiting>,
    /// One permit is enough: the one reader takes all there is.
    wake: Notify,
}

#[derive(Debug)]
struct Waiting {
    events: Vec<Event>,
    /// Everything up to here has been queued or is of no concern.
    queued: Revision,
    /// What the watcher has been told.
    delivered: Revision,
    /// The store has jumped ahead: what comes next must be read from history.
    overtaken: bool,
    /// Why nothing more comes.
    end: Option<KvError>,
}

/// What a queue has for its watcher.
pub(crate) enum Next {
    /// Changes.
    Batch(WatchBatch),
    /// Nothing any more: go on by reading history from this revision on.
    Behind(Revision),
}

impl Hub {
    pub(crate) fn new(limits: Limits, revision: Revision) -> Self {
        Self { limits, state: Mutex::new(State { revision, closed: false, queues: Vec::new() }) }
    }

    /// The newest published revision.
    pub(crate) fn revision(&self) -> Revision {
        self.lock().revision
    }

    /// Lets a watcher in that wants every change of the range from `first` on.
    pub(crate) fn join(&self, range: &KeyRange, previous: bool, first: Revision) -> Result<Join, KvError> {
        let mut state = self.lock();
        if state.closed {
            return Err(KvError::Closed);
        }
        if first <= state.revision {
            return Ok(Join::Behind);
        }
        state.queues.retain(|queue| queue.strong_count() > 0);
        if state.queues.len() >= self.limits.watchers_max {
            return Err(KvError::Unavailable { reason: format!("there are {} watchers already", state.queues.len()) });
        }
        let queue = Arc::new(Queue::new(range.clone(), previous, first));
        state.queues.push(Arc::downgrade(&queue));
        Ok(Join::Joined(queue))
    }

    /// Publishes the changes of all revisions up to and including `revision`.
    pub(crate) fn publish(&self, revision: Revision, events: &[Event]) {
        let mut state = self.lock();
        if revision <= state.revision {
            return;
        }
        state.revision = revision;
        let max = self.limits.watch_buffer_max;
        state.queues.retain(|queue| queue.upgrade().is_some_and(|queue| queue.push(revision, events, max)));
    }

    /// The store stands at a revision, without anybody having published what leads there: watchers read that from
    /// history, or hear that it is compacted.
    pub(crate) fn overtake(&self, revision: Revision) {
        let mut state = self.lock();
        state.revision = state.revision.max(revision);
        for queue in state.queues.drain(..).filter_map(|queue| queue.upgrade()) {
            queue.lock().overtaken = true;
            queue.wake.notify_one();
        }
    }

    /// Ends every watch, after what it has yet to read.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for queue in state.queues.drain(..).filter_map(|queue| queue.upgrade()) {
            queue.lock().end.get_or_insert(KvError::Closed);
            queue.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn new(range: KeyRange, previous: bool, first: Revision) -> Self {
        let delivered = Revision(first.0 - 1); // `first` lies behind a published revision, so it is not 0
        let waiting = Waiting { events: Vec::new(), queued: delivered, delivered, overtaken: false, end: None };
        Self { range, previous, first, waiting: Mutex::new(waiting), wake: Notify::new() }
    }

    /// Everything that waits, as soon as there is something; an error when nothing more will come.
    pub(crate) async fn next(&self) -> Result<Next, KvError> {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.wake.notified().await;
        }
    }

    fn take(&self) -> Option<Result<Next, KvError>> {
        let mut waiting = self.lock();
        if waiting.queued > waiting.delivered {
            waiting.delivered = waiting.queued;
            let events = std::mem::take(&mut waiting.events);
            return Some(Ok(Next::Batch(WatchBatch { revision: waiting.queued, events })));
        }
        if waiting.overtaken && waiting.end.is_none() {
            return Some(Ok(Next::Behind(Revision(waiting.delivered.0 + 1))));
        }
        waiting.end.clone().map(Err)
    }

    /// Queues what concerns this watcher; `false` when it is cut off.
    fn push(&self, revision: Revision, events: &[Event], max: usize) -> bool {
        let mut waiting = self.lock();
        let concerns = |event: &&Event| event.kv.mod_revision >= self.first && self.range.contains(&event.kv.key);
        let before = waiting.events.len();
        waiting.events.extend(events.iter().filter(concerns).map(|event| self.shaped(event)));
        // One batch is let through whatever its size: a transaction must not be undeliverable.
        let kept = before == 0 || waiting.events.len() <= max;
        if kept {
            waiting.queued = waiting.queued.max(revision);
        } else {
            waiting.end = Some(KvError::SlowWatcher { behind: waiting.events.len() });
            waiting.events = Vec::new();
            waiting.queued = waiting.delivered;
        }
        drop(waiting);
        self.wake.notify_one();
        kept
    }

    fn shaped(&self, event: &Event) -> Event {
        let previous = if self.previous { event.previous.clone() } else { None };
        Event { previous, ..event.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
