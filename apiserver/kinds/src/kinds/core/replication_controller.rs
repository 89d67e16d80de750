//! ReplicationController: a number of pods of one template, as ReplicaSet but older.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ReplicationController;
use reeve_api::names;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::{FieldError, FieldErrorKind};
use crate::json::{at, copy_field, entries, get, has, int, object_mut, set, set_default};
use crate::kind::{Column, Kind, Names, Part, ScalePaths};
use crate::kinds::apps::workload;
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, pod, table};

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short: &["rc"],
    categories: &["all"],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number(
        "Desired",
        "Replicas is the number of desired replicas. This is a pointer to distinguish between explicit zero and unspecified. Defaults to 1. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
    ),
    table::number(
        "Current",
        "Replicas is the most recently observed number of replicas. More info: https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller#what-is-a-replicationcontroller",
    ),
    table::number("Ready", "The number of ready replicas for this replication controller."),
    table::AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide(
        "Selector",
        "Selector is a label query over pods that should match the Replicas count. If Selector is empty, it is defaulted to the labels present on the Pod template. Label keys and values that must match in order to be controlled by this replication controller, if empty defaulted to labels on Pod template. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

/// Annotations that keep what could not be converted from older versions.
const NOT_CONVERTIBLE: &str = "non-convertible.kubernetes.io";

/// The kind.
pub(super) struct ReplicationControllers;

impl Kind for ReplicationControllers {
    wiring!(ReplicationController, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn scale(&self) -> Option<ScalePaths> {
        Some(workload::SCALE)
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let labels = at(object, &["spec", "template", "metadata", "labels"]).clone();
        let spec = object_mut(object, "spec");
        if has(spec, "template") {
            pod::default_template(object_mut(spec, "template"));
        }
        set_default(spec, "replicas", 1);
        if !labels.is_null() {
            if entries(spec, "selector").count() == 0 {
                set(spec, "selector", labels.clone());
            }
            let meta = object_mut(object, "metadata");
            if entries(meta, "labels").count() == 0 {
                set(meta, "labels", labels);
            }
        }
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
        spec_rules(get(object, "spec"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        copy_field(object, old, if part == Part::Main { "status" } else { "spec" });
        workload::drop_disabled(object);
        meta::next_generation(object, old);
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        if part == Part::Main {
            spec_rules(get(object, "spec"), &mut errors);
            not_convertible(object, old, &mut errors);
        } else {
            workload::status(
                object,
                &["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"],
                &[
                    ("fullyLabeledReplicas", "replicas"),
                    ("readyReplicas", "replicas"),
                    ("availableReplicas", "replicas"),
                    ("availableReplicas", "readyReplicas"),
                ],
                &mut errors,
            );
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        match old {
            None => pod::controller_warnings(object, true),
            Some(old) if meta::generation(old) == meta::generation(object) => Vec::new(),
            // Kubernetes looks at the template as it was.
            Some(old) => pod::controller_warnings(old, false),
        }
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        let replicas = int(get(object, "status"), "replicas").unwrap_or_default();
        (field == "status.replicas").then(|| replicas.to_string())
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported: {field}"))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (get(object, "spec"), get(object, "status"));
        let count = |field: &str| int(status, field).unwrap_or_default();
        let pod_spec = at(spec, &["template", "spec"]);
        vec![
            table::name(object),
            int(spec, "replicas").unwrap_or_default().into(),
            count("replicas").into(),
            count("readyReplicas").into(),
            age::of(object, now).into(),
            table::containers(pod_spec, "name"),
            table::containers(pod_spec, "image"),
            table::labels(spec, "selector"),
        ]
    }
}

fn spec_rules(spec: &Value, errors: &mut Errors) {
    let path = Path::of("spec");
    errors.not_negative(&path.child("minReadySeconds"), int(spec, "minReadySeconds"));
    if entries(spec, "selector").count() == 0 {
        errors.required(&path.child("selector"), "");
    }
    errors.not_negative(&path.child("replicas"), int(spec, "replicas"));
    let (template, path) = (get(spec, "template"), path.child("template"));
    if template.is_null() {
        return errors.required(&path, "");
    }
    let labels = at(template, &["metadata", "labels"]);
    if entries(spec, "selector").any(|(key, value)| get(labels, key) != value) {
        let path = path.child("metadata");
        errors.invalid(&path.child("labels"), labels.clone(), "`selector` does not match template `labels`");
    }
    pod::template(template, &path, errors);
    workload::always_restarts(template, "ReplicationController", &path, errors);
}

/// What an annotation says could not be converted does not change.
fn not_convertible(object: &Value, old: &Value, errors: &mut Errors) {
    for (key, value) in entries(get(old, "metadata"), "annotations").filter(|(key, _)| key.starts_with(NOT_CONVERTIBLE))
    {
        let Some((_, field)) = key.split_once('/').filter(|(_, field)| !field.contains('/')) else { continue };
        let selector = |object| at(object, &["spec", "selector"]);
        if !field.contains("selector") {
            let text = value.as_str().unwrap_or_default();
            errors.add(FieldErrorKind::NotFound, &Path::of(field), text.into(), "unknown non-convertible field");
        } else if selector(object) != selector(old) {
            let path = Path::of("spec");
            let detail = "cannot update non-convertible selector";
            errors.invalid(&path.child("selector"), selector(object).clone(), detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: v1, kind: ReplicationController, metadata: {name: web, namespace: n}, spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'web:1'}]}}}}";

    #[test]
    fn selector_and_labels_come_from_the_template() {
        let controller = created(PLAIN);
        assert_eq!(controller["spec"]["selector"], json!({"app": "web"}));
        assert_eq!(
            controller["metadata"],
            json!({"name": "web", "namespace": "n", "generation": 1, "labels": {"app": "web"}})
        );
        assert_eq!((&controller["spec"]["replicas"], &controller["status"]), (&json!(1), &json!({"replicas": 0})));
    }

    #[test]
    fn the_selector_matches_the_template_and_the_pods_run_for_ever() {
        check_valid(PLAIN);
        check_invalid(
            &PLAIN
                .replace("spec: {template", "spec: {selector: {app: db}, replicas: -1, template")
                .replace("{containers", "{restartPolicy: Never, activeDeadlineSeconds: 5, containers"),
            &[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported",
            ],
        );
        check_invalid(
            "{apiVersion: v1, kind: ReplicationController, metadata: {name: web, namespace: n}}",
            &["spec.selector: Required value", "spec.template: Required value"],
        );
    }

    #[test]
    fn counters_of_the_status_fit_together() {
        let (_, errors) =
            updated(Part::Status, PLAIN, |object| object["status"] = json!({"replicas": 1, "readyReplicas": 2}));
        assert_eq!(errors, ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]);
    }

    #[test]
    fn a_row_shows_what_is_and_what_should_be() {
        let shown = row(
            "{apiVersion: v1, kind: ReplicationController, metadata: {name: web, creationTimestamp: '2026-01-01T00:50:00Z'}, spec: {replicas: 3, selector: {app: web}, template: {spec: {containers: [{name: c, image: 'web:1'}]}}}, status: {replicas: 2, readyReplicas: 1}}",
        );
        assert_eq!(shown, "web | 3 | 2 | 1 | 10m | c | web:1 | app=web");
    }
}
