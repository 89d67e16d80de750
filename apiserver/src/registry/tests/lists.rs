//! Lists: selectors, versions, pages.

use super::*;

async fn names_of(world: &World, request: &Request) -> Result<(Vec<String>, List), ApiError> {
    let list = world.registry.list(request).await?;
    Ok((list.items.iter().map(|object| meta::text(&object.value(), "name").to_owned()).collect(), list))
}

#[track_caller]
fn selecting(world: &World, labels: &str, fields: &str) -> Request {
    world.with("configmaps/*/", |options| {
        options.label_selector = labels.to_owned();
        options.field_selector = fields.to_owned();
    })
}

#[tokio::test]
async fn selectors_choose_by_label_name_and_namespace() {
    let world = World::new().await;
    for (namespace, name, tier) in [("default", "a", "x"), ("default", "b", "y"), ("kube-system", "a", "x")] {
        let object = json!({"metadata": {"name": name, "labels": {"tier": tier}}});
        world.create(&format!("configmaps/{namespace}/"), object).await;
    }
    let names = async |labels, fields| names_of(&world, &selecting(&world, labels, fields)).await.unwrap().0;
    assert_eq!(names("", "").await, ["a", "b", "a"]);
    assert_eq!(names("tier=x", "").await, ["a", "a"]);
    assert_eq!(names("tier notin (x)", "").await, ["b"]);
    assert_eq!(names("", "metadata.name=a").await, ["a", "a"]);
    assert_eq!(names("tier=x", "metadata.name=a,metadata.namespace=default").await, ["a"]);
    assert_eq!(names("", "metadata.name!=a").await, ["b"]);
    assert_eq!(names_of(&world, &world.request("configmaps")).await.unwrap().0, ["a", "b"]);
    let error = names_of(&world, &selecting(&world, "", "spec.x=1")).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (400, "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    );
    let pods = world.with("pods", |options| options.field_selector = "spec.x=1".into());
    assert_eq!(world.registry.list(&pods).await.unwrap_err().message, "field label not supported: spec.x");
    for (plural, field, why) in [
        ("nodes", "metadata.namespace", "field label not supported: metadata.namespace"),
        ("jobs", "spec.x", "field label \"spec.x\" not supported for Job"),
        ("resourceslices", "spec.x", "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.x"),
        (
            "replicasets",
            "status.replicas",
            "\"status.replicas\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
    ] {
        let request = world.with(plural, |options| options.field_selector = format!("{field}=1"));
        assert_eq!(world.registry.list(&request).await.unwrap_err().message, why, "{plural}");
    }
    let error = names_of(&world, &selecting(&world, "app in web", "")).await.unwrap_err();
    assert_eq!(error.message, "unable to parse requirement: found 'web' expected: '('");
}

#[tokio::test]
async fn a_namespace_whose_name_begins_another_is_not_mixed_up_with_it() {
    let world = World::new().await;
    for name in ["a", "a-b", "ab"] {
        world.create("namespaces", json!({"metadata": {"name": name}})).await;
        world.create(&format!("configmaps/{name}/"), json!({"metadata": {"name": format!("in-{name}")}})).await;
    }
    let names = names_of(&world, &world.request("configmaps/a/")).await.unwrap().0;
    assert_eq!(names, ["in-a"]);
}

#[tokio::test]
async fn all_pages_show_the_state_of_the_first() {
    let world = World::new().await;
    for index in 0..7 {
        world.config_map(&format!("a{index}"), json!({})).await;
    }
    let mut request = world.with("configmaps", |options| options.limit = 3);
    let (first, list) = names_of(&world, &request).await.unwrap();
    assert_eq!((first.len(), list.remaining), (3, Some(4)));
    world.delete("configmaps/a5").await.unwrap();
    world.config_map("a55", json!({})).await;
    request.options.continue_token = list.continue_token;
    let (second, next) = names_of(&world, &request).await.unwrap();
    assert_eq!((second, next.revision), (vec!["a3".into(), "a4".into(), "a5".into()], list.revision));
    request.options.continue_token = next.continue_token;
    let (third, last) = names_of(&world, &request).await.unwrap();
    assert_eq!((third, last.continue_token), (vec!["a6".to_owned()], String::new()));
}

#[tokio::test]
async fn pages_with_a_selector_are_full_until_the_last() {
    let world = World::new().await;
    for index in 0..20 {
        let label = if index % 3 == 0 { "x" } else { "y" };
        world.create("configmaps", json!({"metadata": {"name": format!("a{index:02}"), "labels": {"t": label}}})).await;
    }
    let mut request = world.with("configmaps", |options| {
        options.limit = 2;
        options.label_selector = "t=x".into();
    });
    let mut seen = Vec::new();
    loop {
        let (names, list) = names_of(&world, &request).await.unwrap();
        seen.push(names.len());
        world.config_map(&format!("z{}", seen.len()), json!({})).await;
        if list.continue_token.is_empty() {
            break;
        }
        request.options.continue_token = list.continue_token;
    }
    assert_eq!(seen, [2, 2, 2, 1]);
}

#[tokio::test]
async fn a_token_older_than_history_is_gone_and_offers_to_go_on_without_consistency() {
    let world = World::new().await;
    for index in 0..4 {
        world.config_map(&format!("a{index}"), json!({})).await;
    }
    let mut request = world.with("configmaps", |options| options.limit = 2);
    request.options.continue_token = names_of(&world, &request).await.unwrap().1.continue_token;
    world.config_map("b", json!({})).await;
    world.registry.fresh().await.unwrap();
    world.kv.compact(world.kv.revision()).await.unwrap();
    let error = names_of(&world, &request).await.unwrap_err();
    assert_eq!((error.code, error.reason), (410, "Expired"));
    assert!(
        error.message.starts_with("The provided continue parameter is too old to display a consistent list result.")
    );
    request.options.continue_token = error.status()["metadata"]["continue"].as_str().unwrap().to_owned();
    request.options.limit = 0;
    assert_eq!(names_of(&world, &request).await.unwrap().0, ["a2", "a3", "b"]);
}

#[tokio::test]
async fn a_list_of_an_exact_version_shows_that_version() {
    let world = World::new().await;
    let object = world.config_map("a", json!({"x": "1"})).await;
    let then = meta::text(&object, "resourceVersion").to_owned();
    world.merge("configmaps/a", json!({"data": {"x": "2"}})).await.unwrap();
    let exact = |version: &str| {
        let version = version.to_owned();
        world.with("configmaps", |options| {
            options.resource_version = version;
            options.version_match = Some(VersionMatch::Exact);
        })
    };
    let list = world.registry.list(&exact(&then)).await.unwrap();
    assert_eq!((data(&list.items[0].value(), "x"), list.revision.to_string()), ("1".to_owned(), then.clone()));
    world.registry.fresh().await.unwrap();
    world.kv.compact(world.kv.revision()).await.unwrap();
    let error = world.registry.list(&exact(&then)).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (410, "The resourceVersion for the provided list is too old."));
}

#[tokio::test]
async fn a_version_that_does_not_exist_yet_is_waited_for_and_then_refused() {
    let world = World::new().await;
    let future = revision(&world) + 1000;
    let request = world.with("configmaps", |options| options.resource_version = future.to_string());
    let error = world.registry.list(&request).await.unwrap_err();
    assert_eq!((error.code, error.reason), (504, "Timeout"));
    assert_eq!(error.message, format!("Timeout: Too large resource version: {future}, current: {}", revision(&world)));
    assert_eq!(error.details.unwrap().causes[0].reason, "ResourceVersionTooLarge");
}
