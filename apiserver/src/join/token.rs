//! Join tokens: how they read, how they are stored, whether one is good. Pure.
//!
//! A token is `ID.SECRET:sha256:HASH`. `ID.SECRET` is a bootstrap token as Kubernetes has them, stored as a Secret of
//! the type `bootstrap.kubernetes.io/token` in `kube-system`, with a usage of our own; `HASH` is that of the cluster
//! CA's public key, which the new server checks before it sends the secret to anybody. The secret alone gives no user:
//! the API server takes it for nothing but joining.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use jiff::Timestamp;
use reeve_api::rng::{Rng, RngExt as _};
use serde_json::{Value, json};

/// Where tokens are kept.
pub(super) const NAMESPACE: &str = "kube-system";
/// The type of their Secrets.
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// What their Secrets' names begin with.
const NAME_PREFIX: &str = "bootstrap-token-";
/// The usage without which a bootstrap token is not for servers.
pub(super) const USAGE: &str = "usage-reeve-server-join";
/// Kubernetes' alphabet and lengths of bootstrap tokens.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;
/// A SHA-256 in hexadecimal.
const HASH_LEN: usize = 64;

/// A join token, in one string for people to copy.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Which token it is; not secret.
    pub id: String,
    secret: String,
    /// The SHA-256 of the cluster CA's public key, see [`crate::pki::public_key_hash`].
    pub ca_hash: String,
}

/// A text that is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a join token: want ID.SECRET:sha256:HASH, 6 and 16 lower-case letters and digits and 64 hexadecimal digits"
)]
pub struct TokenParseError;

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).field("ca_hash", &self.ca_hash).finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}:sha256:{}", self.id, self.secret, self.ca_hash)
    }
}

impl FromStr for JoinToken {
    type Err = TokenParseError;

    fn from_str(text: &str) -> Result<Self, TokenParseError> {
        let (shown, ca_hash) = text.trim().split_once(":sha256:").ok_or(TokenParseError)?;
        let (id, secret) = split(shown).ok_or(TokenParseError)?;
        let is_hash = ca_hash.len() == HASH_LEN && ca_hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash {
            return Err(TokenParseError);
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned(), ca_hash: ca_hash.to_ascii_lowercase() })
    }
}

impl JoinToken {
    /// A new one, for the cluster whose CA has that hash. `rng` must be fit for secrets.
    #[must_use]
    pub fn generate(rng: &dyn Rng, ca_hash: String) -> Self {
        let text = |len: usize| -> String {
            (0..len)
                .map(|_| {
                    let index = usize::try_from(rng.below(ALPHABET.len() as u64)).unwrap_or(0);
                    char::from(ALPHABET[index])
                })
                .collect()
        };
        Self { id: text(ID_LEN), secret: text(SECRET_LEN), ca_hash }
    }

    /// What is shown to the server.
    pub(super) fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

/// `ID` and `SECRET` of what is shown.
pub(super) fn split(shown: &str) -> Option<(&str, &str)> {
    let is_of = |text: &str, len| text.len() == len && text.bytes().all(|byte| ALPHABET.contains(&byte));
    shown.split_once('.').filter(|(id, secret)| is_of(id, ID_LEN) && is_of(secret, SECRET_LEN))
}

/// The name of the Secret that holds the token.
pub(super) fn secret_name(id: &str) -> String {
    format!("{NAME_PREFIX}{id}")
}

/// The Secret that makes a token valid, until `expires` if that is given.
#[must_use]
pub fn bootstrap_secret(token: &JoinToken, description: &str, expires: Option<Timestamp>) -> Value {
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": TYPE,
        "metadata": {"name": secret_name(&token.id), "namespace": NAMESPACE},
        "stringData": {"token-id": token.id, "token-secret": token.secret, USAGE: "true"},
    });
    if !description.is_empty() {
        secret["stringData"]["description"] = description.into();
    }
    if let Some(expires) = expires {
        // Whole seconds, as the RFC 3339 that others read.
        let expires = Timestamp::from_second(expires.as_second()).unwrap_or(expires);
        secret["stringData"]["expiration"] = expires.to_string().into();
    }
    secret
}

/// Whether a server that shows `secret` may join; `stored` is the Secret of the token it names. Whoever does not know
/// the secret learns nothing of the token.
pub(super) fn judge(stored: Option<&Value>, secret: &str, now: Timestamp) -> Result<(), String> {
    // One that has expired is deleted sooner or later.
    let unknown = || {
        "there is no such token, or its secret is another one, or it has expired; `reeve token create` on a server \
         makes another"
            .to_owned()
    };
    let stored = stored.filter(|stored| stored["type"] == TYPE).ok_or_else(unknown)?;
    let field = |name: &str| {
        let encoded = stored["data"][name].as_str()?;
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).ok()?).ok()
    };
    if !field("token-secret").is_some_and(|own| same(own.as_bytes(), secret.as_bytes())) {
        return Err(unknown());
    }
    if !stored["metadata"]["deletionTimestamp"].is_null() {
        return Err("it is being deleted".to_owned());
    }
    if let Some(text) = field("expiration") {
        let expires: Timestamp = text.parse().map_err(|_| format!("its expiration {text:?} cannot be read"))?;
        if expires <= now {
            return Err(format!("it has expired at {text}; `reeve token create` on a server makes another"));
        }
    }
    match field(USAGE).as_deref() {
        Some("true") => Ok(()),
        _ => Err(format!("it is not for servers: {USAGE} is not \"true\"")),
    }
}

/// Compares in a time that does not tell where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}
