//! What is known of the objects expressions look at: made from an OpenAPI schema, used to check expressions, to
//! give the values in an object their types, and to bound how large they can be.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::escape::{escape, is_reserved};
use crate::types::Type;

/// Largest request the API server takes, in bytes: nothing in an object is larger.
const REQUEST_BYTES_MAX: u64 = 3 * 1024 * 1024;
/// Deepest schema that is looked at.
const DEPTH_MAX: usize = 100;

/// The declaration of one value: what it is, and how many elements or letters it has at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Decl {
    /// What it is.
    pub kind: DeclKind,
    /// Most elements (list, map), letters (text) or bytes; none when the kind has no size.
    pub max_elements: Option<u64>,
    /// Least bytes it takes in JSON.
    pub min_size: u64,
    /// Whether null is one of its values.
    pub nullable: bool,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum DeclKind {
    /// Anything.
    Dyn,
    /// `x-kubernetes-int-or-string`: a number or a text.
    IntOrString,
    /// Truth value.
    Bool,
    /// Whole number.
    Int,
    /// Number.
    Double,
    /// Text.
    String,
    /// Text in base64.
    Bytes,
    /// Text with date and time.
    Timestamp,
    /// Text with a date.
    Date,
    /// Text with a span of time.
    Duration,
    /// A list; its merge rules decide when two are equal.
    List(Arc<Decl>, ListType),
    /// A map with text keys.
    Map(Arc<Decl>),
    /// An object.
    Object(Arc<ObjectDecl>),
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListType {
    /// Equal when equal element by element.
    Atomic,
    /// Equal when each element of one is in the other.
    Set,
    /// Equal when elements with the same keys are equal.
    Map(Vec<String>),
}

/// The fields of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct ObjectDecl {
    /// Its type's name; unique within an [`crate::Env`].
    pub name: Arc<str>,
    /// By the name they are written with in expressions.
    pub fields: BTreeMap<String, FieldDecl>,
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldDecl {
    /// Its name in JSON.
    pub name: String,
    /// What it holds.
    pub decl: Arc<Decl>,
}

/// Answers what a `$ref` stands for.
pub type Resolve<'r> = &'r dyn Fn(&str) -> Option<&'r Json>;

impl Decl {
    /// A declaration without size.
    #[must_use]
    pub fn simple(kind: DeclKind, min_size: u64) -> Self {
        Self { kind, max_elements: None, min_size, nullable: false }
    }

    /// A text of any length.
    #[must_use]
    pub fn text() -> Self {
        Self { kind: DeclKind::String, max_elements: Some(REQUEST_BYTES_MAX - 2), min_size: 2, nullable: false }
    }

    /// A list of `items` of any length.
    #[must_use]
    pub fn list(items: Self) -> Self {
        let max = (REQUEST_BYTES_MAX - 2) / (items.min_size + 1);
        let kind = DeclKind::List(Arc::new(items), ListType::Atomic);
        Self { kind, max_elements: Some(max), min_size: 2, nullable: false }
    }

    /// A map of `values` of any length.
    #[must_use]
    pub fn map(values: Self) -> Self {
        let max = (REQUEST_BYTES_MAX - 2) / (values.min_size + 6);
        Self { kind: DeclKind::Map(Arc::new(values)), max_elements: Some(max), min_size: 2, nullable: false }
    }

    /// An object type called `name`; fields are given by their names in JSON, none of them is required.
    #[must_use]
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        let fields = fields.into_iter().filter_map(|(name, decl)| {
            Some((escape(name)?, FieldDecl { name: name.to_owned(), decl: Arc::new(decl) }))
        });
        let object = ObjectDecl { name: name.into(), fields: fields.collect() };
        Self::simple(DeclKind::Object(Arc::new(object)), 2)
    }

    /// The declaration a schema stands for, with object types named from `name` on; none when expressions may not
    /// look at it (data that no schema describes). `root` is whether this is a whole object with `metadata`.
    ///
    /// `resolve` answers `$ref`s; structural schemas have none.
    #[must_use]
    pub fn from_schema(schema: &Json, name: &str, root: bool, resolve: Resolve<'_>) -> Option<Self> {
        Reader { resolve }.decl(schema, name, root, 0)
    }

    /// The type a value of it has in expressions.
    #[must_use]
    pub fn to_type(&self) -> Type {
        match &self.kind {
            DeclKind::Dyn | DeclKind::IntOrString => Type::Dyn,
            DeclKind::Bool => Type::Bool,
            DeclKind::Int => Type::Int,
            DeclKind::Double => Type::Double,
            DeclKind::String => Type::String,
            DeclKind::Bytes => Type::Bytes,
            DeclKind::Timestamp | DeclKind::Date => Type::Timestamp,
            DeclKind::Duration => Type::Duration,
            DeclKind::List(items, _) => Type::list(items.to_type()),
            DeclKind::Map(values) => Type::map(Type::String, values.to_type()),
            DeclKind::Object(object) => Type::Object(Arc::clone(&object.name)),
        }
    }

    /// What `element` of it is: a field's name, `@items`, `@values` or `@keys`.
    #[must_use]
    pub fn element(&self, element: &str) -> Option<&Self> {
        match (&self.kind, element) {
            (DeclKind::List(items, _), "@items") => Some(items),
            (DeclKind::Map(values), _) if element != "@keys" => Some(values),
            (DeclKind::Object(object), _) => object.field(element).map(|field| &*field.decl),
            _ => None,
        }
    }
}

impl ObjectDecl {
    /// The field written `name` in an expression.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&FieldDecl> {
        self.fields.get(name)
    }

    /// The same, but a reserved word may also be written as it is (`a.namespace`).
    #[must_use]
    pub fn field_or_keyword(&self, name: &str) -> Option<&FieldDecl> {
        let escaped = || is_reserved(name).then(|| format!("__{name}__"));
        self.fields.get(name).or_else(|| self.fields.get(&escaped()?))
    }
}

struct Reader<'r> {
    resolve: Resolve<'r>,
}

fn number(schema: &Json, key: &str) -> Option<u64> {
    let value = schema.get(key)?;
    value.as_u64().or_else(|| value.as_i64().map(|_| 0))
}

fn is_true(schema: &Json, key: &str) -> bool {
    schema.get(key) == Some(&Json::Bool(true))
}

impl Reader<'_> {
    fn decl(&self, schema: &Json, name: &str, root: bool, depth: usize) -> Option<Decl> {
        if depth > DEPTH_MAX {
            return None;
        }
        if let Some(schema) = self.referenced(schema) {
            return self.decl(schema, name, root, depth + 1);
        }
        let mut decl = self.bare(schema, name, root, depth)?;
        decl.nullable = is_true(schema, "nullable");
        Some(decl)
    }

    /// What `$ref`, or an `allOf` with nothing but one `$ref`, stands for.
    fn referenced(&self, schema: &Json) -> Option<&Json> {
        let alone = || schema.get("allOf")?.as_array().filter(|all| all.len() == 1)?.first()?.get("$ref");
        let text = schema.get("$ref").or_else(alone)?.as_str()?;
        (self.resolve)(text)
    }

    fn bare(&self, schema: &Json, name: &str, root: bool, depth: usize) -> Option<Decl> {
        if is_true(schema, "x-kubernetes-int-or-string") || schema.get("format").is_some_and(|f| f == "int-or-string") {
            let max = number(schema, "maxLength").map_or(REQUEST_BYTES_MAX - 2, |max| max.saturating_mul(4));
            return Some(Decl { max_elements: Some(max), ..Decl::simple(DeclKind::IntOrString, 1) });
        }
        match schema.get("type").and_then(Json::as_str).or(root.then_some("object"))? {
            "array" => self.array(schema, name, depth),
            "object" => self.object(schema, name, root, depth),
            "string" => Some(text(schema)),
            "boolean" => Some(Decl::simple(DeclKind::Bool, 4)),
            "number" => Some(Decl::simple(DeclKind::Double, 1)),
            "integer" => Some(Decl::simple(DeclKind::Int, 1)),
            _ => None,
        }
    }

    fn inner(&self, schema: &Json, name: &str, depth: usize) -> Option<Decl> {
        self.decl(schema, name, is_true(schema, "x-kubernetes-embedded-resource"), depth + 1)
    }

    fn array(&self, schema: &Json, name: &str, depth: usize) -> Option<Decl> {
        let items = self.inner(schema.get("items")?, &format!("{name}.@idx"), depth)?;
        let mut decl = Decl::list(items);
        if let Some(max) = number(schema, "maxItems") {
            decl.max_elements = Some(max);
        }
        let list_type = match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
            Some("set") => ListType::Set,
            Some("map") => {
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
                let keys = keys.into_iter().flatten().filter_map(Json::as_str);
                ListType::Map(keys.map(str::to_owned).collect())
            }
            _ => ListType::Atomic,
        };
        if let DeclKind::List(_, own) = &mut decl.kind {
            *own = list_type;
        }
        Some(decl)
    }

    fn object(&self, schema: &Json, name: &str, root: bool, depth: usize) -> Option<Decl> {
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            let mut decl = Decl::map(self.inner(values, &format!("{name}.@elem"), depth)?);
            if let Some(max) = number(schema, "maxProperties") {
                decl.max_elements = Some(max);
            }
            return Some(decl);
        }
        let required: Vec<&str> =
            schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        let mut min_size = 2;
        let mut fields = BTreeMap::new();
        for (field, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            let escaped = escape(field);
            let path = format!("{name}.{}", escaped.as_deref().unwrap_or(field));
            let Some(decl) = self.inner(property, &path, depth) else { continue };
            if required.contains(&field.as_str()) && property.get("default").is_none_or(Json::is_null) {
                min_size += field.len() as u64 + decl.min_size + 4;
            }
            if let Some(escaped) = escaped {
                fields.insert(escaped, FieldDecl { name: field.clone(), decl: Arc::new(decl) });
            }
        }
        if root {
            add_type_and_metadata(&mut fields, name);
        }
        let object = ObjectDecl { name: name.into(), fields };
        Some(Decl::simple(DeclKind::Object(Arc::new(object)), min_size))
    }
}

/// `kind`, `apiVersion`, `metadata.name` and `metadata.generateName` are there in every whole object.
fn add_type_and_metadata(fields: &mut BTreeMap<String, FieldDecl>, name: &str) {
    let is_text = |decl: Option<&Decl>| decl.is_some_and(|decl| decl.kind == DeclKind::String);
    let own = |field: &str| fields.get(field).map(|field| &*field.decl);
    let metadata = own("metadata");
    let has = |field: &str| is_text(metadata.and_then(|metadata| metadata.element(field)));
    if is_text(own("kind")) && is_text(own("apiVersion")) && has("name") && has("generateName") {
        return;
    }
    let metadata = Decl::object(&format!("{name}.metadata"), [("name", Decl::text()), ("generateName", Decl::text())]);
    for (field, decl) in [("kind", Decl::text()), ("apiVersion", Decl::text()), ("metadata", metadata)] {
        fields.insert(field.to_owned(), FieldDecl { name: field.to_owned(), decl: Arc::new(decl) });
    }
}

fn text(schema: &Json) -> Decl {
    let max_length = number(schema, "maxLength");
    let sized = |kind, max, min_size| Decl { kind, max_elements: Some(max), min_size, nullable: false };
    match schema.get("format").and_then(Json::as_str) {
        Some("byte") => sized(DeclKind::Bytes, max_length.unwrap_or(REQUEST_BYTES_MAX - 2), 2),
        Some("duration") => sized(DeclKind::Duration, 32, 3),
        Some("date") => sized(DeclKind::Date, 12, 12),
        Some("date-time") => sized(DeclKind::Timestamp, 32, 21),
        _ => {
            let values = schema.get("enum").and_then(Json::as_array).filter(|values| !values.is_empty());
            let longest = values.map(|values| values.iter().filter_map(Json::as_str).map(str::len).max().unwrap_or(0));
            let max = match (max_length, longest) {
                (Some(max), _) => max.saturating_mul(4),
                (None, Some(longest)) => longest as u64,
                (None, None) => REQUEST_BYTES_MAX - 2,
            };
            sized(DeclKind::String, max, 2)
        }
    }
}
