//! DaemonSet: one pod of a template on each node.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use reeve_api::names;
use reeve_api::selector::LabelSelector;
use serde_json::{Value, json};

use super::workload;
use crate::errors::Errors;
use crate::field::{FieldError, FieldErrorKind};
use crate::json::{at, copy_field, entries, get, has, int, object_mut, set, set_default, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::strict::{self, DecodeError};
use crate::{age, int_or_percent, pod, shown, table};

const NAMES: Names = Names {
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short: &["ds"],
    categories: &["all"],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::number(
        "Desired",
        "The total number of nodes that should be running the daemon pod (including nodes correctly running the daemon pod). More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    table::number(
        "Current",
        "The number of nodes that are running at least 1 daemon pod and are supposed to run the daemon pod. More info: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/",
    ),
    table::number(
        "Ready",
        "numberReady is the number of nodes that should be running the daemon pod and have one or more of the daemon pod running with a Ready Condition.",
    ),
    table::number("Up-to-date", "The total number of nodes that are running updated daemon pod"),
    table::number(
        "Available",
        "The number of nodes that should be running the daemon pod and have one or more of the daemon pod running and available (ready for at least spec.minReadySeconds)",
    ),
    table::column(
        "Node Selector",
        "NodeSelector is a selector which must be true for the pod to fit on a node. Selector which must match a node's labels for the pod to be scheduled on that node. More info: https://kubernetes.io/docs/concepts/configuration/assign-pod-node/",
    ),
    table::AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide(
        "Selector",
        "A label query over pods that are managed by the daemon set. Must match in order to be controlled. It must match the pod template's labels. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

/// Annotation that counts the changes of the template.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The kind.
pub(super) struct DaemonSets;

impl Kind for DaemonSets {
    wiring!(DaemonSet, NAMES, COLUMNS);

    fn conform(&self, object: &mut Value) -> Result<Vec<String>, DecodeError> {
        let unknown = strict::conform_to(self.shape(), object)?;
        let note = text(at(object, &["metadata", "annotations"]), TEMPLATE_GENERATION);
        if has(at(object, &["metadata", "annotations"]), TEMPLATE_GENERATION) && note.parse::<i64>().is_err() {
            return Err(DecodeError::Other(format!("strconv.ParseInt: parsing {note:?}: invalid syntax")));
        }
        Ok(unknown)
    }

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        // Whoever writes the object manages the annotation too, with what it had before it is counted.
        if !has(at(object, &["metadata", "annotations"]), TEMPLATE_GENERATION) {
            set_template_generation(object, 0);
        }
        let spec = object_mut(object, "spec");
        pod::default_template(object_mut(spec, "template"));
        let strategy = object_mut(spec, "updateStrategy");
        set_default(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = object_mut(strategy, "rollingUpdate");
            for (field, amount) in [("maxUnavailable", 1), ("maxSurge", 0)] {
                if !has(rolling, field) {
                    set(rolling, field, amount);
                }
            }
        }
        set_default(spec, "revisionHistoryLimit", 10);
        let status = object_mut(object, "status");
        for field in ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"] {
            set_default(status, field, 0);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        set(
            object,
            "status",
            json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0}),
        );
        meta::first_generation(object);
        let generation = template_generation(object).max(1);
        set_template_generation(object, generation);
        workload::drop_disabled(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        spec_rules(get(object, "spec"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        let mut generation = template_generation(old);
        if part == Part::Main {
            copy_field(object, old, "status");
            workload::drop_disabled(object);
            generation += i64::from(at(object, &["spec", "template"]) != at(old, &["spec", "template"]));
        } else {
            copy_field(object, old, "spec");
        }
        set_template_generation(object, generation);
        meta::next_generation(object, old);
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        if part == Part::Main {
            workload::same_selector(get(object, "spec"), get(old, "spec"), &Path::of("spec"), &mut errors);
            spec_rules(get(object, "spec"), &mut errors);
        } else {
            status_rules(get(object, "status"), get(old, "status"), &mut errors);
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some_and(|old| template_generation(old) == template_generation(object)) {
            return Vec::new();
        }
        pod::controller_warnings(object, false)
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (get(object, "spec"), get(object, "status"));
        let count = |field: &str| Value::from(int(status, field).unwrap_or_default());
        let pod_spec = at(spec, &["template", "spec"]);
        vec![
            table::name(object),
            count("desiredNumberScheduled"),
            count("currentNumberScheduled"),
            count("numberReady"),
            count("updatedNumberScheduled"),
            count("numberAvailable"),
            table::labels(pod_spec, "nodeSelector"),
            age::of(object, now).into(),
            table::containers(pod_spec, "name"),
            table::containers(pod_spec, "image"),
            table::selector(get(spec, "selector")),
        ]
    }
}

fn template_generation(object: &Value) -> i64 {
    text(at(object, &["metadata", "annotations"]), TEMPLATE_GENERATION).parse().unwrap_or_default()
}

fn set_template_generation(object: &mut Value, generation: i64) {
    set(object_mut(object_mut(object, "metadata"), "annotations"), TEMPLATE_GENERATION, generation.to_string());
}

fn spec_rules(spec: &Value, errors: &mut Errors) {
    let (selector, path) = (get(spec, "selector"), Path::of("spec"));
    let (template, template_path, selector_path) =
        (get(spec, "template"), path.child("template"), path.child("selector"));
    meta::label_selector(selector, &selector_path, errors);
    let labels = at(template, &["metadata", "labels"]);
    if LabelSelector::from_value(selector).is_ok_and(|selector| !selector.matches_value(labels)) {
        let path = template_path.child("metadata");
        errors.invalid(&path.child("labels"), labels.clone(), "`selector` does not match template `labels`");
    }
    if !selector.is_null() && entries(selector, "matchLabels").count() == 0 && !has(selector, "matchExpressions") {
        let shown = shown::selector(selector);
        errors.invalid_object(&selector_path, shown, "empty selector is invalid for daemonset");
    }
    pod::template(template, &template_path, errors);
    workload::always_restarts(template, "DaemonSet", &template_path, errors);
    errors.not_negative(&path.child("minReadySeconds"), int(spec, "minReadySeconds"));
    strategy(get(spec, "updateStrategy"), &path.child("updateStrategy"), errors);
    errors.not_negative(&path.child("revisionHistoryLimit"), int(spec, "revisionHistoryLimit"));
}

fn strategy(strategy: &Value, path: &Path<'_>, errors: &mut Errors) {
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => rolling_update(get(strategy, "rollingUpdate"), &path.child("rollingUpdate"), errors),
        _ => {
            let shown = shown::internal("DaemonSetUpdateStrategy", strategy);
            let detail = "supported values: \"RollingUpdate\", \"OnDelete\"";
            errors.add_text(FieldErrorKind::NotSupported, path, shown, detail);
        }
    }
}

/// Pods are taken away first or new ones are started first, never both.
fn rolling_update(rolling: &Value, path: &Path<'_>, errors: &mut Errors) {
    let amounts = ["maxUnavailable", "maxSurge"].map(|field| get(rolling, field));
    let paths = [path.child("maxUnavailable"), path.child("maxSurge")];
    for (amount, path) in amounts.iter().zip(&paths) {
        int_or_percent::rules(amount, path, errors);
    }
    for (amount, path) in amounts.iter().zip(&paths) {
        int_or_percent::at_most_all(amount, path, errors);
    }
    match amounts.map(int_or_percent::is_zero) {
        [false, false] => {
            errors.invalid(&paths[1], amounts[1].clone(), "may not be set when maxUnavailable is non-zero");
        }
        [true, true] => errors.required(&paths[0], "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn status_rules(status: &Value, was: &Value, errors: &mut Errors) {
    let path = Path::of("status");
    for field in [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ] {
        errors.not_negative(&path.child(field), int(status, field));
    }
    workload::collisions(status, was, &path, errors);
}

#[cfg(test)]
mod tests {
    use crate::kind::{Kind, Part};
    use crate::testing::*;
    use serde_json::json;

    fn daemons(spec: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: DaemonSet, metadata: {{name: web, namespace: n}}, spec: {{selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: 'web:1'}}]}}}}{spec}}}}}"
        )
    }

    #[test]
    fn the_generation_of_the_template_shows_before_anybody_has_set_it() {
        let mut daemons = serde_json::from_value(json!({"spec": {}})).unwrap();
        super::DaemonSets.default(&mut daemons);
        assert_eq!(daemons["metadata"]["annotations"][super::TEMPLATE_GENERATION], "0");
    }

    #[test]
    fn pods_are_replaced_one_by_one_unless_told_otherwise() {
        let daemons = created(&daemons(""));
        assert_eq!(
            daemons["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        assert_eq!(daemons["spec"]["revisionHistoryLimit"], 10);
        assert_eq!(daemons["metadata"]["annotations"], json!({"deprecated.daemonset.template.generation": "1"}));
    }

    #[test]
    fn changes_of_the_template_are_counted_by_themselves() {
        let note = |object: &serde_json::Value| {
            let meta = object["metadata"].clone();
            (meta["generation"].clone(), meta["annotations"]["deprecated.daemonset.template.generation"].clone())
        };
        let (new, _) = updated(Part::Main, &daemons(""), |object| object["spec"]["minReadySeconds"] = json!(3));
        assert_eq!(note(&new), (json!(2), json!("1")));
        let (new, _) = updated(Part::Main, &daemons(""), |object| {
            object["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
            object["metadata"]["annotations"] = json!({});
        });
        assert_eq!(note(&new), (json!(2), json!("2")));
    }

    #[test]
    fn an_update_takes_away_first_or_starts_first() {
        check_valid(&daemons(", updateStrategy: {rollingUpdate: {maxSurge: 10%, maxUnavailable: 0}}"));
        check_invalid(
            &daemons(", updateStrategy: {rollingUpdate: {maxSurge: 200%}}"),
            &[
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"200%\": must not be greater than 100%",
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"200%\": may not be set when maxUnavailable is non-zero",
            ],
        );
        check_invalid(
            &daemons(", updateStrategy: {rollingUpdate: {maxUnavailable: 0%}}"),
            &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
        );
        check_invalid(
            &daemons(", updateStrategy: {type: Never}"),
            &[
                "spec.updateStrategy: Unsupported value: {\"Type\":\"Never\",\"RollingUpdate\":null}: supported values: \"RollingUpdate\", \"OnDelete\"",
            ],
        );
    }

    #[test]
    fn the_selector_is_there_matches_and_stays() {
        check_invalid(
            &daemons("").replace("selector: {matchLabels: {app: web}}, ", ""),
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
            ],
        );
        check_invalid(
            &daemons("").replace("selector: {matchLabels: {app: web}}", "selector: {}"),
            &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
        );
        check_update(
            &daemons(""),
            |object| {
                object["spec"]["selector"]["matchLabels"] = json!({"b": "c"});
                object["spec"]["template"]["metadata"]["labels"] = json!({"b": "c"});
            },
            &["spec.selector: Invalid value: {\"matchLabels\":{\"b\":\"c\"}}: field is immutable"],
        );
    }

    #[test]
    fn a_row_shows_how_many_nodes_have_it() {
        let shown = row(
            "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: web, creationTimestamp: '2026-01-01T00:50:00Z'}, spec: {selector: {matchLabels: {app: web}}, template: {spec: {nodeSelector: {a: b}, containers: [{name: c, image: 'web:1'}]}}}, status: {desiredNumberScheduled: 3, currentNumberScheduled: 2, numberReady: 1}}",
        );
        assert_eq!(shown, "web | 3 | 2 | 1 | 0 | 0 | a=b | 10m | c | web:1 | app=web");
    }
}
