//! The kubelet's server: container logs, exec, attach, port forwarding, `/pods`, `/healthz`, `/configz`,
//! `/stats/summary`, `/metrics`; TLS, for the API server only. Other nodes get the images that were made here.

mod checkpoint;
pub(crate) mod gate;
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
use rustls::ServerConfig as TlsConfig;
use rustls::server::ResolvesServerCert;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use self::gate::{Caller, Gate};
use crate::config::ServerConfig;
use crate::peers::serve::Offers;
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
    /// What other nodes may have.
    pub(crate) offers: Option<Offers>,
}

/// A server that is set up but does not accept yet.
pub(crate) struct KubeletServer {
    listener: TcpListener,
    tls: TlsAcceptor,
    gate: Arc<Gate>,
    port: u16,
}

impl KubeletServer {
    /// Checks certificates and takes the listener over.
    pub(crate) fn new(config: ServerConfig) -> Result<Self, ServerError> {
        config.listener.set_nonblocking(true).map_err(ServerError::Listener)?;
        let listener = TcpListener::from_std(config.listener).map_err(ServerError::Listener)?;
        let port = listener.local_addr().map_err(ServerError::Listener)?.port();
        let gate = Gate::new(&config.client_ca_pem, config.client_name, config.node_ca_pem.as_deref())?;
        let gate = Arc::new(gate);
        let tls = tls(config.certificate, Arc::clone(&gate))?;
        Ok(Self { listener, tls: TlsAcceptor::from(Arc::new(tls)), gate, port })
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
        let (tls, gate, backend) = (self.tls.clone(), Arc::clone(&self.gate), Arc::clone(backend));
        backend.node.component.clone().spawn("kubelet connection", async move {
            let _slot = slot;
            let told = |caller, request| {
                let backend = Arc::clone(&backend);
                async move { answer(&backend, caller, request).await }
            };
            if let Err(error) = serve_one(stream, &tls, &gate, told).await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

pub(crate) fn tls(shown: Arc<dyn ResolvesServerCert>, gate: Arc<Gate>) -> Result<TlsConfig, ServerError> {
    let bad = |reason: String| ServerError::Pem { what: "TLS versions", reason };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = TlsConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(error.to_string()))?
        .with_client_cert_verifier(gate)
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Serves one connection: `answer` is told who asks.
pub(crate) async fn serve_one<F>(
    stream: TcpStream,
    tls: &TlsAcceptor,
    gate: &Gate,
    answer: impl Fn(Caller, Request<Incoming>) -> F,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    F: Future<Output = Answer>,
{
    // Small frames of a terminal must not wait for each other.
    stream.set_nodelay(true)?;
    let stream = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await??;
    let caller = gate.caller(stream.get_ref().1.peer_certificates());
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(caller.clone(), request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await?;
    Ok(())
}

/// Each caller gets what is theirs.
async fn answer(backend: &Arc<Backend>, caller: Caller, request: Request<Incoming>) -> Answer {
    match (caller, &backend.offers) {
        (Caller::ApiServer, _) => route(backend, request).await,
        (Caller::Node(_), Some(offers)) if crate::peers::serve::is_for_it(request.uri().path()) => {
            offers.answer(&request).await
        }
        _ => text(StatusCode::FORBIDDEN, "Forbidden: only the API server may talk to this node"),
    }
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
        ["metrics", "cadvisor"] if get => stats::cadvisor(backend).await,
        ["metrics", "probes"] if get => stats::probes(backend),
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
        ["checkpoint", namespace, pod, container] if *request.method() == Method::POST => {
            let query = query(request.uri().query());
            checkpoint::make(backend, &Target { namespace, pod, container }, &query).await
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
