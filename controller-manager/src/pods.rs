//! What controllers ask of a pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EphemeralVolumeSource, Pod, PodCondition, PodStatus, Volume};

/// `status.phase`; empty before anybody wrote one.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether the pod has neither finished nor is being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether the pod's containers have stopped for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// `spec.nodeName`; empty while the pod is not scheduled.
pub(crate) fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// A condition of the pod.
pub(crate) fn condition<'p>(pod: &'p Pod, kind: &str) -> Option<&'p PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition `Ready` is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// When the pod became ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// How long until a ready pod counts as available: zero if it does already, `None` if it is not ready.
/// Source: `podutil.IsPodAvailable`.
pub(crate) fn available_in(pod: &Pod, min_ready: Duration, now: Timestamp) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready.is_zero() {
        return Some(Duration::ZERO);
    }
    let ready_for = Duration::try_from(now.duration_since(ready_since(pod)?)).unwrap_or(Duration::ZERO);
    Some(min_ready.saturating_sub(ready_for))
}

/// How often the pod's containers were restarted, the one restarted most.
pub(crate) fn restarts_max(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

/// Of volumes only those that are claims: who uses them.
fn claims(volumes: Vec<Volume>) -> Vec<Volume> {
    let is_claim = |volume: &Volume| volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
    let kept = |volume: Volume| Volume {
        name: volume.name,
        persistent_volume_claim: volume.persistent_volume_claim,
        ephemeral: volume.ephemeral.map(|_| EphemeralVolumeSource::default()),
        ..Volume::default()
    };
    volumes.into_iter().filter(is_claim).map(kept).collect()
}

/// Removes from a pod in an informer what no controller reads.
pub(crate) fn trim(pod: &mut Pod) {
    pod.metadata
        .annotations
        .as_mut()
        .and_then(|annotations| annotations.remove("kubectl.kubernetes.io/last-applied-configuration"));
    if let Some(spec) = &mut pod.spec {
        spec.volumes = spec.volumes.take().map(claims);
        spec.affinity = None;
        spec.topology_spread_constraints = None;
        let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        for container in containers {
            *container = Container {
                name: std::mem::take(&mut container.name),
                ports: container.ports.take(),
                restart_policy: container.restart_policy.take(),
                ..Container::default()
            };
        }
    }
    if let Some(status) = &mut pod.status {
        let kept = PodStatus {
            phase: status.phase.take(),
            reason: status.reason.take(),
            conditions: status.conditions.take(),
            pod_ip: status.pod_ip.take(),
            pod_ips: status.pod_ips.take(),
            host_ip: status.host_ip.take(),
            container_statuses: status.container_statuses.take(),
            start_time: status.start_time.take(),
            ..PodStatus::default()
        };
        *status = kept;
        for container in status.container_statuses.iter_mut().flatten() {
            container.state = None;
            container.last_state = None;
        }
    }
}
