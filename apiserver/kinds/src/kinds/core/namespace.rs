//! Namespace: a scope for names.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use reeve_api::names;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{copy_field, get, has, list, object_mut, set, set_default, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, table};

/// Label that holds the namespace's own name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short: &["ns"],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_label };

const COLUMNS: &[Column] = &[table::NAME, table::column("Status", "The status of the namespace"), table::AGE];

/// The kind.
pub(super) struct Namespaces;

impl Kind for Namespaces {
    wiring!(Namespace, NAMES, COLUMNS);

    fn parts(&self) -> &'static [Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        let name = text_at(object, &["metadata", "name"]).to_owned();
        if !name.is_empty() {
            set(object_mut(object_mut(object, "metadata"), "labels"), NAME_LABEL, name);
        }
        object_mut(object, "spec");
        set_default(object_mut(object, "status"), "phase", "Active");
    }

    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"phase": "Active"}));
        // The kubernetes finalizer keeps the namespace until its content is gone.
        let spec = object_mut(object, "spec");
        let mut finalizers = list(spec, "finalizers").to_vec();
        if !finalizers.iter().any(|one| one == "kubernetes") {
            finalizers.push("kubernetes".into());
        }
        set(spec, "finalizers", finalizers);
        self.default(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        let spec = Path::of("spec");
        for finalizer in list(get(object, "spec"), "finalizers") {
            finalizer_rule(finalizer.as_str().unwrap_or_default(), &spec.child("finalizers"), &mut errors);
        }
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        if part == Part::Main {
            copy_field(object, old, "status");
        }
        copy_field(object, old, "spec");
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        if part == Part::Main {
            META.create(object, &mut errors);
        }
        if part == Part::Status {
            phase_rule(object, &mut errors);
        }
        errors.into_vec()
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        (field == "status.phase").then(|| text_at(object, &["status", "phase"]).to_owned())
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported: {field}"))
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), text(get(object, "status"), "phase").into(), age::of(object, now).into()]
    }
}

fn finalizer_rule(name: &str, path: &Path<'_>, errors: &mut Errors) {
    meta::finalizer_name(name, path, errors);
    meta::standard_finalizer(name, path, errors);
}

/// Whoever is being deleted is Terminating, and nobody else.
fn phase_rule(object: &Value, errors: &mut Errors) {
    let (phase, status) = (text_at(object, &["status", "phase"]), Path::of("status"));
    let dying = has(get(object, "metadata"), "deletionTimestamp");
    if !dying && phase != "Active" {
        errors.invalid(&status.child("Phase"), phase, "may only be 'Active' if `deletionTimestamp` is empty");
    }
    if dying && phase != "Terminating" {
        errors.invalid(&status.child("Phase"), phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}";

    #[test]
    fn a_new_namespace_is_active_and_carries_its_name() {
        check_created(
            PLAIN,
            "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {kubernetes.io/metadata.name: a}}, spec: {finalizers: [kubernetes]}, status: {phase: Active}}",
        );
        check_valid(PLAIN);
    }

    #[test]
    fn names_are_labels_and_have_no_namespace() {
        check_invalid(
            "{apiVersion: v1, kind: Namespace, metadata: {name: a.b, namespace: c}}",
            &[
                "metadata.name: Invalid value: \"a.b\": must not contain dots",
                "metadata.namespace: Forbidden: not allowed on this type",
            ],
        );
    }

    #[test]
    fn the_phase_follows_deletion() {
        let (_, errors) = updated(Part::Status, PLAIN, |new| new["status"]["phase"] = json!("Terminating"));
        assert_eq!(
            errors,
            ["status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"]
        );
        let (new, _) = updated(Part::Main, PLAIN, |new| new["spec"]["finalizers"] = json!([]));
        assert_eq!(new["spec"]["finalizers"], json!(["kubernetes"]));
    }

    #[test]
    fn a_row_shows_the_phase() {
        assert_eq!(
            row("{apiVersion: v1, kind: Namespace, metadata: {name: a}, status: {phase: Active}}"),
            "a | Active | <unknown>"
        );
    }
}
