//! A list followed by watches that never end: errors are waited out, a version that is too old is listed anew.

use std::fmt::Debug;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::{Backoff, Component};

/// First and longest delay between two attempts to list or watch. The API server is usually in the same
/// process, so the first retry comes soon; client-go's reflector waits 800 ms to 30 s.
const RETRY_INITIAL: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A watch that lasted this long was a good one, even if nothing happened: the next one begins at once.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// How long the server is asked to keep a watch, and how much longer the client waits for its end.
const WATCH_SECONDS: u32 = 290;
const WATCH_MARGIN: Duration = Duration::from_secs(5);

/// Objects per page of a list.
const PAGE_LEN: u32 = 500;

/// Refusals in a row that are only worth a debug line: what a node may read follows its pods, and may be a moment
/// behind.
const QUIET_REFUSALS: u32 = 5;

/// Why a list or a watch ended.
enum End {
    /// The watch's time is over, or the server had enough.
    Closed,
    /// The version is not remembered: list again.
    Gone,
    /// Anything else, to be tried again.
    Failed(kube::Error),
}

/// One follower: where it stands and how it is doing.
struct Follower<'f, K> {
    api: Api<K>,
    config: Config,
    backoff: Backoff,
    refusals: u32,
    on_event: &'f mut (dyn FnMut(Event<K>) + Send),
}

/// Calls `on_event` with everything that happens to the objects of `api`, for ever: `Init`, the objects of a complete
/// list, `InitDone`, then changes; again from `Init` when the server has forgotten where the watch was. With an
/// `Api<PartialObjectMeta<K>>` only metadata travels.
pub async fn follow<K>(component: &Component, api: Api<K>, config: Config, mut on_event: impl FnMut(Event<K>) + Send)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX, component.rng.clone());
    let mut follower = Follower { api, config, backoff, refusals: 0, on_event: &mut on_event };
    loop {
        match follower.list().await {
            Ok(version) => follower.watch(version).await,
            Err(end) => follower.pause(end).await,
        }
    }
}

impl<K> Follower<'_, K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Tells of every object there is; the version from which to watch.
    async fn list(&mut self) -> Result<String, End> {
        (self.on_event)(Event::Init);
        let mut params = ListParams::default().limit(PAGE_LEN);
        params.label_selector.clone_from(&self.config.label_selector);
        params.field_selector.clone_from(&self.config.field_selector);
        loop {
            let page = self.api.list(&params).await.map_err(End::of)?;
            for object in page.items {
                (self.on_event)(Event::InitApply(object));
            }
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                (self.on_event)(Event::InitDone);
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }

    /// Tells of every change after `version`, until that is not possible any more.
    async fn watch(&mut self, mut version: String) {
        loop {
            let (before, began) = (version.clone(), Instant::now());
            let end = self.watch_once(&mut version).await;
            if version != before || began.elapsed() >= GOOD_AFTER {
                self.doing_well();
            }
            let is_gone = matches!(end, End::Gone);
            // A server that ends every watch at once must not be asked as fast as it answers.
            let is_quick = version == before && began.elapsed() < GOOD_AFTER;
            if is_quick || matches!(end, End::Failed(_)) {
                self.pause(end).await;
            }
            if is_gone {
                return;
            }
        }
    }

    async fn watch_once(&mut self, version: &mut String) -> End {
        let mut params = WatchParams::default().timeout(WATCH_SECONDS);
        params.label_selector.clone_from(&self.config.label_selector);
        params.field_selector.clone_from(&self.config.field_selector);
        let mut events = match self.api.watch(&params, version).await {
            Ok(events) => events.boxed(),
            Err(error) => return End::of(error),
        };
        while let Some(event) = next(&mut events).await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    remember(version, object.meta().resource_version.as_ref());
                    (self.on_event)(Event::Apply(object));
                }
                Ok(WatchEvent::Deleted(object)) => {
                    remember(version, object.meta().resource_version.as_ref());
                    (self.on_event)(Event::Delete(object));
                }
                Ok(WatchEvent::Bookmark(mark)) => remember(version, Some(&mark.metadata.resource_version)),
                Ok(WatchEvent::Error(status)) => return End::of(kube::Error::Api(status)),
                Err(error) => return End::Failed(error),
            }
        }
        End::Closed
    }

    fn doing_well(&mut self) {
        self.backoff.reset();
        self.refusals = 0;
    }

    /// Says what went wrong and waits before the next attempt.
    async fn pause(&mut self, end: End) {
        let url = self.api.resource_url();
        match end {
            End::Closed => debug!(url, "a watch ended at once, trying again"),
            End::Gone => debug!(url, "the server has forgotten where the watch was, listing again"),
            End::Failed(error) if is_forbidden(&error) && self.refusals < QUIET_REFUSALS => {
                self.refusals += 1;
                debug!(url, %error, "watch refused, trying again");
            }
            End::Failed(error) => warn!(url, %error, "watch failed, trying again"),
        }
        tokio::time::sleep(self.backoff.delay()).await;
    }
}

impl End {
    fn of(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 410 => Self::Gone,
            error => Self::Failed(error),
        }
    }
}

/// The next event; none comes any more when the connection is dead and the server's end of the watch is overdue.
async fn next<T>(events: &mut (impl Stream<Item = T> + Unpin)) -> Option<T> {
    let patience = Duration::from_secs(u64::from(WATCH_SECONDS)) + WATCH_MARGIN;
    tokio::time::timeout(patience, events.next()).await.unwrap_or_default()
}

fn remember(version: &mut String, seen: Option<&String>) {
    if let Some(seen) = seen.filter(|seen| !seen.is_empty()) {
        version.clone_from(seen);
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}
