//! What other API servers need to ask this one whom to believe: bindings to the two roles that say so.
//!
//! A ClusterRoleBinding to `system:auth-delegator` allows to ask whose a token is and what a user may do; a RoleBinding
//! in `kube-system` to `extension-apiserver-authentication-reader` allows to read the ConfigMap of that matter. These
//! are the only roles that count so far: who may bind them is decided by the fixed rules. Source: Kubernetes, "Using
//! RBAC Authorization", section "Default roles", and `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`.

use std::sync::Arc;

use serde_json::Value;

use super::authorizer::{Attributes, Target};
use crate::registry::{Registry, Resource, UserInfo};

/// Allows to ask about tokens and permissions.
const DELEGATOR: &str = "system:auth-delegator";
/// Allows to read the ConfigMap.
pub(crate) const READER: &str = "extension-apiserver-authentication-reader";
/// The namespace of the role and of the ConfigMap.
pub(crate) const NAMESPACE: &str = "kube-system";
/// The ConfigMap by which other API servers recognize users and this server.
pub(crate) const CONFIG_MAP: &str = "extension-apiserver-authentication";

/// The bindings there are.
#[derive(Default)]
pub(crate) struct Delegation {
    cluster_bindings: Option<Arc<Resource>>,
    bindings: Option<Arc<Resource>>,
}

impl Delegation {
    /// Those in the registry.
    pub(crate) fn new(registry: &Registry) -> Self {
        let find = |plural: &str| registry.resource("rbac.authorization.k8s.io", "v1", plural);
        Self { cluster_bindings: find("clusterrolebindings"), bindings: find("rolebindings") }
    }

    /// Whether a binding allows what is asked. Looks at bindings only when it is one of the few things they can allow.
    pub(crate) fn allows(&self, asked: &Attributes<'_>) -> bool {
        let Target::Resource { group, resource, subresource: "", namespace, name, .. } = asked.target else {
            return false;
        };
        match (group, resource) {
            ("authentication.k8s.io", "tokenreviews") | ("authorization.k8s.io", "subjectaccessreviews") => {
                asked.verb == "create"
                    && binds(self.cluster_bindings.as_ref(), "", ("ClusterRole", DELEGATOR), asked.user)
            }
            ("", "configmaps") => {
                matches!(asked.verb, "get" | "list" | "watch")
                    && (namespace, name) == (NAMESPACE, CONFIG_MAP)
                    && binds(self.bindings.as_ref(), "kube-system/", ("Role", READER), asked.user)
            }
            _ => false,
        }
    }
}

fn binds(bindings: Option<&Arc<Resource>>, scope: &str, (kind, role): (&str, &str), user: &UserInfo) -> bool {
    let Some(bindings) = bindings else { return false };
    let snapshot = bindings.storage.snapshot();
    snapshot.scan(scope, b"").map(|(_, binding)| binding.value()).any(|binding| {
        let to = &binding["roleRef"];
        let mut subjects = binding["subjects"].as_array().into_iter().flatten();
        to["kind"] == kind && to["name"] == role && subjects.any(|subject| is(subject, user))
    })
}

fn is(subject: &Value, user: &UserInfo) -> bool {
    let text = |field: &str| subject[field].as_str().unwrap_or_default();
    match text("kind") {
        "User" => text("name") == user.name,
        "Group" => user.in_group(text("name")),
        "ServiceAccount" => user.name == format!("system:serviceaccount:{}:{}", text("namespace"), text("name")),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::tests::World;

    #[tokio::test]
    async fn two_roles_can_be_bound_and_allow_no_more_than_they_say() {
        let world = World::new().await;
        let robot = UserInfo::new("system:serviceaccount:a:robot", &["system:serviceaccounts"]);
        let delegation = Delegation::new(&world.registry);
        let may = |verb: &str, group: &str, resource: &str, namespace: &str, name: &str| {
            let target = Target::Resource { group, resource, subresource: "", namespace, name, field_selector: "" };
            delegation.allows(&Attributes { user: &robot, verb, target })
        };
        let reviews = || may("create", "authentication.k8s.io", "tokenreviews", "", "");
        let reads = |name: &str| may("watch", "", "configmaps", NAMESPACE, name);
        assert!(!reviews() && !reads(CONFIG_MAP));
        let bind = |role: &str, kind: &str| {
            json!({"metadata": {"name": "b"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
                "subjects": [{"kind": "ServiceAccount", "namespace": "a", "name": "robot"}]})
        };
        world.create("clusterrolebindings", bind(DELEGATOR, "ClusterRole")).await;
        let mut request = world.request("rolebindings");
        request.namespace = NAMESPACE.to_owned();
        world.registry.create(&request, bind(READER, "Role").into()).await.unwrap();
        world.registry.fresh().await.unwrap();
        assert!(reviews() && may("create", "authorization.k8s.io", "subjectaccessreviews", "", ""));
        assert!(reads(CONFIG_MAP) && !reads("other") && !reads(""));
        assert!(!may("update", "", "configmaps", NAMESPACE, CONFIG_MAP) && !may("get", "", "secrets", NAMESPACE, "s"));
    }
}
