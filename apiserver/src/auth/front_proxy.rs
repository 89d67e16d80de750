//! Requests in another user's name: who may make them, and the headers that name the user.
//!
//! Whoever shows a certificate of the front-proxy CA with the name [`FRONT_PROXY_CLIENT`] speaks for the user of the
//! `X-Remote-*` headers; from everybody else these headers mean nothing. The same headers go to aggregated API servers,
//! in the other direction. Source: Kubernetes, "Authenticating", section "Authenticating Proxy".

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate;
use crate::pki::{FRONT_PROXY_CLIENT, Pki};
use crate::registry::UserInfo;
use crate::server::StartError;

/// The header with the user's name.
pub(crate) const USER: &str = "X-Remote-User";
/// The header with one of the user's groups; may stand several times.
pub(crate) const GROUP: &str = "X-Remote-Group";
/// What headers with further facts begin with; the fact's name follows.
pub(crate) const EXTRA: &str = "X-Remote-Extra-";
/// The header with the user's uid. Sent, but not believed: a kubeadm cluster names no header for it.
const UID: &str = "X-Remote-Uid";

/// What a header name may hold of a fact's name; everything else is percent-encoded.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// What a connection's client certificate says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Shown {
    /// There is none.
    #[default]
    Nothing,
    /// The cluster CA vouches for a user.
    User(UserInfo),
    /// The front-proxy CA vouches for somebody who may speak for others.
    FrontProxy,
    /// It is of no use: it names nobody, or somebody who may not speak for others.
    Useless,
}

/// Tells the clients of the two authorities apart.
pub(crate) struct Authorities {
    front_proxies: Arc<dyn ClientCertVerifier>,
    /// The name of the front-proxy CA, as it stands in certificates.
    front_proxy_ca: Vec<u8>,
}

impl Authorities {
    /// Those of the PKI folder.
    pub(crate) fn new(pki: &Pki) -> Result<Self, StartError> {
        let ca = CertificateDer::from_pem_slice(pki.front_proxy_ca_pem().as_bytes())?;
        let named = X509Certificate::from_der(&ca).map(|(_, parsed)| parsed.subject().as_raw().to_vec());
        let mut roots = RootCertStore::empty();
        roots.add(ca)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let front_proxies = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { front_proxies, front_proxy_ca: named.unwrap_or_default() })
    }

    /// Reads a chain that TLS has accepted: one of the two authorities has signed it.
    pub(crate) fn read(&self, chain: Option<&[CertificateDer<'_>]>) -> Shown {
        let Some([end_entity, intermediates @ ..]) = chain else { return Shown::Nothing };
        let of_front_proxy = self.is_of_front_proxy(end_entity, intermediates);
        match certificate::user(end_entity) {
            Some(user) if !of_front_proxy => Shown::User(user),
            Some(user) if user.name == FRONT_PROXY_CLIENT => Shown::FrontProxy,
            _ => Shown::Useless,
        }
    }

    fn is_of_front_proxy(&self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> bool {
        // The name alone proves nothing, but saves the second check of everybody else's signature.
        let last = intermediates.last().unwrap_or(end_entity);
        let is_named = |one: &CertificateDer<'_>| {
            X509Certificate::from_der(one).is_ok_and(|(_, own)| own.issuer().as_raw() == self.front_proxy_ca)
        };
        (is_named(end_entity) || is_named(last))
            && self.front_proxies.verify_client_cert(end_entity, intermediates, UnixTime::now()).is_ok()
    }
}

/// The user that the headers name; `None` when they name nobody.
pub(crate) fn user(headers: &HeaderMap) -> Option<UserInfo> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let name = headers.get(USER).map(text).filter(|name| !name.is_empty())?;
    let groups = headers.get_all(GROUP).iter().map(text).filter(|group| !group.is_empty()).collect();
    let mut user = UserInfo { name, groups, ..UserInfo::default() };
    for (header, value) in headers {
        if let Some(key) = extra_key(header) {
            user.extra.entry(key).or_default().push(text(value));
        }
    }
    Some(user)
}

fn extra_key(header: &HeaderName) -> Option<String> {
    // Header names are in lower case here.
    let key = header.as_str().strip_prefix("x-remote-extra-")?;
    Some(percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), String::from))
}

/// Takes away every claim to be somebody.
pub(crate) fn strip(headers: &mut HeaderMap) {
    for name in [USER, GROUP, UID] {
        headers.remove(name);
    }
    let extra: Vec<HeaderName> = headers.keys().filter(|name| extra_key(name).is_some()).cloned().collect();
    extra.iter().for_each(|name| drop(headers.remove(name)));
}

/// Names the user, and nobody else. What cannot stand in a header is left out.
pub(crate) fn name(headers: &mut HeaderMap, user: &UserInfo) {
    strip(headers);
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    user.groups.iter().for_each(|group| add(GROUP, group));
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", utf8_percent_encode(key, ESCAPED));
        values.iter().for_each(|value| add(&name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_survives_the_way_through_the_headers_and_no_claim_of_the_client_does() {
        let mut user = UserInfo::new("bob", &["a", "b c"]);
        user.extra.insert("example.com/über".to_owned(), vec!["x".to_owned(), "y".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("admin"));
        headers.append("x-remote-group", HeaderValue::from_static("system:masters"));
        headers.append("x-remote-extra-scopes", HeaderValue::from_static("all"));
        name(&mut headers, &user);
        assert_eq!(super::user(&headers), Some(user));
        assert!(headers.contains_key("x-remote-extra-example.com%2f%c3%bcber"), "{headers:?}");
        strip(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn a_uid_is_passed_on_but_not_believed() {
        let user = UserInfo { uid: "7".to_owned(), ..UserInfo::new("bob", &[]) };
        let mut headers = HeaderMap::new();
        name(&mut headers, &user);
        assert_eq!(headers["x-remote-uid"], "7");
        assert_eq!(super::user(&headers).map(|user| user.uid), Some(String::new()));
    }
}
