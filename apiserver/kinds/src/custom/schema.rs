//! The schema of one version of a custom resource, parsed from `openAPIV3Schema`.
//!
//! The same type serves for the structure (properties, items) and for what is nested under `allOf`, `anyOf`, `oneOf`
//! and `not`. Whether a schema is structural is checked where the CustomResourceDefinition is validated, before it
//! gets here. Unknown formats are dropped, as Kubernetes does.

use serde_json::Value;

use super::formats::Format;
use super::pattern::Pattern;
use crate::json::{entries, flag, get, has, int, list, text};

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
    /// `x-kubernetes-int-or-string`
    IntOrString,
}

impl Type {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// The name as it stands in complaints.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::IntOrString => "integer,string",
        }
    }
}

/// `x-kubernetes-list-type`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ListType {
    /// One value as a whole.
    Atomic,
    /// Every item once.
    Set,
    /// Every combination of these keys once.
    Map(Vec<String>),
}

/// `additionalProperties`
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Additional {
    /// Not said.
    Unset,
    /// `true` or `false`.
    Allowed(bool),
    /// The schema of the values.
    Schema(Box<Schema>),
}

impl Additional {
    /// The schema of the values, if there is one.
    pub(crate) fn schema(&self) -> Option<&Schema> {
        match self {
            Self::Schema(schema) => Some(schema),
            _ => None,
        }
    }

    /// Whether anything is said.
    pub(crate) fn is_set(&self) -> bool {
        !matches!(self, Self::Unset)
    }
}

/// The schema of one value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Schema {
    /// Its type; `None` takes any.
    pub(crate) kind: Option<Type>,
    /// Whether null is a value.
    pub(crate) nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub(crate) preserve: bool,
    /// `x-kubernetes-embedded-resource`
    pub(crate) embedded: bool,
    /// `x-kubernetes-list-type`
    pub(crate) list_type: ListType,
    /// `x-kubernetes-map-type: atomic`
    pub(crate) atomic_map: bool,
    /// The value of a field that is not there.
    pub(crate) default: Option<Value>,
    /// The items of a list.
    pub(crate) items: Option<Box<Schema>>,
    /// The fields of an object, sorted by name.
    pub(crate) properties: Vec<(String, Schema)>,
    /// Further fields of an object.
    pub(crate) additional: Additional,
    /// Rules about the value; `None` when there are none.
    pub(crate) checks: Option<Box<Checks>>,
    /// `x-kubernetes-validations`, as they stand in the schema.
    pub(crate) rules: Vec<Value>,
}

/// Rules of OpenAPI about a value.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Checks {
    pub(crate) format: Option<Format>,
    pub(crate) maximum: Option<f64>,
    pub(crate) exclusive_maximum: bool,
    pub(crate) minimum: Option<f64>,
    pub(crate) exclusive_minimum: bool,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) max_length: Option<i64>,
    pub(crate) min_length: Option<i64>,
    pub(crate) pattern: Option<Pattern>,
    pub(crate) max_items: Option<i64>,
    pub(crate) min_items: Option<i64>,
    pub(crate) max_properties: Option<i64>,
    pub(crate) min_properties: Option<i64>,
    pub(crate) required: Vec<String>,
    pub(crate) one_of_values: Vec<Value>,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Schema>,
}

/// Fields of a schema that no structural schema has, with what Kubernetes calls them.
const UNSUPPORTED: [&str; 7] =
    ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"];

impl Schema {
    /// Parses a schema; the error is what keeps it from being structural at all.
    pub(crate) fn parse(json: &Value) -> Result<Self, String> {
        if let Some(field) = UNSUPPORTED.iter().find(|field| is_used(json, field)) {
            let name = if *field == "$schema" { "schema" } else { field };
            return Err(format!("OpenAPIV3Schema '{name}' is not supported"));
        }
        let preserve = get(json, "x-kubernetes-preserve-unknown-fields");
        if preserve == &Value::Bool(false) {
            let text = "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined";
            return Err(text.to_owned());
        }
        let kind = match flag(json, "x-kubernetes-int-or-string") {
            true => Some(Type::IntOrString),
            false => Type::parse(text(json, "type")),
        };
        let items = match get(json, "items") {
            Value::Null => None,
            Value::Array(_) => return Err("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned()),
            items => Some(Box::new(Self::parse(items)?)),
        };
        let mut properties = Vec::new();
        for (name, property) in entries(json, "properties") {
            properties.push((name.to_owned(), Self::parse(property)?));
        }
        let additional = match get(json, "additionalProperties") {
            Value::Null => Additional::Unset,
            Value::Bool(allowed) => Additional::Allowed(*allowed),
            schema => Additional::Schema(Box::new(Self::parse(schema)?)),
        };
        Ok(Self {
            kind,
            nullable: flag(json, "nullable"),
            preserve: preserve == &Value::Bool(true),
            embedded: flag(json, "x-kubernetes-embedded-resource"),
            list_type: list_type(json),
            atomic_map: text(json, "x-kubernetes-map-type") == "atomic",
            default: Some(get(json, "default")).filter(|value| !value.is_null()).cloned(),
            items,
            properties,
            additional,
            checks: Checks::parse(json, kind)?,
            rules: list(json, "x-kubernetes-validations").to_vec(),
        })
    }

    /// A schema that says nothing and keeps nothing.
    pub(crate) fn empty() -> Self {
        Self {
            kind: None,
            nullable: false,
            preserve: false,
            embedded: false,
            list_type: ListType::Atomic,
            atomic_map: false,
            default: None,
            items: None,
            properties: Vec::new(),
            additional: Additional::Unset,
            checks: None,
            rules: Vec::new(),
        }
    }

    /// The schema of a named field.
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        let index = self.properties.binary_search_by(|(own, _)| own.as_str().cmp(name)).ok()?;
        Some(&self.properties[index].1)
    }

    /// The schema of a field, named or further.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.property(name).or_else(|| self.additional.schema())
    }

    /// The same schema for the root of an object, which has a type and metadata as embedded objects have.
    pub(crate) fn as_root(&self) -> std::borrow::Cow<'_, Self> {
        if self.embedded {
            return std::borrow::Cow::Borrowed(self);
        }
        std::borrow::Cow::Owned(Self { embedded: true, ..self.clone() })
    }
}

/// Whether a field says something.
fn is_used(json: &Value, field: &str) -> bool {
    match get(json, field) {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(map) => field == "additionalItems" || !map.is_empty(),
        _ => true,
    }
}

fn list_type(json: &Value) -> ListType {
    match text(json, "x-kubernetes-list-type") {
        "set" => ListType::Set,
        "map" => {
            let keys = list(json, "x-kubernetes-list-map-keys").iter();
            ListType::Map(keys.filter_map(Value::as_str).map(str::to_owned).collect())
        }
        _ => ListType::Atomic,
    }
}

/// The fields that make [`Checks`].
const CHECKS: [&str; 20] = [
    "format",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "multipleOf",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "maxProperties",
    "minProperties",
    "required",
    "enum",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "uniqueItems",
];

impl Checks {
    fn parse(json: &Value, kind: Option<Type>) -> Result<Option<Box<Self>>, String> {
        if !CHECKS.iter().any(|field| has(json, field)) {
            return Ok(None);
        }
        let number = |field| get(json, field).as_f64();
        let schemas = |field| list(json, field).iter().map(Schema::parse).collect::<Result<Vec<_>, _>>();
        let pattern = match text(json, "pattern") {
            "" => None,
            // One that cannot be compiled fails every value, as in Kubernetes; it is refused in new schemas.
            pattern => Some(Pattern::new(pattern)),
        };
        let not = match get(json, "not") {
            Value::Null => None,
            not => Some(Schema::parse(not)?),
        };
        let required = list(json, "required").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Some(Box::new(Self {
            format: Format::of(text(json, "format"), kind),
            maximum: number("maximum"),
            exclusive_maximum: flag(json, "exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag(json, "exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: int(json, "maxLength"),
            min_length: int(json, "minLength"),
            pattern,
            max_items: int(json, "maxItems"),
            min_items: int(json, "minItems"),
            max_properties: int(json, "maxProperties"),
            min_properties: int(json, "minProperties"),
            required,
            one_of_values: list(json, "enum").to_vec(),
            all_of: schemas("allOf")?,
            any_of: schemas("anyOf")?,
            one_of: schemas("oneOf")?,
            not,
        })))
    }
}
