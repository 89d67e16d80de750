//! What a transaction may be, checked before it is proposed: so that every member can apply whatever is in the log.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::kv::{Compare, KeyRange, KvError, Op, Txn};
use crate::txn::Target;

/// How much a store keeps and lets wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Revisions of history that are kept at least; the store compacts by itself when there are an eighth
    /// more. Whoever reads or watches from an older revision gets [`KvError::Compacted`].
    pub history_max: u64,
    /// Changes that may wait for one watcher; with more it is cut off with [`KvError::SlowWatcher`].
    pub watch_buffer_max: usize,
    /// Watchers at one time; with more a watch is refused with [`KvError::Unavailable`].
    pub watchers_max: usize,
    /// Bytes of keys and values that may live; with more only deletions are taken. `None`: no limit but memory.
    pub quota_bytes: Option<u64>,
}

impl Default for Limits {
    /// A busy cluster makes some ten revisions per second: an hour of history, tens of megabytes on disk.
    fn default() -> Self {
        Self { history_max: 50_000, watch_buffer_max: 10_000, watchers_max: 10_000, quota_bytes: None }
    }
}

/// Keys longer than this are refused. Kubernetes' longest keys (resource, namespace, name) stay below 700 bytes.
pub const KEY_LEN_MAX: usize = 8 * 1024;
/// Comparisons plus steps of a branch; etcd's `--max-txn-ops`.
pub const TXN_OPS_MAX: usize = 128;
/// Keys and values of a transaction, in bytes: somewhat more than etcd's `--max-request-bytes` of 1.5 MiB,
/// which is what an API server's users know as the largest object.
pub const TXN_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Transactions inside transactions: what a client may send is taken apart by recursion, here and where the log is
/// read.
pub const TXN_DEPTH_MAX: usize = 16;

/// Whether the transaction keeps the rules of the seam and the limits above.
pub(crate) fn check_txn(txn: &Txn) -> Result<(), KvError> {
    check_shape(txn, TXN_OPS_MAX, TXN_DEPTH_MAX)?;
    let bytes = txn_bytes(txn);
    if bytes > TXN_BYTES_MAX {
        return Err(invalid(format!("{bytes} bytes are more than {TXN_BYTES_MAX}")));
    }
    written_by(&txn.then)?;
    written_by(&txn.otherwise).map(|_| ())
}

/// Whether a transaction can change nothing, whatever its comparisons say.
pub(crate) fn only_reads(txn: &Txn) -> bool {
    txn.then.iter().chain(&txn.otherwise).all(|op| match op {
        Op::Range(_) => true,
        Op::Txn(inner) => only_reads(inner),
        Op::Put { .. } | Op::PutWith(_) | Op::Delete(_) => false,
    })
}

/// Bytes of keys and values in a transaction.
pub(crate) fn txn_bytes(txn: &Txn) -> usize {
    let compares = txn.compare.iter().map(|compare| match compare {
        Compare::ModRevision { key, .. } => key.len(),
        Compare::Value { key, equals } => key.len() + equals.len(),
        Compare::Check(check) => {
            range_len(&check.range) + if let Target::Value(value) = &check.target { value.len() } else { 0 }
        }
    });
    let ops = txn.then.iter().chain(&txn.otherwise).map(|op| match op {
        Op::Put { key, value } => key.len() + value.len(),
        Op::PutWith(put) => put.key.len() + put.value.as_ref().map_or(0, Bytes::len),
        Op::Delete(range) => range_len(range),
        Op::Range(request) => range_len(&request.range),
        Op::Txn(inner) => txn_bytes(inner),
    });
    compares.chain(ops).sum()
}

/// Numbers of steps, depth and keys. As with etcd, an inner transaction has as many steps left as the outer one leaves.
fn check_shape(txn: &Txn, ops_max: usize, depth_max: usize) -> Result<(), KvError> {
    let most = txn.compare.len().max(txn.then.len()).max(txn.otherwise.len());
    if most > ops_max {
        return Err(invalid(format!("{most} comparisons or steps are more than {ops_max}")));
    }
    if depth_max == 0 {
        return Err(invalid(format!("transactions lie in one another more than {TXN_DEPTH_MAX} deep")));
    }
    txn.compare.iter().try_for_each(check_compare)?;
    txn.then.iter().chain(&txn.otherwise).try_for_each(|op| match op {
        Op::Put { key, .. } => check_key(key),
        Op::PutWith(put) => check_key(&put.key),
        Op::Delete(KeyRange::Key(key)) => check_key(key),
        Op::Delete(_) | Op::Range(_) => Ok(()),
        Op::Txn(inner) => check_shape(inner, ops_max - most, depth_max - 1),
    })
}

/// What one branch writes.
#[derive(Default)]
struct Written<'t> {
    puts: BTreeSet<&'t Bytes>,
    deletions: Vec<&'t KeyRange>,
}

impl<'t> Written<'t> {
    /// Adds what another step of the same branch writes: at one revision a key changes once.
    fn and(&mut self, other: Written<'t>) -> Result<(), KvError> {
        let twice = other.puts.iter().find(|key| self.puts.contains(*key) || contain(&self.deletions, key));
        let gone = || self.puts.iter().find(|key| contain(&other.deletions, key));
        if let Some(key) = twice.or_else(gone) {
            return Err(invalid(format!("key {} is written twice", key.escape_ascii())));
        }
        self.puts.extend(other.puts);
        self.deletions.extend(other.deletions);
        Ok(())
    }
}

fn contain(ranges: &[&KeyRange], key: &Bytes) -> bool {
    ranges.iter().any(|range| range.contains(key))
}

fn written_by(ops: &[Op]) -> Result<Written<'_>, KvError> {
    let mut written = Written::default();
    for op in ops {
        written.and(match op {
            Op::Put { key, .. } => Written { puts: [key].into(), deletions: Vec::new() },
            Op::PutWith(put) => Written { puts: [&put.key].into(), deletions: Vec::new() },
            Op::Delete(range) => Written { puts: BTreeSet::new(), deletions: vec![range] },
            Op::Range(_) => continue,
            Op::Txn(inner) => {
                // Only one of its branches is taken.
                let (mut either, other) = (written_by(&inner.then)?, written_by(&inner.otherwise)?);
                either.puts.extend(other.puts);
                either.deletions.extend(other.deletions);
                either
            }
        })?;
    }
    Ok(written)
}

fn check_compare(compare: &Compare) -> Result<(), KvError> {
    match compare {
        Compare::ModRevision { key, .. } | Compare::Value { key, .. } => check_key(key),
        Compare::Check(check) => match &check.range {
            KeyRange::Key(key) => check_key(key),
            KeyRange::Prefix(_) | KeyRange::Span { .. } | KeyRange::From(_) => Ok(()),
        },
    }
}

fn check_key(key: &Bytes) -> Result<(), KvError> {
    match key.len() {
        0 => Err(invalid("a key is empty".to_owned())),
        len if len > KEY_LEN_MAX => Err(invalid(format!("a key of {len} bytes is longer than {KEY_LEN_MAX}"))),
        _ => Ok(()),
    }
}

fn range_len(range: &KeyRange) -> usize {
    match range {
        KeyRange::Key(key) | KeyRange::Prefix(key) | KeyRange::From(key) => key.len(),
        KeyRange::Span { start, end } => start.len() + end.len(),
    }
}

fn invalid(rule: String) -> KvError {
    KvError::Invalid { rule }
}
