//! ReplicaSet: a number of pods of one template.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use reeve_api::names;
use serde_json::{Value, json};

use super::workload;
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, copy_field, get, int, object_mut, set, set_default};
use crate::kind::{Column, Kind, Names, Part, ScalePaths};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::pod;
use crate::{age, table};

const NAMES: Names = Names {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short: &["rs"],
    categories: &["all"],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number(
        "Desired",
        "Replicas is the number of desired pods. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    table::number(
        "Current",
        "Replicas is the most recently observed number of non-terminating pods. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset",
    ),
    table::number("Ready", "The number of non-terminating pods targeted by this ReplicaSet with a Ready Condition."),
    table::AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide(
        "Selector",
        "Selector is a label query over pods that should match the replica count. Label keys and values that must match in order to be controlled by this replica set. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

/// The kind.
pub(super) struct ReplicaSets;

impl Kind for ReplicaSets {
    wiring!(ReplicaSet, NAMES, COLUMNS);

    fn parts(&self) -> &'static [Part] {
        &[Part::Status]
    }

    fn scale(&self) -> Option<ScalePaths> {
        Some(workload::SCALE)
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let spec = object_mut(object, "spec");
        set_default(spec, "replicas", 1);
        pod::default_template(object_mut(spec, "template"));
        set_default(object_mut(object, "status"), "replicas", 0);
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"replicas": 0}));
        meta::first_generation(object);
        workload::drop_disabled(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        spec_rules(get(object, "spec"), &Path::of("spec"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Main => {
                copy_field(object, old, "status");
                workload::drop_disabled(object);
            }
            _ => copy_field(object, old, "spec"),
        }
        meta::next_generation(object, old);
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        let (spec, was, path) = (get(object, "spec"), get(old, "spec"), Path::of("spec"));
        match part {
            Part::Main => {
                spec_rules(spec, &path, &mut errors);
                workload::same_selector(spec, was, &path, &mut errors);
            }
            _ => workload::status(
                object,
                &[
                    "replicas",
                    "fullyLabeledReplicas",
                    "readyReplicas",
                    "availableReplicas",
                    "observedGeneration",
                    "terminatingReplicas",
                ],
                &[
                    ("fullyLabeledReplicas", "replicas"),
                    ("readyReplicas", "replicas"),
                    ("availableReplicas", "replicas"),
                    ("availableReplicas", "readyReplicas"),
                ],
                &mut errors,
            ),
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let generation = |object| at(object, &["metadata", "generation"]);
        if old.is_some_and(|old| generation(old) == generation(object)) {
            return Vec::new();
        }
        pod::controller_warnings(object, old.is_none())
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (get(object, "spec"), get(object, "status"));
        let pod_spec = at(spec, &["template", "spec"]);
        vec![
            table::name(object),
            int(spec, "replicas").unwrap_or_default().into(),
            int(status, "replicas").unwrap_or_default().into(),
            int(status, "readyReplicas").unwrap_or_default().into(),
            age::of(object, now).into(),
            table::containers(pod_spec, "name"),
            table::containers(pod_spec, "image"),
            table::selector(get(spec, "selector")),
        ]
    }
}

fn spec_rules(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.not_negative(&path.child("replicas"), int(spec, "replicas"));
    errors.not_negative(&path.child("minReadySeconds"), int(spec, "minReadySeconds"));
    workload::template_and_selector(spec, path, errors);
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web, namespace: n}, spec: {replicas: 2, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: web}]}}}}";

    #[test]
    fn a_new_set_counts_nothing_yet() {
        let created = created(PLAIN);
        assert_eq!((&created["status"], &created["metadata"]["generation"]), (&json!({"replicas": 0}), &json!(1)));
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "web | 2 | 0 | 0 | <unknown> | c | web | app=web");
    }

    #[test]
    fn counters_are_parts_of_each_other() {
        let (_, errors) =
            updated(Part::Status, PLAIN, |new| new["status"] = json!({"replicas": 1, "readyReplicas": 2}));
        assert_eq!(errors, ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]);
    }

    #[test]
    fn the_selector_may_not_change() {
        check_update(
            PLAIN,
            |new| new["spec"]["selector"] = json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}),
            &[
                "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"app\",\"operator\":\"Exists\"}]}: field is immutable",
            ],
        );
    }
}
