//! What the embedded store promises on bad days: power cuts, torn writes, flipped bits, disks that refuse to sync,
//! views that fail. All on a simulated disk; a failure names its seed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reeve_api::clock::RealClock;
use reeve_api::rng::{RngExt as _, SeededRng};
use reeve_store::view::{MemoryView, View, ViewBatch, ViewError, Views, Visitor};
use reeve_store::{
    KeyRange, Kv as _, KvError, Op, OpenError, RangeRequest, Revision, SimDisk, Store, StoreConfig, Txn, WatchRequest,
};

fn config(disk: &SimDisk, views: &Arc<dyn Views>, seed: u64) -> StoreConfig {
    StoreConfig {
        disk: Arc::new(disk.clone()),
        views: views.clone(),
        log_bytes: 16 * 1024,
        ..StoreConfig::new("/nonexistent", RealClock::shared(), Arc::new(SeededRng::new(seed)))
    }
}

async fn open(disk: &SimDisk, views: &Arc<dyn Views>) -> Arc<Store> {
    Store::open(config(disk, views, 1)).await.unwrap()
}

fn memory() -> Arc<dyn Views> {
    Arc::new(MemoryView::default())
}

async fn put(store: &Store, key: &str, value: &str) -> Result<Revision, KvError> {
    let op = Op::Put { key: key.to_owned().into(), value: value.to_owned().into() };
    Ok(store.txn(Txn { then: vec![op], ..Txn::default() }).await?.revision)
}

async fn get(store: &Store, key: &str) -> Option<Bytes> {
    let response = store.range(RangeRequest::key(key.to_owned())).await.unwrap();
    response.kvs.into_iter().next().map(|kv| kv.value)
}

async fn count(store: &Store) -> usize {
    store.range(RangeRequest::prefix("")).await.unwrap().count
}

/// The file of the log that was begun last.
fn last_segment(disk: &SimDisk) -> String {
    use reeve_store::disk::Disk as _;
    format!("log/{}", disk.list("log").unwrap().pop().unwrap())
}

/// Eight clients write until the store fails; what was acknowledged.
async fn write_until_it_fails(store: &Arc<Store>, round: u64) -> Vec<String> {
    let client = |n: u64, store: Arc<Store>| async move {
        let mut acknowledged = Vec::new();
        for i in 0.. {
            let key = format!("{round}/{n}/{i}");
            match put(&store, &key, &key).await {
                Ok(_) => acknowledged.push(key),
                Err(_) => break,
            }
        }
        acknowledged
    };
    let clients: Vec<_> = (0..8).map(|n| tokio::spawn(client(n, store.clone()))).collect();
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_power_cuts_and_kills() {
    for seed in 0..8 {
        let rng = SeededRng::new(seed);
        let (mut disk, views) = (SimDisk::default(), memory());
        let mut acknowledged: Vec<String> = Vec::new();
        for round in 0..6 {
            let store =
                Store::open(config(&disk, &views, seed)).await.unwrap_or_else(|err| panic!("seed {seed}: {err}"));
            for key in &acknowledged {
                assert_eq!(get(&store, key).await, Some(Bytes::from(key.clone())), "seed {seed} round {round}");
            }
            disk.slow_down(Duration::from_micros(rng.below(500)));
            let crash = async {
                tokio::time::sleep(Duration::from_millis(5 + rng.below(30))).await;
                if rng.below(2) == 0 { disk.kill_process() } else { disk.cut_power(&rng) }
            };
            let (next, written) = tokio::join!(crash, write_until_it_fails(&store, round));
            acknowledged.extend(written);
            disk = next;
            store.close().await.unwrap_err();
        }
        assert!(acknowledged.len() > 100, "seed {seed}: only {} writes", acknowledged.len());
    }
}

/// A killed process leaves a record that was never synced; who reads it must not rely on it before it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_a_killed_process_left_unsynced_is_synced_before_it_counts() {
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    let before = disk.len_of(&last_segment(&disk));
    disk.slow_down(Duration::from_millis(300));
    let write = tokio::spawn(async move { put(&store, "a", "1").await });
    while disk.len_of(&last_segment(&disk)) == before {
        tokio::task::yield_now().await;
    }
    let disk = disk.kill_process();
    write.await.unwrap().unwrap_err();
    disk.slow_down(Duration::ZERO);
    let store = open(&disk, &views).await;
    assert_eq!(get(&store, "a").await, Some("1".into()));
    let disk = disk.cut_power(&SeededRng::new(1));
    assert_eq!(get(&*open(&disk, &views).await, "a").await, Some("1".into()));
}

#[tokio::test]
async fn concurrent_writes_share_syncs() {
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    disk.slow_down(Duration::from_millis(5));
    let before = disk.syncs();
    let writes: Vec<_> = (0..64)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { put(&store, &n.to_string(), "x").await.unwrap() })
        })
        .collect();
    for write in writes {
        write.await.unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!(syncs <= 2, "64 writes at once took {syncs} syncs");
    store.close().await.unwrap();
}

#[tokio::test]
async fn the_torn_end_of_the_log_is_cut_and_all_before_it_is_there() {
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    for n in 0..20 {
        put(&store, &n.to_string(), "x").await.unwrap();
    }
    let disk = disk.cut_power(&SeededRng::new(1));
    let segment = last_segment(&disk);
    assert!(disk.cut_file(&segment, disk.len_of(&segment) - 3));
    let store = open(&disk, &views).await;
    assert_eq!((count(&store).await, store.revision()), (19, Revision(20)));
    put(&store, "new", "x").await.unwrap();
    store.close().await.unwrap();
    assert_eq!(count(&*open(&disk, &views).await).await, 20);
}

#[tokio::test]
async fn a_log_that_lost_what_was_applied_is_refused() {
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    put(&store, "a", "x").await.unwrap();
    let disk = disk.kill_process();
    let segment = last_segment(&disk);
    assert!(disk.cut_file(&segment, disk.len_of(&segment) - 3));
    let err = Store::open(config(&disk, &views, 1)).await.unwrap_err();
    assert!(matches!(err, OpenError::LogTooShort { last: 1, applied: 2, .. }), "{err}");
}

#[tokio::test]
async fn damage_in_the_middle_of_the_log_is_refused_with_file_and_offset() {
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    put(&store, "a", "x").await.unwrap();
    let segment = last_segment(&disk);
    let offset = disk.len_of(&segment);
    for n in 0..5 {
        put(&store, &n.to_string(), "x").await.unwrap();
    }
    for byte in [0, 5, 9, 20] {
        let disk = disk.kill_process();
        assert!(disk.flip(&segment, offset + byte));
        let err = Store::open(config(&disk, &views, 1)).await.unwrap_err();
        let OpenError::Damage(damage) = &err else { panic!("byte {byte}: {err}") };
        assert_eq!((&damage.path[..], damage.offset), (&format!("sim:/{segment}")[..], offset as u64), "byte {byte}");
        assert!(disk.flip(&segment, offset + byte));
    }
    assert_eq!(count(&*open(&disk.kill_process(), &views).await).await, 6);
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_when_it_is_needed() {
    use reeve_store::disk::Disk as _;
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    fill_until_snapshot(&disk, &store).await;
    let snapshot = format!("snapshots/{}", disk.list("snapshots").unwrap().pop().unwrap());
    store.close().await.unwrap();
    assert!(disk.flip(&snapshot, disk.len_of(&snapshot) / 2));
    open(&disk, &views).await.close().await.unwrap(); // a view that was closed cleanly needs no snapshot
    let store = open(&disk, &views).await;
    let disk = disk.cut_power(&SeededRng::new(1));
    drop(store);
    let err = Store::open(config(&disk, &views, 1)).await.unwrap_err();
    assert!(matches!(&err, OpenError::Damage(damage) if damage.path.ends_with(&snapshot)), "{err}");
}

/// Overwrites ten keys until a snapshot has been written and the log has been cut.
async fn fill_until_snapshot(disk: &SimDisk, store: &Store) -> u64 {
    use reeve_store::disk::Disk as _;
    for n in 0..2_000 {
        put(store, &(n % 10).to_string(), &n.to_string()).await.unwrap();
        let begins = disk.list("log").unwrap().first().cloned().unwrap();
        if begins != "0000000000000001.log" && !disk.list("snapshots").unwrap().is_empty() {
            return n;
        }
    }
    panic!("no snapshot after 2000 writes to a log of 16 KiB");
}

#[tokio::test]
async fn the_log_is_cut_only_behind_a_snapshot_and_both_together_rebuild_everything() {
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    let written = fill_until_snapshot(&disk, &store).await;
    let newest = store.revision();
    let old = Revision(newest.0 - 30);
    let at_old = RangeRequest { revision: Some(old), ..RangeRequest::prefix("") };
    let expected = (store.range(RangeRequest::prefix("")).await.unwrap(), store.range(at_old.clone()).await.unwrap());
    let disk = disk.cut_power(&SeededRng::new(3)); // the view is gone with the power
    let store = open(&disk, &views).await;
    let rebuilt = (store.range(RangeRequest::prefix("")).await.unwrap(), store.range(at_old).await.unwrap());
    assert_eq!(rebuilt, expected);
    assert_eq!((store.revision(), newest), (newest, Revision(written + 2)));
    put(&store, "a", "goes on").await.unwrap();
}

#[tokio::test]
async fn after_a_failed_sync_nothing_more_is_acknowledged_but_reads_go_on() {
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    put(&store, "a", "1").await.unwrap();
    disk.fail_syncs();
    for _ in 0..3 {
        let err = put(&store, "a", "2").await.unwrap_err();
        assert!(matches!(&err, KvError::Storage { what, .. } if what.starts_with("sim:/log/")), "{err}");
    }
    assert_eq!(get(&store, "a").await, Some("1".into()));
    assert!(matches!(store.close().await, Err(KvError::Storage { .. })));
    let disk = disk.cut_power(&SeededRng::new(1));
    assert!(get(&*open(&disk, &views).await, "a").await.is_some());
}

fn refused_for_want_of_room(outcome: Result<Revision, KvError>) {
    let err = outcome.unwrap_err();
    assert!(matches!(&err, KvError::Storage { what, .. } if what.starts_with("sim:/")), "{err}");
}

/// Writes until there is room again: the store looks every now and then.
async fn put_when_there_is_room(store: &Store, key: &str) {
    let written = async {
        while put(store, key, "1").await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_becomes_full_takes_deletions_and_everything_again_when_there_is_room() {
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    put(&store, "a", "1").await.unwrap();
    disk.leave_free(Some(32 * 1024 * 1024));
    put(&store, "b", "1").await.unwrap(); // after it the store sees how little is left
    refused_for_want_of_room(put(&store, "c", "1").await);
    let err = put(&store, "c", "1").await.unwrap_err().to_string();
    assert_eq!(err, "store cannot write sim:/: the disk is full: 31 MiB are free, writes need 80");
    assert_eq!(get(&store, "b").await, Some("1".into()));
    let delete = Op::Delete(KeyRange::Key("a".into()));
    store.txn(Txn { then: vec![delete], ..Txn::default() }).await.unwrap();
    assert_eq!(get(&store, "a").await, None);
    disk.leave_free(None);
    put_when_there_is_room(&store, "d").await;
}

#[tokio::test]
async fn a_write_that_the_disk_ends_in_is_not_acknowledged_and_costs_nobody_else_a_write() {
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    put(&store, "a", "1").await.unwrap();
    for left in [0, 1, 20, 50] {
        disk.leave_free(Some(left));
        refused_for_want_of_room(put(&store, "b", "does not fit on what is left of the disk").await);
        refused_for_want_of_room(put(&store, "c", "1").await);
        assert_eq!(get(&store, "a").await, Some("1".into()));
        disk.leave_free(None);
        put_when_there_is_room(&store, &format!("after {left}")).await;
    }
    let disk = disk.cut_power(&SeededRng::new(1));
    let store = open(&disk, &memory()).await;
    for key in ["a", "after 0", "after 1", "after 20", "after 50"] {
        assert_eq!(get(&store, key).await, Some("1".into()), "{key}");
    }
}

#[tokio::test]
async fn a_closed_store_says_so_and_ends_its_watches() {
    let (disk, views) = (SimDisk::default(), memory());
    let store = open(&disk, &views).await;
    let request = WatchRequest { range: KeyRange::Prefix(Bytes::new()), start: None, previous: false };
    let mut watch = store.watch(request).await.unwrap();
    let second = Store::open(config(&disk, &views, 1)).await.unwrap_err();
    assert!(matches!(second, OpenError::Lock(_)), "{second}");
    store.close().await.unwrap();
    assert!(matches!(put(&store, "a", "1").await, Err(KvError::Closed)));
    assert!(matches!(store.range(RangeRequest::key("a")).await, Err(KvError::Closed)));
    assert!(matches!(futures::StreamExt::next(&mut watch).await, Some(Err(KvError::Closed))));
    open(&disk, &views).await.close().await.unwrap();
}

/// Views that can be told to fail once.
#[derive(Debug, Default, Clone)]
struct FailingViews {
    inner: MemoryView,
    fail_reads: Arc<AtomicBool>,
    fail_writes: Arc<AtomicBool>,
    /// Whether who goes through it waits, and whether somebody does.
    holds_visits: Arc<AtomicBool>,
    is_visited: Arc<AtomicBool>,
}

fn fails_once(flag: &AtomicBool) -> Result<(), ViewError> {
    let fails = flag.swap(false, Ordering::SeqCst);
    if fails { Err(ViewError { what: "fails", reason: "told to".to_owned() }) } else { Ok(()) }
}

impl Views for FailingViews {
    fn open(&self) -> Result<Arc<dyn View>, ViewError> {
        Ok(Arc::new(self.clone()))
    }

    fn discard(&self) -> std::io::Result<()> {
        self.inner.discard()
    }
}

impl View for FailingViews {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError> {
        fails_once(&self.fail_reads)?;
        self.inner.get(key)
    }

    fn visit(&self, from: &[u8], to: &[u8], visitor: &mut Visitor<'_>) -> Result<(), ViewError> {
        fails_once(&self.fail_reads)?;
        while self.holds_visits.load(Ordering::SeqCst) {
            self.is_visited.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        self.inner.visit(from, to, visitor)
    }

    fn apply(&self, batch: ViewBatch) -> Result<(), ViewError> {
        fails_once(&self.fail_writes)?;
        self.inner.apply(batch)
    }

    fn sync(&self) -> Result<(), ViewError> {
        self.inner.sync()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_fails_is_rebuilt_and_nothing_is_wrong_or_lost() {
    let (disk, views) = (SimDisk::default(), FailingViews::default());
    let shared: Arc<dyn Views> = Arc::new(views.clone());
    let store = open(&disk, &shared).await;
    fill_until_snapshot(&disk, &store).await;
    put(&store, "a", "1").await.unwrap();

    views.fail_writes.store(true, Ordering::SeqCst);
    put(&store, "a", "2").await.unwrap(); // it waits for the new view
    assert_eq!((get(&store, "a").await, count(&store).await), (Some("2".into()), 11));

    views.fail_reads.store(true, Ordering::SeqCst);
    let past = RangeRequest { revision: Some(Revision(store.revision().0 - 1)), ..RangeRequest::key("a") };
    let refused = store.range(past.clone()).await; // the newest states are in memory
    assert!(matches!(refused, Err(KvError::Unavailable { .. })), "{refused:?}");
    let expected = Revision(store.revision().0 + 1);
    assert_eq!(put(&store, "a", "3").await.unwrap(), expected);
    assert_eq!((get(&store, "a").await, count(&store).await), (Some("3".into()), 11));
    assert_eq!(store.range(past).await.unwrap().kvs[0].value, "1");
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_compacted_during_a_scrub_is_scrubbed_too() {
    let (disk, views) = (SimDisk::default(), FailingViews::default());
    let shared: Arc<dyn Views> = Arc::new(views.clone());
    let store = open(&disk, &shared).await;
    for value in ["1", "2", "3"] {
        put(&store, "a", value).await.unwrap();
    }
    store.compact(Revision(3)).await.unwrap();
    store.scrubbed(Revision(3)).await.unwrap();
    let last = put(&store, "a", "4").await.unwrap();
    views.holds_visits.store(true, Ordering::SeqCst);
    store.compact(Revision(last.0 - 1)).await.unwrap();
    while !views.is_visited.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The scrub has looked how far it is to go.
    store.compact(last).await.unwrap();
    views.holds_visits.store(false, Ordering::SeqCst);
    tokio::time::timeout(Duration::from_secs(20), store.scrubbed(last)).await.expect("nobody forgets it").unwrap();
    store.close().await.unwrap();
}

/// On the real disk: whatever becomes of the view's files, the state comes from snapshot and log.
#[tokio::test]
async fn a_view_whose_files_are_damaged_or_gone_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let config = || {
        let config = StoreConfig::new(folder.path(), RealClock::shared(), SeededRng::shared());
        StoreConfig { log_bytes: 64 * 1024, ..config }
    };
    let store = Store::open(config()).await.unwrap();
    for n in 0..500 {
        put(&store, &format!("{}", n % 50), &"x".repeat(500)).await.unwrap();
    }
    store.close().await.unwrap();
    let damages: [fn(&std::path::Path); 3] = [
        |view| std::fs::remove_dir_all(view).unwrap(),
        |view| std::fs::write(view.join("index/1"), vec![0x5a; 4096]).unwrap(),
        |view| std::fs::remove_dir_all(view.join("values")).unwrap(),
    ];
    for (n, damage) in damages.into_iter().enumerate() {
        for view in std::fs::read_dir(folder.path().join("view")).unwrap() {
            damage(&view.unwrap().path());
        }
        let store = Store::open(config()).await.unwrap_or_else(|err| panic!("damage {n}: {err}"));
        assert_eq!((count(&store).await, store.revision()), (50, Revision(501)), "damage {n}");
        store.close().await.unwrap();
    }
}
