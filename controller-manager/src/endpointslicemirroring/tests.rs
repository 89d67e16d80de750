//! Endpoints in, changes of slices out.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::plan::{is_mirrored, plan};

fn endpoints(subsets: &Value) -> Endpoints {
    let metadata = json!({ "namespace": "default", "name": "db", "uid": "e", "labels": { "team": "a" },
        "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "x" } });
    serde_json::from_value(json!({ "metadata": metadata, "subsets": subsets })).unwrap()
}

fn made(subsets: &Value) -> Vec<EndpointSlice> {
    plan(Some(&endpoints(subsets)), &[]).create
}

#[test]
fn endpoints_kept_by_hand_are_shown_in_slices_by_family_and_ports() {
    let slices = made(&json!([
        { "addresses": [{ "ip": "192.0.2.1" }, { "ip": "192.0.2.1" }, { "ip": "2001:db8::1" }, { "ip": "nonsense" }],
          "notReadyAddresses": [{ "ip": "192.0.2.2", "hostname": "db-2" }], "ports": [{ "name": "sql", "port": 5432 }] },
        { "addresses": [{ "ip": "192.0.2.3" }], "ports": [{ "name": "sql", "port": 5433 }] },
    ]));
    let mut seen: Vec<String> = Vec::new();
    for slice in &slices {
        for endpoint in slice.endpoints.iter().flatten() {
            let port = slice.ports.as_ref().unwrap()[0].port.unwrap();
            let ready = endpoint.conditions.as_ref().unwrap().ready.unwrap();
            seen.push(format!("{} {} {port} {ready}", slice.address_type, endpoint.addresses[0]));
        }
    }
    seen.sort();
    let expected = [
        "IPv4 192.0.2.1 5432 true",
        "IPv4 192.0.2.2 5432 false",
        "IPv4 192.0.2.3 5433 true",
        "IPv6 2001:db8::1 5432 true",
    ];
    assert_eq!(seen, expected);
    let metadata = &slices[0].metadata;
    assert_eq!(metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"], "db");
    assert_eq!(metadata.labels.as_ref().unwrap()["team"], "a");
    assert_eq!(metadata.annotations.as_ref().unwrap().keys().collect::<Vec<_>>(), ["note"]);
    assert_eq!(metadata.owner_references.as_ref().unwrap()[0].kind, "Endpoints");
}

#[test]
fn a_round_on_what_was_made_changes_nothing_and_a_change_updates_in_place() {
    let one = json!([{ "addresses": [{ "ip": "192.0.2.1" }], "ports": [{ "port": 80 }] }]);
    let slices: Vec<Arc<EndpointSlice>> = made(&one).into_iter().map(Arc::new).collect();
    let again = plan(Some(&endpoints(&one)), &slices);
    assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());
    let two = json!([{ "addresses": [{ "ip": "192.0.2.2" }], "ports": [{ "port": 80 }] }]);
    let changed = plan(Some(&endpoints(&two)), &slices);
    assert_eq!(changed.update[0].metadata.name, slices[0].metadata.name);
    assert!(changed.create.is_empty() && changed.delete.is_empty());
    assert_eq!(plan(Some(&endpoints(&json!([]))), &slices).delete.len(), 1);
    assert_eq!(plan(None, &slices).delete.len(), 1);
}

#[test]
fn only_services_without_a_selector_are_mirrored_and_none_that_ask_not_to_be() {
    let service = |spec: Value| serde_json::from_value::<Service>(json!({ "spec": spec })).unwrap();
    let own = endpoints(&json!([]));
    assert!(is_mirrored(&own, Some(&service(json!({})))));
    assert!(!is_mirrored(&own, Some(&service(json!({ "selector": { "app": "db" } })))));
    assert!(!is_mirrored(&own, None));
    let mut skipped = own.clone();
    skipped.metadata.labels =
        Some([("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".to_owned())].into_iter().collect());
    assert!(!is_mirrored(&skipped, Some(&service(json!({})))));
}
