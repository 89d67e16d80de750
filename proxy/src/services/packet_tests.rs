//! The rules against real packets: a node and two pods in network namespaces of their own, without a way out.
//!
//! Needs root. Everything is made by the test and gone with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use nix::sched::{CloneFlags, setns, unshare};
use reeve_client::ObjectKey;

use super::layout::Ranges;
use super::plan::plan;
use super::rules::Rules;
use crate::link::ServiceLink;

const NODE: Ipv4Addr = Ipv4Addr::new(172, 28, 0, 1);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 9);
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
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let netns = format!("rvt-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let ip = Ipv4Addr::new(10, 200, 0, number);
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

fn entries_of(endpoints: &[Ipv4Addr]) -> super::plan::Entries {
    let service: Service = serde_json::from_value(serde_json::json!({"spec": {
        "type": "NodePort", "clusterIP": SERVICE, "ports": [{"port": 80, "nodePort": NODE_PORT}]}}))
    .expect("a service");
    let endpoints: Vec<_> = endpoints.iter().map(|ip| serde_json::json!({"addresses": [ip]})).collect();
    let slice: EndpointSlice = serde_json::from_value(
        serde_json::json!({"addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints}),
    )
    .expect("a slice");
    plan(&service, &[Arc::new(slice)], "n1")
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
        let ranges = Ranges { cluster: "10.200.0.0/16".parse().expect("a range"), service: service_cidr };
        let rules = Rules::new("reeve-test".to_owned(), ranges).expect("the table");
        Self { pods, rules }
    }

    fn lead_to(&mut self, endpoints: &[Ipv4Addr]) {
        self.rules.sync(vec![(ObjectKey::new("default", "web"), Some(entries_of(endpoints)))]).expect("synced");
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
fn a_table_that_somebody_emptied_is_made_anew_with_everything_in_it() {
    on_a_node(|mut node| {
        node.lead_to(&[node.pods[0].ip]);
        Rules::remove("reeve-test").expect("removed");
        node.lead_to(&[node.pods[1].ip]);
        assert!(ask(SERVICE, 80).expect("an answer").starts_with("10.200.0.3"));
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
