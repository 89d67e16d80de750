//! `log`, `exec`, `attach` and `portforward`: requests about a pod that its node answers.
//!
//! The API server checks the request against the pod, finds the node's kubelet and passes the bytes through: log
//! text as a body, the others as an upgraded connection, byte by byte (the protocols on it are spoken by the agent).
//! It never follows a redirect: a node cannot send it anywhere else. The kubelet must show a
//! certificate of the cluster CA for the node's name, so a node's address cannot be borrowed either.

mod command;
mod container;
mod kubelet;
mod log;
mod port_forward;
mod stream;

pub(crate) use kubelet::{Kubelet, KubeletError, NodeAddress};
pub(crate) use stream::{is_upgrade, tunnel};

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::http::{Answer, Call, Query};
use crate::registry::{Registry, Request};
use crate::status::ApiError;

/// So many commands, attachments and logs may run at once; the next gets 429. Each holds two connections.
const TUNNELS_MAX: usize = 256;

/// So many requests may be proxied at once; the next gets 429. Each holds a connection.
const PROXIED_MAX: usize = 1024;

/// Answers what nodes know.
pub(crate) struct Nodes {
    kubelet: Kubelet,
    shutdown: CancellationToken,
    tunnels: Arc<Semaphore>,
    /// One permit per proxied request that is still being answered.
    pub(crate) proxied: Arc<Semaphore>,
    /// Counts what is proxied to Services, so that endpoints take turns.
    turn: AtomicUsize,
}

/// Where a pod's container is to be found.
struct Place {
    node: kubelet::NodeAddress,
    /// `NAMESPACE/POD/CONTAINER`
    path: String,
}

impl Nodes {
    /// Streams end when `shutdown` is cancelled.
    pub(crate) fn new(kubelet: Kubelet, shutdown: CancellationToken) -> Self {
        let [tunnels, proxied] = [TUNNELS_MAX, PROXIED_MAX].map(|most| Arc::new(Semaphore::new(most)));
        Self { kubelet, shutdown, tunnels, proxied, turn: AtomicUsize::new(0) }
    }

    /// Cancelled when the server stops.
    pub(crate) fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Another number each time.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A connection to a node's kubelet; the text says why there is none.
    pub(crate) async fn dial(&self, node: &NodeAddress) -> Result<TlsStream<TcpStream>, String> {
        self.kubelet.dial(node).await.map_err(|error| error.to_string())
    }

    /// `pods/NAME/log`
    pub(crate) async fn log(&self, registry: &Registry, request: &Request, query: &Query) -> Result<Answer, ApiError> {
        log::answer(self, registry, request, query).await
    }

    /// `pods/NAME/exec`, `attach` and `portforward`; `may_create` says whether the user may create one.
    pub(crate) async fn stream(
        &self,
        registry: &Registry,
        request: &Request,
        call: Call,
        may_create: Result<(), ApiError>,
    ) -> Result<Answer, ApiError> {
        stream::answer(self, registry, request, call, may_create).await
    }
}

/// Where the kubelet of a pod's node is to be found; `None` when the pod has no node yet.
fn node_of(registry: &Registry, pod: &Value) -> Result<Option<NodeAddress>, ApiError> {
    let node_name = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node_name.is_empty() {
        return Ok(None);
    }
    let nodes = registry.resource("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
    let node =
        registry.peek(&nodes, "", node_name).ok_or_else(|| ApiError::not_found(nodes.names(), node_name))?.value();
    NodeAddress::of(node_name, &node).map(Some)
}

/// The pod, its container and its node; `None` when the pod has no node yet.
async fn locate(registry: &Registry, request: &Request, container: &str) -> Result<Option<Place>, ApiError> {
    let pod = registry.get(request).await?.value();
    let container = container::choose(&pod, &request.name, container)?;
    let Some(node) = node_of(registry, &pod)? else { return Ok(None) };
    let path = format!("{}/{}/{container}", request.namespace, request.name);
    Ok(Some(Place { node, path }))
}
