//! Makes shapes from the schemas of `k8s-openapi`, once per type, shared by all kinds.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};

use crate::managed::MergeKey;

use super::{FieldShape, ListShape, Shape, StructShape, merge, tables};

/// Shapes live as long as the process: there is one per Kubernetes type and they are shared.
#[derive(Default)]
struct Shared {
    structs: HashMap<String, &'static StructShape>,
    texts: HashMap<String, &'static str>,
}

fn shared() -> &'static Mutex<Shared> {
    static SHARED: OnceLock<Mutex<Shared>> = OnceLock::new();
    SHARED.get_or_init(Mutex::default)
}

/// The shape of a Kubernetes type. Made at the first call; kinds keep what they get in a `OnceLock`.
#[must_use]
pub fn of<T: JsonSchema>() -> &'static Shape {
    let mut generator = generator();
    let root = generator.subschema_for::<T>().to_value();
    let definitions = generator.take_definitions(false);
    let mut shared = shared().lock().unwrap_or_else(PoisonError::into_inner);
    let shape = Builder { definitions: &definitions, shared: &mut shared }.shape("", "", &root);
    Box::leak(Box::new(shape))
}

/// A generator whose schemas refer to each other as Kubernetes' OpenAPI documents do.
pub(crate) fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.meta_schema = None;
        settings.transforms.clear();
    });
    settings.into_generator()
}

/// Name of the definition a schema points to.
pub(crate) fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

/// The Go type's name in a definition's name: `io.k8s.api.core.v1.Pod` gives `Pod`.
pub(crate) fn short_name(definition: &str) -> &str {
    definition.rsplit('.').next().unwrap_or(definition)
}

#[cfg(test)]
pub(super) fn all() -> Vec<&'static StructShape> {
    for kind in crate::builtin() {
        kind.shape();
    }
    shared().lock().unwrap().structs.values().copied().collect()
}

struct Builder<'b> {
    definitions: &'b Map<String, Value>,
    shared: &'b mut Shared,
}

impl Builder<'_> {
    /// The shape of the schema of `owner.field`.
    fn shape(&mut self, owner: &str, field: &str, schema: &Value) -> Shape {
        if let Some(name) = reference(schema) {
            return self.named(name);
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("string") => match schema.get("format").and_then(Value::as_str) {
                Some("byte") => Shape::Bytes,
                Some("date-time") => Shape::Time,
                _ => Shape::String,
            },
            Some("integer") => match schema.get("format").and_then(Value::as_str) {
                Some("int32") => Shape::Integer("int32"),
                _ => Shape::Integer("int64"),
            },
            Some("number") => Shape::Number,
            Some("boolean") => Shape::Boolean,
            Some("array") => self.list(owner, field, schema),
            Some("object") => match schema.get("additionalProperties") {
                Some(values) => Shape::Map(Box::leak(Box::new(self.shape(owner, field, values)))),
                None => Shape::Any,
            },
            _ => Shape::Any,
        }
    }

    fn list(&mut self, owner: &str, field: &str, schema: &Value) -> Shape {
        let items = schema.get("items").map_or(Shape::Any, |items| self.shape(owner, field, items));
        let rule = merge::list(owner, field);
        let item = items.inner_struct();
        let default = |key: &str| item.and_then(|item| merge::key_default(item.name, key, &item.field(key)?.shape));
        let key = |key: &&'static str| MergeKey { name: (*key).into(), default: default(key) };
        Shape::List(Box::leak(Box::new(ListShape {
            list_type: rule.list_type,
            map_keys: rule.map_keys,
            merge_keys: rule.map_keys.iter().map(key).collect(),
            items,
            patch_merge_key: rule.merge_key,
            patch_set: rule.merge_set,
        })))
    }

    fn named(&mut self, definition: &str) -> Shape {
        match short_name(definition) {
            "Quantity" => return Shape::Quantity,
            "IntOrString" => return Shape::IntOrString,
            "Time" => return Shape::Time,
            "MicroTime" => return Shape::MicroTime,
            // Nests without end; the kind that has it brings it into form itself.
            "JSONSchemaProps" => return Shape::Any,
            _ => {}
        }
        if let Some(known) = self.shared.structs.get(definition) {
            return Shape::Struct(known);
        }
        let Some(schema) = self.definitions.get(definition) else { return Shape::Any };
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return self.shape("", "", schema);
        };
        let owner = self.text(short_name(definition));
        let required = schema.get("required").and_then(Value::as_array);
        let mut fields = Vec::with_capacity(properties.len());
        for (name, property) in properties {
            let shape = self.shape(owner, name, property);
            let required = required.is_some_and(|required| required.iter().any(|field| field == name));
            let omit_empty = if required {
                tables::is_required_omitted(owner, name)
            } else {
                tables::omits_empty(owner, name, &shape)
            };
            let retain_keys = merge::retains_keys(owner, name);
            let atomic = merge::map_field(owner, name);
            fields.push((self.text(name), FieldShape { shape, required, retain_keys, omit_empty, atomic }));
        }
        fields.sort_by_key(|(name, _)| *name);
        let atomic = merge::is_atomic_type(definition);
        let held = fields.iter().map(|(name, _)| *name).filter(|name| merge::is_held(owner, name)).collect();
        let version = self.text(definition.rsplit('.').nth(1).unwrap_or("v1"));
        let leaked: &'static StructShape =
            Box::leak(Box::new(StructShape { name: owner, version, atomic, fields, held }));
        self.shared.structs.insert(definition.to_owned(), leaked);
        Shape::Struct(leaked)
    }

    fn text(&mut self, text: &str) -> &'static str {
        if let Some(known) = self.shared.texts.get(text) {
            return known;
        }
        let leaked: &'static str = Box::leak(text.to_owned().into_boxed_str());
        self.shared.texts.insert(text.to_owned(), leaked);
        leaked
    }
}
