//! What clients asked and were told, and whether it fits together. Pure.
//!
//! Each register is a number that one writer alone raises, one after the other, by requests that name the state they
//! build on: whatever becomes of a request without an answer, it cannot take effect after a later one. So a history is
//! linearizable exactly when nobody who asks is told less than anybody has been told before, nobody more than was
//! asked for by then, and no number is acknowledged twice.

use std::collections::BTreeMap;
use std::time::Duration;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To raise the register to [`Op::number`].
    Write,
    /// What it is; the answer is [`Op::number`].
    Read,
}

/// One request and its answer.
#[derive(Debug, Clone)]
pub struct Op {
    /// Which register.
    pub register: usize,
    /// What was asked.
    pub kind: Kind,
    /// Of which server.
    pub server: String,
    /// When it was handed in.
    pub began: Duration,
    /// When the answer was there; [`Duration::MAX`] while there is none, because it is under way, late or refused.
    pub ended: Duration,
    /// Whether there was one.
    pub answered: bool,
    /// What is to be written, or was read.
    pub number: u64,
}

/// What a history comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Writes that were acknowledged.
    pub acknowledged: usize,
    /// Writes of which nobody knows what became of them.
    pub unknown: usize,
    /// Reads that were answered.
    pub reads: usize,
    /// Reads that were not.
    pub unanswered: usize,
}

/// Whether everything fits together; else everything that does not.
pub fn check(ops: &[Op]) -> Result<Summary, Vec<String>> {
    let mut registers: BTreeMap<usize, Vec<&Op>> = BTreeMap::new();
    let mut summary = Summary::default();
    for op in ops {
        registers.entry(op.register).or_default().push(op);
        *match (op.kind, op.answered) {
            (Kind::Write, true) => &mut summary.acknowledged,
            (Kind::Write, false) => &mut summary.unknown,
            (Kind::Read, true) => &mut summary.reads,
            (Kind::Read, false) => &mut summary.unanswered,
        } += 1;
    }
    let wrong: Vec<String> = registers.into_values().flat_map(|ops| wrong_in(&ops)).collect();
    if wrong.is_empty() { Ok(summary) } else { Err(wrong) }
}

fn wrong_in(ops: &[&Op]) -> Vec<String> {
    let told = Steps::new(ops.iter().filter(|op| op.answered).map(|op| (op.ended, op.number)));
    let asked = Steps::new(ops.iter().filter(|op| op.kind == Kind::Write).map(|op| (op.began, op.number)));
    let mut acknowledged = BTreeMap::new();
    let mut wrong = Vec::new();
    for op in ops.iter().filter(|op| op.answered) {
        let floor = told.highest_before(op.began);
        let is_too_low = match op.kind {
            Kind::Read => floor.is_some_and(|floor| op.number < floor),
            Kind::Write => floor.is_some_and(|floor| op.number <= floor),
        };
        if is_too_low {
            wrong.push(format!("{}, after {} had been told", described(op), floor.unwrap_or_default()));
        }
        let ceiling = asked.highest_before(op.ended).unwrap_or(0);
        if op.number > ceiling {
            wrong.push(format!("{}, when only {ceiling} had been asked for", described(op)));
        }
        if op.kind == Kind::Write && acknowledged.insert(op.number, ()).is_some() {
            wrong.push(format!("{}, which was acknowledged before", described(op)));
        }
    }
    wrong
}

fn described(op: &Op) -> String {
    let verb = match op.kind {
        Kind::Write => "acknowledged",
        Kind::Read => "read",
    };
    let Op { register, number, server, began, ended, .. } = op;
    format!("register {register}: {verb} {number} by {server}, asked at {began:?}, answered at {ended:?}")
}

/// The highest number up to each time.
struct Steps(Vec<(Duration, u64)>);

impl Steps {
    fn new(all: impl Iterator<Item = (Duration, u64)>) -> Self {
        let mut steps: Vec<_> = all.collect();
        steps.sort_unstable();
        let mut highest = 0;
        for (_, number) in &mut steps {
            highest = highest.max(*number);
            *number = highest;
        }
        Self(steps)
    }

    fn highest_before(&self, time: Duration) -> Option<u64> {
        let behind = self.0.partition_point(|(at, _)| *at < time);
        self.0.get(behind.checked_sub(1)?).map(|(_, number)| *number)
    }
}

/// How long it took from `since` until a write was acknowledged that was asked for after it, of whichever of these
/// servers; `None` while there is none.
#[must_use]
pub fn first_write_after(ops: &[Op], since: Duration, servers: &[&str]) -> Option<Duration> {
    let later = ops.iter().filter(|op| op.kind == Kind::Write && op.answered && op.began >= since);
    later.filter(|op| servers.contains(&&*op.server)).map(|op| op.ended.saturating_sub(since)).min()
}

/// The longest time between two acknowledgements, from `since` to `until`.
#[must_use]
pub fn longest_pause(ops: &[Op], since: Duration, until: Duration) -> Duration {
    let within = ops.iter().filter(|op| op.kind == Kind::Write && op.answered);
    let mut times: Vec<Duration> = within.map(|op| op.ended).filter(|at| (since..until).contains(at)).collect();
    times.extend([since, until]);
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(kind: Kind, number: u64, began: u64, ended: u64) -> Op {
        let at = Duration::from_millis;
        Op { register: 0, kind, server: "a".to_owned(), began: at(began), ended: at(ended), answered: true, number }
    }

    fn wrong(ops: &[Op]) -> String {
        check(ops).expect_err("something is wrong").join("\n")
    }

    #[test]
    fn what_overlaps_may_have_happened_in_either_order() {
        let unknown = Op { answered: false, ended: Duration::MAX, ..op(Kind::Write, 2, 30, 40) };
        let ops = [
            op(Kind::Write, 1, 0, 10),
            op(Kind::Read, 1, 15, 45),
            unknown,
            op(Kind::Read, 2, 41, 44),
            op(Kind::Read, 2, 50, 60),
        ];
        let summary = Summary { acknowledged: 1, unknown: 1, reads: 3, unanswered: 0 };
        assert_eq!(check(&ops), Ok(summary));
    }

    #[test]
    fn a_lost_write_is_found() {
        let ops = [op(Kind::Write, 1, 0, 10), op(Kind::Write, 2, 11, 20), op(Kind::Read, 1, 25, 30)];
        assert!(wrong(&ops).contains("read 1 by a, asked at 25ms, answered at 30ms, after 2 had been told"));
        let ops = [op(Kind::Write, 1, 0, 10), op(Kind::Write, 1, 11, 20)];
        assert!(wrong(&ops).contains("after 1 had been told"), "its successor built on what was before it");
    }

    #[test]
    fn a_read_that_is_older_than_another_read_is_found_whatever_became_of_the_write() {
        let unknown = Op { answered: false, ..op(Kind::Write, 1, 0, 100) };
        let ops = [unknown, op(Kind::Read, 1, 10, 20), op(Kind::Read, 0, 21, 30)];
        assert!(wrong(&ops).contains("read 0"));
    }

    #[test]
    fn what_nobody_has_asked_for_yet_is_found() {
        let ops = [op(Kind::Read, 1, 0, 5), op(Kind::Write, 1, 10, 20)];
        assert!(wrong(&ops).contains("when only 0 had been asked for"));
    }

    #[test]
    fn the_pause_is_between_two_acknowledgements() {
        let at = Duration::from_millis;
        let ops = [op(Kind::Write, 1, 0, 10), op(Kind::Write, 2, 11, 20), op(Kind::Write, 3, 21, 70)];
        assert_eq!(longest_pause(&ops, at(5), at(80)), at(50));
        assert_eq!(longest_pause(&ops, at(5), at(200)), at(130));
        assert_eq!(first_write_after(&ops, at(11), &["a", "b"]), Some(at(9)));
        assert_eq!(first_write_after(&ops, at(11), &["b"]), None);
    }
}
