//! The embedded store: opens a data folder, hands proposals to the member that owns it, reads what is applied.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::disk::{Disk, DiskLock, RealDisk};
use crate::evaluate::{Answer, Command, check_compaction};
use crate::kv::{
    KeyRange, Kv, KvError, RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchRequest, WatchStream,
};
use crate::limits::{Limits, check_txn, only_reads, txn_bytes};
use crate::member::{Member, Parts, Proposal, Shared};
use crate::mvcc::Mvcc;
use crate::recover::{DataFolder, OpenError};
use crate::sled_view::SledViews;
use crate::view::Views;

/// Proposals that wait for the log. When there are more, callers wait in [`Kv::txn`] until their time is up.
const PROPOSALS_MAX: usize = 1024;
/// What sled may keep of its pages in memory.
const VIEW_CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// The log is cut in whole segments: with four, little of it stays behind a snapshot.
const SEGMENTS_PER_LOG: u64 = 4;
/// A range that is not a single key and may return more than this is read on a blocking thread.
const INLINE_LIMIT: usize = 16;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where log and snapshots lie. One process at a time.
    pub disk: Arc<dyn Disk>,
    /// Where the view lies. It is rebuilt when it is lost.
    pub views: Arc<dyn Views>,
    /// Raft's time.
    pub clock: SharedClock,
    /// Raft's chance.
    pub rng: SharedRng,
    /// History and watchers.
    pub limits: Limits,
    /// The log is cut when it has grown by this many bytes, or by as many as the last snapshot had if that is more.
    pub log_bytes: u64,
    /// How long a write may take before the caller is told [`KvError::Unavailable`]. Disks were seen to stall
    /// for half a minute; the write may still happen.
    pub request_timeout: Duration,
}

impl StoreConfig {
    /// A store in a folder, which is made if it is missing: `log/`, `snapshots/`, `view/` and some small files.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, clock: SharedClock, rng: SharedRng) -> Self {
        let data_dir = data_dir.into();
        Self {
            views: Arc::new(SledViews::new(data_dir.join("view"), VIEW_CACHE_BYTES)),
            disk: Arc::new(RealDisk::new(data_dir)),
            clock,
            rng,
            limits: Limits::default(),
            log_bytes: 16 * 1024 * 1024,
            request_timeout: Duration::from_secs(7), // etcd's: 5 s and two election timeouts
        }
    }
}

/// The embedded store. Dropping it closes it in the background; [`Store::close`] waits until that is done.
#[derive(Debug)]
pub struct Store {
    mvcc: Arc<Mvcc>,
    proposals: mpsc::Sender<Proposal>,
    shared: Arc<Shared>,
    request_timeout: Duration,
    member: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens a store and replays what is in its log; when it returns, the store is ready. Needs a tokio runtime.
    pub async fn open(config: StoreConfig) -> Result<Arc<Self>, OpenError> {
        let segment_bytes = config.log_bytes / SEGMENTS_PER_LOG;
        let folder = DataFolder { disk: config.disk, views: config.views, segment_bytes };
        let opening = folder.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let lock = opening.disk.lock()?;
            let start = opening.start()?;
            Ok::<_, OpenError>((lock, start))
        });
        let (lock, start) = opened.await.map_err(OpenError::Interrupted)??;
        let mvcc = Arc::new(Mvcc::new(start.view.clone(), config.limits)?);
        let shared = Arc::new(Shared::default());
        let (proposals, receiver) = mpsc::channel(PROPOSALS_MAX);
        let (ready, is_ready) = oneshot::channel();
        let parts = Parts {
            folder,
            mvcc: mvcc.clone(),
            shared: shared.clone(),
            clock: config.clock,
            rng: config.rng,
            history_max: config.limits.history_max,
            log_bytes: config.log_bytes,
            proposals: receiver,
            ready,
        };
        let member = tokio::spawn(run(Member::new(start, parts)?, lock));
        let member = Mutex::new(Some(member));
        let store = Self { mvcc, proposals, shared, request_timeout: config.request_timeout, member };
        if is_ready.await.is_err() {
            return Err(OpenError::Stopped(store.why_stopped()));
        }
        Ok(Arc::new(store))
    }

    /// Finishes what was begun, ends all watches and syncs the view, so that the next start is quick whatever
    /// happens to the machine. Everything after it gets [`KvError::Closed`]. Fails if the store had to stop before.
    pub async fn close(&self) -> Result<(), KvError> {
        self.shared.closing.cancel();
        if let Some(member) = self.member.lock().await.take() {
            let _ = member.await; // a member that has failed has said so
        }
        self.shared.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn check_open(&self) -> Result<(), KvError> {
        if self.shared.closing.is_cancelled() { Err(KvError::Closed) } else { Ok(()) }
    }

    async fn propose(&self, command: Command, bytes: usize) -> Result<Answer, KvError> {
        self.check_open()?;
        let (reply, answer) = oneshot::channel();
        let proposed = async {
            let sent = self.proposals.send(Proposal { command, bytes, reply }).await;
            sent.map_err(|_| self.why_stopped())?;
            answer.await.map_err(|_| self.why_stopped())?
        };
        let late = |_| KvError::Unavailable { reason: format!("no answer within {:?}", self.request_timeout) };
        tokio::time::timeout(self.request_timeout, proposed).await.map_err(late)?
    }

    fn why_stopped(&self) -> KvError {
        self.shared.failure.get().cloned().unwrap_or(KvError::Closed)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

/// Holds the data folder as long as the member runs.
async fn run(member: Member, lock: DiskLock) {
    member.run().await;
    drop(lock);
}

#[async_trait::async_trait]
impl Kv for Store {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, KvError> {
        // What was acknowledged is applied: with one member the newest applied state is linearizable.
        self.check_open()?;
        let single = matches!(request.range, KeyRange::Key(_));
        if single || (1..=INLINE_LIMIT).contains(&request.limit) {
            return self.mvcc.range(&request);
        }
        let mvcc = self.mvcc.clone();
        let read = tokio::task::spawn_blocking(move || mvcc.range(&request)).await;
        read.map_err(|err| KvError::Unavailable { reason: err.to_string() })?
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        check_txn(&txn)?;
        if only_reads(&txn) {
            self.check_open()?;
            return self.mvcc.query(&txn);
        }
        let bytes = txn_bytes(&txn);
        match self.propose(Command::Txn(txn), bytes).await? {
            Answer::Txn(response) => Ok(response),
            Answer::Compacted => Err(KvError::Unavailable { reason: "answered as a compaction".to_owned() }),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, KvError> {
        self.check_open()?;
        Ok(self.mvcc.watch(request))
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        check_compaction(revision, &self.mvcc.position())?;
        self.propose(Command::Compact(revision), 0).await.map(|_| ())
    }

    fn revision(&self) -> Revision {
        self.mvcc.position().revision
    }
}
