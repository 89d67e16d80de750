//! A list followed by a watch that never ends: errors are waited out, a version that is too old is listed anew.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::watcher::{self, Config, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::{Backoff, Component};

/// First and longest delay between two attempts to list or watch. The API server is usually in the same
/// process, so the first retry comes soon; client-go's reflector waits 800 ms to 30 s.
const RETRY_INITIAL: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Calls `on_event` with everything that happens to the objects of `api`, for ever. With an
/// `Api<PartialObjectMeta<K>>` only metadata travels.
pub async fn follow<K>(component: &Component, api: Api<K>, config: Config, mut on_event: impl FnMut(Event<K>))
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX, component.rng.clone());
    loop {
        let mut events = pin!(watcher::watcher(api.clone(), config.clone()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    // `Init` only announces a list that may still fail.
                    if !matches!(event, Event::Init) {
                        backoff.reset();
                    }
                    on_event(event);
                }
                Err(error) => {
                    warn!(url = api.resource_url(), %error, "watch failed, trying again");
                    tokio::time::sleep(backoff.delay()).await;
                    if is_gone(&error) {
                        break;
                    }
                }
            }
        }
    }
}

/// kube starts over by itself when a running watch reports 410, but not when the request itself is answered so.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}
