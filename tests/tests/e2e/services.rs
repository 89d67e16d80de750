//! Services: reached from pods and from the node, through changes, by name; and the API server, from a pod.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use reeve_tests::cluster::{Cluster, IMAGE};
use reeve_tests::patience::{eventually, eventually_is};
use reeve_tests::space::Space;

use crate::workloads::web;

/// Longest time one request may take: a packet that is dropped instead of refused is a failure.
const REQUEST_WAIT: Duration = Duration::from_secs(5);

/// One GET over a connection of its own; the body, or what went wrong.
fn get(address: &str) -> Result<String, String> {
    let told = |err: std::io::Error| format!("{address}: {err}");
    let address_parsed: SocketAddr = address.parse().map_err(|err| format!("{address}: {err}"))?;
    let mut stream = TcpStream::connect_timeout(&address_parsed, REQUEST_WAIT).map_err(told)?;
    stream.set_read_timeout(Some(REQUEST_WAIT)).map_err(told)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(told)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(told)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{address}: half an answer: {answer:?}"))?;
    if head.contains(" 200 ") { Ok(body.to_owned()) } else { Err(format!("{address}: {head}")) }
}

/// A client pod and the Deployment `web` behind a NodePort Service: addresses of the Service and its node port.
fn serve(space: &Space<'_>, replicas: u32) -> (String, String) {
    space.apply(&web(replicas, "one", ""));
    space.kubectl(&["create", "service", "nodeport", "web", "--tcp=80:8080"]).done();
    space.kubectl(&["run", "client", &format!("--image={IMAGE}"), "--command", "--", "sleep", "600"]).done();
    if replicas > 0 {
        space.rolled_out("web");
    }
    space.ready("client");
    (space.get("service/web", "{.spec.clusterIP}"), space.get("service/web", "{.spec.ports[0].nodePort}"))
}

#[test]
fn a_service_answers_pods_the_node_and_node_ports_and_refuses_without_endpoints() {
    let cluster = Cluster::shared();
    let space = cluster.space("service");
    let (service, port) = serve(&space, 2);
    let node = cluster.node_ip();
    eventually("the Service answers on the node", || cluster.in_node(|| get(&format!("{service}:80"))));
    for address in [format!("{service}:80"), format!("{node}:{port}"), format!("127.0.0.1:{port}")] {
        let body = cluster.in_node(|| get(&address)).unwrap_or_else(|err| panic!("from the node: {err}"));
        assert!(body.starts_with("one web-"), "{body}");
    }
    let names = ["web".to_owned(), "web.service.svc.cluster.local".to_owned()];
    for address in [format!("{service}:80"), format!("{node}:{port}")].into_iter().chain(names) {
        let body = space.beside("client", &["curl", "-sS", "-m", "5", &format!("http://{address}/")]).text();
        assert!(body.starts_with("one web-"), "from a pod, {address}: {body}");
    }
    let seen: std::collections::BTreeSet<String> =
        (0..40).filter_map(|_| cluster.in_node(|| get(&format!("{service}:80"))).ok()).collect();
    assert_eq!(seen.len(), 2, "both pods answer: {seen:?}");
    space.kubectl(&["patch", "service/web", "-p", r#"{"spec": {"sessionAffinity": "ClientIP"}}"#]).done();
    eventually("a client keeps its pod", || {
        let seen: std::collections::BTreeSet<_> =
            (0..20).map(|_| cluster.in_node(|| get(&format!("{service}:80")))).collect();
        if seen.len() == 1 { Ok(()) } else { Err(format!("{seen:?}")) }
    });

    space.kubectl(&["scale", "deployment/web", "--replicas=0"]).done();
    for address in [format!("{service}:80"), format!("{node}:{port}")] {
        let refused = || cluster.in_node(|| get(&address)).err().unwrap_or_default();
        eventually_is("without endpoints it is refused", refused, |err| err.contains("refused"));
    }
}

#[test]
fn no_request_fails_during_a_rolling_update() {
    let cluster = Cluster::shared();
    let space = cluster.space("rolling");
    let (service, port) = serve(&space, 2);
    eventually("the Service answers", || cluster.in_node(|| get(&format!("{service}:80"))));
    let (stop, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    let load = |address: String| {
        let (stop, answered) = (&stop, &answered);
        move || {
            let mut failed = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match get(&address) {
                    Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    Err(err) => failed.push(err),
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            failed
        }
    };
    let failed = std::thread::scope(|scope| {
        let addresses = [format!("{service}:80"), format!("127.0.0.1:{port}")];
        let loads: Vec<_> = addresses.map(|address| scope.spawn(|| cluster.in_node(load(address)))).into();
        space.apply(&web(2, "two", ""));
        let status = space.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
        // The old ones have gone too.
        std::thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
        status.done();
        loads.into_iter().flat_map(|load| load.join().expect("a load")).collect::<Vec<_>>()
    });
    let answered = answered.into_inner();
    assert!(answered > 100, "the load was no load: {answered} answers");
    assert!(failed.is_empty(), "{} of {} requests failed: {failed:?}", failed.len(), answered as usize + failed.len());
    assert!(cluster.in_node(|| get(&format!("{service}:80"))).expect("an answer").starts_with("two "));
}

#[test]
fn names_of_services_and_their_pods_are_found_from_pods() {
    let space = Cluster::shared().space("names");
    let (service, _) = serve(&space, 2);
    let headless = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "headless"},
        "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"name": "http", "port": 8080}]}}"#;
    space.apply(headless);
    let look = |kind: &str, name: &str| {
        space.kubectl(&["exec", "client", "--", "nslookup", &format!("-type={kind}"), name]).stdout
    };
    let full = |name: &str| format!("{name}.names.svc.cluster.local");
    assert!(look("a", &full("web")).contains(&service));
    let ips = space.get("pods", r#"{.items[?(@.metadata.labels.app=="web")].status.podIP}"#);
    eventually_is(
        "a headless name is its pods",
        || look("a", &full("headless")),
        |seen| !ips.is_empty() && ips.split(' ').all(|ip| seen.contains(ip)),
    );
    let srv = look("srv", &full("_http._tcp.headless"));
    assert!(srv.contains("8080"), "{srv}");
    let resolv = space.sh("client", "cat /etc/resolv.conf");
    assert!(resolv.contains("search names.svc.cluster.local svc.cluster.local cluster.local"), "{resolv}");
    assert!(resolv.contains("ndots:5"), "{resolv}");
    let missing = look("a", &full("nobody"));
    assert!(!missing.contains("Address: 10."), "{missing}");
}

#[test]
fn a_pod_reaches_the_api_server_as_its_service_account_and_may_not_read_pods() {
    let space = Cluster::shared().space("account");
    space.kubectl(&["run", "client", &format!("--image={IMAGE}"), "--command", "--", "sleep", "600"]).done();
    space.ready("client");
    let pid = space.processes("client").first().map(|process| process.pid).expect("its process");
    let files = format!("/proc/{pid}/root/var/run/secrets/kubernetes.io/serviceaccount");
    let token = std::fs::read_to_string(format!("{files}/token")).expect("a token");
    assert_eq!(std::fs::read_to_string(format!("{files}/namespace")).expect("a namespace"), space.name);
    let host = space.sh("client", "echo -n $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT");
    let (ca, bearer) = (format!("{files}/ca.crt"), format!("Authorization: Bearer {token}"));
    let ask = |host: &str, path: &str| {
        let url = format!("https://{host}{path}");
        let curl = ["curl", "-sS", "-m", "10", "-w", "\n%{http_code}", "--cacert", &ca, "-H", &bearer, &url];
        space.beside("client", &curl).text()
    };
    for host in [host.as_str(), "kubernetes.default.svc"] {
        assert!(ask(host, "/api").ends_with("\n200"), "discovery is for everybody who is known");
    }
    let refused = ask(&host, &format!("/api/v1/namespaces/{}/pods", space.name));
    assert!(refused.ends_with("\n403"), "{refused}");
    assert!(refused.contains("system:serviceaccount:account:default"), "{refused}");
    assert!(refused.contains("cannot list resource"), "{refused}");
}

#[test]
fn a_node_port_that_another_program_holds_is_told_with_its_holder() {
    let cluster = Cluster::shared();
    let space = cluster.space("taken");
    let taken = cluster.in_node(|| {
        let listener = (32_000_u16..32_700).find_map(|port| std::net::TcpListener::bind(("0.0.0.0", port)).ok());
        listener.expect("a free port")
    });
    let port = taken.local_addr().expect("its address").port();
    space.kubectl(&["create", "service", "nodeport", "web", "--tcp=80:8080", &format!("--node-port={port}")]).done();
    let holder = format!("process {}", std::process::id());
    eventually_is(
        "an event names the holder",
        || space.kubectl(&["get", "events"]).stdout,
        |events| events.contains(&format!("nodePort {port}")) && events.contains(&holder),
    );
}

#[test]
fn a_service_without_a_selector_leads_where_its_endpoints_or_slices_say() {
    let cluster = Cluster::shared();
    let space = cluster.space("byhand");
    let _ = serve(&space, 1);
    let pod = space.get("pods", r#"{.items[?(@.metadata.labels.app=="web")].status.podIP}"#);
    let by_hand = format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{name: old}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: v1
kind: Endpoints
metadata: {{name: old}}
subsets: [{{addresses: [{{ip: {pod}}}], ports: [{{port: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: new}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: new-1, labels: {{kubernetes.io/service-name: new}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{{addresses: [{pod}]}}]
"#
    );
    space.apply(&by_hand);
    for service in ["old", "new"] {
        let ip = space.get(&format!("service/{service}"), "{.spec.clusterIP}");
        let body = eventually("it answers", || cluster.in_node(|| get(&format!("{ip}:80"))));
        assert!(body.starts_with("one web-"), "{service}: {body}");
    }
    let slice = "{.items[?(@.metadata.ownerReferences[0].kind==\"Endpoints\")].metadata.name}";
    assert!(space.get("endpointslices", slice).starts_with("old-"));
    space.kubectl(&["delete", "endpoints", "old"]).done();
    let ip = space.get("service/old", "{.spec.clusterIP}");
    let refused = || cluster.in_node(|| get(&format!("{ip}:80"))).err().unwrap_or_default();
    eventually_is("without endpoints it is refused", refused, |err| err.contains("refused"));
}

#[test]
fn a_host_port_leads_to_its_pod_and_keeps_the_next_one_waiting() {
    let cluster = Cluster::shared();
    let space = cluster.space("hostports");
    let pod = |name: &str| {
        let serve = r#""command": ["sh", "-c", "mkdir /www; hostname >/www/index.html; httpd -f -p 8080 -h /www"]"#;
        let ports = r#""ports": [{"containerPort": 8080, "hostPort": 47080}]"#;
        super::pods::pod(name, &format!("{ports}, {serve}"), "")
    };
    space.apply(&pod("first"));
    space.ready("first");
    let node = cluster.node_ip();
    for address in [format!("{node}:47080"), "127.0.0.1:47080".to_owned()] {
        let answer = eventually(&address, || cluster.in_node(|| get(&address)));
        assert!(answer.contains("first"), "{address}: {answer}");
    }
    let from_pod = space.sh("first", &format!("wget -q -O - http://{node}:47080/"));
    assert_eq!(from_pod, "first\n", "from the pod itself");
    space.apply(&pod("second"));
    let waits = || space.get("pod/second", "{.status.conditions[?(@.type==\"PodScheduled\")].message}");
    let reason = "node(s) didn't have free ports for the requested pod ports";
    eventually_is("the second waits", waits, |message| message.contains(reason));
    space.kubectl(&["delete", "pod", "first"]).done();
    space.ready("second");
    let answer = eventually("the second answers", || cluster.in_node(|| get(&format!("{node}:47080"))));
    assert!(answer.contains("second"), "{answer}");
}
