//! Paths that Kubernetes does not have, below `/reeve/v1`: a backup of everything, what is damaged on disk, and a hash
//! of what this server's store holds. Not in the index of paths.
//!
//! They hand out every Secret and the authorities' keys: besides the path itself (`nonResourceURLs`) whoever asks must
//! have been allowed everything on everything, as cluster-admin is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use reeve_store::backup::contents::BackupHead;
use reeve_store::{Revision, SharedKv};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::metrics::Page;
use super::query::Query;
use super::response::{self, Answer, BoxError};
use super::{Api, Counter};
use crate::auth::{Attributes, Target};
use crate::registry::UserInfo;
use crate::status::ApiError;

/// Pieces of a backup that wait for their reader; then the store is not asked for more.
const PIECES_MAX: usize = 4;

/// Says what stands at the beginning of a backup: the cluster's name, and the files that it has beside the store.
/// Blocks on the disk.
pub type AboutCluster = Arc<dyn Fn() -> std::io::Result<BackupHead> + Send + Sync>;

/// What the paths need. One per server.
#[derive(Default)]
pub(crate) struct Own {
    /// `None` in a server that has been told of no cluster around it: it makes no backups.
    pub(crate) about: OnceLock<AboutCluster>,
    pub(crate) backups: Backups,
}

/// Whose turn it is to make a backup, and what is told of scheduled ones in `/metrics`. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Backups(Arc<Shared>);

/// One backup at a time: each reads the whole store.
#[derive(Debug)]
pub struct BackupTurn {
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Shared {
    one: Arc<Semaphore>,
    done: Counter,
    failed: Counter,
    /// Seconds since 1970; 0 before the first.
    last_success: AtomicU64,
    bytes: AtomicU64,
}

impl Default for Shared {
    fn default() -> Self {
        let one = Arc::new(Semaphore::new(1));
        let (done, failed) = (Counter::default(), Counter::default());
        Self { one, done, failed, last_success: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }
}

impl Backups {
    /// Waits until no other backup is being made.
    pub async fn turn(&self) -> Option<BackupTurn> {
        // The semaphore is never closed.
        Some(BackupTurn { _permit: Arc::clone(&self.0.one).acquire_owned().await.ok()? })
    }

    /// A scheduled backup is where it belongs, of so many bytes, at so many seconds since 1970.
    pub fn succeeded(&self, bytes: u64, at: u64) {
        self.0.done.add(1);
        self.0.last_success.store(at, Ordering::Relaxed);
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    /// A scheduled backup was not made.
    pub fn failed(&self) {
        self.0.failed.add(1);
    }

    pub(crate) fn report(&self, page: &mut Page) {
        let (done, failed) = (self.0.done.get(), self.0.failed.get());
        if done + failed == 0 {
            return;
        }
        page.family("reeve_backups_total", "counter", "Scheduled backups, by how they went.");
        page.sample("", "result=\"error\"", failed);
        page.sample("", "result=\"success\"", done);
        let help = "When the last scheduled backup was done, in seconds since 1970.";
        page.family("reeve_backup_last_success_timestamp_seconds", "gauge", help);
        page.sample("", "", self.0.last_success.load(Ordering::Relaxed));
        page.family("reeve_backup_last_size_bytes", "gauge", "Size of the last scheduled backup.");
        page.sample("", "", self.0.bytes.load(Ordering::Relaxed));
    }
}

impl Api {
    /// Answers a path below `/reeve`; `None` when there is no such path.
    pub(super) async fn serve_own(
        &self,
        user: &UserInfo,
        segments: &[String],
        (method, query): (&Method, &Query),
    ) -> Option<Result<Answer, ApiError>> {
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let ["reeve", "v1", path @ ..] = &words[..] else { return None };
        if !matches!(path, ["backup"] | ["store", "verify" | "hash"]) {
            return None;
        }
        if *method != Method::GET {
            return Some(Err(ApiError::method_not_allowed()));
        }
        let everything = Target::Resource {
            group: "*",
            resource: "*",
            subresource: "",
            namespace: "",
            name: "",
            field_selector: "",
        };
        if let Err(refused) = self.permit(&Attributes { user, verb: "*", target: everything }) {
            return Some(Err(refused));
        }
        let kv = self.health.kv();
        Some(match path {
            ["backup"] => self.backup(kv).await,
            ["store", "hash"] => hash(kv, query.get("revision")).await,
            _ => verify(kv).await,
        })
    }

    async fn backup(&self, kv: SharedKv) -> Result<Answer, ApiError> {
        let Some(about) = self.own.about.get().cloned() else { return Ok(response::not_found_page()) };
        let one = &self.own.backups.0.one;
        let busy = |_| ApiError::new(429, "TooManyRequests", "another backup is being made; try again when it is done");
        let permit = Arc::clone(one).try_acquire_owned().map_err(busy)?;
        let about = tokio::task::spawn_blocking(move || about()).await.map_err(ApiError::internal)?;
        let about = about.map_err(ApiError::internal)?;
        let (sink, mut pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
        let packing = tokio::spawn(async move {
            let packed = reeve_store::backup::pack(&*kv, about, &sink).await;
            drop(permit);
            packed.inspect_err(|error| tracing::warn!(%error, "A backup was broken off."))
        });
        // Before the first piece an error can still be answered as one.
        let Some(first) = pieces.recv().await else {
            let failed = packing.await.map_err(ApiError::internal)?;
            return Err(failed
                .err()
                .map_or_else(|| ApiError::internal("nothing to back up"), |err| ApiError::store(&err)));
        };
        let rest = stream::poll_fn(move |context| pieces.poll_recv(context));
        let frames = stream::once(async { first }).chain(rest).map(|piece| Ok::<_, BoxError>(Frame::data(piece)));
        let body = StreamBody::new(frames.take_until(self.shutdown.clone().cancelled_owned())).boxed_unsync();
        Ok(response::answer(StatusCode::OK, "application/octet-stream", body))
    }
}

/// The hash of everything at a revision, of what is acknowledged by now at least.
async fn hash(kv: SharedKv, revision: Option<&str>) -> Result<Answer, ApiError> {
    let parsed = revision.map(str::parse::<u64>).transpose();
    let revision = parsed.map_err(|err| ApiError::bad_request(format!("revision: {err}")))?;
    kv.newest().await.map_err(|err| ApiError::store(&err))?;
    let hash = kv.hash_kv(revision.map(Revision)).await.map_err(|err| ApiError::store(&err))?;
    let answer = json!({"hash": hash.hash, "revision": hash.revision.0, "compacted": hash.compacted.0});
    Ok(response::json(StatusCode::OK, &answer))
}

async fn verify(kv: SharedKv) -> Result<Answer, ApiError> {
    let report = kv.verify().await.map_err(|err| ApiError::store(&err))?;
    let findings: Vec<_> = report
        .findings
        .iter()
        .map(|found| {
            let damage = &found.damage;
            json!({"path": damage.path, "offset": damage.offset, "what": damage.what, "wayOut": found.way_out})
        })
        .collect();
    let (files, records, bytes) = (report.files, report.records, report.bytes);
    let report =
        json!({"files": files, "records": records, "bytes": bytes, "findings": findings, "notes": report.notes});
    Ok(response::json(StatusCode::OK, &report))
}
