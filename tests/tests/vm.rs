//! In a virtual machine: pure cgroup v2 as systemd leaves it, the host's own network, AppArmor, and a power cut.
//!
//! Needs root, qemu-system-x86 and a kernel package of the distribution; where they cannot be had it says so and is
//! skipped. `cargo test -p reeve-tests --test vm`
#![allow(clippy::expect_used, reason = "helpers of tests fail the test that calls them")]

use std::collections::BTreeMap;

use reeve_tests::vm::{Machine, Vm};
use serde_json::Value;

/// Brings the cluster up and gives it an image, built, saved, removed and loaded again.
const UP: &str = r#"
set -e
reeve up
mkdir -p /tmp/image/bin
cp /bin/busybox /tmp/image/bin/
for command in sh sleep cat echo head yes wc true; do ln -sf busybox /tmp/image/bin/$command; done
printf 'FROM scratch\nCOPY bin/ /bin/\nENV PATH=/bin\n' >/tmp/image/Dockerfile
reeve build -q -t box:v1 /tmp/image
reeve image save box:v1 -o /tmp/box.tar
reeve image rm box:v1
reeve image load /tmp/box.tar
"#;

/// Nothing of a cluster may be left; each line names something that is.
const LEFT: &str = r#"
find /sys/fs/cgroup -name 'reeve*'
find /run/reeve /var/lib/reeve -mindepth 1
ls /sys/class/net | grep -v '^lo$'
grep reeve /proc/mounts
command -v nft >/dev/null && nft list tables
ps -o args | grep '^reeve \|[r]eeve supervisor'
grep reeve- /root/.kube/config
true
"#;

fn pod(name: &str, spec: &str, containers: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{terminationGracePeriodSeconds: 1, {spec} containers: [{containers}]}}\n---\n"
    )
}

fn apply(vm: &mut Vm, yaml: &str) {
    let said = vm.run(&format!("cat >/tmp/apply.yaml <<'EOF'\n{yaml}\nEOF\nreeve apply -f /tmp/apply.yaml"));
    assert_eq!(said.code, 0, "{said}");
}

fn json(vm: &mut Vm, what: &str) -> Value {
    serde_json::from_str(&vm.sh(&format!("reeve get {what} -o json"))).expect("JSON")
}

/// A v2 control file of the pod's first container.
fn control(vm: &mut Vm, pod: &Value, qos: &str, file: &str) -> String {
    let container = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("a container");
    let id = container.rsplit('/').next().expect("an id");
    let uid = pod["metadata"]["uid"].as_str().expect("a UID");
    vm.sh(&format!("cat /sys/fs/cgroup/reeve-dev/kubepods/{qos}/pod{uid}/{id}/{file}")).trim().to_owned()
}

#[test]
fn on_pure_cgroup_v2_pods_are_limited_counted_killed_and_removed_also_in_a_container() {
    let Some(machine) = Machine::make() else { return };
    let mut vm = machine.boot();
    let mounted = vm.sh("grep -c ' cgroup ' /proc/mounts || true; cat /proc/self/cgroup");
    assert_eq!(mounted, "0\n0::/user.slice/user-0.slice/session-1.scope\n", "v2 alone, and in a session's scope");
    vm.sh(UP).clear();
    let bounded = r#"{name: main, image: "box:v1", command: [sh, -c, "echo hello; sleep 6000"],
        resources: {requests: {cpu: 250m}, limits: {cpu: 500m, memory: 32Mi}}}"#;
    // What is over the limit is not the first process: the container ends all the same.
    let greedy = r#"{name: main, image: "box:v1", command: [sh, -c, "sh -c 'x=$(yes | head -c 100000000); echo $x | wc -c'; sleep 6000"],
        resources: {limits: {memory: 16Mi}}}"#;
    apply(&mut vm, &[pod("bounded", "", bounded), pod("greedy", "restartPolicy: Never,", greedy)].concat());
    vm.sh("reeve wait pod/bounded --for=condition=Ready --timeout=120s").clear();
    let object = json(&mut vm, "pod bounded");
    for (file, value) in [
        ("memory.max", "33554432"),
        ("memory.oom.group", "1"),
        ("cpu.max", "50000 100000"),
        ("cpu.weight", "10"),
        ("pids.max", "max"),
    ] {
        assert_eq!(control(&mut vm, &object, "burstable", file), value, "{file}");
    }
    assert_is_resized(&mut vm, &object);
    let inside = vm.run("reeve exec bounded -- sh -c 'cat /proc/self/cgroup; exit 3'");
    assert_eq!((inside.code, inside.stdout.lines().next()), (3, Some("0::/")), "{inside}");
    assert_eq!(vm.sh("reeve logs bounded"), "hello\n");
    assert_is_counted(&mut vm);
    assert_is_checkpointed(&mut vm);
    vm.sh("reeve wait pod/greedy --for=jsonpath='{.status.phase}'=Failed --timeout=120s").clear();
    let ended = json(&mut vm, "pod greedy")["status"]["containerStatuses"][0]["state"]["terminated"].clone();
    assert_eq!((ended["reason"].as_str(), ended["exitCode"].as_i64()), (Some("OOMKilled"), Some(137)), "{ended}");
    vm.sh("reeve delete pod bounded greedy").clear();
    assert_eq!(vm.sh("find /sys/fs/cgroup/reeve-dev -path '*pod*/pod*' -type d"), "", "their groups are gone");
    vm.sh("reeve down --purge").clear();
    assert_eq!(vm.sh(LEFT), "", "down --purge leaves nothing");
    assert_works_in_a_cgroup_namespace(&mut vm);
}

/// What the pod waits for, reads, writes and sends is in the summary.
fn assert_is_counted(vm: &mut Vm) {
    let summary = vm.sh("reeve get --raw /api/v1/nodes/reeve-vm/proxy/stats/summary");
    let summary: Value = serde_json::from_str(&summary).expect("JSON");
    let pods = summary["pods"].as_array().expect("pods");
    let pod = pods.iter().find(|pod| pod["podRef"]["name"] == "bounded").expect("the pod");
    for whose in [&summary["node"], pod, &pod["containers"][0]] {
        for what in ["cpu", "memory", "io"] {
            assert!(whose[what]["psi"]["some"]["total"].is_u64(), "{what}: {whose}");
        }
    }
    assert_eq!(pod["network"]["name"], "eth0", "{pod}");
    assert!(pod["memory"]["workingSetBytes"].as_u64().is_some_and(|bytes| bytes > 0), "{pod}");
    assert!(pod["containers"][0]["swap"]["swapUsageBytes"].is_u64(), "{pod}");
}

/// The kubelet's checkpoint, where the machine has CRIU; the container goes on.
fn assert_is_checkpointed(vm: &mut Vm) {
    let criu = vm.run("criu check");
    let ask = "echo '{}' | reeve create --raw /api/v1/nodes/reeve-vm/proxy/checkpoint/default/bounded/main -f -";
    if criu.code != 0 {
        eprintln!("SKIPPED in part: CRIU does not work in the machine: {criu}");
        let said = vm.run(ask);
        assert!(said.code != 0 && said.to_string().contains("checkpoints need CRIU"), "{said}");
        return;
    }
    let answer: Value = serde_json::from_str(&vm.sh(ask)).expect("JSON");
    let place = answer["items"][0].as_str().expect("a place");
    let files = vm.sh(&format!("stat -c %a {place}; tar tf {place}"));
    for file in ["600", "checkpoint/inventory.img", "config.dump", "rootfs-diff.tar"] {
        assert!(files.lines().any(|line| line == file), "{file}: {files}");
    }
    assert_eq!(vm.sh("reeve exec bounded -- echo lives"), "lives\n");
    assert_eq!(vm.sh("reeve get pod bounded -o jsonpath='{.status.containerStatuses[0].restartCount}'"), "0");
    assert_is_restored(vm);
}

/// What counts goes on counting in another pod, whose image is the checkpoint.
fn assert_is_restored(vm: &mut Vm) {
    let count = r#"sh, -c, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done""#;
    apply(vm, &pod("counts", "", &format!(r#"{{name: main, image: "box:v1", command: [{count}]}}"#)));
    vm.sh("reeve wait pod/counts --for=condition=Ready --timeout=120s").clear();
    vm.sh("until [ $(reeve logs counts | wc -l) -gt 5 ]; do sleep 0.2; done").clear();
    let ask = "echo '{}' | reeve create --raw /api/v1/nodes/reeve-vm/proxy/checkpoint/default/counts/main -f -";
    let answer: Value = serde_json::from_str(&vm.sh(ask)).expect("JSON");
    let place = answer["items"][0].as_str().expect("a place");
    vm.sh(&format!(
        "reeve delete pod counts && mkdir -p /tmp/checkpoint && cp {place} /tmp/checkpoint/checkpoint.tar &&\n\
         printf 'FROM scratch\\nADD checkpoint.tar /\\n' >/tmp/checkpoint/Dockerfile &&\n\
         reeve build -q -t counts:checkpoint --annotation org.criu.checkpoint.container.name=main /tmp/checkpoint"
    ))
    .clear();
    apply(vm, &pod("goes-on", "", r#"{name: main, image: "counts:checkpoint"}"#));
    let waited = vm.run("reeve wait pod/goes-on --for=condition=Ready --timeout=120s");
    assert_eq!(waited.code, 0, "{waited}: {}", vm.sh("reeve describe pod goes-on"));
    vm.sh("until [ $(reeve logs goes-on | wc -l) -gt 1 ]; do sleep 0.2; done").clear();
    let first: u32 = vm.sh("reeve logs goes-on | head -n 1").trim().parse().expect("a number");
    assert!(first > 5, "it goes on where it was: {first}");
    assert_eq!(vm.sh("reeve exec goes-on -- echo lives"), "lives\n");
    vm.sh("reeve delete pod goes-on").clear();
}

/// The limits change in the running container's group, and one that is passed already kills nothing.
fn assert_is_resized(vm: &mut Vm, object: &Value) {
    let resize = |vm: &mut Vm, cpu: &str, memory: &str| {
        let requests = format!(r#""requests": {{"cpu": "250m", "memory": "{memory}"}}"#);
        let limits = format!(r#"{{{requests}, "limits": {{"cpu": "{cpu}", "memory": "{memory}"}}}}"#);
        let patch = format!(r#"{{"spec": {{"containers": [{{"name": "main", "resources": {limits}}}]}}}}"#);
        vm.sh(&format!("reeve patch pod bounded --subresource=resize --patch '{patch}'")).clear();
    };
    for (cpu, memory, max, quota) in
        [("700m", "48Mi", "50331648", "70000 100000"), ("300m", "24Mi", "25165824", "30000 100000")]
    {
        resize(vm, cpu, memory);
        let shown = format!(
            "reeve wait pod/bounded --for=jsonpath='{{.status.containerStatuses[0].resources.limits.memory}}'={memory} --timeout=60s"
        );
        vm.sh(&shown).clear();
        let seen = ["memory.max", "memory.swap.max", "cpu.max"].map(|file| control(vm, object, "burstable", file));
        assert_eq!(seen, [max, "0", quota].map(str::to_owned));
    }
    resize(vm, "300m", "16Ki");
    vm.sh("reeve wait pod/bounded --for=condition=PodResizeInProgress --timeout=60s").clear();
    let why = "reeve wait pod/bounded --for=jsonpath='{.status.conditions[?(@.reason==\"Error\")].type}'=PodResizeInProgress --timeout=60s";
    vm.sh(why).clear();
    assert_eq!(control(vm, object, "burstable", "memory.max"), "25165824");
    resize(vm, "300m", "32Mi");
    vm.sh("reeve wait pod/bounded --for=jsonpath='{.status.containerStatuses[0].resources.limits.memory}'=32Mi --timeout=60s").clear();
    assert_eq!(vm.sh("reeve get pod bounded -o jsonpath='{.status.containerStatuses[0].restartCount}'"), "0");
}

/// In a container the top of the mount is a group with processes, which then cannot have controllers for children: they
/// make way.
fn assert_works_in_a_cgroup_namespace(vm: &mut Vm) {
    let container =
        r#"{name: main, image: "box:v1", command: [sleep, "6000"], resources: {limits: {cpu: 500m, memory: 32Mi}}}"#;
    let inside = format!(
        "umount /sys/fs/cgroup\nmount -t cgroup2 cgroup2 /sys/fs/cgroup\n{UP}\n\
         cat >/tmp/pod.yaml <<'EOF'\n{}\nEOF\nreeve apply -f /tmp/pod.yaml\n\
         reeve wait pod/bounded --for=condition=Ready --timeout=120s\n\
         cat $(find /sys/fs/cgroup/reeve-dev -path '*/pod*/*/memory.max')\nreeve down --purge",
        pod("bounded", "", container)
    );
    let said = vm.sh(&format!(
        "cat >/tmp/inside <<'INSIDE'\nset -e\n{inside}\nINSIDE\n\
         echo '+cpu +cpuset +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control\n\
         mkdir /sys/fs/cgroup/box\necho $$ >/sys/fs/cgroup/box/cgroup.procs\n\
         exec /usr/bin/unshare --cgroup --mount sh /tmp/inside"
    ));
    assert!(said.contains("\n33554432\n"), "{said}");
    assert_eq!(vm.sh(LEFT), "", "down --purge leaves nothing");
}

#[test]
fn with_apparmor_containers_have_the_profile_that_they_ask_for_or_the_engines_own() {
    let Some(machine) = Machine::make() else { return };
    let mut vm = machine.boot();
    if vm.run("grep -q Y /sys/module/apparmor/parameters/enabled && command -v apparmor_parser").code != 0 {
        eprintln!("SKIPPED: the machine has no AppArmor, or apparmor_parser cannot be fetched");
        return;
    }
    vm.sh(UP).clear();
    let profile = "profile \"no forbidden\" flags=(attach_disconnected) { file, capability, network, signal, \
        deny /forbidden w, }";
    vm.sh(&format!("cat >/tmp/profile <<'EOF'\n{profile}\nEOF\napparmor_parser --skip-cache --replace /tmp/profile"))
        .clear();
    let container = |context: &str| {
        let script = "cat /proc/self/attr/current; echo x >/forbidden && echo written; sleep 6000";
        format!(r#"{{name: main, image: "box:v1", command: [sh, -c, "{script}"], securityContext: {{{context}}}}}"#)
    };
    let asks = |kind: &str| format!("appArmorProfile: {{type: {kind}}}");
    let localhost = |name: &str| format!("appArmorProfile: {{type: Localhost, localhostProfile: '{name}'}}");
    let pods = [
        ("named", localhost("no forbidden"), "no forbidden (enforce)", false),
        ("usual", String::new(), "reeve-default (enforce)", true),
        ("default", asks("RuntimeDefault"), "reeve-default (enforce)", true),
        ("free", asks("Unconfined"), "unconfined", true),
        ("privileged", "privileged: true".to_owned(), "unconfined", true),
    ];
    let yaml: Vec<_> = pods.iter().map(|(name, context, ..)| pod(name, "", &container(context))).collect();
    let users =
        pod("users", "hostUsers: false, automountServiceAccountToken: false,", &container(&localhost("no forbidden")));
    apply(&mut vm, &[yaml.concat(), users, pod("missing", "", &container(&localhost("not loaded")))].concat());
    for (name, _, profile, may_write) in pods.iter().chain([&("users", String::new(), "no forbidden (enforce)", false)])
    {
        let ready = format!("reeve wait pod/{name} --for=condition=Ready --timeout=60s");
        vm.sh(&format!("{ready} || {{ reeve describe pod {name}; exit 1; }}")).clear();
        let said = vm.sh(&format!("reeve logs {name}"));
        assert_eq!(said.lines().next(), Some(*profile), "{name}");
        assert_eq!(said.contains("written"), *may_write, "{name}: {said}");
        let inside = vm.run(&format!("reeve exec {name} -- sh -c 'cat /proc/self/attr/current; echo x >/forbidden'"));
        assert!(inside.stdout.lines().any(|line| line == *profile), "{name}: {inside}");
        assert_eq!(inside.code == 0, *may_write, "{name}: {inside}");
    }
    let denied = vm.run("reeve exec usual -- sh -c 'echo b >/proc/sysrq-trigger'");
    assert!(denied.code != 0, "{denied}");
    let why = "reeve get pod missing -o jsonpath='{.status.containerStatuses[0].state.waiting.message}'";
    let why = vm.sh(&format!("for i in $(seq 60); do {why} | grep found && break; sleep 1; done"));
    let wanted = "failed to get container spec opts: failed to generate apparmor spec opts: apparmor profile not found not loaded";
    assert_eq!(why.trim(), wanted);
    vm.sh("reeve down --purge").clear();
    assert_eq!(vm.sh(LEFT), "", "down --purge leaves nothing");
}

/// What is seen of each pod: UID, and per container its id, restarts and the reason of its end.
type Seen = BTreeMap<String, (String, BTreeMap<String, (String, i64, String)>)>;

fn pods(vm: &mut Vm) -> Seen {
    let list = json(vm, "pods");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let container = |status: &Value| {
        let ended = text(&status["state"]["terminated"]["reason"]);
        (text(&status["name"]), (text(&status["containerID"]), status["restartCount"].as_i64().unwrap_or(-1), ended))
    };
    let pods = list["items"].as_array().expect("a list").iter().map(|pod| {
        let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        (text(&pod["metadata"]["name"]), (text(&pod["metadata"]["uid"]), statuses.iter().map(container).collect()))
    });
    pods.collect()
}

#[test]
fn after_a_power_cut_the_same_pods_run_again_and_every_acknowledged_write_is_there() {
    let Some(machine) = Machine::make() else { return };
    let mut vm = machine.boot();
    vm.sh(UP).clear();
    let forever = r#"{name: main, image: "box:v1", command: [sleep, "6000"]}"#;
    let once = r#"{name: once, image: "box:v1", command: [echo, done]}"#;
    let yaml = [pod("alone", "", forever), pod("mixed", "restartPolicy: OnFailure,", &format!("{forever}, {once}"))];
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  \
        template: {metadata: {labels: {app: web}}, spec: {containers: [{name: main, image: \"box:v1\", command: [sleep, \"6000\"]}]}}\n";
    apply(&mut vm, &[&yaml.concat(), deployment].concat());
    vm.sh("reeve rollout status deployment/web --timeout=180s && reeve wait pod/alone --for=condition=Ready --timeout=120s").clear();
    vm.sh("reeve wait pod/mixed --for=jsonpath='{.status.containerStatuses[1].state.terminated.reason}'=Completed --timeout=120s").clear();
    let before = pods(&mut vm);
    // A lock that a program held when the power went, and writes under way.
    let writes = "touch /root/.kube/config.lock; sync\n\
        (for i in $(seq 200); do printf 'apiVersion: v1\\nkind: ConfigMap\\nmetadata: {name: m%d}\\n---\\n' $i; done) >/tmp/maps.yaml\n\
        reeve create -f /tmp/maps.yaml >/dev/ttyS2 2>&1 &";
    vm.sh(writes).clear();
    let clock = reeve_api::clock::RealClock::new();
    let deadline = reeve_api::clock::Clock::monotonic(&clock) + reeve_tests::patience::patience();
    while machine.report().lines().count() < 20 {
        assert!(reeve_api::clock::Clock::monotonic(&clock) < deadline, "no writes: {}", machine.report());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    vm.power_cut();
    let report = machine.report();
    // The last line may be cut short.
    let whole = report.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let acknowledged: Vec<&str> =
        whole.lines().filter_map(|line| line.trim().strip_prefix("configmap/")?.strip_suffix(" created")).collect();
    assert!(acknowledged.len() >= 19, "{report}");

    let mut vm = machine.boot();
    vm.sh("reeve up").clear();
    let maps = vm.sh("reeve get configmaps -o name");
    let lost: Vec<_> = acknowledged.iter().filter(|name| !maps.contains(&format!("configmap/{name}\n"))).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    vm.sh("reeve rollout status deployment/web --timeout=180s && reeve wait pod/alone --for=condition=Ready --timeout=120s").clear();
    vm.sh("reeve wait pod/mixed --for=jsonpath='{.status.containerStatuses[0].restartCount}'=1 --timeout=120s").clear();
    let after = pods(&mut vm);
    assert!(before.keys().eq(after.keys()), "{before:?} {after:?}");
    for (name, (uid, containers)) in &before {
        let (new_uid, new) = &after[name];
        assert_eq!(uid, new_uid, "{name} is the same pod");
        for (container, (id, restarts, ended)) in containers {
            if ended == "Completed" {
                assert_eq!(
                    new[container],
                    (id.clone(), *restarts, ended.clone()),
                    "{name}: what has ended well is not run again"
                );
            } else {
                assert_eq!(new[container].1, restarts + 1, "{name}/{container}: {after:?}");
                assert_ne!(new[container].0, *id, "{name}/{container} is a new container");
            }
        }
    }
    vm.sh("reeve down --purge").clear();
    assert_eq!(vm.sh(LEFT), "", "down --purge leaves nothing");
}
