//! The shared suite, run on every implementation of `Kv`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

mod cluster;
mod suite;

use std::ops::Deref;
use std::sync::Arc;

use cluster::{Network, founders};
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_store::view::MemoryView;
use reeve_store::{Limits, MemberConfig, MemoryKv, SharedKv, SimDisk, Store, StoreConfig};

suite::store_suite!(memory, crate::open_memory);
suite::store_suite!(embedded, crate::open_embedded);
suite::store_suite!(simulated, crate::open_simulated);
suite::store_suite!(three_members, crate::open_leader_of_three);
suite::store_suite!(follower_of_three, crate::open_follower_of_three);

/// A store as the suite takes it, with what must outlive it.
struct Opened {
    kv: SharedKv,
    stores: Vec<Arc<Store>>,
    _folder: Option<tempfile::TempDir>,
}

impl Deref for Opened {
    type Target = SharedKv;

    fn deref(&self) -> &SharedKv {
        &self.kv
    }
}

impl Opened {
    async fn close(self) {
        // Of several, nobody is left to hand leadership over to: they end by themselves.
        if let [store] = &self.stores[..] {
            store.close().await.unwrap();
        }
    }
}

async fn open_memory(limits: Limits) -> Opened {
    Opened { kv: Arc::new(MemoryKv::with_limits(limits)), stores: Vec::new(), _folder: None }
}

/// The embedded store as it is in production: real files.
async fn open_embedded(limits: Limits) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { limits, ..StoreConfig::new(folder.path(), RealClock::shared(), SeededRng::shared()) };
    let store = Store::open(config).await.unwrap();
    Opened { kv: store.clone(), stores: vec![store], _folder: Some(folder) }
}

/// The embedded store as it is in the simulation: disk and view in memory.
async fn open_simulated(limits: Limits) -> Opened {
    let config = StoreConfig {
        limits,
        disk: Arc::new(SimDisk::default()),
        views: Arc::new(MemoryView::default()),
        ..StoreConfig::new("/nonexistent", RealClock::shared(), SeededRng::shared())
    };
    let store = Store::open(config).await.unwrap();
    Opened { kv: store.clone(), stores: vec![store], _folder: None }
}

/// Three members on a network in memory, as their leader.
async fn open_leader_of_three(limits: Limits) -> Opened {
    open_three(limits, true).await
}

/// The same three, as a member that has to ask the leader.
async fn open_follower_of_three(limits: Limits) -> Opened {
    open_three(limits, false).await
}

async fn open_three(limits: Limits, leader: bool) -> Opened {
    let network = Network::new(SeededRng::shared());
    let mut stores = Vec::new();
    for id in [3, 2, 1] {
        // The first one asks for votes as soon as it is there.
        let member = MemberConfig::Cluster { id, cluster: 7, peers: founders(3), transport: network.transport(id) };
        let config = StoreConfig {
            limits,
            member,
            disk: Arc::new(SimDisk::default()),
            views: Arc::new(MemoryView::default()),
            ..StoreConfig::new("/nonexistent", RealClock::shared(), SeededRng::shared())
        };
        let store = Store::open(config).await.unwrap();
        network.plug_in(id, store.inbox());
        stores.push(store);
    }
    let mut leads = Vec::new();
    for store in &stores {
        let mut leadership = store.leadership();
        leads.push(leadership.wait_for(|known| known.leader.is_some()).await.unwrap().is_leader());
    }
    let chosen = leads.iter().position(|leads| *leads == leader).unwrap();
    Opened { kv: stores[chosen].clone(), stores, _folder: None }
}
