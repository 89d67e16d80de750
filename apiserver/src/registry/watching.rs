//! Watch: which events a request gets first, and from where on.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use reeve_api::rng::RngExt as _;
use reeve_kinds::field::{FieldError, FieldErrorKind};
use serde_json::Value;

use super::Registry;
use super::answer::{EventType, Watch, WatchEvent};
use super::read::parse_version;
use super::request::{Options, Request, VersionMatch};
use super::resource::Resource;
use crate::cache::{Delivery, Filter, Subscription, WatchPlan};
use crate::status::ApiError;

/// Without a timeout of its own a watch ends after this time up to twice of it, so that clients spread out.
const TIMEOUT_MIN: Duration = Duration::from_secs(1800);

/// The longest timeout that is taken; a client that wants more watches again.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

impl Registry {
    pub(super) async fn watch_objects(&self, request: &Request) -> Result<Watch, ApiError> {
        let filter = Arc::new(Filter::new(request)?);
        let options = &request.options;
        check_options(options)?;
        let version = parse_version(&options.resource_version)?;
        let from_any = version.is_none_or(|revision| revision.0 == 0);
        let initial = options.send_initial_events.unwrap_or(from_any);
        match version {
            None => self.cache.fresh().await?,
            Some(revision) if initial => self.cache.reach(revision).await?,
            Some(_) => {}
        }
        let after = if initial || from_any { None } else { version };
        let plan = WatchPlan {
            filter: Arc::clone(&filter),
            after,
            initial,
            mark_initial_end: options.send_initial_events == Some(true) && options.allow_watch_bookmarks,
            bookmarks: options.allow_watch_bookmarks,
            names: request.resource.names().clone(),
            stop: self.cache.stop.clone(),
            timeout: options
                .timeout
                .filter(|asked| !asked.is_zero())
                .unwrap_or_else(|| self.watch_timeout())
                .min(TIMEOUT_MAX),
        };
        let cache = &request.resource.storage;
        Ok(match Subscription::new(cache, self.cache.progress(), plan) {
            Ok(subscription) if request.resource.converts() => {
                Watch::new(shown(Arc::clone(&request.resource), filter, subscription.events()))
            }
            Ok(subscription) => Watch::new(subscription.events().map(|delivery| Ok(delivery.event))),
            Err(error) => Watch::new(futures::stream::once(async { Err(error) })),
        })
    }

    fn watch_timeout(&self) -> Duration {
        TIMEOUT_MIN + Duration::from_secs(self.rng.below(TIMEOUT_MIN.as_secs()))
    }
}

/// The events with their objects in the version of the resource. One that cannot be converted ends the watch.
fn shown(
    resource: Arc<Resource>,
    filter: Arc<Filter>,
    deliveries: impl Stream<Item = Delivery> + Send,
) -> impl Stream<Item = Result<WatchEvent, ApiError>> + Send {
    let shown = deliveries.filter_map(move |delivery| {
        let (resource, filter) = (Arc::clone(&resource), Arc::clone(&filter));
        async move { shown_event(&resource, &filter, delivery).await.transpose() }
    });
    let mut failed = false;
    shown.take_while(move |event| {
        let goes_on = !failed;
        failed = event.is_err();
        std::future::ready(goes_on)
    })
}

/// The event as this version shows it; `None` when the object was not wanted before and is not now.
async fn shown_event(resource: &Resource, filter: &Filter, delivery: Delivery) -> Result<Option<WatchEvent>, ApiError> {
    let Delivery { revision, event, before } = delivery;
    if event.kind == EventType::Bookmark {
        return Ok(Some(event));
    }
    let states = std::iter::once(event.object).chain(before).collect();
    let mut states = resource.shown_all(states).await?.into_iter();
    let Some(object) = states.next() else { return Ok(None) };
    let wanted = filter.matches_shown(&object);
    let Some(before) = states.next() else {
        return Ok(wanted.then_some(WatchEvent { kind: event.kind, object }));
    };
    Ok(match (filter.matches_shown(&before), wanted) {
        (false, false) => None,
        (false, true) => Some(WatchEvent { kind: EventType::Added, object }),
        (true, true) => Some(WatchEvent { kind: EventType::Modified, object }),
        (true, false) => Some(WatchEvent { kind: EventType::Deleted, object: before.at(revision) }),
    })
}

fn check_options(options: &Options) -> Result<(), ApiError> {
    let forbidden = |field: &str, why: &str| {
        let error = FieldError::new(FieldErrorKind::Forbidden, field, Value::Null, why);
        Err(ApiError::invalid_kind("ListOptions", "meta.k8s.io", "", &[error]))
    };
    match (options.send_initial_events, options.version_match) {
        (Some(_), Some(VersionMatch::NotOlderThan)) | (None, None) => Ok(()),
        (Some(_), _) => {
            forbidden("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
        (None, Some(_)) => forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    }
}
