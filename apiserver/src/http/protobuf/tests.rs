//! The table and the decoder against bytes that another implementation (`k8s-pb`) wrote.

use k8s_pb::api::{apps, core};
use k8s_pb::apimachinery::pkg::api::resource::Quantity;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_pb::apimachinery::pkg::util::intstr::IntOrString;
use prost::Message as _;
use serde_json::json;

use super::*;

pub(super) fn envelope(api_version: &str, kind: &str, raw: Vec<u8>) -> Vec<u8> {
    use k8s_pb::apimachinery::pkg::runtime::{TypeMeta, Unknown};
    let type_meta = TypeMeta { api_version: Some(api_version.to_owned()), kind: Some(kind.to_owned()) };
    let unknown = Unknown { type_meta: Some(type_meta), raw: Some(raw), ..Unknown::default() };
    [MAGIC.to_vec(), unknown.encode_to_vec()].concat()
}

fn check(api_version: &str, kind: &str, message: &impl prost::Message, expected: Value) {
    let value = decode(&envelope(api_version, kind, message.encode_to_vec())).unwrap();
    let mut expected = expected;
    expected["apiVersion"] = api_version.into();
    expected["kind"] = kind.into();
    assert_eq!(value, expected);
}

fn named(name: &str) -> Option<meta::ObjectMeta> {
    // Go writes every field that is not a pointer, empty or not.
    Some(meta::ObjectMeta {
        name: Some(name.to_owned()),
        generate_name: Some(String::new()),
        generation: Some(0),
        creation_timestamp: Some(meta::Time::default()),
        labels: [("app".to_owned(), String::new())].into(),
        ..meta::ObjectMeta::default()
    })
}

#[test]
fn a_config_map_keeps_texts_as_they_are_and_bytes_as_base64() {
    let message = core::v1::ConfigMap {
        metadata: named("a"),
        data: [("k".to_owned(), "v".to_owned()), ("empty".to_owned(), String::new())].into(),
        binary_data: [("b".to_owned(), vec![0, 255])].into(),
        immutable: Some(false),
    };
    let expected = json!({
        "metadata": {"name": "a", "labels": {"app": ""}}, "data": {"k": "v", "empty": ""},
        "binaryData": {"b": "AP8="}, "immutable": false,
    });
    check("v1", "ConfigMap", &message, expected);
}

#[test]
fn a_deployment_scaled_to_zero_stays_at_zero() {
    let limits = [("cpu".to_owned(), Quantity { string: Some("500m".to_owned()) })].into();
    let container = core::v1::Container {
        name: Some("c".to_owned()),
        image: Some("i:1".to_owned()),
        image_pull_policy: Some(String::new()),
        stdin: Some(false),
        resources: Some(core::v1::ResourceRequirements { limits, ..Default::default() }),
        ports: vec![core::v1::ContainerPort { container_port: Some(80), host_port: Some(0), ..Default::default() }],
        ..core::v1::Container::default()
    };
    let template = core::v1::PodTemplateSpec {
        metadata: named("t"),
        spec: Some(core::v1::PodSpec { containers: vec![container], ..Default::default() }),
    };
    let text = IntOrString { r#type: Some(1), int_val: Some(0), str_val: Some("25%".to_owned()) };
    let number = IntOrString { r#type: Some(0), int_val: Some(2), str_val: Some(String::new()) };
    let rolling = apps::v1::RollingUpdateDeployment { max_surge: Some(text), max_unavailable: Some(number) };
    let strategy =
        apps::v1::DeploymentStrategy { r#type: Some("RollingUpdate".to_owned()), rolling_update: Some(rolling) };
    let spec = apps::v1::DeploymentSpec {
        replicas: Some(0),
        min_ready_seconds: Some(0),
        template: Some(template),
        strategy: Some(strategy),
        ..apps::v1::DeploymentSpec::default()
    };
    let message = apps::v1::Deployment { metadata: named("d"), spec: Some(spec), status: Some(Default::default()) };
    let meta = |name: &str| json!({"name": name, "labels": {"app": ""}});
    let expected = json!({
        "metadata": meta("d"), "status": {},
        "spec": {
            "replicas": 0,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 2}},
            "template": {"metadata": meta("t"), "spec": {"containers": [{
                "name": "c", "image": "i:1", "resources": {"limits": {"cpu": "500m"}}, "ports": [{"containerPort": 80}],
            }]}},
        },
    });
    check("apps/v1", "Deployment", &message, expected);
}

#[test]
fn what_is_inlined_in_go_is_inlined_in_json() {
    let source = core::v1::VolumeSource {
        config_map: Some(core::v1::ConfigMapVolumeSource {
            local_object_reference: Some(core::v1::LocalObjectReference { name: Some("cm".to_owned()) }),
            optional: Some(false),
            ..Default::default()
        }),
        ..core::v1::VolumeSource::default()
    };
    let volume = core::v1::Volume { name: Some("v".to_owned()), volume_source: Some(source) };
    let spec = core::v1::PodSpec { volumes: vec![volume], ..core::v1::PodSpec::default() };
    let message = core::v1::Pod { spec: Some(spec), ..core::v1::Pod::default() };
    let expected = json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "cm", "optional": false}}]}});
    check("v1", "Pod", &message, expected);
}

#[test]
fn times_are_written_as_kubernetes_writes_them() {
    let spec = k8s_pb::api::coordination::v1::LeaseSpec {
        holder_identity: Some("n".to_owned()),
        renew_time: Some(meta::MicroTime { seconds: Some(1_700_000_000), nanos: Some(1_500_000) }),
        ..Default::default()
    };
    let metadata = meta::ObjectMeta {
        deletion_timestamp: Some(meta::Time { seconds: Some(1_700_000_000), nanos: Some(0) }),
        ..meta::ObjectMeta::default()
    };
    let message = k8s_pb::api::coordination::v1::Lease { metadata: Some(metadata), spec: Some(spec) };
    let expected = json!({
        "metadata": {"deletionTimestamp": "2023-11-14T22:13:20Z"},
        "spec": {"holderIdentity": "n", "renewTime": "2023-11-14T22:13:20.001500Z"},
    });
    check("coordination.k8s.io/v1", "Lease", &message, expected);
}

#[test]
fn delete_options_are_known_in_every_group() {
    let message = meta::DeleteOptions {
        grace_period_seconds: Some(0),
        preconditions: Some(meta::Preconditions { uid: Some("u".to_owned()), resource_version: None }),
        propagation_policy: Some("Orphan".to_owned()),
        ..meta::DeleteOptions::default()
    };
    let expected = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Orphan"});
    check("apps/v1", "DeleteOptions", &message, expected);
}

#[test]
fn broken_bytes_are_an_error_and_never_a_panic() {
    let whole =
        envelope("v1", "ConfigMap", core::v1::ConfigMap { metadata: named("a"), ..Default::default() }.encode_to_vec());
    assert_eq!(decode(b"{}"), Err(ProtobufError::NoMagic));
    for len in 4..whole.len() {
        let _ = decode(&whole[..len]);
        let mut bent = whole.clone();
        bent[len] ^= 0xff;
        let _ = decode(&bent);
    }
    let unknown = decode(&envelope("v1", "Foo", Vec::new())).unwrap_err();
    assert_eq!(unknown.to_string(), r#"no kind "Foo" is registered for version "v1""#);
}

#[test]
fn a_list_carries_its_metadata_and_its_items() {
    let head = ListHead {
        api_version: "v1",
        kind: "ConfigMapList",
        item: ("v1", "ConfigMap"),
        metadata: r#"{"resourceVersion":"7","continue":"c","remainingItemCount":2}"#,
    };
    let mut body = list(&head, 0).unwrap();
    for name in ["a", "b"] {
        let data = "x".repeat(300);
        let item = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"k": data}});
        push_item(&mut body, item.to_string().as_bytes()).unwrap();
    }
    let bytes = end_list(body);
    let envelope = Envelope::read(bytes.strip_prefix(MAGIC).unwrap()).unwrap();
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", "ConfigMapList"));
    let found = core::v1::ConfigMapList::decode(envelope.raw).unwrap();
    let metadata = found.metadata.unwrap();
    assert_eq!((metadata.resource_version(), metadata.r#continue(), metadata.remaining_item_count()), ("7", "c", 2));
    let names: Vec<_> = found.items.iter().map(|item| item.metadata.as_ref().unwrap().name()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(found.items[1].data["k"].len(), 300);
}

#[test]
fn a_watch_event_is_a_frame_of_its_length_around_an_enveloped_object() {
    let object =
        object(br#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"},"immutable":false}"#).unwrap();
    let mut out = b"before".to_vec();
    event("ADDED", &object, &mut out);
    let frame = &out[6..];
    assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
    let event = meta::WatchEvent::decode(&frame[4..]).unwrap();
    assert_eq!(event.r#type(), "ADDED");
    let raw = event.object.unwrap().raw.unwrap();
    assert_eq!(raw, object);
    assert_eq!(decode(&raw).unwrap()["immutable"], false);
}

#[test]
fn what_only_has_metadata_is_written_of_any_object() {
    let bytes = object_as("meta.k8s.io/v1", "PartialObjectMetadata", br#"{"metadata":{"name":"a"},"spec":{"x":1}}"#);
    let found = decode(&bytes.unwrap()).unwrap();
    let expected = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": {"name": "a"}});
    assert_eq!(found, expected);
    assert!(object(br#"{"kind":"Widget","apiVersion":"example.com/v1"}"#).is_err());
}
