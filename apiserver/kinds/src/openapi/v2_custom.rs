//! The schema of a custom resource in OpenAPI v2: only as much of it as clients of version 2 can stand.
//!
//! Where unknown fields are allowed they must not hear of the known ones, or they refuse the others; of what may be
//! null they must not hear the type. Source: `pkg/controller/openapi/v2` and `builder` of apiextensions-apiserver.

use serde_json::Value;

use super::v2::lower_reference;
use crate::json::{flag, get, list, map_mut, text};

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// What a schema that takes anything keeps at its root.
const ROOT_KEPT: [&str; 3] = ["type", "x-kubernetes-group-version-kind", "x-kubernetes-selectable-fields"];

/// Brings the v3 schema of a whole object into this form.
pub(super) fn lower(schema: &mut Value) {
    if flag(schema, PRESERVE) {
        map_mut(schema).retain(|name, _| ROOT_KEPT.contains(&name.as_str()));
        schema["type"] = "object".into();
        return;
    }
    lower_inner(schema);
}

fn lower_inner(schema: &mut Value) {
    let (preserve, nullable) = (flag(schema, PRESERVE), flag(schema, "nullable"));
    let fields = map_mut(schema);
    lower_reference(fields);
    for beyond in ["allOf", "oneOf", "anyOf", "not", "default"] {
        fields.remove(beyond);
    }
    if preserve || nullable {
        fields.remove("items");
        fields.remove("properties");
    }
    let is = |kind: &str| text(schema, "type") == kind;
    let untyped = nullable || (preserve && is("object")) || (is("array") && get(schema, "items").is_null());
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let optional: Vec<String> = match get(schema, "properties") {
        Value::Object(all) => {
            all.iter().filter(|(_, one)| flag(one, "nullable")).map(|(name, _)| name.clone()).collect()
        }
        _ => Vec::new(),
    };
    let unsaid = |name: &Value| match name.as_str() {
        // These come with what an embedded object is, which is not told here.
        Some("apiVersion" | "kind") if preserve && embedded => true,
        Some(name) => optional.iter().any(|one| one == name),
        None => false,
    };
    let of_null = flag(get(schema, "additionalProperties"), "nullable");
    let required: Vec<Value> = list(schema, "required").iter().filter(|name| !unsaid(name)).cloned().collect();
    let fields = map_mut(schema);
    if required.is_empty() || of_null {
        fields.remove("required");
    } else {
        fields.insert("required".to_owned(), required.into());
    }
    fields.remove("nullable");
    if untyped {
        fields.remove("type");
    }
    for (name, value) in fields.iter_mut() {
        match (name.as_str(), value) {
            ("properties", Value::Object(all)) => all.values_mut().for_each(lower_inner),
            ("items" | "additionalProperties", inner @ Value::Object(_)) => lower_inner(inner),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lowered(mut schema: Value) -> Value {
        lower(&mut schema);
        schema
    }

    #[test]
    fn an_object_that_takes_anything_says_nothing_of_its_fields() {
        let gvk = json!([{"group": "example.com", "kind": "Widget", "version": "v1"}]);
        let root = json!({"type": "object", "description": "d", "x-kubernetes-preserve-unknown-fields": true,
            "x-kubernetes-group-version-kind": gvk, "properties": {"spec": {"type": "object"}}});
        assert_eq!(lowered(root), json!({"type": "object", "x-kubernetes-group-version-kind": gvk}));
        let inner = json!({"type": "object", "properties": {"free": {"type": "object", "description": "d",
            "x-kubernetes-preserve-unknown-fields": true, "properties": {"a": {"type": "string"}}}}});
        let free = json!({"description": "d", "x-kubernetes-preserve-unknown-fields": true});
        assert_eq!(lowered(inner), json!({"type": "object", "properties": {"free": free}}));
    }

    #[test]
    fn what_may_be_null_has_no_type_and_is_not_required_and_nothing_has_a_default() {
        let schema = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "object", "nullable": true, "properties": {"x": {"type": "string"}}},
            "b": {"type": "array", "default": [1], "items": {"type": "integer", "default": 1}}}});
        assert_eq!(
            lowered(schema),
            json!({"type": "object", "required": ["b"], "properties": {
                "a": {}, "b": {"type": "array", "items": {"type": "integer"}}}})
        );
    }

    #[test]
    fn only_references_survive_of_what_is_put_together() {
        let either = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
        let metadata = json!({"allOf": [{"$ref": "#/components/schemas/M"}]});
        let schema = json!({"type": "object", "oneOf": [{"required": ["port"]}], "not": {"required": ["x"]},
            "properties": {"port": either, "metadata": metadata}});
        let port = json!({"x-kubernetes-int-or-string": true});
        let metadata = json!({"$ref": "#/definitions/M"});
        assert_eq!(lowered(schema), json!({"type": "object", "properties": {"port": port, "metadata": metadata}}));
    }

    #[test]
    fn an_embedded_object_that_takes_anything_requires_neither_type_nor_kind() {
        let embedded = json!({"type": "object", "required": ["spec", "kind", "apiVersion"],
            "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
        let lowered = lowered(json!({"type": "object", "properties": {"tpl": embedded}}));
        assert_eq!(lowered["properties"]["tpl"]["required"], json!(["spec"]));
    }
}
