//! Images from registries: one transfer per image however many ask, layers in parallel, digests checked, network
//! errors tried again. Speaks through `oci-client`; nothing is stored before it is whole.
//!
//! Source: OCI distribution specification 1.1. The words of errors follow containerd's, which people search for.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, Shared};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth as Credentials;
use tokio::task::AbortHandle;

use super::error::ImageError;
use super::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Document, Manifest, OCI_INDEX, OCI_MANIFEST, architecture,
};
use super::reference::{Digest, Reference};
use super::registries::Endpoint;
use super::transfer::{Blob, Source, Transfer};
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
/// Time for a manifest with all its attempts, and for a blob's transfer to begin, logging in included. It bounds
/// what a malicious registry can send there, too: `oci-client` reads manifests and tokens of any size.
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
}

impl Failure {
    pub(crate) fn lasting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), transient: false }
    }

    pub(crate) fn transient(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), transient: true }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::lasting(error.to_string())
    }
}

impl ImageStore {
    /// Fetches an image from its registry, whatever is here already: only what is missing travels. Calls for the
    /// same image with the same credentials share one transfer, which goes on when a caller goes away.
    pub async fn pull(&self, reference: &str, auth: Option<RegistryAuth>) -> Result<Image, ImageError> {
        let reference = Reference::parse(reference)?;
        let name = reference.to_string();
        let key = (name.clone(), auth.as_ref().map(|auth| (auth.username.clone(), auth.password.clone())));
        let pull = self.pulls().join(key, || {
            let store = self.clone();
            async move { store.pull_now(&reference, auth).await.map_err(|failure| failure.reason) }
        });
        pull.await.map_err(|reason| ImageError::Pull { image: name, reason })
    }

    /// From a mirror, or from the registry itself.
    async fn pull_now(&self, reference: &Reference, auth: Option<RegistryAuth>) -> Result<Image, Failure> {
        let (store, image) = (self.clone(), reference.clone());
        let endpoints = blocking(move || store.registries()?.endpoints(&image, auth)).await?;
        let mut failed = String::new();
        for endpoint in endpoints {
            let (host, is_mirror) = (endpoint.host.clone(), endpoint.is_mirror);
            match self.pull_from(reference, endpoint).await {
                Err(Failure { reason, .. }) if is_mirror => failed = format!("{failed}; mirror {host}: {reason}"),
                Err(Failure { reason, transient }) => {
                    return Err(Failure { reason: format!("{reason}{failed}"), transient });
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

    async fn pull_from(&self, reference: &Reference, endpoint: Endpoint) -> Result<Image, Failure> {
        let registry = Registry::new(reference, endpoint)?;
        let store = self.clone();
        let session = blocking(move || store.begin()).await?;
        let (top, manifest_bytes) = registry.resolve().await?;
        let manifest = parse(&manifest_bytes)?;
        let transfer =
            Transfer::new(Source::Registry(registry.blobs()), self.blobs().clone(), self.limits().transfer_bytes_max);
        transfer.fetch_all(self, manifest).await?;
        let names = reference.tagged().into_iter().collect();
        let digests = vec![format!("{}@{top}", reference.repository())];
        let (store, new) = (self.clone(), NewImage { manifest: manifest_bytes, names, digests, made: false });
        Ok(blocking(move || store.add(&session, new)).await?)
    }
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

/// One repository at one place, with one set of credentials.
pub(crate) struct Registry {
    pub(crate) client: oci_client::Client,
    credentials: Credentials,
    reference: Reference,
    host: String,
    repository: String,
    attempts_max: u32,
}

impl Registry {
    /// A client of its own per pull: `oci-client` keeps the first credentials it sees for a registry.
    pub(crate) fn new(reference: &Reference, endpoint: Endpoint) -> Result<Self, Failure> {
        install_crypto();
        let Endpoint { host, repository, plain, ca, skip_verify, auth, is_mirror } = endpoint;
        let ca = ca.map(|data| Certificate { encoding: CertificateEncoding::Pem, data });
        let config = ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            accept_invalid_certificates: skip_verify,
            extra_root_certificates: ca.into_iter().collect(),
            connect_timeout: Some(if is_mirror { MIRROR_CONNECT_TIMEOUT } else { CONNECT_TIMEOUT }),
            read_timeout: Some(STALL_TIMEOUT),
            platform_resolver: None,
            user_agent: concat!("reeve/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = oci_client::Client::try_from(config).map_err(|error| failure(&error))?;
        let credentials = match auth {
            Some(auth) => Credentials::Basic(auth.username, auth.password),
            None => Credentials::Anonymous,
        };
        let attempts_max = if is_mirror { 1 } else { ATTEMPTS_MAX };
        Ok(Self { client, credentials, reference: reference.clone(), host, repository, attempts_max })
    }

    /// Logs in where the registry wants that; other requests then use what was given.
    pub(crate) async fn log_in(&self, operation: oci_client::RegistryOperation) -> Result<(), Failure> {
        let address = self.address(None);
        let attempts = with_retries(|| async {
            let done = self.client.auth(&address, &self.credentials, operation).await;
            done.map(drop).map_err(|error| self.explain(&error))
        });
        let timed = tokio::time::timeout(ANSWER_TIMEOUT, attempts).await;
        timed.map_err(|_| Failure::transient(format!("{address}: timeout")))?
    }

    /// The digest that the name leads to, and the manifest for this machine behind it.
    async fn resolve(&self) -> Result<(Digest, Vec<u8>), Failure> {
        let name = self.reference.to_string();
        let top = self.manifest(self.address(self.reference.digest())).await.map_err(|failure| Failure {
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
        let manifest = self.manifest(self.address(Some(&fitting.digest))).await?;
        expect(&Digest::of(&manifest), Some(&fitting.digest))?;
        Ok((digest, manifest))
    }

    async fn manifest(&self, address: oci_client::Reference) -> Result<Vec<u8>, Failure> {
        let accepted = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
        let attempts = retry(self.attempts_max, || async {
            let result = self.client.pull_manifest_raw(&address, &self.credentials, &accepted).await;
            result.map_err(|error| self.explain(&error))
        });
        let timed = tokio::time::timeout(ANSWER_TIMEOUT, attempts).await;
        let (bytes, _) = timed.map_err(|_| Failure::transient(format!("{address}: timeout")))??;
        if bytes.len() as u64 > super::blobs::DOCUMENT_BYTES_MAX {
            return Err(Failure::lasting(format!("{address}: the manifest is too large")));
        }
        Ok(bytes.to_vec())
    }

    pub(crate) fn address(&self, digest: Option<&Digest>) -> oci_client::Reference {
        let (registry, repository) = (self.host.clone(), self.repository.clone());
        match digest {
            Some(digest) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
            None => {
                let tag = self.reference.tag().unwrap_or("latest").to_owned();
                oci_client::Reference::with_tag(registry, repository, tag)
            }
        }
    }

    fn blobs(&self) -> Blob {
        Blob { client: self.client.clone(), address: self.address(self.reference.digest()) }
    }

    /// The registry's "no" in containerd's words.
    fn explain(&self, error: &OciDistributionError) -> Failure {
        let name = &self.reference;
        match error {
            OciDistributionError::ImageManifestNotFoundError(_) => Failure::lasting(format!("{name}: not found")),
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
                Failure::lasting(
                    "pull access denied, repository does not exist or may require authorization: \
                     authorization failed",
                )
            }
            OciDistributionError::RegistryError { envelope, .. } if is_not_found(envelope) => {
                Failure::lasting(format!("{name}: not found"))
            }
            OciDistributionError::ServerError { code: 404, .. } => Failure::lasting(format!("{name}: not found")),
            other => failure(other),
        }
    }
}

fn is_not_found(envelope: &oci_client::errors::OciEnvelope) -> bool {
    use oci_client::errors::OciErrorCode::{ManifestUnknown, NameUnknown, NotFound};
    envelope.errors.iter().any(|error| matches!(error.code, ManifestUnknown | NameUnknown | NotFound))
}

/// Whatever else went wrong, with all the causes that the network library hides.
pub(crate) fn failure(error: &OciDistributionError) -> Failure {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        source = cause.source();
    }
    let transient = match error {
        OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => true,
        OciDistributionError::ServerError { code, .. } => matches!(code, 408 | 429 | 500..),
        OciDistributionError::RegistryError { envelope, .. } => {
            envelope.errors.iter().any(|e| e.code == oci_client::errors::OciErrorCode::Toomanyrequests)
        }
        _ => false,
    };
    Failure { reason, transient }
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
                std::future::ready(Err(Failure { reason: String::new(), transient }))
            })
            .await;
            assert!(result.is_err());
            assert_eq!(count, attempts);
        }
    }
}
