//! How much time a lease has left: only the leader counts it, so it is asked ([`crate::lessor`]).
//!
//! A question is sent again while nobody answers, to whoever leads then; the caller's patience bounds that.

use std::collections::BTreeMap;
use std::time::Duration;

use reeve_proto::member::{LeaseAsked, LeaseTold, message::Kind};
use tokio::sync::oneshot;

use super::Member;
use crate::lease::LeaseId;
use crate::status::MemberError;

/// Questions that may wait here for the leader; who comes then is told so.
const ASKED_MAX: usize = 1024;
/// A question without an answer is asked again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What is left of a lease; `None` when there is none.
pub(crate) type TimeReply = oneshot::Sender<Result<Option<Duration>, MemberError>>;

/// Questions that the leader has not answered yet, by number.
#[derive(Default)]
pub(super) struct TimeQuestions {
    number: u64,
    asked: BTreeMap<u64, Question>,
    /// Of others, and from whom: answered when this leader has applied what they have.
    early: Vec<(u64, LeaseAsked)>,
}

struct Question {
    lease: LeaseId,
    /// When it was sent last.
    at: Duration,
    reply: TimeReply,
}

impl Member {
    /// A caller here wants to know.
    pub(super) fn ask_time_left(&mut self, lease: LeaseId, reply: TimeReply) {
        if self.leads() {
            return drop(reply.send(Ok(self.parts.lessor.left(lease)))); // a caller that has gone needs no answer
        }
        if self.time_questions.asked.len() >= ASKED_MAX {
            let reason = "too many questions wait for the leader".to_owned();
            return drop(reply.send(Err(MemberError::Unavailable { reason })));
        }
        self.time_questions.number += 1;
        let (number, at) = (self.time_questions.number, self.now());
        self.time_questions.asked.insert(number, Question { lease, at, reply });
        self.send_question(number, lease);
    }

    fn send_question(&self, number: u64, lease: LeaseId) {
        if let Some(leader) = self.leader() {
            let applied = self.parts.mvcc.position().index;
            self.say(leader, Kind::LeaseAsked(LeaseAsked { number, lease: lease.0, applied }), true);
        }
    }

    /// Another member's caller wants to know.
    pub(super) fn on_lease_asked(&mut self, from: u64, asked: LeaseAsked) {
        if !self.leads() {
            return; // it is asked again, and then of whoever leads
        }
        if asked.applied > self.parts.mvcc.position().index {
            if self.time_questions.early.len() < ASKED_MAX {
                self.time_questions.early.push((from, asked));
            }
        } else {
            let left = self.parts.lessor.left(LeaseId(asked.lease));
            let left = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            self.say(from, Kind::LeaseTold(LeaseTold { number: asked.number, left }), true);
        }
    }

    /// Something was applied that others may have applied before.
    pub(super) fn answer_early_questions(&mut self) {
        for (from, asked) in std::mem::take(&mut self.time_questions.early) {
            self.on_lease_asked(from, asked);
        }
    }

    /// The leader has answered.
    pub(super) fn on_lease_told(&mut self, told: LeaseTold) {
        if let Some(question) = self.time_questions.asked.remove(&told.number) {
            let _ = question.reply.send(Ok(told.left.map(Duration::from_millis)));
        }
    }

    /// Asks again what nobody has answered. Called with every tick.
    pub(super) fn ask_time_left_again(&mut self) {
        let now = self.now();
        self.time_questions.asked.retain(|_, question| !question.reply.is_closed());
        if self.leads() {
            for question in std::mem::take(&mut self.time_questions.asked).into_values() {
                self.ask_time_left(question.lease, question.reply);
            }
            return;
        }
        let mut late = Vec::new();
        for (number, question) in &mut self.time_questions.asked {
            if now.saturating_sub(question.at) > ASK_AGAIN_AFTER {
                question.at = now;
                late.push((*number, question.lease));
            }
        }
        late.into_iter().for_each(|(number, lease)| self.send_question(number, lease));
    }
}
