//! Every component of a one-node cluster, built and wired in one process.
//!
//! Order: certificates and store, API server, then everything that asks it. All but the API server reach it through
//! a client of their own identity.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reeve_api::clock::SharedClock;
use reeve_api::rng::SharedRng;
use reeve_apiserver::pki::{CertKey, LiveCertificate, Pki, PkiConfig, PkiError};
use reeve_apiserver::registry::UserInfo;
use reeve_apiserver::{AboutCluster, ApiServer, RENEWAL_INTERVAL};
use reeve_client::Component;
use reeve_engine::engine::SharedEngine;
use reeve_engine::images::ImageStore;
use reeve_node_agent::{AgentConfig, AgentSeams, NodeAgent, NodeConfig, PeersConfig, Reserved, ServerConfig};
use reeve_proxy::{Proxy, ProxyConfig};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config::{ClusterConfig, Paths};
use super::control::{self, ApiPlace, DOMAIN, Own, Way};
use super::error::ClusterError;
use super::etcd::OpenStore;
use super::identity;
use super::runtime::{CredentialChoice, Runtime};
use crate::backup::Subject;
use crate::backup::schedule::Scheduled;

/// Pods per node, Kubernetes' default.
const PODS_MAX: u32 = 110;
/// Processes and threads of a pod: one that makes them without end takes none of the others'. A kubelet has no limit
/// unless it is told one; OpenShift's are told this one.
const POD_PIDS_LIMIT: u32 = 4096;
/// The name the API server's client certificate carries towards node agents.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";
/// How long open requests may take at the end.
const DRAIN_WAIT: Duration = Duration::from_secs(2);

/// What the process was given.
pub(crate) struct Surroundings {
    /// Folders.
    pub paths: Paths,
    /// Lasting choices.
    pub config: ClusterConfig,
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub node_ip: Ipv4Addr,
    /// Where the API server listens, already bound.
    pub api_listeners: Vec<TcpListener>,
    /// Where the node agent listens, already bound.
    pub kubelet_listener: TcpListener,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
}

/// A cluster that runs in this process.
pub(crate) struct Running {
    /// Certificates and keys.
    pub pki: Pki,
    server: ApiServer,
    store: OpenStore,
    shutdown: CancellationToken,
    tasks: JoinSet<Result<(), ClusterError>>,
}

/// Starts everything. Returns when all components run; the node is not ready yet.
pub(crate) async fn start(own: Surroundings) -> Result<Running, ClusterError> {
    let pki = open_pki(&own)?;
    let engine = Runtime::open(&own.paths, &own.config);
    let (engine, store) = tokio::join!(engine, super::etcd::open(&own));
    let engine = engine?;
    let (images, engine) = (engine.images(), engine.shared());
    let mut store = store?;
    let renewal = store.serve(&own, &pki).await?;
    let shutdown = CancellationToken::new();
    let surroundings = Own { clock: own.clock.clone(), rng: own.rng.clone(), shutdown: shutdown.clone() };
    let advertise = SocketAddr::from((own.node_ip, own.config.api_port));
    let place =
        ApiPlace { service_cidr: own.config.service_cidr, advertise, several: false, history: own.config.store.age() };
    let server = control::start_api_server(&surroundings, &pki, store.kv.clone(), place).await?;
    server.offer_backups(about(&own));
    for listener in &own.api_listeners {
        let listener = listener.try_clone().map_err(|err| ClusterError::io("share a listener", err))?;
        server.serve(listener).map_err(|err| ClusterError::component("API server", err))?;
    }
    let mut tasks = JoinSet::new();
    start_components(&own, &server, &pki, (engine, images), (&shutdown, &mut tasks))?;
    start_backups(&own, &server, &store, (&shutdown, &mut tasks));
    if let Some(renewal) = renewal {
        let ending = shutdown.clone();
        tasks.spawn(async move {
            ending.run_until_cancelled(renewal).await;
            Ok(())
        });
    }
    Ok(Running { pki, server, store, shutdown, tasks })
}

impl Running {
    /// A client inside this process.
    pub(crate) fn client(&self, user: UserInfo) -> kube::Client {
        self.server.client(user)
    }

    /// Waits until the roles are there with which a cluster starts: before, `/readyz` fails and most users are refused.
    pub(crate) async fn roles_made(&self) {
        self.server.roles_made().await;
    }

    /// Returns when a component has ended although nobody told it to, with its reason.
    pub(crate) async fn failed(&mut self) -> ClusterError {
        match self.tasks.join_next().await {
            Some(Ok(Err(err))) => err,
            Some(Ok(Ok(()))) => ClusterError::component("component", "ended by itself"),
            Some(Err(err)) => ClusterError::component("component", err),
            None => std::future::pending().await,
        }
    }

    /// Ends everything in order. Containers and the rules in the kernel stay.
    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN_WAIT, ended).await;
        self.server.shutdown(DRAIN_WAIT).await;
        self.store.close().await;
    }
}

fn open_pki(own: &Surroundings) -> Result<Pki, ClusterError> {
    let config = PkiConfig {
        dir: own.paths.data_dir.join("pki"),
        addresses: vec![own.node_ip.into()],
        names: vec![own.node_name.clone()],
        service_address: control::first_address(own.config.service_cidr).into(),
        cluster_domain: DOMAIN.to_owned(),
    };
    Pki::open(&config, own.clock.now()).map_err(|err| ClusterError::component("certificates", err))
}

/// What stands in backups besides the store; it is read when one is made.
fn about(own: &Surroundings) -> AboutCluster {
    let (data_dir, name, clock) = (own.paths.data_dir.clone(), own.config.name.clone(), own.clock.clone());
    let subject = Subject::Cluster { name };
    Arc::new(move || crate::backup::about(&data_dir, &subject, clock.now().as_second()))
}

/// The backups that the cluster makes of itself, if it was told to.
fn start_backups(own: &Surroundings, server: &ApiServer, store: &OpenStore, (shutdown, tasks): Tasks<'_>) {
    let Some(choices) = own.config.store.backup.clone() else { return };
    let (clock, rng) = (own.clock.clone(), own.rng.clone());
    let scheduled = Scheduled {
        cluster: own.config.name.clone(),
        choices,
        kv: store.kv.clone(),
        about: about(own),
        backups: server.backups(),
        component: Component::new(server.client(identity::admin()), clock, rng, shutdown.clone()),
        data_dir: own.paths.data_dir.clone(),
    };
    let ending = shutdown.clone();
    tasks.spawn(async move {
        ending.run_until_cancelled(scheduled.run()).await;
        ending.cancelled().await;
        Ok(())
    });
}

type Tasks<'a> = (&'a CancellationToken, &'a mut JoinSet<Result<(), ClusterError>>);

fn start_components(
    own: &Surroundings,
    server: &ApiServer,
    pki: &Pki,
    (engine, images): (SharedEngine, Option<ImageStore>),
    (shutdown, tasks): Tasks<'_>,
) -> Result<(), ClusterError> {
    let surroundings = Own { clock: own.clock.clone(), rng: own.rng.clone(), shutdown: shutdown.clone() };
    // A panic of scheduler or controllers costs no more than that they are built anew; a panic of proxy or agent ends
    // the process, and the next one takes over what they have in the kernel.
    tasks.spawn(control::run_scheduler(Way::of_scheduler(server), surroundings.clone()));
    let (cluster_cidr, ca_pem) = (own.config.cluster_cidr, pki.ca_pem().to_owned());
    let way = Way::of_controllers(server);
    tasks.spawn(control::run_controllers(way, cluster_cidr, ca_pem, surroundings.clone()));
    let component = surroundings.component(server.client(identity::proxy()));
    let proxy = Proxy::new(proxy_config(own), component.clone());
    let seams = AgentSeams {
        client: server.client(identity::node(&own.node_name)),
        nodes: server.client(identity::proxy()),
        engine,
        drain: proxy.drain(),
        clock: own.clock.clone(),
        rng: own.rng.clone(),
        shutdown: shutdown.clone(),
    };
    tasks.spawn(async move {
        proxy.run().await.map_err(|err| ClusterError::component("proxy", err))?;
        component.outcome().map_err(|err| ClusterError::component("proxy", err))
    });
    let (config, renewal) = agent_config(own, pki, images)?;
    let ending = shutdown.clone();
    tasks.spawn(async move {
        ending.run_until_cancelled(renewal).await;
        Ok(())
    });
    let agent = NodeAgent::new(config, seams);
    let agent = agent.map_err(|err| ClusterError::component("node agent", err))?;
    tasks.spawn(async move { agent.run().await.map_err(|err| ClusterError::component("node agent", err)) });
    Ok(())
}

/// The node's resolver configuration. Behind a local stub resolver that only the host reaches, the stub's own
/// upstreams are taken, as the kubelet is told to on such machines.
fn resolv_conf() -> PathBuf {
    let behind_stub = PathBuf::from("/run/systemd/resolve/resolv.conf");
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if text.contains("127.0.0.53") && behind_stub.exists() { behind_stub } else { PathBuf::from("/etc/resolv.conf") }
}

fn proxy_config(own: &Surroundings) -> ProxyConfig {
    ProxyConfig {
        cluster: own.config.name.clone(),
        link_prefix: own.config.link_prefix(),
        pod_links: reeve_node_agent::pod_link_prefix(&own.config.link_prefix()),
        node: own.node_name.clone(),
        node_address: own.node_ip,
        cluster_cidr: own.config.cluster_cidr,
        service_cidr: own.config.service_cidr,
        dns_address: own.config.dns_address(),
        domain: DOMAIN.to_owned(),
        resolv_conf: resolv_conf(),
    }
}

/// A certificate of the node, and what keeps it valid while it is used.
fn live(
    issue: impl Fn() -> Result<CertKey, PkiError> + Clone + Send + Sync + 'static,
) -> Result<(Arc<LiveCertificate>, impl Future<Output = ()> + Send + 'static), ClusterError> {
    let first = issue().map_err(|err| ClusterError::component("certificates", err))?;
    let certificate = LiveCertificate::new(&first).map_err(|err| ClusterError::component("certificates", err))?;
    Ok((Arc::clone(&certificate), keep_valid(certificate, issue)))
}

/// The agent's configuration, and what keeps its certificates valid while it runs.
fn agent_config(
    own: &Surroundings,
    pki: &Pki,
    images: Option<ImageStore>,
) -> Result<(AgentConfig, impl Future<Output = ()> + Send + 'static), ClusterError> {
    let addresses: [IpAddr; 2] = [own.node_ip.into(), Ipv4Addr::LOCALHOST.into()];
    let (pki_of_node, node, clock) = (pki.clone(), own.node_name.clone(), own.clock.clone());
    let (certificate, renewal) = live(move || pki_of_node.node_serving(&node, &addresses, clock.now()))?;
    let (pki_of_node, node, clock) = (pki.clone(), own.node_name.clone(), own.clock.clone());
    let (client, client_renewal) = live(move || pki_of_node.node_client(&node, clock.now()))?;
    let renewal = async move {
        tokio::join!(renewal, client_renewal);
    };
    let listener = own.kubelet_listener.try_clone().map_err(|err| ClusterError::io("share a listener", err))?;
    let config = AgentConfig {
        node: NodeConfig {
            cluster_name: own.config.name.clone(),
            node_name: own.node_name.clone(),
            node_ip: own.node_ip.into(),
            data_dir: own.paths.data_dir.join("agent"),
            cluster_cidr: own.config.cluster_cidr,
            service_cidr: own.config.service_cidr,
            cluster_dns: own.config.dns_address().into(),
            cluster_domain: DOMAIN.to_owned(),
            resolv_conf: resolv_conf(),
            link_prefix: own.config.link_prefix(),
            kubelet_version: reeve_apiserver::VERSION.to_owned(),
            max_pods: PODS_MAX,
            pod_pids_limit: POD_PIDS_LIMIT,
            reserved: Reserved::default(),
        },
        server: ServerConfig {
            listener,
            certificate,
            client_ca_pem: pki.kubelet_client_ca_pem().to_owned(),
            client_name: KUBELET_CLIENT.to_owned(),
            node_ca_pem: Some(pki.ca_pem().to_owned()),
        },
        credentials: own.config.credentials.as_ref().map(CredentialChoice::open).transpose()?,
        peers: images.map(|store| PeersConfig { store, ca_pem: pki.ca_pem().to_owned(), certificate: client }),
    };
    Ok((config, renewal))
}

/// Looks from time to time whether a certificate has to be re-issued; the next handshakes show the new one.
pub(super) async fn keep_valid(
    shown: Arc<LiveCertificate>,
    issue: impl Fn() -> Result<CertKey, PkiError> + Clone + Send + Sync + 'static,
) {
    loop {
        tokio::time::sleep(RENEWAL_INTERVAL).await;
        let outcome = match tokio::task::spawn_blocking(issue.clone()).await {
            Ok(Ok(pair)) => shown.replace(&pair).map_err(|err| err.to_string()),
            Ok(Err(err)) => Err(err.to_string()),
            Err(err) => Err(err.to_string()),
        };
        if let Err(error) = outcome {
            tracing::error!(error, "a certificate cannot be renewed; trying again later");
        }
    }
}
