//! The embedded store: opens a data folder, hands proposals to the member that owns it, reads what is applied.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::disk::{Disk, DiskLock, RealDisk};
use crate::evaluate::{Answer, Command, check_compaction};
use crate::file_view::FileViews;
use crate::hash::HashKv;
use crate::hold::Hold;
use crate::jobs::Jobs;
use crate::kv::{
    KeyRange, Kv, KvError, RangeRequest, RangeResponse, Revision, Txn, TxnResponse, WatchRequest, WatchStream,
};
use crate::lease::{LeaseGrant, LeaseId, LeaseStatus};
use crate::lessor::Lessor;
use crate::limits::{Limits, check_txn, only_reads, txn_bytes};
use crate::member::{Control, Member, Parts, Proposal, ReadReply, Shared};
use crate::mvcc::Mvcc;
use crate::quota::Quota;
use crate::recover::{DataFolder, Identity, OpenError, Start};
use crate::status::{Change, Leadership, MemberError, MemberStatus};
use crate::transport::{Inbox, MemberConfig, Peer, Transport, inbox};
use crate::verify::{self, Report};
use crate::view::Views;

/// Proposals that wait for the log. When there are more, callers wait in [`Kv::txn`] until their time is up.
const PROPOSALS_MAX: usize = 1024;
/// Readers that wait to be let in. When there are more, callers wait.
const READS_MAX: usize = 1024;
/// Questions about the group and changes of it that wait; when there are more, callers wait.
const CONTROLS_MAX: usize = 16;
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
    /// As whom it is opened.
    pub member: MemberConfig,
    /// Where work goes that waits for the disk.
    pub jobs: Jobs,
}

impl StoreConfig {
    /// A store in a folder, which is made if it is missing: `log/`, `snapshots/`, `view/` and some small files.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, clock: SharedClock, rng: SharedRng) -> Self {
        let data_dir = data_dir.into();
        Self {
            views: Arc::new(FileViews::new(data_dir.join("view"))),
            disk: Arc::new(RealDisk::new(data_dir)),
            clock,
            rng,
            limits: Limits::default(),
            log_bytes: 16 * 1024 * 1024,
            request_timeout: Duration::from_secs(7), // etcd's: 5 s and two election timeouts
            member: MemberConfig::Sole,
            jobs: Jobs::threads(),
        }
    }
}

/// The embedded store. Dropping it closes it in the background; [`Store::close`] waits until that is done.
#[derive(Debug)]
pub struct Store {
    mvcc: Arc<Mvcc>,
    disk: Arc<dyn Disk>,
    quota: Quota,
    proposals: mpsc::Sender<Proposal>,
    reads: mpsc::Sender<ReadReply>,
    controls: mpsc::Sender<Control>,
    jobs: Jobs,
    inbox: Inbox,
    leadership: watch::Receiver<Leadership>,
    shared: Arc<Shared>,
    request_timeout: Duration,
    rng: SharedRng,
    lessor: Arc<Lessor>,
    member: Mutex<Option<JoinHandle<()>>>,
}

/// Takes a folder and reads all that the store starts from. A view that cannot be read is made anew. Blocks.
fn open_folder(
    folder: &DataFolder,
    identity: Identity,
    limits: Limits,
) -> Result<(DiskLock, Start, Arc<Mvcc>), OpenError> {
    let lock = folder.disk.lock()?;
    let start = folder.start(identity.clone())?;
    match Mvcc::new(start.view.clone(), limits) {
        Ok(mvcc) => Ok((lock, start, Arc::new(mvcc))),
        Err(err) => {
            tracing::warn!(%err, "The view is rebuilt.");
            drop(start);
            folder.give_up_view()?;
            let start = folder.start(identity)?;
            let mvcc = Mvcc::new(start.view.clone(), limits)?;
            Ok((lock, start, Arc::new(mvcc)))
        }
    }
}

impl Store {
    /// Opens a store and replays what is in its log; when it returns, the store is ready. Needs a tokio runtime.
    pub async fn open(config: StoreConfig) -> Result<Arc<Self>, OpenError> {
        let segment_bytes = config.log_bytes / SEGMENTS_PER_LOG;
        let disk = config.disk.clone();
        let folder = DataFolder { disk: config.disk, views: config.views, segment_bytes };
        let (opening, identity, limits) = (folder.clone(), Identity::of(&config.member), config.limits);
        let opened = config.jobs.spawn(move || open_folder(&opening, identity, limits));
        let (lock, start, mvcc) = opened.await.map_err(OpenError::Interrupted)??;
        let quota = Quota::new(config.limits.quota_bytes);
        let shared = Arc::new(Shared::default());
        let (proposals, receiver) = mpsc::channel(PROPOSALS_MAX);
        let (controls, control_receiver) = mpsc::channel(CONTROLS_MAX);
        let (reads, read_receiver) = mpsc::channel(READS_MAX);
        let (transport, address, peers) = reached(&config.member);
        let (inbox, mail) = inbox(start.identity.id, shared.removed.clone());
        let (leadership_sender, leadership) = watch::channel(Leadership::default());
        let (ready, is_ready) = oneshot::channel();
        let lessor = Arc::new(Lessor::new(mvcc.clone(), config.clock.clone()));
        let rng = config.rng.clone();
        let parts = Parts {
            folder,
            mvcc: mvcc.clone(),
            lessor: lessor.clone(),
            shared: shared.clone(),
            clock: config.clock,
            rng: config.rng,
            history_max: config.limits.history_max,
            log_bytes: config.log_bytes,
            jobs: config.jobs.clone(),
            proposals: receiver,
            reads: read_receiver,
            transport,
            address,
            peers,
            controls: control_receiver,
            mail,
            leadership: leadership_sender,
            ready,
        };
        let member = tokio::spawn(run(Member::new(start, parts)?, lock));
        let member = Mutex::new(Some(member));
        let (request_timeout, jobs) = (config.request_timeout, config.jobs);
        let store = Self {
            mvcc,
            disk,
            quota,
            proposals,
            reads,
            controls,
            jobs,
            inbox,
            leadership,
            shared,
            request_timeout,
            rng,
            lessor,
            member,
        };
        if is_ready.await.is_err() {
            return Err(OpenError::Stopped(store.why_stopped()));
        }
        let store = Arc::new(store);
        let parts = (store.lessor.clone(), store.leadership.clone(), store.shared.clone());
        tokio::spawn(keep_leases(Arc::downgrade(&store), parts));
        Ok(store)
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

    /// Where the transport hands in what other members send.
    #[must_use]
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Whether the member has stopped because the others have taken it out of the group.
    #[must_use]
    pub fn was_removed(&self) -> bool {
        self.shared.was_removed.load(Ordering::SeqCst)
    }

    /// Who leads, as this member sees it, now and whenever that changes. The sender is gone when the member has
    /// stopped, for whatever reason.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// What this member knows of itself and its group.
    pub async fn status(&self) -> Result<MemberStatus, MemberError> {
        self.control(Control::Status).await
    }

    /// Adds a member that does not vote yet: it gets everything, and can be promoted when it has caught up. Any member
    /// may be asked this and the following; the leader decides.
    pub async fn add_learner(&self, id: u64, address: &str) -> Result<(), MemberError> {
        self.change(Change::AddLearner { id, address: address.to_owned() }).await
    }

    /// Makes a voter of a learner that has caught up.
    pub async fn promote(&self, id: u64) -> Result<(), MemberError> {
        self.change(Change::Promote { id }).await
    }

    /// Removes a member for good. Its number is not used again.
    pub async fn remove(&self, id: u64) -> Result<(), MemberError> {
        self.change(Change::Remove { id }).await
    }

    /// Gives the vote of a member, dead or alive, to a learner that has caught up, in one step.
    pub async fn replace(&self, id: u64, learner: u64) -> Result<(), MemberError> {
        self.change(Change::Replace { id, by: learner }).await
    }

    /// Says where a member can be reached from now on.
    pub async fn move_member(&self, id: u64, address: &str) -> Result<(), MemberError> {
        self.change(Change::Move { id, address: address.to_owned() }).await
    }

    /// Makes another voter leader: this one, or the one that is furthest. Returns when it is.
    pub async fn transfer_leadership(&self, id: Option<u64>) -> Result<(), MemberError> {
        self.change(Change::Transfer { id }).await
    }

    async fn change(&self, change: Change) -> Result<(), MemberError> {
        self.control(|reply| Control::Change(change, reply)).await
    }

    async fn control<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, MemberError>>) -> Control,
    ) -> Result<T, MemberError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let sent = self.controls.send(question(reply)).await;
            sent.map_err(|_| self.why_stopped())?;
            answer.await.map_err(|_| self.why_stopped())?
        };
        let late = |_| MemberError::Unavailable { reason: format!("no answer within {:?}", self.request_timeout) };
        tokio::time::timeout(self.request_timeout, asked).await.map_err(late)?
    }

    /// Whether the quota is used up ([`Limits::quota_bytes`]): etcd's alarm `NOSPACE`.
    pub fn is_over_quota(&self) -> bool {
        self.quota.is_raised()
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
        tokio::time::timeout(self.request_timeout, proposed).await.map_err(|_| self.late())?
    }

    /// Waits until everything is visible here that was acknowledged, by whomever, before this was called.
    async fn catch_up(&self) -> Result<(), KvError> {
        self.check_open()?;
        if self.shared.alone.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.reads.send(reply).await.map_err(|_| self.why_stopped())?;
            answer.await.map_err(|_| self.why_stopped())
        };
        tokio::time::timeout(self.request_timeout, asked).await.map_err(|_| self.late())?
    }

    /// Reads the disk where nobody waits for it but the caller.
    async fn read_blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, KvError> + Send + 'static,
    ) -> Result<T, KvError> {
        self.jobs.spawn(read).await.map_err(|err| KvError::Unavailable { reason: err.to_string() })?
    }

    fn late(&self) -> KvError {
        let leader = self.leadership.borrow().leader;
        let why = leader.map_or_else(|| ": there is no leader".to_owned(), |leader| format!(" of leader {leader}"));
        KvError::Unavailable { reason: format!("no answer within {:?}{why}", self.request_timeout) }
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

/// Ends leases whose time is up while this member leads, until the store closes.
async fn keep_leases(store: Weak<Store>, parts: (Arc<Lessor>, watch::Receiver<Leadership>, Arc<Shared>)) {
    let (lessor, leadership, shared) = parts;
    let propose = |command| {
        let store = store.clone();
        async move {
            let Some(store) = store.upgrade() else { return Err(KvError::Closed) };
            store.propose(command, 0).await.map(|_| ())
        }
    };
    tokio::select! {
        () = lessor.run(leadership, propose) => {}
        () = shared.closing.cancelled() => {}
    }
}

/// How a member reaches others: the transport, its own address, and whom it was told of.
fn reached(config: &MemberConfig) -> (Option<Arc<dyn Transport>>, Option<String>, Vec<Peer>) {
    match config {
        MemberConfig::Sole => (None, None, Vec::new()),
        MemberConfig::Cluster { id, peers, transport, .. } | MemberConfig::Join { id, peers, transport, .. } => {
            let own = peers.iter().find(|peer| peer.id == *id).map(|peer| peer.address.clone());
            let others = peers.iter().filter(|peer| peer.id != *id).cloned().collect();
            (Some(transport.clone()), own, others)
        }
    }
}

/// What a caller is told who has asked for nothing of the members.
fn as_kv_error(err: MemberError) -> KvError {
    match err {
        MemberError::Stopped(err) => err,
        MemberError::Unavailable { reason } => KvError::Unavailable { reason },
        other => KvError::Unavailable { reason: other.to_string() },
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
        self.catch_up().await?;
        let single = matches!(request.range, KeyRange::Key(_));
        if single || (1..=INLINE_LIMIT).contains(&request.limit) {
            return self.mvcc.range(&request);
        }
        let mvcc = self.mvcc.clone();
        self.read_blocking(move || mvcc.range(&request)).await
    }

    async fn txn(&self, txn: Txn) -> Result<TxnResponse, KvError> {
        check_txn(&txn)?;
        if only_reads(&txn) {
            self.catch_up().await?;
            return self.mvcc.query(&txn);
        }
        let bytes = txn_bytes(&txn);
        self.quota.check(&txn, bytes, self.mvcc.live_bytes())?;
        match self.propose(Command::Txn(txn), bytes).await? {
            Answer::Txn(response) => Ok(response),
            other => Err(other.unexpected()),
        }
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream, KvError> {
        self.check_open()?;
        Ok(self.mvcc.watch(request))
    }

    async fn compact(&self, revision: Revision) -> Result<(), KvError> {
        self.catch_up().await?;
        check_compaction(revision, &self.mvcc.position())?;
        self.propose(Command::Compact(revision), 0).await.map(|_| ())
    }

    async fn scrubbed(&self, revision: Revision) -> Result<(), KvError> {
        tokio::select! {
            () = self.mvcc.scrubbed(revision) => Ok(()),
            () = self.shared.closing.cancelled() => Err(KvError::Closed),
        }
    }

    async fn lease_grant(&self, id: LeaseId, ttl: i64) -> Result<LeaseGrant, KvError> {
        let chosen = || LeaseId((self.rng.next_u64() >> 1).max(1).cast_signed());
        let id = if id.is_some() { id } else { chosen() };
        match self.propose(Command::LeaseGrant(id, ttl, self.rng.next_u64()), 0).await? {
            Answer::Granted(grant) => Ok(grant),
            other => Err(other.unexpected()),
        }
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<Revision, KvError> {
        match self.propose(Command::LeaseRevoke(id), 0).await? {
            Answer::Revoked(revision) => Ok(revision),
            other => Err(other.unexpected()),
        }
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>, KvError> {
        match self.propose(Command::LeaseRenew(id), 0).await? {
            Answer::Renewed(ttl) => Ok(ttl),
            other => Err(other.unexpected()),
        }
    }

    async fn lease_status(&self, id: LeaseId, keys: bool) -> Result<Option<LeaseStatus>, KvError> {
        self.catch_up().await?; // who has granted it may ask anybody
        let left = if self.shared.alone.load(Ordering::SeqCst) {
            self.lessor.left(id)
        } else {
            self.control(|reply| Control::TimeLeft(id, reply)).await.map_err(as_kv_error)?
        };
        Ok(left.and_then(|left| self.lessor.status(id, left, keys)))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>, KvError> {
        self.catch_up().await?;
        Ok(self.lessor.ids())
    }

    fn revision(&self) -> Revision {
        self.mvcc.position().revision
    }

    async fn newest(&self) -> Result<Revision, KvError> {
        self.catch_up().await?;
        Ok(self.revision())
    }

    fn hold(&self) -> Hold {
        self.mvcc.hold()
    }

    async fn hash_kv(&self, revision: Option<Revision>) -> Result<HashKv, KvError> {
        self.check_open()?;
        let mvcc = self.mvcc.clone();
        self.read_blocking(move || mvcc.hash(revision)).await
    }

    async fn verify(&self) -> Result<Report, KvError> {
        self.check_open()?;
        let (mvcc, disk) = (self.mvcc.clone(), self.disk.clone());
        self.read_blocking(move || Ok(verify::running(&*disk, &*mvcc.view()))).await
    }
}
