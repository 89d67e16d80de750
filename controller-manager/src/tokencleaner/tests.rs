//! When a token goes.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::plan::{Fate, fate};

#[test]
fn a_token_goes_when_its_time_is_up_and_not_before() {
    let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
    let of = |expiration: Option<&str>| {
        let expiration = expiration.map(|text| ("expiration".to_owned(), ByteString(text.as_bytes().to_vec())));
        let secret = Secret { data: Some(expiration.into_iter().collect()), ..Secret::default() };
        fate(&secret, now)
    };
    assert_eq!((of(None), of(Some(""))), (Fate::Stays, Fate::Stays));
    assert_eq!(of(Some("2026-06-01T12:00:05Z")), Fate::EndsIn(Duration::from_secs(5)));
    for over in ["2026-06-01T12:00:00Z", "2026-06-01T11:00:00Z", "2026-06-01T13:00:00+02:00", "tomorrow"] {
        assert_eq!(of(Some(over)), Fate::Ended, "{over}");
    }
}
