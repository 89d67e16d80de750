//! StatefulSet: pods of one template that each have a name, an order and storage of their own.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use reeve_api::names;
use reeve_api::selector::LabelSelector;
use serde_json::{Value, json};

use super::workload;
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{
    at, copy_field, get, has, int, items_mut, list, object_mut, remove, set, set_default, some_mut, text,
};
use crate::kind::{Column, Kind, Names, Part, ScalePaths};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, claim, int_or_percent, pod, shown, table};

const NAMES: Names = Names {
    group: "apps",
    version: "v1",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short: &["sts"],
    categories: &["all"],
    namespaced: true,
};

/// Pods are called by the set's name, which therefore is a label.
const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_label };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Ready", "Number of the pod with ready state"),
    table::AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
];

/// What of the spec may change.
const CHANGEABLE: [&str; 7] = [
    "replicas",
    "template",
    "updateStrategy",
    "minReadySeconds",
    "ordinals",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
];

/// The kind.
pub(super) struct StatefulSets;

impl Kind for StatefulSets {
    wiring!(StatefulSet, NAMES, COLUMNS);

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn scale(&self) -> Option<ScalePaths> {
        Some(workload::SCALE)
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let spec = object_mut(object, "spec");
        set_default(spec, "podManagementPolicy", "OrderedReady");
        let strategy = object_mut(spec, "updateStrategy");
        if text(strategy, "type").is_empty() {
            set(strategy, "type", "RollingUpdate");
            object_mut(strategy, "rollingUpdate");
        }
        if let Some(rolling) = some_mut(strategy, "rollingUpdate") {
            set_default(rolling, "partition", 0);
        }
        if let Some(ordinals) = some_mut(spec, "ordinals") {
            set_default(ordinals, "start", 0);
        }
        let retention = object_mut(spec, "persistentVolumeClaimRetentionPolicy");
        set_default(retention, "whenDeleted", "Retain");
        set_default(retention, "whenScaled", "Retain");
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "serviceName", "");
        pod::default_template(object_mut(spec, "template"));
        for claim in items_mut(spec, "volumeClaimTemplates") {
            set(claim, "apiVersion", "v1");
            set(claim, "kind", "PersistentVolumeClaim");
            claim::default(claim);
        }
        let status = object_mut(object, "status");
        set_default(status, "replicas", 0);
        set_default(status, "availableReplicas", 0);
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"replicas": 0, "availableReplicas": 0}));
        meta::first_generation(object);
        drop_disabled(object, &Value::Null);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        spec_rules(get(object, "spec"), Check::ALL, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        if part == Part::Main {
            copy_field(object, old, "status");
            drop_disabled(object, old);
        } else {
            copy_field(object, old, "spec");
        }
        meta::next_generation(object, old);
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        if part == Part::Main {
            META.update(object, old, &mut errors);
            let (spec, was) = (get(object, "spec"), get(old, "spec"));
            let mut before = Errors::default();
            spec_rules(was, Check::CHANGED, &mut before);
            spec_rules(spec, Check { template: before.count() == 0, ..Check::CHANGED }, &mut errors);
            let mut masked = spec.clone();
            for field in CHANGEABLE {
                copy_field(&mut masked, was, field);
            }
            if masked != *was {
                errors.forbidden(&Path::of("spec"), "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
            }
        } else {
            status_rules(object, &mut errors);
            META.update(object, old, &mut errors);
            workload::collisions(get(object, "status"), get(old, "status"), &Path::of("status"), &mut errors);
        }
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let (spec, path) = (get(object, "spec"), Path::of("spec"));
        let mut warnings = Vec::new();
        if old.is_none_or(|old| meta::generation(old) != meta::generation(object)) {
            warnings = pod::controller_warnings(object, false);
        }
        let path = path.child("volumeClaimTemplates");
        for (index, one) in list(spec, "volumeClaimTemplates").iter().enumerate() {
            let path = path.index(index);
            // Kubernetes' own spelling.
            let of_change = path.child("Spec");
            let path = if old.is_some() { &of_change } else { &path };
            warnings.extend(claim::warnings(get(one, "spec"), path));
        }
        if int(spec, "revisionHistoryLimit").is_some_and(|limit| limit < 0) {
            warnings.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        warnings
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = get(object, "spec");
        let ready = int(get(object, "status"), "readyReplicas").unwrap_or_default();
        let pod_spec = at(spec, &["template", "spec"]);
        vec![
            table::name(object),
            format!("{ready}/{}", int(spec, "replicas").unwrap_or_default()).into(),
            age::of(object, now).into(),
            table::containers(pod_spec, "name"),
            table::containers(pod_spec, "image"),
        ]
    }
}

/// Takes away what has no effect while its feature is off.
fn drop_disabled(object: &mut Value, old: &Value) {
    workload::drop_disabled(object);
    let rolling = ["spec", "updateStrategy", "rollingUpdate"];
    if !has(at(old, &rolling), "maxUnavailable") {
        let spec = object_mut(object, "spec");
        if let Some(rolling) = some_mut(spec, "updateStrategy").and_then(|strategy| some_mut(strategy, "rollingUpdate"))
        {
            remove(rolling, "maxUnavailable");
        }
    }
}

/// Which parts of a spec are looked at: what cannot change any more may stay as it once was accepted.
#[derive(Clone, Copy)]
struct Check {
    service_name: bool,
    claims: bool,
    template: bool,
}

impl Check {
    const ALL: Self = Self { service_name: true, claims: true, template: true };
    const CHANGED: Self = Self { service_name: false, claims: false, template: true };
}

fn spec_rules(spec: &Value, check: Check, errors: &mut Errors) {
    let path = Path::of("spec");
    let policy = text(spec, "podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy) {
        errors.invalid(&path.child("podManagementPolicy"), policy, "must be 'OrderedReady' or 'Parallel'");
    }
    strategy(get(spec, "updateStrategy"), &path.child("updateStrategy"), errors);
    retention(get(spec, "persistentVolumeClaimRetentionPolicy"), &path, errors);
    if check.claims {
        let path = path.child("volumeClaimTemplates");
        for (index, one) in list(spec, "volumeClaimTemplates").iter().enumerate() {
            claim::spec_rules(get(one, "spec"), false, &path.index(index).child("spec"), errors);
        }
    }
    errors.not_negative(&path.child("replicas"), int(spec, "replicas"));
    errors.not_negative(&path.child("minReadySeconds"), int(spec, "minReadySeconds"));
    errors.not_negative(&path.child("ordinals.start"), int(get(spec, "ordinals"), "start"));
    let service = text(spec, "serviceName");
    if check.service_name && !service.is_empty() {
        errors.invalid_each(&path.child("serviceName"), service, names::dns1123_label(service));
    }
    selector_and_template(spec, check, &path, errors);
}

fn selector_and_template(spec: &Value, check: Check, path: &Path<'_>, errors: &mut Errors) {
    let (selector, here) = (get(spec, "selector"), path.child("selector"));
    if selector.is_null() {
        errors.required(&here, "");
    } else {
        meta::label_selector(selector, &here, errors);
        if !has(selector, "matchLabels") && !has(selector, "matchExpressions") {
            let shown = shown::selector(selector);
            errors.invalid_object(&here, shown, "empty selector is invalid for statefulset");
        }
    }
    let path = path.child("template");
    match LabelSelector::from_value(selector) {
        Ok(selector) => {
            let template = as_controlled(spec);
            workload::matches_template(&selector, &template, &path, errors);
            if check.template {
                pod::template(&template, &path, errors);
            }
            let own = get(&template, "metadata");
            meta::labels(get(own, "labels"), &path.child("labels"), errors);
            meta::annotations(own, &path.child("annotations"), errors);
            pod::annotation_rules(own, get(&template, "spec"), &path.child("annotations"), errors);
        }
        Err(_) => errors.invalid_object(&here, shown::selector(selector), ""),
    }
    workload::always_restarts(get(spec, "template"), "StatefulSet", &path, errors);
}

/// The template as the controller will use it: the names are its own, and each claim is a volume.
fn as_controlled(spec: &Value) -> Value {
    let mut template = get(spec, "template").clone();
    let pod = object_mut(&mut template, "spec");
    remove(pod, "hostname");
    remove(pod, "subdomain");
    let claims: Vec<_> =
        list(spec, "volumeClaimTemplates").iter().map(|claim| text(get(claim, "metadata"), "name")).collect();
    if !claims.is_empty() {
        let made = claims.iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        let others = list(pod, "volumes").iter().filter(|volume| !claims.contains(&text(volume, "name"))).cloned();
        let volumes: Vec<_> = made.chain(others).collect();
        set(pod, "volumes", volumes);
    }
    template
}

fn strategy(strategy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (rolling, here) = (get(strategy, "rollingUpdate"), path.child("rollingUpdate"));
    match text(strategy, "type") {
        "OnDelete" if !rolling.is_null() => {
            let shown = shown::internal("RollingUpdateStatefulSetStrategy", rolling);
            errors.invalid_object(&here, shown, "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            errors.not_negative(&here.child("partition"), int(rolling, "partition"));
            let (amount, path) = (get(rolling, "maxUnavailable"), here.child("maxUnavailable"));
            if !amount.is_null() {
                int_or_percent::rules(amount, &path, errors);
                if int_or_percent::is_zero(amount) {
                    errors.invalid(&path, amount.clone(), "cannot be 0");
                }
                int_or_percent::at_most_all(amount, &path, errors);
            }
        }
        _ => {
            let shown = shown::internal("StatefulSetUpdateStrategy", strategy);
            errors.invalid_object(path, shown, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

fn retention(policy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let value = text(policy, field);
        if !["Retain", "Delete"].contains(&value) {
            errors.unsupported(&path.child(field), value, &["Retain", "Delete"]);
        }
    }
}

fn status_rules(object: &Value, errors: &mut Errors) {
    let counters = ["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    let (status, path) = (get(object, "status"), Path::of("status"));
    for counter in counters.into_iter().chain(["observedGeneration", "collisionCount"]) {
        errors.not_negative(&path.child(counter), int(status, counter));
    }
    let count = |field: &str| int(status, field).unwrap_or_default();
    for (part, whole) in [
        ("readyReplicas", "replicas"),
        ("currentReplicas", "replicas"),
        ("updatedReplicas", "replicas"),
        ("availableReplicas", "replicas"),
        ("availableReplicas", "readyReplicas"),
    ] {
        if count(part) > count(whole) {
            errors.invalid(&path.child(part), count(part), format!("cannot be greater than status.{whole}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    fn set(spec: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: web, namespace: n}}, spec: {{serviceName: web, selector: {{matchLabels: {{app: web}}}}, template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: 'web:1', volumeMounts: [{{name: data, mountPath: /d}}]}}], volumes: [{{name: data, emptyDir: {{}}}}]}}}}{spec}}}}}"
        )
    }

    const CLAIM: &str = ", volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]";

    #[test]
    fn a_set_is_ordered_and_keeps_its_claims() {
        let made = created(&set(CLAIM));
        let spec = &made["spec"];
        assert_eq!(spec["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}));
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!((&spec["podManagementPolicy"], &spec["replicas"]), (&json!("OrderedReady"), &json!(1)));
        assert_eq!(
            spec["volumeClaimTemplates"][0],
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Filesystem"},
                "status": {"phase": "Pending"}})
        );
        assert_eq!(made["status"], json!({"replicas": 0, "availableReplicas": 0}));
        assert_eq!(created(&set("").replace("serviceName: web, ", ""))["spec"]["serviceName"], "");
        assert_eq!(
            created(&set(", updateStrategy: {type: OnDelete}"))["spec"]["updateStrategy"],
            json!({"type": "OnDelete"})
        );
    }

    #[test]
    fn claims_and_strategies_are_checked() {
        check_valid(&set(CLAIM));
        check_invalid(
            &set(", updateStrategy: {type: Other}, podManagementPolicy: Odd, replicas: -1, persistentVolumeClaimRetentionPolicy: {whenScaled: Never}, ordinals: {start: -1}, volumeClaimTemplates: [{metadata: {name: data}}]").replace("serviceName: web", "serviceName: a.b"),
            &[
                "spec.podManagementPolicy: Invalid value: \"Odd\": must be 'OrderedReady' or 'Parallel'",
                "spec.updateStrategy: Invalid value: {\"Type\":\"Other\",\"RollingUpdate\":null}: must be 'RollingUpdate' or 'OnDelete'",
                "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"Never\": supported values: \"Retain\", \"Delete\"",
                "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0",
                "spec.serviceName: Invalid value: \"a.b\": must not contain dots",
            ],
        );
        check_invalid(
            &set(", updateStrategy: {type: OnDelete, rollingUpdate: {partition: 3}}"),
            &[
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":3,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
            ],
        );
    }

    #[test]
    fn only_some_fields_change() {
        check_update(&set(CLAIM), |set| set["spec"]["replicas"] = json!(3), &[]);
        check_update(&set(""), |set| set["spec"]["template"]["spec"]["hostNetwork"] = json!(true), &[]);
        check_update(
            &set(""),
            |set| set["spec"]["serviceName"] = json!("other"),
            &[
                "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            ],
        );
    }

    #[test]
    fn counters_of_the_status_fit_together() {
        let (_, errors) = updated(Part::Status, &set(""), |set| {
            set["status"] = json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 2, "currentReplicas": 3});
        });
        assert_eq!(
            errors,
            [
                "status.currentReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas",
            ]
        );
    }

    #[test]
    fn a_row_shows_how_many_are_ready() {
        let shown = row(
            "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: web, creationTimestamp: '2026-01-01T00:50:00Z'}, spec: {replicas: 3, template: {spec: {containers: [{name: c, image: 'web:1'}]}}}, status: {readyReplicas: 1}}",
        );
        assert_eq!(shown, "web | 1/3 | 10m | c | web:1");
    }
}
