//! One other API server: asked again and again whether it is there and what it serves.
//!
//! It is asked at once when its APIService, its Service or the Service's endpoints change, soon again when it has
//! failed, and from time to time: what happens outside the cluster is no event here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use reeve_kinds::Part;
use serde_json::Value;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::available::{self, Facts, Verdict};
use super::table::Backend;
use super::{Aggregator, discovery, openapi};
use crate::custom::own_request;
use crate::registry::{Body, Object, Registry, Subresource};
use crate::status::ApiError;

/// What is known of a server.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) backend: Arc<Backend>,
    /// Its APIService.
    pub(super) object: Object,
    pub(super) facts: Arc<Facts>,
}

/// How long until something is asked again: after success, and after the first and any number of failures.
struct Pace {
    well: Duration,
    failed_first: Duration,
    failed_max: Duration,
}

/// Kubernetes' numbers.
const AVAILABILITY: Pace =
    Pace { well: Duration::from_secs(30), failed_first: Duration::from_millis(5), failed_max: Duration::from_secs(30) };
const DISCOVERY: Pace = Pace {
    well: Duration::from_secs(60),
    failed_first: Duration::from_millis(500),
    failed_max: Duration::from_secs(60),
};
const OPENAPI: Pace = Pace {
    well: Duration::from_secs(60),
    failed_first: Duration::from_secs(60),
    failed_max: Duration::from_secs(3600),
};

impl Pace {
    fn wait(&self, failures: u32) -> Duration {
        match failures.checked_sub(1) {
            None => self.well,
            Some(more) => self.failed_first.saturating_mul(1 << more.min(20)).min(self.failed_max),
        }
    }
}

/// Tends a server until it is told to stop, by being dropped.
pub(super) async fn tend(aggregator: Arc<Aggregator>, registry: Weak<Registry>, seen: watch::Receiver<Seen>) {
    let availability = again(AVAILABILITY, seen.clone(), |seen| availability(&aggregator, &registry, seen));
    let told = again(DISCOVERY, seen.clone(), |seen| discovery::refresh(&aggregator, seen));
    let documents = again(OPENAPI, seen, |seen| openapi::refresh(&aggregator, seen));
    tokio::join!(availability, told, documents);
}

/// Does a thing at every change and at its pace; the thing says whether it went well.
async fn again<F: Future<Output = bool>>(pace: Pace, mut seen: watch::Receiver<Seen>, thing: impl Fn(Seen) -> F) {
    let mut failures = 0;
    loop {
        let now = seen.borrow_and_update().clone();
        failures = if thing(now).await { 0 } else { failures + 1 };
        let changed = tokio::time::timeout(pace.wait(failures), seen.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            return;
        }
    }
}

/// Finds out whether the server can be used, and says so in its APIService.
async fn availability(aggregator: &Aggregator, registry: &Weak<Registry>, seen: Seen) -> bool {
    let verdict = match available::judge(&seen.backend.target, &seen.facts) {
        Ok(authority) => available::ask(&seen.backend, &authority).await,
        Err(verdict) => Some(verdict),
    };
    let (Some(verdict), Some(registry)) = (verdict, registry.upgrade()) else { return false };
    match say(aggregator, &registry, &seen.object, &verdict).await {
        Ok(()) => !verdict.is_about_an_answer(),
        // It has changed since, and is looked at again.
        Err(error) if error.is_conflict() || error.is_not_found() => true,
        Err(error) => {
            warn!(api_service = seen.backend.name, %error, "The condition of an APIService cannot be written.");
            false
        }
    }
}

/// Writes the condition of an APIService, if that says anything new.
pub(super) async fn say(
    aggregator: &Aggregator,
    registry: &Arc<Registry>,
    object: &Object,
    verdict: &Verdict,
) -> Result<(), ApiError> {
    let Some(resource) = aggregator.services.as_ref() else { return Ok(()) };
    let old: Value = object.value();
    let mut new = old.clone();
    let is_new = verdict.put(&mut new, registry.clock.now());
    aggregator.metrics.set(&new);
    if !is_new {
        return Ok(());
    }
    let name = new["metadata"]["name"].as_str().unwrap_or_default();
    debug!(api_service = name, status = verdict.status, reason = verdict.reason, verdict.message, "Availability.");
    let mut request = own_request(Arc::clone(resource), name);
    request.subresource = Subresource::Part(Part::Status);
    registry.update(&request, Body::from(new.clone())).await?;
    aggregator.metrics.count(&old, &new);
    Ok(())
}
