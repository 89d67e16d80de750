//! What the cluster's process says, and how much: to standard error, by the filter in `REEVE_LOG`.

use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;

/// Environment variable with a filter, such as `info,reeve_proxy=debug`.
const FILTER: &str = "REEVE_LOG";

/// Sets the log up. A second call changes nothing. A panic in any task is an error of the log too, with its place.
pub(crate) fn init() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A line that cannot be written (a full disk) is lost. To complain of it on standard error would be a panic.
    let log = log.log_internal_errors(false);
    if log.try_init().is_ok() {
        std::panic::set_hook(Box::new(on_panic));
    }
}

fn on_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("(no text)");
    tracing::error!(place, panic = text, "panicked: this is a bug");
}
