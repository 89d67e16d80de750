//! Which old value a new value comes from, and whether it is unchanged.
//!
//! An update is not refused for what it left as it was (Kubernetes' validation ratcheting). Fields correlate by
//! name, items of map lists by their keys; items of other lists do not correlate.

use std::collections::HashMap;

use serde_json::Value;

use super::schema::{ListType, Schema};
use crate::json::get;

/// A new value with the old one it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair<'v> {
    /// As it is wanted.
    pub(crate) new: &'v Value,
    /// As it was.
    pub(crate) old: &'v Value,
    /// The structural schema of both.
    pub(crate) schema: &'v Schema,
}

impl<'v> Pair<'v> {
    /// The pair of a field that both have and the schema knows.
    pub(crate) fn key(&self, name: &str) -> Option<Pair<'v>> {
        let (new, old) = (self.new.as_object()?.get(name)?, self.old.as_object()?.get(name)?);
        Some(Pair { new, old, schema: self.schema.field(name)? })
    }

    /// The old items by which new items are found.
    pub(crate) fn items(&self) -> OldItems<'v> {
        OldItems::of(self.schema, self.old)
    }

    /// The pair of an item; `old` is what [`Pair::items`] gave.
    pub(crate) fn item(&self, index: usize, old: &OldItems<'v>) -> Option<Pair<'v>> {
        let new = self.new.as_array()?.get(index)?;
        let schema = self.schema.items.as_deref()?;
        Some(Pair { new, old: old.get(new)?, schema })
    }

    /// Whether nothing changed, the order of map lists aside.
    pub(crate) fn equal(&self) -> bool {
        match (self.new, self.old) {
            (Value::Array(new), Value::Array(old)) => {
                if !matches!(self.schema.list_type, ListType::Map(_)) {
                    return new == old;
                }
                let items = self.items();
                new.len() == old.len()
                    && (0..new.len()).all(|index| self.item(index, &items).is_some_and(|pair| pair.equal()))
            }
            (Value::Object(new), Value::Object(old)) => {
                new.len() == old.len() && new.keys().all(|name| self.key(name).is_some_and(|pair| pair.equal()))
            }
            (new, old) => new == old,
        }
    }
}

/// The old items of a map list by their keys; empty for other lists.
#[derive(Debug, Default)]
pub(crate) struct OldItems<'v> {
    keys: &'v [String],
    by_key: HashMap<String, &'v Value>,
}

impl<'v> OldItems<'v> {
    fn of(schema: &'v Schema, old: &'v Value) -> Self {
        let (ListType::Map(keys), Value::Array(items)) = (&schema.list_type, old) else { return Self::default() };
        let mut by_key = HashMap::with_capacity(items.len());
        for item in items.iter().filter(|item| item.is_object()) {
            by_key.entry(key_of(keys, item)).or_insert(item);
        }
        Self { keys, by_key }
    }

    fn get(&self, new: &Value) -> Option<&'v Value> {
        if self.by_key.is_empty() || !new.is_object() {
            return None;
        }
        self.by_key.get(&key_of(self.keys, new)).copied()
    }
}

/// The values of the keys as one text.
fn key_of(keys: &[String], item: &Value) -> String {
    let values: Vec<_> = keys.iter().map(|key| get(item, key).to_string()).collect();
    values.join("\u{0}")
}
