//! CertificateSigningRequest: somebody wants a certificate; somebody approves; somebody signs.
//!
//! Source: `pkg/apis/certificates` of Kubernetes v1.36. What is not here: who asks (`spec.username` and the like) and
//! when a condition changed, which the server fills in.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use reeve_api::names;
use serde_json::{Value, json};

use super::pem;
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, copy_field, get, int, list, object_mut, remove, set, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: "certificates.k8s.io",
    version: "v1",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short: &["csr"],
    categories: &[],
    namespaced: false,
};

/// Any name will do.
const META: MetaRules = MetaRules { namespaced: false, name: |_| Vec::new() };

/// Shortest life of a certificate that may be asked for, in seconds.
const MIN_LIFE: i64 = 600;
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// What a key may be used for, sorted.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// Conditions that are only ever true, and never go.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];
/// Of these, the ones that only an approver sets.
const APPROVALS: [&str; 2] = ["Approved", "Denied"];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::AGE,
    table::column(
        "SignerName",
        "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`.",
    ),
    table::column("Requestor", "Base64-encoded PKCS#10 CSR data"),
    table::column(
        "RequestedDuration",
        "expirationSeconds is the requested duration of validity of the issued certificate. The certificate signer may issue a certificate with a different validity duration so a client must check the delta between the notBefore and and notAfter fields in the issued certificate to determine the actual duration.\n\nThe v1.22+ in-tree implementations of the well-known Kubernetes signers will honor this field as long as the requested duration is not greater than the maximum duration they will honor per the --cluster-signing-duration CLI flag to the Kubernetes controller manager.\n\nCertificate signers may not honor this field for various reasons:\n\n  1. Old signer that is unaware of the field (such as the in-tree\n     implementations prior to v1.22)\n  2. Signer whose configured maximum is shorter than the requested duration\n  3. Signer whose configured minimum is longer than the requested duration\n\nThe minimum valid value for expirationSeconds is 600, i.e. 10 minutes.",
    ),
    table::column("Condition", "Conditions applied to the request, such as approval or denial."),
];

/// The kind.
pub(super) struct SigningRequests;

impl Kind for SigningRequests {
    wiring!(CertificateSigningRequest, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Approval, Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        for field in ["username", "uid", "groups", "extra"] {
            remove(spec, field);
        }
        set(object, "status", json!({}));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, None, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        match part {
            Part::Status => keep_approvals(object, old),
            Part::Approval => {
                let conditions = conditions(object).to_vec();
                copy_field(object, old, "status");
                let status = object_mut(object, "status");
                if conditions.is_empty() {
                    remove(status, "conditions");
                } else {
                    set(status, "conditions", conditions);
                }
            }
            _ => copy_field(object, old, "status"),
        }
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        check(object, Some(old), &mut errors);
        changes(part, object, old, &mut errors);
        errors.into_vec()
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        (field == "spec.signerName").then(|| text_at(object, &["spec", "signerName"]).to_owned())
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported: {field}"))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = get(object, "spec");
        let life = int(spec, "expirationSeconds").map(age::human).unwrap_or_default();
        vec![
            table::name(object),
            age::of(object, now).into(),
            table::or_none(text(spec, "signerName")),
            text(spec, "username").into(),
            table::or_none(&life),
            state(object).into(),
        ]
    }
}

fn conditions(object: &Value) -> &[Value] {
    list(get(object, "status"), "conditions")
}

fn of_type<'o>(object: &'o Value, kind: &str) -> Vec<&'o Value> {
    conditions(object).iter().filter(|condition| text(condition, "type") == kind).collect()
}

/// How far the request has come, in one word or several.
fn state(object: &Value) -> String {
    let is = |kind| !of_type(object, kind).is_empty();
    let mut state = match (is("Denied"), is("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if is("Failed") {
        state.push_str(",Failed");
    }
    if !text_at(object, &["status", "certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    state
}

/// Who writes the status leaves approvals as they are, unless there are more of them or fewer: that is refused.
fn keep_approvals(object: &mut Value, old: &Value) {
    for kind in APPROVALS {
        let was: Vec<_> = of_type(old, kind).into_iter().cloned().collect();
        if of_type(object, kind).len() != was.len() {
            continue;
        }
        let status = object_mut(object, "status");
        let now = status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten();
        for (now, was) in now.filter(|condition| text(condition, "type") == kind).zip(was) {
            *now = was;
        }
    }
}

fn check(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    META.create(object, errors);
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    if let Some(why) = pem::bad_request(text(spec, "request")) {
        errors.invalid(&path.child("request"), get(spec, "request").clone(), why);
    }
    usages(spec, &path.child("usages"), errors);
    let (signer, signer_path) = (text(spec, "signerName"), path.child("signerName"));
    if signer == LEGACY_SIGNER {
        errors.invalid(&signer_path, signer, "the legacy signerName is not allowed via this API version");
    } else {
        signer_name(signer, &signer_path, errors);
    }
    if let Some(life) = int(spec, "expirationSeconds").filter(|life| *life < MIN_LIFE) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&path.child("expirationSeconds"), life, detail);
    }
    let path = Path::of("status");
    condition_rules(object, &path.child("conditions"), errors);
    let certificate = |object| at(object, &["status", "certificate"]);
    let issued = certificate(object).as_str().unwrap_or_default();
    let is_new = old.is_none_or(|old| certificate(old) != certificate(object));
    if let Some(why) = pem::bad_certificates(issued).filter(|_| is_new && !issued.is_empty()) {
        errors.invalid(&path.child("certificate"), "<certificate data>", why);
    }
}

fn usages(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let usages: Vec<_> = list(spec, "usages").iter().filter_map(Value::as_str).collect();
    if usages.is_empty() {
        errors.required(path, "");
    }
    for (index, usage) in usages.iter().enumerate().filter(|(_, usage)| !USAGES.contains(usage)) {
        errors.unsupported(&path.index(index), usage, USAGES);
    }
    let mut seen = BTreeSet::new();
    for (index, usage) in usages.into_iter().enumerate() {
        if !seen.insert(usage) {
            errors.duplicate(&path.index(index), usage);
        }
    }
}

/// A domain and a path, `example.com/signer-name`.
fn signer_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    const DOMAIN_MAX: usize = names::SUBDOMAIN_MAX;
    const MAX: usize = DOMAIN_MAX + 1 + names::SUBDOMAIN_MAX + names::LABEL_MAX + 1;
    if name.is_empty() {
        return errors.required(path, "");
    }
    let parts: Vec<_> = name.split('/').collect();
    let [domain, rest] = parts[..] else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(path, name, detail);
    };
    if domain.len() > DOMAIN_MAX {
        errors.too_long(path, DOMAIN_MAX);
    }
    labels(domain, names::dns1123_label, path, errors);
    if !domain.contains('.') {
        errors.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    labels(rest, names::dns1123_subdomain, path, errors);
    if name.len() > MAX {
        errors.too_long(path, MAX);
    }
}

/// Complains of the first part between dots that breaks the rule.
fn labels(whole: &str, rule: fn(&str) -> Vec<String>, path: &Path<'_>, errors: &mut Errors) {
    let broken = whole.split('.').map(|label| (label, rule(label))).find(|(_, complaints)| !complaints.is_empty());
    let (label, complaints) = broken.unwrap_or_default();
    for complaint in complaints {
        errors.invalid(path, whole, format!("validating label {label:?}: {complaint}"));
    }
}

fn condition_rules(object: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, condition) in conditions(object).iter().enumerate() {
        let (here, kind, status) = (path.index(index), text(condition, "type"), text(condition, "status"));
        if kind.is_empty() {
            errors.required(&here.child("type"), "");
        }
        let allowed: &[&str] = if FINAL.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        errors.one_of(&here.child("status"), status, allowed);
        let other = if kind == "Approved" { "Denied" } else { "Approved" };
        if APPROVALS.contains(&kind) && seen.contains(other) {
            errors.invalid(path, kind, "Approved and Denied conditions are mutually exclusive");
        }
        if !seen.insert(kind) {
            errors.duplicate(&here.child("type"), kind);
        }
    }
}

/// Who may change what: approvers approvals, signers the certificate, once.
fn changes(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    let path = Path::of("status");
    let (conditions, certificate) = (path.child("conditions"), path.child("certificate"));
    let count = |object, kind| of_type(object, kind).len();
    for kind in FINAL.into_iter().filter(|kind| count(object, kind) < count(old, kind)) {
        errors.forbidden(&conditions, format!("updates may not remove a condition of type {kind:?}"));
    }
    if part != Part::Approval {
        for kind in APPROVALS.into_iter().filter(|kind| count(object, kind) > count(old, kind)) {
            errors.forbidden(&conditions, format!("updates may not add a condition of type {kind:?}"));
        }
    }
    let issued = |object| text_at(object, &["status", "certificate"]);
    if issued(object) != issued(old) {
        if part != Part::Status {
            errors.forbidden(&certificate, "updates may not set certificate content");
        } else if !issued(old).is_empty() {
            errors.forbidden(&certificate, "updates may not modify existing certificate content");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    /// A request for `CN=kindly` signed with a P-256 key.
    const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlITU1ITUNBUUF3RVRFUE1BMEdBMVVFQXd3R2EybHVaR3g1TUZrd0V3WUhLb1pJemowQ0FRWUlLb1pJemowRApBUWNEUWdBRTZreG9xc1k0YWkwWi9ONU1PU3Nyd3dWdlRqSFpIVHBFU0lDV2RQb0N6K0FoY1ZaeGRkcW1GNi92CnJ0ZEYvR3M1RmhZSGM2Z1JzdytLc3gvYkg3by9UNkFBTUFvR0NDcUdTTTQ5QkFNQ0Ewa0FNRVlDSVFEdmNsMEoKbUlxWXRSZWJncFZFN3huSmdQV2Nldi80L0hmanV6bEN3T1dHa1FJaEFLRDQxUnZXY2dQSCt3S2lhK2lQbEVCVQptOU5hVFVKaUN4YnpQclBpaUNFVQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

    fn plain() -> String {
        format!(
            "{{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {{name: 'a:B'}}, spec: {{request: {REQUEST}, signerName: example.com/s, usages: [client auth], username: eve, expirationSeconds: 3600}}}}"
        )
    }

    #[test]
    fn a_request_is_kept_without_what_it_says_of_its_author() {
        let request = created(&plain());
        assert!(request["spec"].get("username").is_none() && request["status"] == json!({}));
        check_valid(&plain());
        assert_eq!(row(&plain()), "a:B | <unknown> | example.com/s | eve | 60m | Pending");
    }

    #[test]
    fn requests_are_parsed_and_their_signature_is_checked() {
        check_invalid(
            &plain().replace(REQUEST, "YQ=="),
            &["spec.request: Invalid value: \"YQ==\": PEM block type must be CERTIFICATE REQUEST"],
        );
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let pem = String::from_utf8(STANDARD.decode(REQUEST).unwrap()).unwrap();
        let (head, tail) = pem.split_once("-----\n").unwrap();
        let (body, end) = tail.split_once("-----END").unwrap();
        let mut der = STANDARD.decode(body.replace('\n', "")).unwrap();
        let at = der.windows(6).position(|part| part == b"kindly").unwrap();
        der[at] = b'K';
        let forged = STANDARD.encode(format!("{head}-----\n{}\n-----END{end}", STANDARD.encode(der)));
        check_invalid(
            &plain().replace(REQUEST, &forged),
            &[&format!("spec.request: Invalid value: \"{forged}\": x509: ECDSA verification failure")],
        );
    }

    #[test]
    fn usages_signer_and_life_are_checked() {
        check_invalid(
            &plain().replace("[client auth]", "[]").replace("example.com/s", "''").replace("3600", "599"),
            &[
                "spec.usages: Required value",
                "spec.signerName: Required value",
                "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
            ],
        );
        check_invalid(
            &plain().replace("[client auth]", "[any, any]").replace("example.com/s", "plain/s"),
            &[
                "spec.usages[1]: Duplicate value: \"any\"",
                "spec.signerName: Invalid value: \"plain\": should be a domain with at least two segments separated by dots",
            ],
        );
        check_invalid(
            &plain().replace("example.com/s", "kubernetes.io/legacy-unknown"),
            &[
                "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
            ],
        );
    }

    #[test]
    fn only_an_approver_approves_and_only_a_signer_signs() {
        let approved = json!([{"type": "Approved", "status": "True"}]);
        let (new, errors) = updated(Part::Approval, &plain(), |new| {
            new["spec"]["signerName"] = json!("other.com/s");
            new["status"] = json!({"conditions": approved, "certificate": "YQ=="});
        });
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(new["spec"]["signerName"], "example.com/s");
        assert!(new["status"].get("certificate").is_none() && new["status"]["conditions"][0]["type"] == "Approved");
        let (_, errors) = updated(Part::Status, &plain(), |new| {
            new["status"] = json!({"conditions": approved, "certificate": "YQ=="});
        });
        assert_eq!(
            errors,
            [
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block",
                "status.conditions: Forbidden: updates may not add a condition of type \"Approved\"",
            ]
        );
        let (_, errors) = updated(Part::Approval, &plain(), |new| {
            new["status"]["conditions"] =
                json!([{"type": "Approved", "status": "False"}, {"type": "Denied", "status": "True"}, {}]);
        });
        assert_eq!(
            errors,
            [
                "status.conditions[0].status: Unsupported value: \"False\": supported values: \"True\"",
                "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
                "status.conditions[2].type: Required value",
                "status.conditions[2].status: Required value",
            ]
        );
    }
}
