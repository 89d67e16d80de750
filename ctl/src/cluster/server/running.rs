//! A server at work: transport and store, API server, scheduler and controllers; in this order, and backwards at the
//! end, when leadership and leases are handed on first.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use reeve_apiserver::join::{ControlPlane, JoinToken, Network, Record, Settings, bootstrap_secret};
use reeve_apiserver::pki::{LiveCertificate, Pki, PkiConfig, public_key_hash};
use reeve_apiserver::{AboutCluster, ApiServer};
use reeve_client::lease::LeaseConfig;
use reeve_client::while_leading;
use reeve_etcd::EtcdServer;
use reeve_peer::{PeerConfig, PeerTransport, host_of};
use reeve_store::{MemberConfig, Peer, PeerFigures, SharedKv, Store, StoreConfig};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::components::keep_valid;
use super::super::control::{self, ApiPlace, DOMAIN, Own, Way};
use super::super::error::{ClusterError, at, with_causes};
use super::super::etcd::{self, Port};
use super::super::kubeconfig::{self, Entry};
use super::super::{daemon, files, identity};
use super::args::ServerArgs;
use super::place::Stage;
use super::{Server, joining};
use crate::backup::Subject;
use crate::backup::schedule::Scheduled;

/// The folder of the certificates.
pub(super) const PKI: &str = "pki";
/// A kubeconfig with the admin's identity.
pub(super) const KUBECONFIG: &str = "admin.kubeconfig";
/// How long open requests may take at the end.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// How long another member may take to become leader at the end.
const HAND_ON_WAIT: Duration = Duration::from_secs(3);
/// How long a start waits when the servers cannot decide.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long a token of the first start is valid: kubeadm's.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// kube-scheduler's and kube-controller-manager's Leases and that of scheduled backups, and how long they hold.
const LEASES: [&str; 3] = ["kube-scheduler", "kube-controller-manager", "reeve-backup"];
const LEASE_DURATION: Duration = Duration::from_secs(15);

/// See the module.
pub(super) struct Running {
    pki: Pki,
    transport: Arc<PeerTransport>,
    store: Arc<Store>,
    /// The port for clients of etcd.
    etcd: Option<EtcdServer>,
    server: ApiServer,
    own: Own,
    tasks: JoinSet<Result<(), ClusterError>>,
}

/// Starts everything. Returns when the API is served.
pub(super) async fn start(server: &mut Server, args: &ServerArgs) -> Result<Running, ClusterError> {
    let pki = open_pki(server)?;
    let mut tasks = JoinSet::new();
    let transport = open_transport(server, &pki, &mut tasks)?;
    let store = open_store(server, &transport).await?;
    if server.place.stage == Stage::Learning {
        joining::become_voter(server, &store).await?;
    }
    let mut leadership = store.leadership();
    tracing::info!("Waiting for enough servers to decide.");
    // It can only end with the store.
    let known = leadership.wait_for(|now| now.leader.is_some()).await.map(drop);
    known.map_err(|_| ClusterError::component("store", "it has stopped"))?;
    let kv = Arc::clone(&store) as SharedKv;
    let settings = server.place.settings()?.clone();
    while let Err(err) = server.place.own.keep(&*kv).await {
        if !may_be_over_soon(err.code) {
            return Err(ClusterError::component("server", err.message));
        }
        tracing::info!(err = err.message, "Waiting for enough servers to decide.");
        tokio::time::sleep(TRY_AGAIN_AFTER).await;
    }
    let history = server.place.store.age();
    let place = ApiPlace { service_cidr: settings.service_cidr, advertise: server.api, several: true, history };
    let api = control::start_api_server(&server.own, &pki, Arc::clone(&kv), place).await?;
    let members = (Arc::clone(&store) as _, Arc::new(Connections(Arc::clone(&transport))) as _);
    let control_plane = ControlPlane::new(members, kv, pki.clone(), settings.clone());
    let control_plane = control_plane.compared_every(args.compared_every());
    api.serve_control_plane(control_plane, store.leadership());
    api.offer_backups(about(server, &settings));
    let etcd = serve_etcd(server, &store, &pki, &mut tasks).await?;
    let listener = server.listeners.api.try_clone().map_err(|err| ClusterError::io("share a listener", err))?;
    api.serve(listener).map_err(|err| ClusterError::component("API server", err))?;
    write_kubeconfig(server, &pki)?;
    let running = Running { pki, transport, store, etcd, server: api, own: server.own.clone(), tasks };
    Ok(running.with_components(server, &settings))
}

/// What stands in backups besides the store; it is read when one is made.
fn about(server: &Server, settings: &Settings) -> AboutCluster {
    let (data_dir, clock) = (server.folder.dir().to_owned(), server.own.clock.clone());
    let subject = Subject::ControlPlane(settings.clone());
    Arc::new(move || crate::backup::about(&data_dir, &subject, clock.now().as_second()))
}

/// Opens the port for clients of etcd, if there is to be one.
async fn serve_etcd(
    server: &Server,
    store: &Arc<Store>,
    pki: &Pki,
    tasks: &mut JoinSet<Result<(), ClusterError>>,
) -> Result<Option<EtcdServer>, ClusterError> {
    let (Some(port), Some(listener)) = (server.place.etcd_port, &server.listeners.etcd) else { return Ok(None) };
    let listener = listener.try_clone().map_err(|err| ClusterError::io("share a listener", err))?;
    let addresses = vec![server.api.ip(), Ipv4Addr::LOCALHOST.into()];
    let at = Port { port, addresses, listeners: vec![listener] };
    let (served, renewal) = etcd::serve_store(store, pki, &server.own.clock, at).await?;
    let ending = server.own.shutdown.clone();
    tasks.spawn(async move {
        ending.run_until_cancelled(renewal).await;
        Ok(())
    });
    Ok(Some(served))
}

/// Whether the API server itself says that it could not do it now.
fn is_for_now(err: &kube::Error) -> bool {
    matches!(err, kube::Error::Api(status) if may_be_over_soon(status.code))
}

/// Whether an answer with this code says that it could not be done now: the servers have lost each other, say.
fn may_be_over_soon(code: u16) -> bool {
    matches!(code, 429 | 503 | 504)
}

/// The transport's figures, for the API server.
struct Connections(Arc<PeerTransport>);

impl Network for Connections {
    fn figures(&self) -> Vec<PeerFigures> {
        self.0.figures()
    }
}

fn open_pki(server: &Server) -> Result<Pki, ClusterError> {
    let config = PkiConfig {
        dir: server.folder.join(PKI),
        addresses: vec![server.api.ip()],
        names: vec![server.place.own.name.clone()],
        service_address: control::first_address(server.place.settings()?.service_cidr).into(),
        cluster_domain: DOMAIN.to_owned(),
    };
    Pki::open(&config, server.own.clock.now()).map_err(|err| ClusterError::component("certificates", err))
}

fn open_transport(
    server: &Server,
    pki: &Pki,
    tasks: &mut JoinSet<Result<(), ClusterError>>,
) -> Result<Arc<PeerTransport>, ClusterError> {
    let (id, cluster) = (server.place.own.id, server.place.cluster()?);
    let (clock, folder) = (server.own.clock.clone(), pki.clone());
    let issue = move || folder.peer(&host_of(id), clock.now());
    let pair = issue().map_err(|err| ClusterError::component("certificates", err))?;
    let certificate = LiveCertificate::new(&pair).map_err(|err| ClusterError::component("certificates", err))?;
    let (renewal, ending) = (keep_valid(Arc::clone(&certificate), issue), server.own.shutdown.clone());
    tasks.spawn(async move {
        ending.run_until_cancelled(renewal).await;
        Ok(())
    });
    let (ca_pem, address) = (pki.peer_ca_pem().to_owned(), server.place.own.peer_address.clone());
    let config = PeerConfig { id, cluster, ca_pem, address, certificate };
    PeerTransport::new(config).map_err(|err| ClusterError::component("transport", err))
}

async fn open_store(server: &Server, transport: &Arc<PeerTransport>) -> Result<Arc<Store>, ClusterError> {
    let place = &server.place;
    let (id, cluster, transport_of_store) = (place.own.id, place.cluster()?, Arc::clone(transport) as _);
    let peers = place.members.iter().map(|member| Peer { id: member.id, address: member.peer_address.clone() });
    let peers: Vec<Peer> = peers.filter(|peer| !peer.address.is_empty()).collect();
    let member = match place.stage {
        Stage::Learning => MemberConfig::Join { id, cluster, peers, transport: transport_of_store },
        _ => {
            let peers = peers.into_iter().filter(|peer| peer.id == id).collect();
            MemberConfig::Cluster { id, cluster, peers, transport: transport_of_store }
        }
    };
    let own = &server.own;
    let config = StoreConfig::new(server.folder.join("store"), own.clock.clone(), own.rng.clone());
    let store = Store::open(StoreConfig { member, limits: place.store.limits(), ..config }).await;
    let store = store.map_err(|err| ClusterError::component("store", with_causes(&err)))?;
    let listener = server.listeners.peers.try_clone().map_err(|err| ClusterError::io("share a listener", err))?;
    transport.serve(listener, store.inbox()).map_err(|err| ClusterError::io("listen to other servers", err))?;
    Ok(store)
}

/// How a server holds a Lease: after a crash it is the same one, and holds what it held.
fn lease(own: &Record, name: &str) -> LeaseConfig {
    LeaseConfig {
        namespace: "kube-system".to_owned(),
        name: name.to_owned(),
        identity: format!("{}_{:x}", own.name, own.id),
        duration: LEASE_DURATION,
    }
}

fn write_kubeconfig(server: &Server, pki: &Pki) -> Result<(), ClusterError> {
    let entry = Entry {
        name: "reeve".to_owned(),
        server: format!("https://{}", server.api),
        ca_pem: pki.ca_pem().to_owned(),
        cert_pem: pki.admin().cert_pem.clone(),
        key_pem: pki.admin().key_pem.clone(),
    };
    let (path, text) = (server.folder.join(KUBECONFIG), kubeconfig::standalone(&entry)?);
    files::replace(&path, text.as_bytes(), 0o600).map_err(|err| ClusterError::io(at("write", &path), err))
}

impl Running {
    /// Starts what runs on one of the servers at a time.
    fn with_components(mut self, server: &Server, settings: &Settings) -> Self {
        let [scheduler, controllers, backups] = LEASES.map(|name| lease(&server.place.own, name));
        let (own, way) = (self.own.clone(), Way::of_scheduler(&self.server));
        self.tasks.spawn(async move {
            let candidate = own.component(way.client.clone());
            while_leading(&candidate, &scheduler, |term| control::run_scheduler(way.clone(), own.until(term))).await
        });
        let (own, way, ca_pem) = (self.own.clone(), Way::of_controllers(&self.server), self.pki.ca_pem().to_owned());
        let cluster_cidr = settings.cluster_cidr;
        self.tasks.spawn(async move {
            let candidate = own.component(way.client.clone());
            let run = |term| control::run_controllers(way.clone(), cluster_cidr, ca_pem.clone(), own.until(term));
            while_leading(&candidate, &controllers, run).await
        });
        if let Some(scheduled) = self.scheduled(server, settings) {
            self.tasks.spawn(async move {
                let candidate = scheduled.component.clone();
                let run = |term: CancellationToken| {
                    let scheduled = scheduled.clone();
                    async move {
                        term.run_until_cancelled(scheduled.run()).await;
                        term.cancelled().await;
                        Ok(())
                    }
                };
                while_leading(&candidate, &backups, run).await
            });
        }
        self
    }

    /// The backups that this server makes by itself when it is its turn, if it was told to.
    fn scheduled(&self, server: &Server, settings: &Settings) -> Option<Scheduled> {
        let choices = server.place.store.backup.clone()?;
        Some(Scheduled {
            cluster: Subject::ControlPlane(settings.clone()).name(),
            choices,
            kv: Arc::clone(&self.store) as SharedKv,
            about: about(server, settings),
            backups: self.server.backups(),
            component: self.own.component(self.server.client(identity::admin())),
            data_dir: server.folder.dir().to_owned(),
        })
    }

    /// Returns when the cluster has everything that one starts with.
    pub(super) async fn ready(&self, server: &Server) -> Result<(), ClusterError> {
        let dns = control::dns_address(server.place.settings()?.service_cidr);
        while let Err(err) = daemon::make_dns_service(self.server.client(identity::admin()), dns).await {
            if !is_for_now(&err) {
                return Err(ClusterError::component("cluster DNS", err));
            }
            // The servers have lost each other again: the store has waited for them as long as a request may take.
            tracing::info!(%err, "Waiting for enough servers to decide.");
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
        self.server.roles_made().await;
        Ok(())
    }

    /// A join token for the next server.
    pub(super) async fn first_token(&self, own: &Own) -> Result<JoinToken, ClusterError> {
        let failed = |err: &dyn std::fmt::Display| ClusterError::component("join token", err);
        let hash = public_key_hash(self.pki.ca_pem()).ok_or_else(|| failed(&"the CA cannot be read"))?;
        let token = JoinToken::generate(&*own.rng, hash);
        let expires = own.clock.now() + TOKEN_TTL;
        let secret = bootstrap_secret(&token, "made by the first server for the next ones", Some(expires));
        let secret: Secret = serde_json::from_value(secret).map_err(|err| failed(&err))?;
        let secrets: Api<Secret> = Api::namespaced(self.server.client(identity::admin()), "kube-system");
        secrets.create(&PostParams::default(), &secret).await.map_err(|err| failed(&err))?;
        Ok(token)
    }

    /// Whether the others have taken this server out of the group.
    pub(super) fn was_removed(&self) -> bool {
        self.store.was_removed() || *self.transport.removed().borrow()
    }

    /// Returns when the server cannot go on, with the reason.
    pub(super) async fn failed(&mut self) -> ClusterError {
        let mut removed = self.transport.removed();
        let mut leadership = self.store.leadership();
        let stopped = async { while leadership.changed().await.is_ok() {} };
        tokio::select! {
            ended = self.tasks.join_next() => match ended {
                Some(Ok(Err(err))) => err,
                Some(Ok(Ok(()))) => ClusterError::component("component", "ended by itself"),
                Some(Err(err)) => ClusterError::component("component", err),
                None => std::future::pending().await,
            },
            _ = removed.wait_for(|removed| *removed) => ClusterError::component("server", "it was removed"),
            // Its disk has failed, say: another start may help, and the others go on without it.
            () = stopped => match self.store.was_removed() {
                true => ClusterError::component("server", "it was removed"),
                false => ClusterError::component("store", "it has stopped; see the log"),
            },
        }
    }

    /// Ends everything in order; other servers take over at once.
    pub(super) async fn stop(mut self) {
        self.own.shutdown.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(DRAIN_WAIT, ended).await;
        let leads = self.store.leadership().borrow().is_leader();
        self.server.shutdown(DRAIN_WAIT).await;
        if leads {
            // Nobody else may be there.
            let handed_on = tokio::time::timeout(HAND_ON_WAIT, self.store.transfer_leadership(None)).await;
            tracing::debug!(?handed_on, "Handed leadership on.");
        }
        if let Some(port) = &self.etcd {
            port.stop().await;
        }
        if let Err(err) = self.store.close().await {
            tracing::error!(%err, "the store was not closed cleanly; it will be checked at the next start");
        }
        self.transport.stop().await;
    }
}
