//! Guarantees of the registry, on the real kinds and the in-memory store. `World` is the only caller of its verbs.

mod answers;
mod applies;
mod builtin;
mod crud;
mod delete;
mod durable;
mod evictions;
mod faults;
mod lists;
mod nodes;
mod offers;
mod patches;
mod pods;
mod policies;
mod quotas;
mod roles;
mod scales;
mod services;
mod watches;
mod webhooks;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use reeve_api::clock::ManualClock;
use reeve_api::rng::SeededRng;
use reeve_kinds::Part;
use reeve_store::{MemoryKv, SharedKv};
use serde_json::{Value, json};

use super::*;

/// When the tests take place.
const START: &str = "2026-01-02T03:04:05Z";

/// A registry of its own, with the admin's eyes.
pub(crate) struct World {
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) kv: SharedKv,
    pub(crate) user: UserInfo,
}

pub(crate) fn config() -> RegistryConfig {
    RegistryConfig {
        service_cidr: "10.96.0.0/24".parse().unwrap(),
        dns_address: Some(Ipv4Addr::new(10, 96, 0, 10).into()),
        node_ports: 30000..=30009,
        advertise: SocketAddr::from(([192, 168, 7, 2], 6443)),
        history: super::HISTORY,
        several: false,
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::on(Arc::new(MemoryKv::new())).await
    }

    pub(crate) async fn on(kv: SharedKv) -> Self {
        let clock = Arc::new(ManualClock::at(START.parse::<Timestamp>().unwrap()));
        let parts = RegistryParts {
            kv: Arc::clone(&kv),
            kinds: reeve_kinds::builtin(),
            clock: clock.clone(),
            rng: Arc::new(SeededRng::new(7)),
        };
        let registry = Registry::start(config(), parts).await.unwrap();
        Self { registry, clock, kv, user: UserInfo::new("admin", &["system:masters"]) }
    }

    /// `configmaps`, `configmaps/a` (in `default`), `configmaps/other/a`, `namespaces/a`, `deployments/a`;
    /// a subresource behind a colon: `pods/a:status`.
    pub(crate) fn request(&self, path: &str) -> Request {
        let (path, subresource) = path.split_once(':').unwrap_or((path, ""));
        let parts: Vec<&str> = path.split('/').collect();
        let resources = self.registry.resources();
        let resource = resources.iter().find(|one| one.names().plural == parts[0]).expect(path);
        let default = if resource.names().namespaced { "default" } else { "" };
        let (namespace, name) = match parts[..] {
            [_] => (default, ""),
            [_, name] => (default, name),
            [_, "*", name] => ("", name),
            [_, namespace, name] => (namespace, name),
            _ => panic!("{path}"),
        };
        let all = [
            Subresource::None,
            Subresource::Part(Part::Status),
            Subresource::Scale,
            Subresource::Binding,
            Subresource::Eviction,
            Subresource::Finalize,
        ];
        Request {
            user: self.user.clone(),
            resource: Arc::clone(resource),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: all.into_iter().find(|one| one.name() == subresource).expect(path),
            options: Options::default(),
            warnings: Warnings::default(),
        }
    }

    pub(crate) fn with(&self, path: &str, change: impl FnOnce(&mut Options)) -> Request {
        let mut request = self.request(path);
        change(&mut request.options);
        request
    }

    pub(crate) async fn try_create(&self, path: &str, object: Value) -> Result<Value, ApiError> {
        self.registry.create(&self.request(path), object.into()).await.map(|written| written.object.value())
    }

    pub(crate) async fn create(&self, path: &str, object: Value) -> Value {
        self.try_create(path, object).await.unwrap()
    }

    pub(crate) async fn config_map(&self, name: &str, data: Value) -> Value {
        self.create("configmaps", json!({ "metadata": { "name": name }, "data": data })).await
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.registry.get(&self.request(path)).await.map(|object| object.value())
    }

    pub(crate) async fn update(&self, path: &str, object: Value) -> Result<Value, ApiError> {
        self.registry.update(&self.request(path), object.into()).await.map(|written| written.object.value())
    }

    pub(crate) async fn merge(&self, path: &str, patch: Value) -> Result<Value, ApiError> {
        let written = self.registry.patch(&self.request(path), Patch::Merge(patch.into())).await;
        written.map(|written| written.object.value())
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<Value, ApiError> {
        self.delete_with(path, |_| {}).await
    }

    pub(crate) async fn delete_with(&self, path: &str, change: impl FnOnce(&mut Options)) -> Result<Value, ApiError> {
        self.registry.delete(&self.with(path, change)).await.map(|written| written.object.value())
    }

    pub(crate) async fn watch(&self, path: &str, change: impl FnOnce(&mut Options)) -> Events {
        Events(self.registry.watch(&self.with(path, change)).await.unwrap())
    }
}

/// A running watch that is read in the words of tests.
pub(crate) struct Events(pub(crate) Watch);

impl Events {
    /// The next event as `ADDED a`, the error's message, or `end`.
    pub(crate) async fn next(&mut self) -> String {
        match tokio::time::timeout(Duration::from_secs(5), self.0.next()).await.expect("no event came") {
            None => "end".to_owned(),
            Some(Err(error)) => format!("{} {}", error.code, error.message),
            Some(Ok(event)) => {
                let object = event.object.value();
                assert_eq!(object["metadata"]["resourceVersion"], event.object.revision.to_string());
                format!("{} {}", event.kind.name(), meta::text(&object, "name"))
            }
        }
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<String> {
        let mut seen = Vec::new();
        for _ in 0..count {
            seen.push(self.next().await);
        }
        seen
    }
}

/// What the store has done so far: a request that writes nothing does not move it.
pub(crate) fn revision(world: &World) -> u64 {
    world.kv.revision().0
}

pub(crate) fn data(object: &Value, key: &str) -> String {
    object["data"][key].as_str().unwrap_or_default().to_owned()
}
