//! One device of a slice: what it is, how much it has, where it may be used.

use std::fmt;

use reeve_api::names;
use serde_json::Value;

use super::device_capacity;
use super::shared::{EFFECTS, MAX_QUALIFIED, binding, each, each_once, label, qualified_name};
use crate::errors::Errors;
use crate::json::{entries, flag, get, has, items_mut, list, remove, some_mut, text};
use crate::meta;
use crate::path::Path;
use crate::pod;
use crate::shown::{self, Go};

const MAX_ENTRIES: usize = 32;
const MAX_VALUES: usize = 48;
const MAX_TAINTS: usize = 16;
const MAX_CONSUMPTIONS: usize = 2;
/// Longest text or version of an attribute.
const MAX_TEXT: usize = 64;

/// An attribute as complaints show it.
const ATTRIBUTE: Go = Go::Struct(&[
    ("IntValue", "int", Go::Plain),
    ("BoolValue", "bool", Go::Plain),
    ("StringValue", "string", Go::Plain),
    ("VersionValue", "version", Go::Plain),
    ("IntValues", "ints", Go::Plain),
    ("BoolValues", "bools", Go::Plain),
    ("StringValues", "strings", Go::Plain),
    ("VersionValues", "versions", Go::Plain),
]);

/// Takes out what Kubernetes drops while its feature is off: attributes with lists, resources of the node.
pub(super) fn drop_disabled(object: &mut Value) {
    let Some(spec) = some_mut(object, "spec") else { return };
    for device in items_mut(spec, "devices") {
        remove(device, "nodeAllocatableResourceMappings");
        let attributes = device.get_mut("attributes").and_then(Value::as_object_mut);
        for attribute in attributes.into_iter().flat_map(|all| all.values_mut()) {
            for field in ["ints", "bools", "strings", "versions"] {
                remove(attribute, field);
            }
        }
    }
}

/// In which ways it was said where something is.
#[derive(Debug, Default)]
pub(super) struct Placement(Vec<&'static str>);

impl Placement {
    /// It was said by this field.
    pub(super) fn said(&mut self, field: &'static str) {
        self.0.push(field);
    }

    /// How often it was said.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// By the name of a node; `empty` is what is said of an empty one.
    pub(super) fn node_name(&mut self, holder: &Value, empty: &str, path: &Path<'_>, errors: &mut Errors) {
        let path = path.child("nodeName");
        match get(holder, "nodeName").as_str() {
            Some("") => errors.invalid(&path, "", empty),
            Some(name) => {
                self.said("nodeName");
                errors.invalid_each(&path, name, names::dns1123_subdomain(name));
            }
            None => {}
        }
    }

    /// By a field that is true or not there.
    pub(super) fn flag(&mut self, holder: &Value, field: &'static str, path: &Path<'_>, errors: &mut Errors) {
        match get(holder, field).as_bool() {
            Some(true) => self.said(field),
            Some(false) => errors.invalid(&path.child(field), false, "must be either unset or set to true"),
            None => {}
        }
    }
}

/// ``{`nodeName`, `allNodes`}``
impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<_> = self.0.iter().map(|field| format!("`{field}`")).collect();
        write!(f, "{{{}}}", fields.join(", "))
    }
}

/// Checks a device; `before` is the one of its name in the slice that is changed.
pub(super) fn check(
    device: &Value,
    before: Option<&Value>,
    each_by_itself: bool,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    label(text(device, "name"), &path.child("name"), errors);
    let count = |field| entries(device, field).count();
    if count("attributes") + count("capacity") > MAX_ENTRIES {
        let detail = format!("the total number of attributes and capacities must not exceed {MAX_ENTRIES}");
        errors.invalid(path, count("attributes") + count("capacity"), detail);
    }
    if count("attributes") > MAX_VALUES {
        let detail = format!("the total number of attribute values must not exceed {MAX_VALUES}");
        errors.invalid(path, count("attributes"), detail);
    }
    named(device, "attributes", path, errors, attribute);
    let shared = flag(device, "allowMultipleAllocations");
    named(device, "capacity", path, errors, |capacity, path, errors| {
        device_capacity::check(capacity, shared, path, errors);
    });
    if before.is_none_or(|before| get(before, "taints") != get(device, "taints")) {
        each(list(device, "taints"), MAX_TAINTS, &path.child("taints"), errors, taint);
    }
    let key = |one: &Value| text(one, "counterSet").to_owned();
    let (consumed, here) = (list(device, "consumesCounters"), path.child("consumesCounters"));
    each_once(consumed, MAX_CONSUMPTIONS, key, &here, errors, |one, path, errors| {
        device_capacity::counters(one, "counterSet", path, errors);
    });
    nodes(device, each_by_itself, path, errors);
    binding(device, path, errors);
}

/// The entries of a map whose keys are qualified names.
fn named(
    device: &Value,
    field: &str,
    path: &Path<'_>,
    errors: &mut Errors,
    mut rule: impl FnMut(&Value, &Path<'_>, &mut Errors),
) {
    let path = path.child(field);
    for (key, value) in entries(device, field) {
        qualified_name(key, &path, errors);
        rule(value, &path.key(&device_capacity::shortened(key, MAX_QUALIFIED)), errors);
    }
}

fn attribute(attribute: &Value, path: &Path<'_>, errors: &mut Errors) {
    let said = ["int", "bool", "string", "version"].iter().filter(|field| has(attribute, field)).count();
    if text(attribute, "string").len() > MAX_TEXT {
        errors.too_long(&path.child("string"), MAX_TEXT);
    }
    if let Some(version) = get(attribute, "version").as_str() {
        let path = path.child("version");
        if !is_semantic(version) {
            errors.invalid(&path, version, "must be a string compatible with semver.org spec 2.0.0");
        }
        if version.len() > MAX_TEXT {
            errors.too_long(&path, MAX_TEXT);
        }
    }
    if said == 0 {
        errors.invalid(path, "", "exactly one value must be specified");
    } else if said > 1 {
        errors.invalid_object(path, shown::go(attribute, &ATTRIBUTE), "exactly one value must be specified");
    }
}

/// Whether a text is a version of semver 2.0.0.
fn is_semantic(version: &str) -> bool {
    let (rest, build) = version.split_once('+').map_or((version, None), |(rest, build)| (rest, Some(build)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn taint(taint: &Value, path: &Path<'_>, errors: &mut Errors) {
    let value = text(taint, "value");
    meta::label_name(text(taint, "key"), &path.child("key"), errors);
    errors.invalid_each(&path.child("value"), value, names::label_value(value));
    errors.one_of(&path.child("effect"), text(taint, "effect"), EFFECTS);
}

fn nodes(device: &Value, each_by_itself: bool, path: &Path<'_>, errors: &mut Errors) {
    const ONE_OF: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    if !each_by_itself {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| has(device, field)) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.invalid(path, Value::Null, detail);
        }
        return;
    }
    let mut placement = Placement::default();
    placement.node_name(device, "must not be empty", path, errors);
    if has(device, "nodeSelector") {
        placement.said("nodeSelector");
        pod::node_selector(get(device, "nodeSelector"), &path.child("nodeSelector"), errors);
    }
    placement.flag(device, "allNodes", path, errors);
    if placement.count() == 0 {
        errors.required(path, ONE_OF);
    } else if placement.count() > 1 {
        errors.invalid(path, placement.to_string(), ONE_OF);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_semver() {
        for good in ["1.2.3", "0.0.0-a.1+b.01", "1.0.0-x-y.z"] {
            assert!(is_semantic(good), "{good}");
        }
        for bad in ["1.2", "v1.2.3", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "1.2.3+a_b"] {
            assert!(!is_semantic(bad), "{bad}");
        }
    }
}
