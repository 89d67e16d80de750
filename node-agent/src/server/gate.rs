//! Who may ask this server what: the API server everything of a kubelet, other nodes the images that were made here.
//!
//! The authority of the kubelets' clients signs exactly one certificate; that of the cluster signs many. Both are taken
//! in the handshake, and which of the two stands behind a certificate is looked at again afterwards, so that a name
//! that one of them gives means nothing under the other.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::parse_x509_certificate;

use super::ServerError;

/// What a node's user is called before its name, and the group of all nodes.
const NODE_USER: &str = "system:node:";
const NODES_GROUP: &str = "system:nodes";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The API server.
    ApiServer,
    /// The agent of that node.
    Node(String),
    /// Somebody whom nothing is told.
    Other,
}

/// Tells callers apart by their certificates.
#[derive(Debug)]
pub(crate) struct Gate {
    api: Arc<dyn ClientCertVerifier>,
    /// Of other nodes; `None` where they have nothing to ask.
    nodes: Option<Arc<dyn ClientCertVerifier>>,
    /// The API server's common name.
    api_name: String,
    hints: Vec<DistinguishedName>,
}

impl Gate {
    /// Takes the API server's client under the one authority, nodes under the other.
    pub(crate) fn new(api_ca_pem: &str, api_name: String, node_ca_pem: Option<&str>) -> Result<Self, ServerError> {
        let api = verifier("client CA", api_ca_pem)?;
        let nodes = node_ca_pem.map(|pem| verifier("CA of the nodes", pem)).transpose()?;
        let others = nodes.iter().flat_map(|nodes| nodes.root_hint_subjects());
        let hints = api.root_hint_subjects().iter().chain(others).cloned().collect();
        Ok(Self { api, nodes, api_name, hints })
    }

    /// Who shows these certificates, the own one first.
    pub(crate) fn caller(&self, chain: Option<&[CertificateDer<'_>]>) -> Caller {
        let Some((own, above)) = chain.and_then(<[_]>::split_first) else { return Caller::Other };
        let Some((name, groups)) = subject(own) else { return Caller::Other };
        let signed = |by: &dyn ClientCertVerifier| by.verify_client_cert(own, above, UnixTime::now()).is_ok();
        if name == self.api_name && signed(self.api.as_ref()) {
            return Caller::ApiServer;
        }
        let node = name.strip_prefix(NODE_USER).filter(|_| groups.iter().any(|group| group == NODES_GROUP));
        match (node, &self.nodes) {
            (Some(node), Some(nodes)) if signed(nodes.as_ref()) => Caller::Node(node.to_owned()),
            _ => Caller::Other,
        }
    }
}

impl ClientCertVerifier for Gate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let by_api = self.api.verify_client_cert(end_entity, intermediates, now);
        match &self.nodes {
            Some(nodes) => by_api.or_else(|_| nodes.verify_client_cert(end_entity, intermediates, now)),
            None => by_api,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.api.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.api.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.api.supported_verify_schemes()
    }
}

/// The authorities of a PEM text.
pub(crate) fn roots(what: &'static str, pem: &str) -> Result<RootCertStore, ServerError> {
    let bad = |reason: String| ServerError::Pem { what, reason };
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(ca.map_err(|error| bad(format!("{error:?}")))?).map_err(|error| bad(error.to_string()))?;
    }
    Ok(roots)
}

fn verifier(what: &'static str, pem: &str) -> Result<Arc<dyn ClientCertVerifier>, ServerError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(what, pem)?), provider).build();
    made.map_err(|error| ServerError::Pem { what, reason: error.to_string() })
}

/// The common name, and the organizations: who, and in which groups.
fn subject(cert: &CertificateDer<'_>) -> Option<(String, Vec<String>)> {
    let (_, parsed) = parse_x509_certificate(cert).ok()?;
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = parsed.subject().iter_organization().filter_map(|group| Some(group.as_str().ok()?.to_owned()));
    Some((name, groups.collect()))
}
