//! Brings what callers propose into the log: by this member if it leads, else through the leader.
//!
//! Each batch is bound to the term in which it was given to a leader, and only the leader of that very term may put it
//! into the log, once. So there are two ends: the batch is applied, here as everywhere, and its callers are answered;
//! or an entry of a later term is applied first, and then the batch is in no log and never will be, and may be given to
//! the next leader. Nobody's write is lost silently or made twice, whatever the network does with messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use prost::Message as _;
use raft::eraftpb::Entry;
use reeve_proto::member::{Forward, Refused, message::Kind};
use reeve_proto::store::{Batch, VERSION};
use tokio::sync::{mpsc, oneshot};

use super::apply::Answers;
use super::{Member, Proposal, Reply, answer_all};
use crate::evaluate::Command;
use crate::kv::{KvError, Revision};
use crate::recover::decode_entry;
use crate::wire;

/// A batch is proposed when it has this many commands or bytes; what is over waits for the next one.
const BATCH_COMMANDS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Batches of this member that may be on their way into the log; what is over waits with its callers.
const PIPELINE_MAX: usize = 64;
/// Likewise when they go through the leader: enough for one to be gathered while others travel.
const FORWARDED_MAX: usize = 8;
/// A batch that the leader has not put into the log after this is sent once more: the message may be lost.
const RESEND_AFTER: Duration = Duration::from_millis(500);
/// Batches of one member that the leader remembers, so that it takes none twice. A message that was under way for
/// longer is not taken: its sender does not wait any more.
const SEEN_MAX: usize = 1024;

/// Proposer, sequence and commands of a batch.
pub(super) type OwnBatch = ((u64, u64), Vec<Command>);

/// What was proposed here, and what others have given to this leader.
pub(super) struct Proposals {
    /// This process, among all that ever proposed.
    proposer: u64,
    sequence: u64,
    /// Our own batches on their way, oldest first. At most [`PIPELINE_MAX`] and what was begun before.
    waiting: VecDeque<Waiting>,
    /// Batches of others that are in the log, as they were read when they came. Bounded by what Raft lets be
    /// uncommitted.
    accepted: VecDeque<OwnBatch>,
    /// Which batches of others are in the log, in this term.
    seen: BTreeMap<u64, Seen>,
    seen_in: u64,
    /// The batch that holds our own compaction.
    compaction: u64,
}

/// A batch that was proposed here.
struct Waiting {
    sequence: u64,
    /// The term whose leader has it; `None` when none has.
    bound: Option<u64>,
    sent: Duration,
    /// As they were handed in, so that they need not be read out of the entry; empty once they were taken.
    commands: Vec<Command>,
    /// Who waits for the outcome of each.
    replies: Vec<Reply>,
}

impl Waiting {
    /// Whether nobody waits any more.
    fn is_deserted(&self) -> bool {
        self.replies.iter().all(oneshot::Sender::is_closed)
    }

    fn encoded(&self, proposer: u64) -> Vec<u8> {
        let commands = self.commands.iter().map(Into::into).collect();
        Batch { version: VERSION, proposer, sequence: self.sequence, commands }.encode_to_vec()
    }
}

/// Sequences that were taken of one proposer.
#[derive(Default)]
struct Seen {
    /// Up to here, all count as taken.
    floor: u64,
    sequences: BTreeSet<u64>,
}

impl Seen {
    /// Whether this one has not been taken before; from now on it has.
    fn is_new(&mut self, sequence: u64) -> bool {
        if sequence <= self.floor || !self.sequences.insert(sequence) {
            return false;
        }
        if self.sequences.len() > SEEN_MAX
            && let Some(first) = self.sequences.pop_first()
        {
            self.floor = first;
        }
        true
    }
}

impl Proposals {
    pub(super) fn new(proposer: u64) -> Self {
        Self {
            proposer,
            sequence: 0,
            waiting: VecDeque::new(),
            accepted: VecDeque::new(),
            seen: BTreeMap::new(),
            seen_in: 0,
            compaction: 0,
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn proposer(&self) -> u64 {
        self.proposer
    }

    /// The number of the next thing that this process proposes.
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// Whether our own compaction is under way.
    pub(super) fn compacting(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.sequence == self.compaction)
    }

    /// The commands of an entry, if they need not be read out of it.
    pub(super) fn commands_of(&mut self, entry: &Entry) -> Option<OwnBatch> {
        let proposer = self.proposer;
        let own = |waiting: &&mut Waiting| entry.context == context(proposer, waiting.sequence);
        if let Some(waiting) = self.waiting.iter_mut().find(own) {
            let commands = std::mem::take(&mut waiting.commands);
            return (!commands.is_empty()).then_some(((proposer, waiting.sequence), commands));
        }
        let other = |((proposer, sequence), _): &OwnBatch| entry.context == context(*proposer, *sequence);
        let at = self.accepted.iter().position(other)?;
        self.accepted.remove(at)
    }

    /// Hands the answers of a batch to those who wait for them.
    pub(super) fn answer(&mut self, (proposer, sequence): (u64, u64), answers: Answers) {
        if proposer != self.proposer {
            return;
        }
        let at = self.waiting.iter().position(|waiting| waiting.sequence == sequence);
        if let Some(waiting) = at.and_then(|at| self.waiting.remove(at)) {
            for (reply, answer) in waiting.replies.into_iter().zip(answers) {
                let _ = reply.send(answer); // a caller that has gone away does not need it
            }
        }
    }

    /// An entry of this term is applied: batches that were given to leaders of earlier terms and are not applied by now
    /// never will be. Whether there are such.
    pub(super) fn note_term(&mut self, term: u64) -> bool {
        let mut any = false;
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.bound.is_some_and(|bound| bound < term)) {
            waiting.bound = None;
            any = true;
        }
        any
    }

    /// The state has come as a snapshot of this term: what of our own is in it cannot be told.
    pub(super) fn lose_sight(&mut self, term: u64) {
        let err = KvError::Unavailable {
            reason: "this member was too far behind to see what became of the write".to_owned(),
        };
        let lost = |waiting: &Waiting| waiting.bound.is_some_and(|bound| bound <= term);
        for waiting in self.waiting.iter_mut().filter(|waiting| lost(waiting)) {
            answer_all(std::mem::take(&mut waiting.replies), &err);
        }
        self.waiting.retain(|waiting| !lost(waiting));
    }

    /// The leader says that it has not put a batch into the log and never will.
    fn on_refused(&mut self, refused: &Refused) {
        let is_it = |waiting: &Waiting| waiting.sequence == refused.sequence && waiting.bound == Some(refused.term);
        let at = self.waiting.iter().position(is_it).filter(|_| refused.proposer == self.proposer);
        if let Some(waiting) = at.and_then(|at| self.waiting.remove(at)) {
            let (what, reason) = (refused.what.clone(), refused.reason.clone());
            answer_all(waiting.replies, &KvError::Storage { what, reason });
        }
    }

    /// What is under way may still happen; nobody is to wait for it.
    pub(super) fn refuse_all(&mut self, err: &KvError) {
        let replies = self.waiting.iter_mut().flat_map(|waiting| std::mem::take(&mut waiting.replies));
        answer_all(replies, err);
    }

    pub(super) fn fail(&mut self, err: &KvError) {
        self.refuse_all(err);
        self.waiting.clear();
    }
}

impl Member {
    /// Whether there is somewhere to bring proposals to, and room on the way.
    pub(super) fn accepts(&self) -> bool {
        if self.closing.is_some() {
            return false;
        }
        if self.leads() {
            self.disk_job.is_none()
                && self.writes.waiting() == usize::from(self.writes.stalled())
                && self.to_apply.len() <= 1
                && self.proposals.waiting.len() < PIPELINE_MAX
                && self.node.raft.lead_transferee.is_none()
        } else {
            self.leader().is_some() && self.proposals.waiting.len() < FORWARDED_MAX
        }
    }

    /// Proposes what there is. Whoever is ready to run gets a turn before: on an idle machine that is nobody, on a busy
    /// one the requests that are on their way share one sync.
    pub(super) async fn propose(&mut self, first: Option<Proposal>) {
        tokio::task::yield_now().await;
        let batch = batch_of(first, &mut self.parts.proposals);
        let batch = self.admitted(batch);
        if !batch.is_empty() {
            self.propose_batch(batch);
        }
    }

    /// What of a batch the disk has room for; who proposed the rest is told so. For others the leader decides, as long
    /// as what it decides can be followed here.
    fn admitted(&self, batch: Vec<Proposal>) -> Vec<Proposal> {
        if !self.space.is_full() || !self.leads() && !self.writes.stalled() {
            return batch;
        }
        let fits = |proposal: &Proposal| !self.writes.stalled() && self.space.admits(&proposal.command);
        let (admitted, refused): (Vec<_>, Vec<_>) = batch.into_iter().partition(fits);
        answer_all(refused.into_iter().map(|proposal| proposal.reply), &self.refusal());
        admitted
    }

    fn refusal(&self) -> KvError {
        self.space.refusal(&self.parts.folder.disk.path_of(""))
    }

    fn propose_batch(&mut self, proposals: Vec<Proposal>) {
        let sequence = self.proposals.next_sequence();
        let (commands, replies): (Vec<_>, Vec<_>) =
            proposals.into_iter().map(|proposal| (proposal.command, proposal.reply)).unzip();
        let waiting = Waiting { sequence, bound: None, sent: Duration::ZERO, commands, replies };
        self.proposals.waiting.push_back(waiting);
        self.give(self.proposals.waiting.len() - 1);
    }

    pub(super) fn propose_compaction(&mut self, revision: Revision) {
        let (reply, _) = oneshot::channel(); // nobody waits
        self.propose_batch(vec![Proposal { command: Command::Compact(revision), bytes: 0, reply }]);
        self.proposals.compaction = self.proposals.sequence;
    }

    /// Gives a waiting batch to the leader, which may be this member; keeps it when there is none.
    fn give(&mut self, at: usize) {
        let (now, term, proposer) = (self.now(), self.node.raft.term, self.proposals.proposer);
        let (leads, leader) = (self.leads(), self.leader());
        let Some(waiting) = self.proposals.waiting.get_mut(at) else { return };
        if leads {
            match self.node.propose(context(proposer, waiting.sequence), waiting.encoded(proposer)) {
                Ok(()) => (waiting.bound, waiting.sent) = (Some(term), now),
                Err(err) => {
                    let reason = err.to_string();
                    answer_all(std::mem::take(&mut waiting.replies), &KvError::Unavailable { reason });
                    self.proposals.waiting.remove(at);
                }
            }
        } else if let Some(leader) = leader {
            (waiting.bound, waiting.sent) = (Some(term), now);
            let data = waiting.encoded(proposer).into();
            let forward = Forward { term, proposer, sequence: waiting.sequence, data };
            self.say(leader, Kind::Forward(forward), false);
        }
    }

    /// Gives every batch that no leader has to the one there is now.
    pub(super) fn propose_again(&mut self) {
        self.proposals.waiting.retain(|waiting| waiting.bound.is_some() || !waiting.is_deserted());
        for at in (0..self.proposals.waiting.len()).rev() {
            if self.proposals.waiting.get(at).is_some_and(|waiting| waiting.bound.is_none()) {
                self.give(at);
            }
        }
    }

    /// Sends once more what the leader does not seem to have got: it takes nothing twice.
    pub(super) fn resend(&mut self) {
        let (now, term) = (self.now(), self.node.raft.term);
        self.propose_again();
        if self.leads() || self.leader().is_none() {
            return;
        }
        for at in 0..self.proposals.waiting.len() {
            let due = self.proposals.waiting.get(at).is_some_and(|waiting| {
                let late = now.saturating_sub(waiting.sent) > RESEND_AFTER;
                waiting.bound == Some(term) && late && !waiting.commands.is_empty()
            });
            if due {
                self.give(at);
            }
        }
    }

    /// Puts a batch of another member into the log, if this member leads in the very term and has not done so before.
    pub(super) fn take_forwarded(&mut self, from: u64, forward: Forward) {
        let Forward { term, proposer, sequence, data } = forward;
        if !self.leads() || term != self.node.raft.term || self.node.raft.lead_transferee.is_some() {
            return; // it is told by who leads now, and sends it again
        }
        if self.proposals.seen_in != term {
            self.proposals.seen_in = term;
            self.proposals.seen.clear();
            self.proposals.accepted.clear();
        }
        let Ok((_, commands)) = decode_entry(&data) else {
            return tracing::warn!(from, "Dropped a proposal that cannot be understood.");
        };
        let full = self.writes.stalled() || commands.iter().any(|command| !self.space.admits(command));
        if self.node.raft.uncommitted_size() as u64 > super::UNCOMMITTED_BYTES_MAX / 2 {
            return; // it comes again when there is room
        }
        if !self.proposals.seen.entry(proposer).or_default().is_new(sequence) {
            return;
        }
        let refused = if full {
            Some(self.refusal())
        } else {
            self.node
                .propose(context(proposer, sequence), data.to_vec())
                .err()
                .map(|err| KvError::Storage { what: "the log of the leader".to_owned(), reason: err.to_string() })
        };
        match refused {
            None => self.proposals.accepted.push_back(((proposer, sequence), commands)),
            Some(KvError::Storage { what, reason }) => {
                self.say(from, Kind::Refused(Refused { term, proposer, sequence, what, reason }), true);
            }
            Some(_) => {}
        }
    }

    pub(super) fn on_refused(&mut self, refused: &Refused) {
        self.proposals.on_refused(refused);
    }

    /// Sends something to another member.
    pub(super) fn say(&self, to: u64, kind: Kind, urgent: bool) {
        if let Some(transport) = &self.parts.transport {
            transport.send(wire::parcel(self.identity.id, to, kind, urgent));
        }
    }
}

/// The next proposal; never ends when nobody can propose any more.
pub(super) async fn next_proposal(proposals: &mut mpsc::Receiver<Proposal>) -> Proposal {
    match proposals.recv().await {
        Some(first) => first,
        None => std::future::pending().await,
    }
}

/// What goes into one entry: the first, and what waits behind it. Whoever has gone away meanwhile is left out.
fn batch_of(first: Option<Proposal>, proposals: &mut mpsc::Receiver<Proposal>) -> Vec<Proposal> {
    let mut bytes = first.as_ref().map_or(0, |first| first.bytes);
    let mut batch: Vec<Proposal> = first.into_iter().collect();
    while batch.len() < BATCH_COMMANDS_MAX && bytes < BATCH_BYTES_MAX {
        let Ok(next) = proposals.try_recv() else { break };
        bytes += next.bytes;
        batch.push(next);
    }
    batch.retain(|proposal| !proposal.reply.is_closed());
    batch
}

/// How an entry says which batch is in it, without being read.
pub(super) fn context(proposer: u64, sequence: u64) -> Vec<u8> {
    [proposer.to_be_bytes(), sequence.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_batch_is_taken_twice_however_late_it_comes_again() {
        let mut seen = Seen::default();
        let last = SEEN_MAX as u64 + 10;
        assert!((1..=last).all(|sequence| seen.is_new(sequence)));
        assert!((1..=last).all(|sequence| !seen.is_new(sequence)));
        assert!(seen.is_new(last + 2) && seen.is_new(last + 1), "a gap is filled later");
    }

    #[test]
    fn a_batch_that_a_former_leader_has_not_brought_in_is_given_to_the_next() {
        let mut proposals = Proposals::new(1);
        let waiting = |sequence, bound| Waiting {
            sequence,
            bound,
            sent: Duration::ZERO,
            commands: Vec::new(),
            replies: Vec::new(),
        };
        proposals.waiting.extend([waiting(1, Some(3)), waiting(2, Some(4))]);
        assert!(!proposals.note_term(3), "the leader of term 3 may still have it");
        assert!(proposals.note_term(4));
        let bound: Vec<_> = proposals.waiting.iter().map(|waiting| waiting.bound).collect();
        assert_eq!(bound, [None, Some(4)]);
    }
}
