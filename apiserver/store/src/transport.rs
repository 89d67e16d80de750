//! The seam between the members of one store: messages that somebody else carries. What is in them is the store's
//! affair; how they travel (connections, certificates, streams) is the transport's.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Messages that wait to be taken in, of each urgency. When there are more, [`Inbox::receive`] waits: that slows the
/// sender's stream down.
const INBOX_MAX: usize = 256;

/// One message on its way from member to member. Urgent ones (heartbeats, votes, their answers) must not wait behind
/// others: the transport keeps a stream of their own for them. Order matters little and none may be delivered twice
/// on purpose, but the store takes loss, delay, repetition and reordering.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Raft's number of who sends it.
    pub from: u64,
    /// Whom it is for.
    pub to: u64,
    /// The message: opaque to the transport. At most a few MiB.
    pub message: Bytes,
    /// Whether it must overtake others.
    pub urgent: bool,
}

/// A member and where its peer port is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Raft's number of the member. Never used again after the member has been removed.
    pub id: u64,
    /// "host:port".
    pub address: String,
}

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

/// Carries messages to the other members. No method blocks or fails: what cannot be carried is dropped, and Raft sends
/// it again. Every queue in it must be bounded. Called by the one task that owns Raft.
pub trait Transport: Debug + Send + Sync + 'static {
    /// Takes a message on.
    fn send(&self, parcel: Parcel);

    /// Who the others are from now on; told at the start and after every change of the members. Connections to others
    /// than these are to be closed.
    fn set_peers(&self, peers: Vec<Peer>);
}

/// As whom a store is opened.
#[derive(Debug, Clone, Default)]
pub enum MemberConfig {
    /// The only member, number 1.
    #[default]
    Sole,
    /// A member of a group, or a founder of one: then all founders are given the same `peers`. A data folder that was
    /// made as [`MemberConfig::Sole`] can be opened so under the number 1.
    Cluster {
        /// Raft's number of this member.
        id: u64,
        /// The group. A data folder of another one is refused.
        cluster: u64,
        /// The founders when the data folder is empty, this member among them. Later only its own address counts.
        peers: Vec<Peer>,
        /// Carries messages.
        transport: Arc<dyn Transport>,
    },
    /// Somebody new: it has been added as a learner elsewhere ([`crate::Store::add_learner`]), and gets everything
    /// from the leader. After the first start the same as `Cluster`.
    Join {
        /// Raft's number of this member.
        id: u64,
        /// The group.
        cluster: u64,
        /// Everybody that is known, this member among them.
        peers: Vec<Peer>,
        /// Carries messages.
        transport: Arc<dyn Transport>,
    },
}

/// Why a message was not taken in. The sender need not be told more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// It is for somebody else.
    #[error("message for member {to}, this is member {id}")]
    NotForUs {
        /// Whom it is for.
        to: u64,
        /// Who this is.
        id: u64,
    },
    /// The sender was removed from the group.
    #[error("member {from} does not belong to the group any more")]
    Removed {
        /// Who sent it.
        from: u64,
    },
    /// The store is not running any more.
    #[error("store is closed")]
    Closed,
}

/// Where messages of other members go in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inbox {
    id: u64,
    removed: Arc<Removed>,
    urgent: mpsc::Sender<Parcel>,
    others: mpsc::Sender<Parcel>,
}

/// The receiving end of an [`Inbox`].
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) urgent: mpsc::Receiver<Parcel>,
    pub(crate) others: mpsc::Receiver<Parcel>,
}

/// Who has been removed from the group.
#[derive(Debug, Default)]
pub(crate) struct Removed(std::sync::RwLock<std::collections::BTreeSet<u64>>);

impl Removed {
    pub(crate) fn set(&self, removed: impl IntoIterator<Item = u64>) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = removed.into_iter().collect();
    }

    fn contains(&self, id: u64) -> bool {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).contains(&id)
    }
}

/// An inbox and its other end.
pub(crate) fn inbox(id: u64, removed: Arc<Removed>) -> (Inbox, Mail) {
    let (urgent, urgent_mail) = mpsc::channel(INBOX_MAX);
    let (others, other_mail) = mpsc::channel(INBOX_MAX);
    (Inbox { id, removed, urgent, others }, Mail { urgent: urgent_mail, others: other_mail })
}

impl Inbox {
    /// Takes a message in; waits while too many of its urgency have not been looked at. A sender that is not known
    /// (yet) is heard: this member may be behind; one that was removed is not.
    pub async fn receive(&self, parcel: Parcel) -> Result<(), ReceiveError> {
        if parcel.to != self.id {
            return Err(ReceiveError::NotForUs { to: parcel.to, id: self.id });
        }
        if self.removed.contains(parcel.from) {
            return Err(ReceiveError::Removed { from: parcel.from });
        }
        let queue = if parcel.urgent { &self.urgent } else { &self.others };
        queue.send(parcel).await.map_err(|_| ReceiveError::Closed)
    }
}
