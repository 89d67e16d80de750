//! RuntimeClass: a way to run containers that pods may ask for.
//!
//! Source: `pkg/apis/node` of Kubernetes v1.36.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::node::v1::RuntimeClass;
use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::field::{FieldError, FieldErrorKind};
use crate::json::{entries, get, list, text};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::{age, pod, shown, table};

const NAMES: Names = Names {
    group: "node.k8s.io",
    version: "v1",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[table::NAME, table::column("Handler", ""), table::AGE];

/// The kind.
pub(super) struct RuntimeClasses;

impl Kind for RuntimeClasses {
    wiring!(RuntimeClass, NAMES, COLUMNS);

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
        errors.immutable(&Path::of("handler"), get(object, "handler"), get(old, "handler"));
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        entries(get(object, "scheduling"), "nodeSelector")
            .filter_map(|(key, _)| pod::deprecated_node_label(key))
            .map(|why| format!("scheduling.nodeSelector: {why}"))
            .collect()
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![table::name(object), text(object, "handler").into(), age::of(object, now).into()]
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    let path = Path::of("handler");
    match text(object, "handler") {
        "" => errors.required(&path, ""),
        handler => errors.invalid_each(&path, handler, names::dns1123_label(handler)),
    }
    let path = Path::of("overhead");
    pod::overhead(get(get(object, "overhead"), "podFixed"), &path, errors);
    let (scheduling, path) = (get(object, "scheduling"), Path::of("scheduling"));
    meta::labels(get(scheduling, "nodeSelector"), &path.child("nodeSelector"), errors);
    let path = path.child("tolerations");
    pod::tolerations(scheduling, &path, errors);
    no_toleration_twice(list(scheduling, "tolerations"), &path, errors);
}

fn no_toleration_twice(tolerations: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, toleration) in tolerations.iter().enumerate() {
        if !seen.insert(["key", "operator", "value", "effect"].map(|field| text(toleration, field))) {
            let quoted = |field| Value::from(text(toleration, field)).to_string();
            let shown = shown::object(&[
                ("Key", quoted("key")),
                ("Operator", quoted("operator")),
                ("Value", quoted("value")),
                ("Effect", quoted("effect")),
                ("TolerationSeconds", get(toleration, "tolerationSeconds").to_string()),
            ]);
            errors.add_text(FieldErrorKind::Duplicate, &path.index(index), shown, "");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: fast}, handler: runc, overhead: {podFixed: {cpu: 250m}}, scheduling: {nodeSelector: {a: b}, tolerations: [{key: k, operator: Exists}]}}";

    #[test]
    fn a_class_is_kept_as_it_is() {
        check_created(PLAIN, PLAIN);
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "fast | runc | <unknown>");
    }

    #[test]
    fn handler_overhead_and_scheduling_are_checked() {
        check_invalid(
            &PLAIN.replace("runc", "''").replace("cpu: 250m", "cpu: '-1'").replace(
                "operator: Exists}",
                "operator: Exists}, {key: k, operator: Exists, tolerationSeconds: 3, effect: ''}",
            ),
            &[
                "handler: Required value",
                "overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "scheduling.tolerations[1].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                "scheduling.tolerations[1]: Duplicate value: {\"Key\":\"k\",\"Operator\":\"Exists\",\"Value\":\"\",\"Effect\":\"\",\"TolerationSeconds\":3}",
            ],
        );
    }

    #[test]
    fn the_handler_stays() {
        check_update(
            PLAIN,
            |new| new["handler"] = json!("kata"),
            &["handler: Invalid value: \"kata\": field is immutable"],
        );
        check_warned(
            &PLAIN.replace("{a: b}", "{beta.kubernetes.io/os: linux}"),
            &["scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/os\" instead"],
        );
    }
}
