//! Tokens of clients that can set no header: pages ask for a WebSocket with the token among its protocols.
//!
//! Source: `k8s.io/apiserver` `authentication/request/websocket`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL};

use crate::http::web_socket;

const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Makes a token among the protocols an `Authorization` header, where there is none, and takes it out of them. One
/// that cannot be read becomes a header that no token is in: wrong credentials, not missing ones.
pub(crate) fn unwrap_token(headers: &mut HeaderMap) {
    if headers.contains_key(AUTHORIZATION) || !web_socket::is_asked_for(headers) {
        return;
    }
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        web_socket::protocols(headers).partition(|protocol| protocol.starts_with(PREFIX));
    let [encoded] = tokens[..] else {
        if tokens.len() > 1 {
            headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer"));
        }
        return;
    };
    let decoded = URL_SAFE_NO_PAD.decode(encoded.strip_prefix(PREFIX).unwrap_or_default()).ok();
    // The server has to name one protocol in its answer, and must not name the token.
    let token = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|_| !others.is_empty());
    let authorization = HeaderValue::try_from(format!("Bearer {}", token.unwrap_or_default()));
    let others = HeaderValue::try_from(others.join(","));
    headers.insert(AUTHORIZATION, authorization.unwrap_or(HeaderValue::from_static("Bearer")));
    if let Ok(others) = others {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(protocols: &str, authorization: Option<&str>, left: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("connection", HeaderValue::from_static("Upgrade"));
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocols).unwrap());
        unwrap_token(&mut headers);
        assert_eq!(headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap()), authorization);
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], left);
    }

    #[test]
    fn a_token_among_the_protocols_is_a_credential() {
        check(&format!("{PREFIX}Zm9v, binary.k8s.io"), Some("Bearer foo"), "binary.k8s.io");
        check("binary.k8s.io", None, "binary.k8s.io");
    }

    #[test]
    fn tokens_that_cannot_be_read_are_wrong_credentials() {
        check(&format!("{PREFIX}!!, a"), Some("Bearer "), "a");
        check(&format!("{PREFIX}Zm9v"), Some("Bearer "), "");
        check(&format!("{PREFIX}Zm9v,{PREFIX}Zm9v"), Some("Bearer"), &format!("{PREFIX}Zm9v,{PREFIX}Zm9v"));
    }
}
