//! Pods as data: defaults, rules, changes, rows.

use serde_json::{Value, json};

use crate::kind::{Kind, Part};
use crate::testing::*;

const PLAIN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: n}
spec: {containers: [{name: c, image: web}]}";

fn pod(spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: a, namespace: n}}, spec: {spec}}}")
}

/// A pod of one container with these fields besides name and image.
fn container(fields: &str) -> String {
    pod(&format!("{{containers: [{{name: c, image: web, {fields}}}]}}"))
}

#[test]
fn a_small_pod_gets_kubernetes_defaults() {
    check_created(
        PLAIN,
        "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: n, generation: 1}
spec:
  containers:
  - name: c
    image: web
    imagePullPolicy: Always
    resources: {}
    terminationMessagePath: /dev/termination-log
    terminationMessagePolicy: File
  dnsPolicy: ClusterFirst
  enableServiceLinks: true
  restartPolicy: Always
  schedulerName: default-scheduler
  securityContext: {}
  terminationGracePeriodSeconds: 30
status: {phase: Pending, qosClass: BestEffort}",
    );
    check_valid(PLAIN);
}

#[test]
fn a_rich_pod_gets_kubernetes_defaults_everywhere() {
    let created = created(
        "
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: n}
spec:
  hostNetwork: true
  serviceAccount: robot
  volumes:
  - {name: e}
  - {name: s, secret: {secretName: s}}
  - {name: h, hostPath: {path: /x}}
  - {name: p, projected: {sources: [{serviceAccountToken: {path: t}}, {downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}]}}
  containers:
  - name: c
    image: 'registry:5000/web:1'
    ports: [{containerPort: 80}]
    env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}]
    resources: {limits: {cpu: 100500u, memory: 1Gi}, requests: {memory: 512Mi}}
    livenessProbe: {httpGet: {port: 80}}
    readinessProbe: {grpc: {port: 1}, periodSeconds: 2}
  - {name: d, image: web@sha256:abc}",
    );
    let spec = &created["spec"];
    assert_eq!(spec["serviceAccountName"], "robot");
    assert_eq!(
        spec["volumes"],
        json!([
            {"name": "e", "emptyDir": {}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
            {"name": "h", "hostPath": {"path": "/x", "type": ""}},
            {"name": "p", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}]}},
            ]}},
        ])
    );
    let first = &spec["containers"][0];
    assert_eq!(first["imagePullPolicy"], "IfNotPresent");
    assert_eq!(first["ports"], json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]));
    assert_eq!(first["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
    assert_eq!(first["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"], "0");
    assert_eq!(
        first["resources"],
        json!({"limits": {"cpu": "101m", "memory": "1Gi"}, "requests": {"cpu": "101m", "memory": "512Mi"}})
    );
    assert_eq!(
        first["livenessProbe"],
        json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(first["readinessProbe"]["grpc"], json!({"port": 1, "service": ""}));
    assert_eq!(spec["containers"][1]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(created["status"]["qosClass"], "Burstable");
}

#[test]
fn containers_are_checked() {
    check_invalid(&pod("{containers: []}"), &["spec.containers: Required value"]);
    check_invalid(
        &pod("{containers: [{name: c}, {name: c, image: web, imagePullPolicy: Sometimes}]}"),
        &[
            "spec.containers[0].image: Required value",
            "spec.containers[1].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            "spec.containers[1].name: Duplicate value: \"c\"",
        ],
    );
    check_invalid(
        &container(
            "ports: [{containerPort: 0}, {containerPort: 70000, name: a}, {containerPort: 80, name: a, protocol: ICMP}]",
        ),
        &[
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[2].name: Duplicate value: \"a\"",
            "spec.containers[0].ports[2].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check_invalid(
        &pod(
            "{containers: [{name: c, image: ' web'}], initContainers: [{name: c, image: web, livenessProbe: {exec: {command: [x]}}}]}",
        ),
        &[
            "spec.initContainers[0].name: Duplicate value: \"c\"",
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            "spec.containers[0].image: Invalid value: \" web\": must not have leading or trailing whitespace",
        ],
    );
    check_invalid(
        &container("ports: [{containerPort: 1, hostPort: 9}, {containerPort: 2, hostPort: 9}]"),
        &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//9\""],
    );
}

#[test]
fn resources_are_checked() {
    check_invalid(
        &container(
            "resources: {limits: {cpu: '1', disk: 1, example.com/gpu: 500m}, requests: {cpu: '2', memory: '-1'}}",
        ),
        &[
            "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.limits[disk]: Invalid value: \"disk\": must be a standard resource for containers",
            "spec.containers[0].resources.limits[example.com/gpu]: Invalid value: \"500m\": must be an integer",
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            "spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.requests[disk]: Invalid value: \"disk\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[example.com/gpu]: Invalid value: \"500m\": must be an integer",
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
}

#[test]
fn the_environment_is_checked() {
    check_invalid(
        &container(
            "env: [{name: ''}, {name: 'A=B'}, {name: A, value: x, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}, {name: B, valueFrom: {fieldRef: {fieldPath: status.phase}}}, {name: C, valueFrom: {}}, {name: D, valueFrom: {configMapKeyRef: {name: m, key: 'a b'}}}]",
        ),
        &[
            "spec.containers[0].env[0].name: Required value",
            "spec.containers[0].env[1].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
            "spec.containers[0].env[2].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "spec.containers[0].env[3].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
            "spec.containers[0].env[4].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
            "spec.containers[0].env[5].valueFrom.configMapKeyRef.key: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ],
    );
    check_valid(&container(
        "env: [{name: L, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['app']\"}}}], envFrom: [{prefix: X_, configMapRef: {name: m}}]",
    ));
}

#[test]
fn volumes_and_mounts_are_checked() {
    check_invalid(
        &pod(
            "{volumes: [{name: a, emptyDir: {}, hostPath: {path: /x}}, {name: a, secret: {}}, {name: b, hostPath: {path: /x/../y, type: Dir}}, {name: c, configMap: {name: m, items: [{key: k, path: /abs}]}}], containers: [{name: c, image: web, volumeMounts: [{name: a, mountPath: /a}, {name: missing, mountPath: /a}]}]}",
        ),
        &[
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].secret.secretName: Required value",
            "spec.volumes[2].hostPath.path: Invalid value: \"/x/../y\": must not contain '..'",
            "spec.volumes[2].hostPath.type: Unsupported value: \"Dir\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
            "spec.volumes[3].configMap.items[0].path: Invalid value: \"/abs\": must be a relative path",
            "spec.containers[0].volumeMounts[0].name: Not found: \"a\"",
            "spec.containers[0].volumeMounts[1].name: Not found: \"missing\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
        ],
    );
}

#[test]
fn probes_have_exactly_one_handler() {
    check_invalid(
        &container(
            "livenessProbe: {}, readinessProbe: {exec: {command: [x]}, tcpSocket: {port: 1}}, startupProbe: {httpGet: {port: 0}, successThreshold: 2}, lifecycle: {preStop: {exec: {}}}",
        ),
        &[
            "spec.containers[0].lifecycle.preStop.exec.command: Required value",
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            "spec.containers[0].startupProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.containers[0].startupProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
}

#[test]
fn the_spec_itself_is_checked() {
    check_invalid(
        &pod(
            "{containers: [{name: c, image: web}], restartPolicy: Maybe, dnsPolicy: None, hostname: a.b, tolerations: [{operator: Equal}, {key: k, operator: Exists, tolerationSeconds: 3}], securityContext: {runAsUser: -1}, nodeSelector: {k: 'a b'}}",
        ),
        &[
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "spec.nodeSelector: Invalid value: \"a b\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            "spec.hostname: Invalid value: \"a.b\": must not contain dots",
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            "spec.tolerations[1].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ],
    );
}

#[test]
fn only_a_few_fields_of_a_spec_may_change() {
    check_update(PLAIN, |new| new["spec"]["containers"][0]["image"] = json!("web:2"), &[]);
    check_update(PLAIN, |new| new["spec"]["activeDeadlineSeconds"] = json!(5), &[]);
    check_update(PLAIN, |new| new["spec"]["tolerations"] = json!([{"operator": "Exists"}]), &[]);
    let (new, errors) = updated(Part::Main, PLAIN, |new| new["spec"]["hostname"] = json!("h"));
    assert_eq!(
        errors,
        [
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n@@ -64,7 +64,7 @@\n   \"SELinuxChangePolicy\": null\n  },\n  \"ImagePullSecrets\": null,\n- \"Hostname\": \"\",\n+ \"Hostname\": \"h\",\n  \"Subdomain\": \"\",\n  \"SetHostnameAsFQDN\": null,\n  \"Affinity\": null,\n"
        ]
    );
    assert_eq!(new["metadata"]["generation"], 2);
    check_update(
        PLAIN,
        |new| new["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "d", "image": "web"})),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
}

#[test]
fn spec_and_status_are_written_apart() {
    let (new, errors) = updated(Part::Main, PLAIN, |new| new["status"]["phase"] = json!("Running"));
    assert_eq!((&new["status"]["phase"], errors.len()), (&json!("Pending"), 0));
    let (new, errors) = updated(Part::Status, PLAIN, |new| {
        new["spec"] = json!({});
        new["status"] = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "podIP": "10.0.0.1"});
    });
    assert_eq!(errors, [""; 0]);
    assert_eq!(
        (&new["spec"]["containers"][0]["name"], &new["status"]["qosClass"]),
        (&json!("c"), &json!("BestEffort"))
    );
    assert_eq!(new["metadata"]["generation"], 1);
}

#[test]
fn a_container_that_ended_for_good_stays_ended() {
    let old = pod("{restartPolicy: Never, containers: [{name: c, image: web}]}");
    let mut stored = created(&old);
    stored["status"]["containerStatuses"] = json!([{"name": "c", "state": {"terminated": {"exitCode": 0}}}]);
    let mut new = stored.clone();
    new["status"]["containerStatuses"][0]["state"] = json!({"running": {}});
    let errors = super::Pods.validate_update(Part::Status, &new, &stored);
    assert_eq!(
        errors[0].to_string(),
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    );
}

#[test]
fn deletion_waits_only_for_a_pod_that_runs() {
    let mut pod = created(PLAIN);
    assert_eq!(super::Pods.deletion_grace(&pod, None), Some(0));
    pod["spec"]["nodeName"] = json!("n1");
    assert_eq!(super::Pods.deletion_grace(&pod, None), Some(30));
    assert_eq!(super::Pods.deletion_grace(&pod, Some(5)), Some(5));
    assert_eq!(super::Pods.deletion_grace(&pod, Some(-1)), Some(1));
    pod["status"]["phase"] = json!("Succeeded");
    assert_eq!(super::Pods.deletion_grace(&pod, Some(5)), Some(0));
}

#[test]
fn pods_are_selected_by_their_fields() {
    let pod = created(&pod("{nodeName: n1, containers: [{name: c, image: web}]}"));
    let field = |name: &str| super::Pods.selectable_field(&pod, name);
    assert_eq!(field("spec.nodeName").as_deref(), Some("n1"));
    assert_eq!(field("spec.host").as_deref(), Some("n1"));
    assert_eq!(field("status.phase").as_deref(), Some("Pending"));
    assert_eq!(field("spec.hostNetwork").as_deref(), Some("false"));
    assert_eq!(field("spec.hostname"), None);
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let pod: Value =
        created(&container("env: [{name: A, value: '1'}, {name: A, value: '2'}], resources: {limits: {memory: 100m}}"));
    assert_eq!(
        super::Pods.warnings(&pod, None),
        [
            "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
        ]
    );
}

#[track_caller]
fn check_row(status: &str, expected: &str) {
    let yaml = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: a, creationTimestamp: '2026-01-01T00:00:00Z'}}, spec: {{nodeName: n1, containers: [{{name: c}}, {{name: d}}], initContainers: [{{name: i}}]}}, status: {status}}}"
    );
    assert_eq!(row(&yaml), expected);
}

#[test]
fn rows_show_what_kubectl_shows() {
    check_row("{phase: Pending}", "a | 0/2 | Pending | 0 | 60m | <none> | n1 | <none> | <none>");
    check_row(
        "{phase: Running, podIP: 10.0.0.1, conditions: [{type: Initialized, status: 'True'}], containerStatuses: [{name: c, ready: true, restartCount: 3, state: {running: {}}, lastState: {terminated: {finishedAt: '2026-01-01T00:55:00Z'}}}, {name: d, ready: false, state: {waiting: {reason: CrashLoopBackOff}}}]}",
        "a | 1/2 | CrashLoopBackOff | 3 (5m ago) | 60m | 10.0.0.1 | n1 | <none> | <none>",
    );
    check_row(
        "{phase: Pending, initContainerStatuses: [{name: i, state: {running: {}}}], containerStatuses: [{name: c, state: {waiting: {reason: PodInitializing}}}]}",
        "a | 0/2 | Init:0/1 | 0 | 60m | <none> | n1 | <none> | <none>",
    );
    check_row(
        "{phase: Pending, initContainerStatuses: [{name: i, restartCount: 2, state: {terminated: {exitCode: 1}}}]}",
        "a | 0/2 | Init:ExitCode:1 | 2 | 60m | <none> | n1 | <none> | <none>",
    );
    check_row(
        "{phase: Running, containerStatuses: [{name: c, ready: true, state: {running: {}}}, {name: d, state: {terminated: {exitCode: 0, reason: Completed}}}]}",
        "a | 1/2 | NotReady | 0 | 60m | <none> | n1 | <none> | <none>",
    );
}

#[test]
fn a_pod_that_is_being_deleted_is_terminating() {
    let dying = "{apiVersion: v1, kind: Pod, metadata: {name: a, deletionTimestamp: '2026-01-01T00:00:00Z'}, spec: {containers: [{name: c}]}, status: {phase: Running}}";
    assert_eq!(row(dying), "a | 0/1 | Terminating | 0 | <unknown> | <none> | <none> | <none> | <none>");
}

#[test]
fn a_name_that_is_no_label_is_warned_of() {
    let dotted = created(&PLAIN.replace("name: a,", "name: a.b,"));
    assert_eq!(
        super::Pods.warnings(&dotted, None),
        [
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"
        ]
    );
}

#[test]
fn resources_of_the_whole_pod_bound_those_of_its_containers() {
    let whole = |resources: &str| {
        pod(&format!(
            "{{resources: {resources}, containers: [{{name: c, image: web, resources: {{limits: {{cpu: '1'}}}}}}, {{name: d, image: web, resources: {{requests: {{cpu: 500m}}}}}}], initContainers: [{{name: i, image: web, resources: {{requests: {{cpu: 600m}}}}, restartPolicy: Always}}]}}"
        ))
    };
    let created = created(&whole("{limits: {cpu: '3', memory: 1Gi}}"));
    assert_eq!(created["spec"]["resources"]["requests"], json!({"cpu": "2100m", "memory": "1Gi"}));
    check_valid(&whole("{limits: {cpu: '3', memory: 1Gi}}"));
    check_invalid(
        &whole("{limits: {cpu: 900m}, requests: {cpu: '2', example.com/gpu: 1}}"),
        &[
            "spec.resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 900m",
            "spec.resources.requests[example.com/gpu]: Unsupported value: \"example.com/gpu\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
            "spec.resources.limits: Required value: Limit must be set for non overcommitable resources",
            "spec.resources.requests[cpu]: Invalid value: \"2\": must be greater than or equal to aggregate container requests of 2100m",
            "spec.resources.containers[0][cpu].limits: Invalid value: \"1\": must be less than or equal to pod limits of 900m",
        ],
    );
}

#[test]
fn affinity_and_spread_are_checked() {
    check_invalid(
        &pod(
            "{containers: [{name: c, image: web}], affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: k, operator: In}]}]}}, podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 101, podAffinityTerm: {topologyKey: ''}}]}}, topologySpreadConstraints: [{maxSkew: 0, topologyKey: zone, whenUnsatisfiable: Never}]}",
        ),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must be non-empty",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ],
    );
}

#[test]
fn security_contexts_are_checked() {
    check_invalid(
        &pod(
            "{hostNetwork: true, securityContext: {sysctls: [{name: net.ipv4.ip_forward, value: '1'}, {name: A, value: '1'}], seccompProfile: {type: Localhost, localhostProfile: ''}}, containers: [{name: c, image: web, securityContext: {privileged: true, allowPrivilegeEscalation: false, seccompProfile: {type: Magic}}}]}",
        ),
        &[
            "spec.containers[0].securityContext.seccompProfile.type: Unsupported value: \"Magic\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
            "spec.containers[0].securityContext: Invalid value: {\"Capabilities\":null,\"Privileged\":true,\"SELinuxOptions\":null,\"WindowsOptions\":null,\"RunAsUser\":null,\"RunAsGroup\":null,\"RunAsNonRoot\":null,\"ReadOnlyRootFilesystem\":null,\"AllowPrivilegeEscalation\":false,\"ProcMount\":null,\"SeccompProfile\":{\"Type\":\"Magic\",\"LocalhostProfile\":null},\"AppArmorProfile\":null}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            "spec.securityContext.sysctls[0].name: Invalid value: \"net.ipv4.ip_forward\": may not be specified when 'hostNetwork' is true",
            "spec.securityContext.sysctls[1].name: Invalid value: \"A\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ],
    );
}
