//! The rules against real packets: a node and two pods in network namespaces of their own, without a way out.
//!
//! Needs root. Everything is made by the test and gone with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nix::sched::{CloneFlags, setns, unshare};
use reeve_client::ObjectKey;
use serde_json::{Value, json};

use super::flows::is_stale;
use super::layout::Surroundings;
use super::plan::{Entries, plan};
use super::rules::Rules;
use crate::conntrack::Conntrack;
use crate::link::ServiceLink;

const NODE: Ipv4Addr = Ipv4Addr::new(172, 28, 0, 1);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 9);
const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const NODE_PORT: u16 = 30080;
const PATIENCE: Duration = Duration::from_secs(5);

fn run(command: &str) {
    let words: Vec<&str> = command.split_whitespace().collect();
    let status = Command::new(words[0]).args(&words[1..]).status().expect("the program is there");
    assert!(status.success(), "{command}");
}

/// A pod: a named network namespace with one address, wired to the node's by veth.
struct Pod {
    netns: String,
    ip: Ipv4Addr,
}

impl Pod {
    /// Called in the node's network namespace.
    fn new(number: u8) -> Self {
        Self::at(number, Ipv4Addr::new(10, 200, 0, number))
    }

    fn at(number: u8, ip: Ipv4Addr) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let netns = format!("rvt-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        run(&format!("ip netns add {netns}"));
        let pod = Self { netns, ip };
        let (link, netns) = (format!("veth{number}"), &pod.netns);
        run(&format!("ip link add {link} type veth peer name eth0 netns {netns}"));
        run(&format!("ip addr add 10.200.0.1/32 dev {link}"));
        run(&format!("ip link set {link} up"));
        run(&format!("ip route add {ip}/32 dev {link}"));
        run(&format!("ip -n {netns} link set lo up"));
        run(&format!("ip -n {netns} link set eth0 up"));
        run(&format!("ip -n {netns} addr add {ip}/32 dev eth0"));
        run(&format!("ip -n {netns} route add 10.200.0.1 dev eth0 scope link"));
        run(&format!("ip -n {netns} route add default via 10.200.0.1"));
        pod
    }

    /// Runs something in the pod's network namespace.
    fn inside<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> R {
        let path = format!("/run/netns/{}", self.netns);
        let thread = std::thread::spawn(move || {
            setns(File::open(path).expect("pinned"), CloneFlags::CLONE_NEWNET).expect("entered");
            work()
        });
        thread.join().expect("no panic inside")
    }

    /// A server on port 8080 that says the pod's address and whom it sees.
    fn serve(&self) {
        let ip = self.ip;
        let listener = self.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).expect("bound"));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let from = stream.peer_addr().expect("a peer").ip();
                let _ = write!(stream, "{ip} sees {from}");
            }
        });
    }
}

impl Pod {
    /// A UDP server on port 8080 that says the pod's address.
    fn serve_datagrams(&self) {
        let ip = self.ip;
        let socket = self.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 8080)).expect("bound"));
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(ip.to_string().as_bytes(), from);
            }
        });
    }
}

/// What a UDP client that is connected hears.
fn ask_again(client: &UdpSocket) -> Result<String, ErrorKind> {
    let mut buffer = [0; 64];
    // What came back late of the question before.
    drop(client.take_error());
    client.send(b"?").map_err(|err| err.kind())?;
    let length = client.recv(&mut buffer).map_err(|err| err.kind())?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn datagrams_to(ip: Ipv4Addr, port: u16) -> UdpSocket {
    let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
    client.connect((ip, port)).expect("connected");
    client.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
    client
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.netns]).status();
    }
}

fn ask(ip: Ipv4Addr, port: u16) -> Result<String, ErrorKind> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from((ip, port)), PATIENCE).map_err(|err| err.kind())?;
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut said = String::new();
    stream.read_to_string(&mut said).map_err(|err| err.kind())?;
    Ok(said)
}

/// What a Service needs that is as in `spec`, over a plain one with TCP port 80 and a node port.
fn entries_of(spec: &Value, endpoints: &[Value]) -> Entries {
    let mut service = json!({"spec": {
        "type": "NodePort", "clusterIP": SERVICE, "ports": [{"port": 80, "nodePort": NODE_PORT}]}});
    for (name, value) in spec.as_object().expect("an object") {
        service["spec"][name] = value.clone();
    }
    let service: Service = serde_json::from_value(service).expect("a service");
    let protocol = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()?.first()?.protocol.clone());
    let ports = json!([{"port": 8080, "protocol": protocol}]);
    let slice = json!({"addressType": "IPv4", "ports": ports, "endpoints": endpoints});
    let slice: EndpointSlice = serde_json::from_value(slice).expect("a slice");
    plan(&service, &[Arc::new(slice)], "n1", &BTreeSet::new())
}

/// A ready endpoint on this node.
fn here(ip: Ipv4Addr) -> Value {
    json!({"addresses": [ip], "nodeName": "n1"})
}

/// A node in a network namespace of its own, with two serving pods and the rules of one Service.
struct Node {
    pods: [Pod; 2],
    rules: Rules,
}

impl Node {
    fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
        run("ip link set lo up");
        run(&format!("ip addr add {NODE}/32 dev lo"));
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding");
        let pods = [Pod::new(2), Pod::new(3)];
        pods.iter().for_each(Pod::serve);
        let service_cidr = "10.96.0.0/20".parse().expect("a range");
        let link = ServiceLink {
            name: "rvtsvc".to_owned(),
            service_cidr,
            dns_address: Ipv4Addr::new(10, 96, 0, 10),
            node_address: NODE,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(link.ensure()).expect("the device");
        runtime.block_on(link.ensure()).expect("the device, again");
        let cluster = "10.200.0.0/16".parse().expect("a range");
        let surroundings = Surroundings { cluster, service: service_cidr, pod_links: "veth".to_owned() };
        let mut rules = Rules::new("reeve-test".to_owned(), surroundings).expect("a socket");
        rules.sync(Vec::new()).expect("the table");
        Self { pods, rules }
    }

    fn lead_to(&mut self, endpoints: &[Ipv4Addr]) {
        let endpoints: Vec<Value> = endpoints.iter().copied().map(here).collect();
        self.set("web", &json!({}), &endpoints);
    }

    fn set(&mut self, name: &str, spec: &Value, endpoints: &[Value]) {
        self.sync(name, Some(entries_of(spec, endpoints)));
    }

    fn sync(&mut self, name: &str, entries: Option<Entries>) {
        self.rules.sync(vec![(ObjectKey::new("default", name), entries)]).expect("synced");
        let redirected = self.rules.take_redirected();
        let own = BTreeSet::from([NODE]);
        let conntrack = Conntrack::open().expect("connection tracking");
        conntrack.forget(|flow| is_stale(flow, &redirected, &own)).expect("forgotten");
    }

    /// A machine outside the cluster, which reaches the node by 203.0.113.1.
    fn stranger(&self) -> Pod {
        let stranger = Pod::at(4, STRANGER);
        run("ip link set veth4 name outside4");
        run("ip addr add 203.0.113.1/32 dev outside4");
        run("ip link set outside4 up");
        run(&format!("ip route replace {STRANGER}/32 dev outside4"));
        stranger
    }
}

/// Each test in a thread of its own: the network namespace is the thread's.
fn on_a_node(test: impl FnOnce(Node) + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root for network namespaces and nftables");
        return;
    }
    std::thread::spawn(|| test(Node::new())).join().expect("the test's thread");
}

#[test]
fn a_cluster_ip_answers_pods_and_the_node_and_spreads_over_the_endpoints() {
    on_a_node(|mut node| {
        let ips = [node.pods[0].ip, node.pods[1].ip];
        node.lead_to(&ips);
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..200 {
            let said = ask(SERVICE, 80).expect("the node reaches the Service");
            *counts.entry(said.split(' ').next().expect("a word").to_owned()).or_default() += 1;
        }
        assert_eq!(counts.len(), 2, "{counts:?}");
        // 200 fair draws stray from 100 by more than 50 about once in 10^12 runs.
        assert!(counts.values().all(|count| (50..=150).contains(count)), "{counts:?}");
        let from_pod = node.pods[0].inside(|| (0..200).map(|_| ask(SERVICE, 80)).filter(Result::is_err).count());
        assert_eq!(from_pod, 0, "connections that failed");
    });
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() {
    on_a_node(|mut node| {
        node.lead_to(&[node.pods[0].ip]);
        let said = node.pods[0].inside(|| ask(SERVICE, 80)).expect("an answer");
        assert!(said.starts_with("10.200.0.2 sees"), "{said}");
        let other = node.pods[1].inside(|| ask(SERVICE, 80)).expect("an answer");
        assert_eq!(other, "10.200.0.2 sees 10.200.0.3");
    });
}

#[test]
fn a_node_port_answers_on_the_nodes_addresses() {
    on_a_node(|mut node| {
        node.lead_to(&[node.pods[1].ip]);
        assert!(ask(NODE, NODE_PORT).expect("from the node").starts_with("10.200.0.3"));
        assert!(node.pods[0].inside(|| ask(NODE, NODE_PORT)).expect("from a pod").starts_with("10.200.0.3"));
    });
}

#[test]
fn without_endpoints_connections_are_refused_at_once_and_with_them_they_work_again() {
    on_a_node(|mut node| {
        for endpoints in [vec![node.pods[0].ip], vec![], vec![node.pods[0].ip, node.pods[1].ip], vec![]] {
            node.lead_to(&endpoints);
            let asked = [
                ask(SERVICE, 80),
                node.pods[0].inside(|| ask(SERVICE, 80)),
                ask(NODE, NODE_PORT),
                node.pods[1].inside(|| ask(NODE, NODE_PORT)),
            ];
            for answer in asked {
                match answer {
                    Ok(_) => assert!(!endpoints.is_empty()),
                    Err(kind) => assert_eq!((kind, endpoints.len()), (ErrorKind::ConnectionRefused, 0)),
                }
            }
        }
        assert_eq!(ask(Ipv4Addr::new(10, 96, 0, 77), 80), Err(ErrorKind::ConnectionRefused), "no such Service");
    });
}

#[test]
fn the_nodes_own_address_among_services_is_left_to_the_node() {
    on_a_node(|mut node| {
        let dns = Ipv4Addr::new(10, 96, 0, 10);
        let listener = TcpListener::bind((dns, 53)).expect("bound");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = write!(stream, "the node");
            }
        });
        node.set("dns", &json!({"type": "ClusterIP", "clusterIP": dns, "ports": [{"port": 53}]}), &[]);
        assert_eq!(ask(dns, 53), Ok("the node".to_owned()));
        assert_eq!(node.pods[0].inside(move || ask(dns, 53)), Ok("the node".to_owned()));
    });
}

#[test]
fn a_table_that_somebody_emptied_is_made_anew_with_everything_in_it() {
    on_a_node(|mut node| {
        node.lead_to(&[node.pods[0].ip]);
        Rules::remove("reeve-test").expect("removed");
        node.lead_to(&[node.pods[1].ip]);
        assert!(ask(SERVICE, 80).expect("an answer").starts_with("10.200.0.3"));
    });
}

#[test]
fn a_new_process_takes_the_table_over_without_a_gap() {
    on_a_node(|mut node| {
        node.lead_to(&[node.pods[0].ip]);
        let surroundings = node.rules.surroundings().clone();
        node.rules = Rules::new("reeve-test".to_owned(), surroundings).expect("a socket");
        assert!(ask(SERVICE, 80).expect("the old table").starts_with("10.200.0.2 "));
        node.lead_to(&[node.pods[1].ip]);
        assert!(ask(SERVICE, 80).expect("the new one").starts_with("10.200.0.3 "));
    });
}

#[test]
fn a_service_of_a_thousand_endpoints_is_one_transaction() {
    on_a_node(|mut node| {
        let many: Vec<Ipv4Addr> = (0..1000_u32).map(|n| Ipv4Addr::from(0x0ac8_1000 + n)).collect();
        node.lead_to(&many);
        node.lead_to(&[node.pods[0].ip]);
        assert!(ask(SERVICE, 80).is_ok());
    });
}

#[test]
fn a_client_keeps_its_endpoint_for_the_time_of_session_affinity_and_no_longer() {
    on_a_node(|mut node| {
        let affinity =
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 2}}});
        let both = [here(node.pods[0].ip), here(node.pods[1].ip)];
        node.set("web", &affinity, &both);
        let served_by = |said: String| said.split(' ').next().expect("a word").to_owned();
        let first = served_by(ask(SERVICE, 80).expect("an answer"));
        for _ in 0..30 {
            assert_eq!(served_by(ask(SERVICE, 80).expect("an answer")), first);
            assert_eq!(served_by(ask(NODE, NODE_PORT).expect("an answer")), first, "the NodePort is the same Service");
        }
        // Longer than the timeout altogether, but never silent for so long.
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(500));
            assert_eq!(served_by(ask(SERVICE, 80).expect("an answer")), first, "each connection renews the memory");
        }
        let renewed = (0..12).any(|_| {
            std::thread::sleep(Duration::from_millis(2600));
            served_by(ask(SERVICE, 80).expect("an answer")) != first
        });
        assert!(renewed, "after a silence of the timeout another endpoint can be drawn");
    });
}

#[test]
fn affinity_to_an_endpoint_that_is_gone_is_forgotten_and_clients_are_told_apart() {
    on_a_node(|mut node| {
        let affinity =
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}});
        let [one, two] = [node.pods[0].ip, node.pods[1].ip];
        node.set("web", &affinity, &[here(one)]);
        assert!(ask(SERVICE, 80).expect("an answer").starts_with("10.200.0.2 "));
        node.set("web", &affinity, &[here(two)]);
        for _ in 0..5 {
            assert!(ask(SERVICE, 80).expect("an answer").starts_with("10.200.0.3 "));
        }
        node.set("web", &affinity, &[here(one), here(two)]);
        for _ in 0..20 {
            assert!(ask(SERVICE, 80).expect("an answer").starts_with("10.200.0.3 "), "the endpoint of last time");
        }
        let from_pod = |node: &Node| node.pods[0].inside(|| ask(SERVICE, 80)).expect("an answer");
        let own = from_pod(&node);
        let own = own.split(' ').next().expect("a word").to_owned();
        for _ in 0..20 {
            assert!(from_pod(&node).starts_with(&own), "another client has an endpoint of its own");
        }
        // With another timeout other choosers are made, and the old ones go.
        let longer =
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 77}}});
        node.set("web", &longer, &[here(two)]);
        assert!(ask(SERVICE, 80).expect("an answer").starts_with("10.200.0.3 "));
        node.set("web", &json!({}), &[here(two)]);
        assert!(ask(SERVICE, 80).is_ok());
    });
}

#[test]
fn a_udp_client_that_keeps_its_port_follows_the_endpoints() {
    on_a_node(|mut node| {
        node.pods.iter().for_each(Pod::serve_datagrams);
        let [one, two] = [node.pods[0].ip, node.pods[1].ip];
        let udp = json!({"ports": [{"port": 80, "nodePort": NODE_PORT, "protocol": "UDP"}]});
        let clients = [datagrams_to(SERVICE, 80), datagrams_to(NODE, NODE_PORT)];
        let inside = node.pods[1].inside(|| datagrams_to(SERVICE, 80));
        let all = || clients.iter().chain([&inside]);
        // Before the Service is there: the node's own port answers nobody.
        all().for_each(|client| assert!(ask_again(client).is_err()));
        node.set("web", &udp, &[]);
        // The node's own datagrams are refused on their way out, the pod's by an answer.
        all().for_each(|client| assert!(ask_again(client).is_err()));
        assert_eq!(ask_again(&inside), Err(ErrorKind::ConnectionRefused));
        node.set("web", &udp, &[here(one)]);
        all().for_each(|client| assert_eq!(ask_again(client), Ok(one.to_string()), "the first endpoint"));
        node.set("web", &udp, &[here(two)]);
        all().for_each(|client| assert_eq!(ask_again(client), Ok(two.to_string()), "the old endpoint is gone"));
        node.set("web", &udp, &[here(one), here(two)]);
        all().for_each(|client| assert_eq!(ask_again(client), Ok(two.to_string()), "a flow that is well stays"));
        node.sync("web", None);
        all().for_each(|client| assert!(ask_again(client).is_err(), "the Service is gone"));
    });
}

#[test]
fn an_external_address_leads_to_the_service_and_of_two_services_one_has_it() {
    on_a_node(|mut node| {
        let external = Ipv4Addr::new(198, 51, 100, 7);
        let spec = |ip: Ipv4Addr| json!({"type": "ClusterIP", "clusterIP": ip, "externalIPs": [external], "ports": [{"port": 80}]});
        let stranger = node.stranger();
        run(&format!("ip route add {external}/32 dev lo"));
        node.set("b", &spec(SERVICE), &[here(node.pods[0].ip)]);
        let ask_all = |node: &Node| {
            [
                stranger.inside(move || ask(external, 80)),
                node.pods[1].inside(move || ask(external, 80)),
                ask(external, 80),
            ]
        };
        for said in ask_all(&node) {
            assert!(said.expect("an answer").starts_with("10.200.0.2 "));
        }
        // An earlier name takes precedence, whenever it comes; the later one has it again afterwards.
        node.set("a", &spec(Ipv4Addr::new(10, 96, 0, 8)), &[here(node.pods[1].ip)]);
        node.set("b", &spec(SERVICE), &[here(node.pods[0].ip)]);
        for said in ask_all(&node) {
            assert!(said.expect("an answer").starts_with("10.200.0.3 "));
        }
        node.sync("a", None);
        for said in ask_all(&node) {
            assert!(said.expect("an answer").starts_with("10.200.0.2 "));
        }
        node.set("b", &spec(SERVICE), &[]);
        for said in ask_all(&node) {
            assert_eq!(said, Err(ErrorKind::ConnectionRefused));
        }
    });
}

#[test]
fn an_external_local_policy_shows_clients_addresses_and_drops_what_other_nodes_should_serve() {
    on_a_node(|mut node| {
        let stranger = node.stranger();
        let local = json!({"externalTrafficPolicy": "Local"});
        let elsewhere = |ip: Ipv4Addr| json!({"addresses": [ip], "nodeName": "n2"});
        let gateway = Ipv4Addr::new(203, 0, 113, 1);
        let from_stranger = || stranger.inside(move || ask(gateway, NODE_PORT));
        let [one, two] = [node.pods[0].ip, node.pods[1].ip];
        node.set("web", &local, &[here(one), elsewhere(two)]);
        for _ in 0..10 {
            assert_eq!(from_stranger(), Ok(format!("{one} sees {STRANGER}")));
        }
        // For pods the node is but another address: all endpoints serve.
        let seen: BTreeSet<String> =
            (0..40).map(|_| node.pods[0].inside(|| ask(NODE, NODE_PORT)).expect("an answer")).collect();
        assert_eq!(seen.len(), 2, "{seen:?}");
        node.set("web", &json!({}), &[here(one)]);
        let masked = from_stranger().expect("an answer");
        assert!(!masked.contains(&STRANGER.to_string()), "{masked}");
        node.set("web", &local, &[elsewhere(two)]);
        assert_eq!(from_stranger(), Err(ErrorKind::TimedOut), "dropped, so that the load balancer tries another node");
        assert!(node.pods[0].inside(|| ask(NODE, NODE_PORT)).is_ok());
        node.set("web", &local, &[]);
        assert_eq!(from_stranger(), Err(ErrorKind::ConnectionRefused));
    });
}

#[test]
fn an_internal_local_policy_uses_this_nodes_endpoints_only() {
    on_a_node(|mut node| {
        let local = json!({"internalTrafficPolicy": "Local"});
        let [one, two] = [node.pods[0].ip, node.pods[1].ip];
        let elsewhere = json!({"addresses": [two], "nodeName": "n2"});
        node.set("web", &local, &[here(one), elsewhere.clone()]);
        for _ in 0..20 {
            assert!(ask(SERVICE, 80).expect("an answer").starts_with(&format!("{one} ")));
        }
        // The NodePort has a policy of its own.
        let seen: BTreeSet<String> = (0..40).map(|_| ask(NODE, NODE_PORT).expect("an answer")).collect();
        assert_eq!(seen.len(), 2, "{seen:?}");
        node.set("web", &local, &[elsewhere]);
        assert_eq!(node.pods[0].inside(|| ask(SERVICE, 80)), Err(ErrorKind::TimedOut));
    });
}

#[test]
fn a_pod_sends_from_its_own_address_only() {
    on_a_node(|mut node| {
        node.pods.iter().for_each(Pod::serve_datagrams);
        let [one, two] = [node.pods[0].ip, node.pods[1].ip];
        let stranger = node.stranger();
        node.lead_to(&[one]);
        let heard = node.pods[1].inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).expect("bound");
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("set");
            socket
        });
        let send = |from: Ipv4Addr| {
            run(&format!("ip -n {} addr replace {from}/32 dev eth0", node.pods[0].netns));
            node.pods[0].inside(move || {
                UdpSocket::bind((from, 0)).expect("bound").send_to(b"x", (two, 9000)).expect("sent");
            });
            heard.recv_from(&mut [0; 8]).map(|(_, from)| from.ip()).map_err(|err| err.kind())
        };
        assert_eq!(send(one), Ok(one.into()));
        for forged in [STRANGER, NODE, Ipv4Addr::new(10, 200, 0, 66), Ipv4Addr::new(192, 0, 2, 1)] {
            assert_eq!(send(forged), Err(ErrorKind::WouldBlock), "as {forged}");
        }
        assert_eq!(
            stranger.inside(move || ask(two, 8080)),
            Ok(format!("{two} sees {STRANGER}")),
            "others are not held to it"
        );
    });
}

#[test]
fn a_table_that_the_kernel_refuses_is_made_as_soon_as_it_does_not() {
    on_a_node(|mut node| {
        node.lead_to(&[node.pods[0].ip]);
        Rules::remove("reeve-test").expect("removed");
        // No room for the transaction: the kernel takes none of it.
        node.rules.socket().set_room(1).expect("set");
        let entries = entries_of(&json!({}), &[here(node.pods[1].ip)]);
        let change = vec![(ObjectKey::new("default", "web"), Some(entries))];
        assert!(node.rules.sync(change).is_err());
        assert!(node.rules.sync(Vec::new()).is_err(), "still refused");
        node.rules.socket().set_room(1 << 20).expect("set");
        node.rules.sync(Vec::new()).expect("made anew");
        assert!(ask(SERVICE, 80).expect("an answer").starts_with("10.200.0.3 "));
    });
}

#[test]
fn an_update_of_one_service_among_a_thousand_costs_what_it_changes() {
    on_a_node(|mut node| {
        let service = |n: u32| {
            let ip = Ipv4Addr::from(0x0a60_0100 + n);
            json!({"clusterIP": ip, "ports": [{"port": 80, "nodePort": 30_100 + n}]})
        };
        let endpoints = |n: u32| (0..10).map(move |m| here(Ipv4Addr::from(0x0ac8_1000 + 16 * n + m)));
        let key = |n: u32| ObjectKey::new("default", format!("s{n}"));
        let entries = |n: u32, count: usize| entries_of(&service(n), &endpoints(n).take(count).collect::<Vec<_>>());
        let all = (0..1000).map(|n| (key(n), Some(entries(n, 10)))).collect();
        let whole = node.rules.sync(all).expect("synced");
        let one = node.rules.sync(vec![(key(500), Some(entries(500, 9)))]).expect("synced");
        let same = node.rules.sync(vec![(key(500), Some(entries(500, 9)))]).expect("synced");
        assert_eq!(same, 0, "nothing has changed");
        // Another chooser, two elements that lead to it, and the slots that shift: not a thousandth is left to chance.
        assert!(one < 8_000 && whole > 100 * one, "{one} bytes of {whole}");
        node.set("s500", &service(500), &[here(node.pods[0].ip)]);
        assert!(ask(Ipv4Addr::from(0x0a60_0100 + 500), 80).is_ok());
        let gone = (0..1000).map(|n| (key(n), None)).collect();
        node.rules.sync(gone).expect("synced");
        assert!(ask(Ipv4Addr::from(0x0a60_0100 + 500), 80).is_err());
    });
}

/// CRC-32C, the checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

/// An SCTP packet that begins an association: the common header and an INIT chunk.
fn sctp_init(from: u16, to: u16) -> Vec<u8> {
    let chunk = [1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9];
    let mut packet = [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 8], &chunk].concat();
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

#[test]
fn an_sctp_association_begins_at_an_endpoint_although_this_kernel_may_have_no_sctp_sockets() {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
        sockopt,
    };
    const SCTP: u8 = 132;
    on_a_node(|mut node| {
        node.set("web", &json!({"ports": [{"port": 80, "protocol": "SCTP"}]}), &[here(node.pods[1].ip)]);
        let heard = node.pods[1].inside(|| {
            let (family, kind) = (AddressFamily::Packet, SockType::Datagram);
            socket(family, kind, SockFlag::empty(), SockProtocol::EthAll).expect("a packet socket (needs root)")
        });
        setsockopt(&heard, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(5, 0)).expect("set");
        let from = node.pods[0].ip;
        node.pods[0].inside(move || {
            let payload = sctp_init(4000, 80);
            // Length, identification and checksum are the kernel's to fill in.
            let header = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, SCTP, 0, 0];
            let packet = [&header[..], &from.octets(), &SERVICE.octets(), &payload].concat();
            let raw =
                socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).expect("a socket");
            let to = SockaddrIn::from(std::net::SocketAddrV4::new(SERVICE, 0));
            sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()).expect("sent");
        });
        let mut packet = [0; 256];
        loop {
            let length = recv(heard.as_raw_fd(), &mut packet, MsgFlags::empty()).expect("the packet arrives");
            if length >= 24 && packet[0] == 0x45 && packet[9] == SCTP {
                break;
            }
        }
        assert_eq!(packet[16..20], node.pods[1].ip.octets(), "to the endpoint");
        assert_eq!(packet[20..24], [0x0f, 0xa0, 0x1f, 0x90], "from port 4000 to port 8080");
    });
}
