//! How long writes stand still while a new member gets everything by a snapshot: not at all, if it is to be done while
//! people work. Real files and threads, members in one process.
//!
//! `REEVE_SNAPSHOT_MB=200 cargo test -p reeve-store --test joining -- --nocapture` measures with so much data.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

mod cluster;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::{Network, address};
use reeve_api::clock::{Clock as _, RealClock};
use reeve_api::rng::SeededRng;
use reeve_store::{
    Kv as _, Limits, MemberConfig, MemberError, Op, Peer, RangeRequest, Revision, Store, StoreConfig, Txn,
};

/// Megabytes unless it is said.
const MEGABYTES: usize = 8;
const VALUE_BYTES: usize = 10_000;
/// What a write may take in the tests, whoever else the machine is busy with; alone it is a tenth of it.
const STALL_MAX: Duration = Duration::from_secs(1);

async fn open(folder: &Path, network: &Network, id: u64, joins: bool) -> Arc<Store> {
    let transport = network.transport(id);
    let peers = [1, id].map(|id| Peer { id, address: address(id) }).into_iter().collect::<Vec<_>>();
    let member = if joins {
        MemberConfig::Join { id, cluster: 7, peers, transport }
    } else {
        MemberConfig::Cluster { id, cluster: 7, peers: peers[..1].to_vec(), transport }
    };
    let config = StoreConfig::new(folder.join(id.to_string()), RealClock::shared(), SeededRng::shared());
    let store = Store::open(StoreConfig { member, limits: Limits::default(), ..config }).await.unwrap();
    network.plug_in(id, store.inbox());
    store
}

async fn put(store: &Store, key: String, value: Vec<u8>) {
    let op = Op::Put { key: key.into(), value: value.into() };
    store.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
}

async fn fill(store: &Arc<Store>, megabytes: usize) {
    let n = megabytes * 1_000_000 / VALUE_BYTES;
    let writers = (0..16).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for key in (writer..n).step_by(16) {
                // Not all the same, so that nothing on the way has it easier than it should.
                let value = (0..VALUE_BYTES).map(|at| u8::try_from((at * 31 + key * 17) % 251).unwrap()).collect();
                put(&store, format!("fill/{key:07}"), value).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// How long writes took, by what was done meanwhile.
type Times = BTreeMap<&'static str, Vec<Duration>>;

/// Writes one after the other until it is told to stop.
async fn write(store: Arc<Store>, folder: PathBuf, stop: Arc<AtomicBool>) -> Times {
    let (clock, mut took) = (RealClock::new(), Times::new());
    while !stop.load(Ordering::SeqCst) {
        let (phase, began) = (phase(&folder), clock.monotonic());
        put(&store, "busy".to_owned(), vec![b'x'; 1000]).await;
        took.entry(phase).or_default().push(clock.monotonic().saturating_sub(began));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    took
}

/// How far the new member is.
fn phase(folder: &Path) -> &'static str {
    let has = |member: &str, suffix: &str| {
        let names = std::fs::read_dir(folder.join(member).join("snapshots"));
        names.is_ok_and(|names| names.flatten().any(|name| name.file_name().to_string_lossy().ends_with(suffix)))
    };
    match () {
        () if has("2", ".snap") => "4 taken over",
        () if has("2", ".recv") => "3 fetched",
        () if folder.join("2").is_dir() => "2 written",
        () => "1 before",
    }
}

/// What is to be said of some writes.
fn told(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 1000).min(times.len() - 1)];
    format!("{} writes, p50 {:?}, p99 {:?}, longest {:?}", times.len(), at(500), at(990), at(1000))
}

async fn join(leader: &Store, folder: &Path, network: &Network) -> Arc<Store> {
    leader.add_learner(2, &address(2)).await.unwrap();
    let joining = open(folder, network, 2, true).await;
    loop {
        match leader.promote(2).await {
            Ok(()) => return joining,
            Err(MemberError::Behind { .. } | MemberError::LosesQuorum { .. } | MemberError::Busy) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(err) => panic!("{err}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_do_not_stand_still_while_a_new_member_gets_a_snapshot() {
    let megabytes = std::env::var("REEVE_SNAPSHOT_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(MEGABYTES);
    let folder = tempfile::tempdir().unwrap();
    let network = Network::new(Arc::new(SeededRng::new(1)));
    let leader = open(folder.path(), &network, 1, false).await;
    fill(&leader, megabytes).await;
    leader.compact(Revision(leader.revision().0)).await.unwrap();
    let (clock, stop) = (RealClock::new(), Arc::new(AtomicBool::new(false)));
    let writer = tokio::spawn(write(leader.clone(), folder.path().to_owned(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(3)).await; // the same without a new member
    let (began, revision) = (clock.monotonic(), leader.revision());
    let joined = join(&leader, folder.path(), &network).await;
    let took = clock.monotonic().saturating_sub(began);
    assert!(joined.revision() >= revision, "it votes, but has not made its state of the snapshot yet");
    stop.store(true, Ordering::SeqCst);
    let times = writer.await.unwrap();
    println!("{megabytes} MB to a new member in {took:?}");
    times.iter().for_each(|(phase, times)| println!("{phase}: {}", told(times.clone())));
    let there = joined.range(RangeRequest { limit: 1, ..RangeRequest::prefix("fill/") }).await.unwrap();
    assert_eq!(there.count, megabytes * 1_000_000 / VALUE_BYTES);
    let longest = times.into_values().flatten().max().unwrap();
    assert!(longest < STALL_MAX, "a write took {longest:?}");
    joined.close().await.unwrap();
    leader.close().await.unwrap();
}
