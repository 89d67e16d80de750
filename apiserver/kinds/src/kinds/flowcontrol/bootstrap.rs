//! The objects with which every API server starts: the mandatory ones, which always say the same, and the suggested
//! ones, which may be changed.
//!
//! Source: `pkg/apis/flowcontrol/bootstrap` of `k8s.io/apiserver` v0.36.

use serde_json::{Value, json};

/// Annotation that says whether the server keeps the object's spec as it was built in.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Flow schemas that are always there and always the same.
#[must_use]
pub fn mandatory_flow_schemas() -> Vec<Value> {
    let everybody = groups(&["system:unauthenticated", "system:authenticated"]);
    vec![
        flow_schema("exempt", "exempt", 1, None, rule_for_everything(groups(&["system:masters"]))),
        flow_schema("catch-all", "catch-all", 10_000, Some("ByUser"), rule_for_everything(everybody)),
    ]
}

/// Flow schemas with which a cluster starts.
#[must_use]
pub fn suggested_flow_schemas() -> Vec<Value> {
    let everybody = || groups(&["system:unauthenticated", "system:authenticated"]);
    let nodes = || groups(&["system:nodes"]);
    let (manager, scheduler) = (user("system:kube-controller-manager"), user("system:kube-scheduler"));
    let of_system = json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}});
    let leases = |verbs: &[&str]| resource_rule(verbs, "coordination.k8s.io", &["leases"], false);
    vec![
        flow_schema("system-nodes", "system", 500, Some("ByUser"), rule_for_everything(nodes())),
        flow_schema(
            "system-node-high",
            "node-high",
            400,
            Some("ByUser"),
            json!({
                "subjects": nodes(),
                "resourceRules": [resource_rule(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])],
            }),
        ),
        flow_schema(
            "probes",
            "exempt",
            2,
            None,
            json!({
                "subjects": everybody(),
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
            }),
        ),
        flow_schema(
            "system-leader-election",
            "leader-election",
            100,
            Some("ByUser"),
            json!({
                "subjects": [manager, scheduler, of_system],
                "resourceRules": [leases(&["get", "create", "update"])],
            }),
        ),
        controllers("kube-controller-manager", 800, json!([manager])),
        controllers("kube-scheduler", 800, json!([scheduler])),
        controllers("kube-system-service-accounts", 900, json!([of_system])),
        flow_schema(
            "service-accounts",
            "workload-low",
            9000,
            Some("ByUser"),
            rule_for_everything(groups(&["system:serviceaccounts"])),
        ),
        flow_schema("global-default", "global-default", 9900, Some("ByUser"), rule_for_everything(everybody())),
    ]
}

/// Priority levels that are always there; of `exempt` the shares may be changed.
#[must_use]
pub fn mandatory_priority_levels() -> Vec<Value> {
    let catch_all = json!({
        "nominalConcurrencyShares": 5,
        "lendablePercent": 0,
        "limitResponse": {"type": "Reject"},
    });
    vec![
        priority_level("catch-all", &json!({"type": "Limited", "limited": catch_all})),
        priority_level(
            "exempt",
            &json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
        ),
    ]
}

/// Priority levels with which a cluster starts.
#[must_use]
pub fn suggested_priority_levels() -> Vec<Value> {
    // Name, shares, how much of them may be lent, queues, hand.
    [
        ("system", 30, 33, 64, 6),
        ("node-high", 40, 25, 64, 6),
        ("leader-election", 10, 0, 16, 4),
        ("workload-high", 40, 50, 128, 6),
        ("workload-low", 100, 90, 128, 6),
        ("global-default", 20, 50, 128, 6),
    ]
    .map(|(name, shares, lendable, queues, hand)| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let limited = json!({
            "nominalConcurrencyShares": shares,
            "lendablePercent": lendable,
            "limitResponse": {"type": "Queue", "queuing": queuing},
        });
        priority_level(name, &json!({"type": "Limited", "limited": limited}))
    })
    .to_vec()
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    })
}

fn priority_level(name: &str, spec: &Value) -> Value {
    object("PriorityLevelConfiguration", name, spec)
}

#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn flow_schema(name: &str, level: &str, precedence: i64, distinguisher: Option<&str>, rule: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    });
    if let Some(kind) = distinguisher {
        spec["distinguisherMethod"] = json!({"type": kind});
    }
    object("FlowSchema", name, &spec)
}

/// A schema for what drives the cluster itself.
fn controllers(name: &str, precedence: i64, subjects: Value) -> Value {
    flow_schema(name, "workload-high", precedence, Some("ByNamespace"), rule_for_everything(subjects))
}

fn groups(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"kind": "Group", "group": {"name": name}})).collect()
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn resource_rule(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = json!(true);
    }
    rule
}

/// Every request of these subjects.
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn rule_for_everything(subjects: Value) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [resource_rule(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn every_built_in_object_is_valid_and_has_its_defaults() {
        let all = [
            mandatory_flow_schemas(),
            suggested_flow_schemas(),
            mandatory_priority_levels(),
            suggested_priority_levels(),
        ];
        for object in all.iter().flatten() {
            let yaml = object.to_string();
            check_valid(&yaml);
            assert_eq!(created(&yaml)["spec"], object["spec"]);
        }
    }
}
