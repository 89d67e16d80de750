//! Leader election: a component that runs on several servers, of which one at a time acts.
//!
//! The rules and times are client-go's `leaderelection`. A candidate does not ask again and again: it watches the
//! lease, and takes it when its holder gives it back, or when it has not been renewed for its duration.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use reeve_api::rng::RngExt as _;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::Component;
use crate::lease::{Candidate, LeaseConfig};

/// How often a holder renews, and how soon what has failed is tried again: `--leader-elect-retry-period`.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// A holder that cannot renew for so long stops acting, before others may begin: `--leader-elect-renew-deadline`.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How soon a renewal is tried again that somebody else's change of the lease has overtaken.
const OVERTAKEN_PAUSE: Duration = Duration::from_millis(100);

/// Runs `lead` whenever this candidate holds the lease. What runs is told to stop by its token when the lease is lost
/// or the component shuts down, and is waited for; in the second case the lease is given back then. `component` makes
/// the requests and says when to end.
///
/// # Errors
/// What `lead` ended with by itself.
pub async fn while_leading<E, F>(
    component: &Component,
    config: &LeaseConfig,
    lead: impl Fn(CancellationToken) -> F,
) -> Result<(), E>
where
    F: Future<Output = Result<(), E>>,
{
    let mut candidate = Candidate::default();
    while acquire(component, config, &mut candidate).await {
        info!(lease = config.name, identity = config.identity, "Leading.");
        let term = component.shutdown.child_token();
        let mut led = pin!(lead(term.clone()));
        let outcome = tokio::select! {
            outcome = led.as_mut() => Some(outcome),
            () = hold(component, config, &mut candidate) => None,
        };
        term.cancel();
        match outcome {
            Some(outcome) => {
                if let Err(error) = candidate.release(component, config).await {
                    warn!(lease = config.name, %error, "A lease could not be given back.");
                }
                return outcome;
            }
            None => {
                warn!(lease = config.name, "The lease is lost; another server leads.");
                led.await?;
            }
        }
    }
    Ok(())
}

/// Waits until the lease is ours; `false`: the component shuts down.
async fn acquire(component: &Component, config: &LeaseConfig, candidate: &mut Candidate) -> bool {
    // Told by the server when the holder renews or gives back.
    let mut changes = pin!(changes(component, config));
    loop {
        let wait = tokio::select! {
            () = component.shutdown.cancelled() => return false,
            held = candidate.try_hold(component, config) => match held {
                Ok(true) => return true,
                Ok(false) => candidate.ends_in(component.clock.monotonic()),
                Err(error) => {
                    debug!(lease = config.name, %error, "A lease could not be taken; trying again.");
                    None
                }
            },
        };
        // Not all candidates at the same moment.
        let jitter = Duration::from_millis(component.rng.below(RETRY_PERIOD.as_millis().try_into().unwrap_or(2000)));
        let wait = wait.map_or(RETRY_PERIOD + jitter, |wait| wait + jitter / 10);
        tokio::select! {
            () = component.shutdown.cancelled() => return false,
            () = tokio::time::sleep(wait) => {}
            _ = changes.next() => {}
        }
    }
}

fn changes(component: &Component, config: &LeaseConfig) -> impl Stream<Item = ()> + use<> {
    let leases: Api<Lease> = Api::namespaced(component.client.clone(), &config.namespace);
    let selected = watcher::Config::default().fields(&format!("metadata.name={}", config.name));
    let changes = watcher(leases, selected).default_backoff().touched_objects();
    // A watch that fails begins again by itself; without it there is still the lease's end.
    changes.filter_map(|change| async move { change.ok().map(drop) }).chain(futures::stream::pending())
}

/// Renews the lease; returns when it is lost, or may be.
async fn hold(component: &Component, config: &LeaseConfig, candidate: &mut Candidate) {
    let mut renewed = component.clock.monotonic();
    let mut pause = RETRY_PERIOD;
    loop {
        tokio::time::sleep(pause).await;
        let left = RENEW_DEADLINE.saturating_sub(component.clock.monotonic().saturating_sub(renewed));
        match tokio::time::timeout(left, candidate.try_hold(component, config)).await {
            Ok(Ok(true)) => {
                renewed = component.clock.monotonic();
                pause = RETRY_PERIOD;
            }
            // Either somebody else holds it, or has only touched it.
            Ok(Ok(false)) if pause == OVERTAKEN_PAUSE => return,
            Ok(Ok(false)) => pause = OVERTAKEN_PAUSE,
            Ok(Err(error)) => {
                debug!(lease = config.name, %error, "A lease could not be renewed; trying again.");
                pause = RETRY_PERIOD;
            }
            Err(_) => return,
        }
        if component.clock.monotonic().saturating_sub(renewed) >= RENEW_DEADLINE {
            return;
        }
    }
}
