//! Objects that the server makes itself, and what it adds to those of others.

use super::*;

#[tokio::test]
async fn an_address_has_an_object_as_long_as_its_service_holds_it() {
    let world = World::new().await;
    let own = world.get("ipaddresses/10.96.0.1").await.unwrap();
    assert_eq!(own["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "kubernetes"}));
    let service = json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}});
    world.create("services", service).await;
    let address = world.get("ipaddresses/10.96.0.77").await.unwrap();
    assert_eq!(address["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    assert_eq!(address["spec"]["parentRef"]["name"], "a");
    world.delete("services/a").await.unwrap();
    assert!(world.get("ipaddresses/10.96.0.77").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn flow_control_and_priorities_are_there_from_the_start_and_true() {
    let world = World::new().await;
    let probes = world.get("flowschemas/probes").await.unwrap();
    assert_eq!(probes["status"]["conditions"][0]["status"], "False");
    assert!(world.get("prioritylevelconfigurations/catch-all").await.is_ok());
    let range = world.get("servicecidrs/kubernetes").await.unwrap();
    assert_eq!(range["status"]["conditions"][0]["type"], "Ready");
    let refusal = world.delete("priorityclasses/system-node-critical").await.unwrap_err();
    assert!(refusal.message.ends_with("is forbidden: this is a system priority class and cannot be deleted"));
    let before = revision(&world);
    let again = World::on(Arc::clone(&world.kv)).await;
    assert_eq!(revision(&again), before, "a restart finds everything as it should be");
}

#[tokio::test]
async fn a_pod_gets_the_priority_of_its_class() {
    let world = World::new().await;
    let class = json!({"metadata": {"name": "gold"}, "value": 7, "globalDefault": true});
    world.create("priorityclasses", class.clone()).await;
    world.registry.fresh().await.unwrap();
    let mut second = class;
    second["metadata"]["name"] = "silver".into();
    let refusal = world.try_create("priorityclasses", second).await.unwrap_err();
    assert!(refusal.message.ends_with("PriorityClass gold is already marked as default. Only one default can exist"));
}
