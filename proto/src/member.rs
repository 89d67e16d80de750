//! What the members of one store say to each other: the inside of a parcel (`peer.proto`), checksummed by the
//! transport's encryption, and a snapshot's pieces by themselves.

use bytes::Bytes;

/// One message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    /// What it is; a reader drops a message without it.
    #[prost(oneof = "message::Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub kind: Option<message::Kind>,
}

/// The kinds of messages.
pub mod message {
    use bytes::Bytes;

    /// See [`super::Message`].
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// One of Raft's, as the raft crate encodes it.
        #[prost(bytes = "bytes", tag = "1")]
        Raft(Bytes),
        /// To the leader: put this into the log.
        #[prost(message, tag = "2")]
        Forward(super::Forward),
        /// From the leader: it was not put into the log and never will be.
        #[prost(message, tag = "3")]
        Refused(super::Refused),
        /// To the leader: the next piece of a snapshot, please.
        #[prost(message, tag = "4")]
        Ask(super::Ask),
        /// From the leader: a piece of a snapshot.
        #[prost(message, tag = "5")]
        Piece(super::Piece),
        /// To the leader: change the members.
        #[prost(message, tag = "6")]
        Change(super::Change),
        /// From the leader: what came of that.
        #[prost(message, tag = "7")]
        Changed(super::Changed),
        /// To the leader: how much time has a lease left?
        #[prost(message, tag = "8")]
        LeaseAsked(super::LeaseAsked),
        /// From the leader: so much.
        #[prost(message, tag = "9")]
        LeaseTold(super::LeaseTold),
        /// To the leader: what you have sent as the snapshot of this index is damaged on your disk.
        #[prost(uint64, tag = "10")]
        Spoilt(u64),
        /// To the leader: there is no room on this member's disk. Said again and again, always `true`.
        #[prost(bool, tag = "11")]
        Full(bool),
        /// To the leader: a snapshot is here and this member makes its state of it, said again and again; or, with
        /// `false`, it has.
        #[prost(bool, tag = "12")]
        Installing(bool),
    }
}

/// A batch of commands that was handed to a member that does not lead.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Forward {
    /// Only the leader of this term may take it, and only once.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// As in the batch.
    #[prost(fixed64, tag = "2")]
    pub proposer: u64,
    /// As in the batch.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// A [`crate::store::Batch`].
    #[prost(bytes = "bytes", tag = "4")]
    pub data: Bytes,
}

/// Why a batch was not taken.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Refused {
    /// As in [`Forward`].
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// As in the batch.
    #[prost(fixed64, tag = "2")]
    pub proposer: u64,
    /// As in the batch.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// What on the leader cannot be written.
    #[prost(string, tag = "4")]
    pub what: String,
    /// In words.
    #[prost(string, tag = "5")]
    pub reason: String,
}

/// Asks for a piece of the snapshot that Raft has announced.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ask {
    /// The snapshot's last entry.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Where the piece begins.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}

/// A piece of a snapshot's file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Piece {
    /// The snapshot's last entry.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Where the piece begins.
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    /// The piece; empty when the file is not there any more.
    #[prost(bytes = "bytes", tag = "3")]
    pub bytes: Bytes,
    /// CRC-32 of the piece.
    #[prost(uint32, tag = "4")]
    pub checksum: u32,
    /// Whether the file ends with it.
    #[prost(bool, tag = "5")]
    pub last: bool,
}

/// A change of the members.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Change {
    /// The asking process's number for it.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// 1: add a learner, 2: promote, 3: remove, 4: replace, 5: move, 6: hand leadership over.
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    /// Whom it is about; 0: whoever is best.
    #[prost(uint64, tag = "3")]
    pub id: u64,
    /// Who comes instead.
    #[prost(uint64, tag = "4")]
    pub by: u64,
    /// Where to reach it.
    #[prost(string, tag = "5")]
    pub address: String,
}

/// What came of a change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Changed {
    /// As in [`Change`].
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// 0: it was made; else why not.
    #[prost(uint32, tag = "2")]
    pub error: u32,
    /// What the reason needs to be told, in the order of its fields.
    #[prost(uint64, repeated, tag = "3")]
    pub numbers: Vec<u64>,
    /// Words, where the reason has some.
    #[prost(string, tag = "4")]
    pub words: String,
}

/// Asks how much time a lease has left: only the leader counts.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseAsked {
    /// The asking process's number for the question.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// The lease.
    #[prost(int64, tag = "2")]
    pub lease: i64,
    /// What the asking member has applied: the leader answers when it has, too.
    #[prost(uint64, tag = "3")]
    pub applied: u64,
}

/// The answer.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseTold {
    /// As in [`LeaseAsked`].
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// What is left in milliseconds; missing when there is no such lease.
    #[prost(uint64, optional, tag = "2")]
    pub left: Option<u64>,
}
