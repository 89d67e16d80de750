//! What clients are told in corners where Kubernetes says more, less or something else than one would expect.

use super::*;

#[tokio::test]
async fn what_is_wrong_with_fields_is_told_of_a_refused_change_too() {
    let world = World::new().await;
    world.config_map("a", json!({})).await;
    let odd = json!({"metadata": {"name": "b"}, "odd": 1});
    let request = world.request("configmaps/a");
    world.registry.update(&request, odd.into()).await.expect_err("the names differ");
    assert_eq!(request.warnings.take(), ["unknown field \"odd\""]);
    let patch = Patch::Merge(json!({"odd": 1, "metadata": {"name": "b"}}).into());
    world.registry.patch(&request, patch).await.expect_err("the names differ");
    assert_eq!(request.warnings.take(), ["unknown field \"odd\""]);
}

#[tokio::test]
async fn what_stands_twice_in_a_field_that_is_not_known_is_not_told() {
    let world = World::new().await;
    let text = br#"{"metadata": {"name": "a", "name": "b"}, "odd": {"x": 1, "x": 2}, "odd": 1}"#;
    let body = crate::decode::json(text, "ConfigMap").unwrap();
    let request = world.request("configmaps");
    world.registry.create(&request, body).await.unwrap();
    assert_eq!(request.warnings.take(), ["duplicate field \"metadata.name\"", "unknown field \"odd\""]);
}

#[tokio::test]
async fn a_version_that_is_missing_is_told_of_the_resource() {
    let world = World::new().await;
    world.create("leases", json!({"metadata": {"name": "a"}})).await;
    let error = world.update("leases/a", json!({"metadata": {"name": "a"}})).await.unwrap_err();
    let said = "leases.coordination.k8s.io \"a\" is invalid: metadata.resourceVersion: Invalid value: 0: must be \
                specified for an update";
    assert_eq!(error.message, said);
    assert_eq!(error.details.unwrap().kind, "leases");
}

#[tokio::test]
async fn only_what_stores_a_new_object_looks_at_its_version() {
    let world = World::new().await;
    let object = |version: &str| json!({"metadata": {"name": "a", "resourceVersion": version}});
    let mut request = world.request("configmaps");
    let error = world.registry.create(&request, object("5").into()).await.unwrap_err();
    assert_eq!(error.message, "resourceVersion should not be set on objects to be created");
    let mut misnamed = object("5");
    misnamed["metadata"]["name"] = "A_b".into();
    assert_eq!(world.registry.create(&request, misnamed.into()).await.unwrap_err().code, 422, "rules come first");
    request.options.dry_run = true;
    let dry = world.registry.create(&request, object("5").into()).await.unwrap().object.value();
    assert_eq!(dry["metadata"]["resourceVersion"], "5");
    request.options.dry_run = false;
    let made = world.registry.create(&request, object("no number").into()).await.unwrap().object.value();
    assert!(made["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().is_ok());
    let error = world.registry.create(&request, object("5").into()).await.unwrap_err();
    assert_eq!(error.message, "resourceVersion should not be set on objects to be created", "the name comes last");
}

#[tokio::test]
async fn a_scale_of_a_replication_controller_shows_its_selector() {
    let world = World::new().await;
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}});
    world.create("replicationcontrollers", json!({"metadata": {"name": "a"}, "spec": {"template": template}})).await;
    let scale = world.get("replicationcontrollers/a:scale").await.unwrap();
    assert_eq!(scale["status"], json!({"replicas": 0, "selector": "app=web"}));
}

#[tokio::test]
async fn a_stop_signal_goes_as_long_as_the_feature_is_off() {
    let world = World::new().await;
    let container = json!({"name": "c", "image": "web:1", "lifecycle": {"stopSignal": "SIGTERM"}});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}});
    let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template});
    world.create("deployments", json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let stored = world.get("deployments/web").await.unwrap();
    assert_eq!(stored["spec"]["template"]["spec"]["containers"][0].get("lifecycle"), None);
}

#[tokio::test]
async fn a_finalizer_too_late_is_told_as_often_as_kubernetes_tells_it() {
    let world = World::new().await;
    let slice = json!({"metadata": {"name": "a", "finalizers": ["a.b/c"]}, "addressType": "IPv4", "endpoints": []});
    world.create("endpointslices", slice).await;
    world.delete("endpointslices/a").await.unwrap();
    let patch = json!({"metadata": {"finalizers": ["a.b/c", "d.e/f"]}});
    let error = world.merge("endpointslices/a", patch).await.unwrap_err();
    assert_eq!(error.details.unwrap().causes.len(), 1);
}

#[tokio::test]
async fn a_kind_that_nobody_knows_is_told_from_one_of_another_path() {
    let world = World::new().await;
    let create = async |kind: &str| {
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "a"}});
        world.registry.create(&world.request("configmaps"), object.into()).await.unwrap_err().message
    };
    let handled = "in version \"v1\" cannot be handled as a ConfigMap:";
    assert_eq!(
        create("Nope").await,
        format!(
            "Nope {handled} no kind \"Nope\" is registered for version \"v1\" in scheme \"pkg/runtime/scheme.go:111\""
        )
    );
    assert_eq!(
        create("PodList").await,
        format!("PodList {handled} converting (v1.PodList) to (core.ConfigMap): unknown conversion")
    );
}

#[tokio::test]
async fn of_a_name_that_is_still_taken_by_what_is_being_deleted_it_is_said() {
    let world = World::new().await;
    let object = json!({"metadata": {"name": "a", "finalizers": ["a.b/c"]}});
    world.create("configmaps", object.clone()).await;
    let again = async || world.try_create("configmaps", object.clone()).await.unwrap_err().message;
    assert_eq!(again().await, "configmaps \"a\" already exists");
    world.delete("configmaps/a").await.unwrap();
    assert_eq!(again().await, "object is being deleted: configmaps \"a\" already exists");
}
