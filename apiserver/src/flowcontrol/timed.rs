//! Distributions over time: for how long a ratio lay below each of some bounds.
//!
//! Kubernetes tells its nanoseconds as if each were an observation.

use std::time::Duration;

use crate::http::{Page, number};

/// A ratio that is followed.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    bounds: &'static [f64],
    /// Nanoseconds; one more than bounds.
    spent: Vec<u64>,
    sum: f64,
    since: Duration,
    value: f64,
    of: f64,
}

impl Timed {
    pub(super) fn new(bounds: &'static [f64], now: Duration) -> Self {
        Self { bounds, spent: vec![0; bounds.len() + 1], sum: 0.0, since: now, value: 0.0, of: 1.0 }
    }

    fn settle(&mut self, now: Duration) {
        let nanos = u64::try_from(now.saturating_sub(self.since).as_nanos()).unwrap_or(u64::MAX);
        if nanos == 0 {
            return;
        }
        self.since = now;
        let ratio = self.value / self.of;
        let place = self.bounds.partition_point(|bound| *bound < ratio);
        if let Some(spent) = self.spent.get_mut(place) {
            *spent += nanos;
        }
        #[allow(clippy::cast_precision_loss, reason = "nanoseconds since the last change")]
        {
            self.sum += ratio * nanos as f64;
        }
    }

    /// From now on the value is another.
    pub(super) fn set(&mut self, now: Duration, value: f64) {
        if (value - self.value).abs() > f64::EPSILON {
            self.settle(now);
            self.value = value;
        }
    }

    /// One more or fewer.
    pub(super) fn add(&mut self, now: Duration, change: f64) {
        self.set(now, self.value + change);
    }

    /// From now on the ratio is to another number, at least one.
    pub(super) fn set_of(&mut self, now: Duration, of: f64) {
        self.settle(now);
        self.of = of.max(1.0);
    }

    /// Writes the samples.
    pub(super) fn write(&mut self, now: Duration, page: &mut Page, labels: &str) {
        self.settle(now);
        let mut below = 0_u64;
        for (place, spent) in self.spent.iter().enumerate() {
            below += spent;
            let bound = self.bounds.get(place).map_or("+Inf".to_owned(), |bound| number(*bound));
            page.sample("_bucket", &format!("{labels},le=\"{bound}\""), whole(below));
        }
        page.sample("_sum", labels, number(self.sum));
        page.sample("_count", labels, whole(below));
    }
}

#[allow(clippy::cast_precision_loss, reason = "told to fifteen digits")]
fn whole(nanos: u64) -> String {
    number(nanos as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_under_the_ratio_that_held() {
        let mut timed = Timed::new(&[0.0, 0.5, 1.0], Duration::ZERO);
        timed.set_of(Duration::ZERO, 4.0);
        timed.set(Duration::from_nanos(10), 2.0);
        timed.add(Duration::from_nanos(30), 2.0);
        timed.set_of(Duration::from_nanos(60), 2.0);
        let mut page = Page::default();
        page.family("f", "histogram", "");
        timed.write(Duration::from_nanos(100), &mut page, "a=\"b\"");
        let text = page.finish();
        for line in
            ["le=\"0\"} 10\n", "le=\"0.5\"} 30\n", "le=\"1\"} 60\n", "le=\"+Inf\"} 100\n", "f_sum{a=\"b\"} 120\n"]
        {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
