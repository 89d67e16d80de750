//! The owner of the Raft state: one task, one `select!`. It decides, and applies what is committed, which is work in
//! memory. What may wait for a disk is done by jobs on blocking threads, one of each kind at a time: while a batch is
//! synced the one before it is applied.
//!
//! ```text
//! proposals -> batch -> Raft -> disk job (append, fsync) -> Raft commits -> apply (head, view, watchers) -> callers
//!                                                               settle job, scrub job, snapshot job: view <-> disk
//! ```
//!
//! There is one member for now. It goes the way that three will: only what carries messages to others is missing.

mod about;

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost::Message as _;
use raft::eraftpb::{Entry, EntryType};
use raft::{RawNode, StateRole};
use reeve_api::clock::SharedClock;
use reeve_api::rng::{RngExt as _, SharedRng};
use reeve_proto::store::{Batch, HardState, LogRecord, VERSION};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::disk::DiskError;
use crate::encoding::Position;
use crate::evaluate::{Answer, Command};
use crate::kv::KvError;
use crate::log::Log;
use crate::mvcc::{Mvcc, due_compaction};
use crate::recover::{DataFolder, OpenError, Start, decode_entry, from_raft, into_raft};
use crate::snapshot;
use crate::space::Space;
use crate::status::{Change, Leadership, MemberError, MemberStatus};
use crate::tail::Tail;
use crate::transport::{Mail, Removed};
use crate::view::ViewError;

/// Raft's unit of time; an election takes [`ELECTION_TICKS`] to twice as many.
const TICK: Duration = Duration::from_millis(100);
const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 1;
/// A batch is proposed when it has this many commands or bytes; what is over waits for the next one.
const BATCH_COMMANDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Entries that are applied in one batch of the view: more than one only while the log is replayed.
const APPLY_ENTRIES_MAX: usize = 16;
/// What the view holds in memory before it is handed on to disk.
const SETTLE_BYTES: usize = 512 * 1024;
/// With so much in memory nothing is applied until some of it is on disk: it cannot keep up.
const UNSETTLED_BYTES_MAX: usize = 8 * SETTLE_BYTES;
/// A snapshot is due when the log has more segments than this: each start begins one.
const SEGMENTS_MAX: usize = 64;
/// A view that fails again right after it was rebuilt so often will not get better.
const REBUILDS_MAX: u32 = 3;
/// However large the state is, the log does not grow beyond this: it is read into memory after a machine crash.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How often a full disk is looked at: nobody tells when there is room again.
const SPACE_PERIOD: Duration = Duration::from_secs(1);

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
}

/// What member and handles share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Why the member writes no more, if it had to stop. Reads go on.
    pub(crate) failure: OnceLock<KvError>,
    /// Members that are heard no more.
    pub(crate) removed: Arc<Removed>,
    /// Told to stop.
    pub(crate) closing: CancellationToken,
}

/// What a member is made of, besides what it starts from.
pub(crate) struct Parts {
    pub(crate) folder: DataFolder,
    pub(crate) mvcc: Arc<Mvcc>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
    pub(crate) history_max: u64,
    pub(crate) log_bytes: u64,
    /// Callers wait when it is full; its size is the sender's affair.
    pub(crate) proposals: mpsc::Receiver<Proposal>,
    /// Likewise.
    pub(crate) controls: mpsc::Receiver<Control>,
    /// What other members send.
    pub(crate) mail: Mail,
    /// Told who leads.
    pub(crate) leadership: watch::Sender<Leadership>,
    /// Fired when everything that was in the log is applied.
    pub(crate) ready: oneshot::Sender<()>,
}

/// See the module.
pub(crate) struct Member {
    node: RawNode<Tail>,
    parts: Parts,
    /// `None` while the disk job has it.
    log: Option<Log>,
    disk_job: Option<JoinHandle<DiskDone>>,
    settle_job: Option<JoinHandle<Result<(), ViewError>>>,
    scrub_job: Option<JoinHandle<Result<bool, ViewError>>>,
    snapshot_job: Option<JoinHandle<Result<(u64, u64), snapshot::WriteError>>>,
    to_apply: VecDeque<Entry>,
    /// Our own batches on their way, oldest first.
    waiting: VecDeque<Waiting>,
    ready: Option<oneshot::Sender<()>>,
    proposer: u64,
    sequence: u64,
    /// The newest snapshot, and its size.
    snapshot: (u64, u64),
    /// The log can be cut up to here.
    cut: Option<u64>,
    /// The batch that holds our own compaction, while it is under way.
    compacting: Option<u64>,
    /// There may be something to scrub.
    scrubbing: bool,
    ticked: Duration,
    /// Rebuilds of the view since it has last taken something over.
    rebuilds: u32,
    space: Space,
    /// When the disk is looked at again, while it is full.
    look_at: Instant,
    /// What did not fit on the disk: it goes into the log before anything else does.
    stalled: Option<Append>,
    /// Why the view must be rebuilt, when there is no room for a new one.
    view_lost: Option<ViewError>,
}

/// What makes a Raft ready durable.
struct Append {
    record: LogRecord,
    number: u64,
}

/// A batch that was proposed here.
struct Waiting {
    sequence: u64,
    /// As they were handed in, so that they need not be read out of the entry; empty once they were taken.
    commands: Vec<Command>,
    /// Who waits for the outcome of each.
    replies: Vec<Reply>,
}

/// One per command of a batch.
type Answers = Vec<Result<Answer, KvError>>;

/// Proposer, sequence and commands of a batch.
type OwnBatch = ((u64, u64), Vec<Command>);

/// Proposer, sequence and answers of each batch.
type Applied = Vec<((u64, u64), Answers)>;

struct DiskDone {
    log: Log,
    outcome: Result<DiskOutcome, DiskError>,
    /// Bytes that are free on the disk then.
    free: Result<u64, DiskError>,
}

enum DiskOutcome {
    /// The Raft ready of this number is durable.
    Persisted(u64),
    /// The log is shorter.
    Cut,
    /// Nothing has happened: it does not fit.
    Full(Append, DiskError),
}

enum ApplyError {
    View(ViewError),
    Entry(OpenError),
}

enum Event {
    Proposed(Proposal),
    Control(Control),
    Disk(DiskDone),
    Settled(Result<(), ViewError>),
    Scrubbed(Result<bool, ViewError>),
    Snapshot(Result<(u64, u64), snapshot::WriteError>),
    ViewBroken(ViewError),
    LookAtSpace,
    Close,
}

impl Member {
    pub(crate) fn new(start: Start, mut parts: Parts) -> Result<Self, OpenError> {
        let Start { member, position, log, recovered, snapshot, .. } = start;
        let hard_state = raft::eraftpb::HardState {
            term: recovered.hard_state.term,
            vote: recovered.hard_state.vote,
            commit: recovered.hard_state.commit.min(recovered.last_index),
        };
        let start = (position.index, position.term);
        let tail = Tail::new(hard_state, member.voters, start, into_raft(recovered.entries));
        let config = raft::Config {
            id: member.id,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: position.index,
            max_size_per_msg: BATCH_BYTES_MAX as u64,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        // What Raft has to say of itself at info and below is of no use to an operator; it reports errors as
        // values.
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, tail, &logger).map_err(|err| OpenError::Raft(err.to_string()))?;
        let (unused, _) = oneshot::channel();
        let ready = std::mem::replace(&mut parts.ready, unused);
        Ok(Self {
            node,
            log: Some(log),
            disk_job: None,
            settle_job: None,
            scrub_job: None,
            snapshot_job: None,
            to_apply: VecDeque::new(),
            waiting: VecDeque::new(),
            ready: Some(ready),
            proposer: parts.rng.next_u64(),
            sequence: 0,
            snapshot: (snapshot, 0),
            cut: None,
            compacting: None,
            scrubbing: true,
            ticked: parts.clock.monotonic(),
            rebuilds: 0,
            space: Space::unknown(),
            look_at: Instant::now(),
            stalled: None,
            view_lost: None,
            parts,
        })
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
        // Nobody else can be leader: waiting for the election timeout would only cost time.
        self.node.campaign().map_err(|err| stopped("the Raft group", &err))?;
        let mut closing = false;
        loop {
            self.tick();
            self.handle_ready()?;
            if self.accepts(closing) && !self.parts.proposals.is_empty() {
                self.propose(None).await;
                self.handle_ready()?; // the disk is at work while the batch before is applied
            }
            self.start_jobs();
            if self.may_apply() {
                self.apply().await?;
                continue;
            }
            if closing && self.is_idle() {
                return Ok(());
            }
            match self.next_event(closing).await? {
                Event::Proposed(first) => self.propose(Some(first)).await,
                Event::Control(Control::Status(reply)) => drop(reply.send(Ok(self.status()))),
                Event::Control(Control::Change(change, reply)) => drop(reply.send(self.on_change(&change))),
                Event::Disk(done) => self.on_disk(done)?,
                Event::Settled(outcome) => self.on_settled(outcome).await?,
                Event::Scrubbed(outcome) => self.on_scrubbed(outcome).await?,
                Event::Snapshot(outcome) => self.on_snapshot(outcome),
                Event::ViewBroken(err) => self.on_view_broken(err).await?,
                Event::LookAtSpace => self.look_at_space().await?,
                Event::Close => closing = true,
            }
        }
    }

    fn accepts(&self, closing: bool) -> bool {
        self.disk_job.is_none() && self.to_apply.len() <= 1 && !closing
    }

    async fn next_event(&mut self, closing: bool) -> Result<Event, KvError> {
        let (accepts, look_at) = (self.accepts(closing), self.look_at);
        let wants_room = self.space.is_full() || self.stalled.is_some() || self.view_lost.is_some();
        let Parts { proposals, controls, mvcc, shared, .. } = &mut self.parts;
        tokio::select! {
            biased;
            done = finished(&mut self.disk_job) => done.map(Event::Disk),
            done = finished(&mut self.settle_job) => done.map(Event::Settled),
            done = finished(&mut self.scrub_job) => done.map(Event::Scrubbed),
            done = finished(&mut self.snapshot_job) => done.map(Event::Snapshot),
            err = mvcc.breaks(), if self.disk_job.is_none() => Ok(Event::ViewBroken(err)),
            () = shared.closing.cancelled(), if !closing => Ok(Event::Close),
            () = tokio::time::sleep_until(look_at), if wants_room => Ok(Event::LookAtSpace),
            Some(control) = controls.recv() => Ok(Event::Control(control)),
            first = next_proposal(proposals), if accepts => Ok(Event::Proposed(first)),
        }
    }

    /// Tells Raft how much time has passed. A sole voter depends on none, so nothing wakes it only for that.
    fn tick(&mut self) {
        let now = self.parts.clock.monotonic();
        let ticks = now.saturating_sub(self.ticked).as_millis() / TICK.as_millis();
        if ticks > 0 {
            self.ticked = now;
            (0..ticks.min(ELECTION_TICKS as u128)).for_each(|_| {
                self.node.tick();
            });
        }
    }

    /// Proposes what there is. Whoever is ready to run gets a turn before: on an idle machine that is nobody, on a busy
    /// one the requests that are on their way share one sync.
    async fn propose(&mut self, first: Option<Proposal>) {
        tokio::task::yield_now().await;
        let batch = batch_of(first, &mut self.parts.proposals);
        let batch = self.admitted(batch);
        if !batch.is_empty() {
            self.propose_batch(batch);
        }
    }

    /// What of a batch the disk has room for; who proposed the rest is told so.
    fn admitted(&self, batch: Vec<Proposal>) -> Vec<Proposal> {
        if !self.space.is_full() {
            return batch;
        }
        let fits = |proposal: &Proposal| self.stalled.is_none() && self.space.admits(&proposal.command);
        let (admitted, refused): (Vec<_>, Vec<_>) = batch.into_iter().partition(fits);
        answer_all(refused.into_iter().map(|proposal| proposal.reply), &self.refusal());
        admitted
    }

    fn refusal(&self) -> KvError {
        self.space.refusal(&self.parts.folder.disk.path_of(""))
    }

    fn propose_batch(&mut self, proposals: Vec<Proposal>) {
        self.sequence += 1;
        let (commands, replies): (Vec<_>, Vec<_>) =
            proposals.into_iter().map(|proposal| (proposal.command, proposal.reply)).unzip();
        let (proposer, sequence) = (self.proposer, self.sequence);
        let logged = commands.iter().map(Into::into).collect();
        let batch = Batch { version: VERSION, proposer, sequence, commands: logged };
        match self.node.propose(context(proposer, sequence), batch.encode_to_vec()) {
            Ok(()) => self.waiting.push_back(Waiting { sequence, commands, replies }),
            Err(err) => {
                let reason = err.to_string();
                answer_all(replies, &KvError::Unavailable { reason });
            }
        }
    }

    /// Does what Raft wants done. While the disk is at work it is not asked.
    fn handle_ready(&mut self) -> Result<(), KvError> {
        while self.disk_job.is_none() && self.stalled.is_none() && self.node.has_ready() {
            let mut ready = self.node.ready();
            self.to_apply.extend(ready.take_committed_entries());
            let tail = self.node.mut_store();
            if let Some(hard_state) = ready.hs() {
                tail.set_hard_state(hard_state.clone());
            }
            let entries = ready.take_entries();
            tail.append(&entries);
            let hard_state = tail.hard_state().clone();
            let new_role = ready.ss().is_some();
            let (number, must_sync) = (ready.number(), ready.must_sync());
            self.node.advance_append_async(ready);
            if new_role {
                self.parts.leadership.send_replace(self.leadership());
                self.draw_election_timeout();
            }
            if must_sync {
                self.append(number, &hard_state, &entries)?;
            } else {
                self.node.on_persist_ready(number);
            }
        }
        Ok(())
    }

    /// Raft draws it from a source of its own; ours replays.
    fn draw_election_timeout(&mut self) {
        let extra = usize::try_from(self.parts.rng.below(ELECTION_TICKS as u64)).unwrap_or(0);
        self.node.raft.set_randomized_election_timeout(ELECTION_TICKS + extra);
    }

    fn append(&mut self, number: u64, hard_state: &raft::eraftpb::HardState, entries: &[Entry]) -> Result<(), KvError> {
        let hard_state = HardState { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit };
        let entries = entries.iter().map(from_raft).collect();
        let record = LogRecord { version: VERSION, hard_state: Some(hard_state), entries };
        self.start_append(Append { record, number })
    }

    fn start_append(&mut self, append: Append) -> Result<(), KvError> {
        let Some(mut log) = self.log.take() else { return Err(in_use()) };
        let disk = self.parts.folder.disk.clone();
        self.disk_job = Some(tokio::task::spawn_blocking(move || {
            let outcome = match log.append(&append.record) {
                Ok(()) => Ok(DiskOutcome::Persisted(append.number)),
                Err(err) if err.is_full() => Ok(DiskOutcome::Full(append, err)),
                Err(err) => Err(err),
            };
            DiskDone { log, outcome, free: disk.free_bytes() }
        }));
        Ok(())
    }

    fn start_jobs(&mut self) {
        self.start_cut();
        if self.space.is_full() {
            return; // sled does not survive a disk that is full
        }
        self.start_snapshot();
        let view = self.parts.mvcc.view();
        if self.settle_job.is_none() && view.unsettled() > SETTLE_BYTES {
            self.settle_job = Some(tokio::task::spawn_blocking(move || view.settle()));
        }
        // A snapshot needs what a scrub removes.
        if self.scrubbing && self.scrub_job.is_none() && self.snapshot_job.is_none() {
            let mvcc = self.parts.mvcc.clone();
            self.scrub_job = Some(tokio::task::spawn_blocking(move || mvcc.scrub()));
        }
    }

    fn may_apply(&self) -> bool {
        !self.to_apply.is_empty()
            && self.view_lost.is_none()
            && (self.settle_job.is_none() || self.parts.mvcc.view().unsettled() < UNSETTLED_BYTES_MAX)
    }

    /// Applies the next committed entries, and answers.
    async fn apply(&mut self) -> Result<(), KvError> {
        let n = self.to_apply.len().min(APPLY_ENTRIES_MAX);
        let entries: Vec<Entry> = self.to_apply.drain(..n).collect();
        let own: Vec<_> = entries.iter().map(|entry| self.own_commands(entry)).collect();
        match apply(&self.parts.mvcc, &entries, own) {
            Ok(applied) => self.on_applied(&entries, applied),
            Err(ApplyError::Entry(err)) => return Err(stopped("its view", &err)),
            Err(ApplyError::View(err)) => {
                entries.into_iter().rev().for_each(|entry| self.to_apply.push_front(entry));
                return self.on_view_broken(err).await;
            }
        }
        Ok(())
    }

    /// The commands of an entry that was proposed here.
    fn own_commands(&mut self, entry: &Entry) -> Option<OwnBatch> {
        let proposer = self.proposer;
        let own = |waiting: &&mut Waiting| entry.context == context(proposer, waiting.sequence);
        let waiting = self.waiting.iter_mut().find(own)?;
        let commands = std::mem::take(&mut waiting.commands);
        (!commands.is_empty()).then_some(((proposer, waiting.sequence), commands))
    }

    fn start_cut(&mut self) {
        let idle = self.disk_job.is_none();
        let Some(index) = self.cut.filter(|_| idle) else { return };
        let Some(mut log) = self.log.take() else { return };
        self.cut = None;
        let disk = self.parts.folder.disk.clone();
        self.disk_job = Some(tokio::task::spawn_blocking(move || {
            let outcome = log.cut(index).map(|()| DiskOutcome::Cut);
            DiskDone { log, outcome, free: disk.free_bytes() }
        }));
    }

    /// By size: writing a snapshot may cost as much as the log that it replaces, so the log may grow with the state.
    fn start_snapshot(&mut self) {
        let Some(log) = &self.log else { return };
        let allowed = self.snapshot.1.min(LOG_BYTES_MAX).max(self.parts.log_bytes);
        let due = log.bytes() > allowed || log.segments() > SEGMENTS_MAX;
        if !due || self.snapshot_job.is_some() || self.scrub_job.is_some() || self.cut.is_some() {
            return;
        }
        let position = self.parts.mvcc.position();
        if position.index <= self.snapshot.0 {
            return;
        }
        let (disk, view) = (self.parts.folder.disk.clone(), self.parts.mvcc.view());
        let voters = self.node.store().voters().to_vec();
        self.snapshot_job = Some(tokio::task::spawn_blocking(move || {
            view.settle()?; // what the log loses behind it must not be in memory alone
            snapshot::write(&*disk, &*view, position, &voters).map(|bytes| (position.index, bytes))
        }));
    }

    fn on_disk(&mut self, done: DiskDone) -> Result<(), KvError> {
        self.log = Some(done.log);
        self.note_space(done.free);
        match done.outcome {
            Ok(DiskOutcome::Persisted(number)) => self.node.on_persist_ready(number),
            Ok(DiskOutcome::Cut) => {}
            Ok(DiskOutcome::Full(_, err)) if self.ready.is_some() => return Err(storage_error(&err)),
            Ok(DiskOutcome::Full(append, err)) => {
                self.note_space(Ok(0)); // whatever is said to be free: it does not fit
                self.stalled = Some(append);
                let replies = self.waiting.iter_mut().flat_map(|waiting| std::mem::take(&mut waiting.replies));
                answer_all(replies, &storage_error(&err));
            }
            // What was written since the last sync may be lost, whatever a second try says: this member is done.
            Err(err) => return Err(storage_error(&err)),
        }
        Ok(())
    }

    fn note_space(&mut self, free: Result<u64, DiskError>) {
        self.look_at = Instant::now() + SPACE_PERIOD;
        let free = match free {
            Ok(free) => free,
            Err(err) => return tracing::warn!(%err, "Cannot tell how much room is on the disk."),
        };
        if self.space.note(free) {
            if self.space.is_full() {
                tracing::error!(free, "The disk is full: only deletions are taken. Make room on it.");
            } else {
                tracing::info!(free, "There is room on the disk again.");
            }
        }
    }

    /// Goes on with what waits for room, when there is some.
    async fn look_at_space(&mut self) -> Result<(), KvError> {
        let disk = self.parts.folder.disk.clone();
        let free = tokio::task::spawn_blocking(move || disk.free_bytes()).await;
        self.note_space(free.map_err(|err| stopped("the disk", &err))?);
        if self.space.is_full() {
            return Ok(());
        }
        if let Some(err) = self.view_lost.take() {
            self.on_view_broken(err).await?;
        }
        match self.stalled.take() {
            Some(append) if self.disk_job.is_none() => self.start_append(append),
            stalled => {
                self.stalled = stalled;
                Ok(())
            }
        }
    }

    async fn on_settled(&mut self, outcome: Result<(), ViewError>) -> Result<(), KvError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(err) => self.on_view_broken(err).await,
        }
    }

    async fn on_scrubbed(&mut self, outcome: Result<bool, ViewError>) -> Result<(), KvError> {
        match outcome {
            Ok(more) => self.scrubbing = more,
            Err(err) => {
                self.scrubbing = false; // the next compaction goes over what is left
                self.on_view_broken(err).await?;
            }
        }
        Ok(())
    }

    fn on_applied(&mut self, entries: &[Entry], applied: Applied) {
        for ((proposer, sequence), answers) in applied {
            self.scrubbing |= answers.iter().any(|answer| matches!(answer, Ok(Answer::Compacted)));
            if proposer == self.proposer {
                self.answer(sequence, answers);
            }
        }
        if let Some(last) = entries.last() {
            self.rebuilds = 0;
            self.node.advance_apply_to(last.index);
            self.node.mut_store().trim(last.index);
            self.scrubbing |= self.parts.mvcc.wants_scrub();
            if last.term == self.node.raft.term
                && let Some(ready) = self.ready.take()
            {
                let _ = ready.send(());
            }
        }
        self.compact_if_due();
    }

    /// Hands the answers of a batch to those who wait for them.
    fn answer(&mut self, sequence: u64, answers: Answers) {
        while let Some(Waiting { sequence: waiting, replies, .. }) = self.waiting.pop_front() {
            self.compacting = self.compacting.filter(|compacting| *compacting != waiting);
            if waiting == sequence {
                for (reply, answer) in replies.into_iter().zip(answers) {
                    let _ = reply.send(answer); // a caller that has gone away does not need it
                }
                return;
            }
            // Raft has dropped the batches before it.
            answer_all(replies, &KvError::Unavailable { reason: "the proposal was dropped".to_owned() });
        }
    }

    fn compact_if_due(&mut self) {
        let due = due_compaction(&self.parts.mvcc.position(), self.parts.history_max);
        if let (Some(revision), None, StateRole::Leader) = (due, self.compacting, self.node.raft.state) {
            let (reply, _) = oneshot::channel(); // nobody waits
            self.propose_batch(vec![Proposal { command: Command::Compact(revision), bytes: 0, reply }]);
            self.compacting = Some(self.sequence);
        }
    }

    fn on_snapshot(&mut self, outcome: Result<(u64, u64), snapshot::WriteError>) {
        match outcome {
            Ok((index, bytes)) => {
                tracing::debug!(index, bytes, "Wrote a snapshot.");
                self.snapshot = (index, bytes);
                self.cut = Some(index);
            }
            Err(snapshot::WriteError::View(err)) => {
                self.parts.mvcc.report_broken(err);
            }
            Err(snapshot::WriteError::Disk(err)) => {
                // The log stays; the next try is when it has grown by half.
                tracing::warn!(%err, "Cannot write a snapshot.");
                self.parts.log_bytes += self.parts.log_bytes / 2;
            }
        }
    }

    /// Rebuilds the view from snapshot and log; meanwhile nothing is applied and reads of the past are refused.
    async fn on_view_broken(&mut self, err: ViewError) -> Result<(), KvError> {
        let disk = self.parts.folder.disk.clone();
        let free = tokio::task::spawn_blocking(move || disk.free_bytes()).await;
        self.note_space(free.map_err(|err| stopped("the disk", &err))?);
        if self.space.is_full() {
            tracing::warn!(%err, "The view is rebuilt when there is room on the disk.");
            self.view_lost = Some(err);
            return Ok(());
        }
        self.rebuilds += 1;
        if self.rebuilds > REBUILDS_MAX {
            return Err(stopped("its view", &err));
        }
        tracing::warn!(%err, "Rebuilding the view.");
        while let Some(job) = &mut self.disk_job {
            let done = job.await.map_err(|err| stopped("the log", &err))?;
            self.disk_job = None;
            self.on_disk(done)?;
        }
        // What they make of the old view does not matter any more.
        if let Some(job) = self.settle_job.take() {
            let _ = job.await;
        }
        if let Some(job) = self.scrub_job.take() {
            let _ = job.await;
            self.scrubbing = true;
        }
        let (folder, mvcc) = (self.parts.folder.clone(), self.parts.mvcc.clone());
        let stood: Position = mvcc.position();
        let rebuilt = tokio::task::spawn_blocking(move || folder.rebuild(stood)).await;
        let view = rebuilt.map_err(|err| stopped("its view", &err))?.map_err(|err| stopped("its view", &err))?;
        self.parts.mvcc.replace_view(view);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        let jobs = [self.disk_job.is_some(), self.settle_job.is_some(), self.scrub_job.is_some()];
        !jobs.contains(&true) && self.snapshot_job.is_none() && self.to_apply.is_empty()
    }

    /// Answers everybody, ends all watches, and leaves the view so that it can be used again.
    async fn finish(mut self) {
        self.parts.proposals.close();
        let failure = self.parts.shared.failure.get().cloned();
        let answer = failure.clone().unwrap_or(KvError::Closed);
        for waiting in self.waiting.drain(..) {
            answer_all(waiting.replies, &answer);
        }
        while let Ok(proposal) = self.parts.proposals.try_recv() {
            let _ = proposal.reply.send(Err(answer.clone()));
        }
        if failure.is_some() {
            self.parts.shared.closing.cancelled().await; // reads and watches go on until then
        }
        self.parts.mvcc.close();
        if failure.is_none() {
            let (mvcc, folder) = (self.parts.mvcc.clone(), self.parts.folder.clone());
            let closed = tokio::task::spawn_blocking(move || match mvcc.view().sync() {
                Ok(()) => folder.mark_clean().map_err(|err| storage_error(&err).to_string()),
                Err(err) => Err(err.to_string()),
            });
            if let Ok(Err(err)) | Err(err) = closed.await.map_err(|err| err.to_string()) {
                tracing::warn!(err, "The view was not closed cleanly; it is rebuilt if the machine restarts.");
            }
        }
    }
}

/// The next proposal; never ends when nobody can propose any more.
async fn next_proposal(proposals: &mut mpsc::Receiver<Proposal>) -> Proposal {
    match proposals.recv().await {
        Some(first) => first,
        None => pending().await,
    }
}

/// What goes into one entry: the first, and what waits behind it.
fn batch_of(first: Option<Proposal>, proposals: &mut mpsc::Receiver<Proposal>) -> Vec<Proposal> {
    let mut bytes = first.as_ref().map_or(0, |first| first.bytes);
    let mut batch: Vec<Proposal> = first.into_iter().collect();
    while batch.len() < BATCH_COMMANDS_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(next) = proposals.try_recv() else { break };
        bytes += next.bytes;
        batch.push(next);
    }
    batch
}

/// How an entry says which batch is in it, without being read.
fn context(proposer: u64, sequence: u64) -> Vec<u8> {
    [proposer.to_be_bytes(), sequence.to_be_bytes()].concat()
}

/// Applies committed entries as one batch. `own` are the commands of those that need not be read.
fn apply(mvcc: &Mvcc, entries: &[Entry], own: Vec<Option<OwnBatch>>) -> Result<Applied, ApplyError> {
    let mut commands = Vec::new();
    let mut batches = Vec::new();
    for (entry, own) in entries.iter().zip(own) {
        let unknown = |reason| ApplyError::Entry(OpenError::Entry { index: entry.index, reason });
        if entry.get_entry_type() != EntryType::EntryNormal {
            return Err(unknown("it changes the members".to_owned()));
        }
        let (from, read) = own.map_or_else(|| decode_entry(&entry.data).map_err(unknown), Ok)?;
        batches.push((from, read.len()));
        commands.push(read);
    }
    let Some(last) = entries.last() else { return Ok(Vec::new()) };
    let mut answers = mvcc.apply(&commands, (last.index, last.term)).map_err(ApplyError::View)?.into_iter();
    Ok(batches.into_iter().map(|(from, n)| (from, answers.by_ref().take(n).collect())).collect())
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

fn in_use() -> KvError {
    KvError::Storage { what: "the log".to_owned(), reason: "it is in use".to_owned() }
}

fn storage_error(err: &DiskError) -> KvError {
    KvError::Storage { what: err.path.clone(), reason: format!("cannot {}: {}", err.verb, err.source) }
}
