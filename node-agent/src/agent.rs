//! Puts the parts of the node agent together: what starts when, and what waits for what.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::{Api, Client};
use reeve_api::clock::SharedClock;
use reeve_api::drain::EndpointDrain;
use reeve_api::rng::SharedRng;
use reeve_client::{Component, EventRecorder, Informer, InformerOptions, TaskPanicked, wait_for_sync};
use reeve_engine::engine::SharedEngine;
use reeve_engine::images::peers::PeerClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{AgentConfig, PeersConfig};
use crate::credentials::CredentialProviders;
use crate::net::PodNetwork;
use crate::node::keep;
use crate::node::machine::Capacity;
use crate::objects::ObjectCache;
use crate::peers::serve::Offers;
use crate::peers::{ImagePeers, PeerParts};
use crate::pod::context::NodeContext;
use crate::pod::table;
use crate::pod::user_ids::UserIds;
use crate::pod::view::Views;
use crate::probe::metrics::ProbeCounts;
use crate::server::stats::Seen;
use crate::server::{Backend, KubeletServer, ServerError};

/// What the agent stands on, besides its configuration.
pub struct AgentSeams {
    /// The API, as `system:node:NAME`.
    pub client: Client,
    /// The API, as somebody who may read all Nodes: the proxy of this node. A node itself may read its own only.
    pub nodes: Client,
    /// Containers and images.
    pub engine: SharedEngine,
    /// This node's proxy.
    pub drain: Arc<dyn EndpointDrain>,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// Cancelled when the agent has to stop. Containers go on.
    pub shutdown: CancellationToken,
}

/// The node agent. Built first, so that whatever is wrong with its configuration shows before anything runs.
pub struct NodeAgent {
    config: crate::config::NodeConfig,
    server: KubeletServer,
    credentials: Option<CredentialProviders>,
    peers: Option<(PeersConfig, PeerClient)>,
    seams: AgentSeams,
}

impl NodeAgent {
    /// Checks the configuration and takes the listener over. Call it inside the runtime.
    ///
    /// # Errors
    /// When certificates or listener cannot be used.
    pub fn new(config: AgentConfig, seams: AgentSeams) -> Result<Self, ServerError> {
        let server = KubeletServer::new(config.server)?;
        let peers = config.peers.map(|peers| crate::peers::client(&peers).map(|client| (peers, client))).transpose()?;
        Ok(Self { config: config.node, server, credentials: config.credentials, peers, seams })
    }

    /// The port the server listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Runs until shutdown. Containers that run then go on; the next agent adopts them.
    ///
    /// # Errors
    /// When a part without which the agent does not work has panicked.
    pub async fn run(self) -> Result<(), TaskPanicked> {
        let AgentSeams { client, nodes: all_nodes, engine, drain, clock, rng, shutdown } = self.seams;
        let component = Component::new(client, clock, rng, shutdown);
        let name = self.config.node_name.clone();
        let nodes = Informer::<Node>::start(
            &component,
            Api::all(component.client.clone()),
            InformerOptions { fields: format!("metadata.name={name}"), ..InformerOptions::default() },
        );
        let services = Informer::<Service>::start(
            &component,
            Api::all(component.client.clone()),
            InformerOptions { trim: Some(trim_service), ..InformerOptions::default() },
        );
        let pods = Informer::<Pod>::start(
            &component,
            Api::all(component.client.clone()),
            InformerOptions { fields: format!("spec.nodeName={name}"), ..InformerOptions::default() },
        );
        let (network, network_ready) = watch::channel(None);
        let images = watch::Sender::new(0_u64);
        let offers = self.peers.as_ref().map(|(peers, _)| Offers::new(peers.store.clone()));
        let peers = self.peers.map(|(own, client)| {
            ImagePeers::start(
                &component,
                Api::all(all_nodes),
                PeerParts { store: own.store, client, own: name.clone() },
            )
        });
        let announced = peers.as_ref().map(ImagePeers::changed);
        let node = Arc::new(NodeContext {
            probes: ProbeCounts::default(),
            user_ids: UserIds::of_node(self.config.max_pods, component.rng.clone()).await,
            capacity: Capacity::of_machine(&self.config.data_dir),
            config: self.config,
            engine,
            drain,
            events: EventRecorder::start(&component, "kubelet", Some(&name)),
            objects: ObjectCache::new(component.clone()),
            services: services.clone(),
            node: nodes.store().clone(),
            images: images.subscribe(),
            credentials: self.credentials,
            peers,
            network: network_ready,
            component: component.clone(),
        });
        let views = Views::default();
        let port = self.server.port();
        let backend =
            Arc::new(Backend { node: Arc::clone(&node), views: views.clone(), seen: Seen::default(), offers });
        component.spawn_vital("kubelet server", self.server.run(backend));
        component.spawn_vital("node status", keep(Arc::clone(&node), port));
        component.spawn_vital("image changes", count_images(node.engine.image_changes(), announced, images));
        component.spawn_vital("node network", bring_up_network(Arc::clone(&node), nodes, network));
        let pod_component = component.clone();
        component.spawn_vital("pods", async move {
            // Containers need to know the Services: variables are set once.
            if wait_for_sync(&pod_component, &[services.synced()]).await.is_ok() {
                table::run(node, pods, views).await;
            }
        });
        component.stopped().await;
        component.outcome()
    }
}

/// Counts what comes and goes of the node's images, and of those that other nodes have made.
async fn count_images(
    mut changes: BoxStream<'static, ()>,
    mut announced: Option<watch::Receiver<u64>>,
    images: watch::Sender<u64>,
) {
    loop {
        let changed = tokio::select! {
            change = changes.next() => change.is_some(),
            changed = next_of(&mut announced) => changed,
        };
        if !changed {
            // Dropping the sender would tell everybody to stop listening.
            return std::future::pending().await;
        }
        images.send_modify(|version| *version = version.wrapping_add(1));
    }
}

/// Returns after the next change; never where nothing is followed.
async fn next_of(changed: &mut Option<watch::Receiver<u64>>) -> bool {
    match changed {
        Some(changed) => changed.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}

/// Services are read for variables only.
fn trim_service(service: &mut Service) {
    service.status = None;
    service.metadata.annotations = None;
    service.metadata.labels = None;
    if let Some(spec) = &mut service.spec {
        spec.selector = None;
    }
}

/// Makes the node network as soon as the Node has its pod range.
async fn bring_up_network(
    node: Arc<NodeContext>,
    nodes: Informer<Node>,
    network: watch::Sender<Option<Arc<PodNetwork>>>,
) {
    let mut changed = nodes.changed();
    let range = loop {
        if let Some(range) = pod_range(&node) {
            break range;
        }
        if changed.changed().await.is_err() {
            return;
        }
    };
    loop {
        match start_network(&node, range).await {
            Ok(started) => {
                network.send_replace(Some(Arc::new(started)));
                // Dropping the sender would tell everybody that no network will ever come.
                return std::future::pending().await;
            }
            Err(error) => {
                tracing::error!(%error, %range, "failed to make the node network, trying again");
                tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            }
        }
    }
}

async fn start_network(node: &NodeContext, range: Ipv4Net) -> Result<PodNetwork, crate::net::NetError> {
    let network = PodNetwork::start(&node.config, range).await?;
    if let Ok(sandboxes) = node.engine.list_pod_sandboxes().await {
        let alive: Vec<_> = sandboxes.into_iter().map(|sandbox| sandbox.id).collect();
        network.retain(&alive).await?;
    }
    Ok(network)
}

/// The node's pod range, once the controller manager has assigned it.
fn pod_range(node: &NodeContext) -> Option<Ipv4Net> {
    let object = node.node.get("", &node.config.node_name)?;
    let spec = object.spec.as_ref()?;
    let ranges = spec.pod_cidr.iter().chain(spec.pod_cidrs.iter().flatten());
    ranges.into_iter().find_map(|range| range.parse().ok())
}
