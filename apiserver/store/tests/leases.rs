//! Leases of the embedded store over restarts and crashes: what was promised of them holds whatever is left on disk.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reeve_api::clock::RealClock;
use reeve_api::rng::{RngExt as _, SeededRng};
use reeve_store::view::{MemoryView, Views};
use reeve_store::{Kv as _, LeaseId, Limits, Op, Put, RangeRequest, SimDisk, Store, StoreConfig, Txn};

async fn open(disk: &SimDisk, views: &Arc<dyn Views>, log_bytes: u64) -> Arc<Store> {
    let config = StoreConfig {
        disk: Arc::new(disk.clone()),
        views: views.clone(),
        log_bytes,
        limits: Limits::default(),
        ..StoreConfig::new("/nonexistent", RealClock::shared(), SeededRng::shared())
    };
    Store::open(config).await.unwrap()
}

async fn put(store: &Store, key: &str, lease: LeaseId) {
    let put = Put { key: key.to_owned().into(), value: Some("v".into()), lease: Some(lease) };
    store.txn(Txn { then: vec![Op::PutWith(put)], ..Txn::default() }).await.unwrap();
}

async fn count(store: &Store) -> usize {
    store.range(RangeRequest::prefix("")).await.unwrap().count
}

#[tokio::test]
async fn a_lease_has_its_whole_time_again_after_a_restart_and_ends_then() {
    let (disk, views): (_, Arc<dyn Views>) = (SimDisk::default(), Arc::new(MemoryView::default()));
    let store = open(&disk, &views, 1024 * 1024).await;
    let lease = store.lease_grant(LeaseId::NONE, 2).await.unwrap().id;
    put(&store, "a", lease).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    store.close().await.unwrap();
    let store = open(&disk, &views, 1024 * 1024).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(count(&store).await, 1, "its time began anew");
    tokio::time::timeout(Duration::from_secs(20), async {
        while count(&store).await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the lease never ends");
    assert_eq!(store.leases().await.unwrap(), []);
    store.close().await.unwrap();
}

/// What the store must know of leases: the keys of each.
type Model = BTreeMap<LeaseId, Vec<String>>;

async fn check(store: &Store, model: &Model, context: &str) {
    let ids: Vec<LeaseId> = model.keys().copied().collect();
    let mut stored = store.leases().await.unwrap();
    stored.sort_unstable();
    assert_eq!(stored, ids, "{context}");
    for (id, keys) in model {
        let status = store.lease_status(*id, true).await.unwrap().unwrap();
        let stored: Vec<_> = status.keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect();
        assert_eq!(&stored, keys, "{context}");
    }
    assert_eq!(count(store).await, model.values().map(Vec::len).sum::<usize>(), "{context}");
}

/// A small log, so that snapshots are written, scrubbed beside and restored from all the time.
#[tokio::test]
async fn leases_survive_crashes_snapshots_and_lost_views() {
    for seed in 0..6 {
        let rng = SeededRng::new(seed);
        let (mut disk, mut views): (_, Arc<dyn Views>) = (SimDisk::default(), Arc::new(MemoryView::default()));
        let mut store = open(&disk, &views, 4096).await;
        let mut model = Model::new();
        for step in 0..150 {
            let id = LeaseId(1 + rng.below(5).cast_signed());
            let key = format!("k{}", rng.below(6));
            match rng.below(12) {
                0..=2 => {
                    let granted = store.lease_grant(id, 600).await;
                    assert_eq!(granted.is_ok(), !model.contains_key(&id), "seed {seed} step {step}");
                    model.entry(id).or_default();
                }
                3 | 4 => {
                    let revoked = store.lease_revoke(id).await;
                    assert_eq!(revoked.is_ok(), model.remove(&id).is_some(), "seed {seed} step {step}");
                }
                5 => {
                    let kept = store.lease_keep_alive(id).await.unwrap();
                    assert_eq!(kept.is_some(), model.contains_key(&id), "seed {seed} step {step}");
                }
                6..=9 if model.contains_key(&id) => {
                    put(&store, &key, id).await;
                    model.values_mut().for_each(|keys| keys.retain(|other| *other != key));
                    let keys = model.get_mut(&id).unwrap();
                    keys.push(key);
                    keys.sort_unstable();
                }
                6..=9 => {}
                10 => {
                    let revision = store.revision();
                    let _ = store.compact(revision).await; // it may be compacted already
                }
                _ => {
                    match rng.below(4) {
                        0 => store.close().await.unwrap(),
                        1 => disk = disk.kill_process(),
                        2 => disk = disk.cut_power(&rng),
                        _ => {
                            store.close().await.unwrap();
                            disk = disk.cut_power(&rng);
                            views = Arc::new(MemoryView::default());
                            views.discard().unwrap();
                        }
                    }
                    store = open(&disk, &views, 4096).await;
                }
            }
            check(&store, &model, &format!("seed {seed} step {step}")).await;
        }
        store.close().await.unwrap();
    }
}
