//! Why a request got no answer, in the words of Go's programs: those are what people search for. Pure.

use std::error::Error;
use std::io;

use reqwest::Url;
use rustls::CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer};

use super::client::shown;
use super::pull::Failure;

/// What kept a request to `url` from being answered.
pub(super) fn unsent(url: &Url, error: &reqwest::Error) -> Failure {
    let place = format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    let dial = |why: &str| format!("dial tcp {place}: {why}");
    let (cause, transient) = match () {
        () if error.is_redirect() => ("stopped after 10 redirects".to_owned(), false),
        () if error.is_timeout() && error.is_connect() => (dial("i/o timeout"), true),
        () if error.is_timeout() => ("i/o timeout".to_owned(), true),
        () => match deepest(error) {
            Deepest::Tls(tls) => of_tls(&tls, url),
            Deepest::System(system) if error.is_connect() => (dial(&format!("connect: {}", lower(&system))), true),
            Deepest::System(system) => (format!("read tcp {place}: {}", lower(&system)), true),
            Deepest::Ended => ("EOF".to_owned(), true),
            Deepest::Text(text) if text.contains("Name or service not known") => {
                (format!("dial tcp: lookup {}: no such host", url.host_str().unwrap_or_default()), true)
            }
            Deepest::Text(text) => (text, true),
        },
    };
    let reason = format!("failed to do request: {:?}: {cause}", shown(url));
    Failure { transient, ..Failure::lasting(reason) }
}

/// What is at the bottom of an error.
enum Deepest {
    Tls(rustls::Error),
    /// The kernel's word.
    System(io::Error),
    /// The other side hung up.
    Ended,
    Text(String),
}

fn deepest(error: &(dyn Error + 'static)) -> Deepest {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Deepest::Tls(tls.clone());
    }
    if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
        return Deepest::Ended;
    }
    if let Some(io) = error.downcast_ref::<io::Error>() {
        if let Some(code) = io.raw_os_error() {
            return Deepest::System(io::Error::from_raw_os_error(code));
        }
        // What an `io::Error` was made of is not its source, but itself.
        if let Some(inner) = io.get_ref() {
            return deepest(inner);
        }
    }
    match error.source() {
        Some(source) => deepest(source),
        None => Deepest::Text(error.to_string()),
    }
}

/// In Go's words; whether it may be otherwise in a moment.
fn of_tls(error: &rustls::Error, url: &Url) -> (String, bool) {
    let unverified = |why: &str| (format!("tls: failed to verify certificate: x509: {why}"), false);
    match error {
        // Whoever listens there does not speak TLS.
        rustls::Error::InvalidMessage(_) => ("http: server gave HTTP response to HTTPS client".to_owned(), false),
        rustls::Error::InvalidCertificate(UnknownIssuer) => unverified("certificate signed by unknown authority"),
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            unverified("certificate has expired or is not yet valid")
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            unverified(&format!("certificate is not valid for {}", url.host_str().unwrap_or_default()))
        }
        rustls::Error::InvalidCertificate(other) => unverified(&other.to_string()),
        other => (format!("tls: {other}"), true),
    }
}

/// The kernel's word as Go's and C's programs print it.
fn lower(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
