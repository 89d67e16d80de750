//! Probes that go over the network, probes of pods that end, and a client at a container's own streams.

use reeve_tests::cluster::Cluster;
use reeve_tests::patience::eventually_is;
use reeve_tests::space::Space;

use super::pods::{pod, script};

#[track_caller]
fn events_say(space: &Space<'_>, words: &str) {
    let events = || space.kubectl(&["get", "events", "-o", "jsonpath={.items[*].message}"]).stdout;
    eventually_is(words, events, |seen| seen.contains(words));
}

#[test]
fn a_server_that_answers_with_an_error_is_restarted() {
    let space = Cluster::shared().space("http-liveness");
    let probe = r#""ports": [{"name": "web", "containerPort": 8080}],
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "web"}, "periodSeconds": 1, "failureThreshold": 2}, "#;
    let serve = script("mkdir /www; echo ok >/www/healthz; httpd -f -p 8080 -h /www");
    space.apply(&pod("web", &format!("{probe}{serve}"), ""));
    space.ready("web");
    let restarts = || space.get("pod/web", "{.status.containerStatuses[0].restartCount}");
    assert_eq!(restarts(), "0");
    space.sh("web", "rm /www/healthz").clear();
    eventually_is("it is restarted", restarts, |count| count == "1");
    events_say(&space, "Liveness probe failed: HTTP probe failed with statuscode: 404");
    events_say(&space, "Container main failed liveness probe, will be restarted");
    space.ready("web");
}

#[test]
fn a_port_that_nobody_listens_on_is_not_ready() {
    let space = Cluster::shared().space("tcp-readiness");
    let probe = r#""readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}, "#;
    space.apply(&pod("late", &format!("{probe}{}", script("sleep 600")), ""));
    let ip = || space.get("pod/late", "{.status.podIP}");
    eventually_is("it has an address", ip, |ip| !ip.is_empty());
    events_say(&space, &format!("Readiness probe failed: dial tcp {}:8080: connect: connection refused", ip()));
    let ready = || space.get("pod/late", "{.status.containerStatuses[0].ready}");
    assert_eq!(ready(), "false");
    space.sh("late", "httpd -p 8080").clear();
    eventually_is("it is ready", ready, |ready| ready == "true");
    let web = r#""readinessProbe": {"httpGet": {"port": 9090, "path": "/"}, "periodSeconds": 1}, "#;
    space.apply(&pod("closed", &format!("{web}{}", script("sleep 600")), ""));
    let words = ":9090/\": dial tcp ";
    events_say(&space, words);
}

#[test]
fn a_pod_that_ends_goes_on_to_say_whether_it_is_ready_and_is_not_restarted() {
    let space = Cluster::shared().space("ending-probes");
    let probes = r#""readinessProbe": {"exec": {"command": ["test", "-e", "/ready"]}, "periodSeconds": 1, "failureThreshold": 1},
        "livenessProbe": {"exec": {"command": ["test", "-e", "/ready"]}, "periodSeconds": 1, "failureThreshold": 2}, "#;
    let stubborn = script("touch /ready; trap '' TERM; until test -e /end; do sleep 0.1; done");
    let manifest = pod("ending", &format!("{probes}{stubborn}"), "");
    space.apply(&manifest.replace("PeriodSeconds\": 1,", "PeriodSeconds\": 50,"));
    space.ready("ending");
    space.kubectl(&["delete", "pod", "ending", "--wait=false"]).done();
    space.sh("ending", "rm /ready").clear();
    let ready = || space.get("pod/ending", "{.status.containerStatuses[0].ready}");
    eventually_is("it is ready no more", ready, |ready| ready == "false");
    space.sh("ending", "sleep 4; touch /ready").clear();
    eventually_is("it is ready again", ready, |ready| ready == "true");
    assert_eq!(space.get("pod/ending", "{.status.containerStatuses[0].restartCount}"), "0");
    space.sh("ending", "touch /end").clear();
    space.wait("pod/ending", "delete");
}

#[test]
fn attach_joins_the_streams_of_the_container_itself() {
    let space = Cluster::shared().space("attach");
    let streams = r#""stdin": true, "stdinOnce": true, "#;
    let echo = script("while read -r line; do echo \"said $line\"; done; echo over");
    space.apply(&pod("listener", &format!("{streams}{echo}"), r#""restartPolicy": "Never","#));
    space.ready("listener");
    let attached = space.kubectl_with(&["attach", "-i", "listener"], "one\ntwo\n").text();
    assert_eq!(attached, "said one\nsaid two\nover\n");
    space.wait("pod/listener", "jsonpath={.status.phase}=Succeeded");
    assert_eq!(space.kubectl(&["logs", "listener"]).text(), attached, "the log has it too");
}
