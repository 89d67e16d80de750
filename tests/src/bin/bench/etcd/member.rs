//! One member of a store of ours with its port for clients of etcd, and nothing else: what stands next to one process
//! of etcd. It runs as a process of its own (`bench --member FILE`).

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use reeve_api::clock::RealClock;
use reeve_api::rng::SeededRng;
use reeve_etcd::{EtcdServer, ServerConfig, StoreFacts};
use reeve_peer::{PeerConfig, PeerTransport};
use reeve_store::{MemberConfig, Peer, Store, StoreConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use super::certificates::Pair;

const CLUSTER: u64 = 0xbe7c;

/// What such a process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MemberFile {
    /// Its number, from 1.
    pub id: u64,
    /// Where its data lies.
    pub data: std::path::PathBuf,
    /// The peer ports of all members in the order of their numbers; none when it is alone.
    pub peers: Vec<u16>,
    /// Where clients reach it.
    pub port: u16,
    /// The authority of everybody.
    pub ca_pem: String,
    /// What it shows.
    pub own: Pair,
}

/// The process itself: serves until its input ends.
pub(crate) fn serve(file: &Path) -> anyhow::Result<()> {
    let file: MemberFile = serde_json::from_slice(&std::fs::read(file)?)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(file))
}

fn shown(own: &Pair) -> anyhow::Result<Arc<SingleCertAndKey>> {
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes())?;
    let certified = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

async fn run(file: MemberFile) -> anyhow::Result<()> {
    let (certificate, clock) = (shown(&file.own)?, RealClock::shared());
    let mut config = StoreConfig::new(&file.data, clock.clone(), SeededRng::shared());
    let mut transport = None;
    if !file.peers.is_empty() {
        let (ca_pem, certificate) = (file.ca_pem.clone(), certificate.clone());
        let made = PeerTransport::new(PeerConfig {
            id: file.id,
            cluster: CLUSTER,
            ca_pem,
            address: String::new(),
            certificate,
        })?;
        let peer = |(id, port): (u64, &u16)| Peer { id, address: format!("127.0.0.1:{port}") };
        let peers = (1..).zip(&file.peers).map(peer).collect();
        config.member = MemberConfig::Cluster { id: file.id, cluster: CLUSTER, peers, transport: made.clone() };
        transport = Some(made);
    }
    let store = Store::open(config).await?;
    if let Some(transport) = &transport {
        let own = usize::try_from(file.id - 1).ok().and_then(|at| file.peers.get(at)).context("a peer port")?;
        transport.serve(TcpListener::bind((Ipv4Addr::LOCALHOST, *own))?, store.inbox())?;
        store.leadership().wait_for(|known| known.leader.is_some()).await?;
    }
    let facts = StoreFacts::of(store.clone(), vec![format!("https://127.0.0.1:{}", file.port)]).await?;
    let server = EtcdServer::new(ServerConfig {
        kv: store.clone(),
        facts: Arc::new(facts),
        clock,
        client_ca_pem: file.ca_pem,
        certificate,
    })?;
    server.serve(TcpListener::bind((Ipv4Addr::LOCALHOST, file.port))?)?;
    let mut output = std::io::stdout();
    output.write_all(b"r")?;
    output.flush()?;
    let _ = tokio::io::stdin().read(&mut [0]).await;
    server.stop().await;
    store.close().await?;
    if let Some(transport) = &transport {
        transport.stop().await;
    }
    Ok(())
}
