//! The port: TLS on both sides, connections, limits, and what all services share.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use reeve_api::clock::SharedClock;
use reeve_proto::etcd::etcdserverpb::ResponseHeader;
use reeve_proto::etcd::etcdserverpb::auth_server::AuthServer;
use reeve_proto::etcd::etcdserverpb::cluster_server::ClusterServer;
use reeve_proto::etcd::etcdserverpb::kv_server::KvServer;
use reeve_proto::etcd::etcdserverpb::lease_server::LeaseServer;
use reeve_proto::etcd::etcdserverpb::maintenance_server::MaintenanceServer;
use reeve_proto::etcd::etcdserverpb::watch_server::WatchServer;
use reeve_store::{Revision, SharedKv};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::server::{ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig as TlsConfig};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::Routes;

use crate::auth::Users;
use crate::cluster::Members;
use crate::connection::{Calls, speak};
use crate::convert::signed;
use crate::facts::Facts;
use crate::keys::Keys;
use crate::lease::Leases;
use crate::maintenance::Operators;
use crate::watch::Watches;
use crate::{REQUEST_BYTES_MAX, facts};

/// Connections at once; a kube-apiserver has some hundred. Further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 4096;
/// The largest message that is taken in: beyond the largest request what etcd allows for framing.
pub(crate) const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1024;
/// How long a TLS handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Wait after the system could not accept a connection (no descriptors left): accepting at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a server is made.
pub struct ServerConfig {
    /// The store.
    pub kv: SharedKv,
    /// What is known of the group that keeps it.
    pub facts: Arc<dyn Facts>,
    /// Tells when a backup was made.
    pub clock: SharedClock,
    /// Whose holders are let in, PEM: an authority for this port alone, because they read and write everything.
    pub client_ca_pem: String,
    /// What is shown; asked at every handshake, so it may be renewed.
    pub certificate: Arc<dyn ResolvesServerCert>,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig").finish_non_exhaustive()
    }
}

/// Why a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The authority is no PEM.
    #[error("the authority of clients of etcd cannot be read")]
    Pem(#[from] pem::Error),
    /// TLS does not take it.
    #[error("TLS refuses the authority of clients of etcd")]
    Tls(#[from] rustls::Error),
    /// TLS does not take it.
    #[error("TLS refuses the authority of clients of etcd")]
    Verifier(#[from] VerifierBuilderError),
}

/// What all services share.
pub(crate) struct Served {
    pub(crate) kv: SharedKv,
    pub(crate) facts: Arc<dyn Facts>,
    pub(crate) clock: SharedClock,
    pub(crate) stop: CancellationToken,
}

impl Served {
    /// The header of an answer.
    pub(crate) fn header(&self, revision: Revision) -> Option<ResponseHeader> {
        let facts::Identity { cluster, member, term } = self.facts.identity();
        let revision = signed(revision);
        Some(ResponseHeader { cluster_id: cluster, member_id: member, revision, raft_term: term })
    }
}

/// See the crate. Serves until [`EtcdServer::stop`].
pub struct EtcdServer {
    served: Arc<Served>,
    calls: Arc<Calls>,
    acceptor: TlsAcceptor,
    tasks: TaskTracker,
}

impl std::fmt::Debug for EtcdServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdServer").finish_non_exhaustive()
    }
}

impl EtcdServer {
    /// A server that listens nowhere yet.
    pub fn new(config: ServerConfig) -> Result<Self, ServerError> {
        let acceptor = acceptor(&config)?;
        let ServerConfig { kv, facts, clock, .. } = config;
        let served = Arc::new(Served { kv, facts, clock, stop: CancellationToken::new() });
        let max = MESSAGE_BYTES_MAX;
        let others = Routes::new(WatchServer::new(Watches(served.clone())).max_decoding_message_size(max))
            .add_service(KvServer::new(Keys(served.clone())).max_decoding_message_size(max))
            .add_service(LeaseServer::new(Leases(served.clone())).max_decoding_message_size(max))
            .add_service(ClusterServer::new(Members(served.clone())).max_decoding_message_size(max))
            .add_service(MaintenanceServer::new(Operators(served.clone())).max_decoding_message_size(max))
            .add_service(AuthServer::new(Users(served.clone())).max_decoding_message_size(max))
            .prepare();
        let calls = Arc::new(Calls { keys: Keys(served.clone()), others });
        Ok(Self { served, calls, acceptor, tasks: TaskTracker::new() })
    }

    /// Serves on a listener that is already bound. Needs a Tokio runtime.
    pub fn serve(&self, listener: TcpListener) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accept = accept(listener, self.acceptor.clone(), Arc::clone(&self.calls), self.tasks.clone());
        let stop = self.served.stop.clone();
        let serving = accept_until(stop, accept);
        self.tasks.spawn(serving);
        Ok(())
    }

    /// Ends all connections.
    pub async fn stop(&self) {
        self.served.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.served.stop.cancel();
    }
}

fn acceptor(config: &ServerConfig) -> Result<TlsAcceptor, ServerError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(config.client_ca_pem.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut tls = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&config.certificate));
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(tls).into())
}

async fn accept_until(stop: CancellationToken, accept: impl Future<Output = ()>) {
    stop.run_until_cancelled(accept).await;
}

/// Accepts for ever; what it has accepted ends with it.
async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, calls: Arc<Calls>, tasks: TaskTracker) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let ended = CancellationToken::new();
    let _ends = ended.clone().drop_guard();
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "A connection to the port for clients of etcd could not be accepted.");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, calls, ended) = (acceptor.clone(), Arc::clone(&calls), ended.clone());
        tasks.spawn(async move {
            let served = ended.run_until_cancelled(connection(stream, acceptor, calls)).await;
            if let Some(Err(error)) = served {
                tracing::debug!(%address, error, "A connection of a client of etcd has ended.");
            }
            drop(permit);
        });
    }
}

/// One connection, from handshake to end.
async fn connection(stream: TcpStream, acceptor: TlsAcceptor, calls: Arc<Calls>) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|err| err.to_string())?;
    let shaken = tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await;
    let stream = shaken.map_err(|_| "the handshake took too long")?.map_err(|err| err.to_string())?;
    speak(stream, calls).await
}
