//! When a pod that is being deleted may be sent its termination signal.
//!
//! Kubernetes lets the kubelet and the proxies race: a container can get SIGTERM while packets are still
//! sent to it. Here the node agent asks the node's proxy first. This is the only agreement between two
//! components that does not travel through the API, and it never leaves the node.

use std::net::IpAddr;
use std::time::Duration;

/// The longest time a pod's termination waits for the proxy.
pub const DRAIN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Answers when this node's rules no longer send new connections to a pod. Implemented by the proxy.
#[async_trait::async_trait]
pub trait EndpointDrain: Send + Sync {
    /// Returns when no rule of this node leads new connections to `pod_ips` any more; at once if none does
    /// although the API already shows the pod as terminating. The caller bounds the wait by [`DRAIN_WAIT_MAX`].
    /// Safe to drop at any moment.
    async fn drained(&self, pod_ips: &[IpAddr]);
}

/// For a node without a proxy: there is nothing to wait for.
#[derive(Debug, Clone, Copy)]
pub struct NoProxy;

#[async_trait::async_trait]
impl EndpointDrain for NoProxy {
    async fn drained(&self, _pod_ips: &[IpAddr]) {}
}
