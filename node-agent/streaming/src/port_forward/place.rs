//! Where forwarded connections lead: a pod's own loopback.

use futures::future::BoxFuture;
use reeve_engine::engine::{Connection, SharedEngine};

/// Makes one connection to a port; the text says why there is none.
type Dial = Box<dyn Fn(u16) -> BoxFuture<'static, Result<Connection, String>> + Send + Sync>;

/// Where a pod listens.
pub struct Place {
    sandbox: String,
    dial: Dial,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("sandbox", &self.sandbox).finish_non_exhaustive()
    }
}

impl Place {
    /// A sandbox of an engine.
    #[must_use]
    pub fn new(engine: SharedEngine, sandbox: String) -> Self {
        let id = sandbox.clone();
        Self::with(sandbox, move |port| {
            let (engine, id) = (engine.clone(), id.clone());
            Box::pin(async move { engine.port_forward(&id, port).await.map_err(|error| error.to_string()) })
        })
    }

    /// What `dial` reaches, under a sandbox's name.
    pub(super) fn with(
        sandbox: String,
        dial: impl Fn(u16) -> BoxFuture<'static, Result<Connection, String>> + Send + Sync + 'static,
    ) -> Self {
        Self { sandbox, dial: Box::new(dial) }
    }

    /// Its id, for messages.
    pub(super) fn sandbox(&self) -> &str {
        &self.sandbox
    }

    /// Connects to a port on `localhost`.
    pub(super) async fn connect(&self, port: u16) -> Result<Connection, String> {
        (self.dial)(port).await
    }
}
