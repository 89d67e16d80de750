//! The user that a client certificate names: the common name is the user, the organizations are the groups. Which
//! certificate it was stands in the user's extra facts.
//!
//! Source: Kubernetes, "Authenticating", section "X.509 client certificates". The chain itself was checked by TLS.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::registry::UserInfo;

/// Reads the user from a certificate in DER; `None` when it names nobody.
pub(crate) fn user(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups = certificate.subject().iter_organization().filter_map(|group| group.as_str().ok());
    let groups = groups.map(str::to_owned).collect();
    Some(UserInfo { name: name.to_owned(), groups, extra: credential(der), ..UserInfo::default() })
}

/// When a certificate ends, in seconds since 1970.
pub(crate) fn ends(der: &[u8]) -> Option<i64> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate.validity().not_after.timestamp())
}

/// Which credential the user has shown.
fn credential(der: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut id = "X509SHA256=".to_owned();
    for byte in Sha256::digest(der) {
        let _ = write!(id, "{byte:02x}");
    }
    BTreeMap::from([("authentication.kubernetes.io/credential-id".to_owned(), vec![id])])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_name_is_the_user_and_every_organization_a_group() {
        let mut params = rcgen::CertificateParams::default();
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::OrganizationName, "system:nodes");
        name.push(rcgen::DnType::CommonName, "system:node:a");
        params.distinguished_name = name;
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let read = user(certificate.der()).unwrap();
        assert_eq!((read.name.as_str(), read.groups.as_slice()), ("system:node:a", &["system:nodes".to_owned()][..]));
        let id = &read.extra["authentication.kubernetes.io/credential-id"][0];
        assert!(id.starts_with("X509SHA256=") && id.len() == 11 + 64, "{id}");
        assert_eq!(user(b"nonsense"), None);
    }
}
