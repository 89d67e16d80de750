//! Making patches: what `kubectl apply` (three-way) and `kubectl edit` (two-way) send.

use serde_json::{Map, Value};

use super::{
    DELETE_FROM_PRIMITIVE_LIST, DIRECTIVE, FieldStrategy, ListStrategy, PatchError, PatchSchema, RETAIN_KEYS,
    SET_ELEMENT_ORDER, strategy_of,
};

/// The strategic merge patch that turns `original` into `modified`; an empty object when they are equal.
pub fn create_two_way(original: &Value, modified: &Value, schema: &dyn PatchSchema) -> Result<Value, PatchError> {
    let diff = Diff { additions: true, deletions: true };
    diff.maps(object(original)?, object(modified)?, Some(schema), false).map(Value::Object)
}

/// The strategic merge patch of `kubectl apply`: adds and changes what differs between `current` (live) and
/// `modified` (wanted), deletes what `original` (last applied) has and `modified` has not.
pub fn create_three_way(
    original: &Value,
    modified: &Value,
    current: &Value,
    schema: &dyn PatchSchema,
) -> Result<Value, PatchError> {
    let changes = Diff { additions: true, deletions: false };
    let deletions = Diff { additions: false, deletions: true };
    let delta = changes.maps(object(current)?, object(modified)?, Some(schema), false)?;
    let mut patch = deletions.maps(object(original)?, object(modified)?, Some(schema), false)?;
    unite(&mut patch, delta, Some(schema));
    Ok(Value::Object(patch))
}

/// The JSON merge patch that turns `original` into `modified`.
#[must_use]
pub fn create_two_way_json(original: &Value, modified: &Value) -> Value {
    json_diff(original, modified, true, true).unwrap_or_else(|| Value::Object(Map::new()))
}

/// As [`create_three_way`], as a JSON merge patch: for kinds without a schema (custom resources).
#[must_use]
pub fn create_three_way_json(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = json_diff(original, modified, false, true).unwrap_or_else(|| Value::Object(Map::new()));
    if let Some(delta) = json_diff(current, modified, true, false) {
        unite_json(&mut patch, delta);
    }
    patch
}

fn object(value: &Value) -> Result<&Map<String, Value>, PatchError> {
    value.as_object().ok_or(PatchError::NotAnObject)
}

fn json_diff(original: &Value, modified: &Value, additions: bool, deletions: bool) -> Option<Value> {
    let (Value::Object(original), Value::Object(modified)) = (original, modified) else {
        return (additions && original != modified).then(|| modified.clone());
    };
    let mut patch = Map::new();
    for key in original.keys().filter(|key| deletions && !modified.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in modified {
        let change = match original.get(key) {
            Some(own) => json_diff(own, value, additions, deletions),
            None => additions.then(|| value.clone()),
        };
        if let Some(change) = change {
            patch.insert(key.clone(), change);
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Lays `delta` over `patch` without reading `null` as a deletion: both are patches.
fn unite_json(patch: &mut Value, delta: Value) {
    match (patch, delta) {
        (Value::Object(patch), Value::Object(delta)) => {
            for (key, value) in delta {
                match patch.get_mut(&key) {
                    Some(own) => unite_json(own, value),
                    None => {
                        patch.insert(key, value);
                    }
                }
            }
        }
        (patch, delta) => *patch = delta,
    }
}

/// As [`unite_json`], but lists that merge are joined: the delta's items first, then the deletions.
fn unite(patch: &mut Map<String, Value>, delta: Map<String, Value>, schema: Option<&dyn PatchSchema>) {
    for (key, value) in delta {
        let strategy = strategy_of(schema, &key);
        match (patch.get_mut(&key), value) {
            (Some(Value::Object(own)), Value::Object(value)) => unite(own, value, strategy.schema),
            (Some(Value::Array(own)), Value::Array(value)) if mergeable(&key, strategy) => {
                unite_items(own, value, strategy);
            }
            (_, value) => {
                patch.insert(key, value);
            }
        }
    }
}

fn mergeable(key: &str, strategy: FieldStrategy<'_>) -> bool {
    !key.starts_with('$') && strategy.list != ListStrategy::Replace
}

/// Two patches of one merged list may both speak of one item: one deletes fields of it, the other adds some.
fn unite_items(own: &mut Vec<Value>, delta: Vec<Value>, strategy: FieldStrategy<'_>) {
    let deletions = std::mem::take(own);
    *own = delta;
    for item in deletions {
        let twin = match strategy.list {
            ListStrategy::MergeByKey(key) => {
                own.iter_mut().find(|other| other.get(key).is_some() && other.get(key) == item.get(key))
            }
            _ => None,
        };
        match (twin, item) {
            (Some(Value::Object(twin)), Value::Object(mut item)) => {
                unite(&mut item, std::mem::take(twin), strategy.schema);
                *twin = item;
            }
            (_, item) => own.push(item),
        }
    }
}

/// What a comparison looks for.
#[derive(Clone, Copy)]
struct Diff {
    additions: bool,
    deletions: bool,
}

impl Diff {
    fn maps(
        self,
        original: &Map<String, Value>,
        modified: &Map<String, Value>,
        schema: Option<&dyn PatchSchema>,
        retain_keys: bool,
    ) -> Result<Map<String, Value>, PatchError> {
        let mut patch = Map::new();
        for key in original.keys().filter(|key| self.deletions && !modified.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
        for (key, value) in modified {
            match original.get(key) {
                None if self.additions => {
                    patch.insert(key.clone(), value.clone());
                }
                None => {}
                Some(own) => self.field(&mut patch, key, (own, value), strategy_of(schema, key))?,
            }
        }
        if retain_keys && !patch.is_empty() {
            let keys = modified.keys().cloned().map(Value::String).collect();
            patch.insert(RETAIN_KEYS.to_owned(), Value::Array(keys));
        }
        Ok(patch)
    }

    fn field(
        self,
        patch: &mut Map<String, Value>,
        key: &str,
        (original, modified): (&Value, &Value),
        strategy: FieldStrategy<'_>,
    ) -> Result<(), PatchError> {
        match (original, modified) {
            (Value::Object(original), Value::Object(modified)) => {
                let inner = self.maps(original, modified, strategy.schema, strategy.retain_keys)?;
                if !inner.is_empty() {
                    patch.insert(key.to_owned(), Value::Object(inner));
                }
            }
            (Value::Array(original), Value::Array(modified)) => match strategy.list {
                ListStrategy::MergeByKey(merge_key) => {
                    self.lists_by_key(patch, key, (original, modified), (merge_key, strategy.schema))?;
                }
                ListStrategy::MergeAsSet => self.sets(patch, key, original, modified),
                ListStrategy::Replace if self.additions && original != modified => {
                    patch.insert(key.to_owned(), Value::Array(modified.clone()));
                }
                ListStrategy::Replace => {}
            },
            _ if self.additions && original != modified => {
                patch.insert(key.to_owned(), modified.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn sets(self, patch: &mut Map<String, Value>, key: &str, original: &[Value], modified: &[Value]) {
        let added: Vec<_> = modified.iter().filter(|item| !original.contains(item)).cloned().collect();
        let deleted: Vec<_> = original.iter().filter(|item| !modified.contains(item)).cloned().collect();
        let changed = (self.additions && !added.is_empty()) || (self.deletions && !deleted.is_empty());
        if self.additions && !added.is_empty() {
            patch.insert(key.to_owned(), Value::Array(added));
        }
        if self.deletions && !deleted.is_empty() {
            patch.insert(format!("{DELETE_FROM_PRIMITIVE_LIST}{key}"), Value::Array(deleted));
        }
        if changed {
            patch.insert(format!("{SET_ELEMENT_ORDER}{key}"), Value::Array(modified.to_vec()));
        }
    }

    fn lists_by_key(
        self,
        patch: &mut Map<String, Value>,
        key: &str,
        (original, modified): (&[Value], &[Value]),
        (merge_key, schema): (&str, Option<&dyn PatchSchema>),
    ) -> Result<(), PatchError> {
        let mut items = Vec::new();
        for item in modified {
            let value = merge_value(item, merge_key)?;
            match original.iter().find(|own| own.get(merge_key) == Some(value)) {
                None if self.additions => items.push(item.clone()),
                None => {}
                Some(own) => {
                    let mut inner = self.maps(object(own)?, object(item)?, schema, false)?;
                    if !inner.is_empty() {
                        inner.insert(merge_key.to_owned(), value.clone());
                        items.push(Value::Object(inner));
                    }
                }
            }
        }
        for own in original.iter().filter(|_| self.deletions) {
            let value = merge_value(own, merge_key)?;
            if !modified.iter().any(|item| item.get(merge_key) == Some(value)) {
                items.push(serde_json::json!({ merge_key: value, DIRECTIVE: "delete" }));
            }
        }
        let reordered = self.additions && order_differs(original, modified, merge_key);
        if !items.is_empty() || reordered {
            let order = modified.iter().filter_map(|item| item.get(merge_key));
            let order = order.map(|value| serde_json::json!({ merge_key: value })).collect();
            patch.insert(format!("{SET_ELEMENT_ORDER}{key}"), Value::Array(order));
        }
        if !items.is_empty() {
            patch.insert(key.to_owned(), Value::Array(items));
        }
        Ok(())
    }
}

fn merge_value<'v>(item: &'v Value, key: &str) -> Result<&'v Value, PatchError> {
    item.get(key).ok_or_else(|| PatchError::NoMergeKey { item: super::go_text(item), key: key.to_owned() })
}

fn order_differs(original: &[Value], modified: &[Value], key: &str) -> bool {
    let common = |from: &'_ [Value], in_: &'_ [Value]| -> Vec<Value> {
        from.iter()
            .filter_map(|item| item.get(key))
            .filter(|value| in_.iter().any(|item| item.get(key) == Some(value)))
            .cloned()
            .collect()
    };
    common(original, modified) != common(modified, original)
}
