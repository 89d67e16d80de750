//! The rules that hold until there are Roles: a fixed, minimal set for each component, in code.
//!
//! Modelled on Kubernetes' built-in roles (`system:kube-scheduler`, `system:node`, …; see "Using RBAC
//! Authorization", section "Default roles") and on the Node authorizer's limits.

use reeve_api::selector::FieldSelector;

use super::authorizer::{Attributes, Authorizer, Target};
use super::{ANONYMOUS, AUTHENTICATED, MASTERS, NODES};
use crate::registry::UserInfo;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch"];
const CHANGE: &[&str] = &["update", "patch"];
const CREATE: &[&str] = &["create"];
const DELETE: &[&str] = &["delete"];
const HOLD: &[&str] = &["get", "create", "update", "patch"];
const RUN: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// One permission: these verbs on these resources (`pods`, `pods/status`; `*` is every resource but not its
/// subresources) of one group (`*` is every group).
struct Rule {
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
}

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
    rule(CHANGE, "apps", &["deployments/status", "replicasets/status"]),
    rule(&["get", "update", "patch"], "apps", &["deployments/scale", "replicasets/scale"]),
    rule(CREATE, "", &["pods/eviction"]),
];

const PROXY: &[Rule] = &[
    EVENTS,
    NEW_EVENTS,
    rule(READ, "", &["services", "endpoints", "nodes", "namespaces", "pods"]),
    rule(READ, "discovery.k8s.io", &["endpointslices"]),
];

/// What every node may do; what depends on the node's name is in [`node_may`].
const NODE: &[Rule] = &[
    EVENTS,
    NEW_EVENTS,
    rule(READ, "", &["services"]),
    rule(CREATE, "", &["nodes", "serviceaccounts/token"]),
    rule(&["get"], "", &["pods", "serviceaccounts"]),
    rule(DELETE, "", &["pods"]),
    rule(CHANGE, "", &["pods/status"]),
    rule(READ, "node.k8s.io", &["runtimeclasses"]),
];

/// What everybody may read whose identity was proven: Kubernetes' `system:discovery`.
const DISCOVERY: &[&str] = &["/api", "/apis", "/openapi", "/version", "/livez", "/readyz", "/healthz"];
/// What everybody may read: Kubernetes' `system:public-info-viewer`.
const PUBLIC: &[&str] = &["/version", "/livez", "/readyz", "/healthz"];

/// The fixed rules. Default deny.
#[derive(Debug, Clone, Copy, Default)]
pub struct FixedRules;

impl Authorizer for FixedRules {
    fn allows(&self, asked: &Attributes<'_>) -> bool {
        let user = asked.user;
        if user.in_group(MASTERS) {
            return true;
        }
        match asked.target {
            Target::Path(path) => may_read_path(user, asked.verb, path),
            Target::Resource { .. } => component_may(asked) || node_may(asked),
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

fn component_may(asked: &Attributes<'_>) -> bool {
    let rules = match asked.user.name.as_str() {
        "system:kube-scheduler" => SCHEDULER,
        "system:kube-controller-manager" => CONTROLLER_MANAGER,
        "system:kube-proxy" => PROXY,
        name if name.starts_with("system:controller:") => CONTROLLER_MANAGER,
        _ => return false,
    };
    any_allows(rules, asked)
}

fn any_allows(rules: &[Rule], asked: &Attributes<'_>) -> bool {
    let Target::Resource { group, resource, subresource, .. } = asked.target else { return false };
    rules.iter().any(|rule| {
        rule.verbs.contains(&asked.verb)
            && (rule.group == "*" || rule.group == group)
            && rule.resources.iter().any(|own| match own.split_once('/') {
                Some((of, part)) => of == resource && part == subresource,
                None => subresource.is_empty() && (*own == "*" || *own == resource),
            })
    })
}

/// What a node may do with what is its own: its Node, its lease, the pods bound to it, and single Secrets and
/// ConfigMaps by name (never a list of them).
fn node_may(asked: &Attributes<'_>) -> bool {
    let Some(node) = asked.user.name.strip_prefix("system:node:").filter(|_| asked.user.in_group(NODES)) else {
        return false;
    };
    if any_allows(NODE, asked) {
        return true;
    }
    let Target::Resource { group, resource, subresource, namespace, name, field_selector } = asked.target else {
        return false;
    };
    let verb = asked.verb;
    // Read as it will be read when the request is served, escapes included; what cannot be read selects nothing.
    let selector = FieldSelector::parse(field_selector).unwrap_or_default();
    // A name in the path is what is served, whatever the selector says besides.
    let selected = Some(name).filter(|name| !name.is_empty()).or(selector.exact("metadata.name"));
    let selected = selected.filter(|name| !name.is_empty());
    match (group, resource, subresource) {
        ("", "nodes", "") if READ.contains(&verb) => selected == Some(node),
        ("", "nodes", "" | "status") => CHANGE.contains(&verb) && name == node,
        ("", "pods", "") => READ.contains(&verb) && selector.exact("spec.nodeName") == Some(node),
        ("", "secrets" | "configmaps", "") => READ.contains(&verb) && !namespace.is_empty() && selected.is_some(),
        ("coordination.k8s.io", "leases", "") => {
            let own = selected == Some(node) || (verb == "create" && name.is_empty());
            namespace == "kube-node-lease" && own && (RUN.contains(&verb) && verb != "deletecollection")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `VERB GROUP RESOURCE[/SUB] NAMESPACE NAME SELECTOR`, `-` for empty.
    #[track_caller]
    fn check(user: &str, group: &str, question: &str, expected: bool) {
        let user = UserInfo::new(user, &[group, AUTHENTICATED]);
        let words: Vec<&str> = question.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let [verb, group, resource, namespace, name, field_selector] = words[..] else { panic!("{question}") };
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let target = Target::Resource { group, resource, subresource, namespace, name, field_selector };
        assert_eq!(FixedRules.allows(&Attributes { user: &user, verb, target }), expected, "{} {question}", user.name);
    }

    #[test]
    fn nothing_is_allowed_to_whom_no_rule_names() {
        check("bob", "developers", "get - pods default web -", false);
        check("system:serviceaccount:default:default", "system:serviceaccounts", "get - pods default web -", false);
        check("system:node:a", "not-nodes", "get - services default web -", false);
        check("kubernetes-admin", MASTERS, "delete - secrets default s -", true);
    }

    #[test]
    fn a_node_touches_only_what_is_its_own() {
        let check = |question, expected| check("system:node:a", NODES, question, expected);
        check("patch - nodes/status - a -", true);
        check("patch - nodes/status - b -", false);
        check("delete - nodes - a -", false);
        check("watch - pods - - spec.nodeName=a", true);
        check("watch - pods - - spec.nodeName=b", false);
        check("watch - pods - - spec.nodeName!=a", false);
        check("watch - pods - - -", false);
        check("get - secrets default s -", true);
        check("list - secrets default - -", false);
        check("watch - secrets default - metadata.name=s", true);
        check("update coordination.k8s.io leases kube-node-lease a -", true);
        check("update coordination.k8s.io leases kube-node-lease b -", false);
        check("update coordination.k8s.io leases default a -", false);
        check("create - pods/exec default web -", false);
        check("create - pods default - -", false);
    }

    #[test]
    fn a_selector_opens_no_more_than_it_selects() {
        let check = |question, expected| check("system:node:a", NODES, question, expected);
        check("list - pods - - metadata.name!=x\\,spec.nodeName=a", false);
        check("list - pods - - spec.nodeName=a,status.phase!=Failed", true);
        check("list - secrets default - metadata.name!=x\\,metadata.name=y", false);
        check("list - secrets default - metadata.name=", false);
        check("get - nodes - b metadata.name=a", false);
        check("get coordination.k8s.io leases kube-node-lease b metadata.name=a", false);
        check("watch - nodes - - metadata.name=a", true);
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
        let path =
            |user: &UserInfo, path| FixedRules.allows(&Attributes { user, verb: "get", target: Target::Path(path) });
        let account = UserInfo::new("system:serviceaccount:a:b", &[AUTHENTICATED]);
        assert!(path(&account, "/apis/apps/v1") && path(&account, "/openapi/v3") && path(&account, "/livez/ping"));
        assert!(!path(&account, "/metrics") && !path(&account, "/apiserver"));
        let nobody = crate::auth::anonymous();
        assert!(path(&nobody, "/readyz") && !path(&nobody, "/api") && !path(&nobody, "/versions"));
    }
}
