//! Rules of pods, field group by field group, in the order and the words of the Kubernetes sources.

use crate::testing::*;

#[test]
fn a_container_may_say_which_exits_restart_it() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {restartPolicy: Never, containers: [{name: c, image: web, restartPolicy: OnFailure, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1, 1]}}, {action: Stop, exitCodes: {operator: Like, values: []}}, {action: Restart}]}]}}",
        &[
            "spec.containers[0].restartPolicyRules[1].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\"",
            "spec.containers[0].restartPolicyRules[1].exitCodes.operator: Unsupported value: \"Like\": supported values: \"In\", \"NotIn\"",
            "spec.containers[0].restartPolicyRules[2].exitCodes: Required value: must be specified",
        ],
    );
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {containers: [{name: c, image: web, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}]}]}}",
        &["spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used"],
    );
}

#[test]
fn a_variable_may_come_from_a_file() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {volumes: [{name: e, emptyDir: {}}], containers: [{name: c, image: web, env: [{name: A, valueFrom: {fileKeyRef: {volumeName: '', path: /abs, key: 'a b'}}}, {name: B, valueFrom: {fileKeyRef: {volumeName: E, path: ../x, key: k}}}]}]}}",
        &[
            "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Required value",
            "spec.containers[0].env[1].valueFrom.fileKeyRef.volumeName: Invalid value: \"E\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.containers[0].env[1].valueFrom.fileKeyRef.path: Invalid value: \"../x\": must not contain '..'",
            "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: \"\"",
            "spec.containers[0].env[1].valueFrom.fileKeyRef.volumeName: Not found: \"E\"",
        ],
    );
}

#[test]
fn a_pod_for_windows_has_no_linux_settings_and_the_reverse() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {os: {name: windows}, hostPID: true, securityContext: {runAsUser: 1, sysctls: [{name: a, value: b}]}, containers: [{name: c, image: web, securityContext: {privileged: true, capabilities: {add: [X]}, readOnlyRootFilesystem: true}}]}}",
        &[
            "spec.hostPID: Forbidden: cannot be set for a windows pod",
            "spec.securityContext.sysctls: Forbidden: cannot be set for a windows pod",
            "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
            "spec.containers[0].securityContext.capabilities: Forbidden: cannot be set for a windows pod",
            "spec.containers[0].securityContext.readOnlyRootFilesystem: Forbidden: cannot be set for a windows pod",
            "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
        ],
    );
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {os: {name: linux}, securityContext: {windowsOptions: {runAsUserName: x}}, containers: [{name: c, image: web}]}}",
        &["spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"],
    );
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {os: {name: plan9}, containers: [{name: c, image: web}]}}",
        &["spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
    );
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {securityContext: {windowsOptions: {hostProcess: true, gmsaCredentialSpecName: 'A_b', runAsUserName: 'a\\\\b\\\\c'}}, containers: [{name: c, image: web}]}}",
        &[
            "spec.securityContext.windowsOptions.gmsaCredentialSpecName: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.securityContext.windowsOptions.runAsUserName: Invalid value: \"a\\\\\\\\b\\\\\\\\c\": runAsUserName cannot contain more than one backslash",
            "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
        ],
    );
}

#[test]
fn a_hostname_that_overrides_has_rules_of_its_own() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {hostnameOverride: A_b, setHostnameAsFQDN: true, hostNetwork: true, containers: [{name: c, image: web}]}}",
        &[
            "spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
            "spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
            "spec.hostnameOverride: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {hostnameOverride: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa', containers: [{name: c, image: web}]}}",
        &["spec.hostnameOverride: Too long: may not be more than 64 bytes"],
    );
}

#[test]
fn volumes_of_every_source_are_checked() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {volumes: [{name: a, nfs: {server: '', path: x/..}}, {name: b, iscsi: {targetPortal: '', iqn: bad, lun: 300}}, {name: c, csi: {driver: 'A b'}}, {name: d, persistentVolumeClaim: {claimName: ''}}, {name: e, ephemeral: {}}, {name: f, gitRepo: {repository: '', directory: /x}}, {name: g, emptyDir: {sizeLimit: '-1'}}, {name: h, rbd: {}}, {name: i, image: {reference: '', pullPolicy: Now}}, {name: j, configMap: {name: ''}}, {name: k, secret: {secretName: s, defaultMode: 999}}], containers: [{name: c, image: web}]}}",
        &[
            "spec.volumes[0].nfs.server: Required value",
            "spec.volumes[0].nfs.path: Invalid value: \"x/..\": must be an absolute path",
            "spec.volumes[1].iscsi.targetPortal: Required value",
            "spec.volumes[1].iscsi.iqn: Invalid value: \"bad\": must be valid format starting with iqn, eui, or naa",
            "spec.volumes[1].iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
            "spec.volumes[2].csi.driver: Invalid value: \"A b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.volumes[3].persistentVolumeClaim.claimName: Required value",
            "spec.volumes[4].ephemeral.volumeClaimTemplate: Required value",
            "spec.volumes[5].gitRepo.repository: Required value",
            "spec.volumes[5].gitRepo.directory: Invalid value: \"/x\": must be a relative path",
            "spec.volumes[6].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
            "spec.volumes[7].rbd.monitors: Required value",
            "spec.volumes[7].rbd.image: Required value",
            "spec.volumes[8].image.reference: Required value",
            "spec.volumes[8].image.pullPolicy: Unsupported value: \"Now\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            "spec.volumes[9].configMap.name: Required value",
            "spec.volumes[10].secret.defaultMode: Invalid value: 999: must be a number between 0 and 0777 (octal), both inclusive",
        ],
    );
}

#[test]
fn sources_of_a_projected_volume_are_checked() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {volumes: [{name: a, projected: {defaultMode: -1, sources: [{}, {secret: {name: s, items: [{key: '', path: p}]}, configMap: {name: m}}, {serviceAccountToken: {path: '', expirationSeconds: 5}}, {serviceAccountToken: {path: ../t, expirationSeconds: 99999999999}}, {downwardAPI: {items: [{path: l, fieldRef: {fieldPath: spec.nodeName}}, {path: x}, {path: y, resourceFieldRef: {resource: limits.cpu}}]}}, {clusterTrustBundle: {path: b}}]}}], containers: [{name: c, image: web}]}}",
        &[
            "spec.volumes[0].projected.defaultMode: Invalid value: -1: must be a number between 0 and 0777 (octal), both inclusive",
            "spec.volumes[0].projected.sources[1].secret.items[0].key: Required value",
            "spec.volumes[0].projected.sources[1]: Forbidden: may not specify more than 1 volume type per source",
            "spec.volumes[0].projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
            "spec.volumes[0].projected.path: Required value",
            "spec.volumes[0].projected.sources[3].serviceAccountToken.expirationSeconds: Invalid value: 99999999999: may not specify a duration larger than 2^32 seconds",
            "spec.volumes[0].projected.path: Invalid value: \"../t\": must not contain '..'",
            "spec.volumes[0].projected.sources[4].downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
            "spec.volumes[0].projected.sources[4].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
            "spec.volumes[0].projected.sources[4].downwardAPI.resourceFieldRef.containerName: Required value",
            "spec.volumes[0].projected.sources[2].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
            "spec.volumes[0].projected.sources[3].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
        ],
    );
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {volumes: [{name: a, projected: {sources: [{secret: {name: s, items: [{key: k, path: p}]}}, {configMap: {name: m, items: [{key: k, path: p}]}}]}}], containers: [{name: c, image: web}]}}",
        &["spec.volumes[0].projected: Invalid value: \"m\": conflicting duplicate paths"],
    );
}

#[test]
fn annotations_that_kubernetes_reads_are_checked() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n, annotations: {kubernetes.io/config.mirror: x, controller.kubernetes.io/pod-deletion-cost: '1.5', 'Bad Key': x, container.apparmor.security.beta.kubernetes.io/c: what}}, spec: {containers: [{name: c, image: web}]}}",
        &[
            "metadata.annotations: Invalid value: \"Bad Key\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
            "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"1.5\": must be a 32bit integer",
            "metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: Invalid value: \"what\": invalid AppArmor profile name: \"what\"",
        ],
    );
}

#[test]
fn gates_claims_and_readiness_gates_are_checked() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {schedulingGates: [{name: a}, {name: a}, {name: 'b c'}], readinessGates: [{conditionType: 'a b'}], nodeName: n1, resourceClaims: [{name: x, resourceClaimName: A}, {name: x}], containers: [{name: c, image: web}]}}",
        &[
            "spec.resourceClaims[0].resourceClaimName: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.resourceClaims[1].name: Duplicate value: \"x\"",
            "spec.resourceClaims[1]: Invalid value: {\"Name\":\"x\",\"ResourceClaimName\":null,\"ResourceClaimTemplateName\":null}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            "spec.readinessGates[0].conditionType: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "spec.schedulingGates[1]: Duplicate value: \"a\"",
            "spec.schedulingGates[2]: Invalid value: \"b c\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ],
    );
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {priority: 5, preemptionPolicy: Sometimes, overhead: {cpu: '-1'}, runtimeClassName: A, schedulerName: '', subdomain: A, activeDeadlineSeconds: 0, imagePullSecrets: [{name: ''}], hostAliases: [{ip: 1.2.3, hostnames: [A_b]}], dnsConfig: {nameservers: [a, 1.1.1.1, 1.1.1.2, 1.1.1.3], searches: ['-'], options: [{value: x}]}, containers: [{name: c, image: web}]}}",
        &[
            "spec.dnsConfig.nameservers: Invalid value: [\"a\",\"1.1.1.1\",\"1.1.1.2\",\"1.1.1.3\"]: must not have more than 3 nameservers",
            "spec.dnsConfig.nameservers[0]: Invalid value: \"a\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "spec.dnsConfig.searches[0]: Invalid value: \"-\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')",
            "spec.dnsConfig.options[0]: Required value: must not be empty",
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            "spec.subdomain: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.hostAliases[0].ip: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "spec.hostAliases[0].hostnames[0]: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.runtimeClassName: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.preemptionPolicy: Unsupported value: \"Sometimes\": supported values: \"PreemptLowerPriority\", \"Never\"",
            "spec.overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
}

#[test]
fn mounts_are_checked_with_what_they_mount() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {volumes: [{name: e, emptyDir: {}}], containers: [{name: c, image: web, volumeMounts: [{name: e, mountPath: '', subPath: /x}, {name: e, mountPath: /b, subPath: a, subPathExpr: b, mountPropagation: Bidirectional}, {name: e, mountPath: /c, recursiveReadOnly: Enabled}, {name: e, mountPath: 'd:e', subPath: a/../b}], volumeDevices: [{name: e, devicePath: /x}]}]}}",
        &[
            "spec.containers[0].volumeMounts[0].mountPath: Required value",
            "spec.containers[0].volumeMounts[0].name: Invalid value: \"e\": must not already exist in volumeDevices",
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"/x\": must be a relative path",
            "spec.containers[0].volumeMounts[1].name: Invalid value: \"e\": must not already exist in volumeDevices",
            "spec.containers[0].volumeMounts[1].subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive",
            "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
            "spec.containers[0].volumeMounts[2].name: Invalid value: \"e\": must not already exist in volumeDevices",
            "spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
            "spec.containers[0].volumeMounts[3].name: Invalid value: \"e\": must not already exist in volumeDevices",
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"a/../b\": must not contain '..'",
            "spec.containers[0].volumeDevices[0].name: Invalid value: \"e\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            "spec.containers[0].volumeDevices[0].name: Invalid value: \"e\": must not already exist in volumeMounts",
        ],
    );
}

#[test]
fn ephemeral_containers_do_not_come_with_a_new_pod() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {containers: [{name: c, image: web}], ephemeralContainers: [{name: x, image: y}]}}",
        &["spec.ephemeralContainers: Forbidden: cannot be set on create"],
    );
}

#[test]
fn lifecycle_and_probes_of_every_kind_are_checked() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {containers: [{name: c, image: web, lifecycle: {preStop: {sleep: {seconds: 40}}, postStart: {httpGet: {port: ''}}}, livenessProbe: {grpc: {port: 0}, terminationGracePeriodSeconds: 0, periodSeconds: -1}, readinessProbe: {tcpSocket: {port: UPPER}, terminationGracePeriodSeconds: 5}, startupProbe: {httpGet: {port: 80, scheme: FTP, path: '', httpHeaders: [{name: 'a b', value: x}]}}}]}}",
        &[
            "spec.containers[0].lifecycle.postStart.httpGet.port: Invalid value: \"\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "spec.containers[0].lifecycle.postStart.httpGet.port: Invalid value: \"\": must contain at least one letter (a-z)",
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 40: must be non-negative and less than terminationGracePeriodSeconds (30)",
            "spec.containers[0].livenessProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.containers[0].livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
            "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: \"UPPER\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: \"UPPER\": must contain at least one letter (a-z)",
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes",
            "spec.containers[0].startupProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
            "spec.containers[0].startupProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
        ],
    );
}

#[test]
fn spread_and_pod_affinity_are_checked() {
    check_invalid(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway, minDomains: 2, nodeTaintsPolicy: Maybe, matchLabelKeys: [app]}, {maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {'a b': c}}}], affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: z, namespaces: [A], labelSelector: {matchExpressions: [{key: k, operator: Has}]}}]}, nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 0, preference: {matchFields: [{key: metadata.name, operator: In, values: [a, b]}]}}]}}, containers: [{name: c, image: web}]}}",
        &[
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].values: Required value: must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].operator: Invalid value: \"Has\": not a valid selector operator",
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespace: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            "spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{z, ScheduleAnyway}\"",
            "spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
            "spec.topologySpreadConstraints[0].nodeTaintsPolicy: Unsupported value: \"Maybe\": supported values: \"Honor\", \"Ignore\"",
            "spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
            "spec.topologySpreadConstraints[1].labelSelector.matchLabels: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ],
    );
}
