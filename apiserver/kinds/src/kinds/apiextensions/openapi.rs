//! The rules for a schema besides being structural (`ValidateCustomResourceDefinitionOpenAPISchema`).

use serde_json::Value;

use super::rules::Options;
use crate::custom::{field_path, is_meta_field};
use crate::errors::Errors;
use crate::json::{entries, flag, get, has, list, text};
use crate::path::Path;

/// The types of OpenAPI v3, ordered.
pub(super) const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What a rule's complaint may be.
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What is known of the place where a schema stands.
#[derive(Clone)]
pub(super) struct Place<'o> {
    options: &'o Options,
    /// Why defaults are not allowed; empty for no reason told.
    no_defaults: Option<String>,
    inside_meta: bool,
    root: bool,
}

impl<'o> Place<'o> {
    /// The root of a schema.
    pub(super) fn root(options: &'o Options) -> Self {
        Self { options, no_defaults: None, inside_meta: false, root: true }
    }

    fn inner(&self) -> Self {
        Self { root: false, ..self.clone() }
    }

    fn without_defaults(self, why: String) -> Self {
        Self { no_defaults: Some(why), ..self }
    }
}

/// Everything wrong with a schema and those inside it.
pub(super) fn check(schema: &Value, path: &Path<'_>, place: &Place<'_>, errors: &mut Errors) {
    if !schema.is_object() {
        return;
    }
    standard(schema, path, place, errors);
    if flag(schema, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.child("uniqueItems"), detail);
    }
    fields(schema, path, place, errors);
    check(get(schema, "not"), &path.child("not"), &place.inner(), errors);
    for field in ["allOf", "oneOf", "anyOf"] {
        let path = path.child(field);
        for (index, one) in list(schema, field).iter().enumerate() {
            check(one, &path.index(index), &place.inner(), errors);
        }
    }
    for field in ["definitions", "dependencies"] {
        let path = path.child(field);
        for (name, one) in entries(schema, field) {
            check(one, &path.key(name), &place.inner(), errors);
        }
    }
    match get(schema, "items") {
        Value::Array(items) => {
            let path = path.child("items");
            for (index, item) in items.iter().enumerate() {
                check(item, &path.index(index), &place.inner(), errors);
            }
        }
        items => check(items, &path.child("items"), &place.inner(), errors),
    }
    extensions(schema, path, place, errors);
    rules(schema, path, errors);
}

/// What OpenAPI has and Kubernetes does not take.
fn standard(schema: &Value, path: &Path<'_>, place: &Place<'_>, errors: &mut Errors) {
    let kind = text(schema, "type");
    if place.options.require_valid_types && !kind.is_empty() && !TYPES.contains(&kind) {
        errors.unsupported(&path.child("type"), kind, &TYPES);
    }
    if let Some(why) = place.no_defaults.as_ref().filter(|_| has(schema, "default")) {
        let space = if why.is_empty() { "" } else { " " };
        errors.forbidden(&path.child("default"), format!("must not be set{space}{why}"));
    }
    let not_empty = |field: &str| match get(schema, field) {
        Value::Null => false,
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    };
    for (field, used) in [
        ("id", not_empty("id")),
        ("additionalItems", has(schema, "additionalItems")),
        ("patternProperties", not_empty("patternProperties")),
        ("definitions", not_empty("definitions")),
        ("dependencies", has(schema, "dependencies")),
        ("$ref", has(schema, "$ref")),
    ] {
        if used {
            errors.forbidden(&path.child(field), format!("{field} is not supported"));
        }
    }
    if kind == "null" {
        errors.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if !list(schema, "items").is_empty() {
        errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    if place.inside_meta && flag(schema, "x-kubernetes-embedded-resource") {
        errors.forbidden(&path.child("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
    }
}

fn fields(schema: &Value, path: &Path<'_>, place: &Place<'_>, errors: &mut Errors) {
    let additional = get(schema, "additionalProperties");
    if !additional.is_null() {
        let named = entries(schema, "properties").next().is_some();
        let path = path.child("additionalProperties");
        if named && additional != &Value::Bool(true) {
            errors.forbidden(&path, "additionalProperties and properties are mutual exclusive");
        }
        let mut inner = place.inner();
        if place.inside_meta {
            inner = inner.without_defaults("inside additionalProperties applying to object metadata".to_owned());
        }
        check(additional, &path, &inner, errors);
    }
    let path = path.child("properties");
    for (name, property) in entries(schema, "properties") {
        let mut inner = place.inner();
        if is_meta_field(name) && (place.root || flag(schema, "x-kubernetes-embedded-resource")) {
            inner.inside_meta = true;
            if place.root {
                inner = inner.without_defaults(format!("in top-level {name}"));
            }
        }
        check(property, &path.key(name), &inner, errors);
    }
}

fn extensions(schema: &Value, path: &Path<'_>, place: &Place<'_>, errors: &mut Errors) {
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if get(schema, preserve) == &Value::Bool(false) {
        errors.invalid(&path.child(preserve), false, "must be true or undefined");
    }
    let kind = text(schema, "type");
    let must_be = |wanted: &str, field: &str, errors: &mut Errors| {
        let detail = format!("must be {wanted} if {field} is specified");
        match kind {
            "" => errors.required(&path.child("type"), detail),
            other => errors.invalid(&path.child("type"), other, detail),
        }
    };
    let map_type = "x-kubernetes-map-type";
    if has(schema, map_type) {
        if kind != "object" {
            must_be("object", map_type, errors);
        }
        if !matches!(text(schema, map_type), "atomic" | "granular") {
            errors.unsupported(&path.child(map_type), text(schema, map_type), &["atomic", "granular"]);
        }
    }
    let list_type = "x-kubernetes-list-type";
    if has(schema, list_type) {
        if kind != "array" {
            must_be("array", list_type, errors);
        } else if place.options.require_atomic_sets {
            set_items(schema, path, errors);
        }
        if !matches!(text(schema, list_type), "atomic" | "set" | "map") {
            errors.unsupported(&path.child(list_type), text(schema, list_type), &["atomic", "set", "map"]);
        }
    }
    map_keys(schema, path, errors);
    if place.options.require_map_keys {
        key_rules(schema, path, errors);
    }
}

/// Items of a set are one value each.
fn set_items(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some((field, value)) = non_atomic_set(schema) {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        errors.invalid(&path.child("items").child(field), value, detail);
    }
}

/// What makes the items of a set more than one value each.
pub(super) fn non_atomic_set(schema: &Value) -> Option<(&'static str, Value)> {
    let items = get(schema, "items");
    if text(schema, "x-kubernetes-list-type") != "set" || !items.is_object() {
        return None;
    }
    let (list_type, map_type) = (get(items, "x-kubernetes-list-type"), get(items, "x-kubernetes-map-type"));
    match text(items, "type") {
        "array" if !list_type.is_null() && list_type != "atomic" => Some(("x-kubernetes-list-type", list_type.clone())),
        "object" if map_type != "atomic" => Some(("x-kubernetes-map-type", list_type.clone())),
        _ => None,
    }
}

fn map_keys(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (list_type, keys_place) = ("x-kubernetes-list-type", path.child("x-kubernetes-list-map-keys"));
    let keys = list(schema, "x-kubernetes-list-map-keys");
    let is_map = text(schema, list_type) == "map";
    if !keys.is_empty() && !is_map {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match get(schema, list_type) {
            Value::Null => errors.required(&path.child(list_type), detail),
            other => errors.invalid(&path.child(list_type), other.clone(), detail),
        }
    }
    if !is_map {
        return;
    }
    if keys.is_empty() {
        errors.required(&keys_place, "must not be empty if x-kubernetes-list-type is map");
    }
    let items_place = path.child("items");
    let items = get(schema, "items");
    match items {
        Value::Null => errors.required(&items_place, "must have a schema if x-kubernetes-list-type is map"),
        Value::Array(_) => {
            let detail = "must only have a single schema if x-kubernetes-list-type is map";
            errors.invalid(&items_place, items.clone(), detail);
        }
        _ if text(items, "type") != "object" => {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            errors.invalid(&items_place.child("type"), text(items, "type"), detail);
        }
        _ => {
            for (index, key) in keys.iter().enumerate() {
                let name = key.as_str().unwrap_or_default();
                match text(get(get(items, "properties"), name), "type") {
                    _ if get(get(items, "properties"), name).is_null() => {
                        let shown = Value::from(keys);
                        errors.invalid(&keys_place, shown, "entries must all be names of item properties");
                    }
                    "array" | "object" => {
                        let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                        let place = items_place.child("properties");
                        errors.invalid(&place.key(name).child("type"), text(items, "type"), detail);
                    }
                    _ => {}
                }
                if keys[..index].contains(key) {
                    errors.invalid(&keys_place, Value::from(keys), "must not contain duplicate entries");
                }
            }
        }
    }
}

/// Items of sets and maps and the keys of maps are always there.
pub(super) fn key_rules(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (items, list_type) = (get(schema, "items"), text(schema, "x-kubernetes-list-type"));
    if !items.is_object() || !matches!(list_type, "set" | "map") {
        return;
    }
    let place = path.child("items");
    if flag(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.forbidden(&place.child("nullable"), detail);
    }
    if list_type != "map" {
        return;
    }
    let place = place.child("properties");
    for key in list(schema, "x-kubernetes-list-map-keys") {
        let name = key.as_str().unwrap_or_default();
        let property = get(get(items, "properties"), name);
        if property.is_null() {
            continue;
        }
        let place = place.key(name);
        if !list(items, "required").contains(key) && !has(property, "default") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                          required property";
            errors.required(&place.child("default"), detail);
        }
        if flag(property, "nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&place.child("nullable"), detail);
        }
    }
}

/// The form of `x-kubernetes-validations`.
fn rules(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("x-kubernetes-validations");
    for (index, rule) in list(schema, "x-kubernetes-validations").iter().enumerate() {
        rule_form(schema, rule, &path.index(index), errors);
    }
}

fn rule_form(schema: &Value, rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let broken_lines = |text: &str| text.contains(['\n', '\r']);
    let (expression, message) = (text(rule, "rule").trim(), text(rule, "message"));
    if expression.is_empty() {
        errors.required(&path.child("rule"), "rule is not specified");
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.child("message"), message, "must be non-empty if specified");
    } else if broken_lines(message.trim()) {
        errors.invalid(&path.child("message"), message, "must not contain line breaks");
    } else if broken_lines(expression) && message.trim().is_empty() {
        errors.required(&path.child("message"), "message must be specified if rule contains line breaks");
    }
    let message_expression = text(rule, "messageExpression");
    if !message_expression.is_empty() && message_expression.trim().is_empty() {
        errors.required(&path.child("messageExpression"), "messageExpression must be non-empty if specified");
    }
    if has(rule, "reason") && !REASONS.contains(&text(rule, "reason")) {
        errors.unsupported(&path.child("reason"), text(rule, "reason"), &REASONS);
    }
    let (field, place) = (text(rule, "fieldPath"), path.child("fieldPath"));
    if field.is_empty() {
        return;
    }
    if field.trim().is_empty() {
        errors.invalid(&place, field, "must be non-empty if specified");
    }
    if broken_lines(field) {
        errors.invalid(&place, field, "must not contain line breaks");
    }
    if field_path::resolve(field, schema, true).is_err() {
        errors.invalid(&place, field, "must be a valid path");
    }
}
