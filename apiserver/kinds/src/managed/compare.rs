//! What differs between two states of an object: fields added, modified and removed.
//!
//! Equal parts are passed over without building anything, so that the usual update, which changes a few fields,
//! costs little more than looking at each value once.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::{PathElement, equal};
use super::items::{Complaints, Misfits, element_of};
use super::schema::{Atom, ListKind, ListRule, MapRule, MergeSchema};
use super::set::Set;
use super::validate;

/// What has changed from one state to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Fields that were there and are gone.
    pub removed: Set,
    /// Fields that were there and have another value.
    pub modified: Set,
    /// Fields that were not there.
    pub added: Set,
}

impl Comparison {
    /// Whether nothing has changed.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// The same without some fields and all below them.
    #[must_use]
    pub fn without(self, fields: &Set) -> Self {
        if fields.is_empty() {
            return self;
        }
        Self {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }
}

/// Compares two states of an object of the kind.
///
/// # Errors
/// When items of merged lists cannot be told apart, or values are not what the schema says.
pub fn compare(schema: &dyn MergeSchema, from: &Value, to: &Value) -> Result<Comparison, Misfits> {
    compare_sides(schema, Side::There(from), Side::There(to), false)
}

/// Compares an object with what merging a configuration has made of it: what came from there has no fields but those
/// that the configuration names.
///
/// # Errors
/// As [`compare`].
pub fn compare_merged(schema: &dyn MergeSchema, from: &Value, merged: &Value) -> Result<Comparison, Misfits> {
    compare_sides(schema, Side::There(from), Side::There(merged), true)
}

/// Compares the state of an object that has just been made empty with a state of it.
///
/// # Errors
/// As [`compare`].
pub fn compare_with_empty(schema: &dyn MergeSchema, to: &Value) -> Result<Comparison, Misfits> {
    compare_sides(schema, Side::Zero, Side::There(to), false)
}

fn compare_sides(
    schema: &dyn MergeSchema,
    from: Side<'_>,
    to: Side<'_>,
    is_merged: bool,
) -> Result<Comparison, Misfits> {
    let mut walk = Walk { complaints: Complaints::default(), is_merged };
    let found = walk.value(schema, from, to);
    walk.complaints.finish()?;
    Ok(Comparison { removed: found.removed.set, modified: found.modified.set, added: found.added.set })
}

/// One of the two values at a place.
#[derive(Clone, Copy)]
enum Side<'v> {
    /// Nothing.
    Absent,
    /// What a Go object holds in a field that nobody has set.
    Zero,
    There(&'v Value),
}

impl<'v> Side<'v> {
    fn first(items: &[&'v Value]) -> Self {
        items.first().map_or(Self::Absent, |item| Self::There(item))
    }

    fn value(self) -> Option<&'v Value> {
        match self {
            Self::There(value) => Some(value),
            _ => None,
        }
    }

    fn is_absent(self) -> bool {
        matches!(self, Self::Absent)
    }

    fn map(self) -> Option<&'v Map<String, Value>> {
        self.value().and_then(Value::as_object)
    }

    fn items(self) -> &'v [Value] {
        self.value().and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// What is under a key of a map. A field that is always held is never absent where its owner is there.
    fn under(self, key: &str, held: bool) -> Self {
        match (self, self.map().and_then(|map| map.get(key))) {
            (_, Some(value)) => Self::There(value),
            (Self::Absent, None) => Self::Absent,
            (_, None) if held && !matches!(self, Self::There(Value::Null)) => Self::Zero,
            _ => Self::Absent,
        }
    }

    fn is_empty_map(self, rule: MapRule<'_>) -> bool {
        match self {
            Self::Absent | Self::There(Value::Null) => true,
            Self::Zero => rule.fields.held().is_empty(),
            Self::There(value) => value.as_object().is_none_or(Map::is_empty) && rule.fields.held().is_empty(),
        }
    }
}

fn is_same(from: Side<'_>, to: Side<'_>) -> bool {
    match (from, to) {
        (Side::There(from), Side::There(to)) => equal(from, to),
        (Side::There(value), Side::Zero) | (Side::Zero, Side::There(value)) => is_zero(value),
        _ => true,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        // Go tells a list with nothing in it from none.
        Value::Array(_) => false,
        Value::Object(map) => map.is_empty(),
    }
}

/// Fields at and below one place.
#[derive(Default)]
struct Place {
    own: bool,
    set: Set,
}

impl Place {
    /// Puts a place below this one; places come in order.
    fn put(&mut self, element: &PathElement, below: Self) {
        if below.own {
            self.set.members.push(element.clone());
        }
        self.set.add_child(element, below.set);
    }

    fn is_empty(&self) -> bool {
        !self.own && self.set.is_empty()
    }

    fn unite(&mut self, other: &Self) {
        self.own |= other.own;
        if !other.set.is_empty() {
            self.set = self.set.union(&other.set);
        }
    }
}

/// What was found at and below one place.
#[derive(Default)]
struct Found {
    removed: Place,
    modified: Place,
    added: Place,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    fn put(&mut self, element: &PathElement, below: Self) {
        self.removed.put(element, below.removed);
        self.modified.put(element, below.modified);
        self.added.put(element, below.added);
    }

    fn unite(&mut self, other: &Self) {
        self.removed.unite(&other.removed);
        self.modified.unite(&other.modified);
        self.added.unite(&other.added);
    }

    fn leaf(from: Side<'_>, to: Side<'_>) -> Self {
        let mut found = Self::default();
        if from.is_absent() {
            found.added.own = true;
        } else if to.is_absent() {
            found.removed.own = true;
        } else if !is_same(from, to) {
            found.modified.own = true;
        }
        found
    }
}

struct Walk {
    complaints: Complaints,
    /// Whether the new state holds no more than it shows.
    is_merged: bool,
}

impl Walk {
    fn value(&mut self, schema: &dyn MergeSchema, from: Side<'_>, to: Side<'_>) -> Found {
        let rule = schema.rule();
        if to.is_absent() {
            return self.atom(&rule.atom(from.value()), from, to);
        }
        let own = rule.atom(to.value());
        if let (true, Some(former)) = (rule.is_open(), from.value()) {
            let former = rule.atom(Some(former));
            if std::mem::discriminant(&former) != std::mem::discriminant(&own) {
                let mut found = self.atom(&former, from, to);
                found.unite(&self.atom(&own, from, to));
                return found;
            }
        }
        self.atom(&own, from, to)
    }

    fn atom(&mut self, atom: &Atom<'_>, from: Side<'_>, to: Side<'_>) -> Found {
        let mut found = match atom {
            Atom::Scalar(scalar) => {
                let wrong = |side: Side<'_>| side.value().and_then(|value| validate::wrong_scalar(*scalar, value));
                if let (Some(left), Some(right)) = (wrong(from), wrong(to)) {
                    self.complaints.add(format!("lhs: {left}"));
                    self.complaints.add(format!("rhs: {right}"));
                }
                return Found::leaf(from, to);
            }
            Atom::List(rule) => {
                let empty = from.items().is_empty() && to.items().is_empty();
                if empty || matches!(rule.kind, ListKind::Atomic) {
                    return Found::leaf(from, to);
                }
                self.items(*rule, from, to)
            }
            Atom::Map(rule) => {
                if rule.atomic || (from.is_empty_map(*rule) && to.is_empty_map(*rule)) {
                    return Found::leaf(from, to);
                }
                self.fields(*rule, from, to)
            }
        };
        found.added.own |= from.is_absent();
        found.removed.own |= to.is_absent();
        found
    }

    fn fields(&mut self, rule: MapRule<'_>, from: Side<'_>, to: Side<'_>) -> Found {
        let mut found = Found::default();
        let held = rule.fields.held();
        let (empty, none) = (Map::new(), &[][..]);
        let (left, right) = (from.map().unwrap_or(&empty), to.map().unwrap_or(&empty));
        // Where both are there, a held field that neither shows is the same in both.
        let shown = if to.is_absent() || (from.is_absent() && !self.is_merged) { held } else { none };
        let keys =
            merged(merged(left.keys().map(String::as_str), right.keys().map(String::as_str)), shown.iter().copied());
        for key in keys {
            let Some(schema) = rule.at(key) else {
                // Not in the schema: objects are brought into their kind's form before, so this is nobody's field.
                continue;
            };
            let is_held = held.binary_search(&key).is_ok();
            let (below_from, below_to) = (from.under(key, is_held), to.under(key, is_held && !self.is_merged));
            let untouched = self.is_merged && matches!(below_from, Side::Zero) && !to.is_absent();
            if below_to.is_absent() && (below_from.is_absent() || untouched) {
                continue;
            }
            let mark = self.complaints.mark();
            let below = self.value(schema, below_from, below_to);
            if !below.is_empty() {
                found.put(&PathElement::Field(key.to_owned()), below);
            }
            if self.complaints.mark() > mark {
                self.complaints.under(mark, &PathElement::Field(key.to_owned()));
            }
        }
        found
    }

    fn items(&mut self, rule: ListRule<'_>, from: Side<'_>, to: Side<'_>) -> Found {
        let mut found = Found::default();
        if from.items() == to.items() {
            return found;
        }
        let mut all: BTreeMap<PathElement, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for (element, item) in self.told_apart(rule, from.items()) {
            all.entry(element).or_default().0.push(item);
        }
        for (element, item) in self.told_apart(rule, to.items()) {
            all.entry(element).or_default().1.push(item);
        }
        for (element, (former, new)) in &all {
            let mark = self.complaints.mark();
            let below = self.twins(rule, former, new);
            self.complaints.under(mark, element);
            found.put(element, below);
        }
        found
    }

    fn told_apart<'v>(&mut self, rule: ListRule<'_>, items: &'v [Value]) -> Vec<(PathElement, &'v Value)> {
        let mut out = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            match element_of(rule.kind, item) {
                Ok(element) => out.push((element, item)),
                Err(why) => self.complaints.add(format!("element {at}: {why}")),
            }
        }
        out
    }

    /// Items with the same keys: usually one on each side; more of them are compared as a whole.
    fn twins(&mut self, rule: ListRule<'_>, former: &[&Value], new: &[&Value]) -> Found {
        match (former.len(), new.len()) {
            (0 | 1, 0 | 1) => self.value(rule.items, Side::first(former), Side::first(new)),
            (0 | 1, _) => {
                let mut found = match former.is_empty() {
                    true => Found::default(),
                    false => self.value(rule.items, Side::first(former), Side::Absent),
                };
                found.added.own = true;
                found
            }
            (_, 0 | 1) => {
                let mut found = match new.is_empty() {
                    true => Found::default(),
                    false => self.value(rule.items, Side::Absent, Side::first(new)),
                };
                found.removed.own = true;
                found
            }
            _ => {
                let same = former.len() == new.len() && former.iter().zip(new).all(|(a, b)| equal(a, b));
                let mut found = Found::default();
                found.modified.own = !same;
                found
            }
        }
    }
}

/// Two sorted sequences of keys as one, each key once.
fn merged<'k>(a: impl Iterator<Item = &'k str>, b: impl Iterator<Item = &'k str>) -> impl Iterator<Item = &'k str> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(left), Some(right)) => match left.cmp(right) {
            std::cmp::Ordering::Less => a.next(),
            std::cmp::Ordering::Greater => b.next(),
            std::cmp::Ordering::Equal => {
                b.next();
                a.next()
            }
        },
        (Some(_), None) => a.next(),
        _ => b.next(),
    })
}
