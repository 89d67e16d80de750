//! What the mutations of a policy make of an object: JSON patches, and objects that are merged.

use reeve_cel::{List, Struct, Value as CelValue};
use reeve_kinds::managed::{self, ListKind, MergeSchema, Rule, Scalar};
use serde_json::{Map, Value};

use crate::admission::Attributes;
use crate::admission::attributes::GroupVersionKind;
use crate::registry::{PatchFault, apply_json_patch};

/// The object after the operations an expression gave.
///
/// # Errors
/// When they are no operations or do not fit the object: why, in Kubernetes' words.
pub(super) fn json_patch(object: &Value, given: &CelValue<'_>) -> Result<Value, String> {
    let CelValue::List(operations) = given else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let mut patched = object.clone();
    match apply_json_patch(&mut patched, &Value::Array(read(operations)?)) {
        Ok(()) => Ok(patched),
        // A test that fails means that the patch is not for this object.
        Err(PatchFault::Test(_)) => Ok(object.clone()),
        Err(PatchFault::Unfit(why)) => Err(format!("JSON Patch: {why}")),
    }
}

fn read(operations: &List<'_>) -> Result<Vec<Value>, String> {
    let mut read = Vec::with_capacity(operations.len());
    for operation in operations.iter() {
        let operation = operation.map_err(|error| error.to_string())?;
        let CelValue::Struct(made) = &operation else {
            let kind = operation.type_name();
            return Err(format!(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {kind}"
            ));
        };
        read.push(operation_json(made)?);
    }
    Ok(read)
}

fn operation_json(made: &Struct<'_>) -> Result<Value, String> {
    let text = |field: &str| made.fields.get(field).and_then(CelValue::as_str).unwrap_or_default().to_owned();
    let mut operation = Map::new();
    for field in ["op", "path"] {
        operation.insert(field.to_owned(), text(field).into());
    }
    if !text("from").is_empty() {
        operation.insert("from".to_owned(), text("from").into());
    }
    if let Some(value) = made.fields.get("value") {
        check_names(value)?;
        let json = value.to_json().ok_or_else(|| {
            let kind = value.type_name();
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {kind}")
        })?;
        operation.insert("value".to_owned(), json);
    }
    Ok(Value::Object(operation))
}

/// How the object of a request is merged; `Err` when nothing is known about it.
pub(super) fn schema_of<'s>(attributes: &'s Attributes<'_>) -> Result<&'s dyn MergeSchema, String> {
    let kind = attributes.kind_seen();
    if attributes.is_of_resource() {
        return Ok(attributes.resource().kind.merge_schema());
    }
    // Of the bodies of subresources, Kubernetes describes only this one where it looks for it.
    if kind.group.is_empty() && kind.kind == "Binding" {
        return Ok(&managed::DEDUCED);
    }
    let GroupVersionKind { group, version, kind } = kind;
    Err(failed(
        "failed to convert patch object to typed object",
        &format!("no corresponding type for {group}/{version}, Kind={kind}"),
    ))
}

fn failed(what: &str, why: &str) -> String {
    format!("error applying patch: {what}: {why}")
}

/// The object with what an expression gave merged into it.
///
/// # Errors
/// When it does not fit the kind: why, in Kubernetes' words.
pub(super) fn apply(schema: &dyn MergeSchema, object: &Value, given: &CelValue<'_>) -> Result<Value, String> {
    check_names(given)?;
    let Some(Value::Object(mut config)) = given.to_json() else {
        return Err(format!("invalid return type: {}", given.type_name()));
    };
    for field in ["apiVersion", "kind"] {
        config.insert(field.to_owned(), object[field].clone());
    }
    let config = Value::Object(config);
    let mut nulls = Vec::new();
    find_nulls(schema, &config, "", &mut nulls);
    if let Some(first) = nulls.first() {
        let all = if nulls.len() > 1 { format!("errors:\n  {}", nulls.join("\n  ")) } else { first.clone() };
        return Err(failed("failed to convert patch object to typed object", &all));
    }
    managed::validate(schema, &config, false)
        .map_err(|error| failed("failed to convert patch object to typed object", &error.to_string()))?;
    let mut atomics = Vec::new();
    find_atomics(schema, &config, "", &mut atomics);
    if !atomics.is_empty() {
        let why = format!("may not mutate atomic arrays, maps or structs: {}", atomics.join(", "));
        return Err(failed("invalid ApplyConfiguration", &why));
    }
    managed::merge(schema, object, &config).map_err(|error| failed("failed to merge patch", &error.to_string()))
}

/// Nulls: an expression's are values of their own, and of no type that a field may have.
fn find_nulls(schema: &dyn MergeSchema, value: &Value, path: &str, found: &mut Vec<String>) {
    match (schema.rule(), value) {
        (Rule::Map(map), Value::Object(fields)) => {
            for (name, value) in fields {
                if let Some(schema) = map.fields.field(name).or_else(|| map.fields.other()) {
                    find_nulls(schema, value, &format!("{path}.{name}"), found);
                }
            }
        }
        (Rule::List(list), Value::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                find_nulls(list.items, item, &format!("{path}[{index}]"), found);
            }
        }
        (rule, Value::Null) => found.push(format!("{path}: {}", unfit_null(&rule))),
        _ => {}
    }
}

fn unfit_null(rule: &Rule<'_>) -> &'static str {
    match rule {
        Rule::Map(_) => "expected map, got &{NULL_VALUE}",
        Rule::List(_) => "expected list, got &{NULL_VALUE}",
        Rule::Scalar(Scalar::String) => "expected string, got &value.valueUnstructured{Value:0}",
        Rule::Scalar(Scalar::Numeric) => "expected numeric (int or float), got structpb.NullValue",
        Rule::Scalar(Scalar::Boolean) => "expected boolean, got &{NULL_VALUE}",
        _ => "expected any scalar, got &{NULL_VALUE}",
    }
}

/// What would be replaced as a whole, which nobody means who names some of its fields.
fn find_atomics(schema: &dyn MergeSchema, value: &Value, path: &str, found: &mut Vec<String>) {
    match (schema.rule(), value) {
        (Rule::Map(map), Value::Object(fields)) => {
            if map.atomic {
                found.push(path.to_owned());
            }
            for (name, value) in fields {
                if let Some(schema) = map.fields.field(name) {
                    find_atomics(schema, value, &format!("{path}.{name}"), found);
                }
            }
        }
        (Rule::List(list), Value::Array(items)) => {
            if matches!(list.kind, ListKind::Atomic) {
                found.push(path.to_owned());
            }
            for (index, item) in items.iter().enumerate() {
                find_atomics(list.items, item, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// Objects must be called after the fields they stand in: `Object.spec` for `spec`.
fn check_names(value: &CelValue<'_>) -> Result<(), String> {
    let CelValue::Struct(made) = value else { return Ok(()) };
    let mut wrong = Vec::new();
    names(value, &made.name, &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(format!("type mismatch: {}", wrong.join("\n"))) }
}

fn names(value: &CelValue<'_>, wanted: &str, wrong: &mut Vec<String>) {
    match value {
        CelValue::Struct(made) => {
            if *made.name != *wanted {
                wrong.push(format!(
                    "unexpected type name {:?}, expected {wanted:?}, which matches field name path from root Object type",
                    &*made.name
                ));
            }
            for (field, value) in &made.fields {
                names(value, &format!("{wanted}.{field}"), wrong);
            }
        }
        CelValue::List(list) => {
            for element in list.iter().flatten() {
                names(&element, wanted, wrong);
            }
        }
        CelValue::Map(map) => {
            for (_, value) in map.pairs().into_iter().flatten() {
                names(&value, wanted, wrong);
            }
        }
        _ => {}
    }
}
