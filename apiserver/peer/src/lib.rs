//! Carries messages between the members of one store: gRPC (`proto/src/peer.proto`) over TLS on both sides.
//!
//! [`PeerTransport`] is the sending half, handed to the store as its [`Transport`]; [`PeerTransport::serve`] is the
//! receiving half, which feeds the store's [`reeve_store::Inbox`]. Each member dials each other one twice, once for
//! what is urgent and once for the rest (`lane.rs`): a heartbeat does not even share a TCP window with a snapshot.
//! Both sides show a certificate of the peer CA that names the member's number (`tls.rs`): a user's or a node's
//! certificate is of another CA, and no member can speak for another.
//! What is not here: what the messages mean (`reeve-store`), where certificates come from (`reeve-apiserver`'s `pki`).

mod figures;
mod lane;
mod receive;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;

use arc_swap::ArcSwap;
use reeve_store::{Parcel, Peer, Transport};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use figures::PeerFigures;
pub use receive::Intake;
pub use tls::{PeerCertificate, PeerTlsError, host_of};

use figures::Figures;
use lane::{Dial, Lane};
use tls::Tls;

/// Who this member is towards the others.
#[derive(Debug)]
pub struct PeerConfig {
    /// Raft's number of this member.
    pub id: u64,
    /// The group: messages of another one are refused.
    pub cluster: u64,
    /// The CA whose holders are members, PEM.
    pub ca_pem: String,
    /// What this member shows, valid for [`host_of`] its number; asked at every handshake, so it may be renewed.
    pub certificate: Arc<dyn PeerCertificate>,
}

/// See the crate. One per member; share it in an [`Arc`].
pub struct PeerTransport {
    shared: Arc<Shared>,
    routes: ArcSwap<HashMap<u64, Route>>,
}

/// What all connections of a member have in common.
struct Shared {
    id: u64,
    cluster: u64,
    tls: Tls,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Set when another member says that this one was removed from the group.
    removed: watch::Sender<bool>,
}

/// The way to one member. Its lanes end when it is dropped from the routes.
#[derive(Clone)]
struct Route {
    address: String,
    urgent: Lane,
    others: Lane,
    figures: Arc<Figures>,
    stop: CancellationToken,
}

impl fmt::Debug for PeerTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerTransport").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

impl PeerTransport {
    /// A transport that knows nobody yet: the store tells it ([`Transport::set_peers`]).
    pub fn new(config: PeerConfig) -> Result<Arc<Self>, PeerTlsError> {
        let PeerConfig { id, cluster, ca_pem, certificate } = config;
        let shared = Shared {
            id,
            cluster,
            tls: Tls::new(&ca_pem, certificate)?,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            removed: watch::Sender::new(false),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared), routes: ArcSwap::default() }))
    }

    /// Takes in what other members send, on a listener that is already bound, until [`PeerTransport::stop`]. Needs a
    /// Tokio runtime.
    pub fn serve(&self, listener: TcpListener, inbox: impl Intake) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (shared, stop) = (Arc::clone(&self.shared), self.shared.stop.clone());
        self.shared
            .tasks
            .spawn(async move { stop.run_until_cancelled(receive::accept(listener, shared, inbox)).await });
        Ok(())
    }

    /// Told `true` when another member says that this one does not belong to the group any more.
    #[must_use]
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.shared.removed.subscribe()
    }

    /// How the connections to the others are, in the order of their numbers.
    #[must_use]
    pub fn figures(&self) -> Vec<PeerFigures> {
        let routes = self.routes.load();
        let mut all: Vec<_> = routes.iter().map(|(id, route)| route.figures.told(*id)).collect();
        all.sort_by_key(|own| own.id);
        all
    }

    /// Ends all connections.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn route(&self, peer: &Peer) -> Route {
        let stop = self.shared.stop.child_token();
        let figures = Arc::new(Figures::default());
        let lane = |urgent| {
            let (lane, queue) = Lane::new(Arc::clone(&figures));
            let dial = Dial {
                shared: Arc::clone(&self.shared),
                peer: peer.id,
                address: peer.address.clone(),
                figures: Arc::clone(&figures),
                urgent,
            };
            let stop = stop.clone();
            self.shared.tasks.spawn(async move { stop.run_until_cancelled(dial.run(queue)).await });
            lane
        };
        let (urgent, others) = (lane(true), lane(false));
        Route { address: peer.address.clone(), urgent, others, figures, stop }
    }
}

impl Drop for PeerTransport {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Transport for PeerTransport {
    fn send(&self, parcel: Parcel) {
        // Somebody unknown: the store will tell soon, and Raft says it again.
        let routes = self.routes.load();
        let Some(route) = routes.get(&parcel.to) else { return };
        if parcel.urgent { route.urgent.push(parcel) } else { route.others.push(parcel) }
    }

    fn set_peers(&self, peers: Vec<Peer>) {
        let now = self.routes.load();
        let mut routes = HashMap::new();
        for peer in peers.into_iter().filter(|peer| peer.id != self.shared.id && !peer.address.is_empty()) {
            let known = now.get(&peer.id).filter(|route| route.address == peer.address);
            let route = known.cloned().unwrap_or_else(|| self.route(&peer));
            routes.insert(peer.id, route);
        }
        let stays = |id: &u64, route: &Route| routes.get(id).is_some_and(|new: &Route| new.address == route.address);
        now.iter().filter(|(id, route)| !stays(id, route)).for_each(|(_, route)| route.stop.cancel());
        self.routes.store(Arc::new(routes));
    }
}
