//! Certificates of the port for clients of etcd. Whoever has one reads and writes every key of the cluster, so nothing
//! else is signed by that authority, and no certificate of the cluster's opens the port.

use std::net::IpAddr;

use jiff::Timestamp;

use super::leaf::LeafPlan;
use super::{CertKey, Pki, PkiError, file, open_leaf};

/// What the port shows, and whom it takes.
#[derive(Debug, Clone)]
pub struct EtcdCertificates {
    /// The authority of both sides, PEM.
    pub ca_pem: String,
    /// What the port shows.
    pub serving: CertKey,
}

impl Pki {
    /// Certificate of the authority whose clients the port admits, PEM. All servers of a control plane have the same.
    #[must_use]
    pub fn etcd_ca_pem(&self) -> &str {
        &self.0.etcd_ca.cert_key.cert_pem
    }

    /// Opens what the port needs, and makes the certificate of its clients: `etcd-ca.crt`, and `etcd-client.pem`, which
    /// holds certificate and key. Kept in the folder and re-issued like the others. Blocks on the disk.
    pub fn etcd(&self, addresses: &[IpAddr], now: Timestamp) -> Result<EtcdCertificates, PkiError> {
        let dir = &self.0.config.dir;
        let authority = &self.0.etcd_ca;
        file::write_if_changed(&dir.join("etcd-ca.crt"), &authority.cert_key.cert_pem)?;
        let mut sans = vec!["localhost".to_owned()];
        sans.extend(addresses.iter().map(IpAddr::to_string));
        let serving = open_leaf(dir, "etcd-server", authority, &LeafPlan::server("reeve-etcd", &[], sans, now))?;
        open_leaf(dir, "etcd-client", authority, &LeafPlan::client("reeve-etcd-client", &[], now))?;
        Ok(EtcdCertificates { ca_pem: authority.cert_key.cert_pem.clone(), serving })
    }
}
