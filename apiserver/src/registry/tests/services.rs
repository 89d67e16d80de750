//! Cluster IPs and node ports.

use std::collections::BTreeSet;

use super::*;

fn service(name: &str, spec: &Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

async fn made(world: &World, name: &str, spec: Value) -> Value {
    world.create("services", service(name, &spec)).await["spec"].clone()
}

async fn refused(world: &World, spec: Value) -> String {
    world.try_create("services", service("x", &spec)).await.unwrap_err().message
}

#[tokio::test]
async fn the_first_address_is_the_api_servers_and_its_endpoints_are_true() {
    let world = World::new().await;
    let own = world.get("services/kubernetes").await.unwrap();
    assert_eq!(own["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(own["spec"]["ports"][0]["targetPort"], 6443);
    let endpoints = world.get("endpoints/kubernetes").await.unwrap();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.168.7.2");
    let slice = world.get("endpointslices/kubernetes").await.unwrap();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.168.7.2"]));
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "kubernetes");
    let mut lie = endpoints.clone();
    lie["subsets"][0]["addresses"][0]["ip"] = "192.168.7.9".into();
    world.update("endpoints/kubernetes", lie).await.unwrap();
    let again = World::on(Arc::clone(&world.kv)).await;
    assert_eq!(again.get("endpoints/kubernetes").await.unwrap()["subsets"], endpoints["subsets"]);
}

#[tokio::test]
async fn the_api_servers_own_service_comes_back_when_it_is_deleted() {
    let world = World::new().await;
    let mut events = world.watch("services", |_| {}).await;
    assert_eq!(events.next().await, "ADDED kubernetes");
    world.delete("services/kubernetes").await.unwrap();
    assert_eq!(events.take(2).await, ["DELETED kubernetes", "ADDED kubernetes"]);
    let mut events = world.watch("endpoints", |_| {}).await;
    assert_eq!(events.next().await, "ADDED kubernetes");
    world.merge("endpoints/kubernetes", json!({"subsets": null})).await.unwrap();
    assert_eq!(events.take(2).await, ["MODIFIED kubernetes"; 2]);
    let endpoints = world.get("endpoints/kubernetes").await.unwrap();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.168.7.2");
}

#[tokio::test]
async fn a_service_gets_an_address_and_the_fields_that_go_with_it() {
    let world = World::new().await;
    let spec = made(&world, "a", json!({})).await;
    assert!(spec["clusterIP"].as_str().unwrap().starts_with("10.96.0."));
    assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
    assert_eq!((&spec["ipFamilies"], &spec["ipFamilyPolicy"]), (&json!(["IPv4"]), &json!("SingleStack")));
    assert_eq!(spec["sessionAffinity"], "None");
    let headless = made(&world, "b", json!({"clusterIP": "None"})).await;
    assert_eq!((&headless["clusterIP"], &headless["clusterIPs"]), (&json!("None"), &json!(["None"])));
    let external = made(&world, "c", json!({"type": "ExternalName", "externalName": "example.com"})).await;
    assert!(external["clusterIP"].is_null() && external["clusterIPs"].is_null(), "{external}");
}

#[tokio::test]
async fn an_address_that_is_taken_or_foreign_is_refused_in_kubernetes_words() {
    let world = World::new().await;
    made(&world, "dns", json!({"clusterIP": "10.96.0.10"})).await;
    assert_eq!(
        refused(&world, json!({"clusterIP": "10.96.0.10"})).await,
        "Service \"x\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided \
         IP is already allocated"
    );
    assert_eq!(
        refused(&world, json!({"clusterIP": "10.97.0.1"})).await,
        "Service \"x\" is invalid: spec.clusterIPs: Invalid value: [\"10.97.0.1\"]: failed to allocate IP 10.97.0.1: the \
         provided IP (10.97.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/24"
    );
    made(&world, "np", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]})).await;
    assert_eq!(
        refused(&world, json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]})).await,
        "Service \"x\" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated"
    );
    assert_eq!(
        refused(&world, json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 8080}]})).await,
        "Service \"x\" is invalid: spec.ports[0].nodePort: Invalid value: 8080: provided port is not in the valid range. The \
         range of valid ports is 30000-30009"
    );
}

#[tokio::test]
async fn concurrent_services_never_share_an_address_or_port_and_the_range_is_used_to_the_last() {
    let world = Arc::new(World::new().await);
    let tasks: Vec<_> = (0..10)
        .map(|index| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { made(&world, &format!("s{index}"), json!({"type": "NodePort"})).await })
        })
        .collect();
    let (mut ips, mut ports) = (BTreeSet::new(), BTreeSet::new());
    for task in tasks {
        let spec = task.await.unwrap();
        ips.insert(spec["clusterIP"].to_string());
        ports.insert(spec["ports"][0]["nodePort"].as_u64().unwrap());
    }
    assert_eq!((ips.len(), ports.into_iter().collect::<Vec<_>>()), (10, (30000..=30009).collect()));
    assert!(
        refused(&world, json!({"type": "NodePort"})).await.ends_with("failed to allocate a nodePort: range is full")
    );
}

#[tokio::test]
async fn what_a_service_gives_back_is_free_again() {
    let world = World::new().await;
    let wish = json!({"type": "NodePort", "clusterIP": "10.96.0.77", "ports": [{"port": 80, "nodePort": 30005}]});
    made(&world, "a", wish.clone()).await;
    world.delete("services/a").await.unwrap();
    made(&world, "b", wish.clone()).await;
    let mut service = world.get("services/b").await.unwrap();
    service["spec"]["type"] = "ClusterIP".into();
    let smaller = world.update("services/b", service).await.unwrap();
    assert!(smaller["spec"]["ports"][0]["nodePort"].is_null(), "{smaller}");
    made(&world, "c", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30005}]})).await;
    let request = world.with("services", |options| options.dry_run = true);
    let before = revision(&world);
    world.registry.create(&request, service_body("d")).await.unwrap();
    assert_eq!(revision(&world), before);
}

fn service_body(name: &str) -> Body {
    service(name, &json!({"type": "NodePort"})).into()
}

#[tokio::test]
async fn an_update_without_the_allocated_fields_keeps_them() {
    let world = World::new().await;
    let first = made(&world, "a", json!({"type": "NodePort"})).await;
    let mut again = service("a", &json!({"type": "NodePort"}));
    again["metadata"]["labels"] = json!({"x": "y"});
    let second = world.update("services/a", again).await.unwrap();
    assert_eq!(second["spec"]["clusterIP"], first["clusterIP"]);
    assert_eq!(second["spec"]["ports"][0]["nodePort"], first["ports"][0]["nodePort"]);
    let two = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP", "name": "u"}, {"port": 53, "protocol": "TCP", "name": "t"}]}});
    let both = world.merge("services/a", two).await.unwrap();
    let numbers = |object: &Value| [0, 1].map(|index| object["spec"]["ports"][index]["nodePort"].as_u64().unwrap());
    let [one, other] = numbers(&both);
    assert_ne!(one, other, "ports of an update share nothing");
    let swapped = json!({"spec": {"ports": [{"port": 54, "name": "t"}, {"port": 53, "protocol": "UDP", "name": "u"}]}});
    assert_eq!(numbers(&world.merge("services/a", swapped).await.unwrap()), [other, one], "names keep them");
}

#[tokio::test]
async fn a_dry_run_makes_node_ports_up_and_looks_at_no_range() {
    let world = World::new().await;
    let request = world.with("services", |options| options.dry_run = true);
    let dry = async |ports: Value| {
        let body = service("d", &json!({"type": "NodePort", "ports": ports}));
        world
            .registry
            .create(&request, body.into())
            .await
            .map(|written| written.object.value()["spec"]["ports"].clone())
    };
    let ports = dry(json!([
        {"port": 80, "name": "a"}, {"port": 81, "name": "b"}, {"port": 81, "protocol": "UDP", "name": "c"},
    ]));
    let ports = ports.await.unwrap();
    assert_eq!([0, 1, 2].map(|index| ports[index]["nodePort"].clone()), [32769, 32770, 32770]);
    assert_eq!(dry(json!([{"port": 80, "nodePort": 4}])).await.unwrap()[0]["nodePort"], 4);
    let twice = json!([{"port": 80, "name": "a", "nodePort": 31000}, {"port": 81, "name": "b", "nodePort": 31000}]);
    assert_eq!(
        dry(twice).await.unwrap_err().message,
        "Service \"d\" is invalid: spec.ports[1].nodePort: Invalid value: 31000: provided port is already allocated"
    );
}

#[tokio::test]
async fn what_is_wrong_with_addresses_is_said_before_anything_else() {
    let world = World::new().await;
    let wrong = json!({"clusterIP": "bad", "sessionAffinity": "x"});
    assert_eq!(
        refused(&world, wrong).await,
        "Service \"x\" is invalid: spec.clusterIPs[0]: Invalid value: \"bad\": must be a valid IP address, (e.g. 10.9.8.7 or \
         2001:db8::ffff)"
    );
}

#[tokio::test]
async fn a_cluster_of_one_family_says_so() {
    let world = World::new().await;
    assert_eq!(
        refused(&world, json!({"ipFamilies": ["IPv6"]})).await,
        "Service \"x\" is invalid: spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
    );
    assert_eq!(
        refused(&world, json!({"ipFamilyPolicy": "RequireDualStack"})).await,
        "Service \"x\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for \
         dual-stack services"
    );
}
