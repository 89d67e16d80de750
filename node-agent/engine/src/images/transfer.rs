//! Fetches one blob: streamed to disk and hashed on the way, taken up again where it broke off, never longer than
//! it should be.

use std::io::{self, Write};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use oci_client::client::BlobResponse;
use oci_client::manifest::OciDescriptor;
use tokio::sync::mpsc;

use super::blobs::{BlobWriter, Blobs};
use super::manifest::Descriptor;
use super::pull::{ANSWER_TIMEOUT, ATTEMPTS_MAX, Failure, blocking, failure, with_retries};

/// Pieces between the network and the disk. Full: the network waits.
const PIECES_MAX: usize = 16;

type Pieces = BoxStream<'static, Result<Bytes, io::Error>>;

/// Where blobs come from.
pub(crate) struct Blob {
    pub(crate) client: oci_client::Client,
    pub(crate) address: oci_client::Reference,
}

/// Brings blobs from one repository into the store.
pub(crate) struct Transfer {
    source: Blob,
    blobs: Blobs,
    bytes_max: u64,
}

impl Transfer {
    pub(crate) fn new(source: Blob, blobs: Blobs, bytes_max: u64) -> Self {
        Self { source, blobs, bytes_max }
    }

    /// The blob is whole and on disk when it returns. What is here already does not travel.
    pub(crate) async fn fetch(&self, descriptor: Descriptor) -> Result<(), Failure> {
        if self.blobs.get(&descriptor.digest).is_some() {
            return Ok(());
        }
        if descriptor.size > self.bytes_max {
            let (size, max) = (descriptor.size, self.bytes_max);
            return Err(Failure::lasting(format!("{} has {size} bytes; at most {max} are taken", descriptor.digest)));
        }
        let blobs = self.blobs.clone();
        let mut writer = blocking(move || blobs.writer()).await?;
        for attempt in 1..=ATTEMPTS_MAX {
            let result;
            (writer, result) = self.continue_into(writer, &descriptor).await?;
            match result {
                Err(failure) if !failure.transient || attempt == ATTEMPTS_MAX => return Err(failure),
                Err(failure) => tracing::debug!(reason = failure.reason, attempt, "transfer broke off"),
                Ok(()) => break,
            }
        }
        blocking(move || writer.commit(Some(&descriptor.digest))).await?;
        Ok(())
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
            writer = blocking(move || {
                writer
                    .restart()
                    .map(|()| writer)
                    .map_err(|source| super::ImageError::Io { step: "write a blob".to_owned(), source })
            })
            .await?;
        }
        copy(pieces, writer, descriptor).await
    }

    /// A registry may take its time to send, but not to answer.
    async fn open_in_time(&self, descriptor: &Descriptor, offset: u64) -> Result<(Pieces, bool), Failure> {
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.open(descriptor, offset)).await;
        answer.unwrap_or_else(|_| Err(Failure::transient(format!("failed to fetch {}: timeout", descriptor.digest))))
    }

    /// Asks for the blob from `offset` on. A registry that cannot sends the whole.
    async fn open(&self, descriptor: &Descriptor, offset: u64) -> Result<(Pieces, bool), Failure> {
        let layer = OciDescriptor { digest: descriptor.digest.to_string(), ..OciDescriptor::default() };
        let Blob { client, address } = &self.source;
        let explain = |error| {
            let inner = failure(&error);
            Failure { reason: format!("failed to fetch {}: {}", descriptor.digest, inner.reason), ..inner }
        };
        if offset == 0 {
            let whole = client.pull_blob_stream(address, &layer).await.map_err(explain)?;
            return Ok((whole.stream, false));
        }
        match client.pull_blob_stream_partial(address, &layer, offset, None).await.map_err(explain)? {
            BlobResponse::Full(whole) => Ok((whole.stream, false)),
            BlobResponse::Partial(rest) => Ok((rest.stream, true)),
        }
    }
}

/// Moves pieces to the disk's thread until the stream ends or fails. The writer comes back either way.
async fn copy(
    mut pieces: Pieces,
    mut writer: BlobWriter,
    descriptor: &Descriptor,
) -> Result<(BlobWriter, Result<(), Failure>), Failure> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES_MAX);
    let (digest, size) = (descriptor.digest.clone(), descriptor.size);
    let mut left = size.saturating_sub(writer.size());
    let disk = tokio::task::spawn_blocking(move || {
        while let Some(piece) = receiver.blocking_recv() {
            writer.write_all(&piece)?;
        }
        Ok::<_, io::Error>(writer)
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
                // A closed channel means that the disk failed: its error comes below.
                if sender.send(piece).await.is_err() {
                    break Ok(());
                }
            }
        }
    };
    drop(sender);
    let written = disk.await.map_err(io::Error::other).flatten();
    let writer = written.map_err(|error| Failure::lasting(format!("failed to write {digest}: {error}")))?;
    Ok((writer, result))
}
