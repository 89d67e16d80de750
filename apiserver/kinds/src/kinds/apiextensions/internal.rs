//! The spec of a CustomResourceDefinition as its rules see it.
//!
//! Kubernetes judges its internal version, in which what all versions have in common (schema, subresources, columns,
//! selectable fields) stands once at the top: paths in complaints follow from that.

use serde_json::Value;

use crate::json::{get, go_escaped, has, list, remove, set, text};

/// What is lifted from the versions, with its name at the top.
const SHARED: [(&str, &str); 4] = [
    ("subresources", "subresources"),
    ("schema", "validation"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// The spec of a definition in internal form.
pub(super) fn spec(crd: &Value) -> Value {
    let mut spec = get(crd, "spec").clone();
    if let Some(conversion) = spec.get_mut("conversion").filter(|conversion| conversion.is_object()) {
        let webhook = remove(conversion, "webhook").unwrap_or_default();
        for (field, name) in
            [("clientConfig", "webhookClientConfig"), ("conversionReviewVersions", "conversionReviewVersions")]
        {
            if has(&webhook, field) {
                set(conversion, name, get(&webhook, field).clone());
            }
        }
    }
    let Some(first) = list(&spec, "versions").first().cloned() else { return spec };
    set(&mut spec, "version", text(&first, "name"));
    for (field, name) in SHARED {
        let shared = get(&first, field).clone();
        let same = list(&spec, "versions").iter().all(|version| get(version, field) == &shared);
        if !same {
            continue;
        }
        if !shared.is_null() {
            set(&mut spec, name, shared);
        }
        for version in spec.get_mut("versions").and_then(Value::as_array_mut).into_iter().flatten() {
            remove(version, field);
        }
    }
    spec
}

/// The schemas of a spec, top and versions.
pub(super) fn schemas(spec: &Value) -> impl Iterator<Item = &Value> {
    let top = get(get(spec, "validation"), "openAPIV3Schema");
    let versions = list(spec, "versions").iter().map(|version| get(get(version, "schema"), "openAPIV3Schema"));
    std::iter::once(top).chain(versions).filter(|schema| !schema.is_null())
}

/// Whether a schema or one inside it has what is looked for.
pub(super) fn schema_has(schema: &Value, wanted: &mut dyn FnMut(&Value) -> bool) -> bool {
    if schema.is_null() {
        return false;
    }
    if wanted(schema) {
        return true;
    }
    children(schema).into_iter().any(|child| schema_has(child, wanted))
}

/// The schemas directly inside a schema.
fn children(schema: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    match get(schema, "items") {
        Value::Array(items) => found.extend(items),
        items => found.push(items),
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        found.extend(list(schema, field));
    }
    found.push(get(schema, "not"));
    for field in ["properties", "patternProperties", "definitions", "dependencies"] {
        found.extend(crate::json::entries(schema, field).map(|(_, child)| child));
    }
    found.extend([get(schema, "additionalProperties"), get(schema, "additionalItems")]);
    found.retain(|child| child.is_object());
    found
}

/// The versions as Kubernetes shows them in complaints: its internal type, whose fields have Go's names.
pub(super) fn versions_shown(spec: &Value) -> String {
    let shown = list(spec, "versions").iter().map(|version| {
        let field = |name: &str| get(version, name).to_string();
        let flag = |name: &str| crate::json::flag(version, name).to_string();
        crate::shown::object(&[
            ("Name", Value::from(text(version, "name")).to_string()),
            ("Served", flag("served")),
            ("Storage", flag("storage")),
            ("Deprecated", flag("deprecated")),
            ("DeprecationWarning", field("deprecationWarning")),
            ("Schema", field("schema")),
            ("Subresources", field("subresources")),
            ("AdditionalPrinterColumns", field("additionalPrinterColumns")),
            ("SelectableFields", field("selectableFields")),
        ])
    });
    format!("[{}]", shown.collect::<Vec<_>>().join(","))
}

/// The form of a field of a schema in Go.
#[derive(Clone, Copy)]
enum Go {
    Text,
    Flag,
    /// A pointer, a list or a value of its own: null when it is not there.
    Plain,
    Schema,
    Schemas,
    Map,
    Items,
    OrFlag,
    Rules,
}

/// The fields of Kubernetes' internal `JSONSchemaProps`, in their order.
const SCHEMA_FIELDS: [(&str, &str, Go); 44] = [
    ("ID", "id", Go::Text),
    ("Schema", "$schema", Go::Text),
    ("Ref", "$ref", Go::Plain),
    ("Description", "description", Go::Text),
    ("Type", "type", Go::Text),
    ("Nullable", "nullable", Go::Flag),
    ("Format", "format", Go::Text),
    ("Title", "title", Go::Text),
    ("Default", "default", Go::Plain),
    ("Maximum", "maximum", Go::Plain),
    ("ExclusiveMaximum", "exclusiveMaximum", Go::Flag),
    ("Minimum", "minimum", Go::Plain),
    ("ExclusiveMinimum", "exclusiveMinimum", Go::Flag),
    ("MaxLength", "maxLength", Go::Plain),
    ("MinLength", "minLength", Go::Plain),
    ("Pattern", "pattern", Go::Text),
    ("MaxItems", "maxItems", Go::Plain),
    ("MinItems", "minItems", Go::Plain),
    ("UniqueItems", "uniqueItems", Go::Flag),
    ("MultipleOf", "multipleOf", Go::Plain),
    ("Enum", "enum", Go::Plain),
    ("MaxProperties", "maxProperties", Go::Plain),
    ("MinProperties", "minProperties", Go::Plain),
    ("Required", "required", Go::Plain),
    ("Items", "items", Go::Items),
    ("AllOf", "allOf", Go::Schemas),
    ("OneOf", "oneOf", Go::Schemas),
    ("AnyOf", "anyOf", Go::Schemas),
    ("Not", "not", Go::Schema),
    ("Properties", "properties", Go::Map),
    ("AdditionalProperties", "additionalProperties", Go::OrFlag),
    ("PatternProperties", "patternProperties", Go::Map),
    ("Dependencies", "dependencies", Go::Map),
    ("AdditionalItems", "additionalItems", Go::OrFlag),
    ("Definitions", "definitions", Go::Map),
    ("ExternalDocs", "externalDocs", Go::Plain),
    ("Example", "example", Go::Plain),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields", Go::Plain),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource", Go::Flag),
    ("XIntOrString", "x-kubernetes-int-or-string", Go::Flag),
    ("XListMapKeys", "x-kubernetes-list-map-keys", Go::Plain),
    ("XListType", "x-kubernetes-list-type", Go::Plain),
    ("XMapType", "x-kubernetes-map-type", Go::Plain),
    ("XValidations", "x-kubernetes-validations", Go::Rules),
];

/// A schema as Kubernetes shows it in complaints.
pub(super) fn schema_shown(schema: &Value) -> String {
    let fields = SCHEMA_FIELDS.map(|(name, own, form)| (name, field_shown(get(schema, own), form)));
    crate::shown::object(&fields)
}

fn field_shown(value: &Value, form: Go) -> String {
    let all = |items: &[Value], each: &dyn Fn(&Value) -> String| {
        format!("[{}]", items.iter().map(each).collect::<Vec<_>>().join(","))
    };
    match (form, value) {
        (Go::Text, Value::Null) => "\"\"".to_owned(),
        (Go::Flag, Value::Null) => "false".to_owned(),
        (Go::Schema, Value::Object(_)) => schema_shown(value),
        (Go::Schemas, Value::Array(items)) => all(items, &schema_shown),
        (Go::Rules, Value::Array(items)) => all(items, &rule_shown),
        (Go::Map, Value::Object(map)) => {
            let entries = map.iter().map(|(name, schema)| format!("{}:{}", go_text(name), schema_shown(schema)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        (Go::Items, Value::Object(_)) => format!("{{\"Schema\":{},\"JSONSchemas\":null}}", schema_shown(value)),
        (Go::Items, Value::Array(items)) => {
            format!("{{\"Schema\":null,\"JSONSchemas\":{}}}", all(items, &schema_shown))
        }
        (Go::OrFlag, Value::Object(_)) => format!("{{\"Allows\":true,\"Schema\":{}}}", schema_shown(value)),
        (Go::OrFlag, Value::Bool(allows)) => format!("{{\"Allows\":{allows},\"Schema\":null}}"),
        (_, value) => go_escaped(&value.to_string()),
    }
}

/// A rule as Kubernetes shows it in complaints.
pub(super) fn rule_shown(rule: &Value) -> String {
    let own = |field: &str| go_text(text(rule, field));
    crate::shown::object(&[
        ("Rule", own("rule")),
        ("Message", own("message")),
        ("MessageExpression", own("messageExpression")),
        ("Reason", get(rule, "reason").to_string()),
        ("FieldPath", own("fieldPath")),
        ("OptionalOldSelf", get(rule, "optionalOldSelf").to_string()),
    ])
}

fn go_text(text: &str) -> String {
    go_escaped(&Value::from(text).to_string())
}
