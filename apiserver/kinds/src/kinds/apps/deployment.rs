//! Deployment: replicas of one template, replaced step by step when the template changes.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use reeve_api::names;
use serde_json::{Value, json};

use super::workload;
use crate::errors::Errors;
use crate::field::{FieldError, FieldErrorKind};
use crate::json::{at, copy_field, get, has, int, object_mut, set, set_default, text};
use crate::kind::{Column, Kind, Names, Part, ScalePaths};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::pod;
use crate::{age, int_or_percent, shown, table};

const NAMES: Names = Names {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short: &["deploy"],
    categories: &["all"],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Ready", "Number of the pod with ready state"),
    table::column(
        "Up-to-date",
        "Total number of non-terminating pods targeted by this deployment that have the desired template spec.",
    ),
    table::column(
        "Available",
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this deployment.",
    ),
    table::AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide(
        "Selector",
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones affected by this deployment. It must match the pod template's labels.",
    ),
];

/// The kind.
pub(super) struct Deployments;

impl Kind for Deployments {
    wiring!(Deployment, NAMES, COLUMNS);

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
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
        let strategy = object_mut(spec, "strategy");
        set_default(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = object_mut(strategy, "rollingUpdate");
            for field in
                ["maxUnavailable", "maxSurge"].into_iter().filter(|field| !has(rolling, field)).collect::<Vec<_>>()
            {
                set(rolling, field, "25%");
            }
        }
        pod::default_template(object_mut(spec, "template"));
        object_mut(object, "status");
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
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
        match part {
            Part::Main => {
                copy_field(object, old, "status");
                workload::drop_disabled(object);
                meta::next_generation(object, old);
                // Annotations are part of what the controller acts on.
                let notes = |object| at(object, &["metadata", "annotations"]);
                if notes(object) != notes(old) && get(object, "spec") == get(old, "spec") {
                    let generation = at(old, &["metadata", "generation"]).as_i64().unwrap_or_default() + 1;
                    set(object_mut(object, "metadata"), "generation", generation);
                }
            }
            _ => {
                copy_field(object, old, "spec");
                copy_field(object_mut(object, "metadata"), get(old, "metadata"), "labels");
                meta::next_generation(object, old);
            }
        }
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        let path = Path::of("spec");
        match part {
            Part::Main => {
                spec_rules(get(object, "spec"), &mut errors);
                workload::same_selector(get(object, "spec"), get(old, "spec"), &path, &mut errors);
            }
            _ => {
                workload::status(
                    object,
                    &[
                        "observedGeneration",
                        "replicas",
                        "updatedReplicas",
                        "readyReplicas",
                        "availableReplicas",
                        "unavailableReplicas",
                        "terminatingReplicas",
                        "collisionCount",
                    ],
                    &[
                        ("updatedReplicas", "replicas"),
                        ("readyReplicas", "replicas"),
                        ("availableReplicas", "replicas"),
                        ("availableReplicas", "readyReplicas"),
                    ],
                    &mut errors,
                );
                workload::collisions(get(object, "status"), get(old, "status"), &Path::of("status"), &mut errors);
            }
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
        let count = |field: &str| int(status, field).unwrap_or_default();
        let pod_spec = at(spec, &["template", "spec"]);
        vec![
            table::name(object),
            format!("{}/{}", count("readyReplicas"), int(spec, "replicas").unwrap_or_default()).into(),
            count("updatedReplicas").into(),
            count("availableReplicas").into(),
            age::of(object, now).into(),
            table::containers(pod_spec, "name"),
            table::containers(pod_spec, "image"),
            table::selector(get(spec, "selector")),
        ]
    }
}

fn spec_rules(spec: &Value, errors: &mut Errors) {
    let path = Path::of("spec");
    errors.not_negative(&path.child("replicas"), int(spec, "replicas"));
    workload::template_and_selector(spec, &path, errors);
    strategy(get(spec, "strategy"), &path.child("strategy"), errors);
    errors.not_negative(&path.child("minReadySeconds"), int(spec, "minReadySeconds"));
    errors.not_negative(&path.child("revisionHistoryLimit"), int(spec, "revisionHistoryLimit"));
    let (deadline, path) = (int(spec, "progressDeadlineSeconds"), path.child("progressDeadlineSeconds"));
    errors.not_negative(&path, deadline);
    if let Some(deadline) = deadline.filter(|deadline| *deadline <= int(spec, "minReadySeconds").unwrap_or_default()) {
        errors.invalid(&path, deadline, "must be greater than minReadySeconds");
    }
}

fn strategy(strategy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (rolling, rolling_path) = (get(strategy, "rollingUpdate"), path.child("rollingUpdate"));
    match text(strategy, "type") {
        "Recreate" if !rolling.is_null() => {
            errors.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => rolling_update(rolling, &rolling_path, errors),
        _ => {
            let shown = shown::internal("DeploymentStrategy", strategy);
            let detail = "supported values: \"Recreate\", \"RollingUpdate\"";
            errors.add_text(FieldErrorKind::NotSupported, path, shown, detail);
        }
    }
}

fn rolling_update(rolling: &Value, path: &Path<'_>, errors: &mut Errors) {
    let amounts = ["maxUnavailable", "maxSurge"].map(|field| get(rolling, field));
    for (amount, field) in amounts.iter().zip(["maxUnavailable", "maxSurge"]) {
        int_or_percent::rules(amount, &path.child(field), errors);
    }
    let path = path.child("maxUnavailable");
    if amounts.iter().all(|amount| int_or_percent::is_zero(amount)) {
        errors.invalid(&path, amounts[0].clone(), "may not be 0 when `maxSurge` is 0");
    }
    int_or_percent::at_most_all(amounts[0], &path, errors);
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    fn deployment(spec: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web, namespace: n}}, spec: {{selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: 'web:1'}}]}}}}{spec}}}}}"
        )
    }

    #[test]
    fn a_change_of_what_is_off_is_no_change() {
        let (new, errors) = updated(Part::Main, &deployment(""), |new| {
            new["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = json!({"stopSignal": "SIGTERM"});
        });
        assert_eq!((&new["metadata"]["generation"], errors.len()), (&json!(1), 0));
        assert!(new["spec"]["template"]["spec"]["containers"][0].get("lifecycle").is_none());
    }

    #[test]
    fn a_small_deployment_gets_kubernetes_defaults() {
        check_created(
            &deployment(""),
            "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: n, generation: 1}
spec:
  progressDeadlineSeconds: 600
  replicas: 1
  revisionHistoryLimit: 10
  selector: {matchLabels: {app: web}}
  strategy: {rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}, type: RollingUpdate}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - image: web:1
        imagePullPolicy: IfNotPresent
        name: c
        resources: {}
        terminationMessagePath: /dev/termination-log
        terminationMessagePolicy: File
      dnsPolicy: ClusterFirst
      restartPolicy: Always
      schedulerName: default-scheduler
      securityContext: {}
      terminationGracePeriodSeconds: 30
status: {}",
        );
        check_valid(&deployment(""));
        check_valid(&deployment(", paused: true, strategy: {type: Recreate}"));
    }

    #[test]
    fn replicas_selector_and_strategy_are_checked() {
        check_invalid(
            &deployment(
                ", replicas: -1, minReadySeconds: 600, strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: '0%'}}",
            ),
            &[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
                "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
            ],
        );
        check_invalid(
            &deployment(", strategy: {type: Magic}"),
            &[
                "spec.strategy: Unsupported value: {\"Type\":\"Magic\",\"RollingUpdate\":null}: supported values: \"Recreate\", \"RollingUpdate\"",
            ],
        );
        check_invalid(
            &deployment("").replace("matchLabels: {app: web}", "matchLabels: {app: db}"),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
            ],
        );
        check_invalid(
            &deployment("").replace("selector: {matchLabels: {app: web}}, ", ""),
            &[
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
            ],
        );
        check_invalid(
            &deployment("").replace("{containers:", "{restartPolicy: Never, containers:"),
            &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        );
        check_invalid(
            &deployment(", strategy: {rollingUpdate: {maxSurge: lots, maxUnavailable: '101%'}}"),
            &[
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"lots\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ],
        );
    }

    #[test]
    fn the_selector_may_not_change() {
        check_update(
            &deployment(""),
            |new| {
                new["spec"]["selector"]["matchLabels"]["app"] = json!("db");
                new["spec"]["template"]["metadata"]["labels"]["app"] = json!("db");
            },
            &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"db\"}}: field is immutable"],
        );
    }

    #[test]
    fn the_generation_counts_changes_of_spec_and_annotations() {
        let generation = |change: fn(&mut serde_json::Value)| {
            updated(Part::Main, &deployment(""), change).0["metadata"]["generation"].as_i64()
        };
        assert_eq!(generation(|new| new["spec"]["replicas"] = json!(2)), Some(2));
        assert_eq!(generation(|new| new["metadata"]["annotations"] = json!({"a": "b"})), Some(2));
        assert_eq!(generation(|new| new["metadata"]["labels"] = json!({"a": "b"})), Some(1));
    }

    #[test]
    fn a_row_shows_what_kubectl_shows() {
        let object = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 3, selector: {matchLabels: {app: web}}, template: {spec: {containers: [{name: c, image: 'web:1'}, {name: d, image: db}]}}}, status: {readyReplicas: 2, updatedReplicas: 3, availableReplicas: 1}}";
        assert_eq!(row(object), "web | 2/3 | 3 | 1 | <unknown> | c,d | web:1,db | app=web");
    }
}
