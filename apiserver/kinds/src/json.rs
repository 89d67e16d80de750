//! Small helpers to read and fill JSON objects whose form has been checked.
//!
//! A field that is not there reads as null, an empty text or an empty list, as a zero value does in Go.

use serde_json::{Map, Value};

/// What is not there.
static NULL: Value = Value::Null;

/// The field, or null.
pub(crate) fn get<'v>(value: &'v Value, field: &str) -> &'v Value {
    value.get(field).unwrap_or(&NULL)
}

/// What lies at a path of fields, or null.
pub(crate) fn at<'v>(value: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(value, |value, field| get(value, field))
}

/// The text in a field; empty when there is none.
pub(crate) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    get(value, field).as_str().unwrap_or_default()
}

/// The text at a path; empty when there is none.
pub(crate) fn text_at<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    at(value, path).as_str().unwrap_or_default()
}

/// The whole number in a field.
pub(crate) fn int(value: &Value, field: &str) -> Option<i64> {
    get(value, field).as_i64()
}

/// Whether a field is true.
pub(crate) fn flag(value: &Value, field: &str) -> bool {
    get(value, field).as_bool().unwrap_or_default()
}

/// The items of the list in a field.
pub(crate) fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    get(value, field).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The entries of the map in a field, in order.
pub(crate) fn entries<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = (&'v str, &'v Value)> {
    get(value, field).as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// Whether a field is there.
pub(crate) fn has(value: &Value, field: &str) -> bool {
    !get(value, field).is_null()
}

/// The object as a map; anything else becomes an empty object first.
pub(crate) fn map_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object above"),
    }
}

/// The field, made null if it is not there. For writing; the object is made one if it is none.
pub(crate) fn get_mut<'v>(value: &'v mut Value, field: &str) -> &'v mut Value {
    let map = map_mut(value);
    if !map.contains_key(field) {
        map.insert(field.to_owned(), Value::Null);
    }
    &mut map[field]
}

/// The field as an object to be filled, made if it is not there.
pub(crate) fn object_mut<'v>(value: &'v mut Value, field: &str) -> &'v mut Value {
    let field = get_mut(value, field);
    map_mut(field);
    field
}

/// The object in a field, if there is one, for writing.
pub(crate) fn some_mut<'v>(value: &'v mut Value, field: &str) -> Option<&'v mut Value> {
    value.get_mut(field).filter(|value| !value.is_null())
}

/// The items of the list in a field, for writing.
pub(crate) fn items_mut<'v>(value: &'v mut Value, field: &str) -> impl Iterator<Item = &'v mut Value> {
    value.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Sets a field that is not there, or is empty or zero where the caller says that means the same.
pub(crate) fn set_default(value: &mut Value, field: &str, default: impl Into<Value>) {
    let map = map_mut(value);
    match map.get(field) {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(_) => return,
    }
    map.insert(field.to_owned(), default.into());
}

/// Sets a field that is not there; one that is empty stays.
pub(crate) fn set_absent(value: &mut Value, field: &str, default: impl Into<Value>) {
    if !has(value, field) {
        set(value, field, default);
    }
}

/// Sets a number that is not there or zero.
pub(crate) fn set_default_number(value: &mut Value, field: &str, default: i64) {
    if int(value, field).unwrap_or_default() == 0 {
        map_mut(value).insert(field.to_owned(), default.into());
    }
}

/// Sets a field whatever it was.
pub(crate) fn set(value: &mut Value, field: &str, new: impl Into<Value>) {
    map_mut(value).insert(field.to_owned(), new.into());
}

/// Takes a field away.
pub(crate) fn remove(value: &mut Value, field: &str) -> Option<Value> {
    value.as_object_mut()?.remove(field)
}

/// Makes a field what it is in another object, absent included.
pub(crate) fn copy_field(value: &mut Value, from: &Value, field: &str) {
    match from.get(field) {
        Some(old) => set(value, field, old.clone()),
        None => {
            remove(value, field);
        }
    }
}
/// JSON as Go writes it: what HTML has a meaning for is escaped in texts.
pub(crate) fn go_escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '<' => escaped.push_str("\\u003c"),
            '>' => escaped.push_str("\\u003e"),
            '&' => escaped.push_str("\\u0026"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            letter => escaped.push(letter),
        }
    }
    escaped
}
