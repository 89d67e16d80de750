//! `rbac.authorization.k8s.io`: roles and who has them. What they allow is the authorizer's matter.
//!
//! Source of the rules: `pkg/apis/rbac` of Kubernetes v1.36.

mod binding;
pub(super) mod bootstrap;
mod cluster_role;
mod cluster_role_binding;
mod role;
mod role_binding;
mod rules;

use std::sync::Arc;

use crate::kind::Kind;

/// The group's name; also what role references and subjects name.
const GROUP: &str = "rbac.authorization.k8s.io";

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![
        Arc::new(cluster_role_binding::ClusterRoleBindings),
        Arc::new(cluster_role::ClusterRoles),
        Arc::new(role_binding::RoleBindings),
        Arc::new(role::Roles),
    ]
}
