//! What the cluster's process says, and how much: to standard error, by the filter in `REEVE_LOG`.

use tracing_subscriber::EnvFilter;

/// Environment variable with a filter, such as `info,reeve_proxy=debug`.
const FILTER: &str = "REEVE_LOG";

/// Sets the log up. A second call changes nothing.
pub(crate) fn init() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).try_init();
}
