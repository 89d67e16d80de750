//! What kubectl looks for in the documents is there.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::builtin;

fn apps() -> Value {
    document(&builtin(), "apps", "v1").unwrap()
}

#[test]
fn there_is_one_document_per_group_and_version() {
    let all = group_versions(&builtin());
    assert_eq!(all[..2], [("", "v1"), ("apiregistration.k8s.io", "v1")]);
    assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len(), "each once");
    assert!(document(&builtin(), "apps", "v1beta1").is_none());
}

#[test]
fn operations_say_what_they_do_and_to_which_kind() {
    let document = apps();
    let item = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    let gvk = json!({"group": "apps", "kind": "Deployment", "version": "v1"});
    for (method, action) in [("get", "get"), ("put", "put"), ("patch", "patch"), ("delete", "delete")] {
        assert_eq!(item[method]["x-kubernetes-action"], action);
        assert_eq!(item[method]["x-kubernetes-group-version-kind"], gvk);
    }
    let parameters = item["patch"]["parameters"].as_array().unwrap();
    for name in ["dryRun", "fieldManager", "fieldValidation", "force"] {
        assert!(parameters.iter().any(|parameter| parameter["name"] == name), "{name}");
    }
    let bodies = item["patch"]["requestBody"]["content"].as_object().unwrap();
    assert!(bodies.contains_key("application/strategic-merge-patch+json"));
    assert_eq!(item["get"]["operationId"], "readAppsV1NamespacedDeployment");
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
    let core = document_of_core();
    assert!(core["paths"]["/api/v1/namespaces/{name}/finalize"]["put"].is_object());
    assert_eq!(core["paths"]["/api/v1/pods"]["get"]["x-kubernetes-action"], "list");
}

#[test]
fn what_may_be_left_out_or_is_one_of_a_few_is_described_so() {
    let core = document_of_core();
    let schema = |name: &str| core["components"]["schemas"][format!("io.k8s.api.core.v1.{name}")].clone();
    assert!(schema("ConfigMap")["required"].is_null() && schema("LocalObjectReference")["required"].is_null());
    assert_eq!(schema("ConfigMapKeySelector")["required"], json!(["key"]));
    assert_eq!(schema("Toleration")["properties"]["operator"]["enum"], json!(["Equal", "Exists", "Gt", "Lt"]));
    let families = &schema("ServiceSpec")["properties"]["ipFamilies"];
    assert!(families["enum"].is_null() && families["items"]["enum"] == json!(["", "IPv4", "IPv6"]), "{families}");
    assert!(schema("PersistentVolumeClaimStatus")["properties"]["allocatedResourceStatuses"]["additionalProperties"]["enum"].is_array());
}

#[test]
fn operations_are_named_and_described_as_in_kubernetes() {
    let (apps, core) = (apps(), document_of_core());
    let rbac = document(&builtin(), "rbac.authorization.k8s.io", "v1").unwrap();
    let deployments = "/apis/apps/v1/namespaces/{namespace}/deployments";
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles";
    for (document, path, method, id, description) in [
        (
            &apps,
            deployments.to_owned(),
            "delete",
            "deleteAppsV1CollectionNamespacedDeployment",
            "delete collection of Deployment",
        ),
        (
            &apps,
            format!("{deployments}/{{name}}/scale"),
            "patch",
            "patchAppsV1NamespacedDeploymentScale",
            "partially update scale of the specified Deployment",
        ),
        (
            &core,
            "/api/v1/namespaces/{namespace}/pods/{name}/exec".to_owned(),
            "get",
            "connectCoreV1GetNamespacedPodExec",
            "connect GET requests to exec of Pod",
        ),
        (
            &core,
            "/api/v1/namespaces/{namespace}/endpoints".to_owned(),
            "post",
            "createCoreV1NamespacedEndpoints",
            "create Endpoints",
        ),
        (&rbac, roles.to_owned(), "post", "createRbacAuthorizationV1NamespacedRole", "create a Role"),
    ] {
        let operation = &document["paths"][&path][method];
        assert_eq!((&operation["operationId"], &operation["description"]), (&json!(id), &json!(description)), "{path}");
    }
    assert_eq!(rbac["paths"][roles]["get"]["tags"], json!(["rbacAuthorization_v1"]));
    assert_eq!(operations::word("acme.cert-manager.io"), "acmeCertManagerIo");
}

fn document_of_core() -> Value {
    document(&builtin(), "", "v1").unwrap()
}

#[test]
fn schemas_carry_descriptions_lists_and_merge_keys() {
    let document = apps();
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "kind": "Deployment", "version": "v1"}])
    );
    assert!(deployment["description"].as_str().unwrap().starts_with("Deployment enables declarative updates"));
    assert_eq!(
        deployment["properties"]["spec"]["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}])
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let strategy = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
    assert_eq!(
        schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]["oneOf"],
        json!([{"type": "string"}, {"type": "number"}])
    );
}

#[test]
fn every_reference_points_to_a_schema_of_the_document() {
    for (group, version) in group_versions(&builtin()) {
        let document = document(&builtin(), group, version).unwrap();
        let mut references = BTreeSet::new();
        collect(&document, &mut references);
        for name in references {
            let name = name.strip_prefix("#/components/schemas/").expect(&name);
            assert!(document["components"]["schemas"][name].is_object(), "{group}/{version} lacks {name}");
        }
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                assert_eq!(map.len(), 1, "a reference has no siblings: {value}");
                references.insert(target.clone());
            }
            map.values().for_each(|value| collect(value, references));
        }
        _ => {}
    }
}

#[test]
fn every_enumeration_belongs_to_a_text_that_is_served() {
    let documents: Vec<_> =
        group_versions(&builtin()).iter().filter_map(|(group, version)| document(&builtin(), group, version)).collect();
    for (owner, field) in enums::fields() {
        let ending = format!(".{owner}");
        let found = documents.iter().any(|document| {
            let schemas = document["components"]["schemas"].as_object().unwrap();
            schemas.iter().any(|(name, schema)| {
                let property = &schema["properties"][field];
                let texts = [property, &property["items"], &property["additionalProperties"]];
                name.ends_with(&ending)
                    && texts.into_iter().any(|text| text["enum"].is_array() && text["type"] == "string")
            })
        });
        assert!(found, "{owner}.{field} is not served");
    }
}

#[test]
fn everything_that_is_served_has_its_path() {
    let core = document_of_core();
    let methods = |path: &str| -> Vec<String> {
        let item = core["paths"][path].as_object().unwrap_or_else(|| panic!("{path} is missing"));
        item.keys().filter(|key| *key != "parameters").cloned().collect()
    };
    let pod = |part: &str| format!("/api/v1/namespaces/{{namespace}}/pods/{{name}}/{part}");
    for part in ["attach", "exec", "portforward"] {
        assert_eq!(methods(&pod(part)), ["get", "post"], "{part}");
    }
    let all = ["delete", "get", "head", "options", "patch", "post", "put"];
    for path in [pod("proxy"), pod("proxy/{path}"), "/api/v1/nodes/{name}/proxy".to_owned()] {
        assert_eq!(methods(&path), all, "{path}");
    }
    for part in ["ephemeralcontainers", "resize", "status"] {
        assert_eq!(methods(&pod(part)), ["get", "patch", "put"], "{part}");
    }
    for path in [pod("eviction"), pod("binding"), "/api/v1/namespaces/{namespace}/bindings".to_owned()] {
        assert_eq!(methods(&path), ["post"], "{path}");
    }
    for path in ["/api/v1/componentstatuses", "/api/v1/watch/pods", "/api/v1/watch/nodes/{name}"] {
        assert_eq!(methods(path), ["get"], "{path}");
    }
    let exec = &core["paths"][pod("exec")];
    assert_eq!(exec["post"]["operationId"], "connectCoreV1PostNamespacedPodExec");
    assert_eq!(exec["post"]["x-kubernetes-group-version-kind"]["kind"], "PodExecOptions");
    let names: Vec<_> = exec["parameters"].as_array().unwrap().iter().map(|own| &own["name"]).collect();
    assert_eq!(names, ["command", "container", "name", "namespace", "stderr", "stdin", "stdout", "tty"]);
}

#[test]
fn operations_are_told_in_kubernetes_words() {
    let core = document_of_core();
    let told = |path: &str, method: &str| {
        let operation = &core["paths"][path][method];
        [&operation["operationId"], &operation["description"]].map(|text| text.as_str().unwrap().to_owned())
    };
    let pods = "/api/v1/namespaces/{namespace}/pods";
    for (path, method, id, description) in [
        (pods.to_owned(), "delete", "deleteCoreV1CollectionNamespacedPod", "delete collection of Pod"),
        (
            format!("{pods}/{{name}}/status"),
            "put",
            "replaceCoreV1NamespacedPodStatus",
            "replace status of the specified Pod",
        ),
        (format!("{pods}/{{name}}/eviction"), "post", "createCoreV1NamespacedPodEviction", "create eviction of a Pod"),
        (
            "/api/v1/namespaces/{namespace}/endpoints".to_owned(),
            "post",
            "createCoreV1NamespacedEndpoints",
            "create Endpoints",
        ),
    ] {
        assert_eq!(told(&path, method), [id, description]);
    }
    let roles = document(&builtin(), "rbac.authorization.k8s.io", "v1").unwrap();
    let role = &roles["paths"]["/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/{name}"];
    assert_eq!(role["get"]["tags"], json!(["rbacAuthorization_v1"]));
    assert!(role["patch"]["requestBody"]["content"]["application/apply-patch+yaml"].is_object());
    assert_eq!(
        role["patch"]["parameters"].as_array().unwrap().len(),
        4,
        "dryRun, fieldManager, fieldValidation, force"
    );
}
