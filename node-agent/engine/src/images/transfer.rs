//! Fetches one blob: streamed to disk and hashed on the way, taken up again where it broke off, never longer than
//! it should be.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt as _};
use tokio::sync::mpsc;

use super::ImageStore;
use super::arrival::{Arrival, Arriving, Came};
use super::blobs::{BlobWriter, Blobs};
use super::error::ImageError;
use super::index::LayerRef;
use super::manifest::{Descriptor, Manifest, parse_config};
use super::peers::PeerRepository;
use super::pull::{
    ANSWER_TIMEOUT, ATTEMPTS_MAX, Failure, PullEvent, PullTeller, Registry, blocking, explain, is_full, unique,
    with_retries,
};
use super::reference::Digest;
use crate::snapshot::layers::Compressed;

/// Pieces between the network and the disk. Full: the network waits.
const PIECES_MAX: usize = 16;
/// Layers of one image that travel at the same time; Docker's and containerd's default.
const DOWNLOADS_MAX: usize = 3;

/// How far blobs are.
type Coming = HashMap<Digest, Arrival>;
pub(super) type Pieces = BoxStream<'static, Result<Bytes, io::Error>>;

/// Where blobs come from.
pub(crate) enum Source {
    /// A repository of a registry.
    Registry(Registry),
    /// The same of another node.
    Peer(PeerRepository),
}

/// Brings blobs from one repository into the store.
pub(crate) struct Transfer {
    source: Source,
    blobs: Blobs,
    bytes_max: u64,
    teller: PullTeller,
}

impl Transfer {
    pub(crate) fn new(source: Source, blobs: Blobs, bytes_max: u64, teller: PullTeller) -> Self {
        Self { source, blobs, bytes_max, teller }
    }

    /// Everything that an image consists of. Layers are unpacked while they arrive, the lowest first; what could not be
    /// is unpacked when the image is added, and told of there.
    pub(crate) async fn fetch_all(&self, store: &ImageStore, manifest: Manifest) -> Result<(), Failure> {
        let config = manifest.config.clone();
        let layers: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
        let descriptors = unique(std::iter::once(manifest.config).chain(manifest.layers).collect());
        let coming: Coming = descriptors.iter().map(|own| (own.digest.clone(), Arrival::default())).collect();
        let arriving = |own: &Descriptor| coming.get(&own.digest).map(Arrival::arriving);
        let fetches: Vec<_> = descriptors.into_iter().map(|own| (arriving(&own), own)).collect();
        let store = store.clone();
        let unpacking = tokio::task::spawn_blocking(move || unpack(&store, &config.digest, layers, &coming));
        let fetched = stream::iter(fetches)
            .map(|(arriving, descriptor)| self.fetch(descriptor, arriving))
            .buffer_unordered(DOWNLOADS_MAX)
            .try_collect::<()>()
            .await;
        // Whatever does not come is lost by now, so this ends.
        match unpacking.await {
            Ok(Err(error)) => tracing::debug!(%error, "not every layer was unpacked while it arrived"),
            Err(error) => tracing::warn!(%error, "the thread that unpacks layers died"),
            Ok(Ok(())) => {}
        }
        fetched
    }

    /// The blob is whole and on disk when it returns. What is here already does not travel.
    async fn fetch(&self, descriptor: Descriptor, arriving: Option<Arriving>) -> Result<(), Failure> {
        if self.blobs.get(&descriptor.digest).is_some() {
            if let Some(arriving) = arriving {
                arriving.finish();
            }
            (self.teller)(PullEvent::Known(descriptor.digest));
            return Ok(());
        }
        if descriptor.size > self.bytes_max {
            let (size, max) = (descriptor.size, self.bytes_max);
            return Err(Failure::lasting(format!("{} has {size} bytes; at most {max} are taken", descriptor.digest)));
        }
        let (blobs, digest) = (self.blobs.clone(), descriptor.digest.clone());
        let mut writer = blocking(move || blobs.writer_of(&digest, arriving)).await?;
        let is_resumed = writer.size() > 0;
        if writer.size() > descriptor.size {
            writer = restarted(writer).await?;
        }
        writer = self.fill(writer, &descriptor).await?;
        if is_resumed && writer.digest() != descriptor.digest {
            // What had come before was not of it.
            writer = restarted(writer).await?;
            writer = self.fill(writer, &descriptor).await?;
        }
        let blob = blocking(move || writer.commit(Some(&descriptor.digest))).await?;
        (self.teller)(PullEvent::Whole(blob.digest));
        Ok(())
    }

    /// Fetches what is missing. What came is kept when the rest may come another time.
    async fn fill(&self, mut writer: BlobWriter, descriptor: &Descriptor) -> Result<BlobWriter, Failure> {
        for attempt in 1..=ATTEMPTS_MAX {
            if writer.size() == descriptor.size && writer.digest() == descriptor.digest {
                break;
            }
            let result;
            (writer, result) = self.continue_into(writer, descriptor).await?;
            match result {
                Ok(()) => break,
                Err(failure) if !failure.transient => {
                    writer.discard();
                    return Err(failure);
                }
                Err(failure) if attempt == ATTEMPTS_MAX => return Err(failure),
                Err(failure) => tracing::debug!(reason = failure.reason, attempt, "transfer broke off"),
            }
        }
        Ok(writer)
    }

    /// One go: from where the writer stands to the end, if all is well.
    async fn continue_into(
        &self,
        mut writer: BlobWriter,
        descriptor: &Descriptor,
    ) -> Result<(BlobWriter, Result<(), Failure>), Failure> {
        let offset = writer.size();
        let (pieces, partial) = with_retries(|| self.open_in_time(descriptor, offset)).await?;
        if !partial {
            writer = restarted(writer).await?;
        }
        copy(pieces, writer, descriptor, &self.teller).await
    }

    /// A registry may take its time to send, but not to answer.
    async fn open_in_time(&self, descriptor: &Descriptor, offset: u64) -> Result<(Pieces, bool), Failure> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.open(descriptor, offset)).await;
        answer.unwrap_or_else(|_| Err(Failure::transient(format!("failed to fetch {}: timeout", descriptor.digest))))
    }

    /// Asks for the blob from `offset` on. A registry that cannot sends the whole.
    async fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<(Pieces, bool), Failure> {
        let registry = match &self.source {
            Source::Registry(registry) => registry,
            Source::Peer(repository) => return repository.open(&descriptor.digest, offset).await,
        };
        registry.repository.blob(&descriptor.digest, offset).await.map_err(|wrong| {
            let inner = explain(&registry.reference, wrong);
            Failure { reason: format!("failed to fetch {}: {}", descriptor.digest, inner.reason), ..inner }
        })
    }
}

/// Unpacks an image's layers as they come. Blocks until all have come or one does not.
fn unpack(store: &ImageStore, config: &Digest, layers: Vec<Digest>, coming: &Coming) -> Result<(), ImageError> {
    let failed = |source| ImageError::Io { step: "read a blob that arrives".to_owned(), source };
    let missing = || failed(io::ErrorKind::NotFound.into());
    let arrival = coming.get(config).ok_or_else(missing)?;
    arrival.wait_whole().map_err(failed)?;
    let (_, diff_ids) = parse_config(config.as_str(), &store.blobs().read(config)?)?;
    if diff_ids.len() != layers.len() {
        return Err(ImageError::invalid(config.as_str(), "it has not as many layers as its manifest"));
    }
    let refs: Vec<LayerRef> =
        layers.into_iter().zip(diff_ids).map(|(blob, diff_id)| LayerRef { blob, diff_id }).collect();
    store.unpack_from(&refs, &|layer| {
        let arrival = coming.get(&layer.blob).ok_or_else(missing)?;
        match arrival.wait().map_err(failed)? {
            Came::Begun(follower) => {
                let read = Compressed::SoFar(follower.counter());
                Ok((Box::new(follower) as Box<dyn Read>, read))
            }
            Came::Whole => {
                let whole = store.blobs().get(&layer.blob).ok_or_else(missing)?;
                Ok((Box::new(store.blobs().reader(&layer.blob)?), Compressed::Known(whole.size)))
            }
        }
    })?;
    Ok(())
}

/// The writer, at its beginning again.
async fn restarted(mut writer: BlobWriter) -> Result<BlobWriter, ImageError> {
    let failed = |source| ImageError::Io { step: "write a blob".to_owned(), source };
    blocking(move || writer.restart().map(|()| writer).map_err(failed)).await
}

/// Moves pieces to the disk's thread until the stream ends or fails. The writer comes back either way.
async fn copy(
    mut pieces: Pieces,
    mut writer: BlobWriter,
    descriptor: &Descriptor,
    teller: &PullTeller,
) -> Result<(BlobWriter, Result<(), Failure>), Failure> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES_MAX);
    let (digest, size) = (descriptor.digest.clone(), descriptor.size);
    let mut left = size.saturating_sub(writer.size());
    let disk = tokio::task::spawn_blocking(move || {
        while let Some(piece) = receiver.blocking_recv() {
            if let Err(error) = writer.write_all(&piece) {
                // A full disk is not to be kept full.
                writer.discard();
                return Err(error);
            }
        }
        Ok(writer)
    });
    let result = loop {
        // Once all is here, the digest says whether it is right; how the stream ends does not matter.
        if left == 0 {
            break Ok(());
        }
        match pieces.next().await {
            None => break Err(Failure::transient(format!("failed to fetch {digest}: unexpected EOF"))),
            Some(Err(error)) => break Err(Failure::transient(format!("failed to fetch {digest}: {error}"))),
            Some(Ok(piece)) if piece.len() as u64 > left => {
                break Err(Failure::lasting(format!("failed to fetch {digest}: longer than its {size} bytes")));
            }
            Some(Ok(piece)) => {
                left -= piece.len() as u64;
                teller(PullEvent::Came { digest: digest.clone(), bytes: size - left, size });
                // A closed channel means that the disk failed: its error comes below.
                if sender.send(piece).await.is_err() {
                    break Ok(());
                }
            }
        }
    };
    drop(sender);
    let written = disk.await.map_err(io::Error::other).flatten();
    let writer = written.map_err(|error| {
        let full = is_full(&error);
        Failure { full, ..Failure::lasting(format!("failed to write {digest}: {error}")) }
    })?;
    Ok((writer, result))
}
