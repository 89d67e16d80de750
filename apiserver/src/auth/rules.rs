//! The rules that hold until there are Roles: a fixed, minimal set for each component, in code.
//!
//! Modelled on Kubernetes' built-in roles (`system:kube-scheduler`, …; see "Using RBAC Authorization", section
//! "Default roles"). What nodes may do is in [`super::node`].

use std::sync::Arc;

use super::authorizer::{Attributes, Authorizer, Decision, KnownRules, Rule, Target};
use super::delegation::Delegation;
use super::graph::NodeGraph;
use super::{ANONYMOUS, AUTHENTICATED, MASTERS, node};
use crate::registry::UserInfo;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch"];
const CHANGE: &[&str] = &["update", "patch"];
const CREATE: &[&str] = &["create"];
const DELETE: &[&str] = &["delete"];
const HOLD: &[&str] = &["get", "create", "update", "patch"];
const RUN: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

const fn rule(verbs: &'static [&'static str], group: &'static str, resources: &'static [&'static str]) -> Rule {
    Rule { verbs, group, resources }
}

const EVENTS: Rule = rule(WRITE, "", &["events"]);
const NEW_EVENTS: Rule = rule(WRITE, "events.k8s.io", &["events"]);
const LEASES: Rule = rule(HOLD, "coordination.k8s.io", &["leases"]);

const SCHEDULER: &[Rule] = &[
    EVENTS,
    NEW_EVENTS,
    LEASES,
    rule(READ, "", &["pods", "nodes", "namespaces", "services", "persistentvolumeclaims", "persistentvolumes"]),
    rule(READ, "apps", &["replicasets", "statefulsets"]),
    rule(DELETE, "", &["pods"]),
    rule(CREATE, "", &["pods/binding", "bindings"]),
    rule(CHANGE, "", &["pods/status"]),
];

/// The controllers work on objects of every kind (garbage collection, namespace deletion); what they cannot do is
/// run commands, read logs, take tokens or bind pods.
const CONTROLLER_MANAGER: &[Rule] = &[
    rule(RUN, "*", &["*"]),
    rule(CHANGE, "", &["pods/status", "nodes/status", "services/status", "namespaces/status", "namespaces/finalize"]),
    rule(CHANGE, "", &["replicationcontrollers/status", "resourcequotas/status"]),
    rule(CHANGE, "apps", &["deployments/status", "replicasets/status"]),
    rule(CHANGE, "policy", &["poddisruptionbudgets/status"]),
    rule(&["get", "update", "patch"], "*", &["*/scale"]),
    rule(CREATE, "", &["pods/eviction"]),
];

const PROXY: &[Rule] = &[
    EVENTS,
    NEW_EVENTS,
    rule(READ, "", &["services", "endpoints", "nodes", "namespaces", "pods"]),
    rule(READ, "discovery.k8s.io", &["endpointslices"]),
];

/// What everybody may ask about himself whose identity was proven: Kubernetes' `system:basic-user`.
const BASIC: &[Rule] = &[
    rule(CREATE, "authentication.k8s.io", &["selfsubjectreviews"]),
    rule(CREATE, "authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
];

const EVERYTHING: Rule = rule(&["*"], "*", &["*"]);

/// What everybody may read whose identity was proven: Kubernetes' `system:discovery`.
const DISCOVERY: &[&str] =
    &["/api", "/apis", "/openapi", "/version", "/livez", "/readyz", "/healthz", "/.well-known", "/openid"];
/// What everybody may read: Kubernetes' `system:public-info-viewer`.
const PUBLIC: &[&str] = &["/version", "/livez", "/readyz", "/healthz"];

/// The fixed rules. Default deny.
pub(crate) struct FixedRules {
    /// What nodes' pods refer to.
    pub(crate) graph: Arc<NodeGraph>,
    /// What other API servers are bound to.
    pub(crate) delegation: Delegation,
}

impl Authorizer for FixedRules {
    fn decide(&self, asked: &Attributes<'_>) -> Decision {
        let user = asked.user;
        if user.in_group(MASTERS) {
            return Decision::Allowed;
        }
        match asked.target {
            Target::Path(path) => Decision::when(may_read_path(user, asked.verb, path)),
            Target::Resource { .. } if user.in_group(AUTHENTICATED) && any_allows(BASIC, asked) => Decision::Allowed,
            Target::Resource { .. } if any_allows(component_rules(user), asked) => Decision::Allowed,
            Target::Resource { .. } if self.delegation.allows(asked) => Decision::Allowed,
            Target::Resource { .. } => match node::node_of(user) {
                Some(name) => node::decide(&self.graph, name, asked),
                None => Decision::silent(),
            },
        }
    }

    fn rules(&self, user: &UserInfo) -> KnownRules {
        if user.in_group(MASTERS) {
            let paths = vec![("*", vec!["*".to_owned()])];
            return KnownRules { resources: vec![EVERYTHING], paths, incomplete: "" };
        }
        let is_proven = user.name != ANONYMOUS && user.in_group(AUTHENTICATED);
        let (basic, readable) = if is_proven { (BASIC, DISCOVERY) } else { (&[][..], PUBLIC) };
        let paths = readable.iter().flat_map(|root| [(*root).to_owned(), format!("{root}/*")]).collect();
        KnownRules {
            resources: basic.iter().chain(component_rules(user)).copied().collect(),
            paths: vec![("get", paths)],
            incomplete: node::node_of(user).map_or("", |_| "node authorizer does not support user rule resolution"),
        }
    }
}

/// Whether a path may be asked for without any credentials.
pub(crate) fn is_public(path: &str) -> bool {
    is_under(path, PUBLIC)
}

fn may_read_path(user: &UserInfo, verb: &str, path: &str) -> bool {
    let readable = if user.name == ANONYMOUS || !user.in_group(AUTHENTICATED) { PUBLIC } else { DISCOVERY };
    matches!(verb, "get" | "head") && is_under(path, readable)
}

fn is_under(path: &str, roots: &[&str]) -> bool {
    roots.iter().any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn component_rules(user: &UserInfo) -> &'static [Rule] {
    match user.name.as_str() {
        "system:kube-scheduler" => SCHEDULER,
        "system:kube-controller-manager" => CONTROLLER_MANAGER,
        "system:kube-proxy" => PROXY,
        name if name.starts_with("system:controller:") => CONTROLLER_MANAGER,
        _ => &[],
    }
}

fn any_allows(rules: &[Rule], asked: &Attributes<'_>) -> bool {
    let Target::Resource { group, resource, subresource, .. } = asked.target else { return false };
    rules.iter().any(|rule| {
        rule.verbs.contains(&asked.verb)
            && (rule.group == "*" || rule.group == group)
            && rule.resources.iter().any(|own| match own.split_once('/') {
                Some((of, part)) => (of == "*" || of == resource) && part == subresource,
                None => subresource.is_empty() && (*own == "*" || *own == resource),
            })
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reeve_store::Revision;
    use serde_json::json;

    use super::*;
    use crate::auth::NODES;
    use crate::registry::Object;

    /// Node `a` runs `default/web`, which has the account `robot` and refers to the Secret `s` and the ConfigMap `m`.
    fn rules() -> FixedRules {
        let volumes = json!([{ "secret": { "secretName": "s" } }, { "configMap": { "name": "m" } }]);
        let spec = json!({ "nodeName": "a", "serviceAccountName": "robot", "volumes": volumes });
        let pod = Object::whole(json!({ "spec": spec }).to_string(), Revision(1));
        let graph = NodeGraph::default();
        graph.put(&Bytes::from_static(b"default/web"), Some(&pod));
        FixedRules { graph: Arc::new(graph), delegation: Delegation::default() }
    }

    /// `VERB GROUP RESOURCE[/SUB] NAMESPACE NAME SELECTOR`, `-` for empty; `None`: allowed, else why not.
    #[track_caller]
    fn ask(user: &str, group: &str, question: &str) -> Option<String> {
        let user = UserInfo::new(user, &[group, AUTHENTICATED]);
        let words: Vec<&str> = question.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let [verb, group, resource, namespace, name, field_selector] = words[..] else { panic!("{question}") };
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let target = Target::Resource { group, resource, subresource, namespace, name, field_selector };
        match rules().decide(&Attributes { user: &user, verb, target }) {
            Decision::Allowed => None,
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
        check("create - pods default - -", false);
        check("get - secrets default s -", true);
        check("watch - secrets default s metadata.name=s", true);
        check("watch - configmaps default m metadata.name=m", true);
        check("update - secrets default s -", false);
        check("create - serviceaccounts/token default robot -", true);
        check("update coordination.k8s.io leases kube-node-lease a -", true);
        check("create coordination.k8s.io leases kube-node-lease - -", true);
        check("list - services - - -", true);
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
        check("get - serviceaccounts default robot -", "can only create tokens for individual service accounts");
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
    fn components_cannot_run_commands_or_take_tokens() {
        for user in ["system:kube-scheduler", "system:kube-controller-manager", "system:kube-proxy"] {
            check(user, "-", "create - pods/exec default web -", false);
            check(user, "-", "create - serviceaccounts/token default default -", false);
        }
        check("system:kube-scheduler", "-", "create - pods/binding default web -", true);
        check("system:kube-controller-manager", "-", "create - pods/binding default web -", false);
        check("system:kube-proxy", "-", "update - services default web -", false);
    }

    #[test]
    fn service_accounts_read_discovery_and_nobody_else_does_without_credentials() {
        let rules = rules();
        let path = |user: &UserInfo, path| {
            rules.decide(&Attributes { user, verb: "get", target: Target::Path(path) }) == Decision::Allowed
        };
        let account = UserInfo::new("system:serviceaccount:a:b", &[AUTHENTICATED]);
        assert!(path(&account, "/apis/apps/v1") && path(&account, "/openapi/v3") && path(&account, "/livez/ping"));
        assert!(!path(&account, "/metrics") && !path(&account, "/apiserver"));
        let nobody = crate::auth::anonymous();
        assert!(path(&nobody, "/readyz") && !path(&nobody, "/api") && !path(&nobody, "/versions"));
    }
}
