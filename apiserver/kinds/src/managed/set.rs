//! Sets of fields: what a manager manages, as `fieldsV1` holds it.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::element::{ElementError, PathElement};

/// Deepest nesting of a set that is read; objects are not nested deeper.
const DEPTH_MAX: usize = 128;

/// A set of fields. The parent of a field is in it only when it is a member itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// Fields at this level; sorted.
    pub(super) members: Vec<PathElement>,
    /// Fields further down; sorted. No set in it is empty.
    pub(super) children: Vec<(PathElement, Set)>,
}

/// A path to a field; empty for the whole object.
pub type Path = Vec<PathElement>;

/// A path as it stands in messages: `.spec.containers[name="a"].image`.
#[must_use]
pub fn path_text(path: &[PathElement]) -> String {
    path.iter().map(ToString::to_string).collect()
}

impl Set {
    /// The set of these paths.
    #[must_use]
    pub fn of(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            set.insert(&path.iter().map(|name| PathElement::Field((*name).to_owned())).collect::<Path>());
        }
        set
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.iter().all(|(_, set)| set.is_empty())
    }

    /// Adds a field. Its parents are not added.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => {
                if let Err(at) = self.members.binary_search(last) {
                    self.members.insert(at, last.clone());
                }
            }
            [first, rest @ ..] => {
                let at = self.children.binary_search_by(|(own, _)| own.cmp(first)).unwrap_or_else(|at| {
                    self.children.insert(at, (first.clone(), Self::default()));
                    at
                });
                self.children[at].1.insert(rest);
            }
        }
    }

    /// Whether the field is in it.
    #[must_use]
    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.has_member(last),
            [first, rest @ ..] => self.child(first).is_some_and(|set| set.has(rest)),
        }
    }

    pub(super) fn has_member(&self, element: &PathElement) -> bool {
        self.members.binary_search(element).is_ok()
    }

    pub(super) fn child(&self, element: &PathElement) -> Option<&Self> {
        let at = self.children.binary_search_by(|(own, _)| own.cmp(element)).ok()?;
        Some(&self.children[at].1)
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = Self::default();
        zip(&self.members, &other.members, |member| member, |a, b| out.members.extend(a.or(b).cloned()));
        zip(
            &self.children,
            &other.children,
            |child| &child.0,
            |a, b| {
                out.children.extend(match (a, b) {
                    (Some(a), Some(b)) => Some((a.0.clone(), a.1.union(&b.1))),
                    (a, b) => a.or(b).cloned(),
                });
            },
        );
        out
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self::default();
        zip(
            &self.members,
            &other.members,
            |member| member,
            |a, b| out.members.extend(a.filter(|_| b.is_some()).cloned()),
        );
        zip(
            &self.children,
            &other.children,
            |child| &child.0,
            |a, b| {
                if let (Some(a), Some(b)) = (a, b) {
                    out.add_child(&a.0, a.1.intersection(&b.1));
                }
            },
        );
        out
    }

    /// What is in this one and not in the other. A parent in the other does not take its children with it.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.without(other, false)
    }

    /// What is in this one and neither in the other nor below a field that is.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        self.without(other, true)
    }

    fn without(&self, other: &Self, recursive: bool) -> Self {
        let mut out = Self::default();
        zip(
            &self.members,
            &other.members,
            |member| member,
            |a, b| {
                out.members.extend(a.filter(|_| b.is_none()).cloned());
            },
        );
        zip(
            &self.children,
            &other.children,
            |child| &child.0,
            |a, b| {
                let Some(a) = a.filter(|a| !recursive || !other.has_member(&a.0)) else { return };
                match b {
                    Some(b) => out.add_child(&a.0, a.1.without(&b.1, recursive)),
                    None => out.children.push(a.clone()),
                }
            },
        );
        out
    }

    /// Adds the deeper fields of an element that sorts behind all that are there; none when the set is empty.
    pub(super) fn add_child(&mut self, element: &PathElement, set: Self) {
        if !set.is_empty() {
            self.children.push((element.clone(), set));
        }
    }

    /// Every field's path, members of a level before what is below it.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut Path, out: &mut Vec<Path>) {
        for member in &self.members {
            out.push(prefix.iter().chain([member]).cloned().collect());
        }
        for (element, set) in &self.children {
            prefix.push(element.clone());
            set.collect(prefix, out);
            prefix.pop();
        }
    }

    /// Reads `fieldsV1`.
    ///
    /// # Errors
    /// When it is no object of objects, or a key is no path element.
    pub fn parse(fields: &Value) -> Result<Self, ElementError> {
        Ok(Self::read(fields, 0)?.0.unwrap_or_default())
    }

    /// What is below, and whether the element itself is a member: so says `.`, or that nothing is below.
    fn read(fields: &Value, depth: usize) -> Result<(Option<Self>, bool), ElementError> {
        let empty = Map::new();
        let fields = match fields {
            Value::Object(fields) => fields,
            Value::Null => &empty,
            _ => return Err(ElementError::Content("fields must be an object".to_owned())),
        };
        if depth > DEPTH_MAX {
            return Err(ElementError::Content(format!("exceeded max depth of {DEPTH_MAX}")));
        }
        let (mut set, mut is_member) = (None::<Self>, false);
        for (key, value) in fields {
            if key == "." {
                is_member = true;
                continue;
            }
            let Some(element) = PathElement::parse(key)? else { continue };
            let (below, own) = Self::read(value, depth + 1)?;
            let set = set.get_or_insert_with(Self::default);
            if let Some(below) = below {
                set.children.push((element.clone(), below));
            }
            if own {
                set.members.push(element);
            }
        }
        if let Some(set) = &mut set {
            // Nearly always sorted already.
            set.members.sort();
            set.members.dedup();
            set.children.sort_by(|a, b| a.0.cmp(&b.0));
            set.children.dedup_by(|later, first| {
                let same = later.0 == first.0;
                if same {
                    first.1 = first.1.union(&later.1);
                }
                same
            });
        }
        let is_member = is_member || set.is_none();
        Ok((set, is_member))
    }

    /// As `fieldsV1`.
    #[must_use]
    pub fn value(&self) -> Value {
        let mut out = Map::new();
        self.write(&mut out);
        Value::Object(out)
    }

    fn write(&self, out: &mut Map<String, Value>) {
        zip_with(&self.members, &self.children, |member, child| {
            let mut below = Map::new();
            let Some(element) = member.or(child.map(|child| &child.0)) else { return };
            if let Some((_, set)) = child {
                if member.is_some() {
                    below.insert(".".to_owned(), Value::Object(Map::new()));
                }
                set.write(&mut below);
            }
            out.insert(element.text(), Value::Object(below));
        });
    }
}

/// Walks two sorted lists side by side.
fn zip<'s, T>(
    a: &'s [T],
    b: &'s [T],
    key: impl Fn(&T) -> &PathElement,
    mut visit: impl FnMut(Option<&'s T>, Option<&'s T>),
) {
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        let order = match (a.get(i), b.get(j)) {
            (Some(a), Some(b)) => key(a).cmp(key(b)),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        visit(a.get(i).filter(|_| order.is_le()), b.get(j).filter(|_| order.is_ge()));
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
    }
}

/// Walks the members and the children of one set side by side.
fn zip_with<'s>(
    members: &'s [PathElement],
    children: &'s [(PathElement, Set)],
    mut visit: impl FnMut(Option<&'s PathElement>, Option<&'s (PathElement, Set)>),
) {
    let (mut i, mut j) = (0, 0);
    while i < members.len() || j < children.len() {
        let order = match (members.get(i), children.get(j)) {
            (Some(a), Some(b)) => a.cmp(&b.0),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        visit(members.get(i).filter(|_| order.is_le()), children.get(j).filter(|_| order.is_ge()));
        i += usize::from(order.is_le());
        j += usize::from(order.is_ge());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(value: &Value) -> Set {
        Set::parse(value).unwrap()
    }

    #[test]
    fn a_set_is_written_as_it_was_read() {
        let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:replicas": {}}});
        assert_eq!(set(&fields).value(), fields);
        assert_eq!(set(&json!({})).value(), json!({}));
        assert!(set(&json!({"x:future": {}})).is_empty());
        for bad in [json!([]), json!({"f:a": 1}), json!({"nocolon": {}}), json!({"k:": {}})] {
            assert!(Set::parse(&bad).is_err(), "{bad}");
        }
        let mut deep = json!({});
        (0..1000).for_each(|_| deep = json!({"f:a": deep.take()}));
        assert!(Set::parse(&deep).is_err());
    }

    #[test]
    fn union_intersection_and_difference_look_at_each_field() {
        let (a, b) =
            (set(&json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}})), set(&json!({"f:a": {"f:b": {}, "f:d": {}}})));
        assert_eq!(a.union(&b).value(), json!({"f:a": {".": {}, "f:b": {}, "f:d": {}}, "f:c": {}}));
        assert_eq!(a.intersection(&b).value(), json!({"f:a": {"f:b": {}}}));
        assert_eq!(a.difference(&b).value(), json!({"f:a": {}, "f:c": {}}));
        assert_eq!(a.difference(&set(&json!({"f:a": {}}))).value(), json!({"f:a": {"f:b": {}}, "f:c": {}}));
        assert_eq!(a.recursive_difference(&set(&json!({"f:a": {}}))).value(), json!({"f:c": {}}));
        let paths: Vec<_> = a.union(&b).paths().iter().map(|path| path_text(path)).collect();
        assert_eq!(paths, [".a", ".c", ".a.b", ".a.d"]);
        assert!(a.paths().iter().all(|path| a.has(path)) && !b.has(&a.paths()[0]));
    }
}
