//! The owner of the Raft state: one task, one `select!`. It decides; disk, view and snapshots are worked on by jobs
//! on blocking threads, one of each kind at a time, so that the next batch is collected while one is synced and
//! another one applied.
//!
//! ```text
//! proposals -> batch -> Raft -> disk job (append, fsync) -> Raft commits -> apply job (view, watchers) -> callers
//! ```
//!
//! There is one member for now. It goes the way that three will: only what carries messages to others is missing.

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
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::disk::DiskError;
use crate::encoding::Position;
use crate::evaluate::{Answer, Command};
use crate::kv::KvError;
use crate::log::Log;
use crate::mvcc::{Mvcc, due_compaction};
use crate::recover::{DataFolder, OpenError, Start, decode_entry, from_raft, into_raft};
use crate::snapshot;
use crate::tail::Tail;
use crate::view::ViewError;

/// Raft's unit of time; an election takes [`ELECTION_TICKS`] to twice as many.
const TICK: Duration = Duration::from_millis(100);
const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 1;
/// A batch is proposed when it has this many commands or bytes; what is over waits for the next one.
const BATCH_COMMANDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Entries that may wait to be applied before no more is proposed: applying has fallen behind the disk.
const APPLY_BACKLOG_MAX: usize = 8;
/// Entries that are applied in one batch of the view; more than the backlog only while the log is replayed.
const APPLY_ENTRIES_MAX: usize = 16;
/// A snapshot is due when the log has more segments than this: each start begins one.
const SEGMENTS_MAX: usize = 64;
/// A view that fails again right after it was rebuilt so often will not get better.
const REBUILDS_MAX: u32 = 3;
/// However large the state is, the log does not grow beyond this: it is read into memory after a machine crash.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a caller waits for.
pub(crate) type Reply = oneshot::Sender<Result<Answer, KvError>>;

/// A command on its way into the log, with its size in bytes and who waits for it.
pub(crate) struct Proposal {
    pub(crate) command: Command,
    pub(crate) bytes: usize,
    pub(crate) reply: Reply,
}

/// What member and handles share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Why the member writes no more, if it had to stop. Reads go on.
    pub(crate) failure: OnceLock<KvError>,
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
    apply_job: Option<JoinHandle<ApplyDone>>,
    snapshot_job: Option<JoinHandle<Result<(u64, u64), snapshot::WriteError>>>,
    to_apply: VecDeque<Entry>,
    /// Those who wait for the outcome of our own batches, oldest first.
    waiting: VecDeque<(u64, Vec<Reply>)>,
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
}

/// One per command of a batch.
type Answers = Vec<Result<Answer, KvError>>;

struct DiskDone {
    log: Log,
    /// The Raft ready that is durable now, if the job was to append.
    persisted: Result<Option<u64>, DiskError>,
}

struct ApplyDone {
    entries: Vec<Entry>,
    outcome: Result<Applied, ApplyError>,
}

#[derive(Default)]
struct Applied {
    /// Proposer, sequence and answers of each batch.
    batches: Vec<((u64, u64), Answers)>,
    /// Whether there is more to scrub, if a scrub was tried.
    scrub: Option<bool>,
}

enum ApplyError {
    View(ViewError),
    Entry(OpenError),
}

enum Event {
    Proposed(Vec<Proposal>),
    Disk(DiskDone),
    Applied(ApplyDone),
    Snapshot(Result<(u64, u64), snapshot::WriteError>),
    ViewBroken(ViewError),
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
            apply_job: None,
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
            self.start_jobs();
            if closing && self.is_idle() {
                return Ok(());
            }
            match self.next_event(closing).await? {
                Event::Proposed(proposals) => self.propose(proposals),
                Event::Disk(done) => self.on_disk(done)?,
                Event::Applied(done) => self.on_applied(done).await?,
                Event::Snapshot(outcome) => self.on_snapshot(outcome),
                Event::ViewBroken(err) => self.on_view_broken(&err).await?,
                Event::Close => closing = true,
            }
        }
    }

    async fn next_event(&mut self, closing: bool) -> Result<Event, KvError> {
        let accepts = self.disk_job.is_none() && self.to_apply.len() < APPLY_BACKLOG_MAX && !closing;
        let Parts { proposals, mvcc, shared, .. } = &mut self.parts;
        tokio::select! {
            biased;
            done = finished(&mut self.disk_job) => done.map(Event::Disk),
            done = finished(&mut self.apply_job) => done.map(Event::Applied),
            done = finished(&mut self.snapshot_job) => done.map(Event::Snapshot),
            err = mvcc.breaks(), if self.apply_job.is_none() && self.disk_job.is_none() => Ok(Event::ViewBroken(err)),
            () = shared.closing.cancelled(), if !closing => Ok(Event::Close),
            batch = next_batch(proposals), if accepts => Ok(Event::Proposed(batch)),
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

    fn propose(&mut self, proposals: Vec<Proposal>) {
        self.sequence += 1;
        let (commands, replies): (Vec<_>, Vec<_>) =
            proposals.into_iter().map(|proposal| ((&proposal.command).into(), proposal.reply)).unzip();
        let batch = Batch { version: VERSION, proposer: self.proposer, sequence: self.sequence, commands };
        match self.node.propose(Vec::new(), batch.encode_to_vec()) {
            Ok(()) => self.waiting.push_back((self.sequence, replies)),
            Err(err) => {
                let reason = err.to_string();
                answer_all(replies, &KvError::Unavailable { reason });
            }
        }
    }

    /// Does what Raft wants done. While the disk is at work it is not asked.
    fn handle_ready(&mut self) -> Result<(), KvError> {
        while self.disk_job.is_none() && self.node.has_ready() {
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
        let Some(mut log) = self.log.take() else { return Err(in_use()) };
        let hard_state = HardState { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit };
        let entries = entries.iter().map(from_raft).collect();
        let record = LogRecord { version: VERSION, hard_state: Some(hard_state), entries };
        self.disk_job = Some(tokio::task::spawn_blocking(move || {
            let persisted = log.append(&record).map(|()| Some(number));
            DiskDone { log, persisted }
        }));
        Ok(())
    }

    fn start_jobs(&mut self) {
        self.start_cut();
        self.start_snapshot();
        if self.apply_job.is_none() && (!self.to_apply.is_empty() || self.may_scrub()) {
            let n = self.to_apply.len().min(APPLY_ENTRIES_MAX);
            let entries: Vec<Entry> = self.to_apply.drain(..n).collect();
            let (mvcc, scrub) = (self.parts.mvcc.clone(), self.may_scrub());
            self.apply_job = Some(tokio::task::spawn_blocking(move || {
                let outcome = apply(&mvcc, &entries, scrub);
                ApplyDone { entries, outcome }
            }));
        }
    }

    /// A snapshot needs what a scrub removes.
    fn may_scrub(&self) -> bool {
        self.scrubbing && self.snapshot_job.is_none()
    }

    fn start_cut(&mut self) {
        let idle = self.disk_job.is_none();
        let Some(index) = self.cut.filter(|_| idle) else { return };
        let Some(mut log) = self.log.take() else { return };
        self.cut = None;
        self.disk_job = Some(tokio::task::spawn_blocking(move || {
            let persisted = log.cut(index).map(|()| None);
            DiskDone { log, persisted }
        }));
    }

    /// By size: writing a snapshot may cost as much as the log that it replaces, so the log may grow with the state.
    fn start_snapshot(&mut self) {
        let Some(log) = &self.log else { return };
        let allowed = self.snapshot.1.min(LOG_BYTES_MAX).max(self.parts.log_bytes);
        let due = log.bytes() > allowed || log.segments() > SEGMENTS_MAX;
        // The apply job may be scrubbing; and the position must be that of the view.
        if !due || self.snapshot_job.is_some() || self.apply_job.is_some() || self.cut.is_some() {
            return;
        }
        let position = self.parts.mvcc.position();
        if position.index <= self.snapshot.0 {
            return;
        }
        let (disk, view) = (self.parts.folder.disk.clone(), self.parts.mvcc.view());
        let voters = self.node.store().voters().to_vec();
        self.snapshot_job = Some(tokio::task::spawn_blocking(move || {
            snapshot::write(&*disk, &*view, position, &voters).map(|bytes| (position.index, bytes))
        }));
    }

    fn on_disk(&mut self, done: DiskDone) -> Result<(), KvError> {
        self.log = Some(done.log);
        match done.persisted {
            Ok(Some(number)) => self.node.on_persist_ready(number),
            Ok(None) => {}
            // What was written since the last sync may be lost, whatever a second try says: this member is done.
            Err(err) => return Err(storage_error(&err)),
        }
        Ok(())
    }

    async fn on_applied(&mut self, done: ApplyDone) -> Result<(), KvError> {
        let applied = match done.outcome {
            Ok(applied) => applied,
            Err(ApplyError::Entry(err)) => return Err(stopped("its view", &err)),
            Err(ApplyError::View(err)) => {
                done.entries.into_iter().rev().for_each(|entry| self.to_apply.push_front(entry));
                return self.on_view_broken(&err).await;
            }
        };
        self.scrubbing = applied.scrub.unwrap_or(self.scrubbing);
        for ((proposer, sequence), answers) in applied.batches {
            self.scrubbing |= answers.iter().any(|answer| matches!(answer, Ok(Answer::Compacted)));
            if proposer == self.proposer {
                self.answer(sequence, answers);
            }
        }
        if let Some(last) = done.entries.last() {
            self.rebuilds = 0;
            self.node.advance_apply_to(last.index);
            self.node.mut_store().trim(last.index);
            if last.term == self.node.raft.term
                && let Some(ready) = self.ready.take()
            {
                let _ = ready.send(());
            }
        }
        self.compact_if_due();
        Ok(())
    }

    /// Hands the answers of a batch to those who wait for them.
    fn answer(&mut self, sequence: u64, answers: Answers) {
        while let Some((waiting, replies)) = self.waiting.pop_front() {
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
            self.propose(vec![Proposal { command: Command::Compact(revision), bytes: 0, reply }]);
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

    /// Rebuilds the view from snapshot and log; meanwhile nothing is applied and reads are refused.
    async fn on_view_broken(&mut self, err: &ViewError) -> Result<(), KvError> {
        self.rebuilds += 1;
        if self.rebuilds > REBUILDS_MAX {
            return Err(stopped("its view", err));
        }
        tracing::warn!(%err, "Rebuilding the view.");
        while let Some(job) = &mut self.disk_job {
            let done = job.await.map_err(|err| stopped("the log", &err))?;
            self.disk_job = None;
            self.on_disk(done)?;
        }
        let (folder, mvcc) = (self.parts.folder.clone(), self.parts.mvcc.clone());
        let stood: Position = mvcc.position();
        let rebuilt = tokio::task::spawn_blocking(move || folder.rebuild(stood)).await;
        let view = rebuilt.map_err(|err| stopped("its view", &err))?.map_err(|err| stopped("its view", &err))?;
        self.parts.mvcc.replace_view(view);
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.disk_job.is_none() && self.apply_job.is_none() && self.snapshot_job.is_none() && self.to_apply.is_empty()
    }

    /// Answers everybody, ends all watches, and leaves the view so that it can be used again.
    async fn finish(mut self) {
        self.parts.proposals.close();
        let failure = self.parts.shared.failure.get().cloned();
        let answer = failure.clone().unwrap_or(KvError::Closed);
        for (_, replies) in self.waiting.drain(..) {
            answer_all(replies, &answer);
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

/// The next proposals that go into one entry; never ends when nobody can propose any more.
async fn next_batch(proposals: &mut mpsc::Receiver<Proposal>) -> Vec<Proposal> {
    let Some(first) = proposals.recv().await else { return pending().await };
    let mut bytes = first.bytes;
    let mut batch = vec![first];
    while batch.len() < BATCH_COMMANDS_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(next) = proposals.try_recv() else { break };
        bytes += next.bytes;
        batch.push(next);
    }
    batch
}

/// Applies committed entries as one batch, then scrubs a little if there is time for it.
fn apply(mvcc: &Mvcc, entries: &[Entry], scrub: bool) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    let mut commands = Vec::new();
    let mut batches = Vec::new();
    for entry in entries {
        let unknown = |reason| ApplyError::Entry(OpenError::Entry { index: entry.index, reason });
        if entry.get_entry_type() != EntryType::EntryNormal {
            return Err(unknown("it changes the members".to_owned()));
        }
        let (from, mut own) = decode_entry(&entry.data).map_err(unknown)?;
        batches.push((from, own.len()));
        commands.append(&mut own);
    }
    if let Some(last) = entries.last() {
        let mut answers = mvcc.apply(&commands, (last.index, last.term)).map_err(ApplyError::View)?.into_iter();
        applied.batches = batches.into_iter().map(|(from, n)| (from, answers.by_ref().take(n).collect())).collect();
    }
    if scrub {
        let more = mvcc.scrub().map_err(|err| mvcc.report_broken(err));
        applied.scrub = Some(more.unwrap_or(false)); // the next compaction goes over what is left
    }
    Ok(applied)
}

/// The outcome of a job; never, when there is none.
async fn finished<T>(job: &mut Option<JoinHandle<T>>) -> Result<T, KvError> {
    let Some(running) = job else { return pending().await };
    let outcome = running.await.map_err(|err| stopped("a job of the store", &err));
    *job = None;
    outcome
}

fn answer_all(replies: Vec<Reply>, err: &KvError) {
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
