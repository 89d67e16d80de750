//! Tells users what happened to their objects, as core/v1 Events.
//!
//! Recording never waits and never fails: events are a courtesy. What is written, and what is merged or held
//! back, follows client-go's `record.EventRecorder` and `record.EventCorrelator`.

mod correlate;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::Component;
use correlate::{Correlator, Write};

/// Events that wait to be written. When it is full new ones are dropped, as client-go does.
const QUEUE_LEN: usize = 1000;

/// How often the API server is asked to take an event before it is dropped.
const WRITE_ATTEMPTS: u32 = 4;

/// The namespace of events about objects that have none.
const DEFAULT_NAMESPACE: &str = "default";

/// Kubernetes' two kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Information only.
    Normal,
    /// Something may be wrong.
    Warning,
}

impl EventType {
    /// The word in `event.type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What a component says about an object, before it is merged with what was said earlier.
#[derive(Debug, Clone)]
pub(crate) struct Remark {
    pub(crate) about: ObjectReference,
    pub(crate) kind: EventType,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) at: jiff::Timestamp,
}

/// Records the events of one component. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    component: Component,
    queue: mpsc::Sender<Remark>,
}

impl EventRecorder {
    /// A recorder whose events name `source` (for example `default-scheduler`) and, for node components, `host`.
    #[must_use]
    pub fn start(component: &Component, source: &str, host: Option<&str>) -> Self {
        let (queue, remarks) = mpsc::channel(QUEUE_LEN);
        let source = EventSource { component: Some(source.to_owned()), host: host.map(str::to_owned) };
        component.spawn_vital("events", write_all(component.clone(), source, remarks));
        Self { component: component.clone(), queue }
    }

    /// Says something about an object: `reason` in CamelCase for machines, `message` for people.
    pub fn record(&self, about: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let remark = Remark {
            about: about.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.into(),
            at: self.component.clock.now(),
        };
        if let Err(error) = self.queue.try_send(remark) {
            debug!(%error, "event dropped");
        }
    }

    /// [`EventRecorder::record`] for [`EventType::Normal`].
    pub fn normal(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, EventType::Normal, reason, message);
    }

    /// [`EventRecorder::record`] for [`EventType::Warning`].
    pub fn warning(&self, about: &ObjectReference, reason: &str, message: impl Into<String>) {
        self.record(about, EventType::Warning, reason, message);
    }
}

async fn write_all(component: Component, source: EventSource, mut remarks: mpsc::Receiver<Remark>) {
    let mut correlator = Correlator::new(source);
    while let Some(remark) = remarks.recv().await {
        if let Some(write) = correlator.correlate(remark) {
            deliver(&component, &mut correlator, write).await;
        }
    }
}

/// Writes one event; a merged one whose object has expired meanwhile is created anew.
async fn deliver(component: &Component, correlator: &mut Correlator, write: Write) {
    let mut delay = crate::Backoff::new(
        std::time::Duration::from_millis(200),
        std::time::Duration::from_secs(10),
        component.rng.clone(),
    );
    let mut write = write;
    for _ in 0..WRITE_ATTEMPTS {
        match attempt(component, &write).await {
            Ok(()) => return correlator.written(&write),
            Err(kube::Error::Api(status)) if write.merged && status.is_not_found() => write.merged = false,
            Err(kube::Error::Api(status)) => {
                // The server understood and refused, for example because the namespace is terminating.
                debug!(event = write.name, %status, "event refused");
                return;
            }
            Err(error) => {
                debug!(event = write.name, %error, "event not written, trying again");
                tokio::time::sleep(delay.delay()).await;
            }
        }
    }
    warn!(event = write.name, reason = write.remark.reason, "event dropped: the API server did not take it");
}

async fn attempt(component: &Component, write: &Write) -> kube::Result<()> {
    let api: Api<Event> = Api::namespaced(component.client.clone(), &write.namespace);
    if write.merged {
        let patch = serde_json::json!({
            "count": write.count,
            "lastTimestamp": Time(write.remark.at),
            "message": write.remark.message,
        });
        api.patch(&write.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
    } else {
        api.create(&PostParams::default(), &event(write)).await.map(drop)
    }
}

fn event(write: &Write) -> Event {
    let remark = &write.remark;
    Event {
        metadata: ObjectMeta {
            name: Some(write.name.clone()),
            namespace: Some(write.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: remark.about.clone(),
        type_: Some(remark.kind.as_str().to_owned()),
        reason: Some(remark.reason.clone()),
        message: Some(remark.message.clone()),
        count: Some(write.count),
        first_timestamp: Some(Time(write.first)),
        last_timestamp: Some(Time(remark.at)),
        reporting_component: write.source.component.clone(),
        reporting_instance: write.source.host.clone(),
        source: Some(write.source.clone()),
        ..Event::default()
    }
}

fn namespace_of(about: &ObjectReference) -> String {
    let namespace = about.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned()
}
