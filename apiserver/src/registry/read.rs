//! Get and list: what `resourceVersion`, `limit` and `continue` mean.
//!
//! Source: "Efficient detection of changes" and "Retrieving large results sets in chunks" of the Kubernetes API
//! concepts.

use bytes::Bytes;
use reeve_store::{KeyRange, KvError, RangeRequest, Revision};
use serde_json::Value;
use tokio::time::Instant;

use super::answer::{List, Object};
use super::page::Token;
use super::request::{Options, Request, Subresource, VersionMatch};
use super::{Registry, encode, meta, scale};
use crate::cache::{Filter, Lazy, Snapshot, StoreCall};
use crate::status::ApiError;

/// Most keys read from the store at once for one page.
const CHUNK_LEN_MAX: usize = 500;

/// The state a list is to show.
enum At {
    /// The newest there is.
    Newest,
    /// This one or a newer one.
    NotOlderThan(Revision),
    /// Exactly this one.
    Exact(Revision),
}

impl Registry {
    pub(super) async fn get_object(&self, request: &Request) -> Result<Object, ApiError> {
        match request.subresource {
            Subresource::None | Subresource::Part(_) => {}
            Subresource::Scale => return scale::read(request, &self.current_shown(request).await?),
            Subresource::Binding | Subresource::Eviction | Subresource::Finalize => {
                return Err(ApiError::method_not_supported(request.resource.names(), "get"));
            }
        }
        match parse_version(&request.options.resource_version)? {
            None => self.current_shown(request).await,
            Some(revision) => {
                self.cache.reach(revision).await?;
                let key = self.cache_key(request, &request.name);
                let found = request.resource.storage.get(key.as_bytes());
                let found = found.ok_or_else(|| ApiError::not_found(request.resource.names(), &request.name))?;
                request.resource.shown(found).await
            }
        }
    }

    pub(super) async fn list_objects(&self, request: &Request) -> Result<List, ApiError> {
        let filter = Filter::new(request)?;
        let options = &request.options;
        // From whatever the cache has, the whole list is as good as a page.
        let limit = if options.resource_version == "0" { 0 } else { options.limit };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if filter.looks_at_shown() {
            return self.list_shown(request, &filter, limit).await;
        }
        let list = self.list_stored(request, &filter, limit).await?;
        let items = request.resource.shown_all(list.items).await?;
        Ok(List { items, ..list })
    }

    /// A list of which only the converted objects tell whether they belong to it.
    async fn list_shown(&self, request: &Request, filter: &Filter, limit: usize) -> Result<List, ApiError> {
        let list = self.list_stored(request, filter, 0).await?;
        let mut items = request.resource.shown_all(list.items).await?;
        items.retain(|object| filter.matches_shown(object));
        let mut continue_token = String::new();
        if limit > 0 && items.len() > limit {
            items.truncate(limit);
            let last = items.last().map(Object::value).unwrap_or_default();
            let of = |field| meta::text(&last, field);
            let key = request.resource.cache_key(of("namespace"), of("name"));
            continue_token = Page { filter, start: b"", limit }.token(list.revision, key.as_bytes());
        }
        Ok(List { items, continue_token, remaining: None, revision: list.revision })
    }

    /// A page of stored objects; `limit` 0 is all of them.
    async fn list_stored(&self, request: &Request, filter: &Filter, limit: usize) -> Result<List, ApiError> {
        let options = &request.options;
        let (at, start) = if options.continue_token.is_empty() {
            (wanted_state(options)?, String::new())
        } else {
            resume(options, filter)?
        };
        let page = Page { filter, start: start.as_bytes(), limit };
        match at {
            At::Newest => self.cache.fresh().await?,
            At::NotOlderThan(revision) => self.cache.reach(revision).await?,
            At::Exact(revision) => return self.list_at(request, revision, &page).await,
        }
        let (snapshot, revision) = self.cache.snapshot(&request.resource.storage);
        let list = page.cut(&snapshot, revision);
        let figures = &request.resource.storage.figures;
        figures.lists.add(1);
        figures.returned.add(list.items.len() as u64);
        Ok(list)
    }

    /// A list of an exact revision: from the cache when nothing has changed since, else from the store's history.
    async fn list_at(&self, request: &Request, revision: Revision, page: &Page<'_>) -> Result<List, ApiError> {
        self.cache.reach(revision).await.map_err(|mut error| {
            // Such a state does not come by waiting, if it is not there by now.
            error.details.iter_mut().for_each(|details| details.retry_after_seconds = 0);
            error
        })?;
        let snapshot = request.resource.storage.snapshot();
        if snapshot.revision <= revision {
            return Ok(page.cut(&snapshot, revision));
        }
        let mut objects = imbl::OrdMap::new();
        let prefix = request.resource.prefix();
        let (mut start, end) = (page.first_key(prefix), page.end_key(prefix));
        let calls = &request.resource.storage.figures.calls;
        // How many there are from here on, where that is told.
        let mut all = None;
        loop {
            let range = KeyRange::Span { start: start.clone(), end: end.clone() };
            let uncounted = all.is_some() || page.limit == 0 || !page.filter.is_everything();
            let chunk = RangeRequest { limit: CHUNK_LEN_MAX, uncounted, ..RangeRequest::new(range) };
            let read = RangeRequest { revision: Some(revision), ..chunk };
            let began = Instant::now();
            let answer = self.kv.range(read).await;
            calls.answered(StoreCall::List, began.elapsed(), answer.is_err());
            let found = answer.map_err(|error| history_error(&error, request, page))?;
            if !uncounted {
                all = Some(found.count);
            }
            let Some(last) = found.kvs.last() else { break };
            start = [&last.key[..], b"\0"].concat().into();
            for kv in found.kvs {
                let key = kv.key.slice(prefix.len()..);
                let object = request.resource.storage.ingested(encode::sent(&kv.value, kv.mod_revision));
                if page.filter.matches(&key, &Lazy::new(&object)) {
                    objects.insert(key, object);
                }
            }
            // One more than the page, so that it is known whether there is a next one.
            if !found.more || (page.limit > 0 && objects.len() > page.limit) {
                break;
            }
        }
        let mut list = page.cut(&Snapshot { revision, objects, bytes: 0 }, revision);
        // Not all of the rest has been read.
        list.remaining = all.filter(|_| !list.continue_token.is_empty()).map(|all| (all - page.limit.min(all)) as u64);
        Ok(list)
    }
}

struct Page<'f> {
    filter: &'f Filter,
    start: &'f [u8],
    limit: usize,
}

impl Page<'_> {
    fn first_key(&self, prefix: &Bytes) -> Bytes {
        [&prefix[..], self.start.max(self.filter.scope().as_bytes())].concat().into()
    }

    fn end_key(&self, prefix: &Bytes) -> Bytes {
        let all = [&prefix[..], self.filter.scope().as_bytes()].concat();
        reeve_store::kv::prefix_end(&all).unwrap_or_default()
    }

    /// The page out of a snapshot.
    fn cut(&self, snapshot: &Snapshot, revision: Revision) -> List {
        let mut list = List { revision, continue_token: String::new(), remaining: None, items: Vec::new() };
        if let Some(key) = self.filter.only_key() {
            let found = snapshot.objects.get(key.as_bytes());
            list.items.extend(found.filter(|object| self.filter.matches(key.as_bytes(), &Lazy::new(object))).cloned());
            return list;
        }
        let matches = |key: &Bytes, object: &Object| self.filter.matches(key, &Lazy::new(object));
        let mut all = snapshot.scan(self.filter.scope(), self.start);
        if self.limit == 0 {
            list.items.extend(all.filter(|(key, object)| matches(key, object)).map(|(_, object)| object.clone()));
            return list;
        }
        let mut last: &[u8] = b"";
        for (key, object) in all.by_ref().filter(|(key, object)| matches(key, object)).take(self.limit) {
            last = key;
            list.items.push(object.clone());
        }
        // As in Kubernetes, what follows is only known to be there, not to match.
        if list.items.len() == self.limit && all.next().is_some() {
            list.continue_token = self.token(revision, last);
            list.remaining = self.filter.is_everything().then(|| 1 + all.count() as u64);
        }
        list
    }

    /// The token for the page behind `last`.
    fn token(&self, revision: Revision, last: &[u8]) -> String {
        Token::after(revision, last.strip_prefix(self.filter.scope().as_bytes()).unwrap_or(last)).encode()
    }
}

/// Where a list goes on, and in which state.
fn resume(options: &Options, filter: &Filter) -> Result<(At, String), ApiError> {
    let token = Token::decode(&options.continue_token)
        .map_err(|why| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}")))?;
    if !matches!(options.resource_version.as_str(), "" | "0") {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    let start = format!("{}{}", filter.scope(), token.start);
    Ok((token.revision.map_or(At::Newest, At::Exact), start))
}

fn wanted_state(options: &Options) -> Result<At, ApiError> {
    let revision = parse_version(&options.resource_version);
    let revision =
        revision.map_err(|error| ApiError::bad_request(format!("invalid resource version: {}", error.message)))?;
    let Some(revision) = revision else {
        return match options.version_match {
            None => Ok(At::Newest),
            Some(_) => Err(bad_list_options("resourceVersionMatch is forbidden unless resourceVersion is provided")),
        };
    };
    match options.version_match {
        Some(VersionMatch::Exact) if revision.0 == 0 => {
            Err(bad_list_options("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""))
        }
        Some(VersionMatch::Exact) => Ok(At::Exact(revision)),
        None if options.limit > 0 && revision.0 > 0 => Ok(At::Exact(revision)),
        _ => Ok(At::NotOlderThan(revision)),
    }
}

fn bad_list_options(why: &str) -> ApiError {
    use reeve_kinds::field::{FieldError, FieldErrorKind};
    let error = FieldError::new(FieldErrorKind::Forbidden, "resourceVersionMatch", Value::Null, why);
    ApiError::invalid_kind("ListOptions", "meta.k8s.io", "", &[error])
}

/// `None` when it is not set. An error that Kubernetes' storage gives and nobody translates.
pub(super) fn parse_version(text: &str) -> Result<Option<Revision>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let why = if is_number { "value out of range" } else { "invalid syntax" };
    let number = text.parse().ok().filter(|_| is_number);
    number.map(|number| Some(Revision(number))).ok_or_else(|| {
        let reading = format!("strconv.ParseUint: parsing {text:?}: {why}");
        ApiError::unknown(format!("resourceVersion: Invalid value: {text:?}: {reading}"))
    })
}

/// What a client is told whose revision is gone: with a `continue` token it may go on, inconsistently.
fn history_error(error: &KvError, request: &Request, page: &Page<'_>) -> ApiError {
    let KvError::Compacted { .. } = error else { return ApiError::store(error) };
    if request.options.continue_token.is_empty() {
        return ApiError::expired("The resourceVersion for the provided list is too old.");
    }
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a \
                   new list without the continue parameter, or use the continue token in this response to retrieve \
                   the remainder of the results. Continuing with the provided token results in an inconsistent list \
                   - objects that were created, modified, or deleted between the time the first chunk was returned \
                   and now may show up in the list.";
    let start = page.start.strip_prefix(page.filter.scope().as_bytes()).unwrap_or(page.start);
    let token = Token { revision: None, start: String::from_utf8_lossy(start).into_owned() };
    ApiError { continue_token: token.encode(), ..ApiError::expired(message) }
}
