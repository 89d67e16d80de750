//! VolumeAttributesClass: what of a volume may be changed while it is in use.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use reeve_api::names;
use serde_json::Value;

use super::{GROUP, parameters, provisioner};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short: &["vac"],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const COLUMNS: &[Column] =
    &[table::NAME, table::column("DriverName", "Name of the CSI driver This field is immutable."), table::AGE];

/// The kind.
pub(super) struct VolumeAttributesClasses;

impl Kind for VolumeAttributesClasses {
    wiring!(VolumeAttributesClass, NAMES, COLUMNS);

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
        META.update(object, old, &mut errors);
        for field in ["driverName", "parameters"] {
            if get(object, field) != get(old, field) {
                errors.forbidden(&Path::of(field), format!("updates to {field} are forbidden."));
            }
        }
        check(object, &mut errors);
        errors.into_vec()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), text(object, "driverName").into(), age::of(object, now).into()]
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    provisioner(text(object, "driverName"), &Path::of("driverName"), errors);
    parameters(object, false, errors);
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {name: gold}, driverName: d.example.com, parameters: {iops: '5'}}";

    #[test]
    fn a_class_has_a_driver_and_parameters_and_keeps_them() {
        check_created(PLAIN, PLAIN);
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "gold | d.example.com | <unknown>");
        check_invalid(
            "{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {name: gold}}",
            &["driverName: Required value", "parameters: Required value: must contain at least one key/value pair"],
        );
        check_update(
            PLAIN,
            |new| {
                new["driverName"] = json!("e.example.com");
                new["parameters"]["iops"] = json!("6");
            },
            &[
                "driverName: Forbidden: updates to driverName are forbidden.",
                "parameters: Forbidden: updates to parameters are forbidden.",
            ],
        );
    }
}
