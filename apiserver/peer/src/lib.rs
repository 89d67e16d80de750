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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use reeve_store::{Parcel, Peer, PeerFigures, Transport};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
    /// Where this member is reached, "host:port": told to each other one that it dials. So one that comes back
    /// elsewhere is found before the group knows.
    pub address: String,
    /// What this member shows, valid for [`host_of`] its number; asked at every handshake, so it may be renewed.
    pub certificate: Arc<dyn PeerCertificate>,
}

/// See the crate. One per member; share it in an [`Arc`].
pub struct PeerTransport {
    shared: Arc<Shared>,
}

/// What all connections of a member have in common.
struct Shared {
    id: u64,
    cluster: u64,
    address: String,
    tls: Tls,
    routes: ArcSwap<HashMap<u64, Route>>,
    book: Mutex<Book>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Set when another member says that this one was removed from the group.
    removed: watch::Sender<bool>,
}

/// Where the others are.
#[derive(Default)]
struct Book {
    /// As the group says.
    group: HashMap<u64, String>,
    /// Of those that say otherwise themselves: what they have said since.
    own: HashMap<u64, String>,
}

impl Book {
    /// What the group says now. Where it says something new, that is newer than what the member has said.
    fn set_group(&mut self, group: HashMap<u64, String>) {
        self.own.retain(|id, _| group.get(id).is_some_and(|now| self.group.get(id) == Some(now)));
        self.group = group;
    }

    /// What a member says itself; whether that is news.
    fn hear(&mut self, id: u64, address: &str) -> bool {
        let Some(of_group) = self.group.get(&id) else { return false };
        let known = self.own.get(&id).unwrap_or(of_group);
        if known == address || address.is_empty() {
            return false;
        }
        if of_group == address {
            self.own.remove(&id);
        } else {
            self.own.insert(id, address.to_owned());
        }
        true
    }

    fn all(&self) -> impl Iterator<Item = (u64, &str)> {
        self.group.iter().map(|(id, of_group)| (*id, self.own.get(id).unwrap_or(of_group).as_str()))
    }
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
        let PeerConfig { id, cluster, ca_pem, address, certificate } = config;
        let shared = Shared {
            id,
            cluster,
            address,
            tls: Tls::new(&ca_pem, certificate)?,
            routes: ArcSwap::default(),
            book: Mutex::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            removed: watch::Sender::new(false),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
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
        let routes = self.shared.routes.load();
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
}

impl Shared {
    /// A member has said where it is.
    fn hear(self: &Arc<Self>, id: u64, address: &str) {
        let mut book = self.book();
        if book.hear(id, address) {
            tracing::info!(peer = format!("{id:x}"), address, "A member has moved.");
            self.set_routes(&book);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ways to everybody in the book; those that stay as they are stay.
    fn set_routes(self: &Arc<Self>, book: &Book) {
        let now = self.routes.load();
        let mut routes = HashMap::new();
        for (id, address) in book.all() {
            let known = now.get(&id).filter(|route| route.address == address);
            routes.insert(id, known.cloned().unwrap_or_else(|| self.route(id, address)));
        }
        let stays = |id: &u64, route: &Route| routes.get(id).is_some_and(|new: &Route| new.address == route.address);
        now.iter().filter(|(id, route)| !stays(id, route)).for_each(|(_, route)| route.stop.cancel());
        self.routes.store(Arc::new(routes));
    }

    fn route(self: &Arc<Self>, peer: u64, address: &str) -> Route {
        let stop = self.stop.child_token();
        let figures = Arc::new(Figures::default());
        let lane = |urgent| {
            let (lane, queue) = Lane::new(Arc::clone(&figures));
            let (shared, address, figures) = (Arc::clone(self), address.to_owned(), Arc::clone(&figures));
            let dial = Dial { shared, peer, address, figures, urgent };
            let stop = stop.clone();
            self.tasks.spawn(async move { stop.run_until_cancelled(dial.run(queue)).await });
            lane
        };
        let (urgent, others) = (lane(true), lane(false));
        Route { address: address.to_owned(), urgent, others, figures, stop }
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
        let routes = self.shared.routes.load();
        let Some(route) = routes.get(&parcel.to) else { return };
        if parcel.urgent { route.urgent.push(parcel) } else { route.others.push(parcel) }
    }

    fn set_peers(&self, peers: Vec<Peer>) {
        let others = peers.into_iter().filter(|peer| peer.id != self.shared.id && !peer.address.is_empty());
        let mut book = self.shared.book();
        book.set_group(others.map(|peer| (peer.id, peer.address)).collect());
        self.shared.set_routes(&book);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(addresses: &[(u64, &str)]) -> HashMap<u64, String> {
        addresses.iter().map(|(id, address)| (*id, (*address).to_owned())).collect()
    }

    #[test]
    fn what_a_member_says_of_itself_counts_until_the_group_says_something_new() {
        let mut book = Book::default();
        book.set_group(group(&[(2, "old:1")]));
        let at = |book: &Book| book.all().map(|(id, address)| format!("{id}@{address}")).collect::<Vec<_>>();
        assert!(!book.hear(2, "old:1") && !book.hear(2, "") && !book.hear(9, "somebody:1"));
        assert!(book.hear(2, "new:1") && !book.hear(2, "new:1"));
        assert_eq!(at(&book), ["2@new:1"]);
        book.set_group(group(&[(2, "old:1")]));
        assert_eq!(at(&book), ["2@new:1"]);
        book.set_group(group(&[(2, "newest:1")]));
        assert_eq!(at(&book), ["2@newest:1"]);
        assert!(book.hear(2, "new:1") && book.hear(2, "newest:1"));
        book.set_group(group(&[]));
        assert_eq!((at(&book).len(), book.own.len()), (0, 0));
    }
}
