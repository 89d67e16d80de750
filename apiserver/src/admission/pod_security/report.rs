//! Violations in words. Pure. Source: `k8s.io/pod-security-admission/admission`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::checks::{Violation, evaluate};
use super::policy::LevelVersion;
use crate::registry::meta;

/// `reason (detail), …`
pub(super) fn detail(violations: &[Violation]) -> String {
    let one = |violation: &Violation| match violation.detail.as_str() {
        "" => violation.reason.clone(),
        detail => format!("{} ({detail})", violation.reason),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// `reason, …`
fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason.as_str()).collect::<Vec<_>>().join(", ")
}

/// What to warn of when a namespace that has these pods asks for a stricter level. At most `most` of them are looked
/// at, one of each controller first.
pub(super) fn of_namespace(namespace: &str, asked: LevelVersion, pods: &[Value], most: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let looked_at = pods.len().min(most);
    if looked_at < pods.len() {
        let all = pods.len();
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {looked_at} of {all} existing pods"
        ));
    }
    // Per reason the first pod's name and how many there are.
    let mut found: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in prioritized(pods).into_iter().take(most) {
        let violations = evaluate(asked, pod);
        if !violations.is_empty() {
            let name = meta::text(pod, "name");
            let (first, number) = found.entry(reasons(&violations)).or_insert((name, 0));
            *first = (*first).min(name);
            *number += 1;
        }
    }
    if !found.is_empty() {
        let asked = asked.to_string();
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level {asked:?}"
        ));
    }
    let mut of_pods: Vec<String> = found
        .into_iter()
        .map(|(reasons, (name, number))| match number {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            _ => format!("{name} (and {} other pods): {reasons}", number - 1),
        })
        .collect();
    of_pods.sort();
    warnings.extend(of_pods);
    warnings
}

fn prioritized(pods: &[Value]) -> Vec<&Value> {
    let mut seen = BTreeSet::new();
    let (mut first, mut more) = (Vec::new(), Vec::new());
    for pod in pods {
        let owners = meta::get(pod, "ownerReferences").as_array().into_iter().flatten();
        let controller = owners.into_iter().find(|owner| owner["controller"] == true);
        let is_new = controller.and_then(|owner| owner["uid"].as_str()).is_none_or(|uid| seen.insert(uid));
        if is_new { first.push(pod) } else { more.push(pod) }
    }
    first.extend(more);
    first
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::policy::Level;
    use super::*;

    #[test]
    fn pods_that_violate_a_new_level_are_counted_by_reason() {
        let pod =
            |name: &str, field: &str| json!({"metadata": {"name": name}, "spec": {field: true, "containers": []}});
        let pods = [pod("b", "hostNetwork"), pod("a", "hostPID"), pod("c", "hostIPC"), pod("d", "fine")];
        let baseline = LevelVersion { level: Level::Baseline, version: None };
        assert_eq!(
            of_namespace("n", baseline, &pods, 10),
            [
                r#"existing pods in namespace "n" violate the new PodSecurity enforce level "baseline:latest""#,
                "a (and 2 other pods): host namespaces",
            ]
        );
        assert_eq!(
            of_namespace("n", baseline, &pods, 2),
            [
                "new PodSecurity enforce level only checked against the first 2 of 4 existing pods",
                r#"existing pods in namespace "n" violate the new PodSecurity enforce level "baseline:latest""#,
                "a (and 1 other pod): host namespaces",
            ]
        );
        assert_eq!(of_namespace("n", baseline, &pods[3..], 10), [""; 0]);
    }
}
