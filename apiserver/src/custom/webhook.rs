//! Asking a conversion webhook: one question over TLS, one connection each.

use std::sync::{Arc, Weak};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use reeve_api::rng::{RngExt as _, SharedRng};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::registry::Registry;

/// How long a webhook may take; Kubernetes' number.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Longest answer: that of a page of the largest objects.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Where the machine keeps the authorities it trusts, for webhooks that name none.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where a webhook is, and what it understands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Target {
    url: Option<String>,
    /// Namespace, name, path and port.
    service: Option<(String, String, String, u16)>,
    /// Authorities in PEM; none for those of the machine.
    ca_bundle: Option<Vec<u8>>,
    pub(super) review_versions: Vec<String>,
}

/// Where to connect, what to verify, what to ask for.
struct Address {
    dial: String,
    server_name: String,
    host: String,
    path: String,
}

impl Target {
    /// Of a definition's `conversion.webhook`.
    pub(super) fn of(webhook: &Value) -> Self {
        let client = &webhook["clientConfig"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let service = client.get("service").filter(|service| service.is_object()).map(|service| {
            let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
            (text(&service["namespace"]), text(&service["name"]), text(&service["path"]), port)
        });
        let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
        Self {
            url: client["url"].as_str().map(str::to_owned),
            service,
            ca_bundle: client["caBundle"].as_str().and_then(|text| STANDARD.decode(text).ok()),
            review_versions: versions.filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    fn address(&self, registry: &Registry) -> Result<Address, String> {
        if let Some((namespace, name, path, port)) = &self.service {
            let services = registry.core("services").ok_or("services are not served")?;
            let service = registry.peek(&services, namespace, name);
            let service = service.ok_or_else(|| format!("service \"{name}\" not found"))?.value();
            let ip = service["spec"]["clusterIP"].as_str().unwrap_or_default();
            let target = match service["spec"]["type"].as_str() {
                Some("ExternalName") => service["spec"]["externalName"].as_str().unwrap_or_default(),
                _ if ip.is_empty() || ip == "None" => return Err(format!("service \"{name}\" has no cluster IP")),
                _ => ip,
            };
            let dial = if target.contains(':') { format!("[{target}]:{port}") } else { format!("{target}:{port}") };
            let server_name = format!("{name}.{namespace}.svc");
            let path = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
            return Ok(Address { dial, host: format!("{server_name}:{port}"), server_name, path });
        }
        let url: http::Uri = self.url.as_deref().unwrap_or_default().parse().map_err(|error| format!("{error}"))?;
        let host = url.host().ok_or("the URL has no host")?;
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        Ok(Address {
            dial: format!("{host}:{}", url.port_u16().unwrap_or(443)),
            server_name: host.trim_matches(['[', ']']).to_owned(),
            host: url.authority().map_or(host, |authority| authority.as_str()).to_owned(),
            path: path.to_owned(),
        })
    }

    fn shown(&self, address: &Address) -> String {
        self.url.clone().unwrap_or_else(|| format!("https://{}{}?timeout=30s", address.host, address.path))
    }

    fn tls(&self) -> Result<TlsConnector, String> {
        let mut roots = RootCertStore::empty();
        let bundle = match &self.ca_bundle {
            Some(bundle) => bundle.clone(),
            None => std::fs::read(SYSTEM_ROOTS).unwrap_or_default(),
        };
        for certificate in CertificateDer::pem_slice_iter(&bundle).flatten() {
            // One that cannot be used is no reason not to trust the others.
            let _ = roots.add(certificate);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Asks webhooks; finds Services in the registry.
pub(super) struct Webhooks {
    registry: Weak<Registry>,
    rng: SharedRng,
}

impl Webhooks {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        Self { registry: Arc::downgrade(registry), rng: Arc::clone(&registry.rng) }
    }

    /// The uid of a question.
    pub(super) fn new_uid(&self) -> String {
        self.rng.uuid()
    }

    /// Asks and reads the answer; the error is in the words of Go's HTTP client.
    pub(super) async fn post(&self, target: &Target, question: &Value) -> Result<Value, String> {
        let registry = self.registry.upgrade().ok_or("the server stops")?;
        let address = target.address(&registry)?;
        drop(registry);
        let failed = |why: &str| format!("Post {:?}: {why}", target.shown(&address));
        match tokio::time::timeout(TIME_MAX, exchange(target, &address, question)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(failed(&why)),
            Err(_) => Err(failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")),
        }
    }
}

async fn exchange(target: &Target, address: &Address, question: &Value) -> Result<Value, String> {
    let dial = |error: std::io::Error| {
        let why = if error.kind() == std::io::ErrorKind::ConnectionRefused {
            "connect: connection refused".to_owned()
        } else {
            error.to_string()
        };
        format!("dial tcp {}: {why}", address.dial)
    };
    let name = ServerName::try_from(address.server_name.clone()).map_err(|error| error.to_string())?;
    let stream = TcpStream::connect(&address.dial).await.map_err(dial)?;
    let stream = target
        .tls()?
        .connect(name, stream)
        .await
        .map_err(|error| format!("tls: failed to verify certificate: {error}"))?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    // Ends with the answer.
    let connection = tokio::spawn(connection);
    let request = http::Request::post(&address.path)
        .header(HOST, &address.host)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, */*")
        .header(USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(Bytes::from(question.to_string())))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(text)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| error.to_string())?;
    connection.abort();
    if !status.is_success() {
        return Err(format!(
            "the server responded with the status code {} but did not return more information",
            status.as_u16()
        ));
    }
    serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
}
