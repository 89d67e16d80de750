//! Roles and bindings: those with which a cluster starts, and what may be granted.

use reeve_kinds::bootstrap::rbac_policy;

use super::*;
use crate::auth::rbac::GROUP;
use crate::auth::{Attributes, Authorizer as _, Counted, Modes, Target};
use crate::registry::roles;

/// A world with its roles, in which they decide.
async fn world() -> World {
    let world = World::new().await;
    let cache = &world.registry.cache;
    let modes = Modes { graph: Arc::clone(&cache.graph), rbac: Arc::clone(&cache.rbac), counted: Counted::default() };
    world.registry.policies.set_authorizer(Arc::new(modes));
    roles::ensure(&world.registry).await.unwrap();
    world
}

fn role(name: &str, rules: &Value) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn rule(resource: &str, verb: &str) -> Value {
    json!({"apiGroups": [""], "resources": [resource], "verbs": [verb]})
}

fn binding(name: &str, (kind, role): (&str, &str), user: &str) -> Value {
    let subject = json!({"kind": "User", "apiGroup": GROUP, "name": user});
    let reference = json!({"apiGroup": GROUP, "kind": kind, "name": role});
    json!({"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]})
}

impl World {
    /// The same world through the eyes of somebody else.
    fn turn_into(&mut self, name: &str) {
        let groups: &[&str] = if name == "admin" { &["system:masters"] } else { &["system:authenticated"] };
        self.user = UserInfo::new(name, groups);
    }

    /// [`World::request`] for names with colons.
    fn named(&self, plural: &str, name: &str) -> Request {
        Request { name: name.to_owned(), ..self.request(plural) }
    }

    async fn merge_named(&self, plural: &str, name: &str, patch: Value) {
        self.registry.patch(&self.named(plural, name), Patch::Merge(patch.into())).await.unwrap();
    }

    fn may(&self, verb: &str, resource: &str) -> bool {
        let target = Target::Resource {
            group: "",
            resource,
            subresource: "",
            namespace: "default",
            name: "",
            field_selector: "",
        };
        let cache = &self.registry.cache;
        let modes =
            Modes { graph: Arc::clone(&cache.graph), rbac: Arc::clone(&cache.rbac), counted: Counted::default() };
        modes.decide(&Attributes { user: &self.user, verb, target }).is_allowed()
    }

    async fn refused(&self, path: &str, object: Value) -> String {
        self.try_create(path, object).await.unwrap_err().message
    }
}

#[tokio::test]
async fn a_cluster_starts_with_all_roles_and_a_second_start_changes_nothing() {
    let world = world().await;
    for policy in rbac_policy() {
        let resource = world.registry.resource(GROUP, "v1", policy.plural).unwrap();
        let there = world.registry.peek(&resource, policy.namespace, policy.name);
        let there = there.unwrap_or_else(|| panic!("{} {}", policy.plural, policy.name)).value();
        assert_eq!(there["metadata"]["managedFields"][0]["manager"], "kube-apiserver");
        assert_eq!(there["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
    }
    let before = world.kv.revision();
    roles::ensure(&world.registry).await.unwrap();
    assert_eq!(world.kv.revision(), before);
}

#[tokio::test]
async fn a_start_completes_what_was_taken_away_and_leaves_what_was_added() {
    let world = world().await;
    let rules = json!([rule("pods", "get"), rule("things", "get")]);
    world.merge_named("clusterroles", "system:kube-dns", json!({"rules": rules})).await;
    for name in ["system:basic-user", "system:discovery"] {
        world.registry.delete(&world.named("clusterrolebindings", name)).await.unwrap();
    }
    world.create("clusterrolebindings", binding("system:discovery", ("ClusterRole", "view"), "ann")).await;
    let alone = json!({"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}});
    world.merge_named("clusterroles", "system:heapster", json!({"metadata": alone, "rules": []})).await;
    roles::ensure(&world.registry).await.unwrap();
    let get = async |plural: &str, name: &str| world.registry.get(&world.named(plural, name)).await.unwrap().value();
    let dns = get("clusterroles", "system:kube-dns").await;
    assert!(dns["rules"].as_array().unwrap().len() > 2, "{dns}");
    assert!(dns.to_string().contains("things") && dns.to_string().contains("endpoints"), "{dns}");
    get("clusterrolebindings", "system:basic-user").await;
    assert_eq!(get("clusterrolebindings", "system:discovery").await["roleRef"]["name"], "system:discovery");
    let heapster = get("clusterroles", "system:heapster").await;
    assert!(heapster["rules"].as_array().is_none_or(Vec::is_empty), "{heapster}");
}

#[tokio::test]
async fn a_grant_holds_for_the_next_request_and_ends_with_the_binding() {
    let mut world = world().await;
    world.create("clusterroles", role("reader", &json!([rule("pods", "list")]))).await;
    world.create("rolebindings", binding("b", ("ClusterRole", "reader"), "ann")).await;
    world.turn_into("ann");
    assert!(world.may("list", "pods") && !world.may("list", "secrets"));
    world.turn_into("admin");
    world.delete("rolebindings/b").await.unwrap();
    world.turn_into("ann");
    assert!(!world.may("list", "pods"));
}

#[tokio::test]
async fn nobody_makes_a_role_that_allows_more_than_they_may_themselves() {
    let mut world = world().await;
    world.create("clusterroles", role("mine", &json!([rule("pods", "get")]))).await;
    world.create("clusterrolebindings", binding("mine", ("ClusterRole", "mine"), "ann")).await;
    world.turn_into("ann");
    world.create("roles", role("less", &json!([rule("pods", "get")]))).await;
    let more = json!([{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "list"]}]);
    let missing = "user \"ann\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not \
                   currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\"]}\n{APIGroups:[\"\"], \
                   Resources:[\"secrets\"], Verbs:[\"get\" \"list\"]}";
    let refused = world.refused("roles", role("more", &more)).await;
    assert_eq!(refused, format!("roles.{GROUP} \"more\" is forbidden: {missing}"));
    let refused = world.merge("roles/less", json!({"rules": more})).await.unwrap_err();
    assert_eq!((refused.code, refused.message), (403, format!("roles.{GROUP} \"less\" is forbidden: {missing}")));
    // What the garbage collector writes anybody may write who may change the role at all.
    world.turn_into("admin");
    world.create("clusterroles", role("big", &more)).await;
    world.turn_into("ann");
    world.merge("clusterroles/big", json!({"metadata": {"finalizers": ["a.b/c"]}})).await.unwrap();
    assert!(world.merge("clusterroles/big", json!({"metadata": {"labels": {"a": "b"}}})).await.is_err());
    let sum = json!({"metadata": {"name": "sum"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
    let refused = world.refused("clusterroles", sum).await;
    let words = "must have cluster-admin privileges to use the aggregationRule";
    assert_eq!(refused, format!("clusterroles.{GROUP} \"sum\" is forbidden: {words}"));
    // Whoever may escalate may.
    world.turn_into("admin");
    let escalate = json!([{"apiGroups": [GROUP], "resources": ["roles"], "verbs": ["escalate"]}]);
    world.create("clusterroles", role("escalate", &escalate)).await;
    world.create("clusterrolebindings", binding("escalate", ("ClusterRole", "escalate"), "ann")).await;
    world.turn_into("ann");
    world.create("roles", role("more", &more)).await;
}

#[tokio::test]
async fn nobody_binds_a_role_that_allows_more_than_they_may_themselves() {
    let mut world = world().await;
    world.create("clusterroles", role("secrets", &json!([rule("secrets", "get")]))).await;
    let bind =
        json!([{"apiGroups": [GROUP], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["secrets"]}]);
    world.create("roles", role("binder", &bind)).await;
    world.turn_into("ann");
    let own = |name: &str| binding(name, ("ClusterRole", "secrets"), "ann");
    let refused = world.refused("rolebindings", own("b")).await;
    assert!(refused.starts_with(&format!("rolebindings.{GROUP} \"b\" is forbidden: user \"ann\"")), "{refused}");
    let refused = world.refused("clusterrolebindings", binding("b", ("ClusterRole", "nothing"), "ann")).await;
    assert_eq!(refused, format!("clusterroles.{GROUP} \"nothing\" not found"));
    world.turn_into("admin");
    world.create("rolebindings", binding("binder", ("Role", "binder"), "ann")).await;
    world.turn_into("ann");
    world.create("rolebindings", own("b")).await;
    assert!(world.may("get", "secrets"));
    // What is held in a namespace is not held everywhere.
    let refused = world.refused("clusterrolebindings", own("b")).await;
    assert!(refused.contains("not currently held"), "{refused}");
}
