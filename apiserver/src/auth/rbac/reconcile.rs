//! What becomes of a role or binding that is there already when the server starts with its own idea of it: what is
//! missing is added, nothing is taken away.
//!
//! Source: `auth/rbac/reconciliation` of k8s.io/component-helpers. Pure; `crate::registry::roles` carries it out.

use reeve_kinds::bootstrap::AUTO_UPDATE_RBAC;
use serde_json::{Map, Value, json};

use super::escalation::uncovered;
use crate::auth::authorizer::KnownRule;

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// It is as it should be, or somebody has asked for it to be left alone.
    Keep,
    /// Write this.
    Update(Value),
    /// It binds another role, which cannot be changed: make it anew.
    Recreate,
}

/// What is to be done with a role that is there.
pub(crate) fn role(there: &Value, wanted: &Value) -> Step {
    if is_protected(there) {
        return Step::Keep;
    }
    let mut revised = there.clone();
    merge_metadata(&mut revised, wanted);
    let missing = uncovered(&rules(there), &rules(wanted));
    extend(&mut revised, &["rules"], missing.iter().map(rule_value));
    if wanted["aggregationRule"].is_null() {
        if let Some(fields) = revised.as_object_mut() {
            fields.remove("aggregationRule");
        }
    } else {
        let path = ["aggregationRule", "clusterRoleSelectors"];
        let selectors = |of: &Value| of[path[0]][path[1]].as_array().cloned().unwrap_or_default();
        let known = selectors(there);
        extend(&mut revised, &path, selectors(wanted).into_iter().filter(|selector| !known.contains(selector)));
    }
    if revised == *there { Step::Keep } else { Step::Update(revised) }
}

/// What is to be done with a binding that is there.
pub(crate) fn binding(there: &Value, wanted: &Value) -> Step {
    if is_protected(there) {
        return Step::Keep;
    }
    if there["roleRef"] != wanted["roleRef"] {
        return Step::Recreate;
    }
    let mut revised = there.clone();
    merge_metadata(&mut revised, wanted);
    let subjects = |of: &Value| of["subjects"].as_array().cloned().unwrap_or_default();
    let known = subjects(there);
    extend(&mut revised, &["subjects"], subjects(wanted).into_iter().filter(|subject| !known.contains(subject)));
    if revised == *there { Step::Keep } else { Step::Update(revised) }
}

fn is_protected(there: &Value) -> bool {
    there["metadata"]["annotations"][AUTO_UPDATE_RBAC] == "false"
}

/// Labels and annotations that are wanted; what is there says otherwise stays.
fn merge_metadata(revised: &mut Value, wanted: &Value) {
    for map in ["labels", "annotations"] {
        let mut merged: Map<String, Value> = wanted["metadata"][map].as_object().cloned().unwrap_or_default();
        merged.extend(revised["metadata"][map].as_object().cloned().unwrap_or_default());
        // In the order of what is there, so that nothing differs that need not.
        if revised["metadata"][map].as_object() != Some(&merged) && !merged.is_empty() {
            revised["metadata"][map] = merged.into();
        }
    }
}

/// Adds to a list, which is made where it is missing and something is to be added.
fn extend(object: &mut Value, path: &[&str], items: impl Iterator<Item = Value>) {
    let items: Vec<Value> = items.collect();
    if items.is_empty() {
        return;
    }
    let list = path.iter().fold(object, |at, field| &mut at[*field]);
    match list {
        Value::Array(known) => known.extend(items),
        other => *other = items.into(),
    }
}

/// The rules of a role.
pub(crate) fn rules(role: &Value) -> Vec<KnownRule> {
    let rule = |rule: &Value| {
        let words = |list: &str| -> Vec<String> {
            let words = rule[list].as_array().into_iter().flatten();
            words.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        KnownRule {
            verbs: words("verbs"),
            groups: words("apiGroups"),
            resources: words("resources"),
            names: words("resourceNames"),
            urls: words("nonResourceURLs"),
        }
    };
    role["rules"].as_array().into_iter().flatten().map(rule).collect()
}

fn rule_value(rule: &KnownRule) -> Value {
    let mut value = json!({ "verbs": rule.verbs });
    let lists = [
        ("apiGroups", &rule.groups),
        ("resources", &rule.resources),
        ("resourceNames", &rule.names),
        ("nonResourceURLs", &rule.urls),
    ];
    for (name, words) in lists {
        if !words.is_empty() {
            value[name] = json!(words);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Value {
        json!({
            "metadata": {"name": "a", "labels": {"b": "c"}, "annotations": {AUTO_UPDATE_RBAC: "true"}},
            "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}],
        })
    }

    #[test]
    fn what_is_missing_from_a_role_is_added_and_the_rest_stays() {
        assert_eq!(role(&wanted(), &wanted()), Step::Keep);
        let mut there = wanted();
        there["metadata"]["labels"] = json!({"own": "x"});
        there["rules"] = json!([{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}]);
        let Step::Update(revised) = role(&there, &wanted()) else { panic!("not revised") };
        assert_eq!(revised["metadata"]["labels"], json!({"own": "x", "b": "c"}));
        let list = json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]});
        assert_eq!(revised["rules"], json!([there["rules"][0], list]));
    }

    #[test]
    fn who_asks_to_be_left_alone_is() {
        let mut there = wanted();
        there["rules"] = json!([]);
        there["metadata"]["annotations"][AUTO_UPDATE_RBAC] = json!("false");
        assert_eq!(role(&there, &wanted()), Step::Keep);
        assert_eq!(binding(&there, &json!({"roleRef": {"name": "x"}})), Step::Keep);
    }

    #[test]
    fn aggregation_is_added_and_taken_away() {
        let selector = |name: &str| json!({"matchLabels": {name: "true"}});
        let mut aggregated = wanted();
        aggregated["aggregationRule"] = json!({"clusterRoleSelectors": [selector("x")]});
        let Step::Update(revised) = role(&wanted(), &aggregated) else { panic!("not revised") };
        assert_eq!(revised["aggregationRule"], aggregated["aggregationRule"]);
        let Step::Update(revised) = role(&aggregated, &wanted()) else { panic!("not revised") };
        assert_eq!(revised.get("aggregationRule"), None);
        let mut own = aggregated.clone();
        own["aggregationRule"]["clusterRoleSelectors"] = json!([selector("y")]);
        let Step::Update(revised) = role(&own, &aggregated) else { panic!("not revised") };
        assert_eq!(revised["aggregationRule"]["clusterRoleSelectors"], json!([selector("y"), selector("x")]));
    }

    #[test]
    fn a_binding_gets_the_subjects_that_it_lacks_and_another_role_only_anew() {
        let subject = |name: &str| json!({"kind": "User", "name": name});
        let wanted = json!({"metadata": {"name": "a"}, "roleRef": {"name": "r"}, "subjects": [subject("x")]});
        let mut there = wanted.clone();
        assert_eq!(binding(&there, &wanted), Step::Keep);
        there["subjects"] = json!([subject("y")]);
        let Step::Update(revised) = binding(&there, &wanted) else { panic!("not revised") };
        assert_eq!(revised["subjects"], json!([subject("y"), subject("x")]));
        there["roleRef"]["name"] = json!("s");
        assert_eq!(binding(&there, &wanted), Step::Recreate);
    }
}
