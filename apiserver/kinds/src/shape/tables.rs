//! What the published schemas do not say: which fields are left out when empty (how lists merge: `merge.rs`).
//!
//! Source: the struct tags of `k8s.io/api` (whether a field is a pointer), as Kubernetes' API reference shows them.
//! A new kind adds its lines here; a test refuses lines that name no field.

use super::Shape;

/// Numbers and truth values that are no pointers in Go: zero and false are left out.
const PLAIN_SCALARS: &[(&str, &[&str])] = &[
    ("APIServiceSpec", &["insecureSkipTLSVerify"]),
    ("AWSElasticBlockStoreVolumeSource", &["partition", "readOnly"]),
    ("AzureFilePersistentVolumeSource", &["readOnly"]),
    ("AzureFileVolumeSource", &["readOnly"]),
    ("CSIPersistentVolumeSource", &["readOnly"]),
    ("CephFSPersistentVolumeSource", &["readOnly"]),
    ("CephFSVolumeSource", &["readOnly"]),
    ("CinderPersistentVolumeSource", &["readOnly"]),
    ("CinderVolumeSource", &["readOnly"]),
    ("Condition", &["observedGeneration"]),
    ("Container", &["stdin", "stdinOnce", "tty"]),
    ("ContainerImage", &["sizeBytes"]),
    ("ContainerPort", &["hostPort"]),
    ("ContainerStateTerminated", &["signal"]),
    ("DaemonSetSpec", &["minReadySeconds"]),
    ("DaemonSetStatus", &["numberAvailable", "numberUnavailable", "observedGeneration", "updatedNumberScheduled"]),
    ("DeploymentSpec", &["minReadySeconds", "paused"]),
    (
        "DeploymentStatus",
        &[
            "availableReplicas",
            "observedGeneration",
            "readyReplicas",
            "replicas",
            "unavailableReplicas",
            "updatedReplicas",
        ],
    ),
    ("EphemeralContainer", &["stdin", "stdinOnce", "tty"]),
    ("Event", &["count", "deprecatedCount"]),
    ("EventSeries", &["count"]),
    ("DeviceSubRequest", &["count"]),
    ("ExactDeviceRequest", &["count"]),
    ("FCVolumeSource", &["readOnly"]),
    ("FlexPersistentVolumeSource", &["readOnly"]),
    ("FlexVolumeSource", &["readOnly"]),
    ("GCEPersistentDiskVolumeSource", &["partition", "readOnly"]),
    ("GlusterfsPersistentVolumeSource", &["readOnly"]),
    ("GlusterfsVolumeSource", &["readOnly"]),
    ("HorizontalPodAutoscalerStatus", &["currentReplicas"]),
    ("ISCSIPersistentVolumeSource", &["chapAuthDiscovery", "chapAuthSession", "readOnly"]),
    ("ISCSIVolumeSource", &["chapAuthDiscovery", "chapAuthSession", "readOnly"]),
    ("JobStatus", &["active", "failed", "succeeded"]),
    ("NFSVolumeSource", &["readOnly"]),
    ("NodeSpec", &["unschedulable"]),
    ("ObjectMeta", &["generation"]),
    ("PersistentVolumeClaimVolumeSource", &["readOnly"]),
    ("PodCondition", &["observedGeneration"]),
    ("PodDisruptionBudgetStatus", &["observedGeneration"]),
    ("PodSpec", &["hostIPC", "hostNetwork", "hostPID"]),
    ("PodStatus", &["observedGeneration"]),
    ("PortworxVolumeSource", &["readOnly"]),
    ("PriorityClass", &["globalDefault"]),
    ("Probe", &["failureThreshold", "initialDelaySeconds", "periodSeconds", "successThreshold", "timeoutSeconds"]),
    ("QuobyteVolumeSource", &["readOnly"]),
    ("RBDPersistentVolumeSource", &["readOnly"]),
    ("RBDVolumeSource", &["readOnly"]),
    ("ReplicaSetSpec", &["minReadySeconds"]),
    ("ReplicaSetStatus", &["availableReplicas", "fullyLabeledReplicas", "observedGeneration", "readyReplicas"]),
    ("ReplicationControllerSpec", &["minReadySeconds"]),
    (
        "ReplicationControllerStatus",
        &["availableReplicas", "fullyLabeledReplicas", "observedGeneration", "readyReplicas"],
    ),
    ("ResourcePolicyRule", &["clusterScope"]),
    ("ScaleIOPersistentVolumeSource", &["readOnly", "sslEnabled"]),
    ("ScaleIOVolumeSource", &["readOnly", "sslEnabled"]),
    ("ServiceBackendPort", &["number"]),
    ("ServicePort", &["nodePort"]),
    ("ServiceSpec", &["healthCheckNodePort", "publishNotReadyAddresses"]),
    ("StatefulSetSpec", &["minReadySeconds"]),
    ("StatefulSetStatus", &["currentReplicas", "observedGeneration", "readyReplicas", "updatedReplicas"]),
    ("StorageOSPersistentVolumeSource", &["readOnly"]),
    ("StorageOSVolumeSource", &["readOnly"]),
    ("ValidatingAdmissionPolicyStatus", &["observedGeneration"]),
    ("VolumeMount", &["readOnly"]),
    ("VolumeMountStatus", &["readOnly"]),
];

/// Texts that are pointers in Go: an empty one is kept. By field name: they mean the same wherever they stand.
const POINTER_TEXTS: &[&str] = &[
    "apiGroup",
    "appProtocol",
    "completionMode",
    "currentVolumeAttributesClassName",
    "endpointsNamespace",
    "failedIndexes",
    "fsGroupChangePolicy",
    "gmsaCredentialSpec",
    "gmsaCredentialSpecName",
    "holderIdentity",
    "hostnameOverride",
    "initiatorName",
    "internalTrafficPolicy",
    "ipFamilyPolicy",
    "ipMode",
    "loadBalancerClass",
    "localhostProfile",
    "managedBy",
    "mountPropagation",
    "nodeAffinityPolicy",
    "nodeTaintsPolicy",
    "podReplacementPolicy",
    "preemptionPolicy",
    "preferredHolder",
    "procMount",
    "recursiveReadOnly",
    "resourceClaimName",
    "resourceClaimTemplateName",
    "runAsUserName",
    "runtimeClassName",
    "seLinuxChangePolicy",
    "secretNamespace",
    "selectPolicy",
    "stopSignal",
    "succeededIndexes",
    "supplementalGroupsPolicy",
    "timeZone",
    "trafficDistribution",
    "unhealthyPodEvictionPolicy",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Texts that are pointers in Go (or always written) although fields of that name elsewhere are not.
const POINTER_TEXTS_OF: &[(&str, &[&str])] = &[
    ("AzureDiskVolumeSource", &["cachingMode", "fsType", "kind"]),
    ("CSIDriverSpec", &["fsGroupPolicy"]),
    ("CSIVolumeSource", &["fsType"]),
    ("ClusterTrustBundleProjection", &["name", "signerName"]),
    ("Container", &["restartPolicy"]),
    ("Endpoint", &["hostname", "nodeName", "zone"]),
    ("EndpointAddress", &["nodeName"]),
    ("AllocatedDeviceStatus", &["shareID"]),
    ("CSIDriverSpec", &["fsGroupPolicy"]),
    ("Device", &["nodeName"]),
    ("DeviceAttribute", &["string", "version"]),
    ("DeviceClassSpec", &["extendedResourceName"]),
    ("DeviceConstraint", &["distinctAttribute", "matchAttribute"]),
    ("DeviceRequestAllocationResult", &["shareID"]),
    ("NodeAllocatableResourceMapping", &["capacityKey"]),
    ("ResourceSliceSpec", &["nodeName"]),
    ("EndpointPort", &["name", "protocol"]),
    ("EphemeralContainer", &["restartPolicy"]),
    ("Event", &["reportingComponent", "reportingInstance"]),
    ("GRPCAction", &["service"]),
    ("HTTPIngressPath", &["pathType"]),
    ("HostPathVolumeSource", &["type"]),
    ("IngressClassParametersReference", &["namespace", "scope"]),
    ("IngressPortStatus", &["error"]),
    ("MatchResources", &["matchPolicy"]),
    ("MutatingAdmissionPolicySpec", &["failurePolicy"]),
    ("MutatingWebhook", &["failurePolicy", "matchPolicy", "reinvocationPolicy"]),
    ("NamedRuleWithOperations", &["scope"]),
    ("ParamRef", &["parameterNotFoundAction"]),
    ("PortStatus", &["error"]),
    ("ResourceHealth", &["message"]),
    ("RuleWithOperations", &["scope"]),
    ("ServiceReference", &["path"]),
    ("ValidatingAdmissionPolicySpec", &["failurePolicy"]),
    ("ValidatingWebhook", &["failurePolicy", "matchPolicy"]),
    ("Validation", &["reason"]),
    ("WebhookClientConfig", &["url"]),
    ("IngressSpec", &["ingressClassName"]),
    ("LeaseSpec", &["strategy"]),
    ("LocalVolumeSource", &["fsType"]),
    ("NetworkPolicyPort", &["protocol"]),
    ("PersistentVolumeClaimSpec", &["storageClassName"]),
    ("PodDNSConfigOption", &["value"]),
    ("PodFailurePolicyOnExitCodesRequirement", &["containerName"]),
    ("StatefulSetSpec", &["serviceName"]),
    ("StorageClass", &["reclaimPolicy", "volumeBindingMode"]),
    ("TypedObjectReference", &["namespace"]),
    ("VolumeAttachmentSource", &["persistentVolumeName"]),
];

/// Objects that are no pointers in Go: always written, also where the schema does not require them.
const PLAIN_STRUCTS: &[(&str, &[&str])] = &[
    ("AllocationResult", &["devices"]),
    ("CertificateSigningRequest", &["status"]),
    ("FlowSchema", &["spec", "status"]),
    ("IPAddress", &["spec"]),
    ("Ingress", &["spec", "status"]),
    ("IngressClass", &["spec"]),
    ("IngressServiceBackend", &["port"]),
    ("IngressStatus", &["loadBalancer"]),
    ("LimitedPriorityLevelConfiguration", &["limitResponse"]),
    ("LimitRange", &["spec"]),
    ("NetworkPolicy", &["spec"]),
    ("NetworkPolicySpec", &["podSelector"]),
    ("PriorityLevelConfiguration", &["spec", "status"]),
    ("ResourceClaim", &["status"]),
    ("ResourceClaimSpec", &["devices"]),
    ("ResourceClaimTemplateSpec", &["metadata"]),
    ("ServiceCIDR", &["spec", "status"]),
    ("VolumeAttachment", &["status"]),
];

/// Values that Go always writes although the schema does not require them.
const WRITTEN: &[(&str, &[&str])] =
    &[("NodeRuntimeHandler", &["name"]), ("PodFailurePolicyOnPodConditionsPattern", &["status"])];

/// Lists that are not taken for left out when they are empty: the rules ask for what is in them.
const KEPT_LISTS: &[(&str, &[&str])] = &[("HPAScalingRules", &["policies"])];

/// Required texts that Go leaves out when they are empty.
const REQUIRED_OMITTED: &[(&str, &[&str])] = &[
    ("ContainerRestartRule", &["action"]),
    ("ContainerRestartRuleOnExitCodes", &["operator"]),
    ("ImageVolumeStatus", &["imageRef"]),
    ("ParentReference", &["name", "resource"]),
    ("PodCertificateProjection", &["keyType", "signerName"]),
    ("ValidatingAdmissionPolicyBindingSpec", &["policyName"]),
];

/// Lists and times that Go writes as null when they are not set.
const WRITTEN_NULL: &[(&str, &[&str])] = &[
    ("AllocatedDeviceStatus", &["conditions"]),
    ("AzureFilePersistentVolumeSource", &["secretNamespace"]),
    ("CSINodeDriver", &["topologyKeys"]),
    ("CSINodeSpec", &["drivers"]),
    ("CertificateSigningRequestCondition", &["lastTransitionTime", "lastUpdateTime"]),
    ("CertificateSigningRequestSpec", &["request"]),
    ("ClusterRole", &["rules"]),
    ("Condition", &["lastTransitionTime"]),
    ("ContainerImage", &["names"]),
    ("ContainerStateRunning", &["startedAt"]),
    ("ContainerStateTerminated", &["finishedAt", "startedAt"]),
    ("DaemonSetCondition", &["lastTransitionTime"]),
    ("DeploymentCondition", &["lastTransitionTime", "lastUpdateTime"]),
    ("DeviceClaim", &["requests"]),
    ("EndpointSlice", &["endpoints", "ports"]),
    ("Event", &["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime", "firstTimestamp", "lastTimestamp"]),
    ("EventSeries", &["lastObservedTime"]),
    ("FlowSchemaCondition", &["lastTransitionTime"]),
    ("HTTPIngressRuleValue", &["paths"]),
    ("HorizontalPodAutoscalerCondition", &["lastTransitionTime"]),
    ("HorizontalPodAutoscalerStatus", &["currentMetrics"]),
    ("JobCondition", &["lastProbeTime", "lastTransitionTime"]),
    ("LimitRangeSpec", &["limits"]),
    ("NamespaceCondition", &["lastTransitionTime"]),
    ("NodeCondition", &["lastHeartbeatTime", "lastTransitionTime"]),
    ("NonResourcePolicyRule", &["nonResourceURLs", "verbs"]),
    ("PersistentVolumeClaimCondition", &["lastProbeTime", "lastTransitionTime"]),
    ("PodCondition", &["lastProbeTime", "lastTransitionTime"]),
    ("PodFailurePolicy", &["rules"]),
    ("PolicyRule", &["verbs"]),
    ("PolicyRulesWithSubjects", &["subjects"]),
    ("PriorityLevelConfigurationCondition", &["lastTransitionTime"]),
    ("ProjectedVolumeSource", &["sources"]),
    ("ReplicaSetCondition", &["lastTransitionTime"]),
    ("ReplicationControllerCondition", &["lastTransitionTime"]),
    ("ResourcePolicyRule", &["apiGroups", "namespaces", "resources", "verbs"]),
    ("Role", &["rules"]),
    ("ScaleIOPersistentVolumeSource", &["secretRef"]),
    ("ScaleIOVolumeSource", &["secretRef"]),
    ("StatefulSetCondition", &["lastTransitionTime"]),
    ("SuccessPolicy", &["rules"]),
    ("TypedLocalObjectReference", &["apiGroup"]),
    ("TypedObjectReference", &["apiGroup"]),
    ("VolumeError", &["time"]),
];

/// Required values that are pointers in Go: they are not there unless somebody says so.
const REQUIRED_POINTERS: &[(&str, &[&str])] = &[
    ("CapacityRequestPolicyRange", &["min"]),
    ("DaemonSetSpec", &["selector"]),
    ("DeploymentSpec", &["selector"]),
    ("HTTPIngressPath", &["pathType"]),
    ("IPAddressSpec", &["parentRef"]),
    ("MutatingWebhook", &["sideEffects"]),
    ("ReplicaSetSpec", &["selector"]),
    ("StatefulSetSpec", &["selector"]),
    ("ValidatingWebhook", &["sideEffects"]),
];

/// Go types whose fields stand in another type as if they were its own, with the fields that do not belong to them or,
/// when `only`, that alone do. Their names show in the decoder's complaints.
const EMBEDDED: &[(&str, &str, bool, &[&str])] = &[
    ("Volume", "VolumeSource", false, &["name"]),
    ("Probe", "ProbeHandler", true, &["exec", "httpGet", "tcpSocket", "grpc"]),
    ("ConfigMapVolumeSource", LOCAL, true, &["name"]),
    ("ConfigMapProjection", LOCAL, true, &["name"]),
    ("SecretProjection", LOCAL, true, &["name"]),
    ("ConfigMapKeySelector", LOCAL, true, &["name"]),
    ("SecretKeySelector", LOCAL, true, &["name"]),
    ("ConfigMapEnvSource", LOCAL, true, &["name"]),
    ("SecretEnvSource", LOCAL, true, &["name"]),
    ("EphemeralContainer", "EphemeralContainerCommon", false, &["targetContainerName"]),
    (
        "PersistentVolumeSpec",
        "PersistentVolumeSource",
        true,
        &[
            "hostPath",
            "gcePersistentDisk",
            "awsElasticBlockStore",
            "glusterfs",
            "flocker",
            "nfs",
            "rbd",
            "quobyte",
            "cephfs",
            "iscsi",
            "cinder",
            "fc",
            "flexVolume",
            "azureFile",
            "vsphereVolume",
            "photonPersistentDisk",
            "portworxVolume",
            "azureDisk",
            "scaleIO",
            "local",
            "storageos",
            "csi",
        ],
    ),
];
const LOCAL: &str = "LocalObjectReference";

/// The Go type that the field really belongs to, when it is embedded.
pub(crate) fn embedded(owner: &str, field: &str) -> Option<&'static str> {
    let (_, name, only, fields) = EMBEDDED.iter().find(|(own, ..)| *own == owner)?;
    (fields.contains(&field) == *only).then_some(*name)
}

fn listed(table: &[(&str, &[&str])], owner: &str, field: &str) -> bool {
    table.iter().any(|(own, fields)| *own == owner && fields.contains(&field))
}

/// Whether the API server leaves the field out when it is empty. Asked only for fields that are not required.
pub(crate) fn omits_empty(owner: &str, field: &str, shape: &Shape) -> bool {
    match shape {
        Shape::String => {
            !is_written(owner, field) && !POINTER_TEXTS.contains(&field) && !listed(POINTER_TEXTS_OF, owner, field)
        }
        Shape::Integer(_) | Shape::Boolean | Shape::Number => listed(PLAIN_SCALARS, owner, field),
        Shape::List(_) => !writes_null(owner, field) && !listed(KEPT_LISTS, owner, field),
        Shape::Map(_) | Shape::Bytes => true,
        _ => false,
    }
}

/// Whether the field is written as null when there is nothing in it.
pub(crate) fn writes_null(owner: &str, field: &str) -> bool {
    listed(WRITTEN_NULL, owner, field)
}

/// Whether the object in a field that the schema does not require is written all the same.
pub(crate) fn is_plain_struct(owner: &str, field: &str) -> bool {
    listed(PLAIN_STRUCTS, owner, field)
}

/// Whether a required field may be absent.
pub(crate) fn is_required_pointer(owner: &str, field: &str) -> bool {
    listed(REQUIRED_POINTERS, owner, field) || is_required_omitted(owner, field)
}

/// Whether a required field is left out when it is empty.
pub(crate) fn is_required_omitted(owner: &str, field: &str) -> bool {
    listed(REQUIRED_OMITTED, owner, field)
}

/// Whether a field that is not required is written all the same.
pub(crate) fn is_written(owner: &str, field: &str) -> bool {
    listed(WRITTEN, owner, field)
}

/// Every type and field the tables name.
#[cfg(test)]
pub(super) fn every_field() -> impl Iterator<Item = (&'static str, &'static str)> {
    let texts = POINTER_TEXTS_OF.iter().chain(PLAIN_SCALARS).chain(PLAIN_STRUCTS).chain(WRITTEN_NULL);
    let texts = texts.chain(REQUIRED_POINTERS).chain(REQUIRED_OMITTED).chain(WRITTEN).chain(KEPT_LISTS);
    texts.flat_map(|(owner, fields)| fields.iter().map(|field| (*owner, *field)))
}
