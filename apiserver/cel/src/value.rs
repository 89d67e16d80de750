//! Values: what expressions compute with. They borrow from the JSON they look at; nothing is copied to be read.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::decl::{Decl, ListType, ObjectDecl};
use crate::error::EvalError;
use crate::escape::{escape, unescape};
use crate::json;
use crate::opaque::Opaque;
use crate::time::Timestamp;

/// A value. `'v` is how long the JSON and the declarations live that it borrows from.
#[derive(Debug, Clone)]
pub enum Value<'v> {
    /// `null`
    Null,
    /// Truth value.
    Bool(bool),
    /// Whole number.
    Int(i64),
    /// Whole number without sign.
    Uint(u64),
    /// Floating-point number.
    Double(f64),
    /// Text.
    String(Text<'v>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// Span of time, in nanoseconds.
    Duration(i64),
    /// Point in time.
    Timestamp(Timestamp),
    /// List.
    List(List<'v>),
    /// Map, or object read from JSON.
    Map(Map<'v>),
    /// Object made in an expression (`Object{…}`).
    Struct(Arc<Struct<'v>>),
    /// A value that may be missing.
    Optional(Option<Arc<Value<'v>>>),
    /// A type, by name.
    Type(Arc<str>),
    /// A value of a library's type.
    Opaque(Opaque<'v>),
    /// Data no schema describes (`x-kubernetes-preserve-unknown-fields`): it can only be compared.
    Unknown(&'v Json),
}

/// A text, borrowed or shared.
#[derive(Debug, Clone)]
pub enum Text<'v> {
    /// From the JSON.
    Borrowed(&'v str),
    /// Made by an expression.
    Shared(Arc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// An object made in an expression.
#[derive(Debug, Clone)]
pub struct Struct<'v> {
    /// Its type.
    pub name: Arc<str>,
    /// Its fields.
    pub fields: BTreeMap<String, Value<'v>>,
}

/// A list.
#[derive(Debug, Clone)]
pub struct List<'v> {
    items: Items<'v>,
    /// How it compares and adds, when the schema says so.
    pub(crate) list_type: Option<&'v ListType>,
}

#[derive(Debug, Clone)]
enum Items<'v> {
    Json(&'v [Json], Option<&'v Decl>),
    Owned(Arc<Vec<Value<'v>>>),
    /// Two lists one after the other: adding lists copies nothing, since it costs next to nothing.
    Both(Arc<(List<'v>, List<'v>)>, usize),
}

impl<'v> List<'v> {
    pub(crate) fn from_json(items: &'v [Json], decl: Option<&'v Decl>, list_type: Option<&'v ListType>) -> Self {
        Self { items: Items::Json(items, decl), list_type }
    }

    pub(crate) fn new(items: Vec<Value<'v>>) -> Self {
        Self { items: Items::Owned(Arc::new(items)), list_type: None }
    }

    /// How many elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.items {
            Items::Json(items, _) => items.len(),
            Items::Owned(items) => items.len(),
            Items::Both(_, len) => *len,
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at `index`; none when there is none.
    ///
    /// # Errors
    /// When the JSON does not have the form its declaration says.
    pub fn get(&self, index: usize) -> Option<Result<Value<'v>, EvalError>> {
        match &self.items {
            Items::Json(items, decl) => items.get(index).map(|item| json::value(item, *decl)),
            Items::Owned(items) => items.get(index).cloned().map(Ok),
            Items::Both(both, _) => match index.checked_sub(both.0.len()) {
                Some(index) => both.1.get(index),
                None => both.0.get(index),
            },
        }
    }

    /// The elements in order.
    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'v>, EvalError>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// `self` and then `other`; copies nothing.
    pub(crate) fn followed_by(self, other: Self) -> Self {
        let (len, list_type) = (self.len() + other.len(), self.list_type);
        Self { items: Items::Both(Arc::new((self, other)), len), list_type }
    }

    /// Adds at the end, in place when nobody else holds the list.
    pub(crate) fn push(&mut self, value: Value<'v>) -> Result<(), EvalError> {
        if !matches!(self.items, Items::Owned(_)) {
            self.items = Items::Owned(Arc::new(self.iter().collect::<Result<_, _>>()?));
        }
        if let Items::Owned(items) = &mut self.items {
            Arc::make_mut(items).push(value);
        }
        Ok(())
    }

    pub(crate) fn with_type(mut self, list_type: Option<&'v ListType>) -> Self {
        self.list_type = list_type;
        self
    }
}

/// The key of a map that an expression made. Numbers of different types that are equal are one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Bool(bool),
    Number(i128),
    /// A floating-point number, by its bits; only to compare.
    Double(u64),
    String(Arc<str>),
    Null,
}

impl Key {
    /// None for values no map can have as key.
    pub(crate) fn of(value: &Value<'_>) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Null),
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Int(value) => Some(Self::Number(i128::from(*value))),
            Value::Uint(value) => Some(Self::Number(i128::from(*value))),
            Value::Double(value) => Some(match whole(*value) {
                Some(number) => Self::Number(number),
                None => Self::Double(value.to_bits()),
            }),
            Value::String(text) => Some(Self::String((**text).into())),
            _ => None,
        }
    }
}

/// A number without fraction.
pub(crate) fn whole(value: f64) -> Option<i128> {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    #[expect(clippy::cast_possible_truncation, reason = "within the limits and without fraction it is exact")]
    (value.fract() == 0.0 && value.abs() < LIMIT).then_some(value as i128)
}

/// A map, or an object.
#[derive(Debug, Clone)]
pub struct Map<'v> {
    pub(crate) entries: Entries<'v>,
}

#[derive(Debug, Clone)]
pub(crate) enum Entries<'v> {
    Json(&'v serde_json::Map<String, Json>, Fields<'v>),
    Owned(Arc<BTreeMap<Key, (Value<'v>, Value<'v>)>>),
}

/// What is known of the entries of a JSON object.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fields<'v> {
    Dynamic,
    Values(&'v Decl),
    Object(&'v ObjectDecl),
}

impl<'v> Map<'v> {
    pub(crate) fn from_json(object: &'v serde_json::Map<String, Json>, fields: Fields<'v>) -> Self {
        Self { entries: Entries::Json(object, fields) }
    }

    pub(crate) fn new(entries: BTreeMap<Key, (Value<'v>, Value<'v>)>) -> Self {
        Self { entries: Entries::Owned(Arc::new(entries)) }
    }

    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.entries {
            Entries::Json(object, _) => object.len(),
            Entries::Owned(entries) => entries.len(),
        }
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of `key`; none when there is none.
    ///
    /// # Errors
    /// When the key is no text though all are, or the JSON does not have the form its declaration says.
    pub fn find(&self, key: &Value<'_>) -> Result<Option<Value<'v>>, EvalError> {
        match &self.entries {
            Entries::Owned(entries) => {
                Ok(Key::of(key).and_then(|key| entries.get(&key)).map(|(_, value)| value.clone()))
            }
            Entries::Json(object, fields) => match (key, fields) {
                (Value::String(key), fields) => find_in_json(object, *fields, key),
                (_, Fields::Dynamic) => Ok(None),
                _ => Err(EvalError::no_such_overload()),
            },
        }
    }

    /// The keys; of an object the declared fields that are there.
    pub fn keys(&self) -> Vec<Value<'v>> {
        match &self.entries {
            Entries::Owned(entries) => entries.values().map(|(key, _)| key.clone()).collect(),
            Entries::Json(object, Fields::Object(decl)) => {
                let known = object.keys().filter_map(|key| {
                    let escaped = escape(key).map_or(Cow::Borrowed(key.as_str()), Cow::Owned);
                    decl.fields.contains_key(&*escaped).then(|| Value::text(&escaped))
                });
                known.collect()
            }
            Entries::Json(object, _) => object.keys().map(|key| Value::String(Text::Borrowed(key))).collect(),
        }
    }

    /// Key and value of every entry.
    ///
    /// # Errors
    /// When the JSON does not have the form its declaration says.
    pub fn pairs(&self) -> Result<Vec<(Value<'v>, Value<'v>)>, EvalError> {
        let mut pairs = Vec::with_capacity(self.len());
        for key in self.keys() {
            if let Some(value) = self.find(&key)? {
                pairs.push((key, value));
            }
        }
        Ok(pairs)
    }

    /// Adds an entry, in place when nobody else holds the map.
    pub(crate) fn insert(&mut self, key: &Value<'v>, value: Value<'v>) -> Result<(), EvalError> {
        let Some(own) = Key::of(key) else {
            return Err(EvalError::message(format!("unsupported key type: {}", key.type_name())));
        };
        if matches!(self.entries, Entries::Json(..)) {
            let pairs = self.pairs()?;
            let entries = pairs.into_iter().filter_map(|(key, value)| Some((Key::of(&key)?, (key, value))));
            self.entries = Entries::Owned(Arc::new(entries.collect()));
        }
        if let Entries::Owned(entries) = &mut self.entries {
            let entries = Arc::make_mut(entries);
            if entries.contains_key(&own) {
                return Err(EvalError::message(format!("insert failed: key {} already exists", key.shown())));
            }
            entries.insert(own, (key.clone(), value));
        }
        Ok(())
    }
}

fn find_in_json<'v>(
    object: &'v serde_json::Map<String, Json>,
    fields: Fields<'v>,
    key: &str,
) -> Result<Option<Value<'v>>, EvalError> {
    match fields {
        Fields::Dynamic => object.get(key).map(|value| json::value(value, None)).transpose(),
        Fields::Values(decl) => object.get(key).map(|value| json::value(value, Some(decl))).transpose(),
        Fields::Object(decl) => {
            let Some(name) = unescape(key) else { return Ok(None) };
            // A null field is taken for a missing one.
            let Some(value) = object.get(&name).filter(|value| !value.is_null()) else { return Ok(None) };
            match decl.field_or_keyword(key) {
                Some(field) => json::value(value, Some(&field.decl)).map(Some),
                None => Ok(None),
            }
        }
    }
}

impl<'v> Value<'v> {
    /// A text of its own.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    /// A value of declared form. The declaration says what is number, time or text.
    ///
    /// # Errors
    /// When the JSON does not have that form. What is deeper is looked at when it is used.
    pub fn typed(json: &'v Json, decl: &'v Decl) -> Result<Self, EvalError> {
        json::value(json, Some(decl))
    }

    /// A value of which nothing is known but its JSON.
    #[must_use]
    pub fn dynamic(json: &'v Json) -> Self {
        json::dynamic(json)
    }

    /// A list of values.
    #[must_use]
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List::new(items))
    }

    /// As JSON; none for what JSON cannot hold (functions' objects, types, infinite numbers).
    #[must_use]
    pub fn to_json(&self) -> Option<Json> {
        json::from_value(self)
    }

    /// The text, when it is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// What `type()` answers with.
    #[must_use]
    pub fn type_name(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Struct(made) => &made.name,
            Self::Optional(_) => crate::types::OPTIONAL,
            Self::Type(_) => "type",
            Self::Opaque(opaque) => opaque.type_name(),
            Self::Unknown(_) => "unknown",
        })
    }

    /// As messages show it (`no such key: KEY`).
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Null => "NULL".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Uint(value) => value.to_string(),
            Self::Double(value) => crate::functions::numbers::shown(*value),
            Self::String(text) => text.to_string(),
            Self::Type(name) => name.to_string(),
            Self::Duration(nanos) => crate::time::go_duration(*nanos),
            Self::Timestamp(at) => at.to_string(),
            other => match other.to_json() {
                Some(json) => json.to_string(),
                None => format!("<{}>", other.type_name()),
            },
        }
    }

    /// Elements, letters or bytes; one for everything that has no size.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::String(text) => count(text),
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Optional(Some(inner)) => inner.size(),
            Self::Opaque(opaque) => opaque.size(),
            _ => 1,
        }
    }

    /// Whether it is what its type has when nothing was set.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(value) => !value,
            Self::Int(value) => *value == 0,
            Self::Uint(value) => *value == 0,
            Self::Double(value) => *value == 0.0,
            Self::String(text) => text.is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Duration(nanos) => *nanos == 0,
            Self::Timestamp(at) => at.is_zero(),
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            Self::Struct(made) => made.fields.is_empty(),
            Self::Optional(inner) => inner.as_ref().is_none_or(|inner| inner.is_zero()),
            Self::Type(_) | Self::Opaque(_) | Self::Unknown(_) => false,
        }
    }
}

/// Code points; plain ASCII is not gone through letter by letter.
pub(crate) fn count(text: &str) -> u64 {
    if text.is_ascii() { text.len() as u64 } else { text.chars().count() as u64 }
}

/// The order of two values; none when they have none.
pub(crate) fn compare(one: &Value<'_>, other: &Value<'_>) -> Result<Ordering, EvalError> {
    let nan = || EvalError::message("NaN values cannot be ordered");
    Ok(match (one, other) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b).ok_or_else(nan)?,
        (Value::Double(a), b) => compare_double(*a, &integer(b)?).ok_or_else(nan)?,
        (a, Value::Double(b)) => compare_double(*b, &integer(a)?).ok_or_else(nan)?.reverse(),
        (a, b) => integer(a)?.cmp(&integer(b)?),
    })
}

fn integer(value: &Value<'_>) -> Result<i128, EvalError> {
    match value {
        Value::Int(value) => Ok(i128::from(*value)),
        Value::Uint(value) => Ok(i128::from(*value)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn compare_double(one: f64, other: &i128) -> Option<Ordering> {
    if one.is_nan() {
        return None;
    }
    match whole(one.floor()) {
        None if one < 0.0 => Some(Ordering::Less),
        None => Some(Ordering::Greater),
        Some(floor) => Some(match floor.cmp(other) {
            Ordering::Equal if one.fract() != 0.0 => Ordering::Greater,
            order => order,
        }),
    }
}

/// Whether two values are equal; numbers of different types can be, other types cannot.
pub(crate) fn equal(one: &Value<'_>, other: &Value<'_>) -> Result<bool, EvalError> {
    Ok(match (one, other) {
        (Value::Null, Value::Null) => true,
        (Value::Null, _) | (_, Value::Null) => false,
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            compare(one, other).is_ok_and(Ordering::is_eq)
        }
        (Value::List(a), Value::List(b)) => lists_are_equal(a, b)?,
        (Value::Map(a), Value::Map(b)) => maps_are_equal(a, b)?,
        (Value::Struct(a), Value::Struct(b)) => structs_are_equal(a, b)?,
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(a, b)?,
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::Type(a), Value::Type(b)) => a == b,
        (Value::Opaque(a), Value::Opaque(b)) => a.equal(b)?,
        (Value::Opaque(_), _) => return Err(EvalError::no_such_overload()),
        (Value::Unknown(a), Value::Unknown(b)) => a == b,
        (Value::Bool(_), Value::Bool(_))
        | (Value::String(_), Value::String(_))
        | (Value::Bytes(_), Value::Bytes(_))
        | (Value::Duration(_), Value::Duration(_))
        | (Value::Timestamp(_), Value::Timestamp(_)) => compare(one, other)?.is_eq(),
        _ => false,
    })
}

fn lists_are_equal(one: &List<'_>, other: &List<'_>) -> Result<bool, EvalError> {
    if one.len() != other.len() {
        return Ok(false);
    }
    match one.list_type {
        Some(ListType::Set) => {
            let keys = keys_of(one)?;
            for element in other.iter() {
                if !Key::of(&element?).is_some_and(|key| keys.contains(&key)) {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Some(ListType::Map(names)) => {
            let mut by_key = BTreeMap::new();
            for element in one.iter() {
                let element = element?;
                by_key.insert(map_keys(&element, names)?, element);
            }
            for element in other.iter() {
                let element = element?;
                match by_key.get(&map_keys(&element, names)?) {
                    Some(own) if equal(own, &element)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        _ => {
            for (a, b) in one.iter().zip(other.iter()) {
                if !equal(&a?, &b?)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

fn keys_of(list: &List<'_>) -> Result<std::collections::BTreeSet<Key>, EvalError> {
    list.iter().filter_map(|element| element.map(|element| Key::of(&element)).transpose()).collect()
}

/// What an element of a map list is known by.
pub(crate) fn map_keys(element: &Value<'_>, names: &[String]) -> Result<Vec<Option<Key>>, EvalError> {
    let Value::Map(map) = element else {
        let kind = element.type_name();
        let text = format!("unexpected data format for element of array with x-kubernetes-list-type=map: {kind}");
        return Err(EvalError::message(text));
    };
    let key = |name: &String| {
        let escaped = escape(name).unwrap_or_else(|| name.clone());
        Ok(map.find(&Value::text(&escaped))?.and_then(|value| Key::of(&value)))
    };
    names.iter().map(key).collect()
}

fn maps_are_equal(one: &Map<'_>, other: &Map<'_>) -> Result<bool, EvalError> {
    if one.len() != other.len() {
        return Ok(false);
    }
    for key in one.keys() {
        match (one.find(&key)?, other.find(&key)?) {
            (Some(a), Some(b)) if equal(&a, &b)? => {}
            (None, None) => {}
            _ => return Ok(false),
        }
    }
    // Fields that no declaration describes are compared as they are.
    if let (Entries::Json(a, Fields::Object(decl)), Entries::Json(b, _)) = (&one.entries, &other.entries) {
        let unknown = |name: &str| escape(name).is_none_or(|escaped| !decl.fields.contains_key(&escaped));
        return Ok(a
            .iter()
            .filter(|(name, _)| unknown(name))
            .all(|(name, value)| b.get(name).is_none_or(|other| other == value)));
    }
    Ok(true)
}

fn structs_are_equal(one: &Struct<'_>, other: &Struct<'_>) -> Result<bool, EvalError> {
    if one.name != other.name || one.fields.len() != other.fields.len() {
        return Ok(false);
    }
    for (name, value) in &one.fields {
        match other.fields.get(name) {
            Some(own) if equal(value, own)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// `one + other` for lists, by the rules of the first one's type.
pub(crate) fn add_lists<'v>(one: List<'v>, other: List<'v>) -> Result<List<'v>, EvalError> {
    let list_type = one.list_type;
    let (mut items, mut places): (Vec<Value<'v>>, BTreeMap<Vec<Option<Key>>, usize>) = Default::default();
    let keys = |value: &Value<'v>| match list_type {
        Some(ListType::Map(names)) => map_keys(value, names),
        _ => Ok(vec![Key::of(value)]),
    };
    if matches!(list_type, None | Some(ListType::Atomic)) {
        return Ok(one.followed_by(other));
    }
    for element in one.iter() {
        let element = element?;
        places.insert(keys(&element)?, items.len());
        items.push(element);
    }
    for element in other.iter() {
        let element = element?;
        match places.entry(keys(&element)?) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(items.len());
                items.push(element);
            }
            std::collections::btree_map::Entry::Occupied(place) => {
                if let Some(own) = items.get_mut(*place.get()).filter(|_| list_type != Some(&ListType::Set)) {
                    *own = element;
                }
            }
        }
    }
    Ok(List::new(items).with_type(list_type))
}
