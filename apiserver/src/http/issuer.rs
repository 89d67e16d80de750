//! Who signs service-account tokens, and with which key: what relying parties outside the cluster need.
//!
//! Source: OpenID Connect Discovery 1.0; Kubernetes, "Managing Service Accounts", section "Service account issuer
//! discovery".

use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde_json::json;

use super::response::{self, Answer, full};
use crate::auth::token::TokenKey;

/// Both documents may be kept for an hour.
const CACHED: &str = "public, max-age=3600";

/// `/.well-known/openid-configuration`; `address` (`HOST:PORT`) is where the keys are.
pub(super) fn configuration(key: &TokenKey, address: &str) -> Answer {
    let document = json!({
        "issuer": key.issuer(),
        "jwks_uri": format!("https://{address}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    cached("application/json", document.to_string())
}

/// `/openid/v1/jwks`
pub(super) fn keys(key: &TokenKey) -> Answer {
    cached("application/jwk-set+json", key.jwks().to_string())
}

fn cached(media_type: &'static str, text: String) -> Answer {
    let mut answer = response::answer(StatusCode::OK, media_type, full(text));
    response::set(&mut answer, CACHE_CONTROL, CACHED);
    answer
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;

    use super::*;

    #[test]
    fn the_published_key_is_the_one_that_verifies_tokens() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let key = TokenKey::new(&pair.serialize_pem(), "https://issuer").unwrap();
        let set: JwkSet = serde_json::from_value(key.jwks()).unwrap();
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        let signing = jsonwebtoken::EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let token = jsonwebtoken::encode(&header, &json!({"iss": "https://issuer", "exp": 9e9}), &signing).unwrap();
        let verifying = jsonwebtoken::DecodingKey::from_jwk(&set.keys[0]).unwrap();
        let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        let claims = jsonwebtoken::decode::<serde_json::Value>(&token, &verifying, &validation).unwrap().claims;
        assert_eq!(claims["iss"], "https://issuer");
    }
}
