//! What every part of a component is built from: client, clock, randomness, and the way it ends.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures::FutureExt as _;
use kube::Client;
use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error};

/// The surroundings of one component (scheduler, controller manager, node agent, proxy). Cheap to clone.
#[derive(Clone)]
pub struct Component {
    /// The component's own identity at the API server.
    pub client: Client,
    /// Wall-clock and monotonic time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// Cancelled when the component has to stop: it was told to, or has failed.
    pub shutdown: CancellationToken,
    /// What the failure of one part ends: the whole component.
    whole: CancellationToken,
    failed_task: Arc<OnceLock<&'static str>>,
    tasks: TaskTracker,
}

/// A component has ended because of a bug in one of its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task {task:?} has panicked")]
pub struct TaskPanicked {
    /// The task's name.
    pub task: &'static str,
}

impl Component {
    /// A component that runs until `shutdown` is cancelled, or one of its vital tasks panics.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "whoever makes a component hands its end over")]
    pub fn new(client: Client, clock: SharedClock, rng: SharedRng, shutdown: CancellationToken) -> Self {
        let whole = shutdown.child_token();
        let (shutdown, failed_task, tasks) = (whole.clone(), Arc::default(), TaskTracker::new());
        Self { client, clock, rng, shutdown, whole, failed_task, tasks }
    }

    /// A part of this component that also ends when `end` is cancelled; `end` should be a child of
    /// [`Component::shutdown`].
    #[must_use]
    pub fn until(&self, end: CancellationToken) -> Self {
        Self { shutdown: end, ..self.clone() }
    }

    /// Starts a task of this component; it is dropped at its next await when the component shuts down. A panic in it
    /// is logged and ends this task alone: for work on one thing (a connection, a probe).
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.start(name, task, || {});
    }

    /// As [`Component::spawn`], for a task without which the component does not do its work (a watch, a controller):
    /// a panic in it ends the whole component, whose owner learns of it from [`Component::outcome`]. What the
    /// task had in memory is lost, so going on without it, or with a new one beside the old rest, would be wrong.
    pub fn spawn_vital(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (whole, failed) = (self.whole.clone(), Arc::clone(&self.failed_task));
        self.start(name, task, move || {
            let _ = failed.set(name);
            whole.cancel();
        });
    }

    /// Whether the component ends, or has ended, as it should.
    ///
    /// # Errors
    /// The first vital task that has panicked.
    pub fn outcome(&self) -> Result<(), TaskPanicked> {
        self.failed_task.get().map_or(Ok(()), |task| Err(TaskPanicked { task }))
    }

    /// Returns when the component was told to stop and all its tasks have ended.
    pub async fn stopped(&self) {
        self.shutdown.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends the component and returns when all its tasks have ended.
    pub(crate) async fn end(&self) {
        self.whole.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn start(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
        on_panic: impl FnOnce() + Send + 'static,
    ) {
        let shutdown = self.shutdown.clone();
        let until_shutdown = async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                ended = AssertUnwindSafe(task).catch_unwind() => if let Err(panic) = ended {
                    error!(task = name, panic = panic_text(&*panic), "a task has panicked");
                    on_panic();
                }
            }
        };
        self.tasks.spawn(until_shutdown.instrument(tracing::debug_span!("task", name)));
    }
}

/// What a panic said. Where it was says the process's panic hook.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use kube::client::Body;
    use reeve_api::clock::RealClock;
    use reeve_api::rng::SeededRng;

    use super::*;

    fn component(shutdown: &CancellationToken) -> Component {
        let service = tower::service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let client = Client::new(service, "default");
        Component::new(client, RealClock::shared(), SeededRng::shared(), shutdown.clone())
    }

    #[tokio::test]
    async fn a_vital_task_that_panics_ends_its_component_and_no_other() {
        let process = CancellationToken::new();
        let (failing, other) = (component(&process), component(&process));
        failing.spawn_vital("waits", std::future::pending());
        let part = failing.until(failing.shutdown.child_token());
        part.spawn_vital("fails", async { panic!("a bug") });
        failing.stopped().await;
        assert_eq!(failing.outcome(), Err(TaskPanicked { task: "fails" }));
        assert!(!process.is_cancelled() && !other.shutdown.is_cancelled());
        assert_eq!(other.outcome(), Ok(()));
    }

    #[tokio::test]
    async fn a_panic_in_a_task_of_its_own_ends_nothing_else() {
        let process = CancellationToken::new();
        let component = component(&process);
        component.spawn("fails", async { panic!("a bug") });
        let (done, heard) = tokio::sync::oneshot::channel();
        component.spawn("goes on", async { done.send(()).unwrap() });
        heard.await.unwrap();
        tokio::task::yield_now().await;
        assert!(!component.shutdown.is_cancelled() && component.outcome().is_ok());
        process.cancel();
        component.stopped().await;
    }
}
