//! What roles and bindings allow, whatever happens to them.

use reeve_store::Revision;
use serde_json::{Value, json};

use super::*;

/// The index with objects put in as the feed does it.
#[derive(Default)]
struct World {
    rbac: Arc<Rbac>,
}

fn object(value: &Value) -> Object {
    Object::whole(value.to_string(), Revision(1))
}

fn rule(group: &str, resource: &str, verb: &str) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
}

impl World {
    fn put(&self, plural: &str, key: &str, value: Option<&Value>) {
        let prefix = format!("/registry/{GROUP}/{plural}/");
        let follower = self.rbac.follower(prefix.as_bytes()).unwrap();
        follower.put(&Bytes::copy_from_slice(key.as_bytes()), value.map(object).as_ref());
    }

    fn role(&self, plural: &str, key: &str, rules: &[Value]) {
        self.put(plural, key, Some(&json!({"metadata": {}, "rules": rules})));
    }

    fn bind(&self, plural: &str, key: &str, (kind, role): (&str, &str), subjects: &Value) {
        let reference = json!({"apiGroup": GROUP, "kind": kind, "name": role});
        self.put(plural, key, Some(&json!({"roleRef": reference, "subjects": subjects})));
    }

    /// `USER VERB RESOURCE NAMESPACE`, `-` for no namespace.
    fn ask(&self, question: &str) -> Decision {
        let words: Vec<&str> = question.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let [name, verb, resource, namespace] = words[..] else { panic!("{question}") };
        let user = UserInfo::new(name, &["system:authenticated", "dev"]);
        let target = Target::Resource { group: "", resource, subresource: "", namespace, name: "", field_selector: "" };
        self.rbac.decide(&Attributes { user: &user, verb, target })
    }

    #[track_caller]
    fn check(&self, question: &str, expected: bool) {
        assert_eq!(self.ask(question).is_allowed(), expected, "{question}");
    }
}

fn user(name: &str) -> Value {
    json!([{"kind": "User", "name": name}])
}

#[test]
fn a_role_counts_where_it_is_bound_and_nowhere_else() {
    let world = World::default();
    world.role("clusterroles", "reader", &[rule("", "pods", "get")]);
    world.role("roles", "shop/reader", &[rule("", "secrets", "get")]);
    world.bind("rolebindings", "shop/b", ("ClusterRole", "reader"), &user("ann"));
    world.check("ann get pods shop", true);
    world.check("ann get pods other", false);
    world.check("ann get pods -", false);
    world.bind("rolebindings", "shop/c", ("Role", "reader"), &user("ann"));
    world.check("ann get secrets shop", true);
    world.bind("clusterrolebindings", "d", ("ClusterRole", "reader"), &user("bob"));
    world.check("bob get pods -", true);
    world.check("bob get pods shop", true);
    world.check("bob get secrets shop", false);
    world.check("ann list pods shop", false);
}

#[test]
fn a_change_of_a_role_or_binding_holds_at_once_and_leaves_nothing_behind() {
    let world = World::default();
    world.role("clusterroles", "reader", &[rule("", "pods", "get")]);
    let both =
        json!([{"kind": "User", "name": "ann"}, {"kind": "Group", "name": "dev"}, {"kind": "User", "name": "ann"}]);
    world.bind("clusterrolebindings", "b", ("ClusterRole", "reader"), &both);
    world.check("ann get pods -", true);
    world.check("bob get pods -", true);
    world.role("clusterroles", "reader", &[rule("", "pods", "list")]);
    world.check("bob get pods -", false);
    world.check("bob list pods -", true);
    world.bind("clusterrolebindings", "b", ("ClusterRole", "reader"), &user("ann"));
    world.check("bob list pods -", false);
    world.check("ann list pods -", true);
    world.put("clusterrolebindings", "b", None);
    world.check("ann list pods -", false);
    world.bind("rolebindings", "shop/b", ("Role", "x"), &user("ann"));
    world.role("roles", "shop/x", &[rule("", "pods", "get")]);
    world.put("rolebindings", "shop/b", None);
    world.put("roles", "shop/x", None);
    world.put("clusterroles", "reader", None);
    let state = world.rbac.read();
    assert!(state.roles.is_empty() && state.bindings.is_empty() && state.cluster_roles.is_empty());
    let scope = &state.cluster_bindings;
    assert!(scope.all.is_empty() && scope.users.is_empty() && scope.groups.is_empty());
}

#[test]
fn a_role_that_is_missing_is_told_with_the_refusal() {
    let world = World::default();
    let refused = |world: &World| match world.ask("ann get pods shop") {
        Decision::Refused { reason } => reason,
        Decision::Allowed(_) => "allowed".to_owned(),
    };
    assert_eq!(refused(&world), "");
    world.bind("rolebindings", "shop/b", ("Role", "x"), &user("ann"));
    assert_eq!(refused(&world), r#"RBAC: role.rbac.authorization.k8s.io "x" not found"#);
    world.bind("rolebindings", "shop/c", ("Role", "x"), &user("ann"));
    assert_eq!(refused(&world), r#"RBAC: role.rbac.authorization.k8s.io "x" not found"#);
    world.bind("clusterrolebindings", "c", ("ClusterRole", "y"), &user("ann"));
    let (first, second) = ("clusterrole.rbac.authorization.k8s.io \"y\"", "role.rbac.authorization.k8s.io \"x\"");
    assert_eq!(refused(&world), format!("RBAC: [{first} not found, {second} not found]"));
    world.role("clusterroles", "y", &[rule("", "pods", "get")]);
    assert_eq!(refused(&world), "allowed");
}

#[test]
fn what_a_user_holds_has_each_binding_once() {
    let world = World::default();
    world.role("clusterroles", "reader", &[rule("", "pods", "get")]);
    let both = json!([{"kind": "User", "name": "ann"}, {"kind": "Group", "name": "dev"}]);
    world.bind("clusterrolebindings", "b", ("ClusterRole", "reader"), &both);
    world.bind("rolebindings", "shop/b", ("ClusterRole", "reader"), &user("ann"));
    let ann = UserInfo::new("ann", &["dev"]);
    assert_eq!(world.rbac.held(&ann, "shop").rules.len(), 2);
    assert_eq!(world.rbac.held(&ann, "other").rules.len(), 1);
    assert_eq!(world.rbac.role(RoleKind::ClusterRole, "", "reader").unwrap()[0].verbs, ["get"]);
    assert_eq!(world.rbac.role(RoleKind::Role, "shop", "reader"), None);
}
