//! The seam between the API server and storage: etcd's key-value semantics.
//!
//! Source of every rule here: the etcd v3 API documentation (`etcd.io/docs/v3.6/learning/api`,
//! `…/learning/api_guarantees`). One revision counter for the whole store; a transaction that writes
//! moves it by one, however many keys it writes; a transaction that only reads does not move it.
//! What only clients of etcd's own protocol ask for is in [`crate::txn`] and [`crate::lease`].

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;

use crate::hash::HashKv;
use crate::hold::Hold;
use crate::lease::{LeaseGrant, LeaseId, LeaseStatus};
use crate::txn::{Check, Put, RevisionFilter, Sort};
use crate::verify::Report;

/// The store's counter: it only ever grows, and an acknowledged write has one of its own.
/// In the API it is the `resourceVersion`. Revision 1 is the empty store, as in etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One key with its value, as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key. Keys are ordered as bytes.
    pub key: Bytes,
    /// The value; empty when the request asked for keys only.
    pub value: Bytes,
    /// The revision at which the key was last created (a deleted key that is put again is created again).
    pub create_revision: Revision,
    /// The revision of the last change of the key.
    pub mod_revision: Revision,
    /// Number of changes since the key was created; 1 for a new key.
    pub version: u64,
    /// The lease it is attached to: it ends with it.
    pub lease: LeaseId,
}

/// Which keys a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    /// Exactly this key.
    Key(Bytes),
    /// All keys that begin with these bytes; an empty prefix means every key.
    Prefix(Bytes),
    /// All keys from `start` (included) up to `end` (excluded): for paging inside a prefix.
    Span {
        /// First key of the range.
        start: Bytes,
        /// First key behind the range; when it does not lie behind `start`, the range is empty.
        end: Bytes,
    },
    /// This key and all behind it.
    From(Bytes),
}

impl KeyRange {
    /// The same range as bounds for an ordered map.
    #[must_use]
    pub fn bounds(&self) -> (Bound<Bytes>, Bound<Bytes>) {
        match self {
            Self::Key(key) => (Bound::Included(key.clone()), Bound::Included(key.clone())),
            Self::Prefix(prefix) => {
                (Bound::Included(prefix.clone()), prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded))
            }
            // An ordered map panics at bounds the wrong way round.
            Self::Span { start, end } => (Bound::Included(start.clone()), Bound::Excluded(end.max(start).clone())),
            Self::From(start) => (Bound::Included(start.clone()), Bound::Unbounded),
        }
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Span { start, end } => key >= &start[..] && key < &end[..],
            Self::From(start) => key >= &start[..],
        }
    }
}

/// The first key behind all keys with this prefix; `None` when there is none (empty or all `0xff`).
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeRequest {
    /// The keys.
    pub range: KeyRange,
    /// Read as of this revision; `None` reads the newest state, linearizably.
    pub revision: Option<Revision>,
    /// At most this many keys, in ascending order; 0 means all.
    pub limit: usize,
    /// Leave the values out.
    pub keys_only: bool,
    /// Count only; no keys are returned.
    pub count_only: bool,
    /// Stop when it is known whether there is more than `limit`: the cost is that of the page, not of the range.
    pub uncounted: bool,
    /// The order in which the keys come, and so which of them a limit lets through.
    pub sort: Sort,
    /// Which keys are left out because of their revisions.
    pub filter: RevisionFilter,
}

impl RangeRequest {
    /// The newest state of all keys of a range.
    #[must_use]
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            revision: None,
            limit: 0,
            keys_only: false,
            count_only: false,
            uncounted: false,
            sort: Sort::default(),
            filter: RevisionFilter::default(),
        }
    }

    /// The newest state of one key.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::Key(key.into()))
    }

    /// The newest state of all keys with a prefix.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::new(KeyRange::Prefix(prefix.into()))
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeResponse {
    /// The store's newest revision when the request was served.
    pub revision: Revision,
    /// The keys, in ascending order unless another one was asked for.
    pub kvs: Vec<KeyValue>,
    /// How many keys lie in the range, whatever the limit; of an uncounted range how many have been seen.
    pub count: usize,
    /// Whether the limit left keys out.
    pub more: bool,
}

/// A condition of a transaction. All must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key's last change was at this revision; [`Revision`]`(0)` means: the key does not exist.
    ModRevision {
        /// The key.
        key: Bytes,
        /// What its mod revision must be.
        equals: Revision,
    },
    /// The key has exactly this value.
    Value {
        /// The key.
        key: Bytes,
        /// What its value must be.
        equals: Bytes,
    },
    /// Any other comparison.
    Check(Check),
}

/// One step of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a key, which is attached to no lease then.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Deletes all keys of the range.
    Delete(KeyRange),
    /// Reads, seeing the writes of the steps before it.
    Range(RangeRequest),
    /// Writes a key, and says what of it stays and to which lease it belongs.
    PutWith(Put),
    /// A transaction in the transaction: its comparisons see the state before the outermost one.
    Txn(Box<Txn>),
}

/// An atomic transaction: `then` if every comparison holds, else `otherwise`.
/// No key may be written twice in one branch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// What is done when all hold.
    pub then: Vec<Op>,
    /// What is done when one does not.
    pub otherwise: Vec<Op>,
}

/// The outcome of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResponse {
    /// The key was written; what it was before, if it existed.
    Put {
        /// The key's former state.
        previous: Option<KeyValue>,
    },
    /// The keys are gone; what they were.
    Delete {
        /// The former state of every key that was deleted.
        previous: Vec<KeyValue>,
    },
    /// What was read.
    Range(RangeResponse),
    /// What the inner transaction did.
    Txn(Box<TxnResponse>),
}

/// The outcome of a transaction. When the caller has it, the writes are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResponse {
    /// The store's revision after the transaction: the `mod_revision` of every key it wrote.
    pub revision: Revision,
    /// Whether the comparisons held.
    pub succeeded: bool,
    /// One outcome per step of the branch that was taken.
    pub responses: Vec<OpResponse>,
}

/// Which changes to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchRequest {
    /// The keys.
    pub range: KeyRange,
    /// The first revision to deliver; `None` starts behind the newest.
    pub start: Option<Revision>,
    /// Whether events carry the key's former state.
    pub previous: bool,
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The key was written.
    Put,
    /// The key was deleted.
    Delete,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The key's new state; for a deletion only key and `mod_revision` (the deletion's revision) mean anything.
    pub kv: KeyValue,
    /// The key's former state, if the watch asked for it, the key existed and it is not compacted.
    pub previous: Option<KeyValue>,
}

/// All changes of one or more consecutive revisions that concern a watch, in order. A revision's events
/// are never split over two batches (etcd's promise of atomicity).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// Everything up to and including this revision has now been delivered.
    /// A batch without events is a progress notification.
    pub revision: Revision,
    /// The changes.
    pub events: Vec<Event>,
}

/// Ordered, unique, reliable, atomic, resumable, bookmarkable. Ends with an error when it cannot go on
/// ([`KvError::Compacted`], [`KvError::SlowWatcher`]); never has a gap.
pub type WatchStream = BoxStream<'static, Result<WatchBatch, KvError>>;

/// Why the store did not do what it was asked. A comparison that does not hold is not an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KvError {
    /// The revision asked for is gone. Never retry; read the newest state.
    #[error("revision {requested} has been compacted, the oldest is {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The compaction point: history below it is gone.
        compacted: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("revision {requested} is in the future, the newest is {newest}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest there is.
        newest: Revision,
    },
    /// A transaction writes one key twice, or is larger than the store takes. The caller's bug.
    #[error("invalid transaction: {rule}")]
    Invalid {
        /// The rule that is broken, with the value that breaks it.
        rule: String,
    },
    /// A put wants to keep what the key has, but it is not there.
    #[error("key {} does not exist", key.escape_ascii())]
    KeyNotFound {
        /// The key.
        key: Bytes,
    },
    /// There is no such lease (any more).
    #[error("lease {0} does not exist")]
    LeaseNotFound(LeaseId),
    /// There is such a lease already.
    #[error("lease {0} exists already")]
    LeaseExists(LeaseId),
    /// Nobody can keep a promise for so long.
    #[error("a lease cannot be granted for {0} s")]
    LeaseTtlTooLarge(i64),
    /// The watcher did not read fast enough and was cut off. Watch again from the last revision seen.
    #[error("watcher cut off after falling {behind} changes behind")]
    SlowWatcher {
        /// How many changes were waiting for it.
        behind: usize,
    },
    /// No answer within the store's own time limit, or no leader. Retryable; a write may have happened.
    #[error("store is not available: {reason}")]
    Unavailable {
        /// What is missing.
        reason: String,
    },
    /// The disk refuses writes. Reads go on; the write did not happen or is not acknowledged.
    #[error("store cannot write {what}: {reason}")]
    Storage {
        /// The file or folder.
        what: String,
        /// The operating system's words.
        reason: String,
    },
    /// The store is shutting down.
    #[error("store is closed")]
    Closed,
}

/// A key-value store with etcd's semantics. Cheap to share; every method may be called from any task at
/// any time. Implementations: [`crate::MemoryKv`] (tests, simulation), the embedded Raft store, and a client of an etcd
/// cluster (`apiserver/etcd`); all pass the suite in `tests/suite`.
#[async_trait::async_trait]
pub trait Kv: Send + Sync + 'static {
    /// Reads. Without a revision the answer contains every write acknowledged before the call.
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError>;

    /// Runs one transaction. When it returns `Ok`, its writes survive the death of process and machine.
    /// After [`KvError::Unavailable`] the outcome is unknown.
    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError>;

    /// Follows changes. A start below the compaction point yields one [`KvError::Compacted`] and ends.
    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, KvError>;

    /// Drops history below `revision`. The newest state of every key stays.
    async fn compact(&self, revision: Revision) -> Result<(), KvError>;

    /// Waits until what a compaction up to `revision` has hidden takes no room any more.
    async fn scrubbed(&self, revision: Revision) -> Result<(), KvError>;

    /// Grants a lease for `ttl` seconds, at least [`crate::LEASE_TTL_MIN`]; for [`LeaseId::NONE`] the store chooses a
    /// number. It ends, and every key attached to it is deleted in one revision, when it is not kept alive for so long;
    /// after a change of leader it has its whole time again.
    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<LeaseGrant, KvError>;

    /// Ends a lease: all keys attached to it are deleted in one revision. The store's revision then.
    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, KvError>;

    /// Gives a lease its whole time again, which is returned; `None` when there is no such lease.
    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>, KvError>;

    /// How a lease stands, with its keys if asked for; `None` when there is no such lease.
    async fn lease_status(&self, id: LeaseId, keys: bool) -> Result<Option<LeaseStatus>, KvError>;

    /// All leases; those that end first come first.
    async fn leases(&self) -> Result<Vec<LeaseId>, KvError>;

    /// The newest committed revision this member has applied; no round trip.
    fn revision(&self) -> Revision;

    /// A revision that holds every write acknowledged, by whomever, before the call; it can be read here.
    async fn newest(&self) -> Result<Revision, KvError> {
        // Any key will do: it is the revision of the answer that counts.
        self.range(RangeRequest::key("health")).await.map(|answer| answer.revision)
    }

    /// Keeps the newest revision readable, whatever is compacted, as long as the answer lives. It holds back the space
    /// of everything that is overwritten meanwhile. A store that cannot do that only says the revision.
    fn hold(&self) -> Hold {
        Hold::without_promise(self.revision())
    }

    /// A hash of everything that can be read up to a revision (`None`: the newest), see [`HashKv`]. Reads the whole
    /// store.
    async fn hash_kv(&self, _revision: Option<Revision>) -> Result<HashKv, KvError> {
        Err(KvError::Unavailable { reason: "this store has no hashes".to_owned() })
    }

    /// Reads everything that this member has on disk and says what is damaged.
    async fn verify(&self) -> Result<Report, KvError> {
        Err(KvError::Unavailable { reason: "this store looks after its own disk".to_owned() })
    }
}

/// A store that can be handed to many tasks.
pub type SharedKv = Arc<dyn Kv>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_behind_it() {
        assert_eq!(prefix_end(b"a/"), Some(Bytes::from_static(b"a0")));
        assert_eq!(prefix_end(b"a\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!(prefix_end(b"\xff\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }

    #[test]
    fn a_span_contains_its_start_and_not_its_end() {
        let span = KeyRange::Span { start: "b".into(), end: "d".into() };
        assert!(!span.contains(b"a") && span.contains(b"b") && span.contains(b"c") && !span.contains(b"d"));
        let from = KeyRange::From("b".into());
        assert!(!from.contains(b"a") && from.contains(b"b") && from.contains(b"\xff"));
    }

    #[test]
    fn a_span_the_wrong_way_round_is_empty() {
        let keys: std::collections::BTreeMap<Bytes, ()> = [("a".into(), ()), ("c".into(), ())].into();
        for (start, end) in [("c", "a"), ("c", "c")] {
            let span = KeyRange::Span { start: start.into(), end: end.into() };
            assert_eq!(keys.range::<Bytes, _>(span.bounds()).count(), 0, "{start} to {end}");
            assert!(!span.contains(b"a") && !span.contains(b"c"));
        }
    }
}
