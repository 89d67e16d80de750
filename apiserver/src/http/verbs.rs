//! From a routed request to one verb of the registry, and from its answer to a response.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use http::StatusCode;
use http::request::Parts;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use reeve_api::selector::FieldSelector;
use tokio::sync::oneshot;

use super::encode::{self, Encoder};
use super::metrics::{Running, Series};
use super::negotiate::{self, Encoding, Offer};
use super::query::{self, Query};
use super::response::{self, Answer, Body as HttpBody, BoxError};
use super::reviews;
use super::route::{Connect, ResourcePath};
use super::token_request::TokenRequests;
use super::{Api, body, component_status, protobuf, web_socket};
use crate::aggregator::Passed;
use crate::flowcontrol::{Seat, Watching};
use crate::proxy;
use crate::registry::{
    Options, Registry, Request, Resource, Subresource, UserInfo, Warnings, Watch, WatchEvent, Written,
};
use crate::status::ApiError;

/// So many events are written together when they are ready together.
const EVENTS_PER_WRITE_MAX: usize = 128;

/// So long at most a watch keeps its seats: a client that reads what it begins with more slowly costs little at a time.
const SEAT_TIME_MAX: Duration = Duration::from_secs(1);

/// An authorized request for a resource.
pub(crate) struct Call {
    pub(crate) user: UserInfo,
    pub(crate) path: ResourcePath,
    pub(crate) verb: &'static str,
    pub(crate) query: Query,
    pub(crate) parts: Parts,
    pub(crate) body: HttpBody,
    /// Where the request is counted.
    pub(crate) series: Option<Arc<Series>>,
    /// The place of a watch, as long as it sends what it begins with.
    pub(crate) seat: Option<Seat>,
    /// A watch counts as long as it lives.
    pub(crate) watching: Option<Watching>,
}

/// What is behind the object's name.
enum PartOf {
    /// What the registry serves.
    Stored(Subresource),
    /// `pods/NAME/log`
    Log,
    /// `pods/NAME/exec`, `attach` and `portforward`
    Stream,
    /// `pods/NAME/proxy`, and of Services and nodes
    Proxy,
    /// `serviceaccounts/NAME/token`
    Token,
}

fn part_of(resource: &Resource, name: &str) -> Option<PartOf> {
    if name.is_empty() {
        return Some(PartOf::Stored(Subresource::None));
    }
    if let Some(stored) = resource.subresources().into_iter().find(|sub| sub.name() == name) {
        return Some(PartOf::Stored(stored));
    }
    match name {
        "log" if resource.is("", "pods") => Some(PartOf::Log),
        "exec" | "attach" | "portforward" if resource.is("", "pods") => Some(PartOf::Stream),
        "proxy" if ["pods", "services", "nodes"].iter().any(|plural| resource.is("", plural)) => Some(PartOf::Proxy),
        "token" if resource.is("", "serviceaccounts") => Some(PartOf::Token),
        _ => None,
    }
}

/// Answers a request for a resource.
pub(crate) async fn serve(api: &Api, call: Call) -> Result<Answer, ApiError> {
    let path = &call.path;
    if let Some(backend) = api.aggregator.backend(&path.group, &path.version) {
        let (user, is_watch, shutdown) = (call.user, call.verb == "watch", api.shutdown.clone());
        let passed = Passed { user, parts: call.parts, body: call.body, is_watch, is_discovery: false, shutdown };
        return Ok(api.aggregator.pass_on(&backend, passed).await);
    }
    if let Some(review) = api.reviews.find(&path.group, &path.version, &path.resource) {
        return reviews::serve(api, call, review).await;
    }
    if component_status::is_meant(path) {
        return component_status::serve(api, call).await;
    }
    if (path.group.as_str(), path.version.as_str(), path.resource.as_str()) == ("", "v1", "bindings") {
        return bind(api, call).await;
    }
    let Some(resource) = api.registry.resource(&path.group, &path.version, &path.resource) else {
        return api.nothing_there(Some(&path.group).filter(|group| !group.is_empty()).map(String::as_str));
    };
    let namespaced = resource.names().namespaced;
    let is_longer = path.is_longer && Connect::of(path) != Some(Connect::Proxy);
    if is_longer || (namespaced && path.namespace.is_empty() && !path.name.is_empty()) {
        return Err(ApiError::no_such_path());
    }
    // Only a Namespace's own path has a namespace in it: its name.
    let own_path = resource.is("", "namespaces") && path.namespace == path.name;
    if !namespaced && !path.namespace.is_empty() && !own_path {
        return Err(ApiError::no_such_path());
    }
    check_name(&path.name)?;
    let part = part_of(&resource, &path.subresource).ok_or_else(ApiError::no_such_path)?;
    let request = request(&call, resource, &part)?;
    let warnings = request.warnings.clone();
    let is_stored = matches!(part, PartOf::Stored(_));
    let deprecation = request.resource.kind.deprecation().filter(|_| is_stored);
    let answered = match part {
        PartOf::Stored(_) => {
            // Which verbs there are is said by the paths of Kubernetes, before any kind is asked.
            let served = stored(api, call, request).await;
            served.map_err(|error| if error.code == 405 { ApiError::method_not_allowed() } else { error })
        }
        PartOf::Log => log(api, call, &request).await,
        PartOf::Stream => {
            let may_create = may_connect(api, &request, &call);
            api.nodes.stream(&api.registry, &request, call, may_create).await
        }
        PartOf::Proxy => proxy::answer(&api.nodes, &api.registry, request, call).await,
        PartOf::Token => token(api, call, request).await,
    };
    let warnings = warnings.take();
    match answered {
        Ok(mut answer) => {
            response::warn(&mut answer, &warnings);
            response::warn_first(&mut answer, deprecation);
            Ok(answer)
        }
        Err(error) => {
            let warnings = deprecation.map(str::to_owned).into_iter().chain(warnings).collect();
            Err(ApiError { warnings, ..error })
        }
    }
}

/// Answers a method that has no meaning for any resource: what there is does not take it.
pub(crate) fn wrong_method(api: &Api, path: &ResourcePath) -> Result<Answer, ApiError> {
    let (group, version, plural) = (path.group.as_str(), path.version.as_str(), path.resource.as_str());
    let is_whole = path.name.is_empty() && !path.is_longer;
    if api.reviews.find(group, version, plural).is_some() || (group, version, plural) == ("", "v1", "bindings") {
        return Err(if is_whole { ApiError::method_not_allowed() } else { ApiError::no_such_path() });
    }
    if component_status::is_meant(path) {
        return Err(ApiError::method_not_allowed());
    }
    let Some(resource) = api.registry.resource(group, version, plural) else {
        return api.nothing_there(Some(group).filter(|group| !group.is_empty()));
    };
    let is_there = !path.is_longer && part_of(&resource, &path.subresource).is_some();
    Err(if is_there { ApiError::method_not_allowed() } else { ApiError::no_such_path() })
}

/// Whether the user may create what a connection is made to: to be allowed the method is not enough. Source:
/// `ensureAuthorizedForVerb` in `pkg/registry/core/pod/rest` (feature `AuthorizePodWebsocketUpgradeCreatePermission`).
fn may_connect(api: &Api, request: &Request, call: &Call) -> Result<(), ApiError> {
    if call.verb == "create" {
        return Ok(());
    }
    let refused = |reason: String| ApiError::forbidden(request.resource.names(), &request.name, &reason);
    api.decide_create(&call.user, &call.path).map_err(refused)
}

/// Refuses names that would be another path.
fn check_name(name: &str) -> Result<(), ApiError> {
    let why = match name {
        "." | ".." => format!("may not be '{name}'"),
        // Kubernetes takes an escaped slash for one, and what stands behind it for a subresource.
        _ if name.contains('/') => return Err(ApiError::no_such_path()),
        _ if name.contains('%') => "may not contain '%'".to_owned(),
        _ => return Ok(()),
    };
    Err(ApiError::bad_request(format!("Name parameter invalid: \"{name}\": {why}")))
}

fn request(call: &Call, resource: Arc<Resource>, part: &PartOf) -> Result<Request, ApiError> {
    let subresource = match part {
        PartOf::Stored(subresource) => *subresource,
        PartOf::Log | PartOf::Stream | PartOf::Proxy | PartOf::Token => Subresource::None,
    };
    let namespaced = resource.names().namespaced;
    // The query of a proxied request is not for us.
    let is_ours = !matches!(part, PartOf::Proxy);
    let mut options = if is_ours { query::options(&call.query, call.verb)? } else { Options::default() };
    options.client = query::client_of(&call.parts.headers);
    Ok(Request {
        user: call.user.clone(),
        namespace: if namespaced { call.path.namespace.clone() } else { String::new() },
        name: call.path.name.clone(),
        options,
        resource,
        subresource,
        warnings: Warnings::default(),
    })
}

/// `POST …/bindings`: the old way to say which node a pod goes to; the body names the pod.
async fn bind(api: &Api, mut call: Call) -> Result<Answer, ApiError> {
    let pods = api.registry.resource("", "v1", "pods").ok_or_else(ApiError::no_such_path)?.clone();
    if call.path.is_longer || !call.path.name.is_empty() || call.path.namespace.is_empty() {
        return Err(ApiError::no_such_path());
    }
    if call.verb != "create" {
        return Err(ApiError::method_not_allowed());
    }
    let sent = std::mem::replace(&mut call.body, response::full(""));
    let body = body::object(&call.parts.headers, &body::read(sent).await?, "Binding")?;
    call.path.name = body.value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if call.path.name.is_empty() {
        return Err(ApiError::bad_request("Name parameter required."));
    }
    let request = request(&call, Arc::clone(&pods), &PartOf::Stored(Subresource::Binding))?;
    let format = negotiate::format(&call.parts.headers, &call.query, offer(&request))?;
    let encoder = Encoder { resource: &pods, format, now: api.clock.now() };
    let mut answer = written(&encoder, &request, &api.registry.create(&request, body).await?).await?;
    response::warn(&mut answer, &request.warnings.take());
    Ok(answer)
}

async fn stored(api: &Api, mut call: Call, mut request: Request) -> Result<Answer, ApiError> {
    let resource = Arc::clone(&request.resource);
    negotiate::check_media_types(&call.parts.headers, matches!(call.verb, "list" | "watch"))?;
    let offer = offer(&request);
    let format = negotiate::format(&call.parts.headers, &call.query, offer)?;
    let encoder = Encoder { resource: &resource, format, now: api.clock.now() };
    match call.verb {
        "get" => show(&encoder, &request, StatusCode::OK, &api.registry.get(&request).await?).await,
        "list" => encoder.list(api.registry.list(&request).await?).await,
        "watch" => {
            let format = negotiate::stream_format(&call.parts.headers, &call.query, offer)?;
            let held = Held { running: call.series.map(Running::begin), watching: call.watching, seat: call.seat };
            let asked = web_socket::Asked::take(&mut call.parts);
            watch(api, request, format, held, asked).await
        }
        "create" => {
            let is_stored = request.subresource == Subresource::None;
            let lacks_namespace = resource.names().namespaced && request.namespace.is_empty();
            if is_stored != request.name.is_empty() || lacks_namespace {
                return Err(ApiError::method_not_supported(resource.names(), "create"));
            }
            let body = read_object(&request, call).await?;
            written(&encoder, &request, &api.registry.create(&request, body).await?).await
        }
        "update" if !request.name.is_empty() => {
            if resource.kind.create_on_update() {
                request.options.create_refusal = api.may_create(&call.user, &call.path).err().map(Box::new);
            }
            let body = read_object(&request, call).await?;
            written(&encoder, &request, &api.registry.update(&request, body).await?).await
        }
        "patch" if !request.name.is_empty() => {
            let strategic = resource.kind.patch_schema().is_some();
            let is_apply = body::is_apply(&call.parts.headers);
            body::check_patch_type(&call.parts.headers, strategic)?;
            prepare_patch(api, &call, &mut request)?;
            let decoded = body::patch(&call.parts.headers, &body::read(call.body).await?, strategic);
            if decoded.is_err() && !is_apply {
                // That there is no such object is told first.
                api.registry.get(&request).await?;
            }
            let patch = decoded?;
            written(&encoder, &request, &api.registry.patch(&request, patch).await?).await
        }
        "delete" | "deletecollection" if request.subresource == Subresource::None => {
            read_delete_options(&mut request, call).await?;
            delete(api, &encoder, &request).await
        }
        verb => Err(ApiError::method_not_supported(resource.names(), verb)),
    }
}

/// Checks the options of a patch. An apply may create the object: whether the user may, is asked before.
fn prepare_patch(api: &Api, call: &Call, request: &mut Request) -> Result<(), ApiError> {
    let is_apply = body::is_apply(&call.parts.headers);
    query::patch_options(&request.options, is_apply)?;
    if is_apply {
        request.options.create_refusal = api.may_create(&call.user, &call.path).err().map(Box::new);
    }
    Ok(())
}

async fn delete(api: &Api, encoder: &Encoder<'_>, request: &Request) -> Result<Answer, ApiError> {
    let names = request.resource.names();
    if !request.name.is_empty() {
        let gone = api.registry.delete(request).await?;
        let mut answer = written(encoder, request, &gone).await?;
        // Only those who ask in the old way are told by the code that it takes time.
        if request.options.orphan_dependents == Some(false) && Registry::is_still_there(request, &gone) {
            *answer.status_mut() = StatusCode::ACCEPTED;
        }
        return Ok(answer);
    }
    if !crate::auth::verbs(names).contains(&"deletecollection") {
        return Err(ApiError::method_not_supported(names, "deletecollection"));
    }
    request.warnings.add_all(&Registry::deletion_warnings(request));
    encoder.list(api.registry.delete_collection(request).await?).await
}

/// The kind that a body must be.
fn request_kind(request: &Request) -> &'static str {
    match request.subresource {
        Subresource::Scale => "Scale",
        Subresource::Binding => "Binding",
        Subresource::Eviction => "Eviction",
        _ => request.resource.names().kind,
    }
}

async fn read_object(request: &Request, call: Call) -> Result<crate::registry::Body, ApiError> {
    body::object(&call.parts.headers, &body::read(call.body).await?, request_kind(request))
}

async fn read_delete_options(request: &mut Request, call: Call) -> Result<(), ApiError> {
    let bytes = body::read(call.body).await?;
    if bytes.is_empty() {
        return request.options.set_delete_query(call.query.pairs());
    }
    let options = body::object(&call.parts.headers, &bytes, "DeleteOptions")?;
    request.options.set_delete_body(&options.value)
}

/// What can be answered about the objects of a request.
fn offer(request: &Request) -> negotiate::Offer {
    let names = request.resource.names();
    let protobuf = protobuf::has(&names.api_version(), names.kind);
    let is_object = request.subresource != Subresource::Binding;
    negotiate::Offer { protobuf, table: is_object, metadata: is_object }
}

/// A scale has no table and no metadata of its own: it is always shown whole.
async fn show(
    encoder: &Encoder<'_>,
    request: &Request,
    code: StatusCode,
    object: &crate::registry::Object,
) -> Result<Answer, ApiError> {
    match request.subresource {
        Subresource::Scale | Subresource::Binding => encoder.value(code, &object.value()).await,
        _ => encoder.object(code, object).await,
    }
}

async fn written(encoder: &Encoder<'_>, request: &Request, written: &Written) -> Result<Answer, ApiError> {
    let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
    let answer = if written.is_status {
        encoder.value(code, &written.object.value()).await?
    } else {
        show(encoder, request, code, &written.object).await?
    };
    // They are told with those that have come up before; what is there already is not told again.
    request.warnings.add_all(&written.warnings);
    Ok(answer)
}

async fn watch(
    api: &Api,
    mut request: Request,
    format: negotiate::Format,
    held: Held,
    asked: Option<web_socket::Asked>,
) -> Result<Answer, ApiError> {
    if !request.name.is_empty() {
        let selector = FieldSelector::parse(&request.options.field_selector);
        let selected = selector.as_ref().map_or(Some(request.name.as_str()), |fields| fields.exact("metadata.name"));
        if !request.options.field_selector.is_empty() && selected != Some(request.name.as_str()) {
            return Err(ApiError::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        // Escaped: a name must not become a second term, nor swallow what stands behind it.
        let name = request.name.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
        let own = format!("metadata.name={name}");
        let selector = std::mem::take(&mut request.options.field_selector);
        request.options.field_selector = if selector.is_empty() { own } else { format!("{own},{selector}") };
        request.name.clear();
    }
    let body = match api.registry.watch(&request).await {
        Ok(events) => {
            let at_once = if asked.is_some() { 1 } else { EVENTS_PER_WRITE_MAX };
            stream(api, events, request.resource, format, held, at_once)
        }
        // Once the request is understood, a state that is gone or not there yet is told in the stream.
        Err(error) if matches!(error.code, 410 | 504) => {
            let mut text = Vec::new();
            encode::error_event(&error, format.encoding, &mut text);
            response::full(text)
        }
        Err(error) => return Err(error),
    };
    let (media_type, content) = match format.encoding {
        Encoding::Protobuf => ("application/vnd.kubernetes.protobuf;stream=watch", web_socket::Content::BinaryEvents),
        _ => (response::JSON, web_socket::Content::TextEvents),
    };
    api.web_sockets.carry(asked, content, response::answer(StatusCode::OK, media_type, body))
}

/// `pods/NAME/log`
async fn log(api: &Api, mut call: Call, request: &Request) -> Result<Answer, ApiError> {
    let asked = web_socket::Asked::take(&mut call.parts);
    let answer = api.nodes.log(&api.registry, request, &call.query).await?;
    api.web_sockets.carry(asked, web_socket::Content::Bytes, answer)
}

/// What a watch holds.
struct Held {
    running: Option<Running>,
    watching: Option<Watching>,
    seat: Option<Seat>,
}

/// The events; the seat is given back as soon as there are none at hand, or when the client has not read them in time.
fn until_quiet(events: Watch, seat: Option<Seat>) -> impl Stream<Item = Result<WatchEvent, ApiError>> + Send {
    let (quiet, is_quiet) = oneshot::channel::<()>();
    if let Some(seat) = seat {
        tokio::spawn(async move {
            let _ = tokio::time::timeout(SEAT_TIME_MAX, is_quiet).await;
            drop(seat);
        });
    }
    let (mut events, mut quiet) = (Box::pin(events), Some(quiet));
    futures::stream::poll_fn(move |context| {
        let next = events.as_mut().poll_next(context);
        if !matches!(next, Poll::Ready(Some(_))) {
            drop(quiet.take());
        }
        next
    })
}

/// Events as lines or frames, `at_once` at most in one piece; ends with the watch or when the server shuts down.
fn stream(
    api: &Api,
    events: Watch,
    resource: Arc<Resource>,
    format: negotiate::Format,
    held: Held,
    at_once: usize,
) -> HttpBody {
    let Held { running, watching, seat } = held;
    let events = until_quiet(events, seat);
    let (clock, shared) = (Arc::clone(&api.clock), Arc::clone(&api.protobuf));
    let names = resource.names();
    let counted = api.metrics.watch(names.group, names.version, names.plural);
    let mut is_first = true;
    let frames = events.ready_chunks(at_once).map(move |events| {
        // Counted as running as long as the stream is not dropped.
        let _ = (&running, &watching);
        let mut text = Vec::new();
        let encoder = Encoder { resource: &resource, format, now: clock.now() };
        for event in &events {
            let before = text.len();
            let written = match event {
                Ok(event) => encoder.event(event, is_first, &shared, &mut text),
                Err(error) => Err(error.clone()),
            };
            match written {
                Ok(()) => is_first = false,
                Err(error) => encode::error_event(&error, format.encoding, &mut text),
            }
            if let Some(counted) = &counted {
                counted.sent(text.len() - before);
            }
        }
        Ok::<_, BoxError>(Frame::data(text.into()))
    });
    StreamBody::new(frames.take_until(api.shutdown.clone().cancelled_owned())).boxed_unsync()
}

async fn token(api: &Api, call: Call, request: Request) -> Result<Answer, ApiError> {
    if call.verb != "create" {
        return Err(ApiError::method_not_allowed());
    }
    let format = negotiate::format(&call.parts.headers, &call.query, Offer::PLAIN)?;
    let body = body::object(&call.parts.headers, &body::read(call.body).await?, "TokenRequest")?;
    let requests = TokenRequests { registry: &api.registry, key: &api.token_key, rng: &api.rng, now: api.clock.now() };
    let answer = requests.answer(&request, body).await?;
    Ok(encode::value_as(StatusCode::CREATED, &answer, format.encoding))
}
