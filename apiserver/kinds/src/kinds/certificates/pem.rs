//! What is wrong with the certificates and requests that stand in an object, as base64 of PEM.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Key algorithms, and what Go says of a signature by them that does not hold.
const FAILURES: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.1", "crypto/rsa: verification error"),
    ("1.2.840.10045.2.1", "x509: ECDSA verification failure"),
    ("1.3.101.112", "x509: Ed25519 verification failure"),
];

fn blocks(base64: &str) -> Vec<Pem> {
    let bytes = STANDARD.decode(base64).unwrap_or_default();
    Pem::iter_from_buffer(&bytes).map_while(Result::ok).collect()
}

/// What is wrong with a request for a certificate: one PKCS #10 in PEM, signed with the key it is for.
pub(super) fn bad_request(base64: &str) -> Option<String> {
    let blocks = blocks(base64);
    let Some(block) = blocks.first().filter(|block| block.label == "CERTIFICATE REQUEST") else {
        return Some("PEM block type must be CERTIFICATE REQUEST".to_owned());
    };
    let request = match X509CertificationRequest::from_der(&block.contents) {
        Ok(([], request)) => request,
        Ok(_) => return Some("asn1: syntax error: trailing data".to_owned()),
        Err(error) => return Some(format!("asn1: structure error: {error}")),
    };
    request.verify_signature().err().map(|error| {
        let key = request.certification_request_info.subject_pki.algorithm.algorithm.to_id_string();
        let known = FAILURES.iter().find(|(id, _)| *id == key);
        known.map_or_else(|| error.to_string(), |(_, failure)| (*failure).to_owned())
    })
}

/// What is wrong with issued certificates: nothing but certificates in PEM, at least one.
pub(super) fn bad_certificates(base64: &str) -> Option<String> {
    let blocks = blocks(base64);
    for block in &blocks {
        if block.label != "CERTIFICATE" {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {:?}", block.label));
        }
        if block.contents.is_empty() {
            return Some("found CERTIFICATE PEM block containing 0 certificates".to_owned());
        }
        if X509Certificate::from_der(&block.contents).is_err() {
            return Some("x509: malformed certificate".to_owned());
        }
    }
    blocks.is_empty().then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}
