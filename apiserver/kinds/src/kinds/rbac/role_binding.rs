//! RoleBinding: gives a role to somebody in one namespace.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::Value;

use super::{GROUP, binding};
use crate::errors::Errors;
use crate::field::FieldError;
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::table;

const NAMES: Names = Names {
    group: GROUP,
    version: "v1",
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    short: &[],
    categories: &[],
    namespaced: true,
};

const META: MetaRules = MetaRules { namespaced: true, name: meta::path_segment };

/// The kinds of roles that may be bound.
const ROLES: &[&str] = &["Role", "ClusterRole"];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Role",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    table::AGE,
    table::wide("Users", "Users in the roleBinding"),
    table::wide("Groups", "Groups in the roleBinding"),
    table::wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];

/// The kind.
pub(super) struct RoleBindings;

impl Kind for RoleBindings {
    wiring!(RoleBinding, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        binding::default(object);
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        binding::check(object, true, ROLES, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        META.create(object, &mut errors);
        binding::check(object, true, ROLES, &mut errors);
        binding::same_role(object, old, &mut errors);
        errors.into_vec()
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        binding::row(object, now)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;
    use serde_json::json;

    const PLAIN: &str = "{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: a, namespace: n}, roleRef: {kind: Role, name: r}, subjects: [{kind: User, name: u}, {kind: ServiceAccount, name: s, namespace: m}]}";

    #[test]
    fn groups_are_filled_in() {
        let binding = created(PLAIN);
        assert_eq!(binding["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
        assert_eq!(binding["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
        assert_eq!(binding["subjects"][1].get("apiGroup"), None);
        check_valid(PLAIN);
        assert_eq!(row(PLAIN), "a | Role/r | <unknown> | u |  | m/s");
    }

    #[test]
    fn role_and_subjects_are_checked() {
        check_invalid(
            &PLAIN
                .replace("kind: Role,", "apiGroup: x, kind: Rule,")
                .replace("name: r}", "name: ''}")
                .replace("kind: User, name: u", "kind: Users")
                .replace("name: s,", "name: S_, apiGroup: x,"),
            &[
                "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                "roleRef.kind: Unsupported value: \"Rule\": supported values: \"Role\", \"ClusterRole\"",
                "roleRef.name: Required value",
                "subjects[0].name: Required value",
                "subjects[0].kind: Unsupported value: \"Users\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                "subjects[1].name: Invalid value: \"S_\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "subjects[1].apiGroup: Unsupported value: \"x\": supported values: \"\"",
            ],
        );
    }

    #[test]
    fn the_role_stays() {
        check_update(
            PLAIN,
            |new| new["roleRef"]["name"] = json!("other"),
            &[
                "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"other\"}: cannot change roleRef",
            ],
        );
    }
}
