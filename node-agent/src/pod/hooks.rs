//! Lifecycle hooks: `postStart` and `preStop`, by exec, HTTP or sleep.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use reeve_engine::engine::SharedEngine;

use crate::probe::exec::run_command;
use crate::probe::http::{self, HttpTarget};

/// The most time a `postStart` hook's request may take; the command of one may take longer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a hook runs.
pub(crate) struct HookTarget<'h> {
    pub(crate) engine: &'h SharedEngine,
    pub(crate) container_id: &'h str,
    pub(crate) container: &'h Container,
    pub(crate) pod_ip: Option<IpAddr>,
}

/// Why a hook failed, for its event.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    #[error("Exec lifecycle hook ({command:?}) for Container \"{container}\" failed - error: {reason}")]
    Exec { command: Vec<String>, container: String, reason: String },
    #[error("HTTP lifecycle hook ({path}) for Container \"{container}\" failed - error: {reason}")]
    Http { path: String, container: String, reason: String },
    #[error("invalid handler: must specify exec, httpGet or sleep")]
    Empty,
}

/// Runs a hook to its end.
pub(crate) async fn run(hook: &LifecycleHandler, target: &HookTarget<'_>) -> Result<(), HookError> {
    let container = || target.container.name.clone();
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let outcome = run_command(target.engine, target.container_id, &command, None).await;
        let failed = |reason: String| HookError::Exec { command: command.clone(), container: container(), reason };
        return match outcome {
            Ok(done) if done.code == 0 => Ok(()),
            Ok(done) => Err(failed(format!("command exited with {}: {}", done.code, done.output))),
            Err(error) => Err(failed(error.to_string())),
        };
    }
    if let Some(get) = &hook.http_get {
        let path = get.path.clone().unwrap_or_default();
        let failed = |reason: String| HookError::Http { path: path.clone(), container: container(), reason };
        let request =
            HttpTarget::of(get, target.container, target.pod_ip).map_err(|error| failed(error.to_string()))?;
        // Any answer counts: the kubelet does not look at the status code of a hook.
        return http::get(&request, HTTP_TIMEOUT).await.map(|_| ()).map_err(|error| failed(error.to_string()));
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err(HookError::Empty)
}

/// A duration as Go prints it, down to the millisecond: `1.234s`, `56ms`.
pub(crate) fn go_seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    let text = format!("{}.{:03}", duration.as_secs() % 60, duration.subsec_millis());
    let seconds = text.trim_end_matches('0').trim_end_matches('.');
    match duration.as_secs() / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        for (millis, text) in [(5, "5ms"), (1234, "1.234s"), (2000, "2s"), (61_500, "1m1.5s")] {
            assert_eq!(go_seconds(Duration::from_millis(millis)), text);
        }
    }
}
