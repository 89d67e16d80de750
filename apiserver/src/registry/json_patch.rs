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

/// What JSON calls a value.
pub(crate) fn found(value: &Value) -> &'static str {
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
        let limit = format!("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {count}");
        let message = format!("Request entity too large: {limit}");
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
pub(super) fn apply(target: &mut Value, patch: &Value) -> Result<(), ApiError> {
    let operations = operations(patch)?;
    carry_out_all(target, &operations).map_err(|fault| super::patch::rejected(&fault.to_string()))
}

/// The same for admission, whose answers say what does not fit, in the words of Kubernetes' library.
///
/// # Errors
/// When it is no patch, or does not fit the object, which may then be half changed.
pub(crate) fn apply_told(target: &mut Value, patch: &Value) -> Result<(), Fault> {
    let operations = operations(patch).map_err(|error| Fault::Unfit(error.message))?;
    carry_out_all(target, &operations)
}

/// Why a patch does not fit an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// What a `test` names is something else: the patch is not meant for this object.
    #[error("testing value {0} failed: test failed")]
    Test(String),
    /// An operation cannot be carried out.
    #[error("{0}")]
    Unfit(String),
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self::Unfit(why)
    }
}

fn carry_out_all(target: &mut Value, operations: &[Map<String, Value>]) -> Result<(), Fault> {
    let mut carried = 0;
    operations.iter().try_for_each(|operation| carry_out(target, operation, &mut carried))
}

/// `missing value`: what most complaints end with.
const MISSING: &str = "missing value";

fn carry_out(target: &mut Value, operation: &Map<String, Value>, carried: &mut usize) -> Result<(), Fault> {
    let text = |field: &str| operation.get(field).and_then(Value::as_str);
    let value = || operation.get("value").cloned().unwrap_or_default();
    let kind = text("op").unwrap_or("unknown");
    let from = || {
        let why = || format!("{kind} operation failed to decode from: operation, missing from field: {MISSING}");
        text("from").ok_or_else(why)
    };
    let path = || {
        let why = if matches!(kind, "replace" | "move" | "test") { "operation missing path field: " } else { "" };
        text("path").ok_or_else(|| format!("{kind} operation failed to decode path: {why}{MISSING}"))
    };
    match kind {
        "add" => {
            let path = path()?;
            let place = Place::of(target, path)
                .ok_or_else(|| format!("add operation does not apply: doc is missing path: {path:?}: {MISSING}"))?;
            place.add(value()).map_err(|why| format!("error in add for path: '{path}': {why}"))?;
        }
        "remove" => {
            let path = path()?;
            let mut place = Place::of(target, path)
                .ok_or_else(|| format!("remove operation does not apply: doc is missing path: {path:?}: {MISSING}"))?;
            place.remove().map_err(|why| format!("error in remove for path: '{path}': {why}"))?;
        }
        "replace" => replace(target, path()?, value())?,
        "test" => test(target, path()?, &value())?,
        "move" | "copy" => carry_over(target, (kind == "move", from()?), path, carried)?,
        other => return Err(Fault::Unfit(format!("Unexpected kind: {other}"))),
    }
    Ok(())
}

/// `move` (which takes it away) and `copy`.
fn carry_over<'p>(
    target: &mut Value,
    (moves, from): (bool, &str),
    path: impl Fn() -> Result<&'p str, String>,
    carried: &mut usize,
) -> Result<(), Fault> {
    let kind = if moves { "move" } else { "copy" };
    let mut place = Place::of(target, from)
        .ok_or_else(|| format!("{kind} operation does not apply: doc is missing from path: {from}: {MISSING}"))?;
    let key = if moves { format!("path: '{}'", place.key) } else { format!("from: '{from}'") };
    let told = |why: String| format!("error in {kind} for {key}: {why}");
    let value = place.get().map_err(told)?.cloned().unwrap_or_default();
    if moves {
        place.remove().map_err(told)?;
    }
    let path = path()?;
    let place = Place::of(target, path).ok_or_else(|| {
        format!("{kind} operation does not apply: doc is missing destination path: {path}: {MISSING}")
    })?;
    carry(&value, carried)?;
    let told = |why| match moves {
        true => format!("error in move for path: '{path}': {why}"),
        false => format!("error while adding value during copy: {why}"),
    };
    Ok(place.add(value).map_err(told)?)
}

/// Copies of copies double an object with every operation, and moves of one part into another nest it without end.
fn carry(value: &Value, carried: &mut usize) -> Result<(), String> {
    *carried += value.to_string().len();
    if *carried > BODY_BYTES_MAX {
        return Err(format!(
            "Unable to complete the copy, the accumulated size increase of copy is {carried}, exceeding the limit {BODY_BYTES_MAX}"
        ));
    }
    Ok(())
}

/// A place in an object: what holds it, and how it is called there.
struct Place<'t> {
    holder: &'t mut Value,
    key: String,
    /// How deep the place is.
    depth: usize,
}

/// A place in a list of that length; below zero it counts from the end.
fn index(step: &str, length: usize) -> Result<usize, String> {
    let at: i64 = step.parse().map_err(|_| format!("strconv.Atoi: parsing {step:?}: invalid syntax"))?;
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    let from_start = if at < 0 { at.saturating_add(length) } else { at };
    let within = usize::try_from(from_start).ok().filter(|_| from_start < length);
    within.ok_or_else(|| format!("Unable to access invalid index: {at}: invalid index referenced"))
}

impl<'t> Place<'t> {
    /// The place a path names; none when nothing can be there.
    fn of(target: &'t mut Value, path: &str) -> Option<Self> {
        let mut steps: Vec<String> = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        if steps.len() < 2 {
            return None;
        }
        let key = steps.pop()?;
        let mut holder = target;
        for step in steps.iter().skip(1) {
            holder = match holder {
                Value::Object(fields) => fields.get_mut(step)?,
                Value::Array(items) => {
                    let at = index(step, items.len()).ok()?;
                    items.get_mut(at)?
                }
                _ => return None,
            };
        }
        let depth = steps.len();
        (holder.is_object() || holder.is_array()).then_some(Self { holder, key, depth })
    }

    fn get(&mut self) -> Result<Option<&Value>, String> {
        match &*self.holder {
            Value::Array(items) => Ok(items.get(index(&self.key, items.len())?)),
            holder => Ok(holder.get(&self.key)),
        }
    }

    fn check_depth(&self, value: &Value) -> Result<(), String> {
        if self.depth + nesting(value) > DEPTH_MAX {
            return Err(format!("it nests the object deeper than {DEPTH_MAX} levels"));
        }
        Ok(())
    }

    fn add(self, value: Value) -> Result<(), String> {
        self.check_depth(&value)?;
        let key = self.key;
        match self.holder {
            Value::Object(fields) => drop(fields.insert(key, value)),
            Value::Array(items) if key == "-" => items.push(value),
            Value::Array(items) => {
                if key.parse::<i64>().is_err() {
                    let why = index(&key, 0).err().unwrap_or_default();
                    return Err(format!("value was not a proper array index: '{key}': {why}"));
                }
                items.insert(index(&key, items.len() + 1)?, value);
            }
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self) -> Result<(), String> {
        match self.holder {
            Value::Object(fields) => {
                let why = || format!("Unable to remove nonexistent key: {}: {MISSING}", self.key);
                fields.remove(&self.key).map(drop).ok_or_else(why)
            }
            Value::Array(items) => {
                items.remove(index(&self.key, items.len())?);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn replace(target: &mut Value, path: &str, value: Value) -> Result<(), Fault> {
    if path.is_empty() {
        if !value.is_object() && !value.is_array() {
            return Err(Fault::Unfit("replace operation value must be object or array: %!w(<nil>)".to_owned()));
        }
        *target = value;
        return Ok(());
    }
    let mut place = Place::of(target, path)
        .ok_or_else(|| format!("replace operation does not apply: doc is missing path: {path}: {MISSING}"))?;
    place.get().map_err(|_| format!("replace operation does not apply: doc is missing key: {path}: {MISSING}"))?;
    place.check_depth(&value)?;
    match place.holder {
        Value::Array(items) => {
            let at = index(&place.key, items.len())?;
            items[at] = value;
        }
        holder => holder[place.key.as_str()] = value,
    }
    Ok(())
}

fn test(target: &mut Value, path: &str, value: &Value) -> Result<(), Fault> {
    let same = if path.is_empty() {
        &*target == value
    } else {
        let mut place = Place::of(target, path)
            .ok_or_else(|| format!("test operation does not apply: is missing path: {path}: {MISSING}"))?;
        let there = place.get().map_err(|why| format!("error in test for path: '{path}': {why}"))?;
        there.unwrap_or(&Value::Null) == value
    };
    if same { Ok(()) } else { Err(Fault::Test(path.to_owned())) }
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
