//! Gives other nodes the images that were made here: the reading half of the OCI distribution specification 1.1.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Frame;
use reeve_engine::images::{Digest, ImageError, ImageStore};
use reeve_streaming::{Answer, query, text};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;

/// Blobs that travel at the same time; further requests are told to come again, and ask another node.
const TRANSFERS_MAX: usize = 16;
/// What is read of a blob at once.
const CHUNK_BYTES: usize = 256 << 10;
/// The header that repeats a document's digest.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What other nodes may have.
pub(crate) struct Offers {
    store: ImageStore,
    transfers: Arc<Semaphore>,
}

/// What of an image is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'r> {
    /// Whether this is spoken here.
    Version,
    Manifest {
        path: &'r str,
        reference: &'r str,
    },
    Blob(Digest),
}

/// Whether a path is one of a registry's.
pub(crate) fn is_for_it(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

impl Offers {
    pub(crate) fn new(store: ImageStore) -> Self {
        Self { store, transfers: Arc::new(Semaphore::new(TRANSFERS_MAX)) }
    }

    /// Answers a request of another node.
    pub(crate) async fn answer<B>(&self, request: &Request<B>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "images can only be read here");
        }
        let head = request.method() == Method::HEAD;
        let answered = match wanted(request.uri().path()) {
            Some(Wanted::Version) => Ok(json("{}".to_owned())),
            Some(Wanted::Manifest { path, reference }) => {
                let domain = query(request.uri().query()).into_iter().find(|(key, _)| key == "ns").map(|(_, ns)| ns);
                let domain = domain.unwrap_or_else(|| "docker.io".to_owned());
                self.manifest(format!("{domain}/{path}"), reference.to_owned(), head).await
            }
            Some(Wanted::Blob(digest)) => {
                let range = request.headers().get(RANGE).and_then(|range| range.to_str().ok()).map(str::to_owned);
                self.blob(digest, range, head).await
            }
            None => Ok(error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such path")),
        };
        answered.unwrap_or_else(|failed| {
            tracing::warn!(error = %failed, "an image could not be given to another node");
            error(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the image cannot be read")
        })
    }

    async fn manifest(&self, repository: String, reference: String, head: bool) -> Result<Answer, ImageError> {
        let store = self.store.clone();
        let found = blocking(move || store.offered_manifest(&repository, &reference)).await?;
        let Some(manifest) = found else {
            return Ok(error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown"));
        };
        let length = manifest.bytes.len() as u64;
        let bytes = if head { Bytes::new() } else { Bytes::from(manifest.bytes) };
        let mut answer = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed());
        describe(&mut answer, &manifest.media_type, &manifest.digest, length);
        Ok(answer)
    }

    async fn blob(&self, digest: Digest, range: Option<String>, head: bool) -> Result<Answer, ImageError> {
        let Ok(permit) = Arc::clone(&self.transfers).try_acquire_owned() else {
            return Ok(error(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "too many transfers at once"));
        };
        let (store, wanted) = (self.store.clone(), digest.clone());
        let Some(blob) = blocking(move || store.offered_blob(&wanted)).await? else {
            return Ok(error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry"));
        };
        let whole = 0..blob.size;
        let part = match range.as_deref().map(|range| part(range, blob.size)) {
            Some(None) => {
                let mut refused = text(StatusCode::RANGE_NOT_SATISFIABLE, "");
                put(&mut refused, CONTENT_RANGE, &format!("bytes */{}", blob.size));
                return Ok(refused);
            }
            Some(Some(part)) => part,
            None => whole.clone(),
        };
        let body = if head {
            Empty::new().map_err(|never| match never {}).boxed()
        } else {
            let mut file = tokio::fs::File::from_std(blob.file);
            let sought = file.seek(std::io::SeekFrom::Start(part.start)).await;
            sought.map_err(|source| ImageError::Io { step: format!("read {digest}"), source })?;
            let pieces = ReaderStream::with_capacity(file.take(part.end - part.start), CHUNK_BYTES);
            // The transfer's place is taken as long as it lasts.
            StreamBody::new(pieces.map_ok(move |piece| {
                let _taken = &permit;
                Frame::data(piece)
            }))
            .boxed()
        };
        let mut answer = Response::new(body);
        describe(&mut answer, "application/octet-stream", &digest, part.end - part.start);
        put(&mut answer, ACCEPT_RANGES, "bytes");
        if range.is_some() {
            *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
            let last = part.end.saturating_sub(1);
            put(&mut answer, CONTENT_RANGE, &format!("bytes {}-{last}/{}", part.start, whole.end));
        }
        Ok(answer)
    }
}

/// What a path asks for; `None`: nothing that there is.
fn wanted(path: &str) -> Option<Wanted<'_>> {
    let rest = path.strip_prefix("/v2")?.strip_prefix('/').unwrap_or_default();
    if rest.is_empty() {
        return Some(Wanted::Version);
    }
    let (front, reference) = rest.rsplit_once('/')?;
    match front.rsplit_once('/')? {
        (path, "manifests") => Some(Wanted::Manifest { path, reference }),
        (_, "blobs") => Digest::parse(reference).ok().map(Wanted::Blob),
        _ => None,
    }
}

/// `bytes=N-` or `bytes=N-M` of something of that size; `None` for what is not in it, or is another form.
fn part(range: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: u64 = first.parse().ok()?;
    let last = if last.is_empty() { size.checked_sub(1)? } else { last.parse().ok()? };
    let end = last.checked_add(1)?.min(size);
    (first < end).then_some(first..end)
}

fn describe(answer: &mut Answer, media_type: &str, digest: &Digest, length: u64) {
    put(answer, CONTENT_TYPE, media_type);
    put(answer, CONTENT_DIGEST, digest.as_str());
    put(answer, CONTENT_LENGTH, &length.to_string());
}

fn put(answer: &mut Answer, name: HeaderName, value: &str) {
    // A media type is the image's own word and may be no header.
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    let mut answer = json(body.to_string());
    *answer.status_mut() = status;
    answer
}

fn json(body: String) -> Answer {
    let mut answer = text(StatusCode::OK, body);
    put(&mut answer, CONTENT_TYPE, "application/json");
    answer
}

/// Runs what reads files off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let failed = |error| ImageError::Io { step: "read images".to_owned(), source: std::io::Error::other(error) };
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_a_registrys() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let blob = format!("/v2/team/app/blobs/{digest}");
        for (path, asked) in [
            ("/v2/", Some(Wanted::Version)),
            ("/v2", Some(Wanted::Version)),
            ("/v2/team/app/manifests/v1", Some(Wanted::Manifest { path: "team/app", reference: "v1" })),
            (&blob, Some(Wanted::Blob(Digest::parse(&digest).unwrap()))),
            ("/v2/team/app/blobs/../../etc/passwd", None),
            ("/v2/team/app/tags/list", None),
            ("/v2/x", None),
        ] {
            assert_eq!(wanted(path), asked, "{path}");
        }
        assert!(!is_for_it("/v2x") && is_for_it("/v2/x"));
    }

    #[test]
    fn a_range_is_within_the_blob_or_refused() {
        for (range, expected) in [
            ("bytes=0-", Some(0..10)),
            ("bytes=3-", Some(3..10)),
            ("bytes=3-4", Some(3..5)),
            ("bytes=3-99", Some(3..10)),
            ("bytes=10-", None),
            ("bytes=5-4", None),
            ("bytes=-3", None),
            ("bytes=0-1,4-5", None),
            ("bytes=0-18446744073709551615", None),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), None);
    }
}
