//! Looks after what a pod writes on the node's disk: one that takes more than it may is evicted.
//!
//! No file system tells when a folder has grown, so the folders are looked at from time to time, as the kubelet does;
//! only those of pods that set a limit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodSpec;
use reeve_api::quantity::Quantity;
use reeve_engine::disk_usage::disk_usage;
use reeve_engine::engine::ContainerState;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::actor::Input;
use super::container::POD_UID;
use super::context::NodeContext;
use super::resources::{amount, limit_of_pod};
use crate::volume::Mounted;
use crate::volume::usage::{Limited, excess, limited, scratch};

/// Source: kubelet `evictionMonitoringPeriod`.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The resource's name.
const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// What of a pod has a limit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    volumes: Vec<Limited>,
    /// Of all that the pod writes.
    pod: Option<Quantity>,
    /// Of what a container writes: its layer and its logs.
    containers: BTreeMap<String, Quantity>,
    /// The volumes that count as the pod's.
    scratch: Vec<PathBuf>,
}

/// Bytes that a pod has written.
#[derive(Debug, Default)]
struct Used {
    containers: BTreeMap<String, u64>,
    /// Volumes, and what is the pod's own of a container's `/etc` and `/dev`.
    scratch: u64,
}

impl Watched {
    /// What is to be looked at of a pod.
    pub(super) fn of(spec: &PodSpec, mounted: &Mounted) -> Self {
        let limit = |own: &Option<BTreeMap<_, _>>| amount(own, EPHEMERAL_STORAGE).filter(|limit| !limit.is_zero());
        let of_container = |container: &k8s_openapi::api::core::v1::Container| {
            Some((container.name.clone(), limit(&container.resources.as_ref()?.limits)?))
        };
        let pod = limit_of_pod(spec, EPHEMERAL_STORAGE).filter(|limit| !limit.is_zero());
        Self {
            volumes: limited(spec, mounted),
            scratch: if pod.is_some() { scratch(spec, mounted) } else { Vec::new() },
            pod,
            containers: spec.containers.iter().filter_map(of_container).collect(),
        }
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.pod.is_none() && self.containers.is_empty()
    }

    /// Why a pod that has written so much is evicted; `None` while it may stay.
    /// Source: kubelet `podEphemeralStorageLimitEviction`, `containerEphemeralStorageLimitEviction`; the final blanks
    /// are theirs.
    fn excess(&self, used: &Used) -> Option<String> {
        let over = |used: u64, limit: &Quantity| i64::try_from(used).unwrap_or(i64::MAX) > limit.value();
        let all = used.containers.values().fold(used.scratch, |sum, own| sum.saturating_add(*own));
        if let Some(limit) = self.pod.as_ref().filter(|limit| over(all, limit)) {
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "));
        }
        let of_container = |(name, limit): (&String, &Quantity)| {
            over(*used.containers.get(name)?, limit)
                .then(|| format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "))
        };
        self.containers.iter().find_map(of_container)
    }

    /// Looks at everything once.
    async fn look(&self, node: &NodeContext, uid: &str) -> Option<String> {
        for volume in &self.volumes {
            // A volume that cannot be read is not too full.
            let used = usage(volume.path.clone()).await.unwrap_or(0);
            if let Some(message) = excess(volume, used) {
                return Some(message);
            }
        }
        if self.pod.is_none() && self.containers.is_empty() {
            return None;
        }
        let mut used = Used { scratch: own_files(node.config.pod_dir(uid)).await, ..Used::default() };
        for path in &self.scratch {
            used.scratch = used.scratch.saturating_add(usage(path.clone()).await.unwrap_or(0));
        }
        for container in node.engine.list_containers().await.ok()? {
            let is_own = container.config.labels.get(POD_UID).is_some_and(|own| own == uid);
            if !is_own || !matches!(container.state, ContainerState::Running { .. }) {
                continue;
            }
            let layer = node.engine.writable_layer(&container.id).await.map_or(0, |layer| layer.used_bytes);
            let logs = match container.config.log_path.parent() {
                Some(dir) => usage(dir.to_owned()).await.unwrap_or(0),
                None => 0,
            };
            used.containers.insert(container.config.name, layer.saturating_add(logs));
        }
        self.excess(&used)
    }
}

async fn usage(path: PathBuf) -> Option<u64> {
    let used = tokio::task::spawn_blocking(move || disk_usage(&path)).await.ok()?;
    used.ok().map(|used| used.used_bytes)
}

/// What containers can write in the pod's own folder: `/etc/hosts` and its like, termination messages.
async fn own_files(dir: PathBuf) -> u64 {
    let sum = move || {
        let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let own = entries.filter(|entry| entry.file_name() != "volumes");
        own.filter_map(|entry| disk_usage(&entry.path()).ok()).map(|used| used.used_bytes).sum()
    };
    tokio::task::spawn_blocking(sum).await.unwrap_or(0)
}

/// Looks until there is too much; then says so and ends.
pub(super) async fn watch(watched: Watched, node: Arc<NodeContext>, uid: String, inputs: mpsc::Sender<Input>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(message) = watched.look(&node, &uid).await {
            // Without a receiver the pod is over anyway.
            let _ = inputs.send(Input::Evicted(message)).await;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn watched(containers: serde_json::Value) -> Watched {
        let spec: PodSpec = serde_json::from_value(json!({ "containers": containers })).unwrap();
        Watched::of(&spec, &Mounted::default())
    }

    fn limited_to(name: &str, limit: &str) -> serde_json::Value {
        json!({ "name": name, "resources": { "limits": { "ephemeral-storage": limit } } })
    }

    fn used(containers: &[(&str, u64)], scratch: u64) -> Used {
        Used { containers: containers.iter().map(|(name, used)| ((*name).to_owned(), *used)).collect(), scratch }
    }

    #[test]
    fn a_pod_without_limits_is_not_looked_at() {
        assert!(watched(json!([{ "name": "a", "resources": { "limits": { "memory": "1Mi" } } }])).is_empty());
        assert!(watched(json!([limited_to("a", "0")])).is_empty());
        assert!(!watched(json!([limited_to("a", "1Mi")])).is_empty());
    }

    #[test]
    fn who_writes_more_than_it_may_is_told_in_the_kubelets_words() {
        let both = watched(json!([limited_to("a", "1Mi"), limited_to("b", "3Mi")]));
        assert_eq!(both.excess(&used(&[("a", 1 << 20), ("b", 3 << 20)], 0)), None);
        assert_eq!(
            both.excess(&used(&[("a", (1 << 20) + 1), ("b", 0)], 0)).as_deref(),
            Some("Container a exceeded its local ephemeral storage limit \"1Mi\". ")
        );
        assert_eq!(
            both.excess(&used(&[("a", 0), ("b", 1 << 20)], (3 << 20) + 1)).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 4Mi. "),
            "volumes count as the pod's"
        );
        let one = watched(json!([limited_to("a", "1Mi"), { "name": "b" }]));
        assert_eq!(
            one.excess(&used(&[("a", 0), ("b", 2 << 20)], 0)).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "),
            "also where not all of them have a limit"
        );
    }
}
