//! JSON patch (RFC 6902) as Kubernetes carries it out.
//!
//! Laxer than the RFC where Kubernetes is: `replace` and `copy` take what is not there for null, `add` without a
//! value adds null, list indices count from the end when they are negative. What copies and moves may carry and how
//! deep they may nest is bounded.

use serde_json::{Map, Value};

use crate::decode::{BODY_BYTES_MAX, DEPTH_MAX};
use crate::status::ApiError;

/// Most operations in one patch; the limit of the Kubernetes API server.
const OPERATIONS_MAX: usize = 10_000;

/// The fields of an operation.
const FIELDS: [&str; 4] = ["from", "op", "path", "value"];

/// What a wrong patch is told, before it meets an object.
fn undecodable(why: &str) -> ApiError {
    ApiError::bad_request(format!("error decoding patch: {why}"))
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The operations of a patch, checked for their form. Null is a patch without any.
fn operations(patch: &Value) -> Result<Vec<Map<String, Value>>, ApiError> {
    let wrong = |value: &Value, wanted: &str| {
        undecodable(&format!("json: cannot unmarshal {} into Go value of type {wanted}", found(value)))
    };
    let items = match patch {
        Value::Null => &[][..],
        Value::Array(items) => items,
        other => return Err(wrong(other, "[]handlers.jsonPatchOp")),
    };
    if items.len() > OPERATIONS_MAX {
        let count = items.len();
        let message = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        return Err(ApiError::new(413, "RequestEntityTooLarge", message));
    }
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        let operation = match item {
            Value::Null => Map::new(),
            Value::Object(fields) => fields.clone(),
            other => return Err(wrong(other, "handlers.jsonPatchOp")),
        };
        for field in ["from", "op", "path"] {
            if let Some(value) = operation.get(field).filter(|value| !value.is_string() && !value.is_null()) {
                let why = format!(
                    "json: cannot unmarshal {} into Go struct field jsonPatchOp.{field} of type string",
                    found(value)
                );
                return Err(undecodable(&why));
            }
        }
        all.push(operation);
    }
    Ok(all)
}

/// Fields that no operation has.
pub(super) fn complaints(patch: &Value) -> Vec<String> {
    let items = patch.as_array().map(Vec::as_slice).unwrap_or_default().iter().enumerate();
    let strange = items.flat_map(|(at, item)| {
        let fields = item.as_object().into_iter().flat_map(Map::keys);
        fields.filter(|field| !FIELDS.contains(&field.as_str())).map(move |field| (at, field))
    });
    strange.map(|(at, field)| format!("json patch unknown field \"[{at}].{field}\"")).collect()
}

/// Applies a patch.
///
/// # Errors
/// When it is no patch, or does not fit the object, which may then be half changed.
pub(crate) fn apply(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let mut carried = 0;
    for operation in operations(patch)? {
        carry_out(target, &operation, &mut carried).map_err(|why| super::patch::rejected(&why))?;
    }
    Ok(())
}

fn carry_out(target: &mut Value, operation: &Map<String, Value>, carried: &mut usize) -> Result<(), String> {
    let text = |field: &str| operation.get(field).and_then(Value::as_str);
    let path = || text("path").ok_or("operation missing path field");
    let from = || text("from").ok_or("operation missing from field");
    let value = || operation.get("value").cloned().unwrap_or_default();
    match text("op").unwrap_or("unknown") {
        "add" => add(target, path()?, value()),
        "remove" => remove(target, path()?).map(drop),
        "replace" => replace(target, path()?, value()),
        "test" => test(target, path()?, &value()),
        "move" => {
            let moved = remove(target, from()?)?;
            carry(&moved, carried)?;
            add(target, path()?, moved)
        }
        "copy" => {
            let copied = get(target, from()?)?.cloned().unwrap_or_default();
            carry(&copied, carried)?;
            add(target, path()?, copied)
        }
        other => Err(format!("Unexpected kind: {other}")),
    }
}

/// Copies of copies double an object with every operation, and moves of one part into another nest it without end.
fn carry(value: &Value, carried: &mut usize) -> Result<(), String> {
    *carried += value.to_string().len();
    if *carried > BODY_BYTES_MAX {
        return Err(format!("its copies and moves carry more than {BODY_BYTES_MAX} bytes"));
    }
    Ok(())
}

/// The steps of a path, the last one apart; `None`: it names no place in the object.
fn steps(path: &str) -> Option<(Vec<String>, String)> {
    let mut steps: Vec<String> = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
    if steps.len() < 2 {
        return None;
    }
    let last = steps.pop()?;
    steps.remove(0);
    Some((steps, last))
}

fn missing(path: &str) -> String {
    format!("doc is missing path: {path}")
}

/// The object or list that holds what the path names, and how that is called in it.
fn holder<'t>(target: &'t mut Value, path: &str) -> Result<(&'t mut Value, String, usize), String> {
    let (parents, last) = steps(path).ok_or_else(|| missing(path))?;
    let mut place = target;
    for step in &parents {
        place = match place {
            Value::Object(fields) => fields.get_mut(step),
            Value::Array(items) => index(step, items.len()).and_then(|at| items.get_mut(at)),
            _ => None,
        }
        .ok_or_else(|| missing(path))?;
    }
    if place.is_object() || place.is_array() { Ok((place, last, parents.len() + 1)) } else { Err(missing(path)) }
}

/// A place in a list of that length; below zero it counts from the end.
fn index(step: &str, length: usize) -> Option<usize> {
    let at: i64 = step.parse().ok()?;
    let length = i64::try_from(length).ok()?;
    usize::try_from(if at < 0 { at + length } else { at }).ok()
}

fn get<'t>(target: &'t mut Value, path: &str) -> Result<Option<&'t Value>, String> {
    match holder(target, path)? {
        (Value::Object(fields), last, _) => Ok(fields.get(&last)),
        (Value::Array(items), last, _) => {
            let found = index(&last, items.len()).and_then(|at| items.get(at));
            found.map(Some).ok_or_else(|| missing(path))
        }
        _ => Err(missing(path)),
    }
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let (place, last, depth) = holder(target, path)?;
    if depth + nesting(&value) > DEPTH_MAX {
        return Err(format!("it nests the object deeper than {DEPTH_MAX} levels"));
    }
    match place {
        Value::Object(fields) => {
            fields.insert(last, value);
        }
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&last, items.len() + 1).filter(|at| *at <= items.len()).ok_or_else(|| missing(path))?;
            items.insert(at, value);
        }
        _ => return Err(missing(path)),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, String> {
    match holder(target, path)? {
        (Value::Object(fields), last, _) => {
            fields.remove(&last).ok_or_else(|| format!("Unable to remove nonexistent key: {last}"))
        }
        (Value::Array(items), last, _) => {
            let at = index(&last, items.len()).filter(|at| *at < items.len()).ok_or_else(|| missing(path))?;
            Ok(items.remove(at))
        }
        _ => Err(missing(path)),
    }
}

fn replace(target: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            return Err("replace operation value must be object or array".to_owned());
        }
        *target = value;
        return Ok(());
    }
    let (place, last, depth) = holder(target, path)?;
    if depth + nesting(&value) > DEPTH_MAX {
        return Err(format!("it nests the object deeper than {DEPTH_MAX} levels"));
    }
    match place {
        Value::Object(fields) => {
            fields.insert(last, value);
            Ok(())
        }
        Value::Array(items) => {
            let at = index(&last, items.len()).ok_or_else(|| missing(path))?;
            *items.get_mut(at).ok_or_else(|| missing(path))? = value;
            Ok(())
        }
        _ => Err(missing(path)),
    }
}

fn test(target: &mut Value, path: &str, value: &Value) -> Result<(), String> {
    let same = if path.is_empty() { &*target == value } else { get(target, path)?.unwrap_or(&Value::Null) == value };
    if same { Ok(()) } else { Err(format!("testing value {path} failed")) }
}

/// Levels of objects and lists; 0 for a plain value.
fn nesting(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(nesting).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(nesting).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the patch makes of the document, or the code of the refusal.
    fn patched(patch: &Value) -> Result<Value, u16> {
        let mut document = json!({"a": {"b": "1"}, "l": ["x", "y"]});
        apply(&mut document, patch).map(|()| document).map_err(|error| error.code)
    }

    #[test]
    fn operations_change_what_they_name_and_what_is_not_there_is_null() {
        let cases = [
            (
                json!([{"op": "replace", "path": "/a/c", "value": "2"}]),
                json!({"a": {"b": "1", "c": "2"}, "l": ["x", "y"]}),
            ),
            (
                json!([{"op": "copy", "from": "/a/zz", "path": "/a/c"}]),
                json!({"a": {"b": "1", "c": null}, "l": ["x", "y"]}),
            ),
            (json!([{"op": "add", "path": "/a/c"}]), json!({"a": {"b": "1", "c": null}, "l": ["x", "y"]})),
            (json!([{"op": "remove", "path": "/l/-1"}]), json!({"a": {"b": "1"}, "l": ["x"]})),
            (json!([{"op": "add", "path": "/l/-", "value": "z"}]), json!({"a": {"b": "1"}, "l": ["x", "y", "z"]})),
            (json!([{"op": "move", "from": "/a/b", "path": "/c~1d"}]), json!({"a": {}, "l": ["x", "y"], "c/d": "1"})),
            (json!([{"op": "test", "path": "/a/zz", "value": null}]), json!({"a": {"b": "1"}, "l": ["x", "y"]})),
            (json!([{"op": "replace", "path": "", "value": {"k": 1}}]), json!({"k": 1})),
            (Value::Null, json!({"a": {"b": "1"}, "l": ["x", "y"]})),
        ];
        for (patch, wanted) in cases {
            assert_eq!(patched(&patch), Ok(wanted), "{patch}");
        }
    }

    #[test]
    fn what_does_not_fit_the_object_is_unprocessable_and_what_is_no_patch_is_a_bad_request() {
        let refused = [
            json!([{"op": "test", "path": "/a/b", "value": "2"}]),
            json!([{"op": "remove", "path": "/a/zz"}]),
            json!([{"op": "remove", "path": ""}]),
            json!([{"op": "add", "path": "a", "value": 1}]),
            json!([{"op": "add", "path": "/a/b/c", "value": 1}]),
            json!([{"op": "add", "path": "/l/9", "value": 1}]),
            json!([{"op": "frob", "path": "/a"}]),
            json!([{"path": "/a"}]),
            json!([{"op": "remove"}]),
            json!([null]),
        ];
        for patch in refused {
            assert_eq!(patched(&patch), Err(422), "{patch}");
        }
        for patch in [json!({"op": "add"}), json!([1]), json!([{"op": 5}])] {
            assert_eq!(patched(&patch), Err(400), "{patch}");
        }
        let error = apply(&mut json!({}), &json!({})).unwrap_err();
        let why = "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp";
        assert_eq!(error.message, why);
        assert_eq!(complaints(&json!([{"op": "add", "foo": 1}])), [r#"json patch unknown field "[0].foo""#]);
    }
}
