//! The last changes of a resource, for watchers that come back and ask from a revision.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use reeve_store::Revision;

use crate::registry::Object;

/// How much is remembered per resource.
#[derive(Clone, Copy)]
pub(crate) struct Room {
    /// Most changes.
    changes: usize,
    /// Most bytes of JSON beyond what the snapshot holds anyway.
    bytes: usize,
}

/// While much happens: a watcher that was cut off in a burst finds its place again.
const IN_A_BURST: Room = Room { changes: 8192, bytes: 8 * 1024 * 1024 };

/// What stays of a burst when it is over.
pub(crate) const AT_REST: Room = Room { changes: 512, bytes: 512 * 1024 };

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    /// The object's key behind the resource's prefix.
    pub(crate) key: Bytes,
    /// The revision of the change.
    pub(crate) revision: Revision,
    /// The object now; `None` when it was deleted.
    pub(crate) now: Option<Object>,
    /// The object before; `None` when it was created.
    pub(crate) before: Option<Object>,
}

/// The window of remembered changes.
#[derive(Default)]
pub(crate) struct History {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// Every change after this revision is remembered.
    floor: Revision,
}

fn weight(change: &Change) -> usize {
    change.before.as_ref().map_or(0, |object| object.len()) + 128
}

impl History {
    /// Forgets everything: changes up to `floor` are not known.
    pub(crate) fn restart(&mut self, floor: Revision) {
        *self = Self { floor, ..Self::default() };
    }

    /// Remembers a change, and forgets the oldest beyond the limits.
    pub(crate) fn push(&mut self, change: Arc<Change>) {
        self.bytes += weight(&change);
        self.changes.push_back(change);
        self.shrink(IN_A_BURST);
    }

    /// Forgets the oldest changes that have no room.
    pub(crate) fn shrink(&mut self, room: Room) {
        while self.changes.len() > room.changes || self.bytes > room.bytes {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= weight(&oldest);
            self.floor = oldest.revision;
        }
        if self.changes.capacity() > 4 * room.changes.max(self.changes.len()) {
            self.changes.shrink_to_fit();
        }
    }

    /// All changes after `revision`, in order; `Err` with the oldest revision one may ask for when some are
    /// forgotten.
    pub(crate) fn after(&self, revision: Revision) -> Result<Vec<Arc<Change>>, Revision> {
        if revision < self.floor {
            return Err(self.floor);
        }
        let start = self.changes.partition_point(|change| change.revision <= revision);
        Ok(self.changes.range(start..).cloned().collect())
    }
}
