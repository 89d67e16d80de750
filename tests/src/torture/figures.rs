//! The table at the end: what was done how often, and how long nobody could write.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Times, by what they are of.
#[derive(Debug, Default)]
pub struct Figures {
    times: BTreeMap<&'static str, Vec<Duration>>,
    goals: BTreeMap<&'static str, [Duration; 2]>,
}

impl Figures {
    /// Notes how long something took.
    pub fn note(&mut self, of: &'static str, time: Duration) {
        self.times.entry(of).or_default().push(time);
    }

    /// Half of the times, and 99 in 100, should be no longer than that.
    pub fn goal(&mut self, of: &'static str, half: Duration, most: Duration) {
        self.goals.insert(of, [half, most]);
    }
}

/// The time that so many of a hundred do not exceed.
#[must_use]
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {:58} | times | {:>9} | {:>9} | {:>9} | goal |", "what", "p50", "p99", "longest")?;
        writeln!(f, "|{:-<60}|-------|----------:|----------:|----------:|------|", "")?;
        let ms = |time: Duration| format!("{} ms", time.as_millis());
        for (of, times) in &self.times {
            let [half, most, all] = [50, 99, 100].map(|percent| ms(percentile(times, percent)));
            let goal = self.goals.get(of).map(|[half, most]| format!("{} / {}", ms(*half), ms(*most)));
            let (n, goal) = (times.len(), goal.unwrap_or_default());
            writeln!(f, "| {of:58} | {n:5} | {half:>9} | {most:>9} | {all:>9} | {goal} |")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let at = |percent| percentile(&times, percent).as_millis();
        assert_eq!((at(50), at(99), at(100)), (100, 198, 200));
        assert_eq!(percentile(&times[..1], 50), times[0]);
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
