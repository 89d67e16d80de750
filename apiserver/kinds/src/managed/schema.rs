//! What merging must know of a kind's schema: which lists and maps are merged item by item, and by which keys.

use std::borrow::Cow;

use serde_json::Value;

use crate::shape::{FieldShape, ListShape, Shape, StructShape};

/// Says how the values of one place are merged. Implemented by the built-in kinds' shapes, by custom
/// resources' schemas, and by [`Untyped`].
pub trait MergeSchema: Sync {
    /// How values here are merged.
    fn rule(&self) -> Rule<'_>;
}

/// How the values of a place are merged.
#[derive(Clone, Copy)]
pub enum Rule<'s> {
    /// One value, replaced as a whole.
    Scalar(Scalar),
    /// A list.
    List(ListRule<'s>),
    /// A map or an object with fields.
    Map(MapRule<'s>),
    /// Whatever it is; `granular`: maps merge key by key, else they are replaced. Lists are always replaced.
    Any {
        /// Whether maps merge.
        granular: bool,
    },
    /// Whatever it is: a plain value is replaced, lists and maps are merged as their rules say.
    Either {
        /// The rule of a list.
        list: ListRule<'s>,
        /// The rule of a map.
        map: MapRule<'s>,
    },
}

/// What a plain value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// A number.
    Numeric,
    /// A text.
    String,
    /// True or false.
    Boolean,
    /// Any of them: quantities, times, whole numbers that may be texts.
    Untyped,
}

/// How a list is merged.
#[derive(Clone, Copy)]
pub struct ListRule<'s> {
    /// By what its items are told apart.
    pub kind: ListKind<'s>,
    /// The items.
    pub items: &'s dyn MergeSchema,
}

/// By what the items of a list are told apart.
#[derive(Clone, Copy)]
pub enum ListKind<'s> {
    /// By nothing: the list is replaced.
    Atomic,
    /// By their value.
    Set,
    /// By these keys.
    Keyed(&'s [MergeKey]),
}

/// A key of a list's items.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeKey {
    /// The field's name.
    pub name: Cow<'static, str>,
    /// What it is in an item that does not have it; `None`: it is no part of the item's identity then.
    pub default: Option<Value>,
}

/// How a map is merged.
#[derive(Clone, Copy)]
pub struct MapRule<'s> {
    /// Whether it is replaced as a whole.
    pub atomic: bool,
    /// What is in it.
    pub fields: &'s dyn MapFields,
}

/// What is in a map or object.
pub trait MapFields: Sync {
    /// The field of that name, where the schema names it.
    fn field(&self, name: &str) -> Option<&dyn MergeSchema>;
    /// What all other keys hold; `None`: there are no others.
    fn other(&self) -> Option<&dyn MergeSchema>;
    /// Fields that are there even when nobody has set them.
    fn held(&self) -> &[&'static str] {
        &[]
    }
}

impl<'s> MapRule<'s> {
    /// The schema under a key.
    pub(super) fn at(&self, key: &str) -> Option<&'s dyn MergeSchema> {
        self.fields.field(key).or_else(|| self.fields.other())
    }
}

/// A place without a schema.
#[derive(Debug)]
pub struct Untyped {
    granular: bool,
}

/// A place of which nothing is known: maps merge key by key, lists are replaced.
pub static DEDUCED: Untyped = Untyped { granular: true };
/// A place of which nothing is known and that is replaced as a whole.
pub static ATOMIC: Untyped = Untyped { granular: false };

impl MergeSchema for Untyped {
    fn rule(&self) -> Rule<'_> {
        Rule::Any { granular: self.granular }
    }
}

impl MapFields for Untyped {
    fn field(&self, _name: &str) -> Option<&dyn MergeSchema> {
        None
    }

    fn other(&self) -> Option<&dyn MergeSchema> {
        Some(self)
    }
}

impl MergeSchema for Shape {
    fn rule(&self) -> Rule<'_> {
        match self {
            Self::Any => Rule::Any { granular: false },
            Self::String | Self::Bytes => Rule::Scalar(Scalar::String),
            Self::Time | Self::MicroTime | Self::IntOrString | Self::Quantity => Rule::Scalar(Scalar::Untyped),
            Self::Integer(_) | Self::Number => Rule::Scalar(Scalar::Numeric),
            Self::Boolean => Rule::Scalar(Scalar::Boolean),
            Self::List(list) => Rule::List(list.rule()),
            Self::Map(_) => Rule::Map(MapRule { atomic: false, fields: self }),
            Self::Struct(fields) => Rule::Map(MapRule { atomic: fields.atomic, fields: *fields }),
        }
    }
}

impl ListShape {
    fn rule(&self) -> ListRule<'_> {
        let kind = match self.list_type {
            "map" => ListKind::Keyed(&self.merge_keys),
            "set" => ListKind::Set,
            _ => ListKind::Atomic,
        };
        ListRule { kind, items: &self.items }
    }
}

impl MergeSchema for FieldShape {
    fn rule(&self) -> Rule<'_> {
        match (self.shape.rule(), self.atomic) {
            (Rule::Map(map), Some(atomic)) => Rule::Map(MapRule { atomic, ..map }),
            (Rule::Any { .. }, Some(atomic)) => Rule::Any { granular: !atomic },
            (rule, _) => rule,
        }
    }
}

/// Maps with free keys.
impl MapFields for Shape {
    fn field(&self, _name: &str) -> Option<&dyn MergeSchema> {
        None
    }

    fn other(&self) -> Option<&dyn MergeSchema> {
        match self {
            Self::Map(values) => Some(*values),
            _ => None,
        }
    }
}

impl MapFields for StructShape {
    fn field(&self, name: &str) -> Option<&dyn MergeSchema> {
        StructShape::field(self, name).map(|field| field as &dyn MergeSchema)
    }

    fn other(&self) -> Option<&dyn MergeSchema> {
        None
    }

    fn held(&self) -> &[&'static str] {
        &self.held
    }
}

/// What one value is merged as: where the rule is open, what fits the value.
pub(super) enum Atom<'s> {
    Scalar(Scalar),
    List(ListRule<'s>),
    Map(MapRule<'s>),
}

impl<'s> Rule<'s> {
    /// Whether what a value is merged as depends on the value.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Any { .. } | Self::Either { .. })
    }

    /// What a value is merged as; null and what is not there fit everything and are taken for maps.
    pub(super) fn atom(self, value: Option<&Value>) -> Atom<'s> {
        match self {
            Self::Scalar(scalar) => Atom::Scalar(scalar),
            Self::List(list) => Atom::List(list),
            Self::Map(map) => Atom::Map(map),
            Self::Either { list, map } => match value {
                Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => Atom::Scalar(Scalar::Untyped),
                Some(Value::Array(_)) => Atom::List(list),
                _ => Atom::Map(map),
            },
            Self::Any { granular } => match value {
                Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => Atom::Scalar(Scalar::Untyped),
                Some(Value::Array(_)) => Atom::List(ListRule { kind: ListKind::Atomic, items: &ATOMIC }),
                _ => Atom::Map(MapRule { atomic: !granular, fields: if granular { &DEDUCED } else { &ATOMIC } }),
            },
        }
    }
}
