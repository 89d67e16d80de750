//! What admission adds and refuses, and `componentstatuses`, as kubectl shows them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use support::{Cluster, has_kubectl};

const LEVEL: &str = "pod-security.kubernetes.io/enforce";

/// Runs kubectl; it must succeed. What it warned of.
fn warned(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = tokio::task::block_in_place(|| cluster.command(arguments).output().unwrap());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "kubectl {arguments:?}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_keep_to_the_level_of_their_namespace() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    cluster.ok(&["create", "serviceaccount", "default"]);
    cluster.ok(&["run", "before", "--image=i"]);
    let label = |level: &str| format!("{LEVEL}={level}");
    assert_eq!(
        warned(&cluster, &["label", "namespace", "default", &label("restricted")]),
        "Warning: existing pods in namespace \"default\" violate the new PodSecurity enforce level \
         \"restricted:latest\"\nWarning: before: allowPrivilegeEscalation != false, unrestricted capabilities, \
         runAsNonRoot != true, seccompProfile\n"
    );
    let violations = |name: &str| {
        format!(
            "violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"{name}\" must \
             set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"{name}\" must \
             set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"{name}\" must \
             set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"{name}\" must set \
             securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        )
    };
    let refused = violations("x").replacen("violate ", "violates ", 1);
    assert_eq!(
        cluster.fails(&["run", "x", "--image=i"]),
        format!("Error from server (Forbidden): pods \"x\" is forbidden: {refused}\n")
    );
    let told = warned(&cluster, &["create", "deployment", "d", "--image=i"]);
    assert_eq!(told, format!("Warning: would {}\n", violations("i")));
    assert_eq!(
        cluster.fails(&["label", "--overwrite", "namespace", "default", &label("bad")]),
        "The Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \
         \"bad\": must be one of privileged, baseline, restricted\n"
    );
    // What is there already may be changed where no rule looks.
    cluster.ok(&["label", "pod", "before", "a=b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_nodes_are_tainted_and_storage_is_protected() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let file = cluster.write(
        "objects.yaml",
        "apiVersion: v1\nkind: Node\nmetadata: {name: node1}\n---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: \
         {name: c}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n---\napiVersion: v1\n\
         kind: PersistentVolume\nmetadata: {name: v}\nspec: {accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, \
         hostPath: {path: /v}}\n",
    );
    cluster.ok(&["create", "-f", &file]);
    let read = |what: &str, path: &str| cluster.ok(&["get", what, "-o", &format!("jsonpath={path}")]);
    assert_eq!(
        read("node/node1", "{.spec.taints}"),
        r#"[{"effect":"NoSchedule","key":"node.kubernetes.io/not-ready"}]"#
    );
    assert_eq!(read("pvc/c", "{.metadata.finalizers}"), r#"["kubernetes.io/pvc-protection"]"#);
    assert_eq!(read("pv/v", "{.metadata.finalizers}"), r#"["kubernetes.io/pv-protection"]"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_for_a_certificate_of_administrators() {
    use base64::Engine as _;
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let request = |group: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
        let text = format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: r}}\nspec: \
             {{signerName: kubernetes.io/kube-apiserver-client, usages: [client auth], request: {encoded}}}\n"
        );
        cluster.write("request.yaml", &text)
    };
    let error = cluster.fails(&["create", "-f", &request("system:masters")]);
    let why = "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of \
               kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    assert!(error.contains(why), "{error}");
    cluster.ok(&["create", "-f", &request("others")]);
    cluster.ok(&["certificate", "approve", "r"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn components_are_shown_as_they_are() {
    if !has_kubectl() {
        return;
    }
    let cluster = Cluster::start().await;
    let running = cluster.server.components().enter("scheduler");
    let table = cluster.ok(&["get", "cs"]);
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().take(3).collect()).collect();
    assert_eq!(words[0], ["NAME", "STATUS", "MESSAGE"]);
    assert_eq!(words[1], ["controller-manager", "Unhealthy", "it"]);
    assert_eq!(words[2], ["scheduler", "Healthy", "ok"]);
    assert_eq!(words[3], ["etcd-0", "Healthy", "ok"]);
    drop(running);
    let text = cluster.ok(&["get", "--raw", "/api/v1/componentstatuses/scheduler"]);
    assert_eq!(
        text.trim_end(),
        r#"{"kind":"ComponentStatus","apiVersion":"v1","metadata":{"name":"scheduler"},"conditions":[{"type":"Healthy","status":"False","message":"it is not running"}]}"#
    );
    let text = cluster.ok(&["get", "--raw", "/api/v1/componentstatuses?fieldSelector=metadata.name=etcd-0"]);
    assert_eq!(
        text.trim_end(),
        r#"{"kind":"ComponentStatusList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"etcd-0"},"conditions":[{"type":"Healthy","status":"True","message":"ok"}]}]}"#
    );
    let error = cluster.fails(&["get", "--raw", "/api/v1/componentstatuses/none"]);
    assert!(error.contains("componentstatus \"none\" not found"), "{error}");
    let error = cluster.fails(&["get", "--raw", "/api/v1/componentstatuses?watch=1"]);
    assert!(error.contains("watch is not supported on resources of kind \"componentstatuses\""), "{error}");
    let error = cluster.fails(&["delete", "cs", "etcd-0"]);
    assert!(error.contains("the server does not allow this method on the requested resource"), "{error}");
    assert!(warned(&cluster, &["get", "cs"]).contains("v1 ComponentStatus is deprecated in v1.19+"));
}
