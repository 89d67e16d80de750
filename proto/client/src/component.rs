//! What every part of a component is built from: client, clock, randomness, and the way it ends.

use std::future::Future;

use kube::Client;
use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// The surroundings of one component (scheduler, controller manager, node agent, proxy). Cheap to clone.
#[derive(Clone)]
pub struct Component {
    /// The component's own identity at the API server.
    pub client: Client,
    /// Wall-clock and monotonic time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// Cancelled when the component has to stop.
    pub shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Component {
    /// A component that runs until `shutdown` is cancelled.
    #[must_use]
    pub fn new(client: Client, clock: SharedClock, rng: SharedRng, shutdown: CancellationToken) -> Self {
        Self { client, clock, rng, shutdown, tasks: TaskTracker::new() }
    }

    /// Starts a task of this component; it is dropped at its next await when the component shuts down.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        let until_shutdown = async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = task => {}
            }
        };
        self.tasks.spawn(until_shutdown.instrument(tracing::debug_span!("task", name)));
    }

    /// Returns when the component was told to stop and all its tasks have ended.
    pub async fn stopped(&self) {
        self.shutdown.cancelled().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}
