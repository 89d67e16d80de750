//! The few requests of S3 that backups need: put, list, remove; signed with version 4 of AWS's signatures. Works with
//! every store that speaks S3 with the bucket in the path.
//!
//! Source: AWS, "Signature Calculations for the Authorization Header" and "Amazon S3 REST API".

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{Method, Request, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use reeve_api::clock::{Clock as _, RealClock};
use ring::hmac;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::io::ReaderStream;

use super::Failed;
use super::place::Kept;
use crate::kubectl::api::encode;

/// How long a connection, an answer and an upload may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
const UPLOAD_TIME_MAX: Duration = Duration::from_secs(3600);
/// A longer answer is none of ours: a page of a list has a thousand names.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Pages of a list that are read.
const PAGES_MAX: usize = 1000;

type Body = BoxBody<Bytes, std::io::Error>;

/// Who asks. Without a secret nothing can be asked.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    key: String,
    secret: String,
    session: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Of a file as AWS writes it, or of the environment.
    pub(crate) fn find(file: Option<&Path>) -> Result<Self, Failed> {
        let found = match file {
            Some(file) => {
                let text = std::fs::read_to_string(file).map_err(|err| Failed::io("read", file, err))?;
                Self::parse(&text)
            }
            None => {
                let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
                let (key, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
                let session = variable("AWS_SESSION_TOKEN");
                key.zip(secret).map(|(key, secret)| Self { key, secret, session })
            }
        };
        found.ok_or_else(|| {
            let rule = "no credentials for S3: aws_access_key_id and aws_secret_access_key in a file, or \
                        $AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY";
            Failed::Refused(rule.to_owned())
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            lines.map(|(own, value)| (own.trim(), value.trim())).find(|(own, _)| *own == name)
        };
        let text = |name: &str| value(name).map(|(_, value)| value.to_owned()).filter(|value| !value.is_empty());
        Some(Self {
            key: text("aws_access_key_id")?,
            secret: text("aws_secret_access_key")?,
            session: text("aws_session_token"),
        })
    }
}

/// A prefix in a bucket, and how it is reached.
#[derive(Debug)]
pub(crate) struct Bucket {
    endpoint: http::Uri,
    region: String,
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    credentials: Credentials,
}

impl Bucket {
    /// `s3://BUCKET/PREFIX?endpoint=URL&region=NAME`
    pub(crate) fn parse(text: &str, credentials: Credentials) -> Result<Self, Failed> {
        let invalid = |rule: &str| Failed::Refused(format!("invalid address {text:?}: {rule}"));
        let rest = text.strip_prefix("s3://").ok_or_else(|| invalid("it begins with s3://"))?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let is_plain = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/'))
        };
        if bucket.is_empty() || !is_plain(path) {
            return Err(invalid("s3://BUCKET/PREFIX of letters, digits, '-', '.', '_'"));
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (mut endpoint, mut region) = (variable("AWS_ENDPOINT_URL"), variable("AWS_REGION"));
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "endpoint" => endpoint = Some(value.to_owned()),
                "region" => region = Some(value.to_owned()),
                _ => return Err(invalid("behind the question mark stand endpoint and region")),
            }
        }
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
        let endpoint: http::Uri = endpoint.parse().map_err(|_| invalid("its endpoint is no address"))?;
        if !matches!(endpoint.scheme_str(), Some("http" | "https")) || endpoint.host().is_none() {
            return Err(invalid("its endpoint is http://HOST:PORT or https://HOST:PORT"));
        }
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { endpoint, region, bucket: bucket.to_owned(), prefix, credentials })
    }

    /// All objects of the prefix, by their names below it.
    pub(crate) async fn list(&self) -> Result<Vec<Kept>, Failed> {
        let (mut kept, mut token) = (Vec::new(), None::<String>);
        for _ in 0..PAGES_MAX {
            let mut query = vec![("list-type", "2".to_owned()), ("prefix", self.prefix.clone())];
            query.extend(token.take().map(|token| ("continuation-token", token)));
            let page = self.ask(Asked { query, ..Asked::of(Method::GET, "") }, ANSWER_TIME_MAX).await?;
            for object in elements(&page, "Contents") {
                let (Some(key), Some(size)) = (element(object, "Key"), element(object, "Size")) else { continue };
                if let Some(name) = key.strip_prefix(&self.prefix) {
                    kept.push(Kept { name: name.to_owned(), bytes: size.parse().unwrap_or(0) });
                }
            }
            token = element(&page, "NextContinuationToken");
            if token.is_none() {
                return Ok(kept);
            }
        }
        Err(self.failed("list", &format!("there are more than {PAGES_MAX} pages")))
    }

    /// Uploads a file: it is there whole or not at all, and its SHA-256 is checked by the other side.
    pub(crate) async fn put(&self, file: &Path, name: &str) -> Result<(), Failed> {
        let failed = |err| Failed::io("read", file, err);
        let (path, hashed) = (file.to_owned(), file.to_owned());
        let read = tokio::task::spawn_blocking(move || hash_of(&hashed)).await;
        let (hash, len) = read.map_err(|err| Failed::Server(err.to_string()))?.map_err(failed)?;
        let opened = tokio::fs::File::open(&path).await.map_err(failed)?;
        let body = StreamBody::new(ReaderStream::new(opened).map_ok(Frame::data)).boxed();
        let asked = Asked { body, hash, len, ..Asked::of(Method::PUT, name) };
        self.ask(asked, UPLOAD_TIME_MAX).await.map(drop)
    }

    /// Removes an object.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Failed> {
        self.ask(Asked::of(Method::DELETE, name), ANSWER_TIME_MAX).await.map(drop)
    }

    async fn ask(&self, asked: Asked, time: Duration) -> Result<String, Failed> {
        let what = format!("{} {}", asked.method, asked.name);
        let answered = tokio::time::timeout(time, self.send(asked)).await;
        let (status, text) = answered
            .map_err(|_| self.failed(&what, &format!("no answer within {time:?}")))?
            .map_err(|err| self.failed(&what, &err))?;
        if status.is_success() {
            return Ok(text);
        }
        let told = [element(&text, "Code"), element(&text, "Message")].into_iter().flatten().collect::<Vec<_>>();
        Err(self.failed(&what, &format!("{status}: {}", told.join(": "))))
    }

    fn failed(&self, what: &str, why: &dyn std::fmt::Display) -> Failed {
        Failed::Server(format!("s3://{}/{} at {}: {what}: {why}", self.bucket, self.prefix, self.endpoint))
    }

    async fn send(&self, asked: Asked) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
        let path = match &*asked.name {
            "" => format!("/{}", self.bucket),
            name => format!("/{}/{}{name}", self.bucket, self.prefix),
        };
        let query = canonical_query(&asked.query);
        let host = self.endpoint.authority().map_or("", |authority| authority.as_str()).to_owned();
        let mut headers = vec![("host", host)];
        headers.extend(self.credentials.session.clone().map(|session| ("x-amz-security-token", session)));
        let signing = Signing { region: &self.region, credentials: &self.credentials, at: RealClock::new().now() };
        let headers = signing.signed(asked.method.as_str(), (&path, &query), headers, &asked.hash);
        let uri = if query.is_empty() { path } else { format!("{path}?{query}") };
        let mut request = Request::builder().method(asked.method).uri(uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.header(http::header::CONTENT_LENGTH, asked.len).body(asked.body)?;
        let stream = tokio::time::timeout(CONNECT_TIME_MAX, self.connect()).await??;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection); // ends with the sender
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        connection.abort();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        let host = self.endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_tls = self.endpoint.scheme_str() == Some("https");
        let port = self.endpoint.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await?;
        if !is_tls {
            return Ok(Box::new(stream));
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(trusted());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(std::io::Error::other)?.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        Ok(Box::new(tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
    }
}

/// A connection, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The CAs of `$AWS_CA_BUNDLE`, or the system's.
fn trusted() -> Vec<CertificateDer<'static>> {
    let bundle = std::env::var_os("AWS_CA_BUNDLE").and_then(|path| CertificateDer::pem_file_iter(path).ok());
    bundle.map_or_else(reeve_apiserver::system_roots, |bundle| bundle.filter_map(Result::ok).collect())
}

struct Asked {
    method: Method,
    /// Below the prefix; empty for the bucket itself.
    name: String,
    query: Vec<(&'static str, String)>,
    body: Body,
    hash: String,
    len: u64,
}

impl Asked {
    fn of(method: Method, name: &str) -> Self {
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed();
        Self { method, name: name.to_owned(), query: Vec::new(), body, hash: hex(&Sha256::digest(b"")), len: 0 }
    }
}

fn hash_of(file: &Path) -> std::io::Result<(String, u64)> {
    let (mut file, mut hasher, mut len) = (std::fs::File::open(file)?, Sha256::new(), 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((hex(&hasher.finalize()), len));
        }
        hasher.update(&buffer[..n]);
        len += n as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn canonical_query(query: &[(&str, String)]) -> String {
    let mut pairs: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    pairs.sort();
    pairs.join("&")
}

/// What a signature is made with.
struct Signing<'s> {
    region: &'s str,
    credentials: &'s Credentials,
    at: Timestamp,
}

impl Signing<'_> {
    /// The headers of a request with its signature. `path` and `query` are encoded; `hash` is of the body.
    fn signed(
        &self,
        method: &str,
        (path, query): (&str, &str),
        mut headers: Vec<(&'static str, String)>,
        hash: &str,
    ) -> Vec<(&'static str, String)> {
        let moment = self.at.strftime("%Y%m%dT%H%M%SZ").to_string();
        let day = &moment[..8];
        headers.push(("x-amz-content-sha256", hash.to_owned()));
        headers.push(("x-amz-date", moment.clone()));
        headers.sort();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let listed: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let canonical = format!("{method}\n{path}\n{query}\n{listed}\n{names}\n{hash}");
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let canonical = hex(&Sha256::digest(canonical.as_bytes()));
        let text = format!("AWS4-HMAC-SHA256\n{moment}\n{scope}\n{canonical}");
        let mut key = format!("AWS4{}", self.credentials.secret).into_bytes();
        for part in [day, self.region, "s3", "aws4_request"] {
            key = keyed(&key, part);
        }
        let signature = hex(&keyed(&key, &text));
        let credential = &self.credentials.key;
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={credential}/{scope}, SignedHeaders={names}, Signature={signature}");
        headers.push(("authorization", authorization));
        headers
    }
}

fn keyed(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// The contents of all elements of that name, as they stand there.
fn elements<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let pieces = text.split(&open).skip(1);
    pieces.filter_map(|piece| piece.split_once(&close)).map(|(inner, _)| inner).collect()
}

/// The text of the first element of that name.
fn element(text: &str, name: &str) -> Option<String> {
    let inner = *elements(text, name).first()?;
    let escapes = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    Some(escapes.iter().fold(inner.to_owned(), |text, (escape, sign)| text.replace(escape, sign)))
}

#[cfg(test)]
mod tests;
