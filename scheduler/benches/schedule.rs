//! How fast the pure core is: 5,000 pods onto 1,000 nodes.
#![allow(clippy::expect_used, reason = "a benchmark that cannot run has nothing to say")]

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use reeve_scheduler::decide::decide;
use reeve_scheduler::pod::PodView;
use reeve_scheduler::snapshot::Snapshot;
use serde_json::json;

const NODES: usize = 1000;
const PODS: usize = 5000;

fn nodes() -> Snapshot {
    let mut snapshot = Snapshot::default();
    for n in 0..NODES {
        let node = json!({ "metadata": { "name": format!("node-{n}"), "labels": { "zone": format!("z{}", n % 3) } },
            "status": { "allocatable": { "cpu": "4", "memory": "32Gi", "pods": "110" } } });
        snapshot.put_node(Arc::new(serde_json::from_value(node).expect("a node")));
    }
    snapshot
}

fn pods() -> Vec<Arc<PodView>> {
    let pod = |n: usize| {
        let pod = json!({ "metadata": { "namespace": "default", "name": format!("pod-{n}"), "uid": format!("{n}") },
            "spec": { "containers": [{ "name": "c", "resources": { "requests": { "cpu": "100m", "memory": "100Mi" } } }] } });
        Arc::new(PodView::of(&serde_json::from_value(pod).expect("a pod")).expect("a complete pod"))
    };
    (0..PODS).map(pod).collect()
}

fn schedule(criterion: &mut Criterion) {
    let pods = pods();
    criterion.bench_function("5,000 pods onto 1,000 nodes", |bencher| {
        bencher.iter_batched(
            nodes,
            |mut snapshot| {
                for (tie_breaker, pod) in (0_u64..).zip(&pods) {
                    let node = decide(pod, &snapshot, tie_breaker).expect("there is room").to_owned();
                    snapshot.place(&node, Arc::clone(pod));
                }
                snapshot
            },
            criterion::BatchSize::LargeInput,
        );
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = schedule
}
criterion_main!(benches);
