//! The load generator's connections: HTTP/1.1 over TLS with the administrator's certificate, one request at a time,
//! with as little work of its own as can be, so that the server is what is measured. Not a client for anything else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const JSON: &str = "application/json";

/// An API server, and who asks it.
#[derive(Clone)]
pub(crate) struct Server {
    address: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

/// What is needed of a kubeconfig: its first cluster and its first user.
#[derive(Deserialize)]
struct Kubeconfig {
    clusters: [NamedCluster; 1],
    users: [NamedUser; 1],
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: ClusterEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    user: UserEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
}

fn pem(data: Option<String>, file: Option<PathBuf>) -> anyhow::Result<Vec<u8>> {
    match (data, file) {
        (Some(data), _) => STANDARD.decode(data).context("base64"),
        (None, Some(path)) => std::fs::read(&path).with_context(|| format!("read {}", path.display())),
        (None, None) => anyhow::bail!("the kubeconfig lacks a certificate or key"),
    }
}

impl Server {
    /// Of a kubeconfig with one cluster and one user, who has a certificate, as `reeve up` writes it.
    pub(crate) fn of(kubeconfig: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
        let Kubeconfig { clusters: [cluster], users: [user] } = serde_yaml::from_slice(&text)?;
        let (cluster, user) = (cluster.cluster, user.user);
        let url: hyper::Uri = cluster.server.parse().context("the server's address")?;
        let host = url.host().context("the server has no host")?.to_owned();
        let address = format!("{host}:{}", url.port_u16().unwrap_or(443));
        let mut roots = rustls::RootCertStore::empty();
        let ca = pem(cluster.certificate_authority_data, cluster.certificate_authority)?;
        for certificate in CertificateDer::pem_slice_iter(&ca) {
            roots.add(certificate.context("the CA")?).context("the CA")?;
        }
        let chain = pem(user.client_certificate_data, user.client_certificate)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        let key = pem(user.client_key_data, user.client_key)?;
        let key = PrivateKeyDer::from_pem_slice(&key).context("the client's key")?;
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.context("the client's certificate")?, key)?;
        let name = ServerName::try_from(host).context("the server's name")?;
        Ok(Self { address, name, tls: TlsConnector::from(Arc::new(tls)) })
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.address).await.with_context(|| format!("connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(self.name.clone(), stream).await.context("TLS")?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, host: self.address.clone() })
    }
}

/// One client.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    /// Sends a request; fails unless it is answered with 200 or 201.
    pub(crate) async fn send(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder().method(&method).uri(path);
        let request = request.header(HOST, &self.host).header(ACCEPT, JSON).header(CONTENT_TYPE, JSON);
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        if matches!(response.status(), StatusCode::OK | StatusCode::CREATED) {
            return Ok(response);
        }
        let status = response.status();
        let said = response.into_body().collect().await?.to_bytes();
        anyhow::bail!("{method} {path}: {status}: {}", String::from_utf8_lossy(&said))
    }

    /// Sends a request and reads the answer to its end; how long that is.
    pub(crate) async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> anyhow::Result<usize> {
        let mut body = self.send(method, path, body).await?.into_body();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(length)
    }
}
