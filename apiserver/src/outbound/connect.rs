//! From a place to a connection: name or Service → address → TCP → TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, Error as TlsError};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Place, Services};

/// Why no connection came about, in Go's words.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// The Service cannot be reached; says why.
    #[error("{0}")]
    Service(String),
    /// The host's name has no address.
    #[error("dial tcp: lookup {0}: no such host")]
    Lookup(String),
    /// Nobody listens there.
    #[error("dial tcp {address}: {}", told_io(source))]
    Connect {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The name is none that a certificate can be for.
    #[error("tls: either ServerName or InsecureSkipVerify must be specified in the tls.Config: {0:?}")]
    Name(String),
    /// The hands were not shaken.
    #[error("{}", told_tls(source))]
    Tls {
        /// What TLS says.
        source: io::Error,
    },
}

/// What the system says of an address that cannot be reached.
pub(crate) fn told_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "connect: connection timed out".to_owned(),
        _ => format!("connect: {error}"),
    }
}

/// Why hands were not shaken.
pub(crate) fn told_tls(error: &io::Error) -> String {
    let verify = |why: &str| format!("tls: failed to verify certificate: x509: {why}");
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        Some(TlsError::InvalidCertificate(why)) => match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                verify("certificate signed by unknown authority")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                verify("certificate has expired or is not yet valid")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                verify("certificate has expired or is not yet valid")
            }
            CertificateError::NotValidForName => verify("certificate is not valid for the name"),
            CertificateError::NotValidForNameContext { expected, presented } => {
                let presented: Vec<&str> = presented.iter().map(|name| bare_name(name)).collect();
                let expected = expected.to_str();
                if presented.is_empty() {
                    verify(&format!("certificate is not valid for any names, but wanted to match {expected}"))
                } else {
                    verify(&format!("certificate is valid for {}, not {expected}", presented.join(", ")))
                }
            }
            other => verify(&other.to_string()),
        },
        Some(TlsError::InvalidMessage(_)) => "tls: first record does not look like a TLS handshake".to_owned(),
        Some(other) => format!("tls: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => error.to_string(),
    }
}

/// `DnsName("a.b")` → `a.b`: the verifier gives the certificate's names in this form.
fn bare_name(name: &str) -> &str {
    name.split_once('(').map_or(name, |(_, rest)| rest).trim_end_matches(')').trim_matches('"')
}

/// Connects to one place.
#[derive(Clone)]
pub(super) struct Connector {
    place: Arc<Place>,
    server_name: Arc<str>,
    tls: TlsConnector,
    services: Arc<Services>,
}

impl Connector {
    pub(super) fn new(place: Arc<Place>, server_name: String, tls: TlsConnector, services: Arc<Services>) -> Self {
        Self { place, server_name: server_name.into(), tls, services }
    }

    async fn connect(self) -> Result<Stream, DialError> {
        let host = self.server_name.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| DialError::Name(host))?;
        let stream = self.dial().await?;
        // A small write waits for nothing: calls are short.
        let _ = stream.set_nodelay(true);
        let stream = self.tls.connect(name, stream).await.map_err(|source| DialError::Tls { source })?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Stream { stream: TokioIo::new(stream), is_http2 })
    }

    async fn dial(&self) -> Result<TcpStream, DialError> {
        let (host, port) = match &*self.place {
            Place::Host(host, port) => (host.trim_matches(['[', ']']).to_owned(), *port),
            Place::Service { namespace, name, port } => {
                self.services.endpoint(namespace, name, *port).map_err(DialError::Service)?
            }
        };
        let addresses = tokio::net::lookup_host((host.as_str(), port)).await;
        let addresses: Vec<SocketAddr> = addresses.map_err(|_| DialError::Lookup(host.clone()))?.collect();
        let mut first_failed = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(source) => drop(first_failed.get_or_insert(DialError::Connect { address, source })),
            }
        }
        Err(first_failed.unwrap_or(DialError::Lookup(host)))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Stream, DialError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        self.clone().connect().boxed()
    }
}

/// A connection under TLS.
pub(super) struct Stream {
    stream: TokioIo<TlsStream<TcpStream>>,
    is_http2: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        if self.is_http2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
