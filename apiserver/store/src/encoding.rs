//! How revisions of keys lie in a [`View`](crate::view::View): four key spaces, told apart by the first byte.
//!
//! | key | value | holds |
//! |---|---|---|
//! | `v` escaped-key `00 01` !revision | kind, create revision, version, lease, value | a key's states; newest first |
//! | `h` last revision | revision, length, key; and so on | what the revisions of a Raft entry changed, in order |
//! | `l` lease, !index of the Raft entry | time to live, renewals; nothing at the end | its states; newest first |
//! | `m` | index, term, revision, compacted | where the view stands |
//!
//! Escaping (`00` becomes `00 ff`, the end is `00 01`) keeps the order of keys of any bytes, so a prefix is
//! one contiguous range. Numbers are big-endian, so that they sort.

use bytes::Bytes;

use crate::kv::{KeyRange, KeyValue, Revision, prefix_end};
use crate::lease::{Lease, LeaseId};

/// The key of the record that says where the view stands.
pub(crate) const POSITION_KEY: &[u8] = b"m";

const VERSION_SPACE: u8 = b'v';
const HISTORY_SPACE: u8 = b'h';
const FORMER_HISTORY_SPACE: u8 = b'r';
const LEASE_SPACE: u8 = b'l';
const KEY_END: [u8; 2] = [0x00, 0x01];
/// Length of a revision in a key.
const REVISION_LEN: usize = 8;

const KIND_DELETED: u8 = 0;
const KIND_PUT: u8 = 1;
/// A put with a lease.
const KIND_LEASED: u8 = 2;
/// Kind, create revision, version.
const STATE_HEADER_LEN: usize = 1 + 8 + 8;

/// Where a view stands: the last Raft entry in it and the revisions it can answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Index of the last applied entry; 0 before the first.
    pub(crate) index: u64,
    /// Term of that entry.
    pub(crate) term: u64,
    /// The newest revision.
    pub(crate) revision: Revision,
    /// The compaction point: history below it is gone.
    pub(crate) compacted: Revision,
}

impl Position {
    /// The empty store: revision 1, as in etcd.
    pub(crate) const EMPTY: Self = Self { index: 0, term: 0, revision: Revision(1), compacted: Revision(0) };

    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.index, self.term, self.revision.0, self.compacted.0].iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    /// `None` when the bytes are not a position.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != 32 {
            return None;
        }
        Some(Self {
            index: number(bytes, 0)?,
            term: number(bytes, 8)?,
            revision: Revision(number(bytes, 16)?),
            compacted: Revision(number(bytes, 24)?),
        })
    }
}

/// The state of a key at one revision as it lies in a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State<'a> {
    /// The key was deleted at that revision.
    Deleted,
    /// The key was written at that revision.
    Put { create_revision: Revision, version: u64, lease: LeaseId, value: &'a [u8] },
}

impl<'a> State<'a> {
    /// `None` when the bytes are not a state.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        match *bytes.first()? {
            KIND_DELETED => Some(Self::Deleted),
            KIND_PUT => Some(Self::Put {
                create_revision: Revision(number(bytes, 1)?),
                version: number(bytes, 9)?,
                lease: LeaseId::NONE,
                value: bytes.get(STATE_HEADER_LEN..)?,
            }),
            KIND_LEASED => Some(Self::Put {
                create_revision: Revision(number(bytes, 1)?),
                version: number(bytes, 9)?,
                lease: LeaseId(number(bytes, STATE_HEADER_LEN)?.cast_signed()),
                value: bytes.get(STATE_HEADER_LEN + 8..)?,
            }),
            _ => None,
        }
    }

    /// The state as the seam shows it; `None` for a deleted key.
    pub(crate) fn into_key_value(self, key: Bytes, mod_revision: Revision, keys_only: bool) -> Option<KeyValue> {
        let Self::Put { create_revision, version, lease, value } = self else { return None };
        let value = if keys_only { Bytes::new() } else { Bytes::copy_from_slice(value) };
        Some(KeyValue { key, value, create_revision, mod_revision, version, lease })
    }
}

/// The record of a written key.
pub(crate) fn encode_put(kv: &KeyValue) -> Vec<u8> {
    let mut out = Vec::with_capacity(STATE_HEADER_LEN + 8 + kv.value.len());
    out.push(if kv.lease.is_some() { KIND_LEASED } else { KIND_PUT });
    out.extend_from_slice(&kv.create_revision.0.to_be_bytes());
    out.extend_from_slice(&kv.version.to_be_bytes());
    if kv.lease.is_some() {
        out.extend_from_slice(&kv.lease.0.to_be_bytes());
    }
    out.extend_from_slice(&kv.value);
    out
}

/// The record of a deleted key.
pub(crate) fn encode_deleted() -> Vec<u8> {
    vec![KIND_DELETED]
}

/// Where the state of `key` at exactly `revision` lies.
pub(crate) fn version_key(key: &[u8], revision: Revision) -> Vec<u8> {
    let mut out = key_versions_start(key);
    out.extend_from_slice(&(!revision.0).to_be_bytes());
    out
}

/// All states of `key` at `newest` or older, newest first: the first key and the one behind the last.
pub(crate) fn versions_up_to(key: &[u8], newest: Revision) -> (Vec<u8>, Vec<u8>) {
    (version_key(key, newest), behind_key(&key_versions_start(key)))
}

/// All states of all keys of a range: the first key and the one behind the last.
pub(crate) fn versions_of_range(range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
    match range {
        KeyRange::Key(key) => {
            let start = key_versions_start(key);
            let end = behind_key(&start);
            (start, end)
        }
        KeyRange::Prefix(prefix) => {
            (escaped(prefix), prefix_end(prefix).map_or_else(|| vec![VERSION_SPACE + 1], |end| escaped(&end)))
        }
        KeyRange::Span { start, end } => (escaped(start), escaped(end)),
        KeyRange::From(start) => (escaped(start), vec![VERSION_SPACE + 1]),
    }
}

/// The whole version space: the first key and the one behind the last.
pub(crate) fn all_versions() -> (Vec<u8>, Vec<u8>) {
    (vec![VERSION_SPACE], vec![VERSION_SPACE + 1])
}

/// The whole history space: the first key and the one behind the last.
pub(crate) fn all_history() -> (Vec<u8>, Vec<u8>) {
    (vec![HISTORY_SPACE], vec![HISTORY_SPACE + 1])
}

/// Takes a version key apart: the part all versions of the key share, and the revision.
pub(crate) fn split_version_key(view_key: &[u8]) -> Option<(&[u8], Revision)> {
    let (shared, revision) = view_key.split_at_checked(view_key.len().checked_sub(REVISION_LEN)?)?;
    Some((shared, Revision(!number(revision, 0)?)))
}

/// The caller's key, from the part all its versions share.
pub(crate) fn unescape(shared: &[u8]) -> Option<Bytes> {
    let escaped = shared.strip_prefix(&[VERSION_SPACE])?.strip_suffix(&KEY_END)?;
    if !escaped.contains(&0) {
        return Some(Bytes::copy_from_slice(escaped));
    }
    let mut out = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(&byte) = bytes.next() {
        if byte == 0 && bytes.next() != Some(&0xff) {
            return None;
        }
        out.push(byte);
    }
    Some(out.into())
}

/// The first view key behind all versions that share this part.
pub(crate) fn behind_key(shared: &[u8]) -> Vec<u8> {
    let mut out = shared.to_vec();
    if let Some(last) = out.last_mut() {
        *last += 1; // the part ends with KEY_END, so this cannot overflow
    }
    out
}

/// Where the view key of `shared` at `newest` or older begins.
pub(crate) fn seek_version(shared: &[u8], newest: Revision) -> Vec<u8> {
    let mut out = shared.to_vec();
    out.extend_from_slice(&(!newest.0).to_be_bytes());
    out
}

/// Where the history record lies whose last change is of this revision.
pub(crate) fn history_key(last: Revision) -> Vec<u8> {
    let mut out = vec![HISTORY_SPACE];
    out.extend_from_slice(&last.0.to_be_bytes());
    out
}

/// Whether this is a record of history as it was written once, a record for each change: snapshots may have some.
pub(crate) fn is_former(view_key: &[u8]) -> bool {
    view_key.first() == Some(&FORMER_HISTORY_SPACE)
}

/// The revision of the last change in a history record.
pub(crate) fn history_revision(view_key: &[u8]) -> Option<Revision> {
    Some(Revision(number(view_key, 1)?))
}

/// Adds a change to a history record.
pub(crate) fn add_change(record: &mut Vec<u8>, revision: Revision, key: &[u8]) {
    record.extend_from_slice(&revision.0.to_be_bytes());
    record.extend_from_slice(&(key.len() as u64).to_be_bytes());
    record.extend_from_slice(key);
}

/// Takes the first change off a history record: its revision, the key, and what is behind it.
pub(crate) fn split_change(record: &[u8]) -> Option<(Revision, &[u8], &[u8])> {
    let revision = Revision(number(record, 0)?);
    let len = usize::try_from(number(record, 8)?).ok()?;
    let (key, rest) = record.get(16..)?.split_at_checked(len)?;
    Some((revision, key, rest))
}

/// The whole space of leases: the first key and the one behind the last.
pub(crate) fn all_leases() -> (Vec<u8>, Vec<u8>) {
    (vec![LEASE_SPACE], vec![LEASE_SPACE + 1])
}

/// Where the state lies that a lease has since the Raft entry `index`.
pub(crate) fn lease_key(id: LeaseId, index: u64) -> Vec<u8> {
    let mut out = vec![LEASE_SPACE];
    out.extend_from_slice(&id.0.to_be_bytes());
    out.extend_from_slice(&(!index).to_be_bytes());
    out
}

/// Takes a lease's key apart: its number, and the Raft entry since which it is so.
pub(crate) fn split_lease_key(view_key: &[u8]) -> Option<(LeaseId, u64)> {
    Some((LeaseId(number(view_key, 1)?.cast_signed()), !number(view_key, 9)?))
}

/// The record of a lease; `None` when it has ended.
pub(crate) fn encode_lease(lease: Option<&Lease>) -> Vec<u8> {
    lease.map_or_else(Vec::new, |lease| [lease.ttl.to_be_bytes(), lease.renewals.to_be_bytes()].concat())
}

/// The outer `None` when the bytes are not such a record.
#[allow(clippy::option_option, reason = "a record that says of a lease that it is gone is one that can be read")]
pub(crate) fn decode_lease(record: &[u8]) -> Option<Option<Lease>> {
    match record.len() {
        0 => Some(None),
        16 => Some(Some(Lease { ttl: number(record, 0)?.cast_signed(), renewals: number(record, 8)? })),
        _ => None,
    }
}

fn key_versions_start(key: &[u8]) -> Vec<u8> {
    let mut out = escaped(key);
    out.extend_from_slice(&KEY_END);
    out
}

fn escaped(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 1 + KEY_END.len() + REVISION_LEN);
    out.push(VERSION_SPACE);
    for &byte in key {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_any_bytes_keep_their_order_and_come_back() {
        let mut keys: Vec<&[u8]> =
            vec![b"", b"\0", b"\0\0", b"\0\x01", b"\0\xff", b"\x01", b"a", b"a\0", b"a\0b", b"a\x01", b"ab", b"\xff"];
        keys.sort_unstable();
        let encoded: Vec<Vec<u8>> = keys.iter().map(|key| version_key(key, Revision(7))).collect();
        assert!(encoded.is_sorted());
        for (key, view_key) in keys.iter().zip(&encoded) {
            let (shared, revision) = split_version_key(view_key).unwrap();
            assert_eq!((unescape(shared).unwrap(), revision), (Bytes::copy_from_slice(key), Revision(7)));
        }
    }

    #[test]
    fn a_range_of_versions_holds_exactly_the_keys_of_the_range() {
        let keys: Vec<&[u8]> = vec![b"a", b"a\0", b"a/", b"a/\xff", b"a0", b"b", b"\xff\xff"];
        let ranges = [
            KeyRange::Key("a".into()),
            KeyRange::Prefix("a/".into()),
            KeyRange::Prefix(Bytes::new()),
            KeyRange::Prefix(Bytes::from_static(b"\xff")),
            KeyRange::Span { start: "a/".into(), end: "b".into() },
            KeyRange::Span { start: "b".into(), end: "a".into() },
            KeyRange::From("a/".into()),
        ];
        for range in ranges {
            let (start, end) = versions_of_range(&range);
            for key in &keys {
                let view_key = version_key(key, Revision(3));
                assert_eq!(view_key >= start && view_key < end, range.contains(key), "{range:?} {key:?}");
            }
        }
    }

    #[test]
    fn newer_versions_of_a_key_come_first() {
        assert!(version_key(b"k", Revision(9)) < version_key(b"k", Revision(8)));
        let (start, end) = versions_up_to(b"k", Revision(8));
        assert!(version_key(b"k", Revision(9)) < start && version_key(b"k", Revision(0)) < end);
    }

    #[test]
    fn a_state_comes_back_with_its_lease_and_without_one_it_lies_as_it_always_has() {
        for (lease, kind) in [(LeaseId::NONE, KIND_PUT), (LeaseId(-7), KIND_LEASED)] {
            let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"value"));
            let kv = KeyValue {
                key: key.clone(),
                value,
                create_revision: Revision(3),
                mod_revision: Revision(5),
                version: 2,
                lease,
            };
            let record = encode_put(&kv);
            assert_eq!(record[0], kind);
            assert_eq!(State::decode(&record).unwrap().into_key_value(key, Revision(5), false), Some(kv));
        }
        for lease in [None, Some(Lease { ttl: 60, renewals: 9 })] {
            assert_eq!(decode_lease(&encode_lease(lease.as_ref())), Some(lease));
        }
        assert_eq!(split_lease_key(&lease_key(LeaseId(-7), 9)), Some((LeaseId(-7), 9)));
    }

    #[test]
    fn bytes_that_are_no_record_are_refused() {
        assert_eq!(State::decode(b""), None);
        assert_eq!(State::decode(b"\x01short"), None);
        assert_eq!(Position::decode(b"short"), None);
        assert_eq!(unescape(b"vkey"), None);
        assert_eq!(unescape(b"va\0b\0\x01"), None);
        assert_eq!(split_change(b"short"), None);
    }

    #[test]
    fn changes_of_a_history_record_come_back_in_their_order() {
        let mut record = Vec::new();
        let changes = [(Revision(7), &b"b"[..]), (Revision(7), b""), (Revision(9), b"a")];
        changes.iter().for_each(|(revision, key)| add_change(&mut record, *revision, key));
        let mut rest = &record[..];
        for change in changes {
            let (revision, key, behind) = split_change(rest).unwrap();
            assert_eq!((revision, key), change);
            rest = behind;
        }
        assert!(rest.is_empty());
        assert_eq!(split_change(&record[..record.len() - 1]).unwrap().2.len(), record.len() - 18);
        assert_eq!(split_change(&record[..16]), None);
    }
}
