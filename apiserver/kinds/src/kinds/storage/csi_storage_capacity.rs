//! CSIStorageCapacity: how much storage of a class there is in some part of the cluster.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use reeve_api::names;
use reeve_api::quantity::Quantity;
use serde_json::Value;

use super::GROUP;
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{entries, get, list, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{pod, shown, table};

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    short: &[],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[table::NAME, table::CREATED_AT];

/// The kind.
pub(super) struct CsiStorageCapacities;

impl Kind for CsiStorageCapacities {
    wiring!(CSIStorageCapacity, NAMES, COLUMNS);

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
        check(object, &mut errors);
        let topology = get(object, "nodeTopology");
        if topology != get(old, "nodeTopology") {
            let shown = shown::selector(topology);
            errors.invalid_object(&Path::of("nodeTopology"), shown, "field is immutable");
        }
        let class = |object| get(object, "storageClassName");
        errors.immutable(&Path::of("storageClassName"), class(object), class(old));
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let (topology, mut warnings) = (get(object, "nodeTopology"), Vec::new());
        for (index, requirement) in list(topology, "matchExpressions").iter().enumerate() {
            let key = text(requirement, "key");
            if let Some(why) = pod::deprecated_node_label(key) {
                warnings.push(format!("nodeTopology.matchExpressions[{index}].key: {key} is {why}"));
            }
        }
        for (key, _) in entries(topology, "matchLabels") {
            if let Some(why) = pod::deprecated_node_label(key) {
                warnings.push(format!("nodeTopology.matchLabels.{key}: {why}"));
            }
        }
        warnings
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![table::name(object), table::created_at(object)]
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    meta::label_selector(get(object, "nodeTopology"), &Path::of("nodeTopology"), errors);
    let class = text(object, "storageClassName");
    errors.invalid_each(&Path::of("storageClassName"), class, names::dns1123_subdomain(class));
    let capacity = get(object, "capacity");
    if Quantity::from_value(capacity).is_ok_and(|quantity| quantity.is_negative()) {
        errors.invalid(&Path::of("capacity"), capacity.clone(), "must be greater than or equal to 0");
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: storage.k8s.io/v1, kind: CSIStorageCapacity, metadata: {name: a, namespace: n}, storageClassName: fast, capacity: 1Gi, nodeTopology: {matchLabels: {zone: a}}}";

    #[test]
    fn capacities_are_checked() {
        check_created(PLAIN, PLAIN);
        check_valid(PLAIN);
        check_invalid(
            &PLAIN.replace("1Gi", "'-1'"),
            &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        check_update(
            PLAIN,
            |new| {
                new["nodeTopology"] = json!({"matchLabels": {"zone": "b"}});
                new["storageClassName"] = json!("slow");
                new["capacity"] = json!("2Gi");
            },
            &[
                "nodeTopology: Invalid value: {\"matchLabels\":{\"zone\":\"b\"}}: field is immutable",
                "storageClassName: Invalid value: \"slow\": field is immutable",
            ],
        );
    }
}
