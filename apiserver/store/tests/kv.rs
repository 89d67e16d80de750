//! The shared suite, run on every implementation of `Kv`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

mod suite;

use std::ops::Deref;
use std::sync::Arc;

use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_store::view::MemoryView;
use reeve_store::{Limits, MemoryKv, SharedKv, SimDisk, Store, StoreConfig};

suite::store_suite!(memory, crate::open_memory);
suite::store_suite!(embedded, crate::open_embedded);
suite::store_suite!(simulated, crate::open_simulated);

/// A store as the suite takes it, with what must outlive it.
struct Opened {
    kv: SharedKv,
    embedded: Option<(Arc<Store>, Option<tempfile::TempDir>)>,
}

impl Deref for Opened {
    type Target = SharedKv;

    fn deref(&self) -> &SharedKv {
        &self.kv
    }
}

impl Opened {
    async fn close(self) {
        if let Some((store, _folder)) = self.embedded {
            store.close().await.unwrap();
        }
    }
}

async fn open_memory(limits: Limits) -> Opened {
    Opened { kv: Arc::new(MemoryKv::with_limits(limits)), embedded: None }
}

/// The embedded store as it is in production: real files, sled.
async fn open_embedded(limits: Limits) -> Opened {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { limits, ..StoreConfig::new(folder.path(), RealClock::shared(), SeededRng::shared()) };
    let store = Store::open(config).await.unwrap();
    Opened { kv: store.clone(), embedded: Some((store, Some(folder))) }
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
    Opened { kv: store.clone(), embedded: Some((store, None)) }
}
