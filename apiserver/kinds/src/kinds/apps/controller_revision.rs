//! ControllerRevision: a state that a controller can go back to.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{flag, get, int, list, set, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::MetaRules;
use crate::path::Path;
use crate::{age, table};

const NAMES: Names = Names {
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    short: &[],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Controller", "Controller of the object"),
    table::column("Revision", "Revision indicates the revision of the state represented by Data."),
    table::AGE,
];

/// The kind.
pub(super) struct ControllerRevisions;

impl Kind for ControllerRevisions {
    wiring!(ControllerRevision, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        if int(object, "revision").is_none() {
            set(object, "revision", 0);
        }
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        rules(object, &mut errors);
        let path = Path::of("data");
        match get(object, "data") {
            Value::Null => errors.required(&path, "data is mandatory"),
            Value::Object(_) => {}
            _ => errors.required(&path, "data must be a valid JSON object"),
        }
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        rules(object, &mut errors);
        errors.immutable(&Path::of("data"), get(object, "data"), get(old, "data"));
        errors.into_vec()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            table::name(object),
            controller(object).into(),
            int(object, "revision").unwrap_or_default().into(),
            age::of(object, now).into(),
        ]
    }
}

fn rules(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    errors.not_negative(&Path::of("revision"), int(object, "revision"));
}

/// `statefulset.apps/web`
fn controller(object: &Value) -> String {
    let owners = list(get(object, "metadata"), "ownerReferences");
    let Some(owner) = owners.iter().find(|owner| flag(owner, "controller")) else { return "<none>".to_owned() };
    let kind = text(owner, "kind").to_lowercase();
    match text(owner, "apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{}/{}", group.to_lowercase(), text(owner, "name")),
        None => format!("{kind}/{}", text(owner, "name")),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    const REVISION: &str = "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: web-1, namespace: n, creationTimestamp: '2026-01-01T00:50:00Z', ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: web, uid: u, controller: true}]}, data: {spec: {}}, revision: 3}";

    #[test]
    fn the_data_of_a_revision_is_an_object_and_stays() {
        check_valid(REVISION);
        check_invalid(
            &REVISION.replace("{spec: {}}, revision: 3", "[], revision: -1"),
            &[
                "revision: Invalid value: -1: must be greater than or equal to 0",
                "data: Required value: data must be a valid JSON object",
            ],
        );
        check_invalid(&REVISION.replace("data: {spec: {}}, ", ""), &["data: Required value: data is mandatory"]);
        check_update(REVISION, |object| object["revision"] = json!(4), &[]);
        check_update(
            REVISION,
            |object| object["data"] = json!({"a": 1}),
            &["data: Invalid value: {\"a\":1}: field is immutable"],
        );
    }

    #[test]
    fn a_row_shows_whose_it_is() {
        assert_eq!(row(REVISION), "web-1 | statefulset.apps/web | 3 | 10m");
    }
}
