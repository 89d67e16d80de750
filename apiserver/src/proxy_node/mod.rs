//! `log`, `exec` and `attach`: requests about a pod that its node answers.
//!
//! The API server checks the request against the pod, finds the node's kubelet and passes the bytes through: log
//! text as a body, exec and attach as an upgraded connection, byte by byte (the WebSocket protocol is spoken by
//! the agent). It never follows a redirect: a node cannot send it anywhere else. The kubelet must show a
//! certificate of the cluster CA for the node's name, so a node's address cannot be borrowed either.

mod container;
mod kubelet;
mod log;
mod stream;

pub(crate) use kubelet::{Kubelet, KubeletError};

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::http::{Answer, Call, Query};
use crate::registry::{Registry, Request};
use crate::status::ApiError;

/// So many commands, attachments and logs may run at once; the next gets 429. Each holds two connections.
const TUNNELS_MAX: usize = 256;

/// Answers what nodes know.
pub(crate) struct Nodes {
    kubelet: Kubelet,
    shutdown: CancellationToken,
    tunnels: Arc<Semaphore>,
}

/// Where a pod's container is to be found.
struct Place {
    node: kubelet::NodeAddress,
    /// `NAMESPACE/POD/CONTAINER`
    path: String,
    pod: Value,
    container: String,
}

impl Nodes {
    /// Streams end when `shutdown` is cancelled.
    pub(crate) fn new(kubelet: Kubelet, shutdown: CancellationToken) -> Self {
        Self { kubelet, shutdown, tunnels: Arc::new(Semaphore::new(TUNNELS_MAX)) }
    }

    /// `pods/NAME/log`
    pub(crate) async fn log(&self, registry: &Registry, request: &Request, query: &Query) -> Result<Answer, ApiError> {
        log::answer(self, registry, request, query).await
    }

    /// `pods/NAME/exec` and `pods/NAME/attach`
    pub(crate) async fn stream(&self, registry: &Registry, request: &Request, call: Call) -> Result<Answer, ApiError> {
        stream::answer(self, registry, request, call).await
    }
}

/// The pod, its container and its node; `None` when the pod has no node yet.
async fn locate(registry: &Registry, request: &Request, container: &str) -> Result<Option<Place>, ApiError> {
    let pod = registry.get(request).await?.value();
    let container = container::choose(&pod, &request.name, container)?;
    let node_name = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node_name.is_empty() {
        return Ok(None);
    }
    let nodes = registry.resource("", "v1", "nodes").ok_or_else(ApiError::no_such_path)?;
    let node =
        registry.peek(&nodes, "", node_name).ok_or_else(|| ApiError::not_found(nodes.names(), node_name))?.value();
    let node = kubelet::NodeAddress::of(node_name, &node)?;
    let path = format!("{}/{}/{container}", request.namespace, request.name);
    Ok(Some(Place { node, path, pod, container }))
}
