//! Service-account tokens: signed claims, and what they must agree with while they are used.
//!
//! ES256 only. A token is bound to the service account's uid and, when asked for, to one pod or secret: it dies
//! with them. Source of the claims: KEP-1205 (bound service-account tokens), KEP-4193 (improvements).

use std::collections::BTreeMap;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::AUTHENTICATED;
use crate::registry::UserInfo;

/// Longest token that is looked at: ours have about 1 KiB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why tokens cannot be signed.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The PEM does not hold a P-256 key.
    #[error("the service-account signing key cannot be read")]
    Read(#[from] rcgen::Error),
    /// The key cannot sign or verify.
    #[error("the service-account signing key cannot be used")]
    Use(#[from] jsonwebtoken::errors::Error),
}

/// An object that a token names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
}

/// The claims under `kubernetes.io`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Private {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Named>,
    pub(crate) serviceaccount: Named,
}

/// All claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) private: Private,
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

impl Claims {
    /// The user they prove, once everything they name was found alive.
    pub(crate) fn user(&self) -> UserInfo {
        let private = &self.private;
        let namespace_group = format!("system:serviceaccounts:{}", private.namespace);
        let mut extra = BTreeMap::new();
        let mut set = |key: &str, value: String| {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
        };
        set("credential-id", format!("JTI={}", self.jti));
        for (kind, named) in [("pod", &private.pod), ("node", &private.node)] {
            if let Some(named) = named {
                set(&format!("{kind}-name"), named.name.clone());
                // That of a node that was not there when the token was made is not known.
                if !named.uid.is_empty() {
                    set(&format!("{kind}-uid"), named.uid.clone());
                }
            }
        }
        let groups = ["system:serviceaccounts", &namespace_group, AUTHENTICATED].map(str::to_owned).to_vec();
        UserInfo {
            name: self.sub.clone(),
            uid: private.serviceaccount.uid.clone(),
            groups,
            extra,
            ..UserInfo::default()
        }
    }
}

/// Signs and checks tokens with the cluster's key.
pub(crate) struct TokenKey {
    issuer: String,
    key_id: String,
    /// The two halves of the public point, 32 bytes each.
    point: [Vec<u8>; 2],
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl TokenKey {
    /// From the key's PEM (PKCS#8). `issuer` stands in every token and is the audience of the API server.
    pub(crate) fn new(key_pem: &str, issuer: &str) -> Result<Self, TokenKeyError> {
        let pair = KeyPair::from_pem(key_pem)?;
        let digest = Sha256::digest(pair.subject_public_key_info());
        let key_id = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let signing = EncodingKey::from_ec_pem(key_pem.as_bytes())?;
        let verifying = DecodingKey::from_ec_pem(pair.public_key_pem().as_bytes())?;
        // Uncompressed: 4, then the halves.
        let raw = pair.public_key_raw();
        let half = |at: usize| raw.get(at..at + 32).map(<[u8]>::to_vec).unwrap_or_default();
        Ok(Self { issuer: issuer.to_owned(), key_id, point: [half(1), half(33)], signing, verifying })
    }

    /// The public key as a JSON Web Key Set (RFC 7517): with it anybody can check tokens.
    pub(crate) fn jwks(&self) -> serde_json::Value {
        use base64::Engine as _;
        let [x, y] = self.point.each_ref().map(|half| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(half));
        serde_json::json!({"keys": [
            {"use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256", "x": x, "y": y},
        ]})
    }

    /// The issuer, which is also the API server's own audience.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A signed token.
    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, TokenKeyError> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, claims, &self.signing)?)
    }

    /// The claims of a token that this key signed, that is meant for the API server and that is valid at `now`.
    /// Whether what it names is alive is for the caller to check.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Option<Claims> {
        self.verify_for(&[&self.issuer], token, now)
    }

    /// The same for a token that is meant for one of these audiences.
    pub(crate) fn verify_for(&self, audiences: &[&str], token: &str, now: Timestamp) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut validation = Validation::new(Algorithm::ES256);
        // The time is checked below, against the Clock; the library asks the system.
        validation.validate_exp = false;
        validation.set_audience(audiences);
        validation.set_issuer(&[&self.issuer]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &validation).ok()?.claims;
        let now = now.as_second();
        let subject =
            format!("system:serviceaccount:{}:{}", claims.private.namespace, claims.private.serviceaccount.name);
        (now < claims.exp && now >= claims.nbf && claims.sub == subject).then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    fn key() -> TokenKey {
        TokenKey::new(&KeyPair::generate().unwrap().serialize_pem(), ISSUER).unwrap()
    }

    fn claims(now: Timestamp) -> Claims {
        let named = |name: &str| Named { name: name.to_owned(), uid: format!("{name}-uid") };
        Claims {
            aud: vec![ISSUER.to_owned()],
            exp: now.as_second() + 600,
            iat: now.as_second(),
            iss: ISSUER.to_owned(),
            jti: "j".to_owned(),
            private: Private {
                namespace: "ns".to_owned(),
                node: None,
                pod: Some(named("p")),
                secret: None,
                serviceaccount: named("sa"),
            },
            nbf: now.as_second(),
            sub: "system:serviceaccount:ns:sa".to_owned(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn a_token_proves_its_service_account_until_it_expires() {
        let key = key();
        let token = key.sign(&claims(now())).unwrap();
        let user = key.verify(&token, now()).unwrap().user();
        assert_eq!(user.name, "system:serviceaccount:ns:sa");
        assert!(user.in_group("system:serviceaccounts:ns"));
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
        assert_eq!(key.verify(&token, now() + Duration::from_secs(600)), None);
        assert_eq!(key.verify(&token, now() - Duration::from_secs(1)), None);
    }

    #[test]
    fn a_token_for_others_by_others_or_changed_is_worth_nothing() {
        let key = key();
        let elsewhere = Claims { aud: vec!["vault".to_owned()], ..claims(now()) };
        assert_eq!(key.verify(&key.sign(&elsewhere).unwrap(), now()), None);
        let forged = Claims { sub: "system:serviceaccount:kube-system:admin".to_owned(), ..claims(now()) };
        assert_eq!(key.verify(&key.sign(&forged).unwrap(), now()), None);
        let stranger = TokenKey::new(&KeyPair::generate().unwrap().serialize_pem(), ISSUER).unwrap();
        assert_eq!(key.verify(&stranger.sign(&claims(now())).unwrap(), now()), None);
        let token = key.sign(&claims(now())).unwrap();
        assert_eq!(key.verify(&token[..token.len() - 2], now()), None);
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", token.split('.').nth(1).unwrap());
        assert_eq!(key.verify(&unsigned, now()), None);
    }
}
