//! When those who were sent away may come back: the value of `Retry-After`, which grows while many are sent away.
//!
//! Source: `dropped_requests_tracker.go` of Kubernetes v1.36.

use std::collections::VecDeque;

/// Longest wait that is asked for, in seconds.
const WAIT_MAX: u64 = 32;

/// What happened to one level. Seconds are of any clock that does not go back.
#[derive(Debug)]
pub(super) struct Dropped {
    /// Seconds and how many were sent away in each; none older than twice the wait.
    history: VecDeque<(u64, u64)>,
    second: u64,
    count: u64,
    wait: u64,
    raised: Option<u64>,
}

impl Default for Dropped {
    fn default() -> Self {
        Self { history: VecDeque::new(), second: 0, count: 0, wait: 1, raised: None }
    }
}

impl Dropped {
    /// One more is sent away; how many seconds it is to wait.
    pub(super) fn note(&mut self, second: u64) -> u64 {
        if second == self.second {
            self.count += 1;
            return self.wait;
        }
        self.history.push_back((self.second, self.count));
        let kept = (2 * self.wait).min(WAIT_MAX);
        while self.history.front().is_some_and(|(then, _)| second.saturating_sub(*then) > kept) {
            self.history.pop_front();
        }
        (self.second, self.count) = (second, 1);
        let recent = self.history.iter().filter(|(then, _)| second.saturating_sub(*then) <= self.wait);
        let recent: u64 = recent.map(|(_, count)| count).sum();
        let may_rise = self.raised.is_none_or(|raised| second.saturating_sub(raised) >= self.wait);
        if may_rise && recent >= 3 * self.wait {
            self.wait = (2 * self.wait).min(WAIT_MAX);
            self.raised = Some(second);
        } else if recent < self.wait && self.wait > 1 {
            self.wait -= 1;
        }
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_while_many_are_sent_away_and_falls_by_seconds() {
        let mut dropped = Dropped::default();
        let mut second = |second, times: u64| (0..times).map(|_| dropped.note(second)).last().unwrap();
        assert_eq!((second(10, 2), second(11, 2)), (1, 1));
        assert_eq!(second(12, 50), 1);
        assert_eq!(second(13, 50), 2);
        assert_eq!(second(14, 50), 2);
        assert_eq!(second(15, 50), 4);
        let waits: Vec<u64> = (16..100).map(|now| second(now, 200)).collect();
        assert_eq!(waits.iter().max(), Some(&32));
        let waits: Vec<u64> = (0..40).map(|step| second(200 + 40 * step, 1)).collect();
        assert_eq!((waits[0], waits.last()), (31, Some(&1)));
    }
}
