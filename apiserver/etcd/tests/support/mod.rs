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
use reeve_store::{KvError, Limits, MemberError, SharedKv, Store, StoreConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

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
        let leaf = |name: &str, usage: ExtendedKeyUsagePurpose| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![usage];
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        let server = leaf("server", ExtendedKeyUsagePurpose::ServerAuth);
        let client = leaf("client", ExtendedKeyUsagePurpose::ClientAuth);
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

/// What a store knows of its group that is none.
pub(crate) struct Alone(pub(crate) SharedKv);

impl Facts for Alone {
    fn identity(&self) -> Identity {
        Identity { cluster: 1, member: 1, term: 1 }
    }

    fn status(&self) -> BoxFuture<'_, Result<GroupStatus, KvError>> {
        let own = GroupMember { id: 1, peer_address: String::new(), client_urls: Vec::new(), learner: false };
        let (committed, applied) = (self.0.revision().0, self.0.revision().0);
        let status =
            GroupStatus { leader: Some(1), committed, applied, disk_bytes: 0, disk_full: false, members: vec![own] };
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
        Self::serve(listener(), kv.clone(), Arc::new(Alone(kv)))
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

/// Files with the certificates, for programs.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub(crate) fn of(certificates: &Certificates) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", &certificates.ca);
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
