//! Leader election: at most one holder of a `coordination.k8s.io/v1` Lease acts at a time.
//!
//! The rules are client-go's `leaderelection`: a lease is free when its holder has not renewed it for its
//! duration, measured on our own clock from the moment we saw the last renewal, so that clocks of different
//! machines need not agree.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;

use crate::Component;

/// How a lease is held.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the Lease object.
    pub namespace: String,
    /// Name of the Lease object.
    pub name: String,
    /// Who we are; unique among all candidates.
    pub identity: String,
    /// How long a holder that does not renew keeps it.
    pub duration: Duration,
}

/// What a candidate remembers between two attempts. One per candidate.
#[derive(Debug, Default)]
pub struct Candidate {
    seen: Option<Seen>,
}

/// A holder's last renewal, and when we saw it on our monotonic clock.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    holder: String,
    renewed: Option<Timestamp>,
    at: Duration,
    /// How long it holds from then on.
    duration: Duration,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Decision {
    Renew,
    TakeOver,
    Wait,
}

impl Candidate {
    /// Takes or renews the lease once; the answer is whether we hold it now. To be repeated several times per
    /// duration. A conflict means that somebody else was faster: not held.
    ///
    /// # Errors
    /// Every other failure of a request; whether the lease is held is then unknown.
    pub async fn try_hold(&mut self, component: &Component, config: &LeaseConfig) -> kube::Result<bool> {
        let api: Api<Lease> = Api::namespaced(component.client.clone(), &config.namespace);
        let now = component.clock.now();
        let written = match api.get_opt(&config.name).await? {
            None => api.create(&PostParams::default(), &new_lease(config, now)).await,
            Some(lease) => match self.decide(&lease, config, component.clock.monotonic()) {
                Decision::Wait => return Ok(false),
                decision => {
                    let lease = next_lease(lease, decision, config, now);
                    api.replace(&config.name, &PostParams::default(), &lease).await
                }
            },
        };
        match written {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn decide(&mut self, lease: &Lease, config: &LeaseConfig, now: Duration) -> Decision {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let renewed = spec.renew_time.map(|time| time.0);
        if holder == config.identity {
            return Decision::Renew;
        }
        if holder.is_empty() {
            return Decision::TakeOver;
        }
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = duration.map_or(config.duration, Duration::from_secs);
        match &self.seen {
            Some(seen) if seen.holder == holder && seen.renewed == renewed => {
                if now.saturating_sub(seen.at) >= duration { Decision::TakeOver } else { Decision::Wait }
            }
            _ => {
                self.seen = Some(Seen { holder, renewed, at: now, duration });
                Decision::Wait
            }
        }
    }

    /// When the lease of the holder that was seen last ends if it is not renewed; `None`: nobody was seen.
    #[must_use]
    pub fn ends_in(&self, now: Duration) -> Option<Duration> {
        self.seen.as_ref().map(|seen| (seen.at + seen.duration).saturating_sub(now))
    }

    /// Gives the lease back, so that another candidate takes it at once. Nothing happens if it is not ours.
    ///
    /// # Errors
    /// Every failure of a request; the lease then ends by itself.
    pub async fn release(&mut self, component: &Component, config: &LeaseConfig) -> kube::Result<()> {
        let api: Api<Lease> = Api::namespaced(component.client.clone(), &config.namespace);
        let Some(mut lease) = api.get_opt(&config.name).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() != Some(&config.identity) {
            return Ok(());
        }
        // As client-go leaves it: nobody's, and soon over.
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(component.clock.now()));
        match api.replace(&config.name, &PostParams::default(), &lease).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(()),
            written => written.map(drop),
        }
    }
}

fn new_lease(config: &LeaseConfig, now: Timestamp) -> Lease {
    let metadata = ObjectMeta {
        namespace: Some(config.namespace.clone()),
        name: Some(config.name.clone()),
        ..ObjectMeta::default()
    };
    let lease = Lease { metadata, spec: None };
    let mut lease = next_lease(lease, Decision::TakeOver, config, now);
    if let Some(spec) = &mut lease.spec {
        spec.lease_transitions = Some(0);
    }
    lease
}

fn next_lease(mut lease: Lease, decision: Decision, config: &LeaseConfig, now: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    if decision == Decision::TakeOver {
        spec.acquire_time = Some(MicroTime(now));
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
    }
    spec.holder_identity = Some(config.identity.clone());
    spec.lease_duration_seconds = Some(i32::try_from(config.duration.as_secs()).unwrap_or(i32::MAX));
    spec.renew_time = Some(MicroTime(now));
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(identity: &str) -> LeaseConfig {
        LeaseConfig {
            namespace: "kube-system".into(),
            name: "controller".into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
        }
    }

    #[test]
    fn a_lease_is_taken_over_only_after_its_holder_was_silent_for_its_duration() {
        let (a, b) = (config("a"), config("b"));
        let at = |second| Timestamp::from_second(second).unwrap();
        let held = new_lease(&a, at(100));
        let mut candidate = Candidate::default();
        let seconds = Duration::from_secs;
        assert_eq!(candidate.decide(&held, &b, seconds(0)), Decision::Wait);
        assert_eq!(candidate.decide(&held, &b, seconds(14)), Decision::Wait);
        let renewed = next_lease(held, Decision::Renew, &a, at(110));
        assert_eq!(candidate.decide(&renewed, &b, seconds(15)), Decision::Wait);
        assert_eq!(candidate.decide(&renewed, &b, seconds(29)), Decision::Wait);
        assert_eq!(candidate.decide(&renewed, &b, seconds(30)), Decision::TakeOver);
        let taken = next_lease(renewed, Decision::TakeOver, &b, at(130));
        let spec = taken.spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("b"), Some(1)));
    }

    #[test]
    fn the_holder_renews_and_a_released_lease_is_taken_at_once() {
        let a = config("a");
        let held = new_lease(&a, Timestamp::UNIX_EPOCH);
        assert_eq!(Candidate::default().decide(&held, &a, Duration::ZERO), Decision::Renew);
        let mut released = held;
        released.spec.as_mut().unwrap().holder_identity = None;
        assert_eq!(Candidate::default().decide(&released, &config("b"), Duration::ZERO), Decision::TakeOver);
    }
}
