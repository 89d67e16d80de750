//! Merging an applied configuration into an object: nothing goes away, what both have is the configuration's.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::PathElement;
use super::items::{Complaints, Misfits, element_of};
use super::schema::{Atom, ListKind, ListRule, MapRule, MergeSchema};
use super::validate;

/// The object with the configuration laid over it.
///
/// # Errors
/// When items of merged lists cannot be told apart, or values are not what the schema says.
pub fn merge(schema: &dyn MergeSchema, live: &Value, config: &Value) -> Result<Value, Misfits> {
    let mut walk = Walk::default();
    let out = walk.value(schema, Some(live), Some(config));
    walk.complaints.finish()?;
    Ok(out.unwrap_or(Value::Null))
}

#[derive(Default)]
struct Walk {
    complaints: Complaints,
}

impl Walk {
    fn value(&mut self, schema: &dyn MergeSchema, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
        let Some(config) = config else { return live.cloned() };
        match schema.rule().atom(Some(config)) {
            Atom::Scalar(scalar) => {
                let wrong = |value| validate::wrong_scalar(scalar, value);
                if let (Some(left), Some(right)) = (live.and_then(wrong), wrong(config)) {
                    self.complaints.add(format!("lhs: {left}"));
                    self.complaints.add(format!("rhs: {right}"));
                }
                Some(config.clone())
            }
            Atom::List(rule) => {
                let items = |value: Option<&'_ Value>| value.and_then(Value::as_array).is_none_or(Vec::is_empty);
                if matches!(rule.kind, ListKind::Atomic) || (items(live) && items(Some(config))) {
                    return Some(config.clone());
                }
                self.list(rule, live, config)
            }
            Atom::Map(rule) => {
                let empty = |value: Option<&'_ Value>| value.and_then(Value::as_object).is_none_or(Map::is_empty);
                if rule.atomic || (empty(live) && empty(Some(config))) {
                    return Some(config.clone());
                }
                self.map(rule, live.and_then(Value::as_object), config.as_object())
            }
        }
    }

    fn map(
        &mut self,
        rule: MapRule<'_>,
        live: Option<&Map<String, Value>>,
        config: Option<&Map<String, Value>>,
    ) -> Option<Value> {
        let mut out = live.cloned().unwrap_or_default();
        for (key, value) in config.into_iter().flatten() {
            let Some(schema) = rule.at(key) else { continue };
            let mark = self.complaints.mark();
            if let Some(merged) = self.value(schema, live.and_then(|live| live.get(key)), Some(value)) {
                out.insert(key.clone(), merged);
            }
            if self.complaints.mark() > mark {
                self.complaints.under(mark, &PathElement::Field(key.clone()));
            }
        }
        (!out.is_empty()).then_some(Value::Object(out))
    }

    fn list(&mut self, rule: ListRule<'_>, live: Option<&Value>, config: &Value) -> Option<Value> {
        let items = |value: &'_ Value| value.as_array().cloned().unwrap_or_default();
        let (live, config) = (live.map(items).unwrap_or_default(), items(config));
        let mark = self.complaints.mark();
        let right = self.told_apart(rule, &config, false);
        let left = self.told_apart(rule, &live, true);
        if self.complaints.mark() > mark {
            return None;
        }
        let out = self.interleave(rule, &left, &right);
        (!out.is_empty()).then_some(Value::Array(out))
    }

    fn told_apart<'v>(&mut self, rule: ListRule<'_>, items: &'v [Value], duplicates: bool) -> Items<'v> {
        let mut out = Items::default();
        for (at, item) in items.iter().enumerate() {
            match element_of(rule.kind, item) {
                Ok(element) => {
                    let known = out.by_element.contains_key(&element);
                    if known && !duplicates {
                        self.complaints.add(format!("duplicate entries for key {element}"));
                        continue;
                    }
                    // Items that stand twice are not merged with anything.
                    out.by_element.insert(element.clone(), (!known).then_some(item));
                    out.order.push((element, item));
                }
                Err(why) => self.complaints.add(format!("element {at}: {why}")),
            }
        }
        out
    }

    /// Items of both lists in one order: the configuration's, with the items that only the object has kept beside
    /// their neighbours.
    fn interleave(&mut self, rule: ListRule<'_>, left: &Items<'_>, right: &Items<'_>) -> Vec<Value> {
        let mut out = Vec::with_capacity(left.order.len().max(right.order.len()));
        let mut shared = right.order.iter().map(|(element, _)| element).filter(|element| left.has(element));
        let mut next_shared = shared.next();
        let mut done: BTreeSet<&PathElement> = BTreeSet::new();
        let (mut l, mut r) = (0, 0);
        while l < left.order.len() || r < right.order.len() {
            if let (Some((mine, _)), Some((theirs, _))) = (left.order.get(l), right.order.get(r)) {
                if mine == theirs {
                    done.insert(theirs);
                    out.extend(self.value(rule.items, left.get(mine), right.get(mine)));
                    l += 1;
                    r += 1;
                    next_shared = shared.next();
                    continue;
                }
                if right.has(mine) && next_shared.is_some_and(|next| next != mine) {
                    // Shared, but not the one that is next.
                    l += 1;
                    continue;
                }
            }
            if let Some((mine, item)) = left.order.get(l) {
                if !right.has(mine) {
                    out.push((*item).clone());
                    l += 1;
                    continue;
                }
                if done.contains(mine) {
                    l += 1;
                }
            }
            if let Some((theirs, item)) = right.order.get(r) {
                done.insert(theirs);
                out.extend(self.value(rule.items, left.get(theirs), Some(*item)));
                r += 1;
                if next_shared == Some(theirs) {
                    next_shared = shared.next();
                }
            }
        }
        out
    }
}

/// The items of a list with what they are told apart by.
#[derive(Default)]
struct Items<'v> {
    order: Vec<(PathElement, &'v Value)>,
    by_element: BTreeMap<PathElement, Option<&'v Value>>,
}

impl<'v> Items<'v> {
    fn has(&self, element: &PathElement) -> bool {
        self.by_element.contains_key(element)
    }

    fn get(&self, element: &PathElement) -> Option<&'v Value> {
        self.by_element.get(element).copied().flatten()
    }
}
