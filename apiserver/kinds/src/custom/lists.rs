//! Lists that are sets or maps have each item or key once (`pkg/apiserver/schema/listtype`).

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::schema::{ListType, Schema};
use crate::errors::Errors;
use crate::field::FieldErrorKind;
use crate::path::Path;

/// Finds every item that stands twice in a list that is a set or a map.
pub(crate) fn check(value: &Value, schema: &Schema, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::Object(fields) => {
            if let Some(additional) = schema.additional.schema() {
                for (name, value) in fields {
                    check(value, additional, &path.key(name), errors);
                }
            }
            for (name, value) in fields {
                if let Some(property) = schema.property(name) {
                    check(value, property, &path.child(name), errors);
                }
            }
        }
        Value::Array(items) => {
            match &schema.list_type {
                ListType::Atomic => {}
                ListType::Set => {
                    for index in repeated(items) {
                        errors.add(FieldErrorKind::Duplicate, &path.index(index), items[index].clone(), "");
                    }
                }
                ListType::Map(keys) => check_map(items, keys, path, errors),
            }
            if let Some(schema) = schema.items.as_deref() {
                for (index, item) in items.iter().enumerate() {
                    check(item, schema, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

/// The place of the second appearance of each item that is not alone.
fn repeated(items: &[Value]) -> Vec<usize> {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(items.len());
    let mut second = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let times = seen.entry(item.to_string()).or_insert(0);
        *times += 1;
        if *times == 2 {
            second.push(index);
        }
    }
    second
}

fn check_map(items: &[Value], keys: &[String], path: &Path<'_>, errors: &mut Errors) {
    if let Some(index) = items.iter().position(|item| !item.is_null() && !item.is_object()) {
        let detail = "must be an object for an array of list-type map";
        errors.invalid(&path.index(index), items[index].clone(), detail);
        return;
    }
    let key_of = |item: &Value| {
        let entries = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(entries.collect::<Map<_, _>>())
    };
    let item_keys: Vec<_> = items.iter().map(key_of).collect();
    for index in repeated(&item_keys) {
        errors.add(FieldErrorKind::Duplicate, &path.index(index), item_keys[index].clone(), "");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_repeated_item_is_told_once() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n", "p"],
                "items": {"type": "object", "properties": {"n": {"type": "string"}, "p": {"type": "integer"}}}},
        }}))
        .unwrap();
        let value = json!({"set": ["a", "b", "a", "a"],
            "map": [{"n": "x", "p": 1}, {"n": "x"}, {"n": "x", "p": 1, "o": 1}]});
        let mut errors = Errors::default();
        check(&value, &schema, &Path::ROOT, &mut errors);
        let texts: Vec<_> = errors.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(texts, [r#"map[2]: Duplicate value: {"n":"x","p":1}"#, r#"set[2]: Duplicate value: "a""#]);
    }
}
