//! The roles and bindings with which every cluster starts.
//!
//! Source: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy` of Kubernetes v1.36; the facts stand in `policy.txt`,
//! whose head says how it is read.

use serde_json::{Map, Value, json};

use super::GROUP;

const POLICY: &str = include_str!("policy.txt");

/// Annotation that says whether the server keeps a role or binding as it was built in.
pub const AUTO_UPDATE_RBAC: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// A role or binding as it is made: `metadata` and what belongs to its kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// `clusterroles`, `clusterrolebindings`, `roles` or `rolebindings`.
    pub plural: &'static str,
    /// Empty for the first two.
    pub namespace: &'static str,
    /// The object's name.
    pub name: &'static str,
    /// The object.
    pub object: Value,
}

/// All of them, roles before bindings, those of the cluster before those of namespaces.
#[must_use]
pub fn rbac_policy() -> Vec<Policy> {
    let mut all: Vec<Policy> = Vec::new();
    for line in POLICY.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("  ") {
            None => all.push(begin(line)),
            Some(line) => all.iter_mut().next_back().into_iter().for_each(|policy| policy.add(line)),
        }
    }
    all
}

/// What a node may do with what is not told apart: the rules of `system:node`.
#[must_use]
pub fn node_rules() -> Vec<Value> {
    let node = rbac_policy().into_iter().find(|policy| (policy.plural, policy.name) == ("clusterroles", "system:node"));
    node.and_then(|node| node.object["rules"].as_array().cloned()).unwrap_or_default()
}

fn begin(line: &'static str) -> Policy {
    let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = rest.split(' ');
    let key = words.next().unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let mut labels = Map::from_iter([("kubernetes.io/bootstrapping".to_owned(), json!("rbac-defaults"))]);
    let annotations = json!({ AUTO_UPDATE_RBAC: "true" });
    let mut object = Map::new();
    let plural = match kind {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        "ClusterRoleBinding" => "clusterrolebindings",
        _ => "rolebindings",
    };
    if plural.ends_with("roles") {
        labels.extend(rest.iter().filter_map(|label| label.split_once('=')).map(label));
    } else if let [of, role] = rest[..] {
        object.insert("roleRef".to_owned(), json!({ "apiGroup": GROUP, "kind": of, "name": role }));
    }
    let mut metadata = json!({ "name": name, "labels": labels, "annotations": annotations });
    if !namespace.is_empty() {
        metadata["namespace"] = namespace.into();
    }
    object.insert("metadata".to_owned(), metadata);
    Policy { plural, namespace, name, object: object.into() }
}

impl Policy {
    fn add(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["aggregate", selector] => {
                let labels: Map<String, Value> = selector.split_once('=').map(label).into_iter().collect();
                self.push(&["aggregationRule", "clusterRoleSelectors"], json!({ "matchLabels": labels }));
            }
            ["url", paths, verbs] => {
                self.push(&["rules"], json!({ "verbs": list(verbs), "nonResourceURLs": list(paths) }));
            }
            ["ServiceAccount", account] => {
                let (namespace, name) = account.split_once('/').unwrap_or_default();
                self.push(&["subjects"], json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace }));
            }
            [kind @ ("User" | "Group"), name] => {
                self.push(&["subjects"], json!({ "kind": kind, "apiGroup": GROUP, "name": name }));
            }
            [groups, resources, verbs, ref names @ ..] => {
                let groups: Vec<&str> =
                    groups.split(',').map(|group| if group == "core" { "" } else { group }).collect();
                let mut rule = json!({ "verbs": list(verbs), "apiGroups": groups, "resources": list(resources) });
                if let [names] = names {
                    rule["resourceNames"] = list(names).into();
                }
                self.push(&["rules"], rule);
            }
            _ => {}
        }
    }

    /// Adds to a list, which is made where it is missing.
    fn push(&mut self, path: &[&str], item: Value) {
        let list = path.iter().fold(&mut self.object, |at, field| &mut at[*field]);
        match list {
            Value::Array(items) => items.push(item),
            other => *other = json!([item]),
        }
    }
}

fn label((key, value): (&str, &str)) -> (String, Value) {
    (key.to_owned(), value.into())
}

fn list(words: &str) -> Vec<&str> {
    words.split(',').collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::rbac;

    fn find(plural: &str, name: &str) -> Value {
        rbac_policy().into_iter().find(|one| (one.plural, one.name) == (plural, name)).unwrap().object
    }

    #[test]
    fn every_role_and_binding_is_valid_and_there_once() {
        let all = rbac_policy();
        let count = |plural: &str| all.iter().filter(|one| one.plural == plural).count();
        let counts = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"].map(count);
        assert_eq!(counts, [69, 50, 7, 7]);
        let mut keys: Vec<_> = all.iter().map(|one| (one.plural, one.namespace, one.name)).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all.len());
        let kinds = rbac::kinds();
        for policy in all {
            let kind = kinds.iter().find(|kind| kind.names().plural == policy.plural).unwrap();
            let mut object = policy.object;
            kind.default(&mut object);
            assert_eq!(kind.validate_create(&object), [], "{}", policy.name);
        }
    }

    #[test]
    fn the_table_is_read_as_its_head_says() {
        let view = find("clusterroles", "view");
        let selector = json!({ "matchLabels": { "rbac.authorization.k8s.io/aggregate-to-view": "true" } });
        assert_eq!(view["aggregationRule"]["clusterRoleSelectors"], json!([selector]));
        assert_eq!(view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
        assert_eq!(view["rules"], Value::Null);
        let reader = find("roles", "extension-apiserver-authentication-reader");
        let rule = json!({
            "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"],
            "resourceNames": ["extension-apiserver-authentication"],
        });
        assert_eq!(reader["rules"], json!([rule]));
        let dns = find("clusterrolebindings", "system:kube-dns");
        assert_eq!(
            dns["subjects"],
            json!([{ "kind": "ServiceAccount", "name": "kube-dns", "namespace": "kube-system" }])
        );
        assert!(node_rules().len() > 20);
    }
}
