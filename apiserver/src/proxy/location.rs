//! URLs that the other side gives, put below the path that it has for the client. Pure.
//!
//! Source: `Transport` of `k8s.io/apimachinery/pkg/util/proxy`; what a URL is, is Go's `net/url`.

use std::sync::Arc;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use crate::status::ApiError;

const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// What is rewritten, and how. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Links(Arc<Places>);

#[derive(Debug)]
struct Places {
    /// Path of the other side's root, for the client.
    prepend: String,
    /// `HOST:PORT` of the other side.
    source: String,
    /// The host that the client asked for.
    host: String,
}

/// [`Links`] of one request.
#[derive(Debug)]
pub(super) struct Rewrite {
    links: Links,
}

impl Rewrite {
    /// `own` is the path that the client asked for, `asked` what it asks the other side, at `authority`, for.
    pub(super) fn new(own: &str, asked: &str, authority: &str, parts: &Parts) -> Self {
        let mut suffix = asked.to_owned();
        if own.ends_with('/') && !suffix.ends_with('/') {
            suffix.push('/');
        }
        let prepend = own.strip_suffix(suffix.as_str()).unwrap_or(own).to_owned();
        let named = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = named.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default();
        let places = Places { prepend, source: authority.to_owned(), host: host.to_owned() };
        Self { links: Links(Arc::new(places)) }
    }

    /// What rewrites links.
    pub(super) fn links(&self) -> Links {
        self.links.clone()
    }

    /// Tells the other side under which path the client knows `path` (escaped).
    pub(super) fn add_uri(&self, headers: &mut HeaderMap, path: &str) {
        let mut uri = clean(&format!("{}/{path}", self.links.0.prepend));
        if path.ends_with('/') && !uri.ends_with('/') {
            uri.push('/');
        }
        if let Ok(value) = HeaderValue::from_bytes(uri.as_bytes()) {
            headers.insert(FORWARDED_URI, value);
        }
    }

    /// A `Location` header as the client needs it.
    pub(super) fn location(&self, given: &HeaderValue) -> Result<HeaderValue, ApiError> {
        let wrong = |why: String| ApiError::internal(format!("error trying to parse Location header: {why}"));
        let text = std::str::from_utf8(given.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        let url = Url::parse(text).map_err(|why| wrong(format!("parse {text:?}: {why}")))?;
        match self.links.rewrite_url(&url) {
            Some(new) => HeaderValue::from_str(&new).map_err(ApiError::internal),
            None => Ok(given.clone()),
        }
    }
}

impl Links {
    /// The URL as the client needs it; `None` when it is right as it is, or no URL at all.
    pub(super) fn rewrite(&self, text: &str) -> Option<String> {
        self.rewrite_url(&Url::parse(text).ok()?)
    }

    fn rewrite_url(&self, url: &Url<'_>) -> Option<String> {
        let Places { prepend, source, host } = &*self.0;
        let is_elsewhere = !url.host.is_empty() && url.host != source && url.host != host;
        if is_elsewhere || !url.path.starts_with('/') {
            return None;
        }
        // Where the client itself asked, stays; the other side's own address means nothing to the client.
        let front = if url.host == host.as_str() { url.front() } else { String::new() };
        let path = decode(url.path);
        let below =
            if path.starts_with(prepend.as_str()) { url.path.to_owned() } else { escape(&join(prepend, &path)) };
        Some(format!("{front}{below}{}", url.rest))
    }
}

/// A URL in pieces of its text.
#[derive(Debug, PartialEq, Eq)]
struct Url<'u> {
    scheme: &'u str,
    /// With its port, without a user.
    host: &'u str,
    has_authority: bool,
    authority: &'u str,
    /// As it is written.
    path: &'u str,
    /// Query and fragment, with what begins them.
    rest: &'u str,
}

impl<'u> Url<'u> {
    fn parse(text: &'u str) -> Result<Self, &'static str> {
        if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return Err("net/url: invalid control character in URL");
        }
        let end = text.find(['?', '#']).unwrap_or(text.len());
        let (before, rest) = text.split_at(end);
        let (scheme, after) = split_scheme(before)?;
        let has_authority = after.starts_with("//") && (!scheme.is_empty() || !after.starts_with("///"));
        let (authority, path) = match after.strip_prefix("//").filter(|_| has_authority) {
            Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
            None => ("", after),
        };
        // `mailto:x` has no path at all.
        let path = if !scheme.is_empty() && !has_authority && !path.starts_with('/') { "" } else { path };
        if scheme.is_empty() && !has_authority && path.split('/').next().is_some_and(|first| first.contains(':')) {
            return Err("first path segment in URL cannot contain colon");
        }
        check_escapes(path)?;
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Ok(Self { scheme, host, has_authority, authority, path, rest })
    }

    fn front(&self) -> String {
        match (self.scheme, self.has_authority) {
            ("", true) => format!("//{}", self.authority),
            (_, true) => format!("{}://{}", self.scheme, self.authority),
            _ => String::new(),
        }
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, letter) in text.char_indices() {
        match letter {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default())),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_escapes(path: &str) -> Result<(), &'static str> {
    let bytes = path.as_bytes();
    let is_good = |at: usize| bytes.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit));
    let bad = bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !is_good(at));
    if bad { Err("invalid URL escape") } else { Ok(()) }
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A path with its dots and doubled slashes resolved, as Go's `path.Clean`; empty stays empty.
fn clean(path: &str) -> String {
    let is_rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(last) if *last != ".." => drop(parts.pop()),
                _ if is_rooted => {}
                _ => parts.push(".."),
            },
            other => parts.push(other),
        }
    }
    let joined = parts.join("/");
    if is_rooted { format!("/{joined}") } else { joined }
}

/// Two paths as one, cleaned; the slash at the end of the second stays.
pub(super) fn join(first: &str, second: &str) -> String {
    let whole = match (first.is_empty(), second.is_empty()) {
        (true, true) => return String::new(),
        (true, false) => second.to_owned(),
        (false, true) => first.to_owned(),
        (false, false) => format!("{first}/{second}"),
    };
    let mut path = clean(&whole);
    if whole.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// A decoded path as it stands in a URL; Go's rules.
pub(super) fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(own: &str, asked: &str) -> Rewrite {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.headers.insert(HOST, HeaderValue::from_static("api.example"));
        Rewrite::new(own, asked, "10.0.0.1:8080", &parts)
    }

    #[test]
    fn links_are_put_below_the_path_of_the_proxy() {
        let rewrite = rewrite("/api/v1/namespaces/a/pods/p/proxy/x/", "/x/");
        let links = rewrite.links();
        let root = "/api/v1/namespaces/a/pods/p/proxy";
        for (given, wanted) in [
            ("/rewriteme", Some("/rewriteme")),
            ("/", Some("/")),
            ("/a/../b/?q=1#f", Some("/b/?q=1#f")),
            ("http://10.0.0.1:8080/abs", Some("/abs")),
            ("/a%20b", Some("/a%20b")),
            ("relative/link", None),
            ("?query", None),
            ("#top", None),
            ("", None),
            ("http://elsewhere.example/abs", None),
            ("//elsewhere.example/abs", None),
            ("mailto:someone@example.com", None),
            ("javascript:void(0)", None),
            ("/bad%zz", None),
        ] {
            assert_eq!(links.rewrite(given), wanted.map(|path| format!("{root}{path}")), "{given}");
        }
        assert_eq!(
            links.rewrite("//api.example/y").as_deref(),
            Some("//api.example/api/v1/namespaces/a/pods/p/proxy/y")
        );
        let known = format!("{root}/known/?a");
        assert_eq!(links.rewrite(&known), Some(known.clone()), "what is there already is not put there again");
    }

    #[test]
    fn the_other_side_learns_under_which_path_it_is_known() {
        let mut headers = HeaderMap::new();
        rewrite("/api/v1/nodes/n/proxy/a/", "/a/").add_uri(&mut headers, "/a/");
        assert_eq!(headers[FORWARDED_URI], "/api/v1/nodes/n/proxy/a/");
        rewrite("/api/v1/nodes/n/proxy", "").add_uri(&mut headers, "/");
        assert_eq!(headers[FORWARDED_URI], "/api/v1/nodes/n/proxy/");
    }

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (first, second, whole) in [
            ("", "", ""),
            ("", "/", "/"),
            ("", "/a/../../b", "/b"),
            ("", "//x", "/x"),
            ("/p", "/a/", "/p/a/"),
            ("/p", "/", "/p/"),
            ("/p", "", "/p"),
        ] {
            assert_eq!(join(first, second), whole, "{first:?} {second:?}");
        }
        assert_eq!(escape("/a b/ü!*"), "/a%20b/%C3%BC%21%2A");
    }
}
