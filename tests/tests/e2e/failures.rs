//! Pods that cannot start, do not stay, or take too much: what their status and their events say, and what heals them.

use reeve_tests::cluster::{Cluster, IMAGE};
use reeve_tests::patience::{eventually, eventually_is};
use reeve_tests::space::Space;

use super::pods::{pod, script};

/// `Type Reason Message` of every event about the object, in the order they came.
fn events(space: &Space<'_>, name: &str) -> Vec<String> {
    let filter = format!("--field-selector=involvedObject.name={name}");
    let list = space.kubectl(&["get", "events", &filter, "-o", "json"]).text();
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let mut events: Vec<_> = list["items"].as_array().expect("a list").iter().collect();
    let age = |event: &serde_json::Value| event["metadata"]["resourceVersion"].as_str().map(str::parse::<u64>);
    events.sort_by_key(|event| age(event).and_then(Result::ok));
    let text = |event: &serde_json::Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    events.iter().map(|e| format!("{} {} {}", text(e, "type"), text(e, "reason"), text(e, "message"))).collect()
}

#[track_caller]
pub(super) fn said(space: &Space<'_>, name: &str, wanted: &str) {
    eventually(&format!("{name}: {wanted}"), || {
        let events = events(space, name);
        if events.iter().any(|event| event == wanted) { Ok(()) } else { Err(events.join("\n")) }
    });
}

#[track_caller]
pub(super) fn waits_for(space: &Space<'_>, name: &str, reason: &str) -> String {
    let waiting = |field: &str| {
        space.get(&format!("pod/{name}"), &format!("{{.status.containerStatuses[0].state.waiting.{field}}}"))
    };
    eventually_is(&format!("{name} waits"), || waiting("reason"), |seen| seen == reason);
    waiting("message")
}

/// Gives the test image a further name, as another process than the cluster's.
pub(super) fn name_image(name: &str) {
    let cluster = Cluster::shared();
    let (data_dir, context) = (cluster.data_dir(), cluster.home().join("image"));
    let (data_dir, context) = (data_dir.to_string_lossy(), context.to_string_lossy());
    cluster.reeve(&["build", "--quiet", "-t", name, "--name", &cluster.name, "--data-dir", &data_dir, &context]).done();
}

#[test]
fn an_image_that_cannot_be_pulled_is_told_and_the_pod_runs_as_soon_as_it_is_loaded() {
    let space = Cluster::shared().space("pull");
    // Nobody listens there: the pull fails at once, without leaving the machine.
    let image = "localhost:1/absent:v1";
    space.apply(&pod("puller", &script("sleep 600"), "").replace(IMAGE, image));
    let message = waits_for(&space, "puller", "ImagePullBackOff");
    let start = format!("Back-off pulling image \"{image}\": ErrImagePull: ");
    assert!(message.starts_with(&start) && message.contains("localhost:1"), "{message}");
    assert_eq!(space.get("pod/puller", "{.status.phase}"), "Pending");
    let shown = space.kubectl(&["get", "pod", "puller", "--no-headers"]).text();
    assert!(shown.contains("ImagePullBackOff") || shown.contains("ErrImagePull"), "{shown}");
    for event in [
        format!("Normal Pulling Pulling image \"{image}\""),
        "Warning Failed Error: ErrImagePull".to_owned(),
        format!("Normal BackOff Back-off pulling image \"{image}\""),
        "Warning Failed Error: ImagePullBackOff".to_owned(),
    ] {
        said(&space, "puller", &event);
    }
    let failed = format!("Warning Failed Failed to pull image \"{image}\": ");
    assert!(events(&space, "puller").iter().any(|event| event.starts_with(&failed)));
    let logs = space.kubectl(&["logs", "puller"]).refused();
    assert!(logs.contains("is waiting to start: trying and failing to pull image"), "{logs}");
    name_image(image);
    space.ready("puller");
    let present = format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
    said(&space, "puller", &format!("Normal Pulled {present}"));
}

#[test]
fn an_image_name_that_is_none_and_one_that_may_not_be_pulled_are_told() {
    let space = Cluster::shared().space("names");
    space.apply(&pod("invalid", &script("true"), "").replace(IMAGE, "Capital:v1"));
    let never = r#""imagePullPolicy": "Never", "#;
    space.apply(&pod("never", &format!("{never}{}", script("true")), "").replace(IMAGE, "no-such-image:v1"));
    let message = waits_for(&space, "invalid", "InvalidImageName");
    let wanted = "Failed to apply default image tag \"Capital:v1\": couldn't parse image name \"Capital:v1\": invalid \
                  reference format: repository name (library/Capital) must be lowercase";
    assert_eq!(message, wanted);
    said(&space, "invalid", &format!("Warning InspectFailed {wanted}"));
    said(&space, "invalid", "Warning Failed Error: InvalidImageName");
    let message = waits_for(&space, "never", "ErrImageNeverPull");
    let wanted = "Container image \"no-such-image:v1\" is not present with pull policy of Never";
    assert_eq!(message, wanted);
    said(&space, "never", &format!("Warning ErrImageNeverPull {wanted}"));
    said(&space, "never", "Warning Failed Error: ErrImageNeverPull");
}

#[test]
fn what_a_container_lacks_is_told_and_a_container_starts_when_it_is_there() {
    let space = Cluster::shared().space("lacking");
    space.kubectl(&["create", "secret", "generic", "keys", "--from-literal=a=b"]).done();
    let key = r#""env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}}], "#;
    space.apply(&pod("keyless", &format!("{key}{}", script("sleep 600")), ""));
    let map = r#""env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}}], "#;
    space.apply(&pod("mapless", &format!("{map}{}", script("sleep 600")), ""));
    space.apply(&pod("commandless", r#""tty": false"#, ""));
    let message = waits_for(&space, "keyless", "CreateContainerConfigError");
    assert_eq!(message, "couldn't find key token in Secret lacking/keys");
    said(&space, "keyless", &format!("Warning Failed Error: {message}"));
    let message = waits_for(&space, "mapless", "CreateContainerConfigError");
    assert_eq!(message, "configmap \"settings\" not found");
    let message = waits_for(&space, "commandless", "CreateContainerError");
    assert!(message.contains("no command specified"), "{message}");
    said(&space, "commandless", &format!("Warning Failed Error: {message}"));
    space.kubectl(&["patch", "secret", "keys", "-p", r#"{"stringData": {"token": "t"}}"#]).done();
    space.kubectl(&["create", "configmap", "settings", "--from-literal=a=b"]).done();
    space.ready("keyless");
    space.ready("mapless");
}

#[test]
fn how_containers_end_is_told_in_reasons_codes_and_events() {
    let space = Cluster::shared().space("ends");
    let once = r#""restartPolicy": "Never","#;
    space.apply(&pod("completed", &script("exit 0"), once));
    space.apply(&pod("wrong", &script("echo last words >/dev/termination-log; exit 3"), once));
    space.apply(&pod("missing", r#""command": ["/no/such/command"]"#, once));
    space.apply(&pod("looping", &script("exit 1"), ""));
    let ended = |name: &str| {
        let path = "{.status.phase} {.status.containerStatuses[0].state.terminated.reason} \
                    {.status.containerStatuses[0].state.terminated.exitCode}";
        space.get(&format!("pod/{name}"), path)
    };
    for (name, wanted) in
        [("completed", "Succeeded Completed 0"), ("wrong", "Failed Error 3"), ("missing", "Failed StartError 128")]
    {
        eventually_is(name, || ended(name), |seen| seen == wanted);
    }
    let words = "{.status.containerStatuses[0].state.terminated.message}";
    assert_eq!(space.get("pod/wrong", words), "last words\n");
    let message = space.get("pod/missing", words);
    assert!(
        message.contains("exec: \"/no/such/command\": stat /no/such/command: no such file or directory"),
        "{message}"
    );
    said(&space, "missing", &format!("Warning Failed Error: {message}"));
    let uid = space.get("pod/looping", "{.metadata.uid}");
    let message = waits_for(&space, "looping", "CrashLoopBackOff");
    let name = format!("looping_ends({uid})");
    assert!(message.ends_with(&format!("restarting failed container=main pod={name}")), "{message}");
    said(&space, "looping", &format!("Warning BackOff Back-off restarting failed container main in pod {name}"));
}

#[test]
fn events_of_containers_come_after_those_of_the_init_containers_before_them() {
    let space = Cluster::shared().space("order");
    let init = format!(r#""initContainers": [{{"name": "first", "image": "{IMAGE}", {}}}],"#, script("sleep 1"));
    space.apply(&pod("ordered", &script("sleep 600"), &init));
    space.ready("ordered");
    let list = space.kubectl(&["get", "events", "-o", "json"]).text();
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let mut seen: Vec<(u64, String)> = list["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|event| {
            let place = event["involvedObject"]["fieldPath"].as_str()?;
            let version = event["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
            Some((version, format!("{place} {}", event["reason"].as_str()?)))
        })
        .collect();
    seen.sort();
    let order: Vec<&str> = seen.iter().map(|(_, event)| event.as_str()).collect();
    let (init, main) = ("spec.initContainers{first}", "spec.containers{main}");
    let wanted: Vec<String> = [init, main]
        .iter()
        .flat_map(|place| ["Pulled", "Created", "Started"].map(|reason| format!("{place} {reason}")))
        .collect();
    assert_eq!(order, wanted);
}

#[test]
fn a_pod_that_fills_its_empty_dir_beyond_the_limit_is_evicted() {
    let space = Cluster::shared().space("evicted");
    let mount = r#""volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}], "#;
    let volume = r#""volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}],"#;
    let fill = script(
        "head -c 100000 /dev/zero >/scratch/some; echo begun; sleep 5; head -c 3000000 /dev/zero >/scratch/much; sleep 600",
    );
    space.apply(&pod("greedy", &format!("{mount}{fill}"), volume));
    space.wait("pod/greedy", "jsonpath={.status.reason}=Evicted");
    let status = space.get("pod/greedy", "{.status.phase}|{.status.message}|");
    assert_eq!(status, "Failed|Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". |");
    said(&space, "greedy", "Warning Evicted Usage of EmptyDir volume \"scratch\" exceeds the limit \"1Mi\". ");
    let ended = || space.get("pod/greedy", "{.status.containerStatuses[0].state.terminated.exitCode}");
    eventually_is("its container is stopped", ended, |code| !code.is_empty());
}

#[test]
fn a_pod_that_writes_more_than_its_ephemeral_storage_is_evicted() {
    let space = Cluster::shared().space("filled");
    let limits = r#""resources": {"limits": {"ephemeral-storage": "2Mi"}}, "#;
    let layer = script("head -c 4000000 /dev/zero >/much; sleep 600");
    let logs = script("head -c 4000000 /dev/zero | tr '\\0' x | fold; sleep 600");
    let hosts = script("head -c 4000000 /dev/zero >/etc/hosts; sleep 600");
    let volume = r#""volumes": [{"name": "scratch", "emptyDir": {}}],"#;
    let mount = r#""volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}], "#;
    let scratch = script("head -c 4000000 /dev/zero >/scratch/much; sleep 600");
    space.apply(&pod("layer", &format!("{limits}{layer}"), ""));
    space.apply(&pod("logs", &format!("{limits}{logs}"), ""));
    space.apply(&pod("scratch", &format!("{limits}{mount}{scratch}"), volume));
    // CVE-2020-8557: a file of the pod's that is the node's.
    space.apply(&pod("hosts", &format!("{limits}{hosts}"), ""));
    let message = "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ";
    for name in ["layer", "logs", "scratch", "hosts"] {
        space.wait(&format!("pod/{name}"), "jsonpath={.status.reason}=Evicted");
        let status = space.get(&format!("pod/{name}"), "{.status.phase}|{.status.message}|");
        assert_eq!(status, format!("Failed|{message}|"), "{name}");
        said(&space, name, &format!("Warning Evicted {message}"));
    }
}

#[test]
fn a_pod_that_makes_processes_without_end_takes_none_of_the_others() {
    let space = Cluster::shared().space("bombs");
    let bomb = script("i=0; while [ $i -lt 9999 ]; do sleep 600 & i=$((i+1)); done");
    space.apply(&pod("bomb", &bomb, r#""restartPolicy": "Never","#));
    space.wait("pod/bomb", "jsonpath={.status.phase}=Failed");
    assert_eq!(space.kubectl(&["logs", "bomb"]).text(), "sh: can't fork: Resource temporarily unavailable\n");
    space.apply(&pod("other", &script("sleep 600"), ""));
    space.ready("other");
}

#[test]
fn the_status_shows_what_a_container_was_given() {
    let space = Cluster::shared().space("given");
    let fields = r#""resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "100m", "memory": "64Mi"}},
        "securityContext": {"runAsUser": 1234, "runAsGroup": 55}, "#;
    let groups = r#""securityContext": {"supplementalGroups": [77]},"#;
    space.apply(&pod("given", &format!("{fields}{}", script("sleep 600")), groups));
    space.ready("given");
    let status = &space.object("pod/given")["status"]["containerStatuses"][0];
    let limits = serde_json::json!({ "cpu": "100m", "memory": "64Mi" });
    assert_eq!(status["resources"]["limits"], limits);
    assert_eq!(status["allocatedResources"], serde_json::json!({ "cpu": "50m", "memory": "64Mi" }));
    assert_eq!(status["user"]["linux"], serde_json::json!({ "uid": 1234, "gid": 55, "supplementalGroups": [55, 77] }));
    assert_eq!(space.sh("given", "id -u; id -g; id -G"), "1234\n55\n55 77\n", "as it is");
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mounts = status["volumeMounts"].as_array().expect("a list");
    let mount = mounts.iter().find(|mount| mount["mountPath"] == token).expect("the token's mount");
    assert_eq!((&mount["readOnly"], &mount["recursiveReadOnly"]), (&true.into(), &"Disabled".into()));
}

#[test]
fn a_pod_that_counts_on_apparmor_is_refused_where_there_is_none() {
    if std::path::Path::new("/sys/kernel/security/apparmor").exists() {
        eprintln!("SKIPPED: this machine has AppArmor; the virtual machine's test looks at such ones");
        return;
    }
    let space = Cluster::shared().space("apparmor");
    let asks = r#""securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}},"#;
    space.apply(&pod("counting", &script("sleep 600"), asks));
    let text = || space.get("pod/counting", "{.status.phase} {.status.reason} {.status.message}");
    let refused = "Failed AppArmor Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host";
    eventually_is("it is refused", text, |text| text == refused);
    space.apply(&pod("free", &script("sleep 600"), &asks.replace("RuntimeDefault", "Unconfined")));
    space.ready("free");
}
