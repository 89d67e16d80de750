//! `kill -9` of a real process on a real disk: every write that it was told of is there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use reeve_api::clock::RealClock;
use reeve_api::rng::{RngExt as _, SeededRng};
use reeve_store::{Kv as _, Op, RangeRequest, Store, StoreConfig, Txn};

/// Names the data folder for the child; only the child has it.
const FOLDER: &str = "REEVE_STORE_KILL_TEST_FOLDER";
const ROUNDS: u64 = 12;
const CLIENTS: u64 = 8;

fn config(folder: &Path) -> StoreConfig {
    let config = StoreConfig::new(folder, RealClock::shared(), SeededRng::shared());
    StoreConfig { log_bytes: 256 * 1024, ..config } // small, so that snapshots and cuts are under way when it dies
}

/// Writes until it is killed: each client counts up in a key of its own and says so when it is acknowledged.
/// Run by [`every_acknowledged_write_survives_kill_9`] in a process of its own; by itself there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_child_that_writes() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let store = Store::open(config(Path::new(&folder))).await.unwrap();
    println!("ready");
    let client = |n: u64, store: Arc<Store>| async move {
        let name = format!("client/{n}");
        let old = store.range(RangeRequest::key(name.clone())).await.unwrap().kvs.pop();
        let old: u64 = old.map_or(0, |kv| std::str::from_utf8(&kv.value[..20]).unwrap().parse().unwrap());
        for i in old + 1.. {
            let value = format!("{i:020}{}", "x".repeat(usize::try_from(i * 37 % 2_000).unwrap()));
            let put = Op::Put { key: name.clone().into(), value: value.into() };
            let extra = Op::Put { key: format!("extra/{}", i % 100).into(), value: "x".into() };
            store.txn(Txn { then: vec![put, extra], ..Txn::default() }).await.unwrap();
            println!("{n} {i}");
        }
    };
    let clients: Vec<_> = (0..CLIENTS).map(|n| tokio::spawn(client(n, store.clone()))).collect();
    for client in clients {
        client.await.unwrap();
    }
}

fn spawn(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_child_that_writes", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets a child write for a while and kills it; the last write of each client that it was told of.
fn write_and_kill(folder: &Path, after: Duration) -> BTreeMap<u64, u64> {
    let mut child = spawn(folder);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The test harness has begun the line with the name of the test.
    while !lines.next().expect("the child ended before it was ready").unwrap().ends_with("ready") {}
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut acknowledged = BTreeMap::new();
    for line in lines.map_while(Result::ok) {
        // The last line may be torn: a number that is cut short is only smaller.
        let Some((client, i)) = line.split_once(' ') else { continue };
        if let (Ok(client), Ok(i)) = (client.parse::<u64>(), i.parse::<u64>()) {
            let last = acknowledged.entry(client).or_insert(0);
            *last = i.max(*last);
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let rng = SeededRng::from_os();
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    let mut revision = 0;
    for round in 0..ROUNDS {
        let after = Duration::from_millis(20 + rng.below(180));
        let path = folder.path().to_owned();
        let written = tokio::task::spawn_blocking(move || write_and_kill(&path, after)).await.unwrap();
        acknowledged.extend(written);
        if round % 3 == 0 {
            continue; // the next child is the one that recovers
        }
        let store = Store::open(config(folder.path())).await.unwrap();
        assert!(store.revision().0 >= revision, "round {round}: the revision went back");
        revision = store.revision().0;
        for (client, last) in &acknowledged {
            let kv = store.range(RangeRequest::key(format!("client/{client}"))).await.unwrap().kvs.remove(0);
            let stored: u64 = std::str::from_utf8(&kv.value[..20]).unwrap().parse().unwrap();
            assert!(stored >= *last, "round {round}: client {client} was told of {last}, the store has {stored}");
            assert_eq!(kv.version, stored, "round {round}: client {client} counts one by one");
        }
        store.close().await.unwrap();
    }
    assert!(acknowledged.values().sum::<u64>() > ROUNDS * CLIENTS, "{acknowledged:?} proves little");
}
