//! Death and return: what containers notice of the death of Reeve's processes, and what comes back after `down`.

use std::collections::BTreeMap;

use reeve_tests::cluster::{Cluster, IMAGE};
use reeve_tests::patience::eventually;
use reeve_tests::processes::Process;
use reeve_tests::space::Space;

/// Pods that count on standard output, and in a file of their own under a name that each start chooses anew: were two
/// copies of a container ever to run at once, their names would alternate.
fn counters(shared: &str) -> String {
    let script = "name=$(cat /proc/sys/kernel/random/uuid); i=0; \
                  while true; do echo line $i; echo $name >>/shared/$HOSTNAME; i=$((i+1)); sleep 0.1; done";
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: alone}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: counter
    image: {IMAGE}
    command: [sh, -c, "{script}"]
    volumeMounts: [{{name: shared, mountPath: /shared}}]
  volumes: [{{name: shared, hostPath: {{path: {shared}}}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: counters}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: counters}}}}
  template:
    metadata: {{labels: {{app: counters}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: counter
        image: {IMAGE}
        command: [sh, -c, "{script}"]
        readinessProbe: {{exec: {{command: ["true"]}}, periodSeconds: 1}}
        volumeMounts: [{{name: shared, mountPath: /shared}}]
      volumes: [{{name: shared, hostPath: {{path: {shared}}}}}]
"#
    )
}

/// What is seen of a pod from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    uid: String,
    ip: String,
    container: String,
    restarts: String,
    started: String,
    processes: Vec<Process>,
}

/// Every pod of the namespace, all of them ready.
fn pods(space: &Space<'_>) -> BTreeMap<String, Seen> {
    eventually("three pods are ready", || {
        let listed = space.kubectl(&["get", "pods", "-o", "json"]);
        if listed.code != 0 {
            return Err(listed.to_string());
        }
        let list: serde_json::Value = serde_json::from_str(&listed.stdout).map_err(|err| err.to_string())?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let ready = |pod: &serde_json::Value| {
            let status = &pod["status"];
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            status["containerStatuses"][0]["ready"] == true
                && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        if items.len() != 3 || !items.iter().all(ready) {
            return Err(space.kubectl(&["get", "pods", "-o", "wide"]).stdout);
        }
        Ok(items.iter().map(|pod| (text(&pod["metadata"]["name"]), seen(pod))).collect())
    })
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn seen(pod: &serde_json::Value) -> Seen {
    let status = &pod["status"]["containerStatuses"][0];
    let container = text(&status["containerID"]);
    // Its sleeps come and go: the shell that counts is what counts.
    let mut processes = reeve_tests::processes::of_container(container.rsplit('/').next().unwrap_or_default());
    // Its main process: what the shell has just forked still has the shell's command line.
    processes.retain(|process| process.command.starts_with("sh -c") && process.is_init());
    Seen {
        uid: text(&pod["metadata"]["uid"]),
        ip: text(&pod["status"]["podIP"]),
        container,
        restarts: text(&status["restartCount"]),
        started: text(&status["state"]["running"]["startedAt"]),
        processes,
    }
}

/// The counter's lines are all there, in order, and more keep coming.
#[track_caller]
fn assert_log_goes_on(space: &Space<'_>, pod: &str) {
    let before = lines(space, pod);
    assert!(before.iter().copied().eq(0..before.len()), "{pod}: the log has a gap: {before:?}");
    eventually(&format!("{pod} logs on"), || {
        let now = lines(space, pod);
        if now.len() > before.len() + 3 { Ok(()) } else { Err(format!("{} lines", now.len())) }
    });
}

fn lines(space: &Space<'_>, pod: &str) -> Vec<usize> {
    let log = space.kubectl(&["logs", pod]).text();
    log.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect()
}

fn start<'a>(cluster: &'a Cluster, shared: &std::path::Path) -> (Space<'a>, BTreeMap<String, Seen>) {
    std::fs::create_dir_all(shared).expect("a shared folder");
    let space = cluster.space("returns");
    space.apply(&counters(&shared.to_string_lossy()));
    let before = pods(&space);
    for (name, pod) in &before {
        assert_eq!((pod.processes.len(), pod.restarts.as_str()), (1, "0"), "{name}: {pod:?}");
    }
    (space, before)
}

#[track_caller]
fn assert_never_two_copies(shared: &std::path::Path) {
    for entry in std::fs::read_dir(shared).expect("the shared folder").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("what a pod wrote");
        let mut names: Vec<&str> = text.lines().collect();
        names.dedup();
        let turns = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), turns, "{:?} ran twice at once", entry.file_name());
    }
}

#[test]
fn the_next_up_adopts_every_container_of_a_killed_main_process() {
    let cluster = Cluster::up("main");
    let shared = cluster.home().join("shared");
    let (space, before) = start(&cluster, &shared);
    let supervisor = cluster.supervisor();
    cluster.main_process().kill();
    let said = cluster.up_again().text();
    assert!(said.contains("is up again"), "{said}");
    assert_eq!(pods(&space), before, "UIDs, addresses, containers, restarts and processes are unchanged");
    assert_eq!(cluster.supervisor(), supervisor);
    for name in before.keys() {
        assert_log_goes_on(&space, name);
    }
    assert_never_two_copies(&shared);
    // Whether the node controller sees the new agent before its network is up is a matter of luck.
    for _ in 0..6 {
        cluster.main_process().kill();
        cluster.up_again().done();
    }
    assert_eq!(pods(&space), before);
    let events = space.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).text();
    assert!(events.contains("Started") && !events.contains("NodeNotReady"), "no Service loses its pods: {events}");
    // What was adopted can be ended, and what replaces it is a new container.
    space.kubectl(&["delete", "pod", "alone"]).done();
    assert!(before["alone"].processes.iter().all(|process| !process.is_alive()), "the deleted pod's process has ended");
}

#[test]
fn containers_of_a_killed_supervisor_go_on_or_are_replaced_and_never_run_twice() {
    let cluster = Cluster::up("sup");
    let shared = cluster.home().join("shared");
    let (space, before) = start(&cluster, &shared);
    cluster.supervisor().kill();
    let after = settled(&space, &before);
    assert_adopted_or_replaced(&before, &after);
    assert_never_two_copies(&shared);
    for name in after.keys() {
        assert_log_grows(&space, name);
    }
}

#[test]
fn the_next_up_repairs_a_cluster_of_which_every_process_was_killed() {
    let cluster = Cluster::up("both");
    let shared = cluster.home().join("shared");
    let (space, before) = start(&cluster, &shared);
    cluster.supervisor().kill();
    cluster.main_process().kill();
    cluster.up_again().done();
    let after = settled(&space, &before);
    assert_adopted_or_replaced(&before, &after);
    assert_never_two_copies(&shared);
    for name in after.keys() {
        assert_log_grows(&space, name);
    }
}

/// The pods when each runs one counter: the old one, or one that replaced it.
fn settled(space: &Space<'_>, before: &BTreeMap<String, Seen>) -> BTreeMap<String, Seen> {
    eventually("every pod runs one counter", || {
        let now = pods(space);
        let one = |(name, pod): (&String, &Seen)| {
            let old = before.get(name).is_some_and(|old| old.processes.iter().any(Process::is_alive));
            pod.processes.len() == 1 && (old == (pod.restarts == "0"))
        };
        if now.iter().all(one) { Ok(now) } else { Err(format!("{now:#?}")) }
    })
}

#[track_caller]
fn assert_adopted_or_replaced(before: &BTreeMap<String, Seen>, after: &BTreeMap<String, Seen>) {
    assert!(before.keys().eq(after.keys()), "the pods are the same: {before:?} {after:?}");
    for (name, old) in before {
        let new = &after[name];
        assert_eq!(old.uid, new.uid, "{name}");
        if old.container == new.container {
            assert_eq!(old, new, "{name} was adopted as it was");
        } else {
            assert_eq!(new.restarts, "1", "{name} was replaced once");
            assert!(old.processes.iter().all(|process| !process.is_alive()), "{name}: its former process has ended");
        }
    }
}

#[track_caller]
fn assert_log_grows(space: &Space<'_>, pod: &str) {
    let before = lines(space, pod).len();
    eventually(&format!("{pod} logs on"), || {
        let now = lines(space, pod).len();
        if now > before + 3 { Ok(()) } else { Err(format!("{now} lines, before {before}")) }
    });
}

#[test]
fn after_down_and_up_the_same_pods_run_in_new_sandboxes_with_one_restart_more() {
    let cluster = Cluster::up("down");
    let shared = cluster.home().join("shared");
    let (space, before) = start(&cluster, &shared);
    cluster.down().done();
    for pod in before.values() {
        assert!(pod.processes.iter().all(|process| !process.is_alive()), "down ends the containers");
    }
    cluster.up_again().done();
    let after = eventually("every pod has restarted once", || {
        let now = pods(&space);
        if now.values().all(|pod| pod.restarts == "1") { Ok(now) } else { Err(format!("{now:#?}")) }
    });
    for (name, old) in &before {
        let new = &after[name];
        assert_eq!(old.uid, new.uid, "{name}");
        assert_ne!(old.container, new.container, "{name}");
        assert_eq!(new.processes.len(), 1, "{name}: {new:?}");
        assert_log_goes_on(&space, name);
    }
    let previous = space.kubectl(&["logs", "alone", "--previous"]).text();
    assert!(previous.starts_with("line 0\n"), "the former container's log is kept: {previous:?}");
    assert_never_two_copies(&shared);
}
