//! Whole objects inside an object (`x-kubernetes-embedded-resource`): their type and metadata.
//!
//! Source: `pkg/apiserver/schema/objectmeta`. The root's own `metadata` is brought into form by [`coerce_metadata`]
//! too; its rules are the generic ones of [`crate::meta`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reeve_api::names;
use serde_json::{Map, Value};

use super::schema::Schema;
use crate::errors::Errors;
use crate::field::{FieldError, FieldErrorKind};
use crate::json::text;
use crate::meta::{MetaRules, path_segment};
use crate::path::Path;
use crate::shape::Shape;
use crate::strict;

/// What to do about metadata of the wrong type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Complain: the object comes from a request.
    Refuse,
    /// Drop the field: the object comes from the store.
    Drop,
}

fn metadata_shape() -> &'static Shape {
    static SHAPE: std::sync::OnceLock<&'static Shape> = std::sync::OnceLock::new();
    SHAPE.get_or_init(crate::shape::of::<ObjectMeta>)
}

/// Brings a `metadata` into the form of `ObjectMeta`. Gives unknown fields, which have been removed, with `prefix`.
///
/// # Errors
/// When a field has the wrong type, in the words of Go's JSON decoder.
pub(crate) fn coerce_metadata(metadata: &mut Value, prefix: &str, malformed: Malformed) -> Result<Vec<String>, String> {
    let shape = metadata_shape();
    let mut unknown = match (strict::conform_to(shape, metadata), malformed) {
        (Ok(unknown), _) => unknown,
        (Err(error), Malformed::Refuse) => return Err(error.to_string()),
        (Err(_), Malformed::Drop) => {
            drop_malformed(shape, metadata);
            Vec::new()
        }
    };
    for path in &mut unknown {
        path.insert_str(0, prefix);
    }
    Ok(unknown)
}

/// Keeps each field of an object only if it is of its type.
fn drop_malformed(shape: &Shape, metadata: &mut Value) {
    let Value::Object(fields) = metadata else {
        *metadata = Value::Object(Map::new());
        return;
    };
    let taken = std::mem::take(fields);
    for (name, value) in taken {
        let mut single = Value::Object(Map::from_iter([(name.clone(), value)]));
        if strict::conform_to(shape, &mut single).is_ok()
            && let Some(value) = single.get_mut(&name)
        {
            fields.insert(name, value.take());
        }
    }
}

/// Brings type and metadata of embedded objects into form. Gives unknown fields, which have been removed, sorted.
///
/// # Errors
/// What is wrong with a type or metadata.
pub(crate) fn coerce(value: &mut Value, schema: &Schema, malformed: Malformed) -> Result<Vec<String>, Box<FieldError>> {
    coerce_at(value, schema, &Path::ROOT, malformed)
}

/// As [`coerce`] for a value that has its place somewhere.
pub(crate) fn coerce_at(
    value: &mut Value,
    schema: &Schema,
    path: &Path<'_>,
    malformed: Malformed,
) -> Result<Vec<String>, Box<FieldError>> {
    let mut walk = Coercion { malformed, unknown: Vec::new() };
    walk.value(value, schema, path)?;
    walk.unknown.sort();
    Ok(walk.unknown)
}

struct Coercion {
    malformed: Malformed,
    unknown: Vec<String>,
}

impl Coercion {
    fn value(&mut self, value: &mut Value, schema: &Schema, path: &Path<'_>) -> Result<(), Box<FieldError>> {
        match value {
            Value::Object(fields) => {
                if schema.embedded {
                    self.object(fields, path)?;
                }
                for (name, value) in fields.iter_mut() {
                    if let Some(property) = schema.property(name) {
                        self.value(value, property, &path.child(name))?;
                    } else if let Some(additional) = schema.additional.schema() {
                        self.value(value, additional, &path.key(name))?;
                    }
                }
            }
            Value::Array(items) => {
                let Some(schema) = schema.items.as_deref() else { return Ok(()) };
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(item, schema, &path.index(index))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn object(&mut self, fields: &mut Map<String, Value>, path: &Path<'_>) -> Result<(), Box<FieldError>> {
        for name in ["apiVersion", "kind"] {
            if let Some(value) = fields.get(name).filter(|value| !value.is_string()) {
                if self.malformed == Malformed::Refuse {
                    return Err(invalid(&path.child(name), value.clone(), "must be a string"));
                }
                fields.remove(name);
            }
        }
        let Some(metadata) = fields.get_mut("metadata") else { return Ok(()) };
        let place = path.child("metadata");
        let unknown = coerce_metadata(metadata, &format!("{place}."), self.malformed)
            .map_err(|error| invalid(&place, metadata.clone(), &error))?;
        self.unknown.extend(unknown);
        Ok(())
    }
}

fn invalid(path: &Path<'_>, value: Value, detail: &str) -> Box<FieldError> {
    Box::new(FieldError::new(FieldErrorKind::Invalid, path.to_string(), value, detail))
}

/// The rules for type and metadata of embedded objects, the value itself included if its schema says so.
pub(crate) fn check(value: &Value, schema: &Schema, path: &Path<'_>, errors: &mut Errors) {
    match value {
        Value::Object(fields) => {
            if schema.embedded {
                check_object(value, path, errors);
            }
            for (name, value) in fields {
                if let Some(property) = schema.property(name) {
                    check(value, property, &path.child(name), errors);
                } else if let Some(additional) = schema.additional.schema() {
                    check(value, additional, &path.key(name), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.items.as_deref() else { return };
            for (index, item) in items.iter().enumerate() {
                check(item, schema, &path.index(index), errors);
            }
        }
        _ => {}
    }
}

fn check_object(object: &Value, path: &Path<'_>, errors: &mut Errors) {
    for name in ["apiVersion", "kind"] {
        if object.get(name).is_none() {
            errors.required(&path.child(name), "");
        }
    }
    for (name, rule) in [("apiVersion", version_rule as fn(&str) -> Option<String>), ("kind", kind_rule)] {
        let path = path.child(name);
        match object.get(name) {
            None => {}
            Some(Value::String(text)) if text.is_empty() => errors.invalid(&path, "", "must not be empty"),
            Some(Value::String(text)) => {
                if let Some(broken) = rule(text) {
                    errors.invalid(&path, text.as_str(), broken);
                }
            }
            Some(other) => errors.invalid(&path, other.clone(), "must be a string"),
        }
    }
    if let Some(metadata) = object.get("metadata") {
        check_metadata(metadata, &path.child("metadata"), errors);
    }
}

fn version_rule(version: &str) -> Option<String> {
    (version.matches('/').count() > 1).then(|| format!("unexpected GroupVersion string: {version}"))
}

fn kind_rule(kind: &str) -> Option<String> {
    let broken = names::dns1035_label(&kind.to_lowercase());
    (!broken.is_empty()).then(|| format!("may have mixed case, but should otherwise match: {}", broken.join(",")))
}

/// The rules for an embedded object's metadata: it may lack a name and have a namespace.
fn check_metadata(metadata: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut conformed = metadata.clone();
    if let Err(error) = coerce_metadata(&mut conformed, "", Malformed::Refuse) {
        errors.invalid(path, metadata.clone(), error);
        return;
    }
    if text(&conformed, "name").is_empty() {
        crate::json::set(&mut conformed, "name", "fakename");
    }
    let namespaced = !text(&conformed, "namespace").is_empty();
    let object = Value::Object(Map::from_iter([("metadata".to_owned(), conformed)]));
    let mut found = Errors::default();
    MetaRules { namespaced, name: path_segment }.create_plain(&object, &mut found);
    for mut error in found.into_vec() {
        let inner = error.field.strip_prefix("metadata").unwrap_or_default();
        error.field = format!("{path}{inner}");
        errors.push(error);
    }
}

/// Whether a schema has embedded objects anywhere: most have none.
pub(crate) fn has_embedded(schema: &Schema) -> bool {
    schema.embedded
        || schema.items.as_deref().is_some_and(has_embedded)
        || schema.additional.schema().is_some_and(has_embedded)
        || schema.properties.iter().any(|(_, property)| has_embedded(property))
}
