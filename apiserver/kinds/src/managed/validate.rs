//! Whether a value is what its schema says, in the words of Kubernetes' structured-merge-diff.

use std::collections::BTreeSet;

use serde_json::Value;

use super::element::{PathElement, number_text};
use super::items::{Complaints, Misfits, element_of};
use super::schema::{Atom, ListKind, ListRule, MapRule, MergeSchema, Scalar};

/// Checks an applied configuration: fields the schema does not have, values of the wrong type, items that stand
/// twice in a merged list.
///
/// # Errors
/// All that does not fit.
pub fn validate(schema: &dyn MergeSchema, value: &Value, allow_duplicates: bool) -> Result<(), Misfits> {
    let mut walk = Walk { complaints: Complaints::default(), allow_duplicates };
    walk.value(schema, value);
    walk.complaints.finish()
}

struct Walk {
    complaints: Complaints,
    allow_duplicates: bool,
}

impl Walk {
    fn value(&mut self, schema: &dyn MergeSchema, value: &Value) {
        match schema.rule().atom(Some(value)) {
            Atom::Scalar(scalar) => {
                if let Some(why) = wrong_scalar(scalar, value) {
                    self.complaints.add(why);
                }
            }
            Atom::List(rule) => self.list(rule, value),
            Atom::Map(rule) => self.map(rule, value),
        }
    }

    fn list(&mut self, rule: ListRule<'_>, value: &Value) {
        let items = match value {
            Value::Array(items) => items,
            Value::Null => return,
            other => return self.complaints.add(format!("expected list, got &{{{}}}", go_plain(other))),
        };
        let mut seen = BTreeSet::new();
        for (at, item) in items.iter().enumerate() {
            let element = match rule.kind {
                ListKind::Atomic => PathElement::Index(i64::try_from(at).unwrap_or(i64::MAX)),
                kind => match element_of(kind, item) {
                    Ok(element) => {
                        if !seen.insert(element.clone()) && !self.allow_duplicates {
                            self.complaints.add(format!("duplicate entries for key {element}"));
                        }
                        element
                    }
                    Err(why) => return self.complaints.add(format!("element {at}: {why}")),
                },
            };
            let mark = self.complaints.mark();
            self.value(rule.items, item);
            self.complaints.under(mark, &element);
        }
    }

    fn map(&mut self, rule: MapRule<'_>, value: &Value) {
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => return,
            other => return self.complaints.add(format!("expected map, got &{{{}}}", go_plain(other))),
        };
        for (key, value) in fields {
            let mark = self.complaints.mark();
            match rule.at(key) {
                Some(schema) => self.value(schema, value),
                None => self.complaints.add("field not declared in schema"),
            }
            if self.complaints.mark() > mark {
                self.complaints.under(mark, &PathElement::Field(key.clone()));
            }
            if rule.at(key).is_none() {
                return;
            }
        }
    }
}

/// What is wrong with a plain value; null is fine everywhere.
pub(super) fn wrong_scalar(scalar: Scalar, value: &Value) -> Option<String> {
    match (scalar, value) {
        (_, Value::Null)
        | (Scalar::Numeric, Value::Number(_))
        | (Scalar::String, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Untyped, Value::Bool(_) | Value::Number(_) | Value::String(_)) => None,
        (Scalar::Numeric, other) => Some(format!("expected numeric (int or float), got {}", go_type(other))),
        (Scalar::String, other) => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(other)))
        }
        (Scalar::Boolean, other) => Some(format!("expected boolean, got &{{{}}}", go_plain(other))),
        (Scalar::Untyped, other) => Some(format!("expected any scalar, got &{{{}}}", go_plain(other))),
    }
}

/// Go's `%T`.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Go's `%v`.
fn go_plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number_text(number),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_plain).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key}:{}", go_plain(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

/// Go's `%#v`.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let fields: Vec<_> = fields.iter().map(|(key, value)| format!("{key:?}:{}", go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        other => go_plain(other),
    }
}
