//! Pods that are resized while they run: what their containers have, what restarts, what has to wait.

use reeve_tests::cluster::{Cluster, IMAGE};
use reeve_tests::patience::{eventually, eventually_is};
use reeve_tests::space::Space;
use serde_json::{Value, json};

/// A pod of one container that ends at once when asked to.
fn pod(name: &str, resources: &Value, policy: &Value) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": IMAGE, "resources": resources, "resizePolicy": policy,
                "command": ["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.2; done"],
            }],
        },
    });
    pod.to_string()
}

fn amounts(cpu: &str, memory: &str) -> Value {
    json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": cpu, "memory": memory } })
}

fn resize(space: &Space<'_>, name: &str, resources: &Value) -> reeve_tests::command::Run {
    let patch = json!({ "spec": { "containers": [{ "name": "main", "resources": resources }] } }).to_string();
    space.kubectl(&["patch", "pod", name, "--subresource=resize", "--patch", &patch])
}

/// Waits until nothing of a resize is left to do, and returns the container's status.
#[track_caller]
fn settled(space: &Space<'_>, name: &str, resources: &Value) -> Value {
    eventually(&format!("{name} has {resources}"), || {
        let object = space.object(&format!("pod/{name}"));
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let open = conditions.iter().any(|own| own["type"].as_str().is_some_and(|kind| kind.starts_with("PodResize")));
        let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let own = object["status"]["containerStatuses"][0].clone();
        let has = own["resources"] == *resources && own["allocatedResources"] == resources["requests"];
        if has && seen && !open && own["ready"] == true { Ok(own) } else { Err(object["status"].to_string()) }
    })
}

/// What the kernel grants the container: quota and memory, as v1 or v2 writes them.
fn granted(space: &Space<'_>, name: &str) -> (String, String) {
    let read = |old: &str, new: &str| {
        space.sh(name, &format!("cat /sys/fs/cgroup/{old} 2>/dev/null || cat /sys/fs/cgroup/{new}")).trim().to_owned()
    };
    let quota = read("cpu/cpu.cfs_quota_us", "cpu.max");
    let quota = quota.split(' ').next().unwrap_or_default().to_owned();
    (quota, read("memory/memory.limit_in_bytes", "memory.max"))
}

fn reasons(space: &Space<'_>, name: &str) -> Vec<String> {
    let filter = format!("--field-selector=involvedObject.name={name}");
    let list: Value =
        serde_json::from_str(&space.kubectl(&["get", "events", &filter, "-o", "json"]).text()).expect("JSON");
    let events = list["items"].as_array().cloned().unwrap_or_default();
    events.iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_running_container_gets_more_and_less_without_a_restart() {
    let space = Cluster::shared().space("resized");
    space.apply(&pod("grows", &amounts("50m", "40Mi"), &json!([])));
    space.ready("grows");
    assert_eq!(granted(&space, "grows"), ("5000".to_owned(), (40 << 20).to_string()));
    let id = space.get("pod/grows", "{.status.containerStatuses[0].containerID}");
    for (cpu, memory, quota, mebibytes) in [("100m", "80Mi", "10000", 80), ("30m", "30Mi", "3000", 30)] {
        resize(&space, "grows", &amounts(cpu, memory)).done();
        let status = settled(&space, "grows", &amounts(cpu, memory));
        assert_eq!((&status["restartCount"], &status["containerID"]), (&json!(0), &json!(id)));
        assert_eq!(granted(&space, "grows"), (quota.to_owned(), (mebibytes << 20).to_string()));
    }
    let seen = || reasons(&space, "grows").join(" ");
    let complete = |seen: &str| seen.contains("ResizeStarted") && seen.contains("ResizeCompleted");
    eventually_is("both ends are told", seen, complete);
    // Below what it uses: what it has stays, and the condition says why.
    resize(&space, "grows", &amounts("30m", "10Ki")).done();
    let message = || space.get("pod/grows", "{.status.conditions[?(@.type==\"PodResizeInProgress\")].message}");
    eventually_is("it is refused", message, |text| text.contains("memory limit (10240) below current usage ("));
    assert_eq!(granted(&space, "grows").1, (30 << 20).to_string());
    resize(&space, "grows", &amounts("30m", "50Mi")).done();
    settled(&space, "grows", &amounts("30m", "50Mi"));
}

#[test]
fn a_container_restarts_with_what_it_was_granted_where_its_policy_says_so() {
    let space = Cluster::shared().space("restarted");
    let policy = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" },
                        { "resourceName": "cpu", "restartPolicy": "NotRequired" }]);
    space.apply(&pod("restarts", &amounts("50m", "60Mi"), &policy));
    space.ready("restarts");
    resize(&space, "restarts", &amounts("60m", "60Mi")).done();
    assert_eq!(settled(&space, "restarts", &amounts("60m", "60Mi"))["restartCount"], 0);
    for (restarts, memory) in [(1, "70Mi"), (2, "50Mi")] {
        resize(&space, "restarts", &amounts("60m", memory)).done();
        let status = settled(&space, "restarts", &amounts("60m", memory));
        assert_eq!(
            (&status["restartCount"], &status["lastState"]["terminated"]["exitCode"]),
            (&json!(restarts), &json!(0))
        );
    }
    assert_eq!(granted(&space, "restarts"), ("6000".to_owned(), (50 << 20).to_string()));
    assert!(reasons(&space, "restarts").contains(&"Killing".to_owned()));
}

#[test]
fn a_resize_waits_for_room_on_the_node_and_one_beyond_the_node_is_refused() {
    let cluster = Cluster::shared();
    let space = cluster.space("deferred");
    let bytes = cluster.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].status.allocatable.memory}"]).text();
    let node: u64 = bytes.trim_end_matches("Ki").parse().expect("kibibytes");
    let part = |percent: u64| json!({ "requests": { "memory": format!("{}Ki", node / 100 * percent) } });
    space.apply(&pod("first", &part(35), &json!([])));
    space.apply(&pod("second", &part(45), &json!([])));
    space.ready("first");
    space.ready("second");
    resize(&space, "first", &part(60)).done();
    let condition = |field: &str| {
        space.get("pod/first", &format!("{{.status.conditions[?(@.type==\"PodResizePending\")].{field}}}"))
    };
    eventually_is("it is deferred", || condition("reason"), |reason| reason == "Deferred");
    let message = condition("message");
    assert!(message.starts_with("Node didn't have enough resource: memory, requested: "), "{message}");
    assert_eq!(condition("observedGeneration"), "2");
    let has = space.object("pod/first")["status"]["containerStatuses"][0].clone();
    assert_eq!((&has["allocatedResources"], &has["resources"]), (&part(35)["requests"], &part(35)));
    let refused = resize(&space, "first", &part(120)).refused();
    assert!(refused.contains("node didn't have enough allocatable resources"), "{refused}");
    space.kubectl(&["delete", "pod", "second", "--wait=false"]).done();
    settled(&space, "first", &part(60));
    assert!(reasons(&space, "first").contains(&"ResizeDeferred".to_owned()));
}
