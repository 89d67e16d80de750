//! Images to registries. What the registry has already does not travel, in whichever of its repositories it lies;
//! layers travel as they lie here.
//!
//! Source: OCI distribution specification 1.1, "Push" and "Mounting a blob from another repository".

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio_util::io::ReaderStream;

use super::client::{Access, Wrong};
use super::error::ImageError;
use super::manifest::{Descriptor, Document, Manifest, OCI_MANIFEST};
use super::pull::{ANSWER_TIMEOUT, Failure, Registry, blocking, explain, with_retries};
use super::reference::{Digest, Reference};
use super::{ImageStore, index::Record};
use crate::engine::RegistryAuth;

/// Layers of one image that travel at the same time; Docker's default.
const UPLOADS_MAX: usize = 5;
/// What is read of a layer at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Other repositories from which a blob is taken, if it is there; Docker's number.
const KIN_MAX: usize = 4;

/// Blobs, and the repositories of one registry that may have them.
type Kin = BTreeMap<Digest, BTreeSet<String>>;

/// An image that a registry has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of its manifest: what `NAME@DIGEST` finds.
    pub digest: String,
    /// Blobs that had to travel.
    pub sent: usize,
    /// Blobs that were there already, in this repository or another of the same registry.
    pub known: usize,
}

impl ImageStore {
    /// Sends the image that has this name to the registry in the name.
    ///
    /// # Errors
    /// When there is no such image here, or the registry does not take it.
    pub async fn push(&self, name: &str, auth: Option<RegistryAuth>) -> Result<Pushed, ImageError> {
        let reference = Reference::parse(name)?;
        let failed = |reason: String| ImageError::Push { image: reference.to_string(), reason };
        if reference.tagged().is_none() {
            return Err(failed("a digest is not a name to give: push a tag".to_owned()));
        }
        let (store, full, to) = (self.clone(), name.to_owned(), reference.clone());
        let (bytes, kin) = blocking(move || {
            let record = store.record(&full)?;
            let bytes = store.blobs().read(&record.manifest)?;
            Ok((bytes, kin(&store.records()?, &to)))
        })
        .await?;
        let sent = self.push_now(&reference, auth, bytes, &kin).await;
        sent.map_err(|failure| failed(failure.reason))
    }

    async fn push_now(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
        bytes: Vec<u8>,
        kin: &Kin,
    ) -> Result<Pushed, Failure> {
        let digest = Digest::of(&bytes).to_string();
        let Document::Manifest(manifest) = Document::parse(&digest, &bytes)? else {
            return Err(Failure::lasting("an index, not an image manifest"));
        };
        let (store, image) = (self.clone(), reference.clone());
        let origin = blocking(move || store.registries()?.origin(&image, auth)).await?;
        let registry = Registry::new(reference, origin, Access::Push)?;
        let Manifest { config, layers, media_type, .. } = manifest;
        let blobs = super::pull::unique(layers.into_iter().chain([config]).collect());
        let all = blobs.len();
        let travelled: Vec<bool> = stream::iter(blobs)
            .map(|blob| self.push_blob(&registry, blob, kin))
            .buffer_unordered(UPLOADS_MAX)
            .try_collect()
            .await?;
        // Last: who sees the manifest finds everything in it.
        let tag = reference.tag().unwrap_or("latest");
        let kind = if media_type.is_empty() { OCI_MANIFEST } else { &media_type };
        with_retries(|| async {
            let put = registry.repository.put_manifest(tag, kind, &bytes).await;
            put.map_err(|wrong| refused(reference, wrong))
        })
        .await?;
        let sent = travelled.into_iter().filter(|sent| *sent).count();
        Ok(Pushed { digest, sent, known: all - sent })
    }

    /// Whether it had to travel.
    async fn push_blob(&self, registry: &Registry, blob: Descriptor, kin: &Kin) -> Result<bool, Failure> {
        let (repository, name) = (&registry.repository, &registry.reference);
        let there =
            with_retries(|| async { repository.has_blob(&blob.digest).await.map_err(|wrong| refused(name, wrong)) });
        if there.await? {
            return Ok(false);
        }
        for from in kin.get(&blob.digest).into_iter().flatten().take(KIN_MAX) {
            // Whatever the registry says against it: then the blob travels.
            let mounted = tokio::time::timeout(ANSWER_TIMEOUT, repository.mount_blob(&blob.digest, from));
            if let Ok(Ok(true)) = mounted.await {
                return Ok(false);
            }
        }
        with_retries(|| async {
            let file = tokio::fs::File::from_std(self.blobs().reader(&blob.digest)?);
            let size = file.metadata().await.map_err(|error| Failure::lasting(error.to_string()))?.len();
            let content = reqwest::Body::wrap_stream(ReaderStream::with_capacity(file, CHUNK_BYTES));
            repository.put_blob(&blob.digest, size, content).await.map_err(|wrong| refused(name, wrong))
        })
        .await?;
        Ok(true)
    }
}

/// Which blobs may lie in which other repositories of the registry: those of images that were fetched from there or are
/// named after it.
fn kin(records: &[Record], to: &Reference) -> Kin {
    let mut kin = Kin::new();
    for record in records {
        let names = record.names.iter().chain(&record.digests).filter_map(|name| Reference::parse(name).ok());
        let others = names.filter(|own| own.domain() == to.domain() && own.path() != to.path());
        let repositories: BTreeSet<String> = others.map(|own| own.path().to_owned()).collect();
        if !repositories.is_empty() {
            for blob in record.blobs() {
                kin.entry(blob.clone()).or_default().extend(repositories.iter().cloned());
            }
        }
    }
    kin
}

/// The registry's "no" in Docker's words.
fn refused(name: &Reference, wrong: Wrong) -> Failure {
    match wrong {
        Wrong::Denied => Failure::lasting("denied: requested access to the resource is denied: authorization failed"),
        other => explain(name, other),
    }
}
