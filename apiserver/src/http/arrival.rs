//! What happens to a request before it is served: how long it may take, who asks, whether it is its turn, and whether
//! it may.
//!
//! In the order of Kubernetes' filters: deadline, authentication, impersonation, priority and fairness, authorization.

use std::time::Duration;

use http::request::Parts;
use http::{Method, Request as HttpRequest};
use reeve_api::selector::FieldSelector;
use tokio::time::Instant;

use super::query::Query;
use super::response::{self, Answer, Body};
use super::route::{self, Connect, ResourcePath};
use super::verbs::{self, Call};
use super::{Api, InProcess, Noted, Peer, path_key, resource_key};
use crate::aggregator::Passed;
use crate::auth::front_proxy::Shown;
use crate::auth::impersonate::{self, Impersonation};
use crate::auth::{self, Attributes, Decision, Target};
use crate::flowcontrol::{Asked, Seat, Stored, Wanted, Watching, What};
use crate::join;
use crate::registry::UserInfo;
use crate::status::ApiError;

/// Subresources whose requests last as long as the client likes: no deadline, no seat.
const LONG_RUNNING: &[&str] = &["attach", "exec", "log", "portforward", "proxy"];

/// Nobody waits longer for his turn.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// A request as its head has been read.
struct Incoming {
    query: Query,
    /// `None`: its path is not text.
    segments: Option<Vec<String>>,
    path: Option<ResourcePath>,
    /// As authorization sees it; `None` for a method that has no meaning.
    verb: Option<&'static str>,
    /// The object that it can only be about, where a selector says so.
    selected: Option<String>,
}

impl Incoming {
    fn read(request: &HttpRequest<Body>) -> Result<Self, ApiError> {
        let query = Query::parse(request.uri().query().unwrap_or_default())?;
        let segments = route::segments(request.uri().path());
        let path = segments.as_deref().and_then(route::resource);
        let verb = path.as_ref().and_then(|path| route::verb(request.method(), path, &query));
        let selected = path.as_ref().and_then(|path| selected_name(verb?, path, &query));
        Ok(Self { query, segments, path, verb, selected })
    }

    fn is_stream(&self) -> bool {
        self.path.as_ref().is_some_and(|path| LONG_RUNNING.contains(&path.subresource.as_str()))
    }

    fn is_long_running(&self) -> bool {
        self.verb == Some("watch") || self.is_stream()
    }

    fn wanted(&self) -> Wanted<'_> {
        let text = |name| self.query.get(name).unwrap_or_default();
        if !matches!(self.verb, Some("list" | "watch")) {
            return Wanted::default();
        }
        Wanted {
            is_watch: self.verb == Some("watch"),
            is_single: self.selected.is_some() || self.path.as_ref().is_some_and(|path| !path.name.is_empty()),
            limit: text("limit").parse().unwrap_or(0),
            has_selector: !text("labelSelector").is_empty() || !text("fieldSelector").is_empty(),
            has_continue: !text("continue").is_empty(),
            resource_version: text("resourceVersion"),
            version_match: text("resourceVersionMatch"),
            sends_initial_events: self.query.flag("sendInitialEvents"),
        }
    }

    fn asked<'r>(&'r self, user: &'r UserInfo, method: &'r str, uri: &'r http::Uri) -> Asked<'r> {
        let Some(path) = &self.path else { return Asked { user, verb: method, what: What::Path, path: uri.path() } };
        let what = What::Resource {
            group: &path.group,
            version: &path.version,
            resource: &path.resource,
            subresource: &path.subresource,
            namespace: &path.namespace,
            name: self.selected.as_deref().unwrap_or(&path.name),
        };
        Asked { user, verb: self.verb.unwrap_or_default(), what, path: uri.path() }
    }
}

impl Api {
    pub(super) async fn serve(&self, request: HttpRequest<Body>, noted: &mut Noted) -> Result<Answer, ApiError> {
        if !route::is_escaped_well(request.uri().path()) {
            return Ok(response::bad_request_line());
        }
        if let Some(control_plane) = self.control_plane.get().filter(|_| join::is_for_strangers(request.uri().path())) {
            let answer = control_plane.answer_stranger(&self.registry, self.clock.now(), request);
            let answer = tokio::time::timeout(self.limits.request_timeout, answer).await;
            return answer.unwrap_or_else(|_| Ok(response::timed_out()));
        }
        let incoming = Incoming::read(&request)?;
        if incoming.is_long_running() {
            return self.serve_in_turn(request, incoming, self.limits.request_timeout, noted).await;
        }
        let (most, asked) = (self.limits.request_timeout, incoming.query.timeout()?);
        let time = asked.map_or(most, |asked| asked.min(most));
        match tokio::time::timeout(time, self.serve_in_turn(request, incoming, time, noted)).await {
            Ok(served) => served,
            Err(_) => {
                noted.belongs = None;
                Ok(response::timed_out())
            }
        }
    }

    async fn serve_in_turn(
        &self,
        mut request: HttpRequest<Body>,
        incoming: Incoming,
        time: Duration,
        noted: &mut Noted,
    ) -> Result<Answer, ApiError> {
        let shown = request.extensions().get::<Peer>().map(|peer| &peer.certificate);
        if matches!(shown, Some(Shown::Nothing)) {
            auth::web_socket::unwrap_token(request.headers_mut());
        }
        let began = Instant::now();
        let mut user = self.identify(&request);
        if user.is_err() && self.control_plane.get().is_some() {
            let authorization = request.headers().get(http::header::AUTHORIZATION);
            // Another server may have given it out a moment ago.
            if self.authenticator.is_own_token(authorization.and_then(|value| value.to_str().ok())) {
                self.registry.fresh().await?;
                user = self.identify(&request);
            }
        }
        self.metrics.times.found(user.as_ref().ok().map(|user| user.name.as_str()), began.elapsed());
        let attempts = if user.is_ok() { &self.metrics.authenticated } else { &self.metrics.not_authenticated };
        attempts.add(1);
        let user = self.acting_as(user?, &incoming, &mut request)?;
        let (parts, body) = request.into_parts();
        self.observe(&incoming, &parts, noted);
        let (seat, watching) = match self.place(&incoming, &user, &parts, time, noted).await {
            Ok(place) => place,
            Err(retry_after) => {
                self.metrics.sent_away.add(1);
                return Ok(response::sent_away(retry_after));
            }
        };
        let Incoming { query, segments, path, verb, selected } = incoming;
        let segments = segments.ok_or_else(ApiError::no_such_path)?;
        let Some(path) = path else {
            self.authorize_path(&user, &parts.method, parts.uri.path())?;
            if let Some(backend) = self.aggregator.backend_of_path(&segments, |path| self.has_document(path)) {
                let is_discovery = segments.len() == 3;
                let shutdown = self.shutdown.clone();
                let passed = Passed { user, parts, body, is_watch: false, is_discovery, shutdown };
                return Ok(self.aggregator.pass_on(&backend, passed).await);
            }
            if let Some(served) = self.serve_own(&user, &segments, (&parts.method, &query)).await {
                return served;
            }
            return self.serve_path(&segments, &query, &parts).await;
        };
        let connect = Connect::of(&path);
        let target = target(&path, &query, selected.as_deref());
        self.authorize(&Attributes { user: &user, verb: verb.unwrap_or_default(), target }).await?;
        if parts.uri.path().starts_with("//") {
            return Ok(response::not_found_page());
        }
        let Some(verb) = verb else { return verbs::wrong_method(self, &path) };
        let is_read = matches!(verb, "get" | "list");
        let is_long = verb == "watch" || connect.is_some() || LONG_RUNNING.contains(&path.subresource.as_str());
        let series = noted.observed.series.clone();
        let mut call = Call { user, path, verb, query, parts, body, series, seat: None, watching };
        if is_long {
            call.seat = seat;
            return verbs::serve(self, call).await;
        }
        let _running = if is_read { &self.metrics.read_only } else { &self.metrics.mutating }.enter();
        let served = verbs::serve(self, call).await;
        drop(seat);
        served
    }

    /// Notes under which labels the request is counted.
    fn observe(&self, incoming: &Incoming, parts: &Parts, noted: &mut Noted) {
        noted.observed.series = match (&incoming.path, incoming.verb, &incoming.segments) {
            (Some(path), Some(verb), _) => {
                let key = resource_key(path, verb, &incoming.query, parts);
                self.metrics.request(&key, || self.is_served(path))
            }
            (None, _, Some(segments)) => {
                path_key(segments, &parts.method).and_then(|key| self.metrics.request(&key, || true))
            }
            _ => None,
        };
    }

    /// Waits for the request's turn, at most for a quarter of its time; `Err`: it is sent away for so many seconds.
    async fn place(
        &self,
        incoming: &Incoming,
        user: &UserInfo,
        parts: &Parts,
        time: Duration,
        noted: &mut Noted,
    ) -> Result<(Option<Seat>, Option<Watching>), u64> {
        // The components of this process are few and ours: only the network can flood us.
        if incoming.is_stream() || parts.extensions.get::<InProcess>().is_some() {
            return Ok((None, None));
        }
        let method = match parts.method {
            Method::GET | Method::HEAD => "get".to_owned(),
            ref other => other.as_str().to_ascii_lowercase(),
        };
        let asked = incoming.asked(user, &method, &parts.uri);
        let Some(classified) = self.flow.classify(&asked) else { return Ok((None, None)) };
        noted.belongs = Some(classified.belongs());
        let stored = || {
            let path = incoming.path.as_ref()?;
            let resource = self.registry.resource(&path.group, &path.version, &path.resource)?;
            let snapshot = resource.storage.snapshot();
            Some(Stored { objects: snapshot.objects.len() as u64, bytes: snapshot.bytes })
        };
        let patience = (time / 4).min(PATIENCE_MAX);
        let admitted = self.flow.admit(classified, &asked, &incoming.wanted(), stored, patience).await;
        let seat = admitted.map_err(|away| away.retry_after)?.into_seat();
        let is_watch = incoming.verb == Some("watch");
        let watching = if is_watch { self.flow.watching(&asked, node(&asked, incoming).as_deref()) } else { None };
        Ok((Some(seat), watching))
    }

    async fn authorize(&self, asked: &Attributes<'_>) -> Result<(), ApiError> {
        let answer = self.permit(asked);
        if answer.is_ok() || auth::node_of(asked.user).is_none() {
            return answer;
        }
        // What a node may do follows its pods: it may know of one that this server's cache is still to hear of.
        self.registry.fresh().await?;
        self.permit(asked)
    }

    /// The user as who the request is served: another one when its headers say so and the user may.
    fn acting_as(
        &self,
        user: UserInfo,
        incoming: &Incoming,
        request: &mut HttpRequest<Body>,
    ) -> Result<UserInfo, ApiError> {
        if request.extensions().get::<InProcess>().is_some() {
            return Ok(user);
        }
        let Some(impersonation) = Impersonation::asked(request.headers())? else { return Ok(user) };
        impersonate::strip(request.headers_mut());
        let method = request.method().as_str().to_ascii_lowercase();
        let (verb, target) = match &incoming.path {
            Some(path) => {
                (incoming.verb.unwrap_or_default(), target(path, &incoming.query, incoming.selected.as_deref()))
            }
            None => (method.as_str(), Target::Path(request.uri().path())),
        };
        let (figures, began) = (&self.metrics.impersonations, Instant::now());
        let ask = |asked: &Attributes<'_>| {
            let began = Instant::now();
            let decision = self.authorizer.decide(asked);
            figures.checked(asked.verb, decision.is_allowed(), began.elapsed());
            match decision {
                Decision::Allowed(_) => Ok(()),
                Decision::Refused { reason } => Err(asked.refusal(&reason)),
            }
        };
        let found = impersonation.user(&Attributes { user: &user, verb, target }, &ask, &self.impersonations);
        figures.attempted(found.as_ref().ok().map(|(_, mode)| *mode), began.elapsed());
        found.map(|(user, _)| user)
    }
}

/// What authorization is asked about; `selected`: the one object that it can only be about.
fn target<'r>(path: &'r ResourcePath, query: &'r Query, selected: Option<&'r str>) -> Target<'r> {
    Target::Resource {
        group: &path.group,
        resource: &path.resource,
        subresource: &path.subresource,
        namespace: &path.namespace,
        name: selected.unwrap_or(&path.name),
        field_selector: query.get("fieldSelector").unwrap_or_default(),
    }
}

/// The node whose pods are watched, where the watch says so.
fn node(asked: &Asked<'_>, incoming: &Incoming) -> Option<String> {
    let What::Resource { group: "", resource: "pods", .. } = asked.what else { return None };
    let selector = incoming.query.get("fieldSelector").filter(|selector| !selector.is_empty())?;
    FieldSelector::parse(selector).ok()?.exact("spec.nodeName").map(str::to_owned)
}

/// The one object that a request for a collection can only be about. A name in the path is what is served, whatever
/// the selector says besides; a selector is read as it will be read when the request is served.
fn selected_name(verb: &str, path: &ResourcePath, query: &Query) -> Option<String> {
    if !path.name.is_empty() || !matches!(verb, "list" | "watch" | "deletecollection") {
        return None;
    }
    let selector = query.get("fieldSelector").filter(|selector| !selector.is_empty())?;
    FieldSelector::parse(selector).ok()?.exact("metadata.name").map(str::to_owned)
}
