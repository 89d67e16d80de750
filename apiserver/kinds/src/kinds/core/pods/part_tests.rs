//! What `ephemeralcontainers` and `resize` let change; the texts are kube-apiserver's.

use serde_json::{Value, json};

use crate::kind::Part;
use crate::testing::updated;

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n, labels: {a: b}}, spec: {initContainers: [{name: i, image: web, resources: {requests: {cpu: 10m}}}], containers: [{name: c, image: web, resources: {requests: {cpu: 100m, memory: 1Gi}}}]}}";

#[track_caller]
fn check(part: Part, change: impl FnOnce(&mut Value), expected: &[&str]) {
    assert_eq!(updated(part, POD, change).1, expected);
}

#[test]
fn a_resize_changes_processor_and_memory_and_nothing_else() {
    let (new, errors) = updated(Part::Resize, POD, |pod| {
        pod["metadata"]["labels"] = json!({ "no": "t" });
        pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "200m".into();
        pod["spec"]["containers"][0]["image"] = "other".into();
        pod["spec"]["nodeName"] = "n1".into();
    });
    assert_eq!(errors, Vec::<String>::new());
    let container = &new["spec"]["containers"][0];
    assert_eq!((&container["image"], &container["resources"]["requests"]["cpu"]), (&json!("web"), &json!("200m")));
    assert_eq!((&new["metadata"]["labels"], &new["spec"]["nodeName"]), (&json!({ "a": "b" }), &Value::Null));
    assert_eq!(new["metadata"]["generation"], 2);
}

#[test]
fn what_a_resize_may_not_do_is_told_in_kubernetes_words() {
    fn requests(pod: &mut Value) -> &mut Value {
        &mut pod["spec"]["containers"][0]["resources"]["requests"]
    }
    check(
        Part::Resize,
        |pod| *requests(pod) = json!({ "memory": "1Gi" }),
        &["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
    );
    check(
        Part::Resize,
        |pod| requests(pod)["ephemeral-storage"] = "1Gi".into(),
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
    check(
        Part::Resize,
        |pod| {
            let amounts = json!({ "cpu": "1", "memory": "2Gi" });
            for list in ["containers", "initContainers"] {
                pod["spec"][list][0]["resources"] = json!({ "requests": amounts, "limits": amounts });
            }
        },
        &["spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing"],
    );
    check(
        Part::Resize,
        |pod| pod["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "d", "image": "x" })),
        &["spec.containers: Forbidden: containers may not be added or removed on resize"],
    );
    check(
        Part::Resize,
        |pod| pod["spec"]["containers"][0]["name"] = "d".into(),
        &["spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize"],
    );
    let policy = json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]);
    check(
        Part::Resize,
        |pod| pod["spec"]["containers"][0]["resizePolicy"] = policy,
        &["spec: Forbidden: only cpu and memory resources are mutable"],
    );
}

#[test]
fn ephemeral_containers_only_come() {
    let (new, errors) = updated(Part::EphemeralContainers, POD, |pod| {
        pod["spec"]["ephemeralContainers"] = json!([{ "name": "e", "image": "busybox", "targetContainerName": "c" }]);
        pod["spec"]["containers"][0]["image"] = "other".into();
        pod["metadata"]["labels"] = json!({ "no": "t" });
    });
    assert_eq!(errors, Vec::<String>::new());
    assert_eq!(new["spec"]["ephemeralContainers"][0]["terminationMessagePath"], "/dev/termination-log");
    assert_eq!((&new["spec"]["containers"][0]["image"], &new["metadata"]["labels"]["a"]), (&json!("web"), &json!("b")));
    check(
        Part::EphemeralContainers,
        |pod| {
            pod["spec"]["ephemeralContainers"] = json!([{ "name": "c", "image": "x", "targetContainerName": "zz",
                "ports": [{ "containerPort": 80 }],
                "volumeMounts": [{ "name": "v", "mountPath": "/x", "subPath": "y" }] }]);
        },
        &[
            "spec.ephemeralContainers[0].volumeMounts[0].name: Not found: \"v\"",
            "spec.ephemeralContainers[0].name: Duplicate value: \"c\"",
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"zz\"",
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers[0].volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container",
        ],
    );
}

#[test]
fn a_pod_without_amounts_of_its_own_may_be_given_some_and_only_of_processor_and_memory() {
    let mut given = json!({ "requests": { "cpu": "150m" }, "limits": { "cpu": "1" } });
    check(Part::Resize, |pod| pod["spec"]["resources"] = given.clone(), &[]);
    given["requests"]["hugepages-2Mi"] = "2Mi".into();
    given["limits"]["hugepages-2Mi"] = "2Mi".into();
    check(
        Part::Resize,
        |pod| pod["spec"]["resources"] = given,
        &["spec: Forbidden: only cpu and memory resources are mutable at pod-level"],
    );
}
