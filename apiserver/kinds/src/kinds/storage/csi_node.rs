//! CSINode: the CSI drivers of a node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSINode;
use reeve_api::names;
use serde_json::Value;

use super::{GROUP, driver_name};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, get, int, list, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::{age, shown, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

/// Most characters of a driver's own name for the node.
const MAX_NODE_ID: usize = 256;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number("Drivers", "Drivers indicates the number of CSI drivers registered on the node"),
    table::AGE,
];

/// The kind.
pub(super) struct CsiNodes;

impl Kind for CsiNodes {
    wiring!(CSINode, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        let path = Path::of("spec");
        for was in drivers(old) {
            for now in drivers(object).iter().filter(|now| text(now, "name") == text(was, "name")) {
                // How many volumes fit may change.
                if ["nodeID", "topologyKeys"].iter().any(|field| get(now, field) != get(was, field)) {
                    errors.invalid_object(&path.child("drivers"), shown_driver(now), "field is immutable");
                }
            }
        }
        errors.into_vec()
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), drivers(object).len().into(), age::of(object, now).into()]
    }
}

fn drivers(object: &Value) -> &[Value] {
    list(get(object, "spec"), "drivers")
}

/// A driver as complaints show it, without what may change.
fn shown_driver(driver: &Value) -> String {
    shown::fields(
        driver,
        &[("Name", "name"), ("NodeID", "nodeID"), ("TopologyKeys", "topologyKeys"), ("Allocatable", "")],
    )
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    let (path, mut seen) = (Path::of("spec"), BTreeSet::new());
    let path = path.child("drivers");
    for (index, one) in drivers(object).iter().enumerate() {
        let path = path.index(index);
        driver(one, &path, errors);
        if !seen.insert(text(one, "name")) {
            errors.duplicate(&path.child("name"), text(one, "name"));
        }
        topology_keys(one, &path, errors);
    }
}

fn driver(driver: &Value, path: &Path<'_>, errors: &mut Errors) {
    driver_name(text(driver, "name"), &path.child("name"), errors);
    let (id, id_path) = (text(driver, "nodeID"), path.child("nodeID"));
    if id.is_empty() {
        errors.required(&id_path, "");
    }
    if id.len() > MAX_NODE_ID {
        errors.invalid(&id_path, id, format!("must be {MAX_NODE_ID} characters or less"));
    }
    let path = path.child("allocatable");
    errors.not_negative(&path.child("count"), int(at(driver, &["allocatable"]), "count"));
}

fn topology_keys(driver: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for key in list(driver, "topologyKeys").iter().filter_map(Value::as_str) {
        if key.is_empty() {
            errors.required(path, "");
        }
        if !seen.insert(key) {
            errors.duplicate(path, key);
        }
        errors.invalid_each(path, key, names::qualified_name(key));
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::{Value, json};

    const PLAIN: &str = "{apiVersion: storage.k8s.io/v1, kind: CSINode, metadata: {name: n1}, spec: {drivers: [{name: d.example.com, nodeID: i-1, topologyKeys: [zone], allocatable: {count: 3}}]}}";

    #[test]
    fn a_node_without_drivers_says_so() {
        let bare = created("{apiVersion: storage.k8s.io/v1, kind: CSINode, metadata: {name: n1}}");
        assert_eq!(bare["spec"].get("drivers"), Some(&Value::Null));
        check_valid("{apiVersion: storage.k8s.io/v1, kind: CSINode, metadata: {name: n1}, spec: {}}");
        check_created(PLAIN, PLAIN);
        assert_eq!(row(PLAIN), "n1 | 1 | <unknown>");
    }

    #[test]
    fn drivers_are_checked() {
        check_invalid(
            &PLAIN.replace("count: 3}}", "count: -1}}, {name: d.example.com, nodeID: '', topologyKeys: [a, a]}"),
            &[
                "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                "spec.drivers[1].nodeID: Required value",
                "spec.drivers[1].name: Duplicate value: \"d.example.com\"",
                "spec.drivers[1]: Duplicate value: \"a\"",
            ],
        );
    }

    #[test]
    fn a_driver_changes_only_how_much_fits() {
        check_update(PLAIN, |new| new["spec"]["drivers"][0]["allocatable"]["count"] = json!(4), &[]);
        check_update(
            PLAIN,
            |new| new["spec"]["drivers"][0]["nodeID"] = json!("i-2"),
            &[
                "spec.drivers: Invalid value: {\"Name\":\"d.example.com\",\"NodeID\":\"i-2\",\"TopologyKeys\":[\"zone\"],\"Allocatable\":null}: field is immutable",
            ],
        );
    }
}
