//! The token that `continue` carries: at which revision and behind which key the next page begins.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reeve_store::Revision;
use serde::{Deserialize, Serialize};

use crate::status::ApiError;

/// Where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// The state all pages show; `None`: whatever is newest then.
    pub(super) revision: Option<Revision>,
    /// The first key that may be on the page, behind the resource's prefix.
    pub(super) start: String,
}

/// The form on the wire; opaque to clients.
#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    start: String,
}

/// Names the format.
const VERSION: &str = "meta.k8s.io/v1";

impl Token {
    /// For the page behind `last`.
    pub(super) fn after(revision: Revision, last: &[u8]) -> Self {
        Self { revision: Some(revision), start: format!("{}\0", String::from_utf8_lossy(last)) }
    }

    pub(super) fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX));
        let wire = Wire { v: VERSION.to_owned(), rv, start: self.start.clone() };
        serde_json::to_vec(&wire).map(|text| BASE64_URL_SAFE_NO_PAD.encode(text)).unwrap_or_default()
    }

    pub(super) fn decode(text: &str) -> Result<Self, ApiError> {
        let invalid = |why: String| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let bytes =
            BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|error| invalid(error.to_string()))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        if wire.v != VERSION {
            return Err(invalid("server does not recognize this encoded version".to_owned()));
        }
        match wire.rv {
            -1 => Ok(Self { revision: None, start: wire.start }),
            rv => match u64::try_from(rv) {
                Ok(rv) if rv > 0 => Ok(Self { revision: Some(Revision(rv)), start: wire.start }),
                _ => Err(invalid("incorrect encoded start resourceVersion".to_owned())),
            },
        }
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
    fn what_is_no_token_is_a_bad_request() {
        for text in ["%%%", "e30", "bm9wZQ"] {
            let error = Token::decode(text).unwrap_err();
            assert!(error.code == 400 && error.message.starts_with("continue key is not valid: "), "{error}");
        }
    }
}
