//! An authority for one measurement, and what it has certified: each member, and the client.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use reeve_peer::host_of;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsConnector;

/// A certificate and its key, PEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// See the module.
pub(crate) struct Certificates {
    /// The authority's certificate, PEM.
    pub ca_pem: String,
    /// Of each member, in the order of their numbers.
    pub members: Vec<Pair>,
    client: Pair,
}

impl Certificates {
    /// For so many members on loopback.
    pub(crate) fn new(members: u64) -> anyhow::Result<Self> {
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        ca.distinguished_name.push(DnType::CommonName, "bench");
        let ca_pem = ca.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca, ca_key);
        let leaf = |names: Vec<String>| {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(names)?;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = params.signed_by(&key, &issuer)?.pem();
            Ok::<_, rcgen::Error>(Pair { certificate, key: key.serialize_pem() })
        };
        let member = |id| leaf(vec!["127.0.0.1".to_owned(), "localhost".to_owned(), host_of(id)]);
        let members = (1..=members).map(member).collect::<Result<_, _>>()?;
        Ok(Self { ca_pem, members, client: leaf(vec!["client".to_owned()])? })
    }

    /// What the client connects with.
    pub(crate) fn connector(&self) -> anyhow::Result<TlsConnector> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes())?)?;
        let chain = vec![CertificateDer::from_pem_slice(self.client.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(self.client.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Puts a member's files into its folder, under the names that [`super::group`] passes to etcd.
    pub(crate) fn write(&self, member: usize, folder: &Path) -> anyhow::Result<()> {
        let own = self.members.get(member).context("a certificate of that member")?;
        for (name, text) in [("ca.pem", &self.ca_pem), ("own.pem", &own.certificate), ("own.key", &own.key)] {
            std::fs::write(folder.join(name), text)?;
        }
        Ok(())
    }
}
