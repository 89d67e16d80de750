//! What a transaction may be, checked before it is proposed: so that every member can apply whatever is in the log.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::kv::{Compare, KeyRange, KvError, Op, Txn};

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
}

impl Default for Limits {
    /// A busy cluster makes some ten revisions per second: an hour of history, tens of megabytes on disk.
    fn default() -> Self {
        Self { history_max: 50_000, watch_buffer_max: 10_000, watchers_max: 10_000 }
    }
}

/// Keys longer than this are refused. Kubernetes' longest keys (resource, namespace, name) stay below 700 bytes.
pub const KEY_LEN_MAX: usize = 8 * 1024;
/// Comparisons plus steps of a branch; etcd's `--max-txn-ops`.
pub const TXN_OPS_MAX: usize = 128;
/// Keys and values of a transaction, in bytes: somewhat more than etcd's `--max-request-bytes` of 1.5 MiB,
/// which is what an API server's users know as the largest object.
pub const TXN_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Whether the transaction keeps the rules of the seam and the limits above.
pub(crate) fn check_txn(txn: &Txn) -> Result<(), KvError> {
    let bytes = txn_bytes(txn);
    if bytes > TXN_BYTES_MAX {
        return Err(invalid(format!("{bytes} bytes are more than {TXN_BYTES_MAX}")));
    }
    for (what, n) in [("comparisons", txn.compare.len()), ("steps", txn.then.len().max(txn.otherwise.len()))] {
        if n > TXN_OPS_MAX {
            return Err(invalid(format!("{n} {what} are more than {TXN_OPS_MAX}")));
        }
    }
    txn.compare.iter().map(compare_key).try_for_each(check_key)?;
    check_branch(&txn.then)?;
    check_branch(&txn.otherwise)
}

/// Whether a transaction can change nothing, whatever its comparisons say.
pub(crate) fn only_reads(txn: &Txn) -> bool {
    txn.then.iter().chain(&txn.otherwise).all(|op| matches!(op, Op::Range(_)))
}

/// Bytes of keys and values in a transaction.
pub(crate) fn txn_bytes(txn: &Txn) -> usize {
    let compares = txn.compare.iter().map(|compare| match compare {
        Compare::ModRevision { key, .. } => key.len(),
        Compare::Value { key, equals } => key.len() + equals.len(),
    });
    let ops = txn.then.iter().chain(&txn.otherwise).map(|op| match op {
        Op::Put { key, value } => key.len() + value.len(),
        Op::Delete(range) => range_len(range),
        Op::Range(request) => range_len(&request.range),
    });
    compares.chain(ops).sum()
}

fn check_branch(ops: &[Op]) -> Result<(), KvError> {
    let mut written = BTreeSet::new();
    for op in ops {
        let Op::Put { key, .. } = op else { continue };
        check_key(key)?;
        if !written.insert(key) {
            return Err(invalid(format!("key {} is written twice", key.escape_ascii())));
        }
    }
    for op in ops {
        let Op::Delete(range) = op else { continue };
        if let KeyRange::Key(key) = range {
            check_key(key)?;
        }
        if let Some(key) = written.iter().find(|key| range.contains(key)) {
            return Err(invalid(format!("key {} is written and deleted", key.escape_ascii())));
        }
    }
    Ok(())
}

fn check_key(key: &Bytes) -> Result<(), KvError> {
    match key.len() {
        0 => Err(invalid("a key is empty".to_owned())),
        len if len > KEY_LEN_MAX => Err(invalid(format!("a key of {len} bytes is longer than {KEY_LEN_MAX}"))),
        _ => Ok(()),
    }
}

fn compare_key(compare: &Compare) -> &Bytes {
    match compare {
        Compare::ModRevision { key, .. } | Compare::Value { key, .. } => key,
    }
}

fn range_len(range: &KeyRange) -> usize {
    match range {
        KeyRange::Key(key) | KeyRange::Prefix(key) => key.len(),
        KeyRange::Span { start, end } => start.len() + end.len(),
    }
}

fn invalid(rule: String) -> KvError {
    KvError::Invalid { rule }
}
