//! Which headers go to the other side, and which come back.
//!
//! Source: Go's `httputil.ReverseProxy`, which Kubernetes' proxy stands on.

use std::net::IpAddr;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;

/// What concerns one connection only.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The API server's own answer to browsers stands; that of what it proxies does not.
const CORS: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Headers that say who asks: for the API server alone.
fn is_credential(name: &HeaderName) -> bool {
    let text = name.as_str();
    *name == AUTHORIZATION
        || matches!(text, "x-remote-user" | "x-remote-uid" | "x-remote-group")
        || text.starts_with("x-remote-extra-")
        || text.starts_with("impersonate-")
}

/// Takes away what concerns one connection only.
pub(crate) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn without_credentials(parts: &Parts, address: Option<IpAddr>, authority: &str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(parts.headers.len() + 4);
    for (name, value) in parts.headers.iter().filter(|(name, _)| !is_credential(name)) {
        headers.append(name.clone(), value.clone());
    }
    // The host stays the one that the client asked for; in HTTP/2 that stands in the URI.
    let asked = parts.uri.authority().map_or(authority, |own| own.as_str());
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(asked)
    {
        headers.insert(HOST, host);
    }
    if let Some(address) = address {
        let before = headers.get_all(&FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<String> = before.map(str::to_owned).chain([address.to_canonical().to_string()]).collect();
        if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
            headers.insert(FORWARDED_FOR, value);
        }
    }
    headers
}

/// What the other side gets of a request from `address`.
pub(super) fn passed_on(parts: &Parts, address: Option<IpAddr>, authority: &str) -> HeaderMap {
    let takes_trailers = parts.headers.get(TE).is_some_and(|value| value.as_bytes() == b"trailers");
    let mut headers = without_credentials(parts, address, authority);
    drop_hop_by_hop(&mut headers);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers
}

/// The same of a request to change the protocol: that is what the connection's headers are for.
pub(super) fn upgraded(parts: &Parts, address: Option<IpAddr>, authority: &str) -> HeaderMap {
    without_credentials(parts, address, authority)
}

/// What the client gets of an answer.
pub(super) fn kept(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    drop_hop_by_hop(&mut kept);
    for name in CORS {
        kept.remove(name);
    }
    kept
}

/// As on all of the API server's answers.
pub(super) fn mark(headers: &mut HeaderMap) {
    let own: Vec<HeaderValue> = headers.get_all(CACHE_CONTROL).iter().cloned().collect();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    for value in own {
        headers.append(CACHE_CONTROL, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(pairs: &[(&'static str, &'static str)]) -> Parts {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        for (name, value) in pairs {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        parts
    }

    #[test]
    fn credentials_and_what_concerns_one_connection_stay_here() {
        let parts = parts(&[
            ("authorization", "Bearer secret"),
            ("x-remote-user", "root"),
            ("connection", "close, x-own"),
            ("x-own", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "2"),
            ("host", "api.example"),
            ("x-forwarded-for", "192.0.2.9"),
        ]);
        let sent = passed_on(&parts, Some("::ffff:192.0.2.1".parse().unwrap()), "10.0.0.1:80");
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "te", "x-forwarded-for", "x-kept"]);
        assert_eq!(sent["x-forwarded-for"], "192.0.2.9, 192.0.2.1");
        assert_eq!(sent["host"], "api.example");
        let bare = http::Request::new(()).into_parts().0;
        assert_eq!(passed_on(&bare, None, "10.0.0.1:80")["host"], "10.0.0.1:80");
    }

    #[test]
    fn an_upgrade_keeps_what_asks_for_it() {
        let parts = parts(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("authorization", "x")]);
        assert!(crate::proxy_node::is_upgrade(&parts.headers));
        let sent = upgraded(&parts, None, "h");
        assert_eq!(
            (sent["connection"].as_bytes(), sent["upgrade"].as_bytes()),
            (&b"keep-alive, Upgrade"[..], &b"websocket"[..])
        );
        assert!(!sent.contains_key("authorization"));
    }

    #[test]
    fn answers_lose_what_browsers_would_take_for_the_api_servers_word() {
        let mut headers = HeaderMap::new();
        headers.insert("access-control-allow-origin", HeaderValue::from_static("*"));
        headers.insert("cache-control", HeaderValue::from_static("max-age=1"));
        headers.insert("keep-alive", HeaderValue::from_static("timeout=1"));
        let mut kept = kept(&headers);
        mark(&mut kept);
        let all: Vec<_> = kept.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(all, [("cache-control", "no-cache, private"), ("cache-control", "max-age=1")]);
    }
}
