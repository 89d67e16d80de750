//! A hash of everything that can be read between the compaction point and a revision, so that members can compare what
//! they hold, whatever way they came to it. etcd's meaning (`etcdctl endpoint hashkv`): members agree whose compaction
//! point and revision are the same. The number itself is ours: CRC-32 over the records in the order of keys.
//!
//! What is compacted but not removed yet does not count: when that is removed is every member's own affair.

use crate::encoding::{self, State};
use crate::kv::Revision;
use crate::view::{View, ViewError, Visit};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    /// The hash.
    pub hash: u32,
    /// Up to which revision changes are in it.
    pub revision: Revision,
    /// The compaction point then: only hashes of the same one can be compared.
    pub compacted: Revision,
}

/// The hash of what a view holds at `revision`. Nothing behind `compacted` may be removed meanwhile.
pub(crate) fn of_view(view: &dyn View, revision: Revision, compacted: Revision) -> Result<HashKv, ViewError> {
    let mut hasher = crc32fast::Hasher::new();
    let mut key = Vec::new();
    // Of a key's states, newest first, those count that somebody can still see.
    let mut is_behind = false;
    let mut outcome = Ok(());
    let (from, to) = encoding::all_versions();
    view.visit(&from, &to, &mut |view_key, record| {
        let Some(((shared, at), state)) = encoding::split_version_key(view_key).zip(State::decode(record)) else {
            outcome = Err(ViewError::malformed("cannot hash", view_key));
            return Visit::Stop;
        };
        if shared != key {
            key.clear();
            key.extend_from_slice(shared);
            is_behind = false;
        }
        if at > revision || is_behind {
            return Visit::Next;
        }
        is_behind = at <= compacted;
        if at >= compacted || matches!(state, State::Put { .. }) {
            add(&mut hasher, shared, at, state);
        }
        Visit::Next
    })?;
    outcome.map(|()| HashKv { hash: hasher.finalize(), revision, compacted })
}

fn add(hasher: &mut crc32fast::Hasher, key: &[u8], at: Revision, state: State<'_>) {
    hasher.update(key); // it ends with a mark of its own
    hasher.update(&at.0.to_be_bytes());
    match state {
        State::Deleted => hasher.update(&[0]),
        State::Put { create_revision, version, lease, value } => {
            hasher.update(&[1]);
            for number in [create_revision.0, version, lease.0.cast_unsigned(), value.len() as u64] {
                hasher.update(&number.to_be_bytes());
            }
            hasher.update(value);
        }
    }
}
