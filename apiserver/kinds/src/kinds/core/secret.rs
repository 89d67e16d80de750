//! Secret: bytes that are not shown to everybody.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use reeve_api::names;
use serde_json::Value;

use super::config_map::{MAX_DATA, bytes_in, immutable};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, entries, get, object_mut, remove, set, set_default, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short: &[],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Type",
        "Used to facilitate programmatic handling of secret data. More info: https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
    ),
    table::column(
        "Data",
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
    ),
    table::AGE,
];

/// Types that want certain keys to be there.
const REQUIRED_KEYS: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

/// The kind.
pub(super) struct Secrets;

impl Kind for Secrets {
    wiring!(Secret, NAMES, COLUMNS);

    /// `stringData` is a way to write `data`, never stored.
    fn default(&self, object: &mut Value) {
        if let Some(Value::Object(texts)) = remove(object, "stringData") {
            let data = object_mut(object, "data");
            for (key, value) in texts {
                set(data, &key, STANDARD.encode(value.as_str().unwrap_or_default()));
            }
        }
        set_default(object, "type", "Opaque");
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        rules(object, &mut errors);
        errors.into_vec()
    }

    /// A type that is left out in an update stays what it was.
    fn prepare_update(&self, _part: Part, object: &mut Value, old: &Value) {
        if text(object, "type").is_empty() {
            set(object, "type", text(old, "type"));
        }
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        errors.immutable(&Path::of("type"), get(object, "type"), get(old, "type"));
        immutable(object, old, &["data"], &mut errors);
        META.create(object, &mut errors);
        rules(object, &mut errors);
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let is_tls = text(object, "type") == "kubernetes.io/tls";
        tls_warning(object).filter(|_| is_tls).into_iter().collect()
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        (field == "type").then(|| text(object, "type").to_owned())
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported: {field}"))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = entries(object, "data").count();
        vec![table::name(object), text(object, "type").into(), count.into(), age::of(object, now).into()]
    }
}

fn rules(object: &Value, errors: &mut Errors) {
    let (data, mut size) = (Path::of("data"), 0);
    for (key, value) in entries(object, "data") {
        errors.invalid_each(&data.key(key), key, names::config_key(key));
        size += bytes_in(value.as_str().unwrap_or_default());
    }
    if size > MAX_DATA {
        errors.too_long(&data, MAX_DATA);
    }
    type_rules(object, &data, errors);
}

fn type_rules(object: &Value, data: &Path<'_>, errors: &mut Errors) {
    let kind = text(object, "type");
    let value = |key: &str| get(object, "data").get(key).and_then(Value::as_str);
    if let Some((_, keys)) = REQUIRED_KEYS.iter().find(|(own, _)| *own == kind) {
        let empty_is_missing = kind == "kubernetes.io/ssh-auth";
        for key in *keys {
            if value(key).is_none_or(|value| empty_is_missing && value.is_empty()) {
                errors.required(&data.key(key), "");
            }
        }
    }
    match kind {
        "kubernetes.io/service-account-token" => {
            const ACCOUNT: &str = "kubernetes.io/service-account.name";
            if at(object, &["metadata", "annotations", ACCOUNT]).as_str().unwrap_or_default().is_empty() {
                let meta = Path::of("metadata");
                errors.required(&meta.child("annotations").key(ACCOUNT), "");
            }
        }
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            errors.required(&data.key("username"), "");
            errors.required(&data.key("password"), "");
        }
        "kubernetes.io/dockercfg" => json_rule(value(".dockercfg"), &data.key(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => {
            json_rule(value(".dockerconfigjson"), &data.key(".dockerconfigjson"), errors);
        }
        _ => {}
    }
}

fn json_rule(value: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    let Some(value) = value else { return };
    let decoded = STANDARD.decode(value).unwrap_or_default();
    if let Some(complaint) = json_complaint(&decoded) {
        errors.invalid(path, "<secret contents redacted>", complaint);
    }
}

/// What Go's JSON decoder says of bytes that are no object.
fn json_complaint(bytes: &[u8]) -> Option<String> {
    let error = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(_) | Value::Null) => return None,
        Ok(other) => {
            let found = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            return Some(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"));
        }
        Err(error) => error,
    };
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    match first {
        _ if error.is_eof() => Some("unexpected end of JSON input".to_owned()),
        Some(byte) if !b"{[\"-0123456789tfn".contains(byte) => {
            Some(format!("invalid character {:?} looking for beginning of value", char::from(*byte)))
        }
        _ => Some(error.to_string()),
    }
}

/// The warning about a certificate that no program could use, in Go's words.
fn tls_warning(object: &Value) -> Option<String> {
    let part = |key| STANDARD.decode(text(get(object, "data"), key)).unwrap_or_default();
    let has = |bytes: &[u8], mark: &str| String::from_utf8_lossy(bytes).contains(mark);
    if !has(&part("tls.crt"), "-----BEGIN ") {
        return Some("tls: failed to find any PEM data in certificate input".to_owned());
    }
    (!has(&part("tls.key"), "-----BEGIN ")).then(|| "tls: failed to find any PEM data in key input".to_owned())
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: n}, stringData: {x: y}";

    #[test]
    fn texts_become_data_and_the_type_is_opaque() {
        check_created(
            &format!("{PLAIN}}}"),
            "{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: n}, data: {x: eQ==}, type: Opaque}",
        );
    }

    #[test]
    fn types_want_their_keys() {
        check_invalid(
            &format!("{PLAIN}, type: kubernetes.io/tls}}"),
            &["data[tls.crt]: Required value", "data[tls.key]: Required value"],
        );
        check_invalid(
            &format!("{PLAIN}, type: kubernetes.io/basic-auth}}"),
            &["data[username]: Required value", "data[password]: Required value"],
        );
        check_invalid(
            &format!("{PLAIN}, type: kubernetes.io/service-account-token}}"),
            &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        );
        check_valid(&format!("{PLAIN}, type: example.com/mine}}"));
    }

    #[test]
    fn the_type_may_not_change() {
        check_update(
            &format!("{PLAIN}}}"),
            |new| new["type"] = json!("example.com/b"),
            &["type: Invalid value: \"example.com/b\": field is immutable"],
        );
    }

    #[test]
    fn a_row_shows_the_type_and_counts_the_keys() {
        assert_eq!(
            row("{apiVersion: v1, kind: Secret, metadata: {name: a}, type: Opaque, data: {x: eQ==}}"),
            "a | Opaque | 1 | <unknown>"
        );
    }
}
