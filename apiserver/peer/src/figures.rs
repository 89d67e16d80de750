//! What is counted of the connections to one member.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How the connections to one member are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerFigures {
    /// Raft's number of the member.
    pub id: u64,
    /// Whether it can be sent to now.
    pub connected: bool,
    /// Bytes of messages that were handed to the network.
    pub sent_bytes: u64,
    /// Messages that were dropped: there was no connection, or too many waited.
    pub dropped: u64,
    /// Connections that ended.
    pub disconnects: u64,
}

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
