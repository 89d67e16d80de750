//! An API server over the in-memory store on loopback, with a kubeconfig and a folder of its own.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "every test file uses its own part")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use base64::Engine as _;
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_apiserver::pki::{Pki, PkiConfig};
use reeve_apiserver::registry::{RegistryConfig, RegistryParts};
use reeve_apiserver::{ApiServer, ApiServerConfig, Limits};
use reeve_store::MemoryKv;

pub struct Cluster {
    pub server: ApiServer,
    pub home: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pki_config = PkiConfig {
            dir: home.path().join("pki"),
            addresses: Vec::new(),
            names: Vec::new(),
            service_address: "10.96.0.1".parse().unwrap(),
            cluster_domain: "cluster.local".to_owned(),
        };
        let clock = RealClock::shared();
        let pki = Pki::open(&pki_config, clock.now()).unwrap();
        let registry = RegistryConfig {
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            dns_address: Some("10.96.0.10".parse().unwrap()),
            node_ports: 30000..=32767,
            advertise: address,
            history: reeve_apiserver::registry::HISTORY,
            several: false,
        };
        let issuer = "https://kubernetes.default.svc.cluster.local".to_owned();
        let config =
            ApiServerConfig { registry, pki: pki.clone(), issuer, connections_max: 1000, limits: Limits::default() };
        let kinds = reeve_kinds::builtin();
        let parts = RegistryParts { kv: Arc::new(MemoryKv::new()), kinds, clock, rng: SeededRng::shared() };
        let server = ApiServer::start(config, parts).await.unwrap();
        server.serve(listener).unwrap();
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test", "preferences": {},
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{address}"), "certificate-authority-data": encode(pki.ca_pem()),
            }}],
            "users": [{"name": "u", "user": {
                "client-certificate-data": encode(&pki.admin().cert_pem),
                "client-key-data": encode(&pki.admin().key_pem),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(home.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Self { server, home }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// Writes a file that both programs can name by the same relative path.
    pub fn write(&self, name: &str, text: &[u8]) {
        std::fs::write(self.home.path().join(name), text).unwrap();
    }

    /// Runs a program in this cluster's folder against this cluster.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.home.path());
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", self.home.path()).env_remove("KUBE_EDITOR");
        tokio::task::block_in_place(|| command.output().unwrap())
    }
}

/// Whether there is a kubectl that is new enough; says so loudly when there is none.
pub fn has_kubectl() -> bool {
    let found = Command::new("kubectl").args(["version", "--client", "-o", "json"]).output().ok();
    let version: Option<serde_json::Value> = found.and_then(|output| serde_json::from_slice(&output.stdout).ok());
    let minor = version.as_ref().and_then(|version| version.pointer("/clientVersion/minor")?.as_str());
    let minor: u32 = minor.and_then(|text| text.trim_end_matches('+').parse().ok()).unwrap_or(0);
    if minor < 30 {
        eprintln!("SKIPPED: no kubectl of version 1.30 or newer on PATH");
    }
    minor >= 30
}
