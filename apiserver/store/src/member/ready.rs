//! Does what Raft wants done: what must be durable goes to the disk job, what may be said at once is sent, what may be
//! said only when it is durable waits for that. Raft goes on meanwhile; it is told when the disk is done.
//!
//! All that waits while the disk is at work becomes one record and one sync. A disk that does not come back within a
//! second costs a leader its place ([`Member::watch_disk`]); whoever has such a disk says nothing any more
//! that would need it.

use std::collections::VecDeque;
use std::time::Duration;

use raft::eraftpb::{Entry, Message, Snapshot};
use reeve_proto::store::{HardState, LogBase, LogRecord, VERSION};
use tokio::time::Instant;

use super::{Member, PATIENCE, stopped, storage_error};
use crate::disk::DiskError;
use crate::kv::KvError;
use crate::log::{self, Log};
use crate::recover::from_raft;
use crate::snapshot;

/// How often a full disk is looked at: nobody tells when there is room again.
const SPACE_PERIOD: Duration = Duration::from_secs(1);
/// A sync that takes longer is worth a warning.
const SLOW_AFTER: Duration = Duration::from_millis(500);
/// But not more often than so.
const WARN_PERIOD: Duration = Duration::from_secs(30);

/// What is on its way to the disk.
#[derive(Default)]
pub(super) struct Writes {
    /// In order. Bounded by what Raft lets another member send without an answer.
    pending: VecDeque<Append>,
    /// An append is with the disk job.
    in_flight: bool,
    /// What did not fit on the disk: it goes into the log before anything else does.
    stalled: Option<Append>,
    /// When the oldest append was begun that is not done.
    since: Option<Duration>,
    /// The leader has tried to hand over because of its disk.
    handing_over: bool,
    pub(super) slow: u64,
    warned: Option<Duration>,
}

impl Writes {
    /// Whether all that Raft has asked for is durable.
    fn idle(&self) -> bool {
        self.pending.is_empty() && !self.in_flight && self.stalled.is_none()
    }

    pub(super) fn stalled(&self) -> bool {
        self.stalled.is_some()
    }

    pub(super) fn waiting(&self) -> usize {
        self.pending.len() + usize::from(self.in_flight || self.stalled.is_some())
    }
}

/// What makes a Raft ready durable, or several.
pub(super) struct Append {
    record: LogRecord,
    number: u64,
    /// What may be said then.
    messages: Vec<Message>,
    /// A snapshot that was fetched and counts from then on.
    adopt: Option<u64>,
}

impl Append {
    /// Puts another one behind this one.
    fn merge(&mut self, next: Self) {
        self.number = next.number;
        self.messages.extend(next.messages);
        self.adopt = next.adopt.or(self.adopt);
        self.record.hard_state = next.record.hard_state;
        if next.record.base.is_some() {
            self.record.entries.clear();
            self.record.base = next.record.base;
        }
        self.record.entries.extend(next.record.entries);
    }
}

pub(super) struct DiskDone {
    log: Log,
    outcome: Result<DiskOutcome, DiskError>,
    /// Bytes that are free on the disk then.
    free: Result<u64, DiskError>,
}

enum DiskOutcome {
    /// All Raft readies up to this number are durable; what may be said now; the snapshot that counts now.
    Persisted(u64, Vec<Message>, Option<u64>),
    /// Nothing has happened: it does not fit.
    Full(Append, DiskError),
}

impl Member {
    /// Does what Raft wants done.
    pub(super) fn handle_ready(&mut self) -> Result<(), KvError> {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            self.send(ready.take_messages());
            let snapshot = Some(ready.snapshot().clone()).filter(|snapshot| !snapshot.is_empty());
            self.to_apply.extend(ready.take_committed_entries());
            let read_states = ready.take_read_states();
            let tail = self.node.mut_store();
            if let Some(hard_state) = ready.hs() {
                tail.set_hard_state(hard_state.clone());
            }
            if let Some(snapshot) = &snapshot {
                tail.restore(snapshot);
            }
            let entries = ready.take_entries();
            tail.append(&entries);
            let hard_state = tail.hard_state().clone();
            let messages = ready.take_persisted_messages();
            let (number, must_sync) = (ready.number(), ready.must_sync());
            self.node.advance_append_async(ready);
            self.note_leadership();
            self.on_read_states(read_states);
            if let Some(snapshot) = &snapshot {
                self.begin_install(snapshot);
            }
            if must_sync || !self.writes.idle() {
                self.append(number, &hard_state, entries, (snapshot.as_ref(), messages))?;
            } else {
                self.node.on_persist_ready(number);
                self.send(messages);
            }
        }
        Ok(())
    }

    fn append(
        &mut self,
        number: u64,
        hard_state: &raft::eraftpb::HardState,
        entries: Vec<Entry>,
        (snapshot, messages): (Option<&Snapshot>, Vec<Message>),
    ) -> Result<(), KvError> {
        let hard_state = HardState { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit };
        let base = snapshot.map(|snapshot| {
            let metadata = snapshot.get_metadata();
            LogBase { index: metadata.index, term: metadata.term }
        });
        let entries = entries.into_iter().map(from_raft).collect();
        let record = LogRecord { version: VERSION, hard_state: Some(hard_state), entries, base };
        self.writes.pending.push_back(Append { record, number, messages, adopt: base.map(|base| base.index) });
        if self.writes.since.is_none() {
            self.writes.since = Some(self.now());
        }
        self.start_append();
        Ok(())
    }

    /// Hands the disk all that waits for it, if it is free.
    fn start_append(&mut self) {
        if self.writes.stalled.is_some() || self.writes.pending.is_empty() {
            return;
        }
        let Some(log) = self.log.take() else { return };
        let Some(mut append) = self.writes.pending.pop_front() else { return };
        while let Some(next) = self.writes.pending.pop_front() {
            append.merge(next);
        }
        self.give_to_disk(log, append);
    }

    fn give_to_disk(&mut self, mut log: Log, append: Append) {
        self.writes.in_flight = true;
        let disk = self.parts.folder.disk.clone();
        self.disk_job = Some(self.parts.jobs.spawn(move || {
            let outcome = match log.append(&append.record) {
                Ok(()) => append
                    .adopt
                    .map_or(Ok(()), |index| snapshot::adopt_received(&*disk, index))
                    .map(|()| DiskOutcome::Persisted(append.number, append.messages, append.adopt)),
                Err(err) if err.is_full() => Ok(DiskOutcome::Full(append, err)),
                Err(err) => Err(err),
            };
            DiskDone { log, outcome, free: disk.free_bytes() }
        }));
    }

    /// Cuts off the log what a snapshot has made superfluous. The files go while others are written.
    pub(super) fn start_cut(&mut self) {
        if self.cut_job.is_some() {
            return;
        }
        let (Some(index), Some(log)) = (self.cut, &mut self.log) else { return };
        self.cut = None;
        let (segments, disk) = (log.cut(index), self.parts.folder.disk.clone());
        if !segments.is_empty() {
            self.cut_job = Some(self.parts.jobs.spawn(move || log::remove(&*disk, &segments)));
        }
    }

    pub(super) fn on_disk(&mut self, done: DiskDone) -> Result<(), KvError> {
        self.log = Some(done.log);
        self.note_space(done.free);
        self.start_cut(); // on a busy leader the log is here only for this moment
        match done.outcome {
            Ok(DiskOutcome::Persisted(number, messages, adopted)) => {
                self.node.on_persist_ready(number);
                self.note_write_done();
                match adopted {
                    Some(index) => self.on_adopted(index, messages),
                    None => self.send(messages),
                }
            }
            Ok(DiskOutcome::Full(_, err)) if self.ready.is_some() => return Err(storage_error(&err)),
            Ok(DiskOutcome::Full(append, err)) => {
                self.note_space(Ok(0)); // whatever is said to be free: it does not fit
                self.writes.in_flight = false;
                self.writes.stalled = Some(append);
                self.proposals.refuse_all(&storage_error(&err));
            }
            // What was written since the last sync may be lost, whatever a second try says: this member is done.
            Err(err) => return Err(storage_error(&err)),
        }
        self.start_append();
        Ok(())
    }

    fn note_write_done(&mut self) {
        let now = self.now();
        let took = self.writes.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.writes.in_flight = false;
        self.writes.handing_over = false;
        self.writes.since = if self.writes.pending.is_empty() { None } else { Some(now) };
        if took > SLOW_AFTER {
            self.writes.slow += 1;
            if self.writes.warned.is_none_or(|warned| now.saturating_sub(warned) > WARN_PERIOD) {
                self.writes.warned = Some(now);
                tracing::warn!(?took, "The disk is slow: writes wait for it.");
            }
        }
    }

    /// Whether the disk has been busy with one append for so long that nobody should wait for this member.
    pub(super) fn disk_is_stuck(&self) -> bool {
        let now = self.now();
        self.writes.since.is_some_and(|since| now.saturating_sub(since) >= PATIENCE)
    }

    /// A leader that cannot write hands over, and if nobody takes over in time it steps down, so that others elect one
    /// who can. Called with every tick.
    pub(super) fn watch_disk(&mut self) {
        if !self.leads() || self.is_alone() || !self.disk_is_stuck() {
            return;
        }
        let now = self.now();
        let busy = self.writes.since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        if busy >= 2 * PATIENCE {
            tracing::warn!(?busy, "The disk does not answer: this member leads no longer.");
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, raft::INVALID_ID);
        } else if !self.writes.handing_over {
            tracing::warn!(?busy, "The disk does not answer: this member hands leadership over.");
            self.writes.handing_over = true;
            self.hand_over();
        }
    }

    pub(super) fn note_space(&mut self, free: Result<u64, DiskError>) {
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
    pub(super) async fn look_at_space(&mut self) -> Result<(), KvError> {
        let disk = self.parts.folder.disk.clone();
        let free = self.parts.jobs.spawn(move || disk.free_bytes()).await;
        self.note_space(free.map_err(|err| stopped("the disk", &err))?);
        if self.space.is_full() {
            return Ok(());
        }
        if let Some(err) = self.view_lost.take() {
            self.on_view_broken(err).await?;
        }
        match (self.writes.stalled.take(), self.log.take()) {
            (Some(append), Some(log)) => self.give_to_disk(log, append),
            (stalled, log) => (self.writes.stalled, self.log) = (stalled, log),
        }
        Ok(())
    }
}
