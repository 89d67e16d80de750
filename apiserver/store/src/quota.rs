//! How much may live in a store: etcd's `--quota-backend-bytes`. Counted are keys and values as they are now, for they
//! are held in memory; the past is bounded by [`crate::Limits::history_max`], the disk looked after by
//! [`crate::space`].
//!
//! As etcd with its alarm `NOSPACE`: with the quota used up only what takes something away is taken. Other than there
//! the alarm ends by itself when enough was deleted.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::kv::{KvError, Txn};
use crate::space;

/// What a store may hold, and whether it was too much.
#[derive(Debug)]
pub(crate) struct Quota {
    bytes: Option<u64>,
    alarm: AtomicBool,
}

impl Quota {
    /// `None` is no limit.
    pub(crate) fn new(bytes: Option<u64>) -> Self {
        Self { bytes, alarm: AtomicBool::new(false) }
    }

    /// Whether a transaction of so many bytes may be proposed when so much lives.
    pub(crate) fn check(&self, txn: &Txn, bytes: usize, live: u64) -> Result<(), KvError> {
        let Some(quota) = self.bytes else { return Ok(()) };
        if space::only_takes_away(txn) {
            return Ok(());
        }
        // Without some room in between it would begin and end with every write.
        let was_raised = self.alarm.load(Ordering::Relaxed);
        let allowed = if was_raised { quota - quota / 16 } else { quota };
        let is_raised = live.saturating_add(bytes as u64) > allowed;
        if self.alarm.swap(is_raised, Ordering::Relaxed) != is_raised {
            if is_raised {
                tracing::error!(live, quota, "The store's quota is used up: only deletions are taken.");
            } else {
                tracing::info!(live, quota, "The store's quota has room again.");
            }
        }
        if !is_raised {
            return Ok(());
        }
        let reason = format!(
            "database space exceeded: {live} bytes of {quota} are used; delete objects, or start with a larger \
             --quota-backend-bytes"
        );
        Err(KvError::Storage { what: "into the store".to_owned(), reason })
    }

    /// Whether writes are refused.
    pub(crate) fn is_raised(&self) -> bool {
        self.alarm.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{KeyRange, Op};

    #[test]
    fn with_the_quota_used_up_only_deletions_are_taken_until_there_is_room() {
        let put = Txn { then: vec![Op::Put { key: "k".into(), value: "v".into() }], ..Txn::default() };
        let delete = Txn { then: vec![Op::Delete(KeyRange::Key("k".into()))], ..Txn::default() };
        let quota = Quota::new(Some(1600));
        quota.check(&put, 100, 1500).unwrap();
        let told = quota.check(&put, 101, 1500).unwrap_err().to_string();
        assert!(told.contains("database space exceeded: 1500 bytes of 1600 are used"), "{told}");
        assert!(quota.is_raised());
        assert!(quota.check(&put, 1, 1500).is_err());
        quota.check(&delete, 1, 2000).unwrap();
        quota.check(&put, 1, 1400).unwrap();
        assert!(!quota.is_raised());
        Quota::new(None).check(&put, 1, u64::MAX).unwrap();
    }
}
