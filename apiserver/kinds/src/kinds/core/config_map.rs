//! ConfigMap: texts and bytes for pods to use.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{entries, flag, get};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::{age, table};

/// Most bytes the values of a ConfigMap or Secret may have together.
pub(super) const MAX_DATA: usize = 1024 * 1024;

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short: &["cm"],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Data",
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
    ),
    table::AGE,
];

/// The kind.
pub(super) struct ConfigMaps;

impl Kind for ConfigMaps {
    wiring!(ConfigMap, NAMES, COLUMNS);

    fn default(&self, _object: &mut Value) {}

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        data(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        immutable(object, old, &["data", "binaryData"], &mut errors);
        META.create(object, &mut errors);
        data(object, &mut errors);
        errors.into_vec()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = entries(object, "data").count() + entries(object, "binaryData").count();
        vec![table::name(object), count.into(), age::of(object, now).into()]
    }
}

/// An object with `immutable: true` stays so, and so do its fields. Shared with Secret.
pub(super) fn immutable(object: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if !flag(old, "immutable") {
        return;
    }
    if !flag(object, "immutable") {
        errors.forbidden(&Path::of("immutable"), "field is immutable when `immutable` is set");
    }
    for field in fields {
        if get(object, field) != get(old, field) {
            errors.forbidden(&Path::of(field), "field is immutable when `immutable` is set");
        }
    }
}

fn data(object: &Value, errors: &mut Errors) {
    let mut size = 0;
    let data_path = Path::of("data");
    for (key, value) in entries(object, "data") {
        let path = data_path.key(key);
        errors.invalid_each(&path, key, names::config_key(key));
        if get(object, "binaryData").get(key).is_some() {
            errors.invalid(&path, key, "duplicate of key present in binaryData");
        }
        size += value.as_str().unwrap_or_default().len();
    }
    let binary_path = Path::of("binaryData");
    for (key, value) in entries(object, "binaryData") {
        errors.invalid_each(&binary_path.key(key), key, names::config_key(key));
        size += bytes_in(value.as_str().unwrap_or_default());
    }
    if size > MAX_DATA {
        // A path without a name, as Kubernetes writes it.
        errors.too_long(&Path::of("[]"), MAX_DATA);
    }
}

/// How many bytes a base64 text stands for.
pub(super) fn bytes_in(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    const MAP: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: n, creationTimestamp: '2026-01-01T00:59:30Z'}, data: {x: y}, binaryData: {b: AAAA}";

    #[test]
    fn keys_are_checked() {
        check_valid(&format!("{MAP}}}"));
        check_invalid(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: n}, data: {'a b': y, b: x}, binaryData: {b: AAAA}}",
            &[
                "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                "data[b]: Invalid value: \"b\": duplicate of key present in binaryData",
            ],
        );
    }

    #[test]
    fn metadata_is_checked() {
        check_invalid(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: A_b, namespace: n, labels: {k: '-'}}}",
            &[
                "metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "metadata.labels: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ],
        );
        check_invalid(
            "{apiVersion: v1, kind: ConfigMap, metadata: {namespace: n}}",
            &["metadata.name: Required value: name or generateName is required"],
        );
        check_update(
            &format!("{MAP}}}"),
            |new| new["metadata"]["uid"] = json!("other"),
            &["metadata.uid: Invalid value: \"other\": field is immutable"],
        );
    }

    #[test]
    fn owners_and_finalizers_are_checked() {
        check_invalid(
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: n, finalizers: [mine, orphan, foregroundDeletion], ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: u, controller: true}, {apiVersion: apps/v1, kind: ReplicaSet, name: '', uid: u, controller: true}]}}",
            &[
                "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences: Invalid value: [{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"name\":\"p\",\"uid\":\"u\",\"controller\":true},{\"apiVersion\":\"apps/v1\",\"kind\":\"ReplicaSet\",\"name\":\"\",\"uid\":\"u\",\"controller\":true}]: Only one reference can have Controller set to true. Found \"true\" in references for Pod/p and ReplicaSet/",
                "metadata.finalizers: Invalid value: [\"mine\",\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
                "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified",
            ],
        );
    }

    #[test]
    fn finalizers_cannot_be_added_to_the_dying() {
        let dying = format!("{MAP}}}")
            .replace("namespace: n,", "namespace: n, deletionTimestamp: '2026-01-01T00:59:40Z', finalizers: [a.b/c],");
        check_update(
            &dying,
            |new| new["metadata"]["finalizers"] = json!(["a.b/c", "a.b/d"]),
            &[
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a.b/d\"}",
            ],
        );
    }

    #[test]
    fn too_much_data_is_refused() {
        let large = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a, namespace: n}}, data: {{x: {}}}}}",
            "y".repeat(1024 * 1024 + 1)
        );
        check_invalid(&large, &["[]: Too long: may not be more than 1048576 bytes"]);
    }

    #[test]
    fn an_immutable_map_stays_as_it_is() {
        check_update(
            &format!("{MAP}, immutable: true}}"),
            |new| {
                new["immutable"] = json!(false);
                new["data"]["x"] = json!("z");
            },
            &[
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ],
        );
        check_update(&format!("{MAP}}}"), |new| new["data"]["x"] = json!("z"), &[]);
    }

    #[test]
    fn a_row_counts_the_keys() {
        assert_eq!(row(&format!("{MAP}}}")), "a | 2 | 30s");
    }
}
