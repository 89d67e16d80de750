//! Applies what is committed, in order, and answers those who proposed it here.

use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeV2, Entry, EntryType};
use reeve_proto::store::MemberChange;

use super::propose::OwnBatch;
use super::{Member, stopped, storage_error};
use crate::disk::DiskError;
use crate::evaluate::{Answer, Command};
use crate::kv::KvError;
use crate::mvcc::{Mvcc, due_compaction};
use crate::recover::{OpenError, RETAINED_BYTES, decode_entry};
use crate::view::ViewError;

/// Entries that are applied in one batch of the view: more than one only while this member catches up.
const APPLY_ENTRIES_MAX: usize = 16;
/// What is kept of the log for others while one of them gets a snapshot: it goes on where that ends.
const RETAINED_FOR_SNAPSHOT: usize = 16 * RETAINED_BYTES;

/// One per command of a batch.
pub(super) type Answers = Vec<Result<Answer, KvError>>;

/// Proposer, sequence and answers of each batch.
type Applied = Vec<((u64, u64), Answers)>;

enum ApplyError {
    View(ViewError),
    Entry(OpenError),
}

impl Member {
    pub(super) fn may_apply(&self) -> bool {
        let installing = self.install.is_some() || self.install_job.is_some();
        !self.to_apply.is_empty()
            && self.view_lost.is_none()
            && self.changing.is_none()
            && !installing
            && self.view_keeps_up()
    }

    /// Applies the next committed entries, and answers.
    pub(super) async fn apply(&mut self) -> Result<(), KvError> {
        let changes_members = |entry: &Entry| entry.get_entry_type() != EntryType::EntryNormal;
        if self.to_apply.front().is_some_and(changes_members) {
            return self.begin_member_change();
        }
        let n = self.to_apply.iter().take(APPLY_ENTRIES_MAX).take_while(|entry| !changes_members(entry)).count();
        let entries: Vec<Entry> = self.to_apply.drain(..n).collect();
        let own: Vec<_> = entries.iter().map(|entry| self.proposals.commands_of(entry)).collect();
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

    fn on_applied(&mut self, entries: &[Entry], applied: Applied) {
        for (batch, answers) in applied {
            self.scrubbing |= answers.iter().any(|answer| matches!(answer, Ok(Answer::Compacted)));
            self.proposals.answer(batch, answers);
        }
        if let Some(last) = entries.last() {
            self.on_applied_to(last.index, last.term);
        }
        self.compact_if_due();
    }

    /// Everything up to this entry is visible here.
    pub(super) fn on_applied_to(&mut self, index: u64, term: u64) {
        self.rebuilds = 0;
        self.node.advance_apply_to(index);
        self.scrubbing |= self.parts.mvcc.wants_scrub();
        let keep = if self.members.is_alone(self.identity.id) {
            0
        } else if self.outgoing.is_busy() {
            RETAINED_FOR_SNAPSHOT
        } else {
            RETAINED_BYTES
        };
        self.node.mut_store().trim(index, keep);
        self.reads.on_applied(index);
        self.answer_early_questions();
        if term == self.node.raft.term
            && let Some(ready) = self.ready.take()
        {
            let _ = ready.send(());
        }
        if self.proposals.note_term(term) {
            self.propose_again();
        }
    }

    fn compact_if_due(&mut self) {
        let due = due_compaction(&self.parts.mvcc.position(), self.parts.history_max);
        if let Some(revision) = due.filter(|_| self.leads() && !self.proposals.compacting()) {
            self.propose_compaction(revision);
        }
    }

    /// Takes a change of the members out of the log: Raft follows it from now on, and it is applied when the member
    /// file has it. The file is never behind the view.
    fn begin_member_change(&mut self) -> Result<(), KvError> {
        let Some(entry) = self.to_apply.pop_front() else { return Ok(()) };
        if entry.index > self.members.index {
            let unknown = |reason: String| stopped("its members", &OpenError::Entry { index: entry.index, reason });
            let mut change = ConfChangeV2::default();
            change.merge_from_bytes(&entry.data).map_err(|err| unknown(err.to_string()))?;
            let context = MemberChange::decode(&entry.context[..]).map_err(|err| unknown(err.to_string()))?;
            let conf = self.node.apply_conf_change(&change).map_err(|err| unknown(err.to_string()))?;
            self.members = self.members.changed(conf, context.addresses, entry.index);
            tracing::info!(members = ?self.members.conf, index = entry.index, "The members have changed.");
            self.on_members();
        }
        self.changing = Some(entry);
        self.write_members();
        Ok(())
    }

    /// Has the member file written, if that is due.
    pub(super) fn write_members(&mut self) {
        if self.changing.is_none() || self.members_job.is_some() {
            return;
        }
        let (folder, identity, members) = (self.parts.folder.clone(), self.identity.clone(), self.members.clone());
        self.members_job = Some(self.parts.jobs.spawn(move || folder.write_member(&identity, &members)));
    }

    pub(super) fn on_members_written(&mut self, outcome: Result<(), DiskError>) -> Result<(), KvError> {
        match outcome {
            Ok(()) => {}
            Err(err) if err.is_full() => {
                self.note_space(Ok(0)); // it is tried again when there is room
                return Ok(());
            }
            Err(err) => return Err(storage_error(&err)),
        }
        let Some(entry) = self.changing.take() else { return Ok(()) };
        match self.parts.mvcc.apply(&[Vec::new()], (entry.index, entry.term)) {
            Ok(_) => self.on_applied_to(entry.index, entry.term),
            Err(err) => {
                self.to_apply.push_front(entry); // the members know it by now; only the view does not
                self.parts.mvcc.report_broken(err);
                return Ok(());
            }
        }
        self.on_change_applied(&entry);
        Ok(())
    }
}

/// Applies committed entries as one batch. `own` are the commands of those that need not be read.
fn apply(mvcc: &Mvcc, entries: &[Entry], own: Vec<Option<OwnBatch>>) -> Result<Applied, ApplyError> {
    let mut commands: Vec<Vec<Command>> = Vec::new();
    let mut batches = Vec::new();
    for (entry, own) in entries.iter().zip(own) {
        let unknown = |reason| ApplyError::Entry(OpenError::Entry { index: entry.index, reason });
        let (from, read) = own.map_or_else(|| decode_entry(&entry.data).map_err(unknown), Ok)?;
        batches.push((from, read.len()));
        commands.push(read);
    }
    let Some(last) = entries.last() else { return Ok(Vec::new()) };
    let mut answers = mvcc.apply(&commands, (last.index, last.term)).map_err(ApplyError::View)?.into_iter();
    Ok(batches.into_iter().map(|(from, n)| (from, answers.by_ref().take(n).collect())).collect())
}
