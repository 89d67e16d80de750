//! What a claim asks for: requests, constraints between them, settings. Shared by claims and templates.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::shared::{
    self, MAX_CONFIG, class_name, each, each_once, full_name, itself, label, name_of, selectors, toleration,
};
use crate::errors::Errors;
use crate::json::{get, has, int, items_mut, list, set, set_default, set_default_number, text};
use crate::path::Path;
use crate::shown::Go;

/// Most requests of a claim, and most that one setting or constraint is about.
pub(super) const MAX_REQUESTS: usize = 32;
const MAX_CONSTRAINTS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;

const REFERENCE: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

type Fields = &'static [(&'static str, &'static str, Go)];

const SELECTORS: Fields = &[("CEL", "cel", Go::Pointer(&[("Expression", "expression", Go::Text)]))];
const TOLERATIONS: Fields = &[
    ("Key", "key", Go::Text),
    ("Operator", "operator", Go::Text),
    ("Value", "value", Go::Text),
    ("Effect", "effect", Go::Text),
    ("TolerationSeconds", "tolerationSeconds", Go::Plain),
];
const CAPACITY: Fields = &[("Requests", "requests", Go::Plain)];

/// A claim's spec as complaints show it.
pub(super) const SPEC: Fields = &[(
    "Devices",
    "devices",
    Go::Struct(&[
        (
            "Requests",
            "requests",
            Go::List(&[
                ("Name", "name", Go::Text),
                (
                    "Exactly",
                    "exactly",
                    Go::Pointer(&[
                        ("DeviceClassName", "deviceClassName", Go::Text),
                        ("Selectors", "selectors", Go::List(SELECTORS)),
                        ("AllocationMode", "allocationMode", Go::Text),
                        ("Count", "count", Go::Number),
                        ("AdminAccess", "adminAccess", Go::Plain),
                        ("Tolerations", "tolerations", Go::List(TOLERATIONS)),
                        ("Capacity", "capacity", Go::Pointer(CAPACITY)),
                    ]),
                ),
                (
                    "FirstAvailable",
                    "firstAvailable",
                    Go::List(&[
                        ("Name", "name", Go::Text),
                        ("DeviceClassName", "deviceClassName", Go::Text),
                        ("Selectors", "selectors", Go::List(SELECTORS)),
                        ("AllocationMode", "allocationMode", Go::Text),
                        ("Count", "count", Go::Number),
                        ("Tolerations", "tolerations", Go::List(TOLERATIONS)),
                        ("Capacity", "capacity", Go::Pointer(CAPACITY)),
                    ]),
                ),
            ]),
        ),
        (
            "Constraints",
            "constraints",
            Go::List(&[
                ("Requests", "requests", Go::Plain),
                ("MatchAttribute", "matchAttribute", Go::Plain),
                ("DistinctAttribute", "distinctAttribute", Go::Plain),
            ]),
        ),
        (
            "Config",
            "config",
            Go::List(&[
                ("Requests", "requests", Go::Plain),
                (
                    "Opaque",
                    "opaque",
                    Go::Pointer(&[("Driver", "driver", Go::Text), ("Parameters", "parameters", Go::Plain)]),
                ),
            ]),
        ),
    ]),
)];

/// The names of the requests, each with those of its alternatives.
pub(super) type RequestNames<'s> = BTreeMap<&'s str, BTreeSet<&'s str>>;

/// Fills in how many devices a request is for, and how tolerations compare.
pub(super) fn default(spec: &mut Value) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in items_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
            default_request(exactly);
        }
        items_mut(request, "firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    set_default(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        set_default_number(request, "count", 1);
    }
    for toleration in items_mut(request, "tolerations").filter(|one| text(one, "operator").is_empty()) {
        set(toleration, "operator", "Equal");
    }
}

/// The names of a claim's requests.
pub(super) fn request_names(spec: &Value) -> RequestNames<'_> {
    let alternatives =
        |request| list(request, "firstAvailable").iter().map(|one| text(one, "name")).collect::<BTreeSet<_>>();
    list(get(spec, "devices"), "requests").iter().map(|one| (text(one, "name"), alternatives(one))).collect()
}

/// Checks what is asked for.
pub(super) fn check(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (devices, path, known) = (get(spec, "devices"), path.child("devices"), request_names(spec));
    let requests = path.child("requests");
    each_once(list(devices, "requests"), MAX_REQUESTS, name_of, &requests, errors, request);
    let constraints = path.child("constraints");
    each(list(devices, "constraints"), MAX_CONSTRAINTS, &constraints, errors, |one, path, errors| {
        constraint(one, &known, path, errors);
    });
    each(list(devices, "config"), MAX_CONFIG, &path.child("config"), errors, |one, path, errors| {
        references(one, &known, path, errors);
        shared::config(one, path, errors);
    });
}

fn request(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    const ONE_OF: &str = "exactly one of `exactly` or `firstAvailable` is required";
    label(text(request, "name"), &path.child("name"), errors);
    let (exactly, alternatives) = (get(request, "exactly"), list(request, "firstAvailable"));
    match (exactly.is_null(), alternatives.is_empty()) {
        (true, true) => errors.required(path, ONE_OF),
        (false, false) => {
            errors.invalid(path, Value::Null, format!("{ONE_OF}, but multiple fields are set"));
        }
        (false, true) => one_request(exactly, &path.child("exactly"), errors),
        (true, false) => {
            let path = path.child("firstAvailable");
            each_once(alternatives, MAX_ALTERNATIVES, name_of, &path, errors, |one, path, errors| {
                label(text(one, "name"), &path.child("name"), errors);
                one_request(one, path, errors);
            });
        }
    }
}

fn one_request(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    class_name(text(request, "deviceClassName"), &path.child("deviceClassName"), errors);
    selectors(request, path, errors);
    let count = int(request, "count").unwrap_or_default();
    match text(request, "allocationMode") {
        "All" if count != 0 => {
            errors.invalid(&path.child("count"), count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count <= 0 => errors.invalid(&path.child("count"), count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.unsupported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    let path = path.child("tolerations");
    for (index, one) in list(request, "tolerations").iter().enumerate() {
        toleration(one, &path.index(index), errors);
    }
}

fn constraint(one: &Value, known: &RequestNames<'_>, path: &Path<'_>, errors: &mut Errors) {
    references(one, known, path, errors);
    for field in ["matchAttribute", "distinctAttribute"] {
        if has(one, field) {
            return full_name(text(one, field), &path.child(field), errors);
        }
    }
    let detail = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
    errors.required(path, detail);
}

/// The requests that a constraint or a setting is about.
pub(super) fn references(holder: &Value, known: &RequestNames<'_>, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("requests");
    each_once(list(holder, "requests"), MAX_REQUESTS, itself, &path, errors, |name, path, errors| {
        reference(name.as_str().unwrap_or_default(), known, path, errors);
    });
}

/// The name of a request, or of a request and one of its alternatives.
pub(super) fn reference(name: &str, known: &RequestNames<'_>, path: &Path<'_>, errors: &mut Errors) {
    let parts: Vec<_> = name.split('/').collect();
    if parts.len() > 2 {
        return errors.invalid(path, name, REFERENCE);
    }
    for part in &parts {
        label(part, path, errors);
    }
    let found = match parts[..] {
        [request, alternative] => known.get(request).is_some_and(|all| all.contains(alternative)),
        _ => known.contains_key(name),
    };
    if !found {
        errors.invalid(path, name, REFERENCE);
    }
}
