//! How long something took, as Prometheus counts it. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use super::metrics::Value;

/// Upper bounds of the durations that are told apart, in milliseconds. Source: Prometheus' `DefBuckets`.
const BUCKETS_MILLIS: [u32; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];

/// Durations of one kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    /// Times within each of [`BUCKETS_MILLIS`], and not within those below.
    buckets: [u64; BUCKETS_MILLIS.len()],
    count: u64,
    took: Duration,
}

impl Histogram {
    /// Something is over.
    pub(crate) fn observe(&mut self, took: Duration) {
        self.count += 1;
        self.took += took;
        let bucket = BUCKETS_MILLIS.iter().position(|bound| took <= Duration::from_millis(u64::from(*bound)));
        if let Some(count) = bucket.and_then(|bucket| self.buckets.get_mut(bucket)) {
            *count += 1;
        }
    }

    /// Whether nothing was ever over.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The samples, under labels as they are written: `name="value"`.
    pub(crate) fn write(&self, out: &mut String, name: &str, labels: &str) {
        let mut sum = 0;
        // Writing to a string does not fail.
        for (bound, count) in BUCKETS_MILLIS.iter().zip(self.buckets) {
            sum += count;
            let bound = Value::Nanoseconds(u64::from(*bound) * 1_000_000);
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {sum}");
        }
        let took = Value::Nanoseconds(u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX));
        let count = self.count;
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum{{{labels}}} {took}\n{name}_count{{{labels}}} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_holds_what_is_in_those_below() {
        let mut all = Histogram::default();
        for millis in [20, 5, 20_000] {
            all.observe(Duration::from_millis(millis));
        }
        let mut text = String::new();
        all.write(&mut text, "it", "a=\"b\"");
        for line in [
            "it_bucket{a=\"b\",le=\"0.005\"} 1",
            "it_bucket{a=\"b\",le=\"0.01\"} 1",
            "it_bucket{a=\"b\",le=\"0.025\"} 2",
            "it_bucket{a=\"b\",le=\"10\"} 2",
            "it_bucket{a=\"b\",le=\"+Inf\"} 3",
            "it_sum{a=\"b\"} 20.025",
            "it_count{a=\"b\"} 3",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is missing in\n{text}");
        }
    }
}
