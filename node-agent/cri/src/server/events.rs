//! What happened to containers and sandboxes, for whoever follows: the kubelet's generator of pod events.

use std::sync::{Mutex, PoisonError};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use reeve_engine::engine::{Container, ContainerState, Sandbox};
use reeve_proto::cri::{ContainerEventResponse, ContainerEventType};
use tokio::sync::broadcast;
use tonic::Status;

use super::Shared;
use crate::convert::container;

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

    /// A container has started or ended: its pod is told as it is now.
    pub(super) async fn on_container(&self, own: &Container) {
        let kind = match own.state {
            ContainerState::Created => return,
            ContainerState::Running { .. } => ContainerEventType::ContainerStartedEvent,
            ContainerState::Exited { .. } => ContainerEventType::ContainerStoppedEvent,
        };
        let Ok(Some(pod)) = self.find_sandbox(&own.sandbox).await else { return };
        let mut statuses = self.statuses_of(&pod.id).await.unwrap_or_default();
        if !statuses.iter().any(|status| status.id == own.id) {
            statuses.push(container::status(own, None));
        }
        self.events.tell(ContainerEventResponse {
            container_id: own.id.clone(),
            container_event_type: kind.into(),
            created_at: self.now(),
            pod_sandbox_status: Some(self.status_of(&pod)),
            containers_statuses: statuses,
        });
    }

    /// A container was made or removed.
    pub(super) fn tell_of_container(&self, own: &Container, kind: ContainerEventType) {
        self.events.tell(ContainerEventResponse {
            container_id: own.id.clone(),
            container_event_type: kind.into(),
            created_at: self.now(),
            pod_sandbox_status: None,
            containers_statuses: vec![container::status(own, None)],
        });
    }

    /// A sandbox was made, started, stopped or removed.
    pub(super) fn tell_of_sandbox(&self, own: &Sandbox, kind: ContainerEventType) {
        self.events.tell(ContainerEventResponse {
            container_id: own.id.clone(),
            container_event_type: kind.into(),
            created_at: self.now(),
            pod_sandbox_status: Some(self.status_of(own)),
            containers_statuses: Vec::new(),
        });
    }
}
