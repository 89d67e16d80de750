//! On the embedded store: what was acknowledged is there after a restart, with its versions.

use reeve_api::clock::RealClock;
use reeve_store::{Store, StoreConfig};

use super::*;

async fn open(folder: &std::path::Path) -> Arc<Store> {
    Store::open(StoreConfig::new(folder, RealClock::shared(), SeededRng::shared())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_on_disk_finds_objects_versions_and_allocations_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let world = World::on(store.clone()).await;
    let made = world.config_map("a", json!({"x": "1"})).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.99", "ports": [{"port": 80}]}});
    world.create("services", service.clone()).await;
    let before = revision(&world);
    drop(world);
    store.close().await.unwrap();
    drop(store);
    let world = World::on(open(folder.path()).await).await;
    assert_eq!(world.get("configmaps/a").await.unwrap(), made);
    assert_eq!(revision(&world), before, "a start on a complete store writes nothing");
    let mut other = service;
    other["metadata"]["name"] = "other".into();
    let error = world.try_create("services", other).await.unwrap_err();
    assert!(error.message.ends_with("failed to allocate IP 10.96.0.99: provided IP is already allocated"), "{error}");
    let changed = world.merge("configmaps/a", json!({"data": {"x": "2"}})).await.unwrap();
    assert_eq!(changed["metadata"]["resourceVersion"], (before + 1).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_on_disk_see_their_own_writes() {
    let folder = tempfile::tempdir().unwrap();
    let world = Arc::new(World::on(open(folder.path()).await).await);
    let tasks: Vec<_> = (0..16)
        .map(|writer| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                for round in 0..20 {
                    let name = format!("w{writer}-{round}");
                    let made = world.config_map(&name, json!({})).await;
                    assert_eq!(world.get(&format!("configmaps/{name}")).await.unwrap(), made);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(world.registry.list(&world.request("configmaps")).await.unwrap().items.len(), 320);
}
