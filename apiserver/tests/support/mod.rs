//! An API server over the in-memory store, listening on loopback, for integration tests.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "every test file uses its own part")]

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;

use reeve_api::clock::{RealClock, SharedClock};
use reeve_api::rng::SeededRng;
use reeve_apiserver::pki::{CertKey, Pki, PkiConfig};
use reeve_apiserver::registry::{RegistryConfig, RegistryParts};
use reeve_apiserver::{ApiServer, ApiServerConfig, Limits};
use reeve_store::{MemoryKv, SharedKv};

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

pub struct Cluster {
    pub server: ApiServer,
    pub pki: Pki,
    pub address: SocketAddr,
    pub home: tempfile::TempDir,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::start_with(reeve_kinds::builtin()).await
    }

    pub async fn start_with(kinds: Vec<std::sync::Arc<dyn reeve_kinds::Kind>>) -> Self {
        Self::start_on(kinds, RealClock::shared()).await
    }

    pub async fn start_on(kinds: Vec<std::sync::Arc<dyn reeve_kinds::Kind>>, clock: SharedClock) -> Self {
        Self::start_within(Limits::default(), kinds, clock).await
    }

    pub async fn start_within(
        limits: Limits,
        kinds: Vec<std::sync::Arc<dyn reeve_kinds::Kind>>,
        clock: SharedClock,
    ) -> Self {
        Self::start_over(Arc::new(MemoryKv::new()), limits, kinds, clock).await
    }

    /// Over a store of any kind.
    pub async fn start_over(
        kv: SharedKv,
        limits: Limits,
        kinds: Vec<std::sync::Arc<dyn reeve_kinds::Kind>>,
        clock: SharedClock,
    ) -> Self {
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
        let pki = Pki::open(&pki_config, clock.now()).unwrap();
        let registry = RegistryConfig {
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            dns_address: Some("10.96.0.10".parse().unwrap()),
            node_ports: 30000..=32767,
            advertise: address,
            history: reeve_apiserver::registry::HISTORY,
            several: false,
        };
        let (issuer, connections_max) = (ISSUER.to_owned(), 100);
        let config = ApiServerConfig { registry, pki: pki.clone(), issuer, connections_max, limits };
        let parts = RegistryParts { kv, kinds, clock, rng: SeededRng::shared() };
        let server = ApiServer::start(config, parts).await.unwrap();
        server.serve(listener).unwrap();
        server.roles_made().await;
        let cluster = Self { server, pki, address, home };
        cluster.write_kubeconfig("admin", cluster.pki.admin());
        cluster
    }

    pub fn kubeconfig(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("{name}.kubeconfig"))
    }

    pub fn write_kubeconfig(&self, name: &str, user: &CertKey) {
        use base64::Engine as _;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://{}", self.address), "certificate-authority-data": encode(self.pki.ca_pem()),
            }}],
            "users": [{"name": "u", "user": {
                "client-certificate-data": encode(&user.cert_pem), "client-key-data": encode(&user.key_pem),
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(self.kubeconfig(name), config.to_string()).unwrap();
    }

    /// A kubectl command against this server, as the administrator.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.kubeconfig("admin")).args(arguments);
        command.env("HOME", self.home.path()).env_remove("KUBECONFIG").current_dir(self.home.path());
        command
    }

    /// Runs kubectl off the async threads.
    pub async fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Runs kubectl; it must succeed. What it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = tokio::task::block_in_place(|| self.command(arguments).output().unwrap());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs kubectl; it must fail. What it complained.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = tokio::task::block_in_place(|| self.command(arguments).output().unwrap());
        assert!(!output.status.success(), "kubectl {arguments:?} went well");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
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

/// Sends bytes over a new TLS connection (HTTP/1.1) and returns all that comes back until the server closes.
pub async fn raw(cluster: &Cluster, user: Option<&CertKey>, request: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = connect(cluster, user, b"http/1.1").await.unwrap();
    // The server may answer, and close, before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    // The server may close without TLS' goodbye when it refuses a request.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// A TLS connection to the server, with or without a client certificate.
pub async fn connect(
    cluster: &Cluster,
    user: Option<&CertKey>,
    protocol: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.pki.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match user {
        None => builder.with_no_client_auth(),
        Some(user) => {
            let chain = vec![CertificateDer::from_pem_slice(user.cert_pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(user.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = tokio::net::TcpStream::connect(cluster.address).await?;
    let name = ServerName::try_from("kubernetes.default.svc").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A WebSocket on a path of the server, as the administrator unless a header has a token; `Err`: the code of a refusal.
pub async fn web_socket(
    cluster: &Cluster,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>, u16> {
    let has_token = headers.iter().any(|(_, value)| value.contains("bearer"));
    let user = (!has_token).then(|| cluster.pki.admin());
    let stream = connect(cluster, user, b"http/1.1").await.unwrap();
    let mut request = http::Request::get(format!("wss://kubernetes{path}"))
        .header("host", "kubernetes")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    match tokio_tungstenite::client_async(request.body(()).unwrap(), stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(tokio_tungstenite::tungstenite::Error::Http(refused)) => Err(refused.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}
