//! Who is at the other end: TLS in which both sides show a certificate of the peer CA that names a member's number.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::client::VerifierBuilderError;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// What stands around a member's number in its certificate.
const HOST_PREFIX: &str = "member-";
const HOST_SUFFIX: &str = ".peers.reeve";
/// The protocol of gRPC.
const ALPN: &[u8] = b"h2";

/// What a member shows at a handshake, now.
pub trait PeerCertificate: ResolvesServerCert + ResolvesClientCert {}

impl<T: ResolvesServerCert + ResolvesClientCert> PeerCertificate for T {}

/// Why no connection can be made or taken.
#[derive(Debug, thiserror::Error)]
pub enum PeerTlsError {
    /// The peer CA is no PEM.
    #[error("the peer CA cannot be read")]
    Pem(#[from] pem::Error),
    /// TLS does not take it.
    #[error("TLS refuses the peer CA")]
    Tls(#[from] rustls::Error),
    /// TLS does not take it.
    #[error("TLS refuses the peer CA")]
    Verifier(#[from] VerifierBuilderError),
}

/// The name that the certificate of a member is valid for. It does not change with the member's address.
#[must_use]
pub fn host_of(id: u64) -> String {
    format!("{HOST_PREFIX}{id:016x}{HOST_SUFFIX}")
}

fn id_of(host: &str) -> Option<u64> {
    u64::from_str_radix(host.strip_prefix(HOST_PREFIX)?.strip_suffix(HOST_SUFFIX)?, 16).ok()
}

/// One certificate for both sides.
#[derive(Debug)]
struct Both(Arc<dyn PeerCertificate>);

impl ResolvesServerCert for Both {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ResolvesServerCert::resolve(&*self.0, hello)
    }
}

impl ResolvesClientCert for Both {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        ResolvesClientCert::resolve(&*self.0, hints, schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Both sides' settings.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    pub(crate) fn new(ca_pem: &str, certificate: Arc<dyn PeerCertificate>) -> Result<Self, PeerTlsError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
        let (roots, shown) = (Arc::new(roots), Arc::new(Both(certificate)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&shown) as _);
        server.alpn_protocols = vec![ALPN.to_vec()];
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_cert_resolver(shown);
        client.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { acceptor: Arc::new(server).into(), connector: Arc::new(client).into() })
    }

    /// The handshake with the member `id`, and nobody else.
    pub(crate) async fn connect(&self, id: u64, stream: TcpStream) -> io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(host_of(id)).map_err(io::Error::other)?;
        self.connector.connect(name, stream).await
    }

    /// The handshake with some member; which one.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<(server::TlsStream<TcpStream>, u64)> {
        let stream = self.acceptor.accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let id = certificate.and_then(shown_id);
        let id = id.ok_or_else(|| io::Error::other("the certificate names no member"))?;
        Ok((stream, id))
    }
}

fn shown_id(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(host) => id_of(host),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_tells_its_member() {
        assert_eq!(id_of(&host_of(u64::MAX)), Some(u64::MAX));
        assert_eq!(id_of("member-1"), None);
        assert!(ServerName::try_from(host_of(7)).is_ok());
    }
}
