//! OpenAPI documents of version 2 of several servers, made one. Pure.
//!
//! Source of the rules: `k8s.io/kube-openapi/pkg/aggregator`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// What references to definitions begin with.
const DEFINITIONS: &str = "#/definitions/";
/// Which kinds a definition is of.
const KINDS: &str = "x-kubernetes-group-version-kind";

/// What a document says of one group and version: its paths, and the definitions that they need.
pub(super) fn of_version(mut document: Value, group: &str, version: &str) -> Value {
    let prefix = format!("/apis/{group}/{version}/");
    let take = |document: &mut Value, field: &str| match document.get_mut(field).map(Value::take) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (mut paths, mut definitions) = (take(&mut document, "paths"), take(&mut document, "definitions"));
    paths.retain(|path, _| path.starts_with(&prefix));
    let mut needed = BTreeSet::new();
    let mut found: Vec<String> = Vec::new();
    paths.values_mut().for_each(|item| references(item, &mut |name| found.push(name.to_owned())));
    while let Some(name) = found.pop() {
        if let Some(definition) = definitions.get_mut(&name).filter(|_| !needed.contains(&name)) {
            references(definition, &mut |name| found.push(name.to_owned()));
            needed.insert(name);
        }
    }
    definitions.retain(|name, _| needed.contains(name));
    serde_json::json!({"paths": paths, "definitions": definitions})
}

/// Adds what another server says. Paths that are there already stay as they are; a definition that differs from one of
/// the same name gets another name.
pub(crate) fn merge(into: &mut Value, mut other: Value) {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let Value::Object(new) = other["definitions"].take() else { return };
    let mut kept: Vec<(String, Value)> = Vec::new();
    for (name, definition) in new {
        let all = &mut into["definitions"];
        match all.get_mut(&name) {
            None => kept.push((name, definition)),
            Some(known) if without_kinds(known) == without_kinds(&definition) => add_kinds(known, &definition),
            Some(_) => {
                let free = (2..).map(|number| format!("{name}_v{number}"));
                let free = free.into_iter().find(|free| all.get(free).is_none()).unwrap_or_default();
                names.insert(name, free.clone());
                kept.push((free, definition));
            }
        }
    }
    let rename = |value: &mut Value| {
        rewrite(value, &names);
    };
    for (name, mut definition) in kept {
        rename(&mut definition);
        into["definitions"][name] = definition;
    }
    let Value::Object(paths) = other["paths"].take() else { return };
    for (path, mut item) in paths {
        if into["paths"].get(&path).is_none() {
            rename(&mut item);
            into["paths"][path] = item;
        }
    }
}

fn without_kinds(definition: &Value) -> Value {
    let mut plain = definition.clone();
    if let Some(fields) = plain.as_object_mut() {
        fields.remove(KINDS);
    }
    plain
}

fn add_kinds(known: &mut Value, more: &Value) {
    let Some(more) = more[KINDS].as_array() else { return };
    if !known[KINDS].is_array() {
        known[KINDS] = Value::Array(Vec::new());
    }
    if let Some(kinds) = known[KINDS].as_array_mut() {
        for kind in more {
            if !kinds.contains(kind) {
                kinds.push(kind.clone());
            }
        }
    }
}

/// Tells every reference in a value.
fn references(value: &mut Value, told: &mut dyn FnMut(&str)) {
    each_reference(value, &mut |target| {
        if let Some(name) = target.strip_prefix(DEFINITIONS) {
            told(name);
        }
    });
}

fn rewrite(value: &mut Value, names: &BTreeMap<String, String>) {
    if names.is_empty() {
        return;
    }
    each_reference(value, &mut |target| {
        if let Some(new) = target.strip_prefix(DEFINITIONS).and_then(|name| names.get(name)) {
            *target = format!("{DEFINITIONS}{new}");
        }
    });
}

fn each_reference(value: &mut Value, change: &mut dyn FnMut(&mut String)) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields.iter_mut() {
                match inner {
                    Value::String(target) if name == "$ref" => change(target),
                    inner => each_reference(inner, change),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|inner| each_reference(inner, change)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_belongs_to_the_version_is_taken() {
        let to = |name: &str| json!({"get": {"schema": {"$ref": format!("#/definitions/{name}")}}});
        let document = json!({
            "swagger": "2.0",
            "paths": {"/apis/g/v1/things": to("a"), "/apis/g/v1beta1/things": to("c"), "/version": to("c")},
            "definitions": {"a": {"properties": {"b": {"$ref": "#/definitions/b"}}},
                "b": {"items": {"$ref": "#/definitions/a"}}, "c": {}},
        });
        let own = of_version(document, "g", "v1");
        let keys = |field: &str| own[field].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(
            (keys("paths"), keys("definitions")),
            (vec!["/apis/g/v1/things".into()], vec!["a".into(), "b".into()])
        );
        assert_eq!(of_version(json!(7), "g", "v1"), json!({"paths": {}, "definitions": {}}));
    }

    #[test]
    fn definitions_that_differ_get_another_name_and_equal_ones_are_shared() {
        let kind = |group: &str| json!([{"group": group, "kind": "K", "version": "v1"}]);
        let mut all = json!({
            "paths": {"/p": 1},
            "definitions": {"same": {"type": "object", KINDS: kind("a")}, "other": {"type": "string"}, "other_v2": {}},
        });
        let more = json!({
            "paths": {"/p": 2, "/q": {"$ref": "#/definitions/other"}},
            "definitions": {"same": {"type": "object", KINDS: kind("b")}, "other": {"type": "integer"},
                "new": {"$ref": "#/definitions/other"}},
        });
        merge(&mut all, more);
        let to = json!({"$ref": "#/definitions/other_v3"});
        assert_eq!(all["paths"], json!({"/p": 1, "/q": to}));
        let both = [kind("a").as_array().unwrap().clone(), kind("b").as_array().unwrap().clone()].concat();
        let expected = json!({"same": {"type": "object", KINDS: both}, "other": {"type": "string"}, "other_v2": {},
            "other_v3": {"type": "integer"}, "new": to});
        assert_eq!(all["definitions"], expected);
    }
}
