//! Linearizable reads: asks the leader up to which entry one must have applied before one may read (Raft's ReadIndex).
//! The leader asks a majority whether it still is: a process that was paused, or cut off, answers nothing stale.
//!
//! One question is under way at a time, for all who came before it was asked; who comes later waits for the next. The
//! raft crate drops questions silently when there is no leader or it has not committed anything yet, so they are asked
//! again.

use std::collections::VecDeque;
use std::time::Duration;

use raft::ReadState;

use super::propose::context;
use super::{Member, ReadReply};

/// Readers that may wait here; what is over waits with its callers.
const READS_MAX: usize = 4096;
/// A question without an answer is asked again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(super) struct Reads {
    /// For the next question.
    waiting: Vec<ReadReply>,
    asked: Option<Asked>,
    /// Who may read when this entry is applied; in the order of the entries.
    applying: VecDeque<(u64, Vec<ReadReply>)>,
    /// Counts questions.
    question: u64,
}

/// A question, asked once or more often.
struct Asked {
    /// An answer to any of them will do: all who wait came before the first.
    first: u64,
    last: u64,
    at: Duration,
    replies: Vec<ReadReply>,
}

impl Reads {
    pub(super) fn accept(&self) -> bool {
        self.waiting.len() < READS_MAX
    }

    pub(super) fn pending(&self) -> usize {
        let asked = self.asked.as_ref().map_or(0, |asked| asked.replies.len());
        self.waiting.len() + asked + self.applying.iter().map(|(_, replies)| replies.len()).sum::<usize>()
    }

    /// Lets everybody read who waits for this entry or an earlier one.
    pub(super) fn on_applied(&mut self, index: u64) {
        while self.applying.front().is_some_and(|(wanted, _)| *wanted <= index) {
            if let Some((_, replies)) = self.applying.pop_front() {
                tell(replies);
            }
        }
    }
}

fn tell(replies: Vec<ReadReply>) {
    for reply in replies {
        let _ = reply.send(()); // a reader that has gone away does not need it
    }
}

impl Member {
    /// Takes a reader in, and those behind it.
    pub(super) fn read(&mut self, first: ReadReply) {
        self.reads.waiting.push(first);
        while self.reads.accept()
            && let Ok(next) = self.parts.reads.try_recv()
        {
            self.reads.waiting.push(next);
        }
        self.ask_leader();
    }

    /// Asks on behalf of all who wait, unless a question is under way.
    fn ask_leader(&mut self) {
        if self.is_alone() {
            // What was acknowledged is applied, and nobody else can have acknowledged anything.
            let asked = self.reads.asked.take().map(|asked| asked.replies);
            asked.into_iter().chain([std::mem::take(&mut self.reads.waiting)]).for_each(tell);
            return;
        }
        if self.reads.asked.is_some() || self.reads.waiting.is_empty() {
            return;
        }
        let replies = std::mem::take(&mut self.reads.waiting);
        let (at, question) = (self.now(), self.reads.question + 1);
        self.reads.asked = Some(Asked { first: question, last: question, at, replies });
        self.ask(question);
    }

    fn ask(&mut self, question: u64) {
        self.reads.question = question;
        self.node.read_index(context(self.proposals.proposer(), question));
    }

    /// Asks once more, if nobody has answered: with every tick, and when there is a new leader.
    pub(super) fn ask_again(&mut self, at_once: bool) {
        let now = self.now();
        self.reads.waiting.retain(|reply| !reply.is_closed());
        if let Some(asked) = &mut self.reads.asked {
            asked.replies.retain(|reply| !reply.is_closed());
            if asked.replies.is_empty() {
                self.reads.asked = None;
            } else if !self.is_alone()
                && let Some(asked) = &mut self.reads.asked
                && (at_once || now.saturating_sub(asked.at) > ASK_AGAIN_AFTER)
            {
                asked.at = now;
                asked.last = self.reads.question + 1;
                let question = asked.last;
                self.ask(question);
            }
        }
        self.ask_leader();
    }

    /// The leader has answered.
    pub(super) fn on_read_states(&mut self, states: Vec<ReadState>) {
        let proposer = self.proposals.proposer();
        for state in states {
            let answers = |asked: &Asked| {
                (asked.first..=asked.last).any(|question| state.request_ctx == context(proposer, question))
            };
            let Some(asked) = self.reads.asked.take_if(|asked| answers(asked)) else { continue };
            self.reads.applying.push_back((state.index, asked.replies));
        }
        self.reads.on_applied(self.parts.mvcc.position().index);
        self.ask_leader();
    }
}
