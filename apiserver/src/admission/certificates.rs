//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who approves or signs a
//! CertificateSigningRequest may do so for its signer, and nobody becomes an administrator by a certificate.
//!
//! Source: Kubernetes' plugins `certificates/approval`, `certificates/signing` and `certificates/subjectrestriction`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

use super::{Attributes, Operation, forbidden};
use crate::auth::{self, Target};
use crate::registry::Registry;
use crate::status::ApiError;

const GROUP: &str = "certificates.k8s.io";

/// The signer of client certificates for this API server.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Refuses what the user may not approve or sign, and what nobody may ask for.
pub(super) fn validate(registry: &Registry, attributes: &Attributes<'_>) -> Result<(), ApiError> {
    if !attributes.request.resource.is(GROUP, "certificatesigningrequests") {
        return Ok(());
    }
    match (attributes.operation, attributes.subresource, attributes.old) {
        (Operation::Create, "", _) => subject(attributes),
        (Operation::Update, "approval", Some(old)) => permitted(registry, attributes, old, "approve"),
        (Operation::Update, "status", Some(old)) => {
            let changed = |field: &str| !is_same(&old["status"][field], &attributes.object["status"][field]);
            if changed("certificate") || changed("conditions") {
                return permitted(registry, attributes, old, "sign");
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether two values are the same; one that is absent is as good as an empty one.
fn is_same(old: &Value, new: &Value) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    old == new || (is_empty(old) && is_empty(new))
}

/// The permission is one for the signer of the request as it was, or for all signers of its domain.
fn permitted(registry: &Registry, attributes: &Attributes<'_>, old: &Value, verb: &str) -> Result<(), ApiError> {
    let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
    let domain = signer.split('/').next().unwrap_or_default();
    let all = format!("{domain}/*");
    let authorizer = registry.policies.authorizer();
    let user = &attributes.request.user;
    let may = |name: &str| {
        let target = Target::Resource {
            group: GROUP,
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            field_selector: "",
        };
        let asked = auth::Attributes { user, verb, target };
        // Before there is anybody to ask, nobody may.
        authorizer.is_some_and(|authorizer| authorizer.decide(&asked).is_allowed())
    };
    if may(signer) || may(&all) {
        return Ok(());
    }
    Err(forbidden(attributes, &format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

fn subject(attributes: &Attributes<'_>) -> Result<(), ApiError> {
    let spec = &attributes.object["spec"];
    if spec["signerName"] != CLIENT_SIGNER {
        return Ok(());
    }
    let request = spec["request"].as_str().and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
    let groups = organizations(&request);
    let groups = groups.map_err(|why| forbidden(attributes, &format!("failed to parse CSR: {why}")))?;
    if groups.iter().any(|group| group == "system:masters") {
        let why = format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
        return Err(forbidden(attributes, &why));
    }
    Ok(())
}

/// The common name in the subject of a request: the name of the user that the certificate would make.
pub(super) fn common_name(spec: &Value) -> Result<String, String> {
    let request = spec["request"].as_str().and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
    let (_, pem) = parse_x509_pem(&request).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    let mut names = parsed.certification_request_info.subject.iter_common_name();
    Ok(names.next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned())
}

/// The organizations in the subject of a request (PEM): the groups of the user that the certificate would make.
fn organizations(request: &[u8]) -> Result<Vec<String>, String> {
    let (_, pem) = parse_x509_pem(request).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    let names = parsed.certification_request_info.subject.iter_organization();
    Ok(names.filter_map(|name| name.as_str().ok().map(str::to_owned)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_groups_of_a_request_are_its_organizations() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        params.distinguished_name.push(rcgen::DnType::CommonName, "me");
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        assert_eq!(organizations(pem.as_bytes()), Ok(vec!["system:masters".to_owned()]));
        assert!(organizations(b"nothing").is_err());
        assert_eq!(common_name(&json!({"request": BASE64.encode(&pem)})), Ok("me".to_owned()));
    }

    #[test]
    fn what_is_absent_is_the_same_as_what_is_empty() {
        assert!(is_same(&Value::Null, &json!([])));
        assert!(is_same(&json!(""), &Value::Null));
        assert!(!is_same(&Value::Null, &json!([{"type": "Approved"}])));
    }
}
