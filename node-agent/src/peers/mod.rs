//! Images between the nodes of a cluster: what was built or loaded on one is at once there for the others.
//!
//! Every node's `status.images` tells what it has; an image with names but no digest was made there, for a registry's
//! come with one (`plan.rs`). So an ordinary pull costs nothing here: nobody is asked who does not say that he has it.
//! What travels, and what a node may give, is the engine's (`reeve_engine::images::peers`); `serve.rs` answers others.

mod plan;
pub(crate) mod serve;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use reeve_client::{Component, Informer, InformerOptions};
use reeve_engine::engine::Image;
use reeve_engine::images::peers::{Peer, PeerClient};
use reeve_engine::images::{ImageStore, Reference};
use rustls::ClientConfig;
use tokio::sync::watch;

pub(crate) use self::plan::TOLD_MAX;
use crate::config::PeersConfig;
use crate::server::{ServerError, gate};

/// What the exchange stands on.
pub(crate) struct PeerParts {
    /// The images of this node.
    pub(crate) store: ImageStore,
    /// How others are spoken to.
    pub(crate) client: PeerClient,
    /// The node's own name.
    pub(crate) own: String,
}

/// The other nodes, as far as images are concerned. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ImagePeers {
    parts: Arc<PeerParts>,
    nodes: Informer<Node>,
    /// Counts the changes of what the others say that they have made.
    announced: Arc<watch::Sender<u64>>,
}

/// A client for other nodes' servers: it knows them by the cluster's authority and by their addresses.
pub(crate) fn client(config: &PeersConfig) -> Result<PeerClient, ServerError> {
    let bad = |reason: String| ServerError::Pem { what: "client certificate for other nodes", reason };
    let roots = gate::roots("CA of the cluster", &config.ca_pem)?;
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::clone(&config.certificate));
    PeerClient::new(tls).map_err(|error| bad(error.to_string()))
}

impl ImagePeers {
    /// Follows all Nodes.
    pub(crate) fn start(component: &Component, nodes: Api<Node>, parts: PeerParts) -> Self {
        let options = InformerOptions { trim: Some(plan::trim), ..InformerOptions::default() };
        let nodes = Informer::start(component, nodes, options);
        let (announced, own) = (Arc::new(watch::Sender::new(0_u64)), parts.own.clone());
        let told = Arc::clone(&announced);
        nodes.on_change(move |change| {
            let about_own = change.object().metadata.name.as_deref() == Some(&own);
            let (old, new) = (change.old().map(|node| plan::made(node)), change.new().map(|node| plan::made(node)));
            if !about_own && old.unwrap_or_default() != new.unwrap_or_default() {
                told.send_modify(|version| *version = version.wrapping_add(1));
            }
        });
        Self { parts: Arc::new(parts), nodes, announced }
    }

    /// Changes its number when another node has made an image, or has it no longer.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.announced.subscribe()
    }

    /// Whether another node says that it has made this image.
    pub(crate) fn is_announced(&self, image: &str) -> bool {
        Reference::parse(image).is_ok_and(|image| !self.holders(&image).is_empty())
    }

    /// The image, if a node that says it has made it gives it.
    pub(crate) async fn fetch(&self, image: &str) -> Option<Image> {
        let reference = Reference::parse(image).ok()?;
        self.ask(image, self.holders(&reference)).await
    }

    /// Waits for another node that has made the image, and gives it.
    pub(crate) async fn appears(&self, image: &str) -> Image {
        let mut changed = self.changed();
        loop {
            if let Some(image) = self.fetch(image).await {
                return image;
            }
            if changed.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// The image, if a node gives it that has more than it can say in its status.
    pub(crate) async fn search(&self, image: &str) -> Option<Image> {
        let nodes = self.nodes.store().list();
        self.ask(image, plan::silent(nodes.iter().map(AsRef::as_ref), &self.parts.own)).await
    }

    fn holders(&self, image: &Reference) -> Vec<Peer> {
        let nodes = self.nodes.store().list();
        let Some(name) = image.tagged() else { return Vec::new() };
        plan::holders(nodes.iter().map(AsRef::as_ref), &self.parts.own, &name)
    }

    async fn ask(&self, image: &str, peers: Vec<Peer>) -> Option<Image> {
        if peers.is_empty() {
            return None;
        }
        match self.parts.store.pull_from_peers(image, peers, &self.parts.client).await {
            Ok(found) => Some(found),
            Err(error) => {
                tracing::warn!(%error, "no other node has given the image");
                None
            }
        }
    }
}
