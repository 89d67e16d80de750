//! Services and pods in, the Endpoints object out.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::json;

use super::plan::plan;

fn service() -> Service {
    let ports = json!([{ "port": 80, "targetPort": 8080, "protocol": "TCP" }]);
    let spec = json!({ "clusterIP": "10.96.0.10", "selector": { "app": "web" }, "ports": ports });
    serde_json::from_value(json!({ "metadata": { "namespace": "default", "name": "web" }, "spec": spec })).unwrap()
}

fn pod(n: usize, ready: &str) -> Arc<Pod> {
    let pod = json!({
        "metadata": { "namespace": "default", "name": format!("web-{n}"), "uid": format!("u{n}") },
        "spec": { "nodeName": "n1", "containers": [] },
        "status": { "phase": "Running", "podIP": format!("10.0.{}.{}", n / 250, n % 250 + 1),
            "conditions": [{ "type": "Ready", "status": ready }] },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

#[test]
fn ready_and_unready_pods_are_listed_apart() {
    let endpoints = plan(&service(), &[pod(2, "True"), pod(1, "True"), pod(3, "False")], None).unwrap();
    let subsets = endpoints.subsets.as_ref().unwrap();
    let ips = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| -> Vec<String> {
        list.iter().flatten().map(|address| address.ip.clone()).collect()
    };
    assert_eq!(subsets.len(), 1);
    assert_eq!(ips(&subsets[0].addresses), ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(ips(&subsets[0].not_ready_addresses), ["10.0.0.4"]);
    assert_eq!(subsets[0].ports.as_ref().unwrap()[0].port, 8080);
    assert_eq!(plan(&service(), &[pod(1, "True"), pod(2, "True"), pod(3, "False")], Some(&endpoints)), None);
}

#[test]
fn terminating_pods_are_left_out_unless_everything_is_published() {
    let mut leaving = pod(1, "True");
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
    Arc::make_mut(&mut leaving).metadata.deletion_timestamp = Some(time);
    let mut service = service();
    assert_eq!(plan(&service, &[Arc::clone(&leaving)], None).unwrap().subsets, None);
    service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
    assert_eq!(plan(&service, &[leaving], None).unwrap().subsets.unwrap().len(), 1);
}

#[test]
fn more_than_a_thousand_addresses_are_cut_off_and_said_so() {
    let pods: Vec<_> = (0..1001).map(|n| pod(n, "True")).collect();
    let endpoints = plan(&service(), &pods, None).unwrap();
    assert_eq!(endpoints.subsets.as_ref().unwrap()[0].addresses.as_ref().unwrap().len(), 1000);
    let annotations = endpoints.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["endpoints.kubernetes.io/over-capacity"], "truncated");
    let fewer = plan(&service(), &pods[..10], Some(&endpoints)).unwrap();
    assert_eq!(fewer.metadata.annotations, None);
}
