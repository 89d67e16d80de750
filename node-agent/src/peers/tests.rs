//! Two agents' halves on loopback, with TLS on both sides as between nodes. The API is a list of Nodes that changes.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_engine::images::StoreOptions;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::serve::Offers;
use super::*;
use crate::server::gate::{Caller, Gate};
use crate::server::{serve_one, tls};

/// An authority.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        let issuer = Issuer::from_ca_cert_der(cert.der(), key).unwrap();
        Self { pem: cert.pem(), issuer }
    }

    fn issue(&self, name: &str, group: &str) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let chain = vec![CertificateDer::from(cert.der().to_vec())];
        Arc::new(CertifiedKey::from_der(chain, der, &rustls::crypto::ring::default_provider()).unwrap())
    }

    fn node(&self, name: &str) -> Arc<CertifiedKey> {
        self.issue(&format!("system:node:{name}"), "system:nodes")
    }
}

/// Shows always the same.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The authorities of a cluster.
struct Cluster {
    nodes: Ca,
    api: Ca,
}

impl Cluster {
    fn new() -> Self {
        Self { nodes: Ca::new(), api: Ca::new() }
    }

    fn client(&self, store: &ImageStore, shown: Arc<CertifiedKey>) -> PeerClient {
        let (store, ca_pem) = (store.clone(), self.nodes.pem.clone());
        client(&PeersConfig { store, ca_pem, certificate: Arc::new(Shown(shown)) }).unwrap()
    }

    /// Serves a node's images. `api` is what the API server is told.
    async fn serve(&self, store: &ImageStore) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Gate::new(&self.api.pem, "api".to_owned(), Some(&self.nodes.pem)).unwrap();
        let gate = Arc::new(gate);
        let shown = Arc::new(SingleCertAndKey::from(self.nodes.node("a").as_ref().clone()));
        let tls = TlsAcceptor::from(Arc::new(tls(shown, Arc::clone(&gate)).unwrap()));
        let offers = Arc::new(Offers::new(store.clone()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, gate, offers) = (tls.clone(), Arc::clone(&gate), Arc::clone(&offers));
                tokio::spawn(async move {
                    let answer = |caller, request: http::Request<hyper::body::Incoming>| {
                        let offers = Arc::clone(&offers);
                        async move {
                            match caller {
                                Caller::Node(_) => offers.answer(&request).await,
                                other => reeve_streaming::text(http::StatusCode::FORBIDDEN, format!("{other:?}")),
                            }
                        }
                    };
                    let _ = serve_one(stream, &tls, &gate, answer).await;
                });
            }
        });
        address
    }
}

/// A node's images.
struct Images {
    store: ImageStore,
    dir: tempfile::TempDir,
}

impl Images {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { registries: dir.path().join("registries.yaml"), ..StoreOptions::default() };
        let store = ImageStore::open_with(dir.path().join("images"), RealClock::shared(), options).unwrap();
        Self { store, dir }
    }

    /// Puts an image into it, with one layer of that content.
    fn load(&self, name: &str, content: &[u8]) -> Image {
        let layer = tar(&[("file", content)]);
        let config = json!({
            "architecture": reeve_engine::images::architecture(), "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [digest_of(&layer)] },
        });
        let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
        let files = [
            ("config.json", config.to_string().into_bytes()),
            ("layer.tar", layer),
            ("manifest.json", manifest.to_string().into_bytes()),
        ];
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        self.store.load(tar(&files).as_slice()).unwrap().remove(0)
    }

    fn blobs(&self) -> std::path::PathBuf {
        self.dir.path().join("images/blobs/sha256")
    }
}

fn digest_of(bytes: &[u8]) -> String {
    reeve_engine::images::Digest::of(bytes).to_string()
}

/// A tar archive of regular files (POSIX.1-1988).
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let mut header = [0_u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000644\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", content.len()));
        put(136, "00000000000\0");
        put(148, "        ");
        put(156, "0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend_from_slice(&[0; 1024]);
    out
}

/// A Node that has made these images.
fn node(name: &str, address: SocketAddr, version: u32, made: &[&str]) -> Value {
    json!({
        "metadata": { "name": name, "resourceVersion": version.to_string() },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": address.ip().to_string() }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": address.port() } },
            "images": [{ "names": made }],
        },
    })
}

/// An API that lists these Nodes, and then tells of those that come.
fn api(listed: Vec<Value>, mut later: tokio::sync::mpsc::Receiver<Value>) -> kube::Client {
    let (events, watched) = tokio::sync::mpsc::channel::<Result<hyper::body::Frame<Bytes>, std::io::Error>>(4);
    tokio::spawn(async move {
        while let Some(node) = later.recv().await {
            let event = format!("{}\n", json!({ "type": "MODIFIED", "object": node }));
            let _ = events.send(Ok(hyper::body::Frame::data(Bytes::from(event)))).await;
        }
    });
    let watched = Arc::new(std::sync::Mutex::new(Some(watched)));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (listed, watched) = (listed.clone(), Arc::clone(&watched));
        async move {
            if request.uri().query().unwrap_or_default().contains("watch=true") {
                let Some(watched) = watched.lock().unwrap().take() else { return std::future::pending().await };
                let next = |mut watched: tokio::sync::mpsc::Receiver<_>| async move {
                    let frame = watched.recv().await?;
                    Some((frame, watched))
                };
                let stream = futures::stream::unfold(watched, next);
                return Ok::<_, Infallible>(Response::new(http_body_util::StreamBody::new(stream).boxed_unsync()));
            }
            let list = json!({ "kind": "NodeList", "apiVersion": "v1", "metadata": { "resourceVersion": "1" },
                "items": listed });
            let body = http_body_util::Full::new(Bytes::from(list.to_string())).map_err(|never| match never {});
            Ok(Response::new(body.boxed_unsync()))
        }
    });
    kube::Client::new(service, "default")
}

/// A node that knows of others; what it learns later comes through the sender.
async fn peers(
    cluster: &Cluster,
    store: &ImageStore,
    listed: Vec<Value>,
) -> (ImagePeers, tokio::sync::mpsc::Sender<Value>) {
    let (later, receiver) = tokio::sync::mpsc::channel(4);
    let client = api(listed, receiver);
    let rng = Arc::new(SeededRng::new(1));
    let component = Component::new(client.clone(), RealClock::shared(), rng, CancellationToken::new());
    let parts =
        PeerParts { store: store.clone(), client: cluster.client(store, cluster.nodes.node("b")), own: "b".to_owned() };
    let peers = ImagePeers::start(&component, Api::all(client), parts);
    peers.nodes.synced().wait_for(|synced| *synced).await.unwrap();
    (peers, later)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_was_made_on_one_node_is_at_once_there_for_the_others() {
    let (cluster, a, b, c) = (Cluster::new(), Images::new(), Images::new(), Images::new());
    let content: Vec<u8> = (0_u32..300_000).flat_map(u32::to_le_bytes).collect();
    let made = a.load("team/app:1", &content);
    let address = cluster.serve(&a.store).await;
    let (peers_of_b, later) = peers(&cluster, &b.store, vec![node("a", address, 1, &[])]).await;
    assert!(!peers_of_b.is_announced("team/app:1"));
    assert!(peers_of_b.fetch("team/app:1").await.is_none(), "nobody is asked who does not say that he has it");
    let appears = tokio::spawn({
        let peers = peers_of_b.clone();
        async move { peers.appears("team/app:1").await }
    });
    later.send(node("a", address, 2, &["docker.io/team/app:1"])).await.unwrap();
    let got = appears.await.unwrap();
    assert_eq!(got, made);
    assert_eq!(b.store.get("team/app:1").unwrap(), Some(made.clone()));
    // Who got it gives it on.
    let address = cluster.serve(&b.store).await;
    let (peers_of_c, _later) = peers(&cluster, &c.store, vec![node("a", address, 1, &["docker.io/team/app:1"])]).await;
    assert_eq!(peers_of_c.fetch("team/app:1").await, Some(made));
    assert!(peers_of_c.fetch("team/app:2").await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_node_gives_is_checked_and_a_node_that_is_gone_costs_no_more_than_asking() {
    let (cluster, a, b) = (Cluster::new(), Images::new(), Images::new());
    let made = a.load("team/app:1", b"content");
    let damaged = a.blobs().join(digest_of(&tar(&[("file", b"content")])).trim_start_matches("sha256:"));
    let whole = fs::read(&damaged).unwrap();
    fs::write(&damaged, vec![1; whole.len()]).unwrap();
    let address = cluster.serve(&a.store).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let name = "docker.io/team/app:1";
    let nodes = vec![node("0", gone, 1, &[name]), node("a", address, 1, &[name])];
    let (peers, _later) = peers(&cluster, &b.store, nodes).await;
    assert!(peers.fetch("team/app:1").await.is_none());
    assert_eq!(b.store.get("team/app:1").unwrap(), None, "nothing of it is kept");
    fs::write(&damaged, whole).unwrap();
    assert_eq!(peers.fetch("team/app:1").await, Some(made));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_nodes_are_given_images() {
    let (cluster, a, b) = (Cluster::new(), Images::new(), Images::new());
    a.load("team/app:1", b"content");
    let peer = Peer { node: "a".to_owned(), address: cluster.serve(&a.store).await };
    for (who, allowed) in [
        (cluster.nodes.node("b"), true),
        (cluster.nodes.issue("system:node:b", "others"), false),
        (cluster.nodes.issue("admin", "system:masters"), false),
        (cluster.nodes.issue("api", "system:nodes"), false),
        (cluster.api.issue("api", "x"), false),
        (cluster.api.node("b"), false),
        (Ca::new().node("b"), false),
    ] {
        let client = cluster.client(&b.store, Arc::clone(&who));
        let got = b.store.pull_from_peers("team/app:1", vec![peer.clone()], &client).await;
        assert_eq!(got.is_ok(), allowed, "{got:?}");
        let _ = b.store.remove("team/app:1");
    }
}

#[test]
fn a_name_counts_only_under_the_authority_that_may_give_it() {
    let cluster = Cluster::new();
    let gate = Gate::new(&cluster.api.pem, "api".to_owned(), Some(&cluster.nodes.pem)).unwrap();
    let caller = |shown: Arc<CertifiedKey>| gate.caller(Some(&shown.cert));
    assert_eq!(caller(cluster.api.issue("api", "x")), Caller::ApiServer);
    assert_eq!(caller(cluster.nodes.issue("api", "x")), Caller::Other, "the cluster's authority signs many names");
    assert_eq!(caller(cluster.nodes.node("n")), Caller::Node("n".to_owned()));
    assert_eq!(caller(cluster.api.node("n")), Caller::Other);
    assert_eq!(gate.caller(None), Caller::Other);
    let alone = Gate::new(&cluster.api.pem, "api".to_owned(), None).unwrap();
    assert_eq!(alone.caller(Some(&cluster.nodes.node("n").cert)), Caller::Other);
}
