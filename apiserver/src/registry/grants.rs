//! Nobody grants by a role or a binding what they do not have themselves.
//!
//! Asked before a Role, ClusterRole or binding of theirs is created or changed. Whoever has the verb `escalate` on a
//! role, or `bind` on the role that a binding refers to, needs not have what it allows. Source: the `policybased`
//! storages of Kubernetes' `pkg/registry/rbac`.

use reeve_kinds::Names;
use serde_json::Value;

use super::request::{Request, Subresource};
use super::{Registry, meta};
use crate::auth::rbac::escalation::{refusal, uncovered};
use crate::auth::rbac::{GROUP, NoRole, RoleKind, reconcile, together};
use crate::auth::{Attributes, KnownRule, MASTERS, Target};
use crate::status::ApiError;

/// What of an object only the garbage collector changes.
const OF_COLLECTOR: [&str; 5] = ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "selfLink"];

impl Registry {
    /// Refuses the role or binding if it grants more than the user has. `old` is what it was.
    pub(super) async fn check_grant(
        &self,
        request: &Request,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let names = request.resource.names();
        let user = &request.user;
        if names.group != GROUP || request.subresource != Subresource::None || user.in_group(MASTERS) {
            return Ok(());
        }
        if old.is_some_and(|old| only_collected(object, old)) {
            return Ok(());
        }
        // What the user was granted a moment ago counts.
        self.cache.fresh().await?;
        let refused = |why: &str| ApiError::forbidden(names, meta::text(object, "name"), why);
        if names.plural.ends_with("bindings") {
            let Some(rules) = self.bound_rules(request, object)? else { return Ok(()) };
            return self.confirm(request, &rules).map_err(|why| refused(&why));
        }
        if self.may(request, "escalate", names.plural, &request.name) {
            return Ok(());
        }
        self.confirm(request, &reconcile::rules(object)).map_err(|why| refused(&why))?;
        if aggregates(object) || old.is_some_and(aggregates) {
            let everything = self.confirm(request, &full_authority());
            everything.map_err(|_| refused("must have cluster-admin privileges to use the aggregationRule"))?;
        }
        Ok(())
    }

    /// What the role of a binding allows; `None` when the user may bind it anyway.
    fn bound_rules(&self, request: &Request, object: &Value) -> Result<Option<Vec<KnownRule>>, ApiError> {
        let reference = &object["roleRef"];
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let (name, namespace) = (text("name"), &request.namespace);
        let (kind, plural) = match text("kind") {
            "Role" => (RoleKind::Role, "roles"),
            "ClusterRole" => (RoleKind::ClusterRole, "clusterroles"),
            other => return Err(ApiError::unknown(format!("unsupported role reference kind: {other:?}"))),
        };
        if text("apiGroup") == GROUP && self.may(request, "bind", plural, name) {
            return Ok(None);
        }
        if kind == RoleKind::Role && namespace.is_empty() {
            return Err(ApiError::bad_request("Namespace parameter required."));
        }
        if name.is_empty() {
            return Err(ApiError::bad_request("Name parameter required."));
        }
        match self.cache.rbac.role(kind, namespace, name) {
            Some(rules) => Ok(Some(rules)),
            None => Err(self.no_role(&NoRole { kind, name: name.into() })),
        }
    }

    /// Whether the user has the verb on roles of that name.
    fn may(&self, request: &Request, verb: &str, plural: &str, name: &str) -> bool {
        let namespace = &request.namespace;
        let target =
            Target::Resource { group: GROUP, resource: plural, subresource: "", namespace, name, field_selector: "" };
        let asked = Attributes { user: &request.user, verb, target };
        self.policies.authorizer().is_some_and(|authorizer| authorizer.decide(&asked).is_allowed())
    }

    /// Whether the user has everything that the rules allow; `Err`: what is missing.
    fn confirm(&self, request: &Request, rules: &[KnownRule]) -> Result<(), String> {
        let held = self.cache.rbac.held(&request.user, &request.namespace);
        let missing = uncovered(&held.rules, rules);
        if missing.is_empty() {
            return Ok(());
        }
        let unresolved = together(held.missing.iter().map(|role| self.no_role(role).message));
        Err(refusal(&request.user, &missing, &unresolved))
    }

    fn no_role(&self, role: &NoRole) -> ApiError {
        let plural = if role.kind == RoleKind::Role { "roles" } else { "clusterroles" };
        let resource = self.resource(GROUP, "v1", plural);
        let names: Option<&Names> = resource.as_ref().map(|resource| resource.names());
        names.map_or_else(ApiError::no_such_path, |names| ApiError::not_found(names, &role.name))
    }
}

/// Whether nothing else has changed than what the garbage collector writes.
fn only_collected(object: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut rest = object.clone();
        let metadata = rest.get_mut("metadata").and_then(Value::as_object_mut);
        metadata.into_iter().for_each(|metadata| OF_COLLECTOR.iter().for_each(|field| drop(metadata.remove(*field))));
        rest
    };
    rest(object) == rest(old)
}

fn aggregates(role: &Value) -> bool {
    role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|selectors| !selectors.is_empty())
}

fn full_authority() -> [KnownRule; 2] {
    let all = || vec!["*".to_owned()];
    let resources = KnownRule { verbs: all(), groups: all(), resources: all(), ..KnownRule::default() };
    [resources, KnownRule { verbs: all(), urls: all(), ..KnownRule::default() }]
}
