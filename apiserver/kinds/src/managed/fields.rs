//! The fields of a value as a set, and a value without the fields of a set.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::PathElement;
use super::items::element_of;
use super::schema::{Atom, ListKind, ListRule, MapRule, MergeSchema, Rule};
use super::set::Set;

/// Every leaf and every item of a merged list that a value has.
#[must_use]
pub fn field_set(schema: &dyn MergeSchema, value: &Value) -> Set {
    walk(schema, value).1
}

/// Whether the value itself is a field, and the fields below it.
fn walk(schema: &dyn MergeSchema, value: &Value) -> (bool, Set) {
    match schema.rule().atom(Some(value)) {
        Atom::Scalar(_) => (true, Set::default()),
        Atom::List(ListRule { kind: ListKind::Atomic, .. }) | Atom::Map(MapRule { atomic: true, .. }) => {
            (true, Set::default())
        }
        Atom::List(rule) => (false, items(rule, value.as_array().map(Vec::as_slice).unwrap_or_default())),
        Atom::Map(rule) => (false, value.as_object().map(|map| entries(rule, map)).unwrap_or_default()),
    }
}

fn entries(rule: MapRule<'_>, map: &Map<String, Value>) -> Set {
    let mut set = Set::default();
    for (key, value) in map {
        let Some(schema) = rule.at(key) else { continue };
        let (own, below) = walk(schema, value);
        let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        let element = PathElement::Field(key.clone());
        if own || is_empty || rule.fields.field(key).is_none() {
            set.members.push(element.clone());
        }
        set.add_child(&element, below);
    }
    set
}

fn items(rule: ListRule<'_>, items: &[Value]) -> Set {
    let mut all: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = element_of(rule.kind, item) {
            all.entry(element).or_default().push(item);
        }
    }
    let mut set = Set::default();
    for (element, twins) in all {
        // Items that stand twice are one field.
        let below = if let [only] = twins[..] { walk(rule.items, only).1 } else { Set::default() };
        set.members.push(element.clone());
        set.add_child(&element, below);
    }
    set
}

/// The set with the named fields that lie on the way to its fields: an object's field is then there as well, a map's
/// key is not.
#[must_use]
pub fn with_named_fields(schema: Option<&dyn MergeSchema>, set: &Set) -> Set {
    let rule = schema.map(MergeSchema::rule);
    let mut out = Set { members: set.members.clone(), children: Vec::with_capacity(set.children.len()) };
    for (element, below) in &set.children {
        let mut under = None;
        match (element, rule) {
            (PathElement::Field(name), Some(rule)) => {
                if let Atom::Map(map) = rule.atom(None) {
                    under = map.at(name);
                    if map.fields.field(name).is_some() {
                        out.insert(std::slice::from_ref(element));
                    }
                }
            }
            (PathElement::Key(_), Some(Rule::List(list) | Rule::Either { list, .. })) => under = Some(list.items),
            _ => {}
        }
        out.children.push((element.clone(), with_named_fields(under, below)));
    }
    out
}

/// The value without the fields of the set. What becomes empty by that stays, empty.
#[must_use]
pub fn remove(schema: &dyn MergeSchema, value: &Value, set: &Set) -> Value {
    match schema.rule().atom(Some(value)) {
        Atom::Scalar(_) => value.clone(),
        Atom::List(ListRule { kind: ListKind::Atomic, .. }) | Atom::Map(MapRule { atomic: true, .. }) => Value::Null,
        Atom::List(rule) => match value.as_array() {
            Some(items) if !items.is_empty() => remove_items(rule, items, set),
            _ => Value::Null,
        },
        Atom::Map(rule) => match value.as_object() {
            Some(map) if !map.is_empty() => remove_entries(rule, map, set),
            _ => Value::Null,
        },
    }
}

/// What is left of a value when some fields below it go.
fn thinned(schema: &dyn MergeSchema, value: &Value, set: &Set) -> Value {
    match (remove(schema, value, set), value) {
        (Value::Null, Value::Object(_)) => Value::Object(Map::new()),
        (Value::Null, Value::Array(_)) => Value::Array(Vec::new()),
        (left, _) => left,
    }
}

fn remove_items(rule: ListRule<'_>, items: &[Value], set: &Set) -> Value {
    let (mut out, mut touched) = (Vec::with_capacity(items.len()), false);
    for item in items {
        let Ok(element) = element_of(rule.kind, item) else {
            out.push(item.clone());
            continue;
        };
        if set.has_member(&element) {
            continue;
        }
        match set.child(&element).filter(|below| !below.is_empty()) {
            Some(below) => {
                touched = true;
                out.push(thinned(rule.items, item, below));
            }
            None => out.push(item.clone()),
        }
    }
    if out.is_empty() && !touched { Value::Null } else { Value::Array(out) }
}

fn remove_entries(rule: MapRule<'_>, map: &Map<String, Value>, set: &Set) -> Value {
    let (mut out, mut touched) = (Map::new(), false);
    for (key, value) in map {
        let element = PathElement::Field(key.clone());
        if set.has_member(&element) {
            continue;
        }
        let below = set.child(&element).filter(|below| !below.is_empty());
        let left = match (below, rule.at(key)) {
            (Some(below), Some(schema)) => {
                touched = true;
                thinned(schema, value, below)
            }
            _ => value.clone(),
        };
        out.insert(key.clone(), left);
    }
    if out.is_empty() && !touched { Value::Null } else { Value::Object(out) }
}
