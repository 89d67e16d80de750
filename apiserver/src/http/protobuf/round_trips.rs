//! Every kind of the table, with every field set: what is written is read back, by us and by another implementation
//! (`k8s-pb`), which knows the fields' numbers and types from Kubernetes' own files.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::encode;
use super::schema::{Field, Message, Repeat, Schema, Type};
use super::*;

/// An object with a value that is not zero in every field. `within` are the messages around it: one that holds itself
/// is filled once inside itself.
fn filled(message: &'static Message, within: &[usize]) -> Value {
    let schema = Schema::get();
    if message.has_forms() {
        let form = message.fields.iter().find(|field| field.repeat == Repeat::List || field.kind == Type::Bool);
        return member(form.unwrap(), within);
    }
    let mut object = Map::new();
    for field in &message.fields {
        match field.kind {
            Type::Message(inner) if field.is_inline() => {
                let Value::Object(more) = filled(schema.message(inner), within) else { panic!("no object") };
                object.extend(more);
            }
            _ => {
                object.insert(field.name.to_owned(), member(field, within));
            }
        }
    }
    Value::Object(object)
}

fn member(field: &'static Field, within: &[usize]) -> Value {
    let one = match field.kind {
        Type::String => json!("text \"quoted\" \u{1f600}"),
        Type::Int => json!(-7),
        Type::Bool => json!(true),
        Type::Float => json!(1.5),
        Type::Bytes => json!("AP8B"),
        Type::Quantity => json!("250m"),
        Type::IntOrString => json!("25%"),
        Type::Strings => json!(["a", "b"]),
        Type::Time => json!("2023-11-14T22:13:20Z"),
        Type::MicroTime => json!("1969-12-31T23:59:59.500000Z"),
        Type::Raw => json!({"any": ["thing", 1]}),
        Type::Message(inner) if within.iter().filter(|own| **own == inner).count() > 1 => return Value::Null,
        Type::Message(inner) => filled(Schema::get().message(inner), &[within, &[inner]].concat()),
    };
    match field.repeat {
        Repeat::Once => one,
        Repeat::List => json!([one, one]),
        Repeat::Map => json!({"": one, "key": one}),
    }
}

/// Without what is null: JSON and protobuf do not tell that from what is not there.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, pruned(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(pruned).collect(),
        other => other,
    }
}

/// Stands for a kind that the other implementation does not have yet.
#[derive(Clone, PartialEq, prost::Message)]
struct New {}

/// Through protobuf and through `M`, and back. Where `M` lacks fields, their paths are noted.
fn check<M: prost::Message + Default + 'static>(api_version: &str, kind: &str, lacking: &mut BTreeSet<String>) {
    let schema = Schema::get();
    let mut object = pruned(filled(schema.kind(api_version, kind).unwrap(), &[]));
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    let bytes = encode::object(object.to_string().as_bytes()).unwrap();
    assert_eq!(decode(&bytes).unwrap(), object, "{api_version} {kind}");
    if std::any::TypeId::of::<M>() == std::any::TypeId::of::<New>() {
        return;
    }
    let envelope = Envelope::read(bytes.strip_prefix(MAGIC).unwrap()).unwrap();
    let known = M::decode(envelope.raw).unwrap_or_else(|error| panic!("{api_version} {kind}: {error}"));
    let again = decode(&super::tests::envelope(api_version, kind, known.encode_to_vec())).unwrap();
    compare(&object, &again, kind, lacking);
}

fn compare(expected: &Value, found: &Value, path: &str, lacking: &mut BTreeSet<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                match found.get(key) {
                    Some(found) => compare(value, found, &format!("{path}.{key}"), lacking),
                    None => {
                        lacking.insert(key.clone());
                    }
                }
            }
            assert!(found.keys().all(|key| expected.contains_key(key)), "{path}: {found:?}");
        }
        (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
            expected.iter().zip(found).for_each(|(expected, found)| compare(expected, found, path, lacking));
        }
        _ => assert_eq!(expected, found, "{path}"),
    }
}

type Check = fn(&str, &str, &mut BTreeSet<String>);

macro_rules! kinds {
    (@ New) => { check::<New> };
    (@ $($path:ident)::+) => { check::<k8s_pb::$($path)::+> };
    ($($kind:literal => $($path:ident)::+,)*) => {
        &[$(($kind, kinds!(@ $($path)::+) as Check)),*]
    };
}

#[rustfmt::skip]
static KINDS: &[(&str, Check)] = kinds! {
    "admissionregistration.k8s.io/v1 MutatingAdmissionPolicy" => New,
    "admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding" => New,
    "admissionregistration.k8s.io/v1 MutatingWebhookConfiguration" => api::admissionregistration::v1::MutatingWebhookConfiguration,
    "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy" => api::admissionregistration::v1::ValidatingAdmissionPolicy,
    "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding" => api::admissionregistration::v1::ValidatingAdmissionPolicyBinding,
    "admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration" => api::admissionregistration::v1::ValidatingWebhookConfiguration,
    "apidiscovery.k8s.io/v2 APIGroupDiscoveryList" => api::apidiscovery::v2::APIGroupDiscoveryList,
    "apiextensions.k8s.io/v1 ConversionReview" => apiextensions_apiserver::pkg::apis::apiextensions::v1::ConversionReview,
    "apiextensions.k8s.io/v1 CustomResourceDefinition" => apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    "apiregistration.k8s.io/v1 APIService" => kube_aggregator::pkg::apis::apiregistration::v1::APIService,
    "apps/v1 ControllerRevision" => api::apps::v1::ControllerRevision,
    "apps/v1 DaemonSet" => api::apps::v1::DaemonSet,
    "apps/v1 Deployment" => api::apps::v1::Deployment,
    "apps/v1 ReplicaSet" => api::apps::v1::ReplicaSet,
    "apps/v1 StatefulSet" => api::apps::v1::StatefulSet,
    "authentication.k8s.io/v1 SelfSubjectReview" => api::authentication::v1::SelfSubjectReview,
    "authentication.k8s.io/v1 TokenRequest" => api::authentication::v1::TokenRequest,
    "authentication.k8s.io/v1 TokenReview" => api::authentication::v1::TokenReview,
    "authorization.k8s.io/v1 LocalSubjectAccessReview" => api::authorization::v1::LocalSubjectAccessReview,
    "authorization.k8s.io/v1 SelfSubjectAccessReview" => api::authorization::v1::SelfSubjectAccessReview,
    "authorization.k8s.io/v1 SelfSubjectRulesReview" => api::authorization::v1::SelfSubjectRulesReview,
    "authorization.k8s.io/v1 SubjectAccessReview" => api::authorization::v1::SubjectAccessReview,
    "autoscaling/v1 HorizontalPodAutoscaler" => api::autoscaling::v1::HorizontalPodAutoscaler,
    "autoscaling/v1 Scale" => api::autoscaling::v1::Scale,
    "autoscaling/v2 HorizontalPodAutoscaler" => api::autoscaling::v2::HorizontalPodAutoscaler,
    "batch/v1 CronJob" => api::batch::v1::CronJob,
    "batch/v1 Job" => api::batch::v1::Job,
    "certificates.k8s.io/v1 CertificateSigningRequest" => api::certificates::v1::CertificateSigningRequest,
    "coordination.k8s.io/v1 Lease" => api::coordination::v1::Lease,
    "discovery.k8s.io/v1 EndpointSlice" => api::discovery::v1::EndpointSlice,
    "events.k8s.io/v1 Event" => api::events::v1::Event,
    "flowcontrol.apiserver.k8s.io/v1 FlowSchema" => api::flowcontrol::v1::FlowSchema,
    "flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration" => api::flowcontrol::v1::PriorityLevelConfiguration,
    "meta.k8s.io/v1 PartialObjectMetadata" => apimachinery::pkg::apis::meta::v1::PartialObjectMetadata,
    "meta.k8s.io/v1 PartialObjectMetadataList" => apimachinery::pkg::apis::meta::v1::PartialObjectMetadataList,
    "meta.k8s.io/v1beta1 PartialObjectMetadata" => apimachinery::pkg::apis::meta::v1::PartialObjectMetadata,
    "meta.k8s.io/v1beta1 PartialObjectMetadataList" => apimachinery::pkg::apis::meta::v1beta1::PartialObjectMetadataList,
    "networking.k8s.io/v1 IPAddress" => api::networking::v1::IPAddress,
    "networking.k8s.io/v1 Ingress" => api::networking::v1::Ingress,
    "networking.k8s.io/v1 IngressClass" => api::networking::v1::IngressClass,
    "networking.k8s.io/v1 NetworkPolicy" => api::networking::v1::NetworkPolicy,
    "networking.k8s.io/v1 ServiceCIDR" => api::networking::v1::ServiceCIDR,
    "node.k8s.io/v1 RuntimeClass" => api::node::v1::RuntimeClass,
    "policy/v1 Eviction" => api::policy::v1::Eviction,
    "policy/v1 PodDisruptionBudget" => api::policy::v1::PodDisruptionBudget,
    "rbac.authorization.k8s.io/v1 ClusterRole" => api::rbac::v1::ClusterRole,
    "rbac.authorization.k8s.io/v1 ClusterRoleBinding" => api::rbac::v1::ClusterRoleBinding,
    "rbac.authorization.k8s.io/v1 Role" => api::rbac::v1::Role,
    "rbac.authorization.k8s.io/v1 RoleBinding" => api::rbac::v1::RoleBinding,
    "resource.k8s.io/v1 DeviceClass" => api::resource::v1::DeviceClass,
    "resource.k8s.io/v1 ResourceClaim" => api::resource::v1::ResourceClaim,
    "resource.k8s.io/v1 ResourceClaimTemplate" => api::resource::v1::ResourceClaimTemplate,
    "resource.k8s.io/v1 ResourceSlice" => api::resource::v1::ResourceSlice,
    "scheduling.k8s.io/v1 PriorityClass" => api::scheduling::v1::PriorityClass,
    "storage.k8s.io/v1 CSIDriver" => api::storage::v1::CSIDriver,
    "storage.k8s.io/v1 CSINode" => api::storage::v1::CSINode,
    "storage.k8s.io/v1 CSIStorageCapacity" => api::storage::v1::CSIStorageCapacity,
    "storage.k8s.io/v1 StorageClass" => api::storage::v1::StorageClass,
    "storage.k8s.io/v1 VolumeAttachment" => api::storage::v1::VolumeAttachment,
    "storage.k8s.io/v1 VolumeAttributesClass" => api::storage::v1::VolumeAttributesClass,
    "v1 APIGroup" => apimachinery::pkg::apis::meta::v1::APIGroup,
    "v1 APIGroupList" => apimachinery::pkg::apis::meta::v1::APIGroupList,
    "v1 APIResourceList" => apimachinery::pkg::apis::meta::v1::APIResourceList,
    "v1 APIVersions" => apimachinery::pkg::apis::meta::v1::APIVersions,
    "v1 Binding" => api::core::v1::Binding,
    "v1 ComponentStatus" => api::core::v1::ComponentStatus,
    "v1 ConfigMap" => api::core::v1::ConfigMap,
    "v1 Endpoints" => api::core::v1::Endpoints,
    "v1 Event" => api::core::v1::Event,
    "v1 LimitRange" => api::core::v1::LimitRange,
    "v1 Namespace" => api::core::v1::Namespace,
    "v1 Node" => api::core::v1::Node,
    "v1 NodeProxyOptions" => api::core::v1::NodeProxyOptions,
    "v1 PersistentVolume" => api::core::v1::PersistentVolume,
    "v1 PersistentVolumeClaim" => api::core::v1::PersistentVolumeClaim,
    "v1 Pod" => api::core::v1::Pod,
    "v1 PodAttachOptions" => api::core::v1::PodAttachOptions,
    "v1 PodExecOptions" => api::core::v1::PodExecOptions,
    "v1 PodLogOptions" => api::core::v1::PodLogOptions,
    "v1 PodPortForwardOptions" => api::core::v1::PodPortForwardOptions,
    "v1 PodProxyOptions" => api::core::v1::PodProxyOptions,
    "v1 PodStatusResult" => api::core::v1::PodStatusResult,
    "v1 PodTemplate" => api::core::v1::PodTemplate,
    "v1 RangeAllocation" => api::core::v1::RangeAllocation,
    "v1 ReplicationController" => api::core::v1::ReplicationController,
    "v1 ResourceQuota" => api::core::v1::ResourceQuota,
    "v1 Secret" => api::core::v1::Secret,
    "v1 SerializedReference" => api::core::v1::SerializedReference,
    "v1 Service" => api::core::v1::Service,
    "v1 ServiceAccount" => api::core::v1::ServiceAccount,
    "v1 ServiceProxyOptions" => api::core::v1::ServiceProxyOptions,
    "v1 Status" => apimachinery::pkg::apis::meta::v1::Status,
};

/// Fields that Kubernetes has got since the other implementation was made.
const NEWER: &[&str] = &[
    "bools",
    "ints",
    "message",
    "nodeAllocatableResourceClaimStatuses",
    "nodeAllocatableResourceMappings",
    "preventPodSchedulingIfMissing",
    "schedulingGroup",
    "shardInfo",
    "strings",
    "versions",
    "volumeStatus",
];

#[test]
fn every_field_of_every_kind_survives_the_way_through_protobuf() {
    let mut lacking = BTreeSet::new();
    for (kind, check) in KINDS {
        let (api_version, kind) = kind.split_once(' ').unwrap();
        check(api_version, kind, &mut lacking);
    }
    let lacking: Vec<&str> = lacking.iter().map(String::as_str).collect();
    assert_eq!(lacking, NEWER);
}

#[test]
fn every_kind_of_the_table_is_checked() {
    let (lines, _) = include_str!("messages.txt").split_once("\n\n").unwrap();
    let named: Vec<&str> = lines.lines().filter_map(|line| line.split_once(" = ")).map(|(kind, _)| kind).collect();
    let checked: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(checked, named);
}
