//! Deletion: finalizers, preconditions, propagation, namespaces, collections.

use super::*;

#[tokio::test]
async fn a_deletion_that_is_complete_answers_with_a_status_that_names_the_object() {
    let world = World::new().await;
    let object = world.config_map("a", json!({})).await;
    let written = world.registry.delete(&world.request("configmaps/a")).await.unwrap();
    assert!(written.is_status);
    assert_eq!(
        written.object.value(),
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": "a", "kind": "configmaps", "uid": object["metadata"]["uid"]}})
    );
    assert!(world.delete("configmaps/a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_finalizer_keeps_the_object_until_it_is_removed_and_no_new_one_can_be_added() {
    let world = World::new().await;
    let held = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    world.create("configmaps", held).await;
    let marked = world.delete("configmaps/a").await.unwrap();
    assert_eq!(marked["metadata"]["deletionTimestamp"], START);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(world.delete("configmaps/a").await.unwrap(), marked, "a second deletion changes nothing");
    let add = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let error = world.merge("configmaps/a", add).await.unwrap_err();
    assert!(
        error.message.contains(
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
             finalizers []string{\"example.com/more\"}"
        ),
        "{error}"
    );
    let last = world.merge("configmaps/a", json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert!(last["metadata"]["finalizers"].is_null());
    assert!(world.get("configmaps/a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_deletion_timestamp_cannot_be_set_or_taken_back_by_an_update() {
    let world = World::new().await;
    let held = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    world.create("configmaps", held.clone()).await;
    let error = world.merge("configmaps/a", json!({"metadata": {"deletionTimestamp": START}})).await.unwrap_err();
    assert!(error.message.contains("metadata.deletionTimestamp: Invalid value: "), "{error}");
    world.delete("configmaps/a").await.unwrap();
    let after = world.update("configmaps/a", held).await.unwrap();
    assert_eq!(after["metadata"]["deletionTimestamp"], START);
}

#[tokio::test]
async fn a_deletion_hits_only_the_object_and_version_it_names() {
    let world = World::new().await;
    let object = world.config_map("a", json!({})).await;
    let error = world
        .delete_with("configmaps/a", |options| options.preconditions.uid = Some("other".into()))
        .await
        .unwrap_err();
    let uid = meta::text(&object, "uid");
    assert_eq!(
        error.message,
        format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (other) does not match the UID \
             in record ({uid}). The object might have been deleted and then recreated"
        )
    );
    assert_eq!(error.details.unwrap().kind, "ConfigMap");
    let version = |text: &str| {
        let text = text.to_owned();
        move |options: &mut Options| options.preconditions.resource_version = Some(text)
    };
    assert!(world.delete_with("configmaps/a", version("1")).await.unwrap_err().is_conflict());
    world.delete_with("configmaps/a", version(meta::text(&object, "resourceVersion"))).await.unwrap();
}

#[tokio::test]
async fn the_propagation_policy_becomes_a_finalizer_for_the_garbage_collector() {
    let world = World::new().await;
    for (policy, finalizer) in [(Propagation::Orphan, "orphan"), (Propagation::Foreground, "foregroundDeletion")] {
        world.config_map("a", json!({})).await;
        let marked = world.delete_with("configmaps/a", |options| options.propagation = Some(policy)).await.unwrap();
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        assert_eq!(marked["metadata"]["deletionTimestamp"], START);
        world.delete_with("configmaps/a", |options| options.propagation = Some(Propagation::Background)).await.unwrap();
        assert!(world.get("configmaps/a").await.unwrap_err().is_not_found());
    }
    world.config_map("a", json!({})).await;
    world.delete_with("configmaps/a", |options| options.propagation = Some(Propagation::Background)).await.unwrap();
    assert!(world.get("configmaps/a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_namespace_goes_when_it_is_finalized_and_three_never_do() {
    let world = World::new().await;
    world.create("namespaces", json!({"metadata": {"name": "a"}})).await;
    let going = world.delete("namespaces/a").await.unwrap();
    assert_eq!(
        (&going["status"]["phase"], &going["metadata"]["deletionTimestamp"]),
        (&json!("Terminating"), &json!(START))
    );
    assert_eq!(going["spec"]["finalizers"], json!(["kubernetes"]));
    world.delete("namespaces/a").await.unwrap();
    assert!(world.get("namespaces/a").await.is_ok());
    let mut empty = world.get("namespaces/a").await.unwrap();
    empty["spec"] = json!({});
    world.update("namespaces/a:finalize", empty).await.unwrap();
    assert!(world.get("namespaces/a").await.unwrap_err().is_not_found());
    for name in ["default", "kube-system", "kube-public"] {
        let error = world.delete(&format!("namespaces/{name}")).await.unwrap_err();
        assert_eq!(error.message, format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted"));
    }
}

#[tokio::test]
async fn deleting_a_collection_deletes_what_the_selector_matches_and_says_what_it_was() {
    let world = World::new().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        world.create("configmaps", json!({"metadata": {"name": name, "labels": {"tier": tier}}})).await;
    }
    let request = world.with("configmaps", |options| options.label_selector = "tier=x".into());
    let deleted = world.registry.delete_collection(&request).await.unwrap();
    assert_eq!(deleted.items.len(), 2);
    let left = world.registry.list(&world.request("configmaps")).await.unwrap();
    assert_eq!(left.items.iter().map(|one| meta::text(&one.value(), "name").to_owned()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn a_deletion_collection_answers_what_was_there_and_ends_with_the_first_complaint() {
    let world = World::new().await;
    let held = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    world.create("configmaps", held).await;
    world.config_map("b", json!({})).await;
    let deleted = world.registry.delete_collection(&world.request("configmaps")).await.unwrap();
    assert!(deleted.items.iter().all(|one| meta::get(&one.value(), "deletionTimestamp").is_null()));
    assert_eq!(meta::text(&world.get("configmaps/a").await.unwrap(), "deletionTimestamp"), START);
    world.config_map("b", json!({})).await;
    let other = |options: &mut Options| options.preconditions.uid = Some("other".into());
    let error = world.registry.delete_collection(&world.with("configmaps", other)).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    let first = world.with("configmaps", |options| options.limit = 1);
    assert_eq!(world.registry.delete_collection(&first).await.unwrap().items.len(), 1);
    assert!(world.get("configmaps/b").await.is_ok(), "only the first page was asked for");
}

#[tokio::test]
async fn what_becomes_of_the_dependents_may_be_said_in_old_words() {
    let world = World::new().await;
    let deleted = |path: &'static str, orphan: bool| {
        let request = world.with(path, |options| options.orphan_dependents = Some(orphan));
        let world = &world;
        async move {
            let written = world.registry.delete(&request).await.unwrap();
            (Registry::is_still_there(&request, &written), written.object.value()["metadata"]["finalizers"].clone())
        }
    };
    world.config_map("a", json!({})).await;
    assert_eq!(deleted("configmaps/a", true).await, (true, json!(["orphan"])));
    assert_eq!(deleted("configmaps/a", false).await, (false, Value::Null));
    world.create("namespaces", json!({"metadata": {"name": "a"}})).await;
    assert_eq!(deleted("namespaces/a", false).await, (true, json!(["foregroundDeletion"])));
}

#[tokio::test]
async fn an_event_never_waits_for_dependents_whatever_is_asked() {
    let world = World::new().await;
    let event = json!({"metadata": {"name": "a"}, "reason": "Started", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"}});
    world.create("events", event).await;
    world.delete_with("events/a", |options| options.propagation = Some(Propagation::Foreground)).await.unwrap();
    assert!(world.get("events/a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_object_whose_last_finalizer_goes_is_answered_in_the_version_before() {
    let world = World::new().await;
    let held = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    world.create("configmaps", held).await;
    let marked = world.delete("configmaps/a").await.unwrap();
    let last = world.merge("configmaps/a", json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert_eq!(last["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn events_are_forgotten_an_hour_after_they_were_last_seen() {
    let world = World::new().await;
    let event = |name: &str, last: &str| {
        json!({"metadata": {"name": name}, "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"},
            "reason": "Started", "type": "Normal", "lastTimestamp": last})
    };
    for index in 0..150 {
        world.create("events", event(&format!("old{index}"), START)).await;
    }
    world.create("events", event("renewed", "2026-01-02T03:34:05Z")).await;
    world.clock.advance(Duration::from_secs(3601));
    world.registry.fresh().await.unwrap();
    world.registry.expire_events().await;
    assert_eq!(world.registry.list(&world.request("events")).await.unwrap().items.len(), 1);
    world.get("events/renewed").await.unwrap();
}
