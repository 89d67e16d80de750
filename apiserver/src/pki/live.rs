//! A certificate that TLS shows, and that can be replaced while it does: the next handshake shows the new one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::CertKey;

/// Why a pair cannot be shown. The one before it stays.
#[derive(Debug, thiserror::Error)]
pub enum UnusableCertificate {
    /// It is no PEM.
    #[error("the certificate or its key cannot be read")]
    Pem(#[from] pem::Error),
    /// TLS does not take it.
    #[error("TLS refuses the certificate")]
    Tls(#[from] rustls::Error),
}

/// The certificate that is shown now, for servers and clients of rustls.
#[derive(Debug)]
pub struct LiveCertificate(ArcSwap<CertifiedKey>);

impl LiveCertificate {
    /// Shows this pair.
    pub fn new(pair: &CertKey) -> Result<Arc<Self>, UnusableCertificate> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(pair)?))))
    }

    /// Shows this pair from now on.
    pub fn replace(&self, pair: &CertKey) -> Result<(), UnusableCertificate> {
        self.0.store(Arc::new(certified(pair)?));
        Ok(())
    }
}

fn certified(pair: &CertKey) -> Result<CertifiedKey, UnusableCertificate> {
    let chain = vec![CertificateDer::from_pem_slice(pair.cert_pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes())?;
    Ok(CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?)
}

impl ResolvesServerCert for LiveCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for LiveCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
