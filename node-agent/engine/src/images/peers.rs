//! Images from one node of a cluster to another, without a registry: those that were built or loaded, and no others.
//!
//! What a registry gave is never given on: whether somebody may have it is for the registry to say, pod by pod. An
//! image that was made on a node has nobody else to ask, so its mark (`made` in the index) is all the permission there
//! is; it travels with the image. What is spoken is the reading half of the OCI distribution specification 1.1, with
//! the registry of the name in the query's `ns`, as containerd asks its mirrors. Here are both ends but for TLS, HTTP's
//! serving side and who is asked: those are the node agent's.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use hyper::StatusCode;
use hyper::header::{ACCEPT, RANGE};
use reqwest::redirect::Policy;

use super::blobs::DOCUMENT_BYTES_MAX;
use super::error::{ImageError, Step as _, chain};
use super::index::Record;
use super::manifest::{DOCKER_MANIFEST, Document, OCI_MANIFEST};
use super::pull::{Failure, STALL_TIMEOUT, blocking, install_crypto, nobody, parse};
use super::reference::{Digest, Reference};
use super::transfer::{Pieces, Source, Transfer};
use super::{ImageStore, NewImage};
use crate::engine::Image;

/// Time to connect: a node that is there answers at once, and there are others to ask.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a manifest, all in all.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for messages.
    pub node: String,
    /// Where its agent serves.
    pub address: SocketAddr,
}

/// How other nodes are spoken to. Cheap to clone; connections are kept for a while.
#[derive(Debug, Clone)]
pub struct PeerClient(reqwest::Client);

/// A manifest that other nodes may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedManifest {
    /// The digest of its bytes.
    pub digest: Digest,
    /// What it calls itself.
    pub media_type: String,
    /// The document.
    pub bytes: Vec<u8>,
}

/// A blob that other nodes may have.
#[derive(Debug)]
pub struct OfferedBlob {
    /// At its beginning.
    pub file: File,
    /// Bytes in it.
    pub size: u64,
}

/// One repository of one peer.
pub(crate) struct PeerRepository {
    client: PeerClient,
    peer: Peer,
    image: Reference,
}

impl PeerClient {
    /// A client that shows and demands what `tls` says. Proxies of the environment are passed by.
    ///
    /// # Errors
    /// When the client cannot be made of it.
    pub fn new(tls: rustls::ClientConfig) -> Result<Self, ImageError> {
        install_crypto();
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .no_proxy()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(STALL_TIMEOUT)
            .user_agent(concat!("reeve/", env!("CARGO_PKG_VERSION")));
        let client = builder.build().map_err(|error| ImageError::invalid("client of other nodes", chain(&error)))?;
        Ok(Self(client))
    }
}

impl ImageStore {
    /// The manifest of an image that other nodes may have: by tag, under its registry and repository, or by digest.
    /// Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn offered_manifest(&self, repository: &str, reference: &str) -> Result<Option<OfferedManifest>, ImageError> {
        let wanted = Digest::parse(reference).ok();
        let name = format!("{repository}:{reference}");
        let is_it = |record: &&Record| match &wanted {
            Some(digest) => record.manifest == *digest,
            None => record.names.contains(&name),
        };
        let records = self.inner.index.read()?;
        let found = records.iter().find(is_it).filter(|record| record.made);
        let Some(record) = found.filter(|_| self.gives_to_peers()) else { return Ok(None) };
        let bytes = self.blobs().read(&record.manifest)?;
        let media_type = match Document::parse(record.manifest.as_str(), &bytes)? {
            Document::Manifest(manifest) if !manifest.media_type.is_empty() => manifest.media_type,
            _ => OCI_MANIFEST.to_owned(),
        };
        Ok(Some(OfferedManifest { digest: record.manifest.clone(), media_type, bytes }))
    }

    /// A configuration or layer of an image that other nodes may have. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn offered_blob(&self, digest: &Digest) -> Result<Option<OfferedBlob>, ImageError> {
        let records = self.inner.index.read()?;
        let is_offered = records.iter().any(|record| record.made && record.blobs().any(|blob| blob == digest));
        if !is_offered || !self.gives_to_peers() {
            return Ok(None);
        }
        let file = self.blobs().reader(digest)?;
        let size = file.metadata().step("look at", &self.blobs().path(digest))?.len();
        Ok(Some(OfferedBlob { file, size }))
    }

    /// Whether this node takes part. A file that cannot be read says no.
    fn gives_to_peers(&self) -> bool {
        self.registries().is_ok_and(|registries| registries.gives_to_peers())
    }

    /// Fetches an image that was made on another node from the first of `peers` that has it. Calls for the same image
    /// share one transfer. The image is one that was made, here too.
    ///
    /// # Errors
    /// When nobody has it, with everybody's reason.
    pub async fn pull_from_peers(
        &self,
        reference: &str,
        peers: Vec<Peer>,
        client: &PeerClient,
    ) -> Result<Image, ImageError> {
        let reference = Reference::parse(reference)?;
        let name = reference.to_string();
        // No image's name has a space in it.
        let key = (format!("from peers {name}"), None);
        let pull = self.pulls().join(key, || {
            let (store, client) = (self.clone(), client.clone());
            async move { store.ask_peers(&reference, peers, &client).await }
        });
        pull.await.map_err(|reason| ImageError::Pull { image: name, reason })
    }

    async fn ask_peers(&self, image: &Reference, peers: Vec<Peer>, client: &PeerClient) -> Result<Image, String> {
        let store = self.clone();
        let takes_part = tokio::task::spawn_blocking(move || store.gives_to_peers()).await;
        if !takes_part.unwrap_or(false) {
            return Err("images are not shared between nodes here".to_owned());
        }
        let mut reasons = Vec::new();
        for peer in peers {
            let node = peer.node.clone();
            let repository = PeerRepository { client: client.clone(), peer, image: image.clone() };
            match self.pull_from_peer(image, repository).await {
                Ok(found) => {
                    tracing::info!(%image, node, "The image came from another node.");
                    return Ok(found);
                }
                Err(Failure { reason, .. }) => reasons.push(format!("node {node}: {reason}")),
            }
        }
        Err(if reasons.is_empty() { "no other node has it".to_owned() } else { reasons.join("; ") })
    }

    async fn pull_from_peer(&self, image: &Reference, repository: PeerRepository) -> Result<Image, Failure> {
        let store = self.clone();
        let session = blocking(move || store.begin()).await?;
        let bytes = tokio::time::timeout(MANIFEST_TIMEOUT, repository.manifest()).await;
        let bytes = bytes.map_err(|_| Failure::transient("timeout"))??;
        let manifest = parse(&bytes)?;
        let bytes_max = self.limits().transfer_bytes_max;
        let transfer = Transfer::new(Source::Peer(repository), self.blobs().clone(), bytes_max, nobody());
        transfer.fetch_all(self, manifest).await?;
        let names = image.tagged().into_iter().collect();
        let (store, new) = (self.clone(), NewImage { manifest: bytes, names, digests: Vec::new(), made: true });
        Ok(blocking(move || store.add(&session, new)).await?)
    }
}

impl PeerRepository {
    async fn manifest(&self) -> Result<Vec<u8>, Failure> {
        let reference = match (self.image.digest(), self.image.tag()) {
            (Some(digest), _) => digest.as_str(),
            (None, tag) => tag.unwrap_or("latest"),
        };
        let request = self.client.0.get(self.url("manifests", reference));
        let accepted = format!("{OCI_MANIFEST}, {DOCKER_MANIFEST}");
        let mut answer = request.header(ACCEPT, accepted).send().await.map_err(|error| broken(&error))?;
        self.check(answer.status())?;
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| broken(&error))? {
            if (bytes.len() + piece.len()) as u64 > DOCUMENT_BYTES_MAX {
                return Err(Failure::lasting("the manifest is too large"));
            }
            bytes.extend_from_slice(&piece);
        }
        match self.image.digest() {
            Some(digest) if Digest::of(&bytes) != *digest => Err(Failure::lasting("the digest does not fit")),
            _ => Ok(bytes),
        }
    }

    /// A blob from `offset` on, and whether it begins there: else at its beginning.
    pub(super) async fn open(&self, digest: &Digest, offset: u64) -> Result<(Pieces, bool), Failure> {
        let mut request = self.client.0.get(self.url("blobs", digest.as_str()));
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let answer = request.send().await.map_err(|error| broken(&error))?;
        self.check(answer.status())?;
        let partial = answer.status() == StatusCode::PARTIAL_CONTENT;
        let next = |mut answer: reqwest::Response| async move {
            let piece = answer.chunk().await.map_err(|error| io::Error::other(chain(&error))).transpose()?;
            Some((piece, answer))
        };
        Ok((stream::unfold(answer, next).boxed(), partial))
    }

    fn url(&self, what: &str, reference: &str) -> String {
        let (address, path, domain) = (self.peer.address, self.image.path(), self.image.domain());
        format!("https://{address}/v2/{path}/{what}/{reference}?ns={domain}")
    }

    fn check(&self, status: StatusCode) -> Result<(), Failure> {
        match status {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => Ok(()),
            StatusCode::NOT_FOUND => Err(Failure::lasting(format!("{}: not found", self.image))),
            StatusCode::TOO_MANY_REQUESTS => Err(Failure::transient("it is busy")),
            other => Err(Failure::lasting(format!("it answers {other}"))),
        }
    }
}

fn broken(error: &reqwest::Error) -> Failure {
    Failure::transient(chain(error))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Fixture, docker_archive, layer};
    use super::*;

    #[test]
    fn only_what_was_built_or_loaded_is_offered_to_other_nodes() {
        let fixture = Fixture::new();
        let store = &fixture.store;
        let load = |name: &str, content: &str| {
            fixture.load(&docker_archive(&[name], &[layer(&[("f", content)]), layer(&[("g", name)])], ""))
        };
        load("team/made:1", "1");
        load("registry.lan:5000/pulled:1", "1");
        store
            .inner
            .index
            .update(|records| {
                records.iter_mut().filter(|own| own.names[0].contains("pulled")).for_each(|own| own.made = false);
                Ok(())
            })
            .unwrap();
        let made = store.offered_manifest("docker.io/team/made", "1").unwrap().unwrap();
        assert_eq!(made.media_type, OCI_MANIFEST);
        let by_digest = store.offered_manifest("docker.io/team/made", made.digest.as_str()).unwrap();
        assert_eq!(by_digest.as_ref(), Some(&made));
        assert_eq!(store.offered_manifest("docker.io/team/made", "2").unwrap(), None);
        assert_eq!(store.offered_manifest("docker.io/other/made", "1").unwrap(), None);
        let records = store.inner.index.read().unwrap();
        let [made, pulled] = records.as_slice() else { panic!("two images") };
        assert!(made.blobs().all(|blob| store.offered_blob(blob).unwrap().is_some_and(|found| found.size > 0)));
        let hidden = store.offered_manifest("registry.lan:5000/pulled", "1").unwrap();
        assert_eq!(hidden, None);
        let hidden = store.offered_manifest("registry.lan:5000/pulled", pulled.manifest.as_str()).unwrap();
        assert_eq!(hidden, None);
        // The layer that both share is offered, what only the other has is not.
        let offered: Vec<bool> = pulled.blobs().map(|blob| store.offered_blob(blob).unwrap().is_some()).collect();
        assert_eq!(offered, [false, false, true, false]);
        fixture.registries("peers: false");
        assert!(store.offered_manifest("docker.io/team/made", "1").unwrap().is_none());
        assert!(store.offered_blob(&made.id).unwrap().is_none());
    }
}
