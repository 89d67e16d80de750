//! A cluster without containers: the real API server, controllers and scheduler in one process, and a node that
//! runs every pod the moment it is bound.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "every test file uses its own part")]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_apiserver::pki::{Pki, PkiConfig};
use reeve_apiserver::registry::{RegistryConfig, RegistryParts, UserInfo};
use reeve_apiserver::{ApiServer, ApiServerConfig, Limits};
use reeve_client::Component;
use reeve_controller_manager::{ControllerManager, ControllerManagerConfig};
use reeve_scheduler::{Scheduler, SchedulerConfig};
use reeve_store::MemoryKv;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub struct Cluster {
    pub client: Client,
    server: ApiServer,
    shutdown: CancellationToken,
    _home: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let clock = RealClock::shared();
        let pki_config = PkiConfig {
            dir: home.path().join("pki"),
            addresses: Vec::new(),
            names: Vec::new(),
            service_address: "10.96.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
        };
        let pki = Pki::open(&pki_config, clock.now()).unwrap();
        let registry = RegistryConfig {
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            dns_address: None,
            node_ports: 30000..=32767,
            advertise: "127.0.0.1:6443".parse().unwrap(),
            history: reeve_apiserver::registry::HISTORY,
            several: false,
        };
        let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
        let config =
            ApiServerConfig { registry, pki: pki.clone(), issuer, connections_max: 100, limits: Limits::default() };
        let kinds = reeve_kinds::builtin();
        let parts = RegistryParts { kv: Arc::new(MemoryKv::new()), kinds, clock, rng: SeededRng::shared() };
        let server = ApiServer::start(config, parts).await.unwrap();
        let shutdown = CancellationToken::new();
        let client = server.client(user("kubernetes-admin", &["system:masters", "system:authenticated"]));
        let cluster = Self { client, server, shutdown, _home: home };
        cluster.start_components(&pki);
        cluster.register("n1").await;
        cluster
    }

    fn start_components(&self, pki: &Pki) {
        let component = |name: &str| {
            let client = self.server.client(user(name, &["system:authenticated"]));
            Component::new(client, RealClock::shared(), SeededRng::shared(), self.shutdown.clone())
        };
        let config = ControllerManagerConfig {
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
            node_cidr_mask: 24,
            ca_pem: pki.ca_pem().to_owned(),
        };
        let manager = ControllerManager::new(config, component("system:kube-controller-manager"));
        tokio::spawn(async move { manager.run().await.unwrap() });
        let scheduler = Scheduler::new(SchedulerConfig::default(), component("system:kube-scheduler"));
        tokio::spawn(async move { scheduler.run().await.unwrap() });
        let client = self.client.clone();
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { () = shutdown.cancelled() => {} () = run_pods(client) => {} }
        });
    }

    /// A ready node of that name.
    pub async fn register(&self, name: &str) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = object(json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } }));
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let resources = json!({ "cpu": "8", "memory": "16Gi", "pods": "110" });
        let ready = json!({ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready" });
        let status = json!({ "status": { "capacity": resources, "allocatable": resources, "conditions": [ready] } });
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    pub async fn create<K>(&self, value: Value) -> K
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object: K = object(value);
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn user(name: &str, groups: &[&str]) -> UserInfo {
    UserInfo::new(name, groups)
}

pub fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Waits until `look` finds something; fails after a while with what was hoped for.
pub async fn eventually<T, F: Future<Output = Option<T>>>(hope: &str, look: impl Fn() -> F) -> T {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("never happened: {hope}"))
}

/// How long a hope is kept up, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a node agent does, without containers: bound pods become ready, terminating ones go.
async fn run_pods(client: Client) {
    let all: Api<Pod> = Api::all(client.clone());
    // With pauses: a client whose server is gone fails at once and for ever, and a task that never waits cannot be
    // ended, nor the runtime that it runs in.
    let mut events = std::pin::pin!(watcher(all, Config::default()).default_backoff());
    let mut addresses = 0_u32;
    while let Some(event) = events.next().await {
        let pod = match event {
            Ok(Event::Apply(pod) | Event::InitApply(pod)) => pod,
            Ok(_) => continue,
            Err(error) => {
                eprintln!("the node's watch failed: {error}");
                continue;
            }
        };
        let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| node == "n1");
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let (pods, name) =
            (Api::<Pod>::namespaced(client.clone(), &namespace), pod.metadata.name.clone().unwrap_or_default());
        if bound && pod.metadata.deletion_timestamp.is_some() {
            note(&name, pods.delete(&name, &DeleteParams::default().grace_period(0)).await.map(drop));
        } else if bound && pod.status.as_ref().is_none_or(|status| status.phase.as_deref() != Some("Running")) {
            addresses += 1;
            let ip = format!("10.42.{}.{}", addresses / 250, addresses % 250 + 2);
            let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" });
            let status = json!({ "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "conditions": [ready] });
            let patch = Patch::Strategic(json!({ "status": status }));
            note(&name, pods.patch_status(&name, &PatchParams::default(), &patch).await.map(drop));
        }
    }
}

/// A pod that is gone meanwhile is no news; everything else explains a test that fails.
fn note(pod: &str, answer: kube::Result<()>) {
    match answer {
        Err(kube::Error::Api(status)) if status.is_not_found() => {}
        Err(error) => eprintln!("the node failed with pod {pod}: {error}"),
        Ok(()) => {}
    }
}
