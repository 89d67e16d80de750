//! The life of definitions, on a whole registry.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{DEFINITIONS, own_request};
use crate::registry::tests::{Events, World};
use crate::registry::{Body, FieldValidation, Patch, Registry, Request, Subresource};
use crate::status::ApiError;

const NAME: &str = "widgets.example.com";

/// A definition with one version per given name; the first is stored.
pub(crate) fn definition(versions: &[&str]) -> Value {
    let version = |(index, name): (usize, &&str)| {
        json!({"name": name, "served": true, "storage": index == 0, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {
                    "size": {"type": "integer", "minimum": 1, "default": 3}, "color": {"type": "string"}}},
                "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}}}}}})
    };
    json!({"metadata": {"name": NAME}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": versions.iter().enumerate().map(version).collect::<Vec<_>>()}})
}

fn definitions(world: &World, name: &str) -> Request {
    own_request(world.registry.resource(DEFINITIONS.0, "v1", DEFINITIONS.1).unwrap(), name)
}

pub(crate) async fn define(world: &World, crd: Value) {
    let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
    world.registry.create(&definitions(world, ""), Body::from(crd)).await.unwrap();
    wait(world, |registry| {
        let request = definitions(world, &name);
        let object = registry.peek(&request.resource, "", &name);
        object.is_some_and(|object| super::status::is_true(&object.value(), "Established"))
    })
    .await;
}

/// Waits until the registry is as wanted; it gets there by itself.
async fn wait(world: &World, wanted: impl Fn(&Arc<Registry>) -> bool) {
    let deadline = Duration::from_secs(20);
    let reached = async {
        while !wanted(&world.registry) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(deadline, reached).await.expect("the registry gets there");
}

pub(super) fn widget(world: &World, version: &str, name: &str) -> Request {
    let resource = world.registry.resource("example.com", version, "widgets").expect(version);
    Request { resource, name: name.to_owned(), ..world.request("configmaps") }
}

pub(crate) async fn create(world: &World, version: &str, body: Value) -> Result<Value, ApiError> {
    Ok(world.registry.create(&widget(world, version, ""), Body::from(body)).await?.object.value())
}

#[tokio::test]
async fn a_definition_is_served_established_and_its_objects_are_judged_by_its_schema() {
    let world = World::new().await;
    define(&world, definition(&["v1"])).await;
    let crd = world.registry.get(&definitions(&world, NAME)).await.unwrap().value();
    assert_eq!(crd["status"]["acceptedNames"]["listKind"], "WidgetList");
    let made = create(&world, "v1", json!({"metadata": {"name": "a"}, "spec": {"odd": 1}, "status": {"ready": true}}));
    let made = made.await.unwrap();
    assert_eq!((&made["spec"], &made["kind"], made.get("status")), (&json!({"size": 3}), &json!("Widget"), None));
    let error = create(&world, "v1", json!({"metadata": {"name": "b"}, "spec": {"size": 0}})).await.unwrap_err();
    assert_eq!(
        error.message,
        "Widget.example.com \"b\" is invalid: spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"
    );
    let mut strict = widget(&world, "v1", "");
    strict.options.field_validation = FieldValidation::Strict;
    let body = json!({"metadata": {"name": "c"}, "spec": {"odd": 1}});
    let error = world.registry.create(&strict, Body::from(body)).await.unwrap_err();
    assert!(error.message.ends_with("strict decoding error: unknown field \"spec.odd\""), "{}", error.message);
    let mut status = widget(&world, "v1", "a");
    status.subresource = Subresource::Part(reeve_kinds::Part::Status);
    let patch = Patch::Merge(json!({"status": {"ready": true}, "spec": {"size": 9}}).into());
    let patched = world.registry.patch(&status, patch).await.unwrap().object.value();
    assert_eq!((&patched["status"]["ready"], &patched["spec"]["size"]), (&json!(true), &json!(3)));
    let strategic = Patch::Strategic(json!({"spec": {"size": 9}}).into());
    assert_eq!(world.registry.patch(&widget(&world, "v1", "a"), strategic).await.unwrap_err().code, 415);
}

#[tokio::test]
async fn a_definition_that_is_deleted_takes_its_objects_with_it_and_is_not_served_any_more() {
    let world = World::new().await;
    define(&world, definition(&["v1"])).await;
    create(&world, "v1", json!({"metadata": {"name": "a"}})).await.unwrap();
    create(&world, "v1", json!({"metadata": {"name": "held", "finalizers": ["example.com/x"]}})).await.unwrap();
    let mut events = Events(world.registry.watch(&widget(&world, "v1", "")).await.unwrap());
    assert_eq!((events.next().await.as_str(), events.next().await.as_str()), ("ADDED a", "ADDED held"));
    world.registry.delete(&definitions(&world, NAME)).await.unwrap();
    wait(&world, |registry| registry.peek(&widget(&world, "v1", "").resource, "default", "a").is_none()).await;
    let error = create(&world, "v1", json!({"metadata": {"name": "b"}})).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            403,
            "widgets.example.com \"b\" is forbidden: create not allowed while custom resource definition is terminating"
        )
    );
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}).into());
    world.registry.patch(&widget(&world, "v1", "held"), patch).await.unwrap();
    wait(&world, |registry| registry.resource("example.com", "v1", "widgets").is_none()).await;
    assert!(world.registry.get(&definitions(&world, NAME)).await.unwrap_err().is_not_found());
    define(&world, definition(&["v1"])).await;
    assert!(world.registry.list(&widget(&world, "v1", "")).await.unwrap().items.is_empty(), "nothing came back");
}

#[tokio::test]
async fn names_that_are_taken_are_given_when_they_become_free() {
    let world = World::new().await;
    define(&world, definition(&["v1"])).await;
    let mut other = definition(&["v1"]);
    other["metadata"]["name"] = json!("gadgets.example.com");
    other["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    world.registry.create(&definitions(&world, ""), Body::from(other)).await.unwrap();
    let names_accepted = |status: &'static str| {
        let resource = definitions(&world, "").resource;
        move |registry: &Arc<Registry>| {
            let Some(crd) = registry.peek(&resource, "", "gadgets.example.com") else { return false };
            let crd = crd.value();
            let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|one| one["type"] == "NamesAccepted" && one["status"] == status)
        }
    };
    wait(&world, names_accepted("False")).await;
    assert!(world.registry.resource("example.com", "v1", "gadgets").is_none());
    world.registry.delete(&definitions(&world, NAME)).await.unwrap();
    wait(&world, names_accepted("True")).await;
    wait(&world, |registry| registry.resource("example.com", "v1", "gadgets").is_some()).await;
}

#[tokio::test]
async fn versions_share_their_objects_and_a_changed_schema_changes_what_is_read() {
    let world = World::new().await;
    define(&world, definition(&["v1", "v2"])).await;
    create(&world, "v2", json!({"metadata": {"name": "a"}, "spec": {"size": 5, "color": "red"}})).await.unwrap();
    let read = world.registry.get(&widget(&world, "v1", "a")).await.unwrap().value();
    assert_eq!((&read["apiVersion"], &read["spec"]["size"]), (&json!("example.com/v1"), &json!(5)));
    let edit = Patch::Json(json!([
        {"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/color"},
        {"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/shape",
            "value": {"type": "string", "default": "round"}},
        {"op": "replace", "path": "/spec/versions/1/served", "value": false},
    ]));
    world.registry.patch(&definitions(&world, NAME), edit).await.unwrap();
    wait(&world, |registry| registry.resource("example.com", "v2", "widgets").is_none()).await;
    let read = world.registry.get(&widget(&world, "v1", "a")).await.unwrap().value();
    assert_eq!(read["spec"], json!({"size": 5, "shape": "round"}));
}

#[tokio::test]
async fn what_was_defined_is_served_from_the_start_on() {
    let world = World::new().await;
    define(&world, definition(&["v1"])).await;
    create(&world, "v1", json!({"metadata": {"name": "a"}})).await.unwrap();
    world.registry.stop();
    let world = World::on(Arc::clone(&world.kv)).await;
    let read = world.registry.get(&widget(&world, "v1", "a")).await.unwrap().value();
    assert_eq!(read["spec"], Value::Null, "there was none");
}

#[tokio::test]
async fn an_object_written_in_another_version_is_answered_as_the_store_keeps_it() {
    let world = World::new().await;
    let mut crd = definition(&["v1", "v2"]);
    let fields = |crd: &mut Value, index: usize, new: Value| {
        crd["spec"]["versions"][index]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"] = new;
    };
    let text = json!({"type": "string"});
    fields(&mut crd, 0, json!({"color": text, "shape": {"type": "string", "default": "round"}}));
    fields(&mut crd, 1, json!({"color": text, "shape": text, "new": text}));
    define(&world, crd).await;
    let kept = json!({"color": "red", "shape": "round"});
    let made = create(&world, "v2", json!({"metadata": {"name": "a"}, "spec": {"color": "red", "new": "x"}})).await;
    assert_eq!(made.unwrap()["spec"], kept);
    assert_eq!(world.registry.get(&widget(&world, "v2", "a")).await.unwrap().value()["spec"], kept);
    let edit = Patch::Merge(json!({"spec": {"color": "blue", "new": "y"}}).into());
    let changed = world.registry.patch(&widget(&world, "v2", "a"), edit).await.unwrap().object.value();
    assert_eq!(changed["spec"], json!({"color": "blue", "shape": "round"}));
}

#[tokio::test]
async fn nulls_count_as_left_out_unless_they_are_applied() {
    let world = World::new().await;
    define(&world, definition(&["v1"])).await;
    let spec = json!({"size": null, "color": null});
    let made = create(&world, "v1", json!({"metadata": {"name": "a"}, "spec": spec})).await.unwrap();
    assert_eq!(made["spec"], json!({"size": 3}));
    let mut request = widget(&world, "v1", "b");
    "me".clone_into(&mut request.options.field_manager);
    let config = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "b"}, "spec": spec});
    let error = world.registry.patch(&request, Patch::Apply(config.into())).await.unwrap_err();
    assert_eq!(
        error.message,
        "Widget.example.com \"b\" is invalid: spec.color: Invalid value: \"null\": spec.color in body must be of type \
         string: \"null\""
    );
}

#[tokio::test]
async fn nobody_manages_an_object_of_which_a_part_that_is_not_written_does_not_fit_the_schema() {
    let world = World::new().await;
    define(&world, definition(&["v1"])).await;
    for (name, ready, managed) in [("a", json!(true), true), ("b", json!("yes"), false)] {
        let body = json!({"metadata": {"name": name}, "spec": {"size": 5}, "status": {"ready": ready}});
        let made = create(&world, "v1", body).await.unwrap();
        assert_eq!(made["metadata"].get("managedFields").is_some(), managed, "{name}");
        assert_eq!(made.get("status"), None);
    }
}
