//! `/livez`, `/readyz`, `/healthz`: whether the server works, in whole or check by check.
//!
//! Source: Kubernetes, "Kubernetes API health endpoints".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use reeve_store::{RangeRequest, SharedKv};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::metrics::Page;
use super::query::Query;
use super::response::{self, Answer};
use crate::join::Neighbourhood;

const ENDPOINTS: [&str; 3] = ["livez", "readyz", "healthz"];

/// How long the store may take to answer.
const STORE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Whether the roles are there with which a cluster starts.
const ROLES: &str = "poststarthook/rbac/bootstrap-roles";

/// The checks, in Kubernetes' order. All but those that [`Health::passes`] looks into stand for work that is done, or
/// a task that runs, before the first request is answered: an answer at all is the proof.
const CHECKS: &[&str] = &[
    "ping",
    "log",
    SERVING_CERTIFICATE,
    "etcd",
    "etcd-readiness",
    "informer-sync",
    "poststarthook/start-apiserver-admission-initializer",
    "poststarthook/generic-apiserver-start-informers",
    "poststarthook/priority-and-fairness-config-consumer",
    "poststarthook/priority-and-fairness-filter",
    "poststarthook/storage-object-count-tracker-hook",
    "poststarthook/start-apiextensions-informers",
    "poststarthook/start-apiextensions-controllers",
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-cluster-authentication-info-controller",
    "poststarthook/storage-readiness",
    "poststarthook/start-service-ip-repair-controllers",
    ROLES,
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/priority-and-fairness-config-producer",
    "poststarthook/bootstrap-controller",
    "poststarthook/start-kubernetes-service-cidr-controller",
    "poststarthook/aggregator-reload-proxy-client-cert",
    "poststarthook/start-kube-aggregator-informers",
    "poststarthook/apiservice-status-local-available-controller",
    "poststarthook/apiservice-status-remote-available-controller",
    "poststarthook/apiservice-registration-controller",
    "poststarthook/apiservice-discovery-controller",
    "poststarthook/kube-apiserver-autoregistration",
    "autoregister-completion",
    "poststarthook/apiservice-openapi-controller",
    "poststarthook/apiservice-openapiv3-controller",
    "shutdown",
];

const SERVING_CERTIFICATE: &str = "loopback-serving-certificate";

/// Checks that only `/readyz` asks; [`SERVING_CERTIFICATE`] all others do.
const ONLY_READINESS: &[&str] = &["etcd-readiness", "informer-sync", "shutdown"];

/// The checks that an endpoint asks.
fn checks_of(endpoint: &str) -> impl Iterator<Item = &'static str> {
    let is_ready = endpoint == "readyz";
    CHECKS.iter().copied().filter(
        move |name| {
            if is_ready { *name != SERVING_CERTIFICATE } else { !ONLY_READINESS.contains(name) }
        },
    )
}

/// The paths of all checks, as the index of the server lists them.
pub(crate) fn paths() -> impl Iterator<Item = String> {
    let of = |endpoint| checks_of(endpoint).map(move |check| format!("/{endpoint}/{check}"));
    ENDPOINTS.into_iter().flat_map(of)
}

/// What the checks look at.
pub(crate) struct Health {
    kv: SharedKv,
    shutdown: CancellationToken,
    pub(crate) roles: watch::Receiver<bool>,
    pub(crate) outcomes: Outcomes,
}

/// How often each check of each endpoint has passed and failed, and how it went last.
#[derive(Default)]
pub(crate) struct Outcomes(Mutex<BTreeMap<(&'static str, &'static str), Outcome>>);

#[derive(Default, Clone, Copy)]
struct Outcome {
    passed: bool,
    passes: u64,
    failures: u64,
}

impl Outcomes {
    fn note(&self, check: &'static str, endpoint: &str, passed: bool) {
        let Some(endpoint) = ENDPOINTS.into_iter().find(|known| *known == endpoint) else { return };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = all.entry((check, endpoint)).or_default();
        outcome.passed = passed;
        *(if passed { &mut outcome.passes } else { &mut outcome.failures }) += 1;
    }

    /// Writes the figures of `/metrics/slis`.
    pub(crate) fn report(&self, page: &mut Page) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let help = "[STABLE] This metric records the result of a single healthcheck.";
        page.family("kubernetes_healthcheck", "gauge", help);
        for ((check, endpoint), outcome) in &all {
            page.sample("", &format!("name=\"{check}\",type=\"{endpoint}\""), u64::from(outcome.passed));
        }
        let help = "[STABLE] This metric records the results of all healthcheck.";
        page.family("kubernetes_healthchecks_total", "counter", help);
        for ((check, endpoint), outcome) in &all {
            for (status, count) in [("error", outcome.failures), ("success", outcome.passes)] {
                if count > 0 {
                    let labels = format!("name=\"{check}\",status=\"{status}\",type=\"{endpoint}\"");
                    page.sample("", &labels, count);
                }
            }
        }
    }
}

impl Health {
    pub(crate) fn new(kv: SharedKv, shutdown: CancellationToken, roles: watch::Receiver<bool>) -> Self {
        Self { kv, shutdown, roles, outcomes: Outcomes::default() }
    }

    /// The store that the checks look at.
    pub(crate) fn kv(&self) -> SharedKv {
        SharedKv::clone(&self.kv)
    }

    /// Answers `/ENDPOINT` or `/ENDPOINT/CHECK`; `more` is what one of several servers says besides.
    pub(crate) async fn answer(
        &self,
        endpoint: &str,
        single: Option<&str>,
        query: &Query,
        more: &Neighbourhood,
    ) -> Answer {
        if let Some(single) = single {
            return self.single(endpoint, single).await;
        }
        let mut report = String::new();
        let mut healthy = more.healthy;
        let mut excluded: BTreeSet<&str> = query.all("exclude").collect();
        for name in checks_of(endpoint) {
            if excluded.remove(name) {
                report.extend(["[+]", name, " excluded: ok\n"]);
                continue;
            }
            let passed = self.passes(name).await;
            self.outcomes.note(name, endpoint, passed);
            healthy &= passed;
            report.extend(if passed { ["[+]", name, " ok\n"] } else { ["[-]", name, " failed: reason withheld\n"] });
        }
        if !excluded.is_empty() {
            let names: Vec<_> = excluded.iter().map(|name| format!("{name:?}")).collect();
            report.push_str("warn: some health checks cannot be excluded: no matches for ");
            report.extend([&names.join(","), "\n"]);
        }
        report.push_str(&more.lines);
        let verbose = query.get("verbose").is_some();
        let mut answer = match (healthy, verbose) {
            (true, false) => response::text(StatusCode::OK, "ok"),
            (true, true) => response::text(StatusCode::OK, format!("{report}{endpoint} check passed\n")),
            (false, _) => {
                response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{endpoint} check failed\n"))
            }
        };
        response::set(&mut answer, http::header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        answer
    }

    async fn single(&self, endpoint: &str, check: &str) -> Answer {
        if !checks_of(endpoint).any(|name| name == check) {
            return response::not_found_page();
        }
        let mut answer = if self.passes(check).await {
            response::text(StatusCode::OK, "ok")
        } else {
            let why = format!("internal server error: {check} failed\n");
            response::text(StatusCode::INTERNAL_SERVER_ERROR, why)
        };
        response::set(&mut answer, http::header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        answer
    }

    /// Whether the store answers in time.
    pub(crate) async fn store_answers(&self) -> bool {
        let request = RangeRequest::key("health");
        matches!(tokio::time::timeout(STORE_WAIT_MAX, self.kv.range(request)).await, Ok(Ok(_)))
    }

    async fn passes(&self, check: &str) -> bool {
        match check {
            // The name is Kubernetes', whatever the store is.
            "etcd" | "etcd-readiness" => self.store_answers().await,
            ROLES => *self.roles.borrow(),
            "shutdown" => !self.shutdown.is_cancelled(),
            _ => true,
        }
    }
}
