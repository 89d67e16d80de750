//! The scheduler's loop: watches feed queue and snapshot, decisions become bindings.
//!
//! Informer handlers and the loop share one state behind a lock that nobody holds across an await. A decision
//! is assumed on the snapshot at once; its binding travels while the next pods are decided.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Node, Pod, PodSpec};
use kube::{Api, Resource as _};
use reeve_client::{
    Change, Component, EventRecorder, Informer, InformerOptions, NeverSynced, TaskPanicked, wait_for_sync,
};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::FitError;
use crate::bind::{bind, patch_status, unscheduled_patch};
use crate::decide::decide;
use crate::plugins::ClusterEvent;
use crate::pod::{DEFAULT_SCHEDULER, PodView, is_finished, is_waiting};
use crate::queue::Queue;
use crate::snapshot::Snapshot;

/// How the scheduler runs.
#[derive(Debug, Clone)]
pub struct SchedulerConfig {
    /// How many requests may be under way at once; further decisions wait. Kubernetes limits requests per second
    /// instead.
    pub requests_max: usize,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self { requests_max: 64 }
    }
}

/// The scheduler has ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// Shut down while starting.
    #[error(transparent)]
    NeverSynced(#[from] NeverSynced),
    /// A bug.
    #[error(transparent)]
    Panicked(#[from] TaskPanicked),
}

/// Assigns pods of `default-scheduler` to nodes, for as long as its component runs.
pub struct Scheduler {
    config: SchedulerConfig,
    component: Component,
    state: Arc<Shared>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    events: EventRecorder,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// There may be something to decide. One permit is enough: the loop looks at everything.
    wake: Notify,
}

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    queue: Queue,
}

/// What the loop has to do for one pod.
enum Task {
    Bind { pod: Arc<PodView>, node: String },
    Report { pod: Arc<PodView>, error: FitError },
}

/// What became of a task.
enum Outcome {
    Bound { pod: Arc<PodView>, node: String },
    NotBound { pod: Arc<PodView>, error: kube::Error },
    Reported,
    NotReported { pod: Arc<PodView> },
}

impl Scheduler {
    /// Starts the scheduler's watches; nothing is decided before [`Scheduler::run`].
    #[must_use]
    pub fn new(config: SchedulerConfig, component: Component) -> Self {
        let state = Arc::<Shared>::default();
        let api = |component: &Component| Api::all(component.client.clone());
        let node_options = InformerOptions { trim: Some(trim_node as fn(&mut Node)), ..Default::default() };
        let nodes = Informer::start(&component, api(&component), node_options);
        let pod_options = InformerOptions { trim: Some(trim_pod as fn(&mut Pod)), ..Default::default() };
        let pods = Informer::start(&component, Api::all(component.client.clone()), pod_options);
        let shared = Arc::clone(&state);
        nodes.on_change(move |change| shared.update(|state| state.on_node(change)));
        let shared = Arc::clone(&state);
        pods.on_change(move |change| shared.update(|state| state.on_pod(change)));
        let events = EventRecorder::start(&component, DEFAULT_SCHEDULER, None);
        Self { config, component, state, nodes, pods, events }
    }

    /// Schedules until the component shuts down.
    ///
    /// # Errors
    /// When that happens before the first complete lists of nodes and pods, or because a watch has panicked.
    pub async fn run(self) -> Result<(), SchedulerError> {
        wait_for_sync(&self.component, &[self.nodes.synced(), self.pods.synced()]).await?;
        let mut requests = JoinSet::new();
        loop {
            while requests.len() < self.config.requests_max {
                let Some(task) = self.next_task() else { break };
                requests.spawn(self.perform(task));
            }
            tokio::select! {
                () = self.component.shutdown.cancelled() => return Ok(self.component.outcome()?),
                () = self.state.wake.notified() => {}
                () = sleep(self.until_due()) => {}
                Some(outcome) = requests.join_next() => match outcome {
                    Ok(outcome) => self.on_outcome(outcome),
                    Err(error) => warn!(%error, "a request of the scheduler ended early"),
                },
            }
        }
    }

    /// Decides for the next pod and notes the decision; the caller carries it out. All under one lock, so that no
    /// event comes between a decision and its being noted: a pod that fits nowhere misses none that would wake it.
    fn next_task(&self) -> Option<Task> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let now = self.component.clock.monotonic();
        let pod = state.queue.take(now)?;
        let tie_breaker = self.component.rng.next_u64();
        match decide(&pod, &state.snapshot, tie_breaker).map(str::to_owned) {
            Ok(node) => {
                state.snapshot.place(&node, Arc::clone(&pod));
                Some(Task::Bind { pod, node })
            }
            Err(error) => {
                state.queue.failed(&pod.uid, error.clone(), now);
                Some(Task::Report { pod, error })
            }
        }
    }

    fn perform(&self, task: Task) -> impl Future<Output = Outcome> + Send + 'static {
        let client = self.component.client.clone();
        let report = match &task {
            Task::Report { pod, error } => self.report(pod, "Unschedulable", &error.to_string()),
            Task::Bind { .. } => None,
        };
        async move {
            match task {
                Task::Bind { pod, node } => match bind(&client, &pod, &node).await {
                    Ok(()) => Outcome::Bound { pod, node },
                    Err(error) => Outcome::NotBound { pod, error },
                },
                Task::Report { pod, .. } => {
                    if let Some(patch) = report
                        && let Err(error) = patch_status(&client, &pod.key, patch).await
                    {
                        debug!(pod = %pod.key, %error, "condition not written");
                        return Outcome::NotReported { pod };
                    }
                    Outcome::Reported
                }
            }
        }
    }

    /// Records the event and returns the patch that a failed attempt needs.
    fn report(&self, pod: &PodView, reason: &str, message: &str) -> Option<serde_json::Value> {
        let current = self.pods.store().get_key(&pod.key)?;
        if current.metadata.uid.as_deref() != Some(&*pod.uid) {
            return None;
        }
        self.events.warning(&current.object_ref(&()), "FailedScheduling", message);
        unscheduled_patch(&current, reason, message, self.component.clock.now())
    }

    fn on_outcome(&self, outcome: Outcome) {
        match outcome {
            Outcome::Reported => {}
            // Nobody would learn why the pod waits: the next attempt says it again.
            Outcome::NotReported { pod } => self.state.update(|state| state.queue.reconsider(&pod.uid)),
            Outcome::Bound { pod, node } => {
                self.state.lock().queue.remove(&pod.uid);
                if let Some(current) = self.pods.store().get_key(&pod.key) {
                    let message = format!("Successfully assigned {} to {node}", pod.key);
                    self.events.normal(&current.object_ref(&()), "Scheduled", message);
                }
            }
            Outcome::NotBound { pod, error } => self.on_not_bound(&pod, &error),
        }
    }

    /// Takes back the assumption. The pod is read anew: it may have changed, or been bound by somebody else.
    fn on_not_bound(&self, pod: &PodView, error: &kube::Error) {
        warn!(pod = %pod.key, %error, "binding failed");
        let current = self.pods.store().get_key(&pod.key).filter(|pod| is_waiting(pod));
        let view = current.and_then(|current| PodView::of(&current)).filter(|view| view.uid == pod.uid);
        self.state.update(|state| {
            // A pod that the watch shows on a node left the queue then, and its place is real.
            if state.queue.is_taken(&pod.uid) {
                state.snapshot.remove_pod(&pod.uid);
                state.queue.on_event(ClusterEvent::PlacedPodRemoved);
                match view {
                    Some(view) => {
                        state.queue.put(Arc::new(view));
                        state.queue.retry(&pod.uid, self.component.clock.monotonic());
                    }
                    None => state.queue.remove(&pod.uid),
                }
            }
        });
    }

    fn until_due(&self) -> Option<Duration> {
        let due = self.state.lock().queue.next_due()?;
        Some(due.saturating_sub(self.component.clock.monotonic()))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, update: impl FnOnce(&mut State)) {
        update(&mut self.lock());
        self.wake.notify_one();
    }
}

impl State {
    fn on_node(&mut self, change: &Change<'_, Node>) {
        match change.new() {
            Some(node) => {
                for event in self.snapshot.put_node(Arc::clone(node)) {
                    self.queue.on_event(event);
                }
            }
            None => self.snapshot.remove_node(change.object().metadata.name.as_deref().unwrap_or_default()),
        }
    }

    fn on_pod(&mut self, change: &Change<'_, Pod>) {
        let old_uid = change.old().and_then(|old| old.metadata.uid.as_deref());
        let new_uid = change.new().and_then(|new| new.metadata.uid.as_deref());
        if let Some(gone) = old_uid.filter(|old| Some(*old) != new_uid) {
            self.forget(gone);
        }
        let Some(pod) = change.new() else { return };
        let Some(view) = PodView::of(pod) else { return };
        match &view.node_name {
            _ if is_finished(pod) => self.forget(&view.uid),
            Some(node) => {
                self.queue.remove(&view.uid);
                if self.snapshot.place(&node.clone(), Arc::new(view)) {
                    self.queue.on_event(ClusterEvent::PlacedPodShrunk);
                }
            }
            // Assumed on a node: this version is older than our binding.
            None if self.snapshot.is_placed(&view.uid) => {}
            None if is_waiting(pod) => self.queue.put(Arc::new(view)),
            None => self.queue.remove(&view.uid),
        }
    }

    fn forget(&mut self, uid: &str) {
        self.queue.remove(uid);
        if self.snapshot.remove_pod(uid) {
            self.queue.on_event(ClusterEvent::PlacedPodRemoved);
        }
    }
}

/// Sleeps that long; without a time for ever.
async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Keeps of a node what filters and scores read.
fn trim_node(node: &mut Node) {
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        let allocatable = status.allocatable.take();
        *status = k8s_openapi::api::core::v1::NodeStatus { allocatable, ..Default::default() };
    }
}

/// Keeps of a pod what [`PodView`], the condition and the event need.
fn trim_pod(pod: &mut Pod) {
    pod.metadata.annotations = None;
    pod.metadata.owner_references = None;
    if let Some(spec) = &mut pod.spec {
        spec.volumes = None;
        let containers = spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten());
        for container in containers {
            *container = k8s_openapi::api::core::v1::Container {
                name: std::mem::take(&mut container.name),
                ports: container.ports.take(),
                resources: container.resources.take(),
                restart_policy: container.restart_policy.take(),
                ..Default::default()
            };
        }
    }
    if let Some(status) = &mut pod.status {
        let (conditions, phase) = (status.conditions.take(), status.phase.take());
        let spec = pod.spec.as_ref();
        let own = spec.and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
        let (resources, allocated_resources) = (status.resources.take(), status.allocated_resources.take());
        *status = k8s_openapi::api::core::v1::PodStatus {
            conditions,
            phase,
            container_statuses: resizing(status.container_statuses.take(), spec),
            init_container_statuses: resizing(status.init_container_statuses.take(), spec),
            // Without a request of the pod's own nobody looks at them.
            resources: resources.filter(|_| own.is_some()),
            allocated_resources: allocated_resources.filter(|_| own.is_some()),
            ..Default::default()
        };
    }
}

/// Keeps of the containers' statuses what they were granted and have, where that is not simply what they want.
fn resizing(statuses: Option<Vec<ContainerStatus>>, spec: Option<&PodSpec>) -> Option<Vec<ContainerStatus>> {
    let wanted = |name: &str| {
        let spec = spec?;
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        all.into_iter().find(|own| own.name == name)?.resources.as_ref()?.requests.as_ref()
    };
    let kept = statuses?.into_iter().filter_map(|status| {
        let wanted = wanted(&status.name);
        let has = status.resources.as_ref()?.requests.as_ref();
        let differs = has != wanted || status.allocated_resources.as_ref() != wanted;
        let ContainerStatus { name, resources, allocated_resources, .. } = status;
        differs.then(|| ContainerStatus { name, resources, allocated_resources, ..ContainerStatus::default() })
    });
    Some(kept.collect::<Vec<_>>()).filter(|kept| !kept.is_empty())
}
