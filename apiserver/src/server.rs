//! The API server as a whole: built from a plain configuration and a store, served on TLS listeners and, without
//! any socket, to the components of this process.
//!
//! One [`ApiServer`] may serve several listeners. What is not here: what requests mean (`http`), where the
//! certificates come from (`pki`).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use reeve_api::clock::SharedClock;
use reeve_store::Leadership;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aggregator::Aggregator;
use crate::auth::front_proxy::{Authorities, Shown};
use crate::auth::impersonate::Remembered;
use crate::auth::token::TokenKey;
use crate::auth::{self, Authenticator, Modes, TokenKeyError};
use crate::flowcontrol::{self, FlowControl};
use crate::gate::{Gate, Place, Room};
use crate::http::web_socket::WebSockets;
use crate::http::{
    AboutCluster, Api, Backups, Body, BoxError, ComponentStatuses, Health, InProcess, LiveFaces, Metrics, Own, Peer,
    Reviews, RunningComponents,
};
use crate::join::{ControlPlane, Neighbours};
use crate::pki::{LiveCertificate, Pki, PkiError, UnusableCertificate};
use crate::proxy_node::{Kubelet, KubeletError, Nodes};
use crate::registry::{Registry, RegistryConfig, RegistryParts, UserInfo, roles};
use crate::status::ApiError;

/// Longest head of a request over HTTP/1.1, and longest header list over HTTP/2, in bytes. Go's servers take 1 MiB;
/// no client needs that.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Most requests at once on one HTTP/2 connection; Kubernetes' number.
const STREAMS_MAX: u32 = 250;
/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's head (Kubernetes' number); also how long an idle HTTP/1.1 connection
/// is kept.
const HEAD_TIME_MAX: Duration = Duration::from_secs(32);
/// How long a connection may go without showing who it is for; then it is closed, once open requests are answered.
const STRANGER_TIME_MAX: Duration = Duration::from_secs(60);
/// Streams of one HTTP/2 connection that the client may have reset before the server has looked at them, and that the
/// server itself may have reset; one more and the connection ends. Against floods of resets (CVE-2023-44487,
/// CVE-2025-8671).
const PENDING_RESETS_MAX: usize = 20;
const OWN_RESETS_MAX: usize = 100;
/// How often a silent HTTP/2 client is asked whether it is still there, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_WAIT_MAX: Duration = Duration::from_secs(20);
/// How often it is looked whether certificates have to be renewed.
pub const RENEWAL_INTERVAL: Duration = Duration::from_secs(12 * 3600);
/// Wait after the system could not accept a connection (no descriptors left): accepting at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server must know. Plain data; no defaults are hidden elsewhere.
#[derive(Debug, Clone)]
pub struct ApiServerConfig {
    /// The cluster's addresses and ranges.
    pub registry: RegistryConfig,
    /// Certificates and keys.
    pub pki: Pki,
    /// Issuer of service-account tokens and the API server's own audience,
    /// `https://kubernetes.default.svc.cluster.local`.
    pub issuer: String,
    /// Most connections at once over all listeners; further ones wait until one ends. A quarter of them may be held by
    /// strangers, who have shown no valid certificate or token, and a quarter of that by strangers from one address.
    pub connections_max: usize,
    /// How much is done at once, and for how long.
    pub limits: Limits,
}

impl ApiServerConfig {
    /// What the server was told, by the names of kube-apiserver's flags and in their form.
    fn flags(&self) -> BTreeMap<&'static str, String> {
        let registry = &self.registry;
        BTreeMap::from([
            ("advertise-address", registry.advertise.ip().to_string()),
            ("secure-port", registry.advertise.port().to_string()),
            ("service-cluster-ip-range", registry.service_cidr.to_string()),
            ("service-node-port-range", format!("{}-{}", registry.node_ports.start(), registry.node_ports.end())),
            ("service-account-issuer", format!("[{}]", self.issuer)),
            ("api-audiences", format!("[{}]", self.issuer)),
            ("authorization-mode", "[Node,RBAC]".to_owned()),
            ("anonymous-auth", "true".to_owned()),
            ("max-requests-inflight", self.limits.requests_inflight.to_string()),
            ("max-mutating-requests-inflight", self.limits.mutating_requests_inflight.to_string()),
            ("request-timeout", flowcontrol::go_duration(self.limits.request_timeout)),
            ("etcd-compaction-interval", flowcontrol::go_duration(registry.history)),
        ])
    }
}

/// How much is done at once, and for how long. What there is of it by default is what kube-apiserver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `--max-requests-inflight` and `--max-mutating-requests-inflight`: their sum is shared by the priority levels.
    pub requests_inflight: u32,
    /// See `requests_inflight`.
    pub mutating_requests_inflight: u32,
    /// `--request-timeout`: longest time of a request that is no watch and no stream.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests_inflight: 400, mutating_requests_inflight: 200, request_timeout: Duration::from_secs(60) }
    }
}

impl Limits {
    fn seats(self) -> u32 {
        self.requests_inflight.saturating_add(self.mutating_requests_inflight)
    }
}

/// Why the server did not start. Nothing is served then.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store could not be read or filled.
    #[error("failed to start the registry: {0}")]
    Registry(ApiError),
    /// The service-account key is unusable.
    #[error(transparent)]
    TokenKey(#[from] TokenKeyError),
    /// The client certificate for kubelets is unusable.
    #[error(transparent)]
    Kubelet(#[from] KubeletError),
    /// A certificate or key cannot be read.
    #[error("the cluster CA cannot be read")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// A certificate that is to be shown is unusable.
    #[error(transparent)]
    Certificate(#[from] UnusableCertificate),
    /// TLS does not take the certificates.
    #[error("TLS refuses the serving certificate")]
    Tls(#[from] rustls::Error),
    /// TLS does not take the cluster CA.
    #[error("TLS refuses the cluster CA")]
    Verifier(#[from] VerifierBuilderError),
}

/// Why certificates could not be renewed. Those in use stay; tried again later.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The folder.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// What was made.
    #[error(transparent)]
    Certificate(#[from] UnusableCertificate),
    /// The process ends.
    #[error("interrupted")]
    Interrupted,
}

/// A running API server. Dropping it ends all connections at once; [`ApiServer::shutdown`] is the polite way.
pub struct ApiServer {
    api: Arc<Api>,
    serving: Arc<Serving>,
}

/// What every connection needs.
struct Serving {
    acceptor: TlsAcceptor,
    authorities: Authorities,
    connections: Arc<Semaphore>,
    gate: Arc<Gate>,
    certificates: Certificates,
    tasks: TaskTracker,
    /// Told to finish: no new connections, watches end, open requests are answered.
    shutdown: CancellationToken,
    /// Told to stop: connections are dropped.
    force: CancellationToken,
}

/// What the server shows, renewed while it runs.
struct Certificates {
    pki: Pki,
    clock: SharedClock,
    /// To clients.
    serving: Arc<LiveCertificate>,
    /// To kubelets.
    kubelet_client: Arc<LiveCertificate>,
    /// To aggregated API servers.
    front_proxy_client: Arc<LiveCertificate>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.serving.shutdown.cancel();
        self.serving.force.cancel();
    }
}

impl ApiServer {
    /// Starts the registry on the store and gets everything ready. Nothing listens yet: see [`ApiServer::serve`].
    pub async fn start(config: ApiServerConfig, parts: RegistryParts) -> Result<Self, StartError> {
        let shutdown = CancellationToken::new();
        let certificates = Certificates::new(config.pki.clone(), Arc::clone(&parts.clock))?;
        let kubelet = Kubelet::new(&config.pki, Arc::clone(&certificates.kubelet_client))?;
        let serving = Serving {
            acceptor: TlsAcceptor::from(Arc::new(tls(&config.pki, Arc::clone(&certificates.serving))?)),
            authorities: Authorities::new(&config.pki)?,
            certificates,
            connections: Arc::new(Semaphore::new(config.connections_max)),
            gate: Gate::new(Room::of(config.connections_max)),
            tasks: TaskTracker::new(),
            shutdown: shutdown.clone(),
            force: CancellationToken::new(),
        };
        let token_key = Arc::new(TokenKey::new(config.pki.signing_key_pem(), &config.issuer)?);
        let registry = Registry::start(config.registry.clone(), parts.clone()).await.map_err(StartError::Registry)?;
        let authorizer: Arc<dyn auth::Authorizer> = Arc::new(Modes {
            graph: Arc::clone(&registry.cache.graph),
            rbac: Arc::clone(&registry.cache.rbac),
            counted: auth::Counted::default(),
        });
        registry.policies.set_authorizer(Arc::clone(&authorizer));
        let aggregator = Aggregator::new(&registry, Arc::clone(&serving.certificates.front_proxy_client));
        aggregator.start(&registry, &config.pki).await.map_err(StartError::Registry)?;
        let clock = parts.clock;
        let flow = FlowControl::new(config.limits.seats(), Arc::clone(&clock), &parts.rng);
        flowcontrol::spawn(&flow, &registry, shutdown.clone());
        let key = Arc::clone(&token_key);
        let api = Api {
            authenticator: Authenticator { key, registry: Arc::clone(&registry), clock: Arc::clone(&clock) },
            authorizer,
            reviews: Reviews::default(),
            impersonations: Remembered::default(),
            faces: LiveFaces::new(config.registry.advertise.to_string(), Arc::clone(&aggregator)),
            components: ComponentStatuses::default(),
            health: Health::new(parts.kv, shutdown.clone(), roles::spawn(&registry)),
            nodes: Nodes::new(kubelet, shutdown.clone()),
            aggregator,
            registry,
            control_plane: OnceLock::new(),
            token_key,
            clock,
            rng: parts.rng,
            web_sockets: WebSockets::new(shutdown.clone()),
            shutdown,
            flow,
            limits: config.limits,
            protobuf: Arc::default(),
            metrics: Metrics::default(),
            own: Own::default(),
            flags: config.flags(),
        };
        let serving = Arc::new(serving);
        let (own, shutdown) = (Arc::clone(&serving), serving.shutdown.clone());
        serving.tasks.spawn(async move { shutdown.run_until_cancelled(own.certificates.keep()).await });
        Ok(Self { api: Arc::new(api), serving })
    }

    /// Re-issues the server's certificates if they are about to expire; the next handshakes show the new ones. Done by
    /// the server itself twice a day.
    pub async fn renew_certificates(&self) -> Result<(), RenewError> {
        self.serving.certificates.renew().await
    }

    /// Where the scheduler and the controllers of this process say that they run: `componentstatuses` shows it.
    #[must_use]
    pub fn components(&self) -> RunningComponents {
        self.api.components.running.clone()
    }

    /// Lets the server make backups: `about` says what stands in them besides the store. Only the first call counts.
    pub fn offer_backups(&self, about: AboutCluster) {
        let _ = self.api.own.about.set(about);
    }

    /// Whose turn it is to make a backup, and where it is noted how scheduled ones went.
    #[must_use]
    pub fn backups(&self) -> Backups {
        self.api.own.backups.clone()
    }

    /// Waits until the roles are there with which a cluster starts; until then most users are refused.
    pub async fn roles_made(&self) {
        // It cannot be told any more when the server stops.
        let _ = self.api.health.roles.clone().wait_for(|made| *made).await;
    }

    /// Makes this server one of a control plane: others can join through it, and its members can be seen and changed.
    /// Only the first call counts. `leadership` is the store's.
    pub fn serve_control_plane(&self, control_plane: ControlPlane, leadership: watch::Receiver<Leadership>) {
        let own = Arc::clone(&self.serving.certificates.front_proxy_client);
        let neighbours = Neighbours::new(&self.api.registry, control_plane.ca_pem(), own);
        if self.api.control_plane.set(control_plane.asking(neighbours)).is_err() {
            return;
        }
        let (api, shutdown) = (Arc::clone(&self.api), self.serving.shutdown.clone());
        self.serving.tasks.spawn(async move {
            if let Some(control_plane) = api.control_plane.get() {
                let tending = control_plane.tend(&api.registry, leadership.clone());
                let comparing = control_plane.compare(leadership);
                shutdown.run_until_cancelled(async { tokio::join!(tending, comparing) }).await;
            }
        });
    }

    /// The registry, for checks that need no user.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.api.registry
    }

    /// Serves on a listener that is already bound, until shutdown. May be called for several. Needs a Tokio runtime.
    pub fn serve(&self, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (api, serving) = (Arc::clone(&self.api), Arc::clone(&self.serving));
        self.serving.tasks.spawn(async move {
            let shutdown = serving.shutdown.clone();
            shutdown.run_until_cancelled(accept(listener, &api, &serving)).await;
        });
        Ok(())
    }

    /// A client of this server inside this process: same rules, no sockets, no TLS. Requests carry `user` as a
    /// typed extension, which nothing from the network can set. Needs a Tokio runtime.
    #[must_use]
    pub fn client(&self, user: UserInfo) -> kube::Client {
        let api = Arc::clone(&self.api);
        let agent = http::HeaderValue::from_static(program_of(&user.name));
        let user = UserInfo { is_component: true, ..auth::authenticated(user) };
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let api = Arc::clone(&api);
            let mut request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
            request.extensions_mut().insert(InProcess(user.clone()));
            request.headers_mut().entry(http::header::USER_AGENT).or_insert_with(|| agent.clone());
            async move { Ok::<_, Infallible>(api.handle(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Stops accepting, ends the watches and waits for the open requests; after `grace` the rest is cut off.
    pub async fn shutdown(&self, grace: Duration) {
        self.serving.shutdown.cancel();
        self.serving.tasks.close();
        if tokio::time::timeout(grace, self.serving.tasks.wait()).await.is_err() {
            self.serving.force.cancel();
            self.serving.tasks.wait().await;
        }
    }
}

/// The name under which a component of this process writes (`managedFields`): that of its counterpart in Kubernetes,
/// where controllers have ServiceAccounts of their own and run in one program.
fn program_of(user: &str) -> &'static str {
    match user {
        "system:kube-scheduler" => "kube-scheduler",
        "system:kube-proxy" => "kube-proxy",
        _ if user.starts_with("system:node:") => "kubelet",
        _ if user.starts_with("system:serviceaccount:kube-system:") => "kube-controller-manager",
        "system:kube-controller-manager" => "kube-controller-manager",
        _ => "reeve",
    }
}

impl Certificates {
    fn new(pki: Pki, clock: SharedClock) -> Result<Self, UnusableCertificate> {
        let (serving, kubelet_client) =
            (LiveCertificate::new(pki.serving())?, LiveCertificate::new(pki.kubelet_client())?);
        let front_proxy_client = LiveCertificate::new(pki.front_proxy_client())?;
        Ok(Self { pki, clock, serving, kubelet_client, front_proxy_client })
    }

    /// Looks from time to time; the clock may jump, so no single sleep is relied on.
    async fn keep(&self) {
        loop {
            tokio::time::sleep(RENEWAL_INTERVAL).await;
            if let Err(error) = self.renew().await {
                tracing::error!(%error, "the certificates cannot be renewed; trying again later");
            }
        }
    }

    async fn renew(&self) -> Result<(), RenewError> {
        let (pki, now) = (self.pki.clone(), self.clock.now());
        let renewed = tokio::task::spawn_blocking(move || pki.renewed(now)).await;
        let renewed = renewed.map_err(|_| RenewError::Interrupted)??;
        self.serving.replace(renewed.serving())?;
        self.kubelet_client.replace(renewed.kubelet_client())?;
        self.front_proxy_client.replace(renewed.front_proxy_client())?;
        Ok(())
    }
}

fn tls(pki: &Pki, shown: Arc<LiveCertificate>) -> Result<ServerConfig, StartError> {
    let mut roots = RootCertStore::empty();
    for ca in [pki.ca_pem(), pki.front_proxy_ca_pem()] {
        roots.add(CertificateDer::from_pem_slice(ca.as_bytes())?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Accepts for ever. When `connections_max` is reached, clients wait in the kernel's queue.
async fn accept(listener: TcpListener, api: &Arc<Api>, serving: &Arc<Serving>) {
    loop {
        let Ok(permit) = Arc::clone(&serving.connections).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (api, own) = (Arc::clone(api), Arc::clone(serving));
        let place = serving.gate.enter(address.ip());
        serving.tasks.spawn(async move {
            tokio::select! {
                () = own.force.cancelled() => {}
                () = place.sent_away.cancelled() => tracing::debug!(%address, "a stranger had to make room"),
                () = connection(stream, address.ip(), api, &own, &place) => {}
            }
            drop(permit);
        });
    }
}

/// One connection, from handshake to end.
async fn connection(stream: TcpStream, address: IpAddr, api: Arc<Api>, serving: &Serving, place: &Arc<Place>) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIME_MAX, serving.acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            api.metrics.tls_errors.add(1);
            return tracing::debug!(%error, "a TLS handshake failed");
        }
        Err(_) => {
            api.metrics.tls_errors.add(1);
            return tracing::debug!("a TLS handshake took too long");
        }
    };
    let chain = stream.get_ref().1.peer_certificates();
    let certificate_ends = chain.and_then(<[_]>::first).and_then(|own| auth::certificate::ends(own));
    let certificate = serving.authorities.read(chain);
    let peer = Peer { certificate, certificate_ends, address: Some(address), place: Some(Arc::clone(place)) };
    if matches!(peer.certificate, Shown::User(_) | Shown::FrontProxy) {
        place.prove();
    }
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let (api, peer) = (Arc::clone(&api), peer.clone());
        async move { Ok::<_, Infallible>(api.handle(from_network(request, peer)).await) }
    });
    let builder = builder();
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = serving.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = stayed_a_stranger(place) => {
            connection.as_mut().graceful_shutdown();
            // Whoever does not even read the answers is cut off.
            tokio::time::timeout(HANDSHAKE_TIME_MAX, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Returns when a connection has had its time to prove who it is for, and has not; else never.
async fn stayed_a_stranger(place: &Place) {
    tokio::select! {
        () = place.proven.cancelled() => std::future::pending().await,
        () = tokio::time::sleep(STRANGER_TIME_MAX) => {}
    }
}

/// A request as the network may send it: with its peer, and without any claim of being one of us.
fn from_network(request: http::Request<Incoming>, peer: Peer) -> http::Request<Body> {
    let mut request = request.map(|body| body.map_err(BoxError::from).boxed_unsync());
    request.extensions_mut().remove::<InProcess>();
    request.extensions_mut().insert(peer);
    request
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(usize::try_from(HEADER_BYTES_MAX).unwrap_or(usize::MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(OWN_RESETS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_WAIT_MAX);
    builder
}
