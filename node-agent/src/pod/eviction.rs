//! Looks after volumes that may hold only so much: a pod that fills one beyond its limit is evicted.
//!
//! No file system tells when a folder has grown, so the folders are looked at from time to time, as the kubelet does;
//! only those of pods that set a limit.

use std::time::Duration;

use reeve_engine::disk_usage::disk_usage;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::actor::Input;
use crate::volume::usage::{Limited, excess};

/// Source: kubelet `evictionMonitoringPeriod`.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Looks until a volume is too full; then says so and ends.
pub(super) async fn watch(volumes: Vec<Limited>, inputs: mpsc::Sender<Input>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for volume in &volumes {
            let path = volume.path.clone();
            let used = tokio::task::spawn_blocking(move || disk_usage(&path)).await;
            let message = match used {
                Ok(Ok(used)) => excess(volume, used.used_bytes),
                // A volume that cannot be read is not too full.
                _ => None,
            };
            if let Some(message) = message {
                // Without a receiver the pod is over anyway.
                let _ = inputs.send(Input::Evicted(message)).await;
                return;
            }
        }
    }
}
