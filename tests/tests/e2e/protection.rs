//! What admission keeps from pods, volumes and nodes, as users meet it with kubectl.

use reeve_tests::cluster::{Cluster, IMAGE};
use reeve_tests::patience::eventually_is;

use crate::pods::{pod, script};

const LEVEL: &str = "pod-security.kubernetes.io/enforce";

#[test]
fn pods_keep_to_the_level_of_their_namespace() {
    let space = Cluster::shared().space("secured");
    space.apply(&pod("before", &script("sleep 600"), ""));
    let label =
        |level: &str| space.kubectl(&["label", "--overwrite", "namespace", &space.name, &format!("{LEVEL}={level}")]);
    let told = label("restricted");
    assert_eq!(told.code, 0, "{told}");
    let warning = format!(
        "Warning: existing pods in namespace {:?} violate the new PodSecurity enforce level \"restricted:latest\"\n\
         Warning: before: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, \
         seccompProfile",
        space.name
    );
    assert!(told.stderr.contains(&warning), "{told}");
    let refused = space.kubectl(&["run", "plain", &format!("--image={IMAGE}")]).refused();
    let why = "violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"plain\" must \
               set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities";
    assert!(refused.contains(why), "{refused}");
    let warned = space.kubectl(&["create", "deployment", "web", &format!("--image={IMAGE}")]);
    assert_eq!(warned.code, 0, "{warned}");
    assert!(warned.stderr.contains("Warning: would violate PodSecurity \"restricted:latest\": "), "{warned}");
    let events = || space.kubectl(&["get", "events"]).stdout;
    eventually_is("its pods are refused", events, |events| events.contains("violates PodSecurity"));
    assert!(label("none").refused().contains("must be one of privileged, baseline, restricted"));
    label("baseline").done();
    space.apply(&pod("after", &script("sleep 600"), ""));
    space.ready("after");
}

#[test]
fn a_claim_that_a_pod_uses_stays_until_the_pod_is_gone() {
    let space = Cluster::shared().space("claimed");
    space.apply(
        r#"{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}"#,
    );
    assert_eq!(space.get("pvc/data", "{.metadata.finalizers[*]}"), "kubernetes.io/pvc-protection");
    let node = space.get("nodes", "{.items[0].metadata.name}");
    let uses = format!(
        r#""nodeName": "{node}", "volumes": [{{"name": "data", "persistentVolumeClaim": {{"claimName": "data"}}}}],"#
    );
    space.apply(&pod("user", &script("sleep 600"), &uses));
    space.kubectl(&["delete", "pvc", "data", "--wait=false"]).done();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(space.get("pvc/data", "{.metadata.finalizers[*]}"), "kubernetes.io/pvc-protection");
    space.kubectl(&["delete", "pod", "user", "--wait=false"]).done();
    let claims = || space.kubectl(&["get", "pvc", "-o", "name"]).stdout;
    eventually_is("the claim goes with the pod", claims, |claims| claims.is_empty());
}
