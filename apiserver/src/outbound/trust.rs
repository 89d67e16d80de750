//! Whom a call trusts, and what it shows of itself.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pki::LiveCertificate;

/// Where systems keep the CAs they trust; Go's list.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom to trust. The default trusts what the system trusts and shows nothing.
#[derive(Clone, Default)]
pub(crate) struct Trust {
    /// PEM certificates of the CAs; empty: the system's.
    pub(crate) ca_bundle: Vec<u8>,
    /// Any certificate will do.
    pub(crate) insecure: bool,
    /// The name that the certificate must be for; without it the place's host.
    pub(crate) server_name: Option<String>,
    /// The certificate shown to servers that ask for one.
    pub(crate) own: Option<Arc<LiveCertificate>>,
}

/// Why a trust cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// The CA bundle holds no certificate.
    #[error("unable to load root certificates: unable to parse bytes as PEM block")]
    Bundle,
    /// TLS does not take it.
    #[error(transparent)]
    Tls(#[from] Error),
}

impl Trust {
    /// Trust in the CAs of a bundle; an empty one stands for the system's.
    pub(crate) fn in_bundle(ca_bundle: Vec<u8>) -> Self {
        Self { ca_bundle, ..Self::default() }
    }

    /// What shakes hands under this trust.
    pub(crate) fn connector(&self, http2: bool) -> Result<TlsConnector, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = if self.insecure {
            Arc::new(Anybody(Arc::clone(&provider)))
        } else {
            Arc::new(Bundle::new(&self.ca_bundle, &provider)?)
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &self.own {
            Some(own) => config.with_client_cert_resolver(Arc::clone(own) as _),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols =
            if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// The CAs that this machine's system trusts; read once.
#[must_use]
pub fn system_roots() -> Vec<CertificateDer<'static>> {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    let read = || {
        let found = SYSTEM_BUNDLES.iter().find(|path| Path::new(path).exists());
        let certificates = found.and_then(|path| CertificateDer::pem_file_iter(path).ok());
        certificates.into_iter().flatten().filter_map(Result::ok).collect()
    };
    ROOTS.get_or_init(read).clone()
}

/// Trusts what a bundle's CAs have signed. As Go does, also a certificate that stands in the bundle itself: webhooks
/// often show one that they have signed themselves.
#[derive(Debug)]
struct Bundle {
    certificates: Vec<CertificateDer<'static>>,
    chains: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Bundle {
    fn new(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let certificates: Vec<CertificateDer<'static>> = if pem.is_empty() {
            system_roots()
        } else {
            let parsed: Result<_, _> = CertificateDer::pem_slice_iter(pem).collect();
            parsed.ok().filter(|all: &Vec<_>| !all.is_empty()).ok_or(TrustError::Bundle)?
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        // None can be an anchor: then nothing but the certificates themselves is trusted.
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build().ok();
        Ok(Self { certificates, chains, provider: Arc::clone(provider) })
    }

    fn is_named(
        &self,
        end_entity: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<bool, Error> {
        if !self.certificates.iter().any(|own| own.as_ref() == end_entity.as_ref()) {
            return Ok(false);
        }
        let Ok((_, parsed)) = X509Certificate::from_der(end_entity) else { return Ok(false) };
        let validity = parsed.validity();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if seconds > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        if seconds < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(true)
    }
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.is_named(end_entity, server_name, now)? {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.chains {
            Some(chains) => chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Trusts whoever answers (`insecureSkipTLSVerify`); that the server holds its certificate's key is still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
