//! How lists and maps merge, and what is never left out: what the published schemas of `k8s-openapi` do not say.
//!
//! Source: Kubernetes' OpenAPI documents (`x-kubernetes-list-type`, `-list-map-keys`, `-map-type`, `-patch-strategy`,
//! `-patch-merge-key`, `default`) and the struct tags of `k8s.io/api`, for every GA type, whether it is served
//! or not. Server-side apply asks for all of it, strategic merge patch for the merge keys.

use super::Shape;

/// How a list behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListRule {
    /// `atomic`, `set` or `map`.
    pub(crate) list_type: &'static str,
    /// Keys of a `map` list.
    pub(crate) map_keys: &'static [&'static str],
    /// Key by which strategic merge patch merges the items.
    pub(crate) merge_key: Option<&'static str>,
    /// Whether strategic merge patch merges plain values.
    pub(crate) merge_set: bool,
}

const ATOMIC: ListRule = ListRule { list_type: "atomic", map_keys: &[], merge_key: None, merge_set: false };
const SET: ListRule = ListRule { list_type: "set", map_keys: &[], merge_key: None, merge_set: false };
const MERGED_SET: ListRule = ListRule { merge_set: true, ..SET };

/// A list whose items are told apart by one key, in server-side apply and in strategic merge patch.
const fn keyed(key: &'static [&'static str]) -> ListRule {
    ListRule { list_type: "map", map_keys: key, merge_key: Some(key[0]), merge_set: false }
}

/// A list whose items are told apart in server-side apply only; strategic merge patch replaces it.
const fn keyed_in_apply(key: &'static [&'static str]) -> ListRule {
    ListRule { merge_key: None, ..keyed(key) }
}

/// A list that strategic merge patch merges by a key, and server-side apply replaces.
const fn keyed_in_patch(key: &'static str) -> ListRule {
    ListRule { merge_key: Some(key), ..ATOMIC }
}

/// Lists that are not simply replaced as a whole.
const LISTS: &[(&str, &str, ListRule)] = &[
    ("APIServiceStatus", "conditions", keyed(&["type"])),
    ("AllocatedDeviceStatus", "conditions", keyed_in_apply(&["type"])),
    ("CSIDriverSpec", "volumeLifecycleModes", SET),
    ("CSINodeSpec", "drivers", keyed(&["name"])),
    ("CertificateSigningRequestStatus", "conditions", keyed_in_apply(&["type"])),
    ("ComponentStatus", "conditions", keyed(&["type"])),
    ("Container", "env", keyed(&["name"])),
    ("Container", "ports", keyed(&["containerPort", "protocol"])),
    ("Container", "volumeDevices", keyed(&["devicePath"])),
    ("Container", "volumeMounts", keyed(&["mountPath"])),
    ("ContainerRestartRuleOnExitCodes", "values", SET),
    ("ContainerStatus", "allocatedResourcesStatus", keyed(&["name"])),
    ("ContainerStatus", "volumeMounts", keyed(&["mountPath"])),
    ("CustomResourceDefinitionStatus", "conditions", keyed_in_apply(&["type"])),
    ("DaemonSetStatus", "conditions", keyed(&["type"])),
    ("DeploymentStatus", "conditions", keyed(&["type"])),
    ("Endpoint", "addresses", SET),
    ("EphemeralContainer", "env", keyed(&["name"])),
    ("EphemeralContainer", "ports", keyed(&["containerPort", "protocol"])),
    ("EphemeralContainer", "volumeDevices", keyed(&["devicePath"])),
    ("EphemeralContainer", "volumeMounts", keyed(&["mountPath"])),
    ("FlowSchemaStatus", "conditions", keyed(&["type"])),
    ("HorizontalPodAutoscalerStatus", "conditions", keyed(&["type"])),
    ("JSONSchemaProps", "x-kubernetes-validations", keyed(&["rule"])),
    ("JobStatus", "conditions", keyed_in_patch("type")),
    ("MutatingAdmissionPolicySpec", "matchConditions", keyed(&["name"])),
    ("MutatingWebhook", "matchConditions", keyed(&["name"])),
    ("MutatingWebhookConfiguration", "webhooks", keyed(&["name"])),
    ("NamespaceStatus", "conditions", keyed(&["type"])),
    ("NodeAllocatableResourceClaimStatus", "containers", SET),
    ("NodeSpec", "podCIDRs", MERGED_SET),
    ("NodeStatus", "addresses", keyed(&["type"])),
    ("NodeStatus", "conditions", keyed(&["type"])),
    ("NonResourcePolicyRule", "nonResourceURLs", SET),
    ("NonResourcePolicyRule", "verbs", SET),
    ("ObjectMeta", "finalizers", MERGED_SET),
    ("ObjectMeta", "ownerReferences", keyed(&["uid"])),
    ("PersistentVolumeClaimStatus", "conditions", keyed(&["type"])),
    ("PodDisruptionBudgetStatus", "conditions", keyed(&["type"])),
    ("PodFailurePolicyOnExitCodesRequirement", "values", SET),
    ("PodSpec", "containers", keyed(&["name"])),
    ("PodSpec", "ephemeralContainers", keyed(&["name"])),
    ("PodSpec", "hostAliases", keyed(&["ip"])),
    ("PodSpec", "imagePullSecrets", keyed(&["name"])),
    ("PodSpec", "initContainers", keyed(&["name"])),
    ("PodSpec", "resourceClaims", keyed(&["name"])),
    ("PodSpec", "schedulingGates", keyed(&["name"])),
    ("PodSpec", "topologySpreadConstraints", keyed(&["topologyKey", "whenUnsatisfiable"])),
    ("PodSpec", "volumes", keyed(&["name"])),
    ("PodStatus", "conditions", keyed(&["type"])),
    ("PodStatus", "hostIPs", keyed_in_patch("ip")),
    ("PodStatus", "podIPs", keyed(&["ip"])),
    ("PodStatus", "resourceClaimStatuses", keyed(&["name"])),
    ("PriorityLevelConfigurationStatus", "conditions", keyed(&["type"])),
    ("ReplicaSetStatus", "conditions", keyed(&["type"])),
    ("ReplicationControllerStatus", "conditions", keyed(&["type"])),
    ("ResourceClaimStatus", "devices", keyed_in_apply(&["driver", "device", "pool", "shareID"])),
    ("ResourceClaimStatus", "reservedFor", keyed(&["uid"])),
    ("ResourcePolicyRule", "apiGroups", SET),
    ("ResourcePolicyRule", "namespaces", SET),
    ("ResourcePolicyRule", "resources", SET),
    ("ResourcePolicyRule", "verbs", SET),
    ("ResourceRequirements", "claims", keyed_in_apply(&["name"])),
    ("ResourceStatus", "resources", keyed_in_apply(&["resourceID"])),
    ("ServiceAccount", "secrets", keyed(&["name"])),
    ("ServiceCIDRStatus", "conditions", keyed(&["type"])),
    ("ServiceSpec", "ports", keyed(&["port", "protocol"])),
    ("ServiceStatus", "conditions", keyed(&["type"])),
    ("StatefulSetStatus", "conditions", keyed(&["type"])),
    ("UncountedTerminatedPods", "failed", SET),
    ("UncountedTerminatedPods", "succeeded", SET),
    ("ValidatingAdmissionPolicyBindingSpec", "validationActions", SET),
    ("ValidatingAdmissionPolicySpec", "matchConditions", keyed(&["name"])),
    ("ValidatingAdmissionPolicySpec", "variables", keyed(&["name"])),
    ("ValidatingAdmissionPolicyStatus", "conditions", keyed_in_apply(&["type"])),
    ("ValidatingWebhook", "matchConditions", keyed(&["name"])),
    ("ValidatingWebhookConfiguration", "webhooks", keyed(&["name"])),
];

/// Fields where strategic merge patch keeps only the keys in `$retainKeys`.
const RETAIN_KEYS: &[(&str, &str)] = &[
    ("DeploymentSpec", "strategy"),
    ("PodSpec", "resourceClaims"),
    ("PodSpec", "volumes"),
    ("PodStatus", "resourceClaimStatuses"),
];

/// Types that server-side apply replaces as a whole: the end of their definition's name.
const ATOMIC_TYPES: &[&str] = &[
    "admissionregistration.v1.MatchResources",
    "admissionregistration.v1.NamedRuleWithOperations",
    "admissionregistration.v1.ParamKind",
    "admissionregistration.v1.ParamRef",
    "admissionregistration.v1.Variable",
    "autoscaling.v1.CrossVersionObjectReference",
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.FileKeySelector",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.ScopeSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TopologySelectorTerm",
    "core.v1.TypedLocalObjectReference",
    "discovery.v1.EndpointPort",
    "meta.v1.LabelSelector",
    "meta.v1.OwnerReference",
    "networking.v1.ServiceBackendPort",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
];

/// Fields whose maps or objects are replaced as a whole (true) or merge (false), whatever their type says.
const MAP_FIELDS: &[(&str, &str, bool)] = &[
    ("ControllerRevision", "data", true),
    ("PersistentVolumeClaimStatus", "allocatedResourceStatuses", false),
    ("PersistentVolumeSpec", "claimRef", false),
    ("PodSpec", "nodeSelector", true),
    ("ReplicationControllerSpec", "selector", true),
    ("Scheduling", "nodeSelector", true),
    ("ServiceSpec", "selector", true),
];

/// Fields that a Go object always has, even when nobody has set them: objects that are no pointers, and what is
/// written without `omitempty`. Their coming into being is no change.
const HELD: &[(&str, &[&str])] = &[
    ("APIService", &["metadata", "spec", "status"]),
    ("APIServiceCondition", &["lastTransitionTime", "status", "type"]),
    ("APIServiceSpec", &["groupPriorityMinimum", "versionPriority"]),
    ("AWSElasticBlockStoreVolumeSource", &["volumeID"]),
    ("AllocatedDeviceStatus", &["conditions", "device", "driver", "pool"]),
    ("AllocationResult", &["devices"]),
    ("AppArmorProfile", &["type"]),
    ("AttachedVolume", &["devicePath", "name"]),
    ("AuditAnnotation", &["key", "valueExpression"]),
    ("AzureDiskVolumeSource", &["diskName", "diskURI"]),
    ("AzureFilePersistentVolumeSource", &["secretName", "secretNamespace", "shareName"]),
    ("AzureFileVolumeSource", &["secretName", "shareName"]),
    ("Binding", &["metadata", "target"]),
    ("CELDeviceSelector", &["expression"]),
    ("CSIDriver", &["metadata", "spec"]),
    ("CSINode", &["metadata", "spec"]),
    ("CSINodeDriver", &["name", "nodeID", "topologyKeys"]),
    ("CSINodeSpec", &["drivers"]),
    ("CSIPersistentVolumeSource", &["driver", "volumeHandle"]),
    ("CSIStorageCapacity", &["metadata", "storageClassName"]),
    ("CSIVolumeSource", &["driver"]),
    ("CapacityRequestPolicy", &["default"]),
    ("CephFSPersistentVolumeSource", &["monitors"]),
    ("CephFSVolumeSource", &["monitors"]),
    ("CertificateSigningRequest", &["metadata", "spec", "status"]),
    ("CertificateSigningRequestCondition", &["lastTransitionTime", "lastUpdateTime", "status", "type"]),
    ("CertificateSigningRequestSpec", &["request", "signerName"]),
    ("CinderPersistentVolumeSource", &["volumeID"]),
    ("CinderVolumeSource", &["volumeID"]),
    ("ClusterRole", &["metadata", "rules"]),
    ("ClusterRoleBinding", &["metadata", "roleRef"]),
    ("ClusterTrustBundleProjection", &["path"]),
    ("ComponentCondition", &["status", "type"]),
    ("ComponentStatus", &["metadata"]),
    ("Condition", &["lastTransitionTime", "message", "reason", "status", "type"]),
    ("ConfigMap", &["metadata"]),
    ("ConfigMapKeySelector", &["key"]),
    ("ConfigMapNodeConfigSource", &["kubeletConfigKey", "name", "namespace"]),
    ("Container", &["name", "resources"]),
    ("ContainerExtendedResourceRequest", &["containerName", "requestName", "resourceName"]),
    ("ContainerImage", &["names"]),
    ("ContainerPort", &["containerPort"]),
    ("ContainerResizePolicy", &["resourceName", "restartPolicy"]),
    ("ContainerResourceMetricSource", &["container", "name", "target"]),
    ("ContainerResourceMetricStatus", &["container", "current", "name"]),
    ("ContainerStateRunning", &["startedAt"]),
    ("ContainerStateTerminated", &["exitCode", "finishedAt", "startedAt"]),
    ("ContainerStatus", &["image", "imageID", "lastState", "name", "ready", "restartCount", "state"]),
    ("ControllerRevision", &["data", "metadata", "revision"]),
    ("Counter", &["value"]),
    ("CounterSet", &["name"]),
    ("CronJob", &["metadata", "spec", "status"]),
    ("CronJobSpec", &["jobTemplate", "schedule"]),
    ("CrossVersionObjectReference", &["kind", "name"]),
    ("CustomResourceColumnDefinition", &["jsonPath", "name", "type"]),
    ("CustomResourceConversion", &["strategy"]),
    ("CustomResourceDefinition", &["metadata", "spec", "status"]),
    ("CustomResourceDefinitionCondition", &["lastTransitionTime", "status", "type"]),
    ("CustomResourceDefinitionNames", &["kind", "plural"]),
    ("CustomResourceDefinitionSpec", &["group", "names", "scope", "versions"]),
    ("CustomResourceDefinitionStatus", &["acceptedNames", "conditions", "storedVersions"]),
    ("CustomResourceDefinitionVersion", &["name", "served", "storage"]),
    ("CustomResourceSubresourceScale", &["specReplicasPath", "statusReplicasPath"]),
    ("DaemonEndpoint", &["Port"]),
    ("DaemonSet", &["metadata", "spec", "status"]),
    ("DaemonSetCondition", &["lastTransitionTime", "status", "type"]),
    ("DaemonSetSpec", &["selector", "template", "updateStrategy"]),
    ("DaemonSetStatus", &["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"]),
    ("Deployment", &["metadata", "spec", "status"]),
    ("DeploymentCondition", &["lastTransitionTime", "lastUpdateTime", "status", "type"]),
    ("DeploymentSpec", &["selector", "strategy", "template"]),
    ("Device", &["name"]),
    ("DeviceAllocationConfiguration", &["source"]),
    ("DeviceCapacity", &["value"]),
    ("DeviceClaim", &["requests"]),
    ("DeviceClass", &["metadata", "spec"]),
    ("DeviceCounterConsumption", &["counterSet"]),
    ("DeviceRequest", &["name"]),
    ("DeviceRequestAllocationResult", &["device", "driver", "pool", "request"]),
    ("DeviceSubRequest", &["deviceClassName", "name"]),
    ("DeviceTaint", &["effect", "key"]),
    ("DownwardAPIVolumeFile", &["path"]),
    ("Endpoint", &["addresses", "conditions"]),
    ("EndpointAddress", &["ip"]),
    ("EndpointSlice", &["addressType", "endpoints", "metadata", "ports"]),
    ("Endpoints", &["metadata"]),
    ("EnvVar", &["name"]),
    ("EphemeralContainer", &["name", "resources"]),
    (
        "Event",
        &[
            "deprecatedFirstTimestamp",
            "deprecatedLastTimestamp",
            "deprecatedSource",
            "eventTime",
            "firstTimestamp",
            "involvedObject",
            "lastTimestamp",
            "metadata",
            "regarding",
            "reportingComponent",
            "reportingInstance",
            "source",
        ],
    ),
    ("EventSeries", &["lastObservedTime"]),
    ("Eviction", &["metadata"]),
    ("ExactDeviceRequest", &["deviceClassName"]),
    ("ExpressionWarning", &["fieldRef", "warning"]),
    ("ExternalMetricSource", &["metric", "target"]),
    ("ExternalMetricStatus", &["current", "metric"]),
    ("FieldSelectorRequirement", &["key", "operator"]),
    ("FileKeySelector", &["key", "path", "volumeName"]),
    ("FlexPersistentVolumeSource", &["driver"]),
    ("FlexVolumeSource", &["driver"]),
    ("FlowDistinguisherMethod", &["type"]),
    ("FlowSchema", &["metadata", "spec", "status"]),
    ("FlowSchemaCondition", &["lastTransitionTime"]),
    ("FlowSchemaSpec", &["matchingPrecedence", "priorityLevelConfiguration"]),
    ("ForNode", &["name"]),
    ("ForZone", &["name"]),
    ("GCEPersistentDiskVolumeSource", &["pdName"]),
    ("GRPCAction", &["port", "service"]),
    ("GitRepoVolumeSource", &["repository"]),
    ("GlusterfsPersistentVolumeSource", &["endpoints", "path"]),
    ("GlusterfsVolumeSource", &["endpoints", "path"]),
    ("GroupSubject", &["name"]),
    ("HPAScalingPolicy", &["periodSeconds", "type", "value"]),
    ("HTTPGetAction", &["port"]),
    ("HTTPHeader", &["name", "value"]),
    ("HTTPIngressPath", &["backend", "pathType"]),
    ("HTTPIngressRuleValue", &["paths"]),
    ("HorizontalPodAutoscaler", &["metadata", "spec", "status"]),
    ("HorizontalPodAutoscalerCondition", &["lastTransitionTime", "status", "type"]),
    ("HorizontalPodAutoscalerSpec", &["maxReplicas", "scaleTargetRef"]),
    ("HorizontalPodAutoscalerStatus", &["currentMetrics", "desiredReplicas"]),
    ("HostAlias", &["ip"]),
    ("HostIP", &["ip"]),
    ("HostPathVolumeSource", &["path"]),
    ("IPAddress", &["metadata", "spec"]),
    ("IPBlock", &["cidr"]),
    ("ISCSIPersistentVolumeSource", &["iqn", "lun", "targetPortal"]),
    ("ISCSIVolumeSource", &["iqn", "lun", "targetPortal"]),
    ("Ingress", &["metadata", "spec", "status"]),
    ("IngressClass", &["metadata", "spec"]),
    ("IngressClassParametersReference", &["kind", "name", "scope"]),
    ("IngressPortStatus", &["port", "protocol"]),
    ("IngressServiceBackend", &["name", "port"]),
    ("IngressStatus", &["loadBalancer"]),
    ("Job", &["metadata", "spec", "status"]),
    ("JobCondition", &["lastProbeTime", "lastTransitionTime", "status", "type"]),
    ("JobSpec", &["template"]),
    ("JobTemplateSpec", &["metadata", "spec"]),
    ("KeyToPath", &["key", "path"]),
    ("LabelSelectorRequirement", &["key", "operator"]),
    ("Lease", &["metadata", "spec"]),
    ("LimitRange", &["metadata", "spec"]),
    ("LimitRangeItem", &["type"]),
    ("LimitRangeSpec", &["limits"]),
    ("LimitResponse", &["type"]),
    ("LimitedPriorityLevelConfiguration", &["limitResponse", "nominalConcurrencyShares"]),
    ("LinuxContainerUser", &["gid", "uid"]),
    ("LocalSubjectAccessReview", &["metadata", "spec", "status"]),
    ("LocalVolumeSource", &["path"]),
    ("MatchCondition", &["expression", "name"]),
    ("MetricIdentifier", &["name"]),
    ("MetricSpec", &["type"]),
    ("MetricStatus", &["type"]),
    ("MetricTarget", &["type"]),
    ("ModifyVolumeStatus", &["status"]),
    ("MutatingAdmissionPolicy", &["metadata", "spec"]),
    ("MutatingAdmissionPolicyBinding", &["metadata", "spec"]),
    ("MutatingWebhook", &["admissionReviewVersions", "clientConfig", "name", "sideEffects"]),
    ("MutatingWebhookConfiguration", &["metadata"]),
    ("Mutation", &["patchType"]),
    ("NFSVolumeSource", &["path", "server"]),
    ("Namespace", &["metadata", "spec", "status"]),
    ("NamespaceCondition", &["lastTransitionTime", "status", "type"]),
    ("NetworkPolicy", &["metadata", "spec"]),
    ("NetworkPolicySpec", &["podSelector"]),
    ("Node", &["metadata", "spec", "status"]),
    ("NodeAddress", &["address", "type"]),
    ("NodeAllocatableResourceClaimStatus", &["resourceClaimName", "resources"]),
    ("NodeCondition", &["lastHeartbeatTime", "lastTransitionTime", "status", "type"]),
    ("NodeDaemonEndpoints", &["kubeletEndpoint"]),
    ("NodeRuntimeHandler", &["name"]),
    ("NodeSelector", &["nodeSelectorTerms"]),
    ("NodeSelectorRequirement", &["key", "operator"]),
    ("NodeStatus", &["daemonEndpoints", "nodeInfo"]),
    (
        "NodeSystemInfo",
        &[
            "architecture",
            "bootID",
            "containerRuntimeVersion",
            "kernelVersion",
            "kubeProxyVersion",
            "kubeletVersion",
            "machineID",
            "operatingSystem",
            "osImage",
            "systemUUID",
        ],
    ),
    ("NonResourcePolicyRule", &["nonResourceURLs", "verbs"]),
    ("NonResourceRule", &["verbs"]),
    ("ObjectFieldSelector", &["fieldPath"]),
    ("ObjectMetricSource", &["describedObject", "metric", "target"]),
    ("ObjectMetricStatus", &["current", "describedObject", "metric"]),
    ("OpaqueDeviceConfiguration", &["driver", "parameters"]),
    ("OwnerReference", &["apiVersion", "kind", "name", "uid"]),
    ("PersistentVolume", &["metadata", "spec", "status"]),
    ("PersistentVolumeClaim", &["metadata", "spec", "status"]),
    ("PersistentVolumeClaimCondition", &["lastProbeTime", "lastTransitionTime", "status", "type"]),
    ("PersistentVolumeClaimSpec", &["resources"]),
    ("PersistentVolumeClaimTemplate", &["metadata", "spec"]),
    ("PersistentVolumeClaimVolumeSource", &["claimName"]),
    ("PhotonPersistentDiskVolumeSource", &["pdID"]),
    ("Pod", &["metadata", "spec", "status"]),
    ("PodAffinityTerm", &["topologyKey"]),
    ("PodCondition", &["lastProbeTime", "lastTransitionTime", "status", "type"]),
    ("PodDisruptionBudget", &["metadata", "spec", "status"]),
    ("PodDisruptionBudgetStatus", &["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"]),
    ("PodExtendedResourceClaimStatus", &["requestMappings", "resourceClaimName"]),
    ("PodFailurePolicy", &["rules"]),
    ("PodFailurePolicyOnExitCodesRequirement", &["operator", "values"]),
    ("PodFailurePolicyOnPodConditionsPattern", &["status", "type"]),
    ("PodFailurePolicyRule", &["action"]),
    ("PodIP", &["ip"]),
    ("PodOS", &["name"]),
    ("PodReadinessGate", &["conditionType"]),
    ("PodResourceClaim", &["name"]),
    ("PodResourceClaimStatus", &["name"]),
    ("PodSchedulingGate", &["name"]),
    ("PodSpec", &["containers"]),
    ("PodStatusResult", &["metadata", "status"]),
    ("PodTemplate", &["metadata", "template"]),
    ("PodTemplateSpec", &["metadata", "spec"]),
    ("PodsMetricSource", &["metric", "target"]),
    ("PodsMetricStatus", &["current", "metric"]),
    ("PolicyRule", &["verbs"]),
    ("PolicyRulesWithSubjects", &["subjects"]),
    ("PortStatus", &["port", "protocol"]),
    ("PortworxVolumeSource", &["volumeID"]),
    ("PreferredSchedulingTerm", &["preference", "weight"]),
    ("PriorityClass", &["metadata", "value"]),
    ("PriorityLevelConfiguration", &["metadata", "spec", "status"]),
    ("PriorityLevelConfigurationCondition", &["lastTransitionTime"]),
    ("PriorityLevelConfigurationReference", &["name"]),
    ("PriorityLevelConfigurationSpec", &["type"]),
    ("ProjectedVolumeSource", &["sources"]),
    ("QueuingConfiguration", &["handSize", "queueLengthLimit", "queues"]),
    ("QuobyteVolumeSource", &["registry", "volume"]),
    ("RBDPersistentVolumeSource", &["image", "monitors"]),
    ("RBDVolumeSource", &["image", "monitors"]),
    ("RangeAllocation", &["data", "metadata", "range"]),
    ("ReplicaSet", &["metadata", "spec", "status"]),
    ("ReplicaSetCondition", &["lastTransitionTime", "status", "type"]),
    ("ReplicaSetSpec", &["selector", "template"]),
    ("ReplicaSetStatus", &["replicas"]),
    ("ReplicationController", &["metadata", "spec", "status"]),
    ("ReplicationControllerCondition", &["lastTransitionTime", "status", "type"]),
    ("ReplicationControllerStatus", &["replicas"]),
    ("ResourceClaim", &["metadata", "name", "spec", "status"]),
    ("ResourceClaimConsumerReference", &["name", "resource", "uid"]),
    ("ResourceClaimSpec", &["devices"]),
    ("ResourceClaimTemplate", &["metadata", "spec"]),
    ("ResourceClaimTemplateSpec", &["metadata", "spec"]),
    ("ResourceFieldSelector", &["divisor", "resource"]),
    ("ResourceHealth", &["resourceID"]),
    ("ResourceMetricSource", &["name", "target"]),
    ("ResourceMetricStatus", &["current", "name"]),
    ("ResourcePolicyRule", &["apiGroups", "namespaces", "resources", "verbs"]),
    ("ResourcePool", &["generation", "name", "resourceSliceCount"]),
    ("ResourceQuota", &["metadata", "spec", "status"]),
    ("ResourceRule", &["verbs"]),
    ("ResourceSlice", &["metadata", "spec"]),
    ("ResourceSliceSpec", &["driver", "pool"]),
    ("ResourceStatus", &["name"]),
    ("Role", &["metadata", "rules"]),
    ("RoleBinding", &["metadata", "roleRef"]),
    ("RoleRef", &["apiGroup", "kind", "name"]),
    ("RuntimeClass", &["handler", "metadata"]),
    ("Scale", &["metadata", "spec", "status"]),
    ("ScaleIOPersistentVolumeSource", &["gateway", "secretRef", "system"]),
    ("ScaleIOVolumeSource", &["gateway", "secretRef", "system"]),
    ("ScaleStatus", &["replicas"]),
    ("ScopedResourceSelectorRequirement", &["operator", "scopeName"]),
    ("SeccompProfile", &["type"]),
    ("Secret", &["metadata"]),
    ("SecretKeySelector", &["key"]),
    ("SelectableField", &["jsonPath"]),
    ("SelfSubjectAccessReview", &["metadata", "spec", "status"]),
    ("SelfSubjectReview", &["metadata", "status"]),
    ("SelfSubjectReviewStatus", &["userInfo"]),
    ("SelfSubjectRulesReview", &["metadata", "spec", "status"]),
    ("Service", &["metadata", "spec", "status"]),
    ("ServiceAccount", &["metadata"]),
    ("ServiceAccountSubject", &["name", "namespace"]),
    ("ServiceAccountTokenProjection", &["path"]),
    ("ServiceCIDR", &["metadata", "spec", "status"]),
    ("ServicePort", &["port", "targetPort"]),
    ("ServiceStatus", &["loadBalancer"]),
    ("SleepAction", &["seconds"]),
    ("StatefulSet", &["metadata", "spec", "status"]),
    ("StatefulSetCondition", &["lastTransitionTime", "status", "type"]),
    ("StatefulSetOrdinals", &["start"]),
    ("StatefulSetSpec", &["selector", "serviceName", "template", "updateStrategy"]),
    ("StatefulSetStatus", &["availableReplicas", "replicas"]),
    ("StorageClass", &["metadata", "provisioner"]),
    ("Subject", &["kind", "name"]),
    ("SubjectAccessReview", &["metadata", "spec", "status"]),
    ("SubjectAccessReviewStatus", &["allowed"]),
    ("SubjectRulesReviewStatus", &["incomplete", "nonResourceRules", "resourceRules"]),
    ("SuccessPolicy", &["rules"]),
    ("Sysctl", &["name", "value"]),
    ("TCPSocketAction", &["port"]),
    ("Taint", &["effect", "key"]),
    ("TokenReview", &["metadata", "spec", "status"]),
    ("TokenReviewStatus", &["user"]),
    ("TopologySelectorLabelRequirement", &["key", "values"]),
    ("TopologySpreadConstraint", &["maxSkew", "topologyKey", "whenUnsatisfiable"]),
    ("TypedLocalObjectReference", &["apiGroup", "kind", "name"]),
    ("TypedObjectReference", &["apiGroup", "kind", "name"]),
    ("UserSubject", &["name"]),
    ("ValidatingAdmissionPolicy", &["metadata", "spec", "status"]),
    ("ValidatingAdmissionPolicyBinding", &["metadata", "spec"]),
    ("ValidatingWebhook", &["admissionReviewVersions", "clientConfig", "name", "sideEffects"]),
    ("ValidatingWebhookConfiguration", &["metadata"]),
    ("Validation", &["expression"]),
    ("ValidationRule", &["rule"]),
    ("Variable", &["expression", "name"]),
    ("Volume", &["name"]),
    ("VolumeAttachment", &["metadata", "spec", "status"]),
    ("VolumeAttachmentSpec", &["attacher", "nodeName", "source"]),
    ("VolumeAttachmentStatus", &["attached"]),
    ("VolumeAttributesClass", &["driverName", "metadata"]),
    ("VolumeDevice", &["devicePath", "name"]),
    ("VolumeError", &["time"]),
    ("VolumeMount", &["mountPath", "name"]),
    ("VolumeMountStatus", &["mountPath", "name"]),
    ("VsphereVirtualDiskVolumeSource", &["volumePath"]),
    ("WebhookConversion", &["conversionReviewVersions"]),
    ("WeightedPodAffinityTerm", &["podAffinityTerm", "weight"]),
];

/// How the list in a field behaves; atomic unless the table says otherwise.
pub(crate) fn list(owner: &str, field: &str) -> ListRule {
    LISTS.iter().find(|(own, name, _)| *own == owner && *name == field).map_or(ATOMIC, |(_, _, rule)| *rule)
}

/// Whether `$retainKeys` is used for the field.
pub(crate) fn retains_keys(owner: &str, field: &str) -> bool {
    RETAIN_KEYS.contains(&(owner, field))
}

/// Whether objects of the definition `io.k8s.api.core.v1.ObjectReference` are replaced as a whole.
pub(crate) fn is_atomic_type(definition: &str) -> bool {
    ATOMIC_TYPES.iter().any(|end| definition.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')))
}

/// Whether the map or object in the field is replaced as a whole, where that is not as its type says.
pub(crate) fn map_field(owner: &str, field: &str) -> Option<bool> {
    MAP_FIELDS.iter().find(|(own, name, _)| *own == owner && *name == field).map(|(.., atomic)| *atomic)
}

/// Whether a Go object always has the field.
pub(crate) fn is_held(owner: &str, field: &str) -> bool {
    let found = HELD.binary_search_by(|(own, _)| (*own).cmp(owner));
    found.is_ok_and(|index| HELD[index].1.contains(&field))
}

/// What a key of a list's items is when an item does not have it. All keys but these are texts and numbers
/// that every item has, or that Go would take for empty or zero.
pub(crate) fn key_default(owner: &str, field: &str, shape: &Shape) -> Option<serde_json::Value> {
    match (owner, field) {
        ("ContainerPort" | "ServicePort", "protocol") => Some("TCP".into()),
        ("ObjectReference", "name")
        | ("FlowSchemaCondition" | "PriorityLevelConfigurationCondition", "type")
        | ("AllocatedDeviceStatus", "shareID") => None,
        _ => match shape {
            Shape::String => Some("".into()),
            Shape::Integer(_) => Some(0.into()),
            _ => None,
        },
    }
}

/// Every type and field the tables name.
#[cfg(test)]
pub(super) fn every_field() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lists = LISTS.iter().map(|(owner, field, _)| (*owner, *field));
    let held = HELD.iter().flat_map(|(owner, fields)| fields.iter().map(|field| (*owner, *field)));
    let maps = MAP_FIELDS.iter().map(|(owner, field, _)| (*owner, *field));
    lists.chain(held).chain(maps).chain(RETAIN_KEYS.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_held_fields_is_sorted_as_the_search_needs_it() {
        assert!(HELD.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(is_held("Deployment", "spec") && !is_held("Deployment", "spe") && !is_held("Nothing", "spec"));
    }

    #[test]
    fn a_type_is_atomic_by_its_whole_name() {
        assert!(is_atomic_type("io.k8s.api.rbac.v1.Subject"));
        assert!(!is_atomic_type("io.k8s.api.flowcontrol.v1.Subject"));
        assert!(!is_atomic_type("io.k8s.api.autoscaling.v2.CrossVersionObjectReference"));
    }
}
