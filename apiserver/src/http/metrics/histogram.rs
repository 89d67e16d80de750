//! Distributions: how many values lay below each of some bounds.

use std::sync::atomic::{AtomicU64, Ordering};

use super::text::{Page, number};

/// Kubernetes' bounds of how long requests take, in microseconds.
pub(super) static SECONDS: &[u64] = &[
    5_000, 25_000, 50_000, 100_000, 200_000, 400_000, 600_000, 800_000, 1_000_000, 1_250_000, 1_500_000, 2_000_000,
    3_000_000, 4_000_000, 5_000_000, 6_000_000, 8_000_000, 10_000_000, 15_000_000, 20_000_000, 30_000_000, 45_000_000,
    60_000_000,
];

/// Its bounds of how long authentication and authorization take, in microseconds: each twice the one before.
pub(super) static STEP_SECONDS: &[u64] = &[
    1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000, 2_048_000, 4_096_000,
    8_192_000, 16_384_000,
];

/// Its bounds of how long certificates last, in seconds: from half an hour to a year.
pub(super) static LIFETIME_SECONDS: &[u64] = &[
    0, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400, 172_800, 345_600, 604_800, 2_592_000, 7_776_000, 15_552_000,
    31_104_000,
];

/// The service level families have the same bounds, but for so many at the beginning.
pub(super) const SLI_FROM: usize = 2;

/// Its bounds of how large answers are, in bytes.
pub(super) static BYTES: &[u64] = &[1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Its bounds of how large watch events are, in bytes.
pub(super) static EVENT_BYTES: &[u64] = &[1024, 2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072];

/// A distribution of whole numbers: microseconds or bytes.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64],
    /// How many of the unit make one of what is told.
    scale: f64,
    /// One more than bounds: the last is for what lies above all.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [u64], scale: f64) -> Self {
        Self { bounds, scale, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Of how long requests take, in microseconds.
    pub(crate) fn of_requests() -> Self {
        Self::new(SECONDS, 1e6)
    }

    /// Counts a value.
    pub(crate) fn observe(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many values there were.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Writes the samples, without the first bounds.
    pub(crate) fn write(&self, page: &mut Page, labels: &str, from: usize) {
        let mut below = 0;
        for (place, count) in self.counts.iter().enumerate() {
            below += count.load(Ordering::Relaxed);
            if place < from {
                continue;
            }
            let bound = self.bounds.get(place).map_or("+Inf".to_owned(), |bound| number(self.told(*bound)));
            let comma = if labels.is_empty() { "" } else { "," };
            page.sample("_bucket", &format!("{labels}{comma}le=\"{bound}\""), below);
        }
        page.sample("_sum", labels, number(self.told(self.sum.load(Ordering::Relaxed))));
        page.sample("_count", labels, below);
    }

    #[allow(clippy::cast_precision_loss, reason = "a sum of so many microseconds is told to fifteen digits")]
    fn told(&self, value: u64) -> f64 {
        value as f64 / self.scale
    }
}
