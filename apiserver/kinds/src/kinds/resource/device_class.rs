//! DeviceClass: devices of one sort, as an administrator sees them.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::DeviceClass;
use reeve_api::names;
use serde_json::Value;

use super::GROUP;
use super::shared::{MAX_CONFIG, config, each, selectors};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, list};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "DeviceClass",
    plural: "deviceclasses",
    singular: "deviceclass",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[table::NAME, table::AGE];

/// The kind.
pub(super) struct DeviceClasses;

impl Kind for DeviceClasses {
    wiring!(DeviceClass, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        check(object, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, object: &mut Value, old: &Value) {
        meta::next_generation(object, old);
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        check(object, &mut errors);
        errors.into_vec()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), age::of(object, now).into()]
    }
}

/// Whether a resource is neither Kubernetes' own nor a name that a quota could not have.
fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    let (spec, path) = (get(object, "spec"), Path::of("spec"));
    selectors(spec, &path, errors);
    each(list(spec, "config"), MAX_CONFIG, &path.child("config"), errors, config);
    if let Some(name) = get(spec, "extendedResourceName").as_str().filter(|name| !is_extended(name)) {
        errors.invalid(&path.child("extendedResourceName"), name, "must be a valid extended resource name");
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: resource.k8s.io/v1, kind: DeviceClass, metadata: {name: gpu}, spec: {selectors: [{cel: {expression: 'true'}}], config: [{opaque: {driver: d.com, parameters: {a: 1}}}]}}";

    #[test]
    fn classes_are_checked_and_their_changes_counted() {
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "gpu | <unknown>");
        check_invalid(
            &PLAIN
                .replace("{expression: 'true'}", "{}")
                .replace("{a: 1}", "null")
                .replace("spec: {", "spec: {extendedResourceName: cpu, "),
            &[
                "spec.config[0].opaque.parameters: Required value",
                "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
            ],
        );
        let (new, errors) = updated(Part::Main, PLAIN, |new| new["spec"]["extendedResourceName"] = json!("d.com/gpu"));
        assert_eq!((&new["metadata"]["generation"], errors.len()), (&json!(2), 0));
    }
}
