//! Applying a strategic merge patch.
//!
//! Lists of objects with a merge key merge item by item, lists of plain values with the merge strategy as
//! sets, other lists are replaced; directives (`$patch`, `$retainKeys`, `$deleteFromPrimitiveList`,
//! `$setElementOrder`) are obeyed and never stored. Items are looked up by their text, so the work grows with the size
//! of the lists and not with its square: both come from outside.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{
    DELETE_FROM_PRIMITIVE_LIST, DIRECTIVE, FieldStrategy, ListStrategy, PatchError, PatchSchema, RETAIN_KEYS,
    SET_ELEMENT_ORDER, strategy_of,
};

/// Applies `patch` to `original`. On error `original` may be half changed: the caller drops it.
pub fn strategic_merge(original: &mut Value, patch: &Value, schema: &dyn PatchSchema) -> Result<(), PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::NotAnObject);
    };
    merge_map(original, patch, Some(schema))
}

enum MapDirective {
    Merge,
    Replace,
    Delete,
}

fn map_directive(patch: &Map<String, Value>) -> Result<MapDirective, PatchError> {
    match patch.get(DIRECTIVE) {
        None => Ok(MapDirective::Merge),
        Some(Value::String(word)) if word == "merge" => Ok(MapDirective::Merge),
        Some(Value::String(word)) if word == "replace" => Ok(MapDirective::Replace),
        Some(Value::String(word)) if word == "delete" => Ok(MapDirective::Delete),
        Some(other) => Err(PatchError::UnknownDirective { field: DIRECTIVE.to_owned(), value: plain(other) }),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn is_directive(key: &str) -> bool {
    key == DIRECTIVE
        || key == RETAIN_KEYS
        || key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
        || key.starts_with(SET_ELEMENT_ORDER)
}

fn merge_map(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<&dyn PatchSchema>,
) -> Result<(), PatchError> {
    match map_directive(patch)? {
        MapDirective::Delete => {
            original.clear();
            return Ok(());
        }
        MapDirective::Replace => original.clear(),
        MapDirective::Merge => {}
    }
    retain_keys(original, patch)?;
    for (key, value) in patch.iter().filter(|(key, _)| !is_directive(key)) {
        merge_field(original, key, value, strategy_of(schema, key))?;
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            delete_from_list(original, field, list_of(key, value)?);
        }
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(SET_ELEMENT_ORDER) {
            let patched = patch.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            set_element_order(original, field, list_of(key, value)?, patched, strategy_of(schema, field))?;
        }
    }
    Ok(())
}

fn list_of<'v>(directive: &str, value: &'v Value) -> Result<&'v [Value], PatchError> {
    value.as_array().map(Vec::as_slice).ok_or_else(|| PatchError::DirectiveNotAList { directive: directive.to_owned() })
}

/// `$retainKeys`: what is not listed goes, and the patch may set only what is listed.
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(listed) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let listed = list_of(RETAIN_KEYS, listed)?;
    let listed_keys: HashSet<&str> = listed.iter().filter_map(Value::as_str).collect();
    let kept = |key: &str| listed_keys.contains(key);
    let stray = patch.iter().find(|(key, value)| !is_directive(key) && !value.is_null() && !kept(key));
    if let Some((key, _)) = stray {
        return Err(PatchError::NotRetained { listed: Value::from(listed).to_string(), key: key.clone() });
    }
    original.retain(|key, _| kept(key));
    Ok(())
}

fn merge_field(
    original: &mut Map<String, Value>,
    key: &str,
    patch: &Value,
    strategy: FieldStrategy<'_>,
) -> Result<(), PatchError> {
    match patch {
        Value::Null => {
            original.remove(key);
        }
        Value::Object(patch) => {
            let deletes = matches!(map_directive(patch)?, MapDirective::Delete);
            if deletes && !original.contains_key(key) {
                return Ok(());
            }
            let slot = original.entry(key.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            if let Value::Object(slot) = slot {
                merge_map(slot, patch, strategy.schema)?;
            }
        }
        Value::Array(items) => {
            let slot = original.entry(key.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
            if !slot.is_array() {
                *slot = Value::Array(Vec::new());
            }
            if let Value::Array(slot) = slot {
                merge_list(slot, items, strategy)?;
            }
        }
        plain => {
            original.insert(key.to_owned(), plain.clone());
        }
    }
    Ok(())
}

fn merge_list(original: &mut Vec<Value>, patch: &[Value], strategy: FieldStrategy<'_>) -> Result<(), PatchError> {
    match strategy.list {
        ListStrategy::Replace => *original = without_directives(patch),
        ListStrategy::MergeAsSet => {
            let mut there: HashSet<String> = original.iter().map(Value::to_string).collect();
            original.extend(patch.iter().filter(|item| there.insert(item.to_string())).cloned());
        }
        ListStrategy::MergeByKey(key) => merge_list_by_key(original, patch, key, strategy.schema)?,
    }
    Ok(())
}

/// A replaced list is stored as it stands, but for items that are nothing but a directive.
fn without_directives(patch: &[Value]) -> Vec<Value> {
    patch.iter().filter(|item| item.get(DIRECTIVE).is_none()).cloned().collect()
}

fn merge_list_by_key(
    original: &mut Vec<Value>,
    patch: &[Value],
    key: &str,
    schema: Option<&dyn PatchSchema>,
) -> Result<(), PatchError> {
    let (mut rest, mut deleted) = (Vec::new(), HashSet::new());
    for item in patch {
        match item.get(DIRECTIVE) {
            None => rest.push(item),
            Some(Value::String(word)) if word == "delete" => {
                deleted.insert(merge_key_of(item, key)?.to_string());
            }
            Some(Value::String(word)) if word == "replace" => original.clear(),
            Some(Value::String(word)) if word == "merge" => rest.push(item),
            Some(other) => {
                return Err(PatchError::UnknownDirective { field: DIRECTIVE.to_owned(), value: plain(other) });
            }
        }
    }
    if !deleted.is_empty() {
        original.retain(|own| own.get(key).is_none_or(|value| !deleted.contains(&value.to_string())));
    }
    let mut places = HashMap::new();
    for (place, own) in original.iter().enumerate() {
        if let Some(value) = own.get(key) {
            places.entry(value.to_string()).or_insert(place);
        }
    }
    for item in rest {
        let value = merge_key_of(item, key)?;
        let patch = item.as_object().ok_or(PatchError::NotAnObject)?;
        let place = *places.entry(value.to_string()).or_insert(original.len());
        match original.get_mut(place) {
            Some(Value::Object(own)) => merge_map(own, patch, schema)?,
            _ => {
                let mut own = Map::new();
                merge_map(&mut own, patch, schema)?;
                original.push(Value::Object(own));
            }
        }
    }
    Ok(())
}

fn merge_key_of<'v>(item: &'v Value, key: &str) -> Result<&'v Value, PatchError> {
    item.get(key).ok_or_else(|| PatchError::NoMergeKey { item: item.to_string(), key: key.to_owned() })
}

fn delete_from_list(original: &mut Map<String, Value>, field: &str, values: &[Value]) {
    if let Some(Value::Array(list)) = original.get_mut(field) {
        let values: HashSet<String> = values.iter().map(Value::to_string).collect();
        list.retain(|item| !values.contains(&item.to_string()));
    }
}

/// What makes two items the same one: the merge key's value, or all of it. `None`: an item without its merge key is
/// like no other.
fn identity(item: &Value, strategy: ListStrategy<'_>) -> Option<String> {
    match strategy {
        ListStrategy::MergeByKey(key) => item.get(key).map(Value::to_string),
        _ => Some(item.to_string()),
    }
}

/// Brings the items named by the directive into its order; items only the server has keep their place
/// relative to each other and, as far as that can be, to the items around them.
fn set_element_order(
    original: &mut Map<String, Value>,
    field: &str,
    order: &[Value],
    patched: &[Value],
    strategy: FieldStrategy<'_>,
) -> Result<(), PatchError> {
    let mut places = HashMap::new();
    for (place, entry) in order.iter().enumerate() {
        if let Some(identity) = identity(entry, strategy.list) {
            places.entry(identity).or_insert(place);
        }
    }
    let position = |item: &Value| identity(item, strategy.list).and_then(|identity| places.get(&identity).copied());
    let stray = patched.iter().find(|item| item.get(DIRECTIVE).is_none() && position(item).is_none());
    if let Some(item) = stray {
        return Err(PatchError::OrderMismatch { field: field.to_owned(), item: item.to_string() });
    }
    let Some(Value::Array(list)) = original.get_mut(field) else { return Ok(()) };
    let live = std::mem::take(list);
    let (mut wanted, server_only): (Vec<_>, Vec<_>) =
        live.into_iter().enumerate().partition(|(_, item)| position(item).is_some());
    wanted.sort_by_cached_key(|(_, item)| position(item));
    *list = interleave(wanted, server_only);
    Ok(())
}

/// Inserts each left-over item before the first later one that stood behind it on the server.
fn interleave(wanted: Vec<(usize, Value)>, server_only: Vec<(usize, Value)>) -> Vec<Value> {
    let mut merged = Vec::with_capacity(wanted.len() + server_only.len());
    let mut server_only = server_only.into_iter().peekable();
    for (place, item) in wanted {
        while let Some((_, own)) = server_only.next_if(|(own_place, _)| *own_place < place) {
            merged.push(own);
        }
        merged.push(item);
    }
    merged.extend(server_only.map(|(_, own)| own));
    merged
}
