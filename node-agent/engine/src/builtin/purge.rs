//! The end of a cluster: `reeve down`, and `reeve down --purge`.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::link::{Link, LinkError};
use super::{BuiltinEngine, Inner, blocking, records};
use crate::engine::{ContainerState, EngineError};
use crate::runtime::namespaces::unmount_below;
use crate::supervisor::wire::{Reply, Request};

impl BuiltinEngine {
    /// Stops every container (the stop signal, then `grace`, then the kill), every sandbox, and the supervisor.
    /// Records, images and containers' files stay; the engine is of no more use.
    ///
    /// # Errors
    /// When something cannot be stopped.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), EngineError> {
        let (containers, sandboxes) = self.inner.state(|state| {
            let running =
                state.containers.values().filter(|e| matches!(e.container.state, ContainerState::Running { .. }));
            let running: Vec<String> = running.map(|entry| entry.container.id.clone()).collect();
            (running, state.sandboxes.keys().cloned().collect::<Vec<_>>())
        });
        for stopped in join_all(containers.iter().map(|id| self.stop(id, grace))).await {
            stopped?;
        }
        for stopped in join_all(sandboxes.iter().map(|id| self.stop_sandbox(id))).await {
            stopped?;
        }
        self.end_supervisor().await
    }

    /// Ends the supervisor; one that goes by itself at this very moment has ended as well, and if another one is being
    /// started in its place, that one ends.
    async fn end_supervisor(&self) -> Result<(), EngineError> {
        loop {
            let link = self.inner.link().await?;
            self.inner.state(|state| state.closing = true);
            match link.ask(Request::Shutdown).await {
                Ok(Reply::Done) => return Ok(()),
                Ok(other) => return Err(super::sandboxes::unexpected("end the supervisor", other)),
                Err(LinkError) => {
                    let is_replaced = self.inner.link.borrow().as_ref().is_none_or(Link::is_open);
                    if !is_replaced {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// [`BuiltinEngine::shutdown`] without grace, and then removes every sandbox, container, cgroup and mount and
    /// the engine's own folders. Images stay in the data folder, with nothing mounted.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub async fn purge(&self) -> Result<(), EngineError> {
        let sandboxes: Vec<String> = self.inner.state(|state| state.sandboxes.keys().cloned().collect());
        for removed in join_all(sandboxes.iter().map(|id| self.remove_sandbox(id))).await {
            removed?;
        }
        self.shutdown(Duration::ZERO).await?;
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.remove_everything()).await
    }
}

impl Inner {
    /// Whether the supervisor's end is wanted.
    pub(super) fn is_closing(&self) -> bool {
        self.state(|state| state.closing)
    }

    fn remove_everything(&self) -> Result<(), EngineError> {
        let fail = crate::runtime::namespaces::NamespaceError::into_engine;
        self.cgroups.purge().map_err(crate::runtime::cgroup::CgroupError::into_engine)?;
        for rootfs in self.snapshots.list()? {
            self.snapshots.remove(&rootfs.container)?;
        }
        if !self.config.ends_with_engine {
            unmount_below(self.images.dir()).map_err(fail)?; // else they are not this engine's alone
        }
        unmount_below(&self.layout.run).map_err(fail)?;
        records::remove(&self.layout.run)?;
        records::remove(self.layout.data())
    }
}
