//! The last changes of a resource, for watchers that come back and ask from a revision.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use reeve_store::Revision;

use crate::registry::Object;

/// Most changes that are remembered per resource.
const EVENTS_MAX: usize = 2048;

/// Most bytes of JSON that are remembered per resource beyond what the snapshot holds anyway.
const BYTES_MAX: usize = 2 * 1024 * 1024;

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
    change.before.as_ref().map_or(0, |object| object.json.len()) + 128
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
        while self.changes.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= weight(&oldest);
            self.floor = oldest.revision;
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
