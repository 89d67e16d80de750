//! What a member can be asked about the group it belongs to, and what comes of changing it.

use crate::kv::KvError;

/// What a member does in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// It decides what is written.
    Leader,
    /// It follows a leader, or waits for one.
    #[default]
    Follower,
    /// It asks to be leader.
    Candidate,
    /// It follows and does not vote.
    Learner,
}

/// Who leads, as a member sees it. Changes are told by [`crate::Store::leadership`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// What this member does.
    pub role: Role,
    /// The leader, if this member knows one.
    pub leader: Option<u64>,
    /// Raft's term.
    pub term: u64,
}

impl Leadership {
    /// Whether this member is the leader, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }
}

/// What a member knows of itself and its group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberStatus {
    /// Raft's number of this member.
    pub id: u64,
    /// The group; 0 for a sole member.
    pub cluster: u64,
    /// Who leads.
    pub leadership: Leadership,
    /// The last entry known to be committed.
    pub commit: u64,
    /// The last entry that readers here see.
    pub applied: u64,
    /// The last entry in the log.
    pub last: u64,
    /// Bytes of the log on disk; 0 while it is being written.
    pub log_bytes: u64,
    /// Bytes of the newest snapshot on disk, if it was written by this process.
    pub snapshot_bytes: u64,
    /// Whether the disk is too full for writes.
    pub disk_full: bool,
    /// Batches that wait to be synced, or are being synced.
    pub unsynced: usize,
    /// Appends to the log that took longer than half a second, since the start.
    pub slow_disk_appends: u64,
    /// Times another member became leader, since the start.
    pub leader_changes: u64,
    /// Batches of this member that wait for their outcome.
    pub proposals_pending: usize,
    /// Requests to read that wait for the leader.
    pub reads_pending: usize,
    /// Everybody, in the order of their numbers.
    pub members: Vec<MemberInfo>,
}

/// One member of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    /// Raft's number.
    pub id: u64,
    /// "host:port" of its peer port; empty when it is not known.
    pub address: String,
    /// Whether it votes; a learner does not.
    pub voter: bool,
    /// What the leader knows of it; `None` when asked elsewhere.
    pub progress: Option<MemberProgress>,
}

/// How far a member is, as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberProgress {
    /// The last entry that is known to be in its log.
    pub matched: u64,
    /// Whether it has been heard of within the last second and a half.
    pub active: bool,
    /// Whether it is getting a snapshot.
    pub snapshot: bool,
}

/// Why the group was not changed, or what became of it is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MemberError {
    /// There is no such member.
    #[error("there is no member {id}")]
    Unknown {
        /// Who was asked for.
        id: u64,
    },
    /// There is one already.
    #[error("member {id} belongs to the group already")]
    Exists {
        /// Who was to be added.
        id: u64,
    },
    /// Numbers are not used again.
    #[error("member {id} was removed before: a new member needs a number of its own")]
    Removed {
        /// Who was to be added.
        id: u64,
    },
    /// It votes already.
    #[error("member {id} votes already")]
    Voter {
        /// Who was to be promoted.
        id: u64,
    },
    /// It does not vote.
    #[error("member {id} is a learner")]
    Learner {
        /// Who was to lead.
        id: u64,
    },
    /// A learner that is promoted too early would hold the group up.
    #[error("learner {id} is behind by {entries} entries: wait until it has caught up")]
    Behind {
        /// Who was to be promoted.
        id: u64,
        /// How far it is behind.
        entries: u64,
    },
    /// After the change too few of those who vote could be reached.
    #[error("refused: of {voters} voters only {reachable} could be reached then, and {needed} are needed")]
    LosesQuorum {
        /// Voters after the change.
        voters: u64,
        /// How many of them can be reached now.
        reachable: u64,
        /// How many must be.
        needed: u64,
    },
    /// One change at a time.
    #[error("another change of the members is under way")]
    Busy,
    /// The store was opened without a transport.
    #[error("this server runs alone: it was not started as a member of a group")]
    Alone,
    /// No leader, or no answer in time: the change may still happen.
    #[error("the members cannot be changed now: {reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// The store has stopped.
    #[error(transparent)]
    Stopped(#[from] KvError),
}

/// What can be asked of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A new member that does not vote yet.
    AddLearner { id: u64, address: String },
    /// A learner becomes a voter.
    Promote { id: u64 },
    /// A member leaves.
    Remove { id: u64 },
    /// A learner takes the vote of a member that leaves, in one step.
    Replace { id: u64, by: u64 },
    /// A member has another address.
    Move { id: u64, address: String },
    /// Another voter becomes leader: this one, or the one that is furthest.
    Transfer { id: Option<u64> },
}
