//! The kubelet's server: container logs, exec, attach, port forwarding, `/pods`, `/healthz`, `/configz`,
//! `/stats/summary`, `/metrics`; TLS, for the API server only.

mod logs;
pub(crate) mod stats;
mod streams;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use reeve_streaming::remote::Kind;
pub(crate) use reeve_streaming::{Answer, query, text};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig as TlsConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use x509_parser::parse_x509_certificate;

use crate::config::ServerConfig;
use crate::pod::context::NodeContext;
use crate::pod::view::Views;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;
/// Time a client has for its handshake and for each request's head.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Why the server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A PEM text has nothing in it that can be used.
    #[error("the {what} of the kubelet's server cannot be used: {reason}")]
    Pem {
        /// Which text.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The listener cannot be used.
    #[error("failed to use the kubelet server's listener: {0}")]
    Listener(#[source] std::io::Error),
}

/// What a request can reach.
pub(crate) struct Backend {
    pub(crate) node: Arc<NodeContext>,
    pub(crate) views: Views,
    /// What rates of usage are computed from.
    pub(crate) seen: stats::Seen,
}

/// A server that is set up but does not accept yet.
pub(crate) struct KubeletServer {
    listener: TcpListener,
    tls: TlsAcceptor,
    client_name: String,
    port: u16,
}

impl KubeletServer {
    /// Checks certificates and takes the listener over.
    pub(crate) fn new(config: ServerConfig) -> Result<Self, ServerError> {
        config.listener.set_nonblocking(true).map_err(ServerError::Listener)?;
        let listener = TcpListener::from_std(config.listener).map_err(ServerError::Listener)?;
        let port = listener.local_addr().map_err(ServerError::Listener)?.port();
        let tls = tls(config.certificate, &config.client_ca_pem)?;
        Ok(Self { listener, tls: TlsAcceptor::from(Arc::new(tls)), client_name: config.client_name, port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Serves until it is dropped.
    pub(crate) async fn run(self, backend: Arc<Backend>) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => self.serve(stream, slot, &backend),
                Err(error) => {
                    // Out of descriptors: an accept that fails at once must not spin.
                    tracing::warn!(%error, "failed to accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, slot: OwnedSemaphorePermit, backend: &Arc<Backend>) {
        let (tls, name, backend) = (self.tls.clone(), self.client_name.clone(), Arc::clone(backend));
        backend.node.component.clone().spawn("kubelet connection", async move {
            let _slot = slot;
            if let Err(error) = serve_one(stream, &tls, &name, backend).await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

fn tls(shown: Arc<dyn ResolvesServerCert>, ca_pem: &str) -> Result<TlsConfig, ServerError> {
    let bad = |what: &'static str| move |reason: String| ServerError::Pem { what, reason };
    let authorities = CertificateDer::pem_slice_iter(ca_pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    for ca in authorities.map_err(|error| bad("client CA")(format!("{error:?}")))? {
        roots.add(ca).map_err(|error| bad("client CA")(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|error| bad("client CA")(error.to_string()))?;
    let mut config = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad("TLS versions")(error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn serve_one(
    stream: TcpStream,
    tls: &TlsAcceptor,
    client_name: &str,
    backend: Arc<Backend>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Small frames of a terminal must not wait for each other.
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await??;
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let allowed = peer.is_some_and(|cert| common_name(cert).as_deref() == Some(client_name));
    let service = service_fn(move |request: Request<Incoming>| {
        let backend = Arc::clone(&backend);
        async move {
            let answer = if allowed {
                route(&backend, request).await
            } else {
                text(StatusCode::FORBIDDEN, "Forbidden: only the API server may talk to this node")
            };
            Ok::<_, Infallible>(answer)
        }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

fn common_name(cert: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = parse_x509_certificate(cert).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

async fn route(backend: &Arc<Backend>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    match parts.as_slice() {
        ["healthz"] => text(StatusCode::OK, "ok"),
        ["pods"] if get => pods(backend),
        ["stats", "summary"] | ["stats"] if get => stats::summary(backend).await,
        ["metrics"] if get => stats::metrics(backend).await,
        ["metrics", "resource"] if get => stats::resources(backend).await,
        ["configz"] if get => stats::configz(backend),
        ["containerLogs", namespace, pod, container] if get => {
            logs::serve(backend, &Target { namespace, pod, container }, request.uri().query()).await
        }
        ["exec", namespace, pod, container] => {
            streams::remote(backend, &Target { namespace, pod, container }, Kind::Exec, request)
        }
        ["attach", namespace, pod, container] => {
            streams::remote(backend, &Target { namespace, pod, container }, Kind::Attach, request)
        }
        ["portForward", namespace, pod] => streams::port_forward(backend, namespace, pod, request).await,
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

/// The container a request is about.
pub(crate) struct Target<'r> {
    pub(crate) namespace: &'r str,
    pub(crate) pod: &'r str,
    pub(crate) container: &'r str,
}

fn pods(backend: &Backend) -> Answer {
    let items: Vec<_> = backend.views.pods();
    let list = serde_json::json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
    let mut answer = text(StatusCode::OK, list.to_string());
    let json = http::HeaderValue::from_static("application/json");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, json);
    answer
}
