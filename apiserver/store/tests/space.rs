//! How much a store takes of the disk, and of what lives in it. Real files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

use std::path::Path;
use std::sync::Arc;

use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_store::{KeyRange, Kv as _, Limits, Op, RangeRequest, Store, StoreConfig, Txn};

const KEYS: usize = 10_000;
const VALUE_BYTES: usize = 1000;
const ROUNDS: usize = 18;
/// Writers at a time.
const WRITERS: usize = 100;
const HISTORY: u64 = 5_000;
/// What ARCHITECTURE.md promises: so many times what lives and what is kept of the past, and so much besides.
const FACTOR: u64 = 3;
const BESIDES: u64 = 96 * 1024 * 1024;

fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size =
        |path: &Path| if path.is_dir() { bytes_below(path) } else { path.metadata().map_or(0, |meta| meta.len()) };
    entries.flatten().map(|entry| size(&entry.path())).sum()
}

fn put(key: usize, round: usize) -> Txn {
    let mut value = vec![b'.'; VALUE_BYTES];
    value[..8].copy_from_slice(&round.to_be_bytes());
    Txn { then: vec![Op::Put { key: format!("key{key:05}").into(), value: value.into() }], ..Txn::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn overwriting_ten_thousand_keys_again_and_again_does_not_fill_the_disk() {
    // A disk that syncs at once: nothing but the store itself slows the writers down.
    let fast = Path::new("/dev/shm");
    let folder = if fast.is_dir() { tempfile::tempdir_in(fast) } else { tempfile::tempdir() }.unwrap();
    let limits = Limits { history_max: HISTORY, ..Limits::default() };
    let config = StoreConfig { limits, ..StoreConfig::new(folder.path(), RealClock::shared(), SeededRng::shared()) };
    let store = Store::open(config).await.unwrap();
    let mut most = 0;
    for round in 0..ROUNDS {
        let write = |writer: usize| {
            let store = Arc::clone(&store);
            async move {
                for key in (writer..KEYS).step_by(WRITERS) {
                    store.txn(put(key, round)).await.unwrap();
                }
            }
        };
        futures::future::join_all((0..WRITERS).map(|writer| tokio::spawn(write(writer)))).await;
        most = most.max(bytes_below(folder.path()));
    }
    let kept = (KEYS as u64 + HISTORY + HISTORY / 8) * VALUE_BYTES as u64;
    let (written, allowed) = ((ROUNDS * KEYS * VALUE_BYTES) as u64, FACTOR * kept + BESIDES);
    println!("{written} bytes were written, {kept} are kept, at most {most} lay on the disk");
    assert!(most <= allowed, "{most} bytes on the disk, {allowed} are allowed");
    let count = RangeRequest { count_only: true, ..RangeRequest::prefix("") };
    assert_eq!(store.range(count).await.unwrap().count, KEYS);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_takes_only_deletions_when_its_quota_is_used_up_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let quota = 20 * VALUE_BYTES as u64;
    let limits = Limits { quota_bytes: Some(quota), ..Limits::default() };
    let config = || StoreConfig { limits, ..StoreConfig::new(folder.path(), RealClock::shared(), SeededRng::shared()) };
    let store = Store::open(config()).await.unwrap();
    let mut key = 0;
    let refused = loop {
        match store.txn(put(key, 0)).await {
            Ok(_) => key += 1,
            Err(err) => break err.to_string(),
        }
    };
    assert!(refused.contains("database space exceeded") && refused.contains("--quota-backend-bytes"), "{refused}");
    assert!(key > 15 && store.is_over_quota(), "{key}");
    assert!(store.txn(put(0, 1)).await.is_err(), "not even what was there before");
    assert_eq!(store.range(RangeRequest::key("key00003")).await.unwrap().kvs.len(), 1);
    store.close().await.unwrap();

    let store = Store::open(config()).await.unwrap();
    assert!(store.txn(put(key, 0)).await.is_err());
    let delete = Op::Delete(KeyRange::Prefix("key0000".into()));
    store.txn(Txn { then: vec![delete], ..Txn::default() }).await.unwrap();
    store.txn(put(key, 0)).await.unwrap();
    assert!(!store.is_over_quota());
    store.close().await.unwrap();
}
