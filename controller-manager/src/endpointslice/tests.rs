//! Services and pods in, changes of slices out.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, plan};

fn service(change: impl FnOnce(&mut Value)) -> Service {
    let mut service = json!({
        "metadata": { "namespace": "default", "name": "web", "uid": "s", "labels": { "team": "a" } },
        "spec": { "clusterIP": "10.96.0.10", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
            "ports": [{ "name": "http", "port": 80, "targetPort": "http", "protocol": "TCP" }] },
    });
    change(&mut service);
    serde_json::from_value(service).unwrap()
}

fn pod(n: usize, change: impl FnOnce(&mut Value)) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "namespace": "default", "name": format!("web-{n}"), "uid": format!("u{n}"), "labels": { "app": "web" } },
        "spec": { "nodeName": "n1", "containers":
            [{ "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }] }] },
        "status": { "phase": "Running", "podIPs": [{ "ip": format!("10.0.{}.{}", n / 250, n % 250 + 1) }],
            "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    change(&mut pod);
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn decide(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Plan {
    let zones = HashMap::from([("n1".to_owned(), "east".to_owned())]);
    plan(service, &Observed { pods, slices, zones: &zones })
}

/// The slices after a plan.
fn applied(slices: &[Arc<EndpointSlice>], plan: Plan) -> Vec<Arc<EndpointSlice>> {
    let mut after: Vec<Arc<EndpointSlice>> = slices.to_vec();
    after.retain(|slice| !plan.delete.iter().any(|gone| gone.metadata.name == slice.metadata.name));
    for update in plan.update {
        let slot = after.iter_mut().find(|slice| slice.metadata.name == update.metadata.name).unwrap();
        *slot = Arc::new(update);
    }
    after.extend(plan.create.into_iter().map(Arc::new));
    after
}

fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
    slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).collect()
}

fn is_idle(plan: &Plan) -> bool {
    plan.create.is_empty() && plan.update.is_empty() && plan.delete.is_empty()
}

#[test]
fn a_slice_shows_ports_addresses_and_where_they_come_from() {
    let plan = decide(&service(|_| {}), &[pod(1, |_| {})], &[]);
    let slice = &plan.create[0];
    let labels = slice.metadata.labels.as_ref().unwrap();
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "endpointslice-controller.k8s.io");
    assert_eq!(labels["team"], "a");
    assert_eq!(slice.metadata.owner_references.as_ref().unwrap()[0].kind, "Service");
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port, port.protocol.as_deref()), (Some("http"), Some(8080), Some("TCP")));
    let endpoint = &slice.endpoints.as_ref().unwrap()[0];
    assert_eq!(endpoint.addresses, ["10.0.0.2"]);
    assert_eq!((endpoint.node_name.as_deref(), endpoint.zone.as_deref()), (Some("n1"), Some("east")));
    assert_eq!(endpoint.target_ref.as_ref().unwrap().name.as_deref(), Some("web-1"));
}

#[track_caller]
fn check_conditions(service: &Service, pod: Arc<Pod>, expected: [bool; 3]) {
    let plan = decide(service, &[pod], &[]);
    let conditions = plan.create[0].endpoints.as_ref().unwrap()[0].conditions.clone().unwrap();
    let seen = [conditions.ready, conditions.serving, conditions.terminating].map(Option::unwrap);
    assert_eq!(seen, expected, "ready, serving, terminating");
}

#[test]
fn conditions_tell_ready_serving_and_terminating_apart() {
    let unready = |pod: &mut Value| pod["status"]["conditions"][0]["status"] = "False".into();
    let leaving = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    check_conditions(&service(|_| {}), pod(1, |_| {}), [true, true, false]);
    check_conditions(&service(|_| {}), pod(1, unready), [false, false, false]);
    check_conditions(&service(|_| {}), pod(1, leaving), [false, true, true]);
    let publishing = service(|service| service["spec"]["publishNotReadyAddresses"] = true.into());
    check_conditions(&publishing, pod(1, unready), [true, false, false]);
}

#[test]
fn a_slice_holds_a_hundred_endpoints() {
    let pods: Vec<_> = (0..250).map(|n| pod(n, |_| {})).collect();
    let slices = applied(&[], decide(&service(|_| {}), &pods, &[]));
    assert_eq!(sizes(&slices), [100, 100, 50]);
    assert!(is_idle(&decide(&service(|_| {}), &pods, &slices)));
}

#[test]
fn one_changed_pod_changes_one_slice() {
    let mut pods: Vec<_> = (0..250).map(|n| pod(n, |_| {})).collect();
    let slices = applied(&[], decide(&service(|_| {}), &pods, &[]));
    pods[150] = pod(150, |pod| pod["status"]["conditions"][0]["status"] = "False".into());
    let plan = decide(&service(|_| {}), &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    pods.swap_remove(20);
    pods.push(pod(999, |_| {}));
    let slices = applied(&slices, plan);
    let plan = decide(&service(|_| {}), &pods, &slices);
    assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    assert_eq!(sizes(&applied(&slices, plan)), [100, 100, 50]);
}

#[test]
fn a_service_without_pods_keeps_one_empty_slice() {
    let slices = applied(&[], decide(&service(|_| {}), &[], &[]));
    assert_eq!(sizes(&slices), [0]);
    assert!(is_idle(&decide(&service(|_| {}), &[], &slices)));
    let full = applied(&slices, decide(&service(|_| {}), &[pod(1, |_| {})], &slices));
    assert_eq!(sizes(&full), [1]);
    let emptied = applied(&full, decide(&service(|_| {}), &[], &full));
    assert_eq!(sizes(&emptied), [0]);
    assert_eq!(emptied[0].metadata.name, full[0].metadata.name);
}

#[test]
fn a_named_port_with_different_numbers_makes_different_slices() {
    let other = pod(2, |pod| pod["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090.into());
    let without = pod(3, |pod| pod["spec"]["containers"][0]["ports"] = json!([]));
    let plan = decide(&service(|_| {}), &[pod(1, |_| {}), other, without], &[]);
    let ports: Vec<_> = plan.create.iter().map(|slice| slice.ports.as_ref().unwrap()[0].port.unwrap()).collect();
    assert_eq!(ports, [8080, 9090]);
    assert!(plan.create.iter().all(|slice| slice.endpoints.as_ref().unwrap().len() == 1));
    assert_ne!(plan.create[0].metadata.name, plan.create[1].metadata.name);
}

#[test]
fn a_headless_service_shows_host_names_and_needs_no_ports() {
    let headless = service(|service| {
        service["spec"]["clusterIP"] = "None".into();
        service["spec"]["ports"] = json!([]);
    });
    let named = pod(1, |pod| {
        pod["spec"]["hostname"] = "first".into();
        pod["spec"]["subdomain"] = "web".into();
    });
    let plan = decide(&headless, &[named], &[]);
    assert_eq!(plan.create[0].endpoints.as_ref().unwrap()[0].hostname.as_deref(), Some("first"));
    assert!(plan.create[0].metadata.labels.as_ref().unwrap().contains_key("service.kubernetes.io/headless"));
}

#[test]
fn a_round_repeated_on_an_old_view_makes_the_same_names() {
    let first = decide(&service(|_| {}), &[pod(1, |_| {})], &[]);
    let second = decide(&service(|_| {}), &[pod(1, |_| {})], &[]);
    assert_eq!(first.create[0].metadata.name, second.create[0].metadata.name);
}
