//! Where a server's state lies, opened: in a store of its own, which is a member of the servers' group, or in an etcd,
//! where they are no group.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use reeve_apiserver::ApiServer;
use reeve_apiserver::join::{ControlPlane, EtcdPlace, InEtcd, Network, Settings};
use reeve_apiserver::pki::{LiveCertificate, Pki};
use reeve_etcd::EtcdServer;
use reeve_peer::{PeerConfig, PeerTransport, host_of};
use reeve_store::{MemberConfig, Peer, PeerFigures, SharedKv, Store, StoreConfig};
use tokio::task::JoinSet;

use super::super::components::keep_valid;
use super::super::error::{ClusterError, with_causes};
use super::super::etcd::{self, Port};
use super::place::{Place, Stage};
use super::{Server, in_etcd, joining, removed};

/// How long another member may take to become leader at the end.
const HAND_ON_WAIT: Duration = Duration::from_secs(3);
/// How long a start waits when the servers cannot decide.
pub(super) const TRY_AGAIN_AFTER: Duration = Duration::from_millis(500);

type Tasks = JoinSet<Result<(), ClusterError>>;

/// See the module.
pub(super) enum State {
    /// In a store of its own.
    Member(Member),
    /// In an etcd.
    InEtcd(Arc<InEtcd>, SharedKv),
}

/// A member of the servers' group.
pub(super) struct Member {
    transport: Arc<PeerTransport>,
    store: Arc<Store>,
    /// The port for clients of etcd.
    port: Option<EtcdServer>,
}

impl State {
    /// Opens transport and store, gets the vote, and waits until there is a leader.
    pub(super) async fn member(server: &mut Server, pki: &Pki, tasks: &mut Tasks) -> Result<Self, ClusterError> {
        let transport = open_transport(server, pki, tasks)?;
        let store = open_store(server, &transport).await?;
        if server.place.stage == Stage::Learning {
            joining::become_voter(server, &store).await?;
        }
        let mut leadership = store.leadership();
        tracing::info!("Waiting for enough servers to decide.");
        // It can only end with the store.
        let known = leadership.wait_for(|now| now.leader.is_some()).await.map(drop);
        known.map_err(|_| ClusterError::component("store", "it has stopped"))?;
        while let Err(err) = server.place.own.keep(&*store).await {
            if !may_be_over_soon(err.code) {
                return Err(ClusterError::component("server", err.message));
            }
            tracing::info!(err = err.message, "Waiting for enough servers to decide.");
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
        Ok(Self::Member(Member { transport, store, port: None }))
    }

    /// Is there among the servers whose state lies in that etcd.
    pub(super) async fn in_etcd(server: &mut Server, kv: SharedKv, tasks: &mut Tasks) -> Result<Self, ClusterError> {
        let Some(own) = in_etcd::enter(&server.place, &kv).await? else {
            server.place.stage = Stage::Removed;
            server.folder.save(&server.place)?;
            return Err(removed(&server.place, &server.folder));
        };
        let (stays, ending) = (Arc::clone(&own), server.own.shutdown.clone());
        tasks.spawn(async move {
            ending.run_until_cancelled(stays.stay()).await;
            Ok(())
        });
        Ok(Self::InEtcd(own, kv))
    }

    /// Where the API server keeps everything.
    pub(super) fn kv(&self) -> SharedKv {
        match self {
            Self::Member(member) => Arc::clone(&member.store) as SharedKv,
            Self::InEtcd(_, kv) => SharedKv::clone(kv),
        }
    }

    /// Makes the API server one of several.
    pub(super) fn serve_control_plane(
        &self,
        api: &ApiServer,
        pki: &Pki,
        (place, settings): (&Place, Settings),
        compared_every: Option<Duration>,
    ) {
        let (kv, pki) = (self.kv(), pki.clone());
        match self {
            Self::Member(Member { transport, store, .. }) => {
                let members = (Arc::clone(store) as _, Arc::new(Connections(Arc::clone(transport))) as _);
                let control_plane = ControlPlane::new(members, kv, pki, settings).compared_every(compared_every);
                api.serve_control_plane(control_plane, store.leadership());
            }
            Self::InEtcd(own, _) => {
                let members = (Arc::clone(own) as _, Arc::clone(own) as _);
                let control_plane = ControlPlane::new(members, kv, pki, settings);
                let etcd = place.etcd.as_ref().map(|choice| EtcdPlace {
                    servers: choice.servers.clone(),
                    prefix: choice.prefix.clone(),
                    flags: choice.flags(),
                });
                let control_plane = etcd.into_iter().fold(control_plane, ControlPlane::in_etcd);
                api.serve_control_plane(control_plane, own.leadership());
            }
        }
    }

    /// Opens the port for clients of etcd, if there is to be one.
    pub(super) async fn serve_clients(
        &mut self,
        server: &Server,
        pki: &Pki,
        tasks: &mut Tasks,
    ) -> Result<(), ClusterError> {
        if let Self::Member(member) = self {
            member.port = serve_store(server, &member.store, pki, tasks).await?;
        }
        Ok(())
    }

    /// Whether the others have taken this server out.
    pub(super) fn was_removed(&self) -> bool {
        match self {
            Self::Member(Member { transport, store, .. }) => store.was_removed() || *transport.removed().borrow(),
            Self::InEtcd(own, _) => *own.removed().borrow(),
        }
    }

    /// Returns when the server has nothing to go on with, with the reason. An etcd that is away may come back.
    pub(super) async fn lost(&self) -> ClusterError {
        let was_removed = || ClusterError::component("server", "it was removed");
        let Member { transport, store, .. } = match self {
            Self::Member(member) => member,
            Self::InEtcd(own, _) => {
                let _ = own.removed().wait_for(|removed| *removed).await; // it is told as long as the server lives
                return was_removed();
            }
        };
        let (mut removed, mut leadership) = (transport.removed(), store.leadership());
        let stopped = async { while leadership.changed().await.is_ok() {} };
        tokio::select! {
            _ = removed.wait_for(|removed| *removed) => was_removed(),
            // Its disk has failed, say: another start may help, and the others go on without it.
            () = stopped => match store.was_removed() {
                true => was_removed(),
                false => ClusterError::component("store", "it has stopped; see the log"),
            },
        }
    }

    /// Whether it leads the group.
    pub(super) fn leads(&self) -> bool {
        match self {
            Self::Member(member) => member.store.leadership().borrow().is_leader(),
            Self::InEtcd(..) => false,
        }
    }

    /// Ends it in order, behind everything that asks it; one that `leads` hands that on.
    pub(super) async fn close(self, leads: bool) {
        let Member { transport, store, port } = match self {
            Self::Member(member) => member,
            Self::InEtcd(own, _) => return own.leave().await,
        };
        if leads {
            // Nobody else may be there.
            let handed_on = tokio::time::timeout(HAND_ON_WAIT, store.transfer_leadership(None)).await;
            tracing::debug!(?handed_on, "Handed leadership on.");
        }
        if let Some(port) = &port {
            port.stop().await;
        }
        if let Err(err) = store.close().await {
            tracing::error!(%err, "the store was not closed cleanly; it will be checked at the next start");
        }
        transport.stop().await;
    }
}

/// Whether an answer with this code says that it could not be done now: the servers have lost each other, say.
pub(super) fn may_be_over_soon(code: u16) -> bool {
    matches!(code, 429 | 503 | 504)
}

/// The transport's figures, for the API server.
struct Connections(Arc<PeerTransport>);

impl Network for Connections {
    fn figures(&self) -> Vec<PeerFigures> {
        self.0.figures()
    }
}

/// Opens the port for clients of etcd, if there is to be one.
async fn serve_store(
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
    if let Some(listener) = &server.listeners.peers {
        let listener = listener.try_clone().map_err(|err| ClusterError::io("share a listener", err))?;
        transport.serve(listener, store.inbox()).map_err(|err| ClusterError::io("listen to other servers", err))?;
    }
    Ok(store)
}
