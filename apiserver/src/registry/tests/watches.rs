//! Watches: nothing twice, nothing missed, nothing out of order.

use super::*;

fn from(version: u64) -> impl FnOnce(&mut Options) {
    move |options| options.resource_version = version.to_string()
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_there_is() {
    let world = World::new().await;
    world.config_map("a", json!({})).await;
    let mut events = world.watch("configmaps", |_| {}).await;
    assert_eq!(events.next().await, "ADDED a");
    world.config_map("b", json!({})).await;
    world.merge("configmaps/a", json!({"data": {"x": "1"}})).await.unwrap();
    world.delete("configmaps/b").await.unwrap();
    assert_eq!(events.take(3).await, ["ADDED b", "MODIFIED a", "DELETED b"]);
}

#[tokio::test]
async fn a_watch_from_a_version_continues_exactly_behind_it() {
    let world = World::new().await;
    world.config_map("a", json!({})).await;
    let start = revision(&world);
    world.config_map("b", json!({})).await;
    world.delete("configmaps/a").await.unwrap();
    let mut events = world.watch("configmaps", from(start)).await;
    assert_eq!(events.take(2).await, ["ADDED b", "DELETED a"]);
    world.config_map("c", json!({})).await;
    assert_eq!(events.next().await, "ADDED c");
    let mut ahead = world.watch("configmaps", from(revision(&world) + 1)).await;
    world.config_map("not-seen", json!({})).await;
    world.config_map("seen", json!({})).await;
    assert_eq!(ahead.next().await, "ADDED seen");
}

#[tokio::test]
async fn an_object_that_enters_a_selector_is_added_and_one_that_leaves_is_deleted() {
    let world = World::new().await;
    let mut events = world.watch("configmaps", |options| options.label_selector = "on=yes".into()).await;
    world.config_map("a", json!({})).await;
    let label = |value: &str| json!({"metadata": {"labels": {"on": value}}});
    world.merge("configmaps/a", label("yes")).await.unwrap();
    world.merge("configmaps/a", json!({"data": {"x": "1"}})).await.unwrap();
    world.merge("configmaps/a", label("no")).await.unwrap();
    world.delete("configmaps/a").await.unwrap();
    world.create("configmaps", json!({"metadata": {"name": "b", "labels": {"on": "yes"}}})).await;
    assert_eq!(events.take(4).await, ["ADDED a", "MODIFIED a", "DELETED a", "ADDED b"]);
}

#[tokio::test]
async fn a_watch_of_one_object_or_one_namespace_sees_nothing_else() {
    let world = World::new().await;
    let mut one = world.watch("configmaps", |options| options.field_selector = "metadata.name=b".into()).await;
    let mut other = world.watch("configmaps/kube-system/", |_| {}).await;
    world.config_map("a", json!({})).await;
    world.config_map("b", json!({})).await;
    world.create("configmaps/kube-system/", json!({"metadata": {"name": "c"}})).await;
    assert_eq!(one.next().await, "ADDED b");
    assert_eq!(other.next().await, "ADDED c");
}

#[tokio::test]
async fn a_version_beyond_the_window_is_gone() {
    let world = World::new().await;
    world.config_map("a", json!({"x": "0"})).await;
    let start = revision(&world);
    for round in 0..8300 {
        world.merge("configmaps/a", json!({"data": {"x": format!("{round}")}})).await.unwrap();
    }
    let mut events = world.watch("configmaps", from(start)).await;
    let answer = events.next().await;
    assert!(answer.starts_with(&format!("410 too old resource version: {start} (")), "{answer}");
    assert_eq!(events.next().await, "end");
    let mut events = world.watch("configmaps", from(revision(&world) - 10)).await;
    assert_eq!(events.take(10).await, ["MODIFIED a"; 10]);
    world.registry.cache.rest();
    let mut events = world.watch("configmaps", from(revision(&world) - 1000)).await;
    assert!(events.next().await.starts_with("410 "));
    let mut events = world.watch("configmaps", from(revision(&world) - 500)).await;
    assert_eq!(events.next().await, "MODIFIED a");
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off_and_never_sees_a_gap() {
    let world = World::new().await;
    world.config_map("a", json!({})).await;
    let start = revision(&world);
    let mut slow = world.watch("configmaps", from(start)).await;
    for round in 0..1500 {
        world.merge("configmaps/a", json!({"data": {"x": format!("{round}")}})).await.unwrap();
    }
    let mut seen = 0;
    while slow.next().await == "MODIFIED a" {
        seen += 1;
    }
    assert!((1..1500).contains(&seen), "{seen}");
    let seen = start + u64::try_from(seen).unwrap();
    let mut again = world.watch("configmaps", from(seen)).await;
    assert_eq!(again.next().await, "MODIFIED a");
}

#[tokio::test]
async fn a_streaming_list_ends_its_initial_events_with_a_bookmark() {
    let world = World::new().await;
    world.config_map("a", json!({})).await;
    let streaming = |options: &mut Options| {
        options.send_initial_events = Some(true);
        options.version_match = Some(VersionMatch::NotOlderThan);
        options.allow_watch_bookmarks = true;
    };
    let mut events = world.watch("configmaps", streaming).await;
    assert_eq!(events.next().await, "ADDED a");
    let bookmark = events.0.next().await.unwrap().unwrap();
    assert_eq!(bookmark.kind, EventType::Bookmark);
    assert_eq!(bookmark.object.value()["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark.object.revision.0, revision(&world));
    let refused = world.with("configmaps", |options| options.send_initial_events = Some(true));
    let error = world.registry.watch(&refused).await.map(|_| ()).unwrap_err();
    assert!(
        error.message.contains("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        "{error}"
    );
}

#[tokio::test]
async fn a_bookmark_before_the_end_tells_the_newest_version_although_nothing_was_sent() {
    let world = World::new().await;
    let mut events = world
        .watch("configmaps", |options| {
            options.allow_watch_bookmarks = true;
            options.timeout = Some(Duration::from_millis(2300));
            options.resource_version = revision(&world).to_string();
        })
        .await;
    world.create("namespaces", json!({"metadata": {"name": "moves-the-revision"}})).await;
    let event =
        tokio::time::timeout(Duration::from_secs(2), events.0.next()).await.expect("no bookmark").unwrap().unwrap();
    assert_eq!((event.kind, event.object.revision.0), (EventType::Bookmark, revision(&world)));
    assert_eq!(events.next().await, "end");
}

#[tokio::test]
async fn a_registry_that_stops_ends_its_watches() {
    let world = World::new().await;
    let mut events = world.watch("configmaps", |_| {}).await;
    world.config_map("a", json!({})).await;
    assert_eq!(events.next().await, "ADDED a");
    drop(world);
    assert_eq!(events.next().await, "end");
}

#[tokio::test]
async fn list_then_watch_misses_nothing_while_others_write() {
    let world = Arc::new(World::new().await);
    let writer = Arc::clone(&world);
    let writing = tokio::spawn(async move {
        for index in 0..300 {
            writer.config_map(&format!("a{index:03}"), json!({})).await;
        }
    });
    tokio::task::yield_now().await;
    let list = world.registry.list(&world.request("configmaps")).await.unwrap();
    let mut events = world.watch("configmaps", from(list.revision.0)).await;
    for index in list.items.len()..300 {
        assert_eq!(events.next().await, format!("ADDED a{index:03}"));
    }
    writing.await.unwrap();
}

/// What a watcher knows: names with their versions.
type View = std::collections::BTreeMap<String, String>;

fn learn(view: &mut View, event: &WatchEvent) {
    let object = event.object.value();
    let name = meta::text(&object, "name").to_owned();
    let known = match event.kind {
        EventType::Deleted => view.remove(&name),
        EventType::Added => {
            let before = view.insert(name.clone(), meta::text(&object, "resourceVersion").to_owned());
            assert_eq!(before, None, "{name} was added twice");
            return;
        }
        EventType::Modified => view.insert(name.clone(), meta::text(&object, "resourceVersion").to_owned()),
        EventType::Bookmark => return,
    };
    assert!(known.is_some(), "{name} was not known: {:?}", event.kind);
}

#[tokio::test]
async fn whatever_happens_a_watcher_knows_what_a_list_shows() {
    use reeve_api::rng::RngExt as _;
    for seed in 0..8 {
        let (world, rng) = (World::new().await, SeededRng::new(seed));
        let selectors = ["", "on=yes", "on!=yes", "on in (yes,no)"];
        let mut watchers = Vec::new();
        for selector in selectors {
            watchers.push((world.watch("configmaps", |o| o.label_selector = selector.into()).await, View::new()));
        }
        for _ in 0..200 {
            let name = format!("a{}", rng.below(6));
            let label = ["yes", "no", "maybe"][usize::try_from(rng.below(3)).unwrap()];
            let object = json!({"metadata": {"name": name, "labels": {"on": label}}, "data": {"x": rng.suffix(3)}});
            // Which of these succeed depends on what there is; all outcomes are fine.
            let _ = match rng.below(4) {
                0 => world.try_create("configmaps", object).await,
                1 | 2 => world.update(&format!("configmaps/{name}"), object).await,
                _ => world.delete(&format!("configmaps/{name}")).await,
            };
        }
        world.config_map("end", json!({})).await;
        world.create("configmaps", json!({"metadata": {"name": "end-yes", "labels": {"on": "yes"}}})).await;
        for (selector, (events, view)) in selectors.into_iter().zip(&mut watchers) {
            let last = if selector == "on!=yes" { "end" } else { "end-yes" };
            while !view.contains_key(last) {
                learn(view, &events.0.next().await.unwrap().unwrap());
            }
            let request = world.with("configmaps", |options| options.label_selector = selector.into());
            let listed = world.registry.list(&request).await.unwrap().items;
            let listed: View = listed
                .iter()
                .map(|object| (meta::text(&object.value(), "name").to_owned(), object.revision.to_string()))
                .collect();
            assert_eq!(*view, listed, "seed {seed}, selector {selector:?}");
        }
    }
}
