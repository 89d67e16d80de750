//! Medians and percentiles of measured times.

use std::time::Duration;

/// The value that half of the sample stays under. Zero for an empty sample.
pub(crate) fn median(sample: &mut [Duration]) -> Duration {
    percentile(sample, 50)
}

/// The value that this share of the sample stays under. Zero for an empty sample.
pub(crate) fn percentile(sample: &mut [Duration], percent: usize) -> Duration {
    sample.sort_unstable();
    let index = sample.len().saturating_sub(1) * percent / 100;
    sample.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let mut sample: Vec<Duration> = (1..=101).rev().map(Duration::from_millis).collect();
        assert_eq!(median(&mut sample), Duration::from_millis(51));
        assert_eq!(percentile(&mut sample, 90), Duration::from_millis(91));
        assert_eq!(percentile(&mut [], 90), Duration::ZERO);
    }
}
