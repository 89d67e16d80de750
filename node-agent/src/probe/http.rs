//! HTTP probes and hooks: one GET, as the kubelet makes it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Outcome, PortError, dial_error, port};

/// Most of an answer that is read. Source: kubelet `maxRespBodyLength`.
const BODY_MAX: usize = 10 * 1024;
/// Redirects to the same host that are followed. Source: Go's `http.Client`.
const REDIRECTS_MAX: u32 = 10;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpTarget {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// Why there is no answer. The texts are Go's, as they stand in kubelet events.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("Get \"{url}\": dial tcp {address}: {reason}")]
    Dial { url: String, address: String, reason: String },
    #[error("Get \"{url}\": {reason}")]
    Exchange { url: String, reason: String },
    #[error("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)")]
    Timeout { url: String },
}

impl HttpTarget {
    /// What `get` means for a container of a pod with that address.
    pub(crate) fn of(get: &HTTPGetAction, container: &Container, ip: Option<IpAddr>) -> Result<Self, HttpError> {
        let host = get.host.clone().filter(|host| !host.is_empty());
        let path = get.path.clone().unwrap_or_default();
        let headers = get.http_headers.iter().flatten();
        Ok(Self {
            tls: get.scheme.as_deref() == Some("HTTPS"),
            host: host.or_else(|| ip.map(|ip| ip.to_string())).unwrap_or_default(),
            port: port(&get.port, container)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
            headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
        })
    }

    fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.address(), self.path)
    }
}

/// Probes; what counts as success is any status from 200 to 399.
pub(crate) async fn probe(target: &HttpTarget, limit: Duration) -> Outcome {
    match get(target, limit).await {
        Ok(status) if status.is_success() || status.is_redirection() => Outcome::Success,
        Ok(status) => Outcome::Failure(format!("HTTP probe failed with statuscode: {}", status.as_u16())),
        Err(HttpError::Port(error)) => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Failure(error.to_string()),
    }
}

/// One GET within `limit`, following redirects to the same host.
pub(crate) async fn get(target: &HttpTarget, limit: Duration) -> Result<StatusCode, HttpError> {
    let follow = async {
        let mut target = target.clone();
        for _ in 0..REDIRECTS_MAX {
            let (status, location) = exchange(&target).await?;
            match location.filter(|_| status.is_redirection()).and_then(|location| redirected(&target, &location)) {
                Some(next) => target = next,
                None => return Ok(status),
            }
        }
        Err(HttpError::Exchange { url: target.url(), reason: "stopped after 10 redirects".to_owned() })
    };
    match tokio::time::timeout(limit, follow).await {
        Ok(result) => result,
        Err(_) => Err(HttpError::Timeout { url: target.url() }),
    }
}

/// Where a redirect leads, if it stays on the same host; one that does not counts as success.
fn redirected(from: &HttpTarget, location: &str) -> Option<HttpTarget> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(HttpTarget { path: location.to_owned(), ..from.clone() });
    }
    let uri: Uri = location.parse().ok()?;
    let tls = uri.scheme_str()? == "https";
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let same = uri.host().map(|host| host.trim_matches(['[', ']'])) == Some(from.host.as_str());
    same.then(|| HttpTarget { tls, port, path, ..from.clone() })
}

async fn exchange(target: &HttpTarget) -> Result<(StatusCode, Option<String>), HttpError> {
    let address = target.address();
    let stream = TcpStream::connect(&address).await.map_err(|error| HttpError::Dial {
        url: target.url(),
        address: address.clone(),
        reason: dial_error(&error),
    })?;
    let ends = stream.local_addr().ok().zip(stream.peer_addr().ok());
    if !target.tls {
        return over(stream, target, ends).await;
    }
    let failed = |reason: String| HttpError::Exchange { url: target.url(), reason };
    let config = unverified().map_err(|error| failed(error.to_string()))?;
    let name = ServerName::try_from(target.host.clone()).map_err(|error| failed(error.to_string()))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| failed(tls_reason(&error)))?;
    over(stream, target, ends).await
}

/// Why no TLS session came about, in Go's words where it has some.
fn tls_reason(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidMessage(_)) => "http: server gave HTTP response to HTTPS client".to_owned(),
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => error.to_string(),
    }
}

/// Why an exchange ended without an answer, in Go's words. `ends` are the addresses of this side and the other.
fn exchange_reason(error: &hyper::Error, ends: Option<(SocketAddr, SocketAddr)>) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let (Some(io), Some((own, other))) = (inner.downcast_ref::<io::Error>(), ends)
            && io.raw_os_error().is_some()
        {
            let reason = dial_error(io);
            return format!("read tcp {own}->{other}: {}", reason.replacen("connect:", "read:", 1));
        }
        cause = inner.source();
    }
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "EOF".to_owned()
    } else if error.is_parse() {
        "net/http: HTTP/1.x transport connection broken: malformed HTTP response".to_owned()
    } else {
        error.to_string()
    }
}

async fn over<S>(
    stream: S,
    target: &HttpTarget,
    ends: Option<(SocketAddr, SocketAddr)>,
) -> Result<(StatusCode, Option<String>), HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |reason: String| HttpError::Exchange { url: target.url(), reason };
    let broken = |error: hyper::Error| failed(exchange_reason(&error, ends));
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(broken)?;
    let request = request(target).map_err(|error| failed(error.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status();
        let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        read_some(answer.into_body()).await;
        Ok((status, location))
    };
    tokio::pin!(exchange);
    // The connection makes progress only while it is polled; it ends by itself or with the exchange.
    tokio::select! {
        result = &mut exchange => result,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(broken(error)),
        },
    }
}

/// A server that is cut off while it writes would log an error: its answer is read, within limits.
async fn read_some(body: Incoming) {
    // What the answer says does not matter, nor whether it is complete.
    let _ = Limited::new(body, BODY_MAX).collect().await;
}

fn request(target: &HttpTarget) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut builder = Request::builder().method(Method::GET).uri(target.path.as_str());
    let mut host = target.address();
    let (mut agent, mut accept) = (Some("kube-probe/1.36".to_owned()), Some("*/*".to_owned()));
    for (name, value) in &target.headers {
        match name.to_ascii_lowercase().as_str() {
            "host" => host.clone_from(value),
            "user-agent" => agent = Some(value.clone()).filter(|value| !value.is_empty()),
            "accept" => accept = Some(value.clone()).filter(|value| !value.is_empty()),
            lower => {
                builder = builder.header(HeaderName::try_from(lower)?, HeaderValue::try_from(value.as_str())?);
            }
        }
    }
    for (name, value) in [(header::USER_AGENT, agent), (header::ACCEPT, accept), (header::HOST, Some(host))] {
        if let Some(value) = value {
            builder = builder.header(name, value);
        }
    }
    builder.header(header::CONNECTION, "close").body(Empty::new())
}

fn unverified() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Kubernetes: "the kubelet skips certificate verification" for HTTPS probes.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers every connection with `answer`; yields the first request.
    async fn server(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 4096];
            let len = stream.read(&mut bytes).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&bytes[..len]).into_owned()
        });
        (port, task)
    }

    fn target(port: u16) -> HttpTarget {
        HttpTarget {
            tls: false,
            host: "127.0.0.1".to_owned(),
            port,
            path: "/healthz?x=1".to_owned(),
            headers: vec![("Host".to_owned(), "example.com".to_owned()), ("X-A".to_owned(), "b".to_owned())],
        }
    }

    #[tokio::test]
    async fn the_request_is_the_kubelets_and_the_status_decides() {
        let (port, request) = server("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno").await;
        let outcome = probe(&target(port), Duration::from_secs(5)).await;
        assert_eq!(outcome, Outcome::Failure("HTTP probe failed with statuscode: 503".to_owned()));
        let request = request.await.unwrap();
        assert!(request.starts_with("GET /healthz?x=1 HTTP/1.1\r\n"), "{request}");
        for line in ["host: example.com", "x-a: b", "user-agent: kube-probe/1.36", "accept: */*"] {
            assert!(request.to_ascii_lowercase().contains(line), "{line} in {request}");
        }
        let (port, _request) =
            server("HTTP/1.1 302 Found\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(probe(&target(port), Duration::from_secs(5)).await, Outcome::Success);
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_or_speaks_nonsense_is_a_failure_in_gos_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for kind in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = [0; 4096];
                match kind {
                    // Closed in order, after the request was read.
                    0 => drop(stream.read(&mut bytes).await.unwrap()),
                    // Closed with a reset: there is something unread.
                    1 => stream.set_zero_linger().unwrap(),
                    _ => {
                        assert!(stream.read(&mut bytes).await.unwrap() > 0);
                        stream.write_all(b"220 mail.example ESMTP\r\n").await.unwrap();
                    }
                }
            }
        });
        let get = |scheme: &str| format!("Get \"{scheme}://127.0.0.1:{port}/healthz?x=1\": ");
        let closed = probe(&target(port), Duration::from_secs(5)).await;
        assert_eq!(closed, Outcome::Failure(format!("{}EOF", get("http"))));
        let Outcome::Failure(reset) = probe(&target(port), Duration::from_secs(5)).await else { panic!("no failure") };
        let own = format!("->127.0.0.1:{port}: read: connection reset by peer");
        assert!(reset.starts_with(&format!("{}read tcp 127.0.0.1:", get("http"))) && reset.ends_with(&own), "{reset}");
        let Outcome::Failure(nonsense) = probe(&target(port), Duration::from_secs(5)).await else {
            panic!("no failure")
        };
        assert!(nonsense.ends_with("malformed HTTP response"), "{nonsense}");
        let tls = HttpTarget { tls: true, ..target(port) };
        let plain = probe(&tls, Duration::from_secs(5)).await;
        let text = format!("{}http: server gave HTTP response to HTTPS client", get("https"));
        assert_eq!(plain, Outcome::Failure(text));
    }

    #[tokio::test]
    async fn silence_and_refusal_are_failures_in_gos_words() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = format!("http://127.0.0.1:{port}/healthz?x=1");
        let silent = probe(&target(port), Duration::from_millis(50)).await;
        let text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        assert_eq!(silent, Outcome::Failure(format!("Get \"{url}\": {text}")));
        drop(listener);
        let refused = probe(&target(port), Duration::from_secs(1)).await;
        let text = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(refused, Outcome::Failure(format!("Get \"{url}\": {text}")));
    }
}
