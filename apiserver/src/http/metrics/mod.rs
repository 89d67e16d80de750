//! What the API server counts about itself, and `/metrics`, which tells it.
//!
//! Counting is on the way of every request: it takes no lock and, once a series exists, no allocation. Series are
//! made at the first request of their kind and live as long as the server; there is room for so many, beyond
//! which new ones are not counted. Names, labels and help texts are those of Kubernetes 1.36, whose dashboards and
//! alerts read them. What Kubernetes counts and this server does not have (etcd, caches of encryption keys) is left
//! out rather than told wrong.

mod histogram;
mod impersonations;
mod process;
mod series;
mod storages;
mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

use http::StatusCode;
use http::header::HeaderMap;

pub(crate) use histogram::Histogram;
pub(crate) use impersonations::Impersonations;
pub(crate) use process::start as process_start;
use series::Table;
pub(crate) use series::{Key, Running, Series, WatchSeries};
pub(crate) use text::{Page, number};

use super::encode::gzip;
use super::health::Outcomes;
use super::negotiate::takes_gzip;
use super::response::{self, Answer, full};
use crate::aggregator::Availability;
use crate::flowcontrol::FlowControl;
use crate::registry::Registry;
use crate::status::ApiError;

/// A counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    /// One more, until what is answered is dropped.
    pub(crate) fn enter(&self) -> Entered<'_> {
        self.up();
        Entered(self)
    }

    fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that is counted by a gauge as long as it lives.
pub(crate) struct Entered<'g>(&'g Gauge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.down();
    }
}

/// Everything that is counted. One per server.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Table<Series>,
    watches: Table<WatchSeries>,
    /// Short requests that change something, and that only read.
    pub(crate) mutating: Gauge,
    pub(crate) read_only: Gauge,
    pub(crate) authenticated: Counter,
    pub(crate) not_authenticated: Counter,
    pub(crate) allowed: Counter,
    pub(crate) denied: Counter,
    /// How long it took to find out who asks, and whether they may, whatever came of it.
    pub(crate) times: Times,
    pub(crate) tls_errors: Counter,
    /// Who has acted, or wanted to act, as somebody else.
    pub(crate) impersonations: Impersonations,
    /// Requests that were sent away because too many were going on.
    pub(crate) sent_away: Counter,
}

/// How long the steps before a request is served take.
pub(crate) struct Times {
    authenticated: Histogram,
    not_authenticated: Histogram,
    allowed: Histogram,
    denied: Histogram,
    /// Requests of users whose name is `admin`, and of others: Kubernetes tells a few names apart.
    admin: Counter,
    other: Counter,
    /// How long the client certificates that were shown last, in seconds.
    certificates: Histogram,
}

impl Default for Times {
    fn default() -> Self {
        let new = || Histogram::new(histogram::STEP_SECONDS, 1e6);
        let (authenticated, not_authenticated, allowed, denied) = (new(), new(), new(), new());
        let (admin, other) = (Counter::default(), Counter::default());
        let certificates = Histogram::new(histogram::LIFETIME_SECONDS, 1.0);
        Self { authenticated, not_authenticated, allowed, denied, admin, other, certificates }
    }
}

impl Times {
    /// Counts who was found, `None` when nobody, and how long it took.
    pub(crate) fn found(&self, name: Option<&str>, took: Duration) {
        let family = if name.is_some() { &self.authenticated } else { &self.not_authenticated };
        family.observe(micros(took));
        match name {
            None => {}
            Some("admin") => self.admin.add(1),
            Some(_) => self.other.add(1),
        }
    }

    /// Counts a request whose user a certificate proves that is good for so long.
    pub(crate) fn certified(&self, seconds_left: i64) {
        self.certificates.observe(u64::try_from(seconds_left).unwrap_or_default());
    }

    /// Counts a decision and how long it took.
    pub(crate) fn decided(&self, is_allowed: bool, took: Duration) {
        let family = if is_allowed { &self.allowed } else { &self.denied };
        family.observe(micros(took));
    }

    fn report(&self, page: &mut Page) {
        page.family(
            "apiserver_client_certificate_expiration_seconds",
            "histogram",
            "[ALPHA] Distribution of the remaining lifetime on the certificate used to authenticate a request.",
        );
        self.certificates.write(page, "", 0);
        page.family(
            "authentication_duration_seconds",
            "histogram",
            "[ALPHA] Authentication duration in seconds broken out by result.",
        );
        self.authenticated.write(page, "result=\"success\"", 0);
        self.not_authenticated.write(page, "result=\"failure\"", 0);
        page.family(
            "authorization_duration_seconds",
            "histogram",
            "[ALPHA] Authorization duration in seconds broken out by result.",
        );
        self.allowed.write(page, "result=\"allowed\"", 0);
        self.denied.write(page, "result=\"no-opinion\"", 0);
        page.family(
            "authenticated_user_requests",
            "counter",
            "[ALPHA] Counter of authenticated requests broken out by username.",
        );
        for (name, count) in [("admin", &self.admin), ("other", &self.other)] {
            if count.get() > 0 {
                page.sample("", &format!("username=\"{name}\""), count.get());
            }
        }
    }
}

/// Answers `/metrics/slis`: how the health checks went.
pub(crate) fn slis(outcomes: &Outcomes, headers: &HeaderMap) -> Result<Answer, ApiError> {
    let mut page = Page::default();
    outcomes.report(&mut page);
    send(page, headers)
}

fn send(page: Page, headers: &HeaderMap) -> Result<Answer, ApiError> {
    let body = page.finish();
    let packed = takes_gzip(headers);
    let body = if packed { gzip(body.as_bytes()).map_err(ApiError::internal)? } else { body.into() };
    let media_type = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    let mut answer = response::answer(StatusCode::OK, media_type, full(body));
    if packed {
        response::set(&mut answer, http::header::CONTENT_ENCODING, "gzip");
    }
    Ok(answer)
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

impl Metrics {
    /// The series of a request; `None` when there is no room for more. `is_served` is asked before a series is made:
    /// whatever paths a client tries, there are only as many series as there is to be counted.
    pub(crate) fn request(&self, key: &Key<'_>, is_served: impl FnOnce() -> bool) -> Option<Arc<Series>> {
        self.requests.get(key, is_served)
    }

    /// The series of the watches of a resource.
    pub(crate) fn watch(&self, group: &str, version: &str, resource: &str) -> Option<Arc<WatchSeries>> {
        self.watches.get(&Key { group, version, resource, ..Key::default() }, || true)
    }

    /// Answers `/metrics`; `more` adds what others have to say.
    pub(crate) fn answer(
        &self,
        registry: &Registry,
        (aggregated, flow): (&Availability, &FlowControl),
        more: impl FnOnce(&mut Page),
        headers: &HeaderMap,
    ) -> Result<Answer, ApiError> {
        let mut page = Page::default();
        self.requests(&mut page);
        self.others(&mut page);
        flow.report(&mut page);
        registry.figures.report(&mut page);
        storages::write(registry, &mut page);
        self.deprecated(registry, &mut page);
        unavailable(aggregated, &mut page);
        process::write(&mut page);
        more(&mut page);
        send(page, headers)
    }

    fn requests(&self, page: &mut Page) {
        let all: Vec<Arc<Series>> = self.requests.iter().cloned().collect();
        page.family(
            "apiserver_request_total",
            "counter",
            "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        );
        for series in &all {
            for (code, count) in series.codes() {
                page.sample("", &format!("code=\"{code}\",{},{}", series.dry_run(), series.labels), count);
            }
        }
        page.family(
            "apiserver_request_duration_seconds",
            "histogram",
            "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        );
        for series in &all {
            series.duration.write(page, &format!("{},{}", series.dry_run(), series.labels), 0);
        }
        let help = "[ALPHA] Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.";
        for name in ["apiserver_request_sli_duration_seconds", "apiserver_request_slo_duration_seconds"] {
            page.family(name, "histogram", help);
            for series in all.iter().filter(|series| !series.is_long_running()) {
                series.duration.write(page, &series.labels, histogram::SLI_FROM);
            }
        }
        page.family(
            "apiserver_response_sizes",
            "histogram",
            "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
        );
        for series in all.iter().filter(|series| series.is_read()) {
            series.size.write(page, &series.labels, 0);
        }
        page.family(
            "apiserver_longrunning_requests",
            "gauge",
            "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
        );
        for series in all.iter().filter(|series| series.is_long_running()) {
            page.sample("", &series.labels, series.running.get());
        }
    }

    /// What has been asked for that is on its way out.
    fn deprecated(&self, registry: &Registry, page: &mut Page) {
        page.family(
            "apiserver_requested_deprecated_apis",
            "gauge",
            "[STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
        );
        let mut told: Vec<String> = Vec::new();
        for series in self.requests.iter() {
            let [group, version, resource, subresource] = series.resource();
            let kind = registry.resource(group, version, resource).map(|resource| Arc::clone(&resource.kind));
            if kind.is_none_or(|kind| kind.deprecation().is_none()) {
                continue;
            }
            let labels = format!(
                "group=\"{group}\",removed_release=\"\",resource=\"{resource}\",subresource=\"{subresource}\",version=\"{version}\""
            );
            if !told.contains(&labels) {
                page.sample("", &labels, 1);
                told.push(labels);
            }
        }
    }

    fn others(&self, page: &mut Page) {
        page.family(
            "apiserver_current_inflight_requests",
            "gauge",
            "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
        );
        page.sample("", "request_kind=\"mutating\"", self.mutating.get());
        page.sample("", "request_kind=\"readOnly\"", self.read_only.get());
        page.family("apiserver_watch_events_total", "counter", "[ALPHA] Number of events sent in watch clients");
        for series in self.watches.iter() {
            page.sample("", &series.labels, series.sizes.count());
        }
        page.family("apiserver_watch_events_sizes", "histogram", "[ALPHA] Watch event size distribution in bytes");
        for series in self.watches.iter() {
            series.sizes.write(page, &series.labels, 0);
        }
        self.times.report(page);
        self.impersonations.report(page);
        page.family("authentication_attempts", "counter", "[ALPHA] Counter of authenticated attempts.");
        page.sample("", "result=\"success\"", self.authenticated.get());
        page.sample("", "result=\"failure\"", self.not_authenticated.get());
        page.family(
            "authorization_attempts_total",
            "counter",
            "[ALPHA] Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
        );
        page.sample("", "result=\"allowed\"", self.allowed.get());
        page.sample("", "result=\"no-opinion\"", self.denied.get());
        page.family(
            "apiserver_tls_handshake_errors_total",
            "counter",
            "[ALPHA] Number of requests dropped with 'TLS handshake error from' error",
        );
        page.sample("", "", self.tls_errors.get());
        page.family(
            "apiserver_request_terminations_total",
            "counter",
            "[ALPHA] Number of requests which apiserver terminated in self-defense.",
        );
        page.sample("", "code=\"429\",component=\"apiserver\"", self.sent_away.get());
        page.family(
            "kubernetes_build_info",
            "gauge",
            "[BETA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        );
        page.sample("", &super::build_labels(), 1);
    }
}

/// How often each of those that are asked for permission has given it, by its type.
pub(crate) fn decisions(page: &mut Page, allowed: &[(&str, u64)]) {
    page.family(
        "apiserver_authorization_decisions_total",
        "counter",
        "[ALPHA] Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.",
    );
    for (of, count) in allowed.iter().filter(|(_, count)| *count > 0) {
        page.sample("", &format!("decision=\"allowed\",name=\"{}\",type=\"{of}\"", of.to_ascii_lowercase()), count);
    }
}

/// Which other API servers cannot be used.
fn unavailable(aggregated: &Availability, page: &mut Page) {
    page.family(
        "aggregator_unavailable_apiservice",
        "gauge",
        "[ALPHA] Gauge of APIServices which are marked as unavailable broken down by APIService name.",
    );
    aggregated.now().iter().for_each(|(labels, value)| page.sample("", labels, value));
    page.family(
        "aggregator_unavailable_apiservice_total",
        "counter",
        "[ALPHA] Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
    );
    aggregated.so_far().iter().for_each(|(labels, value)| page.sample("", labels, value));
}

/// A request on its way: when it began, and where it is counted once that is known.
pub(crate) struct Observed {
    began: Instant,
    pub(crate) series: Option<Arc<Series>>,
}

impl Observed {
    /// Begins now.
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), series: None }
    }

    /// Counts the answer. A stream that goes on counts itself when it ends.
    pub(crate) fn end(self, answer: &Answer) {
        use hyper::body::Body as _;
        let Some(series) = self.series else { return };
        if series.is_watch() && answer.status() == StatusCode::OK {
            return;
        }
        series.finish(answer.status().as_u16(), self.began.elapsed(), answer.body().size_hint().exact());
    }
}

#[cfg(test)]
mod tests {
    use super::series::SERIES_MAX;
    use super::*;

    fn key<'k>(verb: &'k str, resource: &'k str) -> Key<'k> {
        Key { verb, version: "v1", resource, scope: "namespace", component: "apiserver", ..Key::default() }
    }

    #[test]
    fn a_request_is_told_under_its_labels_in_every_family_it_belongs_to() {
        let metrics = Metrics::default();
        let series = metrics.request(&key("LIST", "pods"), || true).unwrap();
        series.finish(200, Duration::from_millis(30), Some(1500));
        series.finish(200, Duration::from_millis(700), Some(20));
        series.finish(410, Duration::from_micros(10), None);
        let mut page = Page::default();
        metrics.requests(&mut page);
        let text = page.finish();
        let labels = "component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"";
        for line in [
            format!("apiserver_request_total{{code=\"200\",dry_run=\"\",{labels}}} 2\n"),
            format!("apiserver_request_total{{code=\"410\",dry_run=\"\",{labels}}} 1\n"),
            format!("apiserver_request_duration_seconds_bucket{{dry_run=\"\",{labels},le=\"0.005\"}} 1\n"),
            format!("apiserver_request_duration_seconds_bucket{{dry_run=\"\",{labels},le=\"0.05\"}} 2\n"),
            format!("apiserver_request_duration_seconds_bucket{{dry_run=\"\",{labels},le=\"+Inf\"}} 3\n"),
            format!("apiserver_request_duration_seconds_sum{{dry_run=\"\",{labels}}} 0.73001\n"),
            format!("apiserver_request_sli_duration_seconds_bucket{{{labels},le=\"0.05\"}} 2\n"),
            format!("apiserver_response_sizes_bucket{{{labels},le=\"1000\"}} 1\n"),
            format!("apiserver_response_sizes_bucket{{{labels},le=\"1e+06\"}} 2\n"),
            format!("apiserver_response_sizes_count{{{labels}}} 2\n"),
        ] {
            assert!(text.contains(&line), "{line}{text}");
        }
    }

    #[test]
    fn a_watch_is_long_running_until_it_is_dropped_and_counted_then() {
        let metrics = Metrics::default();
        let series = metrics.request(&key("WATCH", "pods"), || true).unwrap();
        let running = Running::begin(Arc::clone(&series));
        assert_eq!((series.running.get(), series.codes().count()), (1, 0));
        drop(running);
        assert_eq!((series.running.get(), series.codes().collect::<Vec<_>>()), (0, vec![(200, 1)]));
    }

    #[test]
    fn series_are_made_for_what_is_served_and_have_a_limit() {
        let metrics = Metrics::default();
        assert!(metrics.request(&key("GET", "nothing"), || false).is_none());
        let names: Vec<String> = (0..3 * SERIES_MAX).map(|number| format!("r{number}")).collect();
        let made = names.iter().filter(|name| metrics.request(&key("GET", name), || true).is_some()).count();
        assert!(made <= SERIES_MAX && made > SERIES_MAX / 2, "{made}");
        let first = metrics.request(&key("GET", &names[0]), || unreachable!()).unwrap();
        assert!(Arc::ptr_eq(&first, &metrics.request(&key("GET", &names[0]), || unreachable!()).unwrap()));
    }
}
