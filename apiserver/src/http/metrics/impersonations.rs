//! Requests in another user's name: how they were allowed, and what was asked for it.

use std::time::Duration;

use super::histogram::{Histogram, STEP_SECONDS};
use super::{Page, micros};
use crate::auth::impersonate::{MODES, Mode};

/// By way, and for checks also by what came of them.
pub(crate) struct Impersonations {
    allowed: Vec<Histogram>,
    denied: Histogram,
    checks: Vec<[Histogram; 2]>,
}

impl Default for Impersonations {
    fn default() -> Self {
        let new = || Histogram::new(STEP_SECONDS, 1e6);
        let (allowed, checks) = (MODES.map(|_| new()), MODES.map(|_| [new(), new()]));
        Self { allowed: allowed.into(), denied: new(), checks: checks.into() }
    }
}

impl Impersonations {
    /// Counts an attempt; `mode` is the way that was open.
    pub(crate) fn attempted(&self, mode: Option<Mode>, took: Duration) {
        match mode {
            Some(mode) => self.allowed.get(mode as usize).into_iter().for_each(|family| family.observe(micros(took))),
            None => self.denied.observe(micros(took)),
        }
    }

    /// Counts a question to the authorizer.
    pub(crate) fn checked(&self, verb: &str, is_allowed: bool, took: Duration) {
        let family = self.checks.get(Mode::of_verb(verb) as usize);
        let family = family.and_then(|families| families.get(usize::from(!is_allowed)));
        family.into_iter().for_each(|family| family.observe(micros(took)));
    }

    pub(super) fn report(&self, page: &mut Page) {
        let label = |decision: &str, mode: &str| format!("decision=\"{decision}\",mode=\"{mode}\"");
        let allowed = MODES.iter().zip(&self.allowed).map(|(mode, family)| (label("allowed", mode.name()), family));
        let attempts: Vec<_> = allowed.chain([(label("denied", ""), &self.denied)]).collect();
        let checks: Vec<_> = MODES
            .iter()
            .zip(&self.checks)
            .flat_map(|(mode, [allowed, denied])| {
                [(label("allowed", mode.name()), allowed), (label("denied", mode.name()), denied)]
            })
            .collect();
        let families = [
            (
                "apiserver_impersonation_attempts_total",
                "[ALPHA] Total number of impersonation attempts split by mode and decision.",
                "apiserver_impersonation_attempts_duration_seconds",
                "[ALPHA] Latency of impersonation attempts in seconds split by mode and decision.",
                &attempts,
            ),
            (
                "apiserver_impersonation_authorization_attempts_total",
                "[ALPHA] Total number of authorization checks made by the impersonation handler split by mode and decision.",
                "apiserver_impersonation_authorization_attempts_duration_seconds",
                "[ALPHA] Latency of authorization checks made by the impersonation handler in seconds split by mode and decision.",
                &checks,
            ),
        ];
        for (total, total_help, took, took_help, series) in families {
            let series: Vec<_> = series.iter().filter(|(_, family)| family.count() > 0).collect();
            page.family(total, "counter", total_help);
            series.iter().for_each(|(labels, family)| page.sample("", labels, family.count()));
            page.family(took, "histogram", took_help);
            series.iter().for_each(|(labels, family)| family.write(page, labels, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_and_checks_are_told_by_their_way() {
        let figures = Impersonations::default();
        figures.checked("impersonate-on:user-info:list", false, Duration::from_micros(10));
        figures.checked("impersonate", true, Duration::from_micros(10));
        figures.attempted(Some(Mode::Legacy), Duration::from_millis(3));
        figures.attempted(None, Duration::from_millis(3));
        let mut page = Page::default();
        figures.report(&mut page);
        let text = page.finish();
        for line in [
            "apiserver_impersonation_attempts_total{decision=\"allowed\",mode=\"legacy\"} 1\n",
            "apiserver_impersonation_attempts_total{decision=\"denied\",mode=\"\"} 1\n",
            "apiserver_impersonation_attempts_duration_seconds_bucket{decision=\"denied\",mode=\"\",le=\"0.004\"} 1\n",
            "apiserver_impersonation_authorization_attempts_total{decision=\"denied\",mode=\"user-info\"} 1\n",
            "apiserver_impersonation_authorization_attempts_total{decision=\"allowed\",mode=\"legacy\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("arbitrary-node"), "{text}");
    }
}
