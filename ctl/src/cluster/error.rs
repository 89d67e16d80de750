//! Why a cluster verb did not do what it was asked: one line for the user, with the way out where there is one.

use std::io;
use std::path::{Path, PathBuf};

/// Errors of `reeve up` and `reeve down`. None is retried; each names the thing and the rule.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// Namespaces, mounts and cgroups need root.
    #[error("reeve {verb} needs root (it makes namespaces, mounts and cgroups): run it with sudo")]
    NotRoot {
        /// `up`, `down`
        verb: &'static str,
    },
    /// A flag or a file of ours says something that cannot be.
    #[error("invalid {what} {value:?}: {rule}")]
    Invalid {
        /// The flag or field.
        what: &'static str,
        /// What it says.
        value: String,
        /// The rule it breaks.
        rule: String,
    },
    /// The operating system refused a step.
    #[error("failed to {step}: {source}")]
    Io {
        /// What was tried, with the path.
        step: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel lacks something that containers need.
    #[error("this kernel cannot run Reeve: {0}")]
    Kernel(String),
    /// The background process ended, or said why it cannot go on.
    #[error("cluster {name:?} did not start: {reason}\nits log is {log}")]
    NotStarted {
        /// The cluster.
        name: String,
        /// Its own words.
        reason: String,
        /// Where more stands.
        log: String,
    },
    /// There is no such cluster.
    #[error("there is no cluster {name:?}{hint}")]
    NoCluster {
        /// The name asked for.
        name: String,
        /// Which there are.
        hint: String,
    },
    /// A kubeconfig that is not ours to repair.
    #[error("cannot use kubeconfig {path}: {reason}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Everything is said in one sentence.
    #[error("{0}")]
    Told(String),
    /// A component could not be built.
    #[error("failed to start {component}: {reason}")]
    Component {
        /// `store`, `API server`, …
        component: &'static str,
        /// Its own words.
        reason: String,
    },
}

impl ClusterError {
    /// A step that the operating system refused.
    pub(crate) fn io(step: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { step: step.into(), source: source.into() }
    }

    /// A component that could not be built.
    pub(crate) fn component(component: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Component { component, reason: reason.to_string() }
    }
}

/// An error with everything behind it: `cannot write /path: No space left on device`.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// `write /path`, `read /path`: the usual step of an I/O error.
pub(crate) fn at(verb: &str, path: &Path) -> String {
    format!("{verb} {}", path.display())
}
