//! What the kubelet's metrics say of credential providers.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::server::stats::histogram::Histogram;
use crate::server::stats::metrics::quoted;

/// The runs of one plugin.
#[derive(Debug, Default)]
pub(super) struct Runs(Mutex<(Histogram, u64)>);

impl Runs {
    /// One is over. An answer that is none does not count as an error of the plugin, as with the kubelet.
    pub(super) fn count(&self, succeeded: bool, took: Duration) {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        runs.0.observe(took);
        runs.1 += u64::from(!succeeded);
    }
}

/// In Prometheus' text form. Plugins that never ran, or never failed, have no samples.
pub(super) fn text<'r>(hash: &str, runs: impl Iterator<Item = (&'r str, &'r Runs)>) -> String {
    let read = |runs: &Runs| runs.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let runs = runs.map(|(name, runs)| (format!("plugin_name=\"{}\"", quoted(name)), read(runs)));
    let runs: Vec<_> = runs.filter(|(_, (took, _))| !took.is_empty()).collect();
    let head = |name: &str, kind: &str, help: &str| format!("# HELP {name} [ALPHA] {help}\n# TYPE {name} {kind}\n");
    let name = "kubelet_credential_provider_config_info";
    let help = "Information about the last applied credential provider configuration with hash as label";
    let mut text = head(name, "gauge", help);
    // Writing to a string does not fail.
    let _ = writeln!(text, "{name}{{hash=\"{hash}\"}} 1");
    if !runs.is_empty() {
        let name = "kubelet_credential_provider_plugin_duration";
        text += &head(name, "histogram", "Duration of execution in seconds for credential provider plugin");
        runs.iter().for_each(|(labels, (took, _))| took.write(&mut text, name, labels));
    }
    if runs.iter().any(|(_, (_, errors))| *errors > 0) {
        let name = "kubelet_credential_provider_plugin_errors_total";
        text += &head(name, "counter", "Number of errors from credential provider plugin");
        for (labels, (_, errors)) in runs.iter().filter(|(_, (_, errors))| *errors > 0) {
            let _ = writeln!(text, "{name}{{{labels}}} {errors}");
        }
    }
    text
}
