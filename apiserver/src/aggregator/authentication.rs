//! The ConfigMap `kube-system/extension-apiserver-authentication`: by it other API servers recognize this server's
//! users and this server itself.
//!
//! What others have written there besides stays, as long as its certificates are valid: several API servers may share
//! it. Source: the cluster authentication trust controller of Kubernetes.

use std::sync::Arc;

use jiff::Timestamp;
use reeve_store::Revision;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::auth::front_proxy::{EXTRA, GROUP, USER};
use crate::custom::own_request;
use crate::pki::{FRONT_PROXY_CLIENT, Pki};
use crate::registry::{Body, Registry, Request, Resource};
use crate::status::ApiError;

/// The ConfigMap. The role `extension-apiserver-authentication-reader` beside it allows to read it.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";

/// What has to stand in the ConfigMap.
pub(super) struct Authentication {
    client_ca: String,
    front_proxy_ca: String,
    /// The version in which it was last found right.
    right: Option<Revision>,
}

const END: &str = "-----END CERTIFICATE-----";

impl Authentication {
    pub(super) fn new(pki: &Pki) -> Self {
        let (client_ca, front_proxy_ca) = (pki.ca_pem().to_owned(), pki.front_proxy_ca_pem().to_owned());
        Self { client_ca, front_proxy_ca, right: None }
    }

    /// Makes the ConfigMap, or completes it, if it has changed since it was last right.
    pub(super) async fn ensure(&mut self, registry: &Arc<Registry>) -> Result<(), ApiError> {
        let Some(resource) = registry.core("configmaps") else { return Ok(()) };
        let found = registry.peek(&resource, NAMESPACE, NAME);
        let revision = found.as_ref().map(|found| found.revision);
        if revision.is_some() && revision == self.right {
            return Ok(());
        }
        let there = found.as_ref().map(|found| found.value());
        let data = there.as_ref().map(|there| there["data"].clone()).unwrap_or_default();
        let wanted = self.data(&data, registry.clock.now());
        if data == wanted {
            self.right = revision;
            return Ok(());
        }
        let written = match there {
            Some(mut there) => {
                there["data"] = wanted;
                registry.update(&request(&resource, NAME), Body::from(there)).await
            }
            None => {
                let object = json!({"metadata": {"name": NAME, "namespace": NAMESPACE}, "data": wanted});
                registry.create(&request(&resource, ""), Body::from(object)).await
            }
        };
        match written {
            // Looked at again when the cache shows it.
            Err(error) if error.is_conflict() || error.is_not_found() || error.is_already_exists() => Ok(()),
            written => written.map(drop),
        }
    }

    fn data(&self, there: &Value, now: Timestamp) -> Value {
        let text = |key: &str| there[key].as_str().unwrap_or_default();
        let mut data: Map<String, Value> = Map::new();
        for (key, own) in [("client-ca-file", &self.client_ca), ("requestheader-client-ca-file", &self.front_proxy_ca)]
        {
            data.insert(key.to_owned(), bundle(text(key), own, now).into());
        }
        for (key, own) in [
            ("requestheader-allowed-names", FRONT_PROXY_CLIENT),
            ("requestheader-extra-headers-prefix", EXTRA),
            ("requestheader-group-headers", GROUP),
            ("requestheader-username-headers", USER),
        ] {
            let mut all: Vec<String> = serde_json::from_str(text(key)).unwrap_or_default();
            if !all.iter().any(|one| one == own) {
                all.push(own.to_owned());
            }
            data.insert(key.to_owned(), json!(all).to_string().into());
        }
        if let Some(uid) = there["requestheader-uid-headers"].as_str() {
            data.insert("requestheader-uid-headers".to_owned(), uid.into());
        }
        Value::Object(data)
    }
}

fn request(resource: &Arc<Resource>, name: &str) -> Request {
    Request { namespace: NAMESPACE.to_owned(), ..own_request(Arc::clone(resource), name) }
}

/// The certificates of both texts, each once, without those that have expired.
fn bundle(there: &str, own: &str, now: Timestamp) -> String {
    let mut all: Vec<String> = Vec::new();
    for text in [there, own] {
        for block in text.split_inclusive(END).map(str::trim).filter(|block| block.ends_with(END)) {
            let block = format!("{block}\n");
            if !all.contains(&block) && is_valid(&block, now) {
                all.push(block);
            }
        }
    }
    all.concat()
}

fn is_valid(pem: &str, now: Timestamp) -> bool {
    CertificateDer::from_pem_slice(pem.as_bytes()).is_ok_and(|der| {
        X509Certificate::from_der(&der).is_ok_and(|(_, own)| own.validity().not_after.timestamp() > now.as_second())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn what_others_have_written_stays_unless_it_has_expired() {
        let (own, front, other, old) = (certificate(2100), certificate(2100), certificate(2100), certificate(2020));
        let authentication = Authentication { client_ca: own.clone(), front_proxy_ca: front.clone(), right: None };
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let fresh = authentication.data(&Value::Null, now);
        assert_eq!(fresh.as_object().unwrap().len(), 6);
        assert_eq!((&fresh["client-ca-file"], &fresh["requestheader-client-ca-file"]), (&json!(own), &json!(front)));
        assert_eq!(fresh["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
        assert_eq!(fresh["requestheader-extra-headers-prefix"], r#"["X-Remote-Extra-"]"#);
        assert_eq!(authentication.data(&fresh, now), fresh);
        let there = json!({"client-ca-file": format!("{old}{other}"), "requestheader-allowed-names": r#"["me"]"#});
        let joined = authentication.data(&there, now);
        assert_eq!(joined["client-ca-file"], format!("{other}{own}"));
        assert_eq!(joined["requestheader-allowed-names"], r#"["me","front-proxy-client"]"#);
    }
}
