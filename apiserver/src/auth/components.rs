//! What the components of this process may do besides what roles give them: a fixed, minimal set for each, in code.
//!
//! They work from the first moment, before there is any role, and some do what Kubernetes' counterparts do under
//! several names. The rules hold for components of this process alone ([`UserInfo::is_component`]), never for somebody
//! with the same name from outside, who has what roles give him. Modelled on Kubernetes' built-in roles
//! (`system:kube-scheduler`, …). What nodes may do is in [`super::node`].
//!
//! [`UserInfo::is_component`]: crate::registry::UserInfo

use super::authorizer::{Attributes, Target};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch"];
const CHANGE: &[&str] = &["update", "patch"];
const CREATE: &[&str] = &["create"];
const DELETE: &[&str] = &["delete"];
const HOLD: &[&str] = &["get", "create", "update", "patch"];
const RUN: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// One permission: these verbs on these resources (`pods`, `pods/status`; `*` is every resource but not its
/// subresources) of one group (`*` is every group).
#[derive(Debug, Clone, Copy)]
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
    rule(CHANGE, "", &["replicationcontrollers/status", "resourcequotas/status"]),
    rule(CHANGE, "apps", &["deployments/status", "replicasets/status"]),
    rule(CHANGE, "policy", &["poddisruptionbudgets/status"]),
    rule(&["get", "update", "patch"], "*", &["*/scale"]),
    rule(CREATE, "", &["pods/eviction"]),
    // What aggregated ClusterRoles come to.
    rule(&["escalate"], "rbac.authorization.k8s.io", &["clusterroles"]),
];

const PROXY: &[Rule] = &[
    EVENTS,
    NEW_EVENTS,
    rule(READ, "", &["services", "endpoints", "nodes", "namespaces", "pods"]),
    rule(READ, "discovery.k8s.io", &["endpointslices"]),
];

/// Whether the rules of a component allow what it asks.
pub(super) fn allow(asked: &Attributes<'_>) -> bool {
    asked.user.is_component && any_allows(rules_of(&asked.user.name), asked)
}

fn rules_of(name: &str) -> &'static [Rule] {
    match name {
        "system:kube-scheduler" => SCHEDULER,
        "system:kube-controller-manager" => CONTROLLER_MANAGER,
        "system:kube-proxy" => PROXY,
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
    use super::*;
    use crate::registry::UserInfo;

    #[track_caller]
    fn check(user: &UserInfo, verb: &str, resource: &str, expected: bool) {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (group, namespace, name) = ("", "default", "web");
        let target = Target::Resource { group, resource, subresource, namespace, name, field_selector: "" };
        assert_eq!(allow(&Attributes { user, verb, target }), expected, "{} {verb} {resource}", user.name);
    }

    fn component(name: &str) -> UserInfo {
        UserInfo { is_component: true, ..UserInfo::new(name, &[]) }
    }

    #[test]
    fn components_cannot_run_commands_or_take_tokens() {
        for user in ["system:kube-scheduler", "system:kube-controller-manager", "system:kube-proxy"] {
            check(&component(user), "create", "pods/exec", false);
            check(&component(user), "create", "serviceaccounts/token", false);
        }
        check(&component("system:kube-scheduler"), "create", "pods/binding", true);
        check(&component("system:kube-controller-manager"), "create", "pods/binding", false);
        check(&component("system:kube-proxy"), "update", "services", false);
    }

    #[test]
    fn a_component_is_nobody_who_only_has_its_name() {
        check(&component("system:kube-controller-manager"), "delete", "secrets", true);
        check(&UserInfo::new("system:kube-controller-manager", &[]), "delete", "secrets", false);
        check(&component("system:serviceaccount:a:b"), "get", "pods", false);
    }
}
