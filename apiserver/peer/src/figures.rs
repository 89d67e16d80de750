//! What is counted of the connections to one member.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use reeve_store::PeerFigures;

/// See [`PeerFigures`].
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// How many of the two lanes have a connection.
    pub(crate) lanes: AtomicUsize,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) disconnects: AtomicU64,
}

impl Figures {
    pub(crate) fn told(&self, id: u64) -> PeerFigures {
        PeerFigures {
            id,
            connected: self.lanes.load(Ordering::Relaxed) > 0,
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            disconnects: self.disconnects.load(Ordering::Relaxed),
        }
    }
}
