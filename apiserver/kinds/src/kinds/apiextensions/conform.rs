//! Brings the schemas of a CustomResourceDefinition into their form: they nest without end, so no [`Shape`] fits them.
//!
//! [`Shape`]: crate::shape::Shape

use serde_json::{Map, Value};

use crate::strict::DecodeError;

/// Most unknown fields that are reported; the rest go silently.
const REPORTED_MAX: usize = 100;

/// The form of one field of a schema.
#[derive(Clone, Copy)]
enum Form {
    Text,
    /// A text of which empty is something else than nothing.
    OptionalText,
    Flag,
    OptionalFlag,
    Number,
    Integer,
    Any,
    AnyList,
    Texts,
    Schema,
    SchemaList,
    SchemaMap,
    SchemaOrList,
    SchemaOrFlag,
    Dependencies,
    Docs,
    Rules,
}

/// The fields of a schema, ordered.
const FIELDS: [(&str, Form); 44] = [
    ("$ref", Form::OptionalText),
    ("$schema", Form::Text),
    ("additionalItems", Form::SchemaOrFlag),
    ("additionalProperties", Form::SchemaOrFlag),
    ("allOf", Form::SchemaList),
    ("anyOf", Form::SchemaList),
    ("default", Form::Any),
    ("definitions", Form::SchemaMap),
    ("dependencies", Form::Dependencies),
    ("description", Form::Text),
    ("enum", Form::AnyList),
    ("example", Form::Any),
    ("exclusiveMaximum", Form::Flag),
    ("exclusiveMinimum", Form::Flag),
    ("externalDocs", Form::Docs),
    ("format", Form::Text),
    ("id", Form::Text),
    ("items", Form::SchemaOrList),
    ("maxItems", Form::Integer),
    ("maxLength", Form::Integer),
    ("maxProperties", Form::Integer),
    ("maximum", Form::Number),
    ("minItems", Form::Integer),
    ("minLength", Form::Integer),
    ("minProperties", Form::Integer),
    ("minimum", Form::Number),
    ("multipleOf", Form::Number),
    ("not", Form::Schema),
    ("nullable", Form::Flag),
    ("oneOf", Form::SchemaList),
    ("pattern", Form::Text),
    ("patternProperties", Form::SchemaMap),
    ("properties", Form::SchemaMap),
    ("required", Form::Texts),
    ("title", Form::Text),
    ("type", Form::Text),
    ("uniqueItems", Form::Flag),
    ("x-kubernetes-embedded-resource", Form::Flag),
    ("x-kubernetes-int-or-string", Form::Flag),
    ("x-kubernetes-list-map-keys", Form::Texts),
    ("x-kubernetes-list-type", Form::OptionalText),
    ("x-kubernetes-map-type", Form::OptionalText),
    ("x-kubernetes-preserve-unknown-fields", Form::OptionalFlag),
    ("x-kubernetes-validations", Form::Rules),
];

/// The fields of one of `x-kubernetes-validations`.
const RULE_FIELDS: [(&str, Form); 6] = [
    ("fieldPath", Form::Text),
    ("message", Form::Text),
    ("messageExpression", Form::Text),
    ("optionalOldSelf", Form::OptionalFlag),
    ("reason", Form::OptionalText),
    ("rule", Form::OptionalText),
];

const DOC_FIELDS: [(&str, Form); 2] = [("description", Form::Text), ("url", Form::Text)];

/// Brings a schema into form. Gives the paths of unknown fields, which have been removed; `path` is the schema's own.
///
/// # Errors
/// When a value has the wrong type.
pub(super) fn schema(schema: &mut Value, path: &str) -> Result<Vec<String>, DecodeError> {
    let mut walk = Walk { path: path.to_owned(), unknown: Vec::new(), silent: false };
    walk.schema(schema)?;
    Ok(walk.unknown)
}

struct Walk {
    path: String,
    unknown: Vec<String>,
    /// Inside a value that Go decodes by itself: unknown fields are dropped without a word.
    silent: bool,
}

impl Walk {
    fn under<T>(&mut self, step: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(step);
        let result = inner(self);
        self.path.truncate(length);
        result
    }

    fn silently<T>(&mut self, inner: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.silent, true);
        let result = inner(self);
        self.silent = before;
        result
    }

    fn schema(&mut self, value: &mut Value) -> Result<(), DecodeError> {
        self.fields(value, &FIELDS, "JSONSchemaProps")
    }

    fn fields(&mut self, value: &mut Value, known: &[(&str, Form)], owner: &str) -> Result<(), DecodeError> {
        let Value::Object(fields) = value else { return Err(self.wrong(value, owner, "v1.JSONSchemaProps")) };
        let names: Vec<String> = fields.keys().cloned().collect();
        for name in names {
            let Ok(index) = known.binary_search_by(|(own, _)| (*own).cmp(&name)) else {
                if !self.silent && self.unknown.len() < REPORTED_MAX {
                    self.unknown.push(format!("{}.{name}", self.path));
                }
                fields.remove(&name);
                continue;
            };
            let form = known[index].1;
            let empty = match fields.get_mut(&name) {
                Some(field) if !field.is_null() => {
                    self.under(&format!(".{name}"), |walk| walk.field(form, field, owner))?;
                    is_left_out(form, field)
                }
                _ => true,
            };
            if empty {
                fields.remove(&name);
            }
        }
        Ok(())
    }

    fn field(&mut self, form: Form, value: &mut Value, owner: &str) -> Result<(), DecodeError> {
        match (form, &mut *value) {
            (Form::Text | Form::OptionalText, Value::String(_))
            | (Form::Flag | Form::OptionalFlag | Form::SchemaOrFlag, Value::Bool(_))
            | (Form::Number, Value::Number(_))
            | (Form::AnyList, Value::Array(_))
            | (Form::Any, _) => Ok(()),
            (Form::Integer, Value::Number(number)) if number.is_i64() => Ok(()),
            (Form::Texts, Value::Array(items)) if items.iter().all(Value::is_string) => Ok(()),
            (Form::Schema, Value::Object(_)) => self.schema(value),
            (Form::SchemaList, Value::Array(items)) => self.list(items, Self::schema),
            (Form::SchemaMap, Value::Object(map)) => self.map(map),
            (Form::SchemaOrFlag, Value::Object(_)) => self.silently(|walk| walk.schema(value)),
            (Form::SchemaOrFlag, _) => Err(DecodeError::Other("boolean or JSON schema expected".to_owned())),
            (Form::SchemaOrList, Value::Object(_)) => self.silently(|walk| walk.schema(value)),
            (Form::SchemaOrList, Value::Array(items)) => self.silently(|walk| walk.list(items, Self::schema)),
            (Form::Dependencies, Value::Object(map)) => self.silently(|walk| {
                map.values_mut().filter(|value| value.is_object()).try_for_each(|value| walk.schema(value))
            }),
            (Form::Docs, Value::Object(_)) => self.fields(value, &DOC_FIELDS, "ExternalDocumentation"),
            (Form::Rules, Value::Array(items)) => {
                self.list(items, |walk, rule| walk.fields(rule, &RULE_FIELDS, "ValidationRule"))
            }
            _ => Err(self.wrong(value, owner, go_type(form))),
        }
    }

    fn list(
        &mut self,
        items: &mut [Value],
        mut each: impl FnMut(&mut Self, &mut Value) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        for (index, item) in items.iter_mut().enumerate() {
            self.under(&format!("[{index}]"), |walk| each(walk, item))?;
        }
        Ok(())
    }

    fn map(&mut self, map: &mut Map<String, Value>) -> Result<(), DecodeError> {
        for (name, value) in map.iter_mut() {
            if value.is_null() {
                *value = Value::Object(Map::new());
            }
            self.under(&format!(".{name}"), |walk| walk.schema(value))?;
        }
        Ok(())
    }

    fn wrong(&self, value: &Value, owner: &str, wanted: &str) -> DecodeError {
        let found = match value {
            Value::Number(number) if wanted == "int64" => format!("number {number}"),
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(_) => "number".to_owned(),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        let plain: String = without_indices(&self.path);
        DecodeError::Type { found, place: format!("struct field {owner}.{plain}"), wanted: wanted.to_owned() }
    }
}

/// A path without `[0]`.
fn without_indices(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

fn go_type(form: Form) -> &'static str {
    match form {
        Form::Text | Form::OptionalText => "string",
        Form::Flag | Form::OptionalFlag => "bool",
        Form::Number => "float64",
        Form::Integer => "int64",
        Form::AnyList | Form::Any => "[]v1.JSON",
        Form::Texts => "[]string",
        Form::Schema => "v1.JSONSchemaProps",
        Form::SchemaList => "[]v1.JSONSchemaProps",
        Form::SchemaMap => "map[string]v1.JSONSchemaProps",
        Form::SchemaOrList => "v1.JSONSchemaPropsOrArray",
        Form::SchemaOrFlag => "v1.JSONSchemaPropsOrBool",
        Form::Dependencies => "v1.JSONSchemaDependencies",
        Form::Docs => "v1.ExternalDocumentation",
        Form::Rules => "v1.ValidationRules",
    }
}

/// Whether Go leaves the field out.
fn is_left_out(form: Form, value: &Value) -> bool {
    match (form, value) {
        (Form::Text, Value::String(text)) => text.is_empty(),
        (Form::Flag, Value::Bool(flag)) => !flag,
        (Form::AnyList | Form::Texts | Form::SchemaList | Form::Rules, Value::Array(items)) => items.is_empty(),
        (Form::SchemaMap | Form::Dependencies, Value::Object(map)) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fields_are_in_order_and_unknown_ones_are_reported() {
        assert!(FIELDS.is_sorted_by(|one, other| one.0 < other.0));
        assert!(RULE_FIELDS.is_sorted_by(|one, other| one.0 < other.0));
        let mut value = json!({"type": "object", "nullable": false, "foo": 1, "default": null, "minimum": 0,
            "properties": {"a": {"type": "string", "bar": 1, "pattern": ""}, "l": {"items": {"type": "string", "odd": 1}}},
            "allOf": [{"baz": 1}]});
        let unknown = schema(&mut value, "s").unwrap();
        assert_eq!(unknown, ["s.allOf[0].baz", "s.foo", "s.properties.a.bar"]);
        assert_eq!(
            value,
            json!({"type": "object", "minimum": 0, "allOf": [{}],
                "properties": {"a": {"type": "string"}, "l": {"items": {"type": "string"}}}})
        );
        let error = schema(&mut json!({"properties": {"a": {"maxLength": "x"}}}), "spec.schema").unwrap_err();
        assert_eq!(
            error.to_string(),
            "json: cannot unmarshal string into Go struct field JSONSchemaProps.spec.schema.properties.a.maxLength of type int64"
        );
    }
}
