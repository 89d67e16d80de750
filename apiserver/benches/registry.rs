//! What the registry costs: creates, gets, status patches, a list of 5,000, an event seen by 100 watchers.
//!
//! On the in-memory store, without HTTP, so that the figures are the registry's own.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run has nothing to say")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use futures::StreamExt;
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_apiserver::registry::{
    Body, Options, Patch, Registry, RegistryConfig, RegistryParts, Request, Subresource, UserInfo, Warnings, Watch,
};
use reeve_store::MemoryKv;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const LIST_LEN: usize = 5000;
const WATCHERS: usize = 100;

async fn registry() -> Arc<Registry> {
    let config = RegistryConfig {
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        dns_address: None,
        node_ports: 30000..=32767,
        advertise: SocketAddr::from(([192, 168, 7, 2], 6443)),
        history: reeve_apiserver::registry::HISTORY,
        several: false,
    };
    let parts = RegistryParts {
        kv: Arc::new(MemoryKv::new()),
        kinds: reeve_kinds::builtin(),
        clock: RealClock::shared(),
        rng: Arc::new(SeededRng::new(7)),
    };
    Registry::start(config, parts).await.unwrap()
}

fn request(registry: &Registry, name: &str) -> Request {
    Request {
        user: UserInfo::new("admin", &["system:masters"]),
        resource: registry.resource("", "v1", "configmaps").unwrap(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
        subresource: Subresource::None,
        options: Options::default(),
        warnings: Warnings::default(),
    }
}

/// A ConfigMap of about 1.5 KB.
fn config_map(name: &Value) -> Body {
    json!({
        "metadata": { "name": name, "labels": { "app": "bench", "tier": "x" } },
        "data": { "text": "x".repeat(1400) },
    })
    .into()
}

fn create_and_get(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let registry = runtime.block_on(registry());
    let collection = request(&registry, "");
    let mut serial = 0_u64;
    criterion.bench_function("create a ConfigMap of 1.5 KB", |bench| {
        bench.iter(|| {
            serial += 1;
            let body = config_map(&format!("c{serial}").into());
            runtime.block_on(registry.create(&collection, body)).unwrap()
        });
    });
    let one = request(&registry, "c1");
    criterion.bench_function("get a ConfigMap", |bench| {
        bench.iter(|| black_box(runtime.block_on(registry.get(&one)).unwrap()));
    });
}

/// What a node agent does most: it reports the state of a pod.
fn report_pod(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let registry = runtime.block_on(registry());
    let mut request = request(&registry, "");
    request.resource = registry.resource("", "v1", "serviceaccounts").unwrap();
    runtime.block_on(registry.create(&request, json!({"metadata": {"name": "default"}}).into())).unwrap();
    request.resource = registry.resource("", "v1", "pods").unwrap();
    let mut serial = 0_u64;
    criterion.bench_function("create a pod", |bench| {
        bench.iter(|| {
            serial += 1;
            let spec = json!({"containers": [{"name": "c", "image": "web:1", "ports": [{"containerPort": 80}]}]});
            let body = json!({"metadata": {"name": format!("p{serial}"), "labels": {"app": "web"}}, "spec": spec});
            runtime.block_on(registry.create(&request, body.into())).unwrap()
        });
    });
    request.name = "p1".to_owned();
    request.subresource = Subresource::Part(reeve_kinds::Part::Status);
    criterion.bench_function("patch a pod's status", |bench| {
        bench.iter(|| {
            serial += 1;
            let status = json!({"phase": "Running", "message": format!("m{serial}"),
                "conditions": [{"type": "Ready", "status": "True"}]});
            let patch = Patch::Strategic(json!({ "status": status }).into());
            runtime.block_on(registry.patch(&request, patch)).unwrap()
        });
    });
}

fn list(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let registry = runtime.block_on(async {
        let registry = registry().await;
        for index in 0..LIST_LEN {
            registry.create(&request(&registry, ""), config_map(&format!("c{index}").into())).await.unwrap();
        }
        registry
    });
    let all = request(&registry, "");
    criterion.bench_function("list 5,000 ConfigMaps", |bench| {
        bench.iter(|| assert_eq!(runtime.block_on(registry.list(&all)).unwrap().items.len(), LIST_LEN));
    });
    let mut selected = request(&registry, "");
    selected.options.label_selector = "tier=y".to_owned();
    criterion.bench_function("list 5,000 ConfigMaps by a label none has", |bench| {
        bench.iter(|| assert!(runtime.block_on(registry.list(&selected)).unwrap().items.is_empty()));
    });
}

fn fan_out(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let registry = runtime.block_on(registry());
    let collection = request(&registry, "");
    let mut watchers: Vec<Watch> = runtime.block_on(futures::future::join_all(
        (0..WATCHERS).map(|_| async { registry.watch(&collection).await.unwrap() }),
    ));
    let mut serial = 0_u64;
    criterion.bench_function("create, seen by 100 watchers", |bench| {
        bench.iter(|| {
            serial += 1;
            let body = config_map(&format!("c{serial}").into());
            runtime.block_on(async {
                registry.create(&collection, body).await.unwrap();
                for watcher in &mut watchers {
                    black_box(watcher.next().await.unwrap().unwrap());
                }
            });
        });
    });
}

criterion_group!(benches, create_and_get, report_pod, list, fan_out);
criterion_main!(benches);
