//! What is spoken with a registry: requests with the right authorization, and the words for what goes wrong.
//!
//! A registry is a stranger. It may answer whatever it likes, as much as it likes: of every answer only so much is read
//! as it may need, and of what it says about an error only so much is shown as a person reads. Digests are the
//! caller's to check, and so is how long all may take.
//!
//! Source: OCI distribution specification 1.1; for tokens docs.docker.com/registry/spec/auth/token and /oauth. The
//! words of errors follow containerd's, which people search for.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE,
    WWW_AUTHENTICATE,
};
use hyper::{Method, StatusCode};
use reqwest::{Body, Certificate, RequestBuilder, Response, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::blobs::DOCUMENT_BYTES_MAX;
use super::challenge::{Challenge, challenges};
use super::credentials::TOKEN_USER;
use super::manifest::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::pull::{Failure, STALL_TIMEOUT, install_crypto};
use super::reference::Digest;
use super::registries::Endpoint;
use super::transfer::Pieces;
use super::unsent::unsent;
use crate::engine::RegistryAuth;

/// Largest answer of who gives tokens.
const TOKEN_BYTES_MAX: u64 = 1 << 20;
/// So much of an error's document is read.
const ERROR_BYTES_MAX: u64 = 64 << 10;
/// So many characters of what a registry says are shown.
const MESSAGE_LEN_MAX: usize = 256;
/// Who we are to those who give tokens.
const CLIENT_ID: &str = "reeve";
/// Where Docker's registry is.
const DOCKER_HUB: &str = "registry-1.docker.io";

/// What is to be done with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// Why a registry did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// It wants somebody else, or nobody.
    Denied,
    /// It has no such thing.
    NotFound,
    /// Anything else, in words.
    Other(Failure),
}

impl Wrong {
    fn lasting(reason: impl Into<String>) -> Self {
        Self::Other(Failure::lasting(reason))
    }
}

/// One repository at one place, with one set of credentials.
pub(crate) struct Repository {
    http: reqwest::Client,
    /// `https://HOST/v2/REPOSITORY/`
    base: Url,
    scope: String,
    auth: Option<RegistryAuth>,
    /// What requests carry, as soon as the registry has asked for it.
    authorization: Mutex<Option<HeaderValue>>,
}

/// What gives a token answers.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What a registry says about an error.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: Option<String>,
}

impl Repository {
    /// A client of its own per image: nothing is shared between two sets of credentials.
    pub(crate) fn new(endpoint: Endpoint, access: Access, connect_timeout: Duration) -> Result<Self, Failure> {
        install_crypto();
        let Endpoint { host, repository, plain, ca, skip_verify, auth, .. } = endpoint;
        let invalid = |error: &dyn std::error::Error| Failure::lasting(format!("registry {host}: {error}"));
        let ca = ca.map(|pem| Certificate::from_pem_bundle(&pem)).transpose().map_err(|error| invalid(&error))?;
        let http = reqwest::Client::builder()
            .connect_timeout(connect_timeout)
            .read_timeout(STALL_TIMEOUT)
            .tls_danger_accept_invalid_certs(skip_verify)
            .tls_certs_merge(ca.unwrap_or_default())
            .user_agent(concat!("reeve/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| invalid(&error))?;
        let scheme = if plain { "http" } else { "https" };
        let address = if host == "docker.io" { DOCKER_HUB } else { host.as_str() };
        let base = Url::parse(&format!("{scheme}://{address}/v2/{repository}/")).map_err(|error| invalid(&error))?;
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let scope = format!("repository:{repository}:{actions}");
        Ok(Self { http, base, scope, auth, authorization: Mutex::default() })
    }

    /// A manifest or index, by tag or digest. What the registry says its digest is must be true.
    pub(crate) async fn manifest(&self, reference: &str) -> Result<Vec<u8>, Wrong> {
        let accepted = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST].join(", ");
        let url = self.url(&format!("manifests/{reference}"))?;
        let mut answer = self.ask(Method::GET, &url, |request| request.header(ACCEPT, &accepted)).await?;
        if answer.status() != StatusCode::OK {
            return Err(refusal(&Method::GET, answer).await);
        }
        let announced = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        let announced = announced.and_then(|text| Digest::parse(text).ok());
        let Some(bytes) = read(&mut answer, DOCUMENT_BYTES_MAX).await.map_err(|error| broken(&url, &error))? else {
            return Err(Wrong::lasting(format!("{}: larger than {DOCUMENT_BYTES_MAX} bytes", shown(&url))));
        };
        match announced {
            Some(announced) if announced != Digest::of(&bytes) => Err(Wrong::lasting(format!(
                "{}: the registry says that its digest is {announced}, but it is {}",
                shown(&url),
                Digest::of(&bytes)
            ))),
            _ => Ok(bytes),
        }
    }

    /// A blob from `offset` on, and whether it begins there: else at its beginning.
    pub(crate) async fn blob(&self, digest: &Digest, offset: u64) -> Result<(Pieces, bool), Wrong> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let from = |request: RequestBuilder| match offset {
            0 => request,
            _ => request.header(RANGE, format!("bytes={offset}-")),
        };
        let mut answer = self.ask(Method::GET, &url, from).await?;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE && offset > 0 {
            answer = self.ask(Method::GET, &url, |request| request).await?;
        }
        let partial = match answer.status() {
            StatusCode::OK => false,
            StatusCode::PARTIAL_CONTENT if offset > 0 && begins_at(answer.headers(), offset) => true,
            StatusCode::PARTIAL_CONTENT => {
                return Err(Wrong::lasting(format!("{}: other bytes than were asked for", shown(&url))));
            }
            StatusCode::NOT_FOUND => {
                return Err(Wrong::lasting(format!("content at {} not found: not found", shown(&url))));
            }
            _ => return Err(refusal(&Method::GET, answer).await),
        };
        let next = |(mut answer, url): (Response, Url)| async move {
            let piece = answer.chunk().await.map_err(|error| io::Error::other(unsent(&url, &error).reason));
            Some((piece.transpose()?, (answer, url)))
        };
        Ok((stream::unfold((answer, url), next).boxed(), partial))
    }

    /// Whether the registry has a blob.
    pub(crate) async fn has_blob(&self, digest: &Digest) -> Result<bool, Wrong> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let answer = self.ask(Method::HEAD, &url, |request| request).await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refusal(&Method::HEAD, answer).await),
        }
    }

    /// Takes a blob from another repository of the registry; `false` if the registry wants it to be sent.
    pub(crate) async fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool, Wrong> {
        let mut url = self.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", digest.as_str()).append_pair("from", from);
        let answer = self.ask(Method::POST, &url, |request| request.header(CONTENT_LENGTH, 0)).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(true),
            StatusCode::ACCEPTED => {
                // It waits for the blob already: not for this one.
                if let Some(begun) = location(&answer).filter(|begun| begun.origin() == self.base.origin()) {
                    let _ = self.ask(Method::DELETE, &begun, |request| request).await;
                }
                Ok(false)
            }
            _ => Err(refusal(&Method::POST, answer).await),
        }
    }

    /// Sends a blob of so many bytes.
    pub(crate) async fn put_blob(&self, digest: &Digest, size: u64, content: Body) -> Result<(), Wrong> {
        let url = self.url("blobs/uploads/")?;
        let answer = self.ask(Method::POST, &url, |request| request.header(CONTENT_LENGTH, 0)).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(refusal(&Method::POST, answer).await);
        }
        let mut location = location(&answer)
            .ok_or_else(|| Wrong::lasting(format!("{}: the registry does not say where to send it", shown(&url))))?;
        location.query_pairs_mut().append_pair("digest", digest.as_str());
        let request = self.http.put(location.clone()).header(CONTENT_TYPE, "application/octet-stream");
        let request = request.header(CONTENT_LENGTH, size).body(content);
        // The registry's "yes" is for itself, not for whoever it names.
        let own = location.origin() == self.base.origin();
        let carried = self.authorization.lock().await.clone().filter(|_| own);
        let answer = send(request, &location, carried.as_ref()).await?;
        expect_created(&Method::PUT, answer).await
    }

    /// Sends a manifest under a tag.
    pub(crate) async fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<(), Wrong> {
        let url = self.url(&format!("manifests/{tag}"))?;
        let with_bytes = |request: RequestBuilder| request.header(CONTENT_TYPE, media_type).body(bytes.to_vec());
        let answer = self.ask(Method::PUT, &url, with_bytes).await?;
        expect_created(&Method::PUT, answer).await
    }

    fn url(&self, path: &str) -> Result<Url, Wrong> {
        self.base.join(path).map_err(|error| Wrong::lasting(format!("{}{path}: {error}", self.base)))
    }

    /// Sends a request, and once more when the registry asks who it is from.
    async fn ask(
        &self,
        method: Method,
        url: &Url,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Wrong> {
        let request = || with(self.http.request(method.clone(), url.clone()));
        let carried = self.authorization.lock().await.clone();
        let answer = send(request(), url, carried.as_ref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        match self.authorize(answer.headers(), carried).await? {
            Some(authorization) => send(request(), url, Some(&authorization)).await,
            None => Ok(answer),
        }
    }

    /// What the registry wants to see, when `carried` is not that; `None` when there is nothing more to show.
    async fn authorize(&self, headers: &HeaderMap, carried: Option<HeaderValue>) -> Result<Option<HeaderValue>, Wrong> {
        let mut current = self.authorization.lock().await;
        if *current != carried {
            // Another request was faster.
            return Ok(current.clone());
        }
        let said = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let offered: Vec<Challenge> = said.flat_map(challenges).collect();
        let by = |scheme: &str| offered.iter().find(|own| own.scheme == scheme);
        let shown = match (by("bearer"), by("basic"), &self.auth) {
            (Some(bearer), _, _) => Some(self.token(bearer).await?),
            (None, Some(_), Some(own)) if own.username != TOKEN_USER => Some(basic(own)?),
            _ => None,
        };
        if shown == carried {
            return Ok(None);
        }
        current.clone_from(&shown);
        Ok(shown)
    }

    /// Asks for a token: with user and password, with an identity token, or as nobody.
    async fn token(&self, challenge: &Challenge) -> Result<HeaderValue, Wrong> {
        let realm = challenge.parameter("realm").unwrap_or_default();
        let realm = Url::parse(realm).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let mut url = realm.ok_or_else(|| Wrong::lasting("the registry does not say where tokens are to be had"))?;
        let mut fields = vec![("scope", self.scope.as_str())];
        fields.extend(challenge.parameter("service").map(|service| ("service", service)));
        let (request, carried) = match &self.auth {
            Some(own) if own.username == TOKEN_USER => {
                fields.extend([("grant_type", "refresh_token"), ("client_id", CLIENT_ID)]);
                fields.push(("refresh_token", own.password.as_str()));
                let mut form = url.clone();
                form.query_pairs_mut().clear().extend_pairs(fields);
                let request = self.http.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                (request.body(form.query().unwrap_or_default().to_owned()), None)
            }
            own => {
                url.query_pairs_mut().extend_pairs(fields);
                (self.http.get(url.clone()), own.as_ref().map(basic).transpose()?)
            }
        };
        let why = |wrong| match wrong {
            Wrong::Other(failure) => {
                let kind = if self.auth.is_some() { "oauth" } else { "anonymous" };
                let reason = format!("failed to authorize: failed to fetch {kind} token: {}", failure.reason);
                Wrong::Other(Failure { reason, ..failure })
            }
            other => other,
        };
        let mut answer = send(request, &url, carried.as_ref()).await.map_err(why)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Wrong::Denied),
            _ => return Err(why(refusal(&Method::GET, answer).await)),
        }
        let bytes = read(&mut answer, TOKEN_BYTES_MAX).await.map_err(|error| broken(&url, &error))?;
        let token: Option<Token> = serde_json::from_slice(&bytes.unwrap_or_default()).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        let header = token.and_then(|token| secret(format!("Bearer {token}")));
        header.ok_or_else(|| why(Wrong::lasting(format!("{}: there is no token in the answer", shown(&url)))))
    }
}

async fn send(request: RequestBuilder, url: &Url, carried: Option<&HeaderValue>) -> Result<Response, Wrong> {
    let request = match carried {
        Some(carried) => request.header(AUTHORIZATION, carried.clone()),
        None => request,
    };
    request.send().await.map_err(|error| broken(url, &error))
}

fn broken(url: &Url, error: &reqwest::Error) -> Wrong {
    Wrong::Other(unsent(url, error))
}

/// Where a registry says that it goes on.
fn location(answer: &Response) -> Option<Url> {
    let text = answer.headers().get(LOCATION)?.to_str().ok()?;
    answer.url().join(text).ok()
}

async fn expect_created(method: &Method, answer: Response) -> Result<(), Wrong> {
    match answer.status() {
        StatusCode::CREATED => Ok(()),
        _ => Err(refusal(method, answer).await),
    }
}

/// A body of at most so many bytes; `None` when there are more.
async fn read(answer: &mut Response, max: u64) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if (bytes.len() + piece.len()) as u64 > max {
            return Ok(None);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Some(bytes))
}

/// What a registry that does not want to has said, shortened.
async fn refusal(method: &Method, mut answer: Response) -> Wrong {
    let (status, url) = (answer.status(), answer.url().clone());
    match status {
        StatusCode::UNAUTHORIZED => return Wrong::Denied,
        StatusCode::NOT_FOUND => return Wrong::NotFound,
        _ => {}
    }
    let body = read(&mut answer, ERROR_BYTES_MAX).await.ok().flatten().unwrap_or_default();
    let said = said(&body).map(|said| format!(": {said}")).unwrap_or_default();
    let reason = format!("unexpected status from {method} request to {}: {status}{said}", shown(&url));
    let transient = matches!(status.as_u16(), 408 | 429 | 500..);
    Wrong::Other(Failure { transient, ..Failure::lasting(reason) })
}

/// The registry's own words, where it speaks as registries do: `toomanyrequests: You have reached …`.
fn said(body: &[u8]) -> Option<String> {
    let Errors { errors } = serde_json::from_slice(body).ok()?;
    let of = |said: Said| match said.message {
        Some(message) => format!("{}: {message}", said.code.to_lowercase()),
        None => said.code.to_lowercase(),
    };
    let text = errors.into_iter().map(of).collect::<Vec<_>>().join("; ");
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let text: String = plain.take(MESSAGE_LEN_MAX).collect();
    (!text.is_empty()).then_some(text)
}

/// An address without what may be secret in it.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

/// Whether a part of a blob begins where it should.
fn begins_at(headers: &HeaderMap, offset: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok()?.strip_prefix("bytes "));
    // Who does not say is believed: the digest decides.
    range.is_none_or(|range| range.split('-').next().and_then(|start| start.trim().parse().ok()) == Some(offset))
}

fn basic(auth: &RegistryAuth) -> Result<HeaderValue, Wrong> {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", auth.username, auth.password));
    secret(format!("Basic {pair}")).ok_or(Wrong::Denied)
}

fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_maybe_shared(Bytes::from(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_says_is_shown_in_plain_words_and_short() {
        let one = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow \u001b[31mdown"},{"code":"DENIED"}]}"#;
        assert_eq!(said(one).as_deref(), Some("toomanyrequests: slow  [31mdown; denied"));
        let long = format!(r#"{{"errors":[{{"code":"X","message":"{}"}}]}}"#, "y".repeat(10_000));
        assert_eq!(said(long.as_bytes()).map(|text| text.len()), Some(MESSAGE_LEN_MAX));
        for nothing in [&b"<html>502</html>"[..], b"", br#"{"errors":[]}"#, b"[[["] {
            assert_eq!(said(nothing), None);
        }
    }

    #[test]
    fn a_part_must_begin_where_the_blob_broke_off() {
        let headers = |text: &'static str| HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(text))]);
        assert!(begins_at(&headers("bytes 7-9/10"), 7));
        assert!(!begins_at(&headers("bytes 0-9/10"), 7));
        assert!(begins_at(&HeaderMap::new(), 7));
    }

    #[test]
    fn what_is_secret_in_an_address_is_not_shown() {
        let url = Url::parse("https://cdn.example/blob?signature=s3cret").unwrap();
        assert_eq!(shown(&url), "https://cdn.example/blob");
    }
}
