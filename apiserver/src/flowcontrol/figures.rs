//! What is counted of a level and of the flows that use it.

use std::time::Duration;

use super::demand::Integral;
use super::timed::Timed;
use crate::http::{Counter, Histogram};

/// Kubernetes' bounds of utilization.
static SEATS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];
static REQUESTS: &[f64] = &[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0];
static DEMAND: &[f64] = &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0];
static READ_WRITE: &[f64] = &[0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0];

/// Its bounds of how long requests wait and run, in microseconds.
static SECONDS: &[u64] = &[
    0, 5_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 15_000_000,
    30_000_000,
];
static QUEUE_LENGTHS: &[u64] = &[0, 10, 25, 50, 100, 250, 500, 1000];
static WATCH_COUNTS: &[u64] = &[0, 1, 10, 100, 1000, 10_000];
static SEAT_COUNTS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 100];

/// What is followed of a level over time.
#[derive(Debug)]
pub(super) struct LevelFigures {
    pub(super) waiting: Timed,
    pub(super) running: Timed,
    pub(super) seats: Timed,
    pub(super) demand: Timed,
    /// The same demand, as seats are given out by it.
    pub(super) integral: Integral,
}

impl LevelFigures {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            waiting: Timed::new(REQUESTS, now),
            running: Timed::new(REQUESTS, now),
            seats: Timed::new(SEATS, now),
            demand: Timed::new(DEMAND, now),
            integral: Integral::new(now),
        }
    }

    /// What the ratios are to: places in queues, seats.
    #[allow(clippy::cast_precision_loss, reason = "numbers of requests")]
    pub(super) fn set_limits(&mut self, now: Duration, places: u64, seats: u32) {
        self.waiting.set_of(now, places as f64);
        self.running.set_of(now, seats.into());
        self.seats.set_of(now, seats.into());
        self.demand.set_of(now, seats.into());
    }

    pub(super) fn note(&mut self, now: Duration, waiting: f64, running: f64, in_use: f64, wanted: f64) {
        self.waiting.set(now, waiting);
        self.running.set(now, running);
        self.seats.set(now, in_use);
        self.demand.set(now, in_use + wanted);
        self.integral.set(now, in_use + wanted);
    }
}

/// Requests that change something and that only read, over time.
#[derive(Debug)]
pub(super) struct ReadWrite {
    /// Running, then waiting; of each the ones that read, then the ones that write.
    pub(super) phases: [[Timed; 2]; 2],
}

impl ReadWrite {
    pub(super) fn new(now: Duration) -> Self {
        let two = || [Timed::new(READ_WRITE, now), Timed::new(READ_WRITE, now)];
        Self { phases: [two(), two()] }
    }

    pub(super) fn set_limits(&mut self, now: Duration, running: f64, waiting: f64) {
        let [own_running, own_waiting] = &mut self.phases;
        own_running.iter_mut().for_each(|timed| timed.set_of(now, running));
        own_waiting.iter_mut().for_each(|timed| timed.set_of(now, waiting));
    }
}

/// Why requests are sent away, in the words of the metric.
pub(super) const REASONS: [&str; 3] = ["concurrency-limit", "queue-full", "time-out"];
/// Places in [`REASONS`].
pub(super) const NO_SEAT: usize = 0;
pub(super) const QUEUE_FULL: usize = 1;
pub(super) const TIME_OUT: usize = 2;

/// What is counted of the requests of a schema.
pub(super) struct FlowFigures {
    pub(super) dispatched: Counter,
    pub(super) rejected: [Counter; 3],
    /// How often it was the turn of one for which there were too few seats.
    pub(super) stuck: Counter,
    pub(super) queue_length: Histogram,
    /// Of those who were sent away, then of those who ran.
    pub(super) waited: [Histogram; 2],
    /// Of all but watches, then of watches.
    pub(super) ran: [Histogram; 2],
    pub(super) watchers: Histogram,
    pub(super) seats: Histogram,
}

impl Default for FlowFigures {
    fn default() -> Self {
        let seconds = || [Histogram::new(SECONDS, 1e6), Histogram::new(SECONDS, 1e6)];
        Self {
            dispatched: Counter::default(),
            rejected: Default::default(),
            stuck: Counter::default(),
            queue_length: Histogram::new(QUEUE_LENGTHS, 1.0),
            waited: seconds(),
            ran: seconds(),
            watchers: Histogram::new(WATCH_COUNTS, 1.0),
            seats: Histogram::new(SEAT_COUNTS, 1.0),
        }
    }
}

/// Microseconds, as the histograms count.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
