//! A kind made of one version of a CustomResourceDefinition.
//!
//! Source: `pkg/registry/customresource` and `pkg/apiserver/customresource_handler.go` of apiextensions-apiserver.

use jiff::Timestamp;
use reeve_api::names;
use reeve_api::patch::PatchSchema;
use serde_json::Value;

use super::correlate::Pair;
use super::embedded::{self, Malformed};
use super::jsonpath::JsonPath;
use super::merging::Merging;
use super::rules::{self, Ratchet, Rules};
use super::schema::Schema;
use super::{columns, default, lists, openapi, prune, scale, validate, versions};
use crate::errors::Errors;
use crate::field::{FieldError, FieldErrorKind};
use crate::intern::{intern, intern_all};
use crate::json::{at, flag, get, has, list, remove, set, text};
use crate::kind::{Column, Kind, Names, Part, ScalePaths};
use crate::managed::{DEDUCED, MergeSchema};
use crate::meta::{self, MetaRules};
use crate::openapi::Schemas;
use crate::path::Path;
use crate::shape::Shape;
use crate::strict::DecodeError;

/// Finalizers that need no domain before their name.
const STANDARD_FINALIZERS: &[&str] = &["foregroundDeletion", "kubernetes", "orphan"];

/// One version of a custom resource.
pub struct CustomKind {
    names: Names,
    list_kind: &'static str,
    schema: Schema,
    /// `None`: nothing is known of its fields.
    merging: Option<Merging>,
    rules: Option<Rules>,
    /// The schema as it was written, for OpenAPI.
    source: Value,
    /// `spec.preserveUnknownFields` of old definitions: nothing is pruned.
    keep_unknown: bool,
    embedded: bool,
    parts: &'static [Part],
    scale: Option<ScalePaths>,
    columns: Vec<Column>,
    cells: Vec<JsonPath>,
    selectable: Vec<(String, JsonPath)>,
    deprecation: Option<&'static str>,
    /// Whether the definition is about to go.
    terminating: bool,
}

impl CustomKind {
    /// The kind of a version of a definition, under the names it was granted (`status.acceptedNames`). No object can
    /// be created any more when it is `terminating`.
    ///
    /// # Errors
    /// When the version is not there or its schema is not structural; the text says why.
    pub fn new(crd: &Value, version: &str, terminating: bool) -> Result<Self, String> {
        let spec = get(crd, "spec");
        let own = list(spec, "versions").iter().find(|one| text(one, "name") == version);
        let own =
            own.ok_or_else(|| format!("the server could not properly serve the CR schema of version {version}"))?;
        let source = get(get(own, "schema"), "openAPIV3Schema").clone();
        let schema = if source.is_null() { Schema::empty() } else { Schema::parse(&source)? };
        let keep_unknown = flag(spec, "preserveUnknownFields");
        let names = names_of(crd, version);
        let subresources = get(own, "subresources");
        let status: &'static [Part] = if has(subresources, "status") { &[Part::Status] } else { &[] };
        let (columns, cells) = columns::of(list(own, "additionalPrinterColumns"));
        let selectable = list(own, "selectableFields").iter().filter_map(|field| {
            let path = text(field, "jsonPath");
            Some((path.trim_start_matches('.').to_owned(), JsonPath::parse(path)?))
        });
        Ok(Self {
            list_kind: intern(text(accepted_names(crd), "listKind")),
            merging: (!source.is_null()).then(|| Merging::of(&schema, keep_unknown)),
            keep_unknown,
            embedded: embedded::has_embedded(&schema),
            parts: status,
            scale: scale::paths(get(subresources, "scale")),
            columns,
            cells,
            selectable: selectable.collect(),
            deprecation: deprecation(spec, own).map(|text| intern(&text)),
            names,
            rules: Rules::of(&source, true),
            schema,
            source,
            terminating,
        })
    }

    /// The kind of lists, `WidgetList`.
    #[must_use]
    pub fn list_kind(&self) -> &'static str {
        self.list_kind
    }

    /// The fields that may stand in a field selector, without the first dot.
    pub fn selectable_fields(&self) -> impl Iterator<Item = &str> {
        self.selectable.iter().map(|(name, _)| name.as_str())
    }

    /// Brings an object from the store, or from a conversion, into the form in which it is sent: unknown fields
    /// and malformed metadata go, defaults come.
    pub fn read_stored(&self, object: &mut Value) {
        // What is malformed is dropped: there is nothing to refuse.
        let _ = self.coerce(object, Malformed::Drop);
        self.default(object);
    }

    /// Takes away what a conversion has brought and the schema does not have.
    pub fn trim(&self, object: &mut Value) {
        // What is malformed is dropped: there is nothing to refuse.
        let _ = self.coerce(object, Malformed::Drop);
    }

    fn coerce(&self, object: &mut Value, malformed: Malformed) -> Result<Vec<String>, String> {
        let unknown = self.coerce_fields(object, malformed)?;
        if !self.keep_unknown {
            default::drop_nulls(object, Some(&self.schema));
        }
        Ok(unknown)
    }

    fn coerce_fields(&self, object: &mut Value, malformed: Malformed) -> Result<Vec<String>, String> {
        let mut unknown = match object.get_mut("metadata") {
            None => Vec::new(),
            Some(metadata) => embedded::coerce_metadata(metadata, "metadata.", malformed)?,
        };
        if !self.keep_unknown {
            unknown.extend(prune::prune_root(object, &self.schema));
        }
        if self.embedded {
            unknown.extend(embedded::coerce(object, &self.schema, malformed).map_err(|error| error.to_string())?);
        }
        Ok(unknown)
    }

    fn meta(&self) -> MetaRules {
        MetaRules { namespaced: self.names.namespaced, name: names::dns1123_subdomain }
    }

    /// The rules that new and changed objects share, after those of the schema.
    fn common_rules(&self, object: &Value, errors: &mut Errors) {
        if let Some(paths) = self.scale {
            scale::check_spec(object, paths, errors);
            scale::check_status(object, paths, errors);
        }
        if self.embedded {
            embedded::check(object, &self.schema, &Path::ROOT, errors);
        }
    }

    fn list_rules(&self, object: &Value) -> Vec<FieldError> {
        let mut found = Errors::default();
        lists::check(object, &self.schema, &Path::ROOT, &mut found);
        found.into_vec()
    }

    /// The rules in CEL, unless the object is too far from its schema to ask them.
    fn written_rules(&self, object: &Value, old: Option<&Value>, errors: Errors) -> Vec<FieldError> {
        let mut found = errors.into_vec();
        let Some(rules) = &self.rules else { return found };
        let blocking = |error: &FieldError| {
            matches!(
                error.kind,
                FieldErrorKind::NotSupported
                    | FieldErrorKind::Required
                    | FieldErrorKind::TooLong
                    | FieldErrorKind::TooMany
                    | FieldErrorKind::TypeInvalid
            )
        };
        if found.iter().any(blocking) {
            let detail = "some validation rules were not checked because the object was invalid; correct the existing \
                          errors to complete validation";
            found.push(FieldError::new(FieldErrorKind::Invalid, "<nil>", Value::Null, detail));
            return found;
        }
        let ratchet = old.map(|old| Ratchet::root(Pair { new: object, old, schema: &self.schema }));
        let broken = rules::check(rules, &self.schema, object, old, ratchet.unwrap_or_default(), &Path::ROOT);
        found.extend(broken);
        found
    }

    /// What the schema says of the status that a change wants.
    fn status_rules(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let Some(schema) = self.schema.property("status") else { return };
        let Some(status) = object.get("status") else { return };
        let pair = Pair { new: object, old, schema: &self.schema };
        let pair = pair.key("status").unwrap_or(Pair { new: status, old: get(old, "status"), schema });
        push_all(errors, validate::check_update(schema, pair, "status"));
    }
}

fn push_all(errors: &mut Errors, found: Vec<FieldError>) {
    found.into_iter().for_each(|error| errors.push(error));
}

/// The names a definition was granted; those it wants as long as none were.
fn accepted_names(crd: &Value) -> &Value {
    let accepted = get(get(crd, "status"), "acceptedNames");
    if text(accepted, "kind").is_empty() { get(get(crd, "spec"), "names") } else { accepted }
}

fn names_of(crd: &Value, version: &str) -> Names {
    let (spec, accepted) = (get(crd, "spec"), accepted_names(crd));
    let texts = |field| intern_all(list(accepted, field).iter().filter_map(Value::as_str));
    Names {
        group: intern(text(spec, "group")),
        version: intern(version),
        kind: intern(text(accepted, "kind")),
        plural: intern(text(accepted, "plural")),
        singular: intern(text(accepted, "singular")),
        short: texts("shortNames"),
        categories: texts("categories"),
        namespaced: text(spec, "scope") == "Namespaced",
    }
}

/// What every answer warns of when the version is deprecated.
fn deprecation(spec: &Value, version: &Value) -> Option<String> {
    if !flag(version, "deprecated") {
        return None;
    }
    if let Some(own) = get(version, "deprecationWarning").as_str() {
        return Some(own.to_owned());
    }
    let (group, name, kind) = (text(spec, "group"), text(version, "name"), text(get(spec, "names"), "kind"));
    let better = list(spec, "versions").iter().filter(|one| flag(one, "served") && !flag(one, "deprecated"));
    let best = better.map(|one| text(one, "name")).min_by(|one, other| versions::compare(one, other));
    let best = best.filter(|best| versions::compare(best, name).is_lt());
    let hint = best.map(|best| format!("; use {group}/{best} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{hint}"))
}

impl Kind for CustomKind {
    fn names(&self) -> &Names {
        &self.names
    }

    fn shape(&self) -> &'static Shape {
        &Shape::Any
    }

    fn conform(&self, object: &mut Value) -> Result<Vec<String>, DecodeError> {
        self.coerce(object, Malformed::Refuse).map_err(DecodeError::Other)
    }

    fn conform_applied(&self, object: &mut Value) -> Result<(), DecodeError> {
        self.coerce_fields(object, Malformed::Refuse).map(drop).map_err(DecodeError::Other)
    }

    fn patch_schema(&self) -> Option<&dyn PatchSchema> {
        None
    }

    fn merge_schema(&self) -> &dyn MergeSchema {
        match &self.merging {
            Some(merging) => merging,
            None => &DEDUCED,
        }
    }

    fn schemas(&self) -> Schemas {
        openapi::schemas(&self.names, self.list_kind, &self.source, &self.selectable)
    }

    fn parts(&self) -> &[Part] {
        self.parts
    }

    fn scale(&self) -> Option<ScalePaths> {
        self.scale
    }

    fn default(&self, object: &mut Value) {
        default::fill(object, &self.schema);
    }

    fn prepare_create(&self, object: &mut Value) {
        if !self.parts.is_empty() {
            remove(object, "status");
            // A status may have a default, with which every read shows the object.
            default::fill(object, &self.schema);
        }
        meta::first_generation(object);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        self.meta().create_plain(object, &mut errors);
        push_all(&mut errors, validate::check(&self.schema, object, ""));
        self.common_rules(object, &mut errors);
        push_all(&mut errors, self.list_rules(object));
        self.written_rules(object, None, errors)
    }

    fn prepare_update(&self, part: Part, object: &mut Value, old: &Value) {
        let was = at(old, &["metadata", "generation"]).clone();
        if part == Part::Status {
            let status = remove(object, "status");
            let managed = object.get_mut("metadata").and_then(|metadata| remove(metadata, "managedFields"));
            old.clone_into(object);
            let fields = crate::json::map_mut(object);
            match status {
                Some(status) => fields.insert("status".to_owned(), status),
                None => fields.remove("status"),
            };
            if let Some(managed) = managed {
                set(crate::json::object_mut(object, "metadata"), "managedFields", managed);
            }
            return;
        }
        if !self.parts.is_empty() {
            crate::json::copy_field(object, old, "status");
        }
        let changed = without_metadata(object) != without_metadata(old);
        let generation = was.as_i64().unwrap_or_default() + i64::from(changed);
        set(crate::json::object_mut(object, "metadata"), "generation", generation);
    }

    fn validate_update(&self, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        self.meta().update_plain(object, old, &mut errors);
        if part == Part::Status {
            self.status_rules(object, old, &mut errors);
            if let Some(paths) = self.scale {
                scale::check_status(object, paths, &mut errors);
            }
        } else {
            let pair = Pair { new: object, old, schema: &self.schema };
            push_all(&mut errors, validate::check_update(&self.schema, pair, ""));
            self.common_rules(object, &mut errors);
        }
        let found = self.list_rules(object);
        if !found.is_empty() && self.list_rules(old).is_empty() {
            push_all(&mut errors, found);
        }
        self.written_rules(object, Some(old), errors)
    }

    fn deprecation(&self) -> Option<&'static str> {
        self.deprecation
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let finalizers = |object: &Value| -> Vec<String> {
            let all = list(get(object, "metadata"), "finalizers").iter();
            all.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let before = old.map(finalizers).unwrap_or_default();
        let mut new: Vec<_> = finalizers(object).into_iter().filter(|one| !before.contains(one)).collect();
        new.sort();
        new.dedup();
        new.iter().flat_map(|name| finalizer_warnings(name)).collect()
    }

    fn refuses_creation(&self) -> Option<&'static str> {
        self.terminating.then_some("create not allowed while custom resource definition is terminating")
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        let (_, path) = self.selectable.iter().find(|(name, _)| name == field)?;
        Some(match path.find(object).first() {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => validate::shown(other),
        })
    }

    fn not_selectable(&self, field: &str) -> Option<String> {
        Some(format!("field label not supported: {field}"))
    }

    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cells = self.cells.iter().zip(&self.columns[1..]);
        let cells = cells.map(|(path, column)| columns::cell(path, &column.kind, object, now));
        std::iter::once(crate::table::name(object)).chain(cells).collect()
    }
}

fn without_metadata(object: &Value) -> Vec<(&String, &Value)> {
    object.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata").collect()
}

/// What is odd about a finalizer's name.
fn finalizer_warnings(name: &str) -> Vec<String> {
    let place = format!("metadata.finalizers: {name:?}");
    let mut found: Vec<_> =
        names::qualified_name(name).into_iter().map(|broken| format!("{place}: {broken}")).collect();
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        let path = if name.contains('.') { " including a path (/)" } else { "" };
        found.push(format!(
            "{place}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer \
             writers"
        ));
    }
    found
}
