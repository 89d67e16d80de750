//! The scale subresource.

use super::*;

async fn world() -> World {
    let world = World::new().await;
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}});
    let spec = json!({"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template});
    world.create("deployments", json!({"metadata": {"name": "web"}, "spec": spec})).await;
    world
}

#[tokio::test]
async fn a_scale_shows_replicas_and_selector_and_changes_the_replicas() {
    let world = world().await;
    let mut scale = world.get("deployments/web:scale").await.unwrap();
    let deployment = world.get("deployments/web").await.unwrap();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(scale["spec"], json!({"replicas": 2}));
    assert_eq!(scale["status"], json!({"replicas": 0, "selector": "app=web"}));
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        assert_eq!(scale["metadata"][field], deployment["metadata"][field]);
    }
    let old = scale.clone();
    scale["spec"]["replicas"] = 5.into();
    let written = world.update("deployments/web:scale", scale).await.unwrap();
    assert_eq!(written["spec"]["replicas"], 5);
    let after = world.get("deployments/web").await.unwrap();
    assert_eq!((&after["spec"]["replicas"], &after["metadata"]["generation"]), (&json!(5), &json!(2)));
    assert!(world.update("deployments/web:scale", old).await.unwrap_err().is_conflict());
    let patched = world.merge("deployments/web:scale", json!({"spec": {"replicas": 0}})).await.unwrap();
    assert_eq!(patched["spec"], json!({}));
    assert_eq!(world.get("deployments/web").await.unwrap()["spec"]["replicas"], 0);
}

#[tokio::test]
async fn a_scale_below_zero_or_of_what_does_not_scale_is_refused() {
    let world = world().await;
    let error = world.merge("deployments/web:scale", json!({"spec": {"replicas": -1}})).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            422,
            "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        )
    );
    world.config_map("a", json!({})).await;
    assert_eq!(world.get("configmaps/a:scale").await.unwrap_err().code, 404);
}
