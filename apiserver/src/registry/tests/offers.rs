//! Kinds that come and go while the registry runs, in several versions on one storage.

use std::borrow::Cow;

use async_trait::async_trait;
use reeve_kinds::field::FieldError;
use reeve_kinds::shape::Shape;
use reeve_kinds::{Column, Kind, Names};

use super::*;
use crate::registry::{Convert, Offer};

/// A kind of any fields: `widgets.example.com`.
struct Widgets(Names);

fn widgets(version: &'static str) -> Arc<dyn Kind> {
    Arc::new(Widgets(Names {
        group: "example.com",
        version,
        kind: "Widget",
        plural: "widgets",
        singular: "widget",
        short: &[],
        categories: &[],
        namespaced: true,
    }))
}

impl Kind for Widgets {
    fn names(&self) -> &Names {
        &self.0
    }
    fn shape(&self) -> &'static Shape {
        &Shape::Any
    }
    fn default(&self, _object: &mut Value) {}
    fn prepare_create(&self, _object: &mut Value) {}
    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    fn prepare_update(&self, _part: Part, _object: &mut Value, _old: &Value) {}
    fn validate_update(&self, _part: Part, _object: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    fn selectable_field(&self, object: &Value, field: &str) -> Option<String> {
        // Only v2 has it as text.
        (field == "size").then(|| object["size"].as_str().unwrap_or_default().to_owned())
    }
    fn columns(&self) -> &[Column] {
        &[]
    }
    fn row(&self, _object: &Value, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
}

/// The size is a number in v1 and a text in v2; stored in v1.
struct Sizes;

#[async_trait]
impl Convert for Sizes {
    async fn convert(&self, mut objects: Vec<Value>, version: &str) -> Result<Vec<Value>, ApiError> {
        for object in &mut objects {
            let size = object["size"].as_u64().or_else(|| object["size"].as_str()?.parse().ok()).unwrap_or_default();
            object["size"] = if version == "v1" { size.into() } else { size.to_string().into() };
            object["apiVersion"] = format!("example.com/{version}").into();
        }
        Ok(objects)
    }

    fn stored_version(&self) -> &str {
        "v1"
    }

    fn as_read(&self, _object: &mut Value) {}

    fn changes_fields(&self) -> bool {
        true
    }
}

async fn offer(world: &World, versions: &[&'static str]) {
    let kinds = versions.iter().map(|version| widgets(version)).collect();
    let offer = Offer { kinds, convert: Arc::new(Sizes), ingest: None, reload: false };
    world.registry.offer("widgets.example.com", offer).await.unwrap();
}

/// A request for widgets in a version.
fn asked(world: &World, version: &str, name: &str) -> Request {
    let resource = world.registry.resource("example.com", version, "widgets").expect(version);
    Request { resource, name: name.to_owned(), ..world.request("configmaps") }
}

#[tokio::test]
async fn an_object_written_in_one_version_is_read_listed_watched_and_changed_in_another() {
    let world = World::new().await;
    offer(&world, &["v1", "v2"]).await;
    let mut events = Events(world.registry.watch(&asked(&world, "v2", "")).await.unwrap());
    let body = json!({"metadata": {"name": "a"}, "size": "7"});
    let made = world.registry.create(&asked(&world, "v2", ""), body.into()).await.unwrap().object;
    assert_eq!(
        (made.value()["size"].as_str(), made.value()["metadata"]["resourceVersion"].as_str()),
        (Some("7"), Some(&*made.revision.to_string()))
    );
    assert_eq!(events.next().await, "ADDED a");
    let read = world.registry.get(&asked(&world, "v1", "a")).await.unwrap().value();
    assert_eq!((&read["size"], &read["apiVersion"]), (&json!(7), &json!("example.com/v1")));
    let patch = Patch::Merge(json!({"size": 8}).into());
    world.registry.patch(&asked(&world, "v1", "a"), patch).await.unwrap();
    assert_eq!(events.next().await, "MODIFIED a");
    let list = world.registry.list(&asked(&world, "v2", "")).await.unwrap();
    assert_eq!(list.items[0].value()["size"], "8");
    let gone = world.registry.delete(&asked(&world, "v2", "a")).await.unwrap();
    assert!(gone.is_status);
    assert_eq!(events.next().await, "DELETED a");
}

#[tokio::test]
async fn fields_are_selected_by_as_the_version_that_is_asked_for_shows_them() {
    let world = World::new().await;
    offer(&world, &["v1", "v2"]).await;
    let select = |selector: &str, limit: u64, continue_token: String| {
        let mut request = asked(&world, "v2", "");
        request.options.field_selector = selector.to_owned();
        request.options.limit = limit;
        request.options.continue_token = continue_token;
        request
    };
    let mut events = Events(world.registry.watch(&select("size=7", 0, String::new())).await.unwrap());
    for (name, size) in [("a", "7"), ("b", "8"), ("c", "7"), ("d", "7")] {
        let body = json!({"metadata": {"name": name}, "size": size});
        world.registry.create(&asked(&world, "v2", ""), body.into()).await.unwrap();
    }
    let names = |list: &List| -> Vec<String> {
        list.items.iter().map(|item| item.value()["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let page = world.registry.list(&select("size=7", 2, String::new())).await.unwrap();
    assert_eq!(names(&page), ["a", "c"]);
    let rest = world.registry.list(&select("size=7", 2, page.continue_token)).await.unwrap();
    assert_eq!((names(&rest), rest.continue_token.as_str()), (vec!["d".to_owned()], ""));
    let named = world.registry.list(&select("size=7,metadata.name=b", 0, String::new())).await.unwrap();
    assert!(named.items.is_empty());
    for size in ["9", "7"] {
        let patch = Patch::Merge(json!({"size": size}).into());
        world.registry.patch(&asked(&world, "v2", "a"), patch).await.unwrap();
    }
    let patch = Patch::Merge(json!({"metadata": {"labels": {"x": "y"}}}).into());
    world.registry.patch(&asked(&world, "v2", "a"), patch).await.unwrap();
    world.registry.delete(&asked(&world, "v2", "b")).await.unwrap();
    world.registry.delete(&asked(&world, "v2", "c")).await.unwrap();
    for event in ["ADDED a", "ADDED c", "ADDED d", "DELETED a", "ADDED a", "MODIFIED a", "DELETED c"] {
        assert_eq!(events.next().await, event);
    }
}

#[tokio::test]
async fn a_kind_that_is_withdrawn_ends_its_watches_and_its_objects_wait_for_its_return() {
    let world = World::new().await;
    offer(&world, &["v1"]).await;
    let body = json!({"metadata": {"name": "a"}, "size": 1});
    world.registry.create(&asked(&world, "v1", ""), body.into()).await.unwrap();
    let mut events = Events(world.registry.watch(&asked(&world, "v1", "")).await.unwrap());
    assert_eq!(events.next().await, "ADDED a");
    let generation = world.registry.resources().generation;
    offer(&world, &[]).await;
    assert_eq!(events.next().await, "end");
    assert!(world.registry.resource("example.com", "v1", "widgets").is_none());
    assert!(world.registry.resources().generation > generation);
    offer(&world, &["v2"]).await;
    let read = world.registry.get(&asked(&world, "v2", "a")).await.unwrap().value();
    assert_eq!(read["size"], "1");
}

#[tokio::test]
async fn objects_pass_through_what_the_definition_says_as_they_are_read_anew() {
    let world = World::new().await;
    offer(&world, &["v1"]).await;
    let body = json!({"metadata": {"name": "a"}, "size": 1});
    world.registry.create(&asked(&world, "v1", ""), body.into()).await.unwrap();
    let ingest: Ingest = Arc::new(|object: Object| {
        let text = String::from_utf8_lossy(&object.json()).into_owned();
        let text: Cow<'_, str> = text.replace("\"size\":", "\"color\":\"red\",\"size\":").into();
        Object::whole(text.into_owned(), object.revision)
    });
    let offer = Offer { kinds: vec![widgets("v1")], convert: Arc::new(Sizes), ingest: Some(ingest), reload: true };
    world.registry.offer("widgets.example.com", offer).await.unwrap();
    let color = |name: &'static str| {
        let request = asked(&world, "v1", name);
        let registry = Arc::clone(&world.registry);
        async move { registry.get(&request).await.unwrap().value()["color"].clone() }
    };
    assert_eq!(color("a").await, "red");
    let body = json!({"metadata": {"name": "b"}, "size": 1});
    world.registry.create(&asked(&world, "v1", ""), body.into()).await.unwrap();
    assert_eq!(color("b").await, "red");
}
