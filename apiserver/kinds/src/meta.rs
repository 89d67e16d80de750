//! `metadata`: the rules that hold for every kind.
//!
//! Source: `k8s.io/apimachinery/pkg/api/validation` (ValidateObjectMeta, ValidateObjectMetaUpdate) and
//! `pkg/registry/rest`. What is not here: uid, creationTimestamp, generateName and namespace of a request,
//! which the generic API server sets.

use std::collections::BTreeSet;

use reeve_api::names;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{at, entries, flag, get, int, list, text};
use crate::kind::Kind;
use crate::path::Path;
use crate::shown;

/// Most bytes that all annotations of an object may have together.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// Finalizers that need no domain before their name.
const STANDARD_FINALIZERS: &[&str] = &["foregroundDeletion", "kubernetes", "orphan"];

/// The rule for a kind's names.
pub(crate) type NameRule = fn(&str) -> Vec<String>;

/// A rule for names that stand in URLs: anything but `.`, `..`, `/` and `%` (Kubernetes' path segment name).
pub(crate) fn path_segment(name: &str) -> Vec<String> {
    match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        _ => ['/', '%'].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect(),
    }
}

/// What the rules for `metadata` need to know of a kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MetaRules {
    /// Whether objects live in a namespace.
    pub(crate) namespaced: bool,
    /// The rule for names.
    pub(crate) name: NameRule,
}

impl MetaRules {
    /// Rules for a new object's `metadata`.
    pub(crate) fn create(self, object: &Value, errors: &mut Errors) {
        self.create_plain(object, errors);
        standard_finalizers(object, errors);
    }

    /// As [`MetaRules::create`], but finalizers need neither a domain nor a standard name: Lease and Event.
    pub(crate) fn create_plain(self, object: &Value, errors: &mut Errors) {
        let (meta, path) = (get(object, "metadata"), Path::of("metadata"));
        let prefix = text(meta, "generateName");
        if !prefix.is_empty() {
            // The prefix may end with a dash, because something follows it.
            let masked = match prefix.strip_suffix('-') {
                Some(start) if !start.is_empty() => format!("{}a", &start[..start.len() - last_char_len(start)]),
                _ => prefix.to_owned(),
            };
            errors.invalid_each(&path.child("generateName"), prefix, (self.name)(&masked));
        }
        let name = text(meta, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "name or generateName is required");
        } else {
            errors.invalid_each(&path.child("name"), name, (self.name)(name));
        }
        self.namespace(meta, &path, errors);
        errors.not_negative(&path.child("generation"), int(meta, "generation"));
        common(meta, &path, errors);
    }

    fn namespace(self, meta: &Value, path: &Path<'_>, errors: &mut Errors) {
        let (namespace, path) = (text(meta, "namespace"), path.child("namespace"));
        match (self.namespaced, namespace.is_empty()) {
            (true, true) => errors.required(&path, ""),
            (true, false) => errors.invalid_each(&path, namespace, names::dns1123_label(namespace)),
            (false, false) => errors.forbidden(&path, "not allowed on this type"),
            (false, true) => {}
        }
    }

    /// Rules for a changed object's `metadata`.
    pub(crate) fn update(self, object: &Value, old: &Value, errors: &mut Errors) {
        self.update_plain(object, old, errors);
        standard_finalizers(object, errors);
    }

    /// As [`MetaRules::update`], without the rule for finalizers' names: Lease.
    #[allow(clippy::unused_self)] // As its siblings: what is asked of a kind's rules.
    pub(crate) fn update_plain(self, object: &Value, old: &Value, errors: &mut Errors) {
        let (meta, was, path) = (get(object, "metadata"), get(old, "metadata"), Path::of("metadata"));
        finalizers_of_the_dying(meta, was, &path, errors);
        if int(meta, "generation").unwrap_or_default() < int(was, "generation").unwrap_or_default() {
            errors.invalid(&path.child("generation"), get(meta, "generation").clone(), "must not be decremented");
        }
        for field in
            ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
        {
            errors.immutable(&path.child(field), get(meta, field), get(was, field));
        }
        labels(get(meta, "labels"), &path.child("labels"), errors);
        annotations(meta, &path.child("annotations"), errors);
        owner_references(meta, &path.child("ownerReferences"), errors);
    }
}

/// What is asked of every changed object before its kind is: whatever is wrong with `metadata` is said here, and
/// again by most kinds.
#[must_use]
pub fn common_changes(kind: &dyn Kind, object: &Value, old: &Value) -> Vec<FieldError> {
    let rules = MetaRules { namespaced: kind.names().namespaced, name: path_segment };
    let mut errors = Errors::default();
    rules.create_plain(object, &mut errors);
    rules.update_plain(object, old, &mut errors);
    errors.into_vec()
}

fn last_char_len(text: &str) -> usize {
    text.chars().next_back().map_or(0, char::len_utf8)
}

/// Once an object is being deleted no finalizer may be added.
fn finalizers_of_the_dying(meta: &Value, was: &Value, path: &Path<'_>, errors: &mut Errors) {
    if get(was, "deletionTimestamp").is_null() {
        return;
    }
    let texts = |meta| list(meta, "finalizers").iter().filter_map(Value::as_str);
    let before: BTreeSet<_> = texts(was).collect();
    let added: Vec<_> = texts(meta).filter(|one| !before.contains(one)).collect();
    if !added.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers {}",
            go_strings(&added)
        );
        errors.forbidden(&path.child("finalizers"), detail);
    }
}

/// `[]string{"a", "b"}`, as Go prints it with `%#v`.
fn go_strings(texts: &[&str]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
    format!("[]string{{{}}}", quoted.join(", "))
}

fn common(meta: &Value, path: &Path<'_>, errors: &mut Errors) {
    labels(get(meta, "labels"), &path.child("labels"), errors);
    annotations(meta, &path.child("annotations"), errors);
    owner_references(meta, &path.child("ownerReferences"), errors);
    finalizers(meta, &path.child("finalizers"), errors);
}

/// A map of labels: `metadata.labels`, a node selector, a Service's selector.
pub(crate) fn labels(labels: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        label_name(key, path, errors);
        let value = value.as_str().unwrap_or_default();
        errors.invalid_each(path, value, names::label_value(value));
    }
}

/// The key of a label.
pub(crate) fn label_name(key: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.invalid_each(path, key, names::qualified_name(key));
}

/// Annotations of an object or of a pod template.
pub(crate) fn annotations(meta: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in entries(meta, "annotations") {
        errors.invalid_each(path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > ANNOTATIONS_MAX {
        errors.too_long(path, ANNOTATIONS_MAX);
    }
}

fn owner_references(meta: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut controller: Option<&Value> = None;
    for owner in list(meta, "ownerReferences") {
        owner_reference(owner, path, errors);
        if !flag(owner, "controller") {
            continue;
        }
        if let Some(first) = controller {
            let name = |owner| format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                name(first),
                name(owner)
            );
            errors.invalid_object(path, shown::owners(list(meta, "ownerReferences")), detail);
        } else {
            controller = Some(owner);
        }
    }
}

fn owner_reference(owner: &Value, path: &Path<'_>, errors: &mut Errors) {
    let version = text(owner, "apiVersion");
    let parsed = match version.split_once('/') {
        _ if version.matches('/').count() > 1 => "",
        Some((_, version)) => version,
        None => version,
    };
    if parsed.is_empty() {
        errors.invalid(&path.child("apiVersion"), version, "version must not be empty");
    }
    for field in ["kind", "name", "uid"] {
        if text(owner, field).is_empty() {
            errors.invalid(&path.child(field), "", "must not be empty");
        }
    }
    if version == "v1" && text(owner, "kind") == "Event" {
        errors.invalid_object(path, shown::owner(owner), "/v1, Kind=Event is disallowed from being an owner");
    }
}

fn finalizers(meta: &Value, path: &Path<'_>, errors: &mut Errors) {
    for finalizer in list(meta, "finalizers") {
        finalizer_name(finalizer.as_str().unwrap_or_default(), path, errors);
    }
    let has = |name: &str| list(meta, "finalizers").iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(path, get(meta, "finalizers").clone(), detail);
    }
}

/// Finalizers have a domain, but for a few.
fn standard_finalizers(object: &Value, errors: &mut Errors) {
    let path = Path::of("metadata");
    let path = path.child("finalizers");
    for (index, finalizer) in list(get(object, "metadata"), "finalizers").iter().enumerate() {
        standard_finalizer(finalizer.as_str().unwrap_or_default(), &path.index(index), errors);
    }
}

/// A finalizer's name has a domain, or is one of Kubernetes' own.
pub(crate) fn standard_finalizer(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        errors.invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// The name of a finalizer: a qualified name.
pub(crate) fn finalizer_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.invalid_each(path, name, names::qualified_name(name));
}

/// A label selector in object form, `{matchLabels, matchExpressions}`.
pub(crate) fn label_selector(selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    labels(get(selector, "matchLabels"), &path.child("matchLabels"), errors);
    let path = path.child("matchExpressions");
    for (index, requirement) in list(selector, "matchExpressions").iter().enumerate() {
        label_requirement(requirement, &path.index(index), errors);
    }
}

fn label_requirement(requirement: &Value, path: &Path<'_>, errors: &mut Errors) {
    let operator = text(requirement, "operator");
    if !matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist") {
        errors.invalid(&path.child("operator"), operator, "not a valid selector operator");
    }
    tolerant_label_requirement(requirement, path, errors);
}

/// A requirement on a label whose operator may be one that is not known here.
pub(crate) fn tolerant_label_requirement(requirement: &Value, path: &Path<'_>, errors: &mut Errors) {
    requirement_values(requirement, path, errors);
    label_name(text(requirement, "key"), &path.child("key"), errors);
    let path = path.child("values");
    for (index, value) in list(requirement, "values").iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        errors.invalid_each(&path.index(index), value, names::label_value(value));
    }
}

/// Whether the operator of a requirement takes values; one that is not known takes whatever there is.
pub(crate) fn requirement_values(requirement: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (path, is_empty) = (path.child("values"), list(requirement, "values").is_empty());
    match text(requirement, "operator") {
        "In" | "NotIn" if is_empty => {
            errors.required(&path, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !is_empty => {
            errors.forbidden(&path, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        _ => {}
    }
}

/// What an update of the status may not change in `metadata`, for kinds that Kubernetes treats so
/// (`ResetObjectMetaForStatus`).
pub(crate) fn reset_for_status(object: &mut Value, old: &Value) {
    let (meta, was) = (crate::json::object_mut(object, "metadata"), get(old, "metadata"));
    for field in ["deletionTimestamp", "generation", "labels", "annotations", "finalizers", "ownerReferences"] {
        crate::json::copy_field(meta, was, field);
    }
}

/// Takes all of `metadata` but who manages what from the former state, for kinds that Kubernetes treats so when their
/// status is updated.
pub(crate) fn keep_for_status(object: &mut Value, old: &Value) {
    let managed = crate::json::remove(crate::json::object_mut(object, "metadata"), "managedFields");
    crate::json::copy_field(object, old, "metadata");
    let meta = crate::json::object_mut(object, "metadata");
    crate::json::remove(meta, "managedFields");
    if let Some(managed) = managed {
        crate::json::set(meta, "managedFields", managed);
    }
}

/// Sets the generation of a new object of a kind that counts them.
pub(crate) fn first_generation(object: &mut Value) {
    crate::json::set(crate::json::object_mut(object, "metadata"), "generation", json!(1));
}

/// How often the wanted state of an object has changed.
pub(crate) fn generation(object: &Value) -> i64 {
    at(object, &["metadata", "generation"]).as_i64().unwrap_or_default()
}

/// Sets the generation of a changed object: one more when `spec` differs.
pub(crate) fn next_generation(object: &mut Value, old: &Value) {
    next_generation_of(object, old, "spec");
}

/// As [`next_generation`], of a kind whose wanted state stands in another field.
pub(crate) fn next_generation_of(object: &mut Value, old: &Value, field: &str) {
    let was = generation(old);
    let changed = get(object, field) != get(old, field);
    let meta = crate::json::object_mut(object, "metadata");
    let now = if changed { was + 1 } else { was };
    if now == 0 {
        crate::json::remove(meta, "generation");
    } else {
        crate::json::set(meta, "generation", now);
    }
}

/// Rules for a list of conditions of the common form.
pub(crate) fn conditions(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, condition) in list(holder, "conditions").iter().enumerate() {
        let (path, kind) = (path.index(index), text(condition, "type"));
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        label_name(kind, &path.child("type"), errors);
        self::condition(condition, &path, errors);
    }
}

fn condition(condition: &Value, path: &Path<'_>, errors: &mut Errors) {
    const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
    const REASON_MAX: usize = 1024;
    const MESSAGE_MAX: usize = 32 * 1024;
    let (status, reason) = (text(condition, "status"), text(condition, "reason"));
    if !STATUSES.contains(&status) {
        errors.unsupported(&path.child("status"), status, &STATUSES);
    }
    if let Some(number) = int(condition, "observedGeneration").filter(|number| *number < 0) {
        errors.invalid(&path.child("observedGeneration"), number, "must be greater than or equal to zero");
    }
    if text(condition, "lastTransitionTime").is_empty() {
        errors.required(&path.child("lastTransitionTime"), "");
    }
    let here = path.child("reason");
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    if reason.is_empty() {
        errors.required(&here, "");
    } else if !reason.starts_with(|letter: char| letter.is_ascii_alphabetic())
        || !reason.ends_with(is_word)
        || !reason.chars().all(|letter| is_word(letter) || letter == ',' || letter == ':')
    {
        let detail = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
        errors.invalid(&here, reason, detail);
    }
    if reason.len() > REASON_MAX {
        errors.too_long(&here, REASON_MAX);
    }
    if text(condition, "message").len() > MESSAGE_MAX {
        errors.too_long(&path.child("message"), MESSAGE_MAX);
    }
}
