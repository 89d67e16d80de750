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
    SET_ELEMENT_ORDER, go_text, go_type, strategy_of,
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
        Some(other) => Err(unknown(other, patch)),
    }
}

fn unknown(directive: &Value, map: &Map<String, Value>) -> PatchError {
    let value = match directive {
        Value::String(word) => word.clone(),
        // Go's way of showing what is no text where a text should be.
        other => format!("%!s({}={})", go_type(other), go_text(other)),
    };
    PatchError::UnknownDirective { value, map: go_text(&Value::Object(map.clone())) }
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
    // Lists that come with an order are merged first, by it.
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(SET_ELEMENT_ORDER) {
            let patched = patch.get(field).filter(|value| !value.is_null());
            set_element_order(original, field, list_of(value)?, patched, strategy_of(schema, field))?;
        }
    }
    let ordered = |key: &str| patch.get(key).is_some_and(Value::is_array) && patch.contains_key(&order_of(key));
    for (key, value) in patch.iter().filter(|(key, _)| !is_directive(key) && !ordered(key)) {
        merge_field(original, key, value, strategy_of(schema, key))?;
    }
    for (key, value) in patch {
        if let (Some(field), Value::Array(values)) = (key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST), value) {
            delete_from_list(original, field, values)?;
        }
    }
    Ok(())
}

fn order_of(field: &str) -> String {
    format!("{SET_ELEMENT_ORDER}{field}")
}

fn list_of(value: &Value) -> Result<&[Value], PatchError> {
    let wrong = PatchError::WrongType { expected: "[]interface {}", received: go_type(value) };
    value.as_array().map(Vec::as_slice).ok_or(wrong)
}

/// `$retainKeys`: what is not listed goes, and the patch may set only what is listed.
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), PatchError> {
    let Some(listed) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(listed) = listed else { return Err(PatchError::BadRetainKeys) };
    let listed_keys: HashSet<&str> = listed.iter().filter_map(Value::as_str).collect();
    let kept = |key: &str| listed_keys.contains(key);
    if patch.iter().any(|(key, value)| !is_directive(key) && !value.is_null() && !kept(key)) {
        return Err(PatchError::BadRetainKeys);
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
        Value::Object(patch) if original.get(key).is_some_and(Value::is_object) => {
            if let Some(Value::Object(slot)) = original.get_mut(key) {
                merge_map(slot, patch, strategy.schema)?;
            }
        }
        Value::Array(items) if original.get(key).is_some_and(Value::is_array) => {
            if let Some(Value::Array(slot)) = original.get_mut(key) {
                merge_list(slot, items, strategy)?;
            }
        }
        new => match taken_over(new) {
            Some(value) => {
                original.insert(key.to_owned(), value);
            }
            None => {
                original.remove(key);
            }
        },
    }
    Ok(())
}

/// What a patch brings where there was nothing of its type: it is not merged with anything, so its lists need no keys.
/// Objects with a directive say nothing but the directive; nulls in objects have nothing to remove.
fn taken_over(new: &Value) -> Option<Value> {
    match new {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let fields = map.iter().filter(|(_, value)| !value.is_null());
            let fields = fields.filter_map(|(key, value)| Some((key.clone(), taken_over(value)?)));
            Some(Value::Object(fields.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.iter().filter_map(taken_over).collect())),
        plain => Some(plain.clone()),
    }
}

fn merge_list(original: &mut Vec<Value>, patch: &[Value], strategy: FieldStrategy<'_>) -> Result<(), PatchError> {
    if strategy.list == ListStrategy::Replace {
        *original = without_directives(patch);
        return Ok(());
    }
    check_items(original, patch)?;
    let mut server = places(original, strategy.list);
    match strategy.list {
        ListStrategy::Replace => {}
        ListStrategy::MergeAsSet => {
            let mut there: HashSet<String> = original.iter().map(Value::to_string).collect();
            original.extend(patch.iter().filter(|item| there.insert(item.to_string())).cloned());
        }
        ListStrategy::MergeByKey(key) => {
            if patch.iter().any(|item| item.get(DIRECTIVE).is_some_and(|word| word == "replace")) {
                server.clear();
            }
            merge_list_by_key(original, patch, key, strategy.schema)?;
        }
    }
    let named: Vec<Value> = patch.iter().filter(|item| item.get(DIRECTIVE).is_none()).cloned().collect();
    reorder(original, &places(&named, strategy.list), &server, strategy.list);
    Ok(())
}

/// All items of a merged list and of its patch are objects, or none is.
fn check_items(original: &[Value], patch: &[Value]) -> Result<(), PatchError> {
    let mut all = original.iter().chain(patch);
    let Some(first) = all.next() else { return Ok(()) };
    if all.any(|item| std::mem::discriminant(item) != std::mem::discriminant(first)) {
        let list = |items: &[Value]| go_text(&Value::Array(items.to_vec()));
        return Err(PatchError::MixedItems { lists: format!("[{} {}]", list(original), list(patch)) });
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
            Some(Value::String(word)) if word == "merge" => return Err(PatchError::MergingItem),
            Some(other) => return Err(unknown(other, item.as_object().unwrap_or(&Map::new()))),
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
    item.get(key).ok_or_else(|| PatchError::NoMergeKey { item: go_text(item), key: key.to_owned() })
}

fn delete_from_list(original: &mut Map<String, Value>, field: &str, values: &[Value]) -> Result<(), PatchError> {
    if let Some(Value::Array(list)) = original.get_mut(field) {
        check_items(list, values)?;
        let values: HashSet<String> = values.iter().map(Value::to_string).collect();
        list.retain(|item| !values.contains(&item.to_string()));
    }
    Ok(())
}

/// What makes two items the same one: the merge key's value, or all of it. `None`: an item without its merge key is
/// like no other.
fn identity(item: &Value, strategy: ListStrategy<'_>) -> Option<String> {
    match strategy {
        ListStrategy::MergeByKey(key) => item.get(key).map(Value::to_string),
        _ => Some(item.to_string()),
    }
}

/// Where each item stands.
fn places(items: &[Value], strategy: ListStrategy<'_>) -> HashMap<String, usize> {
    let mut places = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        if let Some(identity) = identity(item, strategy) {
            places.entry(identity).or_insert(place);
        }
    }
    places
}

/// Merges the list and brings the items named by the directive into its order.
fn set_element_order(
    original: &mut Map<String, Value>,
    field: &str,
    order: &[Value],
    patched: Option<&Value>,
    strategy: FieldStrategy<'_>,
) -> Result<(), PatchError> {
    if let ListStrategy::MergeByKey(key) = strategy.list {
        order.iter().try_for_each(|entry| merge_key_of(entry, key).map(drop))?;
    }
    let patched = match patched {
        Some(patched) => list_of(patched)?,
        None => &[],
    };
    check_order(patched, order, strategy.list)?;
    let server = match original.get(field) {
        Some(Value::Array(list)) => places(list, strategy.list),
        _ if patched.is_empty() => return Ok(()),
        _ => HashMap::new(),
    };
    if !patched.is_empty() {
        merge_field(original, field, &Value::Array(patched.to_vec()), strategy)?;
    }
    if let Some(Value::Array(list)) = original.get_mut(field) {
        reorder(list, &places(order, strategy.list), &server, strategy.list);
    }
    Ok(())
}

/// The patch names its items in the order of the directive.
fn check_order(patched: &[Value], order: &[Value], strategy: ListStrategy<'_>) -> Result<(), PatchError> {
    let kept: Vec<&Value> =
        patched.iter().filter(|item| item.get(DIRECTIVE).is_none_or(|word| word != "delete")).collect();
    let mut rest = kept.iter().map(|item| identity(item, strategy)).peekable();
    for entry in order {
        let entry = identity(entry, strategy);
        rest.next_if(|item| *item == entry);
    }
    if rest.peek().is_none() {
        return Ok(());
    }
    let kept = Value::Array(kept.into_iter().cloned().collect());
    Err(PatchError::OrderMismatch { patch: go_text(&kept), order: go_text(&Value::Array(order.to_vec())) })
}

/// The items that `order` names, in its order, and the others as the server had them. An item that the server did not
/// have stands before the others that are left.
fn reorder(
    list: &mut Vec<Value>,
    order: &HashMap<String, usize>,
    server: &HashMap<String, usize>,
    strategy: ListStrategy<'_>,
) {
    let place = |places: &HashMap<String, usize>, item: &Value| {
        identity(item, strategy).and_then(|identity| places.get(&identity).copied())
    };
    let (mut named, mut others): (Vec<_>, Vec<_>) =
        std::mem::take(list).into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_cached_key(|item| place(order, item));
    others.sort_by_cached_key(|item| place(server, item));
    list.reserve(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let own = place(server, &item);
        while let Some(other) =
            others.next_if(|other| matches!((place(server, other), own), (Some(a), Some(b)) if a < b))
        {
            list.push(other);
        }
        list.push(item);
    }
    list.extend(others);
}
