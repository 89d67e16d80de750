//! What etcd knows of transactions beyond what the API server asks for: puts that keep something, comparisons of
//! everything with everything, and reads in another order. Plain data; [`crate::evaluate`] says what it does.

use bytes::Bytes;

use crate::kv::{KeyRange, KeyValue, Revision};
use crate::lease::LeaseId;

/// A put with all that etcd knows of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: Bytes,
    /// Its new value; `None` keeps the one it has, which must be there ([`crate::KvError::KeyNotFound`]).
    pub value: Option<Bytes>,
    /// The lease it is attached to from now on, [`LeaseId::NONE`] for none; `None` keeps what it has, and the key must
    /// be there.
    pub lease: Option<LeaseId>,
}

/// A comparison that must hold for every key of a range. Of a range without keys a single key is compared that has
/// nothing but zeros, but a value that is not there compares with nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The keys.
    pub range: KeyRange,
    /// How what they have must stand to the target.
    pub relation: Relation,
    /// What is compared, and with what.
    pub target: Target,
}

/// How a key's side of a comparison must stand to the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>`
    Greater,
    /// `<`
    Less,
}

/// What of a key is compared, and with what: numbers are signed, as clients send them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Its version; 0 when it does not exist.
    Version(i64),
    /// The revision of its creation; 0 when it does not exist.
    CreateRevision(i64),
    /// The revision of its last change; 0 when it does not exist.
    ModRevision(i64),
    /// Its value.
    Value(Bytes),
    /// Its lease; 0 when it has none.
    Lease(i64),
}

impl Check {
    /// Whether the comparison holds for this key; `None` stands for a range in which there is none.
    pub(crate) fn holds(&self, kv: Option<&KeyValue>) -> bool {
        let number = |own: u64, other: i64| i64::try_from(own).unwrap_or(i64::MAX).cmp(&other);
        let revision = |revision: Option<Revision>, other: i64| number(revision.map_or(0, |at| at.0), other);
        let ordering = match &self.target {
            Target::Version(other) => number(kv.map_or(0, |kv| kv.version), *other),
            Target::CreateRevision(other) => revision(kv.map(|kv| kv.create_revision), *other),
            Target::ModRevision(other) => revision(kv.map(|kv| kv.mod_revision), *other),
            Target::Lease(other) => kv.map_or(0, |kv| kv.lease.0).cmp(other),
            Target::Value(other) => match kv {
                Some(kv) => kv.value.cmp(other),
                None => return false,
            },
        };
        match self.relation {
            Relation::Equal => ordering.is_eq(),
            Relation::NotEqual => ordering.is_ne(),
            Relation::Greater => ordering.is_gt(),
            Relation::Less => ordering.is_lt(),
        }
    }
}

/// In which order a range comes back. The default is by key, ascending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub target: SortTarget,
    /// In which direction.
    pub order: SortOrder,
}

/// By what a range is sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The revision of the creation.
    CreateRevision,
    /// The revision of the last change.
    ModRevision,
    /// The value.
    Value,
}

/// In which direction a range is sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// Ascending; of a limited range only what the limit lets through in the order of keys, and the next one, is
    /// sorted. (So does etcd.)
    #[default]
    Unsaid,
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// Which keys of a range are returned, by their revisions; 0 says nothing. They are counted all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RevisionFilter {
    /// Changed at this revision or later.
    pub min_mod: i64,
    /// Changed at this revision or before.
    pub max_mod: i64,
    /// Created at this revision or later.
    pub min_create: i64,
    /// Created at this revision or before.
    pub max_create: i64,
}

impl Sort {
    /// Whether a range has to be read whole before its first key is known.
    pub(crate) fn is_whole(self) -> bool {
        self.order != SortOrder::Unsaid && self != Self { target: SortTarget::Key, order: SortOrder::Ascending }
    }

    /// Whether the order is another one than that of keys, ascending.
    pub(crate) fn reorders(self) -> bool {
        self.is_whole() || self.target != SortTarget::Key
    }

    pub(crate) fn arrange(self, kvs: &mut [KeyValue]) {
        if !self.reorders() {
            return;
        }
        let descending = self.order == SortOrder::Descending;
        kvs.sort_by(|one, other| {
            let ordering = match self.target {
                SortTarget::Key => one.key.cmp(&other.key),
                SortTarget::Version => one.version.cmp(&other.version),
                SortTarget::CreateRevision => one.create_revision.cmp(&other.create_revision),
                SortTarget::ModRevision => one.mod_revision.cmp(&other.mod_revision),
                SortTarget::Value => one.value.cmp(&other.value),
            };
            if descending { ordering.reverse() } else { ordering }
        });
    }
}

impl RevisionFilter {
    /// Whether it lets everything through.
    pub(crate) fn is_open(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn admits(&self, kv: &KeyValue) -> bool {
        let number = |revision: Revision| i64::try_from(revision.0).unwrap_or(i64::MAX);
        let (changed, created) = (number(kv.mod_revision), number(kv.create_revision));
        (self.max_mod == 0 || changed <= self.max_mod)
            && (self.min_mod == 0 || changed >= self.min_mod)
            && (self.max_create == 0 || created <= self.max_create)
            && (self.min_create == 0 || created >= self.min_create)
    }
}
