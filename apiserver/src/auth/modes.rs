//! The authorizer as a whole: Kubernetes' `--authorization-mode=Node,RBAC`.
//!
//! Whoever is in `system:masters` may do everything. Then the components of this process are asked for (`components`),
//! nodes (`node`), and roles (`rbac`); the first that allows a request decides, and all reasons against it are told.
//! Source: `pkg/authorization/union` of k8s.io/apiserver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::authorizer::{Attributes, Authorizer, Decision, KnownRules};
use super::graph::NodeGraph;
use super::rbac::{Rbac, together};
use super::{MASTERS, components, node};
use crate::registry::UserInfo;

/// What the node authorizer says of rules.
const NODES_HAVE_NO_RULES: &str = "node authorizer does not support user rule resolution";

/// All that is asked. Default deny.
pub(crate) struct Modes {
    /// What nodes' pods refer to.
    pub(crate) graph: Arc<NodeGraph>,
    /// Roles and bindings.
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) counted: Counted,
}

/// How often nodes' and users' rules have allowed something.
#[derive(Default)]
pub(crate) struct Counted {
    node: AtomicU64,
    rbac: AtomicU64,
}

impl Authorizer for Modes {
    fn decide(&self, asked: &Attributes<'_>) -> Decision {
        if asked.user.in_group(MASTERS) || components::allow(asked) {
            return Decision::allow();
        }
        let of_node = node::decide(&self.graph, asked);
        let Decision::Refused { reason } = of_node else {
            self.counted.node.fetch_add(1, Ordering::Relaxed);
            return of_node;
        };
        match self.rbac.decide(asked) {
            Decision::Refused { reason: other } if !reason.is_empty() => {
                let both = if other.is_empty() { reason } else { format!("{reason}\n{other}") };
                Decision::Refused { reason: both }
            }
            Decision::Allowed(grant) => {
                self.counted.rbac.fetch_add(1, Ordering::Relaxed);
                Decision::Allowed(grant)
            }
            refused => refused,
        }
    }

    fn allowed(&self) -> Vec<(&'static str, u64)> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![("Node", count(&self.counted.node)), ("RBAC", count(&self.counted.rbac))]
    }

    fn rules(&self, user: &UserInfo, namespace: &str) -> KnownRules {
        let mut known = self.rbac.known(user, namespace);
        if node::is_node(user) {
            known.incomplete = true;
            let all = [NODES_HAVE_NO_RULES.to_owned(), known.error];
            known.error = together(all.into_iter().filter(|error| !error.is_empty()));
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reeve_store::Revision;
    use serde_json::json;

    use super::*;
    use crate::auth::{AUTHENTICATED, NODES, Target};
    use crate::cache::Follower as _;
    use crate::registry::Object;

    /// Node `a` runs `default/web`, which has the account `robot` and refers to the Secret `s`, the ConfigMap `m` and
    /// the claim `c`. There are no roles.
    fn modes() -> Modes {
        let claim = json!({ "persistentVolumeClaim": { "claimName": "c" } });
        let volumes = json!([{ "secret": { "secretName": "s" } }, { "configMap": { "name": "m" } }, claim]);
        let spec = json!({ "nodeName": "a", "serviceAccountName": "robot", "volumes": volumes });
        let pod = Object::whole(json!({ "spec": spec }).to_string(), Revision(1));
        let graph = NodeGraph::default();
        graph.put(&Bytes::from_static(b"default/web"), Some(&pod));
        Modes { graph: Arc::new(graph), rbac: Arc::default(), counted: Counted::default() }
    }

    /// `VERB GROUP RESOURCE[/SUB] NAMESPACE NAME SELECTOR`, `-` for empty; `None`: allowed, else why not.
    #[track_caller]
    fn ask(user: &str, group: &str, question: &str) -> Option<String> {
        let user = UserInfo::new(user, &[group, AUTHENTICATED]);
        let words: Vec<&str> = question.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let [verb, group, resource, namespace, name, field_selector] = words[..] else { panic!("{question}") };
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let target = Target::Resource { group, resource, subresource, namespace, name, field_selector };
        match modes().decide(&Attributes { user: &user, verb, target }) {
            Decision::Allowed(_) => None,
            Decision::Refused { reason } => Some(reason),
        }
    }

    #[track_caller]
    fn check(user: &str, group: &str, question: &str, expected: bool) {
        assert_eq!(ask(user, group, question).is_none(), expected, "{user} {question}");
    }

    #[test]
    fn nothing_is_allowed_to_whom_no_rule_names() {
        check("bob", "developers", "get - pods default web -", false);
        check("system:serviceaccount:default:default", "system:serviceaccounts", "get - pods default web -", false);
        check("system:node:a", "not-nodes", "get - services default web -", false);
        check("system:node:", NODES, "get - services default web -", false);
        check("kubernetes-admin", MASTERS, "delete - secrets default s -", true);
    }

    #[test]
    fn a_node_touches_only_what_is_its_own() {
        let check = |question, expected| check("system:node:a", NODES, question, expected);
        check("get - nodes - a -", true);
        check("list - nodes - - -", false);
        check("patch - nodes/status - a -", true);
        check("delete - nodes - a -", false);
        check("watch - pods - - spec.nodeName=a", true);
        check("get - pods default web -", true);
        check("list - pods default web metadata.name=web", true);
        check("delete - pods default web -", true);
        check("get - pods/log default web -", false);
        check("create - pods/exec default web -", false);
        check("create - pods default - -", true);
        check("create - configmaps default - -", false);
        check("get - secrets default s -", true);
        check("watch - secrets default s metadata.name=s", true);
        check("watch - configmaps default m metadata.name=m", true);
        check("update - secrets default s -", false);
        check("create - serviceaccounts/token default robot -", true);
        check("update coordination.k8s.io leases kube-node-lease a -", true);
        check("create coordination.k8s.io leases kube-node-lease - -", true);
        check("get - persistentvolumeclaims default c -", true);
        check("get - persistentvolumeclaims default other -", false);
        check("get - serviceaccounts default robot -", true);
        check("get storage.k8s.io csinodes - a -", true);
        check("get storage.k8s.io csinodes - b -", false);
        check("list - services - - -", true);
        check("list node.k8s.io runtimeclasses - - -", true);
        check("create authorization.k8s.io subjectaccessreviews - - -", true);
        check("create - events default - -", true);
        check("delete - events default x -", false);
    }

    #[test]
    fn a_node_is_told_why_in_kubernetes_words() {
        let check = |question: &str, why: &str| {
            assert_eq!(ask("system:node:a", NODES, question).as_deref(), Some(why), "{question}");
        };
        let stranger = "no relationship found between node 'a' and this object";
        check("get - secrets default other -", stranger);
        check("get - configmaps other m -", stranger);
        check("get - pods default other -", stranger);
        check("watch - secrets default other metadata.name=other", stranger);
        check("create - serviceaccounts/token default default -", stranger);
        check("list - secrets default - -", "No Object name found");
        check("list - secrets - - -", "can only read namespaced object of this type");
        check("delete - secrets default s -", "can only read resources of this type");
        check("get - secrets/status default s -", "cannot read subresource");
        check("list - serviceaccounts default robot -", "can only create tokens for individual service accounts");
        check("list - persistentvolumeclaims default c -", "can only get individual resources of this type");
        check("get - persistentvolumes - v/x -", stranger);
        check("create - serviceaccounts default robot -", "can only create token subresource of serviceaccount");
        check("list - nodes - - -", "node 'a' cannot read all nodes, only its own Node object");
        check("get - nodes - b metadata.name=a", "node 'a' cannot read 'b', only its own Node object");
        for selector in ["-", "spec.nodeName=b", "spec.nodeName!=a", "metadata.name!=x\\,spec.nodeName=a"] {
            let question = format!("list - pods - - {selector}");
            check(&question, "can only list/watch pods with spec.nodeName field selector");
        }
        let lease = "can only access node lease with the same name as the requesting node";
        check("get coordination.k8s.io leases kube-node-lease b -", lease);
        let system = "can only access leases in the \"kube-node-lease\" system namespace";
        check("update coordination.k8s.io leases default a -", system);
        let verbs = "can only get, create, update, patch, or delete a node lease";
        check("list coordination.k8s.io leases kube-node-lease a metadata.name=a", verbs);
        check("get - pods/log default web -", "");
    }

    #[test]
    fn what_speaks_against_a_request_is_told_together() {
        let modes = modes();
        let binding = json!({
            "roleRef": { "kind": "ClusterRole", "name": "x" }, "subjects": [{ "kind": "Group", "name": NODES }],
        });
        let binding = Object::whole(binding.to_string(), Revision(1));
        let follower = modes.rbac.follower(b"/registry/rbac.authorization.k8s.io/clusterrolebindings/").unwrap();
        follower.put(&Bytes::from_static(b"b"), Some(&binding));
        let user = UserInfo::new("system:node:a", &[NODES]);
        let (group, subresource, namespace, name, field_selector) = ("", "", "default", "other", "");
        let target = Target::Resource { group, resource: "secrets", subresource, namespace, name, field_selector };
        let Decision::Refused { reason } = modes.decide(&Attributes { user: &user, verb: "get", target }) else {
            panic!("allowed");
        };
        let role = "RBAC: clusterrole.rbac.authorization.k8s.io \"x\" not found";
        assert_eq!(reason, format!("no relationship found between node 'a' and this object\n{role}"));
        let known = modes.rules(&user, "default");
        let role = role.trim_start_matches("RBAC: ");
        assert!(known.incomplete);
        assert_eq!(known.error, format!("[{NODES_HAVE_NO_RULES}, {role}]"));
    }

    #[test]
    fn who_allowed_a_request_is_counted_and_masters_are_not() {
        let modes = modes();
        let decide = |name: &str, group: &str, resource: &str| {
            let user = UserInfo::new(name, &[group, AUTHENTICATED]);
            let (namespace, name) = ("default", "s");
            let target = Target::Resource { group: "", resource, subresource: "", namespace, name, field_selector: "" };
            modes.decide(&Attributes { user: &user, verb: "get", target }).is_allowed()
        };
        assert!(decide("system:node:a", NODES, "secrets") && decide("root", MASTERS, "secrets"));
        assert!(!decide("paul", "people", "secrets"));
        assert_eq!(modes.allowed(), [("Node", 1), ("RBAC", 0)]);
    }
}
