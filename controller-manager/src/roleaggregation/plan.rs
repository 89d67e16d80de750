//! Which rules aggregated ClusterRoles come to; pure.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use reeve_api::selector::LabelSelector;

/// A ClusterRole whose rules are not what they should be.
#[derive(Debug, PartialEq)]
pub(super) struct Aggregated {
    pub(super) name: String,
    /// What they should be.
    pub(super) rules: Vec<PolicyRule>,
}

/// All that have to be written, by name. What follows from them (a role that aggregates aggregated ones) is seen when
/// they have been.
pub(super) fn plan(roles: &[ClusterRole]) -> Vec<Aggregated> {
    let mut roles: Vec<&ClusterRole> = roles.iter().collect();
    roles.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
    let wanted = roles.iter().filter_map(|role| {
        let rules = rules(role, &roles)?;
        let name = role.metadata.name.clone().unwrap_or_default();
        (role.rules.clone().unwrap_or_default() != rules).then_some(Aggregated { name, rules })
    });
    wanted.collect()
}

/// The rules of all others that a selector matches, each once, in the order of selectors and names. `None` for a role
/// that does not aggregate, or has a selector that nobody can read.
fn rules(role: &ClusterRole, all: &[&ClusterRole]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.iter().flatten();
    let selectors: Option<Vec<LabelSelector>> =
        selectors.map(|selector| LabelSelector::from_object(Some(selector)).ok()).collect();
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors? {
        for other in all.iter().filter(|other| other.metadata.name != role.metadata.name) {
            if !selector.matches(other.metadata.labels.as_ref()) {
                continue;
            }
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}
