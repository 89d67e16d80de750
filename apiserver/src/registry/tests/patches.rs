//! Patches: JSON, merge, strategic merge.

use super::*;

async fn patch(world: &World, path: &str, patch: Patch) -> Result<Value, ApiError> {
    world.registry.patch(&world.request(path), patch).await.map(|written| written.object.value())
}

#[tokio::test]
async fn the_three_kinds_of_patches_change_what_they_name() {
    let world = World::new().await;
    world.config_map("a", json!({"x": "1", "y": "1"})).await;
    let json = Patch::Json(json!([
        {"op": "test", "path": "/data/x", "value": "1"},
        {"op": "replace", "path": "/data/x", "value": "2"},
        {"op": "remove", "path": "/data/y"},
    ]));
    assert_eq!(patch(&world, "configmaps/a", json).await.unwrap()["data"], json!({"x": "2"}));
    let merge = Patch::Merge(json!({"data": {"x": null, "z": "3"}}).into());
    assert_eq!(patch(&world, "configmaps/a", merge).await.unwrap()["data"], json!({"z": "3"}));
    let strategic = Patch::Strategic(json!({"data": {"$patch": "replace", "w": "4"}}).into());
    assert_eq!(patch(&world, "configmaps/a", strategic).await.unwrap()["data"], json!({"w": "4"}));
    assert_eq!(data(&world.get("configmaps/a").await.unwrap(), "w"), "4");
}

#[tokio::test]
async fn strategic_merge_knows_the_merge_keys_of_the_kind() {
    let world = World::new().await;
    let account = json!({"metadata": {"name": "a"}, "secrets": [{"name": "one"}]});
    world.create("serviceaccounts", account).await;
    let more = Patch::Strategic(json!({"secrets": [{"name": "two"}]}).into());
    let merged = patch(&world, "serviceaccounts/a", more).await.unwrap();
    assert_eq!(merged["secrets"].as_array().unwrap().len(), 2);
    let less = Patch::Strategic(json!({"secrets": [{"name": "one", "$patch": "delete"}]}).into());
    assert_eq!(patch(&world, "serviceaccounts/a", less).await.unwrap()["secrets"], json!([{"name": "two"}]));
}

#[tokio::test]
async fn a_patch_that_does_not_fit_changes_nothing_and_says_why() {
    let world = World::new().await;
    world.config_map("a", json!({"x": "1"})).await;
    let failed = Patch::Json(json!([{"op": "test", "path": "/data/x", "value": "9"}]));
    let error = patch(&world, "configmaps/a", failed).await.unwrap_err();
    assert_eq!((error.code, error.reason), (422, "Invalid"));
    assert_eq!(error.message, "the server rejected our request due to an error in our request");
    let error = patch(&world, "configmaps/a", Patch::Json(json!({"op": "add"}))).await.unwrap_err();
    assert!(error.code == 400 && error.message.starts_with("error decoding patch: "), "{error}");
    let error = patch(&world, "configmaps/a", Patch::Strategic(json!([1]).into())).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (400, "json: cannot unmarshal array into Go value of type map[string]interface {}")
    );
    let mistyped = Patch::Merge(json!({"data": {"x": 1}}).into());
    let error = patch(&world, "configmaps/a", mistyped).await.unwrap_err();
    assert!(error.code == 422 && error.message.contains("json: cannot unmarshal number into Go "), "{error}");
    assert!(patch(&world, "configmaps/b", Patch::Merge(json!({}).into())).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_strict_patch_may_not_bring_unknown_fields() {
    let world = World::new().await;
    world.config_map("a", json!({})).await;
    let request = world.with("configmaps/a", |options| options.field_validation = FieldValidation::Strict);
    let error = world.registry.patch(&request, Patch::Strategic(json!({"foo": 1}).into())).await.unwrap_err();
    assert_eq!(error.code, 422);
    assert!(error.message.ends_with("strict decoding error: unknown field \"foo\""), "{error}");
    let warned =
        world.registry.patch(&world.request("configmaps/a"), Patch::Merge(json!({"foo": 1}).into())).await.unwrap();
    assert_eq!(warned.warnings, ["unknown field \"foo\""]);
}

#[tokio::test]
async fn a_patch_with_a_version_is_a_conflict_when_it_is_old_and_one_without_never_loses() {
    let world = Arc::new(World::new().await);
    let first = world.config_map("a", json!({})).await;
    let version = meta::text(&first, "resourceVersion").to_owned();
    world.merge("configmaps/a", json!({"data": {"x": "1"}})).await.unwrap();
    let stale = json!({"metadata": {"resourceVersion": version}, "data": {"x": "2"}});
    assert!(world.merge("configmaps/a", stale).await.unwrap_err().is_conflict());
    let tasks: Vec<_> = (0..16)
        .map(|index| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.merge("configmaps/a", json!({"data": {format!("k{index}"): "v"}})).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(world.get("configmaps/a").await.unwrap()["data"].as_object().unwrap().len(), 17);
}

#[tokio::test]
async fn a_patch_neither_doubles_an_object_with_every_copy_nor_nests_it_with_every_move() {
    let world = World::new().await;
    world.config_map("a", json!({"x": "y".repeat(1000)})).await;
    let doubling = |_| json!({"op": "copy", "from": "/data", "path": "/data/more"});
    let nesting = |round: usize| {
        let inner = "/o".repeat(50);
        let mut shell = json!({});
        (0..50).for_each(|_| shell = json!({ "o": shell.take() }));
        let (from, to) = (format!("/data/{round}"), format!("/data/{}", round + 1));
        json!([
            {"op": "add", "path": to, "value": shell},
            {"op": "move", "from": if round == 0 { "/data/x".to_owned() } else { from }, "path": format!("{to}{inner}")},
        ])
    };
    let copies = Patch::Json((0..10_000).map(doubling).collect());
    let moves = (0..2000).map(nesting).flat_map(|pair| pair.as_array().cloned().unwrap_or_default());
    for bomb in [copies, Patch::Json(moves.collect())] {
        let error = patch(&world, "configmaps/a", bomb).await.unwrap_err();
        assert_eq!((error.code, error.reason), (422, "Invalid"));
    }
    let fine = json!([{"op": "copy", "from": "/data/x", "path": "/data/z"}, {"op": "move", "from": "/data/x", "path": "/data/w"}]);
    let patched = patch(&world, "configmaps/a", Patch::Json(fine)).await.unwrap();
    assert_eq!(patched["data"].as_object().unwrap().keys().collect::<Vec<_>>(), ["w", "z"]);
}

#[tokio::test]
async fn a_patch_neither_renames_an_object_nor_makes_it_another_one() {
    let world = World::new().await;
    world.config_map("a", json!({"k": "v"})).await;
    let error = async |patch_of| patch(&world, "configmaps/a", patch_of).await.unwrap_err();
    let nameless = error(Patch::Merge(json!({"metadata": null}).into())).await;
    let why = "the name of the object (a based on URL) was undeterminable: name must be provided";
    assert_eq!((nameless.code, nameless.message.as_str()), (400, why));
    let other = error(Patch::Json(json!([{"op": "replace", "path": "/metadata/uid", "value": "u"}]))).await;
    assert_eq!(
        (other.code, other.message.as_str()),
        (422, r#"ConfigMap "a" is invalid: metadata.uid: Invalid value: "u": field is immutable"#)
    );
    let kind = error(Patch::Merge(json!({"kind": "Foo"}).into())).await;
    let end = r#"no kind "Foo" is registered for version "v1" in scheme "pkg/runtime/scheme.go:111""#;
    assert!(kind.code == 422 && kind.message.ends_with(end), "{kind}");
    let kept = patch(&world, "configmaps/a", Patch::Strategic(json!({"kind": "Foo"}).into())).await.unwrap();
    assert_eq!(kept["kind"], "ConfigMap");
    let mistyped = error(Patch::Strategic(json!({"data": {"k": 1}}).into())).await;
    let text = r#" "" is invalid: patch: Invalid value: "map[data:map[k:1]]": cannot convert int64 to string"#;
    assert_eq!((mistyped.code, mistyped.message.as_str()), (422, text));
    let directive = error(Patch::Strategic(json!({"data": {"$patch": "x"}}).into())).await;
    assert_eq!((directive.code, directive.message.as_str()), (500, "unknown patch type: x in map: map[$patch:x]"));
}

#[tokio::test]
async fn an_object_that_a_patch_leaves_without_a_version_has_no_name_either() {
    let world = World::new().await;
    world.config_map("a", json!({})).await;
    for version in [json!(null), json!("")] {
        let error = world.merge("configmaps/a", json!({"apiVersion": version})).await.unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (400, "the name of the object (a based on URL) was undeterminable: name must be provided")
        );
    }
}

#[tokio::test]
async fn an_attempt_to_mark_an_object_as_going_is_refused_by_every_rule_that_sees_it() {
    let world = World::new().await;
    world.config_map("a", json!({})).await;
    let error = world.merge("configmaps/a", json!({"metadata": {"deletionGracePeriodSeconds": 5}})).await.unwrap_err();
    assert_eq!(
        error.message,
        "ConfigMap \"a\" is invalid: metadata.deletionGracePeriodSeconds: Invalid value: 5: field is immutable"
    );
    assert_eq!(error.details.unwrap().causes.len(), 2);
}

#[tokio::test]
async fn who_sends_an_empty_list_manages_it_though_it_is_shown_as_none() {
    let world = World::new().await;
    let role = json!({"metadata": {"name": "r"}, "rules": []});
    let role = world.create("roles", role).await;
    assert_eq!(role["rules"], json!(null));
    assert_eq!(role["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:rules": {}}));
}

#[tokio::test]
async fn an_empty_list_of_managers_forgets_them() {
    let world = World::new().await;
    world.config_map("a", json!({"x": "1"})).await;
    let forgotten = world.merge("configmaps/a", json!({"metadata": {"managedFields": []}})).await.unwrap();
    assert!(forgotten["metadata"].get("managedFields").is_none(), "{forgotten}");
}

#[tokio::test]
async fn who_wrote_in_another_version_still_manages_what_was_written() {
    let world = World::new().await;
    let in_version = |version: &str, name: &str| {
        let resource = world.registry.resource("autoscaling", version, "horizontalpodautoscalers").unwrap();
        Request { resource, name: name.to_owned(), ..world.request("configmaps") }
    };
    let spec =
        json!({"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}});
    let object = json!({"metadata": {"name": "h"}, "spec": spec});
    world.registry.create(&in_version("v1", ""), object.into()).await.unwrap();
    let merge = Patch::Merge(json!({"spec": {"maxReplicas": 4}}).into());
    let changed = world.registry.patch(&in_version("v2", "h"), merge).await.unwrap().object.value();
    let entries = changed["metadata"]["managedFields"].as_array().unwrap();
    let of =
        |version: &str| &entries.iter().find(|entry| entry["apiVersion"] == version).unwrap()["fieldsV1"]["f:spec"];
    assert_eq!(of("autoscaling/v2"), &json!({"f:maxReplicas": {}}));
    assert!(of("autoscaling/v1").get("f:scaleTargetRef").is_some());
    assert!(of("autoscaling/v1").get("f:maxReplicas").is_none());
}
