//! The owner of the Raft state: one task, one `select!`. It decides, and applies what is committed, which is work in
//! memory. What may wait for a disk is done by jobs ([`Jobs`]), one of each kind at a time: while a batch is synced the
//! one before it is applied, and messages of other members are answered all along.
//!
//! ```text
//! proposals -> batch -> Raft -> disk job (append, fsync) -> Raft commits -> apply (head, view, watchers) -> callers
//!     |          |       ^ v                                    settle job, scrub job, snapshot job: view <-> disk
//!     +-> leader +->  other members (peers.rs)
//! ```
//!
//! `ready.rs` does what Raft wants done, `apply.rs` applies, `propose.rs` brings proposals to the leader, `reads.rs`
//! asks it how far one must have read, `time_left.rs` what leases have left, `peers.rs` sends, receives and ticks,
//! `change.rs` changes the members, `receive.rs` and `serve.rs` move snapshots, `room.rs` hands over when the disk is
//! full, `upkeep.rs` keeps view and disk in order, `about.rs` tells of it all.

mod about;
mod apply;
mod change;
mod peers;
mod propose;
mod reads;
mod ready;
mod receive;
mod room;
mod serve;
mod time_left;
mod upkeep;

use std::collections::VecDeque;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use raft::eraftpb::{Entry, Message};
use raft::{RawNode, StateRole};
use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::disk::DiskError;
use crate::encoding::Position;
use crate::evaluate::{Answer, Command};
use crate::jobs::Jobs;
use crate::kv::KvError;
use crate::lease::LeaseId;
use crate::lessor::Lessor;
use crate::log::{Log, Recovered};
use crate::members::Members;
use crate::mvcc::Mvcc;
use crate::recover::{DataFolder, Identity, OpenError, Start, into_raft};
use crate::snapshot;
use crate::space::Space;
use crate::status::{Change, Leadership, MemberError, MemberStatus};
use crate::tail::Tail;
use crate::transport::{Mail, Parcel, Peer, Removed, Transport};
use crate::view::ViewError;

use change::Changes;
use peers::Group;
use propose::{Proposals, next_proposal};
use reads::Reads;
use ready::{DiskDone, Writes};
use receive::{Arrival, Installed};
use room::Room;
use serve::{Outgoing, Served};
use time_left::{TimeQuestions, TimeReply};

/// Raft's unit of time; an election takes [`ELECTION_TICKS`] to twice as many. A quarter of etcd's: a leader that dies
/// must be replaced within half a second, and a needless election costs little (pre-vote asks first, callers do not
/// notice).
const TICK: Duration = Duration::from_millis(50);
const ELECTION_TICKS: usize = 5;
const HEARTBEAT_TICKS: usize = 1;
/// How long a leader's disk may be busy with one append, and how long somebody may take to take over: real disks
/// were seen to take some hundred milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a leader that closes waits for another one to take over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_millis(500);
/// Appends that may be on their way to one member without an answer, of at most a batch each.
const INFLIGHT_MAX: usize = 64;
/// Entries that are sent in one message when somebody catches up, unless one alone is larger: with [`INFLIGHT_MAX`] of
/// them the leader must not be busy for long.
const MESSAGE_BYTES_MAX: u64 = 256 * 1024;
/// A leader takes nothing new while so many bytes of its log are not committed.
const UNCOMMITTED_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What a caller waits for.
pub(crate) type Reply = oneshot::Sender<Result<Answer, KvError>>;

/// A command on its way into the log, with its size in bytes and who waits for it.
pub(crate) struct Proposal {
    pub(crate) command: Command,
    pub(crate) bytes: usize,
    pub(crate) reply: Reply,
}

/// A question about the group, or a change of it.
pub(crate) enum Control {
    Status(oneshot::Sender<Result<MemberStatus, MemberError>>),
    Change(Change, oneshot::Sender<Result<(), MemberError>>),
    TimeLeft(LeaseId, TimeReply),
}

/// Told when everything acknowledged before it was asked is visible here.
pub(crate) type ReadReply = oneshot::Sender<()>;

/// What member and handles share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Why the member writes no more, if it had to stop. Reads go on.
    pub(crate) failure: OnceLock<KvError>,
    /// Whether this member decides alone: then what it has applied is all there is, and reads ask nobody.
    pub(crate) alone: AtomicBool,
    /// Members that are heard no more.
    pub(crate) removed: Arc<Removed>,
    /// Whether this member has stopped because the others have taken it out of the group.
    pub(crate) was_removed: AtomicBool,
    /// Told to stop.
    pub(crate) closing: CancellationToken,
}

/// What a member is made of, besides what it starts from.
pub(crate) struct Parts {
    pub(crate) folder: DataFolder,
    pub(crate) mvcc: Arc<Mvcc>,
    pub(crate) lessor: Arc<Lessor>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
    pub(crate) jobs: Jobs,
    pub(crate) history_max: u64,
    pub(crate) log_bytes: u64,
    /// Callers wait when it is full; its size is the sender's affair.
    pub(crate) proposals: mpsc::Receiver<Proposal>,
    /// Likewise.
    pub(crate) reads: mpsc::Receiver<ReadReply>,
    /// Likewise.
    pub(crate) controls: mpsc::Receiver<Control>,
    /// What other members send.
    pub(crate) mail: Mail,
    pub(crate) transport: Option<Arc<dyn Transport>>,
    /// Whom it was told of, besides itself; of use until the group itself says who there is.
    pub(crate) peers: Vec<Peer>,
    /// Where this member's peer port is, if it was told.
    pub(crate) address: Option<String>,
    /// Told who leads.
    pub(crate) leadership: watch::Sender<Leadership>,
    /// Fired when everything that was in the log is applied, or, with other members, can be.
    pub(crate) ready: oneshot::Sender<()>,
}

/// See the module.
pub(crate) struct Member {
    node: RawNode<Tail>,
    identity: Identity,
    members: Members,
    parts: Parts,
    /// `None` while the disk job has it.
    log: Option<Log>,
    disk_job: Option<JoinHandle<DiskDone>>,
    cut_job: Option<JoinHandle<Result<(), DiskError>>>,
    settle_job: Option<JoinHandle<Result<(), ViewError>>>,
    scrub_job: Option<JoinHandle<Result<bool, ViewError>>>,
    snapshot_job: Option<JoinHandle<Result<(Position, u64), snapshot::WriteError>>>,
    members_job: Option<JoinHandle<Result<(), DiskError>>>,
    arrival_job: Option<JoinHandle<receive::Taken>>,
    install_job: Option<JoinHandle<Result<Installed, OpenError>>>,
    serve_job: Option<JoinHandle<Served>>,
    writes: Writes,
    to_apply: VecDeque<Entry>,
    /// A change of the members that is applied as soon as the member file says so.
    changing: Option<Entry>,
    proposals: Proposals,
    reads: Reads,
    changes: Changes,
    time_questions: TimeQuestions,
    room: Room,
    group: Group,
    /// A snapshot that is being fetched.
    arrival: Option<Arrival>,
    /// One that is here and that Raft has been told of: its last entry and who belonged to the group.
    arrived: Option<(u64, Members)>,
    /// A snapshot that was fetched and becomes the view: its last entry.
    install: Option<u64>,
    /// What the leader is told then.
    told_when_installed: Vec<Message>,
    /// When the leader was told that it is under way.
    said_installing: Option<Duration>,
    /// Snapshots that others are fetching.
    outgoing: Outgoing,
    ready: Option<oneshot::Sender<()>>,
    /// The newest snapshot, and its size.
    snapshot: (u64, u64),
    /// The log can be cut up to here.
    cut: Option<u64>,
    /// There may be something to scrub.
    scrubbing: bool,
    /// Rebuilds of the view since it has last taken something over.
    rebuilds: u32,
    space: Space,
    /// When the disk is looked at again, while it is full.
    look_at: Instant,
    /// Why the view must be rebuilt, when there is no room for a new one.
    view_lost: Option<ViewError>,
    /// Told to close, and since when.
    closing: Option<Duration>,
}

enum Event {
    Proposed(Proposal),
    Read(ReadReply),
    Control(Control),
    Mail(Parcel),
    Disk(DiskDone),
    Cut(Result<(), DiskError>),
    Settled(Result<(), ViewError>),
    Scrubbed(Result<bool, ViewError>),
    Snapshot(Result<(Position, u64), snapshot::WriteError>),
    MembersWritten(Result<(), DiskError>),
    Taken(receive::Taken),
    Installed(Result<Installed, OpenError>),
    Served(Served),
    ViewBroken(ViewError),
    LookAtSpace,
    Tick,
    Close,
}

impl Member {
    pub(crate) fn new(start: Start, mut parts: Parts) -> Result<Self, OpenError> {
        let Start { identity, members, position, log, recovered, snapshot, .. } = start;
        let config = raft::Config {
            id: identity.id,
            election_tick: ELECTION_TICKS,
            max_election_tick: 2 * ELECTION_TICKS * peers::UNREST_MAX,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: position.index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let mut tail = tail(&members, position, recovered);
        tail.offer_from(members.index);
        // What Raft has to say of itself at info and below is of no use to an operator; it reports errors as
        // values.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, tail, &logger).map_err(|err| OpenError::Raft(err.to_string()))?;
        let (unused, _) = oneshot::channel();
        let ready = std::mem::replace(&mut parts.ready, unused);
        let member = Self {
            node,
            identity,
            members,
            log: Some(log),
            disk_job: None,
            cut_job: None,
            settle_job: None,
            scrub_job: None,
            snapshot_job: None,
            members_job: None,
            arrival_job: None,
            install_job: None,
            serve_job: None,
            writes: Writes::default(),
            to_apply: VecDeque::new(),
            changing: None,
            proposals: Proposals::new(parts.rng.next_u64()),
            reads: Reads::default(),
            changes: Changes::default(),
            time_questions: TimeQuestions::default(),
            room: Room::default(),
            group: Group::new(parts.clock.monotonic()),
            arrival: None,
            arrived: None,
            install: None,
            told_when_installed: Vec::new(),
            said_installing: None,
            outgoing: Outgoing::default(),
            ready: Some(ready),
            snapshot: (snapshot, 0),
            cut: None,
            scrubbing: true,
            rebuilds: 0,
            space: Space::unknown(),
            look_at: Instant::now(),
            view_lost: None,
            closing: None,
            parts,
        };
        member.tell_peers();
        Ok(member)
    }

    /// Runs until it is told to close or has to stop.
    pub(crate) async fn run(mut self) {
        if let Err(failure) = self.serve().await {
            tracing::error!(%failure, "The store has stopped writing.");
            let _ = self.parts.shared.failure.set(failure);
        }
        self.finish().await;
    }

    async fn serve(&mut self) -> Result<(), KvError> {
        if self.members.only_voter_is(self.identity.id) {
            // Nobody else can be leader: waiting for the election timeout would only cost time.
            self.node.campaign().map_err(|err| stopped("the Raft group", &err))?;
        } else if let Some(ready) = self.ready.take() {
            let _ = ready.send(());
            self.begin_group();
        }
        loop {
            self.tick();
            if self.accepts() && !self.parts.proposals.is_empty() {
                // First: others hear with it that the batch before is committed, and the disk is at work while that is
                // applied.
                self.propose(None).await;
            }
            self.handle_ready()?;
            self.check_membership()?;
            self.start_jobs();
            if self.may_apply() {
                self.apply().await?;
                continue;
            }
            if self.may_end() {
                return Ok(());
            }
            let event = self.next_event().await?;
            self.on_event(event).await?;
        }
    }

    /// The first founder of a new group asks for votes at once, and again while nobody answers: the others need not
    /// wait for an election timeout.
    fn begin_group(&mut self) {
        let raft = &self.node.raft;
        let is_new = raft.term == 0 && raft.raft_log.last_index() == 0;
        if is_new && self.members.conf.voters.iter().min() == Some(&raft.id) {
            let _ = self.node.campaign(); // only a hint: whoever does not get it has the election timeout
        }
    }

    async fn on_event(&mut self, event: Event) -> Result<(), KvError> {
        match event {
            Event::Proposed(first) => self.propose(Some(first)).await,
            Event::Read(first) => self.read(first),
            Event::Control(Control::Status(reply)) => drop(reply.send(Ok(self.status()))),
            Event::Control(Control::Change(change, reply)) => self.change(change, reply),
            Event::Control(Control::TimeLeft(lease, reply)) => self.ask_time_left(lease, reply),
            Event::Mail(parcel) => self.take_mail(&parcel),
            Event::Disk(done) => self.on_disk(done)?,
            Event::Cut(outcome) => outcome.map_err(|err| storage_error(&err))?,
            Event::Settled(outcome) => self.on_settled(outcome).await?,
            Event::Scrubbed(outcome) => self.on_scrubbed(outcome).await?,
            Event::Snapshot(outcome) => self.on_snapshot(outcome),
            Event::MembersWritten(outcome) => self.on_members_written(outcome)?,
            Event::Taken(taken) => self.on_taken(taken),
            Event::Installed(outcome) => self.on_installed(outcome)?,
            Event::Served(served) => self.on_served(served),
            Event::ViewBroken(err) => self.on_view_broken(err).await?,
            Event::LookAtSpace => self.look_at_space().await?,
            Event::Tick => {}
            Event::Close => self.begin_to_close(),
        }
        Ok(())
    }

    async fn next_event(&mut self) -> Result<Event, KvError> {
        let (accepts, hears, look_at) = (self.accepts(), self.hears(), self.look_at);
        let reads = self.reads.accept();
        let wants_room = self.space.is_full() || self.writes.stalled() || self.view_lost.is_some();
        let (closing, next_tick) = (self.closing.is_some(), self.next_tick());
        let Parts { proposals, reads: read, controls, mail, mvcc, shared, .. } = &mut self.parts;
        tokio::select! {
            biased;
            done = finished(&mut self.disk_job) => done.map(Event::Disk),
            Some(parcel) = mail.urgent.recv() => Ok(Event::Mail(parcel)),
            () = tokio::time::sleep(next_tick.unwrap_or_default()), if next_tick.is_some() => Ok(Event::Tick),
            done = finished(&mut self.cut_job) => done.map(Event::Cut),
            done = finished(&mut self.settle_job) => done.map(Event::Settled),
            done = finished(&mut self.scrub_job) => done.map(Event::Scrubbed),
            done = finished(&mut self.snapshot_job) => done.map(Event::Snapshot),
            done = finished(&mut self.members_job) => done.map(Event::MembersWritten),
            done = finished(&mut self.arrival_job) => done.map(Event::Taken),
            done = finished(&mut self.install_job) => done.map(Event::Installed),
            done = finished(&mut self.serve_job) => done.map(Event::Served),
            err = mvcc.breaks(), if self.disk_job.is_none() && self.install_job.is_none() => Ok(Event::ViewBroken(err)),
            () = shared.closing.cancelled(), if !closing => Ok(Event::Close),
            () = tokio::time::sleep_until(look_at), if wants_room => Ok(Event::LookAtSpace),
            Some(parcel) = mail.others.recv(), if hears => Ok(Event::Mail(parcel)),
            Some(control) = controls.recv() => Ok(Event::Control(control)),
            Some(first) = read.recv(), if reads => Ok(Event::Read(first)),
            first = next_proposal(proposals), if accepts => Ok(Event::Proposed(first)),
        }
    }

    /// Whether it is leader.
    fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The leader, if one is known.
    fn leader(&self) -> Option<u64> {
        Some(self.node.raft.leader_id).filter(|id| *id != raft::INVALID_ID)
    }

    /// Whether no other member can decide anything, now or soon.
    fn is_alone(&self) -> bool {
        self.leads() && self.members.only_voter_is(self.identity.id)
    }

    fn now(&self) -> Duration {
        self.parts.clock.monotonic()
    }

    /// Tells others who leads, and readers whether they need to ask.
    fn note_leadership(&mut self) {
        self.parts.shared.alone.store(self.is_alone(), Ordering::SeqCst);
        let leadership = self.leadership();
        let changed = self.parts.leadership.send_if_modified(|told| {
            let changed = *told != leadership;
            *told = leadership;
            changed
        });
        if changed {
            self.on_leadership(leadership);
        }
    }

    /// Leadership is handed over before this member goes, so that nobody has to wait for an election.
    fn begin_to_close(&mut self) {
        self.closing = Some(self.now());
        if self.leads() && !self.is_alone() {
            self.hand_over();
        }
    }

    fn may_end(&self) -> bool {
        let Some(since) = self.closing else { return false };
        let hands_over = self.leads() && self.node.raft.lead_transferee.is_some();
        let late = self.now().saturating_sub(since) > HAND_OVER_TIMEOUT;
        (self.is_idle() && !hands_over) || (late && self.disk_job.is_none() && self.install_job.is_none())
    }

    fn is_idle(&self) -> bool {
        let jobs = [self.disk_job.is_some(), self.settle_job.is_some(), self.scrub_job.is_some()];
        let more = [self.snapshot_job.is_some(), self.members_job.is_some(), self.install_job.is_some()];
        !jobs.contains(&true) && !more.contains(&true) && self.to_apply.is_empty() && self.changing.is_none()
    }

    /// Answers everybody, ends all watches, and leaves the view so that it can be used again.
    async fn finish(mut self) {
        self.parts.proposals.close();
        self.parts.leadership.send_replace(Leadership::default());
        let failure = self.parts.shared.failure.get().cloned();
        let answer = failure.clone().unwrap_or(KvError::Closed);
        self.proposals.fail(&answer);
        self.changes.fail(&answer);
        while let Ok(proposal) = self.parts.proposals.try_recv() {
            let _ = proposal.reply.send(Err(answer.clone()));
        }
        drop(self.reads);
        self.parts.reads.close();
        self.parts.controls.close();
        while self.parts.reads.try_recv().is_ok() || self.parts.controls.try_recv().is_ok() {}
        drop(self.parts.leadership); // who follows it knows by that
        if failure.is_some() {
            self.parts.shared.closing.cancelled().await; // reads and watches go on until then
        }
        self.parts.mvcc.close();
        if let Some(job) = self.cut_job.take() {
            let _ = job.await; // whoever opens the folder next must not see files go
        }
        if failure.is_none() {
            let (mvcc, folder) = (self.parts.mvcc.clone(), self.parts.folder.clone());
            let closed = self.parts.jobs.spawn(move || match mvcc.view().sync() {
                Ok(()) => folder.mark_clean().map_err(|err| storage_error(&err).to_string()),
                Err(err) => Err(err.to_string()),
            });
            if let Ok(Err(err)) | Err(err) = closed.await.map_err(|err| err.to_string()) {
                tracing::warn!(err, "The view was not closed cleanly; it is rebuilt if the machine restarts.");
            }
        }
    }
}

/// What Raft is to see of the log that was found.
fn tail(members: &Members, position: Position, recovered: Recovered) -> Tail {
    let hard_state = raft::eraftpb::HardState {
        term: recovered.hard_state.term,
        vote: recovered.hard_state.vote,
        commit: recovered.hard_state.commit.min(recovered.last_index),
    };
    let applied = (position.index, position.term);
    let mut entries = into_raft(recovered.entries);
    let start = match entries.front().map(|first| (first.index, first.term)) {
        Some((first, _)) if recovered.before.0 != 0 && recovered.before.0 + 1 == first => recovered.before,
        // The term of the entry before it is not known: it takes that place itself.
        Some(first) if first.0 <= applied.0 => {
            entries.pop_front();
            first
        }
        _ => applied,
    };
    Tail::new(hard_state, members.conf.clone(), start, entries, applied)
}

/// The outcome of a job; never, when there is none.
async fn finished<T>(job: &mut Option<JoinHandle<T>>) -> Result<T, KvError> {
    let Some(running) = job else { return pending().await };
    let outcome = running.await.map_err(|err| stopped("a job of the store", &err));
    *job = None;
    outcome
}

fn answer_all(replies: impl IntoIterator<Item = Reply>, err: &KvError) {
    for reply in replies {
        let _ = reply.send(Err(err.clone()));
    }
}

/// An error, with everything that led to it: its own words may leave out what the operating system said.
fn stopped(what: &str, error: &dyn std::error::Error) -> KvError {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let reason = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    KvError::Storage { what: what.to_owned(), reason }
}

fn storage_error(err: &DiskError) -> KvError {
    KvError::Storage { what: err.path.clone(), reason: format!("cannot {}: {}", err.verb, err.source) }
}
