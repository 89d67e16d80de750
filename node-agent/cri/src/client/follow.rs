//! What happens at a runtime: by its own events, or, where it has none, by listing, as the kubelet does. Logs that have
//! grown too large are exchanged on the way: a runtime leaves that to its client.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;

use reeve_engine::engine::{Container, ContainerState, Engine as _, EngineError, EngineEvent};
use reeve_engine::logs::rotate;
use reeve_proto::cri::GetEventsRequest;
use tokio::time::{MissedTickBehavior, interval};

use super::{CriEngine, Inner, error};

/// How often a runtime without events is listed. Source: the kubelet's `plegRelistPeriod`.
const RELIST_EVERY: Duration = Duration::from_secs(1);
/// How often one with events is, for what they missed. Source: kubelet, with evented PLEG.
const RELIST_BESIDE_EVENTS: Duration = Duration::from_secs(300);
/// How often logs and images are looked at. Source: the kubelet's `containerLogMonitorInterval`.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Begins to follow, for as long as somebody uses the engine.
pub(super) fn start(engine: &CriEngine) {
    let (inner, stop) = (std::sync::Arc::downgrade(&engine.inner), engine.stop_token());
    let follower = Follower { inner, known: HashMap::new() };
    tokio::spawn(async move {
        stop.run_until_cancelled(follower.run()).await;
    });
    let (inner, stop) = (std::sync::Arc::downgrade(&engine.inner), engine.stop_token());
    tokio::spawn(async move {
        stop.run_until_cancelled(look_after(inner)).await;
    });
}

/// What stage of its life a container was last seen in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Created,
    Running,
    Exited,
}

fn stage(own: &Container) -> Stage {
    match own.state {
        ContainerState::Created => Stage::Created,
        ContainerState::Running { .. } => Stage::Running,
        ContainerState::Exited { .. } => Stage::Exited,
    }
}

struct Follower {
    inner: Weak<Inner>,
    known: HashMap<String, Stage>,
}

impl Follower {
    fn engine(&self) -> Option<CriEngine> {
        self.inner.upgrade().map(|inner| CriEngine { inner })
    }

    async fn run(mut self) {
        // What was there before is no news.
        self.relist(false).await;
        while let Some(engine) = self.engine() {
            let events = engine.runtime().get_container_events(GetEventsRequest {}).await;
            drop(engine);
            match events {
                Ok(events) => {
                    if !self.follow(events.into_inner()).await {
                        break;
                    }
                }
                Err(status) if error::is_unknown_verb(&status) => break,
                Err(_) => tokio::time::sleep(RELIST_EVERY).await,
            }
            self.relist(true).await;
        }
        let mut ticks = interval(RELIST_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.relist(true).await;
        }
    }

    /// Follows the runtime's own events until they end; whether it has any.
    async fn follow(&mut self, mut events: tonic::Streaming<reeve_proto::cri::ContainerEventResponse>) -> bool {
        let mut ticks = interval(RELIST_BESIDE_EVENTS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.message() => match event {
                    // Also of sandboxes, which nobody asks for, and of what is not ours.
                    Ok(Some(event)) => self.look_at(&event.container_id).await,
                    Err(status) if error::is_unknown_verb(&status) => return false,
                    Ok(None) | Err(_) => return true,
                },
                _ = ticks.tick() => self.relist(true).await,
            }
        }
    }

    async fn look_at(&mut self, id: &str) {
        let Some(engine) = self.engine() else { return };
        match engine.container(id).await {
            Ok(own) => self.see(&engine, own, true),
            Err(EngineError::NotFound { .. }) => drop(self.known.remove(id)),
            Err(error) => tracing::debug!(container = id, %error, "a container cannot be looked at"),
        }
    }

    async fn relist(&mut self, is_news: bool) {
        let Some(engine) = self.engine() else { return };
        match engine.containers().await {
            Ok(all) => {
                self.known.retain(|id, _| all.iter().any(|own| own.id == *id));
                all.into_iter().for_each(|own| self.see(&engine, own, is_news));
            }
            Err(error) => tracing::warn!(%error, "the runtime's containers cannot be listed"),
        }
    }

    /// Tells what is new: a start that was not seen, too, before the end.
    fn see(&mut self, engine: &CriEngine, own: Container, is_news: bool) {
        let now = stage(&own);
        if self.known.insert(own.id.clone(), now) == Some(now) || now == Stage::Created || !is_news {
            return;
        }
        let event = EngineEvent { sandbox: own.sandbox.clone(), container: own };
        // Without a subscriber it is nobody's.
        let _ = engine.inner.events.send(event);
    }
}

/// Exchanges logs that have grown to their limit, and tells of images that others brought or took away.
async fn look_after(inner: Weak<Inner>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut images = Vec::new();
    loop {
        ticks.tick().await;
        let Some(engine) = inner.upgrade().map(|inner| CriEngine { inner }) else { return };
        if let Ok(now) = engine.list_images().await
            && now != images
        {
            images = now;
            engine.inner.images.send_modify(|changes| *changes += 1);
        }
        for own in engine.containers().await.unwrap_or_default() {
            if let Err(error) = rotate_log(&engine, &own).await {
                tracing::warn!(container = own.id, %error, "the log of a container cannot be exchanged");
            }
        }
    }
}

async fn rotate_log(engine: &CriEngine, own: &Container) -> Result<(), EngineError> {
    let (path, limits) = (own.config.log_path.clone(), own.config.log_limits);
    let is_running = stage(own) == Stage::Running;
    let len = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
    if !is_running || limits.size_max_bytes.is_none_or(|max| len < max) {
        return Ok(());
    }
    let now = engine.inner.config.clock.now();
    let moved = tokio::task::spawn_blocking(move || rotate::exchange(&path, limits.files_max, now)).await;
    let failed = |source| EngineError::Io { step: format!("exchange the log of container {}", own.id), source };
    moved.map_err(|error| failed(std::io::Error::other(error)))?.map_err(failed)?;
    engine.reopen_container_log(&own.id).await
}
