//! Each check with what it says of a pod, in Kubernetes' words.

use serde_json::json;

use super::*;

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn says(check: Check, spec: Value, reason: &str, detail: &str) {
    let found = check(&json!({ "metadata": {}, "spec": spec }));
    let found = found.map_or((String::new(), String::new()), |found| (found.reason, found.detail));
    assert_eq!(found, (reason.to_owned(), detail.to_owned()));
}

/// A pod of two containers and an init container with these security contexts, and one of its own.
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
fn contexts(pod: Value, init: Value, a: Value, b: Value) -> Value {
    json!({"securityContext": pod, "initContainers": [{"name": "i", "securityContext": init}],
        "containers": [{"name": "a", "securityContext": a}, {"name": "b", "securityContext": b}]})
}

#[test]
fn settings_of_containers() {
    let escalates = contexts(
        json!({}),
        json!({"allowPrivilegeEscalation": false}),
        json!(null),
        json!({"allowPrivilegeEscalation": true}),
    );
    says(
        privilege_escalation,
        escalates,
        "allowPrivilegeEscalation != false",
        "containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false",
    );
    let root = contexts(json!({}), json!({"privileged": true}), json!({"privileged": false}), json!({}));
    says(privileged, root, "privileged", "container \"i\" must not set securityContext.privileged=true");
    let unmasked = contexts(json!({}), json!({"procMount": "Default"}), json!({"procMount": "Unmasked"}), json!({}));
    says(proc_mount, unmasked, "procMount", "container \"a\" must not set securityContext.procMount to \"Unmasked\"");
    let adds = contexts(
        json!({}),
        json!({}),
        json!({"capabilities": {"add": ["NET_RAW", "CHOWN", "BPF"]}}),
        json!({"capabilities": {"add": ["BPF"]}}),
    );
    says(
        capabilities_baseline,
        adds,
        "non-default capabilities",
        "containers \"a\", \"b\" must not include \"BPF\", \"NET_RAW\" in securityContext.capabilities.add",
    );
    let drops = contexts(
        json!({}),
        json!({"capabilities": {"drop": ["ALL"]}}),
        json!({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CHOWN"]}}),
        json!({}),
    );
    says(
        capabilities_restricted,
        drops,
        "unrestricted capabilities",
        "container \"b\" must set securityContext.capabilities.drop=[\"ALL\"]; container \"a\" must not include \"CHOWN\" in securityContext.capabilities.add",
    );
    let ports = json!({"containers": [{"name": "a", "ports": [{"hostPort": 8080}, {"hostPort": 80}, {"hostPort": 0}]}, {"name": "b", "ports": [{}]}]});
    says(host_ports, ports, "hostPort", "container \"a\" uses hostPorts 80, 8080");
    let hosts = json!({"containers": [
        {"name": "b", "livenessProbe": {"httpGet": {"host": "x"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "y"}}}},
        {"name": "a", "startupProbe": {"tcpSocket": {"host": "x"}}}, {"name": "c", "readinessProbe": {"httpGet": {"port": 1}}}]});
    says(
        host_probes,
        hosts,
        "probe or lifecycle host",
        "containers \"a\", \"b\" use probe or lifecycle hosts \"x\", \"y\"",
    );
}

#[test]
fn settings_of_the_pod() {
    says(
        host_namespaces,
        json!({"hostNetwork": true, "hostIPC": true, "hostPID": false}),
        "host namespaces",
        "hostNetwork=true, hostIPC=true",
    );
    let volumes = json!({"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "emptyDir": {}}, {"name": "c", "hostPath": {}}]});
    says(host_path_volumes, volumes, "hostPath volumes", "volumes \"a\", \"c\"");
    let volumes = json!({"volumes": [{"name": "a", "nfs": {}}, {"name": "b", "secret": {}}, {"name": "c", "hostPath": {}}, {"name": "d"}]});
    says(
        restricted_volumes,
        volumes,
        "restricted volume types",
        "volumes \"a\", \"c\", \"d\" use restricted volume types \"hostPath\", \"nfs\", \"unknown\"",
    );
    let sysctls = json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}, {"name": "net.ipv4.tcp_syncookies"}]}});
    says(sysctls_1_0, sysctls.clone(), "forbidden sysctls", "kernel.msgmax, net.ipv4.tcp_rmem");
    says(sysctls_1_32, sysctls, "forbidden sysctls", "kernel.msgmax");
}

#[test]
fn settings_of_both() {
    let roots = contexts(json!({"runAsNonRoot": false}), json!({}), json!({"runAsNonRoot": false}), json!({}));
    says(
        run_as_non_root,
        roots,
        "runAsNonRoot != true",
        "pod and container \"a\" must not set securityContext.runAsNonRoot=false",
    );
    let silent = contexts(json!({}), json!({"runAsNonRoot": true}), json!({}), json!({"runAsNonRoot": true}));
    says(
        run_as_non_root,
        silent,
        "runAsNonRoot != true",
        "pod or container \"a\" must set securityContext.runAsNonRoot=true",
    );
    says(run_as_non_root, contexts(json!({"runAsNonRoot": true}), json!({}), json!({}), json!({})), "", "");
    let zero = contexts(json!({"runAsUser": 0}), json!({}), json!({"runAsUser": 0}), json!({"runAsUser": 1}));
    says(run_as_user, zero, "runAsUser=0", "pod and container \"a\" must not set runAsUser=0");
    let linux = contexts(
        json!({"seLinuxOptions": {"type": "foo"}}),
        json!({}),
        json!({"seLinuxOptions": {"type": "bar", "user": "u", "role": "r"}}),
        json!({"seLinuxOptions": {"type": "container_t", "level": "s0"}}),
    );
    says(
        se_linux,
        linux,
        "seLinuxOptions",
        "pod and container \"a\" set forbidden securityContext.seLinuxOptions: types \"bar\", \"foo\"; user may not be set; role may not be set",
    );
    let engine = contexts(json!({"seLinuxOptions": {"type": "container_engine_t"}}), json!({}), json!({}), json!({}));
    says(
        se_linux,
        engine.clone(),
        "seLinuxOptions",
        "pod set forbidden securityContext.seLinuxOptions: type \"container_engine_t\"",
    );
    says(se_linux_1_31, engine, "", "");
    let windows = contexts(
        json!({"windowsOptions": {"hostProcess": true}}),
        json!({}),
        json!({"windowsOptions": {"hostProcess": true}}),
        json!({}),
    );
    says(
        windows_host_process,
        windows,
        "hostProcess",
        "pod and container \"a\" must not set securityContext.windowsOptions.hostProcess=true",
    );
    let unconfined = contexts(
        json!({"seccompProfile": {"type": "Unconfined"}}),
        json!({}),
        json!({"seccompProfile": {"type": "Unconfined"}}),
        json!({}),
    );
    says(
        seccomp_baseline,
        unconfined.clone(),
        "seccompProfile",
        "pod and container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\"",
    );
    says(
        seccomp_restricted,
        unconfined,
        "seccompProfile",
        "pod and container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\"",
    );
    let silent = contexts(json!({}), json!({"seccompProfile": {"type": "Localhost"}}), json!({}), json!({}));
    says(seccomp_baseline, silent.clone(), "", "");
    says(
        seccomp_restricted,
        silent,
        "seccompProfile",
        "pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
    );
    let armor = contexts(
        json!({"appArmorProfile": {"type": "Unconfined"}}),
        json!({}),
        json!({"appArmorProfile": {"type": "RuntimeDefault"}}),
        json!({"appArmorProfile": {"type": "Unconfined"}}),
    );
    says(
        app_armor,
        armor,
        "forbidden AppArmor profile",
        "pod and container \"b\" must not set AppArmor profile type to \"Unconfined\"",
    );
}

#[test]
fn annotations_of_old() {
    let with = |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}, "spec": {"containers": [{"name": "a"}]}});
    let armor = |value: &str| app_armor(&with("container.apparmor.security.beta.kubernetes.io/a", value));
    assert_eq!(armor("runtime/default"), None);
    assert_eq!(armor("localhost/x"), None);
    let found = armor("unconfined").unwrap();
    assert_eq!(found.reason, "forbidden AppArmor profile");
    assert_eq!(
        found.detail,
        "annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\""
    );
    let key = "container.seccomp.security.alpha.kubernetes.io/a";
    assert_eq!(seccomp_annotations(&with(key, "docker/default")), None);
    let found = seccomp_annotations(&with(key, "unconfined")).unwrap();
    assert_eq!(found.detail, "forbidden annotation container.seccomp.security.alpha.kubernetes.io/a=\"unconfined\"");
}
