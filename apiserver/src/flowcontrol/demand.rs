//! How many seats a level could have used: measured over time, then smoothed.
//!
//! Source: KEP-1040, section "Dispatching", and `integrator.go` of Kubernetes v1.36.

use std::time::Duration;

/// How often seats are given out anew.
pub(super) const PERIOD: Duration = Duration::from_secs(10);
/// What is left of an old demand after a period: half of it after five minutes.
const SMOOTHING: f64 = 0.977;

/// Adds up a value over time.
#[derive(Debug, Clone)]
pub(super) struct Integral {
    since: Duration,
    value: f64,
    seconds: f64,
    sum: f64,
    squares: f64,
    peak: f64,
}

/// What a value was like over a time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) peak: f64,
}

impl Integral {
    pub(super) fn new(now: Duration) -> Self {
        Self { since: now, value: 0.0, seconds: 0.0, sum: 0.0, squares: 0.0, peak: 0.0 }
    }

    /// From now on the value is another.
    pub(super) fn set(&mut self, now: Duration, value: f64) {
        let seconds = now.saturating_sub(self.since).as_secs_f64();
        self.since = self.since.max(now);
        self.seconds += seconds;
        self.sum += self.value * seconds;
        self.squares += self.value * self.value * seconds;
        self.value = value;
        self.peak = self.peak.max(value);
    }

    /// What it was like since the last time this was asked.
    pub(super) fn take(&mut self, now: Duration) -> Measured {
        self.set(now, self.value);
        let mut measured = Measured { seconds: self.seconds, peak: self.peak, ..Measured::default() };
        if self.seconds > 0.0 {
            measured.average = self.sum / self.seconds;
            let variance = self.squares / self.seconds - measured.average * measured.average;
            measured.deviation = variance.max(0.0).sqrt();
        }
        *self = Self { value: self.value, peak: self.value, ..Self::new(now) };
        measured
    }
}

/// What is known of a level's demand.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Demand {
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) peak: u32,
    pub(super) smoothed: f64,
}

impl Demand {
    /// Takes in what was measured. Rises at once, falls slowly: by each period that has gone by.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of seats")]
    pub(super) fn update(&mut self, measured: Measured) {
        self.peak = measured.peak.round() as u32;
        if measured.seconds <= 0.0 {
            return;
        }
        let envelope = measured.average + measured.deviation;
        let periods = (measured.seconds / PERIOD.as_secs_f64()).max(1.0);
        let left = SMOOTHING.powf(periods);
        (self.average, self.deviation) = (measured.average, measured.deviation);
        self.smoothed = envelope.max(left * self.smoothed + (1.0 - left) * envelope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_and_deviation_are_weighted_by_time() {
        let mut integral = Integral::new(Duration::ZERO);
        integral.set(Duration::from_secs(5), 10.0);
        integral.set(Duration::from_secs(10), 0.0);
        let measured = integral.take(Duration::from_secs(10));
        assert_eq!(measured, Measured { seconds: 10.0, average: 5.0, deviation: 5.0, peak: 10.0 });
        let measured = integral.take(Duration::from_secs(12));
        assert_eq!(measured, Measured { seconds: 2.0, ..Measured::default() });
    }

    #[test]
    fn demand_rises_at_once_and_halves_in_five_minutes() {
        let mut demand = Demand::default();
        let of = |average| Measured { seconds: 10.0, average, deviation: 0.0, peak: average };
        demand.update(of(100.0));
        assert_eq!((demand.smoothed, demand.peak), (100.0, 100));
        (0..30).for_each(|_| demand.update(of(0.0)));
        assert!((demand.smoothed - 50.0).abs() < 1.0, "{demand:?}");
        let mut asleep = Demand { smoothed: 100.0, ..Demand::default() };
        asleep.update(Measured { seconds: 300.0, ..Measured::default() });
        assert!((asleep.smoothed - demand.smoothed).abs() < 1e-6);
    }
}
