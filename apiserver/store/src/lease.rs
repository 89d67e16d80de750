//! Leases: promises that keys live only as long as somebody keeps the lease alive. Here is what all members agree on:
//! which leases there are and what is attached to them. Nothing here knows what time it is: [`crate::lessor`] does,
//! and proposes the end of a lease like any other change.
//!
//! Source of the rules: etcd's documentation (`etcd.io/docs/v3.6/learning/api`, "Lease API").

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::encoding;
use crate::kv::Revision;
use crate::view::{View, ViewError, Visit};

/// A lease's number; clients choose it, or the store does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LeaseId(pub i64);

impl LeaseId {
    /// No lease.
    pub const NONE: Self = Self(0);

    /// Whether it names a lease at all.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl std::fmt::Display for LeaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// The shortest time to live, in seconds: one and a half election timeouts, rounded up, as etcd counts it.
pub const LEASE_TTL_MIN: i64 = 2;
/// The longest time to live, in seconds: etcd's.
pub const LEASE_TTL_MAX: i64 = 9_000_000_000;
/// Leases at one time. Each costs some two hundred bytes of memory on every member.
pub const LEASES_MAX: usize = 1_000_000;

/// A lease that was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseGrant {
    /// Its number.
    pub id: LeaseId,
    /// Its time to live in seconds, which may be longer than what was asked for.
    pub ttl: i64,
    /// The store's revision then; a lease does not move it.
    pub revision: Revision,
}

/// What there is to say of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Its number.
    pub id: LeaseId,
    /// Its whole time to live in seconds.
    pub granted_ttl: i64,
    /// What is left of it, in whole seconds, as the leader counts.
    pub ttl: i64,
    /// The keys attached to it, in order, if they were asked for.
    pub keys: Vec<Bytes>,
}

/// What lasts of a lease besides the keys, which say themselves to which lease they are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    /// Time to live in seconds.
    pub(crate) ttl: i64,
    /// Counts how often it was kept alive, from a number of its own: a lease ends only if it was not, since somebody
    /// found that it must.
    pub(crate) renewals: u64,
}

/// What became of leases, in the order of their numbers; `None` is gone.
pub(crate) type LeaseChanges = BTreeMap<LeaseId, Option<Lease>>;

/// All leases, and the keys of each.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    leases: BTreeMap<LeaseId, (Lease, BTreeSet<Bytes>)>,
}

impl Leases {
    /// Reads which leases there were at the Raft entry `index`; keys are attached by whoever reads those.
    pub(crate) fn load(view: &dyn View, index: u64) -> Result<Self, ViewError> {
        let (from, to) = encoding::all_leases();
        let (mut leases, mut malformed, mut newest) = (Self::default(), None, None);
        view.visit(&from, &to, &mut |view_key, record| {
            let parts = encoding::split_lease_key(view_key).zip(encoding::decode_lease(record));
            let Some(((id, at), lease)) = parts else {
                malformed = Some(ViewError::malformed("cannot read a lease", view_key));
                return Visit::Stop;
            };
            // The newest record of a lease comes first; what is newer than the position is written again by the replay.
            if at <= index && newest != Some(id) {
                newest = Some(id);
                leases.change(id, lease);
            }
            Visit::Next
        })?;
        malformed.map_or(Ok(leases), Err)
    }

    pub(crate) fn get(&self, id: LeaseId) -> Option<Lease> {
        self.leases.get(&id).map(|(lease, _)| *lease)
    }

    /// The keys attached to a lease, in order.
    pub(crate) fn keys(&self, id: LeaseId) -> impl Iterator<Item = &Bytes> {
        self.leases.get(&id).into_iter().flat_map(|(_, keys)| keys)
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn change(&mut self, id: LeaseId, lease: Option<Lease>) {
        match lease {
            Some(lease) => self.leases.entry(id).or_insert_with(|| (lease, BTreeSet::new())).0 = lease,
            None => drop(self.leases.remove(&id)),
        }
    }

    /// Notes that a key has gone from one lease to another; either may be [`LeaseId::NONE`].
    pub(crate) fn attach(&mut self, key: &Bytes, from: LeaseId, to: LeaseId) {
        if from == to {
            return;
        }
        if let Some((_, keys)) = self.leases.get_mut(&from) {
            keys.remove(key);
        }
        if let Some((_, keys)) = self.leases.get_mut(&to) {
            keys.insert(key.clone());
        }
    }
}
