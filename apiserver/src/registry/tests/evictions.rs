//! Evictions: a pod goes unless its budget says no.

use super::*;

async fn pod(world: &World, name: &str, phase: &str) -> Value {
    let spec = json!({"containers": [{"name": "c", "image": "web:1"}]});
    world.create("pods", json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec})).await;
    let target = json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": "n1"}});
    world.create(&format!("pods/{name}:binding"), target).await;
    let status = json!({"status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]}});
    world.merge(&format!("pods/{name}:status"), status).await.unwrap()
}

async fn evict(world: &World, name: &str, options: Value) -> Result<Value, ApiError> {
    let eviction = json!({"metadata": {"name": name}, "deleteOptions": options});
    world.try_create(&format!("pods/{name}:eviction"), eviction).await
}

#[tokio::test]
async fn an_evicted_pod_says_why_it_goes_and_has_its_grace_period() {
    let world = pods::world().await;
    pod(&world, "a", "Running").await;
    let answer = evict(&world, "a", Value::Null).await.unwrap();
    assert_eq!(answer, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}));
    let going = world.get("pods/a").await.unwrap();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let conditions = going["status"]["conditions"].as_array().unwrap();
    let target = conditions.iter().find(|one| one["type"] == "DisruptionTarget").unwrap();
    assert_eq!(
        (&target["reason"], &target["message"]),
        (&json!("EvictionByEvictionAPI"), &json!("Eviction API: evicting"))
    );
    evict(&world, "a", json!({"gracePeriodSeconds": 0})).await.unwrap();
    assert!(world.get("pods/a").await.unwrap_err().is_not_found());
    assert!(evict(&world, "a", Value::Null).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn an_eviction_is_checked_and_a_dry_run_changes_nothing() {
    let world = pods::world().await;
    pod(&world, "a", "Running").await;
    let before = revision(&world);
    evict(&world, "a", json!({"dryRun": ["All"]})).await.unwrap();
    let other = json!({"metadata": {"name": "b"}});
    let error = world.try_create("pods/a:eviction", other).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (400, "name in URL does not match name in Eviction object"));
    let error = evict(&world, "a", json!({"preconditions": {"uid": "other"}})).await.unwrap_err();
    assert!(
        error.message.starts_with("Operation cannot be fulfilled on Pod \"a\": the UID in the precondition"),
        "{error}"
    );
    assert_eq!(revision(&world), before);
    let error = world.get("pods/a:eviction").await.unwrap_err();
    assert_eq!(error.code, 405);
}

#[tokio::test]
async fn a_pod_that_goes_at_once_is_seen_to_be_marked_first() {
    let world = pods::world().await;
    pod(&world, "a", "Running").await;
    let mut events = world.watch("pods", |_| {}).await;
    assert_eq!(events.next().await, "ADDED a");
    let last = world.delete_with("pods/a", |options| options.grace_period_seconds = Some(0)).await.unwrap();
    assert_eq!(events.take(2).await, ["MODIFIED a", "DELETED a"]);
    assert_eq!(last["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(last["metadata"]["deletionTimestamp"], START);
}
