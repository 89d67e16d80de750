//! The cluster's certificates and keys: made at first start, kept in one folder, re-issued when they no longer fit.
//!
//! Four authorities. The *cluster CA* signs what servers show and what API clients present. The *kubelet client CA*
//! signs exactly one certificate, the API server's own for talking to kubelets; an agent that demands it admits
//! nobody else. The *front-proxy CA* signs what a server shows that passes on requests in other users' names: the API
//! server's own, towards aggregated API servers. The *peer CA* signs what the members of the store's group show each
//! other, and nothing else: no user and no node can pass for a member. A fifth one is made when the store is served to
//! clients of etcd (`etcd.rs`). Which certificate must hold what is decided in `leaf`; this file reads and writes the
//! folder.
//! What is not here: the kubeconfig (that is `ctl`), TLS handshakes (`server.rs`), tokens (`auth`).
//!
//! Source of the names and usages: Kubernetes, "PKI certificates and requirements".

mod etcd;
mod file;
mod leaf;
mod live;
mod shared;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::{CertificateParams, Issuer, KeyPair};

use crate::auth::MASTERS;

pub use etcd::EtcdCertificates;
pub use leaf::Usage;
use leaf::{Authority, LeafPlan};
pub use live::{LiveCertificate, UnusableCertificate};
pub use shared::{SharedKeys, public_key_hash};

/// The common name of those who may speak for other users; kubeadm's.
pub const FRONT_PROXY_CLIENT: &str = "front-proxy-client";

/// Why the folder could not be read or completed. Not retryable without a change to the folder or the disk.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("failed to {action} {}", path.display())]
    File {
        /// `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An authority's file does not hold a certificate and a key. Never replaced silently: everything the
    /// authority has signed would become worthless.
    #[error("{} does not hold a usable certificate authority", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate could not be made.
    #[error("failed to issue the certificate {name}")]
    Issue {
        /// The certificate's name in the folder.
        name: String,
        /// What is wrong.
        #[source]
        source: rcgen::Error,
    },
    /// The service-account key is not a P-256 key in PKCS#8.
    #[error("{} does not hold a usable signing key", path.display())]
    SigningKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: rcgen::Error,
    },
}

/// What the serving certificate must be valid for, and where the folder is.
#[derive(Debug, Clone)]
pub struct PkiConfig {
    /// The folder, `DATA_DIR/pki`; made when missing.
    pub dir: PathBuf,
    /// Addresses under which clients reach the API server, besides `127.0.0.1` and the service address.
    pub addresses: Vec<IpAddr>,
    /// Host names under which clients reach it, besides `localhost` and the names of the `kubernetes` Service.
    pub names: Vec<String>,
    /// First address of the service range: the cluster address of the `kubernetes` Service.
    pub service_address: IpAddr,
    /// The cluster's DNS domain, `cluster.local`.
    pub cluster_domain: String,
}

/// A certificate with its key, both in PEM.
#[derive(Clone)]
pub struct CertKey {
    /// The certificate.
    pub cert_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for CertKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertKey").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The opened folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pki(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: PkiConfig,
    cluster_ca: Authority,
    kubelet_client_ca: Authority,
    front_proxy_ca: Authority,
    peer_ca: Authority,
    etcd_ca: Authority,
    serving: CertKey,
    admin: CertKey,
    kubelet_client: CertKey,
    front_proxy_client: CertKey,
    signing_key_pem: String,
}

impl Pki {
    /// Opens the folder; makes what is missing and re-issues what is expired, about to expire, or not valid for
    /// an address it must be valid for. Blocks on the disk.
    pub fn open(config: &PkiConfig, now: Timestamp) -> Result<Self, PkiError> {
        file::make_dir(&config.dir)?;
        let cluster_ca = open_authority(&config.dir, "ca", "reeve-ca", now)?;
        let kubelet_client_ca = open_authority(&config.dir, "kubelet-client-ca", "reeve-kubelet-client-ca", now)?;
        let front_proxy_ca = open_authority(&config.dir, "front-proxy-ca", "reeve-front-proxy-ca", now)?;
        let peer_ca = open_authority(&config.dir, "peer-ca", "reeve-peer-ca", now)?;
        let etcd_ca = open_authority(&config.dir, "etcd-ca", "reeve-etcd-ca", now)?;
        file::write_if_changed(&config.dir.join("ca.crt"), &cluster_ca.cert_key.cert_pem)?;
        let leaf = |name: &str, authority: &Authority, plan: &LeafPlan| open_leaf(&config.dir, name, authority, plan);
        let admin = leaf("admin", &cluster_ca, &LeafPlan::client("kubernetes-admin", &[MASTERS], now))?;
        let serving = leaf("apiserver", &cluster_ca, &serving_plan(config, now))?;
        // A stock kubelet asks the API server whether a client may what it wants: the API server itself may.
        let client = LeafPlan::client("kube-apiserver-kubelet-client", &[MASTERS], now);
        let kubelet_client = leaf("apiserver-kubelet-client", &kubelet_client_ca, &client)?;
        let client = LeafPlan::client(FRONT_PROXY_CLIENT, &[], now);
        let front_proxy_client = leaf("front-proxy-client", &front_proxy_ca, &client)?;
        let signing_key_pem = open_signing_key(&config.dir.join("sa.key"))?;
        Ok(Self(Arc::new(Inner {
            config: config.clone(),
            cluster_ca,
            kubelet_client_ca,
            front_proxy_ca,
            peer_ca,
            etcd_ca,
            serving,
            admin,
            kubelet_client,
            front_proxy_client,
            signing_key_pem,
        })))
    }

    /// The folder as it should be at `now`: what is about to expire is re-issued, everything else is as it was.
    /// Blocks on the disk.
    pub fn renewed(&self, now: Timestamp) -> Result<Self, PkiError> {
        Self::open(&self.0.config, now)
    }

    /// Certificate of the cluster CA, PEM: `certificate-authority-data` of kubeconfigs, `ca.crt` in pods.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.0.cluster_ca.cert_key.cert_pem
    }

    /// Certificate of the authority whose clients a kubelet admits, PEM. Only the API server has such a certificate.
    #[must_use]
    pub fn kubelet_client_ca_pem(&self) -> &str {
        &self.0.kubelet_client_ca.cert_key.cert_pem
    }

    /// What the API server shows to its clients.
    #[must_use]
    pub fn serving(&self) -> &CertKey {
        &self.0.serving
    }

    /// The administrator's client certificate: user `kubernetes-admin` in group `system:masters`.
    #[must_use]
    pub fn admin(&self) -> &CertKey {
        &self.0.admin
    }

    /// What the API server presents to kubelets.
    #[must_use]
    pub fn kubelet_client(&self) -> &CertKey {
        &self.0.kubelet_client
    }

    /// Certificate of the authority whose clients may speak for other users, PEM: `requestheader-client-ca-file`.
    #[must_use]
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.0.front_proxy_ca.cert_key.cert_pem
    }

    /// What the API server presents to aggregated API servers; its name is [`FRONT_PROXY_CLIENT`].
    #[must_use]
    pub fn front_proxy_client(&self) -> &CertKey {
        &self.0.front_proxy_client
    }

    /// Certificate of the authority of the store's members, PEM.
    #[must_use]
    pub fn peer_ca_pem(&self) -> &str {
        &self.0.peer_ca.cert_key.cert_pem
    }

    /// What this member shows and presents to the others, valid for the name by which they know it; kept in the folder
    /// and re-issued like the others. Blocks on the disk.
    pub fn peer(&self, host: &str, now: Timestamp) -> Result<CertKey, PkiError> {
        open_leaf(&self.0.config.dir, "peer", &self.0.peer_ca, &LeafPlan::peer(host, now))
    }

    /// The key that signs service-account tokens: P-256, PKCS#8, PEM.
    #[must_use]
    pub fn signing_key_pem(&self) -> &str {
        &self.0.signing_key_pem
    }

    /// What the agent of `node` presents to other nodes, as which it also may ask the API server: `system:node:NODE` of
    /// the group `system:nodes`. Kept in the folder and re-issued like the others. Blocks on the disk.
    pub fn node_client(&self, node: &str, now: Timestamp) -> Result<CertKey, PkiError> {
        let plan = LeafPlan::client(&format!("system:node:{node}"), &["system:nodes"], now);
        open_leaf(&self.0.config.dir, &format!("kubelet-client-{node}"), &self.0.cluster_ca, &plan)
    }

    /// What the kubelet of `node` shows to the API server; kept in the folder and re-issued like the others.
    /// The API server checks it by node name, so no node can pass for another. Blocks on the disk.
    pub fn node_serving(&self, node: &str, addresses: &[IpAddr], now: Timestamp) -> Result<CertKey, PkiError> {
        let mut sans: Vec<String> = vec![node.to_owned()];
        sans.extend(addresses.iter().map(IpAddr::to_string));
        let plan = LeafPlan::server(&format!("system:node:{node}"), &["system:nodes"], sans, now);
        open_leaf(&self.0.config.dir, &format!("kubelet-{node}"), &self.0.cluster_ca, &plan)
    }
}

fn serving_plan(config: &PkiConfig, now: Timestamp) -> LeafPlan {
    let domain = &config.cluster_domain;
    let mut sans: Vec<String> =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned).to_vec();
    sans.push(format!("kubernetes.default.svc.{domain}"));
    sans.extend(config.names.iter().cloned());
    sans.push("127.0.0.1".to_owned());
    sans.push(config.service_address.to_string());
    sans.extend(config.addresses.iter().map(IpAddr::to_string));
    LeafPlan::server("kube-apiserver", &[], sans, now)
}

fn open_authority(dir: &Path, name: &str, common_name: &str, now: Timestamp) -> Result<Authority, PkiError> {
    let path = dir.join(format!("{name}.pem"));
    let cert_key = match file::read(&path)? {
        Some(text) => file::split(&text),
        None => {
            let made = leaf::make_authority(common_name, now)
                .map_err(|source| PkiError::Issue { name: name.to_owned(), source })?;
            file::write(&path, &file::join(&made))?;
            made
        }
    };
    Authority::parse(cert_key).map_err(|source| PkiError::Authority { path, source })
}

fn open_leaf(dir: &Path, name: &str, authority: &Authority, plan: &LeafPlan) -> Result<CertKey, PkiError> {
    let path = dir.join(format!("{name}.pem"));
    if let Some(text) = file::read(&path)? {
        let found = file::split(&text);
        match plan.misfit(&found, authority) {
            None => return Ok(found),
            Some(reason) => tracing::info!(certificate = name, reason, "re-issuing a certificate"),
        }
    }
    let made = plan.issue(authority).map_err(|source| PkiError::Issue { name: name.to_owned(), source })?;
    file::write(&path, &file::join(&made))?;
    Ok(made)
}

fn open_signing_key(path: &Path) -> Result<String, PkiError> {
    let wrong = |source| PkiError::SigningKey { path: path.to_owned(), source };
    if let Some(text) = file::read(path)? {
        KeyPair::from_pkcs8_pem_and_sign_algo(&text, &rcgen::PKCS_ECDSA_P256_SHA256).map_err(wrong)?;
        return Ok(text);
    }
    let text = KeyPair::generate().map_err(wrong)?.serialize_pem();
    file::write(path, &text)?;
    Ok(text)
}

/// How the authority signs: its parsed name and its key.
type Signer = Issuer<'static, KeyPair>;

fn signed(params: &CertificateParams, key: &KeyPair, by: &Signer) -> Result<CertKey, rcgen::Error> {
    Ok(CertKey { cert_pem: params.signed_by(key, by)?.pem(), key_pem: key.serialize_pem() })
}

#[cfg(test)]
mod tests;
