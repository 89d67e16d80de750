//! Helpers of the kinds' tests: one for defaults, one for rules, one for rows. Objects are written as YAML.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::field::FieldError;
use crate::kind::{Kind, Part};

/// The time at which tables are drawn.
const NOW: &str = "2026-01-01T01:00:00Z";

#[track_caller]
fn kind_of(object: &Value) -> Arc<dyn Kind> {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let found =
        crate::builtin().into_iter().find(|one| one.names().kind == kind && one.names().api_version() == version);
    found.unwrap_or_else(|| panic!("no kind {kind} in {version}"))
}

#[track_caller]
fn read(yaml: &str) -> Value {
    serde_yaml::from_str(yaml).unwrap_or_else(|error| panic!("{error} in {yaml}"))
}

/// The object as it would be stored: in its kind's form, with defaults, prepared for creation.
#[track_caller]
pub(crate) fn created(yaml: &str) -> Value {
    let mut object = read(yaml);
    let kind = kind_of(&object);
    let unknown = kind.conform(&mut object).unwrap();
    assert!(unknown.is_empty(), "unknown fields {unknown:?}");
    kind.default(&mut object);
    kind.shape().null_empty(&mut object);
    kind.prepare_create(&mut object);
    let mut again = object.clone();
    kind.default(&mut again);
    assert_eq!(again, object, "defaults are not idempotent");
    let mut conformed = object.clone();
    kind.conform(&mut conformed).unwrap();
    // Some lists are null when they are empty.
    kind.default(&mut conformed);
    assert_eq!(conformed, object, "defaults left the form of the kind");
    object
}

/// The object after creation is the one expected.
#[track_caller]
pub(crate) fn check_created(yaml: &str, expected: &str) {
    let (created, expected) = (created(yaml), read(expected));
    if created != expected {
        panic!("created\n{}\nbut expected\n{}", show(&created), show(&expected));
    }
}

fn show(value: &Value) -> String {
    serde_yaml::to_string(value).unwrap()
}

fn lines(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// A new object breaks exactly these rules.
#[track_caller]
pub(crate) fn check_invalid(yaml: &str, expected: &[&str]) {
    let object = created(yaml);
    let errors = lines(&kind_of(&object).validate_create(&object));
    assert_eq!(errors, expected, "in {yaml}");
}

/// A new object is valid.
#[track_caller]
pub(crate) fn check_valid(yaml: &str) {
    check_invalid(yaml, &[]);
}

/// Exactly this is said to whom creates a valid object.
#[track_caller]
pub(crate) fn check_warned(yaml: &str, expected: &[&str]) {
    check_valid(yaml);
    let object = created(yaml);
    assert_eq!(kind_of(&object).warnings(&object, None), expected, "in {yaml}");
}

/// The object after `change` was made to the stored one and sent as an update of `part`.
#[track_caller]
pub(crate) fn updated(part: Part, yaml: &str, change: impl FnOnce(&mut Value)) -> (Value, Vec<String>) {
    let old = created(yaml);
    let kind = kind_of(&old);
    let mut new = old.clone();
    change(&mut new);
    kind.conform(&mut new).unwrap();
    kind.default(&mut new);
    kind.shape().null_empty(&mut new);
    kind.prepare_update(part, &mut new, &old);
    let errors = lines(&kind.validate_update(part, &new, &old));
    (new, errors)
}

/// A change of the main resource breaks exactly these rules.
#[track_caller]
pub(crate) fn check_update(yaml: &str, change: impl FnOnce(&mut Value), expected: &[&str]) {
    let (_, errors) = updated(Part::Main, yaml, change);
    assert_eq!(errors, expected);
}

/// The row of an object, as text, cells separated by ` | `.
#[track_caller]
pub(crate) fn row(yaml: &str) -> String {
    let object = read(yaml);
    let kind = kind_of(&object);
    let cells = kind.row(&object, NOW.parse::<Timestamp>().unwrap());
    assert!(cells.len() >= kind.columns().len(), "a cell for each column");
    let texts: Vec<_> =
        cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect();
    texts.join(" | ")
}
