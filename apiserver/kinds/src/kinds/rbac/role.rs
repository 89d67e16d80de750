//! Role: what may be done in one namespace.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::Role;
use serde_json::Value;

use super::{GROUP, rules};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::table;

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "Role",
    plural: "roles",
    singular: "role",
    short: &[],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: meta::path_segment };

const COLUMNS: &[Column] = &[table::NAME, table::CREATED_AT];

/// The kind.
pub(super) struct Roles;

impl Kind for Roles {
    wiring!(Role, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        rules::check(object, true, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        META.create(object, &mut errors);
        rules::check(object, true, &mut errors);
        errors.into_vec()
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![table::name(object), table::created_at(object)]
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::Value;

    const PLAIN: &str = "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: 'a:b', namespace: n, creationTimestamp: '2026-01-01T00:59:30Z'}, rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]}";

    #[test]
    fn a_role_is_kept_as_it_is_with_rules_always_written() {
        check_created(PLAIN, PLAIN);
        check_valid(PLAIN);
        let bare = created("{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: a, namespace: n}}");
        assert_eq!(bare.get("rules"), Some(&Value::Null));
        let empty = created(
            "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: a, namespace: n}, rules: []}",
        );
        assert_eq!(empty.get("rules"), Some(&Value::Null));
        assert_eq!(row(PLAIN), "a:b | 2026-01-01T00:59:30Z");
    }

    #[test]
    fn rules_name_verbs_groups_and_resources() {
        check_invalid(
            &PLAIN.replace(
                "[{apiGroups: [''], resources: [pods], verbs: [get]}]",
                "[{}, {verbs: [get], nonResourceURLs: [/a], resources: [x]}]",
            ),
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
                "rules[1].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs",
                "rules[1].nonResourceURLs: Invalid value: [\"/a\"]: rules cannot apply to both regular resources and non-resource URLs",
            ],
        );
        check_invalid(
            &PLAIN.replace("'a:b'", "'a/b%'"),
            &[
                "metadata.name: Invalid value: \"a/b%\": may not contain '/'",
                "metadata.name: Invalid value: \"a/b%\": may not contain '%'",
            ],
        );
    }
}
