//! `/livez`, `/readyz`, `/healthz`: whether the server works, in whole or check by check.
//!
//! Source: Kubernetes, "Kubernetes API health endpoints".

use std::time::Duration;

use http::StatusCode;
use reeve_store::{RangeRequest, SharedKv};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::query::Query;
use super::response::{self, Answer};
use crate::status::ApiError;

/// How long the store may take to answer.
const STORE_WAIT_MAX: Duration = Duration::from_secs(2);

/// A check: its name and the endpoints that ask it.
const CHECKS: &[(&str, &[&str])] = &[
    ("ping", &["livez", "readyz", "healthz"]),
    ("etcd", &["livez", "readyz", "healthz"]),
    (ROLES, &["livez", "readyz", "healthz"]),
    ("shutdown", &["readyz"]),
];

/// Whether the roles are there with which a cluster starts.
const ROLES: &str = "poststarthook/rbac/bootstrap-roles";

/// What the checks look at.
pub(crate) struct Health {
    pub(crate) kv: SharedKv,
    pub(crate) shutdown: CancellationToken,
    pub(crate) roles: watch::Receiver<bool>,
}

impl Health {
    /// Answers `/ENDPOINT` or `/ENDPOINT/CHECK`.
    pub(crate) async fn answer(&self, endpoint: &str, single: Option<&str>, query: &Query) -> Result<Answer, ApiError> {
        let names = chosen(endpoint, single, query);
        if single.is_some() && names.is_empty() {
            return Ok(response::not_found_page());
        }
        let mut report = String::new();
        let mut healthy = true;
        for name in names {
            let passed = self.passes(name).await;
            healthy &= passed;
            let line = if passed { format!("[+]{name} ok\n") } else { format!("[-]{name} failed: reason withheld\n") };
            report.push_str(&line);
        }
        let verbose = query.get("verbose").is_some() && single.is_none();
        let mut answer = match (healthy, verbose) {
            (true, false) => response::text(StatusCode::OK, "ok"),
            (true, true) => response::text(StatusCode::OK, format!("{report}{endpoint} check passed\n")),
            (false, _) => {
                response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{endpoint} check failed\n"))
            }
        };
        response::set(&mut answer, http::header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        Ok(answer)
    }

    /// Whether the store answers in time.
    pub(crate) async fn store_answers(&self) -> bool {
        let request = RangeRequest::key("health");
        matches!(tokio::time::timeout(STORE_WAIT_MAX, self.kv.range(request)).await, Ok(Ok(_)))
    }

    async fn passes(&self, check: &str) -> bool {
        match check {
            // The name is Kubernetes', whatever the store is.
            "etcd" => self.store_answers().await,
            ROLES => *self.roles.borrow(),
            "shutdown" => !self.shutdown.is_cancelled(),
            _ => true,
        }
    }
}

/// The checks that a request means.
fn chosen(endpoint: &str, single: Option<&str>, query: &Query) -> Vec<&'static str> {
    let own = CHECKS.iter().filter(|(_, asked_by)| asked_by.contains(&endpoint)).map(|(name, _)| *name);
    match single {
        None => own.filter(|name| !query.all("exclude").any(|excluded| excluded == *name)).collect(),
        Some(single) => own.filter(|name| *name == single).collect(),
    }
}
