//! When a run of results becomes a verdict. Pure. Source: kubelet `prober.worker`.

use k8s_openapi::api::core::v1::Probe;

use super::Outcome;

/// What a probe has come to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Healthy,
    Unhealthy,
}

/// Counts results of one kind in a row.
#[derive(Debug)]
pub(crate) struct Thresholds {
    success: u32,
    failure: u32,
    run: u32,
    last: Option<Verdict>,
    told: Option<Verdict>,
}

impl Thresholds {
    pub(crate) fn of(probe: &Probe) -> Self {
        let count = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        Self {
            success: count(probe.success_threshold, 1),
            failure: count(probe.failure_threshold, 3),
            run: 0,
            last: None,
            told: None,
        }
    }

    /// Takes a result; returns a verdict when it is new. An unknown result counts for nothing.
    pub(crate) fn on(&mut self, outcome: &Outcome) -> Option<Verdict> {
        let result = match outcome {
            Outcome::Success => Verdict::Healthy,
            Outcome::Failure(_) => Verdict::Unhealthy,
            Outcome::Unknown(_) => return None,
        };
        self.run = if self.last == Some(result) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(result);
        let needed = if result == Verdict::Healthy { self.success } else { self.failure };
        if self.run < needed || self.told == Some(result) {
            return None;
        }
        self.told = Some(result);
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_its_threshold_in_a_row_and_is_told_once() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let mut thresholds = Thresholds::of(&probe);
        let told: String = "ssffsfffufss"
            .chars()
            .map(|c| {
                let outcome = match c {
                    's' => Outcome::Success,
                    'f' => Outcome::Failure(String::new()),
                    _ => Outcome::Unknown(String::new()),
                };
                match thresholds.on(&outcome) {
                    None => '.',
                    Some(Verdict::Healthy) => 'H',
                    Some(Verdict::Unhealthy) => 'U',
                }
            })
            .collect();
        assert_eq!(told, ".H.....U...H");
    }
}
