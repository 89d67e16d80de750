//! Create, read, update.

use super::*;

#[tokio::test]
async fn a_created_object_has_identity_birth_and_version_and_is_read_back_byte_for_byte() {
    let world = World::new().await;
    let written =
        world.registry.create(&world.request("configmaps"), json!({"metadata": {"name": "a"}}).into()).await.unwrap();
    assert!(written.created);
    let object = written.object.value();
    assert_eq!((&object["kind"], &object["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    let metadata = &object["metadata"];
    assert_eq!((&metadata["namespace"], &metadata["creationTimestamp"]), (&json!("default"), &json!(START)));
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    assert_eq!(metadata["resourceVersion"], revision(&world).to_string());
    assert_eq!(world.registry.get(&world.request("configmaps/a")).await.unwrap(), written.object);
}

#[tokio::test]
async fn reads_see_every_write_that_was_acknowledged_before() {
    let world = World::new().await;
    for round in 0..200 {
        let name = format!("a{round}");
        world.config_map(&name, json!({})).await;
        world.get(&format!("configmaps/{name}")).await.unwrap();
        world.delete(&format!("configmaps/{name}")).await.unwrap();
        assert!(world.get(&format!("configmaps/{name}")).await.unwrap_err().is_not_found());
    }
}

#[tokio::test]
async fn what_is_missing_or_taken_is_said_in_kubernetes_words() {
    let world = World::new().await;
    let error = world.get("configmaps/a").await.unwrap_err();
    assert_eq!(
        error.status(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404,
            "message": "configmaps \"a\" not found", "details": {"name": "a", "kind": "configmaps"}})
    );
    world.config_map("a", json!({})).await;
    let error = world.try_create("configmaps", json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!(
        (error.code, error.reason, error.message.as_str()),
        (409, "AlreadyExists", "configmaps \"a\" already exists")
    );
}

#[tokio::test]
async fn an_invalid_object_is_refused_with_every_cause() {
    let world = World::new().await;
    let object = json!({"metadata": {"name": "A", "labels": {"-": "x"}}, "data": {"a b": "1"}});
    let error = world.try_create("configmaps", object).await.unwrap_err();
    assert_eq!((error.code, error.reason), (422, "Invalid"));
    assert!(error.message.starts_with("ConfigMap \"A\" is invalid: [metadata.name: Invalid value: \"A\": "), "{error}");
    assert!(error.details.unwrap().causes.len() >= 3);
}

#[tokio::test]
async fn an_object_larger_than_the_store_takes_is_refused_before_it_gets_there() {
    let world = World::new().await;
    let secret = json!({"metadata": {"name": "a", "annotations": {}}, "secrets": [{"name": "x".repeat(2_100_000)}]});
    let error = world.try_create("serviceaccounts", secret).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (500, "etcdserver: request is too large"));
}

#[tokio::test]
async fn a_generated_name_is_free_and_one_that_cannot_be_found_is_not_invented() {
    let world = World::new().await;
    let object = || json!({"metadata": {"generateName": "job-"}});
    let (a, b) = (world.create("configmaps", object()).await, world.create("configmaps", object()).await);
    let names = (meta::text(&a, "name"), meta::text(&b, "name"));
    assert!(names.0.starts_with("job-") && names.0.len() == 9 && names.0 != names.1, "{names:?}");
    let namespace = world.create("namespaces", json!({"metadata": {"generateName": "n-"}})).await;
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], namespace["metadata"]["name"]);
}

#[tokio::test]
async fn nothing_is_created_without_its_namespace_or_in_one_that_is_going() {
    let world = World::new().await;
    let error = world.try_create("configmaps/nowhere/", json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (404, "namespaces \"nowhere\" not found"));
    world.create("namespaces", json!({"metadata": {"name": "going"}})).await;
    world.delete("namespaces/going").await.unwrap();
    let error = world.try_create("configmaps/going/", json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!(error.code, 403);
    assert_eq!(
        error.message,
        "configmaps \"a\" is forbidden: unable to create new content in namespace going because it is being terminated"
    );
    assert_eq!(error.details.unwrap().causes[0].reason, "NamespaceTerminating");
}

#[tokio::test]
async fn an_object_must_be_what_the_path_says() {
    let world = World::new().await;
    let refused = async |object: Value| world.try_create("configmaps", object).await.unwrap_err().message;
    assert_eq!(
        refused(json!({"kind": "Secret", "metadata": {"name": "a"}})).await,
        "Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (core.ConfigMap): unknown conversion"
    );
    assert_eq!(
        refused(json!({"apiVersion": "apps/v1", "metadata": {"name": "a"}})).await,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \
         \"apps/v1\" in scheme \"pkg/runtime/scheme.go:111\""
    );
    assert_eq!(
        refused(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}})).await,
        "Deployment in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Deployment) to (core.ConfigMap): unknown conversion"
    );
    assert_eq!(
        refused(json!({"metadata": {"name": "a", "namespace": "kube-system"}})).await,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
    assert_eq!(
        refused(json!({"metadata": {"name": "a", "resourceVersion": "5"}})).await,
        "resourceVersion should not be set on objects to be created"
    );
    world.config_map("a", json!({})).await;
    let error = world.update("configmaps/a", json!({"metadata": {}})).await.unwrap_err();
    assert_eq!(error.message, "the name of the object (a based on URL) was undeterminable: name must be provided");
    assert_eq!(world.get("configmaps/a:status").await.unwrap_err().code, 404);
    let error = world.update("configmaps/a", json!({"metadata": {"name": "b"}})).await.unwrap_err();
    assert_eq!(error.message, "the name of the object (b) does not match the name on the URL (a)");
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_warned_of_or_dropped() {
    let world = World::new().await;
    let body = || Body {
        value: json!({"metadata": {"name": "a"}, "foo": 1}),
        complaints: vec!["duplicate field \"data.x\"".to_owned()],
        text: None,
    };
    let strict = world.with("configmaps", |options| options.field_validation = FieldValidation::Strict);
    assert_eq!(
        world.registry.create(&strict, body()).await.unwrap_err().message,
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: duplicate field \"data.x\", \
         unknown field \"foo\""
    );
    let warned = world.registry.create(&world.request("configmaps"), body()).await.unwrap();
    assert_eq!(warned.warnings, ["duplicate field \"data.x\"", "unknown field \"foo\""]);
    assert!(warned.object.value().get("foo").is_none());
    let ignored = world.with("configmaps/a", |options| options.field_validation = FieldValidation::Ignore);
    assert!(world.registry.update(&ignored, body()).await.unwrap().warnings.is_empty());
}

#[tokio::test]
async fn an_owner_named_twice_is_kept_once_with_a_warning() {
    let world = World::new().await;
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u1"});
    let body = json!({"metadata": {"name": "a", "ownerReferences": [owner, owner]}});
    let written = world.registry.create(&world.request("configmaps"), Body::from(body)).await.unwrap();
    assert_eq!(
        written.warnings,
        [".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
          reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: u1"]
    );
    assert_eq!(written.object.value()["metadata"]["ownerReferences"], json!([owner]));
}

#[tokio::test]
async fn an_update_of_an_old_version_is_a_conflict_and_one_without_a_version_is_not() {
    let world = World::new().await;
    let first = world.config_map("a", json!({"x": "1"})).await;
    let mut second = first.clone();
    second["data"]["x"] = "2".into();
    world.update("configmaps/a", second).await.unwrap();
    let error = world.update("configmaps/a", first).await.unwrap_err();
    assert_eq!((error.code, error.reason), (409, "Conflict"));
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the \
         latest version and try again"
    );
    let third = world.update("configmaps/a", json!({"metadata": {"name": "a"}, "data": {"x": "3"}})).await.unwrap();
    assert_eq!(data(&third, "x"), "3");
}

#[tokio::test]
async fn an_update_keeps_identity_and_refuses_a_namesake() {
    let world = World::new().await;
    let first = world.config_map("a", json!({})).await;
    let object = json!({"metadata": {"name": "a", "creationTimestamp": null, "labels": {"x": "y"}}});
    let second = world.update("configmaps/a", object).await.unwrap();
    for field in ["uid", "creationTimestamp"] {
        assert_eq!(first["metadata"][field], second["metadata"][field]);
    }
    let error = world.update("configmaps/a", json!({"metadata": {"name": "a", "uid": "other"}})).await.unwrap_err();
    assert!(
        error.is_conflict()
            && error.message.contains(
                "StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/a, ResourceVersion: 0, \
                 AdditionalErrorMsg: Precondition failed: UID in precondition: other, UID in object meta: "
            ),
        "{error}"
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let world = World::new().await;
    let first = world.config_map("a", json!({"x": "1"})).await;
    let before = revision(&world);
    assert_eq!(world.update("configmaps/a", first.clone()).await.unwrap(), first);
    assert_eq!(world.merge("configmaps/a", json!({"data": {"x": "1"}})).await.unwrap(), first);
    assert_eq!(revision(&world), before);
}

#[tokio::test]
async fn of_many_concurrent_updates_of_one_version_exactly_one_wins() {
    let world = Arc::new(World::new().await);
    let first = world.config_map("a", json!({})).await;
    let tasks: Vec<_> = (0..20)
        .map(|index| {
            let (world, mut object) = (Arc::clone(&world), first.clone());
            object["data"] = json!({"x": index.to_string()});
            tokio::spawn(async move { world.update("configmaps/a", object).await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert!(error.is_conflict(), "{error}"),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_leaves_no_trace() {
    let world = World::new().await;
    world.config_map("a", json!({"x": "1"})).await;
    let before = revision(&world);
    let dry = |path| world.with(path, |options| options.dry_run = true);
    let made = world.registry.create(&dry("configmaps"), json!({"metadata": {"name": "b"}}).into()).await.unwrap();
    assert!(made.object.value()["metadata"]["resourceVersion"].is_null() && made.created);
    let taken = world.registry.create(&dry("configmaps"), json!({"metadata": {"name": "a"}}).into()).await;
    assert!(taken.unwrap_err().is_already_exists());
    let changed =
        world.registry.patch(&dry("configmaps/a"), Patch::Merge(json!({"data": {"x": "2"}}).into())).await.unwrap();
    assert_eq!(data(&changed.object.value(), "x"), "2");
    world.registry.delete(&dry("configmaps/a")).await.unwrap();
    assert_eq!(revision(&world), before);
    assert_eq!(data(&world.get("configmaps/a").await.unwrap(), "x"), "1");
}

#[tokio::test]
async fn every_cluster_has_its_namespaces_and_a_restart_finds_everything_again() {
    let world = World::new().await;
    world.config_map("a", json!({"x": "1"})).await;
    let before = revision(&world);
    let again = World::on(Arc::clone(&world.kv)).await;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert_eq!(again.get(&format!("namespaces/{name}")).await.unwrap()["status"]["phase"], "Active");
    }
    assert_eq!(data(&again.get("configmaps/a").await.unwrap(), "x"), "1");
    assert_eq!(revision(&again), before, "a start on a complete store writes nothing");
}
