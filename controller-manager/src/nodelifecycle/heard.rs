//! When each node was last heard of, on our own clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// A node counts as heard of when its lease or its status shows a new time; what the time says does not matter,
/// so the clocks of nodes and controllers need not agree.
#[derive(Debug, Default)]
pub(super) struct Heard {
    nodes: Mutex<HashMap<String, Last>>,
}

#[derive(Debug)]
struct Last {
    renewed: Option<Timestamp>,
    heartbeat: Option<Timestamp>,
    at: Duration,
}

impl Heard {
    /// The node's lease shows this time.
    pub(super) fn lease(&self, node: &str, renewed: Option<Timestamp>, now: Duration) {
        self.note(node, now, |last| std::mem::replace(&mut last.renewed, renewed) != renewed);
    }

    /// The node's condition `Ready` shows this time.
    pub(super) fn status(&self, node: &str, heartbeat: Option<Timestamp>, now: Duration) {
        self.note(node, now, |last| std::mem::replace(&mut last.heartbeat, heartbeat) != heartbeat);
    }

    /// The node is gone.
    pub(super) fn forget(&self, node: &str) {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    /// How long the node has been silent. A node that was never heard of is given its time from now on.
    pub(super) fn silent_for(&self, node: &str, now: Duration) -> Duration {
        self.note(node, now, |_| false);
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.get(node).map_or(Duration::ZERO, |last| now.saturating_sub(last.at))
    }

    fn note(&self, node: &str, now: Duration, is_new: impl FnOnce(&mut Last) -> bool) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        let last = nodes.entry(node.to_owned()).or_insert(Last { renewed: None, heartbeat: None, at: now });
        if is_new(last) {
            last.at = now;
        }
    }
}
