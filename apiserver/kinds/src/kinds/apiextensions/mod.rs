//! `apiextensions.k8s.io`: CustomResourceDefinition.
//!
//! | file | holds |
//! |---|---|
//! | `conform.rs` | schemas are brought into their form |
//! | `internal.rs` | the spec as its rules see it |
//! | `rules.rs`, `webhook.rs` | the rules for a spec |
//! | `structural.rs`, `openapi.rs`, `defaults.rs`, `cel.rs` | the rules for a schema |
//!
//! What follows from a definition that was accepted is in [`crate::custom`].

mod cel;
mod conform;
mod defaults;
mod internal;
mod openapi;
mod rules;
mod structural;
#[cfg(test)]
mod tests;
mod webhook;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use reeve_api::names;
use serde_json::{Value, json};

use crate::errors::Errors;
use crate::field::FieldError;
use crate::json::{copy_field, flag, get, items_mut, list, object_mut, remove, set, set_default, text, text_at};
use crate::kind::{Column, Kind, Names, Part};
use crate::kinds::wiring;
use crate::meta::{self, MetaRules};
use crate::path::Path;
use crate::strict::{self, DecodeError};
use crate::table;
use rules::Options;

const NAMES: Names = Names {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
};

const META: MetaRules = MetaRules { namespaced: false, name: names::dns1123_subdomain };

const COLUMNS: &[Column] = &[table::NAME, table::any("Created At", "date", "", table::AGE_TEXT, 0)];

/// The annotation that says why a definition in a group of the Kubernetes community is there.
const APPROVAL: &str = "api-approved.kubernetes.io";

/// The kinds of the group, by resource name.
pub(super) fn kinds() -> Vec<Arc<dyn Kind>> {
    vec![Arc::new(Definitions)]
}

/// The kind.
pub(super) struct Definitions;

impl Kind for Definitions {
    wiring!(CustomResourceDefinition, NAMES, COLUMNS);

    fn conform(&self, object: &mut Value) -> Result<Vec<String>, DecodeError> {
        let (mut schemas, mut empty_warnings) = (Vec::new(), Vec::new());
        if let Some(spec) = object.get_mut("spec") {
            for (index, version) in items_mut(spec, "versions").enumerate() {
                let schema = version.get_mut("schema").and_then(|schema| remove(schema, "openAPIV3Schema"));
                empty_warnings.extend((get(version, "deprecationWarning") == "").then_some(index));
                schemas.extend(schema.filter(|schema| !schema.is_null()).map(|schema| (index, schema)));
            }
        }
        let mut unknown = strict::conform_to(self.shape(), object)?;
        // An empty warning is something else than none.
        for index in empty_warnings {
            set(&mut object["spec"]["versions"][index], "deprecationWarning", "");
        }
        for (index, mut schema) in schemas {
            let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
            unknown.extend(conform::schema(&mut schema, &path)?);
            set(object_mut(&mut object["spec"]["versions"][index], "schema"), "openAPIV3Schema", schema);
        }
        if let Some(status) = object.get_mut("status") {
            complete_status(status);
        }
        Ok(unknown)
    }

    fn parts(&self) -> &[Part] {
        &[Part::Status]
    }

    fn default(&self, object: &mut Value) {
        let spec = object_mut(object, "spec");
        let names = object_mut(spec, "names");
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            set_default(names, "singular", kind.to_lowercase());
            set_default(names, "listKind", format!("{kind}List"));
        }
        let conversion = object_mut(spec, "conversion");
        if conversion.as_object().is_some_and(serde_json::Map::is_empty) {
            set(conversion, "strategy", "None");
        }
        let webhook = conversion.get_mut("webhook").and_then(|webhook| webhook.get_mut("clientConfig"));
        if let Some(service) = webhook.and_then(|client| client.get_mut("service")).filter(|one| one.is_object()) {
            crate::json::set_default_number(service, "port", 443);
        }
        let storage = storage_version(object);
        let status = object_mut(object, "status");
        if list(status, "storedVersions").is_empty()
            && let Some(storage) = storage
        {
            set(status, "storedVersions", json!([storage]));
        }
        complete_status(status);
    }

    fn prepare_create(&self, object: &mut Value) {
        let mut status = json!({});
        if let Some(storage) = storage_version(object) {
            set(&mut status, "storedVersions", json!([storage]));
        }
        complete_status(&mut status);
        set(object, "status", status);
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.create_plain(object, &mut errors);
        let spec = get(object, "spec");
        let name = text_at(object, &["metadata", "name"]);
        if name != format!("{}.{}", text(get(spec, "names"), "plural"), text(spec, "group")) {
            errors.invalid(&Path::of("metadata").child("name"), name, "must be spec.names.plural+\".\"+spec.group");
        }
        rules::spec(&internal::spec(object), Options::create(), &Path::of("spec"), &mut errors);
        rest(object, None, &mut errors);
        errors.into_vec()
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        if part == Part::Status {
            copy_field(object, old, "spec");
        } else {
            copy_field(object, old, "status");
            let storage = storage_version(object).map(Value::from);
            let status = object_mut(object, "status");
            if let Some(storage) = storage.filter(|storage| !list(status, "storedVersions").contains(storage)) {
                let mut stored = list(status, "storedVersions").to_vec();
                stored.push(storage);
                set(status, "storedVersions", stored);
            }
            complete_status(status);
        }
        meta::next_generation(object, old);
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        META.update_plain(object, old, &mut errors);
        if part == Part::Status {
            let path = Path::of("status");
            rules::names(get(get(object, "status"), "acceptedNames"), &path.child("acceptedNames"), &mut errors);
            return errors.into_vec();
        }
        let (spec, old_spec, path) = (internal::spec(object), internal::spec(old), Path::of("spec"));
        let mut options = Options::update(&old_spec, is_established(old));
        options.unchanged_schemas = unchanged_schemas(object, old);
        rules::spec(&spec, options.clone(), &path, &mut errors);
        rules::immutable(&spec, &old_spec, &options, &path, &mut errors);
        rest(object, Some(old), &mut errors);
        errors.into_vec()
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let before = old.map(|old| rules::unknown_formats(&internal::spec(old))).unwrap_or_default();
        let found = rules::unknown_formats(&internal::spec(object)).into_iter();
        found.filter(|one| !before.contains(one)).map(|one| format!("unrecognized format {one:?}")).collect()
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn row(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        vec![table::name(object), text_at(object, &["metadata", "creationTimestamp"]).into()]
    }
}

/// The rules besides those of the spec.
fn rest(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let status = Path::of("status");
    rules::names(get(get(object, "status"), "acceptedNames"), &status.child("acceptedNames"), errors);
    rules::stored_versions(object, &status.child("storedVersions"), errors);
    approval(object, old, errors);
    let preserves = |crd: &Value| flag(get(crd, "spec"), "preserveUnknownFields");
    if preserves(object) && !old.is_some_and(preserves) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        errors.invalid(&Path::of("spec").child("preserveUnknownFields"), true, detail);
    }
}

/// The version in which objects are stored.
fn storage_version(object: &Value) -> Option<String> {
    let versions = list(get(object, "spec"), "versions");
    versions.iter().find(|version| flag(version, "storage")).map(|version| text(version, "name").to_owned())
}

/// The versions whose schema a change leaves as it is.
fn unchanged_schemas(object: &Value, old: &Value) -> Vec<String> {
    let versions = |crd| list(get(crd, "spec"), "versions");
    let same = |version: &&Value| {
        versions(old)
            .iter()
            .any(|old| get(old, "name") == get(version, "name") && get(old, "schema") == get(version, "schema"))
    };
    versions(object).iter().filter(same).map(|version| text(version, "name").to_owned()).collect()
}

/// Fields of the status that are always there.
fn complete_status(status: &mut Value) {
    let fields = crate::json::map_mut(status);
    fields.entry("conditions").or_insert(Value::Null);
    let names = fields.entry("acceptedNames").or_insert_with(|| json!({}));
    for field in ["plural", "kind"] {
        let names = crate::json::map_mut(names);
        names.entry(field).or_insert_with(|| "".into());
    }
    fields.entry("storedVersions").or_insert(Value::Null);
}

fn is_established(crd: &Value) -> bool {
    let conditions = list(get(crd, "status"), "conditions").iter();
    conditions.filter(|one| text(one, "type") == "Established").any(|one| text(one, "status") == "True")
}

/// How a definition in a group of the Kubernetes community is approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approval {
    /// The annotation is neither a link nor an excuse.
    Invalid(String),
    /// It links to the approval.
    Approved(String),
    /// It says that there is none.
    Bypassed(String),
    /// There is no annotation.
    Missing(String),
}

/// Whether a group belongs to the Kubernetes community.
#[must_use]
pub fn is_protected_group(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// The state of approval of a definition, and why, in Kubernetes' words.
#[must_use]
pub fn approval_of(crd: &Value) -> Approval {
    let annotation = text(get(get(crd, "metadata"), "annotations"), APPROVAL);
    const MORE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let link = annotation
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.split('/').next().unwrap_or_default().is_empty());
    if annotation.is_empty() {
        Approval::Missing(format!("protected groups must have approval annotation {APPROVAL:?}, {MORE}"))
    } else if annotation.starts_with("unapproved") {
        Approval::Bypassed(format!("not approved: {annotation:?}"))
    } else if link && crate::custom::formats::request_uri(annotation) {
        Approval::Approved(format!("approved in {annotation}"))
    } else {
        Approval::Invalid(format!(
            "protected groups must have approval annotation {APPROVAL:?} with either a URL or a reason starting with \
             \"unapproved\", {MORE}"
        ))
    }
}

fn approval(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    if !is_protected_group(text(get(object, "spec"), "group")) {
        return;
    }
    let state = approval_of(object);
    let same = |old: &Value| std::mem::discriminant(&approval_of(old)) == std::mem::discriminant(&state);
    if old.is_some_and(same) {
        return;
    }
    let path = Path::of("metadata");
    let path = path.child("annotations");
    let path = path.key(APPROVAL);
    match state {
        Approval::Invalid(why) => {
            let annotation = text(get(get(object, "metadata"), "annotations"), APPROVAL);
            errors.invalid(&path, annotation, why);
        }
        Approval::Missing(why) => errors.required(&path, why),
        Approval::Approved(_) | Approval::Bypassed(_) => {}
    }
}
