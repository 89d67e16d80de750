//! A pod's life: images, commands, streams, environment, volumes, probes, restarts, limits, the end.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use reeve_tests::binary::kubectl;
use reeve_tests::cluster::{Cluster, IMAGE};
use reeve_tests::command::run;
use reeve_tests::patience::{eventually, eventually_is};
use reeve_tests::terminal::Terminal;

/// A pod of one container called `main`, with further lines of its container and of its spec.
pub(super) fn pod(name: &str, container: &str, spec: &str) -> String {
    format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}", "labels": {{"app": "{name}"}}}},
        "spec": {{"terminationGracePeriodSeconds": 1, {spec}
          "containers": [{{"name": "main", "image": "{IMAGE}", {container}}}]}}}}"#
    )
}

/// The container field that runs a shell script.
pub(super) fn script(text: &str) -> String {
    format!(r#""command": ["sh", "-c", {}]"#, serde_json::json!(text))
}

#[test]
fn logs_are_followed_cut_and_dated() {
    let space = Cluster::shared().space("logs");
    space.apply(&pod(
        "talker",
        &script("for i in 1 2 3; do echo line $i; done; echo oops >&2; sleep 3; echo late; sleep 600"),
        "",
    ));
    space.ready("talker");
    eventually_is("the first lines", || space.kubectl(&["logs", "talker"]).stdout, |log| log.lines().count() >= 4);
    assert!(space.kubectl(&["logs", "talker"]).text().starts_with("line 1\nline 2\nline 3\n"));
    assert_eq!(space.kubectl(&["logs", "talker", "--tail=1"]).text().lines().count(), 1);
    let dated = space.kubectl(&["logs", "talker", "--timestamps"]).text();
    let first = dated.lines().next().unwrap_or_default();
    let (time, rest) = first.split_once(' ').expect("a time and a line");
    assert!(time.parse::<jiff_free::Stamp>().is_ok() && rest == "line 1", "{dated}");
    let mut follow = space.cluster.command(kubectl());
    follow.args(["-n", &space.name, "logs", "-f", "talker"]).stdout(Stdio::piped());
    let mut follow = follow.spawn().expect("kubectl starts");
    let lines = BufReader::new(follow.stdout.take().expect("its output")).lines();
    let last = lines.map_while(Result::ok).find(|line| line == "late");
    follow.kill().expect("kubectl follows until it is stopped");
    follow.wait().expect("its end");
    assert_eq!(last.as_deref(), Some("late"), "what is said later is followed");
}

/// Just enough to tell an RFC 3339 time from other words.
mod jiff_free {
    pub(super) struct Stamp;

    impl std::str::FromStr for Stamp {
        type Err = ();

        fn from_str(text: &str) -> Result<Self, ()> {
            let shape = text.len() > 19 && text.get(4..5) == Some("-") && text.get(10..11) == Some("T");
            (shape && (text.ends_with('Z') || text.contains('+'))).then_some(Self).ok_or(())
        }
    }
}

#[test]
fn exec_carries_streams_exit_codes_and_terminals() {
    let space = Cluster::shared().space("exec");
    space.apply(&pod("target", &script("sleep 600"), ""));
    space.ready("target");
    for web_sockets in ["true", "false"] {
        let kubectl = |args: &[&str]| {
            let mut command = space.cluster.command(kubectl());
            command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", web_sockets).args(["-n", &space.name]).args(args);
            command
        };
        let failed = run(&mut kubectl(&["exec", "target", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]), "");
        assert_eq!((failed.code, failed.stdout.as_str()), (7, "out\n"), "{failed}");
        assert!(failed.stderr.starts_with("err\n"), "{failed}");
        let big = "0123456789abcdef".repeat(20_000);
        let echoed = run(&mut kubectl(&["exec", "-i", "target", "--", "cat"]), &big).text();
        assert_eq!(echoed.len(), big.len(), "standard input arrives whole and its end is told");
        let missing = run(&mut kubectl(&["exec", "target", "--", "no-such-command"]), "");
        assert!(missing.refused().contains("no-such-command"));

        let mut terminal = Terminal::start(&mut kubectl(&["exec", "-it", "target", "--", "sh"]));
        // The size is told when the command already runs.
        terminal.type_in("until stty size | grep 30; do sleep 0.1; done; tty && echo on a terminal\n");
        terminal.shows("30 100");
        terminal.shows("on a terminal\r\n");
        terminal.type_in("exit 5\n");
        assert_eq!(terminal.ends(), 5);
    }
}

#[test]
fn a_running_pod_is_looked_into_with_an_ephemeral_container() {
    let space = Cluster::shared().space("debug");
    space.apply(&pod("target", &script("sleep 600"), ""));
    space.ready("target");
    let image = format!("--image={IMAGE}");
    let alone = ["debug", "target", "--quiet", "-i", "-c", "alone", &image, "--", "sh", "-c", "ps; hostname; exit 3"];
    // Its input ends at once and stays open for others: that lets go of the client, whatever it has seen by then.
    space.kubectl(&alone).done();
    let log = || space.kubectl(&["logs", "target", "-c", "alone"]).stdout;
    let seen = eventually_is("it says where it is", log, |log| log.contains("target"));
    assert!(!seen.contains("sleep 600"), "its own processes only: {seen}");
    let ended = "{.status.ephemeralContainerStatuses[?(@.name=='alone')].state.terminated.exitCode}";
    eventually_is("its end is told", || space.get("pod/target", ended), |code| code == "3");
    let into = ["debug", "target", "--quiet", "-c", "into", "--target=main", &image, "--", "sh", "-c"];
    space.kubectl(&[&into[..], &["ps; sleep 600"]].concat()).done();
    let log = || space.kubectl(&["logs", "target", "-c", "into"]).stdout;
    eventually_is("it sees the processes of its target", log, |log| log.contains("1 0        sleep 600"));
    let running = "{.status.ephemeralContainerStatuses[?(@.name=='into')].state.running.startedAt}";
    eventually_is("it is told to run", || space.get("pod/target", running), |since| !since.is_empty());
    assert_eq!(space.kubectl(&["exec", "target", "-c", "into", "--", "echo", "here"]).text(), "here\n");
    assert_eq!(space.get("pod/target", "{.status.containerStatuses[0].restartCount}"), "0");
    space.kubectl(&["delete", "pod", "target", "--wait"]).done();
}

#[test]
fn the_environment_comes_from_config_maps_secrets_and_fields() {
    let space = Cluster::shared().space("environment");
    space.kubectl(&["create", "configmap", "settings", "--from-literal=COLOR=blue", "--from-literal=SIZE=big"]).done();
    space.kubectl(&["create", "secret", "generic", "keys", "--from-literal=token=s3cret"]).done();
    let env = r#""envFrom": [{"configMapRef": {"name": "settings"}}],
        "env": [{"name": "LITERAL", "value": "$(COLOR)-x"},
          {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
          {"name": "NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
          {"name": "OWN_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
          {"name": "OWN_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],"#;
    space.apply(&pod("reader", &format!("{env} {}", script("env; sleep 600")), ""));
    space.ready("reader");
    let seen = space.sh("reader", "env");
    let ip = space.get("pod/reader", "{.status.podIP}");
    let node = Cluster::shared().node_ip();
    let own = [format!("OWN_IP={ip}"), format!("NODE_IP={node}")];
    let fixed = ["COLOR=blue", "SIZE=big", "LITERAL=blue-x", "TOKEN=s3cret", "OWN_NAME=reader", "FROM_IMAGE=yes"];
    for line in fixed.iter().copied().chain(own.iter().map(String::as_str)) {
        assert!(seen.lines().any(|seen| seen == line), "{line} is missing in\n{seen}");
    }
}

#[test]
fn volumes_show_objects_and_follow_them() {
    let space = Cluster::shared().space("volumes");
    let host = Cluster::shared().home().join("host-volume");
    std::fs::create_dir_all(&host).expect("a folder");
    std::fs::write(host.join("hello"), "from the host").expect("a file");
    space.kubectl(&["create", "configmap", "settings", "--from-literal=color=blue"]).done();
    space.kubectl(&["create", "secret", "generic", "keys", "--from-literal=token=s3cret"]).done();
    let mounts = r#""volumeMounts": [{"name": "settings", "mountPath": "/settings"}, {"name": "keys", "mountPath": "/keys"},
        {"name": "scratch", "mountPath": "/scratch"}, {"name": "host", "mountPath": "/host"}],"#;
    let volumes = format!(
        r#""volumes": [{{"name": "settings", "configMap": {{"name": "settings"}}}},
        {{"name": "keys", "secret": {{"secretName": "keys", "defaultMode": 256}}}}, {{"name": "scratch", "emptyDir": {{}}}},
        {{"name": "host", "hostPath": {{"path": "{}"}}}}],"#,
        host.display()
    );
    space.apply(&pod("reader", &format!("{mounts} {}", script("sleep 600")), &volumes));
    space.ready("reader");
    let seen = space.sh("reader", "cat /settings/color /keys/token /host/hello; echo kept >/scratch/file; cat /scratch/file; stat -Lc %a /keys/token");
    assert_eq!(seen, "blues3cretfrom the hostkept\n400\n");
    space.sh("reader", "echo back >/host/answer").clear();
    assert_eq!(std::fs::read_to_string(host.join("answer")).expect("what the pod wrote"), "back\n");
    space.kubectl(&["patch", "configmap", "settings", "-p", r#"{"data":{"color":"red"}}"#]).done();
    eventually_is(
        "the change arrives in the pod",
        || space.sh("reader", "cat /settings/color"),
        |color| color == "red",
    );
}

#[test]
fn readiness_decides_who_is_behind_a_service() {
    let space = Cluster::shared().space("readiness");
    let probe = r#""readinessProbe": {"exec": {"command": ["test", "-e", "/ready"]}, "periodSeconds": 1, "failureThreshold": 1},"#;
    space.apply(&pod("web", &format!("{probe} {}", script("sleep 600")), ""));
    space.kubectl(&["expose", "pod", "web", "--port=80"]).done();
    space.wait("pod/web", "jsonpath={.status.phase}=Running");
    let addresses = || space.get("endpoints/web", "{.subsets[*].addresses[*].ip}");
    let not_ready = || space.get("endpoints/web", "{.subsets[*].notReadyAddresses[*].ip}");
    let ip = space.get("pod/web", "{.status.podIP}");
    eventually_is("the pod is known and not ready", not_ready, |seen| seen == ip);
    assert_eq!(addresses(), "");
    space.sh("web", "touch /ready").clear();
    eventually_is("the ready pod is an endpoint", addresses, |seen| seen == ip);
    space.sh("web", "rm /ready").clear();
    eventually_is("the pod that is ready no more is none", addresses, str::is_empty);
}

#[test]
fn liveness_restarts_and_startup_holds_it_back() {
    let space = Cluster::shared().space("liveness");
    let probe = r#""livenessProbe": {"exec": {"command": ["test", "-e", "/alive"]}, "periodSeconds": 1, "failureThreshold": 1},
        "startupProbe": {"exec": {"command": ["test", "-e", "/started"]}, "periodSeconds": 1, "failureThreshold": 60},"#;
    space.apply(&pod(
        "fragile",
        &format!("{probe} {}", script("echo hello; sleep 3; touch /alive /started; sleep 600")),
        "",
    ));
    space.wait("pod/fragile", "jsonpath={.status.containerStatuses[0].started}=true");
    space.ready("fragile");
    assert_eq!(
        space.get("pod/fragile", "{.status.containerStatuses[0].restartCount}"),
        "0",
        "startup held liveness back"
    );
    space.sh("fragile", "rm /alive").clear();
    space.wait("pod/fragile", "jsonpath={.status.containerStatuses[0].restartCount}=1");
    let previous = space.kubectl(&["logs", "fragile", "--previous"]).text();
    assert_eq!(previous, "hello\n");
    eventually_is(
        "the event",
        || space.kubectl(&["get", "events"]).stdout,
        |events| {
            events.contains("Liveness probe failed") && events.contains("failed liveness probe, will be restarted")
        },
    );
}

#[test]
fn restart_policies_decide_what_follows_an_exit() {
    let space = Cluster::shared().space("restarts");
    let policy = |name: &str| format!(r#""restartPolicy": "{name}","#);
    space.apply(&pod("done", &script("exit 0"), &policy("Never")));
    space.apply(&pod("failed", &script("exit 3"), &policy("Never")));
    space.apply(&pod("retried", &script("sleep 0.1; exit 1"), &policy("OnFailure")));
    space.apply(&pod("looping", &script("exit 0"), &policy("Always")));
    space.wait("pod/done", "jsonpath={.status.phase}=Succeeded");
    space.wait("pod/failed", "jsonpath={.status.phase}=Failed");
    let terminated = space.get("pod/failed", "{.status.containerStatuses[0].state.terminated.exitCode}");
    assert_eq!(terminated, "3");
    for name in ["retried", "looping"] {
        let waiting = || space.get(&format!("pod/{name}"), "{.status.containerStatuses[0].state.waiting.reason}");
        eventually_is(&format!("{name} is held back"), waiting, |reason| reason == "CrashLoopBackOff");
        assert_eq!(space.get(&format!("pod/{name}"), "{.status.phase}"), "Running");
    }
    let said = space.get("pod/looping", "{.status.containerStatuses[0].state.waiting.message}");
    assert!(said.contains("back-off") && said.contains("restarting failed container=main"), "{said}");
}

#[test]
fn a_pod_ends_by_hook_then_signal_then_force() {
    let space = Cluster::shared().space("endings");
    let host = Cluster::shared().home().join("endings");
    std::fs::create_dir_all(&host).expect("a folder");
    let volume = format!(r#""volumes": [{{"name": "host", "hostPath": {{"path": "{}"}}}}],"#, host.display());
    let fields = r#""volumeMounts": [{"name": "host", "mountPath": "/host"}],
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >>/host/order"]}}},"#;
    let polite = "trap 'echo term >>/host/order; exit 0' TERM; while true; do sleep 0.1; done";
    space.apply(
        &pod("polite", &format!("{fields} {}", script(polite)), &volume)
            .replace("PeriodSeconds\": 1", "PeriodSeconds\": 30"),
    );
    space.apply(&pod("stubborn", &script("trap '' TERM; while true; do sleep 0.1; done"), ""));
    space.ready("polite");
    space.ready("stubborn");
    let stubborn = space.processes("stubborn");
    assert!(!stubborn.is_empty());
    space.kubectl(&["delete", "pod", "polite", "stubborn"]).done();
    assert_eq!(std::fs::read_to_string(host.join("order")).expect("what was written"), "hook\nterm\n");
    assert!(stubborn.iter().all(|process| !process.is_alive()), "what ignores SIGTERM is killed after its grace");
}

#[test]
fn limits_stand_in_the_cgroups_and_memory_over_them_is_oom_killed() {
    let space = Cluster::shared().space("limits");
    let limits = r#""resources": {"limits": {"cpu": "500m", "memory": "32Mi"}},"#;
    space.apply(&pod("bounded", &format!("{limits} {}", script("sleep 600")), ""));
    space.ready("bounded");
    let process = space.processes("bounded").first().cloned().expect("its process");
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).expect("its cgroups");
    assert_eq!(limit(&groups, "memory", "memory.limit_in_bytes", "memory.max"), (32 << 20).to_string());
    let cpu = limit(&groups, "cpu", "cpu.cfs_quota_us", "cpu.max");
    assert!(cpu == "50000" || cpu == "50000 100000", "{cpu}");
    space.apply(&pod(
        "greedy",
        &format!("{limits} {}", script("x=$(yes | head -c 100000000); echo $x | wc -c")),
        r#""restartPolicy": "Never","#,
    ));
    let reason = || space.get("pod/greedy", "{.status.containerStatuses[0].state.terminated.reason}");
    eventually_is("it is killed for its memory", reason, |reason| reason == "OOMKilled");
    assert_eq!(space.get("pod/greedy", "{.status.containerStatuses[0].state.terminated.exitCode}"), "137");
}

/// What a cgroup of the process says, in whichever version of the hierarchy holds that controller.
fn limit(groups: &str, controller: &str, file_v1: &str, file_v2: &str) -> String {
    let mut lines = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let v1 = lines.find(|(names, _)| names.split(',').any(|name| name == controller));
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    let path = match v1 {
        Some((_, path)) => format!("/sys/fs/cgroup/{controller}{path}/{file_v1}"),
        None => format!("/sys/fs/cgroup{unified}/{file_v2}"),
    };
    std::fs::read_to_string(&path).unwrap_or_else(|err| panic!("{path}: {err}")).trim().to_owned()
}

#[test]
fn the_kernel_holds_a_container_to_its_security_context() {
    let space = Cluster::shared().space("security");
    let nothing = script("sleep 600");
    let tight = r#""securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        "runAsUser": 1234, "readOnlyRootFilesystem": true},"#;
    space.apply(&pod("usual", &nothing, ""));
    space.apply(&pod("tight", &format!("{tight} {nothing}"), ""));
    space.apply(&pod("mighty", &format!(r#""securityContext": {{"privileged": true}}, {nothing}"#), ""));
    let status = |pod: &str, field: &str| {
        let text = space.sh(pod, "cat /proc/1/status");
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")).map(str::trim).map(str::to_owned));
        line.unwrap_or_else(|| panic!("{field} in\n{text}"))
    };
    for pod in ["usual", "tight", "mighty"] {
        space.ready(pod);
    }
    // containerd's default set.
    assert_eq!((status("usual", "CapEff").as_str(), status("usual", "Seccomp").as_str()), ("00000000a80425fb", "2"));
    assert_eq!(status("usual", "NoNewPrivs"), "0");
    assert_eq!((status("tight", "CapBnd").as_str(), status("tight", "NoNewPrivs").as_str()), ("0000000000000000", "1"));
    assert_eq!(space.sh("tight", "id -u; touch /x 2>&1 || true"), "1234\ntouch: /x: Read-only file system\n");
    assert_eq!(status("mighty", "Seccomp"), "0");
    assert_ne!(status("mighty", "CapEff"), status("usual", "CapEff"));
}

#[test]
fn what_cannot_start_says_why() {
    let space = Cluster::shared().space("unstartable");
    let never = pod("absent", r#""imagePullPolicy": "Never""#, "").replace(IMAGE, "no-such-image:v1");
    space.apply(&never);
    space.apply(&pod("nocommand", r#""command": ["/no/such/command"]"#, ""));
    space.apply(&pod(
        "noconfig",
        r#""envFrom": [{"configMapRef": {"name": "missing"}}], "command": ["sleep", "1"]"#,
        "",
    ));
    let waiting = |pod: &str| {
        let status = "{.status.containerStatuses[0]";
        let state = space
            .get(&format!("pod/{pod}"), &format!("{status}.state.waiting.reason}} {status}.state.waiting.message}}"));
        format!("{state} {}", space.get(&format!("pod/{pod}"), &format!("{status}.lastState.terminated.message}}")))
    };
    let cases = [
        ("absent", "ErrImageNeverPull", "no-such-image:v1"),
        ("nocommand", "RunContainerError", "/no/such/command"),
        ("noconfig", "CreateContainerConfigError", "configmap \"missing\" not found"),
    ];
    for (name, reason, word) in cases {
        eventually(&format!("{name} says {reason}"), || {
            let seen = waiting(name);
            let crashing = name == "nocommand" && seen.starts_with("CrashLoopBackOff");
            if (seen.starts_with(reason) || crashing) && seen.contains(word) { Ok(()) } else { Err(seen) }
        });
    }
    space.kubectl(&["create", "configmap", "missing", "--from-literal=a=b"]).done();
    space.wait("pod/noconfig", "jsonpath={.status.containerStatuses[0].state.terminated.reason}=Completed");
}

#[test]
fn pods_with_users_of_their_own_share_no_id_with_the_node_or_each_other() {
    let space = Cluster::shared().space("users");
    let volumes = r#""hostUsers": false, "volumes": [{"name": "data", "emptyDir": {}}],"#;
    let container = format!(
        r#"{}, "volumeMounts": [{{"name": "data", "mountPath": "/data"}}]"#,
        script("echo mine > /data/file; exec sleep 600")
    );
    let first_id = |name: &str| -> u32 {
        space.apply(&pod(name, &container, volumes));
        space.ready(name);
        let map = space.sh(name, "cat /proc/self/uid_map");
        let words: Vec<u32> = map.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [0, first, 65_536] = words[..] else { panic!("{map}") };
        assert!(first >= 65_536 && first % 65_536 == 0, "{map}");
        let token = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        let seen = space.sh(name, &format!("id -u; stat -c %u /data/file /etc/hosts; wc -c < {token}"));
        let seen: Vec<u32> = seen.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert!(seen[..3] == [0, 0, 0] && seen[3] > 0, "{seen:?}");
        first
    };
    assert_ne!(first_id("one"), first_id("other"));
    let host = pod("host", &container, &format!(r#"{volumes} "hostNetwork": true, "hostPID": true,"#));
    let refused = space.kubectl_with(&["apply", "-f", "-"], &host).refused();
    for field in ["spec.hostNetwork", "spec.HostPID"] {
        assert!(refused.contains(&format!("{field}: Forbidden: when `hostUsers` is false")), "{refused}");
    }
    space.kubectl(&["delete", "pod", "one", "other"]).done();
}
