//! The side of a server that joins: asks a server of the control plane for what it needs.
//!
//! In this order, because the network may lie: the CA's certificate comes over a connection that nothing is known of,
//! and is compared with the hash in the token; only then a second connection is made, to a server that this CA has
//! named the API server (no node's certificate passes, whatever address it has), and the secret sent over it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{JoinAnswer, JoinRequest, JoinToken, ROOT};
use crate::pki::public_key_hash;

/// The name under which every API server is known to its CA, and nobody else.
const SERVER_NAME: &str = "kubernetes.default.svc";
/// The port of an address that names none.
const PORT: u16 = 6443;
/// How long a step may take.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Certificates and keys, and the records of some members.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why a server could not join.
#[derive(Debug, thiserror::Error)]
pub enum Unjoined {
    /// Nobody answers there, or somebody else.
    #[error("cannot reach a server at {address}: {reason}; --join takes HOST:PORT of a server's API")]
    Unreachable {
        /// Where it was tried.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The token is of another cluster, or somebody sits in between. The secret was not sent.
    #[error(
        "the server at {address} is not of the cluster that the token is for: the public key of its CA has the hash \
         sha256:{found}, the token says sha256:{wanted}; the token was not sent to it. If it is the right server, \
         `reeve token create` there makes a token for it"
    )]
    OtherCluster {
        /// Where it was asked.
        address: String,
        /// What its CA has.
        found: String,
        /// What the token says.
        wanted: String,
    },
    /// The server has said no.
    #[error("{address} refuses: {reason}")]
    Refused {
        /// Where it was asked.
        address: String,
        /// Its words.
        reason: String,
        /// Whether the same may work later: the cluster has no leader now, say.
        may_pass: bool,
    },
}

impl Unjoined {
    /// Whether the control plane cannot take anybody in just now.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { may_pass: true, .. })
    }

    /// Whether the same may work later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::OtherCluster { .. } => false,
            Self::Refused { may_pass, .. } => *may_pass,
        }
    }
}

/// What a server has got.
pub type Joined = JoinAnswer;

/// Asks the server at `address` (`HOST` or `HOST:PORT`) to take this one in.
pub async fn join(address: &str, token: &JoinToken, request: &JoinRequest) -> Result<Joined, Unjoined> {
    let address = with_port(address);
    let ca_pem = fetch_ca(&address).await?;
    let found = public_key_hash(&ca_pem).ok_or_else(|| unreachable(&address, &"it shows no certificate"))?;
    if found != token.ca_hash {
        return Err(Unjoined::OtherCluster { address, found, wanted: token.ca_hash.clone() });
    }
    let config = trusting(&ca_pem).map_err(|err| unreachable(&address, &err))?;
    let body = serde_json::to_vec(request).map_err(|err| unreachable(&address, &err))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{ROOT}join"))
        .header(http::header::AUTHORIZATION, format!("Bearer {}", token.bearer()))
        .header(http::header::CONTENT_TYPE, "application/json");
    let answer = ask(&address, config, request, body.into()).await?;
    let joined: Joined = serde_json::from_slice(&answer).map_err(|err| unreachable(&address, &err))?;
    if joined.keys.ca_hash().as_ref() != Some(&token.ca_hash) {
        return Err(unreachable(&address, &"the keys that it has sent are not of this cluster"));
    }
    Ok(joined)
}

fn with_port(address: &str) -> String {
    let address = address.trim_start_matches("https://").trim_end_matches('/');
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
    match (has_port, address.contains(':') && !address.starts_with('[')) {
        (true, _) => address.to_owned(),
        (false, true) => format!("[{address}]:{PORT}"),
        (false, false) => format!("{address}:{PORT}"),
    }
}

fn unreachable(address: &str, reason: &dyn ToString) -> Unjoined {
    Unjoined::Unreachable { address: address.to_owned(), reason: reason.to_string() }
}

/// The CA's certificate, from whoever answers.
async fn fetch_ca(address: &str) -> Result<String, Unjoined> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| unreachable(address, &err))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let request = Request::builder().method(Method::GET).uri(format!("{ROOT}ca"));
    let answer = ask(address, config, request, Bytes::new()).await.map_err(|err| match err {
        Unjoined::Refused { address, .. } => Unjoined::Unreachable {
            address,
            reason: "what answers there is no server that others can join (`reeve server` makes one)".to_owned(),
        },
        other => other,
    })?;
    String::from_utf8(answer.to_vec()).map_err(|err| unreachable(address, &err))
}

fn trusting(ca_pem: &str) -> Result<ClientConfig, Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// One request over a connection of its own; the body of a good answer.
async fn ask(
    address: &str,
    config: ClientConfig,
    request: http::request::Builder,
    body: Bytes,
) -> Result<Bytes, Unjoined> {
    let asked = tokio::time::timeout(TIME_MAX, send(address, config, request, body)).await;
    let (status, body) = asked.map_err(|_| unreachable(address, &format!("no answer within {TIME_MAX:?}")))??;
    if status.is_success() {
        return Ok(body);
    }
    let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let reason = told["message"].as_str().map_or_else(|| status.to_string(), str::to_owned);
    Err(Unjoined::Refused { address: address.to_owned(), reason, may_pass: status.is_server_error() })
}

async fn send(
    address: &str,
    config: ClientConfig,
    request: http::request::Builder,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Unjoined> {
    let failed = |err: &dyn ToString| unreachable(address, err);
    let stream = TcpStream::connect(address).await.map_err(|err| failed(&err))?;
    let name = ServerName::try_from(SERVER_NAME).map_err(|err| failed(&err))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|err| failed(&err))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|err| failed(&err))?;
    let request = request.header(http::header::HOST, address).body(Full::new(body)).map_err(|err| failed(&err))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|err| failed(&err))?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|err| failed(&err))?;
        Ok((head.status, body.to_bytes()))
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = exchange.as_mut() => answer,
        // It may end right behind the answer.
        _ = connection.as_mut() => exchange.await,
    }
}

/// Takes any certificate: of what comes over such a connection nothing is believed.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_port_of_api_servers_where_they_name_none() {
        for (given, whole) in [
            ("10.0.0.1", "10.0.0.1:6443"),
            ("10.0.0.1:7", "10.0.0.1:7"),
            ("https://a.example:6443/", "a.example:6443"),
            ("fd00::1", "[fd00::1]:6443"),
            ("[fd00::1]:7", "[fd00::1]:7"),
        ] {
            assert_eq!(with_port(given), whole);
        }
    }
}
