//! ClusterRoleBinding: gives a cluster role to somebody everywhere.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
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
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    short: &[],
    categories: &[],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: meta::path_segment };

/// The kinds of roles that may be bound.
const ROLES: &[&str] = &["ClusterRole"];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Role",
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    table::AGE,
    table::wide("Users", "Users in the clusterRoleBinding"),
    table::wide("Groups", "Groups in the clusterRoleBinding"),
    table::wide("ServiceAccounts", "ServiceAccounts in the clusterRoleBinding"),
];

/// The kind.
pub(super) struct ClusterRoleBindings;

impl Kind for ClusterRoleBindings {
    wiring!(ClusterRoleBinding, NAMES, COLUMNS);

    fn default(&self, object: &mut Value) {
        self.shape().fill(object);
        binding::default(object);
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create(object, &mut errors);
        binding::check(object, false, ROLES, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}

    fn validate_update(&self, _part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update(object, old, &mut errors);
        META.create(object, &mut errors);
        binding::check(object, false, ROLES, &mut errors);
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

    const PLAIN: &str = "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: a}, roleRef: {kind: ClusterRole, name: r}, subjects: [{kind: ServiceAccount, name: s, namespace: m}]}";

    #[test]
    fn only_cluster_roles_are_bound_and_accounts_name_their_namespace() {
        check_valid(PLAIN);
        check_invalid(
            &PLAIN.replace("kind: ClusterRole,", "kind: Role,").replace(", namespace: m", ""),
            &[
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[0].namespace: Required value",
            ],
        );
    }
}
