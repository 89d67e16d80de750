//! Backups, stores made of them, hashes that members compare, and damage that is found. Real files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_store::backup::contents::BackupHead;
use reeve_store::backup::{self, BackupError, REVISIONS_AHEAD, RestoreError, Summary, Unpacker};
use reeve_store::{
    KeyRange, Kv as _, KvError, LeaseId, Limits, Op, Put, RangeRequest, RangeResponse, Revision, Store, StoreConfig,
    Txn, WatchRequest, verify,
};

async fn open(folder: &Path) -> Arc<Store> {
    let limits = Limits { history_max: 1_000_000, ..Limits::default() };
    let config = StoreConfig { limits, ..StoreConfig::new(folder, RealClock::shared(), SeededRng::shared()) };
    Store::open(config).await.unwrap()
}

async fn write(store: &Store, ops: Vec<Op>) -> Revision {
    store.txn(Txn { then: ops, ..Txn::default() }).await.unwrap().revision
}

fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Op {
    Op::Put { key: key.into().into(), value: value.into().into() }
}

/// Some history: keys that were overwritten, deleted and made again, a large one and many small ones.
async fn fill(store: &Store) {
    for n in 0..300 {
        write(store, vec![put(format!("key{:03}", n % 200), format!("value {n}"))]).await;
    }
    write(store, vec![put("large", vec![7; 1_500_000]), put("empty", "")]).await;
    write(store, vec![Op::Delete(KeyRange::Prefix("key00".into()))]).await;
    write(store, vec![put("key001", "again")]).await;
}

async fn everything(store: &Store) -> RangeResponse {
    store.range(RangeRequest::prefix("")).await.unwrap()
}

fn head() -> BackupHead {
    BackupHead { name: "dev".to_owned(), created: 1_700_000_000, ..BackupHead::default() }
}

async fn pack(store: &Arc<Store>) -> Vec<u8> {
    let (sink, mut pieces) = tokio::sync::mpsc::channel(2);
    let store = store.clone();
    let packing = tokio::spawn(async move { backup::pack(&*store, head(), &sink).await });
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.recv().await {
        bytes.extend_from_slice(&piece);
    }
    packing.await.unwrap().unwrap();
    bytes
}

fn check(bytes: &[u8]) -> Result<Summary, BackupError> {
    backup::unpack(&mut &bytes[..], |_| Ok(()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_restored_holds_what_was_backed_up_and_goes_on_far_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("old")).await;
    fill(&store).await;
    let lease = store.lease_grant(LeaseId(77), 1000).await.unwrap().id;
    let locked = Put { key: "lock".into(), value: Some("mine".into()), lease: Some(lease) };
    write(&store, vec![Op::PutWith(locked)]).await;
    let old = everything(&store).await;
    let bytes = pack(&store).await;
    write(&store, vec![put("later", "not in the backup")]).await;
    store.close().await.unwrap();

    let new = folder.path().join("new");
    let summary = backup::restore(&mut &bytes[..], &new).unwrap();
    assert_eq!((summary.keys, summary.head.keys), (old.kvs.len() as u64, old.kvs.len() as u64));
    assert_eq!((summary.head.name.as_str(), summary.head.revision), ("dev", old.revision.0));
    for _ in 0..2 {
        let store = open(&new).await;
        let restored = everything(&store).await;
        assert_eq!(restored.kvs, old.kvs);
        let status = store.lease_status(lease, true).await.unwrap().unwrap();
        assert_eq!((status.granted_ttl, status.keys), (1000, vec!["lock".into()]));
        assert_eq!(restored.revision.0, old.revision.0 + REVISIONS_AHEAD);
        // Whatever a client has seen of the old store, lists and watches from there on end with "compacted".
        for seen in [old.revision.0, old.revision.0 + 1, old.revision.0 + REVISIONS_AHEAD - 1] {
            let watch =
                WatchRequest { range: KeyRange::Prefix("".into()), start: Some(Revision(seen)), previous: false };
            let told = store.watch(watch).await.unwrap().next().await.unwrap();
            assert!(matches!(told, Err(KvError::Compacted { .. })), "{told:?}");
            let request = RangeRequest { revision: Some(Revision(seen)), ..RangeRequest::key("large") };
            assert!(matches!(store.range(request).await, Err(KvError::Compacted { .. })));
        }
        store.close().await.unwrap();
    }
    let store = open(&new).await;
    let written = write(&store, vec![put("new", "life")]).await;
    assert_eq!(written.0, old.revision.0 + REVISIONS_AHEAD + 1);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_of_one_revision_whatever_is_written_and_compacted_while_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    fill(&store).await;
    let old = everything(&store).await;
    let (sink, mut pieces) = tokio::sync::mpsc::channel(1);
    let packing = tokio::spawn({
        let store = store.clone();
        async move { backup::pack(&*store, head(), &sink).await }
    });
    let mut bytes = pieces.recv().await.unwrap().to_vec();
    write(&store, vec![put("x", "written meanwhile")]).await;
    let deleted = write(&store, vec![Op::Delete(KeyRange::Prefix("key".into()))]).await;
    store.compact(deleted).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await; // what may be removed is removed meanwhile
    while let Some(piece) = pieces.recv().await {
        bytes.extend_from_slice(&piece);
    }
    packing.await.unwrap().unwrap();
    let mut keys = Vec::new();
    backup::unpack(&mut &bytes[..], |item| {
        if let backup::Item::Keys(more) = item {
            keys.extend(more);
        }
        Ok::<_, BackupError>(())
    })
    .unwrap();
    let of = |n: usize| (keys[n].key.clone(), keys[n].value.clone(), keys[n].mod_revision);
    assert_eq!(keys.len(), old.kvs.len());
    for (n, kv) in old.kvs.iter().enumerate() {
        assert_eq!(of(n), (kv.key.clone(), kv.value.clone(), kv.mod_revision.0));
    }
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_a_stopped_store_gives_the_same_backup_also_after_a_crash_and_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    fill(&store).await;
    let online = pack(&store).await;
    let mut busy = Vec::new();
    let refused = backup::pack_folder(folder.path(), head(), &mut busy).unwrap_err().to_string();
    assert!(refused.contains("is in use by process"), "{refused}");
    store.close().await.unwrap();
    drop(store);
    let segment = newest_segment(folder.path());
    let mut torn = std::fs::read(&segment).unwrap();
    torn.extend_from_slice(b"a record that was not whole when the power went");
    std::fs::write(&segment, &torn).unwrap();

    let mut offline = Vec::new();
    let summary = backup::pack_folder(folder.path(), head(), &mut offline).unwrap();
    assert_eq!(std::fs::read(&segment).unwrap(), torn);
    let (online, offline) = (check(&online).unwrap(), check(&offline).unwrap());
    assert_eq!((&offline, online.keys, online.head.revision), (&summary, offline.keys, offline.head.revision));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_cut_changed_or_not_one_is_refused_with_its_fault_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    fill(&store).await;
    let bytes = pack(&store).await;
    store.close().await.unwrap();
    assert!(check(&bytes).is_ok());
    for len in [9, 40, bytes.len() / 2, bytes.len() - 1] {
        let told = check(&bytes[..len]);
        assert!(matches!(told, Err(BackupError::Truncated { offset }) if offset == len as u64), "{len}: {told:?}");
    }
    let flips = (8..bytes.len()).step_by(bytes.len() / 40);
    for at in flips {
        let mut bad = bytes.clone();
        bad[at] ^= 0x20;
        // A length that has grown makes it look cut short.
        let told = check(&bad);
        assert!(matches!(told, Err(BackupError::Damaged { .. } | BackupError::Truncated { .. })), "{at}: {told:?}");
    }
    let mut twice = bytes.clone();
    twice.extend_from_slice(b"more");
    assert!(check(&twice).unwrap_err().to_string().contains("something stands behind its end"));
    assert!(matches!(check(b""), Err(BackupError::Foreign)));
    assert!(matches!(check(b"PK\x03\x04 something else"), Err(BackupError::Foreign)));

    let refused = backup::restore(&mut &bytes[..bytes.len() - 1], &folder.path().join("new"));
    assert!(matches!(refused, Err(RestoreError::Backup(BackupError::Truncated { .. }))));
    // Nor does anything start on what was written of it.
    assert!(!folder.path().join("new/member").exists());
}

#[test]
fn pieces_of_any_size_make_the_same_backup() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let bytes = runtime.block_on(async {
        let store = open(folder.path()).await;
        write(&store, vec![put("a", "1"), put("b", "2")]).await;
        let bytes = pack(&store).await;
        store.close().await.unwrap();
        bytes
    });
    for size in [1, 2, 7, 16, 1000] {
        let mut unpacker = Unpacker::default();
        bytes.chunks(size).for_each(|piece| drop(unpacker.feed(piece).unwrap()));
        assert_eq!(unpacker.finish().unwrap().keys, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_came_to_the_same_state_by_different_ways_have_the_same_hash() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    // One writes a snapshot and is rebuilt from it, the other keeps its view; one has removed what is compacted.
    let limits = Limits { history_max: 1_000_000, ..Limits::default() };
    let config = |folder: &Path, log_bytes| StoreConfig {
        limits,
        log_bytes,
        ..StoreConfig::new(folder, RealClock::shared(), SeededRng::shared())
    };
    let first = Store::open(config(&one, 64 * 1024)).await.unwrap();
    let second = Store::open(config(&other, 64 * 1024 * 1024)).await.unwrap();
    for store in [&first, &second] {
        fill(store).await;
        store.compact(Revision(100)).await.unwrap();
        for n in 0..200 {
            write(store, vec![put(format!("more{n}"), vec![1; 1000])]).await;
        }
    }
    first.close().await.unwrap();
    drop(first);
    assert!(std::fs::read_dir(one.join("snapshots")).unwrap().count() > 0);
    std::fs::remove_dir_all(one.join("view")).unwrap();
    std::fs::remove_file(one.join("view.state")).unwrap();
    let first = Store::open(config(&one, 64 * 1024)).await.unwrap();
    for revision in [None, Some(Revision(150)), Some(Revision(100)), Some(Revision(302))] {
        let (one, other) = (first.hash_kv(revision).await.unwrap(), second.hash_kv(revision).await.unwrap());
        assert_eq!(one, other);
        assert_eq!(one.compacted, Revision(100));
    }
    let before = first.hash_kv(Some(Revision(250))).await.unwrap();
    write(&first, vec![put("key050", "differs")]).await;
    assert_eq!(first.hash_kv(Some(Revision(250))).await.unwrap(), before, "what comes later is not in it");
    assert_ne!(first.hash_kv(None).await.unwrap().hash, second.hash_kv(None).await.unwrap().hash);
    assert!(matches!(first.hash_kv(Some(Revision(99))).await, Err(KvError::Compacted { .. })));
    first.close().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_damage_in_every_kind_of_file_and_says_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        log_bytes: 256 * 1024,
        ..StoreConfig::new(folder.path(), RealClock::shared(), SeededRng::shared())
    };
    let store = Store::open(config).await.unwrap();
    for n in 0..600 {
        write(&store, vec![put(format!("key{n}"), vec![3; 2000])]).await;
    }
    let running = store.verify().await.unwrap();
    assert!(running.findings.is_empty() && running.records > 1200, "{running:?}");
    assert!(verify::folder(folder.path()).unwrap_err().to_string().contains("is in use by process"));
    store.close().await.unwrap();
    drop(store);
    let sound = verify::folder(folder.path()).unwrap();
    assert!(sound.findings.is_empty() && sound.notes.is_empty() && sound.records > 1200, "{sound:?}");

    let segment = newest_segment(folder.path());
    let snapshot = only_file(&folder.path().join("snapshots"));
    let values = folder.path().join("view/1/values/1");
    for (file, at, way_out) in [
        (&segment, 40, "reeve restore"),
        (&snapshot, 5000, "reeve restore"),
        (&values, 3000, "the next start makes it anew"),
        (&folder.path().join("member"), 17, "reeve restore"),
    ] {
        let whole = std::fs::read(file).unwrap();
        let opened = std::fs::OpenOptions::new().write(true).open(file).unwrap();
        opened.write_all_at(&[whole[at] ^ 1], at as u64).unwrap();
        let report = verify::folder(folder.path()).unwrap();
        let found: Vec<_> = report.findings.iter().map(|found| (&found.damage.path, found.way_out)).collect();
        assert!(!found.is_empty(), "{}", file.display());
        for (path, told) in found {
            assert_eq!(path, &file.display().to_string());
            assert!(told.contains(way_out), "{told}");
        }
        std::fs::write(file, whole).unwrap();
    }
    assert!(verify::folder(folder.path()).unwrap().findings.is_empty());
    assert!(verify::folder(&folder.path().join("none")).is_err());
}

fn newest_segment(folder: &Path) -> PathBuf {
    let entries = std::fs::read_dir(folder.join("log")).unwrap();
    entries.map(|entry| entry.unwrap().path()).max().unwrap()
}

fn only_file(folder: &Path) -> PathBuf {
    let mut entries = std::fs::read_dir(folder).unwrap();
    entries.next().unwrap().unwrap().path()
}
