//! What admission counts, for `/metrics`: how long its phases and the webhooks take, and what webhooks answer. Names,
//! labels and bounds are Kubernetes'.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Operation;
use crate::http::{Counter, Histogram, Page};

/// Bounds of how long a phase takes, in microseconds.
static STEP_BOUNDS: &[u64] = &[5_000, 25_000, 100_000, 500_000, 1_000_000, 2_500_000];

/// Bounds of how long a webhook takes, in microseconds.
static WEBHOOK_BOUNDS: &[u64] = &[5_000, 25_000, 100_000, 500_000, 1_000_000, 2_500_000, 10_000_000, 25_000_000];

/// So many series of each family; of more webhooks than that only the first ones are counted.
const SERIES_MAX: usize = 2048;

/// A phase of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Objects may be changed.
    Admit,
    /// Yes or no.
    Validate,
}

impl Phase {
    /// As it stands in labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }
}

const PHASES: [Phase; 2] = [Phase::Admit, Phase::Validate];
const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];

/// What a webhook has answered.
pub(crate) struct Answered<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// `admit` or `validating`.
    pub(crate) of: &'static str,
    /// What is done to the object.
    pub(crate) operation: Operation,
    /// The code of the request: 200, that of the refusal, or 0 when there was no answer.
    pub(crate) code: u16,
    /// Whether it has refused the request.
    pub(crate) is_refused: bool,
    /// Whether it could not be asked.
    pub(crate) is_error: bool,
}

/// All of them. One per registry.
pub(crate) struct Figures {
    /// By phase, operation and whether the request was refused.
    steps: Vec<Histogram>,
    webhooks: Mutex<Webhooks>,
    /// What ValidatingAdmissionPolicies have found, by labels.
    checks: Mutex<BTreeMap<String, Counter>>,
}

#[derive(Default)]
struct Webhooks {
    took: BTreeMap<String, Arc<Histogram>>,
    requests: BTreeMap<String, Counter>,
    rejections: BTreeMap<String, Counter>,
    let_through: BTreeMap<String, Counter>,
}

impl Default for Figures {
    fn default() -> Self {
        let count = PHASES.len() * OPERATIONS.len() * 2;
        let steps = (0..count).map(|_| Histogram::new(STEP_BOUNDS, 1e6)).collect();
        Self { steps, webhooks: Mutex::default(), checks: Mutex::default() }
    }
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn count(family: &mut BTreeMap<String, Counter>, labels: String) {
    if family.len() < SERIES_MAX || family.contains_key(&labels) {
        family.entry(labels).or_default().add(1);
    }
}

impl Figures {
    /// Counts a phase that is over.
    pub(crate) fn step(&self, phase: Phase, operation: Operation, is_refused: bool, took: Duration) {
        let place = |known: bool, width: usize| if known { width } else { 0 };
        let operation = OPERATIONS.iter().position(|own| *own == operation).unwrap_or_default();
        let index = place(phase == Phase::Validate, OPERATIONS.len() * 2) + operation * 2 + place(is_refused, 1);
        self.steps.get(index).into_iter().for_each(|step| step.observe(micros(took)));
    }

    /// Counts what a webhook has answered.
    pub(crate) fn webhook(&self, answer: &Answered<'_>, took: Duration) {
        let Answered { name, of, operation, code, is_refused, is_error } = *answer;
        let operation = operation.name();
        let mut all = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = format!("name=\"{name}\",operation=\"{operation}\",rejected=\"{is_refused}\",type=\"{of}\"");
        if all.took.len() < SERIES_MAX || all.took.contains_key(&labels) {
            let series = all.took.entry(labels.clone());
            series.or_insert_with(|| Arc::new(Histogram::new(WEBHOOK_BOUNDS, 1e6))).observe(micros(took));
        }
        count(&mut all.requests, format!("code=\"{}\",{labels}", code.min(600)));
        if is_refused {
            let (error, code) = if is_error { ("calling_webhook_error", 0) } else { ("no_error", code.min(600)) };
            let labels = format!(
                "error_type=\"{error}\",name=\"{name}\",operation=\"{operation}\",rejection_code=\"{code}\",type=\"{of}\""
            );
            count(&mut all.rejections, labels);
        }
    }

    /// Counts a request that got through because its webhook could not be asked.
    pub(crate) fn let_through(&self, name: &str, of: &str) {
        let mut all = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        count(&mut all.let_through, format!("name=\"{name}\",type=\"{of}\""));
    }

    /// Counts what a ValidatingAdmissionPolicy has found, and what is done about it: `deny`, `warn`, `audit`.
    pub(crate) fn policy(&self, policy: &str, binding: &str, error: &str, action: &str) {
        let labels = format!(
            "enforcement_action=\"{action}\",error_type=\"{error}\",policy=\"{policy}\",policy_binding=\"{binding}\""
        );
        count(&mut self.checks.lock().unwrap_or_else(PoisonError::into_inner), labels);
    }

    /// Tells all of it.
    pub(crate) fn report(&self, page: &mut Page) {
        page.family(
            "apiserver_admission_step_admission_duration_seconds",
            "histogram",
            "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).",
        );
        let mut steps = self.steps.iter();
        for phase in PHASES {
            for operation in OPERATIONS {
                for (is_refused, step) in [false, true].into_iter().zip(steps.by_ref()) {
                    if step.count() > 0 {
                        let (operation, phase) = (operation.name(), phase.name());
                        let labels = format!("operation=\"{operation}\",rejected=\"{is_refused}\",type=\"{phase}\"");
                        step.write(page, &labels, 0);
                    }
                }
            }
        }
        self.report_webhooks(page);
        page.family(
            "apiserver_validating_admission_policy_check_total",
            "counter",
            "[BETA] Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.",
        );
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.iter().for_each(|(labels, count)| page.sample("", labels, count.get()));
    }

    fn report_webhooks(&self, page: &mut Page) {
        let all = self.webhooks.lock().unwrap_or_else(PoisonError::into_inner);
        page.family(
            "apiserver_admission_webhook_admission_duration_seconds",
            "histogram",
            "[STABLE] Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
        );
        all.took.iter().for_each(|(labels, took)| took.write(page, labels, 0));
        let counters = [
            (
                "apiserver_admission_webhook_request_total",
                "[ALPHA] Admission webhook request total, identified by name and broken out for each admission type (validating or mutating) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
                &all.requests,
            ),
            (
                "apiserver_admission_webhook_rejection_count",
                "[ALPHA] Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
                &all.rejections,
            ),
            (
                "apiserver_admission_webhook_fail_open_count",
                "[ALPHA] Admission webhook fail open count, identified by name and broken out for each admission type (validating or mutating).",
                &all.let_through,
            ),
        ];
        for (name, help, series) in counters {
            page.family(name, "counter", help);
            series.iter().for_each(|(labels, count)| page.sample("", labels, count.get()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_and_webhooks_are_told_under_kubernetes_names() {
        let figures = Figures::default();
        figures.step(Phase::Admit, Operation::Create, false, Duration::from_millis(10));
        figures.step(Phase::Validate, Operation::Connect, true, Duration::from_millis(1));
        let answer = |code, is_refused, is_error| Answered {
            name: "a.b.c",
            of: "validating",
            operation: Operation::Update,
            code,
            is_refused,
            is_error,
        };
        figures.webhook(&answer(200, false, false), Duration::from_millis(1));
        figures.webhook(&answer(403, true, false), Duration::from_millis(1));
        figures.webhook(&answer(0, true, true), Duration::from_secs(30));
        figures.let_through("a.b.c", "validating");
        figures.policy("p", "b", "no_error", "deny");
        let mut page = Page::default();
        figures.report(&mut page);
        let text = page.finish();
        for line in [
            "apiserver_admission_step_admission_duration_seconds_bucket{operation=\"CREATE\",rejected=\"false\",type=\"admit\",le=\"0.025\"} 1\n",
            "apiserver_admission_step_admission_duration_seconds_count{operation=\"CONNECT\",rejected=\"true\",type=\"validate\"} 1\n",
            "apiserver_admission_webhook_admission_duration_seconds_count{name=\"a.b.c\",operation=\"UPDATE\",rejected=\"true\",type=\"validating\"} 2\n",
            "apiserver_admission_webhook_request_total{code=\"403\",name=\"a.b.c\",operation=\"UPDATE\",rejected=\"true\",type=\"validating\"} 1\n",
            "apiserver_admission_webhook_rejection_count{error_type=\"calling_webhook_error\",name=\"a.b.c\",operation=\"UPDATE\",rejection_code=\"0\",type=\"validating\"} 1\n",
            "apiserver_admission_webhook_rejection_count{error_type=\"no_error\",name=\"a.b.c\",operation=\"UPDATE\",rejection_code=\"403\",type=\"validating\"} 1\n",
            "apiserver_validating_admission_policy_check_total{enforcement_action=\"deny\",error_type=\"no_error\",policy=\"p\",policy_binding=\"b\"} 1\n",
            "apiserver_admission_webhook_fail_open_count{name=\"a.b.c\",type=\"validating\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
