//! What the embedded store costs: puts alone and together, with one member and three, a range, a restart.
//! `cargo bench -p reeve-store`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what goes wrong here is to be seen")]

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::path::Path;
use std::sync::Arc;

use cluster::{Network, founders};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_store::{Kv as _, MemberConfig, Op, RangeRequest, Store, StoreConfig, Txn};
use tokio::runtime::Runtime;

const VALUE_BYTES: usize = 1024;

fn open(runtime: &Runtime, folder: &Path) -> Arc<Store> {
    runtime.block_on(Store::open(StoreConfig::new(folder, RealClock::shared(), SeededRng::shared()))).unwrap()
}

fn put(n: u64) -> Op {
    Op::Put { key: format!("/registry/configmaps/default/bench-{n:06}").into(), value: vec![b'x'; VALUE_BYTES].into() }
}

/// `clients` at once write `per_client` times each.
async fn puts(store: &Arc<Store>, clients: u64, per_client: u64) {
    let client = |c: u64, store: Arc<Store>| async move {
        for n in 0..per_client {
            store.txn(Txn { then: vec![put((c * 131 + n) % 10_000)], ..Txn::default() }).await.unwrap();
        }
    };
    let tasks: Vec<_> = (0..clients).map(|c| tokio::spawn(client(c, store.clone()))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

async fn fill(store: &Store, keys: u64) {
    for first in (0..keys).step_by(100) {
        let then = (first..keys.min(first + 100)).map(put).collect();
        store.txn(Txn { then, ..Txn::default() }).await.unwrap();
    }
}

fn bench_puts(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = open(&runtime, folder.path());
    let mut group = c.benchmark_group("put of 1 KiB");
    for clients in [1, 64] {
        let per_client = 640 / clients;
        group.throughput(Throughput::Elements(clients * per_client));
        group.sample_size(10).bench_function(format!("{clients} clients"), |b| {
            b.iter(|| runtime.block_on(puts(&store, clients, per_client)));
        });
    }
    runtime.block_on(store.close()).unwrap();
}

/// Three members in one process, each with a folder of its own; their leader, which comes first, and the others.
fn open_three(runtime: &Runtime, folder: &Path) -> Vec<Arc<Store>> {
    let network = Network::new(SeededRng::shared());
    let mut stores: Vec<_> = (1..=3)
        .map(|id| {
            let member = MemberConfig::Cluster { id, cluster: 7, peers: founders(3), transport: network.transport(id) };
            let folder = folder.join(id.to_string());
            let config = StoreConfig { member, ..StoreConfig::new(folder, RealClock::shared(), SeededRng::shared()) };
            let store = runtime.block_on(Store::open(config)).unwrap();
            network.plug_in(id, store.inbox());
            store
        })
        .collect();
    for store in &stores {
        let mut leadership = store.leadership();
        runtime.block_on(leadership.wait_for(|known| known.leader.is_some())).unwrap();
    }
    stores.sort_by_key(|store| !store.leadership().borrow().is_leader());
    stores
}

fn bench_three(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stores = open_three(&runtime, folder.path());
    let mut group = c.benchmark_group("three members, put of 1 KiB");
    for (clients, through, name) in [(1, 0, "leader"), (64, 0, "leader"), (64, 1, "follower")] {
        let per_client = 640 / clients;
        group.throughput(Throughput::Elements(clients * per_client));
        group.sample_size(10).bench_function(format!("{clients} clients through a {name}"), |b| {
            b.iter(|| runtime.block_on(puts(&stores[through], clients, per_client)));
        });
    }
    group.finish();
    c.bench_function("three members, linearizable get through a follower", |b| {
        let key = "/registry/configmaps/default/bench-000001";
        b.iter(|| runtime.block_on(stores[1].range(RangeRequest::key(key))).unwrap());
    });
}

fn bench_range(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = open(&runtime, folder.path());
    runtime.block_on(fill(&store, 5_000));
    c.bench_function("range of 5,000 keys of 1 KiB", |b| {
        b.iter(|| runtime.block_on(store.range(RangeRequest::prefix("/registry/"))).unwrap());
    });
    c.bench_function("get of one key", |b| {
        let key = "/registry/configmaps/default/bench-002500";
        b.iter(|| runtime.block_on(store.range(RangeRequest::key(key))).unwrap());
    });
    runtime.block_on(store.close()).unwrap();
}

fn bench_restart(c: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = open(&runtime, folder.path());
    runtime.block_on(fill(&store, 100_000));
    runtime.block_on(store.close()).unwrap();
    drop(store);
    let mut group = c.benchmark_group("restart with 100,000 keys of 1 KiB");
    group.sample_size(10).bench_function("open and close", |b| {
        b.iter(|| {
            let store = open(&runtime, folder.path());
            runtime.block_on(store.close()).unwrap();
        });
    });
}

criterion_group!(benches, bench_puts, bench_three, bench_range, bench_restart);
criterion_main!(benches);
