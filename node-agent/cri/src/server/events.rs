//! What happened to containers and sandboxes, for whoever follows: the kubelet's generator of pod events.

use std::sync::{Mutex, PoisonError};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use reeve_engine::engine::{Container, ContainerState, Sandbox};
use reeve_proto::cri::{ContainerEventResponse, ContainerEventType};
use tokio::sync::broadcast;
use tonic::Status;

use super::Shared;

/// Events that a follower may be behind; then its stream ends, and it lists and follows again.
const BEHIND_MAX: usize = 1024;

/// Tells everybody who follows.
pub(crate) struct Events {
    /// Exchanged when what is told is no longer whole.
    sender: Mutex<broadcast::Sender<ContainerEventResponse>>,
}

impl Events {
    pub(super) fn new() -> Self {
        Self { sender: Mutex::new(broadcast::Sender::new(BEHIND_MAX)) }
    }

    /// Ends all streams: something was missed.
    pub(super) fn break_off(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = broadcast::Sender::new(BEHIND_MAX);
    }

    fn tell(&self, event: ContainerEventResponse) {
        // Without a follower it is nobody's.
        let _ = self.sender.lock().unwrap_or_else(PoisonError::into_inner).send(event);
    }

    fn follow(&self) -> impl Stream<Item = Result<ContainerEventResponse, Status>> + Send + 'static {
        let receiver = self.sender.lock().unwrap_or_else(PoisonError::into_inner).subscribe();
        futures::stream::unfold(Some(receiver), |receiver| async {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Ok(event) => Some((Ok(event), Some(receiver))),
                Err(_) => Some((Err(Status::data_loss("events were missed: list, and follow again")), None)),
            }
        })
    }
}

impl Shared {
    pub(super) fn follow_events(&self) -> BoxStream<'static, Result<ContainerEventResponse, Status>> {
        let stop = self.stop.clone();
        self.events.follow().take_until(stop.cancelled_owned()).boxed()
    }

    /// A container has started or ended.
    pub(super) async fn on_container(&self, own: &Container) {
        let kind = match own.state {
            ContainerState::Created => return,
            ContainerState::Running { .. } => ContainerEventType::ContainerStartedEvent,
            ContainerState::Exited { .. } => ContainerEventType::ContainerStoppedEvent,
        };
        self.tell_of_container(own, kind).await;
    }

    /// Something happened to a container: its pod is told as it is now.
    pub(super) async fn tell_of_container(&self, own: &Container, kind: ContainerEventType) {
        let Ok(Some(pod)) = self.find_sandbox(&own.sandbox).await else { return };
        self.tell(&own.id, &pod, kind).await;
    }

    /// A sandbox was made, started, stopped or removed.
    pub(super) async fn tell_of_sandbox(&self, own: &Sandbox, kind: ContainerEventType) {
        self.tell(&own.id, own, kind).await;
    }

    /// Every event has all of the pod: a kubelet believes that what is not in it is not there.
    pub(super) async fn tell(&self, id: &str, pod: &Sandbox, kind: ContainerEventType) {
        // Taken first: of two that overlap, the one that has looked later counts.
        let created_at = self.now();
        let Ok(containers_statuses) = self.statuses_of(&pod.id).await else { return self.events.break_off() };
        self.events.tell(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at,
            pod_sandbox_status: Some(self.status_of(pod)),
            containers_statuses,
        });
    }
}
