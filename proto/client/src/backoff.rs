//! Exponential back-off with jitter, for retries against the API server.

use std::time::Duration;

use reeve_api::rng::{RngExt as _, SharedRng};

/// Doubles from an initial delay up to a maximum; each delay is stretched by a random share of up to one half,
/// so that components which failed together do not come back together.
#[derive(Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
    rng: SharedRng,
}

impl Backoff {
    /// A back-off whose first delay is `initial` and whose longest (before jitter) is `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration, rng: SharedRng) -> Self {
        Self { initial, max, next: initial, rng }
    }

    /// The delay before the next attempt. Each call without a [`Backoff::reset`] between them doubles it.
    pub fn delay(&mut self) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(self.max);
        let stretch_us = self.rng.below(u64::try_from(base.as_micros() / 2).unwrap_or(u64::MAX));
        base + Duration::from_micros(stretch_us)
    }

    /// To be called after a success: the next delay is the initial one again.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use reeve_api::rng::SeededRng;

    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_start_over_after_a_reset() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(1000), Arc::new(SeededRng::new(1)));
        for base in [100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.delay();
            assert!(delay >= ms(base) && delay < ms(base) * 3 / 2, "{delay:?} for {base} ms");
        }
        backoff.reset();
        assert!(backoff.delay() < ms(150));
    }
}
