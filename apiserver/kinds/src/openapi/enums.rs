//! Texts that are one of a few: `kubectl explain` lists them. The schemas of `k8s-openapi` leave them out.
//!
//! Only descriptions are made of this; what is refused is decided by the rules of the kinds.

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const TRAFFIC: &[&str] = &["Cluster", "Local"];
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "PreferNoSchedule"];
const INCLUSION: &[&str] = &["Honor", "Ignore"];
const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
const PULL: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGES: &[&str] = &["FallbackToLogsOnError", "File"];

/// Type, field, values; sorted by type.
const ENUMS: &[(&str, &str, &[&str])] = &[
    ("AppArmorProfile", "type", PROFILES),
    ("AzureDiskVolumeSource", "cachingMode", &["None", "ReadOnly", "ReadWrite"]),
    ("AzureDiskVolumeSource", "kind", &["Dedicated", "Managed", "Shared"]),
    ("Container", "imagePullPolicy", PULL),
    ("Container", "terminationMessagePolicy", MESSAGES),
    ("ContainerPort", "protocol", PROTOCOLS),
    ("CronJobSpec", "concurrencyPolicy", &["Allow", "Forbid", "Replace"]),
    ("DaemonSetUpdateStrategy", "type", &["OnDelete", "RollingUpdate"]),
    ("DeploymentStrategy", "type", &["Recreate", "RollingUpdate"]),
    ("EndpointPort", "protocol", PROTOCOLS),
    ("EndpointSlice", "addressType", &["FQDN", "IPv4", "IPv6"]),
    ("EphemeralContainer", "imagePullPolicy", PULL),
    ("EphemeralContainer", "terminationMessagePolicy", MESSAGES),
    ("HTTPGetAction", "scheme", &["HTTP", "HTTPS"]),
    (
        "HostPathVolumeSource",
        "type",
        &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"],
    ),
    ("ImageVolumeSource", "pullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("JobSpec", "completionMode", &["Indexed", "NonIndexed"]),
    ("JobSpec", "podReplacementPolicy", &["Failed", "TerminatingOrFailed"]),
    ("ModifyVolumeStatus", "status", &["InProgress", "Infeasible", "Pending"]),
    ("NamespaceStatus", "phase", &["Active", "Terminating"]),
    ("NodeSelectorRequirement", "operator", &["DoesNotExist", "Exists", "Gt", "In", "Lt", "NotIn"]),
    ("PersistentVolumeClaimSpec", "volumeMode", &["Block", "Filesystem"]),
    ("PersistentVolumeClaimStatus", "phase", &["Bound", "Lost", "Pending"]),
    ("PersistentVolumeSpec", "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]),
    ("PersistentVolumeSpec", "volumeMode", &["Block", "Filesystem"]),
    ("PersistentVolumeStatus", "phase", &["Available", "Bound", "Failed", "Pending", "Released"]),
    ("PodDisruptionBudgetSpec", "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]),
    ("PodFailurePolicyOnExitCodesRequirement", "operator", &["In", "NotIn"]),
    ("PodFailurePolicyRule", "action", &["Count", "FailIndex", "FailJob", "Ignore"]),
    ("PodSecurityContext", "fsGroupChangePolicy", &["Always", "OnRootMismatch"]),
    ("PodSecurityContext", "supplementalGroupsPolicy", &["Merge", "Strict"]),
    ("PodSpec", "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]),
    ("PodSpec", "preemptionPolicy", &["Never", "PreemptLowerPriority"]),
    ("PodSpec", "restartPolicy", &["Always", "Never", "OnFailure"]),
    ("PodStatus", "phase", &["Failed", "Pending", "Running", "Succeeded", "Unknown"]),
    ("PodStatus", "qosClass", &["BestEffort", "Burstable", "Guaranteed"]),
    ("ScopedResourceSelectorRequirement", "operator", &["DoesNotExist", "Exists", "In", "NotIn"]),
    (
        "ScopedResourceSelectorRequirement",
        "scopeName",
        &[
            "BestEffort",
            "CrossNamespacePodAffinity",
            "NotBestEffort",
            "NotTerminating",
            "PriorityClass",
            "Terminating",
            "VolumeAttributesClass",
        ],
    ),
    ("SeccompProfile", "type", PROFILES),
    ("SecurityContext", "procMount", &["Default", "Unmasked"]),
    ("ServicePort", "protocol", PROTOCOLS),
    ("ServiceSpec", "externalTrafficPolicy", TRAFFIC),
    ("ServiceSpec", "internalTrafficPolicy", TRAFFIC),
    ("ServiceSpec", "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"]),
    ("ServiceSpec", "sessionAffinity", &["ClientIP", "None"]),
    ("ServiceSpec", "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]),
    ("StatefulSetSpec", "podManagementPolicy", &["OrderedReady", "Parallel"]),
    ("StatefulSetUpdateStrategy", "type", &["OnDelete", "RollingUpdate"]),
    ("Taint", "effect", EFFECTS),
    ("Toleration", "effect", EFFECTS),
    ("Toleration", "operator", &["Equal", "Exists"]),
    ("TopologySpreadConstraint", "nodeAffinityPolicy", INCLUSION),
    ("TopologySpreadConstraint", "nodeTaintsPolicy", INCLUSION),
    ("TopologySpreadConstraint", "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]),
    ("VolumeMount", "mountPropagation", &["Bidirectional", "HostToContainer", "None"]),
];

/// The values a field may have, if they are few.
pub(super) fn values(owner: &str, field: &str) -> Option<&'static [&'static str]> {
    ENUMS.iter().find(|(own, name, _)| *own == owner && *name == field).map(|(_, _, values)| *values)
}

/// Every type and field of the table.
#[cfg(test)]
pub(super) fn fields() -> impl Iterator<Item = (&'static str, &'static str)> {
    ENUMS.iter().map(|(owner, field, _)| (*owner, *field))
}
