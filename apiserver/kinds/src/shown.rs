//! Objects as Kubernetes shows them in complaints: JSON with the fields of its types, in their order.
//!
//! A JSON object of ours has its fields sorted by name, so these texts are written piece by piece.

mod diff;
mod tree;

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

/// How one of Kubernetes' internal types is shown: its fields under their Go names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Go {
    /// As it is; null when it is not there.
    Plain,
    /// A text, empty when it is not there.
    Text,
    /// A number, zero when it is not there.
    Number,
    /// A truth value, false when it is not there.
    Flag,
    /// An object that is always there: Go name, JSON name and form of each field.
    Struct(&'static [(&'static str, &'static str, Go)]),
    /// An object, or null.
    Pointer(&'static [(&'static str, &'static str, Go)]),
    /// A list of objects, or null.
    List(&'static [(&'static str, &'static str, Go)]),
}

/// A value as Go shows it in JSON.
pub(crate) fn go(value: &Value, form: &Go) -> String {
    let all = |value: &Value, fields: &[(&str, &str, Go)]| {
        let fields: Vec<_> = fields.iter().map(|(name, own, form)| (*name, go(get(value, own), form))).collect();
        object(&fields)
    };
    match form {
        Go::Struct(fields) => all(value, fields),
        Go::Text if value.is_null() => "\"\"".to_owned(),
        Go::Number if value.is_null() => "0".to_owned(),
        Go::Flag if value.is_null() => "false".to_owned(),
        Go::Pointer(fields) if !value.is_null() => all(value, fields),
        Go::List(fields) if !value.is_null() => {
            array(value.as_array().into_iter().flatten().map(|item| all(item, fields)))
        }
        _ => value.to_string(),
    }
}

/// A value as Kubernetes' own type of this name has it: all fields, named as in Go.
pub(crate) fn internal(kind: &str, value: &Value) -> String {
    let kind = format!("*{kind}");
    tree::Tree::of(&kind, value).compact()
}

/// `metadata`: the fields that are there, in the order of the type.
pub(crate) fn metadata(metadata: &Value) -> String {
    tree::Tree::metadata(metadata).compact()
}

/// What differs between two values of one of Kubernetes' own types, as a unified diff.
pub(crate) fn difference(kind: &str, old: &Value, new: &Value) -> String {
    let lines = |value| tree::Tree::of(kind, value).lines();
    diff::unified(&lines(old), &lines(new))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn own_types_are_shown_with_all_their_fields_in_order() {
        assert_eq!(
            internal("SecretReference", &json!({"namespace": "<n>"})),
            r#"{"Name":"","Namespace":"\u003cn\u003e"}"#
        );
        assert_eq!(internal("SecretReference", &Value::Null), "null");
        let shown = internal(
            "PodTemplateSpec",
            &json!({"metadata": {"labels": {"a": "b"}}, "spec": {"hostNetwork": true, "securityContext": {},
                "containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]}}),
        );
        assert!(shown.starts_with(r#"{"labels":{"a":"b"},"Spec":{"Volumes":null,"InitContainers":null,"Containers":[{"Name":"c","Image":"""#), "{shown}");
        assert!(shown.contains(r#""SecurityContext":{"HostNetwork":true,"HostPID":false,"#), "{shown}");
    }

    #[test]
    fn a_difference_is_shown_line_by_line() {
        let (old, new) = (json!({"name": "a"}), json!({"name": "b"}));
        let expected = "@@ -1,4 +1,4 @@\n {\n- \"Name\": \"a\",\n+ \"Name\": \"b\",\n  \"Namespace\": \"\"\n }\n";
        assert_eq!(difference("SecretReference", &old, &new), expected);
    }

    #[test]
    fn every_type_that_is_named_is_known() {
        for kind in ["PodTemplateSpec", "PersistentVolumeSource", "PersistentVolumeClaimSpec", "VolumeNodeAffinity"] {
            assert_ne!(internal(kind, &json!({})), "{}", "{kind}");
        }
    }
}
