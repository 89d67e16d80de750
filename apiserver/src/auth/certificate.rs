//! The user that a client certificate names: the common name is the user, the organizations are the groups.
//!
//! Source: Kubernetes, "Authenticating", section "X.509 client certificates". The chain itself was checked by TLS.

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
    Some(UserInfo { name: name.to_owned(), groups: groups.map(str::to_owned).collect(), ..UserInfo::default() })
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
        assert_eq!(user(certificate.der()), Some(UserInfo::new("system:node:a", &["system:nodes"])));
        assert_eq!(user(b"nonsense"), None);
    }
}
