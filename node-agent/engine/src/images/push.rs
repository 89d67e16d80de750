//! Images to registries. What the registry has already does not travel; layers travel as they lie here.
//!
//! Source: OCI distribution specification 1.1, "Push".

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio_util::io::ReaderStream;

use super::client::{Access, Wrong};
use super::error::ImageError;
use super::manifest::{Descriptor, Document, Manifest, OCI_MANIFEST};
use super::pull::{Failure, Registry, blocking, explain, with_retries};
use super::reference::{Digest, Reference};
use super::{ImageStore, index::Record};
use crate::engine::RegistryAuth;

/// Layers of one image that travel at the same time; Docker's default.
const UPLOADS_MAX: usize = 5;
/// What is read of a layer at once.
const CHUNK_BYTES: usize = 256 << 10;

/// An image that a registry has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of its manifest: what `NAME@DIGEST` finds.
    pub digest: String,
    /// Blobs that had to travel.
    pub sent: usize,
    /// Blobs that were there already.
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
        let (store, full) = (self.clone(), name.to_owned());
        let (record, bytes) = blocking(move || {
            let record = store.record(&full)?;
            let bytes = store.blobs().read(&record.manifest)?;
            Ok((record, bytes))
        })
        .await?;
        let sent = self.push_now(&reference, auth, &record, bytes).await;
        sent.map_err(|failure| failed(failure.reason))
    }

    async fn push_now(
        &self,
        reference: &Reference,
        auth: Option<RegistryAuth>,
        record: &Record,
        bytes: Vec<u8>,
    ) -> Result<Pushed, Failure> {
        let Document::Manifest(manifest) = Document::parse(record.manifest.as_str(), &bytes)? else {
            return Err(Failure::lasting("an index, not an image manifest"));
        };
        let (store, image) = (self.clone(), reference.clone());
        let origin = blocking(move || store.registries()?.origin(&image, auth)).await?;
        let registry = Registry::new(reference, origin, Access::Push)?;
        let Manifest { config, layers, media_type, .. } = manifest;
        let blobs = super::pull::unique(layers.into_iter().chain([config]).collect());
        let all = blobs.len();
        let travelled: Vec<bool> = stream::iter(blobs)
            .map(|blob| self.push_blob(&registry, blob))
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
        Ok(Pushed { digest: Digest::of(&bytes).to_string(), sent, known: all - sent })
    }

    /// Whether it had to travel.
    async fn push_blob(&self, registry: &Registry, blob: Descriptor) -> Result<bool, Failure> {
        let (repository, name) = (&registry.repository, &registry.reference);
        let there =
            with_retries(|| async { repository.has_blob(&blob.digest).await.map_err(|wrong| refused(name, wrong)) });
        if there.await? {
            return Ok(false);
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

/// The registry's "no" in Docker's words.
fn refused(name: &Reference, wrong: Wrong) -> Failure {
    match wrong {
        Wrong::Denied => Failure::lasting("denied: requested access to the resource is denied: authorization failed"),
        other => explain(name, other),
    }
}
