//! What stands in the Raft log, in snapshots and beside them. Framing and checksums are the store's.

use bytes::Bytes;

/// The version of all messages of this module. A reader refuses messages of a higher one.
pub const VERSION: u32 = 1;

/// The data of one Raft entry: commands that arrived together and share one fsync. They are applied in order;
/// each keeps an outcome of its own. A command is named by proposer, sequence and its place in the batch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Random number of the process that proposed it: only that process has callers waiting for the outcome.
    #[prost(fixed64, tag = "2")]
    pub proposer: u64,
    /// Counts the batches of the proposer, from 1.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// The commands.
    #[prost(message, repeated, tag = "4")]
    pub commands: Vec<Command>,
}

/// One command.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Command {
    /// What is asked for; a reader refuses a command without it.
    #[prost(oneof = "command::Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<command::Kind>,
}

/// The kinds of commands.
pub mod command {
    /// See [`super::Command`].
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// Run a transaction.
        #[prost(message, tag = "1")]
        Txn(super::Txn),
        /// Move the compaction point to this revision.
        #[prost(uint64, tag = "2")]
        Compact(u64),
        /// Grant a lease.
        #[prost(message, tag = "3")]
        LeaseGrant(super::LeaseGrant),
        /// End this lease.
        #[prost(sfixed64, tag = "4")]
        LeaseRevoke(i64),
        /// Give this lease its whole time again.
        #[prost(sfixed64, tag = "5")]
        LeaseRenew(i64),
        /// End a lease whose time is up.
        #[prost(message, tag = "6")]
        LeaseExpire(super::LeaseExpire),
    }
}

/// Grants a lease.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseGrant {
    /// Its number.
    #[prost(sfixed64, tag = "1")]
    pub id: i64,
    /// Its time to live in seconds.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
    /// Where the count of its renewals begins: a number that no other grant has.
    #[prost(fixed64, tag = "3")]
    pub from: u64,
}

/// Ends a lease, unless it was renewed meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LeaseExpire {
    /// Its number.
    #[prost(sfixed64, tag = "1")]
    pub id: i64,
    /// How often it had been renewed when its time was found to be up.
    #[prost(uint64, tag = "2")]
    pub renewals: u64,
}

/// A transaction: `then` if all comparisons hold, else `otherwise`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Txn {
    /// The conditions.
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    /// Steps when all hold.
    #[prost(message, repeated, tag = "2")]
    pub then: Vec<Op>,
    /// Steps when one does not.
    #[prost(message, repeated, tag = "3")]
    pub otherwise: Vec<Op>,
}

/// A condition on a key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Compare {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// What must hold.
    #[prost(oneof = "compare::Target", tags = "2, 3, 4")]
    pub target: Option<compare::Target>,
}

/// What a comparison is about.
pub mod compare {
    use bytes::Bytes;

    /// See [`super::Compare`].
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Target {
        /// The mod revision is this; 0 when the key does not exist.
        #[prost(uint64, tag = "2")]
        ModRevision(u64),
        /// The value is this.
        #[prost(bytes = "bytes", tag = "3")]
        Value(Bytes),
        /// Any other comparison; the key beside it is empty.
        #[prost(message, tag = "4")]
        Check(super::Check),
    }
}

/// A comparison of every key of a range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Check {
    /// The keys.
    #[prost(message, optional, tag = "1")]
    pub range: Option<KeyRange>,
    /// How they must stand to the target.
    #[prost(enumeration = "Relation", tag = "2")]
    pub relation: i32,
    /// What they are compared with.
    #[prost(oneof = "check::Target", tags = "3, 4, 5, 6, 7")]
    pub target: Option<check::Target>,
}

/// How one side of a comparison must stand to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Relation {
    /// `=`
    Equal = 0,
    /// `!=`
    NotEqual = 1,
    /// `>`
    Greater = 2,
    /// `<`
    Less = 3,
}

/// What a [`Check`] compares.
pub mod check {
    use bytes::Bytes;

    /// See [`super::Check`].
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Target {
        /// The version.
        #[prost(int64, tag = "3")]
        Version(i64),
        /// The revision of the creation.
        #[prost(int64, tag = "4")]
        CreateRevision(i64),
        /// The revision of the last change.
        #[prost(int64, tag = "5")]
        ModRevision(i64),
        /// The value.
        #[prost(bytes = "bytes", tag = "6")]
        Value(Bytes),
        /// The lease.
        #[prost(int64, tag = "7")]
        Lease(i64),
    }
}

/// One step of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Op {
    /// What is done.
    #[prost(oneof = "op::Kind", tags = "1, 2, 3, 4, 5")]
    pub kind: Option<op::Kind>,
}

/// The kinds of steps.
pub mod op {
    /// See [`super::Op`].
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// Write a key.
        #[prost(message, tag = "1")]
        Put(super::Put),
        /// Delete a range.
        #[prost(message, tag = "2")]
        Delete(super::KeyRange),
        /// Read.
        #[prost(message, tag = "3")]
        Range(super::Range),
        /// Write a key, and say what of it stays.
        #[prost(message, tag = "4")]
        PutWith(super::PutWith),
        /// Run a transaction inside this one.
        #[prost(message, boxed, tag = "5")]
        Txn(Box<super::Txn>),
    }
}

/// Writes a key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PutWith {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its new value; it keeps the one it has if absent.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub value: Option<Bytes>,
    /// The lease it is attached to, 0 for none; it keeps the one it has if absent.
    #[prost(sfixed64, optional, tag = "3")]
    pub lease: Option<i64>,
}

/// Writes a key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Put {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Its new value.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// Some keys.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyRange {
    /// Which; a reader refuses a range without it.
    #[prost(oneof = "key_range::Kind", tags = "1, 2, 3, 4")]
    pub kind: Option<key_range::Kind>,
}

/// The kinds of ranges.
pub mod key_range {
    use bytes::Bytes;

    /// See [`super::KeyRange`].
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Kind {
        /// One key.
        #[prost(bytes = "bytes", tag = "1")]
        Key(Bytes),
        /// All keys with a prefix.
        #[prost(bytes = "bytes", tag = "2")]
        Prefix(Bytes),
        /// All keys from one to before another.
        #[prost(message, tag = "3")]
        Span(super::Span),
        /// This key and all behind it.
        #[prost(bytes = "bytes", tag = "4")]
        From(Bytes),
    }
}

/// All keys from `start` up to, not including, `end`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    /// The first key.
    #[prost(bytes = "bytes", tag = "1")]
    pub start: Bytes,
    /// The first key behind the last.
    #[prost(bytes = "bytes", tag = "2")]
    pub end: Bytes,
}

/// A read inside a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Range {
    /// The keys.
    #[prost(message, optional, tag = "1")]
    pub range: Option<KeyRange>,
    /// As of this revision, the newest if absent.
    #[prost(uint64, optional, tag = "2")]
    pub revision: Option<u64>,
    /// At most so many keys; 0 means all.
    #[prost(uint64, tag = "3")]
    pub limit: u64,
    /// Without values.
    #[prost(bool, tag = "4")]
    pub keys_only: bool,
    /// Without keys and values.
    #[prost(bool, tag = "5")]
    pub count_only: bool,
    /// What the keys are sorted by.
    #[prost(enumeration = "SortTarget", tag = "6")]
    pub sort_target: i32,
    /// In which direction.
    #[prost(enumeration = "SortOrder", tag = "7")]
    pub sort_order: i32,
    /// Only keys changed at this revision or later, unless it is 0.
    #[prost(int64, tag = "8")]
    pub min_mod: i64,
    /// Only keys changed at this revision or before, unless it is 0.
    #[prost(int64, tag = "9")]
    pub max_mod: i64,
    /// Only keys created at this revision or later, unless it is 0.
    #[prost(int64, tag = "10")]
    pub min_create: i64,
    /// Only keys created at this revision or before, unless it is 0.
    #[prost(int64, tag = "11")]
    pub max_create: i64,
}

/// What a range is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SortTarget {
    /// The key.
    Key = 0,
    /// The version.
    Version = 1,
    /// The revision of the creation.
    CreateRevision = 2,
    /// The revision of the last change.
    ModRevision = 3,
    /// The value.
    Value = 4,
}

/// In which direction a range is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SortOrder {
    /// None was asked for.
    Unsaid = 0,
    /// Smallest first.
    Ascending = 1,
    /// Largest first.
    Descending = 2,
}

/// One record of the write-ahead log: what one fsync makes durable.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogRecord {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Raft's hard state after this record. Every record has it, so that old segments can be dropped.
    #[prost(message, optional, tag = "2")]
    pub hard_state: Option<HardState>,
    /// Entries, in order. An index that was there before replaces it and all behind it.
    #[prost(message, repeated, tag = "3")]
    pub entries: Vec<LogEntry>,
    /// All that was in the log before is replaced by a snapshot that another member sent; `entries` follow it.
    #[prost(message, optional, tag = "4")]
    pub base: Option<LogBase>,
}

/// What a log begins behind, when its beginning came as a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct LogBase {
    /// The last entry in the snapshot.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// That entry's term.
    #[prost(uint64, tag = "2")]
    pub term: u64,
}

/// Raft's hard state.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HardState {
    /// The newest term this member knows.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    #[prost(uint64, tag = "2")]
    pub vote: u64,
    /// The last index it knows to be committed.
    #[prost(uint64, tag = "3")]
    pub commit: u64,
}

/// One Raft entry.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogEntry {
    /// Its index.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Its term.
    #[prost(uint64, tag = "2")]
    pub term: u64,
    /// Raft's entry type: 0 for a [`Batch`] or, when `data` is empty, the entry that begins a term; 2 for a change of
    /// the members.
    #[prost(int32, tag = "3")]
    pub kind: i32,
    /// A [`Batch`], or Raft's `ConfChangeV2`.
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
    /// With a change of the members: a [`MemberChange`].
    #[prost(bytes = "vec", tag = "5")]
    pub context: Vec<u8>,
}

/// What goes with a change of the members besides Raft's own description of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MemberChange {
    /// Random number of the process that proposed it.
    #[prost(fixed64, tag = "1")]
    pub proposer: u64,
    /// Which of that process's proposals it is.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// Addresses that hold from then on.
    #[prost(message, repeated, tag = "3")]
    pub addresses: Vec<MemberAddress>,
}

/// Where a member's peer port is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MemberAddress {
    /// Raft's number of the member.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// "host:port".
    #[prost(string, tag = "2")]
    pub address: String,
}

/// Who belongs to the group: Raft's configuration, with addresses.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Members {
    /// The entry that changed it last; 0 when none has.
    #[prost(uint64, tag = "1")]
    pub index: u64,
    /// Who votes.
    #[prost(uint64, repeated, tag = "2")]
    pub voters: Vec<u64>,
    /// Who follows without a vote.
    #[prost(uint64, repeated, tag = "3")]
    pub learners: Vec<u64>,
    /// Who voted before, while a change of several members is under way.
    #[prost(uint64, repeated, tag = "4")]
    pub voters_outgoing: Vec<u64>,
    /// Who of these becomes a learner.
    #[prost(uint64, repeated, tag = "5")]
    pub learners_next: Vec<u64>,
    /// Whether the leader ends the change by itself.
    #[prost(bool, tag = "6")]
    pub auto_leave: bool,
    /// Where they are.
    #[prost(message, repeated, tag = "7")]
    pub addresses: Vec<MemberAddress>,
    /// Whoever was removed; their numbers are not used again.
    #[prost(uint64, repeated, tag = "8")]
    pub removed: Vec<u64>,
}

/// Who this member is; written when the data folder is made and whenever the members change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Member {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Raft's number of this member.
    #[prost(uint64, tag = "2")]
    pub id: u64,
    /// The members that vote when the log is empty, in a folder in which `members` is missing.
    #[prost(uint64, repeated, tag = "3")]
    pub voters: Vec<u64>,
    /// The group it belongs to; 0 for a sole member.
    #[prost(uint64, tag = "4")]
    pub cluster: u64,
    /// The members as of an entry that may be behind the view, never before it.
    #[prost(message, optional, tag = "5")]
    pub members: Option<Members>,
}

/// A part of a snapshot: some records of the view, in order; the last part has the end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotPart {
    /// Records.
    #[prost(message, repeated, tag = "1")]
    pub records: Vec<SnapshotRecord>,
    /// Only in the last part. A snapshot without it is not whole.
    #[prost(message, optional, tag = "2")]
    pub end: Option<SnapshotEnd>,
}

/// One record of the view.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SnapshotRecord {
    /// Its key in the view.
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Its value.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// Where the state of a snapshot stands.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SnapshotEnd {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The last Raft entry in it.
    #[prost(uint64, tag = "2")]
    pub index: u64,
    /// That entry's term.
    #[prost(uint64, tag = "3")]
    pub term: u64,
    /// The newest revision.
    #[prost(uint64, tag = "4")]
    pub revision: u64,
    /// The compaction point.
    #[prost(uint64, tag = "5")]
    pub compacted: u64,
    /// The members that vote at that index.
    #[prost(uint64, repeated, tag = "6")]
    pub voters: Vec<u64>,
    /// How many records all parts have together.
    #[prost(uint64, tag = "7")]
    pub records: u64,
    /// Everybody who belongs to the group at that index.
    #[prost(message, optional, tag = "8")]
    pub members: Option<Members>,
}

/// What is known of the view that lies beside the log: whether it may be used.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ViewState {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The machine's boot id when the view was opened.
    #[prost(string, tag = "2")]
    pub boot_id: String,
    /// How far it is.
    #[prost(enumeration = "ViewPhase", tag = "3")]
    pub phase: i32,
}

/// The life of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ViewPhase {
    /// It is being filled: of no use.
    Building = 0,
    /// It is in use: good as long as the machine has not been restarted.
    Open = 1,
    /// It was synced and closed: good.
    Clean = 2,
}
