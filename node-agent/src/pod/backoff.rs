//! How long a crashed container or a failed pull waits before the next try.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// First delay. Source: kubelet `backOffPeriod`.
pub(crate) const INITIAL: Duration = Duration::from_secs(10);
/// Longest delay. Source: kubelet `MaxContainerBackOff`.
pub(crate) const MAX: Duration = Duration::from_secs(300);
/// A container that ran this long starts afresh. Source: client-go `flowcontrol.Backoff`, twice the longest delay.
const RESET_AFTER: Duration = Duration::from_secs(600);

/// The crash back-off of one container: none before the first restart, then 10 s doubling to 5 min.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CrashBackoff {
    delay: Option<Duration>,
    updated: Option<Timestamp>,
}

impl CrashBackoff {
    /// The delay that applies after an exit at `finished`, if any.
    pub(crate) fn delay(&self, finished: Timestamp) -> Option<Duration> {
        let updated = self.updated?;
        if finished.duration_since(updated) > to_signed(RESET_AFTER) { None } else { self.delay }
    }

    /// When a container that exited at `finished` may be started again; `None` means now.
    pub(crate) fn until(&self, finished: Timestamp) -> Option<Timestamp> {
        Some(after(finished, self.delay(finished)?))
    }

    /// A restart after an exit at `finished` happens `now`: the next one waits longer.
    pub(crate) fn restarted(&mut self, finished: Timestamp, now: Timestamp) {
        self.delay = Some(self.delay(finished).map_or(INITIAL, |delay| (delay * 2).min(MAX)));
        self.updated = Some(now);
    }
}

/// The delay after `failures` failures in a row: 10 s, 20 s … 5 min.
pub(crate) fn exponential(failures: u32) -> Duration {
    (INITIAL * 2_u32.saturating_pow(failures.saturating_sub(1).min(10))).min(MAX)
}

/// The delay before a step of ours (sandbox, volumes) is tried again: 0.5 s doubling to 2 min,
/// as the kubelet's volume manager does.
pub(crate) fn step_retry(failures: u32) -> Duration {
    (Duration::from_millis(500) * 2_u32.saturating_pow(failures.saturating_sub(1).min(10)))
        .min(Duration::from_secs(122))
}

/// `at` plus `delay`, at the end of time at the latest.
pub(crate) fn after(at: Timestamp, delay: Duration) -> Timestamp {
    at.checked_add(to_signed(delay)).unwrap_or(Timestamp::MAX)
}

/// Time left until `at`; nothing when it has passed.
pub(crate) fn left(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

fn to_signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// A duration in Go's notation, as it stands in kubelet messages: `10s`, `1m20s`, `5m0s`.
pub(crate) fn go_duration(duration: Duration) -> String {
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    match (minutes / 60, minutes % 60) {
        (0, 0) if duration.as_secs() == 0 => format!("{}ms", duration.as_millis()),
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_then_delays_double_to_five_minutes() {
        let mut backoff = CrashBackoff::default();
        assert_eq!(backoff.until(at(0)), None);
        let mut now = 0;
        for delay in [10, 20, 40, 80, 160, 300, 300] {
            backoff.restarted(at(now), at(now));
            now += 1;
            assert_eq!(backoff.until(at(now)), Some(at(now + delay)));
            now += delay;
        }
    }

    #[test]
    fn ten_quiet_minutes_reset_the_back_off() {
        let mut backoff = CrashBackoff::default();
        backoff.restarted(at(0), at(0));
        backoff.restarted(at(10), at(20));
        assert_eq!(backoff.until(at(21)), Some(at(41)));
        assert_eq!(backoff.until(at(20 + 601)), None);
        backoff.restarted(at(621), at(621));
        assert_eq!(backoff.delay(at(622)), Some(INITIAL));
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (seconds, text) in [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (3600, "1h0m0s")] {
            assert_eq!(go_duration(Duration::from_secs(seconds)), text);
        }
    }
}
