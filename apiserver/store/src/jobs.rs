//! Where work goes that may wait for a disk: threads in production, the same thread at a time of its own in the
//! simulation, so that a seed replays.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

/// How long a job takes in the simulation.
type Takes = Arc<dyn Fn() -> Duration + Send + Sync>;

/// See the module. The store runs at most one job of each of its few kinds at a time.
#[derive(Clone, Default)]
pub struct Jobs(Option<Takes>);

impl Jobs {
    /// On the runtime's threads for work that blocks.
    #[must_use]
    pub fn threads() -> Self {
        Self(None)
    }

    /// For the simulation: on the runtime itself, all at once, after as much (virtual) time as `takes` says.
    #[must_use]
    pub fn simulated(takes: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(takes)))
    }

    /// Starts a job.
    pub(crate) fn spawn<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        match &self.0 {
            None => tokio::task::spawn_blocking(job),
            Some(takes) => {
                let takes = takes();
                tokio::spawn(async move {
                    tokio::time::sleep(takes).await;
                    job()
                })
            }
        }
    }
}

impl Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Jobs(simulated)" } else { "Jobs(threads)" })
    }
}
