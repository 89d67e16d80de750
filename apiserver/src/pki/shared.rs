//! What all servers of one control plane have in common: the authorities and the key that signs tokens. A server that
//! joins gets them from one that is there; everything else in the folder it makes itself.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{CertKey, Pki, PkiError, file};

/// The keys of a control plane, in PEM. Whoever has them is the cluster: they travel only to a server that has shown a
/// join token, over a connection whose other end has shown the cluster's CA.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SharedKeys {
    /// Certificate and key of the cluster CA.
    ca: String,
    /// Of the authority of the API server's own client certificates towards kubelets.
    kubelet_client_ca: String,
    /// Of the authority of those who speak for other users.
    front_proxy_ca: String,
    /// Of the authority of the store's members.
    peer_ca: String,
    /// Of the authority of clients of etcd: one certificate opens the ports of all servers.
    etcd_ca: String,
    /// The key that signs service-account tokens.
    signing_key: String,
}

impl std::fmt::Debug for SharedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedKeys").finish_non_exhaustive()
    }
}

impl SharedKeys {
    /// The SHA-256 of the cluster CA's public key, see [`public_key_hash`]; `None`: there is no certificate in it.
    #[must_use]
    pub fn ca_hash(&self) -> Option<String> {
        public_key_hash(&file::split(&self.ca).cert_pem)
    }

    /// Writes them into a folder, which is made if it is missing. [`Pki::open`] makes the rest, and says what is wrong
    /// with them. Can be repeated. Blocks on the disk.
    pub fn write(&self, dir: &Path) -> Result<(), PkiError> {
        file::make_dir(dir)?;
        let files = [
            ("ca.pem", &self.ca),
            ("kubelet-client-ca.pem", &self.kubelet_client_ca),
            ("front-proxy-ca.pem", &self.front_proxy_ca),
            ("peer-ca.pem", &self.peer_ca),
            ("etcd-ca.pem", &self.etcd_ca),
            ("sa.key", &self.signing_key),
        ];
        files.into_iter().try_for_each(|(name, text)| file::write_if_changed(&dir.join(name), text))
    }
}

impl Pki {
    /// What a server that joins needs of this folder.
    #[must_use]
    pub fn shared_keys(&self) -> SharedKeys {
        let both = |pair: &CertKey| file::join(pair);
        SharedKeys {
            ca: both(&self.0.cluster_ca.cert_key),
            kubelet_client_ca: both(&self.0.kubelet_client_ca.cert_key),
            front_proxy_ca: both(&self.0.front_proxy_ca.cert_key),
            peer_ca: both(&self.0.peer_ca.cert_key),
            etcd_ca: both(&self.0.etcd_ca.cert_key),
            signing_key: self.0.signing_key_pem.clone(),
        }
    }
}

/// The SHA-256 of a certificate's public key (`SubjectPublicKeyInfo`, DER), in hexadecimal: what kubeadm calls
/// `--discovery-token-ca-cert-hash`, and `openssl x509 -pubkey | openssl pkey -pubin -outform DER | sha256sum` says.
/// `None`: it is no certificate.
#[must_use]
pub fn public_key_hash(cert_pem: &str) -> Option<String> {
    let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).ok()?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    let hash = Sha256::digest(parsed.public_key().raw);
    Some(hash.iter().map(|byte| format!("{byte:02x}")).collect())
}
