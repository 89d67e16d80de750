//! StorageClass: how volumes of one sort are made.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;
use reeve_api::names;
use serde_json::Value;

use super::{GROUP, annotated_true, parameters, provisioner};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{flag, get, list, set_absent, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, pod, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short: &["sc"],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

/// Annotations that make a class the one for claims that name none.
const DEFAULT_ANNOTATIONS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Provisioner", "provisioner indicates the type of the provisioner."),
    table::column(
        "ReclaimPolicy",
        "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. Defaults to Delete.",
    ),
    table::column(
        "VolumeBindingMode",
        "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling feature.",
    ),
    table::column("AllowVolumeExpansion", "allowVolumeExpansion shows whether the storage class allow volume expand."),
    table::AGE,
];

/// The kind.
pub(super) struct StorageClasses;

impl Kind for StorageClasses {
    wiring!(StorageClass, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        set_absent(object, "reclaimPolicy", "Delete");
        set_absent(object, "volumeBindingMode", "Immediate");
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
        check(object, &mut errors);
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            errors.immutable(&Path::of(field), get(object, field), get(old, field));
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (index, term) in list(object, "allowedTopologies").iter().enumerate() {
            for (at, expression) in list(term, "matchLabelExpressions").iter().enumerate() {
                if let Some(why) = pod::deprecated_node_label(text(expression, "key")) {
                    warnings.push(format!("allowedTopologies[{index}].matchLabelExpressions[{at}].key: {why}"));
                }
            }
        }
        warnings
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let is_default = DEFAULT_ANNOTATIONS.iter().any(|annotation| annotated_true(object, annotation));
        vec![
            table::name_with_default(object, is_default),
            text(object, "provisioner").into(),
            text(object, "reclaimPolicy").into(),
            text(object, "volumeBindingMode").into(),
            flag(object, "allowVolumeExpansion").into(),
            age::of(object, now).into(),
        ]
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    provisioner(text(object, "provisioner"), &Path::of("provisioner"), errors);
    parameters(object, true, errors);
    let policy = text(object, "reclaimPolicy");
    if !policy.is_empty() && !["Delete", "Retain"].contains(&policy) {
        errors.unsupported(&Path::of("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    let mode = text(object, "volumeBindingMode");
    if !["Immediate", "WaitForFirstConsumer"].contains(&mode) {
        errors.unsupported(&Path::of("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
    }
    topologies(object, errors);
}

/// No term of the topologies may say the same as one before it, nor nothing at all.
fn topologies(object: &Value, errors: &mut Errors) {
    let (terms, path) = (list(object, "allowedTopologies"), Path::of("allowedTopologies"));
    // Kubernetes compares with as many empty terms as there are terms: an empty one is a duplicate of each.
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = vec![BTreeMap::new(); terms.len()];
    for (index, term) in terms.iter().enumerate() {
        let path = path.index(index);
        let said = topology(term, &path, errors);
        for _ in seen.iter().filter(|one| **one == said) {
            errors.duplicate(&path.child("matchLabelExpressions"), "");
        }
        seen.push(said);
    }
}

fn topology<'t>(term: &'t Value, path: &Path<'_>, errors: &mut Errors) -> BTreeMap<&'t str, BTreeSet<&'t str>> {
    let (mut said, path) = (BTreeMap::new(), path.child("matchLabelExpressions"));
    for (index, requirement) in list(term, "matchLabelExpressions").iter().enumerate() {
        let path = path.index(index);
        let (key, values) = (text(requirement, "key"), list(requirement, "values"));
        let (mut set, values_path) = (BTreeSet::new(), path.child("values"));
        if values.is_empty() {
            errors.required(&values_path, "");
        }
        for (at, value) in values.iter().filter_map(Value::as_str).enumerate() {
            if !set.insert(value) {
                errors.duplicate(&values_path.index(at), value);
            }
        }
        meta::label_name(key, &path.child("key"), errors);
        if said.insert(key, set).is_some() {
            errors.duplicate(&path.child("key"), key);
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: fast, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}, provisioner: example.com/Disk, parameters: {a: b}}";

    #[test]
    fn volumes_are_deleted_and_bound_at_once_unless_the_class_says_otherwise() {
        let class = created(PLAIN);
        assert_eq!((&class["reclaimPolicy"], &class["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "fast (default) | example.com/Disk |  |  | false | <unknown>");
    }

    #[test]
    fn provisioner_policies_and_topologies_are_checked() {
        check_invalid(
            &PLAIN.replace(
                "provisioner: example.com/Disk",
                "provisioner: '', reclaimPolicy: Recycle, volumeBindingMode: Later, allowedTopologies: [{matchLabelExpressions: [{key: a, values: [x, x]}, {key: a}]}, {}]",
            ),
            &[
                "provisioner: Required value",
                "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
                "volumeBindingMode: Unsupported value: \"Later\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
                "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"x\"",
                "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
                "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"a\"",
                "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
                "allowedTopologies[1].matchLabelExpressions: Duplicate value: \"\"",
            ],
        );
    }

    #[test]
    fn what_volumes_were_made_with_stays() {
        check_update(
            PLAIN,
            |new| {
                new["parameters"] = json!({"a": "c"});
                new["provisioner"] = json!("other.com/disk");
                new["reclaimPolicy"] = json!("Retain");
                new["allowVolumeExpansion"] = json!(true);
            },
            &[
                "parameters: Invalid value: {\"a\":\"c\"}: field is immutable",
                "provisioner: Invalid value: \"other.com/disk\": field is immutable",
                "reclaimPolicy: Invalid value: \"Retain\": field is immutable",
            ],
        );
    }

    #[test]
    fn old_node_labels_are_warned_of() {
        check_warned(
            &PLAIN.replace(
                "parameters:",
                "allowedTopologies: [{matchLabelExpressions: [{key: beta.kubernetes.io/os, values: [linux]}]}], parameters:",
            ),
            &["allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.14; use \"kubernetes.io/os\" instead"],
        );
    }
}
