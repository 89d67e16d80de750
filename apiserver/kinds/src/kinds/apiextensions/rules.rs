//! The rules for a CustomResourceDefinition's spec, on its internal form (`apis/apiextensions/validation`).

use reeve_api::names;
use serde_json::Value;

use super::internal::{schema_has, schema_shown, schemas, versions_shown};
use super::{cel, defaults, openapi, structural};
use crate::custom::{Schema, field_path};
use crate::errors::Errors;
use crate::json::{flag, get, has, list, text};
use crate::path::Path;

/// Most selectable fields of one version.
const SELECTABLE_MAX: usize = 8;
/// Longest warning of a deprecated version, in bytes.
const WARNING_MAX: usize = 256;
const SCOPES: [&str; 2] = ["Cluster", "Namespaced"];
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
/// What may stand at the root of a schema whose version has a status, with Go's names.
const AT_ROOT: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength \
    MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example \
    XPreserveUnknownFields XValidations]";
/// What may not.
const NOT_AT_ROOT: [&str; 22] = [
    "id",
    "$schema",
    "$ref",
    "nullable",
    "default",
    "enum",
    "maxProperties",
    "minProperties",
    "allOf",
    "oneOf",
    "anyOf",
    "not",
    "additionalProperties",
    "patternProperties",
    "dependencies",
    "additionalItems",
    "definitions",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
];

/// What is demanded. An update is held to no more than what the stored definition keeps.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) require_review_version: bool,
    pub(super) immutable_names: bool,
    pub(super) require_schema: bool,
    pub(super) require_valid_types: bool,
    pub(super) require_structural: bool,
    pub(super) require_pruned_defaults: bool,
    pub(super) require_atomic_sets: bool,
    pub(super) require_map_keys: bool,
    /// The versions whose schemas do not change: what their rules cost is not judged again.
    pub(super) unchanged_schemas: Vec<String>,
    /// The old versions with their selectable fields, where there are too many already.
    pub(super) many_selectable: Vec<(String, Value)>,
}

impl Options {
    /// For a new definition.
    pub(super) fn create() -> Self {
        Self {
            require_review_version: true,
            immutable_names: false,
            require_schema: true,
            require_valid_types: true,
            require_structural: true,
            require_pruned_defaults: true,
            require_atomic_sets: true,
            require_map_keys: true,
            unchanged_schemas: Vec::new(),
            many_selectable: Vec::new(),
        }
    }

    /// For a change of a definition: its old spec in internal form, and whether it is established.
    pub(super) fn update(old: &Value, established: bool) -> Self {
        let review_versions = list(get(old, "conversion"), "conversionReviewVersions");
        let any = |wanted: &mut dyn FnMut(&Value) -> bool| schemas(old).any(|schema| schema_has(schema, wanted));
        let unpruned = |schema: &Value| Schema::parse(schema).is_ok_and(|schema| defaults::any_unpruned(&schema));
        let bad_keys = |schema: &Value| {
            let mut errors = Errors::default();
            openapi::key_rules(schema, &Path::ROOT, &mut errors);
            errors.count() > 0
        };
        let versions =
            std::iter::once(("", old)).chain(list(old, "versions").iter().map(|one| (text(one, "name"), one)));
        Self {
            require_review_version: review_versions.is_empty() || review_versions.iter().any(is_review_version),
            immutable_names: established,
            require_schema: has_schemas(old),
            require_valid_types: !any(&mut |schema| {
                !text(schema, "type").is_empty() && !openapi::TYPES.contains(&text(schema, "type"))
            }),
            require_structural: !schemas(old).any(structural::is_not),
            require_pruned_defaults: !schemas(old).any(unpruned),
            require_atomic_sets: !any(&mut |schema| openapi::non_atomic_set(schema).is_some()),
            require_map_keys: !any(&mut |schema| bad_keys(schema)),
            unchanged_schemas: Vec::new(),
            many_selectable: versions
                .filter(|(_, one)| list(one, "selectableFields").len() > SELECTABLE_MAX)
                .map(|(name, one)| (name.to_owned(), get(one, "selectableFields").clone()))
                .collect(),
        }
    }
}

fn is_review_version(version: &Value) -> bool {
    version == "v1" || version == "v1beta1"
}

fn schema_of(version: &Value) -> &Value {
    get(get(version, "schema"), "openAPIV3Schema")
}

fn has_schemas(spec: &Value) -> bool {
    !get(get(spec, "validation"), "openAPIV3Schema").is_null()
        || list(spec, "versions").iter().all(|version| !schema_of(version).is_null())
}

/// Everything wrong with a spec.
pub(super) fn spec(spec: &Value, mut options: Options, path: &Path<'_>, errors: &mut Errors) {
    group(text(spec, "group"), &path.child("group"), errors);
    errors.one_of(&path.child("scope"), text(spec, "scope"), &SCOPES);
    let preserve = flag(spec, "preserveUnknownFields");
    options.require_structural |= !preserve || schemas(spec).any(|schema| schema_has(schema, &mut has_extensions));
    missing_schemas(spec, &options, preserve, path, errors);
    if schemas(spec).any(|schema| schema_has(schema, &mut |schema| has(schema, "default"))) {
        options.require_structural = true;
        if preserve {
            let detail = "must be false in order to use defaults in the schema";
            errors.invalid(&path.child("preserveUnknownFields"), true, detail);
        }
    }
    versions(spec, &options, path, errors);
    required_names(get(spec, "names"), &path.child("names"), errors);
    names(get(spec, "names"), &path.child("names"), errors);
    let any_status = has_status(spec) || list(spec, "versions").iter().any(has_status);
    let unchanged = options.unchanged_schemas.iter().any(|name| name == text(spec, "version"));
    schema(get(spec, "validation"), any_status, unchanged, &options, &path.child("validation"), errors);
    subresources(get(spec, "subresources"), &path.child("subresources"), errors);
    columns(spec, path, errors);
    if !list(spec, "selectableFields").is_empty() {
        let schema = get(get(spec, "validation"), "openAPIV3Schema");
        if schema.is_null() {
            let detail = "may only be set when validations.schema is included";
            errors.invalid(&path.child("selectableFields"), "", detail);
        } else {
            selectable_fields(spec, "", schema, &options, path, errors);
        }
    }
    conversion(get(spec, "conversion"), preserve, &options, &path.child("conversion"), errors);
}

fn group(group: &str, path: &Path<'_>, errors: &mut Errors) {
    let broken = names::dns1123_subdomain(group);
    if group.is_empty() {
        errors.required(path, "");
    } else if !broken.is_empty() {
        errors.invalid(path, group, broken.join(","));
    } else if !group.contains('.') {
        errors.invalid(path, group, "should be a domain with at least one dot");
    }
}

fn has_extensions(schema: &Value) -> bool {
    let lists = ["x-kubernetes-list-map-keys", "x-kubernetes-validations"];
    ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type"].iter().any(|field| has(schema, field))
        || ["x-kubernetes-embedded-resource", "x-kubernetes-int-or-string"].iter().any(|field| flag(schema, field))
        || lists.iter().any(|field| !list(schema, field).is_empty())
}

fn missing_schemas(spec: &Value, options: &Options, preserve: bool, path: &Path<'_>, errors: &mut Errors) {
    if !get(get(spec, "validation"), "openAPIV3Schema").is_null() {
        return;
    }
    let path = path.child("versions");
    for (index, version) in list(spec, "versions").iter().enumerate() {
        if !schema_of(version).is_null() {
            continue;
        }
        let place = path.index(index);
        let place = place.child("schema");
        let place = place.child("openAPIV3Schema");
        if options.require_schema {
            errors.required(&place, "");
        } else if !preserve && flag(version, "served") {
            errors.required(&place, "because otherwise all fields are pruned");
        }
    }
}

fn has_status(version: &Value) -> bool {
    has(get(version, "subresources"), "status")
}

fn versions(spec: &Value, options: &Options, path: &Path<'_>, errors: &mut Errors) {
    let all = list(spec, "versions");
    let (place, own_subresources) = (path.child("versions"), all.iter().any(|one| has(one, "subresources")));
    for (index, version) in all.iter().enumerate() {
        let place = place.index(index);
        let broken = names::dns1035_label(text(version, "name"));
        if !broken.is_empty() {
            errors.invalid(&place.child("name"), text(version, "name"), broken.join(","));
        }
        let status = has_status(if own_subresources { version } else { spec });
        self::version(version, status, options, &place, errors);
    }
    for (field, name) in [
        ("validation", "schemas"),
        ("subresources", "subresources"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
    ] {
        let own = if field == "validation" { "schema" } else { field };
        if has(spec, field) && all.iter().any(|version| has(version, own)) {
            let detail = format!("top-level and per-version {name} are mutually exclusive");
            errors.forbidden(&path.child(field), detail);
        }
    }
    let invalid = |detail: &str, errors: &mut Errors| errors.invalid_object(&place, versions_shown(spec), detail);
    let mut seen: Vec<_> = all.iter().map(|version| text(version, "name")).collect();
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        invalid("must contain unique version names", errors);
    }
    if all.iter().filter(|version| flag(version, "storage")).count() != 1 {
        invalid("must have exactly one version marked as storage version", errors);
    }
    let name = text(spec, "version");
    let broken = names::dns1035_label(name);
    if !name.is_empty() && !broken.is_empty() {
        errors.invalid(&path.child("version"), name, broken.join(","));
    }
}

fn version(version: &Value, status: bool, options: &Options, path: &Path<'_>, errors: &mut Errors) {
    deprecation(version, &path.child("deprecationWarning"), errors);
    let unchanged = options.unchanged_schemas.iter().any(|name| name == text(version, "name"));
    schema(get(version, "schema"), status, unchanged, options, &path.child("schema"), errors);
    subresources(get(version, "subresources"), &path.child("subresources"), errors);
    columns(version, path, errors);
    if list(version, "selectableFields").is_empty() {
        return;
    }
    if schema_of(version).is_null() {
        let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
        errors.invalid(&path.child("selectableFields"), "", detail);
    } else {
        selectable_fields(version, text(version, "name"), schema_of(version), options, path, errors);
    }
}

fn deprecation(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(warning) = get(version, "deprecationWarning").as_str() else { return };
    if !flag(version, "deprecated") {
        errors.invalid(path, warning, "can only be set for deprecated versions");
        return;
    }
    if warning.len() > WARNING_MAX {
        errors.invalid(path, warning, format!("must be <= {WARNING_MAX} characters long"));
    }
    if warning.is_empty() {
        errors.invalid(path, warning, "must not be an empty string");
    }
    let unprintable = |c: char| c.is_control() || (c.is_whitespace() && c != ' ') || c == '\u{feff}' || c == '\u{200b}';
    if let Some(at) = warning.find(unprintable) {
        let detail =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        errors.invalid(path, warning, detail);
    }
}

/// The names a spec must have, and a status need not.
fn required_names(names: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["plural", "singular", "kind", "listKind"] {
        if text(names, field).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
}

/// The form of names, wanted or accepted.
pub(super) fn names(names: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["plural", "singular"] {
        label(text(names, field), &path.child(field), errors);
    }
    for field in ["kind", "listKind"] {
        let name = text(names, field);
        let broken = names::dns1035_label(&name.to_lowercase());
        if !name.is_empty() && !broken.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", broken.join(","));
            errors.invalid(&path.child(field), name, detail);
        }
    }
    let each = |field: &str, errors: &mut Errors| {
        let path = path.child(field);
        for (index, name) in list(names, field).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let broken = names::dns1035_label(name);
            if !broken.is_empty() {
                errors.invalid(&path.index(index), name, broken.join(","));
            }
        }
    };
    each("shortNames", errors);
    let (kind, list_kind) = (text(names, "kind"), text(names, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        errors.invalid(&path.child("listKind"), list_kind, "kind and listKind may not be the same");
    }
    each("categories", errors);
}

fn label(name: &str, path: &Path<'_>, errors: &mut Errors) {
    let broken = names::dns1035_label(name);
    if !name.is_empty() && !broken.is_empty() {
        errors.invalid(path, name, broken.join(","));
    }
}

fn schema(validation: &Value, status: bool, unchanged: bool, options: &Options, path: &Path<'_>, errors: &mut Errors) {
    let schema = get(validation, "openAPIV3Schema");
    if schema.is_null() {
        return;
    }
    let before = errors.count();
    if status {
        root_with_status(schema, path, errors);
    }
    if flag(schema, "nullable") {
        errors.forbidden(&path.child("openAPIV3Schema.nullable"), "nullable cannot be true at the root");
    }
    let path = path.child("openAPIV3Schema");
    let parsed = Schema::parse(schema);
    // Rules are only looked at where everything else is sound.
    let mut sound = false;
    if options.require_structural
        && let Ok(parsed) = &parsed
    {
        let found = structural::check(schema, &path);
        let structural = found.is_empty();
        found.into_iter().for_each(|error| errors.push(error));
        if structural {
            let count = errors.count();
            defaults::check(parsed, schema, &path, options.require_pruned_defaults, errors);
            sound = errors.count() == count;
        }
    }
    let place = openapi::Place::root(options);
    openapi::check(schema, &path, &place, errors);
    if sound {
        cel::check(schema, &path, &place, !unchanged, errors);
    }
    if let Err(error) = parsed
        && options.require_structural
        && errors.count() == before
    {
        errors.invalid(&path, "", error);
    }
}

/// Where status is judged by itself, the root says nothing that would be lost with it.
fn root_with_status(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = text(schema, "type");
    if !kind.is_empty() && kind != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is \
                      enabled";
        errors.invalid(&path.child("openAPIV3Schema.type"), kind, detail);
    } else if NOT_AT_ROOT.iter().any(|field| has(schema, field) && get(schema, field) != &Value::Bool(false)) {
        let detail =
            format!("only {AT_ROOT} fields are allowed at the root of the schema if the status subresource is enabled");
        errors.invalid_object(&path.child("openAPIV3Schema"), schema_shown(schema), detail);
    }
}

fn subresources(subresources: &Value, path: &Path<'_>, errors: &mut Errors) {
    let scale = get(subresources, "scale");
    if scale.is_null() {
        return;
    }
    for (field, place, part) in [
        ("specReplicasPath", "scale.specReplicasPath", ".spec."),
        ("statusReplicasPath", "scale.statusReplicasPath", ".status."),
    ] {
        let (own, path) = (text(scale, field), path.child(place));
        if own.is_empty() {
            errors.required(&path, "");
        } else if simple_path(own, &path, errors) && !own.starts_with(part) {
            let under = part.trim_end_matches('.');
            errors.invalid(&path, own, format!("should be a json path under {under}"));
        }
    }
    let (selector, path) = (text(scale, "labelSelectorPath"), path.child("scale.labelSelectorPath"));
    let under_parts = selector.starts_with(".spec.") || selector.starts_with(".status.");
    if !selector.is_empty() && simple_path(selector, &path, errors) && !under_parts {
        errors.invalid(&path, selector, "should be a json path under either .spec or .status");
    }
}

/// Whether it is a path at all.
fn simple_path(text: &str, path: &Path<'_>, errors: &mut Errors) -> bool {
    let good = text.starts_with('.');
    if !good {
        errors.invalid(path, text, "must be a simple json path starting with .");
    }
    good
}

fn columns(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("additionalPrinterColumns");
    for (index, column) in list(holder, "additionalPrinterColumns").iter().enumerate() {
        let path = path.index(index);
        if text(column, "name").is_empty() {
            errors.required(&path.child("name"), "");
        }
        let kind = text(column, "type");
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        if kind.is_empty() {
            errors.required(&path.child("type"), detail);
        } else if !COLUMN_TYPES.contains(&kind) {
            errors.invalid(&path.child("type"), kind, detail);
        }
        let format = text(column, "format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            errors.invalid(&path.child("format"), format, format!("must be one of {}", COLUMN_FORMATS.join(",")));
        }
        let own = text(column, "jsonPath");
        if own.is_empty() {
            errors.required(&path.child("JSONPath"), "");
        } else {
            simple_path(own, &path.child("JSONPath"), errors);
        }
    }
}

fn selectable_fields(
    holder: &Value,
    name: &str,
    schema: &Value,
    options: &Options,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let path = path.child("selectableFields");
    let mut seen: Vec<String> = Vec::new();
    for (index, field) in list(holder, "selectableFields").iter().enumerate() {
        let (own, place) = (text(field, "jsonPath"), path.index(index));
        let place = place.child("jsonPath");
        if own.is_empty() {
            errors.required(&place, "");
            continue;
        }
        let found = match field_path::resolve(own, schema, false) {
            Ok(found) => found,
            Err(error) => {
                errors.invalid(&place, own, format!("is an invalid path: {error}"));
                continue;
            }
        };
        if found.first == "metadata" {
            errors.invalid(&place, own, "must not point to fields in metadata");
        }
        if !matches!(text(found.schema, "type"), "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                          with formats are allowed.";
            errors.invalid(&place, own, detail);
        }
        if seen.contains(&found.path) {
            errors.duplicate(&place, own);
        } else {
            seen.push(found.path);
        }
    }
    let unchanged = |(old, fields): &(String, Value)| old == name && fields == get(holder, "selectableFields");
    if seen.len() > SELECTABLE_MAX && !options.many_selectable.iter().any(unchanged) {
        errors.too_many(&path, seen.len(), SELECTABLE_MAX);
    }
}

fn conversion(conversion: &Value, preserve: bool, options: &Options, path: &Path<'_>, errors: &mut Errors) {
    if conversion.is_null() {
        return;
    }
    let strategy = text(conversion, "strategy");
    if strategy != "None" && preserve {
        let detail = "must be None if spec.preserveUnknownFields is true";
        errors.invalid(&path.child("strategy"), strategy, detail);
    }
    errors.one_of(&path.child("strategy"), strategy, &["None", "Webhook"]);
    let (client, place) = (get(conversion, "webhookClientConfig"), path.child("webhookClientConfig"));
    let versions_place = path.child("conversionReviewVersions");
    let versions = list(conversion, "conversionReviewVersions");
    if strategy != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if !client.is_null() {
            errors.forbidden(&place, detail);
        }
        if !versions.is_empty() {
            errors.forbidden(&versions_place, detail);
        }
        return;
    }
    if client.is_null() {
        errors.required(&place, "required when strategy is set to Webhook");
    } else {
        match (has(client, "url"), get(client, "service")) {
            (true, Value::Null) => super::webhook::url(text(client, "url"), &place.child("url"), errors),
            (false, service) if !service.is_null() => super::webhook::service(service, &place.child("service"), errors),
            _ => errors.required(&place, "exactly one of url or service is required"),
        }
    }
    review_versions(versions, options, &versions_place, errors);
}

fn review_versions(versions: &[Value], options: &Options, path: &Path<'_>, errors: &mut Errors) {
    if versions.is_empty() {
        errors.required(path, "");
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let (path, name) = (path.index(index), version.as_str().unwrap_or_default());
        if versions[..index].contains(version) {
            errors.invalid(&path, name, "duplicate version");
        } else {
            errors.invalid_each(&path, name, names::dns1035_label(name));
        }
    }
    if options.require_review_version && !versions.iter().any(is_review_version) {
        errors.invalid(path, Value::from(versions), "must include at least one of v1, v1beta1");
    }
}

/// Formats in the schemas of a spec that nobody checks.
pub(super) fn unknown_formats(spec: &Value) -> Vec<String> {
    use crate::custom::formats::Format;
    let mut found = Vec::new();
    for schema in schemas(spec) {
        schema_has(schema, &mut |schema| {
            let format = text(schema, "format");
            let kind = match text(schema, "type") {
                "" => Ok(None),
                _ => Schema::parse(&serde_json::json!({"type": get(schema, "type")})).map(|schema| schema.kind),
            };
            if !format.is_empty() && kind.is_ok_and(|kind| Format::of(format, kind).is_none()) {
                found.push(format.to_owned());
            }
            false
        });
    }
    found
}

/// The versions an update or status keeps data in.
pub(super) fn stored_versions(crd: &Value, path: &Path<'_>, errors: &mut Errors) {
    let stored = list(get(crd, "status"), "storedVersions");
    if stored.is_empty() {
        let shown = if has(get(crd, "status"), "storedVersions") { "[]" } else { "null" };
        errors.invalid_object(path, shown.to_owned(), "must have at least one stored version");
        return;
    }
    let versions = list(get(crd, "spec"), "versions");
    for version in versions.iter().filter(|version| flag(version, "storage")) {
        if !stored.contains(get(version, "name")) {
            let detail = format!("must have the storage version {}", text(version, "name"));
            errors.invalid(path, Value::from(stored), detail);
        }
    }
    for (index, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| get(version, "name") == name) {
            let name = name.as_str().unwrap_or_default();
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.invalid(&path.index(index), name, detail);
        }
    }
}

/// What changes under the names of stored objects.
pub(super) fn immutable(spec: &Value, old: &Value, options: &Options, path: &Path<'_>, errors: &mut Errors) {
    let (names, old_names, place) = (get(spec, "names"), get(old, "names"), path.child("names"));
    if options.immutable_names {
        errors.immutable(&path.child("scope"), get(spec, "scope"), get(old, "scope"));
        errors.immutable(&place.child("kind"), get(names, "kind"), get(old_names, "kind"));
    }
    errors.immutable(&path.child("group"), get(spec, "group"), get(old, "group"));
    errors.immutable(&place.child("plural"), get(names, "plural"), get(old_names, "plural"));
}
