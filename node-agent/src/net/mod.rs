//! The node network: one veth pair per pod, host routes, addresses from the node's pod range.
//!
//! A pod's traffic is always routed by the host, also between pods of one node: each pod has its address with
//! prefix length 32 and a link-local gateway that is its veth's other end; the host has a route per pod. Both
//! ends know each other's hardware address from the start, so no ARP is needed, and the host listens to none; it
//! speaks no IPv6 on pods' links either.
//! What is not here: Services, masquerading, and that a pod sends from its own address only (the proxy's nftables
//! table). Ports of the node that lead to pods are in [`host_ports`].
//!
//! What a pod reaches: pods and Services of its cluster; the node's addresses, but not 127.0.0.0/8 nor link-local
//! addresses of the node; and what the node itself is routed to, from the node's address. The last includes, where the
//! node has the host's network namespace, other clusters of the machine, as any neighbouring network, and a cloud's
//! metadata service. A node with a network namespace of its own (`--netns`) reaches nothing outside.

pub(crate) mod host_ports;
mod ipam;
mod link;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use tokio::sync::Mutex;

use crate::config::NodeConfig;
use host_ports::{HostPort, HostPorts};
use ipam::{Addresses, IpamError};
use link::{HostLinks, LinkError, PodLink};

/// Why a pod's network cannot be made or released. Retryable, never caused by the pod's spec.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Addresses.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// Links and routes.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Ports of the node.
    #[error(transparent)]
    Nft(#[from] reeve_nft::NftError),
    /// A kernel setting.
    #[error("failed to write {path}: {source}")]
    Sysctl {
        /// The file below `/proc/sys`.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The node's range has no room for the node and a pod.
    #[error("the pod range {0} is too small")]
    RangeTooSmall(Ipv4Net),
}

/// The network of one node's pods.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    prefix: String,
    gateway: Ipv4Addr,
    links: HostLinks,
    /// Held only while addresses are given or taken; the write to disk is part of that.
    addresses: Mutex<Addresses>,
    /// Held while ports of the node are led to pods or taken back.
    ports: Mutex<HostPorts>,
}

impl PodNetwork {
    /// Makes the node's own link and routes, and reads which addresses are taken. Safe to call again after a restart.
    pub(crate) async fn start(config: &NodeConfig, range: Ipv4Net) -> Result<Self, NetError> {
        let gateway = gateway(range).ok_or(NetError::RangeTooSmall(range))?;
        let addresses = Addresses::open(config.data_dir.join("addresses.json"), range)?;
        let links = HostLinks::open()?;
        links.ensure_node_link(&config.node_link(), gateway).await?;
        links.reject_rest_of(config.cluster_cidr).await?;
        // Stays on when the cluster is gone: nobody can tell who else has come to rely on it.
        write_sysctl("net/ipv4/ip_forward", "1")?;
        let ports = HostPorts::open(host_ports::record(&config.data_dir), &config.cluster_name)?;
        let (prefix, addresses, ports) = (config.link_prefix.clone(), Mutex::new(addresses), Mutex::new(ports));
        Ok(Self { prefix, gateway, links, addresses, ports })
    }

    /// Gives the sandbox an address and wires its network namespace.
    pub(crate) async fn attach(&self, sandbox: &str, netns: &Path) -> Result<IpAddr, NetError> {
        let address = self.addresses.lock().await.allocate(sandbox)?;
        let link = PodLink { host_name: self.host_name(sandbox), address, gateway: self.gateway };
        if let Err(error) = self.links.wire(&link, netns).await {
            self.addresses.lock().await.release(sandbox)?;
            return Err(error.into());
        }
        without_ipv6(&link.host_name)?;
        Ok(IpAddr::V4(address))
    }

    /// Leads ports of the node to a sandbox that is wired.
    pub(crate) async fn publish(&self, sandbox: &str, address: IpAddr, ports: Vec<HostPort>) -> Result<(), NetError> {
        let IpAddr::V4(address) = address else { return Ok(()) };
        Ok(self.ports.lock().await.publish(sandbox, address, ports)?)
    }

    /// Takes ports, link and address away. Idempotent.
    pub(crate) async fn detach(&self, sandbox: &str) -> Result<(), NetError> {
        self.ports.lock().await.withdraw(sandbox)?;
        self.links.remove(&self.host_name(sandbox)).await?;
        self.addresses.lock().await.release(sandbox)?;
        Ok(())
    }

    /// The address of a sandbox that is wired.
    pub(crate) async fn address_of(&self, sandbox: &str) -> Option<IpAddr> {
        self.addresses.lock().await.of(sandbox).map(IpAddr::V4)
    }

    /// Gives back the addresses of sandboxes that are not in `alive`.
    pub(crate) async fn retain(&self, alive: &[String]) -> Result<(), NetError> {
        let gone = self.addresses.lock().await.others(alive);
        for sandbox in gone {
            self.detach(&sandbox).await?;
        }
        Ok(())
    }

    fn host_name(&self, sandbox: &str) -> String {
        host_name(&self.prefix, sandbox)
    }
}

/// Name of a pod's link on the host: at most 15 bytes, as the kernel wants it.
fn host_name(prefix: &str, sandbox: &str) -> String {
    let id: String = sandbox.chars().take(8).collect();
    format!("{}{id}", pod_link_prefix(prefix))
}

/// What the names of all pods' links on the host begin with, and no other link's.
#[must_use]
pub fn pod_link_prefix(link_prefix: &str) -> String {
    format!("{link_prefix}v")
}

/// The node's own address in its pod range: the first one.
fn gateway(range: Ipv4Net) -> Option<Ipv4Addr> {
    if range.prefix_len() > 29 { None } else { range.hosts().next() }
}

/// Takes the host's link-local IPv6 address from a pod's link: the pod would reach what listens on all addresses of
/// the node, past all rules. Fine on a kernel without IPv6.
fn without_ipv6(link: &str) -> Result<(), NetError> {
    let name = format!("net/ipv6/conf/{link}/disable_ipv6");
    if Path::new("/proc/sys").join(&name).exists() { write_sysctl(&name, "1") } else { Ok(()) }
}

fn write_sysctl(name: &str, value: &str) -> Result<(), NetError> {
    let path = Path::new("/proc/sys").join(name);
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| NetError::Sysctl { path, source })
}

/// Removes every link, route and port a cluster's node network has made; for `down --purge`. Idempotent.
///
/// # Errors
/// When the kernel refuses to list or remove.
pub async fn cleanup(cluster: &str, link_prefix: &str, cluster_cidr: Ipv4Net) -> Result<(), NetError> {
    host_ports::remove(cluster)?;
    let links = HostLinks::open()?;
    links.remove_all(link_prefix).await?;
    links.accept_rest_of(cluster_cidr).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
