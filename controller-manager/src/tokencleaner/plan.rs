//! What becomes of a bootstrap token.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

/// The field with the moment at which a token ends.
pub(super) const EXPIRATION: &str = "expiration";

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has no end.
    Stays,
    /// It has so much time left.
    EndsIn(Duration),
    /// It goes.
    Ended,
}

/// As Kubernetes decides: a moment that cannot be read has passed.
pub(super) fn fate(secret: &Secret, now: Timestamp) -> Fate {
    let text = secret.data.as_ref().and_then(|data| data.get(EXPIRATION)).map(|text| &text.0[..]).unwrap_or_default();
    if text.is_empty() {
        return Fate::Stays;
    }
    let end = std::str::from_utf8(text).ok().and_then(|text| text.parse::<Timestamp>().ok());
    match end.and_then(|end| Duration::try_from(end.duration_since(now)).ok()) {
        Some(left) if !left.is_zero() => Fate::EndsIn(left),
        _ => Fate::Ended,
    }
}
