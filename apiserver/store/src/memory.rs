//! A store in memory, for tests and simulation: the same rules as the embedded store, no Raft and no disk.

use std::sync::{Arc, Mutex, PoisonError};

use crate::evaluate::{Answer, Command, check_compaction};
use crate::hash::HashKv;
use crate::hold::Hold;
use crate::kv::{Kv, KvError, RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchRequest, WatchStream};
use crate::limits::{Limits, check_txn, only_reads};
use crate::mvcc::{Mvcc, due_compaction};
use crate::view::{MemoryView, ViewError};

/// See the module. Never blocks; ends with its last handle.
#[derive(Debug)]
pub struct MemoryKv {
    mvcc: Arc<Mvcc>,
    history_max: u64,
    /// Held by whoever writes.
    writing: Mutex<()>,
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
        let mvcc = Mvcc::new(Arc::new(MemoryView::default()), limits).expect("an empty view is sound");
        Self { mvcc: Arc::new(mvcc), history_max: limits.history_max, writing: Mutex::new(()) }
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
        while compacts && self.mvcc.scrub().map_err(failed)? {}
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
        self.mvcc.range(&request)
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        check_txn(&txn)?;
        if only_reads(&txn) {
            return self.mvcc.query(&txn);
        }
        match self.apply(Command::Txn(txn))? {
            Answer::Txn(response) => Ok(response),
            Answer::Compacted => Err(KvError::Closed),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, KvError> {
        Ok(self.mvcc.watch(request))
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        check_compaction(revision, &self.mvcc.position())?;
        self.apply(Command::Compact(revision)).map(|_| ())
    }

    fn revision(&self) -> Revision {
        self.mvcc.position().revision
    }

    fn hold(&self) -> Hold {
        self.mvcc.hold()
    }

    async fn hash_kv(&self, revision: Option<Revision>) -> Result<HashKv, KvError> {
        self.mvcc.hash(revision)
    }
}
