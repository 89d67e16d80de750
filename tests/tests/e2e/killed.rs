//! `reeve up` and `reeve down` killed at any moment: the next one repairs or finishes, and nothing runs twice.

use std::process::{Command, Stdio};
use std::time::Duration;

use reeve_tests::cluster::{Cluster, IMAGE};
use reeve_tests::patience::eventually;
use reeve_tests::processes::{Process, all};

/// Starts the command, and after `delay` kills it as `kill -9` does. Its children go on.
fn kill_after(command: &mut Command, delay: Duration) {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("reeve starts");
    std::thread::sleep(delay);
    // It may have ended already.
    let _ = child.kill();
    child.wait().expect("its end");
}

/// The main process of the cluster, wherever it is in its life.
fn mains(cluster: &Cluster) -> Vec<Process> {
    all(|process| process.command.contains("--background-child") && process.command.contains(&cluster.name))
}

fn pod(name: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"}}, "spec": {{"terminationGracePeriodSeconds": 1,
        "containers": [{{"name": "main", "image": "{IMAGE}", "command": ["sleep", "6000"]}}]}}}}"#
    )
}

#[test]
fn an_up_killed_at_any_moment_is_repaired_by_the_next_up() {
    let cluster = Cluster::prepare("kill-up");
    for (round, milliseconds) in [0, 3, 10, 25, 50, 90, 150, 250, 400, 650].into_iter().enumerate() {
        kill_after(&mut cluster.up_command(), Duration::from_millis(milliseconds));
        if round % 2 == 1 {
            // The other half of it too.
            mains(&cluster).iter().filter(|main| main.is_alive()).for_each(Process::kill);
        }
        cluster.up_again().done();
        let main = cluster.main_process();
        cluster.kubectl(&["get", "nodes"]).done();
        assert!(cluster.up_again().text().contains("is already up"));
        assert_eq!(cluster.main_process(), main);
        // Every other time it starts from nothing.
        if round % 4 < 2 {
            let (purged, left) = cluster.purge();
            purged.done();
            assert!(left.is_empty(), "{left:?}");
        } else {
            cluster.down().done();
        }
    }
}

#[test]
fn an_up_killed_at_any_moment_is_removed_by_the_next_down() {
    let cluster = Cluster::prepare("kill-new");
    for milliseconds in [0, 3, 10, 25, 50, 90, 150, 250, 400, 650] {
        kill_after(&mut cluster.up_command(), Duration::from_millis(milliseconds));
        let (purged, left) = cluster.purge();
        assert!(left.is_empty(), "after {milliseconds} ms: {purged}\n{left:?}");
        assert!(mains(&cluster).is_empty(), "after {milliseconds} ms");
        let context = cluster.kubectl(&["config", "get-contexts", "-o", "name"]).stdout;
        assert!(!context.contains(&cluster.name), "after {milliseconds} ms: {context}");
    }
}

#[test]
fn a_down_killed_at_any_moment_is_finished_by_the_next_one() {
    let cluster = Cluster::prepare("kill-down");
    for milliseconds in [0, 5, 20, 60, 120, 200, 350] {
        cluster.up_again().done();
        cluster.build_image();
        let space = cluster.space("short");
        space.apply(&pod("one"));
        space.ready("one");
        let processes = space.processes("one");
        std::mem::forget(space);
        kill_after(&mut cluster.down_command(true), Duration::from_millis(milliseconds));
        let (purged, left) = cluster.purge();
        assert!(left.is_empty(), "after {milliseconds} ms: {purged}\n{left:?}");
        assert!(processes.iter().all(|process| !process.is_alive()), "after {milliseconds} ms");
        let context = cluster.kubectl(&["config", "get-contexts", "-o", "name"]).stdout;
        assert!(!context.contains(&cluster.name), "after {milliseconds} ms: {context}");
    }
}

#[test]
fn after_a_down_killed_at_any_moment_the_next_up_runs_every_pod_once() {
    let cluster = Cluster::up("kill-rest");
    let space = cluster.space("lasting");
    space.apply(&pod("one"));
    space.ready("one");
    let uid = space.get("pod/one", "{.metadata.uid}");
    for milliseconds in [0, 20, 60, 120, 200, 350] {
        kill_after(&mut cluster.down_command(false), Duration::from_millis(milliseconds));
        cluster.up_again().done();
        eventually("the pod runs once", || {
            let ready = space.get("pod/one", "{.status.containerStatuses[0].ready}");
            let uid = space.get("pod/one", "{.metadata.uid}");
            let running = reeve_tests::processes::of_container(&uid);
            if ready == "true" && running.len() == 1 { Ok(()) } else { Err(format!("ready: {ready:?}, {running:?}")) }
        });
        assert_eq!(space.get("pod/one", "{.metadata.uid}"), uid);
    }
}
