//! ClusterRole: what may be done in the whole cluster, or in the namespace it is bound in.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::Value;

use super::{GROUP, rules};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{get, has, list};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::table;

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: meta::path_segment };

const COLUMNS: &[Column] = &[table::NAME, table::CREATED_AT];

/// The kind.
pub(super) struct ClusterRoles;

impl Kind for ClusterRoles {
    wiring!(ClusterRole, NAMES, COLUMNS);

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
        errors.into_vec()
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![table::name(object), table::created_at(object)]
    }
}

fn check(object: &Value, errors: &mut Errors) {
    META.create(object, errors);
    rules::check(object, false, errors);
    if has(object, "aggregationRule") {
        aggregation(get(object, "aggregationRule"), errors);
    }
}

fn aggregation(rule: &Value, errors: &mut Errors) {
    let path = Path::of("aggregationRule");
    let (selectors, path) = (list(rule, "clusterRoleSelectors"), path.child("clusterRoleSelectors"));
    if selectors.is_empty() {
        errors.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (index, selector) in selectors.iter().enumerate() {
        let path = path.index(index);
        meta::label_selector(selector, &path, errors);
        if reeve_api::selector::LabelSelector::from_value(selector).is_err() {
            errors.invalid(&path, Value::Null, "invalid label selector.");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    const PLAIN: &str = "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: a}, rules: [{nonResourceURLs: [/healthz], verbs: [get]}]}";

    #[test]
    fn rules_of_a_cluster_role_may_be_about_urls() {
        check_created(PLAIN, PLAIN);
        check_valid(PLAIN);
    }

    #[test]
    fn aggregation_needs_selectors() {
        check_invalid(
            &PLAIN.replace("rules:", "aggregationRule: {}, rules:"),
            &[
                "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
            ],
        );
        check_valid(
            &PLAIN.replace("rules:", "aggregationRule: {clusterRoleSelectors: [{matchLabels: {a: b}}]}, rules:"),
        );
    }
}
