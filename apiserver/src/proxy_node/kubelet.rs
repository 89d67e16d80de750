//! One connection to one kubelet: TLS with the API server's own client certificate, one request, no redirects.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::outbound::{told_io, told_tls};
use crate::pki::{LiveCertificate, Pki};
use crate::status::ApiError;

/// How long a node may take to accept a connection and shake hands.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a node may take to begin its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Longest error text taken from a node; Kubernetes' number.
const ERROR_BYTES_MAX: usize = 50_000;

/// Why the client side of kubelet connections cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A certificate or key of the PKI folder cannot be read.
    #[error("a certificate or key for kubelet connections cannot be read")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// TLS does not take them.
    #[error("TLS refuses the certificates for kubelet connections")]
    Tls(#[from] rustls::Error),
}

/// Why a kubelet did not answer. Becomes `error dialing backend: …`.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{}", told_dial(address, source))]
    Connect { address: SocketAddr, source: io::Error },
    #[error("dial tcp {address}: i/o timeout")]
    Timeout { address: SocketAddr },
    #[error("the node's name is no host name: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

fn told_dial(address: &SocketAddr, error: &io::Error) -> String {
    if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
        return told_tls(error);
    }
    format!("dial tcp {address}: {}", told_io(error))
}

impl From<DialError> for ApiError {
    fn from(error: DialError) -> Self {
        Self::unknown(format!("error dialing backend: {error}"))
    }
}

/// Where a node's kubelet listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeAddress {
    name: String,
    address: SocketAddr,
}

impl NodeAddress {
    /// From the node's status: its internal address and its kubelet's port.
    pub(crate) fn of(name: &str, node: &Value) -> Result<Self, ApiError> {
        let addresses = node.pointer("/status/addresses").and_then(Value::as_array);
        let internal = addresses
            .into_iter()
            .flatten()
            .find(|address| address.get("type").and_then(Value::as_str) == Some("InternalIP"));
        let ip: Option<IpAddr> = internal.and_then(|address| address.get("address")?.as_str()?.parse().ok());
        let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        match (ip, port) {
            (Some(ip), Some(port)) => Ok(Self { name: name.to_owned(), address: SocketAddr::new(ip, port) }),
            (None, _) => {
                Err(ApiError::unknown(format!("no preferred addresses found; known addresses of node {name}: none")))
            }
            (_, None) => Err(ApiError::unknown(format!("node {name} does not say where its kubelet listens"))),
        }
    }

    /// Its address and port.
    pub(crate) fn socket(&self) -> SocketAddr {
        self.address
    }
}

/// The client side of all kubelet connections.
pub(crate) struct Kubelet {
    connector: TlsConnector,
}

impl Kubelet {
    /// Trusts the cluster CA and shows the API server's kubelet certificate, `own`.
    pub(crate) fn new(pki: &Pki, own: Arc<LiveCertificate>) -> Result<Self, KubeletError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.ca_pem().as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_cert_resolver(own);
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Sends one request and returns the head of the answer; its body (or the upgraded connection) follows.
    pub(super) async fn send(
        &self,
        node: &NodeAddress,
        mut request: http::Request<Empty<Bytes>>,
    ) -> Result<http::Response<Incoming>, ApiError> {
        let stream = self.dial(node).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(DialError::from)?;
        // Ends with the answer's body, or when the upgraded connection is taken over.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a kubelet connection ended");
            }
        });
        if let Ok(host) = http::HeaderValue::from_str(&node.address.to_string()) {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, sender.send_request(request)).await;
        Ok(answer.map_err(|_| DialError::Timeout { address: node.address })?.map_err(DialError::from)?)
    }

    /// A connection on which both sides have shown who they are.
    pub(super) async fn dial(
        &self,
        node: &NodeAddress,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DialError> {
        let address = node.address;
        let name = ServerName::try_from(node.name.clone())?;
        let shake = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            self.connector.connect(name, stream).await
        };
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, shake).await;
        let connected = connected.map_err(|_| DialError::Timeout { address })?;
        connected.map_err(|source| DialError::Connect { address, source })
    }
}

/// What a kubelet says with a refusal.
pub(super) async fn error_text(answer: http::Response<Incoming>) -> String {
    let body = Limited::new(answer.into_body(), ERROR_BYTES_MAX).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    String::from_utf8_lossy(&body).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kubelet_is_found_by_the_nodes_internal_address_and_port() {
        let node = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "192.0.2.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        }});
        assert_eq!(NodeAddress::of("n", &node).unwrap().address, "192.0.2.1:10250".parse().unwrap());
        assert_eq!(NodeAddress::of("n", &json!({})).unwrap_err().code, 500);
    }
}
