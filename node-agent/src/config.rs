//! What a node agent has to be told. Plain data, decided by whoever wires the components together.

use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use reeve_engine::images::ImageStore;
use rustls::client::ResolvesClientCert;
use rustls::server::ResolvesServerCert;

use crate::credentials::CredentialProviders;

/// Everything a [`crate::NodeAgent`] is built from, besides its seams.
#[derive(Debug)]
pub struct AgentConfig {
    /// Facts that never change while the agent runs.
    pub node: NodeConfig,
    /// The server for logs, exec and attach.
    pub server: ServerConfig,
    /// Whom to ask who one is at images' registries, besides pods' secrets.
    pub credentials: Option<CredentialProviders>,
    /// The exchange of images with other nodes, if it takes part.
    pub peers: Option<PeersConfig>,
}

/// Facts about the node and its cluster.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Name of the cluster; only for messages and link names.
    pub cluster_name: String,
    /// Name of the Node object; also its host name label.
    pub node_name: String,
    /// The node's InternalIP, as pods and the API server reach it.
    pub node_ip: IpAddr,
    /// Where pods' volumes, logs and addresses are kept; survives a reboot.
    pub data_dir: PathBuf,
    /// Range of all pods of the cluster; what no pod has is unreachable.
    pub cluster_cidr: Ipv4Net,
    /// Range of the Services.
    pub service_cidr: Ipv4Net,
    /// Address of the cluster DNS, written into pods' resolv.conf.
    pub cluster_dns: IpAddr,
    /// Domain of the cluster DNS, usually `cluster.local`.
    pub cluster_domain: String,
    /// The node's resolver configuration, for pods with `dnsPolicy: Default`.
    pub resolv_conf: PathBuf,
    /// First letters of the names of links the agent makes (at most 6); differs between clusters of one machine.
    pub link_prefix: String,
    /// The Kubernetes version the node reports: `v1.36.2+reeve.0.1.0`.
    pub kubelet_version: String,
    /// How many pods the node takes. Kubernetes' default is 110.
    pub max_pods: u32,
    /// How many processes and threads a pod may have; kubelet `podPidsLimit`.
    pub pod_pids_limit: u32,
    /// What of the node is not for pods.
    pub reserved: Reserved,
}

/// Resources that are kept from pods: capacity less these is allocatable.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reserved {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub storage_bytes: u64,
}

/// The kubelet's server: TLS, and only for one client.
#[derive(Debug)]
pub struct ServerConfig {
    /// Already bound; its port is reported in `node.status.daemonEndpoints`.
    pub listener: TcpListener,
    /// What is shown to clients; may change while the server runs.
    pub certificate: Arc<dyn ResolvesServerCert>,
    /// Authority that signs the API server's client certificate, PEM.
    pub client_ca_pem: String,
    /// Common name a client's certificate must carry: `kube-apiserver-kubelet-client`.
    pub client_name: String,
    /// Authority that signs other nodes' client certificates (the cluster's), PEM; `None`: they are refused.
    pub node_ca_pem: Option<String>,
}

/// How images that were made on one node get to the others. Not for nodes whose containers another runtime runs.
#[derive(Debug, Clone)]
pub struct PeersConfig {
    /// The images of this node.
    pub store: ImageStore,
    /// Authority that signs what other nodes' kubelets show (the cluster's), PEM.
    pub ca_pem: String,
    /// What is presented to them: `system:node:NAME` of the group `system:nodes`; may change while the agent runs.
    pub certificate: Arc<dyn ResolvesClientCert>,
}

impl NodeConfig {
    /// Folder of everything that belongs to one pod.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.data_dir.join("pods").join(uid)
    }

    /// Folder of a pod's container logs, named as the kubelet names it.
    pub(crate) fn log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.data_dir.join("logs").join(format!("{namespace}_{name}_{uid}"))
    }

    /// The link that carries the node's own address in the pod range.
    #[must_use]
    pub fn node_link(&self) -> String {
        node_link(&self.link_prefix)
    }
}

/// Name of the link that carries the node's own address in the pod range, for a given prefix.
#[must_use]
pub fn node_link(link_prefix: &str) -> String {
    format!("{link_prefix}0")
}
