//! The HTTP side of the API server: from a request to an answer, whatever connection it came on.
//!
//! [`Api::handle`] is the one entrance, for the network (`server.rs`) and for the components of this process alike:
//! who asks → what for → may they → serve it. Bodies are JSON values from here on; what happens to objects is the
//! registry's. What is not here: sockets and TLS.

mod arrival;
mod body;
mod component_status;
mod discovery;
mod duration;
mod encode;
mod faces;
#[cfg(test)]
pub(crate) mod fuzzed;
mod health;
mod issuer;
mod list_body;
mod metrics;
mod negotiate;
mod openapi;
mod own;
mod pretty;
mod protobuf;
mod query;
mod response;
mod reviews;
mod route;
mod token_request;
mod verbs;
pub(crate) mod web_socket;
mod yaml;
mod zpages;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request as HttpRequest, StatusCode};
use reeve_api::clock::SharedClock;
use reeve_api::rng::{RngExt as _, SharedRng};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use body::read as read_body;
pub(crate) use component_status::ComponentStatuses;
pub use component_status::{Running, RunningComponents};
pub(crate) use discovery::{Discovery, Others};
pub(crate) use faces::LiveFaces;
pub(crate) use health::Health;
pub(crate) use metrics::Metrics;
pub(crate) use metrics::{Counter, Histogram, Page, number};
use metrics::{Key, Observed};
pub(crate) use openapi::OpenApi;
pub(crate) use own::Own;
pub use own::{AboutCluster, BackupTurn, Backups};
pub(crate) use protobuf::Shared;
pub(crate) use query::Query;
pub(crate) use response::{Answer, Body, BoxError, error, full, json, not_found_page, text};
pub(crate) use reviews::Reviews;
use route::ResourcePath;
pub(crate) use verbs::Call;
use zpages::Zpage;

use crate::aggregator::Aggregator;
use crate::auth::front_proxy::Shown;
use crate::auth::impersonate::Remembered;
use crate::auth::token::TokenKey;
use crate::auth::{self, Attributes, Authenticator, Authorizer, Credentials, Decision, Target};
use crate::flowcontrol::{Belongs, FlowControl};
use crate::gate::Place;
use crate::join::{ControlPlane, Neighbourhood, Told};
use crate::proxy_node::Nodes;
use crate::registry::{Registry, UserInfo};
use crate::server::Limits;
use crate::status::ApiError;

/// Marks a request of a component of this process: who it is. Only `ApiServer::client` sets it; requests from the
/// network cannot carry it, because it is no header.
#[derive(Debug, Clone)]
pub(crate) struct InProcess(pub(crate) UserInfo);

/// Marks a request from the network: what its connection has shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// What its client certificate says.
    pub(crate) certificate: Shown,
    /// When that ends, in seconds since 1970.
    pub(crate) certificate_ends: Option<i64>,
    /// Where it comes from.
    pub(crate) address: Option<std::net::IpAddr>,
    /// Its place among the server's connections.
    pub(crate) place: Option<Arc<Place>>,
}

/// Everything that answering needs. One per server.
pub(crate) struct Api {
    pub(crate) registry: Arc<Registry>,
    pub(crate) authenticator: Authenticator,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) faces: LiveFaces,
    pub(crate) health: Health,
    pub(crate) components: ComponentStatuses,
    pub(crate) reviews: Reviews,
    pub(crate) impersonations: Remembered,
    pub(crate) nodes: Nodes,
    pub(crate) aggregator: Arc<Aggregator>,
    /// Set when this server is one of a control plane.
    pub(crate) control_plane: OnceLock<ControlPlane>,
    pub(crate) token_key: Arc<TokenKey>,
    pub(crate) clock: SharedClock,
    pub(crate) rng: SharedRng,
    pub(crate) shutdown: CancellationToken,
    pub(crate) flow: Arc<FlowControl>,
    pub(crate) limits: Limits,
    pub(crate) web_sockets: web_socket::WebSockets,
    /// What several watchers get as protobuf.
    pub(crate) protobuf: Arc<Shared>,
    pub(crate) metrics: Metrics,
    pub(crate) own: Own,
    /// What the server was told, by the names of kube-apiserver's flags.
    pub(crate) flags: BTreeMap<&'static str, String>,
}

/// Whether there are reviews of that group and version: they are no kinds of the registry.
pub(crate) fn has_review(group: &str, version: &str) -> bool {
    reviews::all().any(|names| names.group == group && names.version == version)
}

/// What comes to light while a request is served, whatever becomes of it.
struct Noted {
    observed: Observed,
    /// Where it belongs, when it was classified.
    belongs: Option<Belongs>,
}

impl Api {
    /// Answers one request. Never fails: what goes wrong is an answer, a panic included.
    pub(crate) fn handle(self: &Arc<Self>, request: HttpRequest<Body>) -> BoxFuture<'static, Answer> {
        let api = Arc::clone(self);
        Box::pin(async move {
            let form = negotiate::ErrorForm::of(&request);
            let is_head = request.method() == Method::HEAD;
            let mut noted = Noted { observed: Observed::begin(), belongs: None };
            let result = AssertUnwindSafe(api.serve(request, &mut noted)).catch_unwind().await;
            let mut answer = match result {
                Ok(Ok(answer)) => answer,
                Ok(Err(failed)) => error(&failed, form.encoding()),
                Err(_) => {
                    let message = "This request caused apiserver to panic. Look in the logs for details.";
                    error(&ApiError::new(500, "InternalError", message), form.encoding())
                }
            };
            // What switches protocols is between the two sides that speak the new one.
            if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                response::set(&mut answer, http::HeaderName::from_static("audit-id"), &api.rng.uuid());
                noted.belongs.into_iter().for_each(|belongs| response::belongs(&mut answer, belongs));
            }
            noted.observed.end(&answer);
            if is_head {
                response::without_body(&mut answer);
            }
            answer
        })
    }

    fn identify(&self, request: &HttpRequest<Body>) -> Result<UserInfo, ApiError> {
        if let Some(InProcess(user)) = request.extensions().get() {
            return Ok(user.clone());
        }
        let peer = request.extensions().get::<Peer>();
        let authorization = request.headers().get(http::header::AUTHORIZATION);
        // A header that is not text is a wrong credential, not a missing one.
        let authorization = authorization.map(|value| value.to_str().unwrap_or_default());
        let (certificate, headers) = (peer.map(|peer| &peer.certificate), Some(request.headers()));
        let shown = Credentials { certificate, headers, authorization };
        let user = self.authenticator.authenticate(shown)?;
        if let Some((ends, Shown::User(_))) = peer.and_then(|peer| Some((peer.certificate_ends?, &peer.certificate))) {
            self.metrics.times.certified(ends - self.clock.now().as_second());
        }
        if user.name != auth::ANONYMOUS {
            peer.and_then(|peer| peer.place.as_ref()).inspect(|place| place.prove());
        }
        Ok(user)
    }

    fn authorize_path(&self, user: &UserInfo, method: &Method, path: &str) -> Result<(), ApiError> {
        let verb = method.as_str().to_ascii_lowercase();
        self.permit(&Attributes { user, verb: &verb, target: Target::Path(path) })
    }

    /// Whether the user may create what the path names; the authorizer's own reason why not.
    pub(crate) fn decide_create(&self, user: &UserInfo, path: &ResourcePath) -> Result<(), String> {
        match self.authorizer.decide(&Attributes { user, verb: "create", target: path.target() }) {
            Decision::Allowed(_) => Ok(()),
            Decision::Refused { reason } => Err(reason),
        }
    }

    /// Whether the user may create the object of the path.
    pub(crate) fn may_create(&self, user: &UserInfo, path: &ResourcePath) -> Result<(), ApiError> {
        self.permit(&Attributes { user, verb: "create", target: path.target() })
    }

    fn permit(&self, asked: &Attributes<'_>) -> Result<(), ApiError> {
        let began = Instant::now();
        let decision = self.authorizer.decide(asked);
        self.metrics.times.decided(decision.is_allowed(), began.elapsed());
        match decision {
            Decision::Allowed(_) => {
                self.metrics.allowed.add(1);
                Ok(())
            }
            Decision::Refused { reason } => {
                self.metrics.denied.add(1);
                Err(asked.refusal(&reason))
            }
        }
    }

    /// Paths that are no resources: discovery, OpenAPI, health, version.
    async fn serve_path(
        &self,
        segments: &[String],
        query: &Query,
        parts: &http::request::Parts,
    ) -> Result<Answer, ApiError> {
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        if let Some(refused) = self.wrong_form(&words, parts) {
            return refused;
        }
        match words[..] {
            ["version"] => Ok(response::raw_json(StatusCode::OK, &version())),
            [endpoint @ ("livez" | "readyz" | "healthz")] => {
                let more = match self.control_plane.get().filter(|_| endpoint == "readyz") {
                    Some(control_plane) => control_plane.health(query.get("verbose").is_some()).await,
                    None => Neighbourhood { healthy: true, ..Neighbourhood::default() },
                };
                Ok(self.health.answer(endpoint, None, query, &more).await)
            }
            [endpoint @ ("livez" | "readyz" | "healthz"), ref check @ ..] => {
                let more = Neighbourhood::default();
                Ok(self.health.answer(endpoint, Some(&check.join("/")), query, &more).await)
            }
            [".well-known", "openid-configuration"] => {
                Ok(issuer::configuration(&self.token_key, self.faces.server_address()))
            }
            ["openid", "v1", "jwks"] => Ok(issuer::keys(&self.token_key)),
            ["metrics", "slis"] => metrics::slis(&self.health.outcomes, &parts.headers),
            [page @ ("statusz" | "flagz")] => self.serve_zpage(Zpage::at(page), &parts.headers),
            ["metrics"] => self.metrics_page(&parts.headers).await,
            ["debug", "api_priority_and_fairness", table] => {
                let with_details = query.get("includeRequestDetails").is_some_and(|asked| !asked.is_empty());
                let table = self.flow.dump(table, with_details);
                Ok(table.map_or_else(response::not_found_page, |table| response::text(StatusCode::OK, table)))
            }
            ["openapi", "v2"] => self.serve_openapi(None, query, parts).await,
            ["openapi", "v3", ref path @ ..] => self.serve_openapi(Some(path.join("/")), query, parts).await,
            ["api" | "apis", ..] => {
                match self.faces.of(&self.registry).discovery.answer(segments, &parts.headers, query)? {
                    Some(answer) => Ok(answer),
                    None => self
                        .nothing_there(segments.get(1).map(String::as_str).filter(|_| words.first() == Some(&"apis"))),
                }
            }
            ["reeve", "v1", ref rest @ ..] => match self.control_plane.get() {
                Some(control_plane) => control_plane.answer(rest, parts).await,
                None => Ok(response::not_found_page()),
            },
            ["" | "index.html"] => Ok(response::raw_json(StatusCode::OK, &json!({"paths": self.paths()}))),
            _ => Ok(response::not_found_page()),
        }
    }

    async fn metrics_page(&self, headers: &http::HeaderMap) -> Result<Answer, ApiError> {
        let control_plane = self.control_plane.get();
        let told = match control_plane {
            Some(control_plane) => control_plane.told().await,
            None => Told::default(),
        };
        let more = |page: &mut Page| {
            metrics::decisions(page, &self.authorizer.allowed());
            self.own.backups.report(page);
            control_plane.into_iter().for_each(|own| own.report(&told, page));
        };
        self.metrics.answer(&self.registry, (&self.aggregator.metrics, &self.flow), more, headers)
    }

    /// What is answered where a path that is no resource is there in another form or for another method only. Source:
    /// Kubernetes serves `/api`, `/apis/GROUP` and `/version` like resources, with `GET` alone and with or without a
    /// slash at the end; everything else by its exact path, with any method.
    fn wrong_form(&self, words: &[&str], parts: &http::request::Parts) -> Option<Result<Answer, ApiError>> {
        let (path, is_get) = (parts.uri.path(), parts.method == Method::GET);
        if path.starts_with("//") {
            return Some(Ok(response::not_found_page()));
        }
        match words {
            ["version"] | ["api"] => (!is_get).then(|| Err(ApiError::method_not_allowed())),
            ["api" | "apis", _, ..] if !is_get => {
                let faces = self.faces.of(&self.registry);
                let is_there = match words {
                    ["api", version] => faces.discovery.versions().any(|own| own == ("", *version)),
                    ["apis", group] => faces.discovery.versions().any(|(own, _)| own == *group),
                    ["apis", group, version] => faces.discovery.versions().any(|own| own == (*group, *version)),
                    _ => false,
                };
                let group = words.get(1).copied().filter(|_| words.first() == Some(&"apis"));
                Some(if is_there { Err(ApiError::method_not_allowed()) } else { self.nothing_there(group) })
            }
            ["api" | "apis", ..] | [".well-known" | "openid", ..] => None,
            ["openapi", "v3"] if path.ends_with('/') => Some(Ok(openapi::nothing())),
            _ => (path.len() > 1 && path.ends_with('/')).then(|| Ok(response::not_found_page())),
        }
    }

    /// Whether requests of that path are counted apart.
    fn is_served(&self, path: &ResourcePath) -> bool {
        let is_resource = self.registry.resource(&path.group, &path.version, &path.resource).is_some()
            || self.reviews.find(&path.group, &path.version, &path.resource).is_some();
        is_resource && (path.subresource.is_empty() || COUNTED_PARTS.contains(&path.subresource.as_str()))
    }

    /// What is said of a path that leads nowhere: a `Status` below a group that is served, else plain words.
    pub(crate) fn nothing_there(&self, group: Option<&str>) -> Result<Answer, ApiError> {
        let faces = self.faces.of(&self.registry);
        let is_own = |group: &str| !group.is_empty() && faces.discovery.versions().any(|(own, _)| own == group);
        let is_served = group.is_none_or(is_own);
        if is_served { Err(ApiError::no_such_path()) } else { Ok(response::not_found_page()) }
    }

    /// Without a path the document of version 2. The documents are made at the first request and take a while: not on
    /// the async threads.
    async fn serve_openapi(
        &self,
        path: Option<String>,
        query: &Query,
        parts: &http::request::Parts,
    ) -> Result<Answer, ApiError> {
        let openapi = Arc::clone(&self.faces.of(&self.registry).openapi);
        let others = if path.as_deref() == Some("") { self.aggregator.documents() } else { BTreeMap::new() };
        let swaggers = if path.is_none() { self.aggregator.swaggers() } else { Vec::new() };
        let (query, headers) = (query.clone(), parts.headers.clone());
        let made = tokio::task::spawn_blocking(move || match path.as_deref() {
            None => openapi.v2(&headers, swaggers),
            Some("") => openapi.index(others),
            Some(path) => openapi.document(path, &query, &headers),
        });
        made.await.map_err(ApiError::internal)?
    }

    /// Whether an OpenAPI document is this server's own.
    fn has_document(&self, path: &str) -> bool {
        self.faces.of(&self.registry).openapi.has(path)
    }

    fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = ROOTS.iter().map(|root| (*root).to_owned()).collect();
        for (group, version) in self.faces.of(&self.registry).discovery.all_versions() {
            if group.is_empty() {
                paths.push(format!("/api/{version}"));
            } else {
                paths.extend([format!("/apis/{group}"), format!("/apis/{group}/{version}")]);
            }
        }
        paths.extend(health::paths());
        paths.sort();
        paths.dedup();
        paths
    }
}

/// Paths that are there whatever is served.
const ROOTS: &[&str] = &[
    "/.well-known/openid-configuration",
    "/api",
    "/apis",
    "/apis/",
    "/flagz",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/readyz",
    "/statusz",
    "/version",
];

/// Subresources whose requests are counted.
const COUNTED_PARTS: &[&str] = &[
    "approval",
    "attach",
    "binding",
    "ephemeralcontainers",
    "eviction",
    "exec",
    "finalize",
    "log",
    "portforward",
    "proxy",
    "resize",
    "scale",
    "status",
    "token",
];

/// Under which labels a request for a resource is counted.
fn resource_key<'k>(path: &'k ResourcePath, verb: &'k str, query: &Query, parts: &http::request::Parts) -> Key<'k> {
    let content_type = parts.headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let is_apply = content_type.is_some_and(|kind| kind.starts_with(b"application/apply-patch"));
    let verb = match verb {
        _ if route::Connect::of(path).is_some() => "CONNECT",
        "watch" => "WATCH",
        "list" => "LIST",
        "get" => "GET",
        "create" => "POST",
        "update" => "PUT",
        "patch" if is_apply => "APPLY",
        "patch" => "PATCH",
        _ => "DELETE",
    };
    let scope = match (path.name.is_empty() && verb != "POST", path.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    Key {
        verb,
        group: &path.group,
        version: &path.version,
        resource: &path.resource,
        subresource: &path.subresource,
        scope,
        component: "apiserver",
        dry_run: query.get("dryRun").is_some(),
    }
}

/// The same for paths that are no resources, as far as they are counted.
fn path_key(segments: &[String], method: &Method) -> Option<Key<'static>> {
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (subresource, component) = match words[..] {
        ["livez", ..] => ("/livez", ""),
        ["readyz", ..] => ("/readyz", ""),
        ["healthz", ..] => ("/healthz", ""),
        ["metrics"] => ("/metrics", ""),
        ["openapi", "v2"] => ("openapi/v2", ""),
        ["openapi", "v3"] => ("openapi/v3", ""),
        ["openapi", "v3", ..] => ("openapi/v3/", ""),
        ["api"] => ("api", "apiserver"),
        ["apis"] => ("apis", "apiserver"),
        _ => return None,
    };
    (*method == Method::GET).then(|| Key { verb: "GET", subresource, component, ..Key::default() })
}

/// What is answered when as many streams are going on as the server takes.
pub(crate) fn too_many_requests() -> ApiError {
    let mut error = ApiError::timeout("", 1);
    error.code = 429;
    error.reason = "TooManyRequests";
    "Too many requests, please try again later.".clone_into(&mut error.message);
    error
}

/// What `/version` says: the Kubernetes release that is followed, and ours behind the plus sign.
fn version() -> serde_json::Value {
    let platform = format!("{}/{}", std::env::consts::OS, go_architecture());
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35", "gitVersion": crate::VERSION,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": concat!("rust", env!("CARGO_PKG_RUST_VERSION")), "compiler": "rustc", "platform": platform,
    })
}

/// The same as labels.
fn build_labels() -> String {
    let version = version();
    let names = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ];
    let label = |(label, name): (&str, &str)| format!("{label}=\"{}\"", version[name].as_str().unwrap_or_default());
    names.map(label).join(",")
}

fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
