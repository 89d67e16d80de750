//! The one way to ask what time it is.
//!
//! Decisions take `now` as an argument; the thin code around them asks a [`Clock`]. The simulation and
//! the tests hand in a [`ManualClock`]. Waiting is not here: tasks wait with `tokio::time`, which tests pause.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

/// Where the current time comes from. Implementations never block.
pub trait Clock: Send + Sync + Debug {
    /// Wall-clock time, as written into API objects. May jump in either direction.
    fn now(&self) -> Timestamp;

    /// Time since an arbitrary fixed moment. Never goes back; the only clock for measuring durations.
    fn monotonic(&self) -> Duration;
}

/// A clock that can be handed to many tasks.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct RealClock {
    start: std::time::Instant,
}

impl RealClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[allow(clippy::disallowed_methods, reason = "this is the seam that everybody else must go through")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// The usual way to get a [`SharedClock`] in a binary.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    #[allow(clippy::disallowed_methods, reason = "this is the seam that everybody else must go through")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that stands still until it is told to move: for tests and the simulation.
#[derive(Debug)]
pub struct ManualClock {
    micros: AtomicI64,
    start_micros: i64,
}

impl ManualClock {
    /// A clock that shows `start` until [`ManualClock::advance`] is called.
    #[must_use]
    pub fn at(start: Timestamp) -> Self {
        Self { micros: AtomicI64::new(start.as_microsecond()), start_micros: start.as_microsecond() }
    }

    /// Moves both the wall clock and the monotonic clock forward.
    pub fn advance(&self, by: Duration) {
        self.micros.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_microsecond(self.micros.load(Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::SeqCst).abs_diff(self.start_micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), clock.now());
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.now().as_second(), 90);
        assert_eq!(clock.monotonic(), Duration::from_secs(90));
    }

    #[test]
    fn the_real_monotonic_clock_never_goes_back() {
        let clock = RealClock::new();
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
    }
}
