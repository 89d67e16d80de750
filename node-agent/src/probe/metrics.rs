//! How probes went, counted: `/metrics/probes`, under the kubelet's names. Kept as long as the pod.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::{Outcome, ProbeKind};
use crate::server::stats::histogram::Histogram;
use crate::server::stats::metrics::quoted;

/// Which probe of which container; ordered by the pod's UID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    uid: String,
    namespace: String,
    pod: String,
    container: String,
    kind: &'static str,
}

#[derive(Debug, Default)]
struct Counts {
    successful: u64,
    failed: u64,
    unknown: u64,
    took: Histogram,
}

/// The counts of all probes on the node.
#[derive(Debug, Default)]
pub(crate) struct ProbeCounts(Mutex<BTreeMap<Key, Counts>>);

impl ProbeCounts {
    /// One probe is over.
    pub(crate) fn count(&self, pod: &Pod, container: &str, kind: ProbeKind, outcome: &Outcome, took: Duration) {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let meta = &pod.metadata;
        let key = Key {
            uid: text(&meta.uid),
            namespace: text(&meta.namespace),
            pod: text(&meta.name),
            container: container.to_owned(),
            kind: kind.title(),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = all.entry(key).or_default();
        match outcome {
            Outcome::Success => counts.successful += 1,
            Outcome::Failure(_) => counts.failed += 1,
            Outcome::Unknown(_) => counts.unknown += 1,
        }
        counts.took.observe(took);
    }

    /// A pod is gone.
    pub(crate) fn forget(&self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| key.uid != uid);
    }

    /// All of them, in Prometheus' text form.
    pub(crate) fn text(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        if !all.is_empty() {
            durations(&mut out, &all);
            totals(&mut out, &all);
        }
        out
    }
}

fn durations(out: &mut String, all: &BTreeMap<Key, Counts>) {
    let name = "prober_probe_duration_seconds";
    // Writing to a string does not fail.
    let _ = writeln!(out, "# HELP {name} [ALPHA] Duration in seconds for a probe response.\n# TYPE {name} histogram");
    for (key, counts) in all {
        let labels = format!("container=\"{}\",{}", quoted(&key.container), of_pod(key));
        let labels = format!("{labels},probe_type=\"{}\"", key.kind);
        counts.took.write(out, name, &labels);
    }
}

fn totals(out: &mut String, all: &BTreeMap<Key, Counts>) {
    let name = "prober_probe_total";
    let _ = writeln!(
        out,
        "# HELP {name} [BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.\n\
         # TYPE {name} counter"
    );
    for (key, counts) in all {
        let of_probe = format!("{},pod_uid=\"{}\",probe_type=\"{}\"", of_pod(key), quoted(&key.uid), key.kind);
        let results = [("failed", counts.failed), ("successful", counts.successful), ("unknown", counts.unknown)];
        for (result, count) in results.into_iter().filter(|(_, count)| *count > 0) {
            let container = quoted(&key.container);
            let _ = writeln!(out, "{name}{{container=\"{container}\",{of_probe},result=\"{result}\"}} {count}");
        }
    }
}

fn of_pod(key: &Key) -> String {
    format!("namespace=\"{}\",pod=\"{}\"", quoted(&key.namespace), quoted(&key.pod))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_counted_by_result_and_time_until_their_pod_is_gone() {
        let pod = |uid: &str| -> Pod {
            let meta = serde_json::json!({ "name": "p", "namespace": "n", "uid": uid });
            serde_json::from_value(serde_json::json!({ "metadata": meta })).unwrap()
        };
        let (counts, millis) = (ProbeCounts::default(), Duration::from_millis);
        assert_eq!(counts.text(), "");
        for (outcome, took) in [
            (Outcome::Success, millis(20)),
            (Outcome::Success, millis(5)),
            (Outcome::Failure("no".to_owned()), millis(20_000)),
        ] {
            counts.count(&pod("u"), "c", ProbeKind::Liveness, &outcome, took);
        }
        counts.count(&pod("v"), "c", ProbeKind::Startup, &Outcome::Unknown(String::new()), millis(1));
        let text = counts.text();
        let of_pod = "namespace=\"n\",pod=\"p\"";
        let duration = format!("container=\"c\",{of_pod},probe_type=\"Liveness\"");
        for line in [
            format!(
                "prober_probe_total{{container=\"c\",{of_pod},pod_uid=\"u\",probe_type=\"Liveness\",result=\"failed\"}} 1"
            ),
            format!(
                "prober_probe_total{{container=\"c\",{of_pod},pod_uid=\"u\",probe_type=\"Liveness\",result=\"successful\"}} 2"
            ),
            format!(
                "prober_probe_total{{container=\"c\",{of_pod},pod_uid=\"v\",probe_type=\"Startup\",result=\"unknown\"}} 1"
            ),
            format!("prober_probe_duration_seconds_bucket{{{duration},le=\"0.005\"}} 1"),
            format!("prober_probe_duration_seconds_bucket{{{duration},le=\"0.025\"}} 2"),
            format!("prober_probe_duration_seconds_bucket{{{duration},le=\"10\"}} 2"),
            format!("prober_probe_duration_seconds_bucket{{{duration},le=\"+Inf\"}} 3"),
            format!("prober_probe_duration_seconds_sum{{{duration}}} 20.025"),
            format!("prober_probe_duration_seconds_count{{{duration}}} 3"),
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is missing in\n{text}");
        }
        counts.forget(&pod("u"));
        assert!(!counts.text().contains("Liveness") && counts.text().contains("Startup"));
    }
}
