//! Pods: what admission gives them, how they get their node, how they go.

use super::*;

pub(super) fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "web:1"}]}})
}

/// A world where pods can be made: the controller that makes default accounts is not here.
pub(super) async fn world() -> World {
    let world = World::new().await;
    world.create("serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    world
}

async fn bind(world: &World, pod: &str, node: &str) -> Result<Value, ApiError> {
    let metadata = json!({"name": pod, "labels": {"zone": "a"}});
    let binding = json!({"metadata": metadata, "target": {"kind": "Node", "name": node}});
    world.try_create(&format!("pods/{pod}:binding"), binding).await
}

#[tokio::test]
async fn a_pod_waits_for_nothing_but_its_service_account() {
    let world = World::new().await;
    let mut named = pod("a");
    named["spec"]["serviceAccountName"] = "robot".into();
    let error = world.try_create("pods", named.clone()).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            403,
            "pods \"a\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not found"
        )
    );
    named["metadata"] = json!({"generateName": "a-"});
    let error = world.try_create("pods", named).await.unwrap_err();
    assert!(error.message.starts_with("pods \"a-\" is forbidden: "), "{error}");
    let world = Arc::new(world);
    let waiting = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.try_create("pods", pod("b")).await })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.create("serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    waiting.await.unwrap().expect("the default account came in time");
}

#[tokio::test]
async fn every_pod_has_token_certificate_and_namespace_mounted_where_clients_look() {
    let world = world().await;
    let made = world.create("pods", pod("a")).await;
    let spec = &made["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
    let volume = &spec["volumes"][0];
    let name = volume["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    assert_eq!(
        volume["projected"],
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]})
    );
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{"name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])
    );
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let mut without = pod("b");
    without["spec"]["automountServiceAccountToken"] = false.into();
    assert!(world.create("pods", without).await["spec"]["volumes"].is_null());
}

#[tokio::test]
async fn a_pod_is_bound_once_and_the_node_that_watches_sees_it_appear() {
    let world = world().await;
    let mut node = world.watch("pods/*/", |options| options.field_selector = "spec.nodeName=n1".into()).await;
    world.create("pods", pod("a")).await;
    let status = bind(&world, "a", "n1").await.unwrap();
    assert_eq!(
        (&status["kind"], &status["status"], &status["code"]),
        (&json!("Status"), &json!("Success"), &json!(201))
    );
    assert_eq!(node.next().await, "ADDED a");
    let bound = world.get("pods/a").await.unwrap();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["metadata"]["labels"]["zone"], "a");
    let conditions = bound["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["type"] == "PodScheduled" && one["status"] == "True"), "{conditions:?}");
    let error = bind(&world, "a", "n2").await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (409, "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\"")
    );
    let nowhere = json!({"metadata": {"name": "a"}, "target": {"kind": "Pod"}});
    let annotated = json!({"metadata": {"name": "a", "annotations": {"x": {"y": 1}}}, "target": {"name": "n1"}});
    assert_eq!(world.try_create("pods/a:binding", annotated).await.unwrap_err().code, 400);
    let error = world.try_create("pods/a:binding", nowhere).await.unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (
            500,
            "[target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\", target.name: Required value]"
        )
    );
    let misnamed = json!({"metadata": {"name": "b"}, "target": {"name": "n1"}});
    let error = world.try_create("pods/a:binding", misnamed).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (400, "name in URL does not match name in Binding object"));
    assert!(bind(&world, "b", "n1").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_pod_without_a_node_goes_at_once_and_one_on_a_node_when_the_node_says_so() {
    let world = world().await;
    world.create("pods", pod("a")).await;
    let last = world.delete("pods/a").await.unwrap();
    assert_eq!(last["kind"], "Pod");
    assert!(world.get("pods/a").await.unwrap_err().is_not_found());
    world.create("pods", pod("b")).await;
    bind(&world, "b", "n1").await.unwrap();
    let marked = world.delete("pods/b").await.unwrap();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-02T03:04:35Z");
    world.clock.advance(Duration::from_secs(3));
    assert_eq!(world.delete("pods/b").await.unwrap(), marked, "a second deletion changes nothing");
    let longer = world.delete_with("pods/b", |options| options.grace_period_seconds = Some(60)).await.unwrap();
    assert_eq!(longer, marked, "the period is never prolonged");
    let shorter = world.delete_with("pods/b", |options| options.grace_period_seconds = Some(5)).await.unwrap();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(shorter["metadata"]["deletionTimestamp"], "2026-01-02T03:04:10Z");
    world.delete_with("pods/b", |options| options.grace_period_seconds = Some(0)).await.unwrap();
    assert!(world.get("pods/b").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_pod_that_is_being_deleted_is_not_bound_and_keeps_its_finalizers_to_the_end() {
    let world = world().await;
    let mut held = pod("a");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.create("pods", held).await;
    bind(&world, "a", "n1").await.unwrap();
    world.delete("pods/a").await.unwrap();
    let zero = world.delete_with("pods/a", |options| options.grace_period_seconds = Some(0)).await.unwrap();
    assert_eq!(zero["metadata"]["deletionGracePeriodSeconds"], 0);
    world.merge("pods/a", json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert!(world.get("pods/a").await.unwrap_err().is_not_found());
    let mut held = pod("b");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.create("pods", held).await;
    world.delete("pods/b").await.unwrap();
    let error = bind(&world, "b", "n1").await.unwrap_err();
    assert!(error.message.ends_with("pod b is being deleted, cannot be assigned to a host"), "{error}");
}

#[tokio::test]
async fn who_changes_the_tolerations_of_a_pod_need_not_know_of_the_default_ones() {
    let world = world().await;
    let mut pod = world.create("pods", pod("a")).await;
    pod["spec"]["tolerations"] = json!([{"key": "k", "operator": "Exists"}]);
    let changed = world.update("pods/a", pod).await.unwrap();
    let tolerations = changed["spec"]["tolerations"].as_array().unwrap();
    let keys: Vec<_> = tolerations.iter().map(|toleration| toleration["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["k", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
}

#[tokio::test]
async fn the_status_is_changed_only_through_its_subresource_and_the_spec_never_by_it() {
    let world = world().await;
    let made = world.create("pods", pod("a")).await;
    let mut lying = made.clone();
    lying["status"] = json!({"phase": "Running"});
    assert_eq!(world.update("pods/a", lying.clone()).await.unwrap()["status"]["phase"], "Pending");
    lying["metadata"]["resourceVersion"] = Value::Null;
    lying["spec"]["containers"][0]["image"] = "web:2".into();
    let running = world.update("pods/a:status", lying).await.unwrap();
    assert_eq!(
        (&running["status"]["phase"], &running["spec"]["containers"][0]["image"]),
        (&json!("Running"), &json!("web:1"))
    );
    let patch = Patch::Strategic(json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}).into());
    let ready = world.registry.patch(&world.request("pods/a:status"), patch).await.unwrap().object.value();
    assert!(ready["status"]["conditions"].as_array().unwrap().iter().any(|one| one["type"] == "Ready"));
}
