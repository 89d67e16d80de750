//! Puts the parts of the node agent together: what starts when, and what waits for what.

use std::sync::Arc;

use futures::StreamExt as _;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::{Api, Client};
use reeve_api::clock::SharedClock;
use reeve_api::drain::EndpointDrain;
use reeve_api::rng::SharedRng;
use reeve_client::{Component, EventRecorder, Informer, InformerOptions, TaskPanicked, wait_for_sync};
use reeve_engine::engine::SharedEngine;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::AgentConfig;
use crate::net::PodNetwork;
use crate::node::machine::Capacity;
use crate::node::{lease, register, report};
use crate::objects::ObjectCache;
use crate::pod::context::NodeContext;
use crate::pod::table;
use crate::pod::view::Views;
use crate::server::stats::Seen;
use crate::server::{Backend, KubeletServer, ServerError};

/// What the agent stands on, besides its configuration.
pub struct AgentSeams {
    /// The API, as `system:node:NAME`.
    pub client: Client,
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
    seams: AgentSeams,
}

impl NodeAgent {
    /// Checks the configuration and takes the listener over. Call it inside the runtime.
    ///
    /// # Errors
    /// When certificates or listener cannot be used.
    pub fn new(config: AgentConfig, seams: AgentSeams) -> Result<Self, ServerError> {
        let server = KubeletServer::new(config.server)?;
        Ok(Self { config: config.node, server, seams })
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
        let AgentSeams { client, engine, drain, clock, rng, shutdown } = self.seams;
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
        let node = Arc::new(NodeContext {
            capacity: Capacity::of_machine(&self.config.data_dir),
            config: self.config,
            engine,
            drain,
            events: EventRecorder::start(&component, "kubelet", Some(&name)),
            objects: ObjectCache::new(component.clone()),
            services: services.clone(),
            node: nodes.store().clone(),
            images: images.subscribe(),
            network: network_ready,
            component: component.clone(),
        });
        let views = Views::default();
        let port = self.server.port();
        let backend = Arc::new(Backend { node: Arc::clone(&node), views: views.clone(), seen: Seen::default() });
        component.spawn_vital("kubelet server", self.server.run(backend));
        let reporter = Arc::clone(&node);
        component.spawn_vital("node status", async move {
            register(&reporter, port).await;
            let renewer = Arc::clone(&reporter);
            reporter.component.spawn_vital("node lease", lease::renew(renewer));
            report(reporter, port).await;
        });
        let mut changes = node.engine.image_changes();
        component.spawn_vital("image changes", async move {
            while changes.next().await.is_some() {
                images.send_modify(|version| *version = version.wrapping_add(1));
            }
            // Dropping the sender would tell everybody to stop listening.
            std::future::pending::<()>().await;
        });
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
