//! What the kinds of devices have in common: names, bounded lists, tolerations, opaque settings.

use std::collections::BTreeSet;

use reeve_api::names;
use serde_json::Value;

use crate::errors::Errors;
use crate::json::{get, has, list, text};
use crate::kinds::storage::driver_name;
use crate::meta;
use crate::path::Path;

/// Longest name of an attribute or capacity, without its domain.
const MAX_ID: usize = 32;
/// Longest name of an attribute or capacity, with domain and slash.
pub(super) const MAX_QUALIFIED: usize = names::LABEL_MAX + 1 + MAX_ID;
/// Most conditions that bind a device, and as many that fail it.
const MAX_BINDING: usize = 4;
/// Most selectors of a request or class.
const MAX_SELECTORS: usize = 32;
/// Longest CEL expression of a selector, in bytes.
const MAX_EXPRESSION: usize = 10 * 1024;
/// Most settings of a claim or class.
pub(super) const MAX_CONFIG: usize = 32;
/// Most bytes of opaque settings.
const MAX_PARAMETERS: usize = 10 * 1024;

/// Effects of taints, sorted.
pub(super) const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Visits the items of a list that is not too long.
pub(super) fn each(
    items: &[Value],
    max: usize,
    path: &Path<'_>,
    errors: &mut Errors,
    mut rule: impl FnMut(&Value, &Path<'_>, &mut Errors),
) -> bool {
    if items.len() > max {
        errors.too_many(path, items.len(), max);
        return false;
    }
    for (index, item) in items.iter().enumerate() {
        rule(item, &path.index(index), errors);
    }
    true
}

/// As [`each`]; no two items may have the same key.
pub(super) fn each_once(
    items: &[Value],
    max: usize,
    key: impl Fn(&Value) -> String,
    path: &Path<'_>,
    errors: &mut Errors,
    rule: impl FnMut(&Value, &Path<'_>, &mut Errors),
) {
    if !each(items, max, path, errors, rule) {
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let key = key(item);
        if !seen.insert(key.clone()) {
            errors.duplicate(&path.index(index), key);
        }
    }
}

/// The item itself, as a key.
pub(super) fn itself(item: &Value) -> String {
    item.as_str().unwrap_or_default().to_owned()
}

/// The name of the item, as a key.
pub(super) fn name_of(item: &Value) -> String {
    text(item, "name").to_owned()
}

/// A DNS label that must be there.
pub(super) fn label(name: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.invalid_each(path, name, names::dns1123_label(name));
}

/// DNS subdomains with slashes between.
pub(super) fn pool_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > names::SUBDOMAIN_MAX {
        errors.too_long(path, names::SUBDOMAIN_MAX);
    }
    for part in name.split('/') {
        errors.invalid_each(path, part, names::dns1123_subdomain(part));
    }
}

/// A UUID in its normal form.
pub(super) fn uid(uid: &str, path: &Path<'_>, errors: &mut Errors) {
    let bytes = uid.as_bytes();
    let is_uuid = bytes.len() == 36
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if bytes.len() != 36 {
        errors.invalid(path, uid, format!("error validating uid: invalid UUID length: {}", bytes.len()));
    } else if !is_uuid {
        errors.invalid(path, uid, "error validating uid: invalid UUID format");
    } else if uid != uid.to_lowercase() {
        let detail = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.invalid(path, uid, detail);
    }
}

/// The name of an attribute or capacity, perhaps with a domain.
pub(super) fn qualified_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let parts: Vec<_> = name.split('/').collect();
    match parts[..] {
        [id] => identifier(id, path, errors),
        [domain, id] => {
            if domain.is_empty() {
                errors.invalid(path, "", "the domain must not be empty");
            } else {
                driver_name(domain, path, errors);
            }
            if id.is_empty() {
                errors.invalid(path, "", "the name must not be empty");
            } else {
                identifier(id, path, errors);
            }
        }
        // Kubernetes lets names with more slashes through.
        _ => {}
    }
}

/// The name of an attribute with its domain.
pub(super) fn full_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    qualified_name(name, path, errors);
    if !name.contains('/') {
        errors.invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

fn identifier(id: &str, path: &Path<'_>, errors: &mut Errors) {
    if id.len() > MAX_ID {
        errors.too_long(path, MAX_ID);
    }
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if id.is_empty() || id.starts_with(|c: char| c.is_ascii_digit()) || !id.chars().all(is_word) {
        let detail = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.invalid(path, id, detail);
    }
}

/// The name of a device class.
pub(super) fn class_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    errors.invalid_each(path, name, names::dns1123_subdomain(name));
}

/// The selectors of a request or class.
pub(super) fn selectors(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("selectors");
    each(list(holder, "selectors"), MAX_SELECTORS, &path, errors, |selector, path, errors| {
        let path = path.child("cel");
        if !has(selector, "cel") {
            return errors.required(&path, "");
        }
        if text(get(selector, "cel"), "expression").len() > MAX_EXPRESSION {
            errors.too_long(&path.child("expression"), MAX_EXPRESSION);
        }
    });
}

/// A toleration of a request.
pub(super) fn toleration(toleration: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (key, value) = (text(toleration, "key"), text(toleration, "value"));
    if !key.is_empty() {
        meta::label_name(key, &path.child("key"), errors);
    }
    let operator = path.child("operator");
    match text(toleration, "operator") {
        "Exists" if !value.is_empty() => {
            errors.invalid(&path.child("value"), value, "must be empty for operator `Exists`");
        }
        "Exists" => {}
        "Equal" => errors.invalid_each(&path.child("value"), value, names::label_value(value)),
        "" => errors.required(&operator, ""),
        other => errors.unsupported(&operator, other, &["Equal", "Exists"]),
    }
    let effect = text(toleration, "effect");
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.unsupported(&path.child("effect"), effect, EFFECTS);
    }
}

/// Settings for a driver.
pub(super) fn config(config: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (opaque, path) = (get(config, "opaque"), path.child("opaque"));
    if opaque.is_null() {
        return errors.required(&path, "");
    }
    driver_name(text(opaque, "driver"), &path.child("driver"), errors);
    raw(get(opaque, "parameters"), &path.child("parameters"), errors);
}

/// A JSON object of any form, not too long.
pub(super) fn raw(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    if value.is_null() {
        errors.required(path, "");
    } else if value.to_string().len() > MAX_PARAMETERS {
        errors.too_long(path, MAX_PARAMETERS);
    } else if !value.is_object() {
        errors.invalid(path, "<value omitted>", "must be a valid JSON object");
    }
}

/// Conditions that must come true, or may not, before a device is bound.
pub(super) fn binding(device: &Value, path: &Path<'_>, errors: &mut Errors) {
    const GOOD: &str = "bindingConditions";
    const BAD: &str = "bindingFailureConditions";
    let (good, bad) = (list(device, GOOD), list(device, BAD));
    for (items, field) in [(good, GOOD), (bad, BAD)] {
        each(items, MAX_BINDING, &path.child(field), errors, |name, path, errors| {
            meta::label_name(name.as_str().unwrap_or_default(), path, errors);
        });
    }
    let mut seen = BTreeSet::new();
    let good_path = path.child(GOOD);
    for (index, name) in good.iter().filter_map(Value::as_str).enumerate() {
        if !seen.insert(name) {
            errors.duplicate(&good_path.index(index), name);
        }
    }
    let (mut failing, bad_path) = (BTreeSet::new(), path.child(BAD));
    for (index, name) in bad.iter().filter_map(Value::as_str).enumerate() {
        if !failing.insert(name) {
            errors.duplicate(&bad_path.index(index), name);
        }
        if seen.contains(name) {
            let detail = "bindingFailureConditions must not overlap with bindingConditions";
            errors.invalid(&bad_path.index(index), name, detail);
        }
    }
    if good.is_empty() && !bad.is_empty() {
        let detail = "bindingConditions are required to use bindingFailureConditions";
        errors.invalid(&good_path, get(device, GOOD).clone(), detail);
    }
    if bad.is_empty() && !good.is_empty() {
        let detail = "bindingFailureConditions are required to use bindingConditions";
        errors.invalid(&bad_path, get(device, BAD).clone(), detail);
    }
}
