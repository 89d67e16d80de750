//! What etcd's issue 20271 was about: a damaged page of the database must not crash the process that starts on it. Here
//! the database is the view, which is made of log and snapshot: it is made anew. Damage to those is refused, with the
//! place. Real files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reeve_api::clock::RealClock;
use reeve_api::rng::{RngExt as _, SeededRng};
use reeve_store::{Kv as _, Op, OpenError, RangeRequest, Store, StoreConfig, Txn};

const KEYS: u64 = 300;

async fn open(folder: &Path) -> Result<Arc<Store>, OpenError> {
    let config = StoreConfig::new(folder, RealClock::shared(), SeededRng::shared());
    Store::open(StoreConfig { log_bytes: 64 * 1024, ..config }).await
}

/// A store that was closed, or whose process was killed.
async fn filled(folder: &Path) {
    let store = open(folder).await.unwrap();
    for n in 0..KEYS {
        let value = vec![u8::try_from(n % 251).unwrap(); 1000];
        let put = Op::Put { key: format!("k{n:03}").into(), value: value.into() };
        store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    }
    store.close().await.unwrap();
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files.into_iter().filter(|file| file.metadata().unwrap().len() > 0).collect()
}

/// Turns a byte of one of the files into another one; which, and where.
fn damage(files: &[PathBuf], rng: &SeededRng) -> String {
    let path = &files[usize::try_from(rng.below(files.len() as u64)).unwrap()];
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let at = rng.below(file.metadata().unwrap().len());
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1 + u8::try_from(rng.below(255)).unwrap();
    file.write_all_at(&byte, at).unwrap();
    format!("byte {at} of {}", path.display())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &target) } else { drop(std::fs::copy(entry.path(), target)) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_pages_of_the_database_cost_a_rebuild_and_neither_a_crash_nor_data_etcd_20271() {
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    filled(&whole).await;
    for seed in 0..12 {
        let (rng, folder) = (SeededRng::new(seed), home.path().join(format!("view-{seed}")));
        copy(&whole, &folder);
        let files = files_below(&folder.join("view"));
        let what: Vec<String> = (0..=rng.below(8)).map(|_| damage(&files, &rng)).collect();
        let store = open(&folder).await.unwrap_or_else(|err| panic!("seed {seed}, {what:?}: {err}"));
        let all = store.range(RangeRequest::prefix("k")).await.unwrap();
        assert_eq!(all.count as u64, KEYS, "seed {seed}, {what:?}");
        for (n, kv) in all.kvs.iter().enumerate() {
            let expected = vec![u8::try_from(n % 251).unwrap(); 1000];
            assert!(kv.value[..] == expected[..], "seed {seed}, {what:?}: {n}");
        }
        store.close().await.unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_what_was_acknowledged_is_refused_with_the_place_and_no_crash_etcd_20271() {
    let home = tempfile::tempdir().unwrap();
    let whole = home.path().join("whole");
    filled(&whole).await;
    std::fs::remove_dir_all(whole.join("view")).unwrap(); // so that all of the rest is needed
    for seed in 0..20 {
        let (rng, folder) = (SeededRng::new(seed), home.path().join(format!("log-{seed}")));
        copy(&whole, &folder);
        std::fs::remove_file(folder.join("view.state")).unwrap();
        let mut files = files_below(&folder.join("log"));
        files.pop(); // its end may be torn, and is cut
        files.extend(files_below(&folder.join("snapshots")));
        let what = damage(&files, &rng);
        match open(&folder).await {
            Err(OpenError::Damage(found)) => assert!(what.contains(&found.path), "seed {seed}, {what}: {found}"),
            Err(err) => panic!("seed {seed}, {what}: {err}"),
            Ok(_) => panic!("seed {seed}: starts on {what}"),
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
