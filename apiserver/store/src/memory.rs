//! A store in memory, for tests and simulation: the same rules as the embedded store, no Raft and no disk.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use reeve_api::clock::RealClock;
use tokio::sync::watch;

use crate::evaluate::{Answer, Command, check_compaction};
use crate::hash::HashKv;
use crate::hold::Hold;
use crate::kv::{Kv, KvError, RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchRequest, WatchStream};
use crate::lease::{LeaseGrant, LeaseId, LeaseStatus};
use crate::lessor::Lessor;
use crate::limits::{Limits, check_txn, only_reads};
use crate::mvcc::{Mvcc, due_compaction};
use crate::view::{MemoryView, ViewError};

/// See the module. Never blocks; ends with its last handle.
#[derive(Debug)]
pub struct MemoryKv {
    inner: Arc<Inner>,
    /// Whether somebody ends leases: from the first one on.
    keeps_leases: Once,
}

#[derive(Debug)]
struct Inner {
    mvcc: Arc<Mvcc>,
    lessor: Lessor,
    history_max: u64,
    /// The number of the next lease that the store names.
    next_lease: AtomicI64,
    /// Held by whoever writes.
    writing: Mutex<()>,
    /// Whoever ends leases ends with the store.
    leading: watch::Sender<bool>,
}

impl MemoryKv {
    /// An empty store that keeps what [`Limits::default`] says.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// An empty store.
    #[must_use]
    #[allow(
        clippy::missing_panics_doc,
        clippy::expect_used,
        reason = "an empty map in memory has no position to misread"
    )]
    pub fn with_limits(limits: Limits) -> Self {
        let mvcc = Arc::new(Mvcc::new(Arc::new(MemoryView::default()), limits).expect("an empty view is sound"));
        let inner = Inner {
            lessor: Lessor::new(mvcc.clone(), RealClock::shared()),
            mvcc,
            history_max: limits.history_max,
            next_lease: AtomicI64::new(1),
            writing: Mutex::new(()),
            leading: watch::Sender::new(true),
        };
        Self { inner: Arc::new(inner), keeps_leases: Once::new() }
    }

    /// Ends leases when their time is up, for as long as the store is there.
    fn keep_leases(&self) {
        self.keeps_leases.call_once(|| {
            let (inner, mut leading) = (Arc::downgrade(&self.inner), self.inner.leading.subscribe());
            tokio::spawn(async move {
                loop {
                    let Some((mvcc, due)) = inner.upgrade().map(|inner| (inner.mvcc.clone(), inner.end_leases()))
                    else {
                        return;
                    };
                    let pause = due.map_or_else(|| FOREVER, |pause| pause.min(FOREVER));
                    tokio::select! {
                        _ = leading.changed() => return,
                        () = mvcc.lease_touched() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            });
        });
    }
}

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(86_400);

impl Inner {
    /// Ends the leases whose time is up; when the next one's is.
    fn end_leases(&self) -> Option<Duration> {
        loop {
            let (expired, next) = self.lessor.due();
            if expired.is_empty() {
                return next;
            }
            let ended: Result<Vec<_>, _> = expired.into_iter().map(|command| self.apply(command)).collect();
            if ended.is_err() {
                return None;
            }
        }
    }

    fn apply(&self, command: Command) -> Result<Answer, KvError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = self.apply_one(command)?;
        if let Some(revision) = due_compaction(&self.mvcc.position(), self.history_max) {
            self.apply_one(Command::Compact(revision))?;
        }
        Ok(answer)
    }

    fn apply_one(&self, command: Command) -> Result<Answer, KvError> {
        let failed = |err: ViewError| KvError::Storage { what: "memory".to_owned(), reason: err.to_string() };
        let compacts = matches!(command, Command::Compact(_));
        let mut answers = self.mvcc.apply(&[vec![command]], (0, 0)).map_err(failed)?;
        while (compacts || self.mvcc.wants_scrub()) && self.mvcc.scrub().map_err(failed)? {}
        answers.pop().unwrap_or(Err(KvError::Closed))
    }
}

impl Default for MemoryKv {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait::async_trait]
impl Kv for MemoryKv {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        self.inner.mvcc.range(&request)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        check_txn(&txn)?;
        if only_reads(&txn) {
            return self.inner.mvcc.query(&txn);
        }
        match self.inner.apply(Command::Txn(txn))? {
            Answer::Txn(response) => Ok(response),
            other => Err(other.unexpected()),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, KvError> {
        Ok(self.inner.mvcc.watch(request))
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        check_compaction(revision, &self.inner.mvcc.position())?;
        self.inner.apply(Command::Compact(revision)).map(|_| ())
    }

    async fn scrubbed(&self, revision: Revision) -> Result<(), KvError> {
        self.inner.mvcc.scrubbed(revision).await;
        Ok(())
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<LeaseGrant, KvError> {
        self.keep_leases();
        let id = if id.is_some() { id } else { LeaseId(self.inner.next_lease.fetch_add(1, Ordering::Relaxed)) };
        match self.inner.apply(Command::LeaseGrant(id, ttl, 0))? {
            Answer::Granted(grant) => Ok(grant),
            other => Err(other.unexpected()),
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, KvError> {
        match self.inner.apply(Command::LeaseRevoke(id))? {
            Answer::Revoked(revision) => Ok(revision),
            other => Err(other.unexpected()),
        }
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>, KvError> {
        match self.inner.apply(Command::LeaseRenew(id))? {
            Answer::Renewed(ttl) => Ok(ttl),
            other => Err(other.unexpected()),
        }
    }

    async fn lease_status(&self, id: LeaseId, keys: bool) -> Result<Option<LeaseStatus>, KvError> {
        let lessor = &self.inner.lessor;
        Ok(lessor.left(id).and_then(|left| lessor.status(id, left, keys)))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError> {
        Ok(self.inner.lessor.ids())
    }

    fn revision(&self) -> Revision {
        self.inner.mvcc.position().revision
    }

    async fn newest(&self) -> Result<Revision, KvError> {
        Ok(self.revision())
    }

    fn hold(&self) -> Hold {
        self.inner.mvcc.hold()
    }

    async fn hash_kv(&self, revision: Option<Revision>) -> Result<HashKv, KvError> {
        self.inner.mvcc.hash(revision)
    }
}
