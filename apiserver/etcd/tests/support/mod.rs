//! What the tests of this crate share: certificates, our store behind its etcd port, a real etcd, and etcdctl.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_etcd::{
    EtcdConfig, EtcdKv, EtcdServer, EtcdTls, Facts, GroupMember, GroupStatus, Identity, ServerConfig, StoreFacts,
};
use reeve_store::{KvError, Leadership, Limits, MemberError, SharedKv, Store, StoreConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::sync::watch;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as Shown};

/// An authority with a server's and a client's certificate, as PEM.
pub(crate) struct Certificates {
    pub(crate) ca: String,
    pub(crate) server: (String, String),
    pub(crate) client: (String, String),
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        ca.distinguished_name.push(DnType::CommonName, "clients of etcd");
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let leaf = |name: &str, usages: Vec<ExtendedKeyUsagePurpose>| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = usages;
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        // Members of an etcd show theirs to each other as clients, too.
        let server = leaf("server", vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]);
        let client = leaf("client", vec![ExtendedKeyUsagePurpose::ClientAuth]);
        Self { ca: ca_pem, server, client }
    }

    fn shown(&self) -> SingleCertAndKey {
        let chain = vec![CertificateDer::from_pem_slice(self.server.0.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.server.1.as_bytes()).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        SingleCertAndKey::from(CertifiedKey::from_der(chain, key, &provider).unwrap())
    }

    pub(crate) fn tls(&self) -> EtcdTls {
        EtcdTls { ca_pem: self.ca.clone(), client: Some(self.client.clone()) }
    }
}

/// What a store knows of its group that is none; whoever holds the other end may say who leads.
pub(crate) struct Alone(pub(crate) SharedKv, pub(crate) Option<Arc<watch::Sender<Leadership>>>);

impl Facts for Alone {
    fn identity(&self) -> Identity {
        Identity { cluster: 1, member: 1, term: 1 }
    }

    fn leadership(&self) -> Option<watch::Receiver<Leadership>> {
        self.1.as_ref().map(|leadership| leadership.subscribe())
    }

    fn status(&self) -> BoxFuture<'_, Result<GroupStatus, KvError>> {
        let own = GroupMember { id: 1, peer_address: String::new(), client_urls: Vec::new(), learner: false };
        let (committed, applied) = (self.0.revision().0, self.0.revision().0);
        let status =
            GroupStatus { leader: Some(1), committed, applied, disk_bytes: 0, out_of_space: false, members: vec![own] };
        Box::pin(async move { Ok(status) })
    }

    fn move_leader(&self, _: u64) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async { Err(MemberError::Alone) })
    }

    fn promote(&self, _: u64) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async { Err(MemberError::Alone) })
    }

    fn remove(&self, _: u64) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async { Err(MemberError::Alone) })
    }

    fn move_member(&self, _: u64, _: String) -> BoxFuture<'_, Result<(), MemberError>> {
        Box::pin(async { Err(MemberError::Alone) })
    }
}

/// A store behind its port.
pub(crate) struct Ours {
    pub(crate) kv: SharedKv,
    pub(crate) url: String,
    pub(crate) certificates: Certificates,
    server: EtcdServer,
    store: Option<(Arc<Store>, tempfile::TempDir)>,
}

impl Ours {
    /// The embedded store as it is in production.
    pub(crate) async fn embedded(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (clock, rng) = (RealClock::shared(), SeededRng::shared());
        let store = Store::open(StoreConfig { limits, ..StoreConfig::new(folder.path(), clock, rng) }).await.unwrap();
        let listener = listener();
        let url = url_of(&listener);
        let facts = StoreFacts::of(store.clone(), vec![url]).await.unwrap();
        Self { store: Some((store.clone(), folder)), ..Self::serve(listener, store, Arc::new(facts)) }
    }

    /// Any store.
    pub(crate) fn of(kv: SharedKv) -> Self {
        Self::serve(listener(), kv.clone(), Arc::new(Alone(kv, None)))
    }

    /// Any store, of which somebody says who leads.
    pub(crate) fn led(kv: SharedKv, leadership: Arc<watch::Sender<Leadership>>) -> Self {
        Self::serve(listener(), kv.clone(), Arc::new(Alone(kv, Some(leadership))))
    }

    fn serve(listener: TcpListener, kv: SharedKv, facts: Arc<dyn Facts>) -> Self {
        let certificates = Certificates::new();
        let (client_ca_pem, certificate) = (certificates.ca.clone(), Arc::new(certificates.shown()));
        let config = ServerConfig { kv: kv.clone(), facts, clock: RealClock::shared(), client_ca_pem, certificate };
        let server = EtcdServer::new(config).unwrap();
        let url = url_of(&listener);
        server.serve(listener).unwrap();
        Self { kv, url, certificates, server, store: None }
    }

    /// The store, through the port.
    pub(crate) async fn client(&self, prefix: &str) -> Arc<EtcdKv> {
        let config = EtcdConfig::new(vec![self.url.clone()]);
        let tls = Some(self.certificates.tls());
        EtcdKv::connect(EtcdConfig { tls, prefix: prefix.to_owned(), ..config }).await.unwrap()
    }

    pub(crate) async fn close(self) {
        self.server.stop().await;
        if let Some((store, _folder)) = self.store {
            store.close().await.unwrap();
        }
    }
}

pub(crate) fn listener() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

fn url_of(listener: &TcpListener) -> String {
    format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port())
}

/// A connection to a store of ours, or to an etcd without TLS.
pub(crate) async fn channel(url: &str, ours: Option<&Ours>) -> Channel {
    let mut endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    if let Some(ours) = ours {
        let (certificate, key) = &ours.certificates.client;
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ours.certificates.ca));
        endpoint = endpoint.tls_config(tls.identity(Shown::from_pem(certificate, key))).unwrap();
    }
    endpoint.connect().await.unwrap()
}

/// A real etcd of one member, ended when dropped.
pub(crate) struct RealEtcd {
    child: Child,
    pub(crate) url: String,
    _folder: tempfile::TempDir,
}

impl Drop for RealEtcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether there is such a program; says so loudly when there is none.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed (deploy/scripts/deps.sh installs it)");
    }
    found
}

impl RealEtcd {
    /// Starts one; `None` when it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        if !is_installed("etcd") {
            return None;
        }
        for _ in 0..5 {
            // A port that was free may be taken before etcd takes it.
            if let Some(etcd) = Self::try_start().await {
                return Some(etcd);
            }
        }
        panic!("etcd does not start");
    }

    async fn try_start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (clients, peers) = (listener(), listener());
        let http = |listener: &TcpListener| format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let (url, peer) = (http(&clients), http(&peers));
        drop((clients, peers));
        let child = Command::new("etcd")
            .args(["--name", "one", "--data-dir"])
            .arg(folder.path().join("data"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}"), "--unsafe-no-fsync"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut etcd = Self { child, url, _folder: folder };
        for _ in 0..200 {
            if etcd.child.try_wait().unwrap().is_some() {
                return None;
            }
            if EtcdKv::connect(EtcdConfig::new(vec![etcd.url.clone()])).await.is_ok() {
                return Some(etcd);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        None
    }

    pub(crate) async fn client(&self, prefix: &str) -> Arc<EtcdKv> {
        let config = EtcdConfig { prefix: prefix.to_owned(), ..EtcdConfig::new(vec![self.url.clone()]) };
        EtcdKv::connect(config).await.unwrap()
    }
}

/// A real etcd of three members that talk and listen with TLS only, ended when dropped.
pub(crate) struct EtcdCluster {
    members: Vec<Child>,
    pub(crate) urls: Vec<String>,
    pub(crate) certificates: Certificates,
    _files: Files,
    _folder: tempfile::TempDir,
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

impl EtcdCluster {
    /// Starts one; `None` when etcd is not installed.
    pub(crate) async fn start() -> Option<Self> {
        if !is_installed("etcd") {
            return None;
        }
        for _ in 0..5 {
            if let Some(cluster) = Self::try_start().await {
                return Some(cluster);
            }
        }
        panic!("etcd does not start");
    }

    async fn try_start() -> Option<Self> {
        let (folder, certificates) = (tempfile::tempdir().unwrap(), Certificates::new());
        let files = Files::of(&certificates);
        let taken: Vec<_> = (0..6).map(|_| listener()).collect();
        let addresses: Vec<String> = taken.iter().map(url_of).collect();
        drop(taken);
        let (urls, peers) = addresses.split_at(3);
        let all: Vec<_> = peers.iter().enumerate().map(|(id, peer)| format!("m{id}={peer}")).collect();
        let start = |id: usize| {
            let mut command = Command::new("etcd");
            command.args(["--name", &format!("m{id}"), "--initial-cluster", &all.join(","), "--unsafe-no-fsync"]);
            command.args(["--listen-client-urls", &urls[id], "--advertise-client-urls", &urls[id]]);
            command.args(["--listen-peer-urls", &peers[id], "--initial-advertise-peer-urls", &peers[id]]);
            command.args(["--heartbeat-interval", "50", "--election-timeout", "500", "--client-cert-auth"]);
            command.arg("--data-dir").arg(folder.path().join(id.to_string()));
            for (flag, file) in [("trusted-ca-file", "ca.pem"), ("cert-file", "server.pem"), ("key-file", "server.key")]
            {
                command.arg(format!("--{flag}")).arg(files.path(file));
                command.arg(format!("--peer-{flag}")).arg(files.path(file));
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let members = (0..3).map(start).collect();
        let mut cluster = Self { members, urls: urls.to_vec(), certificates, _files: files, _folder: folder };
        for _ in 0..200 {
            if cluster.members.iter_mut().any(|member| member.try_wait().unwrap().is_some()) {
                return None;
            }
            if EtcdKv::connect(cluster.config()).await.is_ok() {
                return Some(cluster);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        None
    }

    /// How it is reached, first the member 0.
    pub(crate) fn config(&self) -> EtcdConfig {
        EtcdConfig { tls: Some(self.certificates.tls()), ..EtcdConfig::new(self.urls.clone()) }
    }

    /// Sends a member a signal, by its name as kill(1) takes it.
    pub(crate) fn signal(&mut self, id: usize, name: &str) {
        let pid = self.members[id].id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

/// Files with the certificates, for programs.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub(crate) fn of(certificates: &Certificates) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", &certificates.ca);
        write("server.pem", &certificates.server.0);
        write("server.key", &certificates.server.1);
        write("client.pem", &certificates.client.0);
        write("client.key", &certificates.client.1);
        Self { folder }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}
