//! The token that `continue` carries: at which revision and behind which key the next page begins.

use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine as _};
use reeve_store::Revision;
use serde::{Deserialize, Serialize};

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// The state all pages show; `None`: whatever is newest then.
    pub(crate) revision: Option<Revision>,
    /// The first key that may be on the page, behind the prefix of the collection: as in Kubernetes, a token of one
    /// namespace goes on in whichever it is used.
    pub(crate) start: String,
}

/// The form on the wire; opaque to clients.
#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(default)]
    v: String,
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    start: String,
}

/// Names the format.
const VERSION: &str = "meta.k8s.io/v1";

impl Token {
    /// For the page behind `last`.
    pub(crate) fn after(revision: Revision, last: &[u8]) -> Self {
        Self { revision: Some(revision), start: format!("{}\0", String::from_utf8_lossy(last)) }
    }

    pub(crate) fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX));
        let wire = Wire { v: VERSION.to_owned(), rv, start: self.start.clone() };
        serde_json::to_vec(&wire).map(|text| BASE64_URL_SAFE_NO_PAD.encode(text)).unwrap_or_default()
    }

    /// Why a text is no token is told in Kubernetes' words, as far as they are not Go's.
    pub(crate) fn decode(text: &str) -> Result<Self, String> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len(),
            };
            format!("illegal base64 data at input byte {at}")
        })?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|error| {
            // Go's words, where they are about the text and not about types.
            if error.is_data() { error.to_string() } else { crate::go_json::complaint(&bytes) }
        })?;
        if wire.v != VERSION {
            // The sentence in which this stands begins with the same words in Kubernetes.
            return Err(format!("server does not recognize this encoded version {}", wire.v));
        }
        if wire.rv == 0 {
            return Err(format!("incorrect encoded start resourceVersion (version {VERSION})"));
        }
        if wire.start.is_empty() {
            return Err(format!("encoded start key empty (version {VERSION})"));
        }
        let inner = wire.start.strip_prefix('/').unwrap_or(&wire.start);
        if inner.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(wire.start);
        }
        Ok(Self { revision: u64::try_from(wire.rv).ok().map(Revision), start: inner.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_way_to_the_client_and_back() {
        for token in [Token::after(Revision(7), b"ns/a"), Token { revision: None, start: "ns/b".to_owned() }] {
            assert_eq!(Token::decode(&token.encode()).unwrap(), token);
        }
    }

    #[test]
    fn what_is_no_token_is_refused_in_kubernetes_words() {
        let refusal = |text: &str| Token::decode(&BASE64_URL_SAFE_NO_PAD.encode(text)).unwrap_err();
        assert_eq!(Token::decode("%%%").unwrap_err(), "illegal base64 data at input byte 0");
        assert_eq!(refusal("{}"), "server does not recognize this encoded version ");
        let wire = |rv: i64, start: &str| format!(r#"{{"v":"meta.k8s.io/v1","rv":{rv},"start":"{start}"}}"#);
        assert_eq!(refusal(&wire(0, "a")), "incorrect encoded start resourceVersion (version meta.k8s.io/v1)");
        assert_eq!(refusal(&wire(1, "")), "encoded start key empty (version meta.k8s.io/v1)");
        for start in ["../a", "a/../b", "a//b", "a/./b", "a/"] {
            assert_eq!(refusal(&wire(1, start)), start);
        }
    }
}
