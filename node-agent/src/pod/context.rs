//! What all pods of a node share: seams, caches, the node's own facts.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service};
use reeve_api::drain::EndpointDrain;
use reeve_client::{Component, EventRecorder, Informer, Store};
use reeve_engine::engine::SharedEngine;
use tokio::sync::watch;

use super::field::Surroundings;
use super::user_ids::UserIds;
use crate::config::NodeConfig;
use crate::credentials::CredentialProviders;
use crate::net::PodNetwork;
use crate::node::machine::Capacity;
use crate::objects::ObjectCache;
use crate::peers::ImagePeers;
use crate::probe::metrics::ProbeCounts;

/// The surroundings of every pod actor. One per agent.
pub(crate) struct NodeContext {
    pub(crate) config: NodeConfig,
    pub(crate) component: Component,
    pub(crate) engine: SharedEngine,
    pub(crate) drain: Arc<dyn EndpointDrain>,
    pub(crate) events: EventRecorder,
    pub(crate) objects: ObjectCache,
    pub(crate) services: Informer<Service>,
    /// The node's own object.
    pub(crate) node: Store<Node>,
    pub(crate) capacity: Capacity,
    /// Counts the changes of the images that are here.
    pub(crate) images: watch::Receiver<u64>,
    /// Whom else to ask who one is at a registry.
    pub(crate) credentials: Option<CredentialProviders>,
    /// The other nodes, as far as they give images to this one.
    pub(crate) peers: Option<ImagePeers>,
    /// Which ids of the node pods have.
    pub(crate) user_ids: UserIds,
    /// How containers' probes went.
    pub(crate) probes: ProbeCounts,
    /// The pod network, as soon as the node has its range.
    pub(crate) network: watch::Receiver<Option<Arc<PodNetwork>>>,
}

impl NodeContext {
    pub(crate) fn now(&self) -> jiff::Timestamp {
        self.component.clock.now()
    }

    /// What the downward API tells a pod with these addresses.
    pub(crate) fn surroundings(&self, pod_ips: &[std::net::IpAddr]) -> Surroundings {
        let allocatable = self.capacity.less(&self.config.reserved);
        Surroundings {
            pod_ips: pod_ips.to_vec(),
            node_ip: Some(self.config.node_ip),
            allocatable_cpu_milli: allocatable.cpu_milli,
            allocatable_memory: allocatable.memory_bytes,
            allocatable_storage: allocatable.storage_bytes,
        }
    }

    /// The pod network; waits until the node has its range.
    pub(crate) async fn network(&self) -> Option<Arc<PodNetwork>> {
        let mut network = self.network.clone();
        network.wait_for(Option::is_some).await.ok().and_then(|network| network.clone())
    }
}

/// Names a pod in an event.
pub(crate) fn about(pod: &Pod) -> ObjectReference {
    let meta = &pod.metadata;
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// Names a container of a pod in an event.
pub(crate) fn about_container(pod: &Pod, container: &str) -> ObjectReference {
    let spec = super::state::spec(pod);
    let is_init = spec.init_containers.iter().flatten().any(|init| init.name == container);
    let is_ephemeral = spec.ephemeral_containers.iter().flatten().any(|own| own.name == container);
    let list = match (is_init, is_ephemeral) {
        (true, _) => "initContainers",
        (_, true) => "ephemeralContainers",
        _ => "containers",
    };
    ObjectReference { field_path: Some(format!("spec.{list}{{{container}}}")), ..about(pod) }
}
