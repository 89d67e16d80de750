//! What makes a schema structural (`pkg/apiserver/schema/validation.go`, `complete.go`).

use serde_json::Value;

use crate::custom::pattern;
use crate::custom::schema::Schema;
use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{entries, flag, get, has, list, remove, text};
use crate::path::Path;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Everything that keeps a schema from being structural, ordered by text.
pub(super) fn check(schema: &Value, path: &Path<'_>) -> Vec<FieldError> {
    let mut errors = Errors::default();
    invariants(schema, Level::Root, path, &mut errors);
    completeness(schema, schema, path, path, &mut errors);
    let mut errors = errors.into_vec();
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

/// Whether a schema is no structural one.
pub(super) fn is_not(schema: &Value) -> bool {
    Schema::parse(schema).is_err() || !check(schema, &Path::ROOT).is_empty()
}

fn invariants(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    if schema.is_null() {
        return;
    }
    if text(schema, "type") == "array" && !has(schema, "items") {
        errors.required(&path.child("items"), "must be specified");
    }
    invariants(get(schema, "items"), Level::Item, &path.child("items"), errors);
    let properties = path.child("properties");
    for (name, property) in entries(schema, "properties") {
        invariants(property, Level::Field, &properties.key(name), errors);
    }
    let additional = get(schema, "additionalProperties");
    if !additional.is_null() {
        if level == Level::Root {
            errors.forbidden(&path.child("additionalProperties"), "must not be used at the root");
        }
        if additional.is_object() {
            invariants(additional, Level::Field, &path.child("additionalProperties"), errors);
        }
    }
    extensions(schema, path, errors);
    let first_any_of = list(schema, "allOf").first().is_some_and(is_int_or_string);
    value_rules(schema, is_int_or_string(schema), first_any_of, path, errors);
    types(schema, level, path, errors);
    metadata(schema, level, path, errors);
}

/// `anyOf: [{type: integer}, {type: string}]`
fn is_int_or_string(schema: &Value) -> bool {
    let only = |schema: &Value, name: &str| {
        schema.as_object().is_some_and(|fields| fields.len() == 1) && text(schema, "type") == name
    };
    matches!(list(schema, "anyOf"), [first, second] if only(first, "integer") && only(second, "string"))
}

fn extensions(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    if !flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if flag(schema, name) {
            errors.invalid(&path.child(name), true, "must be false if x-kubernetes-int-or-string is true");
        }
    }
}

fn types(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let (kind, place) = (text(schema, "type"), path.child("type"));
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let preserves = flag(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        match kind {
            "" => errors.required(&place, detail),
            other => errors.invalid(&place, other, detail),
        }
    } else if kind.is_empty() && !preserves && !flag(schema, "x-kubernetes-int-or-string") {
        errors.required(
            &place,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if embedded && has(schema, "additionalProperties") {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.forbidden(&path.child("additionalProperties"), detail);
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.invalid(&place, kind, "must be object at the root");
    }
    if embedded && !preserves && entries(schema, "properties").next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        errors.required(&path.child("properties"), detail);
    }
}

/// What a schema may say of type and metadata of a whole object.
fn metadata(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let whole_object = level == Level::Root || flag(schema, "x-kubernetes-embedded-resource");
    let properties = path.child("properties");
    for name in ["kind", "apiVersion"] {
        let property = get(get(schema, "properties"), name);
        if whole_object && !property.is_null() && text(property, "type") != "string" {
            errors.invalid(&properties.key(name).child("type"), text(property, "type"), "must be string");
        }
    }
    let metadata = get(get(schema, "properties"), "metadata");
    if metadata.is_null() {
        return;
    }
    let place = properties.key("metadata");
    if whole_object && text(metadata, "type") != "object" {
        errors.invalid(&place.child("type"), text(metadata, "type"), "must be object");
    }
    if level == Level::Root {
        let mut rest = metadata.clone();
        if entries(metadata, "properties").all(|(name, _)| matches!(name, "name" | "generateName")) {
            remove(&mut rest, "properties");
        }
        remove(&mut rest, "type");
        remove(&mut rest, "default");
        if rest.as_object().is_some_and(|fields| !fields.is_empty()) {
            let detail = "must not specify anything other than name and generateName, \
                          but metadata is implicitly specified";
            errors.forbidden(&place, detail);
        }
    }
}

fn value_rules(schema: &Value, skip_any_of: bool, skip_first_any_of: bool, path: &Path<'_>, errors: &mut Errors) {
    if !skip_any_of {
        nested_list(schema, "anyOf", false, path, errors);
    }
    nested_list(schema, "allOf", skip_first_any_of, path, errors);
    nested_list(schema, "oneOf", false, path, errors);
    nested(get(schema, "not"), false, &path.child("not"), errors);
    let pattern_text = text(schema, "pattern");
    if !pattern_text.is_empty()
        && let Err(error) = pattern::compile(pattern_text)
    {
        let detail = format!("must be a valid regular expression, but isn't: {error}");
        errors.invalid(&path.child("pattern"), pattern_text, detail);
    }
}

fn nested_list(schema: &Value, field: &str, skip_first: bool, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child(field);
    for (index, one) in list(schema, field).iter().enumerate() {
        nested(one, skip_first && index == 0, &path.index(index), errors);
    }
}

/// Extensions and structure that may not stand under `allOf` and the like, with what is said about them.
const NOT_NESTED: [(&str, &str); 10] = [
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

fn nested(schema: &Value, skip_any_of: bool, path: &Path<'_>, errors: &mut Errors) {
    if schema.is_null() {
        return;
    }
    value_rules(schema, skip_any_of, false, path, errors);
    nested(get(schema, "items"), false, &path.child("items"), errors);
    let properties = path.child("properties");
    for (name, property) in entries(schema, "properties") {
        nested(property, false, &properties.key(name), errors);
    }
    if !text(schema, "type").is_empty() {
        errors.forbidden(&path.child("type"), "must be empty to be structural");
    }
    if matches!(get(schema, "additionalProperties"), Value::Bool(true) | Value::Object(_)) {
        errors.forbidden(&path.child("additionalProperties"), "must be undefined to be structural");
    }
    if has(schema, "default") {
        errors.forbidden(&path.child("default"), "must be undefined to be structural");
    }
    for (field, detail) in NOT_NESTED {
        if has(schema, field) {
            errors.forbidden(&path.child(field), detail);
        }
    }
    if !get(get(schema, "properties"), "metadata").is_null() {
        errors.forbidden(&properties.key("metadata"), "must not be specified in a nested context");
    }
}

/// Whatever is said of a value under `allOf` and the like, its structure is said outside.
fn completeness(rules: &Value, schema: &Value, place: &Path<'_>, said: &Path<'_>, errors: &mut Errors) {
    nested_completeness(get(rules, "not"), schema, place, &said.child("not"), errors);
    for field in ["allOf", "anyOf", "oneOf"] {
        let said = said.child(field);
        for (index, one) in list(rules, field).iter().enumerate() {
            nested_completeness(one, schema, place, &said.index(index), errors);
        }
    }
}

fn nested_completeness(rules: &Value, schema: &Value, place: &Path<'_>, said: &Path<'_>, errors: &mut Errors) {
    if rules.is_null() {
        return;
    }
    if schema.is_null() {
        errors.required(place, format!("because it is defined in {said}"));
        return;
    }
    completeness(rules, schema, place, said, errors);
    let items = get(schema, "items");
    nested_completeness(get(rules, "items"), items, &place.child("items"), &said.child("items"), errors);
    let (places, all_said) = (place.child("properties"), said.child("properties"));
    for (name, property) in entries(rules, "properties") {
        let structure = get(get(schema, "properties"), name);
        nested_completeness(property, structure, &places.key(name), &all_said.key(name), errors);
    }
}
