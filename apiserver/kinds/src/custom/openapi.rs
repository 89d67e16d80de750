//! The OpenAPI schemas of a custom resource (`pkg/controller/openapi/builder`).

use serde_json::{Map, Value, json};

use super::jsonpath::JsonPath;
use crate::json::{flag, get, list, map_mut};
use crate::kind::Names;
use crate::openapi::Schemas;

const OBJECT_META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const CONVENTIONS: &str = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The schemas of a kind and of its lists, complete; `source` is `openAPIV3Schema`, null for none.
pub(crate) fn schemas(names: &Names, list_kind: &str, source: &Value, selectable: &[(String, JsonPath)]) -> Schemas {
    let (own, list_name) = (model_name(names, names.kind), model_name(names, list_kind));
    let mut all = Map::new();
    let mut object = object_schema(source);
    let mut listed = list_schema(names, list_kind, &own);
    mark(&mut object, names, names.kind, selectable);
    mark(&mut listed, names, list_kind, selectable);
    all.insert(own.clone(), object);
    all.insert(list_name, listed);
    Schemas { own, all, complete: true }
}

/// `com.example.v1.Widget`
fn model_name(names: &Names, kind: &str) -> String {
    let group: Vec<_> = names.group.rsplit('.').collect();
    format!("{}.{}.{kind}", group.join("."), names.version)
}

fn mark(schema: &mut Value, names: &Names, kind: &str, selectable: &[(String, JsonPath)]) {
    schema["x-kubernetes-group-version-kind"] = json!([{"group": names.group, "kind": kind, "version": names.version}]);
    if !selectable.is_empty() {
        let fields = selectable.iter().map(|(name, _)| json!({"fieldPath": name}));
        schema["x-kubernetes-selectable-fields"] = fields.collect();
    }
}

fn described(description: &str, reference: &str) -> Value {
    json!({"description": description, "allOf": [{"$ref": reference}]})
}

fn object_schema(source: &Value) -> Value {
    if source.is_null() {
        return json!({"type": "object"});
    }
    let mut schema = source.clone();
    unfold(&mut schema);
    embedded(&mut schema);
    let properties = crate::json::object_mut(&mut schema, "properties");
    properties["metadata"] = described(METADATA, OBJECT_META);
    properties["apiVersion"] = json!({"description": API_VERSION, "type": "string"});
    properties["kind"] = json!({"description": KIND, "type": "string"});
    schema
}

fn list_schema(names: &Names, list_kind: &str, own: &str) -> Value {
    json!({
        "description": format!("{list_kind} is a list of {}", names.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": API_VERSION, "type": "string"},
            "items": {
                "description": format!("List of {}. More info: {CONVENTIONS}", names.plural),
                "type": "array",
                "items": {"$ref": format!("#/components/schemas/{own}")},
            },
            "kind": {"description": KIND, "type": "string"},
            "metadata": described(LIST_METADATA, LIST_META),
        },
    })
}

/// The schemas inside a schema that say how it is built.
fn inner(schema: &mut Value) -> impl Iterator<Item = &mut Value> {
    let mut found = Vec::new();
    for (name, value) in map_mut(schema).iter_mut() {
        match name.as_str() {
            "properties" => found.extend(value.as_object_mut().into_iter().flat_map(|map| map.values_mut())),
            "items" | "additionalProperties" => found.push(value),
            _ => {}
        }
    }
    found.into_iter().filter(|schema| schema.is_object())
}

/// Says of numbers or texts what OpenAPI understands.
fn unfold(schema: &mut Value) {
    inner(schema).for_each(unfold);
    if !flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let said = get(schema, "anyOf") == &either
        || list(schema, "allOf").first().is_some_and(|first| get(first, "anyOf") == &either);
    if said {
        return;
    }
    if list(schema, "anyOf").is_empty() {
        schema["anyOf"] = either;
    } else {
        let mut all = vec![json!({"anyOf": either})];
        all.extend(list(schema, "allOf").iter().cloned());
        schema["allOf"] = all.into();
    }
}

/// Whole objects inside have a type and metadata.
fn embedded(schema: &mut Value) {
    inner(schema).for_each(embedded);
    if !flag(schema, "x-kubernetes-embedded-resource") {
        return;
    }
    let properties = crate::json::object_mut(schema, "properties");
    properties["apiVersion"] = json!({"type": "string", "description": format!("apiVersion defines the versioned schema of this representation of an object. More info: {CONVENTIONS}#resources")});
    properties["kind"] = json!({"type": "string", "description": format!("kind is a string value representing the type of this object. In CamelCase. More info: {CONVENTIONS}#types-kinds")});
    properties["metadata"] = described(METADATA, OBJECT_META);
    let mut required = list(schema, "required").to_vec();
    for field in ["kind", "apiVersion"] {
        if !required.iter().any(|one| one == field) {
            required.push(field.into());
        }
    }
    schema["required"] = required.into();
}
