//! Connections through the API server to pods and nodes: proxied requests and forwarded ports, with the real kubectl.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reeve_tests::binary::{kubectl, reeve};
use reeve_tests::cluster::Cluster;
use reeve_tests::patience::eventually_is;
use reeve_tests::space::Space;

use crate::pods::{pod, script};
use crate::workloads::web;

/// The Deployment `web` of one pod behind the Service `web`; the pod's name.
fn serve(space: &Space<'_>) -> String {
    space.apply(&web(1, "one", ""));
    space.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]).done();
    space.rolled_out("web");
    space.get("pods", "{.items[0].metadata.name}")
}

#[test]
fn requests_are_proxied_to_pods_services_and_the_node() {
    let space = Cluster::shared().space("proxied");
    let name = serve(&space);
    let own = format!("/api/v1/namespaces/{}", space.name);
    let pod_paths = [format!("{own}/pods/{name}/proxy/"), format!("{own}/pods/http:{name}:8080/proxy/index.html")];
    for path in pod_paths {
        let body = space.kubectl(&["get", "--raw", &path]).text();
        assert!(body.starts_with("one web-"), "{path}: {body}");
    }
    for path in [format!("{own}/services/web:80/proxy/"), format!("{own}/services/web:80-8080/proxy/")] {
        let asked = || space.kubectl(&["get", "--raw", &path]).stdout;
        eventually_is(&format!("{path} answers"), asked, |body| body.starts_with("one web-"));
    }
    let node = space.get("nodes", "{.items[0].metadata.name}");
    let of_node = |path: &str| space.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/{path}")]).text();
    assert_eq!(of_node("healthz"), "ok");
    assert!(of_node("pods").contains(&name));
    assert!(of_node("metrics").contains("kubelet_running_pods"));
    assert!(of_node("metrics/resource").contains(&format!("pod=\"{name}\"")));
    assert!(of_node("configz").contains("clusterDomain"));
    let summary = || of_node("stats/summary");
    let used = |text: String| -> Option<u64> {
        let summary: serde_json::Value = serde_json::from_str(&text).ok()?;
        let pod = summary["pods"].as_array()?.iter().find(|own| own["podRef"]["name"] == name.as_str())?.clone();
        assert!(summary["node"]["cpu"]["usageCoreNanoSeconds"].as_u64() > Some(0), "{summary}");
        assert!(pod["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64() > Some(0), "{pod}");
        pod["memory"]["workingSetBytes"].as_u64()
    };
    assert!(used(summary()) > Some(0));
    let missing = space.kubectl(&["get", "--raw", &format!("{own}/services/none/proxy/")]);
    assert!(missing.refused().contains("not found"));
    let components = space.kubectl(&["get", "componentstatuses"]).text();
    for component in ["scheduler", "controller-manager", "etcd-0"] {
        let line = components.lines().find(|line| line.starts_with(component)).unwrap_or_default();
        assert!(line.contains("Healthy"), "{components}");
    }
}

/// A command that forwards ports, ended with the test.
struct Forwarding {
    child: Child,
    /// The local ports that it has told.
    ports: Vec<u16>,
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a command and reads the ports that it listens on.
fn forwarding(space: &Space<'_>, program: &std::path::Path, args: &[&str], number: usize) -> Forwarding {
    started(space.cluster.command(program), space, args, number)
}

fn started(mut command: Command, space: &Space<'_>, args: &[&str], number: usize) -> Forwarding {
    command.args(["-n", &space.name, "port-forward"]).args(args).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the command starts");
    let mut ports = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    while ports.len() < number {
        let Some(Ok(line)) = lines.next() else { break };
        let local = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
        ports.extend(local.and_then(|port| port.parse::<u16>().ok()));
    }
    // Read on: a command whose output nobody takes would wait.
    std::thread::spawn(move || lines.for_each(drop));
    let found = Forwarding { child, ports };
    assert_eq!(found.ports.len(), number, "{args:?}: the command says where it listens");
    found
}

/// One request over a connection of its own.
fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the local port answers");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn ports_are_forwarded_to_pods_services_and_deployments() {
    let space = Cluster::shared().space("forwarded");
    let name = serve(&space);
    for program in [kubectl(), reeve()] {
        for (target, port) in [
            (format!("pod/{name}"), ":8080"),
            ("service/web".to_owned(), ":80"),
            ("deployment/web".to_owned(), ":http"),
        ] {
            let forwarding = forwarding(&space, program, &[&target, port], 1);
            let port = forwarding.ports[0];
            let answers: Vec<String> = std::thread::scope(|scope| {
                let several: Vec<_> = (0..4).map(|_| scope.spawn(move || get(port))).collect();
                several.into_iter().map(|one| one.join().expect("an answer")).collect()
            });
            for answer in answers {
                assert!(answer.contains(" 200 ") && answer.contains("one web-"), "{program:?} {target}: {answer}");
            }
        }
    }
}

#[test]
fn a_forwarded_port_is_the_pods_own_loopback() {
    let space = Cluster::shared().space("loopback");
    // Listens on the loopback only: nothing but the pod's own namespace reaches it.
    let served = script("mkdir -p /www && echo inside >/www/index.html && httpd -f -p 127.0.0.1:9000 -h /www");
    space.apply(&pod("hidden", &served, ""));
    space.ready("hidden");
    let sockets = forwarding(&space, kubectl(), &["pod/hidden", ":9000"], 1);
    eventually_is("it answers", || get(sockets.ports[0]), |answer| answer.contains("inside"));
    let mut spdy = space.cluster.command(kubectl());
    spdy.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
    let spdy = started(spdy, &space, &["pod/hidden", ":9000"], 1);
    eventually_is("it answers over SPDY", || get(spdy.ports[0]), |answer| answer.contains("inside"));
    let closed = forwarding(&space, reeve(), &["pod/hidden", ":9001"], 1);
    assert_eq!(get(closed.ports[0]), "", "a port that nobody listens on");
}
