//! What the server says about a pod it takes: doubtful, deprecated and idle settings.

use crate::testing::*;

#[test]
fn what_a_pod_does_twice_is_warned_of() {
    check_warned(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {volumes: [{name: c1, configMap: {name: m, items: [{key: a, path: p}, {key: b, path: p/q}]}}], containers: [{name: c, image: web, ports: [{containerPort: 80}, {containerPort: 80, hostPort: 81}]}, {name: d, image: web, ports: [{containerPort: 80}]}]}}",
        &[
            "volume \"c1\" (ConfigMap \"m\"): overlapping paths: \"p/q\" with \"p\"",
            "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.containers[1].ports[0]: overlapping port definition with spec.containers[0].ports[1]",
        ],
    );
    check_warned(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {volumes: [{name: j, projected: {sources: [{secret: {name: s, items: [{key: k, path: p}]}}, {configMap: {name: m, items: [{key: k, path: p/x}]}}]}}], containers: [{name: c, image: web}]}}",
        &["volume \"j\" (Projected): overlapping paths: \"p/x\" (ConfigMap \"m\") with \"p\" (Secret \"s\")"],
    );
}

#[test]
fn what_is_deprecated_in_a_pod_is_warned_of() {
    check_warned(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n, annotations: {scheduler.alpha.kubernetes.io/critical-pod: x}}, spec: {nodeSelector: {beta.kubernetes.io/os: linux}, volumes: [{name: g, gitRepo: {repository: x}}, {name: s, glusterfs: {endpoints: e, path: p}}], containers: [{name: c, image: web}]}}",
        &[
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            "spec.volumes[1].glusterfs: deprecated in v1.25, non-functional in v1.26+",
        ],
    );
}

#[test]
fn what_does_nothing_in_a_pod_is_warned_of() {
    check_warned(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}, spec: {imagePullSecrets: [{name: ''}], hostAliases: [{ip: 'FD00::1', hostnames: [a]}], dnsConfig: {nameservers: ['fd00:0::1']}, terminationGracePeriodSeconds: -1, topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}], containers: [{name: c, image: web, resources: {requests: {ephemeral-storage: 1500m}}}]}}",
        &[
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            "spec.imagePullSecrets[0].name: invalid empty name \"\"",
            "spec.containers[0].resources.requests[ephemeral-storage]: fractional byte value \"1500m\" is invalid, must be an integer",
            "spec.dnsConfig.nameservers[0]: IPv6 address \"fd00:0::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
            "spec.hostAliases[0].ip: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
        ],
    );
}
