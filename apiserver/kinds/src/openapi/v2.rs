//! The OpenAPI v2 document: the v3 documents of all groups, in the older form.
//!
//! Old clients, generators and `kubectl explain --output plaintext-openapiv2` read it. Version 2 has no content types
//! per body, no `oneOf` and one name space for the schemas of all groups.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Described, VERSION, described, listing, v2_custom};
use crate::kind::Kind;

/// Where schemas lie in version 3 and in version 2.
const V3_SCHEMAS: &str = "#/components/schemas/";
const V2_SCHEMAS: &str = "#/definitions/";

/// The methods of a path.
const METHODS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];

/// Media types in the order in which they are told; others stand before them.
const MEDIA_TYPES: [&str; 9] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

fn told(content: &Map<String, Value>) -> Vec<Value> {
    let mut names: Vec<&str> = content.keys().map(String::as_str).collect();
    names.sort_by_key(|name| MEDIA_TYPES.iter().position(|known| known == name));
    names.into_iter().map(Value::from).collect()
}

/// One document of all groups and versions that are given, each with its kinds, and of these [`listings`].
///
/// [`listings`]: super::listings
#[must_use]
pub fn v2<'k>(
    versions: impl Iterator<Item = (&'k [Arc<dyn Kind>], &'k str, &'k str)>,
    listings: impl Iterator<Item = &'k str>,
) -> Value {
    let (mut definitions, mut paths) = (Map::new(), Map::new());
    let versions = versions.filter_map(|(kinds, group, version)| described(kinds, group, version));
    let listings = listings.map(|path| Described { document: listing(path), custom: Vec::new() });
    for Described { mut document, custom } in versions.chain(listings) {
        if let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas").map(Value::take) {
            for (name, mut schema) in schemas {
                // What several groups use stands in each of their documents.
                if !definitions.contains_key(&name) {
                    if custom.contains(&name) {
                        v2_custom::lower(&mut schema);
                    } else {
                        lower_schema(&mut schema);
                    }
                    definitions.insert(name, schema);
                }
            }
        }
        if let Some(Value::Object(items)) = document.get_mut("paths").map(Value::take) {
            paths.extend(items.into_iter().map(|(path, item)| (path, lower_path(item))));
        }
    }
    let token = json!({
        "description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header",
    });
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": token},
        "security": [{"BearerToken": []}],
    })
}

fn lower_schema(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    lower_reference(fields);
    // Of what may be a number or a text, version 2 only knows the text.
    if fields.remove("oneOf").is_some() || fields.remove("anyOf").is_some() {
        fields.entry("type").or_insert_with(|| "string".into());
    }
    for beyond in ["default", "nullable"] {
        fields.remove(beyond);
    }
    for (name, value) in fields.iter_mut() {
        match (name.as_str(), value) {
            ("properties", Value::Object(all)) => all.values_mut().for_each(lower_schema),
            ("allOf", Value::Array(all)) => all.iter_mut().for_each(lower_schema),
            ("items" | "additionalProperties", inner) => lower_schema(inner),
            _ => {}
        }
    }
}

/// Nothing stands beside a reference in version 3, which therefore wraps it; in version 2 it stands bare.
pub(super) fn lower_reference(fields: &mut Map<String, Value>) {
    if let Some([Value::Object(only)]) = fields.get("allOf").and_then(Value::as_array).map(Vec::as_slice)
        && let Some(target) = only.get("$ref").cloned()
    {
        fields.remove("allOf");
        fields.insert("$ref".to_owned(), target);
    }
    if let Some(Value::String(target)) = fields.get_mut("$ref")
        && let Some(name) = target.strip_prefix(V3_SCHEMAS)
    {
        *target = format!("{V2_SCHEMAS}{name}");
    }
}

fn lower_path(mut item: Value) -> Value {
    if let Some(Value::Array(parameters)) = item.get_mut("parameters") {
        parameters.iter_mut().for_each(lower_parameter);
    }
    for method in METHODS {
        if let Some(Value::Object(operation)) = item.get_mut(method) {
            lower_operation(operation);
        }
    }
    item
}

fn lower_parameter(parameter: &mut Value) {
    let Value::Object(fields) = parameter else { return };
    if let Some(Value::Object(schema)) = fields.remove("schema") {
        fields.extend(schema);
    }
}

fn lower_operation(operation: &mut Map<String, Value>) {
    // What tells what there is takes what it gives.
    let is_listing = operation.get("x-kubernetes-action").is_none();
    let mut consumes = vec![Value::from("*/*")];
    let mut parameters = Vec::new();
    if let Some(body) = operation.remove("requestBody") {
        let content = body.get("content").and_then(Value::as_object);
        if let Some((content, (_, first))) = content.and_then(|content| Some((content, content.iter().next()?))) {
            consumes = told(content);
            let mut schema = first.get("schema").cloned().unwrap_or_default();
            lower_schema(&mut schema);
            let mut own = json!({"name": "body", "in": "body", "schema": schema});
            if body.get("required") == Some(&Value::Bool(true)) {
                own["required"] = true.into();
            }
            parameters.push(own);
        }
    }
    if let Some(Value::Array(mut others)) = operation.remove("parameters") {
        others.iter_mut().for_each(lower_parameter);
        parameters.extend(others);
    }
    if !parameters.is_empty() {
        operation.insert("parameters".to_owned(), parameters.into());
    }
    let mut produces = Vec::new();
    if let Some(Value::Object(responses)) = operation.get_mut("responses") {
        for response in responses.values_mut().filter_map(Value::as_object_mut) {
            let Some(Value::Object(content)) = response.remove("content") else { continue };
            if produces.is_empty() {
                produces = told(&content);
            }
            let schema = content.into_iter().next().and_then(|(_, mut media)| media.get_mut("schema").map(Value::take));
            if let Some(mut schema) = schema {
                lower_schema(&mut schema);
                response.insert("schema".to_owned(), schema);
            }
        }
    }
    if produces.is_empty() {
        produces.push("application/json".into());
    }
    if is_listing {
        consumes.clone_from(&produces);
    }
    operation.insert("consumes".to_owned(), consumes.into());
    operation.insert("produces".to_owned(), produces.into());
    operation.insert("schemes".to_owned(), json!(["https"]));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::builtin;
    use crate::openapi::group_versions;

    fn whole() -> Value {
        let kinds = builtin();
        let versions = group_versions(&kinds);
        let groups = versions.iter().map(|(group, _)| *group);
        let listings = crate::openapi::listings(groups);
        let versions = versions.iter().map(|(group, version)| (&kinds[..], *group, *version));
        v2(versions, listings.iter().map(String::as_str))
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|inner| references(inner, found));
            }
            Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_is_defined_once_for_all_groups_and_every_reference_leads_to_one() {
        let document = whole();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 100, "{}", found.len());
        for target in found {
            let name = target.strip_prefix(V2_SCHEMAS).expect(&target);
            assert!(document["definitions"][name].is_object(), "{name}");
        }
        let text = document.to_string();
        for word in ["\"requestBody\":", "\"components\":", "\"allOf\":[{\"$ref"] {
            assert!(!text.contains(word), "{word}");
        }
    }

    #[test]
    fn schemas_and_operations_keep_what_clients_look_for() {
        let document = whole();
        let deployment = &document["definitions"]["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(deployment["properties"]["spec"]["$ref"], "#/definitions/io.k8s.api.apps.v1.DeploymentSpec");
        assert!(deployment["properties"]["spec"]["description"].is_string());
        assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
        let containers = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        let quantity = &document["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"];
        assert_eq!((&quantity["type"], quantity.get("oneOf")), (&json!("string"), None));
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!((&patch["parameters"][0]["in"], &patch["parameters"][0]["name"]), (&json!("body"), &json!("body")));
        assert!(patch["consumes"].as_array().unwrap().contains(&json!("application/strategic-merge-patch+json")));
        let dry_run = patch["parameters"].as_array().unwrap().iter().find(|one| one["name"] == "dryRun").unwrap();
        assert_eq!((&dry_run["in"], &dry_run["type"]), (&json!("query"), &json!("string")));
        assert_eq!(patch["responses"]["200"]["schema"]["$ref"], "#/definitions/io.k8s.api.apps.v1.Deployment");
        let group = &document["paths"]["/apis/rbac.authorization.k8s.io/"]["get"];
        assert_eq!(group["operationId"], "getRbacAuthorizationAPIGroup");
        assert_eq!(group["consumes"], group["produces"]);
        let resources = &document["paths"]["/api/v1/"]["get"];
        assert_eq!(
            (&resources["operationId"], &resources["tags"]),
            (&json!("getCoreV1APIResources"), &json!(["core_v1"]))
        );
        let list = "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";
        assert_eq!(resources["responses"]["200"]["schema"]["$ref"], list);
        assert!(document["definitions"]["io.k8s.apimachinery.pkg.version.Info"].is_object());
        let required = &document["definitions"]["io.k8s.api.core.v1.Event"]["required"];
        assert_eq!(required, &json!(["involvedObject", "metadata"]));
        assert!(document["definitions"]["io.k8s.api.apps.v1.Deployment"].get("required").is_none());
        let modes =
            &document["definitions"]["io.k8s.api.core.v1.PersistentVolumeClaimSpec"]["properties"]["accessModes"];
        assert_eq!(modes["items"]["enum"][0], "ReadOnlyMany");
    }
}
