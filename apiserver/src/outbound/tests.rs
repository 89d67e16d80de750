//! Guarantees about where calls go and whom they trust. Calls themselves: the registry's tests of webhooks.

use super::*;

#[test]
fn a_service_is_called_by_its_name_in_the_cluster() {
    let place = Place::Service { namespace: "n".to_owned(), name: "s".to_owned(), port: 443 };
    assert_eq!((place.host().as_str(), place.authority().as_str()), ("s.n.svc", "s.n.svc:443"));
    assert!(!place.is_loopback());
}

#[test]
fn only_the_own_machine_is_offered_http2() {
    for (host, expected) in [("localhost", true), ("127.0.0.1", true), ("[::1]", true), ("example.com", false)] {
        assert_eq!(Place::Host(host.to_owned(), 443).is_loopback(), expected, "{host}");
    }
}

#[test]
fn a_bundle_without_a_certificate_is_no_trust() {
    let error = Trust::in_bundle(b"nothing".to_vec()).connector(false).err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("unable to load root certificates: unable to parse bytes as PEM block"));
}
