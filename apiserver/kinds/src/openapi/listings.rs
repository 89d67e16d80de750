//! What tells what there is: the lists of groups, versions and resources, and the few paths beside them.
//!
//! Generators of clients make functions of these. Each group has a document of its own for them, and each version of a
//! group that Kubernetes brings with it one path more.

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::version::Info;
use serde_json::{Map, Value, json};

use super::operations::{capitalized, word};
use super::{document_of, schemas};
use crate::shape::generator;

const MEDIA_TYPES: &[&str] = &["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];

/// Where documents of this sort are, below `/openapi/v3/`, when these groups (none of them custom) are served.
#[must_use]
pub fn listings<'g>(groups: impl Iterator<Item = &'g str>) -> Vec<String> {
    let fixed = [".well-known/openid-configuration", "api", "apis", "openid/v1/jwks", "version"];
    let of_groups = groups.filter(|group| !group.is_empty()).map(|group| format!("apis/{group}"));
    fixed.into_iter().map(str::to_owned).chain(of_groups).collect()
}

/// The document of one of [`listings`].
#[must_use]
pub fn listing(path: &str) -> Value {
    let (operation, schemas) = described(path);
    document_of(Map::from_iter([(format!("/{path}/"), json!({ "get": operation }))]), schemas)
}

fn described(path: &str) -> (Value, Map<String, Value>) {
    let plain = |id: &str, tag: &str, description: &str, media: &str| {
        (get(id, tag, description, &[media], &json!({ "type": "string" })), Map::new())
    };
    match path {
        ".well-known/openid-configuration" => plain(
            "getServiceAccountIssuerOpenIDConfiguration",
            "WellKnown",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            "application/json",
        ),
        "openid/v1/jwks" => plain(
            "getServiceAccountIssuerOpenIDKeyset",
            "openid",
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            "application/jwk-set+json",
        ),
        "version" => {
            let mut generator = generator();
            generator.subschema_for::<Info>();
            let schema = reference("io.k8s.apimachinery.pkg.version.Info");
            let description = "get the version information for this server";
            let operation = get("getCodeVersion", "version", description, &["application/json"], &schema);
            (operation, generator.take_definitions(false))
        }
        "api" => {
            let mut generator = generator();
            generator.subschema_for::<meta::APIVersions>();
            let schema = of_meta("APIVersions");
            let operation = get("getCoreAPIVersions", "core", "get available API versions", MEDIA_TYPES, &schema);
            (operation, generator.take_definitions(false))
        }
        "apis" => {
            let mut generator = generator();
            generator.subschema_for::<meta::APIGroupList>();
            let schema = of_meta("APIGroupList");
            let operation = get("getAPIVersions", "apis", "get available API versions", MEDIA_TYPES, &schema);
            (operation, generator.take_definitions(false))
        }
        group => {
            let mut generator = generator();
            generator.subschema_for::<meta::APIGroup>();
            let tag = word(group.strip_prefix("apis/").unwrap_or(group));
            let id = format!("get{}APIGroup", capitalized(&tag));
            let operation = get(&id, &tag, "get information of a group", MEDIA_TYPES, &of_meta("APIGroup"));
            (operation, generator.take_definitions(false))
        }
    }
}

/// Adds the path of a version that lists its resources.
pub(super) fn add_resources(group: &str, version: &str, all: &mut Map<String, Value>, paths: &mut Map<String, Value>) {
    let (root, name) = match group {
        "" => (format!("/api/{version}/"), "core".to_owned()),
        group => (format!("/apis/{group}/{version}/"), word(group)),
    };
    let mut generator = generator();
    generator.subschema_for::<meta::APIResourceList>();
    all.extend(generator.take_definitions(false));
    let id = format!("get{}{}APIResources", capitalized(&name), capitalized(version));
    let schema = of_meta("APIResourceList");
    let operation = get(&id, &format!("{name}_{version}"), "get available resources", MEDIA_TYPES, &schema);
    paths.insert(root, json!({ "get": operation }));
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn of_meta(kind: &str) -> Value {
    reference(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"))
}

fn get(id: &str, tag: &str, description: &str, media: &[&str], schema: &Value) -> Value {
    let content = media.iter().map(|media| ((*media).to_owned(), json!({ "schema": schema })));
    json!({
        "tags": [tag], "description": description, "operationId": id,
        "responses": {
            "200": { "description": "OK", "content": content.collect::<Map<_, _>>() },
            "401": { "description": "Unauthorized" },
        },
    })
}

/// Marks the kinds among the schemas.
pub(super) fn mark(all: &mut Map<String, Value>) {
    for kind in ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions"] {
        if let Some(schema) = all.get_mut(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")) {
            schema["x-kubernetes-group-version-kind"] = json!([schemas::gvk("", "v1", kind)]);
        }
    }
}
