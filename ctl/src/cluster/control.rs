//! The components that a control plane has wherever it runs, in the process of `reeve up` and on every `reeve server`:
//! API server, scheduler, controllers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::Ipv4Net;
use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;
use reeve_apiserver::pki::Pki;
use reeve_apiserver::registry::{RegistryConfig, RegistryParts};
use reeve_apiserver::{ApiServer, ApiServerConfig, Limits, RunningComponents};
use reeve_client::{Component, restarting};
use reeve_controller_manager::{ControllerManager, ControllerManagerConfig};
use reeve_scheduler::{Scheduler, SchedulerConfig};
use reeve_store::SharedKv;
use tokio_util::sync::CancellationToken;

use super::error::ClusterError;
use super::identity;

/// The cluster's DNS domain.
pub(super) const DOMAIN: &str = "cluster.local";
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// Connections at once; kubectl and clients hold a few each.
const CONNECTIONS_MAX: usize = 10_000;
/// The size of a node's range, Kubernetes' default.
const NODE_MASK: u8 = 24;

/// What components get besides their client.
#[derive(Clone)]
pub(super) struct Own {
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// When to end.
    pub shutdown: CancellationToken,
}

impl Own {
    /// The same until an earlier end.
    pub(super) fn until(&self, shutdown: CancellationToken) -> Self {
        Self { shutdown, ..self.clone() }
    }

    /// A component that asks through that client.
    pub(super) fn component(&self, client: kube::Client) -> Component {
        Component::new(client, self.clock.clone(), self.rng.clone(), self.shutdown.clone())
    }
}

/// The first address of the service range: that of the `kubernetes` Service.
pub(super) fn first_address(service_cidr: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(service_cidr.network()).saturating_add(1))
}

/// Address of the cluster DNS: the tenth of the service range, as everywhere in the field.
pub(super) fn dns_address(service_cidr: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(service_cidr.network()).saturating_add(10))
}

/// What is special about an API server.
pub(super) struct ApiPlace {
    /// Addresses of Services.
    pub service_cidr: Ipv4Net,
    /// Where it is reached.
    pub advertise: SocketAddr,
    /// Whether there may be others on the store.
    pub several: bool,
    /// How long old versions of objects are kept at least.
    pub history: Duration,
}

/// Starts the API server on a store; nothing listens yet.
pub(super) async fn start_api_server(
    own: &Own,
    pki: &Pki,
    kv: SharedKv,
    place: ApiPlace,
) -> Result<ApiServer, ClusterError> {
    let ApiPlace { service_cidr, advertise, several, history } = place;
    let config = ApiServerConfig {
        registry: RegistryConfig {
            service_cidr,
            dns_address: Some(IpAddr::V4(dns_address(service_cidr))),
            node_ports: NODE_PORTS,
            advertise,
            several,
            history,
        },
        pki: pki.clone(),
        issuer: format!("https://kubernetes.default.svc.{DOMAIN}"),
        connections_max: CONNECTIONS_MAX,
        limits: Limits::default(),
    };
    let (clock, rng) = (own.clock.clone(), own.rng.clone());
    let parts = RegistryParts { kv, kinds: reeve_kinds::builtin(), clock, rng };
    ApiServer::start(config, parts).await.map_err(|err| ClusterError::component("API server", err))
}

/// How a component of this process reaches the API server.
#[derive(Clone)]
pub(super) struct Way {
    /// With an identity of its own.
    pub client: kube::Client,
    running: RunningComponents,
}

impl Way {
    /// The scheduler's.
    pub(super) fn of_scheduler(server: &ApiServer) -> Self {
        Self { client: server.client(identity::scheduler()), running: server.components() }
    }

    /// The controllers'.
    pub(super) fn of_controllers(server: &ApiServer) -> Self {
        Self { client: server.client(identity::controller_manager()), running: server.components() }
    }
}

/// Runs the scheduler until it is told to end. It holds nothing but what it watches: after a panic it is built anew.
pub(super) async fn run_scheduler(way: Way, own: Own) -> Result<(), ClusterError> {
    let ended = restarting("scheduler", || {
        let (component, running) = (own.component(way.client.clone()), way.running.clone());
        (component.clone(), async move {
            let _running = running.enter("scheduler");
            Scheduler::new(SchedulerConfig::default(), component).run().await
        })
    });
    ended.await.map_err(|err| ClusterError::component("scheduler", err))
}

/// Runs the controllers, likewise.
pub(super) async fn run_controllers(
    way: Way,
    cluster_cidr: Ipv4Net,
    ca_pem: String,
    own: Own,
) -> Result<(), ClusterError> {
    let config = ControllerManagerConfig { cluster_cidr: cluster_cidr.into(), node_cidr_mask: NODE_MASK, ca_pem };
    let ended = restarting("controllers", || {
        let (component, running, config) = (own.component(way.client.clone()), way.running.clone(), config.clone());
        (component.clone(), async move {
            let _running = running.enter("controller-manager");
            ControllerManager::new(config, component).run().await
        })
    });
    ended.await.map_err(|err| ClusterError::component("controllers", err))
}
