//! The spec of a CustomResourceDefinition as its rules see it.
//!
//! Kubernetes judges its internal version, in which what all versions have in common (schema, subresources, columns,
//! selectable fields) stands once at the top: paths in complaints follow from that.

use serde_json::Value;

use crate::json::{get, has, list, remove, set, text};

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
