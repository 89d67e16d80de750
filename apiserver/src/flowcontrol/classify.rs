//! Which schema a request belongs to: the first one, by precedence, of which a rule matches.
//!
//! Rules are found by the user, his groups and his namespace, so that a request looks at those only that may concern
//! it, however many schemas there are. Source: `rule.go` of Kubernetes v1.36. Pure.

use std::collections::HashMap;

use super::objects::{PathRule, ResourceRule, Rule, Subject};
use super::{Asked, What};

/// What the names of service accounts begin with; namespace and name follow.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// A list of words, of which a single `*` means every word.
#[derive(Debug, Clone)]
enum Words {
    All,
    These(Vec<String>),
}

impl Words {
    fn of(words: Vec<String>) -> Self {
        if words == ["*"] { Self::All } else { Self::These(words) }
    }

    fn has(&self, word: &str) -> bool {
        match self {
            Self::All => true,
            Self::These(words) => words.iter().any(|own| own == word),
        }
    }

    /// Of resources: `pods`, `pods/log`.
    fn has_part(&self, resource: &str, part: &str) -> bool {
        match self {
            Self::All => true,
            _ if part.is_empty() => self.has(resource),
            Self::These(words) => words.iter().any(|own| {
                let own = own.strip_prefix(resource).and_then(|rest| rest.strip_prefix('/'));
                own == Some(part)
            }),
        }
    }
}

#[derive(Debug)]
struct Resources {
    verbs: Words,
    groups: Words,
    resources: Words,
    cluster: bool,
    namespaces: Words,
}

#[derive(Debug)]
struct Paths {
    verbs: Words,
    /// Each as it stands, and what a path behind it begins with; `None`: every path.
    paths: Vec<Option<(String, String)>>,
}

/// A rule of a schema, without its subjects.
#[derive(Debug)]
struct Compiled {
    /// The schema's place.
    schema: usize,
    resources: Vec<Resources>,
    paths: Vec<Paths>,
}

/// The schemas, in order, with `F` for each.
#[derive(Debug)]
pub(super) struct Classifier<F> {
    flows: Vec<F>,
    /// Where requests belong that no rule matches.
    fallback: usize,
    rules: Vec<Compiled>,
    /// Places of rules, in order.
    everybody: Vec<u32>,
    by_user: HashMap<String, Vec<u32>>,
    by_group: HashMap<String, Vec<u32>>,
    /// Rules about all service accounts of a namespace.
    by_namespace: HashMap<String, Vec<u32>>,
}

impl<F> Classifier<F> {
    /// Of schemas in the order in which they are tried; `fallback` is the place of the last resort.
    pub(super) fn new(schemas: Vec<(F, Vec<Rule>)>, fallback: usize) -> Self {
        let mut all = Self {
            flows: Vec::new(),
            fallback,
            rules: Vec::new(),
            everybody: Vec::new(),
            by_user: HashMap::new(),
            by_group: HashMap::new(),
            by_namespace: HashMap::new(),
        };
        for (schema, (flow, rules)) in schemas.into_iter().enumerate() {
            all.flows.push(flow);
            for rule in rules {
                let place = u32::try_from(all.rules.len()).unwrap_or(u32::MAX);
                rule.subjects.into_iter().for_each(|subject| all.add(subject, place));
                all.rules.push(Compiled {
                    schema,
                    resources: rule.resource_rules.into_iter().map(Resources::of).collect(),
                    paths: rule.non_resource_rules.into_iter().map(Paths::of).collect(),
                });
            }
        }
        all
    }

    fn add(&mut self, subject: Subject, place: u32) {
        let list = match (subject.kind.as_str(), subject.user, subject.group, subject.service_account) {
            ("User", Some(user), ..) if user.name == "*" => &mut self.everybody,
            ("User", Some(user), ..) => self.by_user.entry(user.name).or_default(),
            ("Group", _, Some(group), _) if group.name == "*" => &mut self.everybody,
            ("Group", _, Some(group), _) => self.by_group.entry(group.name).or_default(),
            ("ServiceAccount", _, _, Some(account)) if account.name == "*" => {
                self.by_namespace.entry(account.namespace).or_default()
            }
            ("ServiceAccount", _, _, Some(account)) => {
                let name = format!("{ACCOUNT_PREFIX}{}:{}", account.namespace, account.name);
                self.by_user.entry(name).or_default()
            }
            _ => return,
        };
        if list.last() != Some(&place) {
            list.push(place);
        }
    }

    /// All, in order.
    pub(super) fn flows(&self) -> &[F] {
        &self.flows
    }

    /// Where the request belongs.
    pub(super) fn find(&self, asked: &Asked<'_>) -> Option<&F> {
        let mut first = u32::MAX;
        let mut look = |places: &[u32]| {
            for place in places.iter().take_while(|place| **place < first) {
                let rule = usize::try_from(*place).ok().and_then(|place| self.rules.get(place));
                if rule.is_some_and(|rule| rule.matches(asked)) {
                    first = *place;
                    break;
                }
            }
        };
        let name = asked.user.name.as_str();
        if !self.by_user.is_empty() {
            self.by_user.get(name).into_iter().for_each(|places| look(places));
        }
        asked.user.groups.iter().filter_map(|group| self.by_group.get(group)).for_each(|places| look(places));
        if !self.by_namespace.is_empty()
            && let Some((namespace, _)) = name.strip_prefix(ACCOUNT_PREFIX).and_then(|rest| rest.split_once(':'))
        {
            self.by_namespace.get(namespace).into_iter().for_each(|places| look(places));
        }
        look(&self.everybody);
        let rule = usize::try_from(first).ok().and_then(|first| self.rules.get(first));
        self.flows.get(rule.map_or(self.fallback, |rule| rule.schema))
    }
}

impl Compiled {
    fn matches(&self, asked: &Asked<'_>) -> bool {
        match asked.what {
            What::Resource { .. } => self.resources.iter().any(|rule| rule.matches(asked)),
            What::Path => self.paths.iter().any(|rule| rule.matches(asked)),
        }
    }
}

impl Resources {
    fn of(rule: ResourceRule) -> Self {
        Self {
            verbs: Words::of(rule.verbs),
            groups: Words::of(rule.api_groups),
            resources: Words::of(rule.resources),
            cluster: rule.cluster_scope,
            namespaces: Words::of(rule.namespaces),
        }
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        let What::Resource { group, resource, subresource, namespace, .. } = asked.what else { return false };
        self.verbs.has(asked.verb)
            && self.resources.has_part(resource, subresource)
            && self.groups.has(group)
            && if namespace.is_empty() { self.cluster } else { self.namespaces.has(namespace) }
    }
}

impl Paths {
    fn of(rule: PathRule) -> Self {
        let path = |path: String| {
            if path == "*" {
                return None;
            }
            let mut below = path.strip_suffix('*').unwrap_or(&path).to_owned();
            if !below.ends_with('/') {
                below.push('/');
            }
            Some((path, below))
        };
        Self { verbs: Words::of(rule.verbs), paths: rule.paths.into_iter().map(path).collect() }
    }

    fn matches(&self, asked: &Asked<'_>) -> bool {
        let is_here = |(path, below): &(String, String)| path == asked.path || asked.path.starts_with(below.as_str());
        self.verbs.has(asked.verb) && self.paths.iter().any(|path| path.as_ref().is_none_or(is_here))
    }
}

#[cfg(test)]
mod tests {
    use reeve_kinds::bootstrap;
    use serde_json::{Value, json};

    use super::super::objects::SchemaSpec;
    use super::*;
    use crate::registry::UserInfo;

    fn classifier(objects: Vec<Value>) -> Classifier<String> {
        let mut schemas: Vec<_> = objects.into_iter().filter_map(SchemaSpec::read).collect();
        schemas.sort_by(|one, other| (one.precedence, &one.name).cmp(&(other.precedence, &other.name)));
        let fallback = schemas.len() - 1;
        Classifier::new(schemas.into_iter().map(|schema| (schema.name, schema.rules)).collect(), fallback)
    }

    /// `VERB GROUP RESOURCE[/SUB] NAMESPACE` or `VERB PATH`; `-` for empty.
    fn find(classifier: &Classifier<String>, user: &str, groups: &[&str], question: &str) -> String {
        let user = UserInfo::new(user, groups);
        let words: Vec<&str> = question.split(' ').map(|word| if word == "-" { "" } else { word }).collect();
        let (verb, what, path) = match words[..] {
            [verb, path] => (verb, What::Path, path),
            [verb, group, resource, namespace] => {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                (verb, What::Resource { group, version: "v1", resource, subresource, namespace, name: "" }, "")
            }
            _ => panic!("{question}"),
        };
        classifier.find(&Asked { user: &user, verb, what, path }).unwrap().clone()
    }

    #[test]
    fn the_built_in_schemas_tell_the_system_from_the_others() {
        let all = classifier([bootstrap::mandatory_flow_schemas(), bootstrap::suggested_flow_schemas()].concat());
        let proven = "system:authenticated";
        let find = |user: &str, group: &str, question: &str| find(&all, user, &[group, proven], question);
        assert_eq!(find("admin", "system:masters", "get - pods a"), "exempt");
        assert_eq!(find("bob", "developers", "get /healthz"), "probes");
        assert_eq!(find("bob", "developers", "get /readyz/etcd"), "probes");
        assert_eq!(find("bob", "developers", "get /readyzz"), "global-default");
        assert_eq!(find("bob", "developers", "list - pods -"), "global-default");
        assert_eq!(find("system:node:a", "system:nodes", "patch - nodes/status -"), "system-node-high");
        assert_eq!(find("system:node:a", "system:nodes", "update coordination.k8s.io leases x"), "system-node-high");
        assert_eq!(find("system:node:a", "system:nodes", "patch - pods/status x"), "system-nodes");
        let manager = "system:kube-controller-manager";
        assert_eq!(find(manager, "x", "update coordination.k8s.io leases kube-system"), "system-leader-election");
        assert_eq!(find(manager, "x", "list coordination.k8s.io leases kube-system"), "kube-controller-manager");
        assert_eq!(find("system:kube-scheduler", "x", "watch - pods -"), "kube-scheduler");
        let account = "system:serviceaccount:kube-system:robot";
        assert_eq!(find(account, "system:serviceaccounts", "get - pods a"), "kube-system-service-accounts");
        let account = "system:serviceaccount:kube-systems:robot";
        assert_eq!(find(account, "system:serviceaccounts", "get - pods a"), "service-accounts");
    }

    #[test]
    fn nobody_falls_through() {
        let all = classifier(bootstrap::mandatory_flow_schemas());
        assert_eq!(find(&all, "bob", &[], "get - pods a"), "catch-all");
        assert_eq!(find(&all, "system:anonymous", &["system:unauthenticated"], "get /healthz"), "catch-all");
    }

    #[test]
    fn a_rule_says_exactly_what_it_is_about() {
        let schema = |name: &str, precedence: u32, rule: Value| json!({"metadata": {"name": name}, "spec": {"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": "l"}, "rules": [rule]}});
        let subjects = json!([{"kind": "User", "user": {"name": "*"}}]);
        let resources = |rule: Value| json!({"subjects": subjects, "resourceRules": [rule]});
        let mut objects = bootstrap::mandatory_flow_schemas();
        objects.extend([
            schema("logs", 10, resources(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"], "namespaces": ["a", "b"]}))),
            schema("second", 20, resources(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["pods", "nodes"], "clusterScope": true}))),
            schema("account", 30, json!({"subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "a", "name": "r"}}], "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/a/*", "/b"]}]})),
            schema("a-tie", 30, json!({"subjects": [{"kind": "Group", "group": {"name": "*"}}], "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/b/c"]}]})),
        ]);
        let all = classifier(objects);
        let bob = |question: &str| find(&all, "bob", &[], question);
        assert_eq!(bob("get - pods/log b"), "logs");
        assert_eq!(bob("get - pods/log c"), "catch-all");
        assert_eq!(bob("get - pods b"), "catch-all");
        assert_eq!(bob("list - pods -"), "second");
        assert_eq!(bob("list x nodes -"), "second");
        let robot = |question: &str| find(&all, "system:serviceaccount:a:r", &[], question);
        assert_eq!((robot("get /a/x").as_str(), robot("get /b").as_str()), ("account", "account"));
        assert_eq!((robot("get /b/c").as_str(), robot("post /b").as_str()), ("a-tie", "catch-all"));
    }
}
