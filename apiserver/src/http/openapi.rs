//! `/openapi/v3`: the index, and one document per group version; `/openapi/v2`: one document of all of them.
//!
//! The documents are large and seldom asked for: each is made at the first request and kept compressed. The hash
//! in a document's address lets clients keep it for ever.
//!
//! Source: Kubernetes, "The Kubernetes API", section "OpenAPI V3".

mod v2_protobuf;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read as _;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, HeaderMap, IF_NONE_MATCH, LOCATION, VARY,
};
use reeve_kinds::Kind;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha512};

use super::encode::gzip;
use super::negotiate::{self, takes_gzip};
use super::query::Query;
use super::response::{self, Answer, BoxError, full};
use crate::aggregator::{Swagger, swagger};
use crate::status::ApiError;

/// Media type of a protobuf `openapi.v2.Document`, and the older one that clients ask with. An answer must not bear
/// the older one: it is no media type, and client-go parses what the answer says.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V2_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// A document, packed.
struct Packed {
    bytes: Bytes,
    hash: String,
}

/// All documents, by the path below `/openapi/v3/`.
pub(crate) struct OpenApi {
    documents: BTreeMap<String, Arc<Entry>>,
    /// The document of version 2.
    v2: ArcSwap<V2>,
}

/// A document of version 2, as JSON and as protobuf.
#[derive(Default)]
struct V2 {
    /// What other servers add.
    others: Vec<Arc<Swagger>>,
    packed: [OnceLock<Packed>; 2],
}

impl V2 {
    fn is_of(&self, others: &[Arc<Swagger>]) -> bool {
        self.others.len() == others.len() && self.others.iter().zip(others).all(|(own, other)| Arc::ptr_eq(own, other))
    }
}

struct Entry {
    about: About,
    packed: OnceLock<Packed>,
}

/// What a document describes.
enum About {
    /// A group and version, with its kinds.
    Version(&'static str, &'static str, Vec<Arc<dyn Kind>>),
    /// What tells what there is, by the path of the document.
    Listing(String),
}

impl Entry {
    fn new(about: About) -> Arc<Self> {
        Arc::new(Self { about, packed: OnceLock::new() })
    }

    /// Whether the document describes exactly these kinds.
    fn describes(&self, kinds: &[Arc<dyn Kind>]) -> bool {
        let About::Version(_, _, own) = &self.about else { return false };
        own.len() == kinds.len() && own.iter().zip(kinds).all(|(own, other)| Arc::ptr_eq(own, other))
    }
}

/// The groups that have documents of their own: those that Kubernetes brings with it.
fn listed_groups<'v>(versions: &'v [(&'static str, &'static str)]) -> impl Iterator<Item = &'v str> {
    let reviews = reeve_kinds::reviews().iter().map(|kind| kind.names().group);
    let own: HashSet<&str> = reeve_kinds::builtin().iter().map(|kind| kind.names().group).chain(reviews).collect();
    versions.iter().map(|(group, _)| *group).filter(move |group| own.contains(group))
}

/// There is no such document, and nothing more to say.
pub(crate) fn nothing() -> Answer {
    let mut answer = response::answer(StatusCode::NOT_FOUND, response::JSON, full(Bytes::new()));
    answer.headers_mut().remove(CONTENT_TYPE);
    answer
}

impl OpenApi {
    /// For these group versions of these kinds. What `before` has of the same kinds is not made again.
    pub(crate) fn new(
        versions: impl Iterator<Item = (&'static str, &'static str)>,
        kinds: Vec<Arc<dyn Kind>>,
        before: Option<&Self>,
    ) -> Self {
        let mut by_version: HashMap<(&str, &str), Vec<Arc<dyn Kind>>> = HashMap::new();
        for kind in kinds {
            let names = kind.names();
            by_version.entry((names.group, names.version)).or_default().push(kind);
        }
        let document = |(group, version): (&'static str, &'static str)| {
            let path = if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let kinds = by_version.remove(&(group, version)).unwrap_or_default();
            let known = before.and_then(|before| before.documents.get(&path)).filter(|known| known.describes(&kinds));
            let known = known.map(Arc::clone);
            (path, known.unwrap_or_else(|| Entry::new(About::Version(group, version, kinds))))
        };
        let versions: Vec<(&'static str, &'static str)> = versions.collect();
        let listings = reeve_kinds::openapi::listings(listed_groups(&versions)).into_iter().map(|path| {
            let known = before.and_then(|before| before.documents.get(&path)).map(Arc::clone);
            (path.clone(), known.unwrap_or_else(|| Entry::new(About::Listing(path))))
        });
        let listings: Vec<_> = listings.collect();
        Self { documents: versions.into_iter().map(document).chain(listings).collect(), v2: ArcSwap::default() }
    }

    /// Whether there is a document of that path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.documents.contains_key(path)
    }

    /// The index: where each document is, by its hash; `others` are entries of other servers. Makes all documents: off
    /// the async threads.
    pub(crate) fn index(&self, others: BTreeMap<String, Value>) -> Result<Answer, ApiError> {
        let mut paths: Map<String, Value> = others.into_iter().collect();
        for (path, entry) in &self.documents {
            let hash = &Self::packed(entry)?.hash;
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
        }
        Ok(response::json(StatusCode::OK, &json!({"paths": paths})))
    }

    /// One document. Makes it when it is the first request: off the async threads.
    pub(crate) fn document(&self, path: &str, query: &Query, headers: &HeaderMap) -> Result<Answer, ApiError> {
        let Some(entry) = self.documents.get(path) else {
            return Ok(nothing());
        };
        if !negotiate::accepted(headers).iter().any(|range| range.takes("application/json")) {
            return Err(ApiError::new(
                406,
                "NotAcceptable",
                "only the following media types are accepted: application/json",
            ));
        }
        let packed = Self::packed(entry)?;
        let etag = format!("\"{}\"", packed.hash);
        if headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()) == Some(etag.as_str()) {
            return Ok(response::answer(StatusCode::NOT_MODIFIED, response::JSON, full(Bytes::new())));
        }
        let asked = query.get("hash").filter(|hash| !hash.is_empty());
        if asked.is_some_and(|hash| hash != packed.hash) {
            let mut moved = response::answer(StatusCode::MOVED_PERMANENTLY, response::JSON, full(Bytes::new()));
            response::set(&mut moved, LOCATION, &format!("/openapi/v3/{path}?hash={}", packed.hash));
            return Ok(moved);
        }
        let mut answer = packed.answer(takes_gzip(headers), response::JSON).map_err(ApiError::internal)?;
        response::set(&mut answer, ETAG, &etag);
        response::set(&mut answer, VARY, "Accept-Encoding, Accept");
        if asked.is_some() {
            response::set(&mut answer, CACHE_CONTROL, "public, immutable");
            response::set(&mut answer, EXPIRES, "Thu, 31 Dec 2099 23:59:59 GMT");
        }
        Ok(answer)
    }

    /// The document of `/openapi/v2`, with what other servers add. Makes it when it is the first request: off the async
    /// threads.
    pub(crate) fn v2(&self, headers: &HeaderMap, others: Vec<Arc<Swagger>>) -> Result<Answer, ApiError> {
        let in_protobuf = |range: &negotiate::MediaRange<'_>| {
            let takes = |media_type| range.takes(media_type) && !range.takes("application/json");
            match (takes(V2_PROTOBUF) || takes(V2_PROTOBUF_OLD), range.takes("application/json")) {
                (true, _) => Some(true),
                (false, true) => Some(false),
                (false, false) => None,
            }
        };
        let message = || ApiError::not_acceptable(&format!("application/json, {V2_PROTOBUF}"));
        let protobuf = negotiate::accepted(headers).iter().find_map(in_protobuf).ok_or_else(message)?;
        let mut v2 = self.v2.load_full();
        if !v2.is_of(&others) {
            v2 = Arc::new(V2 { others, ..V2::default() });
            self.v2.store(Arc::clone(&v2));
        }
        let packed = self.packed_v2(&v2, protobuf)?;
        let media_type = if protobuf { V2_PROTOBUF } else { response::JSON };
        let etag = format!("\"{}\"", packed.hash);
        let mut answer = if headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok()) == Some(etag.as_str()) {
            response::answer(StatusCode::NOT_MODIFIED, media_type, full(Bytes::new()))
        } else {
            packed.answer(takes_gzip(headers), media_type).map_err(ApiError::internal)?
        };
        response::set(&mut answer, ETAG, &etag);
        response::set(&mut answer, VARY, "Accept-Encoding, Accept");
        Ok(answer)
    }

    fn packed_v2<'p>(&self, v2: &'p V2, protobuf: bool) -> Result<&'p Packed, ApiError> {
        let [json, binary] = &v2.packed;
        let place = if protobuf { binary } else { json };
        if let Some(packed) = place.get() {
            return Ok(packed);
        }
        let versions = self.documents.values().filter_map(|entry| match &entry.about {
            About::Version(group, version, kinds) => Some((&kinds[..], *group, *version)),
            About::Listing(_) => None,
        });
        let listings = self.documents.values().filter_map(|entry| match &entry.about {
            About::Version(..) => None,
            About::Listing(path) => Some(path.as_str()),
        });
        let mut document = reeve_kinds::openapi::v2(versions, listings);
        v2.others.iter().for_each(|other| swagger::merge(&mut document, other.value()));
        let bytes = if protobuf { v2_protobuf::document(&document) } else { document.to_string().into_bytes() };
        let packed = Packed::new(&bytes)?;
        Ok(place.get_or_init(|| packed))
    }

    fn packed(entry: &Entry) -> Result<&Packed, ApiError> {
        if let Some(packed) = entry.packed.get() {
            return Ok(packed);
        }
        let document = match &entry.about {
            About::Version(group, version, kinds) => reeve_kinds::openapi::document(kinds, group, version),
            About::Listing(path) => Some(reeve_kinds::openapi::listing(path)),
        };
        let document = document.ok_or_else(ApiError::no_such_path)?;
        let packed = Packed::new(document.to_string().as_bytes())?;
        Ok(entry.packed.get_or_init(|| packed))
    }
}

impl Packed {
    fn new(document: &[u8]) -> Result<Self, ApiError> {
        let hash = Sha512::digest(document).iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(Self { bytes: gzip(document).map_err(ApiError::internal)?, hash })
    }

    fn answer(&self, gzip: bool, media_type: &'static str) -> Result<Answer, BoxError> {
        if gzip {
            let mut answer = response::answer(StatusCode::OK, media_type, full(self.bytes.clone()));
            response::set(&mut answer, CONTENT_ENCODING, "gzip");
            return Ok(answer);
        }
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&self.bytes[..]).read_to_end(&mut text)?;
        Ok(response::answer(StatusCode::OK, media_type, full(text)))
    }
}
