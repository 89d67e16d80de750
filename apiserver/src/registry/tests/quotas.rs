//! Quotas and limits: what a namespace may hold.

use super::*;

async fn quota(world: &World, hard: Value, used: Value) {
    world.create("resourcequotas", json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    let status = json!({"status": {"hard": hard, "used": used}});
    world.merge("resourcequotas/q:status", status).await.unwrap();
    world.registry.fresh().await.unwrap();
}

async fn used(world: &World, name: &str) -> Value {
    world.get("resourcequotas/q").await.unwrap()["status"]["used"][name].clone()
}

#[tokio::test]
async fn what_is_created_is_taken_from_the_quota_in_the_same_step() {
    let world = World::new().await;
    quota(&world, json!({"configmaps": "1"}), json!({"configmaps": "0"})).await;
    world.config_map("a", json!({})).await;
    assert_eq!(used(&world, "configmaps").await, "1");
    let error = world.try_create("configmaps", json!({"metadata": {"name": "b"}})).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            403,
            "configmaps \"b\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=1, limited: \
             configmaps=1"
        )
    );
}

#[tokio::test]
async fn of_many_at_the_same_time_exactly_so_many_get_through_as_the_quota_has() {
    let world = World::new().await;
    quota(&world, json!({"configmaps": "3"}), json!({"configmaps": "0"})).await;
    let create = |index: usize| {
        let object = json!({"metadata": {"name": format!("c{index}")}});
        let world = &world;
        async move { world.try_create("configmaps", object).await.is_ok() }
    };
    let made = futures::future::join_all((0..12).map(create)).await;
    assert_eq!(made.into_iter().filter(|made| *made).count(), 3);
    assert_eq!(used(&world, "configmaps").await, "3");
}

#[tokio::test]
async fn a_dry_run_is_refused_by_the_quota_and_takes_nothing() {
    let world = World::new().await;
    quota(&world, json!({"configmaps": "1"}), json!({"configmaps": "0"})).await;
    let dry = world.with("configmaps", |options| options.dry_run = true);
    world.registry.create(&dry, json!({"metadata": {"name": "a"}}).into()).await.unwrap();
    assert_eq!(used(&world, "configmaps").await, "0");
    world.config_map("a", json!({})).await;
    world.registry.fresh().await.unwrap();
    let error = world.registry.create(&dry, json!({"metadata": {"name": "b"}}).into()).await.unwrap_err();
    assert_eq!(error.code, 403);
}

#[tokio::test]
async fn pods_get_the_limits_of_the_namespace_and_the_priority_of_their_class() {
    let world = pods::world().await;
    let limit = json!({"type": "Container", "default": {"cpu": "500m"}, "max": {"cpu": "1"}});
    world.create("limitranges", json!({"metadata": {"name": "l"}, "spec": {"limits": [limit]}})).await;
    world.create("priorityclasses", json!({"metadata": {"name": "gold"}, "value": 7})).await;
    world.registry.fresh().await.unwrap();
    let mut pod = pods::pod("a");
    pod["spec"]["priorityClassName"] = "gold".into();
    let made = world.create("pods", pod.clone()).await;
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["containers"][0]["resources"]["limits"]["cpu"]),
        (&json!(7), &json!("500m"))
    );
    let cleared = world.merge("pods/a", json!({"spec": {"priority": null, "preemptionPolicy": null}})).await.unwrap();
    assert_eq!(cleared["spec"]["priority"], 7, "a change keeps the priority that it does not state");
    pod["metadata"]["name"] = "system".into();
    pod["spec"]["priorityClassName"] = "system-node-critical".into();
    assert_eq!(world.create("pods", pod.clone()).await["spec"]["priority"], 2_000_001_000);
    pod["metadata"]["name"] = "b".into();
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let error = world.try_create("pods", pod.clone()).await.unwrap_err();
    assert_eq!(error.message, "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2");
    pod["spec"]["containers"][0]["resources"] = json!({});
    pod["spec"]["runtimeClassName"] = "ghost".into();
    let error = world.try_create("pods", pod).await.unwrap_err();
    assert_eq!(error.message, "pods \"b\" is forbidden: pod rejected: RuntimeClass \"ghost\" not found");
}
