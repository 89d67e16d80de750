//! What aggregated ClusterRoles come to.

use k8s_openapi::api::rbac::v1::ClusterRole;
use serde_json::{Value, json};

use super::plan::plan;

fn rule(resource: &str) -> Value {
    json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]})
}

fn role(name: &str, labels: &Value, rules: &[Value], selectors: &[Value]) -> ClusterRole {
    let mut role = json!({"metadata": {"name": name, "labels": labels}, "rules": rules});
    if !selectors.is_empty() {
        role["aggregationRule"] = json!({"clusterRoleSelectors": selectors});
    }
    serde_json::from_value(role).unwrap()
}

/// `NAME: RESOURCE RESOURCE`
fn planned(roles: &[ClusterRole]) -> Vec<String> {
    let shown = plan(roles).into_iter().map(|role| {
        let resources: Vec<String> =
            role.rules.into_iter().flat_map(|rule| rule.resources.unwrap_or_default()).collect();
        format!("{}: {}", role.name, resources.join(" "))
    });
    shown.collect()
}

#[test]
fn a_role_has_the_rules_of_all_that_match_each_once_and_in_order() {
    let label = |value: &str| json!({"matchLabels": {"to": value}});
    let all = |sum: &[Value]| {
        [
            role("z", &json!({"to": "sum"}), &[rule("pods"), rule("nodes")], &[]),
            role("b", &json!({"to": "sum"}), &[rule("services"), rule("pods")], &[]),
            role("a", &json!({"to": "first"}), &[rule("secrets")], &[]),
            role("other", &json!({}), &[rule("leases")], &[]),
            role("sum", &json!({"to": "sum"}), sum, &[label("sum"), label("first")]),
        ]
    };
    assert_eq!(planned(&all(&[rule("leases")])), ["sum: services pods nodes secrets"]);
    let done = ["services", "pods", "nodes", "secrets"].map(rule);
    assert!(planned(&all(&done)).is_empty());
}

#[test]
fn a_role_that_nothing_matches_any_more_is_empty() {
    let nothing = json!({"matchLabels": {"to": "sum"}});
    assert_eq!(planned(&[role("sum", &json!({}), &[rule("pods")], std::slice::from_ref(&nothing))]), ["sum: "]);
    assert!(planned(&[role("sum", &json!({}), &[], &[nothing])]).is_empty());
}

#[test]
fn roles_that_do_not_aggregate_are_left_alone() {
    assert!(planned(&[role("a", &json!({}), &[rule("pods")], &[])]).is_empty());
}
