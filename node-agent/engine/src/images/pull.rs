//! Images from registries: one transfer per image however many ask, layers in parallel, digests checked, network
//! errors tried again. Nothing is stored before it is whole.
//!
//! Source: OCI distribution specification 1.1. The words of errors follow containerd's, which people search for.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared};
use tokio::task::AbortHandle;

use super::client::{Access, Repository, Wrong};
use super::error::ImageError;
use super::manifest::{Descriptor, Document, Manifest, architecture};
use super::reference::{Digest, Reference};
use super::registries::Endpoint;
use super::transfer::{Source, Transfer};
use super::{ImageStore, NewImage};
use crate::engine::{Image, RegistryAuth};

/// How often a step is tried, the first time included.
pub(crate) const ATTEMPTS_MAX: u32 = 4;
/// Pause after the first failure; it doubles.
const BACKOFF: Duration = Duration::from_millis(250);
/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Time to connect to a mirror: there are others to ask.
const MIRROR_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A transfer in which nothing arrives for so long is broken off; kubelet's image pull progress deadline.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for a manifest with all its attempts, and for a blob's transfer to begin, logging in included.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Who asks for what: an image that one may see is not everybody's.
type Key = (String, Option<(String, String)>);
type Pull = Shared<BoxFuture<'static, Result<Image, String>>>;

/// Transfers that run now.
#[derive(Debug, Default)]
pub(crate) struct Pulls(Mutex<HashMap<Key, (Pull, AbortHandle)>>);

/// Why a step at the registry failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What a person should know.
    pub(crate) reason: String,
    /// Whether the same request may well succeed in a moment.
    pub(crate) transient: bool,
    /// Whether it failed for want of room on the disk.
    pub(crate) full: bool,
}

impl Failure {
    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), transient: false, full: false }
    }

    pub(crate) fn transient(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), transient: true, full: false }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let full = matches!(&error, ImageError::Io { source, .. } if is_full(source));
        Self { full, ..Self::lasting(error.to_string()) }
    }
}

/// Whether there is no room on the disk.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What happens while an image is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// It is known what must be here.
    Resolved {
        /// What the name leads to.
        digest: Digest,
        /// The image's layers, lowest first.
        layers: Vec<Digest>,
    },
    /// This blob is here already.
    Known(Digest),
    /// So much of a blob has come.
    Came {
        /// The blob.
        digest: Digest,
        /// From its beginning.
        bytes: u64,
        /// In all.
        size: u64,
    },
    /// The blob is whole.
    Whole(Digest),
}

/// Who is told what happens. Must not block.
pub type PullTeller = Arc<dyn Fn(PullEvent) + Send + Sync>;

impl ImageStore {
    /// [`ImageStore::pull`] for one who is to be told how far it is. Shares its transfer with nobody.
    ///
    /// # Errors
    /// As [`ImageStore::pull`].
    pub async fn pull_telling(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
        teller: PullTeller,
    ) -> Result<Image, ImageError> {
        let reference = Reference::parse(reference)?;
        let pulled = self.pull_now(&reference, auth, &teller).await;
        pulled.map_err(|failure| ImageError::Pull { image: reference.to_string(), reason: failure.reason })
    }

    /// Fetches an image from its registry, whatever is here already: only what is missing travels. Calls for the
    /// same image with the same credentials share one transfer, which goes on when a caller goes away.
    pub async fn pull(&self, reference: &str, auth: Option<RegistryAuth>) -> Result<Image, ImageError> {
        let reference = Reference::parse(reference)?;
        let name = reference.to_string();
        let key = (name.clone(), auth.as_ref().map(|auth| (auth.username.clone(), auth.password.clone())));
        let pull = self.pulls().join(key, || {
            let store = self.clone();
            async move { store.pull_now(&reference, auth, &nobody()).await.map_err(|failure| failure.reason) }
        });
        pull.await.map_err(|reason| ImageError::Pull { image: name, reason })
    }

    /// From a mirror, or from the registry itself.
    async fn pull_now(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
        teller: &PullTeller,
    ) -> Result<Image, Failure> {
        let (store, image) = (self.clone(), reference.clone());
        let endpoints = blocking(move || store.registries()?.endpoints(&image, auth)).await?;
        let mut failed = String::new();
        for endpoint in endpoints {
            let (host, is_mirror) = (endpoint.host.clone(), endpoint.is_mirror);
            let pulled = self.pull_from(reference, endpoint, teller).await;
            if pulled.as_ref().is_err_and(|failure| failure.full) {
                // What had come of it would keep the disk full.
                let store = self.clone();
                let _ = blocking(move || store.collect()).await;
            }
            match pulled {
                Err(Failure { reason, .. }) if is_mirror => failed = format!("{failed}; mirror {host}: {reason}"),
                Err(failure) => {
                    return Err(Failure { reason: format!("{}{failed}", failure.reason), ..failure });
                }
                done => {
                    if !failed.is_empty() {
                        tracing::warn!(image = %reference, "Not every mirror has it{failed}.");
                    }
                    return done;
                }
            }
        }
        Err(Failure::lasting("there is nowhere to ask"))
    }

    async fn pull_from(
        &self,
        reference: &Reference,
        endpoint: Endpoint,
        teller: &PullTeller,
    ) -> Result<Image, Failure> {
        let registry = Registry::new(reference, endpoint, Access::Pull)?;
        let store = self.clone();
        let session = blocking(move || store.begin()).await?;
        let (top, manifest_bytes) = registry.resolve().await?;
        let manifest = parse(&manifest_bytes)?;
        let layers = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
        teller(PullEvent::Resolved { digest: top.clone(), layers });
        let bytes_max = self.limits().transfer_bytes_max;
        let transfer = Transfer::new(Source::Registry(registry), self.blobs().clone(), bytes_max, Arc::clone(teller));
        transfer.fetch_all(self, manifest).await?;
        let names = reference.tagged().into_iter().collect();
        let digests = vec![format!("{}@{top}", reference.repository())];
        let (store, new) = (self.clone(), NewImage { manifest: manifest_bytes, names, digests, made: false });
        Ok(blocking(move || store.add(&session, new)).await?)
    }
}

/// A teller for those who need not know.
pub(crate) fn nobody() -> PullTeller {
    Arc::new(|_| {})
}

impl Pulls {
    /// The running transfer of this key, or a new one.
    pub(super) fn join<F>(&self, key: Key, start: impl FnOnce() -> F) -> Pull
    where
        F: Future<Output = Result<Image, String>> + Send + 'static,
    {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Finished ones go first, also those whose callers went away: what was true then may not be now.
        running.retain(|_, (_, task)| !task.is_finished());
        let (pull, _) = running.entry(key).or_insert_with(|| {
            let task = tokio::spawn(start());
            let handle = task.abort_handle();
            let pull = async move { task.await.unwrap_or_else(|error| Err(format!("the transfer died: {error}"))) };
            (pull.boxed().shared(), handle)
        });
        pull.clone()
    }
}

/// One repository at one place.
pub(crate) struct Registry {
    pub(crate) repository: Repository,
    pub(crate) reference: Reference,
    attempts_max: u32,
}

impl Registry {
    pub(crate) fn new(reference: &Reference, endpoint: Endpoint, access: Access) -> Result<Self, Failure> {
        let (connect_timeout, attempts_max) = match endpoint.is_mirror {
            true => (MIRROR_CONNECT_TIMEOUT, 1),
            false => (CONNECT_TIMEOUT, ATTEMPTS_MAX),
        };
        let repository = Repository::new(endpoint, access, connect_timeout)?;
        Ok(Self { repository, reference: reference.clone(), attempts_max })
    }

    /// The digest that the name leads to, and the manifest for this machine behind it.
    async fn resolve(&self) -> Result<(Digest, Vec<u8>), Failure> {
        let name = self.reference.to_string();
        let wanted = self.reference.digest().map(Digest::as_str).or(self.reference.tag()).unwrap_or("latest");
        let top = self.manifest(wanted).await.map_err(|failure| Failure {
            reason: format!("failed to resolve reference {name:?}: {}", failure.reason),
            ..failure
        })?;
        let digest = Digest::of(&top);
        expect(&digest, self.reference.digest())?;
        let Document::Index(index) = Document::parse(&name, &top)? else { return Ok((digest, top)) };
        let Some(fitting) = index.for_this_platform() else {
            return Err(Failure::lasting(format!(
                "no match for platform in manifest: linux/{} of {name}: not found",
                architecture()
            )));
        };
        let manifest = self.manifest(fitting.digest.as_str()).await?;
        expect(&Digest::of(&manifest), Some(&fitting.digest))?;
        Ok((digest, manifest))
    }

    async fn manifest(&self, reference: &str) -> Result<Vec<u8>, Failure> {
        let attempts = retry(self.attempts_max, || async {
            self.repository.manifest(reference).await.map_err(|wrong| explain(&self.reference, wrong))
        });
        let timed = tokio::time::timeout(ANSWER_TIMEOUT, attempts).await;
        timed.map_err(|_| Failure::transient(format!("{}: timeout", self.reference)))?
    }
}

/// The registry's "no" in containerd's words.
pub(crate) fn explain(name: &Reference, wrong: Wrong) -> Failure {
    match wrong {
        Wrong::NotFound => Failure::lasting(format!("{name}: not found")),
        Wrong::Denied => Failure::lasting(
            "pull access denied, repository does not exist or may require authorization: authorization failed",
        ),
        Wrong::Other(failure) => failure,
    }
}

/// Tries again after transient failures, waiting longer each time.
pub(crate) async fn with_retries<T, F>(attempt: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    retry(ATTEMPTS_MAX, attempt).await
}

async fn retry<T, F>(attempts_max: u32, mut attempt: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut pause = BACKOFF;
    let mut attempts = 1;
    loop {
        match attempt().await {
            Err(failure) if failure.transient && attempts < attempts_max => {
                tracing::debug!(reason = failure.reason, attempts, "registry request failed, trying again");
            }
            other => return other,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
        attempts += 1;
    }
}

/// Runs file work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ImageError::Io { step: "work on images".to_owned(), source: io::Error::other(error) }),
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<Manifest, Failure> {
    match Document::parse("manifest", bytes)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(Failure::lasting("an index within an index")),
    }
}

fn expect(actual: &Digest, expected: Option<&Digest>) -> Result<(), Failure> {
    match expected {
        Some(expected) if expected != actual => {
            Err(Failure::lasting(format!("the registry answered {actual} when {expected} was asked for")))
        }
        _ => Ok(()),
    }
}

/// An image may name the same (empty) layer twice.
pub(crate) fn unique(descriptors: Vec<Descriptor>) -> Vec<Descriptor> {
    let mut seen = std::collections::BTreeSet::new();
    descriptors.into_iter().filter(|descriptor| seen.insert(descriptor.digest.clone())).collect()
}

/// Registries of this machine are spoken to over plain HTTP, as by Docker and containerd.
pub(crate) fn is_local(domain: &str) -> bool {
    let host = match domain.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => domain,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// rustls asks for one choice per process; whoever comes first has made it.
pub(crate) fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_registries_of_this_machine_are_spoken_to_in_the_clear() {
        for (domain, local) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("docker.io", false),
            ("localhost.example.com", false),
            ("10.0.0.1:5000", false),
            ("[fe80::1]:5000", false),
        ] {
            assert_eq!(is_local(domain), local, "{domain}");
        }
    }

    #[tokio::test]
    async fn only_transient_failures_are_tried_again_and_not_forever() {
        for (transient, attempts) in [(true, ATTEMPTS_MAX), (false, 1)] {
            let mut count = 0;
            let result: Result<(), _> = with_retries(|| {
                count += 1;
                std::future::ready(Err(Failure { transient, ..Failure::lasting("") }))
            })
            .await;
            assert!(result.is_err());
            assert_eq!(count, attempts);
        }
    }
}
