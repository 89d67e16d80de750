//! PodTemplate: a template of pods that stands by itself.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, get, object_mut};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{pod, table};

const NAMES: Names = Names {
    group: "",
    version: "v1",
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    short: &[],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Containers", "Names of each container in the template."),
    table::column("Images", "Images referenced by each container in the template."),
    table::column("Pod Labels", "The labels for the pod template."),
];

/// The kind.
pub(super) struct PodTemplates;

impl Kind for PodTemplates {
    wiring!(PodTemplate, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        pod::default_template(object_mut(object, "template"));
    }

    fn prepare_create(&self, object: &mut Value) {
        meta::first_generation(object);
        pod::drop_disabled_of_template(object_mut(object, "template"));
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        pod::template(get(object, "template"), &Path::of("template"), &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, object: &mut Value, old: &Value) {
        pod::drop_disabled_of_template(object_mut(object, "template"));
        meta::next_generation_of(object, old, "template");
    }

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        pod::template(get(object, "template"), &Path::of("template"), &mut errors);
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some_and(|old| meta::generation(old) == meta::generation(object)) {
            return Vec::new();
        }
        let template = get(object, "template");
        pod::warnings(get(template, "metadata"), get(template, "spec"), &Path::of("template"))
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let template = get(object, "template");
        vec![
            table::name(object),
            table::containers(get(template, "spec"), "name"),
            table::containers(get(template, "spec"), "image"),
            table::labels(at(template, &["metadata"]), "labels"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::kind::Part;
    use crate::testing::*;
    use serde_json::json;

    const TEMPLATE: &str = "{apiVersion: v1, kind: PodTemplate, metadata: {name: t, namespace: n}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: 'web:1'}, {name: d, image: 'log:1'}]}}}";

    #[test]
    fn a_change_of_the_template_is_counted() {
        assert_eq!(created(TEMPLATE)["metadata"]["generation"], 1);
        let (new, errors) =
            updated(Part::Main, TEMPLATE, |object| object["template"]["spec"]["restartPolicy"] = json!("Never"));
        assert_eq!((&new["metadata"]["generation"], errors), (&json!(2), vec![]));
    }

    #[test]
    fn the_template_is_checked_like_any_other() {
        check_valid(TEMPLATE);
        check_invalid(
            &TEMPLATE.replace("{name: d", "{name: c"),
            &["template.spec.containers[1].name: Duplicate value: \"c\""],
        );
    }

    #[test]
    fn a_row_shows_containers_and_labels() {
        assert_eq!(row(TEMPLATE), "t | c,d | web:1,log:1 | app=web");
    }
}
