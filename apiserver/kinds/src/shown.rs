//! Objects as Kubernetes shows them in complaints: JSON with the fields of its types, in their order.
//!
//! A JSON object of ours has its fields sorted by name, so these texts are written piece by piece.

use serde_json::Value;

use crate::json::{get, has, list};

/// An object with all these fields; the values are JSON already.
pub(crate) fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// An object with those of these fields that `value` has; null when there is no object.
pub(crate) fn fields(value: &Value, shown: &[(&str, &str)]) -> String {
    if value.is_null() {
        return "null".to_owned();
    }
    let fields: Vec<_> = shown.iter().map(|(name, own)| (*name, get(value, own).to_string())).collect();
    object(&fields)
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn text(value: &Value, field: &str) -> String {
    Value::from(crate::json::text(value, field)).to_string()
}

/// A label selector.
pub(crate) fn selector(selector: &Value) -> String {
    if selector.is_null() {
        return "null".to_owned();
    }
    let mut shown = Vec::new();
    if has(selector, "matchLabels") {
        shown.push(("matchLabels", get(selector, "matchLabels").to_string()));
    }
    if has(selector, "matchExpressions") {
        let requirement = |one: &Value| {
            let mut shown = vec![("key", text(one, "key")), ("operator", text(one, "operator"))];
            if has(one, "values") {
                shown.push(("values", get(one, "values").to_string()));
            }
            object(&shown)
        };
        shown.push(("matchExpressions", array(list(selector, "matchExpressions").iter().map(requirement))));
    }
    object(&shown)
}

/// Owner references.
pub(crate) fn owners(owners: &[Value]) -> String {
    array(owners.iter().map(owner))
}

/// One owner reference.
pub(crate) fn owner(owner: &Value) -> String {
    let always = ["apiVersion", "kind", "name", "uid"].map(|field| (field, text(owner, field)));
    let flags = ["controller", "blockOwnerDeletion"].into_iter().filter(|field| has(owner, field));
    let flags = flags.map(|field| (field, get(owner, field).to_string()));
    object(&always.into_iter().chain(flags).collect::<Vec<_>>())
}

/// Terms of a node selector.
pub(crate) fn node_terms(terms: &[Value]) -> String {
    array(terms.iter().map(node_term))
}

/// One term of a node selector.
pub(crate) fn node_term(term: &Value) -> String {
    let requirement = |one: &Value| {
        object(&[
            ("Key", text(one, "key")),
            ("Operator", text(one, "operator")),
            ("Values", get(one, "values").to_string()),
        ])
    };
    let all = |field| match has(term, field) {
        true => array(list(term, field).iter().map(requirement)),
        false => "null".to_owned(),
    };
    object(&[("MatchExpressions", all("matchExpressions")), ("MatchFields", all("matchFields"))])
}
