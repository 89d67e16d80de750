//! How fast Services get into the kernel: 1,000 of them with 10 endpoints each, and one that changes among them.
//!
//! Needs root: the table is made in a network namespace of the benchmark's own.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run has nothing to say")]

use std::net::Ipv4Addr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use reeve_client::ObjectKey;
use reeve_proxy::bench::Table;
use serde_json::json;

const SERVICES: u32 = 1000;
const ENDPOINTS: u32 = 10;

fn service(n: u32, endpoints: u32) -> (ObjectKey, Service, Arc<EndpointSlice>) {
    let service = json!({"spec": {"type": "NodePort", "clusterIP": Ipv4Addr::from(0x0a60_0100 + n),
        "ports": [{"port": 80, "nodePort": 30_000 + n}]}});
    let address = |m: u32| json!({"addresses": [Ipv4Addr::from(0x0a40_1000 + 16 * n + m)], "nodeName": "n1"});
    let endpoints: Vec<_> = (0..endpoints).map(address).collect();
    let slice = json!({"addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints});
    let slice = serde_json::from_value(slice).expect("a slice");
    (ObjectKey::new("default", format!("s{n}")), serde_json::from_value(service).expect("a service"), Arc::new(slice))
}

fn table() -> Table {
    let range = |text: &str| text.parse().expect("a range");
    Table::new("reeve-bench", range("10.64.0.0/16"), range("10.96.0.0/16")).expect("a table (needs root)")
}

fn services(criterion: &mut Criterion) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace (needs root)");
    let all: Vec<_> = (0..SERVICES).map(|n| service(n, ENDPOINTS)).collect();
    criterion.bench_function("1,000 Services with 10 endpoints each, at once", |bencher| {
        bencher.iter_batched(table, |mut table| table.sync(&all).expect("synced"), criterion::BatchSize::PerIteration);
    });
    let mut table = table();
    table.sync(&all).expect("synced");
    let ends = [[service(500, ENDPOINTS - 1)], [service(500, ENDPOINTS)]];
    criterion.bench_function("one of them loses an endpoint and gets it back", |bencher| {
        bencher.iter(|| ends.iter().map(|change| table.sync(change).expect("synced")).sum::<usize>());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = services
}
criterion_main!(benches);
